"""Reads what is in a portrait from its colours alone: no learned weights. Knows nothing of prompts.

Each attribute has its place in the picture and, where it can, a colour of its own (see `drawing`). An
attribute that is there or not is scored by the share of its place that has its colour; one with several
values takes the value whose colour is nearest to what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.portraits.drawing import (
    BACKGROUNDS,
    BEARD,
    CAT_EYES,
    GLASSES,
    HAIRS,
    HAT,
    LIPS,
    MUSTACHE,
    SHIRTS,
    SIZE_PX,
    SKINS,
    Colour,
    Portrait,
)

Pixels = npt.NDArray[np.uint8]

#: (left, top, right, bottom), pixels; the right and the bottom are outside.
Box = tuple[int, int, int, int]

#: The inside of a smiling mouth.
_MOUTH: Colour = (112, 22, 34)

#: The rim of a mustache.
_SHINE: Colour = (250, 236, 214)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What shows that something is there."""

    places: Sequence[Box]
    colour: Colour
    #: A pixel has the colour when it is no farther from it than this, Euclidean, of 255 a channel.
    distance: float
    #: The share of the places' pixels that must have the colour.
    share: float


def _mirrored(*boxes: Box) -> list[Box]:
    """Return boxes and their mirror images."""
    return [*boxes, *((SIZE_PX - right, top, SIZE_PX - left, bottom) for left, top, right, bottom in boxes)]


#: The attributes that are there or not, and the two marks that tell who it is.
MARKS: Mapping[str, Mark] = {
    "mustache": Mark(places=_mirrored((23, 42, 32, 45)), colour=MUSTACHE, distance=60, share=0.4),
    "glasses": Mark(places=_mirrored((17, 24, 32, 38)), colour=GLASSES, distance=90, share=0.12),
    "hat": Mark(places=[(21, 5, 43, 13)], colour=HAT, distance=75, share=0.5),
    "beard": Mark(places=_mirrored((26, 52, 32, 55)), colour=BEARD, distance=34, share=0.7),
    "smiling": Mark(places=[(28, 49, 36, 51)], colour=_MOUTH, distance=42, share=0.4),
    "cat": Mark(places=_mirrored((21, 27, 29, 35)), colour=CAT_EYES, distance=75, share=0.2),
    "woman": Mark(places=_mirrored((25, 46, 32, 53)), colour=LIPS, distance=75, share=0.15),
}

#: The light rim below a mustache. Guidance can make a dark face so dark that its colour alone is a mustache's.
_RIM = Mark(places=_mirrored((24, 46, 30, 47), (21, 45, 25, 46)), colour=_SHINE, distance=90, share=0.5)

_SKIN = [(31, 32, 33, 35), *_mirrored((23, 34, 27, 35))]
_CURLS = _mirrored((8, 28, 11, 32))
_CURTAINS = _mirrored((13, 45, 15, 49))
_SHIRT = _mirrored((14, 57, 20, 62))
_BACKGROUND = _mirrored((1, 2, 6, 14), (1, 20, 5, 40))

#: Where hair shows whatever else is there, for each way to wear it.
_HAIR = {
    "short": _mirrored((17, 24, 19, 28)),
    "long": _mirrored((13, 37, 16, 43)),
    "curly": _mirrored((10, 20, 14, 27)),
}

#: Farther than this from the background, a place shows something else.
_APART = 35.0


def score(pixels: Pixels, name: str) -> float:
    """Return how much of something in `MARKS` is seen: the share of its place that has its colour, 0 to 1."""
    return _share(pixels, MARKS[name])


def has(pixels: Pixels, name: str) -> bool:
    """Return whether something in `MARKS` is in a picture, (64, 64, 3)."""
    if score(pixels, name) < MARKS[name].share:
        return False
    return name != "mustache" or _share(pixels, _RIM) >= _RIM.share


def read(pixels: Pixels) -> Portrait:
    """Return what is in a picture, (64, 64, 3). The skin of a cat means nothing."""
    style = _style(pixels)
    return Portrait(
        kind="cat" if has(pixels, "cat") else "woman" if has(pixels, "woman") else "man",
        skin=_nearest(pixels, _SKIN, SKINS),
        hair=_nearest(pixels, _HAIR[style], HAIRS),
        style=style,
        shirt=_nearest(pixels, _SHIRT, SHIRTS),
        background=_nearest(pixels, _BACKGROUND, BACKGROUNDS),
        mustache=has(pixels, "mustache"),
        beard=has(pixels, "beard"),
        glasses=has(pixels, "glasses"),
        hat=has(pixels, "hat"),
        smiling=has(pixels, "smiling"),
    )


def _share(pixels: Pixels, mark: Mark) -> float:
    return float((_distances(_seen(pixels, mark.places), mark.colour) <= mark.distance).mean())


def _style(pixels: Pixels) -> str:
    """Return how hair is worn, from where it hides the background."""
    background = np.median(_seen(pixels, _BACKGROUND), axis=0)

    def hidden(places: Sequence[Box]) -> bool:
        return float(np.median(_distances(_seen(pixels, places), background))) > _APART

    if hidden(_CURLS):
        return "curly"
    return "long" if hidden(_CURTAINS) else "short"


def _nearest(pixels: Pixels, places: Sequence[Box], colours: Mapping[str, Colour]) -> str:
    """Return the name of the colour nearest to the median of what is seen."""
    seen = np.median(_seen(pixels, places), axis=0)
    return min(colours, key=lambda name: float(_distances(seen[None], colours[name])[0]))


def _seen(pixels: Pixels, places: Sequence[Box]) -> npt.NDArray[np.float32]:
    """Return the pixels of some places, (N, 3)."""
    parts = [pixels[top:bottom, left:right].reshape(-1, 3) for left, top, right, bottom in places]
    return np.concatenate(parts).astype(np.float32)


def _distances(seen: npt.NDArray[np.float32], colour: npt.ArrayLike) -> npt.NDArray[np.float32]:
    distances: npt.NDArray[np.float32] = np.linalg.norm(seen - np.asarray(colour, dtype=np.float32), axis=1)
    return distances
