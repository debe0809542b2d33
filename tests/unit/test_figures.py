"""Figures and verdicts that people act on, each at its boundary."""

from types import SimpleNamespace

import pytest

from producer.export.shards import _IndexSet
from producer.fleet.doctor import _memory
from shared.ledger import SweepStatus


def status(**fields) -> SweepStatus:
    """Return the status of an active sweep of ten jobs at two images a second."""
    known = {
        "sweep": "a" * 32,
        "name": "faces",
        "state": "active",
        "priority": 0,
        "jobs": 10,
        "done": 4,
        "failed": 0,
        "reused": 0,
        "chunks": 2,
        "chunks_done": 0,
        "chunks_running": 1,
        "chunks_queued": 1,
        "created_at": 0.0,
        "finished_at": None,
        "images_per_second": 2.0,
        "failures": {},
        "reasons": {},
    }
    return SweepStatus(**{**known, **fields})


@pytest.mark.parametrize(
    ("fields", "remaining", "eta"),
    [
        ({}, 6, 3.0),
        ({"failed": 2}, 4, 2.0),
        ({"images_per_second": 0.0}, 6, None),
        ({"state": "paused"}, 6, None),
    ],
)
def test_failed_jobs_are_not_waited_for(fields, remaining, eta):
    """What has failed is no part of what is left, nor of the time that it takes; without a rate there is no time."""
    found = status(**fields)
    assert (found.remaining, found.eta_seconds) == (remaining, eta)


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        ("noeviction", "ok"),
        ("allkeys-lru", "fail"),
        ("volatile-ttl", "fail"),
        ("volatile-lru", "fail"),
        ("allkeys-random", "fail"),
    ],
)
def test_every_policy_that_evicts_is_a_failure(policy, level):
    """An evicted key is a lost sweep, whichever keys the policy prefers."""
    ledger = SimpleNamespace(memory_policy=lambda: {"maxmemory_policy": policy, "aof": True})
    memory, durability = _memory(ledger)
    assert (memory.level, bool(memory.fix)) == (level, level == "fail")
    assert durability.level == "ok"


def test_a_set_of_indices_holds_those_and_no_others():
    """Across its pages of 65,536, at each edge, and far beyond the first one."""
    held = _IndexSet()
    held.add([range(65_530, 65_540), range(7, 9), range(10_000_000, 10_000_001)])
    wanted = {7, 8, *range(65_530, 65_540), 10_000_000}
    for near in (*range(20), *range(65_500, 65_600), *range(131_060, 131_080), *range(9_999_990, 10_000_010)):
        assert (near in held) == (near in wanted), near
