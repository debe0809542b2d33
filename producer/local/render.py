"""Renders one sweep on this machine in one command: starts Valkey, a worker and a folder store, and ends them.

An embedded Valkey, a folder store and one worker process; from there on it is the same code as the fleet. The
store is the durable truth: a re-run finds what is done and renders the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.arguments import checked
from producer.client import Printroom
from producer.fleet.status import Overview
from producer.fleet.submit import Submission
from producer.language.wording import counted
from producer.local.valkey import EmbeddedValkey
from producer.results.verify import repair_sweep, verify_sweep
from producer.source import SweepLike, SweepSource, read_source
from shared import names
from shared.errors import ModelUnknown, WorkerFailed
from shared.images.files import require_encoder
from shared.images.format import parse_format
from shared.ledger import SweepStatus
from shared.plan import Plan
from shared.settings import Settings
from shared.store.folder import FolderStore

#: A cold disk takes minutes to give a worker its libraries.
_WORKER_START_SECONDS = 600
_POLL_SECONDS = 0.2

#: Jobs whose images are looked for before a run, at some 20 us each.
_LOOKED_FOR_MAX = 100_000

#: How long nothing but another worker would help, before a local run, which has one, says so and ends.
_HOPELESS_SECONDS = 5.0

#: One worker and one person: no need to spare the server.
_LIVELY = {"heartbeat_seconds": 0.5, "feed_interval_seconds": 0.25}

#: An event of the worker's log -> what it is doing until the next one.
_STAGES = {
    "loading_libraries": "starting a worker: loading torch and diffusers (a minute or more the first time)",
    "looking_at_models": "starting a worker: looking at the models (large new files take a while)",
}

#: Where the worker's log goes, beside the prints.
WORKER_LOG = "worker.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """What a local run made."""

    submission: Submission
    status: SweepStatus
    folder: Path
    #: Images that were in the folder before.
    found: int
    interrupted: bool

    @property
    def images(self) -> Path:
        """The folder of the images, or of the shards that hold them."""
        shards = self.folder / "sweeps" / self.status.sweep / "shards"
        return shards if shards.is_dir() else self.folder / "images"

    @property
    def manifests(self) -> Path:
        """The folder of the sweep's manifests."""
        return self.folder / "sweeps" / self.status.sweep / "manifest"

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the run, and where its images are."""
        s = self.status
        figures = {"sweep": s.sweep, "jobs": s.jobs, "done": s.done, "failed": s.failed, "reused": s.reused}
        places = {"images": self.images, "manifest": self.manifests}
        return {**figures, "interrupted": self.interrupted, **places}


@checked
def render_locally(
    source: SweepLike,
    folder: str | Path,
    settings: Settings,
    *,
    device: str = "auto",
    confirmed: bool = False,
    allow_failing: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_status: Callable[[Overview], None] = lambda seen: None,
) -> Rendered:
    """Render a sweep on this machine, into a folder.

    Ctrl-C (KeyboardInterrupt) lets the worker finish and commit what it samples; a second one ends it.

    Args:
        on_stage: told what is going on before the first image, in words.
        on_status: told how far it is, several times a second.

    Raises: SettingsError where the sweep's format wants a package that is not installed; SweepError, ModelUnknown,
        WorkerFailed and the other errors of submitting.
    """
    folder, read = Path(folder), read_source(source)
    require_encoder(parse_format(read.sweep.format))
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedValkey() as valkey:
        settings = settings.model_copy(
            update={"redis_url": _secret(valkey.url), "store": str(folder.resolve())}
        )
        client = Printroom(settings)
        models = client.paths_of_models(read)
        plan, store = client.compile(read, unknown=[]), FolderStore(folder)
        _open_what_is_gone(plan, store, on_stage)
        there = _there_already(plan, store)
        with _LocalWorker(settings, folder, device, models, on_stage) as worker:
            try:
                submission = _submit(client, worker, read, confirmed=confirmed, allow_failing=allow_failing)
                # Of a sweep in shards, or a very large one, only what its own manifests say is known.
                found = max(there, client.status(submission.sweep).status.done)
                status, interrupted = _watch(client, worker, submission.sweep, on_status, on_stage)
            finally:
                worker.drain()
            if interrupted:
                status = client.status(submission.sweep).status
    return Rendered(submission=submission, status=status, folder=folder, found=found, interrupted=interrupted)


def draw_local_sheet(made: Rendered) -> Path:
    """Draw the contact sheet of a finished run into its folder, for a sweep of one axis too."""
    from producer.sheet.sweep_sheet import sweep_sheet
    from shared.whole_file import write_png

    store = FolderStore(made.folder)
    plan = Plan.from_bytes(store.get(names.plan_key(made.submission.sweep)))
    path = made.folder / "sheet.png"
    write_png(sweep_sheet(made.submission.sweep, plan, store, rows=None, columns=None, where={}), path)
    return path


def _open_what_is_gone(plan: Plan, store: FolderStore, on_stage: Callable[[str], None]) -> None:
    """Let chunks be rendered again whose images somebody has removed from the folder, or cut short."""
    if len(plan) > _LOOKED_FOR_MAX:
        return
    report = verify_sweep(plan.id, plan, store, None)
    if not report.agrees:
        repair_sweep(report, store, None)
        gone = sum(len(problem.indices) for problem in report.problems)
        on_stage(
            f"{counted(gone, 'job')} of an earlier run missing or damaged in {store.url}: rendered again"
        )


def _there_already(plan: Plan, store: FolderStore) -> int:
    """Return how many jobs have their image in the folder before anything runs: of this sweep, or of another one."""
    if plan.layout != "images" or len(plan) > _LOOKED_FOR_MAX:
        return 0
    keys = (names.image_key(job.id, plan.image_format) for _, job in plan.jobs())
    return sum(store.head(key) is not None for key in keys)


def _submit(
    client: Printroom, worker: _LocalWorker, source: SweepSource, *, confirmed: bool, allow_failing: bool
) -> Submission:
    """Submit at once where this machine knows the model; else when the worker has said what it holds."""
    try:
        return client.submit(source, confirmed=confirmed, allow_failing=allow_failing)
    except ModelUnknown:
        worker.wait_until_up(client)
        return client.submit(source, confirmed=confirmed, allow_failing=allow_failing)


def _watch(
    client: Printroom,
    worker: _LocalWorker,
    sweep: str,
    on_status: Callable[[Overview], None],
    on_stage: Callable[[str], None],
) -> tuple[SweepStatus, bool]:
    """Follow a sweep to its end, or to the first Ctrl-C, which drains the worker."""
    standstill = _Standstill()

    def look(seen: Overview) -> None:
        worker.check()
        on_status(seen)
        # The one worker there is may have said it a moment before it knew better.
        if standstill.seconds(seen, time.monotonic()) > _HOPELESS_SECONDS:
            lasting = [obstacle for obstacle in seen.obstacles if obstacle.lasting]
            raise WorkerFailed(f"cannot be finished on this machine: {'; '.join(lasting)}")

    try:
        # Until it is up a status would only say that no worker is there. What is done already needs none.
        if client.ledger.status(sweep).state != "done":
            worker.wait_until_up(client)
        return client.wait(sweep, poll_seconds=_POLL_SECONDS, on_status=look), False
    except KeyboardInterrupt:
        on_stage("draining: the batch in hand is finished and kept (Ctrl-C again ends it now)")
        worker.drain()
        return client.status(sweep).status, True


class _Standstill:
    """For how long nothing has moved, while something stands in the way that only another worker could remove."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._finished = -1

    def seconds(self, seen: Overview, now: float) -> float:
        """Take in how things are; return the seconds that they have been so. A chunk in hand moves."""
        finished = seen.status.done + seen.status.failed
        moves = finished != self._finished or seen.status.chunks_running > 0
        self._finished = finished
        if moves or not any(obstacle.lasting for obstacle in seen.obstacles):
            self._since = None
            return 0.0
        self._since = now if self._since is None else self._since
        return now - self._since


class _LocalWorker:
    """One `python -m worker` of our own, in a session of its own so that Ctrl-C does not reach it."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        device: str,
        models: Sequence[Path],
        on_stage: Callable[[str], None],
    ) -> None:
        self._on_stage = on_stage
        self._log_path = folder / WORKER_LOG
        self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        self._command = [
            sys.executable,
            "-m",
            "worker",
            "--device",
            device,
            "--share-gpu",
            "--end-with-stdin",
            *(word for path in models for word in ("--also-model", str(path))),
        ]
        self._environment = {**os.environ, **_environment(settings)}

    def __enter__(self) -> _LocalWorker:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_until_up(self, client: Printroom) -> None:
        """Wait for its first heartbeat. Raises: WorkerFailed."""
        deadline = time.monotonic() + _WORKER_START_SECONDS
        while not client.ledger.workers():
            self.check()
            self._on_stage(_stage(self._new_log()))
            if time.monotonic() > deadline:
                raise WorkerFailed(
                    f"the worker is not up after {_WORKER_START_SECONDS} s; see {self._log_path}"
                )
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise WorkerFailed if it has ended."""
        status = self._process.poll()
        if status is not None:
            tail = "\n".join(self._new_log().splitlines()[-15:])
            raise WorkerFailed(
                f"the worker ended with status {status}; its last words ({self._log_path}):\n{tail}"
            )

    def _new_log(self) -> str:
        return self._log_path.read_bytes()[self._log_start :].decode(errors="replace")

    def drain(self) -> None:
        """Ask it to finish what it samples, and wait. A Ctrl-C meanwhile ends it at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self._process.kill()
            raise


def _stage(log: str) -> str:
    """Return what a worker that is not up yet is doing, by the last event of its log."""
    seen = [(log.rfind(event), words) for event, words in _STAGES.items() if event in log]
    return max(seen)[1] if seen else "starting a worker"


def _environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make the worker read the same settings, at a livelier beat."""
    values = {**settings.model_dump(), "redis_url": settings.redis_url.get_secret_value(), **_LIVELY}
    values["models"] = ":".join(str(path) for path in settings.models)
    values["hub_models"] = ",".join(settings.hub_models)
    return {f"PRINTROOM_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def _secret(url: str) -> object:
    from pydantic import SecretStr

    return SecretStr(url)
