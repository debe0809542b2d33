"""What one worker process has: clients, models, pools, whose turn the device is, what it tells of itself."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import redis

from shared.errors import PrintroomError
from shared.ledger import Ledger, WorkerInfo
from shared.plan import Plan
from shared.settings import Settings
from shared.store.base import Store
from shared.store.identity import identity_of
from worker.device import Device
from worker.lease import Leases
from worker.models.loaded import LoadedModels
from worker.sampling.engine import Engine

#: Images a second are averaged over this long.
_RATE_WINDOW_SECONDS = 30.0


def worker_name() -> str:
    """Return a name no other worker has: host, process and a random part, since containers reuse both."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


class Pulse:
    """What this worker tells of itself between heartbeats. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: deque[float] = deque()
        self._started = time.monotonic()
        self._chunks: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._trouble: PrintroomError | None = None

    def image_finished(self) -> None:
        """Count one image for the rate."""
        with self._lock:
            self._finished.append(time.monotonic())

    def chunk_started(self, label: str) -> None:
        """Say that a chunk is in hand."""
        with self._lock:
            self._chunks.add(label)

    def chunk_ended(self, label: str) -> None:
        """Say that a chunk has left."""
        with self._lock:
            self._chunks.discard(label)

    def refuse(self, code: str) -> None:
        """Count a refused message by its code."""
        with self._lock:
            self._refused[code] += 1

    def trouble(self, error: PrintroomError | None) -> None:
        """Say what holds this worker up; None when it is over."""
        with self._lock:
            self._trouble = error

    def images_per_second(self) -> float:
        """Return the recent rate."""
        now = time.monotonic()
        with self._lock:
            while self._finished and self._finished[0] < now - _RATE_WINDOW_SECONDS:
                self._finished.popleft()
            window = max(1.0, min(_RATE_WINDOW_SECONDS, now - self._started))
            return round(len(self._finished) / window, 3)

    def snapshot(self) -> tuple[list[str], dict[str, int], str | None]:
        """Return chunks in hand, refusals by code, and the present trouble."""
        with self._lock:
            trouble = f"{self._trouble.code}: {self._trouble}" if self._trouble else None
            return sorted(self._chunks), dict(self._refused), trouble


@dataclass(kw_only=True, eq=False)
class WorkerContext:
    """Everything a chunk needs from its worker. One a process, shared by its threads."""

    name: str
    settings: Settings
    ledger: Ledger
    store: Store
    device: Device
    models: LoadedModels
    #: Owns the device and, while it lives, the models.
    engine: Engine
    leases: Leases
    #: The lease thread's own connection: it must not wait behind others.
    lease_client: redis.Redis
    #: Encodes and uploads; as many threads as the store has connections.
    publishers: ThreadPoolExecutor
    versions: dict[str, str]
    pulse: Pulse = field(default_factory=Pulse)
    #: Set at SIGTERM: finish the batch in hand, give the rest back.
    draining: threading.Event = field(default_factory=threading.Event)
    #: Queues this worker is able to serve, and those of them that it is to listen to; the consumer's thread follows.
    serves: frozenset[str] = frozenset()
    wanted_queues: frozenset[str] = frozenset()
    #: Plans in use, newest last.
    plans: dict[str, Plan] = field(default_factory=dict)

    def info(self) -> WorkerInfo:
        """Return what the heartbeat says."""
        chunks, refused, trouble = self.pulse.snapshot()
        mark = identity_of(self.store).mark
        broken = "; ".join(f"{reason}" for reason in self.models.broken.values())
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=self.device.name,
            dtype=self.device.dtype_name,
            batch_rows=self.device.batch_rows,
            models=self.models.usable,
            facts=self.models.facts,
            queues=sorted(self.wanted_queues),
            serves=sorted(self.serves),
            model=self.models.loaded,
            beat_seconds=self.settings.heartbeat_seconds,
            moves_after_seconds=self.settings.visibility_timeout_seconds
            + self.settings.restore_interval_seconds,
            images_per_second=self.pulse.images_per_second(),
            chunks=chunks,
            draining=self.draining.is_set(),
            refused=refused,
            trouble=trouble or broken or None,
            versions=self.versions,
            store=mark.id,
            store_place=mark.place,
        )
