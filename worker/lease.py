"""Renews the lease of every chunk that makes progress, and of no other.

A message nobody renews for a visibility timeout goes to another worker. A thread renews what this process holds,
so long tasks run once; a task that has gone silent, or a process that died, loses its lease. Knows nothing of
what a task does, only when it last said that it lives.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from celery import bootsteps

from worker.transport import RENEW

log = logging.getLogger(__name__)

#: Renewals within one visibility timeout: three may fail before a lease is lost.
_RENEWALS_PER_TIMEOUT = 4

#: Seconds between two ticks that are normal: the ticking thread also waits for Redis.
_FROZEN_SECONDS = 60.0


class Leases:
    """Until when each delivery may go on without another sign of life. Thread-safe."""

    def __init__(self, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._deadlines: dict[str, float] = {}
        #: Deliveries whose tasks have begun. One that waits for a free slot holds nothing up, however long it waits.
        self._begun: set[str] = set()
        self._ticked = 0.0
        self._lock = threading.Lock()

    def beat(self, tag: str, *, allow_seconds: float | None = None) -> None:
        """Say that a delivery's task lives, and for how long it may now be silent."""
        allowance = self._stall_seconds if allow_seconds is None else allow_seconds
        with self._lock:
            self._deadlines[tag] = time.monotonic() + allowance
            self._begun.add(tag)

    def alive(self, delivered: list[str]) -> list[str]:
        """Return the deliveries to renew. One seen for the first time gets a full allowance to begin."""
        now = time.monotonic()
        with self._lock:
            known = {tag: self._deadlines.get(tag, now + self._stall_seconds) for tag in delivered}
            self._deadlines = known
            self._begun.intersection_update(known)
        return [tag for tag, deadline in known.items() if now < deadline]

    def tick(self) -> None:
        """Say that this process runs; called every few seconds.

        Time in which nothing of it ran (a frozen container, a suspended machine) counts against no task.
        """
        now = time.monotonic()
        with self._lock:
            frozen = now - self._ticked - _FROZEN_SECONDS
            if self._ticked and frozen > 0:
                self._deadlines = {tag: deadline + frozen for tag, deadline in self._deadlines.items()}
            self._ticked = now

    def stalled(self) -> list[str]:
        """Return the deliveries whose tasks have gone silent for longer than they may."""
        now = time.monotonic()
        with self._lock:
            return [
                tag for tag, deadline in self._deadlines.items() if now >= deadline and tag in self._begun
            ]

    def end(self, tag: str) -> None:
        """Forget a delivery whose task is over."""
        with self._lock:
            self._deadlines.pop(tag, None)
            self._begun.discard(tag)


class LeaseStep(bootsteps.StartStopStep):
    """Runs the renewing thread beside the consumer. The app carries the worker's `context`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Any) -> None:
        """Start renewing what the consumer's channel holds; after a lost connection that is a new channel."""
        self._stop.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(consumer, self._stop), name="lease", daemon=True
        )
        self._thread.start()

    def stop(self, consumer: Any) -> None:
        """Stop renewing. Deliveries that are left go to others after a visibility timeout."""

    def terminate(self, consumer: Any) -> None:
        """End the thread."""
        self._stop.set()

    shutdown = terminate

    def _renew(self, consumer: Any, stop: threading.Event) -> None:
        channel = consumer.task_consumer.channel
        index = channel.global_keyprefix + channel.unacked_index_key
        client: redis.Redis = consumer.app.context.lease_client
        pause = float(channel.visibility_timeout) / _RENEWALS_PER_TIMEOUT
        while not stop.wait(pause):
            try:
                tags = consumer.app.context.leases.alive(channel.qos.in_hand)
                if tags:
                    client.eval(RENEW, 1, index, *tags)
            except redis.RedisError as error:
                log.warning("lease_not_renewed", extra={"reason": str(error)})
            except BaseException:  # without this thread every chunk would go to another worker
                log.exception("lease_not_renewed")
