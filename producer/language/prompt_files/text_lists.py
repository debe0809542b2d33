"""Warns where a list of texts, one a line, looks like another kind of file. Knows no files.

A name that ends in .txt says little: tables, JSON and infotext are saved under it too, and every line of them would
be a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from producer.language.prompt_files.column_names import CAPTIONS, field_called, folded, is_known_column
from producer.language.prompt_files.dialects import DELIMITERS, written_delimiter
from producer.language.prompt_files.infotext_parts import split_infotext
from producer.language.wording import show

#: What a spreadsheet writes in front of a table for itself.
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*\Z', re.IGNORECASE)

#: What stands in front of the items of a list in a document.
_BULLET = re.compile(r"\s*(?:[-*\u2022]|[0-9]{1,6}[.)])\s+\S")

_QUOTED = re.compile(r'\s*(["\u201c]).*["\u201d]\s*,?\s*\Z', re.DOTALL)

_AS_IT_IS = "or delimiter: none for lines as they are"


def other_kind(lines: Sequence[tuple[int, str]]) -> tuple[int, str] | None:
    """Return the line where a list shows that it is no list, and what to do about it; None where it is one.

    Args:  lines: (number, text) of each line that is not blank.
    """
    if not lines:
        return None
    number, first = lines[0]
    if said := _SEP_LINE.match(first):
        fix = f'write delimiter: "{said[1]}" to read its columns'
        return number, f"{show(first)} begins a table of a spreadsheet: {fix}"
    if delimiter := header_delimiter(first):
        fix = f"write delimiter: {written_delimiter(delimiter)} to read them, {_AS_IT_IS}"
        return number, f"{show(first)} names columns, as a table has: {fix}"
    if end := _json_end(first, "\n".join(line for _, line in lines)):
        return number, f"JSON begins here: let the file's name end in {end}, {_AS_IT_IS}"
    counts = {line.strip().count("\t") for _, line in lines}
    if len(lines) > 1 and len(counts) == 1 and 0 not in counts:
        fix = 'write delimiter: "\\t" to read its columns, or delimiter: none for lines as they are'
        return number, f"each line has tabs, as a table has: {fix}"
    for number, line in lines:
        if "Steps:" in line and split_infotext(line) is not None:
            fix = f"keep the lines that are prompts, take `printroom show` of each image, {_AS_IT_IS}"
            return number, f"A1111's settings stand here, and no prompt: {fix}"
    return None


def list_notes(lines: Sequence[str]) -> Iterator[str]:
    """Yield what is part of the texts of a list, and may be meant otherwise."""
    if commented := [line for line in lines if line.startswith("# ")]:
        many = f"{len(commented):,} lines begin" if len(commented) > 1 else "a line begins"
        yield f"{many} with '# ', as {show(commented[0])}: taken as text; comments: true leaves such lines out"
    items = lines[1:] if lines and lines[0].rstrip().endswith(":") else lines
    for pattern, said in ((_BULLET, "has the mark of a list in front"), (_QUOTED, "stands in quotes")):
        if len(items) > 1 and all(map(pattern.match, items)):
            yield f"every line {said}, as {show(items[0])}: part of the text; remove it if it is not meant"


def header_delimiter(line: str, *, delimiters: Iterable[str] = DELIMITERS) -> str | None:
    """Return what separates the names of columns of a table of prompts; None for what is none."""
    for delimiter in delimiters:
        names = [name.strip().strip('"') for name in line.split(delimiter)]
        if len(names) > 1 and all(map(is_known_column, names)) and any(map(_is_prompt, names)):
            return delimiter
    return None


def _is_prompt(name: str) -> bool:
    return field_called(name) == "prompt" or folded(name) in CAPTIONS


def _json_end(first: str, text: str) -> str | None:
    """Return how the name of a file should end that holds JSON: an object a line, or one list."""
    if first.startswith("{") and isinstance(_json(first), dict):
        return ".jsonl"
    return ".json" if first.startswith(("[", "{")) and isinstance(_json(text), list | dict) else None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
