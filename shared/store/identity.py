"""The identity of a store: a small object under `identity/` that workers and sweeps name, to find out a mix-up.

Two sides that mean different places (a relative folder, another prefix, another endpoint) are found out by it; one
place under two addresses is one store, and so is a copy of it.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from shared.errors import StoreDenied, StoreError
from shared.names import IDENTITY_PREFIX, identity_key
from shared.store.base import Store

log = logging.getLogger(__name__)

#: How long "no such identity here" is believed: who asks twice a second asks the store six times a minute.
_ABSENT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreMark:
    """What a sweep or a worker tells of its store."""

    #: Empty where it is not known: of an older version, or of a store that may only be read.
    id: str = ""
    #: Where it is, for people: a folder with its machine, or bucket and endpoint.
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place} (store {self.id[:8]})" if self.id else self.place


class StoreIdentity:
    """The identity of one store. Thread-safe.

    No conditional write is needed: each of two first writers writes an object of its own, and the least id is the
    store's. Whoever believes in another one for a moment is still known, since `has` knows them all.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known = ""
        self._present: set[str] = set()
        self._absent: dict[str, float] = {}

    @property
    def mark(self) -> StoreMark:
        """What is known of the store by now, without asking it."""
        return StoreMark(id=self._known, place=place_of(self._store))

    def read(self) -> StoreMark:
        """Ask the store for its identity; the id is empty where it has none yet. Raises: StoreError."""
        ids = self._ids()
        with self._lock:
            self._known = min(ids, default="")
            self._present = set(ids)
        return self.mark

    def settle(self) -> StoreMark:
        """Return the store's identity, and give it one if it has none and may be written.

        Raises: StoreError; also where the store does not list what was written into it.
        """
        if self.read().id:
            return self.mark
        mine = secrets.token_hex(16)
        body = {"version": 1, "id": mine, "created_at": datetime.now(UTC).isoformat()}
        try:
            self._store.put(identity_key(mine), json.dumps(body).encode(), content_type="application/json")
        except StoreDenied as error:
            log.info("store_without_identity", extra={"reason": str(error)})
            return self.mark
        if not self.read().id:
            raise StoreError(
                f"{place_of(self._store)} took an object and does not list it: is PRINTROOM_S3_ENDPOINT_URL the"
                " server alone, without a bucket?"
            )
        return self.mark

    def has(self, store_id: str) -> bool:
        """Return whether an id is one of this store's. Raises: StoreError."""
        with self._lock:
            if store_id in self._present:
                return True
            if time.monotonic() < self._absent.get(store_id, 0.0):
                return False
        there = self._store.head(identity_key(store_id)) is not None
        with self._lock:
            if there:
                self._present.add(store_id)
            else:
                self._absent[store_id] = time.monotonic() + _ABSENT_SECONDS
        return there

    def _ids(self) -> list[str]:
        names = (info.key.removeprefix(IDENTITY_PREFIX) for info in self._store.list(IDENTITY_PREFIX))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]


_MADE: WeakKeyDictionary[Store, StoreIdentity] = WeakKeyDictionary()
_MAKING = threading.Lock()


def identity_of(store: Store) -> StoreIdentity:
    """Return the identity of a store that is open: one for all who use it, with what they have learnt."""
    with _MAKING:
        return _MADE.setdefault(store, StoreIdentity(store))


def place_of(store: Store) -> str:
    """Return where a store is, as it reads on another machine too."""
    endpoint = getattr(store, "endpoint", None)
    return f"{store.url} at {endpoint}" if endpoint else f"{socket.gethostname()}:{store.url}"
