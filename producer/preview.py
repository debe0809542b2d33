"""Turns a plan into what a person wants to know before submitting it. Renders nothing, expands nothing.

Counts come from the axes alone, so a sweep of ten million jobs is looked over as fast as one of ten.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from shared.job import Job
from shared.plan import Axis, Block, ListAxis, Plan, SeedRange

#: From here on a prompt takes several chunks of a text encoder (75 tokens, and a word is one or more).
LONG_PROMPT_WORDS = 75

#: Examples shown of one kind of warning.
_EXAMPLES = 3

#: Buckets listed on the terminal; `to_json` has them all.
_BUCKETS_SHOWN = 20

#: Jobs shown when nobody asks for more or fewer.
SAMPLE_JOBS = 5

#: "without a mustache" -> "mustache": up to three words, to the next stop or conjunction.
_NEGATION = re.compile(
    r"\b(?P<word>without|no|not|never)\s+(?:(?:any|a|an|the)\s+)?"
    r"(?P<what>(?!(?:and|or|but|with|in|on|at)\b)[^\W\d_][\w'-]*"
    r"(?:\s+(?!(?:and|or|but|with|in|on|at|of|that|which|who|is|are|has)\b)[^\W\d_][\w'-]*){0,2})",
    re.IGNORECASE,
)


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
class Preview:
    """A plan at a glance."""

    #: Sweep id.
    sweep: str
    name: str
    jobs: int
    #: Jobs that are the same image as another job of the sweep: rendered once.
    duplicates: int
    chunks: int
    #: Models that a single worker would load, one after the other.
    model_loads: int
    buckets: tuple[BucketPreview, ...]
    #: (fields that move together, how many values), over all blocks, outermost first; single values left out.
    axes: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...]
    #: The first jobs of the plan.
    first: tuple[Job, ...]

    @property
    def images(self) -> int:
        """Different images to make."""
        return self.jobs - self.duplicates

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain values for `json.dumps`."""
        document = {field: getattr(self, field) for field in _PLAIN_FIELDS}
        return {
            **document,
            "images": self.images,
            "buckets": [asdict(bucket) for bucket in self.buckets],
            "axes": [{"fields": fields.split(", "), "values": count} for fields, count in self.axes],
            "warnings": list(self.warnings),
            "first": [job._asdict() for job in self.first],
        }


_PLAIN_FIELDS = ("sweep", "name", "jobs", "duplicates", "chunks", "model_loads")


def preview(plan: Plan, *, sample: int = SAMPLE_JOBS) -> Preview:
    """Look a plan over.

    Args:
        sample: how many of the first jobs to show.
    """
    buckets = tuple(_buckets(plan))
    images = sum(_count_images(plan, block) for block in plan.blocks)
    return Preview(
        sweep=plan.id,
        name=plan.name,
        jobs=len(plan),
        duplicates=len(plan) - images,
        chunks=plan.chunks,
        model_loads=len({bucket.fingerprint for bucket in buckets}),
        buckets=buckets,
        axes=tuple((", ".join(axis.fields), len(axis)) for axis in _used_axes(plan) if len(axis) > 1),
        warnings=tuple(_warnings(plan)),
        first=tuple(plan.job(index) for index in range(min(sample, len(plan)))),
    )


def render_preview(preview: Preview, console: Console) -> None:
    """Print a preview for a person."""
    console.print(
        Panel(_summary(preview), title=_printable(preview.name), title_align="left", padding=(1, 2))
    )
    console.print(_bucket_table(preview))
    if preview.first:
        console.print(_job_table(preview))
    for warning in preview.warnings:
        console.print(Text("! ", style="bold yellow") + Text(_printable(warning)))


# Counting.


def _buckets(plan: Plan) -> Iterator[BucketPreview]:
    for block, (bucket, first, stop) in zip(plan.blocks, plan.chunk_runs(), strict=True):
        yield BucketPreview(
            model=plan.models.get(bucket.model, bucket.model),
            fingerprint=bucket.model,
            width=bucket.width,
            height=bucket.height,
            jobs=math.prod(len(plan.axes[position]) for position in block.axes),
            chunks=stop - first,
        )


def _count_images(plan: Plan, block: Block) -> int:
    """Count the different images of a block: blocks are different buckets, so they share none.

    Axes are independent, so the count is a product of the axes' distinct values; but for the guidance and the
    negative prompt, which are counted together: without guidance all negatives make one image.
    """
    axes = [plan.axes[position] for position in block.axes]
    guidance = next(axis for axis in axes if "guidance_scale" in axis.fields)
    negative = next(axis for axis in axes if "negative_prompt" in axis.fields)
    others = math.prod(
        _count_distinct(axis) for axis in axes if axis is not guidance and axis is not negative
    )
    return others * _count_guided_pairs(guidance, negative)


def _count_distinct(axis: Axis) -> int:
    return axis.count if isinstance(axis, SeedRange) else len(set(axis.values))


def _count_guided_pairs(guidance: Axis, negative: Axis) -> int:
    assert isinstance(guidance, ListAxis) and isinstance(negative, ListAxis)
    scale, text = guidance.fields.index("guidance_scale"), negative.fields.index("negative_prompt")
    if guidance is negative:
        return len({_drop(value, text) if value[scale] <= 1.0 else value for value in guidance.values})
    scales = set(guidance.values)
    unguided = sum(1 for value in scales if value[scale] <= 1.0)
    negatives = set(negative.values)
    without_text = {_drop(value, text) for value in negatives}
    return (len(scales) - unguided) * len(negatives) + unguided * len(without_text)


def _drop(value: tuple[Any, ...], position: int) -> tuple[Any, ...]:
    """Return a value with null for its negative prompt, as the job id has it without guidance."""
    return (*value[:position], None, *value[position + 1 :])


# Warnings.


def _warnings(plan: Plan) -> Iterator[str]:
    yield from _unused_negatives(plan)
    yield from _repeated_values(plan)
    prompts = list(dict.fromkeys(_values(plan, "prompt")))
    negatives = [text for text in dict.fromkeys(_values(plan, "negative_prompt")) if text is not None]
    yield from _negations(prompts)
    yield from _long_texts(prompts, "prompt")
    yield from _long_texts(negatives, "negative prompt")
    yield from _edge_spaces(prompts + negatives)


def _used_axes(plan: Plan) -> list[Axis]:
    positions = dict.fromkeys(position for block in plan.blocks for position in block.axes)
    return [plan.axes[position] for position in positions]


def _values(plan: Plan, field: str) -> Iterator[Any]:
    for axis in _used_axes(plan):
        if isinstance(axis, ListAxis) and field in axis.fields:
            position = axis.fields.index(field)
            yield from (value[position] for value in axis.values)


def _unused_negatives(plan: Plan) -> Iterator[str]:
    for block in plan.blocks:
        axes = [plan.axes[position] for position in block.axes]
        if any(_has_unused_negative(guidance, negative) for guidance in axes for negative in axes):
            yield (
                "guidance_scale 1 or less never uses the negative prompt: "
                "jobs that differ only in it are one image"
            )
            return


def _has_unused_negative(guidance: Axis, negative: Axis) -> bool:
    if "guidance_scale" not in guidance.fields or "negative_prompt" not in negative.fields:
        return False
    assert isinstance(guidance, ListAxis) and isinstance(negative, ListAxis)
    scale, text = guidance.fields.index("guidance_scale"), negative.fields.index("negative_prompt")
    if guidance is negative:
        return any(value[scale] <= 1.0 and value[text] is not None for value in guidance.values)
    unguided = any(value[scale] <= 1.0 for value in guidance.values)
    return unguided and any(value[text] is not None for value in negative.values)


def _repeated_values(plan: Plan) -> Iterator[str]:
    for axis in _used_axes(plan):
        if isinstance(axis, SeedRange) or len(set(axis.values)) == len(axis):
            continue
        repeated = {value: count for value, count in Counter(axis.values).items() if count > 1}
        shown = (f"{_value_text(axis, value)} stands {count} times" for value, count in repeated.items())
        yield f"{_examples(shown, len(repeated))}: the same images, rendered once"


def _value_text(axis: ListAxis, value: tuple[Any, ...]) -> str:
    if not axis.fields:
        return "the same case"
    pairs = zip(axis.fields, value, strict=True)
    return ", ".join(f"{field} {_quoted(part)}" for field, part in pairs)


def _negations(prompts: list[str]) -> Iterator[str]:
    found = [match for match in map(_NEGATION.search, prompts) if match]
    phrases = list(dict.fromkeys((_one_line(match[0]), _one_line(match["what"])) for match in found))
    for phrase, what in phrases[:_EXAMPLES]:
        yield f"a prompt that says '{phrase}' tends to draw it: say '{what}' in negative_prompt instead"
    if len(phrases) > _EXAMPLES:
        yield f"... in all {len(found):,} prompts say without, no, not or never"


def _long_texts(texts: list[str], kind: str) -> Iterator[str]:
    long = [
        text
        for text in texts
        if text.count(" ") >= LONG_PROMPT_WORDS and len(text.split()) > LONG_PROMPT_WORDS
    ]
    if long:
        plural = f"{len(long):,} {kind}s have" if len(long) > 1 else f"a {kind} has"
        shown = _quoted(long[0])
        yield (
            f"{plural} more than {LONG_PROMPT_WORDS} words ({shown}): "
            "encoded in several chunks, nothing is cut off"
        )


def _edge_spaces(texts: list[str]) -> Iterator[str]:
    spaced = [text for text in texts if text != text.strip()]
    if spaced:
        shown = _examples(map(_quoted, spaced), len(spaced))
        yield f"spaces at the edge of {shown}: kept, and part of the image's identity"


def _examples(shown: Iterable[str], count: int) -> str:
    few = [text for text, _ in zip(shown, range(_EXAMPLES), strict=False)]
    more = f" and {count - _EXAMPLES:,} more" if count > _EXAMPLES else ""
    return ", ".join(few) + more


def _quoted(value: Any) -> str:
    return f"'{_short(value)}'" if isinstance(value, str) else "null" if value is None else f"{value}"


def _one_line(text: str) -> str:
    return _short(" ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


# On the terminal.


def _summary(preview: Preview) -> Group:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("jobs", Text(f"{preview.jobs:,}", style="bold"))
    if preview.duplicates:
        facts.add_row(
            "images", Text(f"{preview.images:,} ({preview.duplicates:,} jobs are the same image as another)")
        )
    facts.add_row(
        "axes", Text(" x ".join(f"{count:,} {fields}" for fields, count in preview.axes) or "a single job")
    )
    facts.add_row("chunks", f"{preview.chunks:,}")
    facts.add_row("model loads", f"{preview.model_loads:,}")
    facts.add_row("sweep", Text(preview.sweep, style="cyan"))
    return Group(facts)


def _bucket_table(preview: Preview) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Buckets", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("size")
    table.add_column("jobs", justify="right")
    table.add_column("chunks", justify="right")
    for bucket in preview.buckets[:_BUCKETS_SHOWN]:
        size = f"{bucket.width}x{bucket.height}"
        table.add_row(Text(_printable(bucket.model)), size, f"{bucket.jobs:,}", f"{bucket.chunks:,}")
    if len(preview.buckets) > _BUCKETS_SHOWN:
        table.add_row(Text(f"... and {len(preview.buckets) - _BUCKETS_SHOWN:,} more", style="dim"))
    return table


def _job_table(preview: Preview) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="First jobs", title_justify="left", title_style="bold")
    table.add_column("#", justify="right", style="dim")
    table.add_column("prompt", ratio=3)
    table.add_column("negative prompt", ratio=2)
    table.add_column("seed", justify="right")
    table.add_column("guidance", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("scheduler")
    for number, job in enumerate(preview.first):
        negative = (
            Text("none", style="dim") if job.negative_prompt is None else Text(_cell(job.negative_prompt))
        )
        guidance = f"{job.guidance_scale:g}"
        row = (
            str(number),
            Text(_cell(job.prompt)),
            negative,
            str(job.seed),
            guidance,
            str(job.steps),
            job.scheduler,
        )
        table.add_row(*row)
    return table


def _cell(text: str) -> str:
    return _printable(_short(text)) or "''"


def _printable(text: str) -> str:
    """Return text without the characters that steer a terminal."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )
