"""Turns a folder, or what a sweep lists, into wildcards: names and the lines they stand for. Parses no template.

A collection may hold a thousand files of which a sweep needs three. What is wrong with one file or one entry is a note,
and an error only where that wildcard is used, so that a collection need not be perfect to be useful.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from producer.language.document import SWEEP_FILE_BYTES_MAX, Located, decode_text, read_yaml
from producer.language.problem import Problem
from producer.language.prompt_files.tables import FileInvalid, read_bytes
from producer.language.wording import show
from shared.errors import SweepError

#: Most lines of a folder's wildcards together. The largest collections have a tenth of it.
LINES_MAX = 1_000_000

#: Suffixes of collections, each a mapping name -> lines.
_COLLECTIONS = (".yaml", ".yml", ".json")

_LINE_END = re.compile(r"\r\n|\n|\r")  # splitlines() would cut at U+2028 and U+0085, which stand in prompts
_COMMENT = re.compile(r"(\A|\s)#.*", re.DOTALL)
_NAME_WRONG = re.compile(r"__|[{}|\\$#*\n]|\A\s|\s\Z|\A\Z")
_ENTRY = {"text", "content", "weight"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wildcard:
    """The lines that a name stands for. Each is a template, perhaps with a weight before it."""

    lines: tuple[str, ...]
    #: The line of the file that each stands in, from 1; 0 where that is not known.
    numbers: tuple[int, ...]
    #: Where the lines are from, as a person would look for it.
    file: str
    #: Why the wildcard cannot be used; None where it can.
    problem: str | None = None

    def place(self, position: int) -> str:
        """Return where one of the lines stands."""
        number = self.numbers[position]
        return f"{self.file}, line {number}" if number else f"{self.file}, item {position + 1}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WildcardFolder:
    """What a folder of wildcards holds, and what in it is odd."""

    #: Name -> wildcard, those that cannot be used among them.
    found: dict[str, Wildcard] = field(default_factory=dict)
    #: What cannot be used, a line each, with file and reason.
    notes: list[str] = field(default_factory=list)
    #: Files of which not even the names could be read.
    unread: list[str] = field(default_factory=list)


def read_wildcards(folder: Path) -> WildcardFolder:
    """Return the wildcards of a folder by name: `animals/cats` is animals/cats.txt, or `cats` in a collection there.

    A .txt file holds a text a line; empty lines are left out, and comments: what follows a # at the beginning or
    after a space. A .yaml or .json file holds mappings whose lists are wildcards, as dynamicprompts has them. Hidden
    files and folders are left out; links to folders are entered once.

    Raises: SweepError where there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        what = "is a file: name the folder it is in" if folder.is_file() else "there is no such folder"
        raise SweepError([f"wildcards: {folder}: {what}"])
    read = WildcardFolder()
    line_count = 0
    for path in _files(folder, read):
        for name, wildcard in _read_file(path, folder, read):
            if line_count + len(wildcard.lines) > LINES_MAX:
                _take(name, _too_many(wildcard), read)
                continue
            line_count += len(wildcard.lines)
            _take(name, wildcard, read)
    if not read.found and not read.notes:
        raise SweepError([f"wildcards: {folder}: there is no .txt, .yaml or .json file in it"])
    return read


def _take(name: str, wildcard: Wildcard, read: WildcardFolder) -> None:
    """Take a wildcard; of two with one name neither can be used."""
    if known := read.found.get(name):
        trouble = f"{name!r} is in {known.file} and {wildcard.file}: remove one"
        wildcard = Wildcard(lines=(), numbers=(), file=wildcard.file, problem=trouble)
    if wildcard.problem:
        read.notes.append(wildcard.problem)
    read.found[name] = wildcard


def _too_many(wildcard: Wildcard) -> Wildcard:
    trouble = f"{wildcard.file}: with it the folder has more than {LINES_MAX:,} lines: use a smaller folder"
    return Wildcard(lines=(), numbers=(), file=wildcard.file, problem=trouble)


def wildcards_from_value(
    value: Any, *, located: Located, filename: str
) -> tuple[dict[str, Wildcard], list[Problem]]:
    """Return the wildcards that a mapping says, and every problem it has.

    Args:
        value: name -> a text, a list of texts and {text, weight} mappings, or a mapping of the same kind, whose
            names are then written after its own and a slash.
        filename: what the wildcards' places are in.
    """
    reader = _ValueReader(filename)
    if isinstance(value, Mapping):
        reader.take_mapping(value, located, prefix="")
    else:
        reader.note(located, "wildcards: write a mapping: a name, and a list of texts")
    return reader.wildcards, reader.problems


def _files(folder: Path, read: WildcardFolder) -> Iterator[Path]:
    def cannot_list(error: OSError) -> None:
        read.notes.append(f"{error.filename}: cannot be listed ({error.strerror})")
        read.unread.append(str(error.filename))

    entered: set[str] = set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=cannot_list):
        real = os.path.realpath(path)
        if real in entered:  # a link to a folder that was read already, or a circle of links
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (".txt", *_COLLECTIONS):
                yield Path(path, name)


def _read_file(path: Path, folder: Path, read: WildcardFolder) -> Iterator[tuple[str, Wildcard]]:
    """Yield the wildcards of a file. Where not even their names can be read, note why."""
    shown = path.as_posix()
    if path.suffix.lower() == ".txt":
        yield path.relative_to(folder).with_suffix("").as_posix(), _read_lines(path, shown)
        return
    try:
        value, located, problems = _read_collection(path, shown)
    except SweepError as error:
        read.notes.extend(error.problems)
        read.unread.append(shown)
        return
    if isinstance(value, list):  # a list by itself is called as its file
        value, located = {path.stem: value}, Located(1, children={path.stem: located})
        problems = [replace(problem, path=(path.stem,)) for problem in problems]
    wildcards, found = wildcards_from_value(value, located=located, filename=shown)
    within = path.parent.relative_to(folder).as_posix()
    for name, wildcard in _with_problems(wildcards, [*problems, *found], shown, read).items():
        yield (name if within == "." else f"{within}/{name}"), wildcard


def _with_problems(
    wildcards: Mapping[str, Wildcard], problems: list[Problem], shown: str, read: WildcardFolder
) -> dict[str, Wildcard]:
    """Return wildcards with what is wrong with each; what belongs to none of them is noted."""
    marked = dict(wildcards)
    for problem in problems:
        text = _located(replace(problem, text=problem.text.removeprefix("wildcards: ")), shown)
        concerned = _concerned("/".join(map(str, problem.path)), marked)
        for name in concerned:
            if not marked[name].problem:
                marked[name] = Wildcard(lines=(), numbers=(), file=shown, problem=text)
        if not concerned:
            read.notes.append(text)
    return marked


def _concerned(path: str, names: Collection[str]) -> list[str]:
    """Return the wildcards that a path of keys leads to: JSON says its end, and a mapping holds several."""
    if not path:
        return []
    return [name for name in names if f"/{path}/" in f"/{name}/"]


def _read_lines(path: Path, shown: str) -> Wildcard:
    try:
        text = _read_text(path, shown)
    except SweepError as error:
        return Wildcard(lines=(), numbers=(), file=shown, problem=str(error))
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        trouble = f"{shown}, line {line}: a NUL stands here: this is no text"
        return Wildcard(lines=(), numbers=(), file=shown, problem=trouble)
    lines = (_COMMENT.sub("", line).strip() for line in _LINE_END.split(text))
    kept = [(line, number) for number, line in enumerate(lines, start=1) if line]
    return Wildcard(
        lines=tuple(line for line, _ in kept), numbers=tuple(number for _, number in kept), file=shown
    )


def _read_text(path: Path, shown: str) -> str:
    try:
        data = read_bytes(path, bytes_max=SWEEP_FILE_BYTES_MAX)
    except FileInvalid as error:
        raise SweepError([f"{shown}: {error}"]) from error
    return decode_text(data, filename=shown)


def _read_collection(path: Path, shown: str) -> tuple[Any, Located, list[Problem]]:
    """Return what a .yaml or .json file says, and what is odd in it. Raises: SweepError where it says nothing."""
    text = _read_text(path, shown)
    if path.suffix.lower() != ".json":
        document = read_yaml(text, filename=shown)
        return document.value, document.located, document.problems
    twice: list[Problem] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) < len(found):
            counts = Counter(key for key, _ in found)
            twice.extend(
                Problem(text=f"the key {show(key)} stands there twice: keep one", path=(key,))
                for key, count in counts.items()
                if count > 1
            )
        return value

    try:
        return json.loads(text, object_pairs_hook=pairs), Located(0), twice
    except (ValueError, RecursionError) as error:
        raise SweepError([f"{shown}: not JSON: {error}"]) from error


def _located(problem: Problem, shown: str) -> str:
    """Return a problem with its place. JSON tells no lines."""
    return f"{shown}, line {problem.line}: {problem.text}" if problem.line else f"{shown}: {problem.text}"


class _ValueReader:
    """Collects wildcards and problems from nested mappings."""

    def __init__(self, filename: str) -> None:
        self.wildcards: dict[str, Wildcard] = {}
        self.problems: list[Problem] = []
        self._filename = filename

    def note(self, located: Located, text: str, name: str = "") -> None:
        """Keep what is wrong, with the wildcard whose lines it stands in."""
        if not located.refused:
            self.problems.append(
                Problem(line=located.line, text=text, path=tuple(name.split("/")) if name else ())
            )

    def take_mapping(self, value: Mapping[Any, Any], located: Located, *, prefix: str) -> None:
        for key, found in value.items():
            where = located.children.get(key, located)
            name = f"{prefix}{key}"
            if not isinstance(key, str) or _NAME_WRONG.search(key):
                fix = "use letters, digits, spaces and / . - _, without two underscores in a row"
                self.note(where, f"wildcards: {key!r} cannot be a name: {fix}")
            elif isinstance(found, Mapping):
                self.take_mapping(found, where, prefix=f"{name}/")
            elif name in self.wildcards:
                self.note(where, f"wildcards: {name!r} stands here twice: remove one", name)
            else:
                self.wildcards[name] = self._lines(name, found, where)

    def _lines(self, name: str, found: Any, located: Located) -> Wildcard:
        items = found if isinstance(found, list) else [found]
        lines, numbers = [], []
        for position, item in enumerate(items):
            where = located.children.get(position, located) if isinstance(found, list) else located
            if line := self._line(name, item, where):
                lines.append(line)
                numbers.append(where.line)
        return Wildcard(lines=tuple(lines), numbers=tuple(numbers), file=self._filename)

    def _line(self, name: str, item: Any, located: Located) -> str:
        if isinstance(item, str):
            return item.strip()
        if isinstance(item, Mapping):
            text, weight = item.get("text", item.get("content")), item.get("weight", 1)
            if isinstance(text, str) and item.keys() <= _ENTRY and _is_weight(weight):
                return f"{Decimal(str(weight)):f}::{text.strip()}"
        elif item is not None and not isinstance(item, list):
            return located.raw or json.dumps(item)  # 1980 and no are words here
        shown = "null" if item is None else repr(item)
        text = f"wildcards: {name}: {shown}: write text in quotes, or {{text: ..., weight: 2}}"
        self.note(located, text, name)
        return ""


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
