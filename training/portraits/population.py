"""Decides what is in each picture and what its caption will mention. Knows nothing of pixels or words.

Guidance multiplies odds. With scale w, an attribute that the prompt does not mention comes out with odds of
about odds_c**w / odds_u**(w - 1), where odds_c holds among captions like the prompt and odds_u among empty
ones. If unmentioned attributes are rarer than attributes overall, w = 7.5 makes them vanish. So mention is
decided first: a mentioned attribute is there, and every other one is there with the same probability
`UNMENTIONED`, whatever else is mentioned, whoever the subject is, and under an empty caption as well. Then
odds_c = odds_u, and guidance leaves alone what the prompt leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from training.portraits.drawing import BACKGROUNDS, HAIRS, KINDS, SHIRTS, SKINS, STYLES, Portrait

#: Attributes that are there or not, with the share of captions that mention each.
MENTIONED = {"mustache": 0.36, "glasses": 0.40, "hat": 0.26, "beard": 0.16, "smiling": 0.16}

#: How often each is there where nothing is said of it.
UNMENTIONED = {"mustache": 0.40, "glasses": 0.40, "hat": 0.40, "beard": 0.40, "smiling": 0.45}

#: Attributes of which every picture has one value, with the share of captions that mention it.
CHOICES: dict[str, tuple[tuple[str, ...], float]] = {
    "kind": (KINDS, 0.90),
    "skin": (tuple(SKINS), 0.15),
    "hair": (tuple(HAIRS), 0.34),
    "style": (STYLES, 0.20),
    "shirt": (tuple(SHIRTS), 0.24),
    "background": (tuple(BACKGROUNDS), 0.28),
}

#: Examples of a group, see `make_example`: a multiple of the numbers of values above.
GROUP = 60

#: Share of pairs of groups of which one says nothing, for guidance; and of the others, share of pairs of which one
#: mentions one attribute and nothing else, as negative prompts are written.
EMPTY = 0.18
BARE_WORDS = 0.06


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A picture to draw, and what may be said of it."""

    portrait: Portrait
    #: Names of the portrait's fields that the caption mentions; none for an empty caption.
    mentioned: frozenset[str]


def generator(seed: int, index: int) -> np.random.Generator:
    """Return the chance of one example: the same for the same seed and index, whatever was made before."""
    return np.random.Generator(np.random.PCG64([seed, index]))


def make_example(seed: int, index: int) -> Example:
    """Decide what is mentioned, then what is there: the same for the same seed and index.

    Examples come in groups of `GROUP` that mention the same and in which every value of everything else is there
    equally often. Left to chance, a few hundred captions that say no more than "hat" would have a few more blue
    backgrounds among them, the model would learn that, and guidance would multiply it.

    Groups come in pairs. One mentions an attribute that the other leaves open; in all else an example and its
    `twin` are the same. Trained on side by side, with the same noise, whatever they share cancels out of the
    difference that a word makes, which is what guidance multiplies.
    """
    number, position = divmod(index, GROUP)
    return _make_groups(seed, number // 2)[number % 2][position]


def variants(seed: int, index: int) -> list[Portrait]:
    """Return a portrait and, one for each field, the same with that field changed: first those of `MENTIONED`.

    The same for the same seed and index. The portraits are of no group: every value is as likely as any other.
    """
    chance = generator(seed, index)
    values: dict[str, tuple[Any, ...]] = dict.fromkeys(MENTIONED, (False, True))
    values |= {name: choices for name, (choices, _) in CHOICES.items()}
    # A field's value, and another one of its values.
    pairs = {
        name: [found[place] for place in chance.permutation(len(found))[:2]] for name, found in values.items()
    }
    portrait = Portrait(**{name: value for name, (value, _) in pairs.items()})
    return [portrait, *(replace(portrait, **{name: other}) for name, (_, other) in pairs.items())]


def twin(index: int) -> int:
    """Return which example differs from this one in what is said of one attribute alone."""
    return index + (GROUP if index // GROUP % 2 == 0 else -GROUP)


@lru_cache(maxsize=256)
def _make_groups(seed: int, pair: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    chance = generator(seed, pair)
    mentioned = _draw_mentioned(chance)
    other = mentioned ^ {str(chance.choice(sorted(MENTIONED)))}
    columns: dict[str, list[Any]] = {
        name: _shuffled(list(values) * (GROUP // len(values)), chance)
        for name, (values, _) in CHOICES.items()
    }
    for name, share in UNMENTIONED.items():
        there = int(share * GROUP + chance.random())
        columns[name] = _shuffled([True] * there + [False] * (GROUP - there), chance)
    groups = (_examples(columns, mentioned), _examples(columns, other))
    return groups if chance.random() < 0.5 else groups[::-1]


def _examples(columns: dict[str, list[Any]], mentioned: set[str]) -> tuple[Example, ...]:
    """Return the examples of a group: what is mentioned is there, everything else as the columns say."""
    there = dict.fromkeys(mentioned & MENTIONED.keys(), [True] * GROUP)
    examples = []
    for values in zip(*{**columns, **there}.values(), strict=True):
        portrait = Portrait(**dict(zip(columns, values, strict=True)))
        # A cat has fur.
        said = mentioned - {"skin"} if portrait.kind == "cat" else mentioned
        examples.append(Example(portrait=portrait, mentioned=frozenset(said)))
    return tuple(examples)


def _draw_mentioned(chance: np.random.Generator) -> set[str]:
    if chance.random() < EMPTY:
        return set()
    if chance.random() < BARE_WORDS:
        return {str(chance.choice(sorted(MENTIONED)))}
    return {name for name, share in _mention_shares().items() if chance.random() < share}


def _shuffled(values: list[Any], chance: np.random.Generator) -> list[Any]:
    return [values[place] for place in chance.permutation(len(values))]


@cache
def _mention_shares() -> dict[str, float]:
    return {**MENTIONED, **{name: share for name, (_, share) in CHOICES.items()}}
