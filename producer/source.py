"""Reads a sweep file and all that it names: includes, `--set`, prompt files, wildcards, styles, presets.

What comes out is complete: no other file has to be read to know what the sweep asks for, so it is what is kept
beside the images. Checks no value of a sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from producer.assemble import assemble
from producer.convert import sweep_yaml
from producer.fields import name_of_file
from producer.negatives import expand_negative
from producer.sources import SourceFile, inline_sources
from producer.styles import read_styles, written_style
from producer.sweep_text import (
    FILE_BYTES_MAX,
    Document,
    Located,
    Problem,
    decode_text,
    read_yaml,
    say_problem,
    source_name,
)
from producer.templates import used_wildcards
from producer.wildcards import Wildcard, read_wildcards, wildcards_from_value
from producer.wording import kind
from shared.errors import SweepError


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """A sweep as it was written, with everything that it names read."""

    path: Path
    document: Document
    #: What was read besides.
    files: tuple[SourceFile, ...]
    #: The file as it is, and what it says by itself.
    written: str
    written_value: Any

    @cached_property
    def text(self) -> str:
        """The text to keep: the file as it is where it names nothing else, and otherwise the complete sweep."""
        if self.document.value == self.written_value:
            return self.written
        return _complete_text(self.document, self.path, self.files)


def read_sweep_file(
    path: Path, *, data: bytes | str | None = None, settings: Sequence[str] = ()
) -> SweepFile:
    """Read a sweep file.

    Args:
        data: what the file holds; read from the path if left out.
        settings: changes to it, each `key=value`.

    Raises: SweepError where it cannot be read as a sweep at all, OSError where the file cannot be read.
    """
    if data is None:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    text = data if isinstance(data, str) else decode_text(data, filename=path.name)
    written = read_yaml(text, filename=path.name)
    if not isinstance(written.value, dict):
        said = f"the file is {kind(written.value)}: a sweep is a mapping: 'prompt: a cat'"
        raise SweepError([f"{path.name}, line 1: {said}"])
    document = assemble(written, path=path, settings=settings)
    document, files = _complete(document, path.parent)
    return SweepFile(path=path, document=document, files=files, written=text, written_value=written.value)


def read_sweep_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sweep given as Python values with everything that it names read, from the current folder.

    Raises: SweepError where something cannot be read.
    """
    value = dict(mapping)
    if not _names_anything(value):
        return value
    document, _ = _complete(Document(value=value, located=_place(value), problems=[]), Path())
    if document.problems:
        raise SweepError([say_problem(problem, "") for problem in document.problems])
    completed: dict[str, Any] = document.value
    return completed


def _complete(document: Document, folder: Path) -> tuple[Document, tuple[SourceFile, ...]]:
    """Return a document with everything that it names in it, and the files that were read for it."""
    inlined = inline_sources(document, folder=folder)
    completer = _Completer(inlined.document, folder)
    completer.styles()
    completer.wildcards()
    completer.negatives()
    return completer.document(), (*inlined.files, *completer.files)


class _Completer:
    """Replaces what a document names by what it means."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.files: list[SourceFile] = []
        self._document, self._folder = document, folder
        self._value = dict(document.value)
        self._places = dict(document.located.children)
        self._problems = [*document.problems]

    def document(self) -> Document:
        """Return the document as it is now."""
        located = replace(self._document.located, children=self._places)
        return replace(self._document, value=self._value, located=located, problems=self._problems)

    def styles(self) -> None:
        """Read the file that `styles` names."""
        if not isinstance(name := self._value.get("styles"), str):
            return
        try:
            found = read_styles(self._folder / source_name(name, self._places["styles"]))
        except SweepError as error:
            self._refuse("styles", error)
            return
        self._value["styles"] = {key: written_style(style) for key, style in found.items()}
        shown = source_name(name, self._places["styles"])
        self._note_text(name, (self._folder / shown).read_bytes(), len(found))

    def wildcards(self) -> None:
        """Read the folder that `wildcards` names, as far as the sweep's texts need it."""
        value = self._value.get("wildcards")
        if value is None:
            return
        if isinstance(value, str):
            try:
                known = read_wildcards(self._folder / source_name(value, self._places["wildcards"]))
            except SweepError as error:
                self._refuse("wildcards", error)
                return
        else:
            known, problems = wildcards_from_value(
                value, located=self._places["wildcards"], filename="wildcards"
            )
            if problems:
                self._problems += problems
                self._mark("wildcards")
                return
        used = used_wildcards(_texts(self._value), known)
        if used and self._value.get("expand") is None:
            said = (
                f"a prompt has __{next(iter(used))}__, and only templates read wildcards: write expand: all"
            )
            self._problems.append(self._places["wildcards"].problem(f"wildcards: {said}"))
        self._problems += [
            Problem(None, f"wildcards: {wildcard.problem}") for wildcard in used.values() if wildcard.problem
        ]
        self._value["wildcards"] = {name: list(wildcard.lines) for name, wildcard in used.items()}
        self._places["wildcards"] = replace(
            self._places["wildcards"], children={name: _lines_of(wildcard) for name, wildcard in used.items()}
        )
        if isinstance(value, str):
            for name, wildcard in used.items():
                self._note_text(f"{value}/{name}", "\n".join(wildcard.lines).encode(), len(wildcard.lines))

    def negatives(self) -> None:
        """Write presets, ablations and placebos out: a later version may have other presets."""
        value = self._value.get("negative_prompt")
        items = value if isinstance(value, list) else [value]
        if not any(isinstance(item, dict) for item in items):
            return
        place = self._places["negative_prompt"]
        texts: list[Any] = []
        places: dict[str | int, Located] = {}
        for position, item in enumerate(items):
            found, problems = expand_negative(item) if isinstance(item, dict) else ([], [])
            if problems:  # left for the sweep to refuse, with its line
                return
            here = place.children.get(position, place) if isinstance(value, list) else place
            for text in [negative.text for negative in found] if isinstance(item, dict) else [item]:
                places[len(texts)] = here
                texts.append(text)
        self._value["negative_prompt"] = texts
        self._places["negative_prompt"] = replace(place, children=places)

    def _refuse(self, key: str, error: SweepError) -> None:
        place = self._places[key]
        self._problems += [place.problem(text) for text in error.problems]
        self._mark(key)

    def _mark(self, key: str) -> None:
        """Leave a key to the problems that are known: its value says nothing more."""
        self._value[key] = {}
        self._places[key] = replace(self._places[key], refused=True)

    def _note_text(self, name: str, data: bytes, values: int) -> None:
        self.files.append(SourceFile(path=name, sha256=hashlib.sha256(data).hexdigest(), values=values))


def _lines_of(wildcard: Wildcard) -> Located:
    lines: dict[str | int, Located] = {
        position: Located(number, file=wildcard.file) for position, number in enumerate(wildcard.numbers)
    }
    return Located(0, file=wildcard.file, children=lines)


def _texts(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts of a sweep that may name wildcards: all that is written below its prompts."""
    if isinstance(value, str) and key in ("prompt", "negative_prompt"):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "wildcards":
                yield from _texts(inner, name if isinstance(name, str) else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)


def _complete_text(document: Document, path: Path, files: Sequence[SourceFile]) -> str:
    """Return the text of a complete sweep, with what it was made of as comments."""
    said = [f"{path.name}, complete: what it names has been read into it"]
    said += [f"{file.path}: {file.values:,} values, sha256 {file.sha256}" for file in files]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in said)
    value = (
        document.value if "name" in document.value else {"name": name_of_file(path.name), **document.value}
    )
    text = comments + sweep_yaml(value)
    if len(text.encode()) > FILE_BYTES_MAX:
        size = f"with all that it names the sweep has {len(text) / (1 << 20):,.0f} MiB"
        raise SweepError([f"{path.name}: {size}: at most {FILE_BYTES_MAX >> 20} can be kept: split it"])
    return text


def _names_anything(value: Mapping[str, Any]) -> bool:
    """Return whether a mapping names a file or a folder, or has what stands for other values."""
    named = isinstance(value.get("styles"), str) or value.get("wildcards") is not None
    return named or any(_holds_mapping(part) for key, part in value.items() if key not in ("cases", "seed"))


def _holds_mapping(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _place(value: Any) -> Located:
    """Return places without lines, for values that never stood in a file."""
    located = Located(0)
    if isinstance(value, Mapping):
        located.children = {key: _place(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        located.children = {position: _place(item) for position, item in enumerate(value)}
    return located
