"""The Celery app, its settings, and how a message is sent. Knows how chunks travel, not what is done with them.

Each setting that is not Celery's default has its reason in docs/architecture.md, "What Celery does by itself".
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from shared import names
from shared.errors import (
    BrokerUnavailable,
)
from shared.message import ChunkMessage
from shared.redis_client import SOCKET_OPTIONS
from shared.redis_errors import broker_error
from shared.redis_url import RedisAddress, parse_redis_url
from shared.settings import Settings

log = logging.getLogger(__name__)

#: kombu waits up to a second for a message, and that is no failure.
_QUEUE_TIMEOUT_MIN_SECONDS = 3.0


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
    timeout = address.options.get("socket_timeout", SOCKET_OPTIONS["socket_timeout"])
    bound = {} if address.max_connections is None else {"max_connections": address.max_connections}
    return {
        "global_keyprefix": settings.redis_prefix,
        "visibility_timeout": settings.visibility_timeout_seconds,
        "unacked_restore_interval": settings.restore_interval_seconds,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 1000,
        **SOCKET_OPTIONS,
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
