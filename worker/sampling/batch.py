"""Requests to batches: which images share a UNet call. Pure; knows nothing of tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.sampling.request import SampleRequest
from worker.sampling.text import TokenizedText


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedJob:
    """A request that was checked and tokenized."""

    #: Position of the request in what `sample` was given.
    index: int
    request: SampleRequest
    prompt: TokenizedText
    #: The negative text; None where the image has no negative row, or one of zeros.
    negative: TokenizedText | None
    #: Chunks that both prompts are padded to.
    length: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What decides the memory of a row: height, width, chunks."""
        return (self.request.height, self.request.width, self.length)

    @property
    def loop(self) -> tuple[str, int, tuple[int, int, int]]:
        """What must be equal for jobs to share a sampling loop."""
        return (self.request.scheduler, self.request.steps, self.shape)


#: Jobs of one loop, guided ones first (see `guidance`).
Batch = tuple[PreparedJob, ...]


def make_batches(jobs: Iterable[PreparedJob], batch_rows: int) -> list[Batch]:
    """Group jobs that can share a loop and fill batches with them, in the order given.

    Args:
        jobs: to be sampled.
        batch_rows: UNet rows a batch may take. A guided job always gets its two, even alone.
    """
    groups: dict[object, list[PreparedJob]] = {}
    for job in jobs:
        groups.setdefault(job.loop, []).append(job)
    return [batch for group in groups.values() for batch in _fill(group, batch_rows)]


def batch_size_rows(batch: Batch) -> int:
    """Return the UNet rows a batch takes."""
    return sum(job.request.rows for job in batch)


def _fill(jobs: list[PreparedJob], batch_rows: int) -> list[Batch]:
    """Cut a group into batches of at most `batch_rows` rows, at least one job each."""
    batches: list[list[PreparedJob]] = []
    free = 0
    for job in jobs:
        if job.request.rows > free:
            batches.append([])
            free = max(batch_rows, job.request.rows)
        batches[-1].append(job)
        free -= job.request.rows
    return [tuple(sorted(batch, key=lambda job: not job.request.guided)) for batch in batches]
