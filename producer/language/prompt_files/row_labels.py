"""Turns the columns of a prompt file that are no job fields into labels of its rows. Knows no sweeps.

A label is one line of text. What is no text, number or truth value is none, and neither are whole paragraphs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.language.prompt_files.column_names import SIDES, field_called
from producer.language.prompt_files.columns import AXES, OWN_ROWS, find_column, no_column
from producer.language.prompt_files.tables import NAMELESS, FileInvalid, Table
from producer.language.wording import kind, show

#: Longest name of a label, characters: wider than any column on a screen.
LABEL_NAME_MAX = 100

#: Longest label, characters: longer ones are captions, which nobody sorts by.
_TEXT_MAX = 500

#: Most columns of one file that are taken unasked.
_COLUMNS_MAX = 50

#: Values from which on texts are numbered where that is shorter: a person does not write so many.
_NUMBERED_MIN = 1_000

#: Most characters of the labels of one file that are taken unasked: they are kept with the sweep, which has 64 MiB.
_CHARACTERS_MAX = 32 << 20

#: Axis -> name -> the label of each value.
RowLabels = Mapping[str, Mapping[str, Sequence[str | None]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What stands beside the rows of a table."""

    #: Name -> the label of each row.
    columns: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    #: What a person may want to know of the choice, a line each.
    notes: tuple[str, ...] = ()


def label_text(value: Any) -> str | None:
    """Return a value as a label; None where it says nothing."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case float():
            return None if math.isnan(value) else repr(value).removesuffix(".0")
    return " ".join(str(value).split()) or None


def label_texts(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Return values as labels. Most of a million rows say what another has said."""
    known: dict[str, str | None] = {}
    return tuple(
        (known[value] if value in known else known.setdefault(value, label_text(value)))
        if isinstance(value, str)
        else label_text(value)
        for value in values
    )


def written_labels(labels: RowLabels) -> dict[str, dict[str, Any]]:
    """Return labels as a sweep file would say them: a text with a line for each value.

    Where many values share few texts these stand once, with the number of each value's.
    """
    return {
        axis: {name: _written(texts) for name, texts in columns.items()} for axis, columns in labels.items()
    }


def read_numbered(value: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the labels that `written_labels` has numbered. Raises: ValueError for anything else."""
    try:
        texts = [label_text(text) for text in value["texts"].removesuffix("\n").split("\n")]
        numbers = [None if number == "-" else int(number) for number in value["rows"].split()]
        if len(value) != 2 or not numbers or min((n for n in numbers if n is not None), default=0) < 0:
            raise ValueError("two keys, and numbers from 0 on")
        return tuple(None if number is None else texts[number] for number in numbers)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ValueError("write a list, or a text with a line for each value") from error


def _written(texts: Sequence[str | None]) -> str | dict[str, str]:
    plain, numbered = _sizes(texts)
    if numbered * 2 >= plain:
        return "".join(f"{text or ''}\n" for text in texts)
    places = {text: number for number, text in enumerate(dict.fromkeys(filter(None, texts)))}
    rows = " ".join("-" if text is None else str(places[text]) for text in texts)
    return {"texts": "".join(f"{text}\n" for text in places), "rows": rows}


def _sizes(texts: Sequence[str | None]) -> tuple[int, int]:
    """Return how many characters labels take with a line for each, and at most with numbers."""
    different = {text for text in texts if text}
    digits = len(str(len(different))) + 1
    if len(texts) < _NUMBERED_MIN:
        return 0, 0
    return sum(len(text or "") + 1 for text in texts), sum(map(len, different)) + len(texts) * digits


def labels_of(table: Table, taken: Collection[str], asked: Any = None) -> Beside:
    """Return the labels of a table's rows: of all columns that nobody takes and no field is called like.

    Args:
        taken: columns that the sweep takes, and names that it gives to something else.
        asked: names of columns, or `none`; None for all that can be labels.

    Raises: FileInvalid where a column that is asked for is not there or holds no labels.
    """
    if table.columns == (NAMELESS,) or asked == "none":
        return Beside()
    if asked is not None:
        return _asked(table, [asked] if isinstance(asked, str) else asked)
    notes: list[str] = []
    columns: Mapping[str, Sequence[str | None]]
    if {*table.columns} >= OWN_ROWS:  # of all that a manifest says, what its sweep said for people
        columns = _own_labels(table.values.get("labels", ()))
    else:
        free = [name for name in table.columns if _is_free(name, taken)]
        found = {name: table.values[name] for name in free if name in table.values}
        troubles = {name: trouble for name, cells in found.items() if (trouble := _trouble(cells))}
        notes = [f"{show(name)} left out: {trouble}" for name, trouble in troubles.items()]
        columns = {name: label_texts(cells) for name, cells in found.items() if name not in troubles}
    columns = {name: texts for name, texts in columns.items() if any(texts)}
    kept = _fitting(columns)
    if kept:
        notes.append(f"labels: {_few(list(kept))}")
    if len(kept) < len(columns):
        left = [name for name in columns if name not in kept]
        notes.append(
            f"left out, as there are too many: {_few(left)}: name those that you mean: labels: [...]"
        )
    return Beside(columns=kept, notes=tuple(notes))


def _asked(table: Table, names: Sequence[str]) -> Beside:
    columns = {}
    for name in names:
        column = find_column(name, table.columns)
        if column is None or column not in table.values:
            raise FileInvalid(no_column(name, table))
        if trouble := _trouble(table.values[column]):
            raise FileInvalid(f"has a column {show(column)} that is no label: {trouble}")
        columns[column] = label_texts(table.values[column])
    return Beside(columns=columns, notes=(f"labels: {_few(list(columns))}",) if columns else ())


def _is_free(name: str, taken: Collection[str]) -> bool:
    is_name = bool(name.strip()) and name.isprintable() and len(name) <= LABEL_NAME_MAX
    return is_name and name not in taken and name not in (*AXES, *SIDES) and field_called(name) is None


def _trouble(cells: Iterable[Any]) -> str:
    """Return why a column holds no labels, or ""."""
    for cell in cells:
        if isinstance(cell, str):
            if len(cell) > _TEXT_MAX:
                return f"it has texts of more than {_TEXT_MAX} characters"
        elif isinstance(cell, list | tuple | dict | bytes):
            return f"it has {kind(cell)} in it"
    return ""


def _own_labels(cells: Iterable[Any]) -> dict[str, Sequence[str | None]]:
    """Return the labels of Printroom's own rows: a mapping, pairs as Parquet has them, or JSON as exports have it."""
    rows = [_own_row(cell) for cell in cells]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: label_texts(row.get(name) for row in rows) for name in names}


def _own_row(cell: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(cell) if isinstance(cell, str) else cell or ())
    except (TypeError, ValueError):
        return {}


def _fitting(columns: Mapping[str, Sequence[str | None]]) -> dict[str, Sequence[str | None]]:
    """Return the first columns, as far as they are not too many and not too large together."""
    kept: dict[str, Sequence[str | None]] = {}
    room = _CHARACTERS_MAX
    for name, texts in columns.items():
        size = min(_sizes(texts))
        if len(kept) < _COLUMNS_MAX and size <= room:
            kept[name] = texts
            room -= size
    return kept


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
