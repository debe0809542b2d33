"""Expands a file name in a sweep to paths: `~` is a home folder; `*`, `?` and `[]` match several files."""

from __future__ import annotations

import glob
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from producer.language.prompt_files.tables import FileInvalid
from producer.language.wording import show

#: Most files that one name may match. A night's manifests are a few thousand.
MATCHES_MAX = 10_000

_MAGIC = re.compile(r"[*?[]")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedPath:
    """A file that a name means."""

    #: As seen from the sweep's folder, `~` as it was written.
    shown: str
    path: Path


def find_paths(folder: Path, name: str, *, folders: bool = False) -> list[NamedPath]:
    """Return the files that a name means, in natural order: part-2 before part-10. One that is there is itself.

    Args:
        folder: what the name is relative to.
        folders: whether a pattern matches folders too.
    Raises: FileInvalid where a pattern matches nothing, or there is no such user.
    """
    head, rest = _split_home(name)
    home = os.path.expanduser(head)  # noqa: PTH111 - Path.expanduser raises for ~nobody
    literal = folder / f"{home}{rest}"
    if not _MAGIC.search(name) or _exists(literal):
        return [NamedPath(shown=name, path=literal)]
    found = glob.iglob(f"{home}{rest}", root_dir=folder, recursive=True)  # noqa: PTH207 - matches relative names
    matches = {
        match for match in itertools.islice(found, MATCHES_MAX + 1) if folders or (folder / match).is_file()
    }
    if not matches:
        raise FileInvalid("no file matches: check the name and the folder")
    if len(matches) > MATCHES_MAX:
        raise FileInvalid(f"more than {MATCHES_MAX:,} files match: name fewer")
    return [
        NamedPath(shown=head + match.removeprefix(home), path=folder / match)
        for match in sorted(matches, key=natural_key)
    ]


def find_path(folder: Path, name: str, *, folders: bool = False) -> NamedPath:
    """Return the one file that a name means. Raises: FileInvalid where a pattern matches none or several."""
    found = find_paths(folder, name, folders=folders)
    if len(found) > 1:
        listed = ", ".join(show(one.shown) for one in found[:3]) + (", ..." if len(found) > 3 else "")
        raise FileInvalid(f"{len(found):,} match ({listed}): name one")
    return found[0]


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return what names are sorted by, their numbers as numbers."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part
    ]


def is_absolute(name: str) -> bool:
    """Say whether a name is relative to nothing."""
    return bool(_split_home(name)[0]) or os.path.isabs(name)  # noqa: PTH117 - a name, not yet a path


def _split_home(name: str) -> tuple[str, str]:
    """Return ("~" or "~user" that a name begins with, or "", and the rest)."""
    head, slash, rest = name.partition("/")
    is_home = head.startswith("~") and os.path.expanduser(head) != head  # noqa: PTH111
    return (head, slash + rest) if is_home else ("", name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
