"""Makes a preview of a plan: its size, its cost, possible mistakes, and a few of its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from producer.language.prompt_files.read import SourceFile
from producer.preview.count import BlockCount, count_blocks, seen_jobs
from producer.preview.estimate import TimeEstimate, estimate_times, storage_bytes
from producer.preview.failures import CertainFailure, certain_failures
from producer.preview.models import ModelRead, model_warnings, read_models
from producer.preview.rates import Rate
from producer.preview.texts import ModelTexts, TokenizerFound, count_texts
from producer.preview.warn import used_axes, warnings_of
from shared.images.format import ImageFormat
from shared.job import Job
from shared.ledger import WorkerInfo
from shared.model_facts import ModelFacts
from shared.plan import Plan

#: Jobs shown when nobody asks for more or fewer.
SAMPLE_JOBS = 5

#: Why there is no estimate of time where nothing else stood in the way.
UNMEASURED = "no image of these models and sizes was measured yet"


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketPreview:
    """One model at one size."""

    #: The model as the sweep names it.
    model: str
    #: What the model is.
    fingerprint: str
    width: int
    height: int
    jobs: int
    chunks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledJob:
    """A job that stands for others, and where it stands in the plan."""

    index: int
    job: Job
    #: What the sweep calls it (`Plan.labels`).
    labels: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain values, its index first and what it is called last."""
        return {"index": self.index, **self.job._asdict(), "labels": dict(self.labels)}


def sampled(plan: Plan, index: int) -> SampledJob:
    """Return the job at an index of a plan as one that stands for others."""
    return SampledJob(index=index, job=plan.job(index), labels=plan.labels(index))


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A plan at a glance."""

    #: Sweep id.
    sweep: str
    name: str
    jobs: int
    #: Jobs that are the same image as another job of the sweep: rendered once. None where there are too many jobs
    #: to tell.
    duplicates: int | None
    chunks: int
    #: Models that a single worker would load, one after the other.
    model_loads: int
    #: UNet rows that the costliest job takes at a step, at most: 1 without guidance, 2 with it, more with some rules.
    rows_max: int
    #: What every image becomes, and what all of them take in the store, about.
    format: ImageFormat
    storage_bytes: int
    #: How they lie there: `images` or `webdataset`.
    layout: str
    #: What each model's text encoders read.
    texts: tuple[ModelTexts, ...]
    #: How long it takes on devices that were measured; empty where none was.
    times: tuple[TimeEstimate, ...]
    #: Why there is no estimate; "" where there is one.
    time_unknown: str
    buckets: tuple[BucketPreview, ...]
    #: (fields that move together, how many values), over all blocks, outermost first; single values left out.
    axes: tuple[tuple[str, int], ...]
    #: Names of what jobs are called by, in `--where` and on sheets (`Plan.label_names`).
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    #: How each model is read, as far as that is known.
    readings: tuple[ModelRead, ...]
    #: Jobs that are certain to fail.
    failures: tuple[CertainFailure, ...]
    #: Files that the sweep's values came from, and how each was read.
    files: tuple[SourceFile, ...]
    #: Some jobs of the plan, in its order.
    sample: tuple[SampledJob, ...]

    @property
    def images(self) -> int | None:
        """Different images to make, as far as they are known."""
        return None if self.duplicates is None else self.jobs - self.duplicates

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain values for `json.dumps`."""
        document = {field: getattr(self, field) for field in _PLAIN_FIELDS}
        return {
            **document,
            "format": str(self.format),
            "images": self.images,
            "texts": [asdict(texts) for texts in self.texts],
            "times": [asdict(time) for time in self.times],
            "buckets": [asdict(bucket) for bucket in self.buckets],
            "axes": [{"fields": fields.split(", "), "values": count} for fields, count in self.axes],
            "labels": list(self.labels),
            "warnings": list(self.warnings),
            "models": [asdict(one) for one in self.readings],
            "certain_failures": [asdict(failure) for failure in self.failures],
            "files": [asdict(file) for file in self.files],
            "sample": [seen.to_json() for seen in self.sample],
        }


_PLAIN_FIELDS = (
    "sweep", "name", "jobs", "duplicates", "chunks", "model_loads", "rows_max", "storage_bytes", "layout",
    "time_unknown",
)  # fmt: skip


def preview(
    plan: Plan,
    *,
    sample: int = SAMPLE_JOBS,
    first: bool = False,
    tokenizers: Mapping[str, TokenizerFound] | None = None,
    rates: Sequence[Rate] = (),
    workers: Sequence[WorkerInfo] = (),
    facts: Mapping[str, ModelFacts] | None = None,
    time_unknown: str = UNMEASURED,
    files: Sequence[SourceFile] = (),
    notes: Sequence[str] = (),
) -> Preview:
    """Look a plan over.

    Args:
        sample: how many jobs to show.
        first: show the first ones, and not evenly spread ones.
        tokenizers: model fingerprint -> how the model reads texts; without it token counts are lower bounds.
        rates: how fast devices were.
        workers: those that are live.
        facts: model fingerprint -> what its files say.
        time_unknown: why there may be no rate.
        files: that the sweep's values came from.
        notes: what is to be said of them, before all other warnings.
    """
    counts = list(count_blocks(plan))
    images = [found.images for found in counts]
    texts = count_texts(counts, plan.models, tokenizers or {})
    times = estimate_times(plan, counts, rates, workers)
    known = [number for number in images if number is not None]
    return Preview(
        sweep=plan.id,
        name=plan.name,
        jobs=len(plan),
        duplicates=len(plan) - sum(known) if len(known) == len(images) else None,
        chunks=plan.chunks,
        model_loads=len({found.block.bucket.model for found in counts}),
        rows_max=max((found.rows_max for found in counts), default=0),
        format=plan.image_format,
        layout=plan.layout,
        storage_bytes=sum(storage_bytes(plan.image_format, found) for found in counts),
        texts=texts,
        times=times,
        time_unknown="" if times else time_unknown,
        buckets=tuple(_buckets(plan, counts)),
        axes=tuple((", ".join(axis.fields), axis.length) for axis in used_axes(plan) if axis.length > 1),
        labels=plan.label_names,
        warnings=(*notes, *warnings_of(plan, counts, texts), *model_warnings(plan, facts or {})),
        readings=read_models(plan, facts or {}),
        failures=certain_failures(plan, facts or {}),
        files=tuple(files),
        sample=tuple(sampled(plan, index) for index, _ in seen_jobs(plan, sample, first=first)),
    )


def _buckets(plan: Plan, counts: Sequence[BlockCount]) -> Iterator[BucketPreview]:
    for found, (bucket, first, stop) in zip(counts, plan.chunk_runs(), strict=True):
        yield BucketPreview(
            model=plan.models.get(bucket.model, bucket.model),
            fingerprint=bucket.model,
            width=bucket.width,
            height=bucket.height,
            jobs=found.jobs,
            chunks=stop - first,
        )
