"""Tries each Redis command that Printroom uses, on keys that it removes again, and reports missing rights.

The commands were taken from `INFO commandstats` of real producers and workers; docs/deployment.md writes them as ACL
rules, and a test holds both to a server that allows nothing else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import redis

from shared.redis_errors import is_denied

#: What every side does. @ stands for a key of each try.
PRODUCER_COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("TIME",),
    ("SET", "@:text", "1", "PX", 60_000),
    ("GET", "@:text"),
    ("MGET", "@:text"),
    ("HSET", "@:hash", "a", "1"),
    ("HGET", "@:hash", "a"),
    ("HMGET", "@:hash", "a"),
    ("HGETALL", "@:hash"),
    ("HVALS", "@:hash"),
    ("HDEL", "@:hash", "b"),
    ("LPUSH", "@:list", "1"),
    ("LLEN", "@:list"),
    ("LRANGE", "@:list", 0, -1),
    ("LTRIM", "@:list", 0, 9),
    ("LMOVE", "@:list", "@:list", "LEFT", "RIGHT"),
    ("SADD", "@:set", "1"),
    ("SCARD", "@:set"),
    ("SMEMBERS", "@:set"),
    ("SREM", "@:set", "1"),
    ("ZADD", "@:zset", 1, "1"),
    ("ZCARD", "@:zset"),
    ("ZSCORE", "@:zset", "1"),
    ("ZRANGE", "@:zset", 0, -1),
    ("ZRANGEBYSCORE", "@:zset", 0, 1),
    ("ZREM", "@:zset", "1"),
    ("SETBIT", "@:bits", 0, 1),
    ("GETBIT", "@:bits", 0),
    ("HINCRBY", "@:hash", "n", 1),
    ("HKEYS", "@:hash"),
    ("SCRIPT", "LOAD", "return 1"),
    ("EVAL", "return redis.call('GET', KEYS[1])", 1, "@:text"),
    ("MULTI",),
    ("EXEC",),
    ("DEL", "@:text", "@:hash", "@:list", "@:set", "@:zset", "@:bits"),
)

#: What workers do besides.
WORKER_COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("RPUSH", "@:list", "1"),
    ("BRPOP", "@:list", 1),
    ("WATCH", "@:list"),
    ("UNWATCH",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A command that this user may not run."""

    command: str
    reason: str


def try_rights(client: redis.Redis, commands: tuple[tuple[Any, ...], ...], *, prefix: str) -> list[Refused]:
    """Run each command once under a key of its own. Returns those that are not allowed; leaves nothing.

    Raises: redis.RedisError for what is no matter of rights.
    """
    key = f"{prefix}doctor:{secrets.token_hex(8)}"
    refused = []
    # One connection: MULTI and WATCH belong to theirs.
    with client.client() as one:  # type: ignore[no-untyped-call]
        for name, *words in commands:
            told = [word.replace("@", key, 1) if isinstance(word, str) else word for word in words]
            try:
                one.execute_command(name, *told)
            except redis.ResponseError as error:
                if is_denied(error):
                    refused.append(Refused(command=name, reason=" ".join(str(error).split())[:200]))
                elif not str(error).startswith(("ERR EXEC without", "EXECABORT")):
                    raise
    return refused
