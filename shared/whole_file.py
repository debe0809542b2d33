"""Writes a file whole or not at all: bytes as they come, or a picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@contextlib.contextmanager
def whole_file(path: Path, *, tag: str = "") -> Iterator[IO[bytes]]:
    """Write a file beside its place, and put it there only when it is whole; what was there stays until then.

    Args:
        tag: sets apart what several threads write to one place.

    Raises: OSError, which names the file, for all that the file system refuses meanwhile.
    """
    place = path.resolve() if path.is_symlink() else path
    temporary = place.with_name(f".{place.name}{tag}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        temporary.replace(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_png(image: Image, path: Path) -> None:
    """Write a picture as PNG, or leave what was there. Raises: OSError, which names the file."""
    with whole_file(path) as file:
        image.save(file, "PNG")
