"""Guidance rules: how the predictions for prompt and negative prompt are combined. Pure data.

A job without a rule (`None`) is guided as diffusers guides it: classifier-free guidance with the negative prompt in
the unconditional branch. A rule is written as a name or a mapping, checked here, and stored as one canonical text,
so that equal rules are equal jobs. What a rule does to tensors stands in `worker.sampling.guidance`.

Names: e+ is the prediction for the prompt, e- for the negative prompt, e_ for the empty prompt; w is the guidance
scale, and a step without a negative branch is a step at w = 1.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, get_args

from shared.job import PROMPT_BYTES_MAX, canonical_json

RuleName = Literal["cfg", "decoupled", "perp_neg", "apg", "cfg_zero_star"]

#: Negatives beside the negative prompt. Each costs a UNet row at every step.
NEGATIVES_MAX = 8

#: Weights beyond it are slips of the pen.
WEIGHT_MAX = 1000.0

_WEIGHTED: tuple[RuleName, ...] = ("decoupled", "perp_neg")

#: Characters of a text that a label shows.
_LABEL_TEXT_MAX = 24

#: Characters of an unknown name that are compared with the known ones.
_NAME_MAX = 100


class RuleInvalid(ValueError):
    """A guidance rule says something it may not. The message names field, value and fix."""

    def __init__(self, text: str, *, field: str | None = None) -> None:
        super().__init__(f"guidance_rule: {text}")
        #: The field of the mapping that is wrong; None where it is the rule as a whole.
        self.field = field


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightedText:
    """A further negative prompt and how strongly it pushes."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceRule:
    """One way to guide. The defaults of every field together are plain classifier-free guidance."""

    rule: RuleName = "cfg"
    #: Phi of guidance rescale, 0 to 1: pulls the standard deviation of the guided prediction back to e+'s.
    rescale: float = 0.0
    #: Part of the steps that is guided, 0 <= start < stop <= 1; the others are steps of the prompt alone, one row each.
    interval: tuple[float, float] = (0.0, 1.0)
    #: Part of the steps that uses the negatives, 0 <= start < stop <= 1; in the others the empty prompt stands there.
    negative_interval: tuple[float, float] = (0.0, 1.0)
    #: decoupled, perp_neg: how strongly the negative prompt pushes. None is w - 1 for decoupled (exactly cfg), and 1
    #: for perp_neg.
    negative_weight: float | None = None
    #: decoupled, perp_neg: negatives beside the negative prompt.
    negatives: tuple[WeightedText, ...] = ()
    #: apg: share of the part of e+ - e- parallel to e+ that is kept, 0 to 1.
    eta: float = 0.0
    #: apg: a longer e+ - e- (Euclidean, over the whole latent) is cut to this length; 0 is no limit.
    norm_threshold: float = 15.0
    #: apg: how much of the previous steps' difference is added, -1 to 1; negative values damp.
    momentum: float = -0.5
    #: cfg_zero_star: first steps whose prediction is zero.
    zero_init_steps: int = 0

    @property
    def needs_empty(self) -> bool:
        """Whether the empty prompt is predicted besides the negative one, at every guided step."""
        return self.rule in _WEIGHTED

    @property
    def rows(self) -> int:
        """UNet rows of a guided step, at most: the prompt, the negatives, and the empty prompt where it is needed."""
        return 2 + self.needs_empty + len(self.negatives)


#: Every field of a rule, in the order in which the documentation names them.
RULE_FIELDS = tuple(field.name for field in fields(GuidanceRule))


def parse_rule(value: Any) -> str | None:
    """Return a rule as its canonical text, or None where it says plain classifier-free guidance.

    Args:
        value: None, a rule's name, a canonical text, or a mapping of fields of `GuidanceRule`; `negatives` may be a
            mapping of text to weight, or a list of texts, of [text, weight] pairs, or of {text, weight} mappings.

    Raises: RuleInvalid (a ValueError) with the field, the value and the fix.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _read_json(value) if value.startswith("{") else {"rule": value}
    if not isinstance(value, Mapping):
        raise RuleInvalid(f"{_show(value)}: write a name such as apg, or a mapping such as {{rescale: 0.7}}")
    rule = GuidanceRule(**{name: check_field(name, found) for name, found in value.items()})
    _check_whole(rule, value)
    return rule_text(rule)


def check_field(name: str, value: Any) -> Any:
    """Return the value of one field as `GuidanceRule` holds it. What it is to the others is `parse_rule`'s to check.

    Raises: RuleInvalid.
    """
    if name not in _CHECKS:
        near = difflib.get_close_matches(_folded(name), RULE_FIELDS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use {', '.join(RULE_FIELDS)}"
        raise RuleInvalid(f"unknown {_show(name)}: {fix}", field=name)
    try:
        return _CHECKS[name](value)
    except _Wrong as error:
        raise RuleInvalid(str(error), field=name) from error


def rule_text(rule: GuidanceRule) -> str | None:
    """Return the canonical text: sorted JSON of what differs from the defaults; None where nothing does."""
    rule = _simplified(rule)
    document = {field.name: getattr(rule, field.name) for field in _changed(rule)}
    if rule.negatives:
        document["negatives"] = [[negative.text, negative.weight] for negative in rule.negatives]
    return canonical_json(document).decode() if document else None


def read_rule(text: str | None) -> GuidanceRule:
    """Return the rule of a canonical text. Raises ValueError for a text that `parse_rule` would not have written."""
    if text is None:
        return GuidanceRule()
    value = _read_json(text)
    if parse_rule(value) != text:
        raise RuleInvalid(f"{_show(text)}: not in canonical form")
    return GuidanceRule(**{name: check_field(name, found) for name, found in value.items()})


def rule_label(text: str | None) -> str:
    """Return a rule in a few words, such as `apg` or `rescale 0.7, interval 0.2–0.8`: for people, not for reading back.

    A text that is no rule of this version is its own label.
    """
    try:
        rule = read_rule(text)
    except ValueError:
        return _short(str(text))
    parts = [_field_label(field.name, getattr(rule, field.name)) for field in _changed(rule)]
    return ", ".join(parts) or "cfg"


def _field_label(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    match name:
        case "rule":
            return str(value)
        case "interval" | "negative_interval":
            return f"{words} {value[0]:g}–{value[1]:g}"
        case "negatives":
            texts = (_short(n.text) if n.weight == 1.0 else f"{_short(n.text)} {n.weight:g}" for n in value)
            return f"{words} {' and '.join(texts)}"
    return f"{words} {value:g}"


def _changed(rule: GuidanceRule) -> list[Any]:
    """Return the fields whose value is not the default."""
    return [field for field in fields(rule) if getattr(rule, field.name) != field.default]


def _simplified(rule: GuidanceRule) -> GuidanceRule:
    """Return the one spelling of rules that are the same arithmetic.

    Minus zero is zero. The order of negatives does not count, and one of weight 0 pushes nowhere. Weight 1 is
    perp_neg's default, and decoupled with nothing of its own is cfg.
    """
    negatives = tuple(sorted((n for n in rule.negatives if n.weight), key=lambda n: n.text))
    values = {field.name: _unsigned_zero(getattr(rule, field.name)) for field in fields(rule)}
    rule = GuidanceRule(**{**values, "negatives": negatives})
    if rule.rule == "perp_neg" and rule.negative_weight == 1.0:
        return replace(rule, negative_weight=None)
    if rule.rule == "decoupled" and rule.negative_weight is None and not negatives:
        return replace(rule, rule="cfg")
    return rule


def _unsigned_zero(value: Any) -> Any:
    """Return a field's value in which no zero has a sign: zeros are equal, and must be the same text."""
    if isinstance(value, tuple):
        return tuple(_unsigned_zero(part) for part in value)
    return value + 0.0 if isinstance(value, float) else value


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleInvalid(f"{_show(text)}: not JSON") from error
    if not isinstance(value, dict):
        raise RuleInvalid(f"{_show(text)}: not in canonical form")
    return value


# Checks of single fields: each returns the value as `GuidanceRule` holds it.


class _Wrong(Exception):  # its field is `check_field`'s to say
    """A value is refused, and why."""


def _number(name: str, low: float, high: float, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{name}={_show(value)}: write a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise _Wrong(f"{name}={_show(value)}: use {low:g} to {high:g}")
    return float(value)


def _rule_name(value: Any) -> str:
    names = get_args(RuleName)
    if not isinstance(value, str) or value not in names:
        near = difflib.get_close_matches(_folded(value), names, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}"
        raise _Wrong(f"rule={_show(value)} is unknown: {fix}")
    return value


def _interval(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _Wrong(f"{name}={_show(value)}: write [start, stop], parts of the steps such as [0.2, 0.8]")
    start, stop = (_number(name, 0.0, 1.0, side) for side in value)
    if not start < stop:
        raise _Wrong(f"{name}=[{start:g}, {stop:g}]: start must be less than stop")
    return start, stop


def _negatives(value: Any) -> tuple[WeightedText, ...]:
    if isinstance(value, Mapping):
        value = [list(pair) for pair in value.items()]
    if not isinstance(value, list | tuple):
        raise _Wrong(
            f"negatives={_show(value)}: write a mapping of text to weight, such as {{hat: 1, blurry: 0.5}}"
        )
    if len(value) > NEGATIVES_MAX:
        raise _Wrong(f"{len(value):,} negatives: use at most {NEGATIVES_MAX}")
    negatives = tuple(_weighted(item) for item in value)
    texts = [negative.text for negative in negatives]
    for text in texts:
        if texts.count(text) > 1:
            raise _Wrong(f"negatives: {_show(text)} stands there twice: keep one, with the weights added")
    return negatives


def _weighted(item: Any) -> WeightedText:
    if isinstance(item, Mapping) and set(item) <= {"text", "weight"} and "text" in item:
        item = (item["text"], item.get("weight", 1.0))
    if isinstance(item, str):
        item = (item, 1.0)
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[0], str):
        raise _Wrong(f"negatives: {_show(item)}: write a text, or a text and its weight")
    text, weight = item
    return WeightedText(
        text=_text(text), weight=_number("negatives: weight", -WEIGHT_MAX, WEIGHT_MAX, weight)
    )


def _text(text: str) -> str:
    """Return a text that can be hashed, stored and tokenised; the empty prompt would push away from itself."""
    if not text:
        raise _Wrong("negatives: '' pushes nowhere: remove it")
    if "\0" in text:
        raise _Wrong(f"negatives: {_show(text)}: remove the NUL character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _Wrong(f"negatives: {_show(text)}: remove the half of a surrogate pair") from error
    if size > PROMPT_BYTES_MAX:
        raise _Wrong(f"negatives: a text is {size:,} bytes long: use at most {PROMPT_BYTES_MAX:,}")
    return text


def _steps(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000:
        raise _Wrong(f"{name}={_show(value)}: write a whole number from 0 to 1000")
    return value


def _negative_weight(value: Any) -> float | None:
    return None if value is None else _number("negative_weight", -WEIGHT_MAX, WEIGHT_MAX, value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "rule": _rule_name,
    "rescale": partial(_number, "rescale", 0.0, 1.0),
    "interval": partial(_interval, "interval"),
    "negative_interval": partial(_interval, "negative_interval"),
    "negative_weight": _negative_weight,
    "negatives": _negatives,
    "eta": partial(_number, "eta", 0.0, 1.0),
    "norm_threshold": partial(_number, "norm_threshold", 0.0, 1e6),
    "momentum": partial(_number, "momentum", -1.0, 1.0),
    "zero_init_steps": partial(_steps, "zero_init_steps"),
}

#: Fields that only some rules read.
_ONLY: dict[str, tuple[RuleName, ...]] = {
    "negative_weight": _WEIGHTED,
    "negatives": _WEIGHTED,
    "eta": ("apg",),
    "norm_threshold": ("apg",),
    "momentum": ("apg",),
    "zero_init_steps": ("cfg_zero_star",),
}


def _check_whole(rule: GuidanceRule, given: Mapping[str, Any]) -> None:
    """Refuse a field that its rule would not read: it would make jobs differ that are one image."""
    for name in sorted(given):
        readers = _ONLY.get(name)
        if readers and rule.rule not in readers:
            fix = f"set rule: {' or '.join(readers)}, or remove it"
            raise RuleInvalid(f"{name} is not read by {rule.rule}: {fix}", field=name)


# Values as messages and labels show them.


def _show(value: Any) -> str:
    """Return a value on one line, no longer than a glance."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…{shown[-1]}"


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_TEXT_MAX else f"{text[: _LABEL_TEXT_MAX - 1]}…"


def _folded(value: Any) -> str:
    return str(value)[:_NAME_MAX].casefold().replace("-", "_").replace(" ", "_").replace("*", "_star")
