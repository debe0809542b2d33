"""Puts a sweep into the store and Redis, once; and back into Redis from the store after Redis has lost it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from producer.fleet.store_match import require_same_store, require_sweep_here
from producer.results.rows import manifests
from shared import names
from shared.errors import ConfirmationNeeded, ObjectMissing, SweepUnknown
from shared.ledger import ChunkOutcome, Ledger, SweepState
from shared.manifest import read_columns
from shared.plan import Plan
from shared.store.base import Store
from shared.store.identity import StoreIdentity

log = logging.getLogger(__name__)

#: More jobs than this want an explicit yes: a slipped zero should not cost a month of GPUs.
CONFIRM_ABOVE_JOBS = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What came of submitting a sweep."""

    sweep: str
    #: new: never seen; known: nothing was changed; relabelled: known, and its jobs are called otherwise; rebuilt: Redis
    #: had lost it, the store had not.
    outcome: str
    jobs: int
    chunks: int
    state: SweepState
    #: What somebody has to do before all of it can be rendered, a line each.
    advice: tuple[str, ...] = ()


def submit_plan(
    plan: Plan,
    source: bytes,
    *,
    store: Store,
    identity: StoreIdentity,
    ledger: Ledger,
    priority: int = 0,
    confirmed: bool = False,
) -> Submission:
    """Make a plan durable in the store, then known in Redis. Doing it again changes nothing.

    Every check is made before the first write.

    Raises: ConfirmationNeeded, StoreMismatch, StoreError, BrokerError.
    """
    if len(plan) > CONFIRM_ABOVE_JOBS and not confirmed:
        raise ConfirmationNeeded(
            f"{len(plan):,} jobs: that is a lot; confirm with --yes (confirmed=True in Python)"
        )
    require_same_store(ledger.workers(), identity)
    outcome = _outcome(plan, source, store, identity, ledger, priority)
    state = ledger.status(plan.id).state
    return Submission(sweep=plan.id, outcome=outcome, jobs=len(plan), chunks=plan.chunks, state=state)


def rebuild(
    sweep: str,
    *,
    store: Store,
    identity: StoreIdentity,
    ledger: Ledger,
    on_chunk: Callable[[], None] = lambda: None,
) -> int:
    """Bring a sweep back into Redis from its plan and manifests. Returns the chunks found done.

    Nothing is fed until all its bits are set, so that nothing done is rendered again. Doing it twice does no harm.

    Raises: SweepUnknown where the store does not have it either; StoreError; BrokerError.
    """
    try:
        plan = Plan.from_bytes(store.get(names.plan_key(sweep)))
    except ObjectMissing as error:
        raise SweepUnknown(f"{sweep}: no such sweep, neither in Redis nor in {store.url}") from error
    ledger.submit(sweep, plan, state="rebuilding", store=identity.settle())
    found = 0
    for number, outcome in _recorded(sweep, store):
        ledger.record(sweep, outcome, chunk=plan.chunk(number))
        found += 1
        on_chunk()
    ledger.set_state(sweep, "active")
    return found


def _outcome(
    plan: Plan, source: bytes, store: Store, identity: StoreIdentity, ledger: Ledger, priority: int
) -> str:
    state = ledger.state(plan.id)
    if state is not None:
        require_sweep_here(ledger.status(plan.id), identity)
    if state not in (None, "rebuilding"):
        ledger.submit(plan.id, plan)  # changes nothing, unless the first submit died midway
        return "relabelled" if _relabel(plan, source, store, ledger) else "known"
    if state or store.head(names.plan_key(plan.id)) is not None:
        rebuild(plan.id, store=store, identity=identity, ledger=ledger)
        ledger.set_priority(plan.id, priority)
        _relabel(plan, source, store, ledger)
        return "rebuilt"
    mark = identity.settle()
    store.put(names.source_key(plan.id), source, content_type="application/yaml")
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="application/zstd")
    return "new" if ledger.submit(plan.id, plan, priority=priority, store=mark) else "known"


def _relabel(plan: Plan, source: bytes, store: Store, ledger: Ledger) -> bool:
    """Give a known sweep the labels of its new plan, the same in all else. Returns False where they are equal."""
    old = ledger.plan_bytes(plan.id)
    if old is None or Plan.from_bytes(old).has_labels_of(plan):
        return False
    store.put(names.source_key(plan.id), source, content_type="application/yaml")
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="application/zstd")
    ledger.replace_plan(plan.id, plan)
    return True


def _recorded(sweep: str, store: Store) -> Iterator[tuple[int, ChunkOutcome]]:
    """Yield what each manifest of a sweep says of its chunk."""
    for key, data in manifests(sweep, store):
        try:
            yield names.chunk_of_manifest(key), _outcome_of(data)
        except ValueError as error:  # not whole: the chunk runs again and writes it anew
            log.warning("manifest_unreadable", extra={"key": key, "reason": str(error)})


def _outcome_of(manifest: bytes) -> ChunkOutcome:
    rows = read_columns(manifest, ["index", "status", "reused", "error_code", "error"]).to_pylist()
    return ChunkOutcome(
        done=[row["index"] for row in rows if row["status"] == "done"],
        reused=[row["index"] for row in rows if row["reused"]],
        failed={row["index"]: (row["error_code"], row["error"]) for row in rows if row["status"] == "failed"},
    )
