"""Turns the files that a sweep names into the values in them. Knows files and places, not which values are right.

What is left names no prompt file, so it can be stored and read again anywhere. Each value remembers its file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from producer.columns import (
    AXES,
    checked_names,
    empty_mend,
    listed,
    name_trouble,
    no_column,
    own_names,
    read_cells,
)
from producer.sweep_text import VALUES_MAX, Document, Located, Problem, source_name
from producer.tables import FileInvalid, ReadOptions, RowProblem, Table, nearest_file, read_table
from producer.wording import kind, near, show

#: Files that say what the images of a Hugging Face folder show, in the order in which they are looked for.
FOLDER_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_AXIS_KEYS = ("file", "folder", "column", "comments", "delimiter", "quoting", "limit", "offset")
_GROUP_KEYS = ("file", "folder", "columns", "delimiter", "quoting", "limit", "offset")
_QUOTING = {"none": True, "csv": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that values came from."""

    #: As seen from the sweep's folder.
    path: str
    #: Of its bytes, hexadecimal.
    sha256: str
    #: How many values were taken.
    values: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inlined:
    """A document that is complete by itself, and where its values came from."""

    document: Document
    files: tuple[SourceFile, ...]


def inline_sources(document: Document, *, folder: Path | None) -> Inlined:
    """Return a document with the values of files in place of their names.

    Reads `{file}` and `{folder}` in every axis, in `vars`, in `replace` and in `zip`. Where something is wrong the
    place is marked as refused, and its problems are added to the document's.

    Args:  folder: the sweep's own; None for text from elsewhere, which can name no file.
    """
    if not isinstance(document.value, dict):
        return Inlined(document=document, files=())
    inliner = _Inliner(folder, [*document.problems])
    value = dict(document.value)
    places = dict(document.located.children)
    for key, found in document.value.items():
        value[key], places[key] = inliner.key(key, found, places[key])
    located = replace(document.located, children=places)
    inlined = Document(value=value, located=located, problems=inliner.problems)
    return Inlined(document=inlined, files=tuple(inliner.files))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A file that a sweep names, and how it is to be read."""

    #: As the sweep names it; and as seen from the sweep's folder.
    written: str
    shown: str
    path: Path
    options: ReadOptions
    place: Located

    def row(self, line: int, unit: str) -> Located:
        """Return where a row stands."""
        if unit == "line":
            return Located(line, file=self.shown)
        return Located(0, file=f"{self.shown}, {unit} {line}")


class _Rows(Mapping[str | int, Located]):
    """Where the rows of a table stand, each made when somebody asks: a hundred thousand take time and memory."""

    def __init__(self, source: _Source, table: Table) -> None:
        #: Positions for which a problem has been recorded already.
        self.refused: set[int] = set()
        self._source = source
        self._lines = table.lines
        self._unit = table.unit

    def __getitem__(self, position: str | int) -> Located:
        if not isinstance(position, int) or not 0 <= position < len(self._lines):
            raise KeyError(position)
        place = self._source.row(self._lines[position], self._unit)
        place.refused = position in self.refused
        return place

    def __iter__(self) -> Iterator[str | int]:
        return iter(range(len(self._lines)))

    def __len__(self) -> int:
        return len(self._lines)


class _Inliner:
    """Reads files, and collects their problems."""

    def __init__(self, folder: Path | None, problems: list[Problem]) -> None:
        self.problems = problems
        self.files: list[SourceFile] = []
        self._folder = folder
        self._values = 0

    def key(self, key: str, value: Any, place: Located) -> tuple[Any, Located]:
        """Return the value of a key of the sweep, with the files in it read."""
        if key in AXES:
            return self._axis(key, key, value, place)
        if key in ("vars", "replace") and isinstance(value, dict):
            return self._axes(key, value, place)
        if key == "zip" and isinstance(value, dict):
            return self._group("zip", value, place)
        if key == "zip" and isinstance(value, list | tuple):
            return self._groups(value, place)
        return value, place

    def _axes(self, key: str, value: dict[str, Any], place: Located) -> tuple[Any, Located]:
        """Return a mapping of names to axes, the files of each read."""
        if isinstance(value.get("file"), str):
            text = f"{key}: the columns of a file are a zip group: write 'zip: {{file: {value['file']}}}'"
            return self._refuse(value, place, place.children["file"], text)
        values: dict[str, Any] = {}
        places: dict[str | int, Located] = {}
        for name, axis in value.items():
            where = f"{key}: {name}" if key != "zip" else name
            field = name if key == "zip" and name in AXES else None
            values[name], places[name] = self._axis(where, field, axis, place.children[name])
        return values, replace(place, children=places)

    def _groups(self, value: Sequence[Any], place: Located) -> tuple[Any, Located]:
        groups: list[Any] = []
        places: dict[str | int, Located] = {}
        for position, group in enumerate(value):
            here = place.children[position]
            made = self._group("zip", group, here) if isinstance(group, dict) else (group, here)
            groups.append(made[0])
            places[position] = made[1]
        return groups, replace(place, children=places)

    def _axis(self, where: str, field: str | None, value: Any, place: Located) -> tuple[Any, Located]:
        """Return an axis, its files read.

        Args:
            where: what messages call it.
            field: the job's field that it is for; None for the text of a variable or a replacement.
        """
        if _names_file(value):
            column = self._column(where, field, value, place)
            if column is None:
                return [], replace(place, refused=True)
            values, rows = column
            return values, replace(place, raw=None, children=rows)
        if isinstance(value, list | tuple) and any(map(_names_file, value)):
            return self._spliced(where, field, value, place)
        return value, place

    def _spliced(
        self, where: str, field: str | None, value: Sequence[Any], place: Located
    ) -> tuple[Any, Located]:
        """Return a list with the values of its files in their places."""
        values: list[Any] = []
        rows: list[Located] = []
        refused = place.refused
        for position, item in enumerate(value):
            here = place.children[position]
            if not _names_file(item):
                values.append(item)
                rows.append(here)
            elif (column := self._column(where, field, item, here)) is None:
                refused = True
            else:
                values += column[0]
                rows += column[1].values()
        return values, replace(place, children=dict(enumerate(rows)), refused=refused)

    def _column(
        self, where: str, field: str | None, value: dict[str, Any], place: Located
    ) -> tuple[list[Any], _Rows] | None:
        """Return the values of one column of a file and their places, or None where there are none."""
        source = self._source(where, value, place, _AXIS_KEYS)
        if source is None:
            return None
        name = value.get("column")
        if name is not None and not isinstance(name, str):
            self._note(place, "column", f"{where}: column is {kind(name)}: write a column's name")
            return None
        wanted = name if name is not None else (field or where.rpartition(": ")[2])
        table = self._table(where, source, [wanted])
        if table is None:
            return None
        if name is None and len(table.columns) == 1:
            wanted = table.columns[0]
        if wanted not in table.values:
            here, trouble = "column", no_column(wanted, table)
            if name is None:
                here, trouble = "file", f"has the columns {listed(table)}: say which one: 'column: ...'"
            self._note(place, here, f"{where}: {show(source.written)} {trouble}")
            return None
        rows = _Rows(source, table)
        return self._typed(where, field, wanted, table, rows), rows

    def _group(self, where: str, value: dict[str, Any], place: Located) -> tuple[Any, Located]:
        """Return a zip group as a mapping of names to lists."""
        if not _is_file_group(value):
            return self._axes("zip", value, place)
        names = self._group_names(where, value.get("columns"), place)
        source = self._source(where, value, place, _GROUP_KEYS)
        if source is None or (names is None and value.get("columns") is not None):
            return {}, replace(place, refused=True)
        table = self._table(where, source, None if names is None else list(names.values()))
        if table is None:
            return {}, replace(place, refused=True)
        try:
            names = own_names(table) if names is None else checked_names(names, table)
        except FileInvalid as error:
            return self._refuse({}, place, place, f"{where}: {show(source.written)} {error}")
        return self._filled(names, source, table, place)

    def _filled(
        self, names: Mapping[str, str], source: _Source, table: Table, place: Located
    ) -> tuple[Any, Located]:
        """Return the columns of a table under the names that the sweep gives them."""
        values: dict[str, Any] = {}
        places: dict[str | int, Located] = {}
        for name, column in names.items():
            field = name if name in AXES else None
            # Places are marked as refused one by one, so each column has its own.
            rows = _Rows(source, table)
            values[name] = self._typed(name, field, column, table, rows)
            places[name] = replace(place, raw=None, children=rows)
        return values, replace(place, children=places)

    def _group_names(self, where: str, columns: Any, place: Located) -> dict[str, str] | None:
        """Return our name -> the file's, or None where the sweep gives none, or wrong ones."""
        if columns is None:
            return None
        here = place.children.get("columns", place)
        if isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns):
            columns = {name: name for name in columns}
        if not isinstance(columns, dict) or not columns:
            self.problems.append(
                here.problem(f"{where}: columns is {kind(columns)}: write {{prompt: name of a column}}")
            )
            return None
        bad = [name for name, column in columns.items() if not isinstance(column, str)]
        for name in bad:
            text = f"{where}: columns: {name} is {kind(columns[name])}: write a column's name, in quotes"
            self.problems.append(here.children.get(name, here).problem(text))
        for name in columns:
            if trouble := name_trouble(name):
                bad.append(name)
                self.problems.append(here.children.get(name, here).problem(f"{where}: {trouble}"))
        return None if bad else dict(columns)

    def _source(
        self, where: str, value: dict[str, Any], place: Located, known: Sequence[str]
    ) -> _Source | None:
        """Return what a mapping says of a file, or None where it says something it may not."""
        before = len(self.problems)
        for key in value:
            if key not in known:
                hint = f"use {', '.join(known)}"
                self._note(
                    place, key, f"{where}: unknown key {show(key)}: {near(key, known, otherwise=hint)}"
                )
        if "file" in value and "folder" in value:
            self._note(place, "folder", f"{where}: both file and folder: keep one of them")
        for key, check in _OPTION_CHECKS.items():
            if key in value and key in known and (mend := check(value[key])):
                self._note(place, key, f"{where}: {key}={show(value[key])}: {mend}")
        if len(self.problems) > before:
            return None
        return self._located_source(where, value, place)

    def _located_source(self, where: str, value: dict[str, Any], place: Located) -> _Source | None:
        key = "file" if "file" in value else "folder"
        written = value[key]
        if self._folder is None:
            text = f"{key}={show(written)}: this sweep is no file, so none stands beside it: write the values out"
            self._note(place, key, f"{where}: {text}")
            return None
        try:
            shown = source_name(written, place.children[key])
            if key == "folder":
                shown = str(Path(shown) / _folder_table(self._folder / shown))
            path = self._folder / shown
            _check_options(path.suffix.lower(), value)
        except FileInvalid as error:
            self._note(place, key, f"{where}: {key}={show(written)}: {error}")
            return None
        options = ReadOptions(
            comments=value.get("comments", False),
            delimiter=value.get("delimiter"),
            quotes_are_text=_QUOTING[value["quoting"]] if "quoting" in value else None,
            offset=value.get("offset", 0),
            limit=value.get("limit"),
        )
        return _Source(written=written, shown=shown, path=path, options=options, place=place.children[key])

    def _table(self, where: str, source: _Source, only: list[str] | None) -> Table | None:
        """Read a file, or say why not."""
        named = f"{where}: file={show(source.shown)}"
        try:
            table = read_table(source.path, only=only, options=source.options)
        except FileInvalid as error:
            if error.line is None:
                self.problems.append(source.place.problem(f"{named}: {error}"))
            else:
                self.problems.append(source.row(error.line, error.unit).problem(str(error)))
            return None
        self._note_rows(source, table.unit, table.problems)
        count = len(table.lines) * len(table.values)
        self._values += count
        if self._values > VALUES_MAX:
            text = f"{named}: more than {VALUES_MAX:,} values in all files: set a limit"
            self.problems.append(source.place.problem(text))
            return None
        if not table.lines:
            if not table.problems:
                self.problems.append(source.place.problem(f"{named}: {_nothing(source.options)}"))
            return None
        self.files.append(SourceFile(path=source.shown, sha256=table.sha256, values=count))
        return table

    def _note_rows(self, source: _Source, unit: str, problems: Sequence[RowProblem]) -> None:
        self.problems += [source.row(problem.line, unit).problem(problem.text) for problem in problems]

    def _typed(self, where: str, field: str | None, column: str, table: Table, rows: _Rows) -> list[Any]:
        """Return a column's values, text in a CSV as what its field takes. Marks the rows that have none."""
        values, empty = read_cells(field, table.values[column], is_text=table.is_text)
        for position in empty:
            rows.refused.add(position)
            self.problems.append(rows[position].problem(f"{where} is empty: {empty_mend(field)}"))
        return values

    def _note(self, place: Located, key: str, text: str) -> None:
        self.problems.append(place.children.get(key, place).problem(text))

    def _refuse(self, value: Any, place: Located, where: Located, text: str) -> tuple[Any, Located]:
        self.problems.append(where.problem(text))
        return value, replace(place, refused=True)


def _names_file(value: Any) -> bool:
    return isinstance(value, dict) and ("file" in value or "folder" in value)


def _is_file_group(group: dict[str, Any]) -> bool:
    """Say whether a zip group is read from a file. A variable may be called `folder`: its values are a list."""
    return any(key in group and not isinstance(group[key], list | dict) for key in ("file", "folder"))


# What a mapping with a file may say.


def _is_count(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


_OPTION_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "file": lambda value: "" if isinstance(value, str) and value.strip() else "write the name of a file",
    "folder": lambda value: "" if isinstance(value, str) and value.strip() else "write the name of a folder",
    "comments": lambda value: "" if isinstance(value, bool) else "write true or false",
    "limit": lambda value: "" if _is_count(value, 1) else "write a whole number of 1 or more",
    "offset": lambda value: "" if _is_count(value, 0) else "write a whole number of 0 or more",
    "quoting": lambda value: (
        "" if isinstance(value, str) and value in _QUOTING else "write none (a quote is a quote) or csv"
    ),
    "delimiter": lambda value: (
        ""
        if isinstance(value, str) and len(value) == 1 and value not in '"\r\n'
        else "write one character: ';'"
    ),
}

#: Option -> the ends of the names of files that know it.
_OPTION_ENDS: Mapping[str, tuple[str, ...]] = {
    "comments": (".txt",),
    "delimiter": (".csv", ".tsv"),
    "quoting": (".csv", ".tsv"),
}


def _check_options(end: str, value: Mapping[str, Any]) -> None:
    """Refuse an option that would do nothing: it is meant for another kind of file."""
    for key, ends in _OPTION_ENDS.items():
        if key in value and end not in ends:
            raise FileInvalid(f"{key} is for {' and '.join(ends)}: remove it")
    if end == ".txt" and value.get("column") is not None:
        raise FileInvalid("a text file has no columns: remove 'column'")


def _folder_table(folder: Path) -> str:
    """Return the name of the file that says what the images of a folder show."""
    if not folder.is_dir():
        raise FileInvalid(f"there is no such folder{nearest_file(folder)}")
    found = [name for name in FOLDER_TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise FileInvalid(f"it has {' and '.join(found)}: name the one you mean: 'file:'")
    if not found:
        inner = sorted(path.parent.name for name in FOLDER_TABLES for path in folder.glob(f"*/{name}"))
        mend = f"{inner[0]} has one: name that folder" if inner else "add one, or name a file: 'file:'"
        raise FileInvalid(f"it has no {', '.join(FOLDER_TABLES[:-1])} or {FOLDER_TABLES[-1]}: {mend}")
    return found[0]


def _nothing(options: ReadOptions) -> str:
    if options.offset:
        return f"offset={options.offset} leaves no row: use a smaller one"
    return "no values: the file is empty: write at least one"
