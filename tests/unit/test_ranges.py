"""A range is the numbers that a person reads in it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.ranges import RANGE_VALUES_MAX, Span, expand_range, is_range


def numbers(value: dict[str, Any], *, whole: bool = False) -> list[int | float]:
    """Return the numbers of a range that has no problem."""
    found, problems = expand_range("steps", value, whole=whole)
    assert not problems
    assert not isinstance(found, Span)
    return list(found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"start": 10, "stop": 50, "step": 10}, [10, 20, 30, 40, 50]),
        ({"start": 10, "stop": 49, "step": 10}, [10, 20, 30, 40]),
        ({"start": 5, "stop": 1, "step": -2}, [5, 3, 1]),
        ({"start": 5, "stop": 5, "step": 1}, [5]),
        ({"start": 5, "stop": 6, "step": 100}, [5]),
        ({"start": 0, "count": 3}, [0, 1, 2]),
        ({"start": 0, "count": 3, "step": 5}, [0, 5, 10]),
        ({"start": 3, "count": 3, "step": -0.5}, [3.0, 2.5, 2.0]),
        ({"start": 0.1, "stop": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"start": 1.0, "stop": 1.3, "step": 0.1}, [1.0, 1.1, 1.2, 1.3]),
        ({"start": 0, "count": 4, "step": 1e-7}, [0.0, 1e-7, 2e-7, 3e-7]),
    ],
)
def test_a_range_holds_what_it_says(value: dict[str, Any], expected: list[int | float]) -> None:
    """Stop is included where a step falls on it, and 0.1 + 0.2 is 0.3."""
    assert expected == numbers(value)


def test_whole_numbers_stay_whole_and_cost_nothing() -> None:
    """A range of a million whole numbers is no list of them, and none of them becomes a float."""
    found, problems = expand_range("seed", {"start": 0, "stop": RANGE_VALUES_MAX - 1, "step": 1}, whole=True)
    assert (range(RANGE_VALUES_MAX), []) == (found, problems)
    assert all(isinstance(number, int) for number in numbers({"start": 1, "stop": 3, "step": 1}))


@settings(deadline=None)
@given(
    start=st.decimals(-1000, 1000, places=3),
    step=st.decimals(Decimal("-9.99"), Decimal("9.99"), places=2).filter(bool),
    count=st.integers(1, 50),
    rest=st.decimals(0, Decimal("0.9"), places=1),
)
def test_a_range_is_exact_decimal_arithmetic(
    start: Decimal, step: Decimal, count: int, rest: Decimal
) -> None:
    """Both forms give start + i * step as decimal numbers, whatever lies between the last one and stop."""
    expected = [float(start + number * step) for number in range(count)]
    # As YAML reads them. Between the last value and the next there is none.
    stop = float(start + (count - 1) * step + rest * step)
    given_start, given_step = float(start), float(step)
    assert expected == numbers({"start": given_start, "step": given_step, "stop": stop})
    assert expected == numbers({"start": given_start, "step": given_step, "count": count})


@settings(deadline=None)
@given(
    start=st.integers(-1000, 1000), width=st.integers(0, 1000), count=st.integers(1, 200), whole=st.booleans()
)
def test_a_spans_values_are_one_in_each_part(start: int, width: int, count: int, whole: bool) -> None:
    """Latin hypercube sampling wants the midpoint of each of n equal parts, in order and inside the span."""
    found = Span(start=start, stop=start + width, whole=whole).values(count)
    assert count == len(found)
    assert sorted(found) == list(found)
    assert start <= found[0] <= found[-1] <= start + width
    if whole:
        assert all(isinstance(number, int) for number in found)
        if count <= width + 1:
            assert count == len(set(found))
    else:
        middles = [start + (part + 0.5) * width / count for part in range(count)]
        assert middles == pytest.approx(list(found))


def test_start_and_stop_alone_are_a_span() -> None:
    """Without a step it is for a sample to say how many numbers there are; the field says of which kind."""
    assert (
        Span(start=3, stop=12, whole=False) == expand_range("cfg", {"start": 3, "stop": 12}, whole=False)[0]
    )
    assert (
        Span(start=3, stop=12, whole=True) == expand_range("steps", {"start": 3, "stop": 12}, whole=True)[0]
    )
    assert (0.15, 0.25) == Span(start=0.1, stop=0.3, whole=False).values(2)
    with pytest.raises(ValueError, match="count=0: use 1 or more"):
        Span(start=0, stop=1, whole=False).values(0)


def test_what_is_a_range() -> None:
    """A mapping with one of a range's keys is meant as one, even where it is wrong."""
    assert is_range({"start": 1})
    assert is_range({"count": 1, "prompt": 2})
    assert not is_range({"file": "a.txt"})
    assert not is_range([1, 2])


@pytest.mark.parametrize(
    ("value", "place", "text"),
    [
        ({"start": 1}, (), "has no end: write {start: 10, stop: 50, step: 10} or {start: 0, count: 8}"),
        ({"stop": 1}, (), "has no start: write {start: 10, stop: 50, step: 10}"),
        ({"start": 1, "stop": 5, "count": 2}, (), "has both stop and count: keep one of them"),
        ({"start": 5, "stop": 1, "step": 2}, (), "step=2 leads from 5 away from 1: use -2"),
        ({"start": 5, "stop": 1}, (), "stop=1 lies before start=5: swap them"),
        (
            {"start": 1, "stop": 5, "step": 0},
            ("step",),
            "step=0: use another step than 0, or write the one value alone",
        ),
        ({"start": 1, "count": 0}, ("count",), "count=0: use 1 or more"),
        ({"start": 1, "count": True}, ("count",), "count=true: this is the boolean True: write a number"),
        ({"start": "1", "count": 2}, ("start",), "start='1': this is text: write a number"),
        ({"start": 0.5, "count": 2}, ("start",), "start=0.5: write a whole number"),
        ({"start": float("inf"), "count": 2}, ("start",), "start=inf: write a finite number"),
        ({"start": 2**64, "count": 2}, ("start",), f"start={2**64}: use a number of at most 64 bits"),
        ({"start": 1, "stpo": 2}, ("stpo",), "unknown key 'stpo': did you mean 'stop'?"),
        ({"start": 0, "count": 10**9}, (), "1000000000 values: a range holds at most 1,000,000"),
    ],
)
def test_a_wrong_range_names_the_value_and_the_fix(
    value: dict[str, Any], place: tuple[str, ...], text: str
) -> None:
    """Every way to get a range wrong has a message of its own, at its key."""
    found, problems = expand_range("steps", value, whole=True)
    assert () == found
    (problem,) = problems
    assert place == problem.path
    assert text == problem.text.removeprefix("steps").removeprefix(":").strip()


def test_a_range_that_no_number_can_hold_is_refused() -> None:
    """A float range of huge steps ends in a message, and not in an OverflowError."""
    _, problems = expand_range("guidance_scale", {"start": 1e308, "step": 1e308, "count": 5}, whole=False)
    assert ["guidance_scale: the range leaves the numbers there are: use a smaller step"] == [
        problem.text for problem in problems
    ]
