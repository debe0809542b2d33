"""Words for error messages: values, their kinds, and the nearest known name. Knows nothing of sweeps."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

#: Longest value in a message, characters: a glance.
_SHOWN_MAX = 60


def show(value: Any) -> str:
    """Return a value as an error shows it: one line, no longer than a glance."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_MAX else f"{shown[: _SHOWN_MAX - 3]}…{shown[-1]}"


def kind(value: Any) -> str:
    """Return what a value is, with its article: "a list", "the number 5", "empty (null)"."""
    match value:
        case None:
            return "empty (null)"
        case bool():
            return f"the boolean {value}"
        case int() | float():
            return f"the number {show(value)}"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case bytes():
            return "binary data"
    return f"a {type(value).__name__}"


def counted(number: int, noun: str) -> str:
    """Return a number of things as a person says it: "1 job", "2,000 jobs"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def near(name: str, known: Collection[str], *, otherwise: str | None = None) -> str:
    """Return the fix for a name that is unknown: the nearest of the known ones, or all of them.

    Args:  otherwise: what to say where none is near; None lists the first twenty.
    """
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.strip().casefold(), folded, n=1)
    if found:
        return f"did you mean {show(folded[found[0]])}?"
    if otherwise is not None:
        return otherwise
    listed = sorted(known)
    return f"use {', '.join(listed[:20])}{', ...' if len(listed) > 20 else ''}"
