"""Turns the columns of a table into fields and variables of a sweep. Knows no files, places or cells."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from producer.language.fields import FIELDS
from producer.language.prompt_files.column_names import CAPTIONS, SIDES, field_called, field_meant, folded
from producer.language.prompt_files.tables import NAMELESS, FileInvalid, Table
from producer.language.wording import kind, near, show

#: What a variable may be called: what stands between the braces of `{animal}`.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: Axes of a sweep: the fields of a job, and style.
AXES = (*FIELDS, "style")

#: Columns by which Printroom's own rows are known: manifests, and what `fetch` writes.
OWN_ROWS = frozenset(("job_id", "prompt", "guidance_rule", "scheduler", "model"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenColumns:
    """Which columns of a table a sweep takes."""

    #: Name in the sweep -> the column it is; a size may be two, its width and its height.
    names: Mapping[str, tuple[str, ...]]
    #: Columns that the sweep does not take.
    others: tuple[str, ...] = ()
    #: What a person may want to know of the choice, a line each.
    notes: tuple[str, ...] = ()


def name_trouble(name: str) -> str:
    """Return why a column cannot bear a name in the sweep, or ""."""
    if name in AXES or name in SIDES:
        return ""
    near_field = field_called(name)
    if near_field and folded(name) == folded(near_field):
        return f"{show(name)} is no field: did you mean {near_field!r}?"
    if not VARIABLE.match(name):
        return f"{show(name)} is no name: use letters, digits and _, beginning with a letter"
    return ""


def listed(table: Table) -> str:
    """Return the names of a table's columns as a message shows them."""
    return ", ".join(map(show, table.columns[:20])) + (", ..." if len(table.columns) > 20 else "")


def no_column(wanted: str, table: Table) -> str:
    """Return the end of a message that says a column is not there, or there more than once."""
    if wanted in table.twice:
        return f"has several columns called {show(wanted)}: rename all but one"
    if wanted in table.columns:
        return f"has binary data in the column {show(wanted)}: write it as text"
    hint = near(wanted, table.columns, otherwise=f"it has {listed(table)}")
    return f"has no column {show(wanted)}: {hint}"


def find_column(wanted: str, columns: Sequence[str], *, field: str | None = None) -> str | None:
    """Return the column that a name means: itself, or the one that differs in case, spaces and signs alone.

    Args:  field: then also the one column that other programs call so.
    """
    if wanted in columns:
        return wanted
    alike = [name for name in columns if folded(name) == folded(wanted)]
    if not alike and field is not None:
        alike = [name for name in columns if field_called(name) == field]
    if not alike and field == "prompt":
        alike = [name for name in columns if folded(name) in CAPTIONS]
    return alike[0] if len(alike) == 1 else None


def named_columns(names: Mapping[str, str], table: Table) -> ChosenColumns:
    """Return the columns that the sweep names: its own name -> the file's.

    Raises: FileInvalid where a column is not there, or a size has one side.
    """
    _check_named(table)
    found = {name: find_column(column, table.columns) for name, column in names.items()}
    missing = [names[name] for name, column in found.items() if column not in table.values]
    if missing:
        raise FileInvalid("; ".join(no_column(column, table) for column in missing))
    chosen: dict[str, tuple[str, ...]] = {
        name: (column,) for name, column in found.items() if column is not None
    }
    sides = [chosen.pop(side) for side in SIDES if side in chosen]
    if len(sides) == 1 or (sides and "size" in chosen):
        raise FileInvalid("columns: width and height make a size together: name both, or size alone")
    if sides:
        chosen["size"] = (*sides[0], *sides[1])
    taken = {column for columns in chosen.values() for column in columns}
    return ChosenColumns(names=chosen, others=tuple(name for name in table.columns if name not in taken))


def own_columns(table: Table, *, holes: Collection[str], top: Collection[str]) -> ChosenColumns:
    """Return the columns that a group takes where the sweep names none.

    Fields under our names and under those of other programs, a size made of width and height, and what fills a hole
    of a text. The others are left out.

    Args:
        holes: names that stand in braces in some text.
        top: keys that the sweep has itself.
    Raises: FileInvalid where there is no such column, or two may be one field.
    """
    _check_named(table)
    if clash := [name for name in table.twice if name in holes]:
        raise FileInvalid(no_column(clash[0], table))
    if set(table.columns) >= OWN_ROWS:
        holes = ()  # prompts of finished jobs have none: what stands in braces was drawn
    chosen: dict[str, tuple[str, ...]] = {
        name: (name,) for name in table.columns if name in AXES and _is_plain(name, table)
    }
    chosen |= {name: (name,) for name in table.columns if name in holes and VARIABLE.match(name)}
    notes = list(_passed_over(table, chosen))
    left: list[str] = []
    for field, columns in _called(table, chosen).items():
        if field in top:
            left += columns
            notes.append(f"{_joined(columns)} left out: the sweep says {field} itself")
        elif len(columns) > 1 and field not in chosen:
            fix = f"say which: columns: {{{field}: {show(columns[0])}}}"
            raise FileInvalid(f"has {_joined(columns)}, and each may be the {field}: {fix}")
        elif field not in chosen:
            chosen[field] = (columns[0],)
            if folded(columns[0]) != folded(field):
                notes.append(f"{show(columns[0])} taken as {field}")
    _add_size(table, chosen, top, notes)
    _add_caption(table, chosen, top, notes)
    if "prompt" in table.columns and "prompt" not in chosen and not {"prompt", "cases"} & {*top}:
        raise FileInvalid(
            "has a mapping in the column 'prompt': write the text there, or name the column: 'columns: ...'"
        )
    if not chosen:
        fix = "say what they are: 'columns: {prompt: ...}'"
        if table.is_text:
            fix += "; if the first line is a row and no names, write names in a line above it"
        raise FileInvalid(f"has the columns {listed(table)}: {fix}")
    taken = {column for columns in chosen.values() for column in columns}
    others = tuple(name for name in table.columns if name not in taken)
    _refuse_slips(others, chosen, top)
    return ChosenColumns(names=_ordered(chosen, table), others=others, notes=tuple(notes))


def _passed_over(table: Table, chosen: Mapping[str, object]) -> Iterator[str]:
    """Yield what is left out although it is called like a field: a mapping, and a name in other letters."""
    for name in table.columns:
        field = field_called(name)
        if name in AXES and name not in chosen:
            yield f"{show(name)} left out: it has a mapping in it"
        elif name not in AXES and field in chosen and folded(name) == folded(field or ""):
            yield f"{show(name)} left out: the {field} is {show(field)}"


def _refuse_slips(others: Sequence[str], chosen: Mapping[str, tuple[str, ...]], top: Collection[str]) -> None:
    """Refuse a column that nobody takes and whose name is nearly that of a field: `negtive_prompt`."""
    for name in others:
        field = None if field_called(name) else field_meant(name)
        if field is not None and field not in chosen and field not in top:
            fix = f"rename it, or name the columns that you mean: columns: {{{field}: {show(name)}, ...}}"
            raise FileInvalid(f"has a column {show(name)}: did you mean {field!r}? {fix}")


def _called(table: Table, chosen: Mapping[str, object]) -> dict[str, list[str]]:
    """Return field -> the columns that other programs call so."""
    found: dict[str, list[str]] = {}
    for name in table.columns:
        field = field_called(name)
        if field is not None and name not in chosen and field not in chosen and _is_plain(name, table):
            found.setdefault(field, []).append(name)
    return found


def _add_size(
    table: Table, chosen: dict[str, tuple[str, ...]], top: Collection[str], notes: list[str]
) -> None:
    """Take width and height as the size, unless there is another."""
    sides = [find_column(side, table.columns) for side in SIDES]
    width, height = sides
    if width is None or height is None or "size" in chosen or {width, height} & set(chosen):
        return
    if "size" in top:
        notes.append(f"{_joined([width, height])} left out: the sweep says size itself")
        return
    chosen["size"] = (width, height)
    notes.append(f"{_joined([width, height])} taken as size")


def _add_caption(
    table: Table, chosen: dict[str, tuple[str, ...]], top: Collection[str], notes: list[str]
) -> None:
    """Take a column of captions as the prompts where nothing else brings them."""
    if "prompt" in chosen or "prompt" in top or "cases" in top:
        return
    captions = [name for name in table.columns if folded(name) in CAPTIONS and name not in chosen]
    if len(captions) > 1:
        fix = f"say which: columns: {{prompt: {show(captions[0])}}}"
        raise FileInvalid(f"has {_joined(captions)}, and each may be the prompt: {fix}")
    if captions:
        chosen["prompt"] = (captions[0],)
        notes.append(f"{show(captions[0])} taken as prompt")


def _is_plain(name: str, table: Table) -> bool:
    """Say whether a column holds what a job may hold. A mapping is a guidance rule, and otherwise another program's."""
    odd = next(
        (cell for cell in table.values.get(name, [b""]) if isinstance(cell, list | dict | bytes)), None
    )
    if odd is None or name == "guidance_rule":
        return True
    if name in AXES and not isinstance(odd, dict):
        is_binary = isinstance(odd, bytes)
        fix = "write it as text" if is_binary else "name the columns that you mean: 'columns: [prompt]'"
        raise FileInvalid(f"has {kind(odd)} in the column {show(name)}: {fix}")
    return False


def _ordered(chosen: Mapping[str, tuple[str, ...]], table: Table) -> dict[str, tuple[str, ...]]:
    """Return the choice in the order of the table's columns."""
    place = {name: position for position, name in enumerate(table.columns)}
    return dict(sorted(chosen.items(), key=lambda item: place[item[1][0]]))


def _joined(names: Sequence[str]) -> str:
    return " and ".join(map(show, names))


def _check_named(table: Table) -> None:
    if table.columns == (NAMELESS,):
        raise FileInvalid("has no columns: write 'zip: {prompt: {file: ...}}'")
