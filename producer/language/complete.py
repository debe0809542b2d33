"""Reads a sweep file and all that it names: includes, `--set`, prompt files, wildcards, styles, presets.

What comes out is complete: no other file has to be read to know what the sweep asks for, so it is what is kept
beside the images. Checks no value of a sweep.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from producer.language.document import (
    SWEEP_FILE_BYTES_MAX,
    Document,
    Located,
    decode_text,
    read_yaml,
    source_name,
)
from producer.language.fields import name_of_file
from producer.language.include import assemble
from producer.language.negatives import expand_negative
from producer.language.prompt_files.paths import find_path, find_paths
from producer.language.prompt_files.read import SourceFile, inline_sources
from producer.language.prompt_files.tables import FileInvalid
from producer.language.styles import read_styles, written_style
from producer.language.templates import match_wildcards, used_wildcards, wildcard_names
from producer.language.wildcards import Wildcard, WildcardFolder, read_wildcards, wildcards_from_value
from producer.language.wording import kind, near, show
from producer.language.yaml_text import sweep_yaml
from shared.errors import SweepError

#: What begins a comment in Dynamic Prompts.
_COMMENT_SIGN = re.compile(r"(?<!\\)#|/\*|(?<![\w:.])//")

#: Notes of one collection that are shown.
_NOTES_SHOWN = 5

#: What stands in for a wildcard, and for a style, that could not be read: the sweep is refused already.
_ANY_LINES = ["?"]
_ANY_STYLE = {"prompt": "{prompt}", "negative_prompt": ""}


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """A sweep as it was written, with everything that it names read."""

    path: Path
    document: Document
    #: What was read besides.
    files: tuple[SourceFile, ...]
    #: What a person should know of it before it is rendered, a line each: odd entries of a collection, columns that
    #: were left out, texts that may be meant otherwise.
    notes: tuple[str, ...] = ()
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
            data = file.read(SWEEP_FILE_BYTES_MAX + 1)
    text = data if isinstance(data, str) else decode_text(data, filename=path.name)
    written = read_yaml(text, filename=path.name)
    if not isinstance(written.value, dict):
        said = f"the file is {kind(written.value)}: a sweep is a mapping: 'prompt: a cat'"
        if path.suffix.lower() in (".txt", ".csv", ".tsv", ".json", ".jsonl"):
            said += f", or 'prompt: {{file: {path.name}}}' in a file of its own"
        raise SweepError([f"{path.name}, line 1: {said}"])
    document = assemble(written, path=path, settings=settings)
    document, files, notes = _complete(document, path.parent)
    return SweepFile(
        path=path,
        document=document,
        files=files,
        notes=notes,
        written=text,
        written_value=written.value,
    )


def read_sweep_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sweep given as Python values with everything that it names read, from the current folder.

    Raises: SweepError where something cannot be read.
    """
    value = dict(mapping)
    if not _names_anything(value):
        return value
    document, _, _ = _complete(Document(value=value, located=_place(value), problems=[]), Path())
    if document.problems:
        raise SweepError([problem.in_words("") for problem in document.problems])
    completed: dict[str, Any] = document.value
    return completed


def _complete(document: Document, folder: Path) -> tuple[Document, tuple[SourceFile, ...], tuple[str, ...]]:
    """Return a document with everything that it names in it, the files that were read for it, and notes."""
    inlined = inline_sources(document, folder=folder)
    completer = _Completer(inlined.document, folder)
    completer.styles()
    completer.wildcards()
    completer.negatives()
    completer.comments()
    return (
        completer.document(),
        (*inlined.files, *completer.files),
        (*inlined.notes, *completer.notes),
    )


class _Completer:
    """Replaces what a document names by what it means."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.files: list[SourceFile] = []
        self.notes: list[str] = []
        self._document, self._folder = document, folder
        self._value = dict(document.value)
        self._places = dict(document.located.children)
        self._problems = [*document.problems]

    def document(self) -> Document:
        """Return the document as it is now."""
        located = replace(self._document.located, children=self._places)
        return replace(self._document, value=self._value, located=located, problems=self._problems)

    def styles(self) -> None:
        """Read the file, or the folder, that `styles` names."""
        if not isinstance(name := self._value.get("styles"), str):
            return
        place = self._places["styles"]
        try:
            read = read_styles(find_paths(self._folder, source_name(name, place), folders=True))
        except (SweepError, FileInvalid) as error:
            found = error.problems if isinstance(error, SweepError) else [f"styles={show(name)}: {error}"]
            self._refuse("styles", found, dict.fromkeys(_named_styles(self._value), _ANY_STYLE))
            return
        self.notes += _few("styles", read.notes)
        used = _named_styles(self._value)
        self._problems += [
            place.problem(f"styles: {reason}") for key, reason in read.broken.items() if key in used
        ]
        # What a broken style says is not known: something in its place keeps it from being missed as well.
        written = {key: written_style(style) for key, style in read.styles.items()}
        self._value["styles"] = written | {key: _ANY_STYLE for key in read.broken if key in used}
        self.files += [
            SourceFile(path=file.path, sha256=file.sha256, values=file.styles) for file in read.files
        ]

    def wildcards(self) -> None:
        """Read the folder that `wildcards` names, as far as the sweep's texts need it."""
        value = self._value.get("wildcards")
        if value is None:
            return
        texts = list(_texts(self._value))
        place = self._places["wildcards"]
        if isinstance(value, str):
            try:
                read = read_wildcards(self._wildcard_folder(value, place))
            except (SweepError, FileInvalid) as error:
                found = (
                    error.problems if isinstance(error, SweepError) else [f"wildcards={show(value)}: {error}"]
                )
                self._refuse("wildcards", found, dict.fromkeys(wildcard_names(texts), _ANY_LINES))
                return
        else:
            known, problems = wildcards_from_value(value, located=place, filename="wildcards")
            if problems:
                self._refuse("wildcards", [], dict.fromkeys(wildcard_names(texts), _ANY_LINES))
                self._problems += problems
                return
            read = WildcardFolder(found=known)
        self.notes += _few("wildcards", read.notes)
        self._take_wildcards(value, texts, used_wildcards(texts, read.found))
        if self._value.get("expand") is not None:
            self._add_unread(texts, read)
            self._add_near(texts, read)

    def _take_wildcards(self, value: Any, texts: Sequence[str], used: dict[str, Wildcard]) -> None:
        """Keep the wildcards that are used, and say what is wrong with them."""
        place = self._places["wildcards"]
        if used and self._value.get("expand") is None:
            said = (
                f"a prompt has __{next(iter(used))}__, and only templates read wildcards: write expand: all"
            )
            self._problems.append(place.problem(f"wildcards: {said}"))
            used = {}
        named = set(wildcard_names([*texts, *(line for one in used.values() for line in one.lines)]))
        for name, wildcard in list(used.items()):
            trouble = wildcard.problem
            if not trouble and not wildcard.lines:
                if not any(match_wildcards(one, [name]) for one in named if "*" not in one):
                    del used[name]  # one of many that a pattern means
                    continue
                trouble = f"{name!r} is empty: write a line into {wildcard.file}"
            if trouble:
                self._problems.append(place.problem(f"wildcards: {trouble}"))
                used[name] = replace(wildcard, problem=trouble)
        # A line in place of what cannot be read keeps it from being called empty as well.
        self._value["wildcards"] = {
            name: _ANY_LINES if wildcard.problem else list(wildcard.lines) for name, wildcard in used.items()
        }
        self._places["wildcards"] = replace(
            place, children={name: _lines_of(wildcard) for name, wildcard in used.items()}
        )
        if isinstance(value, str):
            for name, wildcard in used.items():
                self._note_text(f"{value}/{name}", "\n".join(wildcard.lines).encode(), len(wildcard.lines))

    def _add_unread(self, texts: list[str], read: WildcardFolder) -> None:
        """Say of a wildcard that nobody knows which files may have it, once, and nothing else of it."""
        unknown = [name for name in wildcard_names(texts) if not match_wildcards(name, read.found)]
        if not unknown or not read.unread:
            return
        listed = ", ".join(f"__{name}__" for name in unknown)
        reason = next(note for note in read.notes if note.startswith(read.unread[0]))
        more = f", nor {len(read.unread) - 1} other files" if read.unread[1:] else ""
        said = f"wildcards: no file that can be read has {listed}, and this one cannot{more}: {reason}"
        self._problems.append(self._places["wildcards"].problem(said))
        self._value["wildcards"] |= dict.fromkeys(unknown, _ANY_LINES)

    def _add_near(self, texts: Sequence[str], read: WildcardFolder) -> None:
        """Say of a name that no wildcard has which one was meant, of all that there are, and nothing else of it."""
        taken: dict[str, Any] = self._value["wildcards"]
        there_are = [*read.found, *taken]
        unknown = {
            name: fix
            for name in wildcard_names(texts)
            if name[0] not in "~!@" and not match_wildcards(name, there_are) and read.found
            if (fix := near(name, read.found, otherwise="" if taken else None))
        }
        for key in self._value if unknown else ():
            for text, place in _placed_texts(self._value[key], self._places[key], key):
                for name in unknown.keys() & wildcard_names([text]):
                    said = f"no wildcard is called {show(name)}: {unknown[name]}"
                    self._problems.append(place.problem(f"{key}: {show(text)}: {said}"))
        taken |= dict.fromkeys(unknown, _ANY_LINES)

    def _wildcard_folder(self, name: str, place: Located) -> Path:
        return find_path(self._folder, source_name(name, place), folders=True).path

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

    def comments(self) -> None:
        """Note signs that begin a comment in Dynamic Prompts and are text in a template here."""
        if self._value.get("expand") is None:
            return
        found = [text for text in _texts(self._value) if _COMMENT_SIGN.search(text)]
        if found:
            sign = _COMMENT_SIGN.search(found[0])
            many = f"{len(found):,} templates hold" if len(found) > 1 else "a template holds"
            self.notes.append(
                f"{many} {sign[0] if sign else ''}, as {show(found[0])}: a comment in Dynamic Prompts, text here"
            )

    def _refuse(self, key: str, problems: Sequence[str], stand_in: dict[str, Any]) -> None:
        """Leave a key to the problems that are known: what stands in for its value causes no others."""
        place = self._places[key]
        self._problems += [place.problem(text) for text in problems]
        self._value[key] = stand_in
        self._places[key] = replace(place, refused=True)

    def _note_text(self, name: str, data: bytes, values: int) -> None:
        self.files.append(SourceFile(path=name, sha256=hashlib.sha256(data).hexdigest(), values=values))


def _few(key: str, notes: Sequence[str]) -> list[str]:
    """Return notes of a collection, no more than a glance takes in."""
    shown = [
        f"{key}: {note.removeprefix(f'{key}: ')}: left out, an error only where it is used" for note in notes
    ]
    if len(shown) > _NOTES_SHOWN:
        shown[_NOTES_SHOWN:] = [f"{key}: ... and {len(shown) - _NOTES_SHOWN:,} more entries are left out"]
    return shown


def _named_styles(value: Mapping[str, Any]) -> set[str]:
    """Return the names of styles that a sweep chooses, on the axis and in zip groups."""
    groups = value.get("zip")
    holders = [value, *(groups if isinstance(groups, list) else [groups])]
    columns = [holder.get("style") for holder in holders if isinstance(holder, Mapping)]
    items = [item for column in columns for item in (column if isinstance(column, list) else [column])]
    return {item for item in items if isinstance(item, str)}


def _lines_of(wildcard: Wildcard) -> Located:
    lines: dict[str | int, Located] = {
        position: Located(number, file=wildcard.file) for position, number in enumerate(wildcard.numbers)
    }
    return Located(0, file=wildcard.file, children=lines)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a sweep that may name wildcards: all that is written below its prompts."""
    return (text for text, _ in _placed_texts(value, Located(0), ""))


def _placed_texts(value: Any, place: Located, key: str) -> Iterator[tuple[str, Located]]:
    """Yield the texts below a key that may name wildcards, and where each stands."""
    if isinstance(value, str) and key in ("prompt", "negative_prompt"):
        yield value, place
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "wildcards":
                below = name if isinstance(name, str) else key
                yield from _placed_texts(inner, place.children.get(name, place), below)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _placed_texts(inner, place.children.get(position, place), key)


def _complete_text(document: Document, path: Path, files: Sequence[SourceFile]) -> str:
    """Return the text of a complete sweep, with what it was made of as comments."""
    said = [f"{path.name}, complete: what it names has been read into it"]
    said += [f"{file.path}: {file.values:,} values, sha256 {file.sha256}" for file in files]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in said)
    value = (
        document.value if "name" in document.value else {"name": name_of_file(path.name), **document.value}
    )
    text = comments + sweep_yaml(value)
    if len(text.encode()) > SWEEP_FILE_BYTES_MAX and "labels" in value:  # the plan has them as well
        text = comments + sweep_yaml({key: found for key, found in value.items() if key != "labels"})
    if len(text.encode()) > SWEEP_FILE_BYTES_MAX:
        size = f"with all that it names the sweep has {len(text) / (1 << 20):,.0f} MiB"
        raise SweepError([f"{path.name}: {size}: at most {SWEEP_FILE_BYTES_MAX >> 20} can be kept: split it"])
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
