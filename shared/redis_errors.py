"""Turns redis-py's errors into ours: what is wrong with Redis, and the fix. Asks nothing of any server."""

from __future__ import annotations

import redis

from shared.errors import BrokerError, BrokerFull, BrokerUnavailable

_URL = "PRINTROOM_REDIS_URL"

#: Words of a resolver that knows no such host (glibc, musl, macOS).
_NO_HOST_WORDS = (
    "name or service not known",
    "name does not resolve",
    "nodename nor servname",
    "getaddrinfo",
)
_NO_HOST_MORE = ("temporary failure in name resolution", "no address associated with hostname")

#: Replies of a server that is loading, failing over, or has too few replicas, or that a script keeps busy.
_PASSING = ("LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED", "FAILOVER")

_PASSING_KINDS = (
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)

#: How OpenSSL says that the other side does not speak TLS.
_NO_TLS_WORDS = (
    "wrong_version_number",
    "wrong version number",
    "record_layer_failure",
    "record layer failure",
)


def broker_error(error: redis.RedisError) -> BrokerError:
    """Return our name for what redis-py raised."""
    text, lower = str(error), str(error).lower()
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return BrokerFull(f"Redis is out of memory: raise its maxmemory or free some ({error})")
    if text.startswith("MISCONF"):
        return BrokerFull(
            f"Redis cannot save to its disk and refuses writes: free some space there ({error})"
        )
    if is_denied(error):
        return BrokerError(
            f"Redis does not allow this user what Printroom does: {_one_line(text)}; docs/deployment.md lists the"
            f" rights of the user in {_URL}"
        )
    if isinstance(error, redis.exceptions.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return BrokerError(f"Redis refused us: check the password in {_URL} ({error})")
    if "db index is out of range" in lower:
        return BrokerError(
            f"Redis has no database of this number: use a smaller one, such as 0, at the end of {_URL}"
        )
    if isinstance(error, redis.exceptions.ReadOnlyError) or text.startswith("READONLY"):
        return BrokerUnavailable(
            f"this Redis is a replica, which takes no writes: name the primary in {_URL}"
        )
    if isinstance(error, _PASSING_KINDS) or text.startswith(_PASSING):
        return BrokerUnavailable(f"Redis does not take commands now: {_one_line(text)}")
    if isinstance(error, redis.exceptions.MovedError | redis.exceptions.ClusterCrossSlotError):
        return BrokerError(
            f"Redis Cluster is not supported: name a server of one primary in {_URL} ({error})"
        )
    if isinstance(error, redis.exceptions.InvalidResponse):
        return BrokerUnavailable(
            f"what answers there is not Redis: check host and port in {_URL}; where the port speaks TLS, use"
            f" rediss:// ({_one_line(text)})"
        )
    return _unreachable(error, lower)


def is_denied(error: Exception) -> bool:
    """Return whether an ACL of Redis refused a command, a key or a channel."""
    return isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in str(error)


def _unreachable(error: redis.RedisError, lower: str) -> BrokerError:
    if "certificate_verify_failed" in lower:
        fix = f"add ?ssl_ca_certs=FILE to {_URL}"
        if "hostname mismatch" in lower or "ip address mismatch" in lower:
            fix = f"name the host in {_URL} as its certificate does"
            return BrokerUnavailable(f"Redis has the certificate of another host: {fix} ({error})")
        return BrokerUnavailable(f"Redis has a certificate nobody we know has signed: {fix} ({error})")
    if any(words in lower for words in _NO_TLS_WORDS):
        return BrokerUnavailable(f"the port speaks no TLS: use redis:// in {_URL}, or its TLS port ({error})")
    if any(words in lower for words in (*_NO_HOST_WORDS, *_NO_HOST_MORE)):
        return BrokerUnavailable(f"no host of this name: check the host in {_URL} ({error})")
    if "no connection available" in lower:
        return BrokerUnavailable(f"all connections are in use: raise max_connections in {_URL} ({error})")
    if "max number of clients" in lower:
        return BrokerUnavailable(f"Redis has as many clients as it takes: raise its maxclients ({error})")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        waits = (
            "; a port without TLS keeps rediss:// waiting" if isinstance(error, redis.TimeoutError) else ""
        )
        return BrokerUnavailable(f"Redis does not answer: is it running, and {_URL} right? ({error}{waits})")
    return BrokerError(f"Redis said: {error}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
