"""A sweep's images and metadata into a folder: resumable, each file checked against its sha256.

Layout: images/<index>-<start of job id>.<png, ...>, metadata.jsonl (a line a job, with `file_name`), sweep.yaml and the
manifests. What is there and right is not read again; a running sweep can be fetched again and again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from producer.images import read_image
from producer.results import Where, manifest_rows, to_json_line
from shared import names
from shared.errors import ImageDamaged, ObjectMissing, StoreError
from shared.store.base import Store

#: Images read at once.
_READERS = 16

#: Jobs looked after at a time: few, so that an interrupt leaves the rest untouched.
_BATCH_ROWS = 2 * _READERS

_OUTCOMES = ("fetched", "skipped", "failed")

#: Digits of a plan index in a file name: they sort up to ten million.
_INDEX_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What a fetch did."""

    folder: Path
    #: Images written now, and those that were there already and right.
    fetched: int
    skipped: int
    #: Jobs that failed (in metadata.jsonl with their reason), and images the store no longer has intact.
    failed: int
    broken: tuple[str, ...]


def fetch(
    sweep: str,
    store: Store,
    folder: Path,
    *,
    where: Where | None = None,
    jobs: int | None = None,
    on_image: Callable[[int | None], None] = lambda total: None,
) -> Fetched:
    """Bring home what a sweep has so far, one chunk after another: memory does not grow with the sweep.

    Args:
        jobs: how many there will be, where that is known, for `on_image`.
        on_image: called with `jobs` after each job.

    Raises: UsageError, StoreError. Interrupted, it leaves only whole files.
    """
    _make_folder(folder / "images")
    counts: Counter[str] = Counter()
    broken: list[str] = []
    with ThreadPoolExecutor(_READERS) as pool, _replacing(folder / "metadata.jsonl") as lines:
        rows_to_come = manifest_rows(sweep, store, where=where)
        while rows := list(islice(rows_to_come, _BATCH_ROWS)):
            for row in rows:
                row["file_name"] = _file_name(row) if row["status"] == "done" else None
            for outcome in pool.map(partial(_fetch_one, store, folder), rows):
                counts[outcome if outcome in _OUTCOMES else "broken"] += 1
                if outcome not in _OUTCOMES:
                    broken.append(outcome)
                on_image(jobs)
            lines.writelines(f"{to_json_line(row)}\n" for row in rows)
    _copy_documents(sweep, store, folder)
    return Fetched(
        folder=folder,
        fetched=counts["fetched"],
        skipped=counts["skipped"],
        failed=counts["failed"],
        broken=tuple(sorted(broken)),
    )


def _file_name(row: dict[str, Any]) -> str:
    """Return where an image goes: one sweep has one format, so the quality in its key's ending is not repeated."""
    return f"images/{row['index']:0{_INDEX_DIGITS}d}-{row['job_id'][:8]}{names.image_suffix(row['key'])}"


def _fetch_one(store: Store, folder: Path, row: dict[str, Any]) -> str:
    """Return one of _OUTCOMES, or what is wrong with the image."""
    if row["file_name"] is None:
        return "failed"
    path = folder / row["file_name"]
    if _is_there(path, row):
        return "skipped"
    try:
        _write(path, read_image(store, row))
    except ObjectMissing:
        return f"{row['key']}: gone from {store.url}"
    except ImageDamaged as error:
        return str(error)
    return "fetched"


def _is_there(path: Path, row: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != row["size_bytes"]:
        return False
    return bool(_sha256(path.read_bytes()) == row["sha256"])


def _copy_documents(sweep: str, store: Store, folder: Path) -> None:
    with contextlib.suppress(ObjectMissing):
        _write(folder / "sweep.yaml", store.get(names.source_key(sweep)))
    manifests = folder / "manifest"
    _make_folder(manifests)
    for info in store.list(names.manifest_prefix(sweep)):
        path = manifests / info.key.rsplit("/", 1)[1]
        data = store.get(info.key)
        if not path.is_file() or path.read_bytes() != data:
            _write(path, data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    with _replacing(path) as file:
        file.buffer.write(data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[TextIOWrapper]:
    """Write a file beside its place, and put it there only when it is whole."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
