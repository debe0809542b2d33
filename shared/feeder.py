"""Keeps a window of chunk messages in the queues; everything else of a sweep waits in its plan.

Pause, cancel, priority and fair shares are this room's choice of what to feed next, and which worker is to listen
to which queues (`shared.schedule`). It also reconciles: a chunk
that was fed, is not committed, and is nowhere in the broker has been lost (kombu pops a message before it
records it), and is fed again. Every worker and every submit runs it; a lock makes it single-flight.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.errors import PlanUnreadable
from shared.ledger import Backlog, Ledger
from shared.message import ChunkMessage
from shared.plan import Plan
from shared.queues import BrokerView
from shared.schedule import Candidate, Demand, Schedule, assign

log = logging.getLogger(__name__)

#: Messages that wait per worker and queue: one in each hand is delivered, these follow without a pause.
_WINDOW_PER_WORKER = 3
#: Messages that wait where no worker listens yet, so that one which comes finds work at once.
_WINDOW_MIN = 2

#: How long a schedule holds without a feeder that publishes another.
_SCHEDULE_SECONDS = 10.0

#: The feeder's lock; a feeder that dies is replaced after this long.
_LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Source:
    """One block of one sweep: where a queue's next chunk may come from."""

    sweep: str
    block: int
    first: int
    stop: int
    model: str
    priority: int
    #: Chunks that were not fed yet.
    unfed: int


@dataclass(slots=True)
class _Fed:
    """How many chunks of one sweep are on their way, and how many of them wait in a queue."""

    outstanding: int
    waiting: int


class Feeder:
    """Feeds and reconciles, one round at a time. Not for several threads at once."""

    def __init__(
        self,
        ledger: Ledger,
        view: BrokerView,
        send: Callable[[str, ChunkMessage], None],
        *,
        lost_after_seconds: float,
        turn_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._view = view
        self._send = send
        self._lost_after_seconds = lost_after_seconds
        self._turn_seconds = turn_seconds
        self._token = uuid.uuid4().hex
        self._plans: dict[str, Plan] = {}
        #: Active sweeps whose plans this version cannot read. They are tried again, and logged once.
        self._unreadable: set[str] = set()
        self._next_reconcile = time.monotonic()

    def round(self) -> int | None:
        """Feed once, and reconcile when it is time. Returns messages sent; None where another one feeds.

        Raises: BrokerError.
        """
        if not self._ledger.lock("feeder", self._token, expires_seconds=_LOCK_SECONDS):
            return None
        self._load_plans()
        if time.monotonic() >= self._next_reconcile:
            self.reconcile()
            self._next_reconcile = time.monotonic() + self._lost_after_seconds / 4
        sent = self._feed()
        self._match_buckets()
        return sent

    def release(self) -> None:
        """Let another feeder take over at once."""
        self._ledger.unlock("feeder", self._token)

    def reconcile(self) -> int:
        """Free the chunks that the broker has lost. Returns how many there were."""
        present: dict[str, set[int]] = defaultdict(set)
        for message in self._view.chunks(self._queues()):
            present[message.sweep].add(message.chunk)
        lost = 0
        for sweep in self._plans:
            absent = self._ledger.fed_chunks(sweep) - present[sweep]
            for chunk in self._ledger.mark_absent(sweep, absent, lost_after_seconds=self._lost_after_seconds):
                log.warning("message_lost", extra={"sweep": sweep, "chunk": chunk})
                lost += 1
        return lost

    def _load_plans(self) -> None:
        active = self._ledger.active_sweeps()
        self._plans = {sweep: plan for sweep, plan in self._plans.items() if sweep in active}
        self._unreadable &= set(active)
        for sweep in active:
            if sweep not in self._plans and (data := self._ledger.plan_bytes(sweep)) is not None:
                self._load_plan(sweep, data)

    def _load_plan(self, sweep: str, data: bytes) -> None:
        """Read one plan. One that cannot be read, of a later version perhaps, is left to others: it stops nobody."""
        try:
            self._plans[sweep] = Plan.from_bytes(data)
        except PlanUnreadable as error:
            if sweep not in self._unreadable:
                log.error("plan_unreadable", extra={"sweep": sweep, "reason": str(error)})
            self._unreadable.add(sweep)

    def _queues(self) -> list[str]:
        return sorted({bucket.queue for plan in self._plans.values() for bucket in plan.buckets})

    def _feed(self) -> int:
        backlogs = self._ledger.backlogs(
            {
                sweep: [(first, stop) for _, first, stop in plan.chunk_runs()]
                for sweep, plan in self._plans.items()
            }
        )
        sources = self._sources(backlogs)
        lengths = dict(zip(sources, self._view.queue_lengths(list(sources)), strict=True))
        fed = {
            sweep: _Fed(outstanding=backlog.fed, waiting=max(0, backlog.fed - backlog.running))
            for sweep, backlog in backlogs.items()
        }
        schedule = self._publish_schedule(sources, lengths, fed)
        listeners = Counter(queue for turn in schedule.turns.values() for queue in turn.queues)
        return sum(
            self._fill(queue, several, _window(listeners[queue]), lengths[queue], fed)
            for queue, several in sorted(sources.items())
        )

    def _sources(self, backlogs: Mapping[str, Backlog]) -> dict[str, list[_Source]]:
        """Return, by queue, where its next chunks may come from."""
        sources: dict[str, list[_Source]] = defaultdict(list)
        for sweep, backlog in backlogs.items():
            if backlog.state != "active":
                continue
            runs = self._plans[sweep].chunk_runs()
            for block, ((bucket, first, stop), unfed) in enumerate(zip(runs, backlog.unfed, strict=True)):
                sources[bucket.queue].append(
                    _Source(sweep, block, first, stop, bucket.model, backlog.priority, unfed)
                )
        return sources

    def _publish_schedule(
        self,
        sources: Mapping[str, Sequence[_Source]],
        lengths: Mapping[str, int],
        fed: Mapping[str, _Fed],
    ) -> Schedule:
        """Decide which worker listens to which queues, and say so."""
        workers = [
            Candidate(
                name=worker.name,
                serves=frozenset(worker.queues if worker.serves is None else worker.serves),
                model=worker.model,
                chunks=len(worker.chunks),
            )
            for worker in self._ledger.workers()
            if not worker.draining
        ]
        before = self._ledger.schedule()
        schedule = assign(
            _demands(sources, lengths, fed),
            workers,
            before.turns if before is not None else {},
            # What only others can read still has its listeners.
            queues=[*self._queues(), *(self._ledger.buckets() if self._unreadable else ())],
            now=self._ledger.server_time(),
            turn_seconds=self._turn_seconds,
        )
        self._ledger.publish_schedule(schedule, expires_seconds=_SCHEDULE_SECONDS)
        return schedule

    def _fill(
        self, queue: str, sources: Sequence[_Source], window: int, length: int, fed: Mapping[str, _Fed]
    ) -> int:
        """Send what a queue has room for: highest priority first, then the sweep with the fewest on their way.

        What outranks messages that wait finds room beside them, and goes to the front.
        """
        sent, left = 0, list(sources)
        while left:
            best = min(left, key=lambda s: (-s.priority, fed[s.sweep].outstanding, s.sweep, s.block))
            urgent = any(s.priority < best.priority and fed[s.sweep].waiting for s in sources)
            not_outranked = {s.sweep for s in sources if s.priority >= best.priority}
            taken = sum(fed[sweep].waiting for sweep in not_outranked) if urgent else length + sent
            if taken >= window:
                return sent
            chunks = self._ledger.feed(best.sweep, best.block, best.first, best.stop, 1)
            if not chunks:
                left.remove(best)
                continue
            self._send(queue, ChunkMessage(sweep=best.sweep, chunk=chunks[0]))
            if urgent:
                self._view.newest_to_front(queue)
            fed[best.sweep].outstanding += 1
            fed[best.sweep].waiting += 1
            sent += 1
        return sent

    def _match_buckets(self) -> None:
        """Make the registry of buckets equal to what unfinished sweeps need; it heals what a race undid."""
        registered, wanted = set(self._ledger.buckets()), set(self._queues())
        for sweep, plan in self._plans.items():
            if any(bucket.queue not in registered for bucket in plan.buckets):
                self._ledger.register(sweep, plan)
        if set(self._ledger.active_sweeps()) == set(self._plans):
            self._ledger.drop_buckets(registered - wanted)


def _window(listeners: int) -> int:
    """Return how many messages may wait in a queue."""
    return max(_WINDOW_MIN, _WINDOW_PER_WORKER * listeners)


def _demands(
    sources: Mapping[str, Sequence[_Source]], lengths: Mapping[str, int], fed: Mapping[str, _Fed]
) -> list[Demand]:
    """Return what waits, by model and priority. Messages count for the highest priority that has some waiting."""
    chunks: Counter[tuple[str, int]] = Counter()
    queues: dict[tuple[str, int], set[str]] = defaultdict(set)
    for queue, several in sources.items():
        waiting = [source for source in several if fed[source.sweep].waiting]
        counts = [(source, source.unfed) for source in several]
        if lengths[queue]:
            counts.append((max(waiting or several, key=lambda source: source.priority), lengths[queue]))
        for source, count in counts:
            if count:
                chunks[source.model, source.priority] += count
                queues[source.model, source.priority].add(queue)
    return [
        Demand(model=model, priority=priority, queues=frozenset(queues[model, priority]), chunks=count)
        for (model, priority), count in chunks.items()
    ]
