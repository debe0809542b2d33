"""Unpacks files of gzip, bzip2, xz or zstd, up to a bound. Knows nothing of their content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any

#: End of a file's name -> what it was packed with.
PACKINGS: Mapping[str, str] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


class PackingInvalid(ValueError):
    """A file cannot be unpacked, or holds too much. The message says what to do."""


def unpack(data: bytes, packing: str, *, bytes_max: int) -> bytes:
    """Return what a packed file holds; of a file that holds too much, no more than the bound is unpacked.

    Args:  packing: a value of `PACKINGS`.
    Raises: PackingInvalid.
    """
    try:
        with _OPENERS[packing](data) as file:
            unpacked: bytes = file.read(bytes_max + 1)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise PackingInvalid(f"cannot be unpacked by {packing} ({error}): write it again") from error
    if len(unpacked) > bytes_max:
        raise PackingInvalid(f"unpacked it has more than {bytes_max >> 20} MiB: split it")
    return unpacked


def _open_zstd(data: bytes) -> Any:
    import pyarrow

    return pyarrow.input_stream(pyarrow.BufferReader(data), compression="zstd")


_OPENERS: Mapping[str, Callable[[bytes], IO[bytes] | Any]] = {
    "gzip": lambda data: gzip.GzipFile(fileobj=io.BytesIO(data)),
    "bzip2": lambda data: bz2.BZ2File(io.BytesIO(data)),
    "xz": lambda data: lzma.LZMAFile(io.BytesIO(data)),  # noqa: SIM115 - whoever calls it closes it
    "zstd": _open_zstd,
}
