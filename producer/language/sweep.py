"""Turns a sweep file into a validated `Sweep`. Knows nothing of plans, models on disk or queues.

A sweep is a product of axes; a list is an axis, `zip` groups and `cases` are axes of several fields, and `where`,
`skip` and `sample` leave jobs out. Every problem of a file is found in one go and said as value, fix and line.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from producer.language.complete import SweepFile, read_sweep_file, read_sweep_mapping
from producer.language.conditions.comparisons import ConditionInvalid
from producer.language.conditions.expression import parse_condition
from producer.language.fields import (
    FIELDS,
    Format,
    ModelName,
    Name,
    NegativePrompt,
    Prompt,
    Scheduler,
    Size,
    check_negatives,
    detail,
    merged,
    name_of_file,
    one_of,
    problem,
)
from producer.language.groups import (
    ZipGroup,
    check_labels,
    check_replace,
    check_style_axis,
    check_styles,
    check_vars,
    check_wildcards,
    check_zip,
    written_zip,
)
from producer.language.guidance_rules import RULE_READING, count_rules
from producer.language.parts import (
    AXIS,
    Case,
    Conditions,
    DrawSpec,
    Expand,
    RuleAxis,
    SampleSpec,
    ScaleAxis,
    SeedAxis,
    SeedSpan,
    StepAxis,
    Strict,
    check_case,
    check_cases,
    check_layout,
    check_repeat,
    check_sample,
)
from producer.language.prompt_files.row_labels import written_labels
from producer.language.prompts import TextMaker
from producer.language.ranges import Span
from producer.language.templates import TemplateInvalid
from producer.language.validation import axis_length, lines, located_problem, unlocated_problem
from producer.language.wording import near
from shared.axes import Draws
from shared.errors import SweepError
from shared.images.format import PNG
from shared.model_reading import split_reading
from shared.names import DEFAULT_MODEL
from shared.plan import SWEEP_JOBS_MAX, StoreLayout
from shared.schedulers import DEFAULT_SCHEDULER

#: Width and height where neither the sweep nor a case says: what Stable Diffusion 1.5 was trained on ...
DEFAULT_SIZE = "512x512"

#: ... except for models that were made for another size. The model in the box draws 64x64.
DEFAULT_SIZES: Mapping[str, str] = {DEFAULT_MODEL: "64x64"}


class Sweep(Strict):
    """What a person declares: axes, and cases crossed with them. Every axis is a tuple, however short.

    The values below are the defaults of every field.
    """

    name: Name = "sweep"
    #: What every image becomes; no axis, for it is no part of a job.
    format: Format = str(PNG)
    #: How images lie in the store; no part of a job either.
    layout: Annotated[StoreLayout, BeforeValidator(check_layout)] = "images"
    #: Empty where every case, or a zip group, brings its own.
    prompt: Annotated[tuple[Prompt, ...], AXIS] = ()
    #: None is not "": SDXL renders them differently.
    negative_prompt: Annotated[tuple[NegativePrompt, ...], BeforeValidator(check_negatives)] = (None,)
    seed: SeedAxis = Field(default=(0,))
    guidance_scale: ScaleAxis = (7.5,)
    #: None is plain classifier-free guidance.
    guidance_rule: RuleAxis = (None,)
    steps: StepAxis = (25,)
    scheduler: Annotated[tuple[Scheduler, ...], AXIS] = (DEFAULT_SCHEDULER,)
    #: Empty for each model's own size (`default_size`).
    size: Annotated[tuple[Size, ...], AXIS] = ()
    model: Annotated[tuple[ModelName, ...], AXIS] = (DEFAULT_MODEL,)
    cases: Annotated[
        tuple[Annotated[Case, BeforeValidator(check_case)], ...],
        BeforeValidator(check_cases),
    ] = ()
    #: Fields and vars that move together.
    zip: Annotated[
        tuple[InstanceOf[ZipGroup], ...], BeforeValidator(check_zip), PlainSerializer(written_zip)
    ] = ()
    #: Name -> texts that fill the hole of that name in prompts and negative prompts.
    vars: Annotated[dict[str, tuple[str, ...]], BeforeValidator(check_vars)] = Field(default={})
    #: Words in prompts and negative prompts -> what stands in their place.
    replace: Annotated[dict[str, tuple[str, ...]], BeforeValidator(check_replace)] = Field(default={})
    #: How texts with choices in them become texts; None: they are no templates.
    expand: Expand = None
    #: Name -> lines that `__name__` chooses from.
    wildcards: Annotated[dict[str, tuple[str, ...]], BeforeValidator(check_wildcards)] = Field(default={})
    #: Name -> {prompt, negative_prompt}.
    styles: Annotated[dict[str, dict[str, str]], BeforeValidator(check_styles)] = Field(default={})
    style: Annotated[tuple[str | None, ...], BeforeValidator(check_style_axis)] = (None,)
    #: Axis -> name -> what each of its values is called besides, for people; no part of a job or a sweep's id.
    labels: Annotated[
        dict[str, dict[str, tuple[str | None, ...]]],
        BeforeValidator(check_labels),
        PlainSerializer(written_labels),
    ] = Field(default={})
    #: Expressions that every job meets, and such as none does.
    where: Conditions = ()
    skip: Conditions = ()
    #: None for the whole product.
    sample: Annotated[SampleSpec | None, BeforeValidator(check_sample)] = None
    #: Seeds of each job, from the sweep's one seed on.
    repeat: Annotated[int, BeforeValidator(check_repeat)] = 1

    @property
    def jobs(self) -> int:
        """How many jobs the axes multiply to, before choices are expanded and jobs left out."""
        lengths = [self._length(field) for field in FIELDS]
        groups = [len(group.rows) for group in self.zip]
        texts = [len(values) for values in (*self.vars.values(), *self.replace.values())]
        others = (len(self.cases) or 1, len(self.style), self.repeat)
        return math.prod((*lengths, *groups, *texts, *others))

    @property
    def case_fields(self) -> tuple[str, ...]:
        """The fields that any case sets, in the order of FIELDS."""
        found = {field for case in self.cases for field in case.model_fields_set}
        return tuple(field for field in FIELDS if field in found)

    @property
    def draws(self) -> Draws | None:
        """How templates are drawn; None for every combination."""
        spec = self.expand
        return Draws(count=spec.count, seed=spec.seed) if isinstance(spec, DrawSpec) else None

    @property
    def hole_names(self) -> frozenset[str]:
        """The names of vars, wherever they are given."""
        zipped = (name for group in self.zip for name in group.names if name not in (*FIELDS, "style"))
        return frozenset((*self.vars, *zipped))

    @property
    def named_labels(self) -> dict[str, dict[str, tuple[str | None, ...]]]:
        """`labels` by names that no two axes share: the second `category` is `negative_prompt.category`."""
        found: dict[str, dict[str, tuple[str | None, ...]]] = {}
        taken: set[str] = set()
        for axis, columns in self.labels.items():
            found[axis] = {
                f"{axis}.{name}" if name in taken else name: texts for name, texts in columns.items()
            }
            taken |= columns.keys()
        return found

    @property
    def label_names(self) -> frozenset[str]:
        """What stands beside any axis, by its name."""
        return frozenset(name for columns in self.named_labels.values() for name in columns)

    def text_maker(self) -> TextMaker:
        """Return what makes templates of the sweep's texts."""
        return TextMaker(
            holes=self.hole_names,
            words=tuple(self.replace),
            expand=self.expand is not None,
            wildcards=self.wildcards,
        )

    def _length(self, field: str) -> int:
        axis = getattr(self, field)
        if isinstance(axis, Span):
            return 1 if self.sample is None else self.sample.count
        # Not len() of a span: that ends at 2**63.
        return axis.count if isinstance(axis, SeedSpan) else len(axis) or 1

    @model_validator(mode="wrap")
    @classmethod
    def _check_whole(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Add what only the whole sweep shows to what its fields are refused for."""
        problems = list(_whole_problems(data)) if isinstance(data, dict) else []
        try:
            sweep = handler(data)
        except ValidationError as error:
            raise merged([*map(_again, error.errors(include_url=False)), *problems]) from error
        problems = problems or list(_made_problems(sweep))
        if problems:
            raise merged(problems)
        return sweep


def default_size(model: str) -> str:
    """Return the size of images that a model draws when nobody says."""
    return DEFAULT_SIZES.get(split_reading(model)[0], DEFAULT_SIZE)


def size_sides(size: str) -> tuple[int, int]:
    """Return (width, height) in pixels of a `Sweep`'s size."""
    width, height = size.split("x")
    return int(width), int(height)


def parse_sweep(text: str | bytes, *, filename: str = "sweep.yaml") -> Sweep:
    """Read the text of a sweep file; files that it names are looked for in the current folder.

    Raises: SweepError listing every problem, each with its line, field and fix.
    """
    return sweep_of(read_sweep_file(Path(filename), data=text))


def sweep_of(file: SweepFile) -> Sweep:
    """Return the sweep that a file holds, once all it names has been read.

    Raises: SweepError listing every problem, each with its line, field and fix.
    """
    document, filename = file.document, file.path.name
    value = {"name": name_of_file(filename), **document.value}
    try:
        sweep = Sweep.model_validate(value)
    except ValidationError as error:
        found = [located_problem(item, document.located) for item in error.errors(include_url=False)]
        problems = [*document.problems, *(problem for problem in found if problem is not None)]
    else:
        problems = document.problems
    if problems:
        raise SweepError(lines(problems, filename))
    return sweep


def sweep_from_mapping(mapping: Mapping[str, Any]) -> Sweep:
    """Make a sweep of what a sweep file would hold, as Python values.

    Raises: SweepError listing every problem, each with its field and fix.
    """
    try:
        return Sweep.model_validate(read_sweep_mapping(mapping))
    except ValidationError as error:
        problems = [unlocated_problem(item, mapping) for item in error.errors(include_url=False)]
        raise SweepError(lines(problems, "")) from error


# What only the whole sweep shows.


def _whole_problems(data: Mapping[str, Any]) -> Iterable[InitErrorDetails]:
    """Yield the problems between keys, whatever else is wrong with their values."""
    cases = data.get("cases")
    mappings = (
        [(n, case) for n, case in enumerate(cases) if _is_case(case)]
        if isinstance(cases, list | tuple)
        else []
    )
    zipped = [set(_group_names(group)) for group in _as_list(data.get("zip"))]
    # A group without names has been refused already, and may have had the prompt.
    if "prompt" not in data and not any("prompt" in names or not names for names in zipped):
        if not cases:
            yield detail((), "missing", "no prompt: give the sweep a 'prompt', or one to every case")
        for number, case in mappings:
            if "prompt" not in _fields_set(case):
                yield detail(("cases", number), "missing", "no prompt, and none at the top: add one")
    for field in FIELDS:
        if _declared_length(field, data.get(field)) >= 2:
            for number, case in mappings:
                if field in _fields_set(case):
                    text = f"{field} is a list at the top and set in a case: keep one of them"
                    yield detail(("cases", number, field), "cases", text)
    yield from _zip_problems(data, zipped, {name for _, case in mappings for name in _fields_set(case)})


def _zip_problems(
    data: Mapping[str, Any], zipped: Sequence[set[str]], case_fields: set[str]
) -> Iterator[InitErrorDetails]:
    """Yield the names that a zip group shares with something else."""
    names_of_vars = set(data["vars"]) if isinstance(data.get("vars"), Mapping) else set()
    elsewhere = {
        "at the top": set(data) & {*FIELDS, "style"},
        "in a case": case_fields,
        "in vars": names_of_vars,
    }
    listed = isinstance(data.get("zip"), list | tuple)
    for number, names in enumerate(zipped):
        places = {**elsewhere, "in another zip group": set().union(*zipped[:number])}
        for where, others in places.items():
            for name in sorted(names & others):
                loc = ("zip", number, name) if listed else ("zip", name)
                yield detail(loc, "zip", f"{name} stands in a zip group and {where}: keep one of them")


def _made_problems(sweep: Sweep) -> Iterator[InitErrorDetails]:
    """Yield what is wrong between values that are right by themselves."""
    is_whole = sweep.sample is None and not sweep.where and not sweep.skip
    if is_whole and sweep.jobs > SWEEP_JOBS_MAX:
        widest = max(("cases", *FIELDS), key=sweep._length)
        yield detail(
            (widest,), "jobs", f"{sweep.jobs:,} jobs: one sweep holds at most {SWEEP_JOBS_MAX:,}: split it"
        )
    seeds_elsewhere = "seed" in sweep.case_fields or any("seed" in group.names for group in sweep.zip)
    if sweep.repeat > 1 and (seeds_elsewhere or _declared_length("seed", sweep.seed) > 1):
        yield detail(
            ("repeat",), "repeat", "repeat goes with one seed: write seed: {start: 0, count: 8} instead"
        )
    for field in ("guidance_scale", "steps"):
        if isinstance(getattr(sweep, field), Span) and (
            sweep.sample is None or sweep.sample.method != "latin"
        ):
            said = (
                f"{field} has no step: write {{start, stop, step}}, or sample: {{count: 100, method: latin}}"
            )
            yield detail((field,), "range", said)
    yield from _per_problems(sweep)
    for loc, name in _named_styles(sweep):
        if name is not None and name not in sweep.styles:
            near = difflib.get_close_matches(name, sweep.styles, n=3)
            listed = f"there are: {', '.join(sweep.styles) or 'none'}"
            fix = f"did you mean {one_of(near)}?" if near else listed
            yield detail(loc, "style", f"style={name!r} is not in styles: {fix}")
    yield from _label_problems(sweep)
    yield from _condition_problems(sweep)
    yield from _text_problems(sweep)


def _named_styles(sweep: Sweep) -> Iterator[tuple[tuple[str | int, ...], str | None]]:
    for position, name in enumerate(sweep.style):
        yield ("style", position), name
    for number, group in enumerate(sweep.zip):
        if "style" in group.names:
            column = group.names.index("style")
            for position, row in enumerate(group.rows):
                yield ("zip", number, "style", position), row[column]


def _label_problems(sweep: Sweep) -> Iterator[InitErrorDetails]:
    """Yield labels beside no axis, and such as are not as many as its values."""
    lengths = _labelled_lengths(sweep)
    for axis, columns in sweep.labels.items():
        if axis not in lengths:
            hint = near(axis, lengths, otherwise=f"use one of {', '.join(lengths)}")
            yield detail(("labels", axis), "labels", f"labels: {axis!r} is no list of this sweep: {hint}")
            continue
        for name, texts in columns.items():
            if len(texts) != lengths[axis]:
                said = f"labels: {name} has {len(texts):,} values beside {lengths[axis]:,} of {axis}"
                yield detail(("labels", axis, name), "labels", f"{said}: write one for each, null for none")


def _labelled_lengths(sweep: Sweep) -> dict[str, int]:
    """Return the axes that may have labels, and how many values each has."""
    lengths = {
        field: len(values)
        for field in (*FIELDS, "style")
        if field not in sweep.case_fields
        and isinstance(values := getattr(sweep, field), tuple)
        and values
        and (field != "seed" or sweep.repeat == 1)
    }
    lengths |= {name: len(values) for name, values in (*sweep.vars.items(), *sweep.replace.items())}
    if sweep.cases:
        lengths["cases"] = len(sweep.cases)
    return lengths | {name: len(group.rows) for group in sweep.zip for name in group.names}


def _per_problems(sweep: Sweep) -> Iterator[InitErrorDetails]:
    if not isinstance(sweep.seed, SeedSpan) or sweep.seed.per is None:
        return
    known = {*FIELDS, *sweep.hole_names, "style", "job"} - {"seed"}
    for name in sweep.seed.per:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"use {', '.join(sorted(known))}"
            yield detail(("seed", "per"), "per", f"seed: per={name!r}: {fix}")


def _condition_problems(sweep: Sweep) -> Iterator[InitErrorDetails]:
    for key in ("where", "skip"):
        for position, text in enumerate(getattr(sweep, key)):
            try:
                condition = parse_condition(text, names=condition_names(sweep), readings=RULE_READING)
            except ConditionInvalid as error:
                yield detail((key, position), "condition", f"{key}: {error}")
                continue
            if "seed" in condition.names and isinstance(sweep.seed, SeedSpan) and sweep.seed.per is not None:
                text = f"{key}: seeds that are derived (per) cannot be chosen by: leave seed out"
                yield detail((key, position), "condition", text)


def condition_names(sweep: Sweep) -> frozenset[str]:
    """Return what an expression of the sweep may name."""
    return frozenset((*FIELDS, "width", "height", "style", *sweep.hole_names, *sweep.label_names))


def _text_problems(sweep: Sweep) -> Iterator[InitErrorDetails]:
    """Yield templates that are none, holes that nothing fills, and vars and words that no text has."""
    maker = sweep.text_maker()
    if maker.is_idle:
        return
    used: set[str] = set()
    for loc, text in _texts(sweep):
        try:
            used |= maker.template(text).slots
        except TemplateInvalid as error:
            yield detail(loc, "template", f"{loc[0]}: {error}")
    for name in sorted(sweep.hole_names - used):
        loc = ("vars", name) if name in sweep.vars else ("zip", name)
        near = difflib.get_close_matches(name, FIELDS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"use it, or remove {name}"
        yield detail(loc, "vars", f"no prompt or negative prompt has {{{name}}}: {fix}")
    for word in sweep.replace:
        if maker.word_slot(word) not in used:
            yield detail(
                ("replace", word), "replace", f"no prompt or negative prompt has {word!r}: check the spelling"
            )


def _texts(sweep: Sweep) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for field in ("prompt", "negative_prompt"):
        for position, text in enumerate(getattr(sweep, field)):
            if text is not None:
                yield (field, position), text
        for number, case in enumerate(sweep.cases):
            if field in case.model_fields_set and getattr(case, field) is not None:
                yield ("cases", number, field), getattr(case, field)
        for number, group in enumerate(sweep.zip):
            if field in group.names:
                place = group.names.index(field)
                for position, row in enumerate(group.rows):
                    if row[place] is not None:
                        yield ("zip", number, field, position), row[place]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _group_names(group: Any) -> Iterable[str]:
    if isinstance(group, ZipGroup):
        return group.names
    return [name for name in group if isinstance(name, str)] if isinstance(group, Mapping) else ()


def _is_case(case: Any) -> bool:
    return isinstance(case, dict | Case)


def _fields_set(case: dict[str, Any] | Case) -> Iterable[str]:
    return case.model_fields_set if isinstance(case, Case) else case


def _declared_length(field: str, value: Any) -> int:
    if field == "guidance_rule":
        return sum(map(count_rules, value if isinstance(value, list | tuple) else (value,)))
    return value.count if isinstance(value, SeedSpan) else axis_length(value)


def _again(item: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=problem(item["type"], item["msg"]), loc=tuple(item["loc"]), input=item["input"]
    )
