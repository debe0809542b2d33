"""Which buckets a worker takes: those it can render, and those whose model does not load here or anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from shared.job import SAMPLER_VERSION
from shared.ledger import WorkerInfo
from shared.model_reading import split_reading
from shared.plan import Bucket
from worker.context import WorkerContext


def can_serve(context: WorkerContext, bucket: Bucket, workers: Sequence[WorkerInfo]) -> bool:
    """Whether this worker can render a bucket, and encode what becomes of it.

    A model that did not load here is served as well while no live worker offers it: its jobs fail with the reason,
    instead of waiting for what nobody has.
    """
    encodes = not bucket.encoder or bucket.encoder in context.versions
    has = context.models.holds(bucket.model) or (
        split_reading(bucket.model)[0] in context.models.broken
        and not offered_elsewhere(context, bucket.model, workers)
    )
    return encodes and bucket.sampler == SAMPLER_VERSION and has


def offered_elsewhere(context: WorkerContext, model: str, workers: Sequence[WorkerInfo]) -> bool:
    """Whether another live worker says that it can load a model."""
    base, _ = split_reading(model)
    return any(base in worker.models for worker in workers if worker.name != context.name)
