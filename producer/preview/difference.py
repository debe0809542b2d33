"""Compares two plans by job id: what the newer one adds, keeps and drops. Exact, or refused.

Jobs of different models and sizes are different, so the plans are compared bucket by bucket: by the values on their
axes where both are plain products, else job by job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from producer.preview.count import block_ranges
from producer.preview.distinct import ValueProduct, block_boxes, shared_images
from producer.preview.overview import SampledJob, sampled
from producer.preview.spread import spread
from shared.errors import UsageError
from shared.plan import Block, Plan

#: Jobs of a bucket compared one by one, on either side: a minute or two, and 16 bytes each.
COMPARED_JOBS_MAX = 2_000_000

#: Values at each end of an axis, and evenly spread jobs, that are tried for an example of a job the other has not.
_TRIED_VALUES = 100_000
_TRIED_JOBS = 10_000

#: Jobs shown of those added, and of those dropped.
DIFFERENCE_EXAMPLES = 3

_Ids = npt.NDArray[np.bytes_]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDifference:
    """What a plan has and another had not. Images are counted: jobs that are the same image count once."""

    #: Id and name of the older plan.
    old: str
    old_name: str
    added: int
    kept: int
    dropped: int
    #: Some of the jobs that only the newer plan has, and some that only the older one has, each with its index there.
    added_jobs: tuple[SampledJob, ...]
    dropped_jobs: tuple[SampledJob, ...]
    #: The older plan's format where the newer one has another: no image is used again then.
    old_format: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain values for `json.dumps`."""
        plain = ("old", "old_name", "added", "kept", "dropped", "old_format")
        return {
            **{name: getattr(self, name) for name in plain},
            "added_jobs": [seen.to_json() for seen in self.added_jobs],
            "dropped_jobs": [seen.to_json() for seen in self.dropped_jobs],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What a plan has of one bucket."""

    plan: Plan
    #: With their plan indices, `start <= index < stop`.
    blocks: tuple[tuple[Block, int, int], ...]

    @property
    def jobs(self) -> int:
        return sum(stop - start for _, start, stop in self.blocks)

    def boxes(self) -> tuple[ValueProduct, ...] | None:
        """Return the images as products of sets, or None where they are none."""
        if len(self.blocks) > 1 or not all(self.plan.is_plain(block) for block, _, _ in self.blocks):
            return None
        return tuple(box for block, _, _ in self.blocks for box in block_boxes(self.plan, block))

    def ids(self) -> _Ids:
        """Return the id of every job, 16 bytes each, in the order of the plan."""
        indices = chain.from_iterable(range(start, stop) for _, start, stop in self.blocks)
        return np.frombuffer(
            b"".join(bytes.fromhex(self.plan.job(index).id) for index in indices), dtype="S16"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    added: int
    kept: int
    dropped: int
    added_jobs: tuple[SampledJob, ...]
    dropped_jobs: tuple[SampledJob, ...]


def compare_plans(old: Plan, new: Plan, *, examples: int = DIFFERENCE_EXAMPLES) -> PlanDifference:
    """Return what `new` adds to, keeps and drops of `old`.

    Raises: UsageError where a bucket can only be compared job by job and has too many of them.
    """
    before, after = _parts(old), _parts(new)
    compared = [
        _compare(
            before.get(bucket, _Part(plan=old, blocks=())),
            after.get(bucket, _Part(plan=new, blocks=())),
            examples,
        )
        for bucket in dict.fromkeys([*after, *before])
    ]
    return PlanDifference(
        old=old.id,
        old_name=old.name,
        added=sum(part.added for part in compared),
        kept=sum(part.kept for part in compared),
        dropped=sum(part.dropped for part in compared),
        added_jobs=tuple(islice(chain.from_iterable(part.added_jobs for part in compared), examples)),
        dropped_jobs=tuple(islice(chain.from_iterable(part.dropped_jobs for part in compared), examples)),
        old_format=str(old.image_format) if old.image_format != new.image_format else None,
    )


def _parts(plan: Plan) -> dict[tuple[str, int, int, str], _Part]:
    """Return what a plan has of each bucket, as far as ids know of buckets."""
    found: dict[tuple[str, int, int, str], list[tuple[Block, int, int]]] = {}
    for block, (start, stop) in zip(plan.blocks, block_ranges(plan), strict=True):
        bucket = block.bucket
        key = (bucket.model, bucket.width, bucket.height, plan.sampler)
        found.setdefault(key, []).append((block, start, stop))
    return {key: _Part(plan=plan, blocks=tuple(blocks)) for key, blocks in found.items()}


def _compare(old: _Part, new: _Part, examples: int) -> _Compared:
    before, after = old.boxes(), new.boxes()
    if before is not None and after is not None:
        kept = [shared_images(left, right) for left in before for right in after]
        known = [number for number in kept if number is not None]
        if len(known) == len(kept):
            return _compared_boxes(old, before, new, after, sum(known), examples)
    return _compared_ids(old, new, examples)


def _compared_boxes(
    old: _Part,
    before: tuple[ValueProduct, ...],
    new: _Part,
    after: tuple[ValueProduct, ...],
    kept: int,
    examples: int,
) -> _Compared:
    added, dropped = (sum(box.images for box in boxes) - kept for boxes in (after, before))
    return _Compared(
        added=added,
        kept=kept,
        dropped=dropped,
        added_jobs=tuple(_outside(new, before, min(examples, added))),
        dropped_jobs=tuple(_outside(old, after, min(examples, dropped))),
    )


def _compared_ids(old: _Part, new: _Part, examples: int) -> _Compared:
    for part in (old, new):
        if part.jobs > COMPARED_JOBS_MAX:
            raise UsageError(
                f"--diff: {part.plan.name!r} has {part.jobs:,} jobs of one model and size that only one by one can be"
                f" compared, and the most is {COMPARED_JOBS_MAX:,}: compare smaller sweeps, of fewer seeds for instance"
            )
    before, after = old.ids(), new.ids()
    both = np.intersect1d(before, after).size
    return _Compared(
        added=np.unique(after).size - both,
        kept=both,
        dropped=np.unique(before).size - both,
        added_jobs=tuple(_missing(new, after, before, examples)),
        dropped_jobs=tuple(_missing(old, before, after, examples)),
    )


def _missing(part: _Part, own: _Ids, others: _Ids, wanted: int) -> Iterator[SampledJob]:
    """Yield the first jobs of a part whose ids the other part has not."""
    indices = list(chain.from_iterable(range(start, stop) for _, start, stop in part.blocks))
    _, first = np.unique(own, return_index=True)
    places = first[~np.isin(own[first], others)]
    for place in np.sort(places)[:wanted]:
        yield sampled(part.plan, indices[place])


def _outside(part: _Part, boxes: Sequence[ValueProduct], wanted: int) -> Iterator[SampledJob]:
    """Yield some jobs of a part that no box holds, different ones."""
    seen: set[str] = set()
    for index in _candidates(part):
        if len(seen) >= wanted:
            return
        job = part.plan.job(index)
        if job.id not in seen and not any(box.holds(job) for box in boxes):
            seen.add(job.id)
            yield sampled(part.plan, index)


def _candidates(part: _Part) -> Iterator[int]:
    """Yield indices worth a try: each value of each axis beside the others' first, then evenly spread ones.

    Where axes are grouped alike in both plans, a job with a value that the other plan has not is outside for certain.
    """
    for block, start, stop in part.blocks:
        stride = 1
        for axis in (part.plan.axes[position] for position in reversed(block.axes)):
            for digit in _digits(axis.length):
                yield start + digit * stride
            stride *= axis.length
        yield from spread(start, stop, _TRIED_JOBS)


def _digits(length: int) -> Iterable[int]:
    low = min(length, _TRIED_VALUES)
    return chain(range(low), range(max(low, length - _TRIED_VALUES), length))
