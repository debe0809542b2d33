"""Draws a portrait from a description, 64 x 64, anti-aliased. Knows nothing of captions, chance or models.

Every shape is drawn at four times the size and reduced, so the same description gives the same pixels on
every machine with the same Pillow. Some colours are reserved for one thing in their part of the picture
(`MUSTACHE`, `BEARD`, `GLASSES`, `HAT`, `LIPS`, `CAT_EYES`), which is what lets `detectors` read a picture
without any learned weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

#: Side of a picture, pixels.
SIZE_PX = 64

#: Drawn at this many times the size, then averaged down.
OVERSAMPLING = 4

Colour = tuple[int, int, int]

#: Colours of one thing alone, each in its part of the picture.
MUSTACHE: Colour = (52, 28, 16)
BEARD: Colour = (116, 132, 160)
GLASSES: Colour = (24, 96, 222)
HAT: Colour = (190, 30, 96)
LIPS: Colour = (216, 44, 112)
CAT_EYES: Colour = (70, 178, 66)

#: What a portrait can be of.
KINDS = ("man", "woman", "cat")

#: Skin of people; a cat has the muzzle's cream instead.
SKINS: Mapping[str, Colour] = {
    "pale": (250, 218, 196),
    "tan": (222, 170, 122),
    "brown": (168, 112, 74),
    "dark": (120, 76, 52),
}

#: Hair of people, fur of cats.
HAIRS: Mapping[str, Colour] = {
    "black": (36, 34, 40),
    "brown": (112, 68, 34),
    "blond": (226, 184, 84),
    "ginger": (212, 98, 28),
    "silver": (160, 162, 170),
}

#: Ways to wear hair or fur.
STYLES = ("short", "long", "curly")

SHIRTS: Mapping[str, Colour] = {
    "white": (246, 246, 246),
    "black": (44, 44, 50),
    "yellow": (246, 204, 46),
    "green": (44, 140, 84),
    "blue": (62, 120, 206),
}

BACKGROUNDS: Mapping[str, Colour] = {
    "blue": (146, 194, 236),
    "green": (162, 216, 166),
    "pink": (246, 182, 204),
    "purple": (188, 168, 228),
    "yellow": (252, 234, 160),
}

_WHITE: Colour = (255, 255, 255)
_INK: Colour = (34, 30, 34)
_MOUTH: Colour = (112, 22, 34)
_MUZZLE: Colour = (230, 200, 172)
_NOSE: Colour = (232, 128, 140)
_MUSTACHE_SHINE: Colour = (250, 236, 214)
_LENS: Colour = (226, 240, 255)
_HAT_BAND: Colour = (250, 220, 228)


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """Everything that is in a picture."""

    #: One of `KINDS`, then keys of `SKINS`, `HAIRS`, one of `STYLES`, keys of `SHIRTS` and `BACKGROUNDS`.
    kind: str
    skin: str
    hair: str
    style: str
    shirt: str
    background: str
    mustache: bool
    beard: bool
    glasses: bool
    hat: bool
    #: Smiling with teeth, or serious.
    smiling: bool


def draw(portrait: Portrait) -> npt.NDArray[np.uint8]:
    """Draw a portrait.

    Returns:
        RGB, (64, 64, 3).
    """
    pen = _Pen(_backdrop(portrait.background).copy())
    hair = HAIRS[portrait.hair]
    _draw_hair_behind(pen, portrait, hair)
    if portrait.kind == "cat":
        _draw_shirt(pen, portrait, neck=_darker(hair, 0.82))
        _draw_cat_head(pen, hair)
    else:
        _draw_shirt(pen, portrait, neck=_darker(SKINS[portrait.skin], 0.84))
        _draw_person_head(pen, portrait)
    _draw_hair_before(pen, portrait, hair)
    _draw_eyes(pen, portrait, hair)
    if portrait.beard:
        _draw_beard(pen)
    _draw_nose(pen, portrait)
    _draw_mouth(pen, portrait)
    if portrait.mustache:
        _draw_mustache(pen)
    if portrait.glasses:
        _draw_glasses(pen)
    if portrait.hat:
        _draw_hat(pen)
    return np.asarray(pen.image.reduce(OVERSAMPLING), dtype=np.uint8)


class _Pen:
    """Draws in pixels of the finished picture."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        corners = [_at(x - radius_x, y - radius_y), _at(x + radius_x, y + radius_y)]
        self._draw.ellipse(corners, fill=colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """Draw a circle's line."""
        corners = [_at(x - radius, y - radius), _at(x + radius, y + radius)]
        self._draw.ellipse(corners, outline=colour, width=round(width * OVERSAMPLING))

    def chord(self, box: tuple[float, float, float, float], start: int, end: int, colour: Colour) -> None:
        """Fill the part of an ellipse between two angles, degrees clockwise from the right."""
        self._draw.chord([_at(*box[:2]), _at(*box[2:])], start, end, fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([_at(x, y) for x, y in points], fill=colour)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw a line."""
        self._draw.line(
            [_at(x, y) for x, y in points],
            fill=colour,
            width=round(width * OVERSAMPLING),
            joint="curve",
        )

    def box(self, box: tuple[float, float, float, float], radius: float, colour: Colour) -> None:
        """Fill a rectangle with round corners."""
        corners = [_at(*box[:2]), _at(*box[2:])]
        self._draw.rounded_rectangle(corners, radius * OVERSAMPLING, fill=colour)

    def mirrored(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon and its mirror image."""
        self.polygon(points, colour)
        self.polygon([(SIZE_PX - x, y) for x, y in points], colour)


def _at(x: float, y: float) -> tuple[float, float]:
    return x * OVERSAMPLING, y * OVERSAMPLING


@cache
def _backdrop(name: str) -> Image.Image:
    """Return a background, a little lighter behind the head."""
    side = SIZE_PX * OVERSAMPLING
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    light = 0.35 * np.exp(-(x**2 + y**2) / 0.12)[..., None]
    pixels = np.array(BACKGROUNDS[name]) * (1 - light) + 255 * light
    return Image.fromarray(pixels.round().astype(np.uint8))


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(part * factor) for part in colour)
    return red, green, blue


# Body


def _draw_shirt(pen: _Pen, portrait: Portrait, neck: Colour) -> None:
    """Draw shoulders, neck and collar. A man's shoulders are the widest."""
    shirt = SHIRTS[portrait.shirt]
    reach = {"man": 29, "woman": 25, "cat": 22}[portrait.kind]
    pen.box((32 - reach, 53.5, 32 + reach, 80), 9, shirt)
    pen.polygon([(25.5, 46), (38.5, 46), (39.5, 55), (32, 60.5), (24.5, 55)], neck)
    collar = _darker(shirt, 0.8)
    pen.mirrored([(24.5, 53), (32, 60.5), (28.5, 63), (22.5, 55.5)], collar)


def _draw_person_head(pen: _Pen, portrait: Portrait) -> None:
    """Draw ears and face: a man's jaw is square, a woman's is narrow."""
    skin = SKINS[portrait.skin]
    ear = _darker(skin, 0.9)
    for x in (16.8, 47.2):
        pen.ellipse(x, 33, 2.8, 4.2, ear)
    if portrait.kind == "man":
        pen.box((17, 14, 47, 51), 13, skin)
        pen.box((20, 34, 44, 53), 9, skin)
    else:
        pen.ellipse(32, 30, 15, 17, skin)
        pen.ellipse(32, 37, 12, 15.5, skin)
        for x in (16.2, 47.8):
            pen.ellipse(x, 39.5, 1.7, 1.7, (250, 214, 70))


def _draw_cat_head(pen: _Pen, fur: Colour) -> None:
    pen.mirrored([(16.5, 27), (13, 7), (29, 17)], fur)
    pen.mirrored([(18, 23), (15.5, 11.5), (25, 18)], _NOSE)
    pen.ellipse(32, 33.5, 18, 18.5, fur)
    pen.ellipse(32, 44, 12, 9, _MUZZLE)


# Hair


def _draw_hair_behind(pen: _Pen, portrait: Portrait, hair: Colour) -> None:
    """Draw what shows beside the head: nothing, a curtain to the shoulders, or curls."""
    if portrait.style == "long" and portrait.kind == "cat":
        pen.mirrored([(18, 30), (9.5, 43), (12.5, 44), (9, 53), (14, 52.5), (11.5, 60), (26, 60)], hair)
    elif portrait.style == "long":
        pen.box((11, 14, 53, 59), 12, hair)
    if portrait.style == "curly":
        for x, y in ((14, 22), (50, 22), (12.5, 30), (51.5, 30), (14, 38), (50, 38)):
            pen.ellipse(x, y, 5.4, 5.4, hair)


def _draw_hair_before(pen: _Pen, portrait: Portrait, hair: Colour) -> None:
    """Draw the hair over the forehead; a cat has stripes there, or a curly tuft."""
    if portrait.kind == "cat":
        stripe = _darker(hair, 0.7)
        for x in (27.5, 32, 36.5):
            pen.line([(x, 17), (x, 22.5)], 1.6, stripe)
    elif portrait.style == "short":
        pen.chord((16, 9, 48, 39), 186, 354, hair)
        pen.mirrored([(16.2, 22), (19.2, 22), (18.6, 32), (16.6, 32)], hair)
    elif portrait.style == "long":
        pen.chord((13, 8, 51, 40), 190, 350, hair)
        pen.mirrored([(12, 22), (19.5, 21), (18, 34), (15.5, 50), (12, 50)], hair)
    if portrait.style == "curly":
        _draw_curls(pen, portrait.kind, hair)


def _draw_curls(pen: _Pen, kind: str, hair: Colour) -> None:
    """Draw curls on top; a cat has a tuft between its ears."""
    if kind == "cat":
        for x, y in ((27.0, 16.0), (32.0, 13.6), (37.0, 16.0)):
            pen.ellipse(x, y, 4.4, 4.4, hair)
        return
    for x, y in ((18.5, 15.5), (25.0, 12.0), (32.0, 10.8), (39.0, 12.0), (45.5, 15.5)):
        pen.ellipse(x, y, 5.6, 5.6, hair)
    for x in (22.0, 28.5, 35.5, 42.0):
        pen.ellipse(x, 18, 4.4, 4.4, hair)


# Face


def _draw_eyes(pen: _Pen, portrait: Portrait, hair: Colour) -> None:
    for x in (25, 39):
        if portrait.kind == "cat":
            pen.ellipse(x, 31, 4.2, 3.9, CAT_EYES)
            pen.ellipse(x, 31, 1.3, 3.3, _INK)
        else:
            pen.ellipse(x, 31, 3.4, 2.6, _WHITE)
            pen.ellipse(x, 31, 2.0, 2.3, _INK)
        pen.ellipse(x + 0.9, 30, 0.7, 0.7, _WHITE)
    if portrait.kind == "man":
        brow = _darker(hair, 0.8)
        pen.mirrored([(20.5, 26.6), (28.6, 25.6), (28.6, 27.4), (20.5, 27.8)], brow)
    if portrait.kind == "woman":
        pen.mirrored([(20, 27.6), (25, 26.8), (29, 28.6), (25, 29.2), (21.4, 31)], _INK)


def _draw_nose(pen: _Pen, portrait: Portrait) -> None:
    if portrait.kind == "cat":
        pen.polygon([(29.3, 36.2), (34.7, 36.2), (32, 39.4)], _NOSE)
    else:
        pen.ellipse(32, 37, 2.6, 1.8, _darker(SKINS[portrait.skin], 0.82))


def _draw_beard(pen: _Pen) -> None:
    """Draw a full beard from ear to ear, its upper edge below the mustache."""
    outside = [(17.2, 34.5), (17.8, 42), (20.5, 49.5), (25.5, 55.5), (32, 57.6)]
    inside = [(32, 46.0), (25.5, 46.0), (21.6, 43), (19.8, 36)]
    pen.mirrored([*outside, *inside], BEARD)


def _draw_mouth(pen: _Pen, portrait: Portrait) -> None:
    lips = LIPS if portrait.kind == "woman" else None
    if portrait.smiling:
        if lips:
            pen.chord((23.4, 38, 40.6, 52.6), 14, 166, lips)
        pen.chord((24.8, 39.4, 39.2, 51.2), 14, 166, _MOUTH)
        pen.chord((25.6, 39, 38.4, 48.6), 22, 158, _WHITE)
    elif lips:
        pen.ellipse(32, 48, 5.2, 2.2, lips)
    else:
        pen.box((26.4, 47, 37.6, 48.8), 0.8, _MOUTH)


def _draw_mustache(pen: _Pen) -> None:
    left = [(32, 41.2), (28.5, 40.6), (24.5, 42.6), (20.6, 41.0), (22.4, 44.6), (27, 45.6), (32, 44.0)]
    for points in (left, [(64 - x, y) for x, y in left]):
        pen.line([*points, points[0]], 2 * 1.8, _MUSTACHE_SHINE)
    pen.mirrored(left, MUSTACHE)


def _draw_glasses(pen: _Pen) -> None:
    for x in (24.6, 39.4):
        pen.chord((x - 5.2, 25.8, x + 5.2, 36.2), 150, 250, _LENS)
        pen.chord((x - 5.2, 25.8, x + 5.2, 36.2), -30, 70, _LENS)
        pen.ring(x, 31, 6.6, 1.9, GLASSES)
    pen.line([(30.5, 30), (33.5, 30)], 2.0, GLASSES)
    for near, far in ((18.5, 14.5), (45.5, 49.5)):
        pen.line([(near, 29.5), (far, 28.5)], 1.9, GLASSES)


def _draw_hat(pen: _Pen) -> None:
    pen.box((19.5, 3, 44.5, 19), 6, HAT)
    pen.polygon([(19.5, 13), (44.5, 13), (44.5, 17), (19.5, 17)], _HAT_BAND)
    pen.ellipse(32, 18.4, 20.5, 3.2, HAT)
