"""Fields and values as a sheet names them, in words. Knows nothing of fonts, pixels or HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from producer.sheet.cells import CellState
from producer.sheet.labels import LABEL_CHARACTERS, distinct_labels
from shared.guidance import rule_label
from shared.job import JOB_FIELDS

#: What stands where an image does not.
STATE_WORDS: Mapping[CellState, str] = {
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

#: Field of a job -> its name in a heading, where that is another one.
_HEADINGS = {field.name: field.heading for field in JOB_FIELDS if field.heading}


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


def labels_in_words(
    field: str, values: Sequence[Any], models: Mapping[str, str], limit: int | None = LABEL_CHARACTERS
) -> dict[Any, str]:
    """Return what tells each of a field's values from the others, in up to `limit` characters; no two are the same."""
    texts = [label(field, value, models) for value in values]
    times = Counter(texts)
    texts = [
        repr(value) if isinstance(value, float) and times[text] > 1 else text
        for value, text in zip(values, texts, strict=True)
    ]
    return dict(zip(values, distinct_labels(texts, limit), strict=True))


def phrase(field: str, value: Any, said: str) -> str:
    """Return a field and what its value is called, as a title has them."""
    if isinstance(value, str) and field.endswith("prompt") and value:
        said = f"“{said}”"
    return said if said == "(no negative)" else f"{field_name(field)} {said}"


def field_name(field: str) -> str:
    """Return a field's name as a heading has it."""
    return _HEADINGS.get(field, field)


def one_line(text: str) -> str:
    """Return text without line ends and without characters that have no shape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
