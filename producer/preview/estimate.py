"""Estimates bytes and hours of a plan from measurements. What nobody measured is unknown, never invented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from producer.preview.count import BlockCount
from producer.preview.rates import Rate, unet_rows
from producer.preview.spread import spread
from shared.images.format import ImageFormat
from shared.ledger import WorkerInfo
from shared.model_reading import split_reading
from shared.plan import Plan

#: Bytes a pixel of photographs without loss, and by quality (`benchmarks/encoders.py`; half or twice as many for some).
_BYTES_LOSSLESS = {"png": 1.8, "webp": 1.5, "jxl": 1.4}
_BYTES_LOSSY = {
    "webp": ((1, 50, 75, 90, 95, 100), (0.03, 0.10, 0.13, 0.22, 0.33, 0.60)),
    "jpeg": ((1, 50, 75, 90, 95, 100), (0.035, 0.14, 0.21, 0.35, 0.50, 1.40)),
}

#: The texts in each file.
_BYTES_TEXTS = 2_000

#: Evenly spread jobs whose work stands for that of all.
_WORK_JOBS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """How long one device takes for a plan, or for the part of it that was measured there."""

    #: As manifests name it: "NVIDIA H100 80GB HBM3", "cpu (x86_64)".
    device: str
    #: Of one such device, without loading models.
    seconds: float
    #: Images of the plan that it covers; the others' model or size was not measured on the device.
    images: int
    #: Where the figures are from, and how many images were measured.
    sources: tuple[str, ...]
    measured: int
    #: Live workers on such a device that hold one of the models.
    workers: int


def storage_bytes(image_format: ImageFormat, found: BlockCount) -> int:
    """Return what the images of a block take in the store, about; of an unknown number of images, at most."""
    kind, quality = image_format.kind, image_format.quality
    per_pixel = _BYTES_LOSSLESS[kind] if quality is None else np.interp(quality, *_BYTES_LOSSY[kind])
    bucket = found.block.bucket
    images = found.jobs if found.images is None else found.images
    return images * (_BYTES_TEXTS + int(bucket.width * bucket.height * per_pixel))


def estimate_times(
    plan: Plan, counts: Sequence[BlockCount], rates: Iterable[Rate], workers: Sequence[WorkerInfo]
) -> tuple[TimeEstimate, ...]:
    """Return an estimate for each device that has drawn one of the plan's models at its size, the fastest first."""
    devices: dict[str, dict[tuple[str, int, int], Rate]] = {}
    for rate in rates:
        known = devices.setdefault(rate.device, {})
        best = known.get(rate.place)
        known[rate.place] = rate if best is None or rate.images > best.images else best
    wanted = max(1, _WORK_JOBS // max(1, len(counts)))
    work = {found.start: _block_work(plan, found, wanted) for found in counts}
    estimates = map(partial(_device_estimate, counts, work, workers), devices.items())
    return tuple(sorted((e for e in estimates if e.images), key=lambda e: e.seconds / e.images))


def _device_estimate(
    counts: Sequence[BlockCount],
    work: Mapping[int, float],
    workers: Sequence[WorkerInfo],
    found: tuple[str, Mapping[tuple[str, int, int], Rate]],
) -> TimeEstimate:
    device, rates = found
    covered = [count for count in counts if _place(count) in rates]
    used = dict.fromkeys(rates[_place(count)] for count in covered)
    models = {split_reading(count.block.bucket.model)[0] for count in covered}
    return TimeEstimate(
        device=device,
        seconds=sum(work[count.start] * rates[_place(count)].seconds for count in covered),
        images=sum(count.jobs if count.images is None else count.images for count in covered),
        sources=tuple(dict.fromkeys(rate.source for rate in used)),
        measured=sum(rate.images for rate in used),
        workers=sum(w.device == device and not models.isdisjoint(w.models) for w in workers),
    )


def _place(found: BlockCount) -> tuple[str, int, int]:
    bucket = found.block.bucket
    return (bucket.model, bucket.width, bucket.height)


def _block_work(plan: Plan, found: BlockCount, wanted: int) -> float:
    """Return the UNet rows that the images of a block take, by some of its jobs."""
    jobs = [plan.job(index) for index in spread(found.start, found.stop, wanted)]
    images = found.jobs if found.images is None else found.images
    return images * sum(map(unet_rows, jobs)) / len(jobs)
