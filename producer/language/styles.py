"""Turns style files, or what a sweep lists, into styles: texts around a prompt. Knows nothing of how styles are chosen.

Reads what sdxl_prompt_styler, Fooocus and SD.Next (JSON) and A1111 (styles.csv) keep their styles in. A row that is odd
is a note, and an error only where its style is used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from producer.language.document import SWEEP_FILE_BYTES_MAX, decode_text
from producer.language.prompt_files.column_names import folded
from producer.language.prompt_files.dialects import find_dialect
from producer.language.prompt_files.paths import NamedPath, natural_key
from producer.language.prompt_files.tables import FileInvalid, read_bytes
from producer.language.templates import PROMPT_SLOT, parse_literal
from shared.errors import SweepError
from shared.texts import Slot, Text, join_texts

#: What stands between a prompt and a style that has no place for it, and between two negative prompts. A1111's own.
STYLE_SEPARATOR = ", "

_HOLE = f"{{{PROMPT_SLOT}}}"
_KEYS = ("prompt", "negative_prompt")
_ENDS = (".csv", ".json")

#: What other programs call the two texts: A1111 before it had negatives, SD.Next.
_NAMES = {"text": "prompt", "negative": "negative_prompt"}


#: A column of a table of styles as it is compared -> what it is called here.
_COLUMNS = {
    folded(name): meant for name, meant in {**_NAMES, **{key: key for key in (*_KEYS, "name")}}.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What stands around a prompt, and a negative prompt that goes with it."""

    name: str
    #: Has a hole called `prompt`, once or more.
    prompt: Text
    #: Empty where the style has none. `{prompt}` in it is where the job's own negative prompt stands.
    negative_prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleFile:
    """A file that styles were read from."""

    #: As seen from the sweep's folder.
    path: str
    #: Of its bytes, hexadecimal.
    sha256: str
    styles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Styles:
    """Styles by name, and what was odd where they stand."""

    styles: dict[str, Style] = field(default_factory=dict)
    #: Name -> place and reason, of styles that cannot be used.
    broken: dict[str, str] = field(default_factory=dict)
    #: What was left out, a line each.
    notes: list[str] = field(default_factory=list)
    files: list[StyleFile] = field(default_factory=list)


def make_style(name: str, prompt: str, negative_prompt: str) -> Style:
    """Return a style as its file says it. One without `{prompt}` stands after the prompt, as in A1111."""
    prompt = prompt.strip()
    if _HOLE in prompt:
        text = parse_literal(prompt, slots=[PROMPT_SLOT])
    elif prompt:
        text = join_texts([(Slot(PROMPT_SLOT),), STYLE_SEPARATOR + prompt])
    else:
        text = (Slot(PROMPT_SLOT),)
    return Style(name=name, prompt=text, negative_prompt=negative_prompt.strip())


def read_styles(named: Sequence[NamedPath]) -> Styles:
    """Return the styles of files, and of the files in folders: .csv as A1111 writes it, or .json.

    Raises: SweepError where there is no style to choose, or a file that was named cannot be read.
    """
    read = Styles()
    for one in named:
        for path in _style_files(one):
            try:
                _read_file(path, read)
            except FileInvalid as error:
                reason = f"{path.shown}: {error}"
                if path is one and len(named) == 1:
                    raise SweepError([f"styles: {reason}"]) from error
                read.notes.append(reason)
    if not read.styles:
        found = [f"styles: {note}" for note in read.notes]
        raise SweepError(found or [f"styles: {one.shown}: there are no styles in it" for one in named])
    return read


def _style_files(named: NamedPath) -> Iterator[NamedPath]:
    """Yield a file itself, and of a folder what may hold styles. Hidden ones are left out."""
    if not named.path.is_dir():
        yield named
        return
    entered: set[str] = set()
    for folder, folders, names in os.walk(named.path, followlinks=True):
        if (real := os.path.realpath(folder)) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        for name in sorted(names, key=natural_key):
            if not name.startswith(".") and Path(name).suffix.lower() in _ENDS:
                path = Path(folder, name)
                shown = f"{named.shown.rstrip('/')}/{path.relative_to(named.path).as_posix()}"
                yield NamedPath(shown=shown, path=path)


def _read_file(file: NamedPath, read: Styles) -> None:
    """Add the styles of one file. Raises: FileInvalid where it is none."""
    end = file.path.suffix.lower()
    if end not in _ENDS:
        raise FileInvalid(
            "styles are in a .csv file (A1111) or a .json file (sdxl_prompt_styler, Fooocus, SD.Next)"
        )
    data = read_bytes(file.path, bytes_max=SWEEP_FILE_BYTES_MAX)
    try:
        text = decode_text(data, filename=file.shown)
    except SweepError as error:
        raise FileInvalid(
            error.problems[0].removeprefix(file.shown).lstrip(", ").removeprefix(": ")
        ) from error
    before = len(read.styles)
    collector = _Collector(file.shown, read)
    if end == ".csv":
        _take_csv(text, collector)
    else:
        _take_json(text, collector, stem=file.path.stem)
    sha256 = hashlib.sha256(data).hexdigest()
    read.files.append(StyleFile(path=file.shown, sha256=sha256, styles=len(read.styles) - before))


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
    return None


class _Collector:
    """Takes the styles of one file, and notes what is odd."""

    def __init__(self, filename: str, read: Styles) -> None:
        self._filename = filename
        self._read = read

    def note(self, place: str | None, text: str, name: Any = None) -> None:
        """Note what is odd. Where it has a name, whoever uses the name is told."""
        where = f"{self._filename}, {place}" if place else self._filename
        self._read.notes.append(f"{where}: {text}")
        if isinstance(name, str) and name.strip():
            self._read.broken[name] = f"{where}: {text}"
            self._read.styles.pop(name, None)

    def take(self, place: str, name: Any, fields: Any) -> None:
        """Take one style. The same one twice is one; of two that differ neither can be used."""
        if trouble := style_trouble(name, fields):
            self.note(place, trouble, name)
            return
        style = make_style(name, *(fields.get(key) or "" for key in _KEYS))
        known = self._read.styles.get(name)
        if name in self._read.broken or (known is not None and known != style):
            self.note(place, f"{name!r} stands here twice and differs: rename one", name)
        else:
            self._read.styles[name] = style


def _take_csv(text: str, collector: _Collector) -> None:
    """Take the rows of an A1111 styles.csv: name, prompt (text in old files), negative_prompt."""
    dialect = find_dialect(text)
    lines = io.StringIO(text, newline="")
    for _ in range(dialect.first_line - 1):
        lines.readline()
    rows = csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    start = dialect.first_line
    header: list[str] = []
    try:
        for row in rows:
            place, start = f"line {start}", dialect.first_line + rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [_COLUMNS.get(folded(cell), cell) for cell in row]
                if "name" not in header or "prompt" not in header:
                    raise FileInvalid(
                        "the first row names no columns: write name,prompt,negative_prompt", line=1
                    )
                continue
            _take_row(place, header, row, collector)
    except csv.Error as error:
        collector.note(
            f"line {start}",
            f"{error}: look for a quote that is not closed or not doubled: nothing below is read",
        )


def _take_row(place: str, header: list[str], row: list[str], collector: _Collector) -> None:
    """Take one row. Cells that are missing at its end are empty; a comment and a heading between styles are none."""
    cells = dict(zip(header, row, strict=False))
    name = cells.get("name", "")
    if any(cell.strip() for cell in row[len(header) :]):
        text = f"{len(row)} cells under {len(header)} columns: quote text that holds the delimiter"
        collector.note(place, text, name)
    elif not name.startswith("#") and (cells.get("prompt") or cells.get("negative_prompt")):
        collector.take(place, name, {key: cells.get(key, "") for key in _KEYS})


def _take_json(text: str, collector: _Collector, *, stem: str) -> None:
    """Take a list of {name, prompt, negative_prompt}, a mapping of names to the rest, or one style by itself.

    SD.Next calls the texts prompt and negative, and has more keys; one style a file may go without a name.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileInvalid(f"not JSON: {error}") from error
    if isinstance(value, Mapping) and isinstance(value.get("styles"), list):
        value = value["styles"]
    if isinstance(value, Mapping) and not any(isinstance(fields, Mapping) for fields in value.values()):
        value = [{"name": stem, **value}]
    if isinstance(value, Mapping):
        value = [
            {**fields, "name": name} if isinstance(fields, Mapping) else {"name": name, "": fields}
            for name, fields in value.items()
        ]
    for number, entry in enumerate(value if isinstance(value, list) else [value], start=1):
        if not isinstance(entry, Mapping):
            collector.note(f"style {number}", f"{_show(entry)}: write {{name, prompt, negative_prompt}}")
            continue
        fields = {_NAMES.get(key, key): found for key, found in entry.items() if key != "name"}
        texts = {key: found for key, found in fields.items() if key in _KEYS}
        wanted = texts or not fields  # else style_trouble says what stands there instead
        collector.take(f"style {number}", entry.get("name"), texts if wanted else fields)


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…{shown[-1]}"
