"""Turns a file of prompts into columns of values that remember their lines. Knows nothing of sweeps.

Text is kept to the letter: spaces at the edge, quotes in a TSV, a prompt `0`, U+2028. Only line ends become line
feeds, and a byte order mark goes. How a .csv is written is found out (`dialects`); packed files are unpacked.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import itertools
import json
import math
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from producer.language.document import VALUES_MAX, decode_utf8
from producer.language.problem import Problem
from producer.language.prompt_files.column_names import field_called, is_known_column
from producer.language.prompt_files.dialects import (
    NO_DELIMITER,
    Dialect,
    DialectUnclear,
    find_dialect,
    width,
    written_delimiter,
)
from producer.language.prompt_files.packing import PACKINGS, PackingInvalid, unpack
from producer.language.prompt_files.text_lists import header_delimiter, other_kind
from producer.language.wording import kind, show

#: Largest file, bytes: a million long prompts with their columns.
PROMPT_FILE_BYTES_MAX = 256 << 20

#: The first whole number that a float of 32 bits cannot hold beside its neighbours.
_FLOAT32_EXACT_MAX = 2**24

#: Lines under a title among which the names of the columns are looked for.
_TITLE_LINES_MAX = 10

#: What the name of a column has seldom, and a value often.
_VALUE = re.compile(r"\s|\A[-+0-9.,]+\Z")

#: What the only column of a list is called: a text file has no names.
NAMELESS = ""

#: Rows whose problems are named. What is wrong with a hundred is wrong with all.
_PROBLEMS_MAX = 100

_Row = TypeVar("_Row")


class FileInvalid(ValueError):
    """A file cannot be read as what it is. The message says why and what fixes it, and does not name the file."""

    def __init__(self, text: str, *, line: int | None = None, unit: str = "line") -> None:
        super().__init__(text)
        #: Where in the file, and what is counted there; None where it is the file as a whole.
        self.line = line
        self.unit = unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Columns of a file. A list without names is one column, `NAMELESS`."""

    #: Every column that the file has, in its order.
    columns: tuple[str, ...]
    #: The columns that were asked for, each as long as `lines`.
    values: Mapping[str, Sequence[Any]]
    #: Where each row begins; 1 is the first.
    lines: Sequence[int]
    #: What `lines` count: "line", "row" of a Parquet file, "item" of a JSON list.
    unit: str
    #: Whether every value is text that was written without a type, as in CSV.
    is_text: bool
    #: Of the file's bytes, hexadecimal.
    sha256: str
    #: Names that several columns have, so that they mean none; they are left out of the columns.
    twice: tuple[str, ...] = ()
    #: Rows that could not be read; they are left out of the columns.
    problems: tuple[Problem, ...] = ()
    #: How a delimited file is written; None for other files.
    dialect: Dialect | None = None
    #: What else is to be said of how it was read: its packing, its encoding.
    read_as: tuple[str, ...] = ()
    #: What may be meant otherwise, a line each.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How a file is read, where its name does not say it."""

    #: Skip lines of a text file that begin with "#".
    comments: bool = False
    #: One character, or `NO_DELIMITER`; None to find it out. A .txt with one is a table.
    delimiter: str | None = None
    #: Name of a text encoding; None for UTF-8, or UTF-16 with its mark.
    encoding: str | None = None
    #: Whether a quote is part of the text; None for no in .csv and yes in .tsv.
    quotes_are_text: bool | None = None
    #: Rows left out at the start.
    offset: int = 0
    #: Most rows; None for all.
    limit: int | None = None


def read_bytes(path: Path, *, bytes_max: int = PROMPT_FILE_BYTES_MAX) -> bytes:
    """Return the bytes of a regular file.

    Raises: FileInvalid where there is none, or it is too large or not to be read.
    """
    try:
        found = path.stat()
        trouble = _file_trouble(found.st_mode)
        data = b""
        if not trouble and found.st_size <= bytes_max:
            with path.open("rb") as file:
                data = file.read(bytes_max + 1)
    except FileNotFoundError as error:
        raise FileInvalid(f"there is no such file{nearest_file(path)}") from error
    except (OSError, ValueError) as error:
        raise FileInvalid(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if trouble:
        raise FileInvalid(trouble)
    if max(found.st_size, len(data)) > bytes_max:
        size = f"{found.st_size / (1 << 20):,.1f} MiB"
        raise FileInvalid(f"{size}: a file holds at most {bytes_max >> 20} MiB: split it")
    return data


def _file_trouble(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "this is a folder: name a file in it"
    return "" if stat.S_ISREG(mode) else "this is no regular file: write it to one first"


def nearest_file(path: Path) -> str:
    """Return the end of a message that says a file is not there: one of nearly its name, or where to look."""
    try:
        names = [found.name for found in itertools.islice(path.parent.iterdir(), 1000)]
    except (OSError, ValueError):
        return ", nor its folder: check the path"
    # Ends of names are alike among strangers: .txt is .txt.
    by_stem = {Path(name).stem.casefold(): name for name in names}
    found_stems = difflib.get_close_matches(path.stem.casefold(), by_stem, n=1)
    if not found_stems:
        return ": check the name and the folder"
    return f": did you mean {show(by_stem[found_stems[0]])}?"


def read_text_lines(path: Path, *, options: ReadOptions | None = None) -> Table:
    """Read a list of texts, one a line. Blank lines are skipped, spaces at the edge kept.

    Raises: FileInvalid.
    """
    return _text_lines(_read(path), options or ReadOptions())


def _text_lines(data: _Data, options: ReadOptions) -> Table:
    lines = list(_numbered_lines(data, options))
    if options.delimiter is None and (other := other_kind(lines)):
        raise FileInvalid(other[1], line=other[0])
    kept = _sliced(
        (
            (number, line)
            for number, line in lines
            if not (options.comments and line.lstrip().startswith("#"))
        ),
        options,
    )
    return Table(
        columns=(NAMELESS,),
        values={NAMELESS: [line for _, line in kept]},
        lines=[number for number, _ in kept],
        unit="line",
        is_text=True,
        sha256=data.sha256,
        read_as=data.read_as(options),
    )


def read_table(
    path: Path, *, only: Collection[str] | None = None, options: ReadOptions | None = None
) -> Table:
    """Read a file by the end of its name: .txt, .csv, .tsv, .jsonl, .ndjson, .json or .parquet, each also packed.

    Args:
        only: the columns to return, of those that the file has; None for all. A single column is always returned.
    Raises: FileInvalid.
    """
    options = options or ReadOptions()
    if path.is_dir():
        raise FileInvalid(_file_trouble(stat.S_IFDIR))
    end = table_end(path.name)
    if end == ".txt" and options.delimiter in (None, NO_DELIMITER):
        return read_text_lines(path, options=options)
    if end in (".txt", ".csv", ".tsv"):
        return _read_csv(_read(path), end == ".tsv", only, options)
    if end not in _READERS:
        raise FileInvalid(_no_end(end))
    return _READERS[end](_read(path), only, options)


def table_end(name: str) -> str:
    """Return the end of a file's name that says what it holds, in small letters: `.csv` of prompts.CSV.gz."""
    path = Path(name)
    return Path(path.stem if path.suffix.lower() in PACKINGS else path.name).suffix.lower()


def _no_end(end: str) -> str:
    ends = ", ".join((".txt", ".csv", ".tsv", *_READERS))
    if end in (".xlsx", ".xls", ".ods", ".numbers"):
        return f"its name ends in {end!r}: save the sheet as CSV (Excel: 'CSV UTF-8'), one of {ends}"
    return f"its name ends in {end!r}: use one of {ends}" if end else f"its name has no end: use {ends}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """A file's bytes, unpacked."""

    data: bytes
    #: Of the file as it lies there, hexadecimal.
    sha256: str
    packing: str | None

    def read_as(self, options: ReadOptions) -> tuple[str, ...]:
        """Return what is worth saying of how the bytes were read."""
        is_utf16 = options.encoding is None and self.data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return tuple(filter(None, (self.packing, options.encoding or ("UTF-16" if is_utf16 else None))))


def _read(path: Path) -> _Data:
    """Return what a file holds. Raises: FileInvalid."""
    data = read_bytes(path)
    packing = PACKINGS.get(path.suffix.lower())
    if packing is None:
        return _Data(data=data, sha256=_sha256(data), packing=None)
    try:
        unpacked = unpack(data, packing, bytes_max=PROMPT_FILE_BYTES_MAX)
    except PackingInvalid as error:
        raise FileInvalid(str(error)) from error
    return _Data(data=unpacked, sha256=_sha256(data), packing=packing)


def _read_csv(data: _Data, is_tsv: bool, only: Collection[str] | None, options: ReadOptions) -> Table:
    plain = is_tsv if options.quotes_are_text is None else options.quotes_are_text
    text = _text(data.data, options.encoding)
    try:
        dialect = find_dialect(text, delimiter=options.delimiter, quotes_are_text=plain, prefers_tabs=is_tsv)
    except DialectUnclear as error:
        raise FileInvalid(str(error), line=1) from error
    numbered = _numbered_rows(text, dialect, plain)
    header_line, header = next(numbered, (1, []))
    if not header:
        raise FileInvalid("the file is empty: its first line names the columns")
    if options.delimiter is None and not any(map(is_known_column, header)):
        _refuse_misread(text, header, header_line)
    twice = _repeated(header, header_line, only)
    kept: list[list[str]] = []
    lines: list[int] = []
    problems: list[Problem] = []
    for line, row in _sliced(numbered, options):
        if len(row) == len(header) or len(row) > len(header) >= width(row):
            kept.append(row)
            lines.append(line)
        elif len(row) >= width(header) >= width(row):  # the header alone has empty cells at its end
            kept.append(row + [""] * (len(header) - len(row)))
            lines.append(line)
        elif len(problems) < _PROBLEMS_MAX:
            problems.append(Problem(line=line, text=_ragged(row, header, plain, dialect, options)))
    named = {name: position for position, name in enumerate(header) if name.strip() and name not in twice}
    wanted = [name for name in named if only is None or len(named) == 1 or name in only]
    return Table(
        columns=tuple(named),
        values={name: [row[named[name]] for row in kept] for name in wanted},
        lines=lines,
        unit="line",
        is_text=True,
        sha256=data.sha256,
        twice=twice,
        problems=tuple(problems),
        dialect=dialect,
        read_as=data.read_as(options),
        notes=(*_repeated_notes(twice), *_csv_notes(header, kept, dialect, options, is_quoted=plain)),
    )


def _refuse_misread(text: str, header: list[str], line: int) -> None:
    """Refuse a table whose columns are named further down, or between signs that few people use.

    Args:
        header: what was taken for the names, of which none is known.
        line: where it stands.
    """
    signs = sorted({sign for sign in header[0] if not sign.isalnum() and sign not in "_ -\"'"})
    if len(header) == 1 and (sign := header_delimiter(header[0], delimiters=signs)):
        fix = f"write delimiter: {written_delimiter(sign)} to read them, or delimiter: none for one column"
        raise FileInvalid(f"{show(header[0])} names columns: {fix}", line=line)
    below = itertools.islice(enumerate(io.StringIO(text), start=1), line, line + _TITLE_LINES_MAX)
    for number, row in below:
        if header_delimiter(row.rstrip("\r\n")):
            raise FileInvalid(f"line {number} names the columns: remove what stands above it", line=line)


def _csv_notes(
    header: list[str], rows: list[list[str]], dialect: Dialect, options: ReadOptions, *, is_quoted: bool
) -> Iterator[str]:
    """Yield what may be meant otherwise: a prompt in place of the column's name, quotes that are kept."""
    names = [name for name in header if name.strip()]
    if len(names) == 1 and not is_known_column(names[0]) and _VALUE.search(names[0].strip()):
        fix = "if it is a value, add a line above it"
        yield f"the first line, {show(names[0])}, is the name of the column and no value: {fix}"
    if dialect.delimiter == NO_DELIMITER and options.delimiter is None:
        for sign in ";|\t":
            counts = {row[0].count(sign) for row in rows}
            if len(counts) == 1 and 0 not in counts:
                fix = "if they separate cells, name the columns in the first line"
                yield f"every row has {show(sign)} {counts.pop():,} times and is one value: {fix}"
    if is_quoted and options.quotes_are_text is None:
        opened = [cell for row in rows for cell in row if cell.startswith('"')]
        closed = [cell for cell in opened if len(cell) > 1 and cell.endswith('"')]
        if opened and len(opened) == len(closed):
            fix = "quoting: csv takes them away, quoting: none says that they are meant"
            yield f"{len(closed):,} cells stand in quotes, which are kept, as {show(closed[0])}: {fix}"


class _RawLines:
    """The lines of a text for `csv.reader`, which remember how the last one was written."""

    def __init__(self, text: str, first_line: int) -> None:
        self._lines = io.StringIO(text, newline="\n")
        self.last = ""
        for _ in range(first_line - 1):
            self._lines.readline()

    def __iter__(self) -> _RawLines:
        return self

    def __next__(self) -> str:
        self.last = self._lines.readline()
        if not self.last:
            raise StopIteration
        return self.last


def _numbered_rows(text: str, dialect: Dialect, plain: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, cells) of each row that is not blank. `;;;`, which Excel leaves, is blank."""
    csv.field_size_limit(
        PROMPT_FILE_BYTES_MAX
    )  # a column that nobody asks for may hold a whole picture as text
    lines = _RawLines(text, dialect.first_line)
    rows = csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        skipinitialspace=dialect.skips_spaces,
        strict=True,
    )
    blank = f"{dialect.delimiter} \t\n"
    while True:
        line = dialect.first_line + rows.line_num
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            fix = (
                "look for a tab or comma too few"
                if plain
                else 'write "" for a quote in quotes, or quoting: none'
            )
            raise FileInvalid(
                f"the row that begins here cannot be read ({error}): {fix}", line=line
            ) from error
        if (row and row[0] and not row[0].isspace()) or lines.last.strip(blank):
            yield line, row


def _repeated(header: Sequence[str], line: int, only: Collection[str] | None) -> tuple[str, ...]:
    """Return the names that several columns have. Raises: FileInvalid where one may be a column that is taken."""
    twice = [name for name, count in Counter(header).items() if count > 1 and name.strip()]
    for name in twice:
        if is_known_column(name) if only is None else name in only:
            raise FileInvalid(f"two columns are called {show(name)}: rename one", line=line)
    return tuple(twice)


def _repeated_notes(twice: Iterable[str]) -> list[str]:
    return [
        f"several columns are called {show(name)}, and are left out: rename them to use them"
        for name in twice
    ]


def _ragged(row: list[str], header: list[str], plain: bool, dialect: Dialect, options: ReadOptions) -> str:
    fix = "give it one a column" if plain else "give it one a column, in quotes where it holds the delimiter"
    columns = f"{len(header)} column{'s' * (len(header) != 1)}"
    text = f"{len(row)} cell{'s' * (len(row) != 1)} under {columns}: {fix}"
    if options.delimiter is None and dialect.delimiter != ",":
        text += f" ({dialect} were taken: delimiter: says otherwise)"
    return text


def _read_json_lines(data: _Data, only: Collection[str] | None, options: ReadOptions) -> Table:
    if data.data.lstrip()[:1] == b"[" and (found := _whole_list(data, options)) is not None:
        records = _sliced(enumerate(found, start=1), options)
        return _records(records, only, unit="item", data=data, options=options, problems=[])
    records = []
    problems: list[Problem] = []
    for number, line in _sliced(_numbered_lines(data, options), options):
        try:
            records.append((number, _from_json(line)))
        except ValueError as error:
            if len(problems) < _PROBLEMS_MAX:
                problems.append(Problem(line=number, text=f"{_json_trouble(error)}: {_line_fix(line)}"))
    if problems and not records and len(problems) > 1:
        problems = _one_problem(data, options, problems)
    return _records(records, only, unit="line", data=data, options=options, problems=problems)


def _line_fix(line: str) -> str:
    """Return what fixes a line that is no JSON: what people write in its place."""
    plain = line.strip()
    if plain.endswith(",") and _is_json(plain[:-1]):
        return "remove the comma at its end"
    if plain[:2] in ("{'", "['"):
        return "write double quotes, as JSON has them"
    return "fix the line"


def _one_problem(data: _Data, options: ReadOptions, problems: list[Problem]) -> list[Problem]:
    """Return the one problem of a file of which no line is JSON, but several are together; else all of them."""
    text = _text(data.data, options.encoding)
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return problems
    first = problems[0].line
    if text.lstrip()[end:].strip():
        return [Problem(line=first, text="an object stands on several lines: write one a line, or one list")]
    return [Problem(line=first, text="the file is one JSON value: let its name end in .json")]


def _is_json(text: str) -> bool:
    try:
        _from_json(text)
    except ValueError:
        return False
    return True


def _whole_list(data: _Data, options: ReadOptions) -> list[Any] | None:
    """Return what a file holds that is one JSON list whatever its name says; None for lists a line."""
    try:
        found = _from_json(_text(data.data, options.encoding))
    except ValueError:
        return None
    return found if isinstance(found, list) and any(isinstance(item, dict) for item in found) else None


def _read_json(data: _Data, only: Collection[str] | None, options: ReadOptions) -> Table:
    try:
        found = _from_json(_text(data.data, options.encoding))
    except ValueError as error:
        line = getattr(error, "lineno", None)
        if not data.data.strip():
            raise FileInvalid("the file is empty: write a list of objects") from error
        fix = "one object a line is .jsonl" if "Extra data" in str(error) else "fix it"
        raise FileInvalid(f"{_json_trouble(error)}: {fix}", line=line) from error
    found = _listed(found)
    if not isinstance(found, list):
        raise FileInvalid(f'the file is {kind(found)}: write a list of objects: [{{"prompt": "a cat"}}]')
    records = _sliced(enumerate(found, start=1), options)
    return _records(records, only, unit="item", data=data, options=options, problems=[])


def _listed(found: Any) -> Any:
    """Return the records of a file that keeps them in a mapping: under one key, or each under its image's name.

    Civitai's answers have `items`; kohya's metadata and DiffusionDB's parts have the name of the image as the key.
    """
    if not isinstance(found, dict) or not found:
        return found
    lists = [value for value in found.values() if isinstance(value, list) and value]
    records = [value for value in lists if isinstance(value[0], dict)]
    if len(records) == 1:
        return records[0]
    if (columns := _by_column(found)) is not None:
        return columns
    if len(found) == len(lists) == 1 and is_known_column(next(iter(found)).removesuffix("s")):
        return lists[0]
    if all(isinstance(value, dict) for value in found.values()):
        return [{"file_name": name, **record} for name, record in found.items()]
    return found


def _by_column(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the records of a file that keeps each column by itself, as pandas and datasets write them, or None."""
    if not all(map(is_known_column, found)) and not any(field_called(name) == "prompt" for name in found):
        return None
    if all(isinstance(column, dict) and column for column in found.values()):
        rows = list(next(iter(found.values())))
        if all(list(column) == rows for column in found.values()):
            found = {name: list(column.values()) for name, column in found.items()}
    if (
        not all(isinstance(column, list) for column in found.values())
        or len(set(map(len, found.values()))) != 1
    ):
        return None
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


#: DiffusionDB's keys in the JSON files beside its images.
_SHORT_KEYS = {"p": "prompt", "se": "seed", "c": "cfg", "st": "step", "sa": "sampler"}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with what other programs nest or shorten under its usual name."""
    if record.keys() >= {"p", "se", "st"}:
        return {_SHORT_KEYS.get(key, key): value for key, value in record.items()}
    if "prompt" not in record and isinstance(meta := record.get("meta"), dict):
        return {**{key: value for key, value in record.items() if key != "meta"}, **meta}
    return record


def _records(
    records: list[tuple[int, Any]],
    only: Collection[str] | None,
    *,
    unit: str,
    data: _Data,
    options: ReadOptions,
    problems: list[Problem],
) -> Table:
    """Return objects as columns, what an object lacks being None; or texts and numbers as one column."""
    objects = bool(records) and isinstance(records[0][1], dict)
    rows: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    for line, record in records:
        row = _flat(record) if isinstance(record, dict) else {NAMELESS: record}
        if isinstance(record, dict) is objects:
            rows.append((line, row))
            columns.update(dict.fromkeys(row))
        elif len(problems) < _PROBLEMS_MAX:
            wanted = "an object, as the first is" if objects else "no object, as the first is none"
            problems.append(Problem(line=line, text=f"{kind(record)}: write {wanted}"))
    names = list(columns)
    wanted_names = [names[position] for position in _wanted(names, only)]
    return Table(
        columns=tuple(names),
        values={name: [row.get(name) for _, row in rows] for name in wanted_names},
        lines=[line for line, _ in rows],
        unit=unit,
        is_text=False,
        sha256=data.sha256,
        problems=tuple(problems),
        read_as=data.read_as(options),
    )


def _read_parquet(data: _Data, only: Collection[str] | None, options: ReadOptions) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data.data))
        all_names = list(file.schema_arrow.names)
        twice = _repeated(all_names, 1, only)
        names = [name for name in all_names if name not in twice]
        wanted = [names[position] for position in _wanted(names, only)]
        if only is None:
            wanted = [name for name in wanted if not _holds_bytes(file.schema_arrow.field(name).type)]
        lines = _sliced(range(1, file.metadata.num_rows + 1), options)
        groups = _row_groups(file.metadata, options.offset + len(lines))
        read = file.read_row_groups(groups, columns=wanted).slice(options.offset, len(lines))
        values = _ParquetColumns({name: read.column(name) for name in wanted})
    except (pyarrow.ArrowException, OSError) as error:
        raise FileInvalid(f"no Parquet file that can be read ({error}): write it anew") from error
    return Table(
        columns=tuple(names),
        values=values,
        lines=lines,
        unit="row",
        is_text=False,
        sha256=data.sha256,
        twice=twice,
        read_as=data.read_as(ReadOptions()),
        notes=tuple(_repeated_notes(twice)),
    )


class _ParquetColumns(Mapping[str, Sequence[Any]]):
    """Columns of a Parquet file, each made Python values when somebody asks for it."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns
        self._values: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._values:
            self._values[name] = _plain_column(self._columns[name])
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _row_groups(metadata: Any, rows: int) -> list[int]:
    """Return the row groups that hold the first rows of a Parquet file: a limit need not read millions."""
    ends = itertools.accumulate(
        metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)
    )
    return [place for place, before in enumerate(itertools.chain([0], ends)) if before < rows][
        : metadata.num_row_groups
    ]


def _plain_column(column: Any) -> list[Any]:
    """Return the values of a Parquet column. A float of 32 bits is the number that it was written as: 7.1.

    One beyond 2^24 has lost digits, so it stays text in the notation that says so.
    """
    from pyarrow import string, types

    if not types.is_float32(column.type):
        return _python_values(column)
    numbers = [None if text is None else float(text) for text in column.cast(string()).to_pylist()]
    return [
        f"{number:.6E}" if number is not None and _FLOAT32_EXACT_MAX < abs(number) < math.inf else number
        for number in numbers
    ]


def _python_values(column: Any) -> list[Any]:
    """Return the values of a Parquet column. What Python has no value for is binary data, which nothing takes as text.

    A text that is not UTF-8, a date beyond the year 9999, a time zone that this machine does not know.
    """
    import pyarrow

    try:
        values: list[Any] = column.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError):
        return [_one_value(cell) for cell in column]
    return values


def _one_value(cell: Any) -> Any:
    import pyarrow

    try:
        return cell.as_py()
    except (pyarrow.ArrowException, ValueError, OverflowError):
        return b""


def _holds_bytes(kind: Any) -> bool:
    """Say whether a Parquet column holds files, as image datasets do: they are not unpacked unless asked for."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind):
        return True
    return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))


_READERS: Mapping[str, Callable[[_Data, Collection[str] | None, ReadOptions], Table]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _wanted(columns: Sequence[str], only: Collection[str] | None) -> list[int]:
    if only is None or len(columns) == 1:
        return list(range(len(columns)))
    return [position for position, name in enumerate(columns) if name in only]


def _numbered_lines(data: _Data, options: ReadOptions) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line that is not blank. U+2028 and U+0085 end no line."""
    for number, line in enumerate(io.StringIO(_text(data.data, options.encoding), newline="\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def _text(data: bytes, encoding: str | None) -> str:
    """Return a file's text with line feeds as its only line ends."""
    if encoding is not None:
        text = _decoded(data, encoding)
    else:
        text, problem = decode_utf8(data)
        if problem is not None:
            fix = "" if problem.line is None else _encoding_fix(data, problem.line)
            raise FileInvalid(problem.text + fix, line=problem.line)
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise FileInvalid(
            f"a NUL stands here: remove it; if the file is {_wide_encoding(data)[:6].upper()}, "
            f"save it as UTF-8 or write encoding: {_wide_encoding(data)}",
            line=line,
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise FileInvalid(f"{byte} is not {encoding}: write another encoding", line=line) from error


#: Bytes of a text that are looked at for NULs.
_WIDE_BYTES = 4096

#: How files begin that are no text, and what to do about them.
_NO_TEXT = {
    b"\x1f\x8b": " (it is packed by gzip: let its name end in .gz)",
    b"PK\x03\x04": " (it is a zip archive, as .xlsx files are: save the sheet as CSV)",
    b"PAR1": " (it is a Parquet file: let its name end in .parquet)",
}


def _wide_encoding(data: bytes) -> str:
    """Return which encoding a text with NULs is most likely in: in UTF-16 every other byte of English is one."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    some = data[:_WIDE_BYTES]
    return "utf-16-be" if some[::2].count(0) > some[1::2].count(0) else "utf-16-le"


def _encoding_fix(data: bytes, line: int) -> str:
    """Return what else may be done about bytes that are not UTF-8: what Western Windows would read."""
    for start, said in _NO_TEXT.items():
        if data.startswith(start):
            return said
    if data[:_WIDE_BYTES].count(0) * 4 > len(data[:_WIDE_BYTES]):
        return f", or write encoding: {_wide_encoding(data)}"
    lines = re.split(rb"\r\n|\n|\r", data)
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return ", or write encoding: and what it is"
    shown = next((word for word in text.split() if not word.isascii()), lines[line - 1].decode("cp1252"))
    return f", or write encoding: cp1252 if {show(shown)} is right"


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {show(next(key for key in keys if keys.count(key) > 1))} stands there twice"
        )
    return found


def _no_constant(text: str) -> None:
    """Return what Python's NaN is, which other programs write for no value. Infinity is none."""
    if text != "NaN":
        raise ValueError(f"{text} is no JSON number")


def _json_trouble(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}, column {error.colno})"
    return f"not JSON ({error})"


def _sliced(rows: Iterable[_Row], options: ReadOptions) -> list[_Row]:
    """Return the rows that the options leave, as a bounded list."""
    stop = None if options.limit is None else options.offset + options.limit
    found = list(itertools.islice(itertools.islice(rows, options.offset, stop), VALUES_MAX + 1))
    if len(found) > VALUES_MAX:
        raise FileInvalid(f"more than {VALUES_MAX:,} rows: a sweep holds no more values: set a limit")
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
