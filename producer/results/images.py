"""Reads the image of a manifest row from the store and checks it against the row's sha256."""

from __future__ import annotations

import hashlib

from producer.results.manifest_row import DoneRow, ImageLocation
from shared.errors import ImageDamaged
from shared.store.base import Store


def read_stored_image(store: Store, row: ImageLocation | DoneRow) -> bytes:
    """Return the image file of a finished row, whole and right: an object, or its part of a shard.

    Args:
        row: a row of `manifest_rows`, whose job is done.

    Raises: ObjectMissing; ImageDamaged for bytes of another sha256; StoreUnavailable, StoreDenied.
    """
    key, offset = row["key"], row["offset"]
    data = store.get(key) if offset is None else store.get_range(key, offset, row["size_bytes"])
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        place = key if offset is None else f"{key}, byte {offset}"
        raise ImageDamaged(f"{place}: its sha256 is not what the manifest says")
    return data
