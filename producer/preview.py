"""Turns a plan into what a person wants to know before submitting it. Renders nothing, expands nothing.

Counts come from the axes alone, so a sweep of ten million jobs is looked over as fast as one of ten.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.filesize import decimal
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from shared.guidance import read_rule, rule_label
from shared.images.format import PNG, ImageFormat
from shared.job import Job
from shared.plan import Axis, Block, ListAxis, Plan, SeedRange

#: From here on a prompt takes several chunks of a text encoder (75 tokens, and a word is one or more).
LONG_PROMPT_WORDS = 75

#: Examples shown of one kind of warning.
_EXAMPLES = 3

#: Buckets listed on the terminal; `to_json` has them all.
_BUCKETS_SHOWN = 20

#: UNet rows of a guided job without a rule: the prompt and the negative prompt.
_PLAIN_ROWS = 2

#: Bytes a pixel of photographs without loss, and by quality (`benchmarks/encoders.py`; half or twice as many for some).
_BYTES_LOSSLESS = {"png": 1.8, "webp": 1.5, "jxl": 1.4}
_BYTES_LOSSY = {
    "webp": ((1, 50, 75, 90, 95, 100), (0.03, 0.10, 0.13, 0.22, 0.33, 0.60)),
    "jpeg": ((1, 50, 75, 90, 95, 100), (0.035, 0.14, 0.21, 0.35, 0.50, 1.40)),
}

#: The texts in each file.
_BYTES_TEXTS = 2_000

#: Jobs shown when nobody asks for more or fewer.
SAMPLE_JOBS = 5

#: Fields that only guidance reads, and what messages call them.
_GUIDED_FIELDS = {"negative_prompt": "the negative prompt", "guidance_rule": "the guidance rule"}

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
    #: UNet rows that the costliest job takes at a step, at most: 1 without guidance, 2 with it, more with some rules.
    rows_max: int
    #: What every image becomes, and what all of them take in the store, about.
    format: ImageFormat
    storage_bytes: int
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
            "format": str(self.format),
            "images": self.images,
            "buckets": [asdict(bucket) for bucket in self.buckets],
            "axes": [{"fields": fields.split(", "), "values": count} for fields, count in self.axes],
            "warnings": list(self.warnings),
            "first": [job._asdict() for job in self.first],
        }


_PLAIN_FIELDS = ("sweep", "name", "jobs", "duplicates", "chunks", "model_loads", "rows_max", "storage_bytes")


def preview(plan: Plan, *, sample: int = SAMPLE_JOBS) -> Preview:
    """Look a plan over.

    Args:
        sample: how many of the first jobs to show.
    """
    buckets = tuple(_buckets(plan))
    counts = [_count_images(plan, block) for block in plan.blocks]
    images = sum(counts)
    return Preview(
        sweep=plan.id,
        name=plan.name,
        jobs=len(plan),
        duplicates=len(plan) - images,
        chunks=plan.chunks,
        model_loads=len({bucket.fingerprint for bucket in buckets}),
        rows_max=max((_rows_max(plan, block) for block in plan.blocks), default=0),
        format=plan.image_format,
        storage_bytes=sum(map(partial(_storage_bytes, plan), plan.blocks, counts)),
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

    Axes are independent, so the count is a product of the axes' distinct values: one product for the scales that
    guide, and one for those that do not, where all negatives and all rules make one image.
    """
    scales, others = _split_by_guidance(plan, block)
    position = scales.fields.index("guidance_scale")
    guided = {value for value in scales.values if value[position] > 1.0}
    unguided = {_used_part(scales, value) for value in scales.values if value[position] <= 1.0}
    images = len(guided) * math.prod(map(_count_distinct, others))
    if unguided:
        images += len(unguided) * math.prod(map(_count_used, others))
    return images


def _storage_bytes(plan: Plan, block: Block, images: int) -> int:
    """Return what the images of a block take in the store, about."""
    kind, quality = plan.image_format.kind, plan.image_format.quality
    per_pixel = _BYTES_LOSSLESS[kind] if quality is None else np.interp(quality, *_BYTES_LOSSY[kind])
    return images * (_BYTES_TEXTS + int(block.bucket.width * block.bucket.height * per_pixel))


def _split_by_guidance(plan: Plan, block: Block) -> tuple[ListAxis, list[Axis]]:
    """Return the axis that has the guidance scale, and the others."""
    axes = [plan.axes[position] for position in block.axes]
    scales = next(axis for axis in axes if "guidance_scale" in axis.fields)
    assert isinstance(scales, ListAxis)
    return scales, [axis for axis in axes if axis is not scales]


def _count_distinct(axis: Axis) -> int:
    return axis.count if isinstance(axis, SeedRange) else len(set(axis.values))


def _count_used(axis: Axis) -> int:
    """Count an axis' distinct values as far as a job without guidance uses them."""
    if isinstance(axis, SeedRange):
        return axis.count
    return len({_used_part(axis, value) for value in axis.values})


def _used_part(axis: ListAxis, value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a value with null for what only guidance reads, as the job id has it without guidance."""
    return tuple(
        None if field in _GUIDED_FIELDS else part for field, part in zip(axis.fields, value, strict=True)
    )


def _rows_max(plan: Plan, block: Block) -> int:
    """Return the UNet rows that the costliest job of a block takes at a step, at most."""
    scales, others = _split_by_guidance(plan, block)
    position = scales.fields.index("guidance_scale")
    guided = [value for value in scales.values if value[position] > 1.0]
    if not guided:
        return 1
    holder = next((axis for axis in (scales, *others) if "guidance_rule" in axis.fields), None)
    if not isinstance(holder, ListAxis):
        return _PLAIN_ROWS
    position = holder.fields.index("guidance_rule")
    rules = {value[position] for value in (guided if holder is scales else holder.values)}
    return max(read_rule(rule).rows for rule in rules)


# Warnings.


def _warnings(plan: Plan) -> Iterator[str]:
    if encoder := plan.image_format.encoder:
        yield f"format {plan.image_format} waits for workers that have it: pip install 'printroom[{encoder}]' there"
    yield from _unguided(plan)
    yield from _repeated_values(plan)
    prompts = list(dict.fromkeys(_values(plan, "prompt")))
    rules = [read_rule(rule) for rule in dict.fromkeys(_values(plan, "guidance_rule"))]
    weighted = [negative.text for rule in rules for negative in rule.negatives]
    negatives = [
        text for text in dict.fromkeys([*_values(plan, "negative_prompt"), *weighted]) if text is not None
    ]
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


def _unguided(plan: Plan) -> Iterator[str]:
    unused = [
        field for field in _GUIDED_FIELDS if any(_is_unused(plan, block, field) for block in plan.blocks)
    ]
    if unused:
        what = " or ".join(_GUIDED_FIELDS[field] for field in unused)
        them = "it" if len(unused) == 1 else "them"
        yield f"guidance_scale 1 or less never uses {what}: jobs that differ only in {them} are one image"


def _is_unused(plan: Plan, block: Block, field: str) -> bool:
    """Return whether some job has the field and no guidance that would read it."""
    scales, others = _split_by_guidance(plan, block)
    position = scales.fields.index("guidance_scale")
    unguided = [value for value in scales.values if value[position] <= 1.0]
    if field in scales.fields:
        return any(value[scales.fields.index(field)] is not None for value in unguided)
    axis = next((axis for axis in others if field in axis.fields), None)
    if not unguided or not isinstance(axis, ListAxis):
        return False
    return any(value[axis.fields.index(field)] is not None for value in axis.values)


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
    return ", ".join(
        f"{field} {rule_label(part) if field == 'guidance_rule' else _quoted(part)}" for field, part in pairs
    )


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
    if preview.rows_max > _PLAIN_ROWS:
        said = (
            f"up to {preview.rows_max} a job at each step: some guidance rules predict more than two prompts"
        )
        facts.add_row("UNet rows", said)
    storage = f"about {decimal(preview.storage_bytes)} in the store"
    facts.add_row("files", storage if preview.format == PNG else f"{preview.format}, {storage}")
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
    with_rules = any(job.guidance_rule is not None for job in preview.first)
    if with_rules:
        table.add_column("rule", ratio=1)
    table.add_column("steps", justify="right")
    table.add_column("scheduler")
    for number, job in enumerate(preview.first):
        negative = (
            Text("none", style="dim") if job.negative_prompt is None else Text(_cell(job.negative_prompt))
        )
        rule = [Text(_cell(rule_label(job.guidance_rule)))] if with_rules else []
        guidance = f"{job.guidance_scale:g}"
        texts = (str(number), Text(_cell(job.prompt)), negative, str(job.seed), guidance)
        table.add_row(*texts, *rule, str(job.steps), job.scheduler)
    return table


def _cell(text: str) -> str:
    return _printable(_short(text)) or "''"


def _printable(text: str) -> str:
    """Return text without the characters that steer a terminal."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )
