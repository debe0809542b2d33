"""Remembers in .printroom/fetch.json which dataset a folder holds, and which jobs are in which shard.

One fetch at a time writes a folder; a folder is one dataset: one sweep, one format, one choice of jobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from producer.export.files import make_folder, write_whole
from shared.errors import StoreError, UsageError

#: Version of fetch.json.
_FORMAT = 1

_PLACE = ".printroom"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedShard:
    """A shard that is whole."""

    #: Its place in the folder, and its number, which is part of it.
    file_name: str
    number: int
    size_bytes: int
    sha256: str
    #: Plan indices of its samples, in their order.
    runs: tuple[range, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Whose dataset a folder holds, and its shards."""

    sweep: str
    layout: str
    #: Conditions that jobs had to meet, as they are written on the command line.
    where: tuple[str, ...]
    shards: tuple[SavedShard, ...] = ()


@contextlib.contextmanager
def claimed(folder: Path, wanted: Record) -> Iterator[Record]:
    """Hold a folder against other fetches, and say what it holds of this dataset.

    Raises: UsageError where it holds another dataset, or is being written; StoreError.
    """
    make_folder(folder / _PLACE)
    with _locked(folder / _PLACE / "lock", folder):
        found = _load(folder)
        if found is not None and replace(found, shards=()) != wanted:
            raise UsageError(f"{folder}: {_difference(found, wanted)}: choose another folder")
        if found is None:
            save(folder, wanted)
        yield found or wanted


def save(folder: Path, record: Record) -> None:
    """Write the record down. Raises: StoreError."""
    document = {"format": _FORMAT, **asdict(record), "shards": [_to_json(shard) for shard in record.shards]}
    write_whole(folder / _PLACE / "fetch.json", (json.dumps(document, indent=1) + "\n").encode())


def as_runs(indices: Iterable[int]) -> tuple[range, ...]:
    """Return indices as few ranges, in their order: what a filter leaves of a plan mostly is one stride."""
    runs: list[range] = []
    for index in indices:
        if runs and len(runs[-1]) == 1 and index > runs[-1].start:
            runs[-1] = range(runs[-1].start, index + 1, index - runs[-1].start)
        elif runs and len(runs[-1]) > 1 and index == runs[-1][-1] + runs[-1].step:
            runs[-1] = range(runs[-1].start, index + 1, runs[-1].step)
        else:
            runs.append(range(index, index + 1))
    return tuple(runs)


@contextlib.contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another fetch is writing it: wait for that one") from error
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}: fetch into a folder that can be locked") from error
        yield


def _load(folder: Path) -> Record | None:
    path = folder / _PLACE / "fetch.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
        if document.pop("format") != _FORMAT:
            raise ValueError("written by another version")
        shards = tuple(_from_json(shard) for shard in document.pop("shards"))
        return Record(shards=shards, where=tuple(document.pop("where")), **document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}): fetch into another folder") from error


def _difference(found: Record, wanted: Record) -> str:
    if found.sweep != wanted.sweep:
        return f"it holds sweep {found.sweep[:12]}"
    if found.layout != wanted.layout:
        return f"it holds this sweep as {found.layout}"
    return f"it holds the jobs with {', '.join(found.where) or 'no condition'}"


def _to_json(shard: SavedShard) -> dict[str, Any]:
    return {**asdict(shard), "runs": [[run.start, run.stop, run.step] for run in shard.runs]}


def _from_json(document: dict[str, Any]) -> SavedShard:
    return SavedShard(**{**document, "runs": tuple(range(*run) for run in document["runs"])})
