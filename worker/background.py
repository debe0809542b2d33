"""The worker's side threads: the heartbeat, the worker's turn, the feeder. All outlive a lost Redis."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from shared.errors import BrokerError, StoreError
from shared.feeder import Feeder
from shared.schedule import listened
from shared.settings import Settings
from shared.store.identity import identity_of
from worker.context import WorkerContext
from worker.serving import can_serve

log = logging.getLogger(__name__)

#: A worker whose heartbeat is this many beats old is gone.
_BEATS_TO_LIVE = 6

#: Exit status of a worker whose task hangs: the supervisor starts a fresh one (EX_TEMPFAIL).
EXIT_STALLED = 75


class Background:
    """Threads that run an action at an interval until they are stopped."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def every(self, seconds: float, action: Callable[[], None], *, name: str) -> None:
        """Start calling an action; what Redis does to it is logged once, and it goes on."""
        thread = threading.Thread(target=self._run, args=(seconds, action, name), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Stop all and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self, seconds: float, action: Callable[[], None], name: str) -> None:
        failing = False
        while True:
            try:
                action()
                failing = False
            except BrokerError as error:
                if not failing:
                    log.warning("interrupted", extra={"side": name, "code": error.code, "reason": str(error)})
                failing = True
            except BaseException:  # SystemExit too: it would end the thread without a word
                log.exception("side_thread_failed", extra={"side": name})
            if self._stop.wait(seconds):
                return


def beat_once(context: WorkerContext) -> None:
    """Say that this worker lives and what it is; end the process if a task of it hangs."""
    context.leases.tick()
    if context.leases.stalled():
        log.critical(
            "stalled", extra={"worker": context.name, "fix": "the process ends; its supervisor restarts it"}
        )
        os._exit(EXIT_STALLED)
    touch_heartbeat(context.settings)
    _say(context)


def take_turn(context: WorkerContext) -> None:
    """Listen to the queues that the schedule gives to this worker; say at once what it is newly able to serve."""
    # Asked for only where it decides something.
    workers = context.ledger.workers() if context.models.broken else []
    serves = frozenset(
        queue for queue, bucket in context.ledger.buckets().items() if can_serve(context, bucket, workers)
    )
    if serves != context.serves:
        context.serves = serves
        _say(context)
    context.wanted_queues = listened(serves, context.ledger.schedule(), context.name)


def _say(context: WorkerContext) -> None:
    context.ledger.heartbeat(
        context.info(), expires_seconds=context.settings.heartbeat_seconds * _BEATS_TO_LIVE
    )


def touch_heartbeat(settings: Settings) -> None:
    """Tell a container's health check that this process lives."""
    if settings.heartbeat_file is not None:
        settings.heartbeat_file.touch()


def look_at_store(context: WorkerContext) -> None:
    """Learn which store this is; a store that is down, or was made anew, is asked again later."""
    try:
        identity_of(context.store).settle()
    except StoreError as error:
        log.warning("store_unknown", extra={"code": error.code, "reason": str(error)})


def feed_once(feeder: Feeder) -> None:
    """Run one round of the feeder."""
    feeder.round()
