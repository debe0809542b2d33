"""Turns {start, stop, step} into its numbers. Knows neither YAML nor the field that they are for.

A range is counted in decimal: the third of {start: 0.1, step: 0.1} is 0.3, not 0.30000000000000004.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from producer.language.problem import Problem
from producer.language.wording import kind, near, show

#: Most values in one range. More on one axis is a slip of the pen.
RANGE_VALUES_MAX = 1_000_000

_KEYS = ("start", "stop", "step", "count")

Number = int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """All numbers from start to stop, for a sample to choose from."""

    start: Number
    #: Larger than start, or equal to it.
    stop: Number
    #: Whether only whole numbers are meant.
    whole: bool

    def values(self, count: int) -> tuple[Number, ...]:
        """Return the midpoints of `count` equal parts, in order; of whole numbers, one in each part.

        Where a span has fewer whole numbers than parts, some come twice.
        """
        if count < 1:
            raise ValueError(f"count={count}: use 1 or more")
        if self.whole:
            start, width = int(self.start), int(self.stop) - int(self.start) + 1
            return tuple(start + (2 * part + 1) * width // (2 * count) for part in range(count))
        (start, stop), scale = _scaled(self.start, self.stop)
        # Integers until the one division, which Python rounds correctly.
        whole = 2 * count * scale
        return tuple((2 * count * start + (2 * part + 1) * (stop - start)) / whole for part in range(count))


def is_range(value: Any) -> bool:
    """Say whether a value is meant as a range: a mapping with one of its keys."""
    return isinstance(value, Mapping) and not value.keys().isdisjoint(_KEYS)


def expand_range(
    name: str, value: Mapping[str, Any], *, whole: bool
) -> tuple[Sequence[Number] | Span, list[Problem]]:
    """Return the numbers of a range, and every problem it has.

    `{start, stop, step}` holds stop where a step falls on it; `{start, count}` has steps of 1, or of `step`;
    `{start, stop}` alone is a `Span`. Whole numbers stay whole. With a problem the numbers are none.

    Args:
        name: what messages call the range: its field.
        whole: whether the field takes whole numbers only.
    """
    problems = [_problem((key,), f"{name}: {text}") for key, text in _key_problems(value, whole)]
    if not problems:
        problems = [_problem((), f"{name}{text}") for text in _shape_problems(value)]
    if problems:
        return (), problems
    start, step = value["start"], value.get("step", 1)
    if "count" in value:
        count = value["count"]
    elif "step" in value:
        count = _steps_between(start, value["stop"], step) + 1
    else:
        return Span(start=start, stop=value["stop"], whole=whole), []
    if count > RANGE_VALUES_MAX:
        return (), [_problem((), f"{name}: {show(count)} values: a range holds at most {RANGE_VALUES_MAX:,}")]
    if not _is_finite(start, step, count):
        return (), [_problem((), f"{name}: the range leaves the numbers there are: use a smaller step")]
    return _numbers(start, step, count), []


def _key_problems(value: Mapping[str, Any], whole: bool) -> list[tuple[str, str]]:
    """Return (key, what is wrong with it) of each key on its own."""
    found = []
    for key, number in value.items():
        if key not in _KEYS:
            found.append((str(key), f"unknown key {show(key)}: {near(str(key), _KEYS)}"))
        elif trouble := _number_problem(number, whole or key == "count"):
            found.append((key, f"{key}={show(number)}: {trouble}"))
        elif key == "step" and number == 0:
            found.append((key, "step=0: use another step than 0, or write the one value alone"))
        elif key == "count" and number < 1:
            found.append((key, f"count={show(number)}: use 1 or more"))
    return found


def _number_problem(number: Any, whole: bool) -> str:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return f"this is {kind(number)}: write a number"
    if isinstance(number, float) and not math.isfinite(number):
        return "write a finite number"
    if isinstance(number, int) and number.bit_length() > 64:
        return "use a number of at most 64 bits"
    return "write a whole number" if whole and not isinstance(number, int) else ""


def _shape_problems(value: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the keys together."""
    if "start" not in value:
        return [" has no start: write {start: 10, stop: 50, step: 10}"]
    if "stop" in value and "count" in value:
        return [" has both stop and count: keep one of them"]
    if "count" in value:
        return []
    if "stop" not in value:
        return [" has no end: write {start: 10, stop: 50, step: 10} or {start: 0, count: 8}"]
    start, stop, step = value["start"], value["stop"], value.get("step", 1)
    if (stop - start) * step >= 0:
        return []
    if "step" not in value:
        return [f": stop={show(stop)} lies before start={show(start)}: swap them"]
    return [f": step={show(step)} leads from {show(start)} away from {show(stop)}: use {show(-step)}"]


def _steps_between(start: Number, stop: Number, step: Number) -> int:
    (first, last, width), _ = _scaled(start, stop, step)
    return (last - first) // width


def _numbers(start: Number, step: Number, count: int) -> Sequence[Number]:
    if isinstance(start, int) and isinstance(step, int):
        return range(start, start + count * step, step)
    (first, width), scale = _scaled(start, step)
    return tuple((first + number * width) / scale for number in range(count))


def _is_finite(start: Number, step: Number, count: int) -> bool:
    (first, width), scale = _scaled(start, step)
    try:
        return math.isfinite((first + (count - 1) * width) / scale)
    except OverflowError:
        return False


def _scaled(*numbers: Number) -> tuple[tuple[int, ...], int]:
    """Return decimal numbers as whole ones over one power of ten: (1, 25), 100 for 0.01 and 0.25."""
    decimals = [Decimal(repr(number)).as_tuple() for number in numbers]
    exponents = [int(one.exponent) for one in decimals]
    places = max(0, -min(exponents))
    wholes = []
    for one, exponent in zip(decimals, exponents, strict=True):
        digits = int("".join(map(str, one.digits))) * 10 ** (places + exponent)
        wholes.append(-digits if one.sign else digits)
    return tuple(wholes), 10**places


def _problem(place: tuple[str, ...], text: str) -> Problem:
    return Problem(path=place, text=text)
