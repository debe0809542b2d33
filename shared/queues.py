"""Reads the queues as kombu lays them out in Redis: what waits, and what is delivered. Knows nothing of Celery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import redis

from shared.envelope import read_envelope
from shared.errors import MessageError
from shared.message import ChunkMessage, parse_message
from shared.redis_errors import broker_error, is_denied


class BrokerView:
    """Reads queues, which are lists, and delivered messages, which are one hash."""

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
