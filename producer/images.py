"""A manifest row's image out of the store, checked against the row's sha256. Knows nothing of where it then goes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from shared.errors import ImageDamaged
from shared.store.base import Store


def read_image(store: Store, row: Mapping[str, Any]) -> bytes:
    """Return the image file of a finished row, whole and right.

    Args:
        row: a row of `manifest_rows`, whose job is done.

    Raises: ObjectMissing; ImageDamaged for bytes of another sha256; StoreUnavailable, StoreDenied.
    """
    data = store.get(row["key"])
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ImageDamaged(f"{row['key']}: its sha256 is not what the manifest says")
    return data
