"""The order in which a worker looks at its queues: few model switches, and nothing starves."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.scheduling import round_robin_cycle

from worker.transport import STICKY_MAX, StickyCycle

QUEUES = ["a", "b", "c", "d"]


def take(cycle, waiting):
    """Take one message as kombu does: BRPOP the first queue in the cycle's order that has one."""
    order = cycle.consume(len(waiting))
    assert sorted(order) == sorted(waiting), "the cycle lost a queue"
    queue = next((name for name in order if waiting[name]), None)
    if queue is not None:
        waiting[queue] -= 1
        cycle.rotate(queue)
    return queue


def drain(cycle, waiting):
    """Return the queues that messages were taken from, in order, until all are empty."""
    taken = []
    while (queue := take(cycle, waiting)) is not None:
        taken.append(queue)
    return taken


def switches(taken):
    """Return how often the queue changed: a model to load, each time."""
    return sum(before != after for before, after in pairwise(taken))


def test_far_fewer_switches():
    """120 messages over four full queues: round robin changes the model every time, the sticky cycle seven times."""
    counts = {}
    for kind in (round_robin_cycle, StickyCycle):
        taken = drain(kind(QUEUES), dict.fromkeys(QUEUES, 30))
        assert sorted(taken) == sorted(QUEUES * 30)
        counts[kind] = switches(taken)
    assert counts == {round_robin_cycle: 119, StickyCycle: 7}


def test_far_fewer_switches_with_a_feeder():
    """With a short window that is refilled at random, sticky order still changes models far less often."""
    counts = {}
    for kind in (round_robin_cycle, StickyCycle):
        draw, cycle, waiting, taken = random.Random(5), kind(QUEUES), dict.fromkeys(QUEUES, 3), []
        for _ in range(400):
            taken.append(take(cycle, waiting))
            for queue in waiting:
                if draw.random() < 0.8:
                    waiting[queue] = 3
        counts[kind] = switches([queue for queue in taken if queue])
    assert counts[StickyCycle] * 4 < counts[round_robin_cycle]


def longest_wait(cycle, arrivals, watched):
    """Return how many messages in a row came from elsewhere while `watched` had one waiting.

    Args:
        arrivals: before each take, what the other queues hold.
    """
    longest = run = 0
    for others in arrivals:
        queue = take(cycle, {**others, watched: 1})
        run = 0 if queue == watched else run + 1
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("watched", QUEUES)
def test_full_queues_take_turns(watched):
    """Among queues that never run dry each waits for at most one run of every other."""
    others = {queue: 9 for queue in QUEUES if queue != watched}
    assert longest_wait(StickyCycle(QUEUES), [others] * 500, watched) <= STICKY_MAX * (len(QUEUES) - 1)


@given(st.lists(st.integers(0, 7), min_size=60, max_size=120))
def test_nothing_starves(masks):
    """However messages come and go elsewhere, a queue that has one waits at most one run of every other."""
    arrivals = [{"b": mask & 1, "c": mask >> 1 & 1, "d": mask >> 2 & 1} for mask in masks]
    assert longest_wait(StickyCycle(["b", "c", "d", "a"]), arrivals, "a") <= STICKY_MAX * (len(QUEUES) - 1)


def test_two_trickles_do_not_starve_a_third():
    """Two queues that refill in turn, one message at a time, leave a third its turn."""
    arrivals = [{"b": 1, "c": 0} if step % 2 else {"b": 0, "c": 1} for step in range(200)]
    assert longest_wait(StickyCycle(["b", "c", "a"]), arrivals, "a") <= STICKY_MAX * 2


def test_queues_come_and_go():
    """New queues join at the end, queues that went are forgotten, the others keep their order."""
    cycle = StickyCycle(["a", "b"])
    cycle.rotate("b")
    cycle.update(["c", "a", "b"])
    assert cycle.consume(3) == ["b", "a", "c"]
    cycle.update(["c", "a"])
    assert cycle.consume(2) == ["a", "c"]
    cycle.rotate("gone")
    assert cycle.consume(2) == ["a", "c"]
    cycle.update([])
    assert cycle.consume(0) == []
