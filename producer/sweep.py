"""Turns a sweep file into a validated `Sweep`. Knows nothing of plans, models on disk or queues.

A sweep is a product of axes; a list is an axis, and `cases` are hand-picked combinations crossed with them.
Every problem of a file is found in one go and said as value, mend and line.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from producer.rules import RULES_MAX, RuleProblem, count_rules, expand_rule, written_rule
from producer.sweep_text import FILE_BYTES_MAX, Located, Problem, decode_text, read_yaml
from shared.errors import SweepError
from shared.images.format import EXAMPLES, PNG, FormatInvalid, parse_format
from shared.job import PROMPT_BYTES_MAX
from shared.names import DEFAULT_MODEL
from shared.plan import JOBS_MAX, Layout
from shared.schedulers import DEFAULT_SCHEDULER, SCHEDULERS, canonical_scheduler

#: A thousand training timesteps is all there is to sample.
STEPS_MAX = 1000

#: Guidance beyond it is a slip of the pen: images burn out at 30.
GUIDANCE_MAX = 1000.0

#: Latents are an eighth of the image's sides.
SIZE_STEP_PX = 8
SIZE_MAX_PX = 8192

#: Seeds are 64 bits, as torch's generators take them.
SEED_STOP = 2**64

#: Longest name of a model or a sweep, characters.
MODEL_NAME_MAX = 300
NAME_MAX = 100

#: Width and height where neither the sweep nor a case says: what Stable Diffusion 1.5 was trained on ...
DEFAULT_SIZE = "512x512"

#: ... except for models that were made for another size. The tiny default model draws 64x64.
DEFAULT_SIZES: Mapping[str, str] = {DEFAULT_MODEL: "64x64"}

#: Fields of a job that a sweep may set, in the order in which the documentation names them.
FIELDS = (
    "prompt",
    "negative_prompt",
    "seed",
    "guidance_scale",
    "guidance_rule",
    "steps",
    "scheduler",
    "size",
    "model",
)

#: What other programs call our fields.
_ALIASES = {
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "rule": "guidance_rule",
    "height": "size",
    "width": "size",
    "resolution": "size",
    "negative": "negative_prompt",
    "neg_prompt": "negative_prompt",
    "num_inference_steps": "steps",
    "num_steps": "steps",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "checkpoint": "model",
    "image_format": "format",
    "output_format": "format",
    "file_format": "format",
    "quality": "format",
}

#: Keys of other programs, or on a wrong level -> the guidance rule that they mean.
_RULE_ALIASES = {
    "guidance_rescale": "{rescale: 0.7}",
    "cfg_rescale": "{rescale: 0.7}",
    "rescale": "{rescale: 0.7}",
    "guidance_interval": "{interval: [0.2, 0.8]}",
    "interval": "{interval: [0.2, 0.8]}",
    "negative_interval": "{negative_interval: [0.2, 1]}",
    "negative_weight": "{rule: decoupled, negative_weight: 2}",
    "perp_neg": "perp_neg",
    "apg": "apg",
    "cfg_zero_star": "cfg_zero_star",
}

#: Problems shown at once. A table with a wrong column need not scroll for an hour.
_PROBLEMS_SHOWN = 100

_SIZE = re.compile(r"([0-9]{1,9})\s*[x×]\s*([0-9]{1,9})\Z", re.ASCII)
_NAME = re.compile(r"[^\W_][\w .-]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _problem(code: str, text: str) -> PydanticCustomError:
    # Without a context pydantic leaves braces in the text alone.
    return PydanticCustomError(code, text)


def _show(value: Any) -> str:
    """Return a value as an error shows it: one line, no longer than a glance."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…{shown[-1]}"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "empty (null)"
        case bool():
            return f"the boolean {value}"
        case int() | float():
            return f"the number {_show(value)}"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"


def _check_text(field: str, value: Any) -> str:
    """Return a prompt that can be hashed, stored and tokenised."""
    if not isinstance(value, str):
        # The mend is written where the file is known: `no` is not spelt as the boolean it became.
        raise _problem("wants_text", f"{field} is {_kind(value)}")
    if "\0" in value:
        raise _problem(
            "text", f"{field}={_show(value)}: character {value.index(chr(0)) + 1} is NUL: remove it"
        )
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        where = f"character {error.start + 1} is half of a surrogate pair"
        raise _problem("text", f"{field}={_show(value)}: {where}: remove it") from error
    if size > PROMPT_BYTES_MAX:
        raise _problem("text", f"{field} is {size:,} bytes long: use at most {PROMPT_BYTES_MAX:,}")
    return value


def _check_prompt(value: Any) -> str:
    return _check_text("prompt", value)


def _check_negative_prompt(value: Any) -> str | None:
    return None if value is None else _check_text("negative_prompt", value)


def _check_int(field: str, value: Any, *, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _problem("number", f"{field}={_show(value)}: {_number_mend(value, whole=True)}")
    if value < low:
        raise _problem("number", f"{field}={_show(value)}: use {low} or more")
    if value > high:
        raise _problem("number", f"{field}={_show(value)}: use {high} or less")
    return value


def _number_mend(value: Any, *, whole: bool) -> str:
    kind = "a whole number" if whole else "a number"
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return f"write {kind}"
    if isinstance(value, bool) or not math.isfinite(number) or (whole and not number.is_integer()):
        return f"write {kind}"
    shown = str(int(number)) if number.is_integer() else repr(number)
    return f"this is text: write {shown}" if isinstance(value, str) else f"write {kind}: {shown}"


def _check_seed(value: Any) -> int:
    return _check_int("seed", value, low=0, high=SEED_STOP - 1)


def _check_steps(value: Any) -> int:
    return _check_int("steps", value, low=1, high=STEPS_MAX)


def _check_guidance_scale(value: Any) -> float:
    field = f"guidance_scale={_show(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _problem("number", f"{field}: {_number_mend(value, whole=False)}")
    if not 0 <= value <= GUIDANCE_MAX:
        raise _problem("number", f"{field}: use a number from 0 to {GUIDANCE_MAX:g}")
    # Minus zero is zero, and hashes as such.
    return float(value) + 0.0


def _check_guidance_rule(value: Any) -> str | None:
    """Return the one rule of a case."""
    (rules, problems) = expand_rule(value, lists=False)
    if problems:
        raise _merged(list(_rule_details((), problems)))
    return rules[0]


def _check_guidance_rules(value: Any) -> tuple[str | None, ...]:
    """Return an axis of rules, those with lists in them spread out."""
    items = _check_axis(value)
    count = sum(map(count_rules, items))
    if count > RULES_MAX:
        raise _problem("rules", f"guidance_rule: {count:,} rules: use at most {RULES_MAX:,}")
    rules: list[str | None] = []
    details: list[InitErrorDetails] = []
    for position, item in enumerate(items):
        found, problems = expand_rule(item)
        rules += found
        details += _rule_details((position,), problems)
    if details:
        raise _merged(details)
    return tuple(rules)


def _rule_details(place: tuple[int, ...], problems: list[RuleProblem]) -> Iterable[InitErrorDetails]:
    return (_detail((*place, *problem.place), "rule", problem.text) for problem in problems)


def _check_scheduler(value: Any) -> str:
    if not isinstance(value, str):
        raise _problem("wants_text", f"scheduler is {_kind(value)}")
    try:
        return canonical_scheduler(value)
    except KeyError as error:
        near = difflib.get_close_matches(value.casefold().replace(" ", "_"), SCHEDULERS, n=3, cutoff=0.5)
        mend = f"did you mean {_one_of(near)}?" if near else f"use one of {', '.join(sorted(SCHEDULERS))}"
        raise _problem("scheduler", f"scheduler={_show(value)} is unknown: {mend}") from error


def _check_size(value: Any) -> str:
    """Return a size as "WIDTHxHEIGHT"."""
    field = f"size={_show(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        sides = (value, value)
    elif isinstance(value, str) and (found := _SIZE.match(value.strip().lower())):
        sides = (int(found[1]), int(found[2]))
    else:
        raise _problem("size", f"{field}: write a side in pixels (512) or 'WIDTHxHEIGHT' ('512x768')")
    for side in sides:
        if not SIZE_STEP_PX <= side <= SIZE_MAX_PX:
            raise _problem("size", f"{field}: use sides of {SIZE_STEP_PX} to {SIZE_MAX_PX} pixels")
        if side % SIZE_STEP_PX:
            below = side // SIZE_STEP_PX * SIZE_STEP_PX
            near = f"{below} or {below + SIZE_STEP_PX}" if below < SIZE_MAX_PX else str(below)
            raise _problem("size", f"{field}: {side} is not a multiple of {SIZE_STEP_PX}: use {near}")
    return f"{sides[0]}x{sides[1]}"


def _check_model(value: Any) -> str:
    if not isinstance(value, str):
        raise _problem("wants_text", f"model is {_kind(value)}")
    _check_text("model", value)
    if not value.strip() or len(value) > MODEL_NAME_MAX or _CONTROL.search(value):
        raise _problem(
            "model", f"model={_show(value)}: use a name of 1 to {MODEL_NAME_MAX} printable characters"
        )
    return value


def _check_name(value: Any) -> str:
    if not isinstance(value, str):
        raise _problem("wants_text", f"name is {_kind(value)}")
    if len(value) > NAME_MAX or not _NAME.match(value) or value != value.strip():
        rule = f"use 1 to {NAME_MAX} letters, digits, spaces and . _ -, beginning with a letter or digit"
        raise _problem("name", f"name={_show(value)}: {rule}")
    return value


def _check_format(value: Any) -> str:
    if not isinstance(value, str):
        raise _problem("format", f"format is {_kind(value)}: write one for the whole sweep: {EXAMPLES}")
    try:
        return str(parse_format(value))
    except FormatInvalid as error:
        raise _problem("format", str(error)) from error


def _check_layout(value: Any) -> str:
    known = get_args(Layout)
    if value not in known:
        raise _problem("layout", f"layout={_show(value)}: use {' or '.join(known)}")
    return str(value)


def _check_axis(value: Any) -> Any:
    """Return an axis as a tuple: a single value is an axis of one."""
    if not isinstance(value, list | tuple | range):
        return (value,)
    if not value:
        raise _problem("axis", "the list is empty: give it a value or remove the key")
    return tuple(value)


def _check_cases(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise _problem("cases", f"cases is {_kind(value)}: write a list of mappings: '- {{prompt: ...}}'")
    if not value:
        raise _problem("cases", "cases is empty: give it a case or remove the key")
    return tuple(value)


def _check_case(value: Any) -> Any:
    if not isinstance(value, dict | Case):
        raise _problem(
            "case", f"a case is {_kind(value)}: write a mapping such as {{prompt: a cat, seed: 1}}"
        )
    return value


Prompt = Annotated[str, BeforeValidator(_check_prompt)]
NegativePrompt = Annotated[str | None, BeforeValidator(_check_negative_prompt)]
Seed = Annotated[int, BeforeValidator(_check_seed)]
GuidanceScale = Annotated[float, BeforeValidator(_check_guidance_scale)]
#: Canonical text of a rule (`shared.guidance`); a dump says it as a sweep file would.
GuidanceRule = Annotated[str | None, BeforeValidator(_check_guidance_rule), PlainSerializer(written_rule)]
Steps = Annotated[int, BeforeValidator(_check_steps)]
Scheduler = Annotated[str, BeforeValidator(_check_scheduler)]
#: "WIDTHxHEIGHT", pixels.
Size = Annotated[str, BeforeValidator(_check_size)]
ModelName = Annotated[str, BeforeValidator(_check_model)]
Name = Annotated[str, BeforeValidator(_check_name)]
#: As `str(ImageFormat)` says it.
Format = Annotated[str, BeforeValidator(_check_format)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _check_start(value: Any) -> int:
    return _check_int("seed start", value, low=0, high=SEED_STOP - 1)


def _check_count(value: Any) -> int:
    return _check_int("seed count", value, low=1, high=SEED_STOP)


class SeedSpan(_Strict):
    """Consecutive seeds, `start <= seed < start + count`."""

    start: Annotated[int, BeforeValidator(_check_start)] = 0
    count: Annotated[int, BeforeValidator(_check_count)]

    @model_validator(mode="after")
    def _ends_in_64_bits(self) -> Self:
        if self.start + self.count > SEED_STOP:
            last = self.start + self.count - 1
            raise _problem(
                "number", f"seed: the last of {self.count} from {self.start} is {last}: stay below 2**64"
            )
        return self


class Case(_Strict):
    """A hand-picked combination: one value for each field in `model_fields_set`, the rest from the sweep."""

    prompt: Prompt = ""
    negative_prompt: NegativePrompt = None
    seed: Seed = 0
    guidance_scale: GuidanceScale = 0.0
    guidance_rule: GuidanceRule = None
    steps: Steps = 0
    scheduler: Scheduler = ""
    size: Size = ""
    model: ModelName = ""


def _seed_form(value: Any) -> str:
    return "span" if isinstance(value, dict | SeedSpan) else "list"


_Axis = BeforeValidator(_check_axis)
_RuleAxis = Annotated[
    tuple[Annotated[str | None, PlainSerializer(written_rule)], ...], BeforeValidator(_check_guidance_rules)
]
_SeedList = Annotated[tuple[Seed, ...], _Axis]
SeedAxis = Annotated[
    Annotated[SeedSpan, Tag("span")] | Annotated[_SeedList, Tag("list")],
    Discriminator(_seed_form),
]


class Sweep(_Strict):
    """What a person declares: axes, and cases crossed with them. Every axis is a tuple, however short.

    The values below are the defaults of every field.
    """

    name: Name = "sweep"
    #: What every image becomes; no axis, for it is no part of a job.
    format: Format = str(PNG)
    #: How images lie in the store; no part of a job either.
    layout: Annotated[Layout, BeforeValidator(_check_layout)] = "images"
    #: Empty where every case brings its own.
    prompt: Annotated[tuple[Prompt, ...], _Axis] = ()
    #: None is not "": SDXL renders them differently.
    negative_prompt: Annotated[tuple[NegativePrompt, ...], _Axis] = (None,)
    seed: SeedAxis = Field(default=(0,))
    guidance_scale: Annotated[tuple[GuidanceScale, ...], _Axis] = (7.5,)
    #: None is plain classifier-free guidance.
    guidance_rule: _RuleAxis = (None,)
    steps: Annotated[tuple[Steps, ...], _Axis] = (25,)
    scheduler: Annotated[tuple[Scheduler, ...], _Axis] = (DEFAULT_SCHEDULER,)
    #: Empty for each model's own size (`default_size`).
    size: Annotated[tuple[Size, ...], _Axis] = ()
    model: Annotated[tuple[ModelName, ...], _Axis] = (DEFAULT_MODEL,)
    cases: Annotated[
        tuple[Annotated[Case, BeforeValidator(_check_case)], ...],
        BeforeValidator(_check_cases),
    ] = ()

    @property
    def jobs(self) -> int:
        """How many jobs the sweep declares, the same image counted as often as it is asked for."""
        lengths = (self._length(field) for field in FIELDS)
        return math.prod(lengths) * (len(self.cases) or 1)

    @property
    def case_fields(self) -> tuple[str, ...]:
        """The fields that any case sets, in the order of FIELDS."""
        found = {field for case in self.cases for field in case.model_fields_set}
        return tuple(field for field in FIELDS if field in found)

    def _length(self, field: str) -> int:
        axis = getattr(self, field)
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
            raise _merged([*map(_again, error.errors(include_url=False)), *problems]) from error
        if not problems and sweep.jobs > JOBS_MAX:
            widest = max(("cases", *FIELDS), key=sweep._length)
            text = f"{sweep.jobs:,} jobs: one sweep holds at most {JOBS_MAX:,}: split it"
            problems.append(_detail((widest,), "jobs", text))
        if problems:
            raise _merged(problems)
        return sweep


def default_size(model: str) -> str:
    """Return the size of images that a model draws when nobody says."""
    return DEFAULT_SIZES.get(model, DEFAULT_SIZE)


def size_sides(size: str) -> tuple[int, int]:
    """Return (width, height) in pixels of a `Sweep`'s size."""
    width, height = size.split("x")
    return int(width), int(height)


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep file. Its name is the file's, where it says no other.

    Raises: SweepError listing every problem; OSError where the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    return parse_sweep(data, filename=path.name)


def parse_sweep(text: str | bytes, *, filename: str = "sweep.yaml") -> Sweep:
    """Read the text of a sweep file.

    Raises: SweepError listing every problem, each with its line, field and mend.
    """
    if isinstance(text, bytes):
        text = decode_text(text, filename=filename)
    document = read_yaml(text, filename=filename)
    if not isinstance(document.value, dict):
        raise SweepError(
            [
                f"{filename}, line 1: the file is {_kind(document.value)}: a sweep is a mapping: 'prompt: a cat'"
            ]
        )
    value = {"name": _name_of(filename), **document.value}
    try:
        sweep = Sweep.model_validate(value)
    except ValidationError as error:
        found = [_located_problem(detail, document.located) for detail in error.errors(include_url=False)]
        problems = [*document.problems, *(problem for problem in found if problem is not None)]
    else:
        problems = document.problems
    if problems:
        raise SweepError(_lines(problems, filename))
    return sweep


def sweep_from_mapping(mapping: Mapping[str, Any]) -> Sweep:
    """Make a sweep of what a sweep file would hold, as Python values.

    Raises: SweepError listing every problem, each with its field and mend.
    """
    try:
        return Sweep.model_validate(dict(mapping))
    except ValidationError as error:
        problems = [_unlocated_problem(detail, mapping) for detail in error.errors(include_url=False)]
        raise SweepError(_lines(problems, "")) from error


# What only the whole sweep shows.


def _whole_problems(data: Mapping[str, Any]) -> Iterable[InitErrorDetails]:
    """Yield the problems between keys, whatever else is wrong with their values."""
    cases = data.get("cases")
    mappings = (
        [(n, case) for n, case in enumerate(cases) if _is_case(case)]
        if isinstance(cases, list | tuple)
        else []
    )
    if "prompt" not in data:
        if not cases:
            yield _detail((), "missing", "no prompt: give the sweep a 'prompt', or one to every case")
        for number, case in mappings:
            if "prompt" not in _fields_set(case):
                yield _detail(("cases", number), "missing", "no prompt, and none at the top: add one")
    for field in FIELDS:
        if _declared_length(field, data.get(field)) < 2:
            continue
        for number, case in mappings:
            if field in _fields_set(case):
                text = f"{field} is a list at the top and set in a case: keep one of them"
                yield _detail(("cases", number, field), "cases", text)


def _is_case(case: Any) -> bool:
    return isinstance(case, dict | Case)


def _fields_set(case: dict[str, Any] | Case) -> Iterable[str]:
    return case.model_fields_set if isinstance(case, Case) else case


def _declared_length(field: str, value: Any) -> int:
    if field == "guidance_rule":
        return sum(map(count_rules, value if isinstance(value, list | tuple) else (value,)))
    return _axis_length(value)


def _axis_length(value: Any) -> int:
    if isinstance(value, SeedSpan):
        return value.count
    if isinstance(value, dict):
        count = value.get("count")
        return count if isinstance(count, int) else 1
    return len(value) if isinstance(value, list | tuple | range) else 1


def _detail(loc: tuple[str | int, ...], code: str, text: str) -> InitErrorDetails:
    return InitErrorDetails(type=_problem(code, text), loc=loc, input=None)


def _again(detail: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=_problem(detail["type"], detail["msg"]), loc=tuple(detail["loc"]), input=detail["input"]
    )


def _merged(details: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("Sweep", details)


# What a problem says.


def _located_problem(detail: ErrorDetails, root: Located) -> Problem | None:
    """Return a problem with its line, or None where the reader of the file has named it already."""
    place = root
    for part in detail["loc"]:
        # Discriminator tags and the single value of an axis are steps that the file does not have.
        place = place.children.get(part, place)
    if place.refused and detail["type"] != "extra_forbidden":
        return None
    if detail["type"] == "rule" and _holds_refused(place):
        return None
    return Problem(place.line, _case_prefix(detail["loc"]) + _text(detail, place.raw))


def _holds_refused(place: Located) -> bool:
    return place.refused or any(map(_holds_refused, place.children.values()))


def _unlocated_problem(detail: ErrorDetails, mapping: Mapping[str, Any]) -> Problem:
    """Return a problem of values that never stood in a file: of a list, say which item."""
    loc = detail["loc"]
    prefix = _case_prefix(loc)
    item = next((part for part in loc[1:] if isinstance(part, int)), None)
    if not prefix and item is not None and _axis_length(mapping.get(str(loc[0]))) > 1:
        prefix = f"item {item + 1}: "
    return Problem(None, prefix + _text(detail, None))


def _case_prefix(loc: tuple[str | int, ...]) -> str:
    return f"case {int(loc[1]) + 1}: " if loc[:1] == ("cases",) and len(loc) > 1 else ""


def _text(detail: ErrorDetails, raw: str | None) -> str:
    kind, text, field = detail["type"], detail["msg"], str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        return _unknown_key(field, detail["loc"])
    if kind == "missing" and detail["loc"][:1] == ("seed",):
        return f"seed has no {field}: write {{start: 0, count: 8}}"
    if kind == "wants_text":
        return _wants_text(text, detail["input"], raw)
    if kind == "axis":
        return f"{detail['loc'][0]}: {text}"
    return text


def _wants_text(text: str, value: Any, raw: str | None) -> str:
    if value is None:
        return f"{text}: write the text, or '' for an empty one"
    if raw is not None:
        return f"{text}: quote it: '{raw}'"
    if isinstance(value, dict | list | tuple):
        return f"{text}: write text, in quotes if it begins with a bracket"
    return f"{text}: write text"


def _unknown_key(key: str, loc: tuple[str | int, ...]) -> str:
    known: tuple[str, ...] = (*FIELDS, "name", "format", "layout", "cases")
    if loc[0] == "cases":
        known = FIELDS
        if key in ("format", "layout"):
            return f"{key} holds for the whole sweep: write it at the top"
    elif loc[0] == "seed":
        known = ("start", "count")
    folded = key.strip().casefold().replace("-", "_").replace(" ", "_")
    if "guidance_rule" in known and folded in _RULE_ALIASES:
        return f"unknown key {_show(key)}: write 'guidance_rule: {_RULE_ALIASES[folded]}'"
    near = [_ALIASES[folded]] if folded in _ALIASES else difflib.get_close_matches(folded, known, n=1)
    if near and near[0] in known:
        return f"unknown key {_show(key)}: did you mean {near[0]!r}?"
    return f"unknown key {_show(key)}: use {', '.join(known)}"


def _one_of(names: list[str]) -> str:
    return " or ".join(json.dumps(name) for name in names).replace('"', "'")


def _lines(problems: list[Problem], filename: str) -> list[str]:
    """Return the problems in the order of the file, each as one line."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    lines = [_line(problem, filename) for problem in ordered[:_PROBLEMS_SHOWN]]
    if len(ordered) > _PROBLEMS_SHOWN:
        lines.append(f"... and {len(ordered) - _PROBLEMS_SHOWN:,} more problems")
    return lines


def _line(problem: Problem, filename: str) -> str:
    place = (
        f"{filename}, line {problem.line}: "
        if problem.line is not None
        else f"{filename}: "
        if filename
        else ""
    )
    return place + problem.text


def _name_of(filename: str) -> str:
    """Return the name of a sweep that names itself by its file."""
    stem = re.sub(r"[^\w .-]", "-", Path(filename).stem)[:NAME_MAX].strip(" .-_")
    return stem if _NAME.match(stem) else "sweep"
