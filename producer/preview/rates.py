"""Reads how fast devices were from manifests of finished sweeps and from kept benchmarks. Invents nothing.

The unit is a UNet row: one text's prediction at one step, with its share of decoding and all else. A job's time is its
rows times what a row took for the same model and size on the same device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from producer.preview.spread import spread
from shared import names
from shared.errors import ObjectMissing
from shared.guidance import read_rule
from shared.job import Job
from shared.manifest import read_columns
from shared.plan import Plan
from shared.store.base import Store

#: Sweeps looked at, and manifests of each model and size in a sweep: a few seconds of a slow store.
_SWEEPS_MAX = 20
_MANIFESTS_MAX = 4

#: Objects listed where only the store knows its sweeps.
_LISTED_MAX = 20_000

#: Samplers that call the model twice a step but the last, and one with four calls in each of its first three.
_TWO_CALLS = ("heun", "kdpm2", "dpm_sde_brownian", "flow_heun")
_PRK, _PRK_EXTRA_CALLS = "pndm_prk", 9

_COLUMNS = (
    "status",
    "sample_seconds",
    "device",
    "model",
    "width",
    "height",
    "steps",
    "scheduler",
    "guidance_scale",
    "guidance_rule",
)

#: (model fingerprint, width, height).
Place = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How fast a device drew one model at one size."""

    place: Place
    #: As manifests name it.
    device: str
    #: Of one UNet row.
    seconds: float
    #: Images that were measured, and where.
    images: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A figure of a benchmark whose results are kept in this repository."""

    #: Names of models whose networks cost what the measured one's cost.
    models: tuple[str, ...]
    width: int
    height: int
    device: str
    images: int
    #: Rows used for a job, of all calls of the run, and its seconds.
    rows: float
    seconds: float
    source: str


#: Only rows whose file is kept: a test compares each with it.
BENCHMARKS = (
    Benchmark(
        models=("portraits", "portraits-untrained"),
        width=64,
        height=64,
        device="cpu (x86_64)",
        images=200,
        rows=504 * 16 * 0.9542410714285714,
        seconds=23.30549389099906,
        source="benchmarks/results/engine.json, two cores",
    ),
)


def unet_rows(job: Job) -> float:
    """Return the UNet rows that a job takes over all its steps, about."""
    return model_calls(job.scheduler, job.steps) * guided_rows(job.guidance_scale, job.guidance_rule)


def model_calls(scheduler: str, steps: int) -> int:
    """Return how often a sampler calls the model."""
    if scheduler == _PRK:
        return steps + _PRK_EXTRA_CALLS
    return 2 * steps - 1 if scheduler.startswith(_TWO_CALLS) else steps


def guided_rows(guidance_scale: float, guidance_rule: str | None) -> float:
    """Return the rows of a step, on average over the steps: those outside a rule's interval take one."""
    if guidance_scale <= 1.0:
        return 1.0
    rule = read_rule(guidance_rule)
    start, stop = rule.interval
    return 1.0 + (stop - start) * (rule.rows - 1)


def benchmark_rates(models: Mapping[str, str]) -> list[Rate]:
    """Return what benchmarks say of models, given as fingerprint -> name."""
    return [
        Rate(
            place=(fingerprint, benchmark.width, benchmark.height),
            device=benchmark.device,
            seconds=benchmark.seconds / benchmark.rows,
            images=benchmark.images,
            source=benchmark.source,
        )
        for fingerprint, name in models.items()
        for benchmark in BENCHMARKS
        if name in benchmark.models
    ]


def past_rates(store: Store, sweeps: Iterable[str], places: Collection[Place]) -> list[Rate]:
    """Return how fast the sweeps of a store were, for some models and sizes, by device.

    Args:
        sweeps: ids, those to look at first in front; a few are looked at.

    Raises: StoreError.
    """
    seconds: dict[tuple[Place, str], float] = defaultdict(float)
    rows: dict[tuple[Place, str], float] = defaultdict(float)
    images: dict[tuple[Place, str], int] = defaultdict(int)
    for sweep in islice(sweeps, _SWEEPS_MAX):
        for row in _measured_rows(store, sweep, places):
            key = ((row["model"], row["width"], row["height"]), row["device"])
            rows[key] += row["unet_rows"]
            seconds[key] += row["sample_seconds"]
            images[key] += 1
    return [
        Rate(
            place=place,
            device=device,
            seconds=total / rows[place, device],
            images=images[place, device],
            source=f"manifests in {store.url}",
        )
        for (place, device), total in seconds.items()
    ]


def measured_sweeps(store: Store) -> list[str]:
    """Return sweeps that a store has plans of, as far as a short listing shows them. Raises: StoreError."""
    keys = (info.key for info in islice(store.list("sweeps/"), _LISTED_MAX))
    found = (key.split("/")[1] for key in keys)
    return list(dict.fromkeys(found))


def _measured_rows(store: Store, sweep: str, places: Collection[Place]) -> Iterator[dict[str, Any]]:
    """Yield rows of a few manifests of a sweep: images of these models and sizes that were made, with their time."""
    try:
        plan = Plan.from_bytes(store.get(names.plan_key(sweep)))
    except (ObjectMissing, ValueError):  # gone, or of another version: it says nothing
        return
    for bucket, first, stop in plan.chunk_runs():
        if (bucket.model, bucket.width, bucket.height) not in places:
            continue
        for chunk in spread(first, stop, _MANIFESTS_MAX):
            yield from _done_rows(store, names.manifest_key(sweep, chunk))


def _done_rows(store: Store, key: str) -> Iterator[dict[str, Any]]:
    try:
        rows = read_columns(store.get(key), _COLUMNS).to_pylist()
    except (ObjectMissing, ValueError):  # not done yet, or damaged
        return
    for row in rows:
        if row["status"] != "done" or not row["sample_seconds"]:
            continue
        try:
            width = guided_rows(row["guidance_scale"], row["guidance_rule"])
        except ValueError:  # a rule of another version
            continue
        yield {**row, "unet_rows": width * model_calls(row["scheduler"], row["steps"])}
