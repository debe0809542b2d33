"""Prints a preview, or a difference, for a person. Counts nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group
from rich.filesize import decimal
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from producer.language.prompt_files.read import SourceFile
from producer.preview.difference import PlanDifference
from producer.preview.estimate import TimeEstimate
from producer.preview.failures import say_failure
from producer.preview.models import ModelRead
from producer.preview.overview import Preview, SampledJob
from producer.preview.text_costs import ModelTexts
from producer.progress import duration
from shared.guidance import rule_label
from shared.images.format import PNG
from shared.job import Job

#: Buckets listed on the terminal; `to_json` has them all.
_BUCKETS_SHOWN = 20

#: Labels that the summary names.
_LABELS_SHOWN = 12

#: Models and devices that the summary has a line for.
_LINES_SHOWN = 5

#: UNet rows of a guided job without a rule: the prompt and the negative prompt.
_PLAIN_ROWS = 2


def render_preview(preview: Preview, console: Console) -> None:
    """Print a preview for a person."""
    console.print(Panel(_summary(preview), title=printable(preview.name), title_align="left", padding=(1, 2)))
    console.print(_bucket_table(preview))
    if preview.sample:
        console.print(job_table("Some of the jobs", preview.sample))
    for warning in preview.warnings:
        console.print(Text("! ", style="bold yellow") + Text(printable(warning)))
    for failure in preview.failures:
        console.print(Text("certain to fail: ", style="bold red") + Text(printable(say_failure(failure))))
        if failure.skip and failure.jobs < preview.jobs:
            console.print(Text(printable(f"    to leave them out: skip: {json.dumps(failure.skip)}")))


def render_difference(difference: PlanDifference, console: Console) -> None:
    """Print a difference for a person."""
    old = f"{difference.old_name} ({difference.old[:12]})"
    counts = f"{difference.added:,} added, {difference.kept:,} kept, {difference.dropped:,} dropped"
    console.print(Text(printable(f"Against {old}: {counts}"), style="bold"))
    if difference.old_format:
        said = f"that sweep makes {difference.old_format}: in another format every image is rendered anew"
        console.print(Text("! ", style="bold yellow") + Text(said))
    for title, jobs in (("Added", difference.added_jobs), ("Dropped", difference.dropped_jobs)):
        if jobs:
            console.print(job_table(f"{title}, some of them", jobs))


def job_table(title: str, jobs: Sequence[SampledJob]) -> Table:
    """Return jobs as a table with their indices. What a narrow terminal has no room for is folded, not cut."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("#", justify="right", style="dim", overflow="fold")
    table.add_column("prompt", ratio=3, overflow="fold")
    table.add_column("negative prompt", ratio=2, overflow="fold")
    table.add_column("seed", justify="right", overflow="fold")
    table.add_column("guidance", justify="right", overflow="fold")
    with_rules = any(seen.job.guidance_rule is not None for seen in jobs)
    if with_rules:
        table.add_column("rule", ratio=1, overflow="fold")
    table.add_column("steps", justify="right", overflow="fold")
    table.add_column("scheduler", overflow="fold")
    for seen in jobs:
        table.add_row(f"{seen.index:,}", *_job_cells(seen.job, with_rules))
    return table


def printable(text: str) -> str:
    """Return text without the characters that steer a terminal."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )


def _summary(preview: Preview) -> Group:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", overflow="fold")
    facts.add_column(overflow="fold")
    for name, value in _facts(preview):
        facts.add_row(name, value)
    return Group(facts)


def _facts(preview: Preview) -> Iterator[tuple[str, Text | str]]:
    yield "jobs", Text(f"{preview.jobs:,}", style="bold")
    if preview.images is None:
        yield "images", f"up to {preview.jobs:,}: too many jobs to see which are the same image"
    elif preview.duplicates:
        same = "job is" if preview.duplicates == 1 else "jobs are"
        yield "images", f"{preview.images:,} ({preview.duplicates:,} {same} the same image as another)"
    yield from _lines("read", [_file_line(file) for file in preview.files])
    yield "axes", Text(" x ".join(f"{count:,} {fields}" for fields, count in preview.axes) or "a single job")
    if preview.labels:
        more = (
            f" and {len(preview.labels) - _LABELS_SHOWN} more" if len(preview.labels) > _LABELS_SHOWN else ""
        )
        yield "labels", Text(printable(", ".join(preview.labels[:_LABELS_SHOWN]) + more))
    yield "chunks", f"{preview.chunks:,}"
    yield "model loads", f"{preview.model_loads:,}"
    if preview.rows_max > _PLAIN_ROWS:
        said = (
            f"up to {preview.rows_max} a job at each step: some guidance rules predict more than two prompts"
        )
        yield "UNet rows", said
    yield from _lines("texts", [_texts_line(texts, len(preview.texts) > 1) for texts in preview.texts])
    storage = f"about {decimal(preview.storage_bytes)} in the store"
    if preview.layout == "webdataset":
        storage += f", in {preview.chunks:,} WebDataset shards or a few more"
    yield from _lines("models", [_model_line(model) for model in preview.readings if model.is_remarkable])
    yield "files", storage if preview.format == PNG else f"{preview.format}, {storage}"
    times = [_time_line(time, preview) for time in preview.times]
    yield from _lines("time", times or [printable(f"unknown: {preview.time_unknown}")])
    yield "sweep", Text(preview.sweep, style="cyan")


def _lines(name: str, lines: Sequence[str]) -> Iterator[tuple[str, Text]]:
    """Yield lines under one name, and how many are left out."""
    more = [f"... and {len(lines) - _LINES_SHOWN:,} more"] if len(lines) > _LINES_SHOWN else []
    for number, line in enumerate([*lines[:_LINES_SHOWN], *more]):
        yield ("" if number else name), Text(line)


def _model_line(model: ModelRead) -> str:
    """Return how a model is read, where that is not what most models are."""
    zero_snr = ", its schedule ending in zero SNR" if model.zero_snr else ""
    return printable(f"{model.model} predicts {model.prediction_type}{zero_snr}: {model.source}")


def _file_line(file: SourceFile) -> str:
    """Return how a file was read: which delimiter was taken, and what its columns are."""
    return printable("; ".join([f"{file.path}: {file.values:,} values", *file.read_as]))


def _texts_line(texts: ModelTexts, several_models: bool) -> str:
    """Return what a model's text encoders read, as one sentence."""
    least = "at least " if texts.basis == "at least" else ""
    said = f"{texts.texts:,} to encode in {least}{texts.encoder_rows:,} encoder rows"
    if texts.looked_at is not None:
        said += f", in {texts.looked_at:,} of the jobs"
    if texts.tokens_max is not None:
        said += f"; the longest has {least}{texts.tokens_max:,} tokens"
    if texts.reason:
        said += f" (not counted: {texts.reason})"
    return printable(f"{texts.model}: {said}" if several_models else said)


def _time_line(time: TimeEstimate, preview: Preview) -> str:
    wanted = preview.jobs if preview.images is None else preview.images
    part = f" for {time.images:,} of the images" if time.images < wanted else ""
    said = f"about {duration(time.seconds)} on one {time.device}{part}"
    if time.workers > 1:
        said += f", {duration(time.seconds / time.workers)} on the {time.workers} that are live"
    return printable(f"{said} (by {time.measured:,} images: {', '.join(time.sources)})")


def _bucket_table(preview: Preview) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Buckets", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("size", overflow="fold")
    table.add_column("jobs", justify="right", overflow="fold")
    table.add_column("chunks", justify="right", overflow="fold")
    for bucket in preview.buckets[:_BUCKETS_SHOWN]:
        size = f"{bucket.width}x{bucket.height}"
        table.add_row(Text(printable(bucket.model)), size, f"{bucket.jobs:,}", f"{bucket.chunks:,}")
    if len(preview.buckets) > _BUCKETS_SHOWN:
        table.add_row(Text(f"... and {len(preview.buckets) - _BUCKETS_SHOWN:,} more", style="dim"))
    return table


def _job_cells(job: Job, with_rules: bool) -> Iterable[Text | str]:
    negative = Text("none", style="dim") if job.negative_prompt is None else Text(_cell(job.negative_prompt))
    rule = [Text(_cell(rule_label(job.guidance_rule)))] if with_rules else []
    texts = (Text(_cell(job.prompt)), negative, str(job.seed), f"{job.guidance_scale:g}")
    return (*texts, *rule, str(job.steps), job.scheduler)


def _cell(text: str) -> str:
    return printable(text if len(text) <= 60 else f"{text[:59]}…") or "''"
