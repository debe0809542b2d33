"""Fetches a sweep's images and metadata into a folder: resumable, each file checked against its sha256.

What is there and right is not read again; a running sweep can be fetched again and again. The layouts are in
`producer.export`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal, get_args

from producer.export import parquet, webdataset
from producer.export.base import ExportLayout, Tally, bring
from producer.export.card import CARD_LAYOUTS, CardFacts, write_card
from producer.export.files import make_folder, replacing, write_new
from producer.export.folder import FolderLayout
from producer.export.hf import ImageFolderLayout
from producer.export.jsonl import write_jsonl
from producer.export.shards import OpenShard, ShardLayout
from producer.export.state import Record, claimed
from producer.language.wording import show
from producer.results.manifest_row import ManifestRow
from producer.results.rows import manifest_rows, manifests, to_json_line, with_urls
from producer.results.where import Where, read_where, where_texts
from shared import names
from shared.errors import ObjectMissing, UsageError
from shared.plan import Plan
from shared.store.base import PRESIGN_SECONDS_MAX, Store

LayoutName = Literal["folder", "webdataset", "parquet", "hf", "jsonl"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
Status = Literal["all", "ok", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

#: Size of a shard where nobody says: large enough to stream well, small enough to fetch again.
EXPORT_SHARD_BYTES = 10**9

#: A smaller shard is a typing error.
SHARD_BYTES_MIN = 1_000_000

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(_UNITS)})", re.IGNORECASE)

#: ExportLayout in shards -> what a shard is called, and what writes it.
_SHARDED: dict[str, tuple[str, OpenShard]] = {
    "webdataset": (webdataset.SHARD_NAME, webdataset.open_tar_shard),
    "parquet": (parquet.SHARD_NAME, parquet.open_parquet_shard),
}

#: Value of the column `status` that a status is about.
_STATUS_ROWS = {"ok": "done", "failed": "failed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchOptions:
    """How a sweep is to come home."""

    layout: LayoutName = "folder"
    #: Jobs to write down: all, those that have an image, or those that failed.
    status: Status = "all"
    #: About how large a shard gets, bytes; None is EXPORT_SHARD_BYTES.
    shard_bytes: int | None = None
    #: Caption and row beside each image of a folder.
    sidecars: bool = False
    #: Write failed.jsonl: the failed jobs with their reasons.
    with_failed: bool = False
    #: Write a dataset card, for a layout that is a dataset.
    card: bool = True
    #: Add a URL to each line of results.jsonl that works for so many seconds.
    url_seconds: int | None = None

    def __post_init__(self) -> None:
        """Refuse what a layout does not do. Raises: UsageError."""
        for value, known in ((self.layout, LAYOUTS), (self.status, STATUSES)):
            if value not in known:
                raise UsageError(f"{value!r}: use {', '.join(known)}")
        for name in ("shard_bytes", "url_seconds"):
            if type(getattr(self, name)) not in (int, type(None)):
                raise UsageError(f"{name}={show(getattr(self, name))}: use a whole number, or None")
        if self.sidecars and self.layout != "folder":
            raise UsageError("--sidecars goes with --format folder: the other formats hold captions and rows")
        if self.shard_bytes is not None and self.layout not in _SHARDED:
            raise UsageError(f"--shard-size goes with --format {' or '.join(_SHARDED)}")
        if self.url_seconds is not None and self.layout != "jsonl":
            raise UsageError("--urls goes with --format jsonl: the other formats bring the images")
        if self.url_seconds is not None and not 1 <= self.url_seconds <= PRESIGN_SECONDS_MAX:
            raise UsageError(
                f"url_seconds={self.url_seconds}: use a whole number, 1 to {PRESIGN_SECONDS_MAX}"
            )
        if self.status == "failed" and self.layout in CARD_LAYOUTS:
            raise UsageError(
                f"--status failed: a failed job has no image to put into {self.layout}: use --format jsonl"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What a fetch did."""

    folder: Path
    #: Images written now, and those that were there already and right.
    fetched: int
    skipped: int
    #: Jobs that failed, and with which code how many.
    failed: int
    failures: dict[str, int]
    #: Images the store no longer has intact.
    broken: tuple[str, ...]
    #: Jobs written down, and shards of the dataset.
    rows: int = 0
    shards: int = 0


def fetch(
    sweep: str,
    store: Store,
    folder: Path,
    *,
    where: Where | None = None,
    options: FetchOptions | None = None,
    name: str = "sweep",
    jobs: int | None = None,
    plan: Plan | None = None,
    on_image: Callable[[int | None], None] = lambda total: None,
) -> Fetched:
    """Bring home what a sweep has so far, one chunk after another: memory does not grow with the sweep.

    Args:
        name: of the sweep, for the dataset's card.
        jobs: how many there are, where that is known, for the card and for `on_image`.
        plan: of the sweep, where it is at hand, for labels that old manifests lack.
        on_image: called after each job with how many there will be, where that is known.

    Raises: UsageError, StoreError. Interrupted, it leaves only whole files.
    """
    options, where, tally = options or FetchOptions(), read_where(where or {}), Tally()
    on_row = partial(on_image, None if where else jobs)
    with ExitStack() as stack:
        layout = _layout(stack, folder, sweep, where, options)
        failed = stack.enter_context(replacing(folder / "failed.jsonl")) if options.with_failed else None
        rows = _rows(manifest_rows(sweep, store, where=where, plan=plan), options.status, tally, failed)
        if layout is None:
            write_jsonl(folder, _listed(_with_urls(rows, store, options), tally, on_row))
        else:
            with closing(bring(rows, layout, store, tally, on_row)) as brought:
                layout.write(brought)
        source = _copy_source(sweep, store, folder)
        if options.layout == "folder":
            _copy_manifests(sweep, store, folder)
        facts = CardFacts(
            sweep=sweep,
            name=name,
            layout=options.layout,
            where=where_texts(where),
            jobs=jobs,
            source=source,
        )
        if options.card and options.layout in CARD_LAYOUTS:
            write_card(folder / "README.md", facts, tally)
    return _report(folder, tally, layout)


def parse_size(text: str) -> int:
    """Return the bytes that `1GB`, `500 MB`, `256MiB` or a plain number means. Raises: UsageError."""
    match = _SIZE.fullmatch(text.strip())
    size = round(float(match[1]) * _UNITS[match[2].casefold()]) if match else 0
    if size < SHARD_BYTES_MIN:
        raise UsageError(f"{text!r}: use a size of 1MB or more, such as 500MB, 1GB or 256MiB")
    return size


def _layout(
    stack: ExitStack, folder: Path, sweep: str, where: Where, options: FetchOptions
) -> ExportLayout | None:
    """Return how the rows are laid out; None is a list of rows and no more.

    A dataset's folder is claimed first: two datasets in one folder would be neither.
    """
    if options.layout == "jsonl":
        return None
    if options.layout == "folder":
        return FolderLayout(folder, sidecars=options.sidecars)
    wanted = Record(sweep=sweep, layout=options.layout, where=where_texts(where))
    record = stack.enter_context(claimed(folder, wanted))
    if options.layout == "hf":
        return ImageFolderLayout(folder)
    name, open_shard = _SHARDED[options.layout]
    size = options.shard_bytes or EXPORT_SHARD_BYTES
    return ShardLayout(folder, record, name=name, shard_bytes=size, open_shard=open_shard)


def _rows(
    rows: Iterator[ManifestRow], status: Status, tally: Tally, failed: IO[bytes] | None
) -> Iterator[ManifestRow]:
    """Yield the rows of a status; count the failed ones in any case, and write them down if there is a file for it."""
    wanted = _STATUS_ROWS.get(status)
    for row in rows:
        if row["status"] == "failed":
            tally.failures[row["error_code"]] += 1
            if failed is not None:
                failed.write(f"{to_json_line(row)}\n".encode())
        if wanted is None or row["status"] == wanted:
            yield row


def _with_urls(rows: Iterator[ManifestRow], store: Store, options: FetchOptions) -> Iterator[ManifestRow]:
    if options.url_seconds is None:
        return rows
    return with_urls(rows, store, expires_seconds=options.url_seconds)


def _listed(rows: Iterator[ManifestRow], tally: Tally, on_row: Callable[[], None]) -> Iterator[ManifestRow]:
    for row in rows:
        tally.rows += 1
        on_row()
        yield row


def _copy_source(sweep: str, store: Store, folder: Path) -> str:
    """Bring the sweep's file. Returns its text; empty where the store has none."""
    try:
        data = store.get(names.source_key(sweep))
    except ObjectMissing:
        return ""
    write_new(folder / "sweep.yaml", data)
    return data.decode(errors="replace")


def _copy_manifests(sweep: str, store: Store, folder: Path) -> None:
    make_folder(folder / "manifest")
    for key, data in manifests(sweep, store):
        write_new(folder / "manifest" / key.rsplit("/", 1)[1], data)


def _report(folder: Path, tally: Tally, layout: ExportLayout | None) -> Fetched:
    return Fetched(
        folder=folder,
        fetched=tally.fetched,
        skipped=tally.skipped,
        failed=tally.failures.total(),
        failures=dict(tally.failures),
        broken=tuple(sorted(tally.broken)),
        rows=tally.rows,
        shards=len(layout.shards) if isinstance(layout, ShardLayout) else 0,
    )
