"""Real worker processes for the acceptance tests: started, killed, frozen and waited for by the test."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from testing.random_weights import create_random_model

#: Fast cadence, so that a dead worker's chunk is back in seconds. The defaults are six times slower.
FAST = {
    "PRINTROOM_VISIBILITY_TIMEOUT_SECONDS": "4",
    "PRINTROOM_RESTORE_INTERVAL_SECONDS": "1",
    "PRINTROOM_HEARTBEAT_SECONDS": "0.5",
    "PRINTROOM_FEED_INTERVAL_SECONDS": "0.25",
    "PRINTROOM_LOST_AFTER_SECONDS": "3",
    "PRINTROOM_STORE_PATIENCE_SECONDS": "1",
}

#: A busy machine takes a while to import torch once, and to start a worker.
_UP_SECONDS = 90.0


#: What takes seconds to import, and has no state of a test's: torch, diffusers, Celery and the rest, through ours.
_SLOW_IMPORTS = ["worker.app", "producer.client", "producer.progress", "producer.local.render"]

ROOT = Path(__file__).resolve().parents[2]
_FORKED = str(ROOT / "tests" / "acceptance" / "forked.py")


@cache
def _nursery() -> Any:
    """Return what processes are forked from: one that has all libraries imported, and nothing of ours in use."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_SLOW_IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # read once, when torch is imported
        patch.setenv("PYTHONPATH", str(ROOT))  # the fork server itself is not told where pytest finds modules
        forkserver.ensure_running()
    return context


class ForkedProcess:
    """A program of ours, forked where the libraries are imported already: a start takes a tenth of a fresh one."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: Path,
        stderr: Path,
        folder: Path = ROOT,
        patch: str = "",
    ) -> None:
        start = {
            "program": program,
            "arguments": list(arguments),
            "environment": {**os.environ, **environment},
            "folder": str(folder),
            "stdout": str(stdout),
            "stderr": str(stderr),
            "patch": patch,
        }
        self._stderr = stderr
        for path in (stdout, stderr):
            path.touch()
        options = {"init_globals": {"START": start}, "run_name": "__main__"}
        self._process = _nursery().Process(
            target=runpy.run_path, args=(_FORKED,), kwargs=options, daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's id, which is that of its group as well."""
        return int(self._process.pid)

    def poll(self) -> int | None:
        """Return its exit status, a signal's number below zero, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_seconds: float) -> int:
        """Wait until it ends; return its exit status."""
        self._process.join(timeout_seconds)
        assert self._process.exitcode is not None, f"still running\n{self.said[-3000:]}"
        return self._process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self.wait(10)

    def drain(self, timeout_seconds: float = 60.0) -> int:
        """Ask it to drain; return its exit status."""
        self._process.terminate()
        return self.wait(timeout_seconds)

    @property
    def said(self) -> str:
        """What it has written to its stderr so far."""
        return self._stderr.read_text(errors="replace")


class WorkerProcess(ForkedProcess):
    """A `python -m worker` on the CPU."""

    def __init__(self, environment: Mapping[str, str], log_path: Path, *, patch: str = "") -> None:
        self.log_path = log_path
        super().__init__(
            "worker", ["--device", "cpu"], environment, stdout=log_path, stderr=log_path, patch=patch
        )

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.said


class CommandProcess(ForkedProcess):
    """A `printroom` with its arguments: the command line."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, *, patch: str
    ) -> None:
        self._stdout = folder / "stdout"
        super().__init__(
            "command line",
            arguments,
            environment,
            stdout=self._stdout,
            stderr=folder / "stderr",
            patch=patch,
        )
        self._arguments = arguments

    def finish(self, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
        """Wait until it ends; return its exit status and what it printed where."""
        status = self.wait(timeout_seconds)
        return subprocess.CompletedProcess(self._arguments, status, self._stdout.read_text(), self.said)


_SLOW = """
import time
from worker.sampling.rows.batch import RowBatch
plain_step = RowBatch.step
def slow_step(batch):
    time.sleep({seconds})
    return plain_step(batch)
RowBatch.step = slow_step
"""


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
        self.client = Printroom(self.settings)

    def start(self, *, patch: str = "", slow: float = 0.0, **environment: str) -> WorkerProcess:
        """Start a worker; variables may be given as keywords, and code to run in it before anything else.

        A slow one takes so many seconds more a step, none of it from the processor: what happens midway does.
        """
        log_path = self.folder / f"worker-{len(self.workers)}.log"
        patch = (_SLOW.format(seconds=slow) if slow else "") + patch
        worker = WorkerProcess({**self.environment, **environment}, log_path, patch=patch)
        self.workers.append(worker)
        return worker

    def wait_up(self, count: int = 1) -> None:
        """Wait until this many workers have announced themselves."""
        self.wait_for(lambda: len(self.client.ledger.workers()) >= count, _UP_SECONDS, f"{count} workers up")

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
            lambda: self.client.ledger.status(sweep).state == "done", timeout_seconds, f"{sweep} done"
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


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A folder of models whose only one, `tiny`, renders noise at a tenth of the bundled model's cost."""
    folder = tmp_path_factory.mktemp("models")
    create_random_model(folder / "tiny", family="sd1")
    return folder


@pytest.fixture
def fleet(tmp_path, valkey_server, seaweed_server, key_prefix, monkeypatch, tiny_models) -> Iterator[Fleet]:
    """A fleet on the shared Valkey and SeaweedFS, with names of its own."""
    for name, value in seaweed_server.environment.items():
        monkeypatch.setenv(name, value)
    made = _make_fleet(
        tmp_path,
        valkey_server.url,
        f"s3://printroom-tests/{key_prefix}",
        key_prefix,
        seaweed_server,
        tiny_models,
    )
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory, valkey_server, seaweed_server, tiny_models) -> Iterator[Fleet]:
    """A fleet with one worker, for the tests of a module that break nothing."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed_server.environment.items():
            patch.setenv(name, value)
        made = _make_fleet(
            tmp_path_factory.mktemp("fleet"),
            valkey_server.url,
            f"s3://printroom-tests/{prefix}",
            prefix,
            seaweed_server,
            tiny_models,
        )
        made.start()
        yield made
        made.end()


@pytest.fixture
def private_fleet(
    tmp_path, start_valkey, seaweed_server, key_prefix, monkeypatch, tiny_models
) -> Iterator[Fleet]:
    """A fleet on a Valkey of its own (`fleet.valkey`), which the test may kill, freeze and wipe."""
    for name, value in seaweed_server.environment.items():
        monkeypatch.setenv(name, value)
    valkey = start_valkey("--appendfsync", "always")
    made = _make_fleet(
        tmp_path,
        valkey.url,
        f"s3://printroom-tests/{key_prefix}",
        key_prefix,
        seaweed_server,
        tiny_models,
    )
    made.valkey = valkey  # type: ignore[attr-defined]
    yield made
    made.end()


@pytest.fixture
def make_fleet(tiny_models) -> Iterator[Callable[..., Fleet]]:
    """A function that returns a fleet on servers of the test's choice."""
    made: list[Fleet] = []

    def make(*args: object) -> Fleet:
        made.append(_make_fleet(*args, tiny_models))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def _make_fleet(folder: Path, redis_url: str, store: str, key_prefix: str, seaweed, models: Path) -> Fleet:
    """Return a fleet on these servers, with models of its own and the shared ones."""
    environment = {
        "PRINTROOM_REDIS_URL": redis_url,
        "PRINTROOM_REDIS_PREFIX": f"{key_prefix}:",
        "PRINTROOM_STORE": store,
        "PRINTROOM_MODELS": f"{folder / 'models'}:{models}",
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
    plan, store, ledger = fleet.client.plan(sweep), fleet.client.store, fleet.client.ledger
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


@pytest.fixture
def start_command(tmp_path_factory) -> Iterator[Callable[..., CommandProcess]]:
    """A function that starts `printroom` with some arguments; what is left of it at the end is killed.

    The worker of a slow local run is as slow as those of a fleet.
    """
    made: list[CommandProcess] = []

    def start(
        *arguments: str, environment: Mapping[str, str] | None = None, slow: float = 0.0
    ) -> CommandProcess:
        folder, patch = tmp_path_factory.mktemp("command"), _SLOW.format(seconds=slow) if slow else ""
        made.append(CommandProcess(arguments, environment or {}, folder, patch=patch))
        return made[-1]

    yield start
    for command in made:
        if command.poll() is None:
            command.kill()


@pytest.fixture
def printroom(start_command) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `printroom` with some arguments to its end."""

    def run(
        *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return start_command(*arguments, environment=environment).finish(150)

    return run
