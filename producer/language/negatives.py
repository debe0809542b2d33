"""Turns the negative prompts of a sweep file into texts: one, or several to compare. Knows no YAML.

A long negative prompt is a list of terms, and which of them do anything is a question that a sweep can answer:
`leave_one_out` takes away each term in turn, `one_at_a_time` keeps each alone, and `placebo` says as many words that
name nothing to be seen, to tell what the terms mean from what any text does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from producer.language.problem import Problem

#: What stands between terms that are put together again.
NEGATIVE_SEPARATOR = ", "

#: Characters of a term that a label shows.
_LABEL_CHARS = 40

#: Words that name nothing to be seen, and deny nothing either.
# fmt: off
PLACEBO_WORDS = (
    "although", "because", "whereas", "therefore", "however", "perhaps", "indeed", "rather", "quite",
    "almost", "already", "anyway", "besides", "despite", "enough", "ever", "further", "hence", "instead",
    "likewise", "maybe", "meanwhile", "merely", "moreover", "namely", "nevertheless", "often", "once",
    "otherwise", "overall", "since", "somehow", "sometimes", "soon", "still", "such", "than", "that",
    "then", "thereby", "though", "thus", "too", "until", "upon", "usually", "versus", "via", "whenever",
    "whether", "which", "while", "whose", "why", "yet", "again", "always", "apparently",
)
# fmt: on

_FIX = "fix it, or write a backslash before it"
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_BREAKS = re.compile(r"\\.|[()\[\]{}<>,]", re.DOTALL)
#: A tag such as <lora:name:1>, a keyword, or a word; numbers, weights among them, are none.
_WORD = re.compile(r"<[^<>]*>|\b(?:BREAK|AND)\b|\b(?![0-9]+\b)\w+(?:[-'’]\w+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A negative prompt with a name."""

    text: str
    #: What it is for.
    purpose: str
    #: Where it is from.
    source: str


_OWN = "written for Printroom"

#: Negative prompts by name. Short, so that what they do can be told apart; none is a default.
PRESETS: Mapping[str, Preset] = {
    "quality": Preset(
        text="low quality, blurry, jpeg artifacts, noise",
        purpose="what bad photographs and bad compression look like",
        source=_OWN,
    ),
    "anatomy": Preset(
        text="deformed, extra limbs, extra fingers, missing fingers, fused fingers",
        purpose="bodies and hands that a model draws wrong",
        source=_OWN,
    ),
    "lettering": Preset(
        text="text, watermark, signature, logo",
        purpose="writing that training images carried",
        source=_OWN,
    ),
    "framing": Preset(
        text="cropped, out of frame, border, collage",
        purpose="a subject that is cut off, and pictures within pictures",
        source=_OWN,
    ),
    "photo": Preset(
        text="painting, drawing, illustration, cartoon, 3d render",
        purpose="photographs: names what is none",
        source=_OWN,
    ),
    "drawing": Preset(
        text="photo, photograph, photorealistic, 3d render",
        purpose="drawings and paintings: names what is none",
        source=_OWN,
    ),
    "booru": Preset(
        text="lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
        "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry",
        purpose="models trained on tagged drawings; a long list worth taking apart",
        source="tags of image boards, as users of such models have passed the list on since 2022",
    ),
    "plain": Preset(
        text="oversaturated, high contrast, vignette, lens flare",
        purpose="calm colours, where a large guidance scale burns them",
        source=_OWN,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Negative:
    """One negative prompt of a comparison."""

    #: None where there is none, which is not the empty text.
    text: str | None
    #: What it is in its comparison, as a table would head it.
    label: str


class NegativeInvalid(ValueError):
    """A negative prompt cannot be taken apart or replaced. The message names text and fix."""


def split_terms(text: str) -> list[str]:
    r"""Return the terms of a text: what commas separate outside of (), [], {} and <>, without edge spaces.

    A backslash takes the meaning from the character after it, as in `\(`.

    Raises: NegativeInvalid where a bracket is never closed, or closes nothing.
    """
    terms, start = [], 0
    open_brackets: list[re.Match[str]] = []
    for found in _BREAKS.finditer(text):
        mark = found[0]
        if mark in _CLOSING:
            open_brackets.append(found)
        elif mark in _CLOSING.values():
            if not open_brackets or _CLOSING[open_brackets.pop()[0]] != mark:
                raise NegativeInvalid(
                    f"{_show(text)}, character {found.start() + 1}: {mark} closes nothing: {_FIX}"
                )
        elif mark == "," and not open_brackets:
            terms.append(text[start : found.start()])
            start = found.end()
    if open_brackets:
        position, mark = open_brackets[-1].start(), open_brackets[-1][0]
        raise NegativeInvalid(f"{_show(text)}, character {position + 1}: {mark} is never closed: {_FIX}")
    return [term.strip() for term in (*terms, text[start:]) if term.strip()]


def leave_one_out(text: str) -> list[Negative]:
    """Return the whole text, and the text without each of its terms in turn.

    Raises: NegativeInvalid where there are fewer than two terms, or one stands twice.
    """
    terms = _terms(text, least=2)
    kept = (NEGATIVE_SEPARATOR.join(terms[:number] + terms[number + 1 :]) for number in range(len(terms)))
    without = [
        Negative(text=rest, label=f"without {_label(term)}") for term, rest in zip(terms, kept, strict=True)
    ]
    return [Negative(text=text, label="all terms"), *without]


def one_at_a_time(text: str) -> list[Negative]:
    """Return each term of a text alone.

    Raises: NegativeInvalid where there is no term, or one stands twice.
    """
    return [Negative(text=term, label=f"only {_label(term)}") for term in _terms(text, least=1)]


def placebo(text: str) -> list[Negative]:
    """Return a text of as many words that name nothing to be seen, with the same commas, brackets and weights.

    The same text gives the same placebo everywhere, and a word that stands twice is replaced by one word. Words, not
    tokens, are as many.

    Raises: NegativeInvalid where there is no word.
    """
    start = int.from_bytes(blake2b(text.encode(), digest_size=8, person=b"placebo").digest(), "little")
    replaced: dict[str, str] = {}

    def replace(found: re.Match[str]) -> str:
        word = found[0]
        if word.startswith("<") or word in ("BREAK", "AND"):
            return word
        choice = PLACEBO_WORDS[(start + len(replaced)) % len(PLACEBO_WORDS)]
        return replaced.setdefault(word.lower(), choice)

    result = _WORD.sub(replace, text)
    if not replaced:
        raise NegativeInvalid(f"{_show(text)}: there is no word to replace: write at least one")
    return [Negative(text=result, label="placebo")]


_EXPANSIONS: Mapping[str, Callable[[str], list[Negative]]] = {
    "leave_one_out": leave_one_out,
    "one_at_a_time": one_at_a_time,
    "placebo": placebo,
}


def expand_negative(item: Any) -> tuple[list[Negative], list[Problem]]:
    """Return the negative prompts that an item of the axis stands for, and every problem it has.

    Args:
        item: null, a text, or a mapping of one key: {preset: NAME}, or {leave_one_out: X}, {one_at_a_time: X} or
            {placebo: X}, where X is a text or {preset: NAME}.
    """
    if item is None:
        return [Negative(text=None, label="null")], []
    if isinstance(item, str):
        return [Negative(text=item, label=item or "''")], []
    keys = ("preset", *_EXPANSIONS)
    if not isinstance(item, Mapping):
        return _refused((), f"negative_prompt={item!r}: write text, null, or one of {{{', '.join(keys)}}}")
    if len(item) != 1:
        return _refused((), f"negative_prompt: {len(item)} keys: write one of {', '.join(keys)}")
    ((key, value),) = item.items()
    if key == "preset":
        preset, problems = _preset(value, place=("preset",))
        return ([] if preset is None else [Negative(text=preset, label=f"preset {value}")]), problems
    if key not in _EXPANSIONS:
        near = difflib.get_close_matches(str(key), keys, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(keys)}"
        return _refused((key,), f"negative_prompt: unknown key {key!r}: {fix}")
    return _expanded(key, value)


def _expanded(key: str, value: Any) -> tuple[list[Negative], list[Problem]]:
    place: tuple[str, ...] = (key,)
    if isinstance(value, Mapping) and set(value) == {"preset"}:
        place = (key, "preset")
        value, problems = _preset(value["preset"], place=place)
        if problems:
            return [], problems
    if not isinstance(value, str):
        return _refused(place, f"negative_prompt: {key}: write text, or {{preset: NAME}}")
    try:
        return _EXPANSIONS[key](value), []
    except NegativeInvalid as error:
        return _refused(place, f"negative_prompt: {key}: {error}")


def _preset(name: Any, *, place: tuple[str, ...]) -> tuple[str | None, list[Problem]]:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name].text, []
    near = difflib.get_close_matches(str(name), PRESETS, n=1)
    fix = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
    return None, [Problem(path=place, text=f"negative_prompt: no preset is called {name!r}: {fix}")]


def _refused(place: tuple[str | int, ...], text: str) -> tuple[list[Negative], list[Problem]]:
    return [], [Problem(path=place, text=text)]


def _terms(text: str, *, least: int) -> list[str]:
    terms = split_terms(text)
    if len(terms) < least:
        count = {0: "no term", 1: "one term"}[len(terms)]
        raise NegativeInvalid(f"{_show(text)} has {count}: write at least {least}, separated by commas")
    if doubled := next((term for number, term in enumerate(terms) if term in terms[:number]), None):
        raise NegativeInvalid(f"the term {doubled!r} stands twice: remove one")
    return terms


def _label(term: str) -> str:
    return term if len(term) <= _LABEL_CHARS else f"{term[: _LABEL_CHARS - 1]}…"


def _show(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}…{shown[-1]}"
