"""Turns a file of prompts into columns of values that remember their lines. Knows nothing of sweeps.

Text is kept to the letter: spaces at the edge, quotes in a TSV, a prompt `0`, U+2028. Only line ends become line
feeds, and a byte order mark goes.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import itertools
import json
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from producer.sweep_text import VALUES_MAX, decode_utf8
from producer.wording import kind, show

#: Largest file, bytes: a million long prompts with their columns.
FILE_BYTES_MAX = 256 << 20

#: What the only column of a list is called: a text file has no names.
NAMELESS = ""

#: Rows whose problems are named. What is wrong with a hundred is wrong with all.
_PROBLEMS_MAX = 100

_Row = TypeVar("_Row")


class FileInvalid(ValueError):
    """A file cannot be read as what it is. The message says why and what mends it, and does not name the file."""

    def __init__(self, text: str, *, line: int | None = None, unit: str = "line") -> None:
        super().__init__(text)
        #: Where in the file, and what is counted there; None where it is the file as a whole.
        self.line = line
        self.unit = unit


@dataclass(frozen=True, kw_only=True, slots=True)
class RowProblem:
    """What is wrong with one row."""

    line: int
    text: str


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
    #: Rows that could not be read; they are left out of the columns.
    problems: tuple[RowProblem, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How a file is read, where its name does not say it."""

    #: Skip lines of a text file that begin with "#".
    comments: bool = False
    #: One character; None for a comma in .csv and a tab in .tsv.
    delimiter: str | None = None
    #: Whether a quote is part of the text; None for no in .csv and yes in .tsv.
    quotes_are_text: bool | None = None
    #: Rows left out at the start.
    offset: int = 0
    #: Most rows; None for all.
    limit: int | None = None


def read_bytes(path: Path, *, bytes_max: int = FILE_BYTES_MAX) -> bytes:
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
    options = options or ReadOptions()
    data = read_bytes(path)
    kept = _sliced(
        (
            (number, line)
            for number, line in _numbered_lines(data)
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
        sha256=_sha256(data),
    )


def read_table(
    path: Path, *, only: Collection[str] | None = None, options: ReadOptions | None = None
) -> Table:
    """Read a file by the end of its name: .txt, .csv, .tsv, .jsonl, .ndjson, .json or .parquet.

    Args:
        only: the columns to return, of those that the file has; None for all. A single column is always returned.
    Raises: FileInvalid.
    """
    options = options or ReadOptions()
    if path.is_dir():
        raise FileInvalid(_file_trouble(stat.S_IFDIR))
    end = path.suffix.lower()
    if end == ".txt":
        return read_text_lines(path, options=options)
    if end in (".csv", ".tsv"):
        return _read_csv(path, only, options)
    if end not in _READERS:
        ends = ", ".join((".txt", ".csv", ".tsv", *_READERS))
        raise FileInvalid(
            f"its name ends in {end!r}: use one of {ends}" if end else f"its name has no end: use {ends}"
        )
    return _READERS[end](path, only, options)


def _read_csv(path: Path, only: Collection[str] | None, options: ReadOptions) -> Table:
    is_tsv = path.suffix.lower() == ".tsv"
    plain = is_tsv if options.quotes_are_text is None else options.quotes_are_text
    data = read_bytes(path)
    rows = csv.reader(
        io.StringIO(_text(data), newline="\n"),
        delimiter=options.delimiter or ("\t" if is_tsv else ","),
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        strict=True,
    )
    numbered = _numbered_rows(rows, plain)
    header_line, header = next(numbered, (1, []))
    if not header:
        raise FileInvalid("the file is empty: its first line names the columns")
    _check_header(header, header_line, only)
    kept: list[list[str]] = []
    lines: list[int] = []
    problems: list[RowProblem] = []
    for line, row in _sliced(numbered, options):
        if len(row) == len(header):
            kept.append(row)
            lines.append(line)
        elif len(problems) < _PROBLEMS_MAX:
            problems.append(RowProblem(line=line, text=_ragged(row, header, plain)))
    wanted = _wanted(header, only)
    return Table(
        columns=tuple(header),
        values={header[position]: [row[position] for row in kept] for position in wanted},
        lines=lines,
        unit="line",
        is_text=True,
        sha256=_sha256(data),
        problems=tuple(problems),
    )


def _numbered_rows(rows: Any, plain: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, cells) of each row that is not blank."""
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            mend = (
                "look for a tab or comma too few"
                if plain
                else 'write "" for a quote in quotes, or quoting: none'
            )
            raise FileInvalid(
                f"the row that begins here cannot be read ({error}): {mend}", line=line
            ) from error
        if row:
            yield line, row


def _check_header(header: list[str], line: int, only: Collection[str] | None) -> None:
    twice = {name for name in header if header.count(name) > 1 and (only is None or name in only)}
    if twice:
        raise FileInvalid(f"two columns are called {show(min(twice))}: rename one", line=line)


def _ragged(row: list[str], header: list[str], plain: bool) -> str:
    mend = "give it one a column" if plain else "give it one a column, in quotes where it holds the delimiter"
    return f"{len(row)} cell{'s' * (len(row) != 1)} under {len(header)} columns: {mend}"


def _read_json_lines(path: Path, only: Collection[str] | None, options: ReadOptions) -> Table:
    data = read_bytes(path)
    records: list[tuple[int, Any]] = []
    problems: list[RowProblem] = []
    for number, line in _sliced(_numbered_lines(data), options):
        try:
            records.append((number, _from_json(line)))
        except ValueError as error:
            if len(problems) < _PROBLEMS_MAX:
                problems.append(RowProblem(line=number, text=f"{_json_trouble(error)}: mend the line"))
    return _records(records, only, unit="line", sha256=_sha256(data), problems=problems)


def _read_json(path: Path, only: Collection[str] | None, options: ReadOptions) -> Table:
    data = read_bytes(path)
    try:
        found = _from_json(_text(data))
    except ValueError as error:
        line = getattr(error, "lineno", None)
        mend = "one object a line is .jsonl" if "Extra data" in str(error) else "mend it"
        raise FileInvalid(f"{_json_trouble(error)}: {mend}", line=line) from error
    if not isinstance(found, list):
        raise FileInvalid(f'the file is {kind(found)}: write a list of objects: [{{"prompt": "a cat"}}]')
    records = _sliced(enumerate(found, start=1), options)
    return _records(records, only, unit="item", sha256=_sha256(data), problems=[])


def _records(
    records: list[tuple[int, Any]],
    only: Collection[str] | None,
    *,
    unit: str,
    sha256: str,
    problems: list[RowProblem],
) -> Table:
    """Return objects as columns, what an object lacks being None; or texts and numbers as one column."""
    objects = bool(records) and isinstance(records[0][1], dict)
    rows: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    for line, record in records:
        row = record if isinstance(record, dict) else {NAMELESS: record}
        if isinstance(record, dict) is objects:
            rows.append((line, row))
            columns.update(dict.fromkeys(row))
        elif len(problems) < _PROBLEMS_MAX:
            wanted = "an object, as the first is" if objects else "no object, as the first is none"
            problems.append(RowProblem(line=line, text=f"{kind(record)}: write {wanted}"))
    names = list(columns)
    wanted_names = [names[position] for position in _wanted(names, only)]
    return Table(
        columns=tuple(names),
        values={name: [row.get(name) for _, row in rows] for name in wanted_names},
        lines=[line for line, _ in rows],
        unit=unit,
        is_text=False,
        sha256=sha256,
        problems=tuple(problems),
    )


def _read_parquet(path: Path, only: Collection[str] | None, options: ReadOptions) -> Table:
    import pyarrow
    from pyarrow import parquet

    data = read_bytes(path)
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        names = list(file.schema_arrow.names)
        _check_header(names, 1, only)
        wanted = [names[position] for position in _wanted(names, only)]
        lines = _sliced(range(1, file.metadata.num_rows + 1), options)
        read = file.read(columns=wanted).slice(options.offset, len(lines))
        values = {name: read.column(name).to_pylist() for name in wanted}
    except (pyarrow.ArrowException, OSError) as error:
        raise FileInvalid(f"no Parquet file that can be read ({error}): write it anew") from error
    return Table(
        columns=tuple(names),
        values=values,
        lines=lines,
        unit="row",
        is_text=False,
        sha256=_sha256(data),
    )


_READERS: Mapping[str, Callable[[Path, Collection[str] | None, ReadOptions], Table]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _wanted(columns: Sequence[str], only: Collection[str] | None) -> list[int]:
    if only is None or len(columns) == 1:
        return list(range(len(columns)))
    return [position for position, name in enumerate(columns) if name in only]


def _numbered_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line that is not blank. U+2028 and U+0085 end no line."""
    for number, line in enumerate(io.StringIO(_text(data), newline="\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\n")


def _text(data: bytes) -> str:
    """Return UTF-8 with line feeds as its only line ends."""
    text, problem = decode_utf8(data)
    if problem is not None:
        raise FileInvalid(problem.text, line=problem.line)
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise FileInvalid(
            "a NUL stands here: remove it, or save the file as UTF-8 if it is UTF-16", line=line
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


def _no_constant(text: str) -> NoReturn:
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
