"""Turns a `Sweep` into a `Plan`: which axes, in which order, in which blocks. A pure function of the sweep.

Outermost stands what costs most to change: the bucket (model, then size), then what only the sampler sees,
then seeds, rows of several fields, vars and texts, so that a chunk is one bucket and text embeddings repeat. Knows
nothing of YAML, and of models only what `resolve` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.language.fields import FIELDS
from producer.language.parts import Case, SeedSpan
from producer.language.ranges import Span
from producer.language.styles import make_style
from producer.language.sweep import Sweep, default_size, size_sides
from producer.planning.selection import Selector
from shared.axes import HOLE, STYLE_FIELDS, Axis, DerivedSeeds, ListAxis, SeedRange, TextAxis
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel
from shared.guidance import read_rule
from shared.images.format import parse_format
from shared.job import PROMPT_BYTES_MAX, RECIPE_FIELDS
from shared.labels import LabelColumn, LabelledAxis
from shared.plan import SWEEP_JOBS_MAX, Block, Bucket, Plan, jobs_per_chunk
from shared.sample import JobSample, share_out
from shared.texts import TextTemplate, template_of

#: Turns the name of a model in a sweep into what the model is. Raises ModelUnknown or ModelAmbiguous.
ResolveModel = Callable[[str], ResolvedModel]

#: Axes of a block that come before those of several fields, outermost first.
_SAMPLER_AXES = ("scheduler", "steps", "guidance_rule", "guidance_scale")

_BUCKET_FIELDS = ("model", "size")
_TEXT_FIELDS = ("prompt", "negative_prompt")

#: What seeds that are each job's own are derived from: every other field but the version of the sampler's arithmetic.
_JOB_FIELDS = tuple(name for name in RECIPE_FIELDS if name not in ("sampler", "seed"))


#: Name of a label -> the text of each value of an axis, None for none.
AxisLabels = Mapping[str, tuple[str | None, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """An axis of several names that move together: the cases, or a zip group."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    #: What stands beside the rows, as long as these, by name.
    labels: AxisLabels

    def column(self, name: str) -> list[Any]:
        position = self.names.index(name)
        return [row[position] for row in self.rows]

    def without(self, names: Sequence[str]) -> _Rows:
        kept = [position for position, name in enumerate(self.names) if name not in names]
        return replace(
            self,
            names=tuple(self.names[position] for position in kept),
            rows=tuple(tuple(row[position] for position in kept) for row in self.rows),
        )

    def only(self, numbers: Sequence[int]) -> _Rows:
        return replace(
            self,
            rows=tuple(self.rows[number] for number in numbers),
            labels={name: tuple(texts[n] for n in numbers) for name, texts in self.labels.items()},
        )


def compile_sweep(sweep: Sweep, *, resolve: ResolveModel) -> Plan:
    """Compile a sweep. Equal sweeps give equal plan ids, however their files were written.

    A model or size that comes up twice is one bucket, and its jobs are counted once; equal values of the
    other axes stay apart in the plan (`producer.preview` counts them) and share images by their job ids.

    Raises: SweepError where nothing is left, or too much; and what `resolve` raises for a model.
    """
    groups = [*_case_rows(sweep), *_zip_rows(sweep)]
    models = _resolve_models(sweep, groups, resolve)
    names = {model.fingerprint: model.name for model in reversed(models.values())}
    table = _AxisTable()
    selector = Selector(sweep, names)
    maker = _BlockMaker(sweep, table, selector, models)
    blocks = [
        block
        for bucket, rows in _group_by_bucket(sweep, groups, models)
        if (block := maker.block(bucket, rows)) is not None
    ]
    plan = Plan(
        name=sweep.name,
        models={bucket.model: names[bucket.model] for bucket in (block.bucket for block in blocks)},
        axes=tuple(table.axes),
        blocks=tuple(blocks),
        image_format=parse_format(sweep.format),
        layout=sweep.layout,
        columns=tuple(table.columns),
    )
    return _checked(sweep, _sampled(sweep, plan))


def _checked(sweep: Sweep, plan: Plan) -> Plan:
    """Refuse a plan without jobs, or with too many."""
    if not plan.blocks:
        raise SweepError(
            [f"{' and '.join(key for key in ('where', 'skip') if getattr(sweep, key))}: no job is left"]
        )
    if len(plan) > SWEEP_JOBS_MAX:
        raise SweepError(
            [
                f"{len(plan):,} jobs: one sweep holds at most {SWEEP_JOBS_MAX:,}: split it,"
                " or take a sample: {count: 1000}"
            ]
        )
    return plan


def _sampled(sweep: Sweep, plan: Plan) -> Plan:
    """Return a plan with the sample that the sweep takes, shared out over its blocks."""
    if sweep.sample is None:
        return plan
    count, seed, method = sweep.sample.count, sweep.sample.seed, sweep.sample.method
    sizes = [plan.product_of(block) for block in plan.blocks]
    if method == "uniform" and count > sum(sizes):
        raise SweepError([f"sample: count={count:,} of {sum(sizes):,} jobs: use at most {sum(sizes):,}"])
    blocks = [
        replace(block, sample=JobSample(count=share, seed=seed, method=method))
        for block, share in zip(plan.blocks, share_out(count, sizes, seed=seed), strict=True)
        if share
    ]
    return replace(plan, blocks=tuple(blocks), _decoders={}, _labels={})


def _case_rows(sweep: Sweep) -> list[_Rows]:
    """Return the cases as rows of the fields that any case sets."""
    if not sweep.cases:
        return []
    fields = sweep.case_fields
    rows = tuple(tuple(_case_value(sweep, case, field) for field in fields) for case in sweep.cases)
    return [_Rows(names=fields, rows=rows, labels=sweep.named_labels.get("cases", {}))]


def _zip_rows(sweep: Sweep) -> Iterator[_Rows]:
    """Yield the zip groups, and with each what is said beside the values of any of its names."""
    named = sweep.named_labels
    for group in sweep.zip:
        labels = {name: texts for field in group.names for name, texts in named.get(field, {}).items()}
        yield _Rows(names=group.names, rows=group.rows, labels=labels)


def _case_value(sweep: Sweep, case: Case, field: str) -> Any:
    """Return a case's value, or the sweep's: a single one, or validation had refused the case."""
    if field in case.model_fields_set:
        return getattr(case, field)
    axis = getattr(sweep, field)
    if isinstance(axis, SeedSpan):
        return axis.start
    return axis[0] if axis else None


def _resolve_models(sweep: Sweep, groups: Sequence[_Rows], resolve: ResolveModel) -> dict[str, ResolvedModel]:
    """Return each model the sweep uses by its name, in the order of first use."""
    used = next((group.column("model") for group in groups if "model" in group.names), list(sweep.model))
    return {name: resolve(name) for name in dict.fromkeys(used)}


def _group_by_bucket(
    sweep: Sweep, groups: list[_Rows], models: dict[str, ResolvedModel]
) -> list[tuple[Bucket, list[_Rows]]]:
    """Return each bucket with the rows that are in it: one model's side by side, else in order of appearance."""
    setters = [group for group in groups if set(group.names) & set(_BUCKET_FIELDS)]
    choices = [_bucket_choices(group) for group in setters]
    found: dict[Bucket, list[dict[int, None]]] = {}
    for model in sweep.model:
        for size in sweep.size or (None,):
            for picked, places in _combined(choices):
                bucket = _bucket(sweep, {"model": model, "size": size, **picked}, models)
                rows = found.setdefault(bucket, [{} for _ in setters])
                for kept, numbers in zip(rows, places, strict=True):
                    kept.update(dict.fromkeys(numbers))
    order = {fingerprint: n for n, fingerprint in enumerate(dict.fromkeys(bucket.model for bucket in found))}
    return [
        (bucket, _rows_of(groups, setters, found[bucket]))
        for bucket in sorted(found, key=lambda bucket: order[bucket.model])
    ]


def _bucket_choices(group: _Rows) -> list[tuple[dict[str, Any], list[int]]]:
    """Return (model and size as a group sets them, the rows that do so), in order of appearance."""
    names = [name for name in group.names if name in _BUCKET_FIELDS]
    columns = [group.column(name) for name in names]
    rows: dict[tuple[Any, ...], list[int]] = {}
    for number, values in enumerate(zip(*columns, strict=True)):
        rows.setdefault(values, []).append(number)
    return [
        ({n: v for n, v in zip(names, values, strict=True) if v}, numbers) for values, numbers in rows.items()
    ]


def _combined(
    choices: Sequence[list[tuple[dict[str, Any], list[int]]]],
) -> Iterator[tuple[dict[str, Any], list[list[int]]]]:
    """Yield every combination of the groups' choices."""
    if not choices:
        yield {}, []
        return
    for picked, rows in choices[0]:
        for others, more in _combined(choices[1:]):
            yield {**picked, **others}, [rows, *more]


def _rows_of(groups: list[_Rows], setters: list[_Rows], kept: list[dict[int, None]]) -> list[_Rows]:
    """Return the groups with the rows of one bucket, without the fields that the bucket says."""
    by_setter = {id(group): sorted(numbers) for group, numbers in zip(setters, kept, strict=True)}
    return [
        (group.only(by_setter[id(group)]) if id(group) in by_setter else group).without(_BUCKET_FIELDS)
        for group in groups
    ]


def _bucket(sweep: Sweep, picked: dict[str, Any], models: dict[str, ResolvedModel]) -> Bucket:
    model = picked["model"]
    width, height = size_sides(picked["size"] or default_size(model))
    encoder = parse_format(sweep.format).encoder
    return Bucket(model=models[model].fingerprint, width=width, height=height, encoder=encoder)


class _AxisTable:
    """The plan's axes and columns: equal ones of several blocks are stored once."""

    def __init__(self) -> None:
        self.axes: list[Axis] = []
        self.columns: list[LabelColumn] = []
        self._positions: dict[Axis, int] = {}
        self._column_positions: dict[Any, int] = {}

    def position(self, axis: Axis) -> int:
        position = self._positions.setdefault(axis, len(self.axes))
        if position == len(self.axes):
            self.axes.append(axis)
        return position

    def column_position(self, column: LabelColumn) -> int:
        position = self._column_positions.setdefault(column.key, len(self.columns))
        if position == len(self.columns):
            self.columns.append(column)
        return position


class _BlockMaker:
    """Makes the blocks of one sweep."""

    def __init__(
        self, sweep: Sweep, table: _AxisTable, selector: Selector, models: Mapping[str, ResolvedModel]
    ) -> None:
        self._sweep, self._table, self._selector, self._models = sweep, table, selector, models
        self._texts = sweep.text_maker()
        self._labels = sweep.named_labels
        #: Name of an axis -> what stands beside it: the same in all blocks.
        self._columns: dict[str, tuple[LabelColumn, ...]] = {}

    def block(self, bucket: Bucket, groups: list[_Rows]) -> Block | None:
        """Return the block of a bucket; None where no job of it is wanted."""
        taken = {name for group in groups for name in group.names}
        axes = [
            *(self._named(name, self._own_axis(name)) for name in _SAMPLER_AXES if name not in taken),
            *([] if "seed" in taken else [self._named("seed", self._seed_axis())]),
            *(axis for group in groups if (axis := self._rows_axis(group)) is not None),
            *(self._named("style", axis) for axis in self._style_axis()),
            *self._hole_axes(),
            *self._text_axes(taken),
        ]
        axes = self._join_drawn_negatives(axes)
        whole = [
            *(column for group in groups if _says_nothing(group) for column in _columns(group.labels)),
            *self._bucket_columns(bucket),
        ]
        chosen = self._selector.choose(bucket, axes, whole)
        if chosen is None:
            return None
        _check_lengths([axis.axis for axis in chosen])
        return Block(
            bucket=bucket,
            axes=tuple(self._table.position(axis.axis) for axis in chosen),
            jobs_per_chunk=self._jobs_per_chunk(bucket, groups),
            columns=self._placed([*(axis.columns for axis in chosen), whole]),
        )

    def _bucket_columns(self, bucket: Bucket) -> Iterator[LabelColumn]:
        """Yield what the sweep says of the bucket's model and size, where they are lists of its own."""
        models = [self._models.get(name) for name in self._sweep.model]
        places = {
            "model": [model is not None and model.fingerprint == bucket.model for model in models],
            "size": [size_sides(size) == (bucket.width, bucket.height) for size in self._sweep.size],
        }
        for name, matching in places.items():
            for label, texts in self._labels.get(name, {}).items():
                if len(texts) == len(matching) and True in matching:
                    yield LabelColumn.of(label, [texts[matching.index(True)]])

    def _placed(self, columns: Sequence[Sequence[LabelColumn]]) -> tuple[tuple[int, ...], ...]:
        """Return the positions of columns in the plan's table; () where there are none."""
        if not any(columns):
            return ()
        return tuple(tuple(map(self._table.column_position, own)) for own in columns)

    def _named(self, name: str, axis: Axis) -> LabelledAxis:
        """Return an axis with what the sweep says beside its values."""
        if name not in self._columns:
            self._columns[name] = _columns(self._labels.get(name, {}))
        return LabelledAxis(axis=axis, columns=self._columns[name])

    def _own_axis(self, name: str) -> Axis:
        values = getattr(self._sweep, name)
        if isinstance(values, Span):
            assert self._sweep.sample is not None
            values = values.values(self._sweep.sample.count)
        return ListAxis(fields=(name,), values=tuple((value,) for value in values))

    def _seed_axis(self) -> Axis:
        """Return a range where seeds are consecutive: [0, 1, 2] and {start: 0, count: 3} are one plan."""
        seeds, repeat = self._sweep.seed, self._sweep.repeat
        if isinstance(seeds, SeedSpan):
            count = seeds.count if repeat == 1 else repeat
            if seeds.per is not None:
                return DerivedSeeds(start=seeds.start, count=count, per=_per_fields(seeds.per))
            return SeedRange(start=seeds.start, count=count)
        if repeat > 1 or seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
            return SeedRange(start=seeds[0], count=max(repeat, len(seeds)))
        return ListAxis(fields=("seed",), values=tuple((seed,) for seed in seeds))

    def _rows_axis(self, group: _Rows) -> LabelledAxis | None:
        """Return the axis of a group, or none where its one row leaves nothing to say."""
        if _says_nothing(group):
            return None
        return LabelledAxis(axis=self._group_axis(self._with_styles(group)), columns=_columns(group.labels))

    def _group_axis(self, group: _Rows) -> Axis:
        known = (*FIELDS, *STYLE_FIELDS)
        fields = tuple(name if name in known else HOLE + name for name in group.names)
        texts = [position for position, name in enumerate(fields) if name in _TEXT_FIELDS]
        if self._texts.is_idle or not texts:
            return ListAxis(fields=fields, values=group.rows)
        rows = []
        for row in group.rows:
            made = list(row)
            for position in texts:
                made[position] = self._template(row[position])
            rows.append(tuple(made))
        return self._of_templates(fields, rows)

    def _with_styles(self, group: _Rows) -> _Rows:
        """Return a group in which the names of styles are what they say."""
        if "style" not in group.names:
            return group
        rest = group.without(["style"])
        rows = [
            (*row, *self._style(name)) for row, name in zip(rest.rows, group.column("style"), strict=True)
        ]
        return replace(rest, names=(*rest.names, *STYLE_FIELDS), rows=tuple(rows))

    def _style_axis(self) -> Iterator[Axis]:
        if self._sweep.style != (None,):
            yield ListAxis(fields=STYLE_FIELDS, values=tuple(map(self._style, self._sweep.style)))

    def _style(self, name: str | None) -> tuple[Any, ...]:
        if name is None:
            return (None, None, "")
        style = make_style(name, *self._sweep.styles[name].values())
        return (name, style.prompt, style.negative_prompt)

    def _hole_axes(self) -> Iterator[LabelledAxis]:
        for name, values in self._sweep.vars.items():
            axis = ListAxis(fields=(HOLE + name,), values=tuple((value,) for value in values))
            yield self._named(name, axis)
        for word, values in self._sweep.replace.items():
            fields = (HOLE + self._texts.word_slot(word),)
            yield self._named(word, ListAxis(fields=fields, values=tuple((value,) for value in values)))

    def _text_axes(self, taken: set[str]) -> Iterator[LabelledAxis]:
        for name in _TEXT_FIELDS:
            if name not in taken:
                texts = getattr(self._sweep, name)
                if self._texts.is_idle:
                    axis: Axis = ListAxis(fields=(name,), values=tuple((text,) for text in texts))
                else:
                    axis = self._of_templates((name,), [(self._template(text),) for text in texts])
                yield self._named(name, axis)

    def _template(self, text: str | None) -> TextTemplate | None:
        return None if text is None else self._texts.template(text)

    def _of_templates(self, fields: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Axis:
        """Return a list where nothing is to be chosen, and else an axis of templates."""
        if any(isinstance(value, TextTemplate) and value.has_choices for row in rows for value in row):
            return self._text_axis(fields, rows)
        values = tuple(
            tuple(value.combination(0) if isinstance(value, TextTemplate) else value for value in row)
            for row in rows
        )
        return ListAxis(fields=fields, values=values)

    def _text_axis(self, fields: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> TextAxis:
        draws = self._sweep.draws
        return TextAxis(fields=fields, rows=tuple(rows), draws=draws, seed=0 if draws is None else draws.seed)

    def _join_drawn_negatives(self, axes: list[LabelledAxis]) -> list[LabelledAxis]:
        """Let negatives with choices stand beside their prompts: what is drawn depends on the prompt."""
        for negatives in axes:
            drawn = negatives.axis
            if isinstance(drawn, TextAxis) and drawn.fields == ("negative_prompt",):
                break
        else:
            return axes
        prompts = next(axis for axis in axes if "prompt" in axis.axis.fields)
        texts = list(_template_rows(prompts.axis))
        joined = LabelledAxis(
            axis=self._text_axis(
                (*prompts.axis.fields, *drawn.fields),
                [(*row, *other) for row in texts for other in drawn.rows],
            ),
            columns=(
                *(column.spread(each=len(drawn.rows)) for column in prompts.columns),
                *(column.spread(times=len(texts)) for column in negatives.columns),
            ),
        )
        return [joined if axis is prompts else axis for axis in axes if axis is not negatives]

    def _jobs_per_chunk(self, bucket: Bucket, groups: list[_Rows]) -> int:
        columns: dict[str, Any] = {}
        for name in ("steps", "guidance_rule"):
            holder = next((group for group in groups if name in group.names), None)
            values = getattr(self._sweep, name) if holder is None else holder.column(name)
            columns[name] = [values.stop] if isinstance(values, Span) else values
        rows = max(read_rule(rule).rows for rule in columns["guidance_rule"])
        return jobs_per_chunk(bucket.width, bucket.height, max(columns["steps"]), rows)


def _says_nothing(group: _Rows) -> bool:
    """Whether a group has one row, of which the bucket says everything."""
    return len(group.rows) == 1 and not group.names


def _columns(labels: AxisLabels) -> tuple[LabelColumn, ...]:
    return tuple(LabelColumn.of(name, texts) for name, texts in labels.items())


def _template_rows(axis: Axis) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the axis that has the prompts, their texts as templates."""
    if isinstance(axis, TextAxis):
        yield from axis.rows
        return
    assert isinstance(axis, ListAxis)
    texts = [name in _TEXT_FIELDS for name in axis.fields]
    for value in axis.values:
        yield tuple(
            template_of(part) if is_text and part is not None else part
            for is_text, part in zip(texts, value, strict=True)
        )


def _per_fields(per: Sequence[str]) -> tuple[str, ...]:
    """Return the fields that seeds are derived from, as a job's values have them."""
    fields: list[str] = []
    for name in per:
        match name:
            case "job":
                fields += _JOB_FIELDS
            case "size":
                fields += ["width", "height"]
            case "style":
                fields.append("style")
            case _:
                fields.append(name if name in FIELDS else HOLE + name)
    return tuple(dict.fromkeys(fields))


def _check_lengths(axes: Sequence[Axis]) -> None:
    """Refuse texts that may grow, once filled, beyond what a prompt may hold."""
    holes = {name: 0 for axis in axes for name in axis.fields}
    for axis in axes:
        for name, size in _sizes(axis):
            holes[name] = max(holes[name], size)
    fills = sum(size for name, size in holes.items() if name.startswith(HOLE) or name in STYLE_FIELDS[1:])
    for name in _TEXT_FIELDS:
        if fills and holes.get(name, 0) + fills > PROMPT_BYTES_MAX:
            said = f"{name} may be {holes[name] + fills:,} bytes long once vars and style are filled in"
            raise SweepError([f"{said}: use at most {PROMPT_BYTES_MAX:,}"])


def _sizes(axis: Axis) -> Iterator[tuple[str, int]]:
    """Yield (field, bytes) of the texts of an axis."""
    rows = axis.rows if isinstance(axis, TextAxis) else axis.values if isinstance(axis, ListAxis) else ()
    for row in rows:
        for name, value in zip(axis.fields, row, strict=True):
            if isinstance(value, TextTemplate):
                yield name, value.bytes_max
            elif isinstance(value, str):
                yield name, len(value.encode())
            elif isinstance(value, tuple):
                yield name, sum(len(part.encode()) for part in value if isinstance(part, str))
