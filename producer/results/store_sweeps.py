"""Lists the sweeps in a store, without Redis: ids from one listing, names from their plans."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from shared import names
from shared.errors import ObjectMissing
from shared.plan import Plan
from shared.store.base import Store

log = logging.getLogger(__name__)

#: Plans read at once.
_READERS = 16

_ID = re.compile("[0-9a-f]{32}")
#: What may be the start of an id.
_START = re.compile("[0-9a-f]{4,32}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSweep:
    """A sweep as its plan tells of it."""

    sweep: str
    name: str
    jobs: int


def stored_ids(store: Store) -> list[str]:
    """Return the ids of all sweeps of a store, by their folders alone: a thousand a request. Raises: StoreError."""
    return [name for name in store.folders(names.SWEEPS_PREFIX) if _ID.fullmatch(name)]


def stored_sweeps(sweeps: Iterable[str], store: Store) -> Iterator[StoredSweep]:
    """Yield what the plans of these sweeps say; one without a readable plan is passed over. Raises: StoreError."""
    for sweep, plan in stored_plans(sweeps, store):
        yield StoredSweep(sweep=sweep, name=plan.name, jobs=len(plan))


def stored_plans(sweeps: Iterable[str], store: Store) -> Iterator[tuple[str, Plan]]:
    """Yield each of these sweeps with its plan, reading a few ahead; one without a readable plan is passed over.

    Raises: StoreError.
    """
    rest = iter(sweeps)
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = deque(pool.submit(_read, sweep, store) for sweep in islice(rest, 2 * _READERS))
        while ahead:
            found = ahead.popleft().result()
            ahead.extend(pool.submit(_read, sweep, store) for sweep in islice(rest, 1))
            if found is not None:
                yield found


def find_stored(text: str, store: Store, *, known: Collection[str]) -> list[str]:
    """Return the ids of the store's sweeps that an id, the start of one, or a name means.

    Args:
        known: sweeps of Redis, whose names have been looked through.

    Raises: StoreError.
    """
    if _ID.fullmatch(text):
        return [text] if store.head(names.plan_key(text)) is not None else []
    ids = stored_ids(store)
    if _START.fullmatch(text):
        found = [one for one in ids if one.startswith(text) and store.head(names.plan_key(one)) is not None]
        if found:
            return found
    unknown = [one for one in ids if one not in known]
    return [one.sweep for one in stored_sweeps(unknown, store) if one.name == text]


def _read(sweep: str, store: Store) -> tuple[str, Plan] | None:
    try:
        return sweep, Plan.from_bytes(store.get(names.plan_key(sweep)))
    except ObjectMissing:
        return None  # its submit died before the plan
    except ValueError as error:
        log.warning("plan_unreadable", extra={"sweep": sweep, "reason": str(error)})
        return None
