"""Trying again while the trouble is elsewhere."""

from __future__ import annotations

import threading

import pytest

from shared.errors import (
    BrokerFull,
    BrokerUnavailable,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from worker import backoff as patience
from worker.backoff import Abandoned, persist


class Waits(threading.Event):
    """A draining flag that is waited for in no time, and notes how long it would have been."""

    def __init__(self, drain_after=None):
        super().__init__()
        self.pauses = []
        self.drain_after = drain_after

    def wait(self, timeout=None):
        """Note how long, and do not wait."""
        self.pauses.append(timeout)
        if self.drain_after is not None and len(self.pauses) >= self.drain_after:
            self.set()
        return self.is_set()


class Tries:
    """Raises the given errors one after another, then returns a value."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        """Raise the next error, or return."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "made"


@pytest.fixture
def told():
    """What was told of the trouble, in order: codes, and None for its end."""
    return []


@pytest.fixture
def run(told):
    """A function that persists with an action, and counts the beats."""
    beats = []

    def run(action, draining=None):
        return persist(
            action,
            beat=lambda: beats.append(1),
            draining=draining or Waits(),
            on_trouble=lambda error: told.append(error and error.code),
        )

    run.beats = beats
    return run


def test_no_trouble(run, told):
    """What works at once is tried once, and nothing is told."""
    action = Tries()
    assert run(action) == "made"
    assert (action.calls, told) == (1, [])


@pytest.mark.parametrize("kind", [StoreUnavailable, StoreDenied, StoreFull, BrokerUnavailable, BrokerFull])
def test_waits_and_tells(run, told, kind):
    """Trouble of the store or of Redis is waited out, told each time, and its end is told once."""
    action = Tries(kind("why"), kind("why"))
    assert run(action) == "made"
    assert told == [kind.code, kind.code, None]
    assert len(run.beats) == action.calls == 3


def test_pauses_grow_to_a_bound(run, monkeypatch):
    """Pauses double from half a second and stay at fifteen; jitter takes up to half away."""
    for draw in (1.0, 0.5):
        monkeypatch.setattr(patience.random, "uniform", lambda low, high, draw=draw: draw)
        draining = Waits()
        run(Tries(*[StoreUnavailable("why")] * 7), draining)
        assert draining.pauses == [draw * pause for pause in (0.5, 1, 2, 4, 8, 15, 15)]


def test_an_answer_that_is_no_trouble(run, told):
    """A missing object is an answer: it is raised at once, and nothing is told."""
    action = Tries(ObjectMissing("why"))
    with pytest.raises(ObjectMissing):
        run(action)
    assert (action.calls, told) == (1, [])


def test_a_missing_object_ends_the_trouble(run, told):
    """A store that says "no such object" after an outage is up again, and that is told too."""
    with pytest.raises(ObjectMissing):
        run(Tries(StoreUnavailable("why"), ObjectMissing("why")))
    assert told == ["store_unavailable", None]


def test_other_errors_are_not_ours(run, told):
    """Any other error is raised as it is, at once."""
    action = Tries(ValueError("why"))
    with pytest.raises(ValueError, match="why"):
        run(action)
    assert (action.calls, told) == (1, [])


def test_draining_abandons(run):
    """A worker that drains stops waiting; what it could do at once it still does."""
    action = Tries(*[StoreUnavailable("why")] * 9)
    with pytest.raises(Abandoned):
        run(action, Waits(drain_after=3))
    assert action.calls == 3
    draining = Waits()
    draining.set()
    assert run(Tries(), draining) == "made"
    with pytest.raises(Abandoned):
        run(Tries(StoreUnavailable("why")), draining)
