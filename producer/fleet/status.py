"""Reports how a sweep is doing and what holds it up. One round trip for the figures, one for the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from producer.fleet.store_match import store_obstacles
from producer.language.wording import counted
from shared.errors import PlanUnreadable
from shared.ledger import Ledger, SweepStatus, WorkerInfo
from shared.model_reading import split_reading
from shared.plan import Plan
from shared.store.identity import StoreIdentity

#: What a sweep waits for where nobody renders.
NO_WORKER = "no live worker: start one with `printroom worker`"


class Obstacle(str):
    """Why some of a sweep is not moving, in words."""

    __slots__ = ("lasting",)
    #: Whether waiting does not help: only another worker would, or another sweep.
    lasting: bool

    def __new__(cls, text: str, *, lasting: bool = False) -> Obstacle:
        """Make one of a text."""
        made = super().__new__(cls, text)
        made.lasting = lasting
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """A sweep, the workers, and what stands in the way, in words."""

    status: SweepStatus
    workers: Sequence[WorkerInfo]
    #: Why some of the sweep is not moving; empty when all is well.
    obstacles: Sequence[Obstacle]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        status = self.status
        figures = {name: getattr(status, name) for name in status.__dataclass_fields__}
        return {
            **figures,
            "remaining": status.remaining,
            "eta_seconds": status.eta_seconds,
            "workers": [worker.to_json() for worker in self.workers],
            "obstacles": list(self.obstacles),
        }


def overview(sweep: str, ledger: Ledger, identity: StoreIdentity) -> Overview:
    """Return how a sweep is doing, and whether all mean the same store. Raises: SweepUnknown, BrokerError."""
    status, workers = ledger.status(sweep), ledger.workers()
    stores = [Obstacle(text, lasting=True) for text in store_obstacles(status, workers, identity)]
    return Overview(
        status=status, workers=workers, obstacles=[*stores, *_obstacles(sweep, status, workers, ledger)]
    )


def _obstacles(
    sweep: str, status: SweepStatus, workers: Sequence[WorkerInfo], ledger: Ledger
) -> list[Obstacle]:
    if status.state in ("done", "cancelled"):
        return []
    if status.state == "rebuilding":
        return [
            Obstacle(
                f"being read back from the store; if that was interrupted, `printroom resume {sweep[:12]}`"
            )
        ]
    if status.state == "paused":
        return [Obstacle(f"paused: `printroom resume {sweep[:12]}` goes on")]
    silent = _silences(sweep, workers, ledger)
    if not workers:
        return [Obstacle(NO_WORKER), *silent]
    found = [*silent]
    found += [Obstacle(f"worker {worker.name}: {worker.trouble}") for worker in workers if worker.trouble]
    found += [
        Obstacle(f"worker {w.name} refused messages: {_counts(w.refused)}") for w in workers if w.refused
    ]
    data = ledger.plan_bytes(sweep)
    if data is None:
        return found
    try:
        plan = Plan.from_bytes(data)
    except PlanUnreadable as error:
        return [*found, Obstacle(f"its plan in Redis cannot be read by this version: {error}")]
    return [*found, *unserved(plan, workers), *_unencoded(plan, workers)]


def _silences(sweep: str, workers: Sequence[WorkerInfo], ledger: Ledger) -> list[Obstacle]:
    """Say whose chunks wait for a lease to run out, and for how long still."""
    silent = [one for one in ledger.silent_workers() if one.chunks]
    if not silent:
        return []
    elsewhere = {label for worker in workers for label in worker.chunks}
    names = {one.worker for one in silent}
    elsewhere -= {label for worker in workers if worker.name in names for label in worker.chunks}
    held = {f"{sweep}/{chunk}" for chunk in ledger.running_chunks(sweep)} - elsewhere
    return [
        Obstacle(
            f"worker {one.worker} silent for {one.seconds:.0f} s: {counted(len(waiting), 'chunk')} of it"
            f" go{'es' if len(waiting) == 1 else ''} to others"
            f" {f'within {left:.0f} s' if left > 0 else 'as soon as a hand is free'}"
        )
        for one in silent
        if (waiting := held.intersection(one.chunks))
        for left in [one.moves_after_seconds - one.seconds]
    ]


def unserved(plan: Plan, workers: Sequence[WorkerInfo]) -> list[Obstacle]:
    """Say which models of a plan no live worker holds, and what the workers do hold."""
    held = {fingerprint for worker in workers for fingerprint in worker.models}
    names = sorted({name for worker in workers for several in worker.models.values() for name in several})
    jobs: dict[str, int] = {}
    for bucket, first, stop in plan.chunk_runs():
        if split_reading(bucket.model)[0] not in held:
            jobs[bucket.model] = (
                jobs.get(bucket.model, 0) + plan.chunk(stop - 1).stop - plan.chunk(first).start
            )
    return [
        Obstacle(
            f"no live worker has model {plan.models.get(model, model)} ({model}): {counted(count, 'job')} wait; "
            f"workers hold {', '.join(names) or 'none'}",
            lasting=True,
        )
        for model, count in jobs.items()
    ]


def _unencoded(plan: Plan, workers: Sequence[WorkerInfo]) -> list[Obstacle]:
    """Say that no live worker can write the plan's format."""
    encoder = plan.image_format.encoder
    if not encoder or any(encoder in worker.versions for worker in workers):
        return []
    return [
        Obstacle(
            f"no live worker can write {plan.image_format}: {counted(len(plan), 'job')} wait; "
            f"pip install 'printroom[{encoder}]' on the workers and restart them",
            lasting=True,
        )
    ]


def _counts(refused: Any) -> str:
    return ", ".join(f"{code} x{count}" for code, count in refused.items())
