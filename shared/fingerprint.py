"""Names a model by its content: a hash of its configs and weights, or a hub id with its revision.

The same model at two paths has one fingerprint; two fine-tunes never share one. Hashing gigabytes is slow,
so digests of files are remembered by path, size and modification time. Knows nothing of torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ModelUnknown
from shared.model_facts import read_facts
from shared.model_files import SUFFIX, is_checkpoint
from shared.walk import walk_files

#: What decides a model's images: weights, configs, vocabularies, chat templates. Cards, pictures and training
#: leftovers do not.
_COUNTED_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")

_HASH_BLOCK_BYTES = 4 << 20

_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A model as a sweep named it, and what it is."""

    name: str
    #: "sha:<32 hex>" for local files, "hub:<org/name>@<revision>" for a hub model.
    fingerprint: str


def fingerprint_path(path: Path, *, cache: FileHashCache | None = None) -> str:
    """Return the fingerprint of a diffusers folder or of a single `.safetensors` file.

    Folders that are linked in count like folders: what is hashed is what the loader reads.

    Raises: ModelUnknown where there is nothing to hash, or links lead round in a circle.
    """
    cache = cache or FileHashCache(None)
    digest = hashlib.blake2b(digest_size=16)
    try:
        files = _counted_files(path)
    except OSError as error:
        raise ModelUnknown(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from error
    if not files:
        raise ModelUnknown(f"{path}: no model here (a diffusers folder or a .safetensors file)")
    for name, file in files:
        digest.update(f"{name}\0{cache.digest(file)}\n".encode())
    digest.update(_marked(path))
    cache.save()
    return f"sha:{digest.hexdigest()}"


def hub_fingerprint(repo: str, revision: str) -> str:
    """Return the fingerprint of a hub model at a resolved revision (a full commit hash)."""
    return f"hub:{repo}@{revision}"


def parse_hub_name(name: str) -> str | None:
    """Return the fingerprint that `org/name@<40 hex>` spells in full, or None for any other name."""
    match = _HUB_NAME.fullmatch(name)
    return hub_fingerprint(match["repo"], match["revision"]) if match else None


def is_model(path: Path) -> bool:
    """Whether a path looks like a model: a diffusers pipeline folder with weights, or a `.safetensors` file."""
    try:
        if path.is_file():
            return path.suffix.lower() == SUFFIX
        return (path / "model_index.json").is_file() and any(f.suffix == SUFFIX for f in walk_files(path))
    except (OSError, ValueError):  # no path at all: too long, or not ours to look at
        return False


def claims_to_be_a_model(path: Path) -> bool:
    """Whether a path is called a model, though its weights may be missing."""
    try:
        return is_model(path) or (path / "model_index.json").is_file()
    except (OSError, ValueError):
        return False


def find_models(folders: Iterable[Path]) -> list[tuple[str, Path]]:
    """Return (name, path) of every model in folders of models, also in folders inside them; a folder may be a model.

    A `.safetensors` file that is a LoRA, a VAE or the like is none. A damaged model is one, to be named as such.
    """
    models: list[Path] = []
    for folder in folders:
        if is_model(folder):
            models.append(folder)
        elif folder.is_dir():
            models += _models_in(folder)
    return [(path.stem if path.is_file() else path.name, path) for path in models]


def _models_in(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the models in a folder. What cannot be looked at, and links that lead back, are passed over."""
    found: list[Path] = []
    try:
        here = folder.resolve()
        entries = [] if here in above else sorted(folder.iterdir())
    except OSError:
        return found
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            is_pipeline = (path / "model_index.json").is_file()
            if not is_pipeline:
                found += _models_in(path, (*above, here))
            elif not path.with_name(f"{path.name}{SUFFIX}").exists():  # else the configs of that file
                found.append(path)
        elif path.suffix.lower() == SUFFIX and is_checkpoint(path):
            found.append(path)
    return found


class FileHashCache:
    """Digests of files, remembered by path, size and modification time in one JSON file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: dict[str, list[int | str]] = {}
        self._changed = False
        if file is not None:
            with contextlib.suppress(OSError, ValueError):
                entries = json.loads(file.read_text())
                self._entries = entries if isinstance(entries, dict) else {}

    def digest(self, path: Path) -> str:
        """Return a file's blake2b-128, from memory where the file has not changed."""
        stat = path.stat()
        # The time of change too: a copy that keeps the time of modification may be as long as what it replaces.
        key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = self._entries.get(key)
        if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == stamp):
            entry = self._entries[key] = [*stamp, _hash_file(path)]
            self._changed = True
        return str(entry[3])

    def save(self) -> None:
        """Write what was learnt, atomically. A cache that cannot be written is only slow."""
        if self._file is None or not self._changed:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(handle, "w") as out:
                json.dump(self._entries, out)
            os.replace(temporary, self._file)
            self._changed = False


def _counted_files(path: Path) -> list[tuple[str, Path]]:
    """Return what decides a model's images, by name. A single file's configs stand in the folder of its name."""
    if path.is_file():
        return [("", path), *_counted_files(path.with_suffix(""))]
    if not path.is_dir():
        return []
    files = [file for file in walk_files(path) if file.suffix in _COUNTED_SUFFIXES]
    named = [(file.relative_to(path).as_posix(), file) for file in files]
    return sorted((name, file) for name, file in named if not name.startswith("."))


def _marked(path: Path) -> bytes:
    """Return what a single file's own marks make of it, where diffusers would read it otherwise; else nothing.

    Such files were once rendered without their marks (v-prediction as epsilon). So that none of those images is ever
    found again for the right one, reading it as marked makes it another model.
    """
    facts = read_facts(path) if path.is_file() else None
    if facts is None or not facts.marked:
        return b""
    return f"\0{facts.prediction_type} zero_snr={facts.zero_snr}\n".encode()


def _hash_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
