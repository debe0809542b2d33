"""The file format of images, and its quality. Knows nothing of pixels.

A format belongs to a sweep, not to a job: in two formats the same job is one id and two objects, whose keys
differ by their endings. A quality is part of the ending, so that no lossy file is ever taken for another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

FormatKind = Literal["png", "webp", "jpeg", "jxl"]
FORMAT_KINDS: tuple[FormatKind, ...] = get_args(FormatKind)

#: Quality of a JPEG where nobody says: the highest that libjpeg's authors call useful.
JPEG_QUALITY = 95

_ALIASES = {"jpg": "jpeg", "jpegxl": "jxl", "jpeg-xl": "jxl", "jpeg_xl": "jxl"}
_EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg", "jxl": "jxl"}
_LOSSY = ("webp", "jpeg")

_QUALITY = re.compile(r"[1-9][0-9]?|100")


#: What may be said, for messages.
FORMAT_EXAMPLES = f"png, webp, webp:90, jpeg:{JPEG_QUALITY} or jxl"


class FormatInvalid(ValueError):
    """A text names no format. The message says the text and the fix."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A kind of file and, where it is lossy, its quality. As text: `png`, `webp`, `webp:90`, `jpeg:95`, `jxl`."""

    kind: FormatKind
    #: 1 to 100 on the encoder's own scale; None is lossless.
    quality: int | None = None

    def __str__(self) -> str:
        return self.kind if self.quality is None else f"{self.kind}:{self.quality}"

    @property
    def ending(self) -> str:
        """What stands after the first dot of a key: `png`, `q95.jpg`."""
        extension = _EXTENSIONS[self.kind]
        return extension if self.quality is None else f"q{self.quality}.{extension}"

    @property
    def media_type(self) -> str:
        """The Content-Type of such a file."""
        return f"image/{self.kind}"

    @property
    def encoder(self) -> str:
        """An encoder that only some workers have, and that this format wants; "" for one that all have."""
        return self.kind if self.kind == "jxl" else ""


PNG = ImageFormat("png")


def parse_format(text: str) -> ImageFormat:
    """Return the format that a text names, in any case; `jpg` is `jpeg`, and `jpeg` alone is `jpeg:95`.

    Raises: FormatInvalid.
    """
    shown = f"format={text[:40]!r}"
    name, colon, quality = text.strip().casefold().partition(":")
    kind = next((known for known in FORMAT_KINDS if known == _ALIASES.get(name, name)), None)
    if kind is None:
        raise FormatInvalid(f"{shown} is unknown: use {FORMAT_EXAMPLES}")
    if not colon:
        return ImageFormat(kind, JPEG_QUALITY if kind == "jpeg" else None)
    if kind not in _LOSSY:
        raise FormatInvalid(f"{shown}: {kind} is lossless and has no quality: write {kind}")
    if not _QUALITY.fullmatch(quality.strip()):
        raise FormatInvalid(f"{shown}: use a quality of 1 to 100: {kind}:90")
    return ImageFormat(kind, int(quality))
