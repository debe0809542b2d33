"""Counts the distinct images of a plan from the sets of values on its axes, without going through its jobs.

A plain block is a product of axes, so its images are a product of sets: one for the guidance scales that guide, and
one for those that do not, where all negative prompts and rules make one image. Two such products have as many images
in common as their sets have, multiplied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.job import GUIDED_FIELDS, Job
from shared.plan import Axis, Block, Plan, SeedRange

#: Combinations written out where two sweeps group their fields differently (one has cases, the other lists).
EXPANDED_MAX = 2_000_000

#: The different values of some fields that move together; consecutive seeds stay a range.
Values = frozenset[tuple[Any, ...]] | range


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueProduct:
    """A product of sets of values. No two of its combinations are the same image."""

    #: Fields that move together -> their values.
    parts: Mapping[tuple[str, ...], Values]

    @property
    def images(self) -> int:
        """How many combinations there are."""
        return math.prod(map(count, self.parts.values()))

    def values(self, field: str) -> Iterator[Any]:
        """Yield the values of one field; of fields that move together, some more than once."""
        for fields, values in self.parts.items():
            if field in fields:
                position = fields.index(field)
                yield from values if isinstance(values, range) else (value[position] for value in values)

    def holds(self, job: Job) -> bool:
        """Return whether a job is one of the combinations."""
        for fields, values in self.parts.items():
            found = tuple(_used(job, field) for field in fields)
            if (found[0] if isinstance(values, range) else found) not in values:
                return False
        return True


def block_boxes(plan: Plan, block: Block) -> tuple[ValueProduct, ...]:
    """Return the images of a plain block: with guidance, and without."""
    axes = [plan.axes[position] for position in block.axes]
    scales = next(axis for axis in axes if "guidance_scale" in axis.fields)
    position = scales.fields.index("guidance_scale")
    guided: list[tuple[Any, ...]] = []
    unguided: list[tuple[Any, ...]] = []
    for digit in range(scales.length):
        value = scales.at(digit)
        (guided if value[position] > 1.0 else unguided).append(value)
    others = [axis for axis in axes if axis is not scales]
    boxes = []
    if guided:
        parts = {axis.fields: _values(axis) for axis in others}
        boxes.append(ValueProduct(parts={**parts, scales.fields: frozenset(guided)}))
    if unguided:
        parts = {axis.fields: _unguided(axis.fields, _values(axis)) for axis in others}
        boxes.append(
            ValueProduct(parts={**parts, scales.fields: _unguided(scales.fields, frozenset(unguided))})
        )
    return tuple(boxes)


def shared_images(left: ValueProduct, right: ValueProduct) -> int | None:
    """Return how many combinations two boxes have in common; None where counting them would take too long."""
    common = 1
    for fields in _groups(left, right):
        first, second = _joined(left, fields), _joined(right, fields)
        if first is None or second is None:
            return None
        common *= _count_common(first, second)
    return common


def count(values: Values) -> int:
    """Return how many values there are: len() of a range ends at 2**63."""
    return values.stop - values.start if isinstance(values, range) else len(values)


def _used(job: Job, field: str) -> Any:
    """Return a job's value of a field as its id has it."""
    return None if field in GUIDED_FIELDS and not job.guided else getattr(job, field)


def _values(axis: Axis) -> Values:
    if isinstance(axis, SeedRange):
        return range(axis.start, axis.start + axis.count)
    return frozenset(axis.at(digit) for digit in range(axis.length))


def _unguided(fields: tuple[str, ...], values: Values) -> Values:
    """Return values as far as a job without guidance uses them."""
    if isinstance(values, range) or not set(fields) & set(GUIDED_FIELDS):
        return values
    return frozenset(
        tuple(None if field in GUIDED_FIELDS else part for field, part in zip(fields, value, strict=True))
        for value in values
    )


def _groups(left: ValueProduct, right: ValueProduct) -> list[tuple[str, ...]]:
    """Return the fields in the smallest groups that neither box ties to another group's."""
    groups: list[set[str]] = []
    for fields in (*left.parts, *right.parts):
        tied = [group for group in groups if group & set(fields)]
        groups = [group for group in groups if group not in tied]
        groups.append(set(fields).union(*tied))
    return [tuple(sorted(group)) for group in groups if group]


def _joined(box: ValueProduct, fields: tuple[str, ...]) -> Values | None:
    """Return the values of a group of fields as tuples in the order of `fields`; None for too many."""
    parts = {named: values for named, values in box.parts.items() if named and set(named) <= set(fields)}
    if list(parts) == [fields]:
        return parts[fields]
    if math.prod(map(count, parts.values())) > EXPANDED_MAX:
        return None
    names = [field for named in parts for field in named]
    order = [names.index(field) for field in fields]
    sides = [[(seed,) for seed in v] if isinstance(v, range) else list(v) for v in parts.values()]
    rows = (tuple(itertools.chain.from_iterable(row)) for row in itertools.product(*sides))
    return frozenset(tuple(row[place] for place in order) for row in rows)


def _count_common(first: Values, second: Values) -> int:
    if isinstance(first, range):
        if isinstance(second, range):
            return max(0, min(first.stop, second.stop) - max(first.start, second.start))
        return _count_seeds(second, first)
    if isinstance(second, range):
        return _count_seeds(first, second)
    return len(first & second)


def _count_seeds(seeds: frozenset[tuple[Any, ...]], span: range) -> int:
    return len([seed for (seed,) in seeds if seed in span])
