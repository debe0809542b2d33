"""Splits an infotext into its prompt part and its settings, wherever a site or an extension moved them.

The settings are one line that begins with `Steps:`. Extensions add lines after it (`Template:`), sites join all
lines to one, and a value may be quoted, or JSON with commas of its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

#: Settings that no infotext is without all of.
KNOWN = frozenset(
    ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "Version")
)

#: A line with fewer of them is part of the prompt.
_KNOWN_MIN = 3

_NAME = re.compile(r"\s*(\w[\w \-/+.]*):\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"')
_UNTIL_COMMA = re.compile(r"[^,]*")
_COMMA = re.compile(r"\s*(?:,|$)")
_START = re.compile(r"(?:^|(?<=\s))Steps:[ \t]*[0-9]", re.MULTILINE)
_TEMPLATE = re.compile(r"\s(?:Negative )?Template:")
_NEGATIVE_LINE = re.compile(r"^[ \t]*Negative prompt:", re.MULTILINE)
_NEGATIVE_WORD = re.compile(r"(?:^|(?<=\s))Negative prompt:")

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Infotext:
    """The parts of an infotext."""

    prompt: str
    negative: str
    settings: dict[str, str]
    #: What stands after the settings, such as `Template:` lines.
    rest: str


def split_infotext(text: str) -> Infotext | None:
    """Return the parts of an infotext, or None for a text that is none."""
    text = text.replace("\r\n", "\n").strip()
    for start in _starts(text):
        line, _, rest = text[start:].partition("\n")
        if template := _TEMPLATE.search(line):
            line, rest = line[: template.start()], f"{line[template.start() :]}\n{rest}"
        settings = dict(_settings(line))
        if len(KNOWN & settings.keys()) >= _KNOWN_MIN:
            is_flat = start > 0 and text[start - 1] != "\n"
            prompt, negative = _prompts(text[:start], is_flat=is_flat)
            return Infotext(prompt=prompt, negative=negative, settings=settings, rest=rest.strip())
    return None


def _starts(text: str) -> list[int]:
    """Return where the settings may begin, the likeliest first: starts of lines before words in a line."""
    found = [match.start() for match in _START.finditer(text)]
    last_line = text.rfind("\n") + 1
    at_lines = {at for at in found if at == 0 or text[at - 1] == "\n"}
    first = _NAME.match(text, last_line)
    is_settings = first is not None and first[1].strip() in KNOWN
    in_lines = sorted(set(found) - at_lines, reverse=True)
    return [
        *sorted(at_lines, reverse=True),
        *([last_line] if is_settings else []),
        *in_lines,
        *([] if is_settings else [last_line]),
    ]


def _prompts(text: str, *, is_flat: bool) -> tuple[str, str]:
    found = _NEGATIVE_LINE.search(text) or (_NEGATIVE_WORD.search(text) if is_flat else None)
    if found is None:
        return text.strip(), ""
    return text[: found.start()].strip(), text[found.end() :].strip()


def _settings(line: str) -> list[tuple[str, str]]:
    """Return (name, value) of each setting. What has no name of its own belongs to the value in front of it."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(line):
        if name := _NAME.match(line, at):
            value, at = _value(line, name.end())
            found.append((name[1].strip(), value))
        else:
            start, at = at, _end_of_plain(line, at)
            if found and line[start:at].strip():
                found[-1] = (found[-1][0], f"{found[-1][1]},{line[start:at].rstrip()}")
        at += 1  # the comma
    return found


def _value(line: str, at: int) -> tuple[str, int]:
    """Return a value and where it ends: quoted, JSON, or up to the next comma."""
    end = None
    if line[at : at + 1] == '"' and (quoted := _QUOTED.match(line, at)):
        end = quoted.end()
    elif line[at : at + 1] in ("{", "["):
        end = _end_of_json(line, at)
    if end is not None and (comma := _COMMA.match(line, end)):
        return _unquoted(line[at:end]), max(end, comma.end() - 1 if comma[0].endswith(",") else comma.end())
    end = _end_of_plain(line, at)
    return line[at:end].strip(), end


def _end_of_json(line: str, at: int) -> int | None:
    try:
        return _DECODER.raw_decode(line, at)[1]
    except (ValueError, RecursionError):
        return None


def _end_of_plain(line: str, at: int) -> int:
    found = _UNTIL_COMMA.match(line, at)
    return found.end() if found else len(line)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
