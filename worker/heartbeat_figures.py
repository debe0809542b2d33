"""The figures of a heartbeat, gathered from the meter's events: chunks in hand, the recent rate, refusals, trouble."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

from shared.errors import PrintroomError
from worker.meter import (
    ChunkBegun,
    ChunkEnded,
    Event,
    ImageStored,
    MessageRefused,
    TroubleBegun,
    TroubleEnded,
)

#: Images a second are averaged over this long.
_RATE_WINDOW_SECONDS = 30.0


class HeartbeatFigures:
    """A listener of the meter. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: deque[float] = deque()
        self._started = time.monotonic()
        self._chunks: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._trouble: PrintroomError | None = None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            match event:
                case ImageStored():
                    self._stored.append(time.monotonic())
                case ChunkBegun():
                    self._chunks.add(f"{event.sweep}/{event.chunk}")
                case ChunkEnded():
                    self._chunks.discard(f"{event.sweep}/{event.chunk}")
                case MessageRefused():
                    self._refused[event.code] += 1
                case TroubleBegun():
                    self._trouble = event.error
                case TroubleEnded():
                    self._trouble = None
                case _:
                    pass

    def images_per_second(self) -> float:
        """Return the recent rate."""
        now = time.monotonic()
        with self._lock:
            while self._stored and self._stored[0] < now - _RATE_WINDOW_SECONDS:
                self._stored.popleft()
            window = max(1.0, min(_RATE_WINDOW_SECONDS, now - self._started))
            return round(len(self._stored) / window, 3)

    def snapshot(self) -> tuple[list[str], dict[str, int], str | None]:
        """Return chunks in hand, refusals by code, and the present trouble."""
        with self._lock:
            trouble = f"{self._trouble.code}: {self._trouble}" if self._trouble else None
            return sorted(self._chunks), dict(self._refused), trouble
