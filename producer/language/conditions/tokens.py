"""Cuts the text of a condition into its tokens. Knows no grammar and no values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from producer.language.conditions.comparisons import ConditionInvalid

_DIGITS = "[0-9](?:_?[0-9])*"
_TOKEN = re.compile(
    rf"""
    (?P<number> 0[xX](?:_?[0-9a-fA-F])+ | (?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?[jJ]?)
    | (?P<text> [bBfFrRuU]{{0,2}}
        (?: '''(?:[^\\]|\\.)*?''' | \"\"\"(?:[^\\]|\\.)*?\"\"\" | '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" ))
    | (?P<name> (?:label:)?`[^`]+` | label:[\w./-]+ | [^\W\d]\w*)
    | (?P<sign> ==|=~|!~|!=|<=|>=|//|\*\*|[-=<>~+*/%()\[\],.])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A piece of a condition."""

    #: number, text, name, sign; "" at the end.
    kind: str
    text: str
    start: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)


def tokenize(text: str, names: Collection[str]) -> Iterator[Token]:
    """Yield the tokens of a condition, the last one empty.

    Args:
        names: what it may read; those that are no words, such as `worn/things`, are found as they are.

    Raises: ConditionInvalid with the column of what is no token.
    """
    odd = sorted(
        (name for name in names if not name.isidentifier() and name[:1].isalpha()), key=len, reverse=True
    )
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _odd_name(text, at, odd) or _token(text, at)
        yield token
        at = token.stop
    yield Token(kind="", text="", start=len(text.rstrip()))


def _token(text: str, at: int) -> Token:
    found = _TOKEN.match(text, at)
    if found is None:
        reason = "the text is never closed" if text[at] in "'\"" else f"{text[at]!r} is no part of it"
        raise ConditionInvalid(reason, column=at + 1)
    return Token(kind=str(found.lastgroup), text=found[0], start=at)


def _odd_name(text: str, at: int, names: list[str]) -> Token | None:
    for name in names:
        end = at + len(name)
        if text.startswith(name, at) and not re.match(r"\w", text[end : end + 1]):
            return Token(kind="name", text=name, start=at)
    return None
