"""Our kombu transport on a real Valkey: what a channel has in hand, by its own account."""

import threading
import time

import pytest
from kombu import Connection, Queue

from worker.consumer import Consumer
from worker.lease import Leases
from worker.transport import RENEW


@pytest.fixture
def channel(valkey_server, key_prefix):
    """A channel of our transport, and a queue of its own."""
    options = {"global_keyprefix": f"{key_prefix}:", "visibility_timeout": 30}
    with Connection(
        valkey_server.url, transport="worker.transport:Transport", transport_options=options
    ) as connection:
        yield connection.channel()


def deliveries(channel, count):
    """Send and receive some messages; return them."""
    queue = Queue("q", routing_key="q")(channel)
    queue.declare()
    for number in range(count):
        with channel.connection.client.Producer(channel) as producer:
            producer.publish({"number": number}, routing_key="q")
    return [queue.get(no_ack=False) for _ in range(count)]


@pytest.mark.parametrize("end", ["ack", "reject", "requeue"])
def test_what_is_ended_is_out_of_hand_at_once(channel, end):
    """An acknowledged, rejected or requeued delivery is out of hand, though no other message has come since."""
    first, second = deliveries(channel, 2)
    assert channel.qos.in_hand == [first.delivery_tag, second.delivery_tag]
    getattr(first, end)()
    assert channel.qos.in_hand == [second.delivery_tag]
    second.ack()
    assert channel.qos.in_hand == []


def test_an_idle_worker_is_not_stalled(channel, monkeypatch):
    """After its last chunk a worker may be idle for as long as it likes; a delivery that hangs is still found."""
    clock = [1000.0]
    monkeypatch.setattr("worker.lease.time.monotonic", lambda: clock[0])
    leases = Leases(stall_seconds=15)
    (message,) = deliveries(channel, 1)
    leases.beat(message.delivery_tag)
    leases.end(message.delivery_tag)
    message.ack()
    for _ in range(100):
        assert leases.alive(channel.qos.in_hand) == []
        clock[0] += 10
        leases.tick()
        assert leases.stalled() == []
    (hangs,) = deliveries(channel, 1)
    leases.beat(hangs.delivery_tag)
    clock[0] += 16
    assert (leases.alive(channel.qos.in_hand), leases.stalled()) == ([], [hangs.delivery_tag])
    hangs.ack()


def test_a_closed_channel_has_nothing_in_hand(channel):
    """What a channel gives back when it closes is not in hand: after a new connection it is somebody's again."""
    deliveries(channel, 1)
    qos = channel.qos
    channel.close()
    assert qos.in_hand == []


def test_a_renewal_does_not_revive_a_restored_delivery(channel):
    """A renewal that comes after the message went back to its queue adds no lease for the old delivery."""
    (message,) = deliveries(channel, 1)
    tag, index = message.delivery_tag, channel.global_keyprefix + channel.unacked_index_key
    assert raw(channel, "ZSCORE", index, tag) is not None
    message.requeue()
    with channel.conn_or_acquire() as client:
        assert client.eval(RENEW, 1, index, tag) == 0
    assert raw(channel, "ZSCORE", index, tag) is None


def raw(channel, *command):
    """Send one Redis command with full key names, past kombu's key prefix: scripts get their keys as they are."""
    with channel.conn_or_acquire() as client:
        return client.eval(
            "return redis.call(ARGV[1], KEYS[1], ARGV[2])", 1, command[1], command[0], command[2]
        )


def test_a_server_that_was_away_for_long_is_found_soon(start_valkey):
    """However long Redis was away, a worker tries again every three seconds; nothing else is asked of it."""
    server = start_valkey()
    server.stop()
    connection = Connection(server.url, transport="worker.transport:Transport")
    consumer = object.__new__(Consumer)
    thread = threading.Thread(target=consumer.ensure_connected, args=(connection,))
    thread.start()
    time.sleep(8)
    assert thread.is_alive()
    server.start()
    thread.join(5)
    assert not thread.is_alive()
    assert not consumer.first_connection_attempt
    connection.release()
