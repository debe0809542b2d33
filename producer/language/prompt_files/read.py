"""Reads the prompt files that a sweep names into values. Knows files and places, not which values are right.

What is left names no prompt file, so it can be stored and read again anywhere. Each value remembers its file and line.
"""

from __future__ import annotations

import bisect
import codecs
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from producer.language.document import VALUES_MAX, Document, Located, source_name
from producer.language.problem import Problem
from producer.language.prompt_files.cells import Cells, read_cells, read_sizes
from producer.language.prompt_files.column_names import SIDES, field_called, folded
from producer.language.prompt_files.columns import (
    AXES,
    ChosenColumns,
    find_column,
    listed,
    name_trouble,
    named_columns,
    no_column,
    own_columns,
)
from producer.language.prompt_files.dialects import NO_DELIMITER
from producer.language.prompt_files.options import (
    OPTION_DIALECTS,
    OptionDialect,
    find_options,
    is_comment,
    read_options,
)
from producer.language.prompt_files.paths import NamedPath, find_path, find_paths, is_absolute
from producer.language.prompt_files.row_labels import Beside, labels_of, written_labels
from producer.language.prompt_files.tables import (
    NAMELESS,
    FileInvalid,
    ReadOptions,
    Table,
    nearest_file,
    read_table,
    table_end,
)
from producer.language.prompt_files.text_lists import list_notes
from producer.language.wording import kind, near, show

#: Files that say what the images of a Hugging Face folder show, in the order in which they are looked for.
FOLDER_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_FORMAT_KEYS = ("delimiter", "quoting", "encoding")
_AXIS_KEYS = ("file", "folder", "column", "labels", "comments", "options", *_FORMAT_KEYS, "limit", "offset")
_GROUP_KEYS = ("file", "folder", "columns", "labels", *_FORMAT_KEYS, "limit", "offset")
_QUOTING = {"none": True, "csv": False}

#: Words for delimiters that are hard to type or to see.
_DELIMITER_WORDS = {
    "none": NO_DELIMITER,
    "tab": "\t",
    "\\t": "\t",
    "comma": ",",
    "semicolon": ";",
    "pipe": "|",
    "bar": "|",
    "space": " ",
}

#: A hole in a text, as far as a name goes.
_HOLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that values came from."""

    #: As seen from the sweep's folder.
    path: str
    #: Of its bytes, hexadecimal.
    sha256: str
    #: How many values were taken.
    values: int
    #: How it was read, where that is not said by its name: its delimiter, encoding, packing, what its columns are.
    read_as: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Inlined:
    """A document that is complete by itself, and where its values came from."""

    document: Document
    files: tuple[SourceFile, ...]
    #: What a person should know of the files before anything is rendered, a line each.
    notes: tuple[str, ...] = ()


def inline_sources(document: Document, *, folder: Path | None) -> Inlined:
    """Return a document with the values of files in place of their names.

    Reads `{file}` and `{folder}` in every axis, in `vars`, in `replace` and in `zip`. Where something is wrong the
    place is marked as refused, and its problems are added to the document's.

    Args:  folder: the sweep's own; None for text from elsewhere, which can name no file.
    """
    if not isinstance(document.value, dict):
        return Inlined(document=document, files=())
    inliner = _Inliner(folder, document)
    value = dict(document.value)
    places = dict(document.located.children)
    for key, found in document.value.items():
        value[key], places[key] = inliner.key(key, found, places[key])
    if inliner.labels and isinstance(said := value.get("labels", {}), Mapping):
        value["labels"] = _with_labels(said, written_labels(inliner.labels))
        places["labels"] = places.get("labels", Located(0))
    if inliner.cases is not None:
        del value["prompt"], places["prompt"]
        value["cases"], places["cases"] = inliner.cases
    located = replace(document.located, children=places)
    inlined = Document(value=value, located=located, problems=inliner.problems)
    return Inlined(document=inlined, files=tuple(inliner.files), notes=tuple(inliner.notes))


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


class _ChainedColumns(Mapping[str, Sequence[Any]]):
    """Columns of several tables one behind the other, each put together when somebody asks for it."""

    def __init__(self, tables: Sequence[Table], offset: int, stop: int) -> None:
        self._tables = tables
        self._rows = slice(offset, stop)
        self._values: dict[str, Sequence[Any]] = {}

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._values:
            columns = (table.values[name] for table in self._tables)
            self._values[name] = list(itertools.chain.from_iterable(columns))[self._rows]
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tables[0].values

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables[0].values)

    def __len__(self) -> int:
        return len(self._tables[0].values)


class _Read:
    """The table of one file, or of several as one; and where each row stands."""

    def __init__(self, parts: Sequence[tuple[_Source, Table]], *, offset: int, limit: int | None) -> None:
        """Take what was read.

        Args:
            parts: at least one; all have the same columns.
            offset: rows left out at the start of all of them together, with `limit`.
        """
        self.parts = parts
        self.table = parts[0][1]
        counts = [len(table.lines) for _, table in parts]
        if len(parts) > 1:
            stop = sum(counts) if limit is None else offset + limit
            tables = [table for _, table in parts]
            values = _ChainedColumns(tables, offset, stop)
            lines = list(itertools.chain.from_iterable(table.lines for table in tables))[offset:stop]
            self.table = replace(self.table, values=values, lines=lines)
            ends = itertools.accumulate(counts)
            self._starts = [0, *(min(max(end - offset, 0), len(lines)) for end in ends)]
        else:
            self._starts = [0, *counts]

    @property
    def shown(self) -> str:
        """The files as a message shows them."""
        first = self.parts[0][0]
        return first.shown if len(self.parts) == 1 else first.written

    def place(self, position: int) -> Located:
        """Return where a row stands."""
        source, _ = self.parts[bisect.bisect_right(self._starts, position) - 1]
        return source.row(self.table.lines[position], self.table.unit)

    def rows_of(self, part: int) -> int:
        """Return how many rows of a file there are."""
        return self._starts[part + 1] - self._starts[part]


class _Rows(Mapping[str | int, Located]):
    """Where the rows of a table stand, each made when somebody asks: a hundred thousand take time and memory."""

    def __init__(self, read: _Read, kept: Sequence[int] | None = None) -> None:
        #: Positions for which a problem has been recorded already.
        self.refused: set[int] = set()
        self._read = read
        self._kept = kept

    def __getitem__(self, position: str | int) -> Located:
        if not isinstance(position, int) or not 0 <= position < len(self):
            raise KeyError(position)
        place = self._read.place(position if self._kept is None else self._kept[position])
        place.refused = position in self.refused
        return place

    def __iter__(self) -> Iterator[str | int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self._read.table.lines if self._kept is None else self._kept)


class _Inliner:
    """Reads files, and collects their problems."""

    def __init__(self, folder: Path | None, document: Document) -> None:
        self.problems: list[Problem] = [*document.problems]
        self.files: list[SourceFile] = []
        self.notes: list[str] = []
        #: What stands in place of the prompts, where the lines of their file carry options; with its place.
        self.cases: tuple[list[dict[str, Any]], Located] | None = None
        #: Axis -> name -> what each of its values is called besides.
        self.labels: dict[str, Mapping[str, Sequence[str | None]]] = {}
        #: What stands beside the column that was read last.
        self._beside: Mapping[str, Sequence[str | None]] = {}
        self._folder = folder
        self._values = 0
        self._top = {key for key, value in document.value.items() if value is not None}
        self._holes = set(_holes(document.value))

    def key(self, key: str, value: Any, place: Located) -> tuple[Any, Located]:
        """Return the value of a key of the sweep, with the files in it read."""
        if key == "prompt" and _names_file(value):
            return self._prompts(value, place)
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
            self._label(_axis_name(where), self._beside)
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
        labels: dict[str, list[str | None]] = {}
        refused = place.refused
        for position, item in enumerate(value):
            here = place.children[position]
            if not _names_file(item):
                values.append(item)
                rows.append(here)
            elif (column := self._column(where, field, item, here)) is None:
                refused = True
            else:
                for name, texts in self._beside.items():
                    own = labels.setdefault(name, [])
                    own += [None] * (len(values) - len(own)) + [*texts]
                values += column[0]
                rows += column[1].values()
        for texts in labels.values():
            texts += [None] * (len(values) - len(texts))
        self._label(_axis_name(where), labels)
        return values, replace(place, children=dict(enumerate(rows)), refused=refused)

    def _prompts(self, value: dict[str, Any], place: Located) -> tuple[Any, Located]:
        """Return the prompts of a file. Lines that carry options become cases."""
        found = self._one_column("prompt", "prompt", value, place)
        if found is None:
            return [], replace(place, refused=True)
        read, column = found
        lines, dialect = read.table.values.get(NAMELESS), None
        if lines is not None and table_end(read.parts[0][0].path.name) == ".txt":
            try:
                dialect = _options_of(value.get("options"), lines)
            except ValueError as error:
                self._note(place, "file", f"prompt: file={show(read.shown)}: {error}")
                return [], replace(place, refused=True)
        if dialect is None:
            taken = self._taken("prompt", "prompt", read, column, value, place)
            if taken is None:
                return [], replace(place, refused=True)
            values, rows = taken
            self._label("prompt", self._beside)
            return values, replace(place, raw=None, children=rows)
        return self._cases(read, dialect, place)

    def _cases(self, read: _Read, dialect: OptionDialect, place: Located) -> tuple[Any, Located]:
        """Keep the lines of a file as cases."""
        lines = read.table.values[NAMELESS]
        kept = [position for position, line in enumerate(lines) if not is_comment(line, dialect)]
        rows = _Rows(read, kept)
        cases: list[dict[str, Any]] = []
        places: dict[str | int, Located] = {}
        for number, position in enumerate(kept):
            found = read_options(lines[position], dialect)
            here = rows[number]
            self.problems += [here.problem(text) for text in found.problems]
            here.refused = bool(found.problems)
            here.children = dict.fromkeys(found.values, here)
            cases.append(found.values)
            places[number] = here
        self._record(
            read,
            1,
            (f"lines with {_PROGRAMS[dialect]}'s options", "options: none for text as it is"),
        )
        if "cases" in self._top:
            said = f"the lines of {show(read.shown)} carry options, so they are cases"
            return self._refuse([], place, place, f"prompt: {said}: write all cases there, or options: none")
        self.cases = (cases, replace(place, raw=None, children=places))
        return [], place

    def _column(
        self, where: str, field: str | None, value: dict[str, Any], place: Located
    ) -> tuple[list[Any], _Rows] | None:
        """Return the values of one column of a file and their places, or None where there are none."""
        found = self._one_column(where, field, value, place)
        if found is None:
            return None
        read, column = found
        is_list = table_end(read.parts[0][0].path.name) == ".txt"
        if field == "prompt" and is_list and value.get("options") != "none":
            dialect = _options_of(value.get("options"), read.table.values.get(NAMELESS, ()), strict=False)
            if dialect is not None:
                fix = "such a file stands alone: 'prompt: {file: ...}'; or write options: none"
                said = f"{show(read.shown)} has lines with {_PROGRAMS[dialect]}'s options: {fix}"
                self._note(place, "file", f"{where}: {said}")
                return None
        return self._taken(where, field, read, column, value, place)

    def _taken(
        self,
        where: str,
        field: str | None,
        read: _Read,
        column: str,
        value: Mapping[str, Any],
        place: Located,
    ) -> tuple[list[Any], _Rows] | None:
        """Return the values of one column and their places; None where its labels are refused."""
        rows = _Rows(read)
        beside = self._labels_of(where, read, (column,), value, place)
        if beside is None:
            return None
        self._beside = beside.columns
        values = self._typed(where, field, (column,), read, rows)
        if column == NAMELESS and read.table.is_text:
            self.notes += [f"{read.shown}: {note}" for note in list_notes(read.table.values[NAMELESS])]
        is_other = column != NAMELESS and field is not None and folded(column) != folded(field)
        self._record(read, 1, (*((f"{show(column)} taken as {field}",) if is_other else ()), *beside.notes))
        return values, rows

    def _labels_of(
        self, where: str, read: _Read, taken: Sequence[str], value: Mapping[str, Any], place: Located
    ) -> Beside | None:
        """Return what stands beside the columns that are taken of a file, or say why it cannot."""
        try:
            return labels_of(read.table, {*taken, *self._holes}, value.get("labels"))
        except FileInvalid as error:
            self._note(place, "labels", f"{where}: {show(read.shown)} {error}")
            return None

    def _label(self, axis: str, columns: Mapping[str, Sequence[str | None]]) -> None:
        """Keep what stands beside an axis."""
        if columns:
            self.labels[axis] = columns

    def _one_column(
        self, where: str, field: str | None, value: dict[str, Any], place: Located
    ) -> tuple[_Read, str] | None:
        """Return what a file holds and which of its columns is meant, or say why there is none."""
        sources = self._sources(where, value, place, _AXIS_KEYS)
        if sources is None:
            return None
        name = value.get("column")
        if name is not None and not isinstance(name, str):
            self._note(place, "column", f"{where}: column is {kind(name)}: write a column's name")
            return None
        read = self._read(where, sources, value)
        if read is None:
            return None
        table = read.table
        wanted = name if name is not None else (field or where.rpartition(": ")[2])
        column = find_column(wanted, table.columns, field=field if name is None else None)
        if column is None and name is None and len(table.columns) == 1:
            column = table.columns[0]
        if column is None or column not in table.values:
            here, trouble = "column", no_column(column or wanted, table)
            if name is None and column is None:
                here, trouble = "file", f"has the columns {listed(table)}: say which one: 'column: ...'"
            self._note(place, here, f"{where}: {show(read.shown)} {trouble}")
            return None
        return (read, column) if self._has_room(where, read, 1) else None

    def _group(self, where: str, value: dict[str, Any], place: Located) -> tuple[Any, Located]:
        """Return a zip group as a mapping of names to lists."""
        if not _is_file_group(value):
            return self._axes("zip", value, place)
        names = self._group_names(where, value.get("columns"), place)
        sources = self._sources(where, value, place, _GROUP_KEYS)
        if sources is None or (names is None and value.get("columns") is not None):
            return {}, replace(place, refused=True)
        read = self._read(where, sources, value)
        if read is None:
            return {}, replace(place, refused=True)
        try:
            chosen = named_columns(names, read.table) if names is not None else self._own(read.table)
        except FileInvalid as error:
            return self._refuse({}, place, place, f"{where}: {show(read.shown)} {error}")
        taken = [column for columns in chosen.names.values() for column in columns]
        beside = self._labels_of(where, read, taken, value, place)
        if beside is None:
            return {}, replace(place, refused=True)
        if beside.columns:
            self.labels[next(iter(chosen.names))] = beside.columns
        return self._filled(where, replace(chosen, notes=(*chosen.notes, *beside.notes)), read, place)

    def _own(self, table: Table) -> ChosenColumns:
        holes = self._holes.union(
            *(
                _holes(table.values.get(name, ()))
                for name in table.columns
                if find_column("prompt", [name], field="prompt")
            ),
            *(_holes(table.values.get(name, ())) for name in table.columns if name == "negative_prompt"),
        )
        return own_columns(table, holes=holes, top=self._top)

    def _filled(self, where: str, chosen: ChosenColumns, read: _Read, place: Located) -> tuple[Any, Located]:
        """Return the columns of a table under the names that the sweep gives them."""
        if not self._has_room(where, read, len(chosen.names)):
            return {}, replace(place, refused=True)
        values: dict[str, Any] = {}
        places: dict[str | int, Located] = {}
        for name, columns in chosen.names.items():
            field = name if name in AXES else None
            # Places are marked as refused one by one, so each column has its own.
            rows = _Rows(read)
            values[name] = self._typed(name, field, columns, read, rows)
            places[name] = replace(place, raw=None, children=rows)
        self._record(read, len(chosen.names), chosen.notes)
        return values, replace(place, children=places)

    def _group_names(self, where: str, columns: Any, place: Located) -> dict[str, str] | None:
        """Return our name -> the file's, or None where the sweep gives none, or wrong ones."""
        if columns is None:
            return None
        here = place.children.get("columns", place)
        if isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns):
            columns = {self._name_of(name): name for name in columns}
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

    def _name_of(self, column: str) -> str:
        """Return what a column of a list is in the sweep: itself, or the field that other programs call so."""
        if column in AXES or column in self._holes:
            return column
        field = field_called(column)
        return field if field else folded(column) if folded(column) in SIDES else column

    def _sources(
        self, where: str, value: dict[str, Any], place: Located, known: Sequence[str]
    ) -> list[_Source] | None:
        """Return the files that a mapping means, or None where it says something it may not."""
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
            if key in value and key in known and (fix := check(value[key])):
                self._note(place, key, f"{where}: {key}={show(value[key])}: {fix}")
        if len(self.problems) > before:
            return None
        return self._located_sources(where, value, place)

    def _located_sources(self, where: str, value: dict[str, Any], place: Located) -> list[_Source] | None:
        key = "file" if "file" in value else "folder"
        written = value[key]
        here = place.children[key]
        if self._folder is None:
            text = f"{key}={show(written)}: this sweep is no file, so none stands beside it: write the values out"
            self._note(place, key, f"{where}: {text}")
            return None
        try:
            name = written if is_absolute(written) else source_name(written, here)
            if key == "folder":
                folder = find_path(self._folder, name, folders=True)
                name = str(Path(folder.shown) / _folder_table(folder))
            named = find_paths(self._folder, name)
            for one in named:
                _check_options(table_end(one.path.name), value)
        except FileInvalid as error:
            self._note(place, key, f"{where}: {key}={show(written)}: {error}")
            return None
        delimiter = value.get("delimiter")
        options = ReadOptions(
            comments=value.get("comments", False),
            delimiter=None if delimiter is None else _DELIMITER_WORDS.get(delimiter, delimiter),
            quotes_are_text=_QUOTING[value["quoting"]] if "quoting" in value else None,
            encoding=value.get("encoding"),
            offset=value.get("offset", 0) if len(named) == 1 else 0,
            limit=value.get("limit") if len(named) == 1 else None,
        )
        return [
            _Source(written=written, shown=one.shown, path=one.path, options=options, place=here)
            for one in named
        ]

    def _read(self, where: str, sources: Sequence[_Source], value: Mapping[str, Any]) -> _Read | None:
        """Read files, or say why not."""
        parts: list[tuple[_Source, Table]] = []
        rows = 0
        for source in sources:
            table = self._table(where, source)
            if table is None:
                return None
            if parts and (trouble := _unlike(parts[0], table)):
                self.problems.append(source.place.problem(f"{where}: file={show(source.shown)}: {trouble}"))
                return None
            parts.append((source, table))
            rows += len(table.lines)
            if rows > VALUES_MAX:
                text = f"{where}: file={show(source.shown)}: more than {VALUES_MAX:,} rows in all files: name fewer"
                self.problems.append(source.place.problem(text))
                return None
        if len(parts) > 1:
            names = list(dict.fromkeys(name for _, table in parts for name in table.values))
            parts = [(source, _with_columns(table, names)) for source, table in parts]
        read = _Read(parts, offset=value.get("offset", 0), limit=value.get("limit"))
        if not read.table.lines:
            source, table = parts[0]
            if not any(table.problems for _, table in parts):
                text = f"{where}: file={show(source.shown)}: {_nothing(value.get('offset', 0))}"
                self.problems.append(source.place.problem(text))
            return None
        return read

    def _table(self, where: str, source: _Source) -> Table | None:
        """Read a file, or say why not."""
        named = f"{where}: file={show(source.shown)}"
        try:
            table = read_table(source.path, options=source.options)
        except FileInvalid as error:
            if error.line is None:
                self.problems.append(source.place.problem(f"{named}: {error}"))
            else:
                self.problems.append(source.row(error.line, error.unit).problem(str(error)))
            return None
        self._note_rows(source, table.unit, table.problems)
        return table

    def _record(self, read: _Read, columns: int, notes: Sequence[str] = ()) -> None:
        """Count the values that were taken, and remember the files they came from."""
        for part, (source, table) in enumerate(read.parts):
            count = read.rows_of(part) * columns
            self._values += count
            self.notes += [f"{source.shown}: {note}" for note in table.notes]
            how = (*([str(table.dialect)] if table.dialect else []), *table.read_as, *notes)
            self.files.append(SourceFile(path=source.shown, sha256=table.sha256, values=count, read_as=how))

    def _has_room(self, where: str, read: _Read, columns: int) -> bool:
        """Say whether a sweep may hold so many columns of a file as well, before they are made values."""
        if self._values + len(read.table.lines) * columns <= VALUES_MAX:
            return True
        text = f"{where}: file={show(read.shown)}: more than {VALUES_MAX:,} values in all files: set a limit"
        self.problems.append(read.parts[0][0].place.problem(text))
        return False

    def _note_rows(self, source: _Source, unit: str, problems: Sequence[Problem]) -> None:
        self.problems += [source.row(problem.line or 0, unit).problem(problem.text) for problem in problems]

    def _typed(
        self, where: str, field: str | None, columns: Sequence[str], read: _Read, rows: _Rows
    ) -> list[Any]:
        """Return a column's values as what their field takes. Marks the rows that have none."""
        found = self._cells(field, columns, read)
        for position, text in sorted(found.problems.items()):
            rows.refused.add(position)
            space = "" if text.startswith("=") else " "
            self.problems.append(rows[position].problem(f"{where}{space}{text}"))
        self.notes += [f"{read.shown}: {columns[0]}: {note}" for note in found.notes]
        return found.values

    def _cells(self, field: str | None, columns: Sequence[str], read: _Read) -> Cells:
        table = read.table
        comma = table.dialect is not None and table.dialect.has_decimal_comma
        fields = SIDES if len(columns) > 1 else (field,)
        found = [
            read_cells(one, table.values[column], is_text=table.is_text, decimal_comma=comma)
            for one, column in zip(fields, columns, strict=True)
        ]
        return found[0] if len(found) == 1 else read_sizes(*found)

    def _note(self, place: Located, key: str, text: str) -> None:
        self.problems.append(place.children.get(key, place).problem(text))

    def _refuse(self, value: Any, place: Located, where: Located, text: str) -> tuple[Any, Located]:
        self.problems.append(where.problem(text))
        return value, replace(place, refused=True)


def _axis_name(where: str) -> str:
    """Return what an axis is called in the sweep, of what messages call it."""
    return re.sub(r"\A(vars|replace): ", "", where)


def _with_labels(said: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the labels that a sweep says itself, and those of its files; its own go first."""
    both = {axis: own for axis, own in said.items() if not isinstance(own, Mapping)}
    merged = {
        axis: {**found.get(axis, {}), **said.get(axis, {})} for axis in (*said, *found) if axis not in both
    }
    return {**both, **merged}


def _names_file(value: Any) -> bool:
    return isinstance(value, dict) and ("file" in value or "folder" in value)


def _is_file_group(group: dict[str, Any]) -> bool:
    """Say whether a zip group is read from a file. A variable may be called `folder`: its values are a list."""
    return any(key in group and not isinstance(group[key], list | dict) for key in ("file", "folder"))


# What a mapping with a file may say.


def _encoding_fix(value: Any) -> str:
    try:
        is_text = isinstance(value, str) and codecs.lookup(value)._is_text_encoding
    except LookupError:
        is_text = False
    return "" if is_text else "write utf-8, utf-16, cp1252, shift_jis or the name of another text encoding"


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
        if isinstance(value, str)
        and (value in _DELIMITER_WORDS or (len(value) == 1 and value not in '"\r\n'))
        else "write one character: ';', or tab, or none for one column"
    ),
    "encoding": _encoding_fix,
    "labels": lambda value: (
        ""
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        else "write names of columns, or none"
    ),
    "options": lambda value: (
        "" if value in (*OPTION_DIALECTS, "none") else f"write {', '.join(OPTION_DIALECTS)} or none"
    ),
}

_TEXT_ENDS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")

#: Option -> the ends of the names of files that know it.
_OPTION_ENDS: Mapping[str, tuple[str, ...]] = {
    "comments": (".txt",),
    "options": (".txt",),
    "delimiter": (".csv", ".tsv", ".txt"),
    "quoting": (".csv", ".tsv", ".txt"),
    "encoding": _TEXT_ENDS,
}

#: Whose options lines carry, as people call the program.
_PROGRAMS: Mapping[OptionDialect, str] = {"a1111": "A1111", "kohya": "kohya"}


def _check_options(end: str, value: Mapping[str, Any]) -> None:
    """Refuse an option that would do nothing: it is meant for another kind of file."""
    for key, ends in _OPTION_ENDS.items():
        if key in value and end not in ends:
            listed = ", ".join(ends[:-1]) + f" and {ends[-1]}" if len(ends) > 1 else ends[0]
            raise FileInvalid(f"{key} is for {listed}: remove it")
    if end == ".txt" and value.get("column") is not None and value.get("delimiter") in (None, "none"):
        raise FileInvalid("a text file has no columns: remove 'column'")


def _options_of(said: str | None, lines: Sequence[str], *, strict: bool = True) -> OptionDialect | None:
    """Return whose options lines carry: what the sweep says, or what they look like.

    Raises: ValueError where they look like two programs', if strict.
    """
    if said is not None:
        return next((dialect for dialect in OPTION_DIALECTS if dialect == said), None)
    try:
        return find_options(lines)
    except ValueError:
        if strict:
            raise
        return "a1111"


def _is_list(table: Table) -> bool:
    """Say whether a table is a list of texts, whose only column has no name."""
    return table.columns == (NAMELESS,)


def _unlike(first: tuple[_Source, Table], table: Table) -> str:
    """Return why a table cannot go on where the first of several ends, or ""."""
    source, begun = first
    if (begun.unit, begun.is_text, _is_list(begun)) != (table.unit, table.is_text, _is_list(table)):
        return f"is of another kind than {show(source.shown)}: name files of one kind"
    if begun.is_text and set(begun.columns) != set(table.columns):
        odd = next(iter(set(begun.columns) ^ set(table.columns)))
        return f"has other columns than {show(source.shown)} ({show(odd)} is in one of them): make them alike"
    return ""


def _with_columns(table: Table, names: Sequence[str]) -> Table:
    """Return a table with these columns, what it lacks being null."""
    if list(table.values) == list(names):
        return table
    values = {
        name: table.values[name] if name in table.values else [None] * len(table.lines) for name in names
    }
    return replace(table, columns=tuple(names), values=values)


def _holes(value: Any) -> Iterator[str]:
    """Yield the names that stand in braces in the texts of a value."""
    if isinstance(value, str):
        if "{" in value:
            yield from _HOLE.findall(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _holes(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _holes(inner)


def _folder_table(named: NamedPath) -> str:
    """Return the name of the file that says what the images of a folder show."""
    folder = named.path
    if not folder.is_dir():
        raise FileInvalid(f"there is no such folder{nearest_file(folder)}")
    found = [name for name in FOLDER_TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise FileInvalid(f"it has {' and '.join(found)}: name the one you mean: 'file:'")
    if not found:
        inner = sorted(path.parent.name for name in FOLDER_TABLES for path in folder.glob(f"*/{name}"))
        fix = f"{inner[0]} has one: name that folder" if inner else "add one, or name a file: 'file:'"
        if not inner and any(folder.glob("*.txt")):
            fix = f"where each image has its caption in a .txt beside it: {{file: '{named.shown.rstrip('/')}/*.txt'}}"
        raise FileInvalid(f"it has no {', '.join(FOLDER_TABLES[:-1])} or {FOLDER_TABLES[-1]}: {fix}")
    return found[0]


def _nothing(offset: int) -> str:
    if offset:
        return f"offset={offset} leaves no row: use a smaller one"
    return "no values: the file is empty: write at least one"
