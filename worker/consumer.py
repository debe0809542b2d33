"""The Celery consumer with additions: it follows buckets, connects again soon, keeps evidence of what it drops."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

from shared.errors import BrokerError, MessageCorrupt
from worker.context import WorkerContext
from worker.meter import MessageRefused

log = logging.getLogger(__name__)

#: The pause between two tries to connect: it grows from the first to the longest.
_RECONNECT_FIRST_SECONDS = 0.5
_RECONNECT_LONGEST_SECONDS = 3.0

#: How often the consumer's own thread adds and cancels queues.
_FOLLOW_SECONDS = 0.5


class Consumer(CeleryConsumer):
    """Celery drops messages it cannot read with a line in the log. This one keeps them as dead letters."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again every few seconds for as long as it takes. Celery's pauses grow to half a minute."""

        def on_error(error: Exception, seconds: float) -> None:
            log.warning("cannot_connect", extra={"reason": str(error), "seconds": seconds})

        connected = conn.ensure_connection(
            on_error,
            interval_start=_RECONNECT_FIRST_SECONDS,
            interval_step=_RECONNECT_FIRST_SECONDS,
            interval_max=_RECONNECT_LONGEST_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return connected

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep the evidence of a body that is no JSON."""
        self._keep(message, exc)
        super().on_decode_error(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep the evidence of a message that is no task."""
        self._keep(message, ValueError("not a task message"))
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep the evidence of a task that is not ours."""
        self._keep(message, exc)
        message.reject_log_error(log, self.connection_errors)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep the evidence of a task message with a wrong shape."""
        self._keep(message, exc)
        super().on_invalid_task(body, message, exc)

    def _keep(self, message: Any, error: Exception) -> None:
        evidence = {"body": repr(message.body)[:2000], "headers": repr(message.headers)[:1000]}
        _keep_evidence(self.app.context, error, evidence)


def keep_refused(context: WorkerContext, queue: str, text: bytes, error: MessageCorrupt) -> None:
    """Keep the evidence of what the transport found in a queue and did not deliver."""
    log.error("dead_letter", extra={"queue": queue, "reason": str(error)})
    _keep_evidence(context, error, {"queue": queue, "body": repr(text)[:2000]})


def _keep_evidence(context: WorkerContext, error: Exception, facts: dict[str, str]) -> None:
    evidence = {"code": "message_corrupt", "reason": str(error), **facts}
    context.meter.notice(MessageRefused(code="message_corrupt"))
    try:
        context.ledger.dead_letter({**evidence, "worker": context.name})
    except BrokerError as broken:
        log.error("evidence_lost", extra={**evidence, "because": str(broken)})


class FollowBuckets(bootsteps.StartStopStep):
    """Listens to the queues the context wants, and leaves those it no longer wants, while the worker runs."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._listening: set[str] = set()
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Follow from now on; a new connection listens to nothing yet."""
        self._listening = set()
        self._follow(consumer)
        self._timer = consumer.timer.call_repeatedly(_FOLLOW_SECONDS, self._follow, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop following."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _follow(self, consumer: Any) -> None:
        wanted = set(consumer.app.context.wanted_queues)
        for queue in sorted(wanted - self._listening):
            consumer.add_task_queue(queue)
        for queue in sorted(self._listening - wanted):
            consumer.cancel_task_queue(queue)
        self._listening = wanted
