"""Turns style files, or what a sweep lists, into styles: texts around a prompt. Knows nothing of how styles are chosen.

Reads what sdxl_prompt_styler and Fooocus (JSON) and A1111 (styles.csv) keep their styles in.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.sweep_text import decode_text
from producer.templates import PROMPT_SLOT, parse_literal
from shared.errors import SweepError
from shared.texts import Slot, Text, join_texts

#: What stands between a prompt and a style that has no place for it, and between two negative prompts. A1111's own.
SEPARATOR = ", "

_HOLE = f"{{{PROMPT_SLOT}}}"
_KEYS = ("prompt", "negative_prompt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What stands around a prompt, and a negative prompt that goes with it."""

    name: str
    #: Has a hole called `prompt`, once or more.
    prompt: Text
    #: Empty where the style has none.
    negative_prompt: str


def make_style(name: str, prompt: str, negative_prompt: str) -> Style:
    """Return a style as its file says it. One without `{prompt}` stands after the prompt, as in A1111."""
    prompt = prompt.strip()
    if _HOLE in prompt:
        text = parse_literal(prompt, slots=[PROMPT_SLOT])
    elif prompt:
        text = join_texts([(Slot(PROMPT_SLOT),), SEPARATOR + prompt])
    else:
        text = (Slot(PROMPT_SLOT),)
    return Style(name=name, prompt=text, negative_prompt=negative_prompt.strip())


def read_styles(path: Path) -> dict[str, Style]:
    """Return the styles of a file by name: a .csv as A1111 writes it, or a .json as sdxl_prompt_styler has it.

    Raises: SweepError with every problem of the file.
    """
    shown = path.as_posix()
    if path.suffix.lower() not in (".csv", ".json"):
        raise SweepError(
            [f"styles: {shown}: styles are in a .csv file (A1111) or a .json file (sdxl_prompt_styler)"]
        )
    try:
        text = decode_text(path.read_bytes(), filename=shown)
    except OSError as error:
        raise SweepError([f"styles: {shown}: {error.strerror}"]) from error
    collector = _Collector(shown)
    (_take_csv if path.suffix.lower() == ".csv" else _take_json)(text, collector)
    if not (collector.styles or collector.problems):
        collector.note(None, "the file has no styles")
    if collector.problems:
        raise SweepError(collector.problems)
    return collector.styles


def written_style(style: Style) -> dict[str, str]:
    """Return a style as a sweep would say it."""
    pieces = (style.prompt,) if isinstance(style.prompt, str) else style.prompt
    prompt = "".join(piece if isinstance(piece, str) else _HOLE for piece in pieces)
    return {"prompt": prompt, "negative_prompt": style.negative_prompt}


def style_trouble(name: Any, fields: Any) -> str | None:
    """Return what is wrong with a style; None where nothing is."""
    if not isinstance(name, str) or not name.strip():
        return f"{name!r} is no name: write text"
    if not isinstance(fields, Mapping):
        return f"{name}: write {{prompt: ..., negative_prompt: ...}}"
    if unknown := [key for key in fields if key not in _KEYS]:
        return f"{name}: {unknown[0]!r} is not part of a style: use {' and '.join(_KEYS)}"
    for key in _KEYS:
        if not isinstance(fields.get(key) or "", str):
            return f"{name}: {key}={fields[key]!r}: write text in quotes"
    if not (fields.get("prompt") or fields.get("negative_prompt")):
        return f"{name}: the style says nothing: give it a prompt or a negative_prompt"
    if _HOLE in (fields.get("negative_prompt") or ""):
        return f"{name}: negative_prompt has {_HOLE}, and a prompt is never a negative one: remove it"
    return None


class _Collector:
    """The styles of one file, and its problems."""

    def __init__(self, filename: str) -> None:
        self.styles: dict[str, Style] = {}
        self.problems: list[str] = []
        self._filename = filename

    def note(self, place: str | None, text: str) -> None:
        where = f"{self._filename}, {place}" if place else self._filename
        self.problems.append(f"styles: {where}: {text}")

    def take(self, place: str, name: Any, fields: Any) -> None:
        """Take one style. The same one twice is one; two of one name are a problem."""
        if trouble := style_trouble(name, fields):
            self.note(place, trouble)
            return
        style = make_style(name, *(fields.get(key) or "" for key in _KEYS))
        if self.styles.setdefault(name, style) != style:
            self.note(place, f"{name!r} stands here twice and differs: rename one")


def _take_csv(text: str, collector: _Collector) -> None:
    """Take the rows of an A1111 styles.csv: name, prompt (text in old files), negative_prompt."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    header: list[str] = []
    try:
        for row in rows:
            place, start = f"line {start}", rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = ["prompt" if cell.strip() == "text" else cell.strip() for cell in row]
                if "name" not in header or "prompt" not in header:
                    collector.note(place, "the first row names no columns: write name,prompt,negative_prompt")
                    return
                continue
            if len(row) > len(header):
                collector.note(
                    place, f"{len(row)} cells under {len(header)} columns: quote text that holds a comma"
                )
                continue
            cells = dict(zip(header, row, strict=False))
            if cells.get("prompt") or cells.get("negative_prompt"):  # else a heading between styles
                collector.take(place, cells["name"], {key: cells.get(key, "") for key in _KEYS})
    except csv.Error as error:
        collector.note(
            f"line {rows.line_num}", f"{error}: look for a quote that is not closed or not doubled"
        )


def _take_json(text: str, collector: _Collector) -> None:
    """Take a list of {name, prompt, negative_prompt}, or a mapping of names to the rest."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        collector.note(None, f"not JSON: {error}")
        return
    if isinstance(value, Mapping):
        for number, (name, fields) in enumerate(value.items(), start=1):
            collector.take(f"style {number}", name, fields)
        return
    entries = value if isinstance(value, list) else [value]
    for number, entry in enumerate(entries, start=1):
        if isinstance(entry, Mapping):
            fields = {key: found for key, found in entry.items() if key != "name"}
            collector.take(f"style {number}", entry.get("name"), fields)
        else:
            collector.note(f"style {number}", f"{_show(entry)}: write {{name, prompt, negative_prompt}}")


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…{shown[-1]}"
