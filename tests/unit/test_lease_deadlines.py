"""Which deliveries are renewed: those whose task said lately that it lives."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import redis

from worker import lease
from worker.lease import Leases, LeaseStep

STALL = 180.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: `clock.now += 1`."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(lease, "time", found)
    return found


@pytest.fixture
def leases(clock):
    """Leases by that clock."""
    return Leases(stall_seconds=STALL)


def test_a_beat_keeps_a_lease(leases, clock):
    """A task that beats is renewed for as long as it does, and for one allowance after its last beat."""
    for _ in range(5):
        leases.beat("a")
        clock.now += STALL - 1
        assert leases.alive(["a"]) == ["a"]
    clock.now += 1
    assert leases.alive(["a"]) == []
    assert leases.stalled() == ["a"]


def test_silence_loses_one_lease(leases, clock):
    """A silent task loses its own lease and no other's; its next beat brings it back."""
    leases.beat("silent")
    leases.beat("busy")
    clock.now += STALL / 2
    leases.beat("busy")
    clock.now += STALL / 2
    assert leases.alive(["silent", "busy"]) == ["busy"]
    assert leases.stalled() == ["silent"]
    leases.beat("silent")
    assert leases.alive(["silent", "busy"]) == ["silent", "busy"]
    assert leases.stalled() == []


def test_a_new_delivery_has_a_full_allowance(leases, clock):
    """A delivery whose task has not begun is renewed for one allowance from when it was first seen, not for ever."""
    for _ in range(3):
        assert leases.alive(["new"]) == ["new"]
        clock.now += STALL / 3
    assert leases.alive(["new"]) == []


def test_a_longer_silence_may_be_allowed(leases, clock):
    """While a model loads a task may be silent longer; the next ordinary beat ends that."""
    leases.beat("a", allow_seconds=1800)
    clock.now += 1799
    assert leases.alive(["a"]) == ["a"]
    leases.beat("a")
    clock.now += STALL
    assert leases.alive(["a"]) == []


def test_the_end(leases, clock):
    """A task that is over is neither renewed for long nor taken for a stalled one."""
    leases.beat("a")
    leases.end("a")
    leases.end("never begun")
    clock.now += 10 * STALL
    assert leases.stalled() == []


def test_deliveries_that_left_are_forgotten(leases, clock):
    """What the channel no longer holds, after an ack or a new connection, cannot stall."""
    leases.beat("old")
    leases.beat("new")
    assert leases.alive(["new"]) == ["new"]
    clock.now += STALL
    assert leases.stalled() == ["new"]
    assert leases.alive([]) == []
    assert leases.stalled() == []


def test_what_waits_for_a_free_slot_holds_nothing_up(leases, clock):
    """A delivery that waits behind long tasks loses its lease in the end, but no process ends for its sake."""
    for _ in range(10):
        leases.beat("long")
        leases.alive(["long", "waits"])
        clock.now += STALL / 2
    assert leases.alive(["long", "waits"]) == ["long"]
    assert leases.stalled() == []
    leases.beat("waits")
    clock.now += STALL
    assert leases.stalled() == ["long", "waits"]


def test_a_frozen_process_is_not_stalled(leases, clock):
    """A worker that was stopped for an hour has time to say that it lives; silence while it ran still counts."""
    leases.tick()
    leases.beat("a")
    clock.now += 3600
    leases.tick()
    assert leases.stalled() == []
    for _ in range(5):
        clock.now += 50
        leases.tick()
    assert leases.stalled() == ["a"]


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), RuntimeError("unexpected")])
def test_an_error_does_not_end_the_renewals(error):
    """The renewing thread goes on after an error: the next renewal reaches Redis."""
    renewed, step = [], LeaseStep(None)
    stop = threading.Event()

    def evaluate(script, key_count, index, *tags):
        renewed.append(tags)
        if len(renewed) == 1:
            raise error
        stop.set()

    channel = SimpleNamespace(
        global_keyprefix="p:",
        unacked_index_key="index",
        visibility_timeout=0.004,
        qos=SimpleNamespace(in_hand=["tag"]),
    )
    context = SimpleNamespace(lease_client=SimpleNamespace(eval=evaluate), leases=Leases(stall_seconds=STALL))
    consumer = SimpleNamespace(
        task_consumer=SimpleNamespace(channel=channel), app=SimpleNamespace(context=context)
    )
    step._renew(consumer, stop)  # in this thread: returns at the second renewal
    assert renewed == [("tag",), ("tag",)]
