"""Counts a plan's jobs, images and texts block by block: from its axes, or else job by job, up to a bound.

Knows nothing of tokens, bytes or seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.preview.distinct import ValueProduct, block_boxes
from producer.preview.spread import spread
from shared.guidance import read_rule
from shared.job import Job
from shared.plan import Block, ListAxis, Plan

#: Jobs of a plan gone through one by one where axes do not say how many images they make: a few seconds.
COUNTED_MAX = 100_000

#: Jobs looked at, evenly spread, where there are more.
SPREAD_JOBS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockCount:
    """What a block comes to."""

    block: Block
    #: Plan indices `start <= index < stop`.
    start: int
    stop: int
    #: Different images; None where there are too many jobs to go through.
    images: int | None
    #: UNet rows that the costliest job takes at a step, at most.
    rows_max: int
    prompts: frozenset[str]
    #: Negative texts of guided jobs, those of their rules among them.
    negatives: frozenset[str]
    #: Whether some guided job has no negative prompt, and whether some rule predicts the empty prompt.
    without_negative: bool
    needs_empty: bool
    #: Jobs that the texts were read off; None for all.
    looked_at: int | None

    @property
    def jobs(self) -> int:
        """Jobs of the block."""
        return self.stop - self.start


def count_blocks(plan: Plan) -> Iterator[BlockCount]:
    """Count each block of a plan."""
    blocks = list(zip(plan.blocks, block_ranges(plan), strict=True))
    lengths = [stop - start for block, (start, stop) in blocks if not plan.is_plain(block)]
    few = sum(lengths) <= COUNTED_MAX
    for block, (start, stop) in blocks:
        if plan.is_plain(block):
            yield _count_boxes(block, start, stop, block_boxes(plan, block))
        else:
            wanted = stop - start if few else max(1, SPREAD_JOBS // len(lengths))
            yield _count_jobs(plan, block, start, stop, spread(start, stop, wanted))


def block_ranges(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield the plan indices of each block, as (start, stop)."""
    for _, first, stop in plan.chunk_runs():
        yield plan.chunk(first).start, plan.chunk(stop - 1).stop


def _count_boxes(block: Block, start: int, stop: int, boxes: tuple[ValueProduct, ...]) -> BlockCount:
    prompts = frozenset(prompt for box in boxes for prompt in box.values("prompt"))
    guided = [box for box in boxes if any(scale > 1.0 for scale in box.values("guidance_scale"))]
    negatives = {negative for box in guided for negative in box.values("negative_prompt")}
    rules = {rule for box in guided for rule in box.values("guidance_rule")}
    return _block_count(
        block, start, stop, sum(box.images for box in boxes), prompts, negatives, rules, looked_at=None
    )


def _count_jobs(plan: Plan, block: Block, start: int, stop: int, indices: Sequence[int]) -> BlockCount:
    jobs = [plan.job(index) for index in indices]
    whole = len(jobs) == stop - start
    guided = [job for job in jobs if job.guided]
    return _block_count(
        block,
        start,
        stop,
        len({job.id for job in jobs}) if whole else None,
        frozenset(job.prompt for job in jobs),
        {job.negative_prompt for job in guided},
        {job.guidance_rule for job in guided} | (set() if whole else _rules(plan, block)),
        looked_at=None if whole else len(jobs),
    )


def _rules(plan: Plan, block: Block) -> set[str | None]:
    """Return every guidance rule on a block's axes, so that no costly one is overlooked."""
    axes = [axis for axis in (plan.axes[position] for position in block.axes) if isinstance(axis, ListAxis)]
    holders = [axis for axis in axes if "guidance_rule" in axis.fields]
    return {value[axis.fields.index("guidance_rule")] for axis in holders for value in axis.values}


def _block_count(
    block: Block,
    start: int,
    stop: int,
    images: int | None,
    prompts: frozenset[str],
    negatives: set[str | None],
    rules: set[str | None],
    *,
    looked_at: int | None,
) -> BlockCount:
    read = [read_rule(rule) for rule in rules]
    pushed = {negative.text for rule in read for negative in rule.negatives}
    return BlockCount(
        block=block,
        start=start,
        stop=stop,
        images=images,
        rows_max=max((rule.rows for rule in read), default=1),
        prompts=prompts,
        negatives=frozenset({text for text in negatives if text is not None} | pushed),
        without_negative=None in negatives,
        needs_empty=any(rule.needs_empty or rule.negative_interval != (0.0, 1.0) for rule in read),
        looked_at=looked_at,
    )


def seen_jobs(plan: Plan, wanted: int, *, first: bool) -> list[tuple[int, Job]]:
    """Return some jobs to show, with their indices: the first ones, or evenly spread ones."""
    indices = range(min(wanted, len(plan))) if first else spread(0, len(plan), wanted)
    return [(index, plan.job(index)) for index in indices]
