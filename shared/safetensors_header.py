"""Reads the header of a .safetensors file: the names, types and places of its tensors, and its metadata. No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Longest header, bytes: the limit of the safetensors library. The largest in use are a few MB.
HEADER_BYTES_MAX = 100_000_000

_LENGTH_BYTES = 8


class HeaderInvalid(ValueError):
    """A file has no header of a .safetensors file. The message is one line that names the file and the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """What a header says of one tensor."""

    #: "F16", "F32", "BF16" and so on, as safetensors spells them.
    dtype: str
    shape: tuple[int, ...]
    #: First byte, and the one after the last, counted from the end of the header.
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The header of a .safetensors file."""

    tensors: Mapping[str, Tensor]
    #: Texts that a program wrote beside the tensors, such as `modelspec.architecture`.
    metadata: Mapping[str, str]
    #: Bytes before the first tensor.
    bytes: int


def read_header(path: Path) -> Header:
    """Return the header of a .safetensors file; reads no tensor.

    Raises: HeaderInvalid, OSError.
    """
    with path.open("rb") as stream:
        start = stream.read(_LENGTH_BYTES)
        if len(start) < _LENGTH_BYTES:
            raise HeaderInvalid(f"{path}: only {len(start)} bytes, so no .safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > HEADER_BYTES_MAX:
            raise HeaderInvalid(f"{path}: not a .safetensors file: it does not begin with a header's length")
        text = stream.read(length)
    if len(text) < length:
        raise HeaderInvalid(f"{path}: cut off: its header is {length:,} bytes long, {len(text):,} are there")
    try:
        document = json.loads(text)
        return _header(document, _LENGTH_BYTES + length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise HeaderInvalid(f"{path}: its header cannot be read: {reason}") from error


def _header(document: dict[str, Any], size: int) -> Header:
    metadata = document.pop("__metadata__", None) or {}
    return Header(
        tensors={name: _tensor(entry) for name, entry in document.items()},
        metadata={name: text for name, text in metadata.items() if isinstance(text, str)},
        bytes=size,
    )


def _tensor(entry: dict[str, Any]) -> Tensor:
    start, stop = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    return Tensor(dtype=str(entry["dtype"]), shape=shape, start=int(start), stop=int(stop))
