"""Lists the files below a folder, in order; follows links to files and folders. Knows nothing of their content."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk_files(folder: Path, *, enters: Callable[[Path], bool] = lambda folder: True) -> Iterator[Path]:
    """Yield every file below a folder, by its path as written; links to folders are entered like folders.

    Args:
        enters: asked for each folder inside, by its path as written.

    Raises: OSError with ELOOP for a link that leads to a folder that it lies in, and for folders that cannot be read.
    """
    yield from _walk(folder, (os.path.realpath(folder),), enters)


def _walk(folder: Path, above: tuple[str, ...], enters: Callable[[Path], bool]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            real = os.path.realpath(path)
            if real in above:
                raise OSError(errno.ELOOP, "a link leads round in a circle", str(path))
            if enters(path):
                yield from _walk(path, (*above, real), enters)
        elif path.is_file():
            yield path
