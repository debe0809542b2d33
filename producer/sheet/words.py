"""Fields and values as a sheet names them, in words. Knows nothing of fonts, pixels or HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.sheet.cells import State
from shared.guidance import rule_label

#: What stands where an image does not.
STATE_WORDS: Mapping[State, str] = {
    "done": "done",
    "failed": "failed",
    "waiting": "waiting",
    "running": "being rendered",
    "paused": "paused",
    "cancelled": "cancelled",
    "missing": "not rendered",
}

#: What stands where the sweep has no job.
NO_JOB = "not in the sweep"

_SHORT = {"negative_prompt": "negative", "guidance_scale": "guidance", "guidance_rule": "rule"}


def label(field: str, value: Any, models: Mapping[str, str]) -> str:
    """Return a field's value as the sheet shows it: null and "" apart, on one line."""
    if field == "guidance_rule":
        return one_line(rule_label(value))
    if value is None:
        return "(no negative)" if field == "negative_prompt" else "(none)"
    if value == "":
        return "(empty)"
    if field == "size":
        return f"{value[0]} x {value[1]}"
    if field == "model":
        return one_line(models.get(value, value))
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def phrase(field: str, value: Any, models: Mapping[str, str]) -> str:
    """Return a field and its value, as a title has them."""
    said = label(field, value, models)
    if isinstance(value, str) and field.endswith("prompt") and value:
        said = f"“{said}”"
    return said if said == "(no negative)" else f"{field_name(field)} {said}"


def field_name(field: str) -> str:
    """Return a field's name as a heading has it."""
    return _SHORT.get(field, field)


def one_line(text: str) -> str:
    """Return text without line ends and without characters that have no shape."""
    return "".join(c if c.isprintable() else " " for c in text)
