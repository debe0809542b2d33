"""Which sweep a text means, among several that share a name or the digits of an id."""

from __future__ import annotations

import pytest

from producer.fleet.lineage import choose, editions
from shared.errors import UsageError

FACES_1, FACES_2, HATS, HEX, ODD = ("1a2b" + "0" * 28, "cafe" + "0" * 28, "3" * 32, "4" * 32, "5" * 32)
KNOWN = editions([(FACES_1, "faces"), (HATS, "hats"), (FACES_2, "faces"), (HEX, "cafe"), (ODD, "faces@1")])


@pytest.mark.parametrize(
    ("text", "sweep"),
    [
        (FACES_1, FACES_1),
        ("1a2b", FACES_1),
        ("1A2B", FACES_1),
        (FACES_2.upper(), FACES_2),
        ("faces", FACES_2),
        ("faces@2", FACES_2),
        ("hats", HATS),
        ("hats@1", HATS),
        ("faces@1@1", ODD),
        ("1a2", None),
        ("faces@", None),
        ("faces@0", None),
        ("nobody@1", None),
        ("@1", None),
        ("", None),
    ],
)
def test_a_text_means_one_sweep_or_none(text: str, sweep: str | None) -> None:
    """An id, a start of four digits, a name and a numbered name each mean one sweep; the rest means none."""
    found = choose(text, KNOWN)
    assert (found and found.sweep) == sweep


def test_only_a_name_of_several_has_a_note() -> None:
    """Who names one sweep exactly is told nothing; who says a name of several learns which it was."""
    notes = {
        text: found.note for text in ("faces", "faces@2", "hats", FACES_2) if (found := choose(text, KNOWN))
    }
    assert notes.pop("faces") == "faces: the newest of 2 sweeps, cafe00000000; the other: faces@1"
    assert set(notes.values()) == {None}
    many = editions((f"{n:032x}", "x") for n in range(9))
    found = choose("x", many)
    assert found
    assert str(found.note).endswith("; the others: x@8, x@7, x@6, x@5, x@4 ... x@1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cafe", r"'cafe' means 2 sweeps: cafe00000000 \(faces@2\), 444444444444 \(cafe\)"),
        ("faces@1", r"'faces@1' means 2 sweeps: .*555555555555 \(faces@1\)"),
        ("faces@3", "the sweeps named 'faces' have the numbers 1 to 2"),
        ("hats@2", "the sweeps named 'hats' have the numbers 1$"),
    ],
)
def test_unrelated_sweeps_are_never_guessed_between(text: str, said: str) -> None:
    """A name that is also the start of another's id, or another's number, is refused with both."""
    with pytest.raises(UsageError, match=said):
        choose(text, KNOWN)
