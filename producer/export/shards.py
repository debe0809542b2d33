"""Packs samples into shards of a target size. A fetch adds shards and never changes a complete one.

What is in which shard stands in the folder's record (`state`), which is written after each shard: an interrupt
loses the shard in hand and nothing else. Knows nothing of what a shard is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from producer.export.base import Brought
from producer.export.files import is_right, sha256_of
from producer.export.state import Record, SavedShard, as_runs, save
from producer.results.manifest_row import DoneRow


class ShardWriter(Protocol):
    """A shard that is being written."""

    @property
    def size_bytes(self) -> int:
        """What it has grown to, about."""

    def add(self, row: DoneRow, data: bytes) -> None:
        """Add a sample."""


#: Opens a shard's files, which come into being together, whole, when it is left without an error.
OpenShard = Callable[[Path], AbstractContextManager[ShardWriter]]


class _IndexSet:
    """Plan indices, a bit each: a set of ten million numbers would take half a gigabyte."""

    _PAGE_BYTES = 8192

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, runs: Iterable[range]) -> None:
        for run in runs:
            for index in run:
                page, bit = divmod(index, 8 * self._PAGE_BYTES)
                found = self._pages.setdefault(page, bytearray(self._PAGE_BYTES))
                found[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, index: int) -> bool:
        page, bit = divmod(index, 8 * self._PAGE_BYTES)
        return page in self._pages and bool(self._pages[page][bit >> 3] >> (bit & 7) & 1)


class ShardLayout:
    """See the module."""

    def __init__(
        self, folder: Path, record: Record, *, name: str, shard_bytes: int, open_shard: OpenShard
    ) -> None:
        """Check the shards that are there; what was in one that is gone or damaged is fetched again.

        Args:
            name: of a shard, with a place for its number: "data/train-{:05d}.parquet".
        """
        self._folder = folder
        self._name = name
        self._shard_bytes = shard_bytes
        self._open_shard = open_shard
        whole = tuple(shard for shard in record.shards if self._is_whole(shard))
        self._record = replace(record, shards=whole)
        for shard in record.shards:
            if shard not in whole:
                self._remove(shard)
        self._held = _IndexSet()
        for shard in self._record.shards:
            self._held.add(shard.runs)

    @property
    def shards(self) -> tuple[SavedShard, ...]:
        """The shards that are whole."""
        return self._record.shards

    def has(self, row: DoneRow) -> bool:
        """Return whether a job is in a shard."""
        return row["index"] in self._held

    def place(self, row: DoneRow, data: bytes) -> None:
        """Do nothing: samples of a shard are written in order."""

    def write(self, brought: Iterator[Brought]) -> None:
        """Fill shards with what was read now; the last one may be small."""
        samples = (
            (row, item.data)
            for item in brought
            if (row := item.image_row) is not None and item.data is not None
        )
        for row, data in samples:
            number = self._free_number()
            path = self._folder / self._name.format(number)
            indices = [row["index"]]
            with self._open_shard(path) as shard:
                shard.add(row, data)
                while shard.size_bytes < self._shard_bytes and (following := next(samples, None)):
                    shard.add(*following)
                    indices.append(following[0]["index"])
            self._note(path, number, indices)
        save(self._folder, self._record)

    def _note(self, path: Path, number: int, indices: list[int]) -> None:
        shard = SavedShard(
            file_name=self._name.format(number),
            number=number,
            size_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            runs=as_runs(indices),
        )
        ordered = sorted([*self._record.shards, shard], key=lambda shard: shard.number)
        self._record = replace(self._record, shards=tuple(ordered))
        save(self._folder, self._record)

    def _free_number(self) -> int:
        """Return the lowest number no whole shard has: names stay without a gap, and a damaged one is replaced."""
        taken = {shard.number for shard in self._record.shards}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _remove(self, shard: SavedShard) -> None:
        """Remove what is left of a shard, and what stands beside it: nobody is to train on it."""
        path = self._folder / shard.file_name
        for left in path.parent.glob(f"{path.stem}*"):
            left.unlink()

    def _is_whole(self, shard: SavedShard) -> bool:
        return is_right(self._folder / shard.file_name, size_bytes=shard.size_bytes, sha256=shard.sha256)
