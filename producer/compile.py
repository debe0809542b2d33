"""Turns a `Sweep` into a `Plan`: which axes, in which order, in which blocks. A pure function of the sweep.

Outermost stands what costs most to change: the bucket (model, then size), then what only the sampler sees,
then seeds, cases and texts, so that a chunk is one bucket and text embeddings repeat. Knows nothing of YAML,
and of models only what `resolve` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from producer.sweep import Case, SeedSpan, Sweep, default_size, size_sides
from shared.fingerprint import ResolvedModel
from shared.guidance import read_rule
from shared.images.format import parse_format
from shared.plan import Axis, Block, Bucket, ListAxis, Plan, SeedRange, jobs_per_chunk

#: Turns the name of a model in a sweep into what the model is. Raises ModelUnknown or ModelAmbiguous.
ResolveModel = Callable[[str], ResolvedModel]

#: Axes of a block, outermost first. The cases stand before the texts.
_AXES_BEFORE_CASES = ("scheduler", "steps", "guidance_rule", "guidance_scale", "seed")
_AXES_AFTER_CASES = ("prompt", "negative_prompt")

_BUCKET_FIELDS = ("model", "size")


def compile_sweep(sweep: Sweep, *, resolve: ResolveModel) -> Plan:
    """Compile a sweep. Equal sweeps give equal plan ids, however their files were written.

    A model or size that comes up twice is one bucket, and its jobs are counted once; equal values of the
    other axes stay apart in the plan (`producer.preview` counts them) and share images by their job ids.

    Raises: what `resolve` raises for a model.
    """
    models = _resolve_models(sweep, resolve)
    axes = _AxisTable()
    blocks = [_block(sweep, bucket, cases, axes) for bucket, cases in _group_by_bucket(sweep, models)]
    names = {model.fingerprint: model.name for model in reversed(models.values())}
    return Plan(
        name=sweep.name,
        models=names,
        axes=tuple(axes.axes),
        blocks=tuple(blocks),
        image_format=parse_format(sweep.format),
        layout=sweep.layout,
    )


def _resolve_models(sweep: Sweep, resolve: ResolveModel) -> dict[str, ResolvedModel]:
    """Return each model the sweep uses by its name, in the order of first use."""
    used: list[str] = []
    for case in sweep.cases or (Case(),):
        used += [case.model] if "model" in case.model_fields_set else sweep.model
    return {name: resolve(name) for name in dict.fromkeys(used)}


def _group_by_bucket(sweep: Sweep, models: dict[str, ResolvedModel]) -> list[tuple[Bucket, tuple[Case, ...]]]:
    """Return each bucket with its cases: one model's side by side, else in order of first appearance."""
    groups: dict[Bucket, dict[int, Case]] = {}
    for model in sweep.model:
        for size in sweep.size or (None,):
            for number, case in enumerate(sweep.cases or (Case(),)):
                bucket = _bucket(sweep, case, model, size, models)
                groups.setdefault(bucket, {})[number] = case
    model_order = {
        fingerprint: n for n, fingerprint in enumerate(dict.fromkeys(bucket.model for bucket in groups))
    }
    ordered = sorted(groups, key=lambda bucket: model_order[bucket.model])
    return [(bucket, tuple(groups[bucket].values())) for bucket in ordered]


def _bucket(
    sweep: Sweep, case: Case, model: str, size: str | None, models: dict[str, ResolvedModel]
) -> Bucket:
    if "model" in case.model_fields_set:
        model = case.model
    if "size" in case.model_fields_set:
        size = case.size
    width, height = size_sides(size or default_size(model))
    encoder = parse_format(sweep.format).encoder
    return Bucket(model=models[model].fingerprint, width=width, height=height, encoder=encoder)


class _AxisTable:
    """The plan's axes: equal axes of several blocks are stored once."""

    def __init__(self) -> None:
        self.axes: list[Axis] = []
        self._positions: dict[Axis, int] = {}

    def position(self, axis: Axis) -> int:
        position = self._positions.setdefault(axis, len(self.axes))
        if position == len(self.axes):
            self.axes.append(axis)
        return position


def _block(sweep: Sweep, bucket: Bucket, cases: Sequence[Case], axes: _AxisTable) -> Block:
    case_fields = tuple(field for field in sweep.case_fields if field not in _BUCKET_FIELDS)

    def own_axes(fields: Sequence[str]) -> list[Axis]:
        return [_axis(field, getattr(sweep, field)) for field in fields if field not in case_fields]

    case_axis = _case_axis(sweep, cases, case_fields)
    wanted = [*own_axes(_AXES_BEFORE_CASES), *case_axis, *own_axes(_AXES_AFTER_CASES)]
    steps, rules = (
        [_case_value(sweep, case, field) for case in cases] if field in case_fields else getattr(sweep, field)
        for field in ("steps", "guidance_rule")
    )
    rows = max(read_rule(rule).rows for rule in rules)
    return Block(
        bucket=bucket,
        axes=tuple(axes.position(axis) for axis in wanted),
        jobs_per_chunk=jobs_per_chunk(bucket.width, bucket.height, max(steps), rows),
    )


def _axis(field: str, values: Any) -> Axis:
    if field == "seed":
        return _seed_axis(values)
    return ListAxis(fields=(field,), values=tuple((value,) for value in values))


def _seed_axis(seeds: SeedSpan | tuple[int, ...]) -> Axis:
    """Return a range where seeds are consecutive: [0, 1, 2] and {start: 0, count: 3} are one plan."""
    if isinstance(seeds, SeedSpan):
        return SeedRange(start=seeds.start, count=seeds.count)
    if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return SeedRange(start=seeds[0], count=len(seeds))
    return ListAxis(fields=("seed",), values=tuple((seed,) for seed in seeds))


def _case_axis(sweep: Sweep, cases: Sequence[Case], fields: Sequence[str]) -> list[Axis]:
    """Return the axis of the cases, or none where a block's one case leaves nothing to say."""
    if len(cases) == 1 and not fields:
        return []
    values = tuple(tuple(_case_value(sweep, case, field) for field in fields) for case in cases)
    return [ListAxis(fields=tuple(fields), values=values)]


def _case_value(sweep: Sweep, case: Case, field: str) -> Any:
    """Return a case's value, or the sweep's: a single one, or validation had refused the case."""
    if field in case.model_fields_set:
        return getattr(case, field)
    axis = getattr(sweep, field)
    return axis.start if isinstance(axis, SeedSpan) else axis[0]
