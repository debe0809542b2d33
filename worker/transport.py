"""kombu's Redis transport with four additions: checked messages, the server's clock, leases, sticky queues.

Knows nothing of chunks. docs/architecture.md says what kombu does without them; each fault is shown with and without
its addition in `tests/acceptance/test_celery_faults.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any, cast

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from kombu.utils.scheduling import round_robin_cycle

from shared.envelope import read_envelope, write_envelope
from shared.errors import MessageCorrupt
from worker.failpoints import failpoint

log = logging.getLogger(__name__)

#: Consecutive messages from one queue before the others get a turn. A switch may load another model, so
#: staying is cheap; the bound keeps a long sweep from starving the rest.
STICKY_MAX = 16

# KEYS index unacked; ARGV tag message
_APPEND = """
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], clock[1] .. '.' .. string.format('%06d', clock[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
"""

# KEYS index; ARGV timeout limit
_EXPIRED = """
local clock = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', tonumber(clock[1]) - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
"""

# KEYS index; ARGV tags ...   XX: a tag that was restored meanwhile is not brought back.
RENEW = """
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local renewed = 0
for _, tag in ipairs(ARGV) do renewed = renewed + redis.call('ZADD', KEYS[1], 'XX', 'CH', now, tag) end
return renewed
"""


class LeasedQoS(kombu_redis.QoS):
    """Scores deliveries by the server's clock, so that a skewed worker neither steals nor keeps messages.

    Keeps its own account of what is in hand. kombu's forgets an acknowledged message only when the next one comes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tags that are neither acknowledged nor rejected nor given back. Each change is one step of Python's.
        self._in_hand: dict[str, None] = {}

    @property
    def in_hand(self) -> list[str]:
        """The delivery tags that this channel answers for. May be read from any thread."""
        return list(self._in_hand)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a delivery."""
        self._in_hand.pop(delivery_tag, None)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a delivery, or put it back."""
        self._in_hand.pop(delivery_tag, None)
        super().reject(delivery_tag, requeue=requeue)

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything back: the channel closes."""
        self._in_hand.clear()
        super().restore_unacked(client)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a delivery."""
        delivery = message.delivery_info
        body = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])
        prefix = self.channel.global_keyprefix
        failpoint("popped")
        with self.channel.conn_or_acquire() as client:
            client.eval(
                _APPEND, 2, prefix + self.unacked_index_key, prefix + self.unacked_key, delivery_tag, body
            )
        self._in_hand[delivery_tag] = None
        # Past kombu's own append, which would record it once more by this machine's clock.
        super(kombu_redis.QoS, self).append(message, delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put deliveries whose lease ran out back in their queues."""
        with self.channel.conn_or_acquire() as client:
            index = self.channel.global_keyprefix + self.unacked_index_key
            for tag in client.eval(_EXPIRED, 1, index, self.visibility_timeout, num or 1000):
                self.restore_by_tag(tag, client)


class Channel(kombu_redis.Channel):
    """A channel with our QoS, which delivers nothing but chunk messages."""

    QoS = LeasedQoS

    def on_refused(self, queue: str, text: bytes, error: MessageCorrupt) -> None:
        """Keep the evidence of what is no chunk message; it is in no queue any more. See `keeping_evidence`."""
        log.error("message_dropped", extra={"queue": queue, "reason": str(error)})

    def _brpop_read(self, **options: Any) -> bool:
        """Read what BRPOP answers, and deliver it in an envelope of our own. kombu's own trusts whatever it is."""
        try:
            answer = self._read_answer(options)
        finally:
            self._in_poll = None  # type: ignore[assignment]  # as kombu's own
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        key, text = answer
        queue = key.decode().rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            argument = read_envelope(text)
        except MessageCorrupt as error:
            self.on_refused(queue, text, error)
        else:
            self.connection._deliver(write_envelope(argument, queue), queue)
        return True

    def _read_answer(self, options: dict[str, Any]) -> tuple[bytes, bytes] | None:
        connection = self.client.connection
        try:
            return cast(
                "tuple[bytes, bytes] | None", self.client.parse_response(connection, "BRPOP", **options)
            )
        except self.connection_errors:
            connection.disconnect()  # the next round connects again
            raise


class Transport(kombu_redis.Transport):
    """The transport a worker names in `broker_transport`."""

    Channel = Channel


def keeping_evidence(keep: Callable[[str, bytes, MessageCorrupt], None]) -> type[Transport]:
    """Return a transport that hands over what it refuses: the queue it was in, its text, and what is wrong with it."""
    channel = type("Channel", (Channel,), {"on_refused": staticmethod(keep)})
    return type("Transport", (Transport,), {"Channel": channel})


class StickyCycle(round_robin_cycle):
    """Looks at the last used queue first, up to STICKY_MAX times in a row, then at the others in turn."""

    def __init__(self, it: list[str] | None = None) -> None:
        super().__init__(it)
        self._last: str | None = None
        self._run = 0

    def update(self, it: Any) -> None:
        """Take a new set of queues and keep the order of those that stay."""
        fresh = list(it)
        self.items[:] = [name for name in self.items if name in fresh] + [
            n for n in fresh if n not in self.items
        ]

    def rotate(self, last_used: str) -> str:
        """Note which queue gave the last message, and move it back once it has had its run."""
        if last_used != self._last:
            # What was left goes behind those that waited, or two queues in turn would starve a third.
            if self._last in self.items:
                self.items.remove(self._last)
                self.items.append(self._last)
            self._run = 0
        self._last, self._run = last_used, self._run + 1
        if last_used in self.items:
            self.items.remove(last_used)
            if self._run >= STICKY_MAX:
                self._run = 0
                self.items.append(last_used)
            else:
                self.items.insert(0, last_used)
        return last_used
