"""Turns pydantic's errors into problems of a sweep, one line each, with place and fix. Checks nothing itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from producer.language.document import Located
from producer.language.fields import CHECKS
from producer.language.problem import Problem
from producer.language.wording import show

#: Keys of a whole sweep that are no field of a job.
WHOLE_KEYS = (
    "name",
    "format",
    "layout",
    "cases",
    "zip",
    "vars",
    "replace",
    "expand",
    "wildcards",
    "styles",
    "style",
    "where",
    "skip",
    "sample",
    "repeat",
    "include",
)

#: Keys of the mappings within a sweep, and how such a mapping is written.
_INNER_KEYS = {
    "seed": ("start", "count", "stop", "step", "per"),
    "sample": ("count", "seed", "method"),
    "expand": ("count", "seed"),
}
_INNER_FORMS = {
    "seed": "{start: 0, count: 8}",
    "sample": "{count: 1000, seed: 0}",
    "expand": "{count: 100, seed: 0}",
}

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
    "wildcard": "wildcards",
    "variables": "vars",
    "variable": "vars",
    "filter": "where",
    "exclude": "skip",
    "search_replace": "replace",
    "prompt_sr": "replace",
    "templates": "expand",
    "seeds": "seed",
    "runs": "repeat",
    "iterations": "repeat",
    "batch_count": "repeat",
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

#: A line of a wildcard, as a sweep that is complete calls it.
_WILDCARD_ITEM = re.compile(r"(?<=: )wildcard (?P<name>.+?), item (?P<item>[0-9]+)(?=: )")

#: Problems shown at once. A table with a wrong column need not scroll for an hour.
_PROBLEMS_SHOWN = 100


def located_problem(detail: ErrorDetails, root: Located) -> Problem | None:
    """Return a problem with its line, or None where the reader of the file has named it already."""
    place = root
    for part in detail["loc"]:
        # Discriminator tags and the single value of an axis are steps that the file does not have.
        place = place.children.get(part, place)
    if place.refused and detail["type"] != "extra_forbidden":
        return None
    if detail["type"] == "rule" and _holds_refused(place):
        return None
    text = _text(detail, place.raw)
    if detail["type"] == "template":
        text = _WILDCARD_ITEM.sub(lambda found: _line_of(found, root), text, count=1)
    return place.problem(_case_prefix(detail["loc"]) + text)


def _line_of(found: re.Match[str], root: Located) -> str:
    """Return where a line of a wildcard stands: its file and line, which a sweep's own values do not have."""
    wildcard = root.children.get("wildcards", root).children.get(found["name"])
    line = None if wildcard is None else wildcard.children.get(int(found["item"]) - 1)
    return f"{line.file}, line {line.line}" if line is not None and line.file and line.line else found[0]


def _holds_refused(place: Located) -> bool:
    return place.refused or any(map(_holds_refused, place.children.values()))


def unlocated_problem(detail: ErrorDetails, mapping: Mapping[str, Any]) -> Problem:
    """Return a problem of values that never stood in a file: of a list, say which item."""
    loc = detail["loc"]
    prefix = _case_prefix(loc)
    item = next((part for part in loc[1:] if isinstance(part, int)), None)
    if not prefix and item is not None and axis_length(mapping.get(str(loc[0]))) > 1:
        prefix = f"item {item + 1}: "
    return Problem(text=prefix + _text(detail, None))


def _case_prefix(loc: tuple[str | int, ...]) -> str:
    return f"case {int(loc[1]) + 1}: " if loc[:1] == ("cases",) and len(loc) > 1 else ""


def _text(detail: ErrorDetails, raw: str | None) -> str:
    kind, text, field = detail["type"], detail["msg"], str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        return _unknown_key(field, detail["loc"])
    if kind == "missing" and detail["loc"] and detail["loc"][0] in _INNER_FORMS:
        return f"{detail['loc'][0]} has no {field}: write {_INNER_FORMS[str(detail['loc'][0])]}"
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
    known: tuple[str, ...] = (*CHECKS, *WHOLE_KEYS)
    if loc[0] == "cases":
        known = tuple(CHECKS)
        if key in WHOLE_KEYS:
            return f"{key} holds for the whole sweep: write it at the top"
    elif loc[0] in _INNER_KEYS:
        known = _INNER_KEYS[str(loc[0])]
    folded = key.strip().casefold().replace("-", "_").replace(" ", "_")
    if "guidance_rule" in known and folded in _RULE_ALIASES:
        return f"unknown key {show(key)}: write 'guidance_rule: {_RULE_ALIASES[folded]}'"
    near = [_ALIASES[folded]] if folded in _ALIASES else difflib.get_close_matches(folded, known, n=1)
    if near and near[0] in known:
        return f"unknown key {show(key)}: did you mean {near[0]!r}?"
    return f"unknown key {show(key)}: use {', '.join(known)}"


def lines(problems: list[Problem], filename: str) -> list[str]:
    """Return the problems in the order of the file, each as one line."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    said = [problem.in_words(filename) for problem in ordered[:_PROBLEMS_SHOWN]]
    if len(ordered) > _PROBLEMS_SHOWN:
        said.append(f"... and {len(ordered) - _PROBLEMS_SHOWN:,} more problems")
    return said


def axis_length(value: Any) -> int:
    """Return how many values an axis has as it was written, right or wrong."""
    if isinstance(value, Mapping):
        count = value.get("count", 2 if "stop" in value else 1)
        return count if isinstance(count, int) else 1
    return len(value) if isinstance(value, list | tuple | range) else 1
