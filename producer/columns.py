"""Turns columns of a file into a sweep's: what they may be called, and what a cell means. Knows no files or places."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from producer.fields import FIELDS
from producer.sweep_text import read_option
from producer.tables import NAMELESS, FileInvalid, Table
from producer.wording import kind, near, show
from shared.errors import SweepError

#: What a variable may be called: what stands between the braces of `{animal}`.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: Axes of a sweep: the fields of a job, and style.
AXES = (*FIELDS, "style")

#: Fields for which an empty cell of a CSV is null.
_NULLABLE = ("negative_prompt", "guidance_rule", "style")

_WHOLE = re.compile(r"\s*[-+]?[0-9]{1,40}\s*\Z", re.ASCII)
_NUMBER = re.compile(
    r"\s*[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,4})?\s*\Z", re.ASCII
)


def read_cells(field: str | None, cells: Sequence[Any], *, is_text: bool) -> tuple[list[Any], list[int]]:
    """Return a column's values, and the positions that are empty and may not be.

    Text without a type becomes what its field takes, where it reads so; the rest stays text, for the sweep to refuse.

    Args:
        field: the job's field that the column is for; None for a variable's texts, which may be empty.
        is_text: whether the cells are text without a type, as in a CSV. Others are left alone.
    """
    values = list(cells)
    convert = _CELLS.get(field or "")
    if not is_text or (convert is None and "" not in values):
        return values, []
    empty: list[int] = []
    for position, text in enumerate(values):
        if text == "" and field in _NULLABLE:
            values[position] = None
        elif text == "" and field is not None:
            empty.append(position)
        elif convert is not None:
            values[position] = convert(text)
    return values, empty


def empty_mend(field: str | None) -> str:
    """Return what to do about an empty cell of a field that takes none."""
    if field == "prompt":
        return "write it or remove the row; an empty prompt stands in the sweep itself, or in .jsonl"
    return "write a value"


def name_trouble(name: str) -> str:
    """Return why a column cannot bear a name in the sweep, or ""."""
    if name in AXES:
        return ""
    folded = name.strip().casefold()
    if folded in AXES:
        return f"{show(name)} is no field: did you mean {folded!r}?"
    if not VARIABLE.match(name):
        return f"{show(name)} is no name: use letters, digits and _, beginning with a letter"
    return ""


def listed(table: Table) -> str:
    """Return the names of a table's columns as a message shows them."""
    return ", ".join(map(show, table.columns[:20])) + (", ..." if len(table.columns) > 20 else "")


def no_column(wanted: str, table: Table) -> str:
    """Return the end of a message that says a column is not there."""
    hint = near(wanted, table.columns, otherwise=f"it has {listed(table)}")
    return f"has no column {show(wanted)}: {hint}"


def checked_names(names: dict[str, str], table: Table) -> dict[str, str]:
    """Return the names that the sweep gives to columns.

    Raises: FileInvalid where a column is not there.
    """
    _check_named(table)
    missing = [column for column in names.values() if column not in table.columns]
    if missing:
        raise FileInvalid("; ".join(no_column(column, table) for column in missing))
    return names


def own_names(table: Table) -> dict[str, str]:
    """Return the columns that a group takes where the sweep names none: fields, and what a variable may be called.

    Raises: FileInvalid where there is none, or one is most likely something else.
    """
    _check_named(table)
    for name in table.columns:
        folded = name.strip().casefold()
        if name not in AXES and folded in AXES:
            mend = f"if it is the {folded}, write columns: {{{folded}: {show(name)}}}"
            raise FileInvalid(f"has a column {show(name)}: {mend}")
    names = {name: name for name in table.columns if name in AXES or VARIABLE.match(name)}
    if not names:
        raise FileInvalid(f"has the columns {listed(table)}: say what they are: 'columns: {{prompt: ...}}'")
    for name in names:
        odd = next((cell for cell in table.values[name] if isinstance(cell, list | dict | bytes)), None)
        if odd is not None and name != "guidance_rule":
            mend = "name the columns that you mean: 'columns: [prompt]'"
            raise FileInvalid(f"has {kind(odd)} in the column {show(name)}: {mend}")
    return names


def _check_named(table: Table) -> None:
    if table.columns == (NAMELESS,):
        raise FileInvalid("has no columns: write 'zip: {prompt: {file: ...}}'")


def _whole(text: str) -> Any:
    """Return a whole number; what is none stays text, for the sweep to refuse it."""
    return int(text) if _WHOLE.match(text) else text


def _number(text: str) -> Any:
    return _whole(text) if _WHOLE.match(text) or not _NUMBER.match(text) else float(text)


def _rule(text: str) -> Any:
    """Return a rule's name, or the mapping that a cell writes as `{rescale: 0.7}`."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        document = read_option(text, what="guidance_rule")
    except SweepError:
        return text
    return text if document.problems else document.value


#: Field -> how its cells are read; the others are text.
_CELLS: Mapping[str, Callable[[str], Any]] = {
    "seed": _whole,
    "steps": _whole,
    "size": _whole,
    "guidance_scale": _number,
    "guidance_rule": _rule,
}
