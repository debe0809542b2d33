"""Turns a sweep file, what it includes and what `--set` says into one document. Knows nothing of what keys mean.

Included first, so the including file's keys win, and settings last. A top-level key is replaced whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from producer.language.document import (
    SWEEP_FILE_BYTES_MAX,
    YAML_DEPTH_MAX,
    Document,
    Located,
    decode_text,
    read_option,
    read_yaml,
    source_name,
)
from producer.language.problem import Problem
from producer.language.prompt_files.paths import NamedPath, find_paths
from producer.language.prompt_files.tables import FileInvalid, read_bytes
from producer.language.wording import kind, show
from shared.errors import SweepError

#: Deepest chain of files that include each other, and most files in all. A set of sweeps shares one or two.
INCLUDE_DEPTH_MAX = 8
INCLUDES_MAX = 100

#: Longest name of an option in a message, characters.
_OPTION_SHOWN_MAX = 60

_POSITION = re.compile(r"[0-9]{1,9}\Z")


def assemble(document: Document, *, path: Path | None, settings: Sequence[str] = ()) -> Document:
    """Return a document with its includes read and its settings made, none of them left in it.

    A document that is no mapping is returned as it is, for its reader to refuse.

    Args:
        path: where the document stands; None for text from elsewhere, which can include nothing.
        settings: `key=value`, the key a path such as `seed.count` or `cases.0.prompt`, the value YAML. The last of
            two for one key counts.
    Raises: SweepError where an included file is no YAML mapping, or a setting is no setting.
    """
    if not isinstance(document.value, dict):
        return document
    includer = _Includer(path)
    whole = includer.resolve(document, _Chain.of(path))
    problems = [*whole.problems]
    value, located = whole.value, whole.located
    for setting in settings:
        value, located = _set(value, located, setting, problems)
    return Document(value=value, located=located, problems=problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chain:
    """The files that include each other, from the sweep to the one that is read."""

    #: Resolved, to see a circle; and as seen from the sweep's folder, to show it.
    paths: tuple[Path, ...]
    shown: tuple[str, ...]

    @classmethod
    def of(cls, path: Path | None) -> _Chain:
        return cls(paths=(), shown=()) if path is None else cls(paths=(path.resolve(),), shown=(path.name,))

    def then(self, path: Path, shown: str) -> _Chain:
        return _Chain(paths=(*self.paths, path.resolve()), shown=(*self.shown, shown))


class _Includer:
    """Reads included files, and counts them."""

    def __init__(self, path: Path | None) -> None:
        self._folder = None if path is None else path.parent
        self._count = 0

    def resolve(self, document: Document, chain: _Chain) -> Document:
        """Return a document with the keys of what it includes below its own."""
        if "include" not in document.value:
            return document
        value: dict[str, Any] = {}
        places: dict[str | int, Located] = {}
        problems: list[Problem] = []
        place = document.located.children["include"]
        for name, found in self._names(document.value["include"], place, problems):
            for path in self._paths(name, found, problems):
                included = self._read(name, path, found, chain, problems)
                if included is not None:
                    value |= included.value
                    places |= included.located.children
                    problems += included.problems
        value |= document.value
        places |= document.located.children
        del value["include"], places["include"]
        located = Located(document.located.line, children=places, file=document.located.file)
        return Document(value=value, located=located, problems=[*document.problems, *problems])

    def _names(self, value: Any, place: Located, problems: list[Problem]) -> list[tuple[str, Located]]:
        items = list(enumerate(value)) if isinstance(value, list) else [(0, value)]
        names = []
        for position, item in items:
            found = place.children.get(position, place)
            if isinstance(item, str) and item.strip():
                names.append((item, found))
            elif not found.refused:
                is_empty = isinstance(item, str)
                what = "include is empty" if is_empty else f"include is {kind(item)}"
                problems.append(found.problem(f"{what}: write the name of a file: common.yaml"))
        return names

    def _paths(self, name: str, place: Located, problems: list[Problem]) -> list[NamedPath]:
        """Return the files that a name means."""
        try:
            if self._folder is None:
                raise FileInvalid("this sweep is no file, so none stands beside it: write the keys out")
            return find_paths(self._folder, source_name(name, place))
        except FileInvalid as error:
            problems.append(place.problem(f"include={show(name)}: {error}"))
            return []

    def _read(
        self, name: str, file: NamedPath, place: Located, chain: _Chain, problems: list[Problem]
    ) -> Document | None:
        """Return an included file with its own includes, or None where it cannot be read."""
        shown, path = file.shown, file.path
        if trouble := self._trouble(path, shown, chain):
            problems.append(place.problem(f"include={show(name)}: {trouble}"))
            return None
        self._count += 1
        try:
            data = read_bytes(path, bytes_max=SWEEP_FILE_BYTES_MAX)
        except FileInvalid as error:
            problems.append(place.problem(f"include={show(name)}: {error}"))
            return None
        document = read_yaml(decode_text(data, filename=shown), filename=shown, file=shown)
        if not isinstance(document.value, dict):
            text = f"the file is {kind(document.value)}: an included file is a mapping: 'steps: 25'"
            raise SweepError([Problem(line=1, text=text, file=shown).in_words("")])
        return self.resolve(document, chain.then(path, shown))

    def _trouble(self, path: Path, shown: str, chain: _Chain) -> str:
        try:
            is_circle = path.resolve() in chain.paths
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, links in a circle
            return f"cannot be read: {error}"
        if is_circle:
            circle = " -> ".join([*chain.shown, shown])
            return f"files include each other in a circle ({circle}): remove one include"
        if len(chain.shown) > INCLUDE_DEPTH_MAX:
            return f"includes nest more than {INCLUDE_DEPTH_MAX} deep: include fewer files"
        if self._count >= INCLUDES_MAX:
            return f"more than {INCLUDES_MAX} files are included: include fewer"
        return ""


def _set(
    value: dict[str, Any], located: Located, setting: str, problems: list[Problem]
) -> tuple[dict[str, Any], Located]:
    """Return the document's value and places with one setting made."""
    shown = setting if len(setting) <= _OPTION_SHOWN_MAX else f"{setting[: _OPTION_SHOWN_MAX - 1]}…"
    option = f"--set {shown}"
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) >= YAML_DEPTH_MAX:
        raise SweepError([f"{option}: write key=value, such as --set steps=20 or --set seed.count=8"])
    if keys[0] == "include":
        raise SweepError([f"{option}: what is included stands in a file: write 'include: common.yaml' there"])
    given = read_option(text, what=option)
    problems += given.problems
    leaf = (given.value, given.located)
    try:
        made = _with(value, located, keys, leaf, option, done="")
    except _NoPlace as error:
        raise SweepError([f"{option}: {error}"]) from error
    return made


class _NoPlace(Exception):
    """A setting's path leads nowhere."""


def _with(
    value: Any, place: Located, keys: list[str], leaf: tuple[Any, Located], option: str, *, done: str
) -> tuple[Any, Located]:
    """Return a copy of a value, and of its places, with a leaf put where the keys lead.

    Copies, for an aliased value stands in two places and only one is meant.
    """
    if not keys:
        return leaf
    name, *rest = keys
    path = f"{done}.{name}" if done else name
    if isinstance(value, list):
        position = _position(value, name, done)
        items = [*value]
        items[position], here = _with(
            items[position], place.children[position], rest, leaf, option, done=path
        )
        return items, replace(place, children={**place.children, position: here}, refused=False)
    if value is None and not _POSITION.match(name):
        value = {}
    if not isinstance(value, dict):
        raise _NoPlace(_no_place(value, name, done))
    inner = place.children.get(name) or Located(0, file=option)
    made, here = _with(value.get(name), inner, rest, leaf, option, done=path)
    return {**value, name: made}, replace(place, children={**place.children, name: here}, refused=False)


def _position(value: list[Any], key: str, done: str) -> int:
    if not _POSITION.match(key) or int(key) >= len(value):
        last = f"0 to {len(value) - 1}" if len(value) > 1 else "0"
        fix = f"use a position of {last}" if value else "set the whole list"
        raise _NoPlace(f"{done} is a list of {len(value)} and has no {show(key)}: {fix}")
    return int(key)


def _no_place(value: Any, key: str, done: str) -> str:
    if value is None:
        return f"{done} is not there, so it has no item {key}: set the whole list: --set '{done}=[...]'"
    return f"{done} is {kind(value)} and has no {show(key)}: set it whole: --set '{done}={{{key}: ...}}'"
