"""Files written whole or not at all. Knows nothing of sweeps."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shared.command_exit import explain
from shared.errors import StoreError
from shared.whole_file import whole_file

#: Read from a file at once.
_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: Path, *, tag: str = "") -> Iterator[IO[bytes]]:
    """Write a file beside its place, and put it there only when it is whole.

    Args:
        tag: sets apart what several threads write to one place.

    Raises: StoreError naming the file and the fix, for all that the file system refuses meanwhile.
    """
    try:
        with whole_file(path, tag=tag) as file:
            yield file
    except OSError as error:
        raise StoreError(explain(error).text) from error


def write_whole(path: Path, data: bytes, *, tag: str = "") -> None:
    """Write a file, or leave what was there. Raises: StoreError."""
    with replacing(path, tag=tag) as file:
        file.write(data)


def write_new(path: Path, data: bytes) -> None:
    """Write a file, where it does not say just that already. Raises: StoreError."""
    if not (path.is_file() and path.read_bytes() == data):
        write_whole(path, data)


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises: StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(explain(error).text) from error


def is_right(path: Path, *, size_bytes: int, sha256: str) -> bool:
    """Return whether a file is there and has this content; most of the wrong ones are told by their size."""
    if not path.is_file() or path.stat().st_size != size_bytes:
        return False
    return sha256_of(path) == sha256


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hex; memory does not grow with the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
