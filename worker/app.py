"""Puts one worker process together and runs it until SIGTERM or Ctrl-C. Knows nothing of how images are made."""

from __future__ import annotations

import importlib.metadata
import logging
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from celery import Celery, signals

from shared.broker import make_app, send_chunk
from shared.errors import BrokerError
from shared.feeder import Feeder
from shared.images.files import encoders
from shared.ledger import Ledger
from shared.model_reading import split_reading
from shared.names import IDLE_QUEUE
from shared.queues import BrokerView
from shared.redis_client import connect
from shared.schedule import CHUNKS_IN_HAND
from shared.settings import Settings
from shared.store.identity import identity_of
from shared.store.open import open_store
from worker.background import Background, beat_once, feed_once, look_at_store, take_turn, touch_heartbeat
from worker.consumer import FollowBuckets, keep_refused
from worker.context import WorkerContext, worker_name
from worker.device import Device, choose_device
from worker.heartbeat_figures import HeartbeatFigures
from worker.lease import Leases, LeaseStep
from worker.meter import Meter, ModelLoaded
from worker.models.inventory import take_inventory
from worker.models.loaded import LoadedModels
from worker.sampling.engine import Engine
from worker.sampling.model import LoadedModel
from worker.sampling.pipelines.model import LoadedPipeline
from worker.sampling.rows.capacity import RowCeilings
from worker.tasks import register_task
from worker.transport import keeping_evidence

log = logging.getLogger(__name__)

#: Exit status of a worker that ended though nobody had told it to: its supervisor starts another (EX_SOFTWARE).
EXIT_ENDED_BY_ITSELF = 70

#: How long the store client itself tries before `persist` takes over.
_STORE_PATIENCE_SECONDS = 5.0

#: How often a worker looks whether its store is still the one it was: one listing of a key or two.
_STORE_LOOK_SECONDS = 60.0


def make_context(settings: Settings, *, device: str, share_gpu: bool = False) -> WorkerContext:
    """Open everything a worker needs; wait for a GPU that another worker has, unless it may be shared.

    Raises: SettingsError.
    """
    chosen = choose_device(
        device,
        batch_rows=settings.batch_rows,
        claims=None if share_gpu else settings.cache_dir / "gpus",
        on_wait=partial(touch_heartbeat, settings),
    )
    log.info("looking_at_models")
    inventory = take_inventory(settings.models, settings.hub_models, cache_dir=settings.cache_dir)
    store = open_store(
        settings.store,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        checksums=settings.s3_checksums,
        # The publishers' connections and those of the task threads, which write manifests.
        max_connections=settings.s3_max_connections + CHUNKS_IN_HAND,
        # Short: a worker waits out an outage in `persist`, which a drain can interrupt.
        patience_seconds=min(settings.store_patience_seconds, _STORE_PATIENCE_SECONDS),
    )
    figures = HeartbeatFigures()
    meter = Meter([figures])
    models = LoadedModels(inventory, chosen, settings)
    return WorkerContext(
        name=worker_name(),
        settings=settings,
        ledger=Ledger(connect(settings), prefix=settings.redis_prefix),
        store=store,
        device=chosen,
        models=models,
        engine=Engine(
            partial(_load_measured, models, meter),
            stall_seconds=settings.stall_seconds,
            load_seconds=settings.load_seconds,
            ceilings=_row_ceilings(settings, chosen),
            notice=meter.notice,
        ),
        leases=Leases(stall_seconds=settings.stall_seconds),
        lease_client=connect(settings),
        publishers=ThreadPoolExecutor(settings.s3_max_connections, thread_name_prefix="publish"),
        versions=_versions(settings),
        meter=meter,
        figures=figures,
    )


def _load_measured(models: LoadedModels, meter: Meter, fingerprint: str) -> LoadedModel | LoadedPipeline:
    """Return a model that is on the device, and report it where it had to be loaded. Raises: RenderError."""
    if models.loaded == fingerprint:
        return models.load(fingerprint)
    started = time.monotonic()
    model = models.load(fingerprint)
    name = models.usable[split_reading(fingerprint)[0]][0]
    meter.notice(ModelLoaded(fingerprint=fingerprint, name=name, seconds=time.monotonic() - started))
    return model


def _row_ceilings(settings: Settings, device: Device) -> RowCeilings:
    """Return what fits the device: kept in a file for a GPU, which is measured; in memory for a CPU."""
    path = settings.cache_dir / "rows.json" if device.torch_device.type == "cuda" else None
    return RowCeilings(path, device=f"{device.name} {device.dtype_name}")


def make_worker_app(settings: Settings, context: WorkerContext) -> Celery:
    """Return the Celery app of a worker: our transport, our consumer, the task."""
    app = make_app(
        settings,
        transport=keeping_evidence(partial(keep_refused, context)),
        queue_order="worker.transport:StickyCycle",
    )
    app.context = context
    app.conf.worker_consumer = "worker.consumer:Consumer"
    app.steps["consumer"].update({LeaseStep, FollowBuckets})
    register_task(app, context)
    return app


def run_worker(settings: Settings, *, device: str, share_gpu: bool = False) -> int:
    """Work until SIGTERM or SIGINT, then drain. Returns the exit status. Raises: SettingsError."""
    context = make_context(settings, device=device, share_gpu=share_gpu)
    app = make_worker_app(settings, context)
    view = BrokerView(connect(settings), prefix=settings.redis_prefix)
    feeder = Feeder(
        context.ledger,
        view,
        partial(send_chunk, app),
        lost_after_seconds=settings.lost_after_seconds,
        turn_seconds=settings.turn_seconds,
    )
    background = Background()
    look_at_store(context)  # so that the first heartbeat tells it
    background.every(_STORE_LOOK_SECONDS, partial(look_at_store, context), name="store")
    background.every(settings.heartbeat_seconds, partial(beat_once, context), name="heartbeat")
    background.every(settings.feed_interval_seconds, partial(feed_once, feeder), name="feeder")
    background.every(settings.feed_interval_seconds, partial(take_turn, context), name="turn")

    def drain(**_: Any) -> None:
        log.info("draining", extra={"worker": context.name})
        context.draining.set()

    # Celery warns of root for the sake of pickle, which we do not accept.
    warnings.filterwarnings("ignore", message="(?s).*superuser privileges")
    signals.worker_shutting_down.connect(drain, weak=False)
    # We log chunks, and what is refused, with more to say and without a traceback.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
    facts = {
        "device": context.device.name,
        "dtype": context.device.dtype_name,
        "rows": context.device.batch_rows,
    }
    facts["store"] = str(identity_of(context.store).mark)
    log.info("worker_up", extra={"worker": context.name, **facts, "models": context.models.usable})
    try:
        app.worker_main(_arguments(context, settings))
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    finally:
        background.stop()
        context.engine.close()
        context.publishers.shutdown(wait=True)
        _leave(context, feeder)
    # Celery also returns quietly from what it calls unrecoverable: nobody told this worker to stop.
    return status or (0 if context.draining.is_set() else EXIT_ENDED_BY_ITSELF)


def _arguments(context: WorkerContext, settings: Settings) -> list[str]:
    return [
        "--quiet",
        "worker",
        f"--hostname={context.name}",
        "--pool=threads",
        f"--concurrency={CHUNKS_IN_HAND}",
        f"--queues={IDLE_QUEUE}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        f"--loglevel={settings.log_level}",
    ]


def _leave(context: WorkerContext, feeder: Feeder) -> None:
    try:
        feeder.release()
        context.ledger.forget_worker(context.name)
    except BrokerError as error:
        log.warning("left_without_a_word", extra={"reason": str(error)})
    log.info("worker_down", extra={"worker": context.name})


def _versions(settings: Settings) -> dict[str, str]:
    """Return the versions that decide an image's bytes, those of the encoders this worker has among them."""
    names = ("printroom", "torch", "diffusers", "transformers")
    made = {} if settings.compile == "off" else {"compile": settings.compile}
    return {**{name: importlib.metadata.version(name) for name in names}, **encoders(), **made}
