"""Keeps a window of chunk messages in the queues; everything else of a sweep waits in its plan.

Pause, cancel, priority and fair shares are this room's choice of what to feed next. It also reconciles: a chunk
that was fed, is not committed, and is nowhere in the broker has been lost (kombu pops a message before it
records it), and is fed again. Every worker and every submit runs it; a lock makes it single-flight.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.broker import BrokerView, ChunkMessage
from shared.ledger import Ledger, SweepStatus
from shared.plan import Plan

log = logging.getLogger(__name__)

#: Messages that wait per worker and queue: one in each hand is delivered, these follow without a pause.
_WINDOW_PER_WORKER = 3
#: Messages that wait where no worker listens yet, so that one which comes finds work at once.
_WINDOW_MIN = 2

#: The feeder's lock; a feeder that dies is replaced after this long.
_LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Source:
    """One block of one sweep: where a queue's next chunk may come from."""

    sweep: str
    block: int
    first: int
    stop: int


class Feeder:
    """Feeds and reconciles, one round at a time. Not for several threads at once."""

    def __init__(
        self,
        ledger: Ledger,
        view: BrokerView,
        send: Callable[[str, ChunkMessage], None],
        *,
        lost_after_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._view = view
        self._send = send
        self._lost_after_seconds = lost_after_seconds
        self._token = uuid.uuid4().hex
        self._plans: dict[str, Plan] = {}
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
        for sweep in active:
            if sweep not in self._plans and (data := self._ledger.plan_bytes(sweep)) is not None:
                self._plans[sweep] = Plan.from_bytes(data)

    def _queues(self) -> list[str]:
        return sorted({bucket.queue for plan in self._plans.values() for bucket in plan.buckets})

    def _feed(self) -> int:
        sources: dict[str, list[_Source]] = defaultdict(list)
        for sweep, plan in self._plans.items():
            for block, (bucket, first, stop) in enumerate(plan.chunk_runs()):
                sources[bucket.queue].append(_Source(sweep, block, first, stop))
        queues = sorted(sources)
        rooms = self._rooms(queues)
        if not any(rooms):
            return 0
        statuses = {sweep: self._ledger.status(sweep) for sweep in self._plans}
        outstanding = Counter({sweep: s.chunks_queued + s.chunks_running for sweep, s in statuses.items()})
        return sum(
            self._fill(queue, room, sources[queue], statuses, outstanding)
            for queue, room in zip(queues, rooms, strict=True)
        )

    def _rooms(self, queues: Sequence[str]) -> list[int]:
        listeners = Counter(queue for worker in self._ledger.workers() for queue in worker.queues)
        lengths = self._view.queue_lengths(queues)
        windows = [max(_WINDOW_MIN, _WINDOW_PER_WORKER * listeners[queue]) for queue in queues]
        return [max(0, window - length) for window, length in zip(windows, lengths, strict=True)]

    def _fill(
        self,
        queue: str,
        room: int,
        sources: list[_Source],
        statuses: dict[str, SweepStatus],
        outstanding: Counter[str],
    ) -> int:
        """Send up to `room` chunks: highest priority first, then the sweep with the fewest on their way."""
        sent = 0
        sources = [source for source in sources if statuses[source.sweep].state == "active"]
        while sources and sent < room:
            best = min(
                sources, key=lambda s: (-statuses[s.sweep].priority, outstanding[s.sweep], s.sweep, s.block)
            )
            chunks = self._ledger.feed(best.sweep, best.block, best.first, best.stop, 1)
            if not chunks:
                sources.remove(best)
                continue
            self._send(queue, ChunkMessage(sweep=best.sweep, chunk=chunks[0]))
            outstanding[best.sweep] += 1
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
