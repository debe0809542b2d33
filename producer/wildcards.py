"""Turns a folder, or what a sweep lists, into wildcards: names and the lines they stand for. Parses no template.

A collection may hold a thousand files of which a sweep needs three. What is wrong with one file is kept with it and
said where the wildcard is used, so that a collection need not be perfect to be useful.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from producer.sweep_text import Located, Problem, decode_text, read_yaml
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


def read_wildcards(folder: Path) -> dict[str, Wildcard]:
    """Return the wildcards of a folder by name: `animals/cats` is animals/cats.txt, or `cats` in a collection there.

    A .txt file holds a text a line; empty lines are left out, and comments: what follows a # at the beginning or
    after a space. A .yaml or .json file
    holds mappings whose lists are wildcards, as dynamicprompts has them. Hidden files and folders are left out.

    Raises: SweepError where there is no such folder, two files give one name, or a collection cannot be read.
    """
    if not folder.is_dir():
        what = "is a file: name the folder it is in" if folder.is_file() else "there is no such folder"
        raise SweepError([f"wildcards: {folder}: {what}"])
    wildcards: dict[str, Wildcard] = {}
    for path in _files(folder):
        for name, wildcard in _read_file(path, folder):
            if name in wildcards:
                files = f"{wildcards[name].file} and {wildcard.file}"
                raise SweepError([f"wildcards: {name!r} is in {files}: remove one"])
            wildcards[name] = wildcard
    if not wildcards:
        raise SweepError([f"wildcards: {folder}: there is no .txt, .yaml or .json file in it"])
    if (count := sum(len(wildcard.lines) for wildcard in wildcards.values())) > LINES_MAX:
        raise SweepError([f"wildcards: {folder}: {count:,} lines: use a folder of at most {LINES_MAX:,}"])
    return wildcards


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


def _files(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (".txt", *_COLLECTIONS):
                yield Path(path, name)


def _read_file(path: Path, folder: Path) -> Iterator[tuple[str, Wildcard]]:
    shown = path.as_posix()
    if path.suffix.lower() == ".txt":
        yield path.relative_to(folder).with_suffix("").as_posix(), _read_lines(path, shown)
        return
    value, located = _read_collection(path, shown)
    if isinstance(value, list):  # a list by itself is called as its file
        value, located = {path.stem: value}, Located(1, children={path.stem: located})
    wildcards, problems = wildcards_from_value(value, located=located, filename=shown)
    if problems:
        raise SweepError([_located(problem, shown) for problem in problems])
    within = path.parent.relative_to(folder).as_posix()
    for name, wildcard in wildcards.items():
        yield (name if within == "." else f"{within}/{name}"), wildcard


def _read_lines(path: Path, shown: str) -> Wildcard:
    try:
        text = decode_text(path.read_bytes(), filename=shown)
    except SweepError as error:
        return Wildcard(lines=(), numbers=(), file=shown, problem=str(error))
    except OSError as error:
        return Wildcard(lines=(), numbers=(), file=shown, problem=f"{shown}: {error.strerror}")
    lines = (_COMMENT.sub("", line).strip() for line in _LINE_END.split(text))
    kept = [(line, number) for number, line in enumerate(lines, start=1) if line]
    return Wildcard(
        lines=tuple(line for line, _ in kept), numbers=tuple(number for _, number in kept), file=shown
    )


def _read_collection(path: Path, shown: str) -> tuple[Any, Located]:
    text = decode_text(path.read_bytes(), filename=shown)
    if path.suffix.lower() != ".json":
        document = read_yaml(text, filename=shown)
        if document.problems:
            raise SweepError([_located(problem, shown) for problem in document.problems])
        return document.value, document.located
    try:
        return json.loads(text), Located(0)
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

    def note(self, located: Located, text: str) -> None:
        if not located.refused:
            self.problems.append(Problem(located.line, text))

    def take_mapping(self, value: Mapping[Any, Any], located: Located, *, prefix: str) -> None:
        for key, found in value.items():
            where = located.children.get(key, located)
            name = f"{prefix}{key}"
            if not isinstance(key, str) or _NAME_WRONG.search(key):
                mend = "use letters, digits, spaces and / . - _, without two underscores in a row"
                self.note(where, f"wildcards: {key!r} cannot be a name: {mend}")
            elif isinstance(found, Mapping):
                self.take_mapping(found, where, prefix=f"{name}/")
            elif name in self.wildcards:
                self.note(where, f"wildcards: {name!r} stands here twice: remove one")
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
        self.note(located, f"wildcards: {name}: {shown}: write text in quotes, or {{text: ..., weight: 2}}")
        return ""


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
