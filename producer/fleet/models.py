"""Resolves a model's name to its fingerprint, from this machine's folders and from what live workers announce.

A producer needs no weights: a worker that holds a model has hashed it. A name that nobody knows, or that means
two different models, is an error that lists what there is.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ModelAmbiguous, ModelDamaged, ModelUnknown
from shared.fingerprint import (
    FileHashCache,
    ResolvedModel,
    claims_to_be_a_model,
    find_models,
    fingerprint_path,
    is_model,
    parse_hub_name,
)
from shared.ledger import WorkerInfo
from shared.model_files import what_is_wrong
from shared.model_reading import split_reading
from shared.names import DEFAULT_MODEL

#: Where a model's folder describes it.
_CARDS = ("MODEL_CARD.md", "README.md")

_FINGERPRINT = re.compile(r"sha:[0-9a-f]{32}|hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")

#: In place of a fingerprint, for a model whose files are damaged.
DAMAGED = "damaged"

#: How the names of weights end that are programs: reading one may do anything.
_PICKLED = (".ckpt", ".pt", ".pth", ".bin")

#: Digits of a content hash that tell models apart in a message, and choose one as `name@sha:1234abcd`.
_SHORT_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownModel:
    """A model somebody has."""

    name: str
    fingerprint: str
    #: A folder of this machine, or the names of workers.
    places: tuple[str, ...]
    #: Why it cannot be loaded, where every place it is known from is damaged; "" where nothing is seen to be wrong.
    broken: str = ""


def known_models(
    folders: Iterable[Path], workers: Sequence[WorkerInfo], *, cache_dir: Path
) -> list[KnownModel]:
    """Return every model this machine or a live worker has, by name; the one that comes with Printroom is here."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    broken: dict[tuple[str, str], str] = {}
    hashes = FileHashCache(cache_dir / "fingerprints.json")
    for name, path in find_models([*_bundled(), *folders]):
        problem = what_is_wrong(path)
        # What is damaged is not hashed: gigabytes, for a name that nothing may use.
        key = (name, DAMAGED if problem else fingerprint_path(path, cache=hashes))
        places[key].append(str(path))
        if problem:
            broken[key] = problem
    for worker in workers:
        for fingerprint, names in worker.models.items():
            for name in names:
                places[name, fingerprint].append(f"worker {worker.name}")
    return [
        KnownModel(
            name=name,
            fingerprint=fingerprint,
            places=tuple(where),
            broken=broken.get((name, fingerprint), ""),
        )
        for (name, fingerprint), where in sorted(places.items())
    ]


def bundled_fingerprints(cache_dir: Path) -> set[str]:
    """Return the fingerprint of the model that comes with Printroom, which every worker of this version holds."""
    return {model.fingerprint for model in known_models((), (), cache_dir=cache_dir)}


def model_card(name: str, known: Sequence[KnownModel]) -> str:
    """Return what a model's folder says of it. Raises: ModelUnknown."""
    places = [place for model in known if model.name == name for place in model.places]
    if not places:
        raise ModelUnknown(f"model {name!r}: not known; `printroom models` lists what there is")
    for place, card in itertools.product(places, _CARDS):
        if (Path(place) / card).is_file():
            return (Path(place) / card).read_text(encoding="utf-8")
    raise ModelUnknown(f"model {name!r} has no card on this machine; it is at: {', '.join(places)}")


def resolve_model(name: str, known: Sequence[KnownModel], *, cache_dir: Path) -> ResolvedModel:
    """Return what a sweep means by a model's name.

    Args:
        name: a name somebody announces; `name@<start of fingerprint>`; a fingerprint; `org/name@<40 hex>`;
            or a path of this machine. What follows it says how to read the model: `name+v_prediction+zero_snr`.

    Raises: ModelUnknown, ModelAmbiguous, ModelDamaged.
    """
    base, reading = split_reading(name)
    if not reading or any(model.name == name for model in known):
        return _resolve(name, known, cache_dir=cache_dir)
    found = _resolve(base, known, cache_dir=cache_dir)
    return ResolvedModel(name=f"{found.name}{reading}", fingerprint=f"{found.fingerprint}{reading}")


def _resolve(name: str, known: Sequence[KnownModel], *, cache_dir: Path) -> ResolvedModel:
    if _FINGERPRINT.fullmatch(name):
        return ResolvedModel(name=name, fingerprint=name)
    if fingerprint := parse_hub_name(name):
        return ResolvedModel(name=name, fingerprint=fingerprint)
    wanted, _, start = name.partition("@")
    matches = {
        m.fingerprint for m in known if m.name == wanted and not m.broken and m.fingerprint.startswith(start)
    }
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises for ~nobody
    problem = what_is_wrong(path) if not matches and claims_to_be_a_model(path) else ""
    problem = problem or next((m.broken for m in known if m.name == wanted and m.broken), "")
    if not matches and problem:
        raise ModelDamaged(f"model {name!r} cannot be loaded: {problem}")
    if not matches and is_model(path):
        fingerprint = fingerprint_path(path, cache=FileHashCache(cache_dir / "fingerprints.json"))
        return ResolvedModel(name=path.name, fingerprint=fingerprint)
    if len(matches) == 1:
        return ResolvedModel(name=wanted, fingerprint=matches.pop())
    if matches:
        named = [model for model in known if model.name == wanted]
        listed = "; ".join(f"{wanted}@{_short(m.fingerprint)} ({', '.join(m.places)})" for m in named)
        raise ModelAmbiguous(f"model {name!r} means {len(matches)} different models: write one of {listed}")
    if ("/" in name or path.suffix) and (said := _no_model(path)):
        raise ModelUnknown(f"model {name!r} is {said}")
    there_is = ", ".join(sorted({m.name for m in known})) or "none: start a worker, or set PRINTROOM_MODELS"
    raise ModelUnknown(f"model {name!r} is on no live worker and not on this machine; there is: {there_is}")


def _bundled() -> list[Path]:
    """Return the folder of the default model, if it is installed. Looked for, not imported: a worker wants torch."""
    worker = importlib.util.find_spec("worker")
    places = (worker and worker.submodule_search_locations) or []
    return [Path(place) / "models" / DEFAULT_MODEL for place in places]


def _no_model(path: Path) -> str:
    """Return what is at a path that is no model, and what to name instead; "" where there is nothing."""
    try:
        if path.is_dir():
            inside = [found.relative_to(path.parent).as_posix() for _, found in find_models([path])]
            fix = f"name one in it: {', '.join(inside[:3])}" if inside else "a model's folder has one"
            return f"a folder without a model_index.json: {fix}"
        if path.is_file():
            fix = "convert it" if path.suffix.lower() in _PICKLED else "name a model"
            return f"a file that is not read: {fix}: a .safetensors file, or a diffusers folder"
    except (OSError, ValueError):  # no path at all: too long, or not ours to look at
        pass
    return ""


def _short(fingerprint: str) -> str:
    """Return enough of a fingerprint to choose by: some digits of a hash, the whole of a hub revision."""
    return fingerprint[: len("sha:") + _SHORT_DIGITS] if fingerprint.startswith("sha:") else fingerprint
