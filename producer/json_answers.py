"""Turns the answers of the verbs into JSON: one way for the command line, and for whatever else serves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def to_json(answer: Any) -> Any:
    """Return an answer as plain values for JSON: its own `to_json`, a dataclass' fields, a list of answers.

    What is no answer of ours comes back as it is; `json_text` writes it.
    """
    if isinstance(answer, list | tuple):
        return [to_json(one) for one in answer]
    if hasattr(answer, "to_json"):
        return answer.to_json()
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields(answer)}
    return answer


def json_text(answer: Any, *, indent: int | None = 2) -> str:
    """Return an answer as the text of a JSON document. Paths and the like are written as their text."""
    return json.dumps(to_json(answer), indent=indent, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
