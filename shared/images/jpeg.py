"""Writes pixels and texts to a JPEG file, and reads the texts back. Knows nothing of jobs.

The infotext is EXIF's UserComment, where A1111 and its readers look for it; our own text is XMP. A segment of a
JPEG ends at 64 kB. A longer packet of XMP goes on in further segments, as its standard has it; a longer infotext
is left out, since EXIF has no such way.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.images.exif import write_exif
from shared.images.texts import Texts, read_blocks
from shared.images.xmp import pointer_xmp, wrap_xmp, write_xmp

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_APP0, _APP1, _SOS = 0xE0, 0xE1, 0xDA

#: A segment's length counts its own two bytes.
_SEGMENT_MAX = 0xFFFF - 2

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
#: After that: the MD5 of the packet in 32 hex digits, its length, and where this part of it begins.
_PART = ">32sII"
_PART_BYTES_MAX = _SEGMENT_MAX - len(_MORE_XMP) - struct.calcsize(_PART)

#: No chroma subsampling: a red lip keeps its edge.
_SUBSAMPLING = "4:4:4"


def encode_jpeg(pixels: npt.NDArray[np.uint8], texts: Texts, quality: int) -> bytes:
    """Encode an image with its texts.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        quality: 1 to 100 on libjpeg's scale.

    Raises: ValueError for texts that the file cannot hold.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=_SUBSAMPLING)
    head, rest = _split(file.getvalue())
    exif = _EXIF + write_exif(texts.infotext or "")
    packet = write_xmp(texts.truth or "", [head, rest], source=texts.source)
    ours = [*([exif] if len(exif) <= _SEGMENT_MAX else []), *_xmp_segments(packet, texts.source)]
    return b"".join([head, *(_segment(body) for body in ours), rest])


def read_jpeg_texts(data: bytes) -> Texts:
    """Return the texts of a JPEG file, having checked that it is whole, and our text by its seal.

    Raises: ValueError with the reason, for a file that is not whole.
    """
    texts: list[bytes] = []
    sealed: list[bytes | memoryview] = [_SOI]
    for marker, segment in _segments(data):
        if marker == _APP1:
            texts.append(bytes(segment[4:]))
        else:
            sealed.append(segment)
    exif = next((body.removeprefix(_EXIF) for body in texts if body.startswith(_EXIF)), b"")
    return read_blocks(exif, _packet(texts), sealed)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return a file's start, with the JFIF segment that wants to be first, and the rest."""
    marker, segment = next(_segments(data))
    end = 2 + (len(segment) if marker == _APP0 else 0)
    return data[:end], data[end:]


def _xmp_segments(packet: bytes, source: str | None) -> list[bytes]:
    whole = _XMP + wrap_xmp(packet)
    if len(whole) <= _SEGMENT_MAX:
        return [whole]
    digest = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    parts = [
        _MORE_XMP
        + struct.pack(_PART, digest.encode(), len(packet), start)
        + packet[start : start + _PART_BYTES_MAX]
        for start in range(0, len(packet), _PART_BYTES_MAX)
    ]
    return [_XMP + wrap_xmp(pointer_xmp(digest, source=source)), *parts]


def _packet(segments: Sequence[bytes]) -> bytes:
    """Return the XMP of a file: its packet, or the one that its packet points to."""
    packet = next((body[len(_XMP) :] for body in segments if body.startswith(_XMP)), b"")
    parts: dict[int, bytes] = {}
    length = 0
    for body in segments:
        head = len(_MORE_XMP) + struct.calcsize(_PART)
        if body.startswith(_MORE_XMP) and len(body) > head:
            digest, whole, start = struct.unpack_from(_PART, body, len(_MORE_XMP))
            if digest in packet:
                parts[start], length = body[head:], whole
    if not parts:
        return packet
    more = b"".join(parts[start] for start in sorted(parts))
    if len(more) != length:
        raise ValueError(f"damaged JPEG: {len(more)} bytes of extended XMP, it says {length}")
    return more


def _segment(body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, _APP1, len(body) + 2) + body


def _segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield (marker, segment with its marker and length); the last one is the scan with all that follows.

    Raises: ValueError where the file is not whole.
    """
    if data[:2] != _SOI:
        raise ValueError("not a JPEG file")
    position = 2
    while position + 4 <= len(data):
        start, marker, length = struct.unpack_from(">BBH", data, position)
        if start != 0xFF:
            raise ValueError(f"damaged JPEG: no marker at byte {position}")
        if marker == _SOS:
            if data[-2:] != _EOI:
                raise ValueError(f"truncated JPEG: {len(data)} bytes and no end")
            yield marker, memoryview(data)[position:]
            return
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise ValueError(f"truncated JPEG: {len(data)} bytes, a segment ends at {end}")
        yield marker, memoryview(data)[position:end]
        position = end
    raise ValueError(f"truncated JPEG: {len(data)} bytes and no pixels")
