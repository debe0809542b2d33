"""A sweep's images and metadata into a folder: resumable, each file checked against its sha256.

Layout: images/<index>-<start of job id>.png, metadata.jsonl (a line a job, with `file_name`), sweep.yaml and the
manifests. What is there and right is not read again; a running sweep can be fetched again and again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.results import Where, manifest_rows, to_json_line
from shared import names
from shared.errors import ObjectMissing, StoreError
from shared.store.base import Store

#: Images read at once.
_READERS = 16

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
    on_image: Callable[[int], None] = lambda total: None,
) -> Fetched:
    """Bring home what a sweep has so far.

    Args:
        on_image: called with the number of images after each.

    Raises: UsageError, StoreError. Interrupted, it leaves only whole files.
    """
    rows = list(manifest_rows(sweep, store, where=where))
    for row in rows:
        row["file_name"] = _file_name(row) if row["status"] == "done" else None
    _make_folder(folder / "images")
    made = [row for row in rows if row["file_name"]]
    written, broken = 0, []
    stop = threading.Event()
    with ThreadPoolExecutor(_READERS) as pool:
        futures = [pool.submit(_fetch_one, row, store, folder, stop) for row in made]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                written += outcome == "fetched"
                if outcome not in ("fetched", "skipped"):
                    broken.append(outcome)
                on_image(len(made))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    _write_lines(folder / "metadata.jsonl", (to_json_line(row) for row in rows))
    _copy_documents(sweep, store, folder)
    return Fetched(
        folder=folder,
        fetched=written,
        skipped=len(made) - written - len(broken),
        failed=len(rows) - len(made),
        broken=tuple(sorted(broken)),
    )


def _file_name(row: dict[str, Any]) -> str:
    return f"images/{row['index']:0{_INDEX_DIGITS}d}-{row['job_id'][:8]}.png"


def _fetch_one(row: dict[str, Any], store: Store, folder: Path, stop: threading.Event) -> str:
    """Return fetched, skipped, or what is wrong with the image."""
    if stop.is_set():
        return "skipped"
    path = folder / row["file_name"]
    if (
        path.is_file()
        and path.stat().st_size == row["size_bytes"]
        and _sha256(path.read_bytes()) == row["sha256"]
    ):
        return "skipped"
    try:
        data = store.get(row["key"])
    except ObjectMissing:
        return f"{row['key']}: gone from {store.url}"
    if _sha256(data) != row["sha256"]:
        return f"{row['key']}: its sha256 is not what the manifest says"
    _write(path, data)
    return "fetched"


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
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror}") from error


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    _write(path, "".join(f"{line}\n" for line in lines).encode())
