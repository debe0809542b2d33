"""The store's interface: the operations that Printroom needs of a place for results. Knows no S3 and no folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

#: How long a URL of `presign` may work: S3's bound, seven days.
PRESIGN_SECONDS_MAX = 604_800


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """An object, without its content."""

    #: Key relative to the store's root: "images/ab/ab12....png".
    key: str
    size_bytes: int


class Store(Protocol):
    """Keeps bytes under keys. Safe to use from several threads at once.

    Keys are relative, "/"-separated, of letters, digits and `._-`; a key that would leave the root is
    refused with ValueError. `put` is atomic: a reader sees the old object, or the new one whole.
    """

    #: Where this is, for people: "s3://bucket/prefix" or a folder's path. Never holds a secret.
    url: str

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write an object, durably; overwrite what was there.

        Raises: StoreUnavailable, StoreDenied, StoreFull.
        """

    def put_new(self, key: str, data: bytes, *, content_type: str) -> bool:
        """Write an object, durably, where there is none. Returns False where there is one, which stays as it is.

        Of several who write at the same moment one is first, if the store can tell (`keeps_first`).

        Raises: StoreUnavailable, StoreDenied, StoreFull.
        """

    @property
    def keeps_first(self) -> bool:
        """Whether `put_new` is one step here. Known after the first one that has written."""

    def get(self, key: str) -> bytes:
        """Return an object's content.

        Raises: ObjectMissing, StoreUnavailable, StoreDenied.
        """

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """Return part of an object, as far as the object goes: `get(key)[offset : offset + size_bytes]`.

        Nobody checks a part's content on its way: whoever asks knows its sha256.

        Raises: ValueError for a range that no object has; ObjectMissing, StoreUnavailable, StoreDenied.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None where there is none."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of what has objects below it, directly under `prefix` ("" or "a/b/"), in order.

        Reads no listing of the objects themselves.
        """

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""

    def presign(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL that reads the object for a while (a file:// URL for a folder)."""
