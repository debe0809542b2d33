"""One job on a sheet: its state, and its value in every field. Knows no pixels."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from producer.language.fields import FIELDS
from shared.errors import UsageError
from shared.job import Job
from shared.labels import number_of

#: Fields one within the other, down the side and along the top.
LEVELS_MAX = 2

#: `missing` is all that the store alone can say of a job without a result.
CellState = Literal["done", "failed", "waiting", "running", "paused", "cancelled", "missing"]

#: The values of some fields, in the fields' order.
GroupKey = tuple[Hashable, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One job of a sweep and what has become of it."""

    job: Job
    state: CellState
    #: Reads the image's bytes, when the sheet gets to it.
    load: Callable[[], bytes] | None = None
    #: Why it failed, in a few words.
    reason: str | None = None
    #: What the sweep's own variables are in this job; they are fields like any other.
    variables: Mapping[str, Hashable] = field(default_factory=dict)
    #: What stands beside its values in a prompt file: fields to lay a sheet out by, and no axes by themselves.
    columns: Mapping[str, Hashable] = field(default_factory=dict)


def value(cell: Cell, name: str) -> Any:
    """Return what a field is in a job; a size is (width, height)."""
    if name in cell.variables:
        return cell.variables[name]
    if name in cell.columns:
        return cell.columns[name]
    return (cell.job.width, cell.job.height) if name == "size" else getattr(cell.job, name, None)


def key(cell: Cell, names: Sequence[str]) -> GroupKey:
    """Return what several fields are in a job."""
    return tuple(value(cell, name) for name in names)


def variables_of(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return the variables of a sweep, in the order they come in."""
    return tuple(dict.fromkeys(name for cell in cells for name in cell.variables))


def fields_of(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return all that a sheet can be laid out by: the fields of a job, a sweep's variables, columns of its files."""
    cells = list(cells)
    columns = dict.fromkeys(name for cell in cells for name in cell.columns)
    return tuple(dict.fromkeys((*FIELDS, *variables_of(cells), *columns)))


def ordered(name: str, values: Iterable[Hashable]) -> list[Hashable]:
    """Return the different values of a field in the order of a sheet: as they come in, numbers of labels by size."""
    found = list(dict.fromkeys(values))
    if name in FIELDS:
        return found
    numbers = {one: number_of(one) if isinstance(one, str) else None for one in found if one is not None}
    if None in numbers.values():
        return found
    return sorted(found, key=lambda one: (one is None, numbers.get(one) or 0))


def check_axes(rows: Sequence[str], columns: Sequence[str], known: Sequence[str] = FIELDS) -> None:
    """Raise UsageError where two sides of a sheet are not one or two known fields each, all different."""
    for side, names in (("rows", rows), ("columns", columns)):
        if not 1 <= len(names) <= LEVELS_MAX:
            raise UsageError(
                f"{side} {', '.join(names) or '(none)'}: name one field, or two one in the other"
            )
    for name in (*rows, *columns):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
            raise UsageError(f"unknown field {name!r}: {fix}")
    for name in (*rows, *columns):
        if name in rows and name in columns:
            raise UsageError(f"rows and columns are both {name!r}: name two fields")
        if (*rows, *columns).count(name) > 1:
            raise UsageError(f"{name!r} is named twice on one side: name two fields")
