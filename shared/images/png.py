"""Writes pixels and texts to a PNG file, and reads the texts back. Knows nothing of jobs.

The Up filter in NumPy and ISA-L's deflate at level 1: a fraction of the CPU time of Pillow's default for a
tenth more bytes (`benchmarks/encoders.py`). The same pixels and texts give the same bytes as long as
`ENCODER`, which names what compresses, is the same and the processors are of one family: ISA-L picks its
code by processor, and without the `isal` package zlib does the work, whose stream is another.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy as np
import numpy.typing as npt

_deflate: ModuleType
try:
    from isal import __version__ as _isal_version
    from isal import isal_zlib

    _deflate, ENCODER = isal_zlib, f"isal {_isal_version}"
except ImportError:  # the producer installs without it
    _deflate, ENCODER = zlib, f"zlib {zlib.ZLIB_RUNTIME_VERSION}"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Filter type 2 of the PNG specification: each byte minus the one above it.
_FILTER_UP = 2
#: IHDR's last five bytes: 8 bits a sample, RGB, deflate, adaptive filtering, not interlaced.
_RGB8 = bytes((8, 2, 0, 0, 0))
#: The chunk that holds XMP: always an iTXt, as Adobe's specification wants it.
XMP_KEYWORD = "XML:com.adobe.xmp"
#: iTXt after its keyword: NUL, not compressed, method 0, no language tag, no translated keyword.
_ITXT_HEAD = b"\0\0\0\0\0"


def encode_png(pixels: npt.NDArray[np.uint8], texts: Mapping[str, str]) -> bytes:
    """Encode an image losslessly, with its texts before the pixels, in their order.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        texts: keyword -> text. Latin-1 text becomes a tEXt chunk, any other an iTXt chunk, not compressed.

    Raises: ValueError for another shape or dtype, and for texts PNG cannot hold (NUL, lone surrogates, a
        keyword that is not 1 to 79 Latin-1 characters).
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype}: use (H, W, 3) uint8")
    height, width, _ = pixels.shape
    chunks = [_chunk(b"IHDR", struct.pack(">II", width, height) + _RGB8)]
    chunks += [_text_chunk(keyword, text) for keyword, text in texts.items()]
    chunks += [_chunk(b"IDAT", _deflate.compress(_filter_up(pixels), 1)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def read_png_texts(data: bytes) -> dict[str, str]:
    """Return a PNG's tEXt and uncompressed iTXt texts, having checked every chunk of the file.

    Checks each CRC, that the file begins with IHDR, holds pixels, and ends with IEND and nothing after it.
    Does not decode the pixels.

    Raises: ValueError with the reason, for a file that is truncated, damaged or not PNG.
    """
    texts: dict[str, str] = {}
    kinds: list[bytes] = []
    for kind, body in _chunks(data):
        kinds.append(kind)
        if kind == b"tEXt":
            keyword, _, text = bytes(body).partition(b"\0")
            texts[keyword.decode("latin-1")] = text.decode("latin-1")
        elif kind == b"iTXt":
            texts.update(_international_text(bytes(body)))
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds:
        raise ValueError("damaged PNG: no header or no pixels")
    return texts


def _filter_up(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the rows as PNG stores them, each with its filter byte, minus the row above."""
    rows = pixels.reshape(pixels.shape[0], -1)  # (H, 3W)
    filtered = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)  # (H, 1 + 3W)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # wraps modulo 256, as PNG wants
    return filtered


def _text_chunk(keyword: str, text: str) -> bytes:
    name = _keyword(keyword)
    if "\0" in text:
        raise ValueError(f"text {keyword!r} holds a NUL character, which PNG cannot store")
    if keyword != XMP_KEYWORD:
        with contextlib.suppress(UnicodeEncodeError):
            return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    return _chunk(b"iTXt", name + _ITXT_HEAD + text.encode())


def _keyword(keyword: str) -> bytes:
    name = keyword.encode("latin-1", "replace")
    if not 1 <= len(name) <= 79 or not keyword.isprintable() or keyword != " ".join(keyword.split()):
        raise ValueError(f"PNG keyword {keyword!r}: use 1 to 79 printable characters without outer spaces")
    return name


def _international_text(body: bytes) -> dict[str, str]:
    """Return an iTXt chunk's text by keyword; nothing for a compressed one, which is never ours."""
    try:
        keyword, rest = body.split(b"\0", 1)
        compressed, rest = rest[0], rest[2:]
        _, _, text = rest.split(b"\0", 2)
        return {} if compressed else {keyword.decode("latin-1"): text.decode()}
    except (ValueError, IndexError) as e:  # UnicodeDecodeError is a ValueError
        raise ValueError("damaged PNG: an iTXt chunk that cannot be read") from e


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum: int = _deflate.crc32(body, _deflate.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the chunks up to IEND, each with its CRC checked.

    Raises: ValueError where the file is not whole.
    """
    if data[:8] != SIGNATURE:
        raise ValueError("not a PNG file")
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ValueError(f"truncated PNG: {len(data)} bytes, chunk {kind!r} ends at {end}")
        body = memoryview(data)[position + 8 : end - 4]
        (expected,) = struct.unpack_from(">I", data, end - 4)
        if _deflate.crc32(body, _deflate.crc32(kind)) != expected:
            raise ValueError(f"damaged PNG: chunk {kind!r} at byte {position} does not match its CRC")
        yield kind, body
        if kind == b"IEND":
            if end != len(data):
                raise ValueError(f"damaged PNG: {len(data) - end} bytes after its end")
            return
        position = end
    raise ValueError(f"truncated PNG: {len(data)} bytes and no end")
