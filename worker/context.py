"""What one worker process has: clients, models, pools, whose turn the device is, what it tells of itself."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import redis

from shared.ledger import Ledger, WorkerInfo
from shared.plan import Plan
from shared.settings import Settings
from shared.store.base import Store
from shared.store.identity import identity_of
from worker.device import Device
from worker.heartbeat_figures import HeartbeatFigures
from worker.lease import Leases
from worker.meter import Meter
from worker.models.loaded import LoadedModels
from worker.sampling.engine import Engine


def worker_name() -> str:
    """Return a name no other worker has: host, process and a random part, since containers reuse both."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


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
    #: Takes what happens here; the heartbeat's figures are one of its listeners.
    meter: Meter
    figures: HeartbeatFigures
    #: Set at SIGTERM: finish the batch in hand, give the rest back.
    draining: threading.Event = field(default_factory=threading.Event)
    #: Queues this worker is able to serve, and those of them that it is to listen to; the consumer's thread follows.
    serves: frozenset[str] = frozenset()
    wanted_queues: frozenset[str] = frozenset()
    #: Plans in use, newest last.
    plans: dict[str, Plan] = field(default_factory=dict)

    def info(self) -> WorkerInfo:
        """Return what the heartbeat says."""
        chunks, refused, trouble = self.figures.snapshot()
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
            images_per_second=self.figures.images_per_second(),
            chunks=chunks,
            draining=self.draining.is_set(),
            refused=refused,
            trouble=trouble or broken or None,
            versions=self.versions,
            store=mark.id,
            store_place=mark.place,
        )
