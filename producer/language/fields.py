"""Checks one value of each key of a sweep: what it may be, and what to write instead. Knows nothing of whole sweeps."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from producer.language.guidance_rules import RULES_MAX, count_rules, expand_rule, written_rule
from producer.language.negatives import expand_negative
from producer.language.problem import Problem
from producer.language.ranges import Span, expand_range, is_range
from producer.language.wording import kind, show
from shared.images.format import FORMAT_EXAMPLES, FormatInvalid, parse_format
from shared.job import PROMPT_BYTES_MAX, SWEEP_FIELDS
from shared.model_reading import PREDICTIONS, Reading
from shared.schedulers import SCHEDULERS, canonical_scheduler

#: Fields of a job that a sweep may set, in the order in which the documentation names them.
FIELDS = SWEEP_FIELDS

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

_SIZE = re.compile(r"([0-9]{1,9})\s*[x×]\s*([0-9]{1,9})\Z", re.ASCII)
NAME = re.compile(r"[^\W_][\w .-]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def problem(code: str, text: str) -> PydanticCustomError:
    """Return what a validator raises: a problem in words, which are shown as they stand."""
    # Without a context pydantic leaves braces in the text alone.
    return PydanticCustomError(code, text)


def check_text(field: str, value: Any) -> str:
    """Return a prompt that can be hashed, stored and tokenised."""
    if not isinstance(value, str):
        # The fix is written where the file is known: `no` is not spelt as the boolean it became.
        raise problem("wants_text", f"{field} is {kind(value)}")
    if "\0" in value:
        raise problem("text", f"{field}={show(value)}: character {value.index(chr(0)) + 1} is NUL: remove it")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        where = f"character {error.start + 1} is half of a surrogate pair"
        raise problem("text", f"{field}={show(value)}: {where}: remove it") from error
    if size > PROMPT_BYTES_MAX:
        raise problem("text", f"{field} is {size:,} bytes long: use at most {PROMPT_BYTES_MAX:,}")
    return value


def _check_prompt(value: Any) -> str:
    return check_text("prompt", value)


def _check_negative_prompt(value: Any) -> str | None:
    return None if value is None else check_text("negative_prompt", value)


def check_int(field: str, value: Any, *, low: int, high: int) -> int:
    """Return a whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise problem("number", f"{field}={show(value)}: {_number_fix(value, whole=True)}")
    if value < low:
        raise problem("number", f"{field}={show(value)}: use {low} or more")
    if value > high:
        raise problem("number", f"{field}={show(value)}: use {high} or less")
    return value


def _number_fix(value: Any, *, whole: bool) -> str:
    wanted = "a whole number" if whole else "a number"
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return f"write {wanted}"
    if isinstance(value, bool) or not math.isfinite(number) or (whole and not number.is_integer()):
        return f"write {wanted}"
    shown = str(int(number)) if number.is_integer() else repr(number)
    return f"this is text: write {shown}" if isinstance(value, str) else f"write {wanted}: {shown}"


def _check_seed(value: Any) -> int:
    return check_int("seed", value, low=0, high=SEED_STOP - 1)


def _check_steps(value: Any) -> int:
    return check_int("steps", value, low=1, high=STEPS_MAX)


def _check_guidance_scale(value: Any) -> float:
    field = f"guidance_scale={show(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem("number", f"{field}: {_number_fix(value, whole=False)}")
    if not 0 <= value <= GUIDANCE_MAX:
        raise problem("number", f"{field}: use a number from 0 to {GUIDANCE_MAX:g}")
    # Minus zero is zero, and hashes as such.
    return float(value) + 0.0


def _check_guidance_rule(value: Any) -> str | None:
    """Return the one rule of a case."""
    (rules, problems) = expand_rule(value, lists=False)
    if problems:
        raise merged(list(_rule_details((), problems)))
    return rules[0]


def check_guidance_rules(value: Any) -> tuple[str | None, ...]:
    """Return an axis of rules, those with lists in them spread out."""
    items = check_axis(value)
    count = sum(map(count_rules, items))
    if count > RULES_MAX:
        raise problem("rules", f"guidance_rule: {count:,} rules: use at most {RULES_MAX:,}")
    rules: list[str | None] = []
    details: list[InitErrorDetails] = []
    for position, item in enumerate(items):
        found, problems = expand_rule(item)
        rules += found
        details += _rule_details((position,), problems)
    if details:
        raise merged(details)
    return tuple(rules)


def _rule_details(place: tuple[int, ...], problems: list[Problem]) -> Iterable[InitErrorDetails]:
    return (detail((*place, *problem.path), "rule", problem.text) for problem in problems)


def _check_scheduler(value: Any) -> str:
    if not isinstance(value, str):
        raise problem("wants_text", f"scheduler is {kind(value)}")
    try:
        return canonical_scheduler(value)
    except KeyError as error:
        near = difflib.get_close_matches(value.casefold().replace(" ", "_"), SCHEDULERS, n=3, cutoff=0.5)
        fix = f"did you mean {one_of(near)}?" if near else f"use one of {', '.join(sorted(SCHEDULERS))}"
        raise problem("scheduler", f"scheduler={show(value)} is unknown: {fix}") from error


def _check_size(value: Any) -> str:
    """Return a size as "WIDTHxHEIGHT"."""
    field = f"size={show(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        sides = (value, value)
    elif isinstance(value, str) and (found := _SIZE.match(value.strip().lower())):
        sides = (int(found[1]), int(found[2]))
    else:
        raise problem("size", f"{field}: write a side in pixels (512) or 'WIDTHxHEIGHT' ('512x768')")
    for side in sides:
        if not SIZE_STEP_PX <= side <= SIZE_MAX_PX:
            raise problem("size", f"{field}: use sides of {SIZE_STEP_PX} to {SIZE_MAX_PX} pixels")
        if side % SIZE_STEP_PX:
            below = side // SIZE_STEP_PX * SIZE_STEP_PX
            near = f"{below} or {below + SIZE_STEP_PX}" if below < SIZE_MAX_PX else str(below)
            raise problem("size", f"{field}: {side} is not a multiple of {SIZE_STEP_PX}: use {near}")
    return f"{sides[0]}x{sides[1]}"


def _check_model(value: Any) -> str:
    if isinstance(value, Mapping):
        return _check_read_model(value)
    if not isinstance(value, str):
        raise problem("wants_text", f"model is {kind(value)}")
    check_text("model", value)
    if not value.strip() or len(value) > MODEL_NAME_MAX or _CONTROL.search(value):
        raise problem(
            "model", f"model={show(value)}: use a name of 1 to {MODEL_NAME_MAX} printable characters"
        )
    return value


def _check_read_model(value: Mapping[Any, Any]) -> str:
    """Return a model with how it is to be read, as `name+v_prediction+zero_snr`."""
    form = "{name: photo, prediction_type: v_prediction, zero_snr: true}"
    if unknown := [key for key in value if key not in ("name", "prediction_type", "zero_snr")]:
        raise problem("model", f"model: unknown key {show(unknown[0])}: write {form}")
    if "name" not in value:
        raise problem("model", f"model has no name: write {form}")
    prediction, zero_snr = value.get("prediction_type"), value.get("zero_snr")
    if prediction not in (None, *PREDICTIONS):
        raise problem("model", f"prediction_type={show(prediction)}: use {', '.join(PREDICTIONS)}")
    if zero_snr is not None and not isinstance(zero_snr, bool):
        raise problem("model", f"zero_snr={show(zero_snr)}: write true or false")
    return f"{_check_model(value['name'])}{Reading(prediction_type=prediction, zero_snr=zero_snr)}"


def check_name(value: Any) -> str:
    """Return a sweep's name."""
    if not isinstance(value, str):
        raise problem("wants_text", f"name is {kind(value)}")
    if len(value) > NAME_MAX or not NAME.match(value) or value != value.strip():
        rule = f"use 1 to {NAME_MAX} letters, digits, spaces and . _ -, beginning with a letter or digit"
        raise problem("name", f"name={show(value)}: {rule}")
    return value


def _check_format(value: Any) -> str:
    if not isinstance(value, str):
        raise problem("format", f"format is {kind(value)}: write one for the whole sweep: {FORMAT_EXAMPLES}")
    try:
        return str(parse_format(value))
    except FormatInvalid as error:
        raise problem("format", str(error)) from error


def check_axis(value: Any) -> Any:
    """Return an axis as a tuple: a single value is an axis of one."""
    if not isinstance(value, list | tuple | range):
        return (value,)
    if not value:
        raise problem("axis", "the list is empty: give it a value or remove the key")
    return tuple(value)


Prompt = Annotated[str, BeforeValidator(_check_prompt)]
NegativePrompt = Annotated[str | None, BeforeValidator(_check_negative_prompt)]
Seed = Annotated[int, BeforeValidator(_check_seed)]
GuidanceScale = Annotated[float, BeforeValidator(_check_guidance_scale)]
#: Canonical text of a rule (`shared.guidance`); a dump says it as a sweep file would.
GuidanceRuleValue = Annotated[
    str | None, BeforeValidator(_check_guidance_rule), PlainSerializer(written_rule)
]
Steps = Annotated[int, BeforeValidator(_check_steps)]
Scheduler = Annotated[str, BeforeValidator(_check_scheduler)]
#: "WIDTHxHEIGHT", pixels.
Size = Annotated[str, BeforeValidator(_check_size)]
ModelName = Annotated[str, BeforeValidator(_check_model)]
Name = Annotated[str, BeforeValidator(check_name)]
#: As `str(ImageFormat)` says it.
Format = Annotated[str, BeforeValidator(_check_format)]


def detail(loc: tuple[str | int, ...], code: str, text: str) -> InitErrorDetails:
    """Return a problem at a place of the sweep."""
    return InitErrorDetails(type=problem(code, text), loc=loc, input=None)


def merged(details: list[InitErrorDetails]) -> ValidationError:
    """Return one error of several problems."""
    return ValidationError.from_exception_data("Sweep", details)


def one_of(names: list[str]) -> str:
    """Return names as a person lists them: 'a' or 'b'."""
    return " or ".join(json.dumps(name) for name in names).replace('"', "'")


def check_numbers(field: str, value: Any) -> Any:
    """Return an axis of numbers: one, a list, or a range such as {start: 3, stop: 9, step: 1.5}."""
    if isinstance(value, Span):
        return value
    if not is_range(value):
        return check_axis(value)
    values, problems = expand_range(field, value, whole=field != "guidance_scale")
    if problems:
        raise merged([detail(found.path, "range", found.text) for found in problems])
    if isinstance(values, Span):
        for end in (values.start, values.stop):
            CHECKS[field](end)
        return values
    return tuple(values)


def check_negatives(value: Any) -> tuple[Any, ...]:
    """Return an axis of negative prompts: presets, ablations and placebos written out."""
    texts: list[Any] = []
    details: list[InitErrorDetails] = []
    for position, item in enumerate(check_axis(value)):
        if not isinstance(item, Mapping):
            texts.append(item)
            continue
        found, problems = expand_negative(item)
        texts += [negative.text for negative in found]
        details += [detail((position, *trouble.path), "negative", trouble.text) for trouble in problems]
    if details:
        raise merged(details)
    return tuple(texts)


#: Field of a job -> what checks one value of it.
CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "prompt": _check_prompt,
    "negative_prompt": _check_negative_prompt,
    "seed": _check_seed,
    "guidance_scale": _check_guidance_scale,
    "guidance_rule": _check_guidance_rule,
    "steps": _check_steps,
    "scheduler": _check_scheduler,
    "size": _check_size,
    "model": _check_model,
}


def name_of_file(filename: str) -> str:
    """Return the name of a sweep that names itself by its file."""
    stem = re.sub(r"[^\w .-]", "-", PurePath(filename).stem)[:NAME_MAX].strip(" .-_")
    return stem if NAME.match(stem) else "sweep"
