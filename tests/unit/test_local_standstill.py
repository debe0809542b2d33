"""When a local run gives up: nothing moves, and what stands in the way stays."""

from __future__ import annotations

from types import SimpleNamespace

from producer.fleet.status import Obstacle
from producer.local.render import _Standstill

LASTING = (Obstacle("no live worker has model x", lasting=True),)
PASSING = (Obstacle("the store is full", lasting=False),)


def overview(*, done: int = 0, failed: int = 0, running: int = 0, obstacles=LASTING):
    """Return what a status says, as far as a standstill asks for it."""
    status = SimpleNamespace(done=done, failed=failed, chunks_running=running)
    return SimpleNamespace(status=status, obstacles=obstacles)


def test_nothing_moves():
    """The seconds count from the first look at which nothing had moved."""
    standstill = _Standstill()
    assert [standstill.seconds(overview(), now) for now in (0, 1, 4, 9)] == [0, 0, 3, 8]


def test_what_moves_is_no_standstill():
    """An image, a failure or a chunk in hand starts the count anew: the rest of the sweep is still being rendered."""
    for moved in ({"done": 1}, {"failed": 1}, {"running": 1}):
        standstill = _Standstill()
        seen = [overview(), overview(), overview(**moved), overview(**moved), overview(**moved)]
        counted = [standstill.seconds(each, 10 * n) for n, each in enumerate(seen)]
        assert counted == [0, 0, 0, 0, 0 if "running" in moved else 10]


def test_what_passes_is_waited_for():
    """Without a lasting obstacle there is always hope."""
    standstill = _Standstill()
    assert [
        standstill.seconds(overview(obstacles=obstacles), 99 * n)
        for n, obstacles in enumerate((PASSING, (), PASSING))
    ] == [0, 0, 0]
