"""Which object keys and byte ranges every store allows. Knows nothing of where objects are kept."""

from __future__ import annotations

import re

#: Longest key in bytes: S3's own limit.
MAX_KEY_LENGTH = 1024

#: Longest part between two slashes: the limit of common file systems.
MAX_SEGMENT_LENGTH = 255

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_PREFIX_CHARACTERS = re.compile(r"[A-Za-z0-9._/-]*")


def check_key(key: str) -> str:
    """Return the key if it names an object inside the store.

    Raises: ValueError for a key that is empty, too long, absolute, has an empty, `.` or `..` segment, or a
        character other than letters, digits and `._-`.
    """
    segments = key.split("/")
    if len(key) > MAX_KEY_LENGTH or any(_bad_segment(segment) for segment in segments):
        raise ValueError(f"object key {_shown(key)}: use letters, digits and ._- between single slashes")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if every key that starts with it could be inside the store.

    Raises: ValueError.
    """
    *folders, _ = prefix.split("/")
    if not _PREFIX_CHARACTERS.fullmatch(prefix) or any(_bad_segment(segment) for segment in folders):
        raise ValueError(f"prefix {_shown(prefix)}: use letters, digits and ._- between single slashes")
    return prefix


def check_folder(prefix: str) -> str:
    """Return the prefix if it is the whole of a folder: "" or one that ends in a slash. Raises: ValueError."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"prefix {_shown(prefix)}: end it with a slash")
    return check_prefix(prefix)


def check_range(offset: int, size_bytes: int) -> None:
    """Raise ValueError for a range of bytes that no store reads: of nothing, or before the beginning."""
    if offset < 0 or size_bytes < 1:
        raise ValueError(f"range of {size_bytes} bytes from {offset}: use 1 byte or more, from 0 or more")


def is_key(text: str) -> bool:
    """Return whether `check_key` takes this text."""
    return len(text) <= MAX_KEY_LENGTH and not any(_bad_segment(segment) for segment in text.split("/"))


def _bad_segment(segment: str) -> bool:
    too_long = len(segment) > MAX_SEGMENT_LENGTH
    return too_long or segment in (".", "..") or not _SEGMENT.fullmatch(segment)


def _shown(text: str) -> str:
    """Return a text as an error may show it: quoted, escaped, not a page long."""
    return repr(text if len(text) <= 100 else text[:100] + "...")
