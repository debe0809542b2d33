"""The one Celery task: a thin shell around `execute`. The only broad catch of the worker is here.

A message is always acknowledged or put back by the end of a task. Whatever goes wrong, a chunk that is not
committed is found by the feeder (given back, or fed and nowhere to be seen) and fed again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from celery import Celery
from celery.exceptions import Reject

from shared import names
from shared.errors import BrokerError, PrintroomError
from shared.message import ChunkMessage, parse_message
from worker.backoff import Abandoned
from worker.context import WorkerContext
from worker.execute import execute
from worker.meter import ChunkBegun, ChunkEnded, MessageRefused, Meter
from worker.retry_policy import Decision, decide

log = logging.getLogger(__name__)

#: A refused message goes to the back of its queue; without a pause it would be here again at once.
_REFUSAL_PAUSE_SECONDS = 1.0


def register_task(app: Celery, context: WorkerContext) -> None:
    """Give the app its task."""
    hands = _Hands()

    @app.task(name=names.RENDER_CHUNK, bind=True)  # type: ignore[untyped-decorator]  # celery has no types
    def render_chunk(task: Any, body: Any) -> None:
        tag = task.request.properties["delivery_tag"]
        context.leases.beat(tag)
        try:
            _handle(body, context, hands, tag)
        finally:
            context.leases.end(tag)


def _handle(body: Any, context: WorkerContext, hands: _Hands, tag: str) -> None:
    def beat(*, allow_seconds: float | None = None) -> None:
        context.leases.beat(tag, allow_seconds=allow_seconds)

    try:
        message = parse_message(body)
        with hands.hold(message, beat), _measured(message, context.meter):
            execute(message, context, beat=beat)
    except Abandoned:
        log.info("given_back", extra={"body": body})
    except BaseException as error:
        # Whatever it is, MemoryError and SystemExit too: a slot of the pool must outlive its tasks.
        _settle(error, body, context)


def _settle(error: BaseException, body: Any, context: WorkerContext) -> None:
    """Act on what ended a task early: log it, keep evidence, or put the message back."""
    code = error.code if isinstance(error, PrintroomError) else type(error).__name__
    decision = decide(error, attempt=0, max_attempts=1)
    context.meter.notice(MessageRefused(code=code))
    if decision is Decision.REFUSE:
        log.warning("refused", extra={"code": code, "reason": str(error)})
        time.sleep(_REFUSAL_PAUSE_SECONDS)
        raise Reject(str(error), requeue=True)
    if decision is Decision.DEAD_LETTER:
        evidence = {"code": code, "reason": str(error), "body": repr(body)[:2000]}
        log.error("dead_letter", extra=evidence)
        with contextlib.suppress(BrokerError):  # the log has it
            context.ledger.dead_letter({**evidence, "worker": context.name})
        return
    unexpected = None if isinstance(error, PrintroomError) else error
    log.error("chunk_failed", extra={"code": code, "reason": str(error), "body": body}, exc_info=unexpected)


@contextmanager
def _measured(message: ChunkMessage, meter: Meter) -> Iterator[None]:
    """Report that a chunk begins, and how it ends."""
    started = time.monotonic()
    how: Literal["done", "given_back", "failed"] = "failed"
    meter.notice(ChunkBegun(sweep=message.sweep, chunk=message.chunk))
    try:
        yield
        how = "done"
    except Abandoned:
        how = "given_back"
        raise
    finally:
        seconds = time.monotonic() - started
        meter.notice(ChunkEnded(sweep=message.sweep, chunk=message.chunk, how=how, seconds=seconds))


class _Hands:
    """Chunks in this process's hands: a second delivery of one waits for the first, then finds it committed."""

    def __init__(self) -> None:
        self._held: set[ChunkMessage] = set()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, message: ChunkMessage, beat: Any) -> Iterator[None]:
        with self._changed:
            while message in self._held:
                beat()
                self._changed.wait(timeout=1.0)
            self._held.add(message)
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(message)
                self._changed.notify_all()
