"""Writes pixels and texts to a WebP file, lossless or lossy, and reads the texts back. Knows nothing of jobs.

The infotext is EXIF's UserComment, where A1111 and its readers look for it; our own text is XMP.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from itertools import chain, starmap

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.images.exif import write_exif
from shared.images.texts import Texts, read_blocks
from shared.images.xmp import wrap_xmp, write_xmp

#: Lossless: the fastest there is. The next slower one takes five times as long for a twentieth fewer bytes.
_LOSSLESS = {"lossless": True, "method": 0, "quality": 0}

#: Lossy: again the fastest. The middle one takes three times as long for no fewer bytes (quality 90) or a tenth (80).
_LOSSY = {"lossless": False, "method": 0}

_HEAD_BYTES = 12
#: Chunks with pixels; the last is of a film.
_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
#: Bits of VP8X that say what stands in the file.
_HAS_EXIF, _HAS_XMP = 0x08, 0x04


def encode_webp(pixels: npt.NDArray[np.uint8], texts: Texts, quality: int | None) -> bytes:
    """Encode an image with its texts.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        quality: 1 to 100, lossy; None is lossless.

    Raises: ValueError for texts that the file cannot hold.
    """
    file = io.BytesIO()
    options = _LOSSLESS if quality is None else {**_LOSSY, "quality": quality}
    Image.fromarray(pixels).save(file, "WEBP", **options)
    kind, coded = next((kind, bytes(body)) for kind, body in _chunks(file.getvalue()) if kind in _PIXELS)
    height, width, _ = pixels.shape
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    sealed = {b"VP8X": struct.pack("<I", _HAS_EXIF | _HAS_XMP) + sides, kind: coded}
    packet = wrap_xmp(write_xmp(texts.truth or "", chain.from_iterable(sealed.items()), source=texts.source))
    chunks = {**sealed, b"EXIF": write_exif(texts.infotext or ""), b"XMP ": packet}
    body = b"".join(starmap(_chunk, chunks.items()))
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def read_webp_texts(data: bytes) -> Texts:
    """Return the texts of a WebP file, having checked that it is whole, and our text by its seal.

    Raises: ValueError with the reason, for a file that is not whole.
    """
    texts = {b"EXIF": b"", b"XMP ": b""}
    sealed: list[bytes | memoryview] = []
    for kind, body in _chunks(data):
        if kind in texts:
            texts[kind] = bytes(body)
        else:
            sealed += [kind, body]
    if not any(kind in sealed for kind in _PIXELS):
        raise ValueError("damaged WebP: no pixels")
    return read_blocks(texts[b"EXIF"].removeprefix(b"Exif\0\0"), texts[b"XMP "], sealed)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield every chunk of the file. Raises: ValueError where the file is not whole."""
    if data[:4] != b"RIFF" or data[8:_HEAD_BYTES] != b"WEBP":
        raise ValueError("not a WebP file")
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 != len(data):
        raise ValueError(f"truncated WebP: {len(data)} bytes, it says {length + 8}")
    position = _HEAD_BYTES
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError(f"damaged WebP: half a chunk at byte {position}")
        kind, size = struct.unpack_from("<4sI", data, position)
        end = position + 8 + size
        if end + size % 2 > len(data):
            raise ValueError(f"damaged WebP: chunk {kind!r} ends at {end}, the file at {len(data)}")
        yield kind, memoryview(data)[position + 8 : end]
        position = end + size % 2
