"""Tries again, with growing pauses, for as long as the trouble is elsewhere. Knows nothing of what it tries."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from shared.errors import BrokerError, PrintroomError, StoreError
from worker.retry_policy import Decision, decide

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0

_R = TypeVar("_R")


class Abandoned(Exception):
    """The worker is draining while the trouble lasts; what is unfinished goes back to the queue."""


def persist(
    action: Callable[[], _R],
    *,
    beat: Callable[[], None],
    draining: Event,
    on_trouble: Callable[[PrintroomError | None], None],
) -> _R:
    """Return what an action returns, after as many tries as it takes.

    A store that is down, full or locked and a Redis that is down or full are worth waiting for: the images are
    made. Meanwhile the lease is kept (`beat`) and the trouble is told (`on_trouble`, None when it is over).

    Raises: Abandoned when the worker drains; whatever else the action raises.
    """
    pause = _FIRST_PAUSE_SECONDS
    troubled = False
    while True:
        beat()
        try:
            result = action()
        except (StoreError, BrokerError) as error:
            if decide(error, attempt=1, max_attempts=1) is not Decision.WAIT:
                if troubled:  # the store answers again, if only that it has no such object
                    on_trouble(None)
                raise
            log.warning(
                "waiting", extra={"code": error.code, "reason": str(error), "seconds": round(pause, 1)}
            )
            on_trouble(error)
            troubled = True
        else:
            if troubled:
                on_trouble(None)
            return result
        if draining.wait(pause * random.uniform(0.5, 1.0)):
            raise Abandoned
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
