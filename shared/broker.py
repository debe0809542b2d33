"""The Celery app, its settings, and the one message. Knows how chunks travel, not what is done with them.

Each setting that is not Celery's default has its reason in docs/architecture.md, "What Celery does by itself".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from shared import names
from shared.envelope import read_envelope
from shared.errors import (
    BrokerUnavailable,
    MessageCorrupt,
    MessageError,
    VersionUnsupported,
)
from shared.redis_errors import broker_error, is_denied
from shared.redis_url import RedisAddress, parse_redis_url
from shared.settings import Settings

log = logging.getLogger(__name__)

#: The message says which chunk; everything else is in the plan.
_MESSAGE_KEYS = {"version", "sweep", "chunk"}

#: Socket patience: under the visibility timeout, so that a dead server is noticed before leases run out.
_SOCKET_OPTIONS = {
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
}
#: kombu waits up to a second for a message, and that is no failure.
_QUEUE_TIMEOUT_MIN_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkMessage:
    """Which chunk to render."""

    sweep: str
    chunk: int

    def to_json(self) -> dict[str, Any]:
        """Return the message's body."""
        return {"version": names.PROTOCOL, "sweep": self.sweep, "chunk": self.chunk}


def parse_message(body: Any) -> ChunkMessage:
    """Read a message's body.

    Raises: MessageCorrupt, VersionUnsupported.
    """
    if not isinstance(body, dict) or type(body.get("version")) is not int:
        raise MessageCorrupt(f"not a chunk message: {body!r:.200}")
    if body["version"] != names.PROTOCOL:
        raise VersionUnsupported(f"message version {body['version']}: this version speaks {names.PROTOCOL}")
    sweep, chunk = body.get("sweep"), body.get("chunk")
    if set(body) != _MESSAGE_KEYS or not isinstance(sweep, str) or type(chunk) is not int or chunk < 0:
        raise MessageCorrupt(f"not a chunk message: {body!r:.200}")
    return ChunkMessage(sweep=sweep, chunk=chunk)


def make_app(
    settings: Settings, *, transport: str | type | None = None, queue_order: str = "round_robin"
) -> Celery:
    """Return a Celery app that speaks to the broker of the settings.

    Args:
        transport: a kombu transport class or the import path of one, instead of kombu's own for Redis.
        queue_order: import path (or kombu alias) of the order in which a worker looks at its queues.
    """
    address = parse_redis_url(settings.redis_url.get_secret_value())
    app = Celery("printroom", broker=address.url, set_as_current=False)
    app.conf.update(
        broker_transport=_transport(transport, address),
        broker_use_ssl=_tls_options(address),
        broker_transport_options=_transport_options(settings, queue_order, address),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=names.IDLE_QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


def send_chunk(app: Celery, queue: str, message: ChunkMessage) -> None:
    """Put one chunk message on a queue. The task goes by name; its body lives in the worker.

    Raises: BrokerError.
    """
    try:
        app.send_task(names.RENDER_CHUNK, args=[message.to_json()], queue=queue, retry=False)
    except OperationalError as error:
        if isinstance(error.__cause__, redis.RedisError):
            raise broker_error(error.__cause__) from error
        raise BrokerUnavailable(f"Redis does not take messages: {error}") from error


class BrokerView:
    """Reads what the broker holds, as kombu lays it out: queues are lists, delivered messages one hash."""

    def __init__(self, client: redis.Redis, *, prefix: str) -> None:
        self._redis = client
        self._prefix = prefix

    def queue_lengths(self, queues: Sequence[str]) -> list[int]:
        """Return how many messages wait in each queue. Raises: BrokerError."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for queue in queues:
                    pipe.llen(self._prefix + queue)
                return [int(length) for length in pipe.execute()]
        except redis.RedisError as error:
            raise broker_error(error) from error

    def newest_to_front(self, queue: str) -> None:
        """Let the message that was sent last be the next one to be delivered.

        A user without the right to LMOVE (doctor names it) leaves it where it is. Raises: BrokerError.
        """
        try:
            self._redis.lmove(self._prefix + queue, self._prefix + queue, "LEFT", "RIGHT")
        except redis.RedisError as error:
            if not is_denied(error):
                raise broker_error(error) from error

    def waiting(self) -> dict[str, int]:
        """Return how many messages wait in each of Printroom's queues, whoever made it.

        Empty where this user may not look for keys (SCAN). Raises: BrokerError.
        """
        found: set[str] = set()
        try:
            for key in self._redis.scan_iter(f"{self._prefix}render.v*", count=1000):
                found.add(key.decode(errors="replace").removeprefix(self._prefix))
        except redis.RedisError as error:
            if is_denied(error):
                return {}
            raise broker_error(error) from error
        queues = sorted(found)
        return {queue: n for queue, n in zip(queues, self.queue_lengths(queues), strict=True) if n}

    def chunks(self, queues: Sequence[str]) -> set[ChunkMessage]:
        """Return every chunk that waits in these queues or is delivered and not acknowledged.

        Queues are read before the delivered ones, since messages move that way. Raises: BrokerError.
        """
        found = set()
        try:
            for queue in queues:
                for text in cast(list[bytes], self._redis.lrange(self._prefix + queue, 0, -1)):
                    found.add(_message_in(text))
            for text in cast(list[bytes], self._redis.hvals(self._prefix + "unacked")):
                found.add(_delivered_in(text))
        except redis.RedisError as error:
            raise broker_error(error) from error
        return {message for message in found if message is not None}


def _message_in(text: bytes) -> ChunkMessage | None:
    """Read the chunk out of a queue's entry; None where it is not one of ours."""
    try:
        return parse_message(read_envelope(text))
    except MessageError:
        return None


def _delivered_in(text: bytes) -> ChunkMessage | None:
    """Read the chunk out of what kombu keeps of a delivered message: [envelope, exchange, routing key]."""
    try:
        return _message_in(json.dumps(json.loads(text)[0]).encode())
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def connect(settings: Settings) -> redis.Redis:
    """Return a client for the ledger. Connects at its first command; answers are bytes."""
    address = parse_redis_url(settings.redis_url.get_secret_value())
    options: dict[str, Any] = {**_SOCKET_OPTIONS, **address.options, **address.tls_options}
    if address.protocol is not None:
        options["protocol"] = address.protocol
    if address.max_connections is None:
        return redis.Redis.from_url(address.url, **options)
    # Who finds all connections in use waits for one: a bound is no failure.
    pool = redis.BlockingConnectionPool.from_url(
        address.url,
        max_connections=address.max_connections,
        timeout=options["socket_timeout"],
        **options,
    )
    return redis.Redis(connection_pool=pool)


def _tls_options(address: RedisAddress) -> dict[str, Any] | None:
    """Celery wants TLS said twice: in the scheme and here."""
    return {"ssl_cert_reqs": "required", **address.tls_options} if address.tls else None


def _transport(path: str | type | None, address: RedisAddress) -> Any:
    """Return kombu's transport of this path, and of this protocol: kombu has no option for it."""
    if address.protocol is None:
        return path
    base = symbol_by_name(path or "kombu.transport.redis:Transport")  # type: ignore[no-untyped-call]

    def _connparams(channel: Any, **how: Any) -> dict[str, Any]:
        return {**base.Channel._connparams(channel, **how), "protocol": address.protocol}

    channel = type("Channel", (base.Channel,), {"_connparams": _connparams})
    return type("Transport", (base,), {"Channel": channel})


def _transport_options(settings: Settings, queue_order: str, address: RedisAddress) -> dict[str, Any]:
    timeout = address.options.get("socket_timeout", _SOCKET_OPTIONS["socket_timeout"])
    bound = {} if address.max_connections is None else {"max_connections": address.max_connections}
    return {
        "global_keyprefix": settings.redis_prefix,
        "visibility_timeout": settings.visibility_timeout_seconds,
        "unacked_restore_interval": settings.restore_interval_seconds,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 1000,
        **_SOCKET_OPTIONS,
        **address.options,
        **bound,
        "socket_timeout": max(_QUEUE_TIMEOUT_MIN_SECONDS, timeout),
        "queue_order_strategy": queue_order,
        "priority_steps": [0],
        # kombu's own patience before a send fails is six seconds; who sends has a patience of its own.
        "connect_retries_timeout": 1.0,
        "interval_start": 0.2,
        "interval_step": 0.2,
    }
