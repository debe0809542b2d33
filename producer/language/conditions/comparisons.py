"""Compares two values by an operator: the meaning of `seed>=3` and `prompt =~ 'cat$'`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from shared.labels import number_of

#: Signs that only what has an order knows, and signs that look into text.
ORDER = ("<", "<=", ">", ">=")
WITHIN = ("~", "!~", "=~")


class ConditionInvalid(ValueError):
    """A condition says something it may not, or not of these values. The message names the column and the fix."""

    def __init__(self, text: str, *, column: int | None = None) -> None:
        super().__init__(text if column is None else f"column {column}: {text}")
        #: What is wrong, without its place.
        self.reason = text
        #: Where in the condition; 1 is its first character. None where it is the condition as a whole.
        self.column = column


class LabelText(str):
    """A text that is a number where it is compared with one: a var, a column of a prompt file."""

    __slots__ = ()


def compares(sign: str, one: Any, other: Any) -> bool:
    """Say whether a comparison holds. Null equals null alone; it has no order, and contains nothing."""
    if one is None or other is None:
        if sign in ORDER or sign in WITHIN:
            return sign == "!~"
    elif isinstance(one, LabelText) and is_number(other):
        return compares(sign, number_of(one), other)
    elif isinstance(other, LabelText) and is_number(one):
        return compares(sign, one, number_of(other))
    return SIGNS[sign](one, other)


def matches(value: str, pattern: str) -> bool:
    """Return whether a text matches a regular expression somewhere. RE2 takes a time that the text's length bounds.

    Raises: ConditionInvalid, with the column in the expression, for what is none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc  # which a sweep without such an expression need not wait for

    try:
        found = pc.match_substring_regex(pa.scalar(value), pattern=pattern)
    except pa.ArrowInvalid as error:
        # RE2 names what is wrong and, behind the last colon, the piece of the expression.
        reason = str(error).partition(": ")[2]
        place = max(0, pattern.find(reason.partition(": ")[2]))
        raise ConditionInvalid(f"{pattern!r} is no regular expression: {reason}", column=place + 1) from error
    return bool(found.as_py())


#: How two values may be compared; `==` is `=`.
SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "~": lambda value, part: part.casefold() in value.casefold(),
    "!~": lambda value, part: part.casefold() not in value.casefold(),
    "=~": matches,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def is_number(value: Any) -> bool:
    """Say whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
