"""Which models this worker holds: folders, single files, hub models on the allow list, and the bundled one.

Knows their fingerprints and names; loads none.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.errors import ModelLoadFailed
from shared.fingerprint import FileHashCache, find_models, fingerprint_path, hub_fingerprint
from shared.model_files import what_is_wrong
from shared.names import DEFAULT_MODEL
from worker.models.bundled import bundled_model
from worker.models.loader import ModelSource

log = logging.getLogger(__name__)


def take_inventory(
    folders: Iterable[Path], hub_models: Iterable[str], *, cache_dir: Path
) -> dict[str, Sequence[ModelSource]]:
    """Return every model this worker can load: fingerprint -> the names and places it has here."""
    hashes = FileHashCache(cache_dir / "fingerprints.json")
    found: dict[str, list[ModelSource]] = defaultdict(list)
    for name, path in [(DEFAULT_MODEL, bundled_model()), *find_models(folders)]:
        problem = what_is_wrong(path)
        if problem:
            log.warning("model_damaged", extra={"model": name, "reason": problem})
            continue
        source = _local_source(name, path, hashes)
        found[source.fingerprint].append(source)
    for spec in hub_models:
        hub_source = _hub_source(spec)
        if hub_source is not None:
            found[hub_source.fingerprint].append(hub_source)
    return dict(found)


def _local_source(name: str, path: Path, hashes: FileHashCache) -> ModelSource:
    fingerprint = fingerprint_path(path, cache=hashes)
    single = path.is_file()
    return ModelSource(
        name=name, fingerprint=fingerprint, kind="single_file" if single else "folder", location=str(path)
    )


def _hub_source(spec: str) -> ModelSource | None:
    """Resolve `org/name[@revision]` to a commit; None, and a warning, where the hub does not answer."""
    repo, _, revision = spec.partition("@")
    try:
        commit = _resolve_revision(repo, revision or None)
    except ModelLoadFailed as error:
        log.warning("hub_model_unresolved", extra={"model": spec, "reason": str(error)})
        return None
    fingerprint = hub_fingerprint(repo, commit)
    return ModelSource(name=repo, fingerprint=fingerprint, kind="hub", location=repo, revision=commit)


def _resolve_revision(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=10).sha
        if commit:
            return str(commit)
    except Exception as error:  # the hub's errors have no common root: network, rights, names
        cached = try_to_load_from_cache(repo, "model_index.json", revision=revision)
        if isinstance(cached, str):  # .../snapshots/<commit>/model_index.json
            return Path(cached).parent.name
        raise ModelLoadFailed(f"{repo}: {error}") from error
    raise ModelLoadFailed(f"{repo}: the hub names no revision")
