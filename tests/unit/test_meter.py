"""The meter: every event reaches every listener, and no listener stops the work."""

import logging
from types import SimpleNamespace

import pytest

from shared.errors import StoreUnavailable
from shared.message import ChunkMessage
from worker import heartbeat_figures
from worker.backoff import Abandoned
from worker.heartbeat_figures import HeartbeatFigures
from worker.meter import (
    ChunkBegun,
    ChunkEnded,
    ImageReused,
    ImageStored,
    MessageRefused,
    Meter,
    TroubleBegun,
    TroubleEnded,
)
from worker.tasks import _measured

STORED = ImageStored(seconds=0.1, size_bytes=10)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the figures; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(heartbeat_figures, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_every_listener_gets_every_event_in_order():
    """Events arrive as they are reported."""
    first, second = [], []
    meter = Meter([first.append, second.append])
    events = [ChunkBegun(sweep="s", chunk=1), STORED, ImageReused()]
    for event in events:
        meter.notice(event)
    assert (first, second) == (events, events)


def test_a_listener_that_raises_is_logged_once_and_stops_nobody(caplog):
    """The others still get each event."""

    def broken(event):
        raise RuntimeError("no disk")

    heard = []
    meter = Meter([broken, heard.append])
    with caplog.at_level(logging.WARNING):
        meter.notice(STORED)
        meter.notice(STORED)
    assert heard == [STORED, STORED]
    assert [record.message for record in caplog.records] == ["listener_failed"]


def test_the_rate_is_that_of_the_last_half_minute(clock):
    """Images older than the window do not count; one at its edge does."""
    figures = HeartbeatFigures()
    for seconds in (1.0, 10.0, 20.0, 30.0):
        clock[0] = 1000.0 + seconds
        figures(STORED)
    clock[0] = 1031.0
    assert figures.images_per_second() == round(4 / 30, 3)
    clock[0] = 1031.5
    assert figures.images_per_second() == round(3 / 30, 3)


def test_the_rate_of_a_young_worker_is_over_its_life(clock):
    """Two images in four seconds are half an image a second; what was reused is no speed."""
    figures = HeartbeatFigures()
    clock[0] += 4.0
    for event in (STORED, STORED, ImageReused()):
        figures(event)
    assert figures.images_per_second() == 0.5


def test_the_heartbeat_shows_chunks_refusals_and_trouble():
    """What has ended is shown no more."""
    figures = HeartbeatFigures()
    meter = Meter([figures])
    meter.notice(ChunkBegun(sweep="s", chunk=1))
    meter.notice(ChunkBegun(sweep="s", chunk=2))
    meter.notice(ChunkEnded(sweep="s", chunk=1, how="done", seconds=1.0))
    meter.notice(MessageRefused(code="message_corrupt"))
    meter.notice(TroubleBegun(error=StoreUnavailable("away")))
    assert figures.snapshot() == (["s/2"], {"message_corrupt": 1}, "store_unavailable: away")
    meter.notice(TroubleEnded())
    assert figures.snapshot() == (["s/2"], {"message_corrupt": 1}, None)


@pytest.mark.parametrize(
    ("error", "how"), [(None, "done"), (Abandoned(), "given_back"), (MemoryError(), "failed")]
)
def test_a_chunk_ends_as_its_task_ends(error, how):
    """Whatever ends a task, the chunk leaves the figures."""
    heard = []
    try:
        with _measured(ChunkMessage(sweep="s", chunk=3), Meter([heard.append])):
            if error is not None:
                raise error
    except (Abandoned, MemoryError):
        pass
    begun, ended = heard
    assert begun == ChunkBegun(sweep="s", chunk=3)
    assert (ended.sweep, ended.chunk, ended.how) == ("s", 3, how)
