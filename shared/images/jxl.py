"""Writes pixels and texts to a lossless JPEG XL file, and reads the texts back. Knows nothing of jobs.

The `imagecodecs` package codes the pixels; it is an extra (`pip install 'printroom[jxl]'`), and reading the texts
does without it. It writes no metadata, so the boxes around its codestream are written here (ISO/IEC 18181-2): the
infotext is EXIF's UserComment, our own text is XMP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import starmap
from types import ModuleType

import numpy as np
import numpy.typing as npt

from shared.errors import SettingsError
from shared.images.exif import write_exif
from shared.images.texts import Texts, read_blocks
from shared.images.xmp import wrap_xmp, write_xmp

#: The fastest of ten: with it lossless JPEG XL is quicker than PNG, and smaller.
_EFFORT = 1

SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
CODESTREAM = b"\xff\x0a"

_FILE_TYPE = b"jxl \0\0\0\0jxl "
_CODED = (b"jxlc", b"jxlp")


def encode_jxl(pixels: npt.NDArray[np.uint8], texts: Texts) -> bytes:
    """Encode an image losslessly, with its texts before the pixels.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Raises: SettingsError where imagecodecs is missing; ValueError for texts that the file cannot hold.
    """
    coded = bytes(
        _imagecodecs().jpegxl_encode(pixels, lossless=True, effort=_EFFORT, usecontainer=False, numthreads=1)
    )
    packet = wrap_xmp(
        write_xmp(texts.truth or "", [b"ftyp", _FILE_TYPE, b"jxlc", coded], source=texts.source)
    )
    boxes = {
        b"ftyp": _FILE_TYPE,
        # Four bytes of EXIF's box say where the TIFF header is: at once.
        b"Exif": b"\0\0\0\0" + write_exif(texts.infotext or ""),
        b"xml ": packet,
        b"jxlc": coded,
    }
    return SIGNATURE + b"".join(starmap(_box, boxes.items()))


def decode_jxl(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of a file, (H, W, 3) uint8.

    Raises: SettingsError where imagecodecs is missing; ValueError for a file that it cannot decode.
    """
    imagecodecs = _imagecodecs()
    try:
        pixels: npt.NDArray[np.uint8] = imagecodecs.jpegxl_decode(data, numthreads=1)
    except RuntimeError as error:
        raise ValueError(f"damaged JPEG XL: {error}") from error
    return pixels


def read_jxl_texts(data: bytes) -> Texts:
    """Return the texts of a JPEG XL file, having checked that it is whole, and our text by its seal.

    Raises: ValueError with the reason, for a file that is not whole.
    """
    if data[:2] == CODESTREAM:
        return Texts()
    texts = {b"Exif": b"", b"xml ": b""}
    sealed: list[bytes | memoryview] = []
    for kind, body in _boxes(data):
        if kind in texts:
            texts[kind] = bytes(body)
        else:
            sealed += [kind, body]
    if not any(kind in sealed for kind in _CODED):
        raise ValueError("damaged JPEG XL: no pixels")
    exif = texts[b"Exif"]
    start = 4 + int.from_bytes(exif[:4], "big")
    return read_blocks(exif[start:], texts[b"xml "], sealed)


def encoder_version() -> str:
    """Return what codes the pixels. Raises: SettingsError where imagecodecs is missing."""
    imagecodecs = _imagecodecs()
    return f"imagecodecs {imagecodecs.__version__}, {imagecodecs.jpegxl_version()}"


def _imagecodecs() -> ModuleType:
    try:
        import imagecodecs
    except ImportError as error:
        raise SettingsError(
            "format jxl wants the package imagecodecs: pip install 'printroom[jxl]'"
        ) from error
    module: ModuleType = imagecodecs
    return module


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _boxes(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield every box after the signature. Raises: ValueError where the file is not whole."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a JPEG XL file")
    position = len(SIGNATURE)
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError(f"truncated JPEG XL: half a box at byte {position}")
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if size == 1 and position + 16 <= len(data):  # a box of 4 GB and more says so after its name
            (size,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        end = position + size if size else len(data)  # the last box may leave its length open
        if (size and size < head) or end > len(data):
            raise ValueError(f"truncated JPEG XL: {len(data)} bytes, box {kind!r} ends at {end}")
        yield kind, memoryview(data)[position + head : end]
        position = end
