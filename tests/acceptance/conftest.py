"""Real worker processes for the acceptance tests: started, killed, frozen and waited for by the test."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Printroom
from shared import names
from shared.manifest import read_manifest
from shared.metadata import read_image
from shared.result import Done
from shared.settings import Settings

#: Fast cadence, so that a dead worker's chunk is back in seconds. The defaults are six times slower.
FAST = {
    "PRINTROOM_VISIBILITY_TIMEOUT_SECONDS": "4",
    "PRINTROOM_RESTORE_INTERVAL_SECONDS": "1",
    "PRINTROOM_HEARTBEAT_SECONDS": "0.5",
    "PRINTROOM_FEED_INTERVAL_SECONDS": "0.25",
    "PRINTROOM_LOST_AFTER_SECONDS": "3",
    "PRINTROOM_STORE_PATIENCE_SECONDS": "1",
}

#: torch takes some seconds to import on a busy machine.
_UP_SECONDS = 90.0


#: What a worker imports for seconds, and no test patches.
_SLOW_IMPORTS = ["torch", "transformers", "diffusers", "diffusers.pipelines.stable_diffusion"]

_WORKER = """
import os
os.setsid()
os.environ.clear()
os.environ.update({environment!r})
log = os.open({log_path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.dup2(log, 1)
os.dup2(log, 2)
{patch}
import sys
from shared.command_exit import run_command
from worker.__main__ import main
sys.argv[1:] = ["--device", "cpu"]
sys.exit(run_command("printroom worker", main))
"""


@cache
def _nursery() -> Any:
    """Return what worker processes are forked from: a process that has torch imported, and nothing of ours."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_SLOW_IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # read once, when torch is imported
        forkserver.ensure_running()
    return context


class WorkerProcess:
    """A `python -m worker`, forked where torch is imported already: a start takes one second instead of six."""

    def __init__(self, environment: Mapping[str, str], log_path: Path, *, patch: str = "") -> None:
        self.log_path = log_path
        log_path.touch()
        code = _WORKER.format(environment={**os.environ, **environment}, log_path=str(log_path), patch=patch)
        self._process = _nursery().Process(target=exec, args=(code, {"__name__": "__main__"}), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        """Return its exit status, a signal's number below zero, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_seconds: float) -> int:
        """Wait until it ends; return its exit status."""
        self._process.join(timeout_seconds)
        assert self._process.exitcode is not None, f"still running\n{self.log[-3000:]}"
        return self._process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self.wait(10)

    def drain(self, timeout_seconds: float = 60.0) -> int:
        """Ask it to drain; return its exit status."""
        self._process.terminate()
        return self.wait(timeout_seconds)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(errors="replace")


class Fleet:
    """A Redis, a store, and the workers a test starts on them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**FAST, **environment}
        self.workers: list[WorkerProcess] = []
        settings = {
            k.removeprefix("PRINTROOM_").lower(): v for k, v in self.environment.items() if "PRINTROOM_" in k
        }
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.room = Printroom(self.settings)

    def start(self, *, patch: str = "", **environment: str) -> WorkerProcess:
        """Start a worker; variables may be given as keywords, and code to run in it before anything else."""
        log_path = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess({**self.environment, **environment}, log_path, patch=patch)
        self.workers.append(worker)
        return worker

    def wait_up(self, count: int = 1) -> None:
        """Wait until this many workers have announced themselves."""
        self.wait_for(lambda: len(self.room.ledger.workers()) >= count, _UP_SECONDS, f"{count} workers up")

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float, what: str) -> float:
        """Wait for a condition; return the seconds it took, or fail with the workers' logs."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > timeout_seconds:
                logs = "\n".join(f"--- {w.log_path.name}\n{w.log[-3000:]}" for w in self.workers)
                raise AssertionError(f"not within {timeout_seconds} s: {what}\n{logs}")
            time.sleep(0.05)
        return time.monotonic() - started

    def wait_done(self, sweep: str, timeout_seconds: float = 120.0) -> None:
        """Wait until a sweep is done."""
        self.wait_for(
            lambda: self.room.ledger.status(sweep).state == "done", timeout_seconds, f"{sweep} done"
        )

    def begun(self) -> Counter[str]:
        """Count how often each chunk was begun, by every worker so far."""
        found = [re.findall(r"chunk_begun sweep=(\w+) chunk=(\d+)", worker.log) for worker in self.workers]
        return Counter(f"{sweep}/{chunk}" for several in found for sweep, chunk in several)

    def end(self) -> None:
        """End every worker that is left."""
        for worker in self.workers:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.signal(signal.SIGCONT)
                worker.kill()


@pytest.fixture
def fleet(tmp_path, valkey_server, seaweed_server, key_prefix, monkeypatch) -> Iterator[Fleet]:
    """A fleet on the shared Valkey and SeaweedFS, with names of its own."""
    for name, value in seaweed_server.environment.items():
        monkeypatch.setenv(name, value)
    made = _make_fleet(
        tmp_path, valkey_server.url, f"s3://printroom-tests/{key_prefix}", key_prefix, seaweed_server
    )
    yield made
    made.end()


@pytest.fixture
def private_fleet(tmp_path, start_valkey, seaweed_server, key_prefix, monkeypatch) -> Iterator[Fleet]:
    """A fleet on a Valkey of its own (`fleet.valkey`), which the test may kill, freeze and wipe."""
    for name, value in seaweed_server.environment.items():
        monkeypatch.setenv(name, value)
    valkey = start_valkey("--appendfsync", "always")
    made = _make_fleet(tmp_path, valkey.url, f"s3://printroom-tests/{key_prefix}", key_prefix, seaweed_server)
    made.valkey = valkey  # type: ignore[attr-defined]
    yield made
    made.end()


@pytest.fixture
def make_fleet() -> Iterator[Callable[..., Fleet]]:
    """A function that returns a fleet on servers of the test's choice."""
    made: list[Fleet] = []

    def make(*args: object) -> Fleet:
        made.append(_make_fleet(*args))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def _make_fleet(folder: Path, redis_url: str, store: str, key_prefix: str, seaweed) -> Fleet:
    """Return a fleet on these servers."""
    environment = {
        "PRINTROOM_REDIS_URL": redis_url,
        "PRINTROOM_REDIS_PREFIX": f"{key_prefix}:",
        "PRINTROOM_STORE": store,
        "PRINTROOM_MODELS": str(folder / "models"),
        **(seaweed.environment if seaweed is not None else {}),
    }
    return Fleet(folder, environment)


@pytest.fixture
def check_promise() -> Callable[..., None]:
    """The checker: what must hold after every storm."""
    return _check_promise


def _check_promise(fleet: Fleet, sweep: str, *, extra: frozenset[str] = frozenset()) -> None:
    """Assert what must hold after every storm: each image exactly once, counters exact, manifests complete.

    Args:
        extra: ids of images that other sweeps put into the same store.
    """
    plan, store, ledger = fleet.room.plan(sweep), fleet.room.store, fleet.room.ledger
    ids = {job.id for _, job in plan.jobs()}
    rows = [
        row for info in store.list(names.manifest_prefix(sweep)) for row in read_manifest(store.get(info.key))
    ]
    assert [row.index for row in rows] == list(range(len(plan)))
    assert [row.job for row in rows] == [job for _, job in plan.jobs()]
    done = [row for row in rows if isinstance(row, Done)]
    named = {row.image.key for row in done}
    objects = {info.key for info in store.list("images/")} - {names.image_key(i) for i in extra}
    shards = {info.key for info in store.list(f"{names.sweep_prefix(sweep)}shards/")}
    if plan.layout == "images":
        assert (objects, shards) == (named, set())
        assert {names.image_key(i) for i in ids} >= named
    else:
        assert (objects, shards) == (set(), named)
    for row in done:
        place = row.image
        data = (
            store.get(place.key)
            if place.offset is None
            else store.get_range(place.key, place.offset, place.size_bytes)
        )
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row.image.size_bytes, row.image.sha256)
        assert read_image(data).job.id == row.job.id
        assert Image.open(io.BytesIO(data)).convert("RGB").size == (row.job.width, row.job.height)
    status, bits = ledger.status(sweep), ledger.bit_counts(sweep)
    assert (status.done, status.failed) == (len(done), len(rows) - len(done))
    assert bits == {"done": status.done, "failed": status.failed, "chunks": plan.chunks}
    assert (status.state, status.chunks_done, status.chunks_running, status.chunks_queued) == (
        "done",
        plan.chunks,
        0,
        0,
    )


@pytest.fixture
def fork_worker() -> Iterator[Callable[[Mapping[str, str], Path], WorkerProcess]]:
    """A function that forks a worker with an environment and a log; what is left of them is killed."""
    made: list[WorkerProcess] = []

    def fork(environment: Mapping[str, str], log_path: Path) -> WorkerProcess:
        made.append(WorkerProcess(environment, log_path))
        return made[-1]

    yield fork
    for worker in made:
        if worker.poll() is None:
            worker.kill()
