"""Turns YAML text into plain values that remember their lines. Knows nothing of what a sweep may say.

Works on the parser's events, one at a time and without recursion: PyYAML's own composer crashes the interpreter
on deep nesting, expands alias bombs without a bound, and takes the last of two equal keys without a word.
What YAML 1.1 reads in a way nobody means (octal 010, the sexagesimal 1:30, dates) is a problem here, not a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from producer.language.problem import Problem
from shared.errors import SweepError

#: How packed files begin -> what packed them.
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}

#: Largest sweep file, bytes: ten times a hundred thousand long prompts.
SWEEP_FILE_BYTES_MAX = 64 << 20

#: Most values in a file, aliases expanded. A million prompts fit; a bomb of nested aliases does not.
VALUES_MAX = 2_000_000

#: Deepest nesting. A sweep needs three (`cases`, a case, its values).
YAML_DEPTH_MAX = 16

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FRACTION = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)\Z", re.IGNORECASE)
_QUOTE_HINT = "quote text that holds ': ' or ' #', or begins with one of * & ! % @ ` { [ > |"


@dataclass(slots=True)
class Located:
    """Where a value stands in the file, and where the values in it do."""

    #: Line of the key for what a mapping holds, else of the value; 1 is the first. 0 where `file` says the place.
    line: int
    #: As it was written; None for text and for collections.
    raw: str | None = None
    #: By key or by position.
    children: Mapping[str | int, Located] = field(default_factory=dict)
    #: Whether a problem has been recorded for the value already.
    refused: bool = False
    #: The file or the option that it stands in, as seen from the sweep's folder; None for the sweep's own file.
    file: str | None = None

    def problem(self, text: str) -> Problem:
        """Return what is wrong with the value, with its place."""
        return Problem(text=text, line=self.line or None, file=self.file)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A YAML file as plain values, their places, and what is wrong with them so far."""

    value: Any
    located: Located
    problems: list[Problem]


def decode_text(data: bytes, *, filename: str) -> str:
    """Return the text of a file. A UTF-8 byte order mark is dropped.

    Raises: SweepError naming the size, or the first byte that is not UTF-8.
    """
    _check_size(len(data), filename)
    text, problem = decode_utf8(data)
    if problem is not None:
        if packing := next((name for start, name in _PACKED.items() if data.startswith(start)), None):
            raise SweepError([f"{filename}: the file is packed by {packing}: unpack it first"])
        raise SweepError([problem.in_words(filename)])
    return text


def decode_utf8(data: bytes) -> tuple[str, Problem | None]:
    """Return (text without a byte order mark, None), or ("", why it is not UTF-8).

    UTF-16 with its mark is read too: Excel's "Unicode text" and PowerShell's `>` write it.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), None
        except UnicodeDecodeError as error:
            trouble = f"UTF-16 that breaks off at offset {error.start}"
            return "", Problem(text=f"the file is {trouble}: save it as UTF-8")
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8"
        return "", Problem(line=line, text=f"{byte}: save the file as UTF-8")


def source_name(name: str, place: Located) -> str:
    """Return a file's name as seen from the sweep's folder: names in an included file are relative to that file.

    Args:  place: where the name stands. What an option names is relative to the sweep's folder.
    """
    if place.file is None or not place.line or name.startswith("~"):
        return name
    return os.path.normpath(Path(place.file).parent / name)


def read_yaml(text: str, *, filename: str, file: str | None = None) -> Document:
    """Read one YAML document.

    Args:
        filename: what errors call it.
        file: what its places bear as `Located.file`; None for the sweep's own file.
    Raises: SweepError where the text is not YAML, or is too large or too deep to go on.
    """
    _check_size(len(text), filename)
    text = text.removeprefix("\ufeff")
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise SweepError(
            [f"{filename}, line {line}: character U+{ord(found[0]):04X} may not stand in YAML: remove it"]
        )
    reader = _Reader(filename, file)
    try:
        for event, tag in _events(text):
            reader.take(event, tag)
    except yaml.MarkedYAMLError as error:
        raise SweepError([_syntax_problem(error, text, filename)]) from error
    except yaml.YAMLError as error:
        raise SweepError([f"{filename}: not YAML: {error}"]) from error
    if reader.root is None:
        fix = "a sweep needs at least a prompt" if file is None else "give it a key"
        raise SweepError([f"{filename}: the file is empty: {fix}"])
    return Document(value=reader.root[0], located=reader.root[1], problems=reader.problems)


def read_inline(text: str, *, what: str) -> Any:
    """Return the value that an option holds, written as YAML on one line: `apg`, `{rescale: 0.7}`.

    Raises: SweepError naming the option for text that is not YAML, or that YAML reads as nobody means it.
    """
    if not text.strip():
        raise SweepError([f"{what}: nothing there: write a value, or null"])
    document = read_yaml(text, filename=what)
    if document.problems:
        raise SweepError([f"{what}: {problem.text}" for problem in document.problems])
    return document.value


def read_option(text: str, *, what: str) -> Document:
    """Read the value that an option holds, written as YAML. Its places have the option's name and no line.

    Raises: SweepError naming the option, where `read_yaml` does.
    """
    if not text.strip():
        raise SweepError([f"{what}: nothing there: write a value, or null"])
    try:
        document = read_yaml(text, filename=what, file=what)
    except SweepError as error:
        place = f"{what}, line 1: "
        raise SweepError([problem.replace(place, f"{what}: ", 1) for problem in error.problems]) from error
    _forget_lines(document.located, set())
    return replace(document, problems=[replace(problem, line=None) for problem in document.problems])


def _forget_lines(place: Located, seen: set[int]) -> None:
    place.line = 0
    if id(place.children) in seen:
        return  # a value with several aliases
    seen.add(id(place.children))
    for child in place.children.values():
        _forget_lines(child, seen)


def _check_size(size: int, filename: str) -> None:
    if size > SWEEP_FILE_BYTES_MAX:
        limit = SWEEP_FILE_BYTES_MAX >> 20
        raise SweepError([f"{filename}: {size / (1 << 20):,.1f} MiB: a sweep file holds at most {limit} MiB"])


def _events(text: str) -> Iterator[tuple[Any, str]]:
    """Yield (event, tag of a scalar or the explicit tag of a collection)."""
    loader = _Loader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            tag = getattr(event, "tag", None)
            if isinstance(event, yaml.ScalarEvent) and tag in (None, "!"):
                tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            yield event, tag or ""
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Open:
    """A list or a mapping that is being read."""

    value: Any
    located: Located
    #: Places of the values in it: `located.children`.
    places: dict[str | int, Located]
    anchor: str | None
    #: How many values there were before this one.
    count_before: int
    key: str | None = None
    key_line: int = 0
    #: Whether the value to come is dropped, its key being refused.
    discard: bool = False


class _Reader:
    """Builds the values of one document from its events."""

    def __init__(self, filename: str, file: str | None) -> None:
        self.root: tuple[Any, Located] | None = None
        self.problems: list[Problem] = []
        self._filename = filename
        self._file = file
        self._open: list[_Open] = []
        #: Anchor -> value, place, number of values in it.
        self._anchors: dict[str, tuple[Any, Located, int]] = {}
        self._count = 0
        self._documents = 0

    def take(self, event: Any, tag: str) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event, tag, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event, tag, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(line, "a second document begins here ('---'): keep one sweep a file")

    def _take_scalar(self, event: Any, tag: str, line: int) -> None:
        if self._wants_key():
            self._take_key(event.value, tag, line)
            return
        located = Located(line, file=self._file)
        if tag == _TAG + "str":
            value: Any = event.value
        else:
            located.raw = event.value
            value, trouble = _plain_value(event.value, tag)
            if trouble:
                located.refused = True
                self._note(line, f"{self._where()}{trouble}", self._keys())
        self._add(value, located, event.anchor, 1)

    def _take_key(self, key: str, tag: str, line: int) -> None:
        frame = self._open[-1]
        if tag == _TAG + "merge":
            self._stop(line, "merge keys ('<<') are not part of a sweep: write the keys out")
        frame.discard = True
        if tag != _TAG + "str":
            self._note(line, f"the key {key} is not text to YAML: quote it: '{key}'", (*self._keys(), key))
        elif key in frame.value:
            first = frame.located.children[key].line
            text = f"the key {key!r} stands here twice (first in line {first}): keep one"
            self._note(line, text, (*self._keys(), key))
        else:
            frame.discard = False
        frame.key, frame.key_line = key, line

    def _take_alias(self, anchor: str | None, line: int) -> None:
        if self._wants_key():
            self._stop(line, f"an alias (*{anchor}) cannot be a key: write the key out")
        if anchor is None or anchor not in self._anchors:
            self._stop(line, f"*{anchor} names no anchor that is complete above it: {_QUOTE_HINT}")
        value, located, count = self._anchors[anchor]
        copy = Located(line, located.raw, located.children, located.refused, self._file)
        self._count_values(count, line)
        self._add(value, copy, None, 0)

    def _begin(self, event: Any, tag: str, line: int) -> None:
        if self._wants_key():
            self._stop(line, f"a list or a mapping cannot be a key: {_QUOTE_HINT}")
        if tag and tag not in (_TAG + "seq", _TAG + "map", "!"):
            self._stop(line, f"the tag {_short_tag(tag)} is not part of a sweep: remove it")
        if len(self._open) >= YAML_DEPTH_MAX:
            self._stop(line, f"nested more than {YAML_DEPTH_MAX} deep: a sweep is flat")
        value: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        places: dict[str | int, Located] = {}
        located = Located(line, children=places, file=self._file)
        self._open.append(_Open(value, located, places, event.anchor, self._count))

    def _end(self) -> None:
        frame = self._open.pop()
        count = self._count - frame.count_before + 1
        self._add(frame.value, frame.located, frame.anchor, 1)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.value, frame.located, count)

    def _add(self, value: Any, located: Located, anchor: str | None, count: int) -> None:
        self._count_values(count, located.line)
        if anchor:
            self._anchors[anchor] = (value, located, 1)
        if not self._open:
            self.root = (value, located)
            return
        frame = self._open[-1]
        if frame.key is None:
            frame.places[len(frame.value)] = located
            frame.value.append(value)
            return
        if not frame.discard:
            # A copy, for an anchored value stands in two places.
            place = Located(frame.key_line, located.raw, located.children, located.refused, self._file)
            frame.value[frame.key], frame.places[frame.key] = value, place
        frame.key = None

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _keys(self) -> tuple[str, ...]:
        """Return the keys whose values are being read, outermost first."""
        return tuple(frame.key for frame in self._open if frame.key is not None)

    def _where(self) -> str:
        keys = self._keys()
        return f"{keys[-1]}: " if keys else ""

    def _count_values(self, count: int, line: int) -> None:
        self._count += count
        if self._count > VALUES_MAX:
            self._stop(
                line, f"more than {VALUES_MAX:,} values, aliases (*name) expanded: make the file smaller"
            )

    def _note(self, line: int, text: str, path: tuple[str, ...]) -> None:
        self.problems.append(Problem(line=line, text=text, file=self._file, path=path))

    def _stop(self, line: int, text: str) -> NoReturn:
        raise SweepError([f"{self._filename}, line {line}: {text}"])


def _plain_value(raw: str, tag: str) -> tuple[Any, str]:
    """Return (value, what is wrong with it or "") of a scalar that is not text."""
    kind = tag.removeprefix(_TAG)
    if kind == "null":
        return None, ""
    if kind == "bool" and raw.lower() in yaml.SafeLoader.bool_values:
        return yaml.SafeLoader.bool_values[raw.lower()], ""
    if kind == "int" and len(raw) < 100 and _DECIMAL.match(raw):
        return int(raw), ""
    if kind == "float" and (_FRACTION.match(raw) or _DECIMAL.match(raw)):
        return float(raw), ""
    if kind == "float" and _NOT_FINITE.match(raw):
        return float(raw.replace(".", "", 1)), ""
    shown = raw if len(raw) <= 40 else f"{raw[:40]}…"
    quoted = "'" + shown.replace("'", "''") + "'"
    if kind == "timestamp":
        return None, f"{shown} is a date to YAML: quote it: {quoted}"
    if kind in ("value", "merge"):
        return None, f"{shown} is a sign of YAML's own: quote it: {quoted}"
    if kind in ("int", "float"):
        reading = f" (YAML makes {_yaml_number(raw)} of it)" if _yaml_number(raw) else ""
        return None, f"{shown} is no plain decimal number{reading}: write one, or quote text: {quoted}"
    return (
        None,
        f"the tag {_short_tag(tag)} is not part of a sweep: remove it, or quote text that begins with '!'",
    )


def _yaml_number(raw: str) -> str:
    """Return what YAML 1.1 makes of 010, 0x1F, 1_000 or 1:30, or "" where it is not worth showing."""
    if len(raw) > 40:
        return ""
    try:
        return str(yaml.safe_load(raw))
    except (ValueError, yaml.YAMLError):
        return ""


def _short_tag(tag: str) -> str:
    return tag.replace(_TAG, "!!", 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, filename: str) -> str:
    """Say where YAML's grammar was broken, and what usually fixes it."""
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    at_end = mark is not None and not "".join(lines[mark.line :]).strip()
    if at_end and error.context_mark is not None:
        mark = error.context_mark
    line = mark.line + 1 if mark is not None else 1
    what = " ".join(part for part in (error.context, error.problem) if part)
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return f"{filename}, line {line}: a tab: indent with spaces"
    return f"{filename}, line {line}: not YAML ({what}): {_QUOTE_HINT}; close every quote and bracket"
