"""The two texts an image file carries: one for other programs, one for Printroom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared.images.exif import read_exif
from shared.images.xmp import read_xmp

#: What Printroom's own text is called, where a format has names for texts.
KEYWORD = "printroom"

#: What A1111 calls its text, where a format has names for texts.
INFOTEXT_KEYWORD = "parameters"


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """What is written beside the pixels."""

    #: A1111's infotext, for the tools people already have; None where a file has none.
    infotext: str | None = None
    #: JSON, the truth; None in a file that is not ours.
    truth: str | None = None
    #: Why a truth that is there is not to be believed: the file was damaged, or edited by another program.
    broken: str | None = None
    #: The digital source type to write into the file's XMP; None leaves it out. Not set by reading.
    source: str | None = None


def read_blocks(exif: bytes, xmp: bytes, sealed: Iterable[bytes | memoryview]) -> Texts:
    """Return the texts of a file that has them as EXIF and XMP.

    Args:
        exif: from the TIFF header on; may be empty, as may `xmp`.
        sealed: the rest of the file, as `write_xmp` had it.
    """
    infotext = read_exif(exif)
    try:
        return Texts(infotext=infotext, truth=read_xmp(xmp, sealed))
    except ValueError as error:
        return Texts(infotext=infotext, broken=str(error))
