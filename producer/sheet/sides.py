"""Chooses which fields go down the side of a sheet and which along its top, to fit a screen. Knows no pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.sheet.cells import Cell, key
from producer.sheet.grid import WRAP_COLUMNS

#: Width over height of a sheet that a screen shows whole or nearly so: a sheet within it is as good as any other.
ASPECT_MIN, ASPECT_MAX = 0.5, 2.5

#: More columns than this are too small to see on a screen: such rows are broken (`producer.sheet.grid`).
COLUMNS_MAX = WRAP_COLUMNS

#: What broken rows cost: less than a ribbon, more than a sheet that fits.
_BROKEN_ROWS = 0.25

#: Measures in thumbnails: the labels left of the rows, those of an outer field, what stands above a section's rows.
_ROW_LABEL, _OUTER_LABEL, _SECTION_HEAD = 1.5, 1.2, 0.8

#: Fields down the side and along the top, outer first.
Sides = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a choice of sides comes to."""

    rows: int
    columns: int
    sections: int
    #: Whether rows, and columns, have an outer field.
    outer_rows: bool = False

    @property
    def aspect(self) -> float:
        """Width over height."""
        width = _ROW_LABEL + _OUTER_LABEL * self.outer_rows + self.columns
        return width / (self.sections * (self.rows + _SECTION_HEAD))

    @property
    def cost(self) -> float:
        """How far it is from a screen: 0 is a fit, and each doubling of the height beyond costs 1."""
        if self.columns > COLUMNS_MAX:
            return _BROKEN_ROWS
        return max(math.log2(ASPECT_MIN / self.aspect), math.log2(self.aspect / ASPECT_MAX), 0.0)


def choose_sides(cells: Sequence[Cell], down: Sequence[str], across: Sequence[str]) -> Sides:
    """Return the sides of a sheet whose makers said nothing: the first choice that fits, else what fits best.

    Args:
        down, across: the fields that vary, first choice first.
    """
    first = _first(down, across)
    counts = _Counts(cells, tuple(dict.fromkeys((*down, *across))))
    best, cost = first, counts.shape(*first).cost
    for sides in _candidates(down, across):
        if cost == 0:
            break
        other = counts.shape(*sides).cost
        if other < cost - 1e-9:
            best, cost = sides, other
    return best


def _first(down: Sequence[str], across: Sequence[str]) -> Sides:
    return (next(name for name in down if name != across[0]),), (across[0],)


def _candidates(down: Sequence[str], across: Sequence[str]) -> Iterator[Sides]:
    """Yield sides of one field or two, those with fewer first, in the order of choice."""
    for total in (2, 3, 4):
        for rows in (1, 2):
            if not 1 <= total - rows <= 2:
                continue
            for columns in itertools.permutations(across, total - rows):
                for side in itertools.permutations([name for name in down if name not in columns], rows):
                    yield side, columns


class _Counts:
    """How many different values some fields have together, each counted once."""

    def __init__(self, cells: Sequence[Cell], varying: tuple[str, ...]) -> None:
        self._cells, self._varying = cells, varying
        self._known: dict[frozenset[str], int] = {frozenset(): 1}

    def shape(self, rows: tuple[str, ...], columns: tuple[str, ...]) -> Shape:
        rest = [name for name in self._varying if name not in (*rows, *columns)]
        return Shape(
            rows=self._count(rows),
            columns=self._count(columns),
            sections=self._count(rest),
            outer_rows=len(rows) > 1,
        )

    def _count(self, names: Sequence[str]) -> int:
        found = frozenset(names)
        if found not in self._known:
            ordered = sorted(names)
            self._known[found] = len({key(cell, ordered) for cell in self._cells})
        return self._known[found]
