"""Finds the sweep that a text means among sweeps of one name: `mustaches`, `mustaches@1`, or an id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import UsageError

#: A start of an id needs this many digits.
ID_DIGITS_MIN = 4

_SHOWN_DIGITS = 12

#: Of the other sweeps of a name, so many are listed.
_LISTED_MAX = 5

_NUMBERED = re.compile(r"(?P<name>.+)@(?P<number>[1-9][0-9]{0,8})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edition:
    """One sweep among those of its name."""

    sweep: str
    name: str
    #: 1 for the one that was submitted first.
    number: int
    #: How many sweeps have this name.
    of: int

    @property
    def is_newest(self) -> bool:
        """Whether the bare name means this sweep."""
        return self.number == self.of

    @property
    def label(self) -> str:
        """The name, with its number where it needs one."""
        return self.name if self.of == 1 else f"{self.name}@{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSweep:
    """The sweep that a text means."""

    sweep: str
    #: What to tell the person, where the text could have meant another sweep too.
    note: str | None = None


def editions(named: Iterable[tuple[str, str]]) -> list[Edition]:
    """Number the sweeps of each name.

    Args:
        named: (sweep, name), in the order they were submitted.
    """
    pairs = list(named)
    total, seen = Counter(name for _, name in pairs), Counter[str]()
    found = []
    for sweep, name in pairs:
        seen[name] += 1
        found.append(Edition(sweep=sweep, name=name, number=seen[name], of=total[name]))
    return found


def choose(text: str, known: Sequence[Edition]) -> NamedSweep | None:
    """Return the sweep that an id, the start of one, a name or `NAME@number` means; None where none does.

    Of several sweeps of a name the newest is meant, and the note says so.

    Raises: UsageError where a text means sweeps that have nothing to do with each other, or a number that the
        name does not have.
    """
    if any(one.sweep == text for one in known):
        return NamedSweep(sweep=text)
    meant = [*_by_start(text, known), *_by_name(text, known), *_by_number(text, known)]
    if len({one.sweep for one in meant}) > 1:
        listed = ", ".join(f"{one.sweep[:_SHOWN_DIGITS]} ({one.label})" for one in meant)
        raise UsageError(f"{text!r} means {len(meant)} sweeps: {listed}; say more of the id")
    if not meant:
        _refuse_missing_number(text, known)
        return None
    (one, *_) = meant
    said_by_name = one.name == text and one.of > 1
    return NamedSweep(sweep=one.sweep, note=_note(one, known) if said_by_name else None)


def _by_start(text: str, known: Sequence[Edition]) -> list[Edition]:
    if len(text) < ID_DIGITS_MIN:
        return []
    return [one for one in known if one.sweep.startswith(text.lower())]


def _by_name(text: str, known: Sequence[Edition]) -> list[Edition]:
    return [one for one in known if one.name == text and one.is_newest]


def _by_number(text: str, known: Sequence[Edition]) -> list[Edition]:
    found = _NUMBERED.fullmatch(text)
    if found is None:
        return []
    return [one for one in known if (one.name, str(one.number)) == (found["name"], found["number"])]


def _refuse_missing_number(text: str, known: Sequence[Edition]) -> None:
    """Raise UsageError for a number that the sweeps of this name do not go up to."""
    found = _NUMBERED.fullmatch(text)
    of = max((one.of for one in known if found and one.name == found["name"]), default=0)
    if found and of:
        range_ = "1" if of == 1 else f"1 to {of}"
        raise UsageError(f"{text}: the sweeps named {found['name']!r} have the numbers {range_}")


def _note(newest: Edition, known: Sequence[Edition]) -> str:
    others = [one.label for one in known if one.name == newest.name and one is not newest][::-1]
    listed = ", ".join(others[:_LISTED_MAX])
    if len(others) > _LISTED_MAX:
        listed += f" ... {others[-1]}"
    word = "the other" if len(others) == 1 else "the others"
    return (
        f"{newest.name}: the newest of {newest.of} sweeps, {newest.sweep[:_SHOWN_DIGITS]}; {word}: {listed}"
    )
