"""A Redis client from the settings. Opens no connection before its first command."""

from __future__ import annotations

from typing import Any

import redis

from shared.redis_url import parse_redis_url
from shared.settings import Settings

#: How long a socket waits: less than the visibility timeout, so that a dead server is noticed before leases run out.
SOCKET_OPTIONS = {
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
}


def connect(settings: Settings) -> redis.Redis:
    """Return a client for the ledger. Connects at its first command; answers are bytes."""
    address = parse_redis_url(settings.redis_url.get_secret_value())
    options: dict[str, Any] = {**SOCKET_OPTIONS, **address.options, **address.tls_options}
    if address.protocol is not None:
        options["protocol"] = address.protocol
    if address.max_connections is None:
        return redis.Redis.from_url(address.url, **options)
    # A caller that finds all connections in use waits for one: the bound is no failure.
    pool = redis.BlockingConnectionPool.from_url(
        address.url,
        max_connections=address.max_connections,
        timeout=options["socket_timeout"],
        **options,
    )
    return redis.Redis(connection_pool=pool)
