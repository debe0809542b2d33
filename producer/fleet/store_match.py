"""Compares the stores of workers, sweep and this client, and the store's manifests with Redis' figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from producer.results.time_limit import answer_within
from shared import names
from shared.errors import BrokerError, RowsMissing, StoreMismatch, SweepUnknown
from shared.ledger import Ledger, SweepStatus, WorkerInfo
from shared.plan import Plan
from shared.store.base import Store
from shared.store.identity import StoreIdentity, StoreMark, place_of

#: How long a status waits for a store that does not answer.
_QUICK_ANSWER_SECONDS = 3.0

_FIX = (
    "set PRINTROOM_STORE (and PRINTROOM_S3_ENDPOINT_URL) to the same store on both sides; a folder with its"
    " absolute path"
)


def require_same_store(workers: Iterable[WorkerInfo], identity: StoreIdentity) -> None:
    """Refuse to go on where a live worker renders into another store than this client reads.

    Raises: StoreMismatch; StoreError.
    """
    strangers = [w for w in workers if w.store and not identity.has(w.store)]
    if strangers:
        listed = "\n".join(f"worker {w.name} renders into {_mark(w)}" for w in strangers)
        raise StoreMismatch(f"{listed}\nthis client reads {identity.read()}: {_FIX}")


def require_sweep_here(status: SweepStatus, identity: StoreIdentity) -> None:
    """Refuse a sweep that Redis knows from another store. Raises: StoreMismatch; StoreError."""
    if status.store and not identity.has(status.store):
        raise StoreMismatch(_elsewhere(status, identity.read()))


def store_obstacles(status: SweepStatus, workers: Sequence[WorkerInfo], identity: StoreIdentity) -> list[str]:
    """Say where the stores of a sweep, of the workers and of this client differ. A silent store says nothing."""
    if not status.store:
        return []
    asked = {status.store, *(w.store for w in workers if w.store)}
    here = answer_within(lambda: _ours(identity, asked), seconds=_QUICK_ANSWER_SECONDS)
    if here is None:
        return []
    if status.store not in here:
        return [_elsewhere(status, identity.mark)]
    return [
        f"worker {w.name} renders into {_mark(w)}, this sweep is in {_sweep_mark(status)}: {_FIX}"
        for w in workers
        if w.store and w.store not in here and status.state != "done"
    ]


def require_rows(sweep: str, plan: Plan, *, chunks_done: int | None, ledger: Ledger, store: Store) -> None:
    """Refuse to be content with fewer rows than the ledger counts.

    Args:
        chunks_done: how many manifests there were before the store was read (`committed_chunks`); None says nothing.

    Raises: RowsMissing; StoreError.
    """
    if not chunks_done:
        return
    keys = [info.key for info in store.list(names.manifest_prefix(sweep)) if info.key.endswith(".parquet")]
    if len(keys) >= chunks_done:
        return
    try:
        status = ledger.status(sweep)
    except (BrokerError, SweepUnknown):
        return
    if len(keys) >= status.chunks_done:  # a retry took some back meanwhile
        return
    rows = sum(len(plan.chunk(names.chunk_of_manifest(key))) for key in keys)
    into = f" (the sweep was submitted into {_sweep_mark(status)})" if status.store else ""
    raise RowsMissing(
        f"the ledger counts {status.done:,} done, this store has {rows:,} rows: is PRINTROOM_STORE the worker's"
        f" store? It is {place_of(store)}{into}"
    )


def committed_chunks(sweep: str, ledger: Ledger) -> int | None:
    """Return how many manifests the ledger knows of; None where it knows nothing of the sweep."""
    try:
        return None if ledger.state(sweep) is None else ledger.status(sweep).chunks_done
    except (BrokerError, SweepUnknown):
        return None


def _elsewhere(status: SweepStatus, here: StoreMark) -> str:
    return (
        f"sweep {status.sweep[:12]} was submitted into {_sweep_mark(status)}, this client reads {here}: {_FIX}."
        " If the store was emptied or made anew, give it a PRINTROOM_REDIS_PREFIX of its own; a copy wants"
        " identity/ too"
    )


def _mark(worker: WorkerInfo) -> StoreMark:
    return StoreMark(id=worker.store, place=worker.store_place)


def _sweep_mark(status: SweepStatus) -> StoreMark:
    return StoreMark(id=status.store, place=status.store_place)


def _ours(identity: StoreIdentity, ids: set[str]) -> set[str]:
    """Return those of the ids that are this store's."""
    found = {one for one in ids if identity.has(one)}
    if found != ids and not identity.mark.id:
        identity.read()  # for the message
    return found
