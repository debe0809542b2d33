"""Measures and draws text in a picture: fonts, line breaks, colours. Knows nothing of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from producer.sheet.words import one_line

Colour = tuple[int, int, int]

#: Fonts with more scripts than the one that Pillow brings, tried by name where a text needs them.
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")

#: A character that Pillow's own font does not have: it is drawn as every other of these is.
_UNKNOWN = "\ufffe"

#: No line has room for more: a longer part is not measured to its end.
_PART_CHARS = 2000

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrap(text: str, width_px: float, size_px: int, lines_max: int) -> list[str]:
    """Break text into lines of a width; what does not fit in the last line ends in an ellipsis."""
    lines: list[str] = []
    rest = one_line(text).strip()
    while rest:
        if len(lines) == lines_max - 1:
            return [*lines, fit(rest, width_px, size_px)]
        count = _fitting(rest, width_px, size_px)
        if count < len(rest):
            space = rest.rfind(" ", 0, count + 1)
            count = space if space > 0 else count
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return lines or [" "]


def fit(text: str, width_px: float, size_px: int) -> str:
    """Return a text on one line of a width, with an ellipsis where it is longer."""
    text = one_line(text)
    if _fitting(text, width_px, size_px) >= len(text):
        return text
    return text[: max(1, _fitting(text, width_px - size_px, size_px))].rstrip() + "…"


def fit_parts(parts: Sequence[str], separator: str, width_px: float, size_px: int) -> str:
    """Return parts on one line of a width; where they are longer the longest end in ellipses, so that none is lost."""
    left = width_px - text_px(separator, size_px) * (len(parts) - 1)
    share = left
    for place, part_px in enumerate(sorted(text_px(part[:_PART_CHARS], size_px) for part in parts)):
        share = left / (len(parts) - place)
        if part_px > share:
            break
        left -= part_px
    else:
        return separator.join(parts)
    return fit(separator.join(fit(part, share, size_px) for part in parts), width_px, size_px)


@lru_cache(maxsize=65_536)
def text_px(text: str, size_px: int) -> float:
    """Return how wide a text is."""
    return _font(size_px, _is_wide(text)).getlength(text)


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size_px: int, ink: Colour) -> None:
    """Write a text, its upper left corner at a place."""
    pen.text(place, text, font=_font(size_px, _is_wide(text)), fill=ink)


def write_lines(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    size_px: int,
    leading_px: int,
    ink: Colour,
) -> None:
    """Write lines, one below the other."""
    for position, line in enumerate(lines):
        write(pen, (place[0], place[1] + leading_px * position), line, size_px, ink)


def _fitting(text: str, width_px: float, size_px: int) -> int:
    """Return how many characters of a text fit in a width, one at the least."""
    # No font is narrower than a tenth of its size: a prompt of 64 kB is not measured to its end.
    low, high = 1, min(len(text), int(width_px / size_px * 10) + 2)
    while low < high:
        middle = (low + high + 1) // 2
        if text_px(text[:middle], size_px) <= width_px:
            low = middle
        else:
            high = middle - 1
    return low


def _is_wide(text: str) -> bool:
    """Whether a text has a character that Pillow's own font lacks."""
    return not text.isascii() and any(_is_unknown(c) for c in set(text) if not c.isascii())


@lru_cache(maxsize=4096)
def _is_unknown(character: str) -> bool:
    font = _font(20, False)
    return bytes(font.getmask(character)) == bytes(font.getmask(_UNKNOWN))


@lru_cache(maxsize=16)
def _font(size_px: int, wide: bool) -> _Font:
    """Return Pillow's own font, or one of the machine's that knows more scripts. A glyph nobody has is a box."""
    for name in _WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return ImageFont.load_default(size=size_px)
