"""Chooses which fields go along the side of a sheet and which along its top, or a plain list, to fit a screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from producer.sheet.cells import Cell, value
from producer.sheet.grid import SPARSE
from producer.sheet.layout import label_px
from producer.sheet.shape import GridShape

#: What it costs that an axis is in no label, since it follows from the others, and that the outer field of a side
#: makes groups of one: more than nothing.
_UNSAID = _LONELY = 0.1

#: Fields down the side and along the top, outer first. A list has none down the side.
Sides = tuple[tuple[str, ...], tuple[str, ...]]


def choose_sides(
    cells: Sequence[Cell], down: Sequence[str], across: Sequence[str], *, box: tuple[int, int]
) -> Sides:
    """Return the sides of a sheet whose makers said nothing: the first choice that fits, else what fits best.

    A single axis makes a list, and so do several where most places of every grid would be empty.

    Args:
        down, across: the fields that vary, first choice first.
        box: width and height of an image on the sheet.
    """
    listed: Sides = (), tuple(down)
    counts = _Counts(cells, tuple(down))
    axes = counts.axes()
    if len(axes) < 2:
        return listed
    best, cost = listed, math.inf
    for sides in _candidates(axes, [name for name in across if name in axes]):
        other = _cost(counts, axes, sides, box)
        if other < cost - 1e-9:
            best, cost = sides, other
        if cost <= 0:
            break
    return listed if counts.filled(best) < SPARSE else best


def _cost(counts: _Counts, axes: Sequence[str], sides: Sides, box: tuple[int, int]) -> float:
    """Return how far a choice is from a full grid on a screen; a grid half empty is as bad as one twice as high."""
    rows, columns = sides
    left = counts.left(sides)
    shape = GridShape(
        rows=counts.of(rows),
        columns=counts.of(columns),
        sections=counts.of(left),
        box=box,
        left_px=label_px(rows),
        groups=counts.of(columns[:-1]),
    )
    unsaid = [name for name in axes if name not in (*rows, *columns, *left)]
    empty = -math.log2(counts.filled(sides))
    lonely = [side for side in sides if len(side) > 1 and counts.of(side[:1]) == counts.of(side)]
    return shape.cost(shape.strip_columns) + empty + _UNSAID * len(unsaid) + _LONELY * len(lonely)


def _candidates(down: Sequence[str], across: Sequence[str]) -> Iterator[Sides]:
    """Yield sides of one field or two: the first choice, then those with fewer first, in the order of choice."""
    yield (next(name for name in down if name != across[0]),), (across[0],)
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
        self._varying = varying
        self._numbers = {name: _numbered([value(cell, name) for cell in cells]) for name in varying}
        self._known: dict[frozenset[str], int] = {frozenset(): 1}
        self._jobs = len(cells)

    def of(self, names: Sequence[str]) -> int:
        """Return how many different values fields have together."""
        found = frozenset(names)
        if found not in self._known:
            self._known[found] = self._count(sorted(found))
        return self._known[found]

    def axes(self) -> list[str]:
        """Return the fields that make a grid: not what each job has its own of, and one of those zipped together."""
        found: list[str] = []
        for name in self._varying:
            zipped = (self.of((name,)) == self.of((other,)) == self.of((name, other)) for other in found)
            if self.of((name,)) < self.of(self._varying) and not any(zipped):
                found.append(name)
        return found

    def left(self, sides: Sides) -> list[str]:
        """Return the fields that make sections: not those on the sides, nor what follows from the others."""
        placed = (*sides[0], *sides[1])
        kept = [name for name in self._varying if name not in placed]
        for name in reversed(tuple(kept)):
            rest = [other for other in kept if other != name]
            if self.of((*placed, *rest)) == self.of((*placed, *rest, name)):
                kept = rest
        return kept

    def filled(self, sides: Sides) -> float:
        """Return how much of the places of all sections have a job, pairs on a side that never occur among them."""
        places = math.prod(self._pairs(side) for side in sides) * self.of(self.left(sides))
        return self.of(self._varying) / places

    def _pairs(self, side: Sequence[str]) -> int:
        """Return how many values a side may have: those that occur, where a field belongs to another."""
        together = self.of(side)
        alone = [self.of((name,)) for name in side]
        return together if together in alone else math.prod(alone)

    def _count(self, names: Sequence[str]) -> int:
        together = np.zeros(1, np.int64)
        for name in names:
            if int(together.max()) + 1 == self._jobs:
                break  # each job has its own already
            numbers = self._numbers[name]
            # Numbered anew after each field, so that the numbers stay small.
            together = np.unique(together * (int(numbers.max()) + 1) + numbers, return_inverse=True)[1]
        return int(together.max()) + 1


def _numbered(values: Sequence[object]) -> npt.NDArray[np.int64]:
    """Return the number of each value among the different ones."""
    numbers = {one: number for number, one in enumerate(dict.fromkeys(values))}
    return np.array([numbers[one] for one in values], np.int64)
