"""Turns A1111's infotext into an EXIF block (field UserComment), and back. Knows nothing of files.

As A1111 writes it: big-endian, the comment in UTF-16. EXIF leaves the byte order of such a comment open, so
that a reader has to look; other programs write it the other way round.
"""

from __future__ import annotations

import struct

_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_LONG, _UNDEFINED = 4, 7

_UNICODE = b"UNICODE\0"
_ASCII = b"ASCII\0\0\0"

#: One entry of a directory: tag, type, count, value or its offset.
_ENTRY = "HHII"
_ENTRY_BYTES = 12

#: TIFF's header, a directory with one entry, and its end.
_HEADER_BYTES = 8
_DIRECTORY_BYTES = 2 + _ENTRY_BYTES + 4


def write_exif(comment: str) -> bytes:
    """Return a TIFF block whose one field is UserComment.

    Raises: ValueError for NUL and lone surrogates.
    """
    if "\0" in comment:
        raise ValueError("the infotext holds a NUL character, which EXIF cannot store")
    value = _UNICODE + comment.encode("utf-16-be")
    exif_at = _HEADER_BYTES + _DIRECTORY_BYTES
    value_at = exif_at + _DIRECTORY_BYTES
    directories = [
        (_EXIF_IFD, _LONG, 1, exif_at),
        (_USER_COMMENT, _UNDEFINED, len(value), value_at),
    ]
    head = struct.pack(">2sHI", b"MM", 42, _HEADER_BYTES)
    return head + b"".join(struct.pack(f">H{_ENTRY}I", 1, *entry, 0) for entry in directories) + value


def read_exif(block: bytes) -> str | None:
    """Return UserComment of a TIFF block, or None where it has none that can be read."""
    order = {b"MM": ">", b"II": "<"}.get(block[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        exif = _entry(block, order, first, _EXIF_IFD)
        comment = exif and _entry(block, order, exif[1], _USER_COMMENT)
    except struct.error:
        return None
    if not comment:
        return None
    count, at = comment
    return _decode(block[at : at + count])


def _entry(block: bytes, order: str, directory: int, wanted: int) -> tuple[int, int] | None:
    """Return (count, value or offset) of a tag."""
    (entries,) = struct.unpack_from(f"{order}H", block, directory)
    for number in range(entries):
        tag, _, count, value = struct.unpack_from(
            f"{order}{_ENTRY}", block, directory + 2 + number * _ENTRY_BYTES
        )
        if tag == wanted:
            return count, value
    return None


def _decode(value: bytes) -> str | None:
    charset, text = value[:8], value[8:]
    try:
        if charset == _UNICODE:
            # Of most texts more than half is ASCII, whose upper bytes are zero.
            little = text[1::2].count(0) > text[0::2].count(0)
            return text.decode("utf-16-le" if little else "utf-16-be")
        return text.decode() if charset == _ASCII else None
    except UnicodeDecodeError:
        return None
