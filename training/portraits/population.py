"""Decides what is in each picture and what its caption will mention. Knows nothing of pixels or words.

Guidance multiplies odds. With scale w, an attribute that the prompt does not mention comes out with odds of
about odds_c**w / odds_u**(w - 1), where odds_c holds among captions like the prompt and odds_u among empty
ones. If unmentioned attributes are rarer than attributes overall, w = 7.5 makes them vanish. So mention is
decided first: a mentioned attribute is there, and every other one is there with the same probability
`UNMENTIONED`, whatever else is mentioned, whoever the subject is, and under an empty caption as well. Then
odds_c = odds_u, and guidance leaves alone what the prompt leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from training.portraits.drawing import BACKGROUNDS, HAIRS, KINDS, SHIRTS, SKINS, STYLES, Portrait

#: Attributes that are there or not, with the share of captions that mention each.
MENTIONED = {"mustache": 0.36, "glasses": 0.40, "hat": 0.26, "beard": 0.16, "smiling": 0.16}

#: How often each is there where nothing is said of it.
UNMENTIONED = {"mustache": 0.46, "glasses": 0.46, "hat": 0.46, "beard": 0.40, "smiling": 0.45}

#: Attributes of which every picture has one value, with the share of captions that mention it.
CHOICES: dict[str, tuple[tuple[str, ...], float]] = {
    "kind": (KINDS, 0.85),
    "skin": (tuple(SKINS), 0.12),
    "hair": (tuple(HAIRS), 0.22),
    "style": (STYLES, 0.18),
    "shirt": (tuple(SHIRTS), 0.20),
    "background": (tuple(BACKGROUNDS), 0.22),
}

#: Share of captions that say nothing, for guidance.
EMPTY = 0.10

#: Share of the others that mention one attribute and nothing else, as negative prompts are written.
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


def make_example(chance: np.random.Generator) -> Example:
    """Decide what is mentioned, then what is there."""
    empty = chance.random() < EMPTY
    mentioned = {name for name, share in _mention_shares().items() if chance.random() < share and not empty}
    if chance.random() < BARE_WORDS and not empty:
        mentioned = {str(chance.choice(sorted(MENTIONED)))}
    there = {name: name in mentioned or bool(chance.random() < share) for name, share in UNMENTIONED.items()}
    chosen = {name: str(chance.choice(values)) for name, (values, _) in CHOICES.items()}
    if chosen["kind"] == "cat":
        mentioned.discard("skin")  # a cat has fur
    portrait = Portrait(**chosen, **there)  # type: ignore[arg-type]
    return Example(portrait=portrait, mentioned=frozenset(mentioned))


@cache
def _mention_shares() -> dict[str, float]:
    return {**MENTIONED, **{name: share for name, (_, share) in CHOICES.items()}}
