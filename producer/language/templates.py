"""Turns the text of a template into a `TextTemplate`. The grammar is docs/templates.md; wildcards are read elsewhere.

A template is parsed once, whatever it stands for: a wildcard that a thousand prompts name is parsed by the first
of them and shared by all, in memory and in the plan.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import NoReturn

from producer.language.wildcards import Wildcard
from shared.axes import WORD
from shared.job import PROMPT_BYTES_MAX
from shared.texts import (
    DEFAULT_SEPARATOR,
    Options,
    Slot,
    Text,
    TextChoice,
    TextTemplate,
    join_texts,
    make_text,
    template_of,
)

#: Deepest nesting of choices and wildcards together. Hand-written ones need three.
TEMPLATE_DEPTH_MAX = 32

#: Most options that a choice picks at once. More is a slip, and counting such picks takes long.
PICKS_MAX = 16

#: Most bits of the number of combinations: 10^1000 and more, yet a sum of two takes no time.
COUNT_BITS_MAX = 4096

#: Longest weight, characters. Twelve digits are finer than anyone can see.
_WEIGHT_CHARS_MAX = 12

#: Characters of a text that an error shows, and names that it lists.
_SHOWN_CHARS = 60
_NAMES_SHOWN = 4

#: The hole of a style that the prompt fills.
PROMPT_SLOT = "prompt"

#: What a slot's name begins with where it stands for a word to replace: no variable is called so.
WORD_PREFIX = WORD

#: What a backslash takes the meaning from. Before any other character it is a backslash.
SPECIAL = "\\{}|_:$#~!@"

_TOKEN = re.compile(
    rf"""
    \\(?P<escaped>[{re.escape(SPECIAL)}])
    | (?P<wildcard>__(?:(?!__)[^{{}}|\\$\#\n])+__)
    | (?P<mark>__ | \$\{{ | [{{}}|])
    | (?P<text>(?: [^\\_{{}}|$] | \\(?![{re.escape(SPECIAL)}]) | _(?!_) | \$(?!\{{) )+)
    """,
    re.VERBOSE,
)
_SOMETHING_SPECIAL = re.compile(r"[\\{}#]|__")
_NAME = re.compile(r"\{([^\W\d]\w*)\}")
_BOUNDS = re.compile(
    r"\s*(?:(?P<low>[0-9]{1,9})-(?P<high>[0-9]{0,9})|-(?P<most>[0-9]{1,9})|(?P<exact>[0-9]{1,9}))\$\$"
)
_SEPARATOR = re.compile(r"(?P<separator>[^${}]*)\$\$")
_SAMPLING = re.compile(r"\s*[~!@]")
_WEIGHT = re.compile(r"\s*(?P<weight>[0-9]+\.?[0-9]*|\.[0-9]+)::")
_SPACE = re.compile(r"\s*")
#: What follows `%{` where it wraps: a text, and two dollars that no number of picks stands before.
_WRAPPED = re.compile(r"(?!\s*[0-9]*-?[0-9]*\$\$)[^{}|]*\$\$")
#: A comment as people write one: "#" at the beginning of a line or after a space, and a space or the end after it.
_COMMENT = re.compile(r"(?:^|(?<=\s))#(?=\s|#|\Z)", re.MULTILINE)
_UNFIT = re.compile("[\0\ud800-\udfff]")
_LINE_SPECIAL = re.compile("[\\\\{}\0\ud800-\udfff]|__|::")
_ONE = Fraction(1)


class TemplateInvalid(ValueError):
    """A template says something it may not. The message names text, position and fix."""

    def __init__(self, text: str, position: int, fix: str, *, place: str | None = None) -> None:
        where = f"{place}: " if place else ""
        super().__init__(f"{where}{_show(text, position)}, character {position + 1}: {fix}")
        #: The text that is wrong: the template's, or a wildcard's line.
        self.text = text
        #: Where in it, from 0.
        self.position = position
        self.fix = fix
        #: File and line of a wildcard; None where the template itself is wrong.
        self.place = place


class TemplateParser:
    """Parses templates that share wildcards and names."""

    def __init__(self, *, wildcards: Mapping[str, Wildcard], slots: Collection[str] = ()) -> None:
        """Take what templates may name.

        Args:
            slots: names that `{name}` makes a hole of.
        """
        self.slots = frozenset(slots)
        self._wildcards = wildcards
        self._options: dict[str, Options] = {}

    def parse(self, text: str) -> TextTemplate:
        """Return the template that a text says. Raises TemplateInvalid."""
        if not _SOMETHING_SPECIAL.search(text):
            return template_of(text)
        return _with_numbers(_Reader(self, text, place=None, trail=(), depth=0).read())

    def options(self, name: str, reader: _Reader, position: int) -> Options:
        """Return the lines of the wildcards that a name stands for, for a reader that has come upon it."""
        if name not in self._options:
            names = self._resolve(name, reader, position)
            for found in names:
                if found in reader.trail:
                    cycle = [*reader.trail[reader.trail.index(found) :], found]
                    shown = " -> ".join(f"__{step}__" for step in cycle)
                    reader.stop(position, f"the wildcard names itself: {shown}: break the circle")
            self._options[name] = reader.merge(
                [self._line(found, number, reader) for found in names for number in self._lines(found)],
                position,
            )
        return self._options[name]

    def _lines(self, name: str) -> range:
        return range(len(self._wildcards[name].lines))

    def _line(self, name: str, number: int, reader: _Reader) -> _Option:
        """Return one line of a wildcard as an option."""
        wildcard = self._wildcards[name]
        line, place = wildcard.lines[number], wildcard.place(number)
        if not _LINE_SPECIAL.search(line):
            return _Option(line, _ONE)
        trail, depth = (*reader.trail, name), reader.depth + 1
        return _Reader(self, line, place=place, trail=trail, depth=depth).read_line()

    def _resolve(self, name: str, reader: _Reader, position: int) -> list[str]:
        """Return the names of the wildcards that a name stands for, some of them with lines in it."""
        names = match_wildcards(name, self._wildcards)
        if not names and name[0] in "~!@":
            fix = f"the sweep's 'expand' says how to choose: write __{name[1:]}__"
            reader.stop(position, f"{name[0]} says how to choose: {fix}")
        if not names:
            fix = f"{self._nearest(name)} (or write \\__ for two underscores)"
            reader.stop(position, f"no wildcard is called {name!r}: {fix}")
        if len(names) > 1 and "*" not in name:
            reader.stop(
                position, f"{name!r} may be {_listed(names)}: write one of them, or __*{name}__ for all"
            )
        found = [self._wildcards[key] for key in names]
        if trouble := next((wildcard.problem for wildcard in found if wildcard.problem), None):
            reader.stop(position, trouble)
        if not any(wildcard.lines for wildcard in found):
            files = _listed(wildcard.file for wildcard in found)
            reader.stop(position, f"the wildcard {name!r} is empty: write a line into {files}")
        return names

    def _nearest(self, name: str) -> str:
        if near := difflib.get_close_matches(name, self._wildcards, n=3, cutoff=0.5):
            return f"did you mean {_listed(near)}?"
        if self._wildcards:
            return f"there are {_listed(sorted(self._wildcards))}"
        return "the sweep's 'wildcards' names a folder of them"


def parse_literal(text: str, *, slots: Collection[str]) -> Text:
    """Return a text in which only `{name}` of a name in `slots` has a meaning."""
    if not slots or "{" not in text:
        return text
    pieces = _NAME.split(text)  # text, name, text, name, ..., text
    return make_text(
        (Slot(piece) if piece in slots else f"{{{piece}}}") if position % 2 else piece
        for position, piece in enumerate(pieces)
    )


def used_wildcards(texts: Iterable[str], wildcards: Mapping[str, Wildcard]) -> dict[str, Wildcard]:
    """Return the wildcards that templates need, and those that these need. Names of none are left to the parser."""
    used: dict[str, Wildcard] = {}
    waiting = list(texts)
    seen: set[str] = set()
    while waiting:
        for token in _TOKEN.finditer(waiting.pop()):
            name = _wildcard_name(token)
            if name is None or name in seen:
                continue
            seen.add(name)
            for found in match_wildcards(name, wildcards):
                if found not in used:
                    used[found] = wildcards[found]
                    waiting += wildcards[found].lines
    return dict(sorted(used.items()))


def wildcard_names(texts: Iterable[str]) -> list[str]:
    """Return the names of wildcards that stand in texts, each once."""
    tokens = (token for text in texts for token in _TOKEN.finditer(text))
    return list(dict.fromkeys(name for name in map(_wildcard_name, tokens) if name is not None))


def match_wildcards(name: str, wildcards: Collection[str]) -> list[str]:
    """Return the wildcards that a name stands for, sorted.

    A name is whole, or the end of one whose folders are left out, or a pattern in which `*` stands for anything.
    """
    if "*" in name:
        pattern = re.compile(".*".join(map(re.escape, re.split(r"\*+", name))), re.DOTALL)
        return sorted(known for known in wildcards if pattern.fullmatch(known))
    if name in wildcards:
        return [name]
    ends = sorted(known for known in wildcards if known.endswith("/" + name))
    return ends if ends or name.isascii() else _composed_alike(name, wildcards)


def _composed_alike(name: str, wildcards: Iterable[str]) -> list[str]:
    """Return the wildcards whose names differ only in how Unicode writes their letters, as file names of macOS do."""
    composed = unicodedata.normalize("NFC", name)
    return sorted(
        known for known in wildcards if f"/{unicodedata.normalize('NFC', known)}".endswith(f"/{composed}")
    )


class WordReplacer:
    """Makes holes of words, all at once and the longest first: a hole is called `=` and the word."""

    def __init__(self, words: Collection[str]) -> None:
        if "" in words:
            raise ValueError("the word to replace is empty: write at least one character")
        longest_first = sorted(words, key=lambda word: (-len(word), word))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if words else None
        self._options: dict[int, tuple[Options, Options]] = {}

    def text(self, text: Text) -> Text:
        """Return a text with holes for its words. What stood in holes before is not looked at."""
        pieces = (text,) if isinstance(text, str) else text
        return join_texts(self._string(piece) if isinstance(piece, str) else (piece,) for piece in pieces)

    def template(self, template: TextTemplate) -> TextTemplate:
        """Return a template with holes for the words in its texts. A word across the edge of a choice is not found."""
        parts: list[str | Slot | TextChoice] = []
        for part in template.parts:
            if isinstance(part, str):
                found = self._string(part)
                parts += (found,) if isinstance(found, str) else found
            elif isinstance(part, Slot):
                parts.append(part)
            else:
                parts.append(dataclasses.replace(part, options=self._replaced(part.options)))
        return TextTemplate(tuple(parts))

    def _string(self, text: str) -> Text:
        if self._pattern is None:
            return text
        pieces: list[str | Slot] = []
        end = 0
        for found in self._pattern.finditer(text):
            pieces += text[end : found.start()], Slot(WORD_PREFIX + found[0])
            end = found.end()
        return make_text((*pieces, text[end:]))

    def _replaced(self, options: Options) -> Options:
        """Return options with holes; the same ones for the same ones, so that they stay shared."""
        if id(options) not in self._options:
            items = tuple(_option_item(self.template(_as_template(item)).parts) for item in options.items)
            # The key is an address: the first of the pair keeps it from being given away.
            self._options[id(options)] = (options, Options(items=items, weights=options.weights))
        return self._options[id(options)][1]


@dataclasses.dataclass(frozen=True, slots=True)
class _Option:
    item: str | TextTemplate
    weight: Fraction


_Part = str | Slot | TextChoice


class _Reader:
    """Reads one text from left to right."""

    def __init__(
        self, parser: TemplateParser, text: str, *, place: str | None, trail: tuple[str, ...], depth: int
    ) -> None:
        #: The wildcards whose lines are being read, outermost first.
        self.trail = trail
        self.depth = depth
        self._parser = parser
        self._text = text
        self._place = place
        self._at = 0
        #: Braces that are open.
        self._options_open = 0

    def read(self) -> TextTemplate:
        """Return the whole text as a template."""
        self._check_depth(0)
        parts = self._sequence(is_option=False)
        return TextTemplate(self._checked(parts, 0))

    def read_line(self) -> _Option:
        """Return the whole text as a line of a wildcard, which may begin with a weight."""
        if found := _UNFIT.search(self._text):
            self.stop(found.start(), f"character U+{ord(found[0]):04X} may not stand in a prompt: remove it")
        weight = self._weight()
        return _Option(_option_item(self.read().parts), weight)

    def stop(self, position: int, fix: str) -> NoReturn:
        """Refuse the text."""
        raise TemplateInvalid(self._text, position, fix, place=self._place)

    def merge(self, options: list[_Option], position: int) -> Options:
        """Return options for a choice: equal ones are one, with their weights added."""
        weights: dict[str | TextTemplate, Fraction] = {}
        for option in options:
            weights[option.item] = weights.get(option.item, Fraction(0)) + option.weight
        merged = Options(items=tuple(weights), weights=_whole_weights(list(weights.values())))
        self._check_size(TextChoice(options=merged), position)
        return merged

    def _sequence(self, *, is_option: bool) -> tuple[_Part, ...]:
        """Read until the text ends or, within an option, until a mark that ends it."""
        parts: list[_Part] = []
        while self._at < len(self._text):
            start = self._at
            token = _TOKEN.match(self._text, start)
            assert token is not None, "the pattern knows every character"
            mark = token["mark"]
            if is_option and mark in ("|", "}"):
                break
            self._at = token.end()
            if name := _wildcard_name(token):
                parts += self._inlined(
                    TextChoice(options=self._parser.options(name, self, start), name=name), start
                )
            elif mark == "{":
                parts += self._brace(start)
            else:
                parts.append(self._plain(token))
        return tuple(parts)

    def _plain(self, token: re.Match[str]) -> str:
        mark, start = token["mark"], token.start()
        if token["text"]:
            self._refuse_foreign(token["text"], start)
        if mark == "__" or token["wildcard"]:
            self.stop(
                start, "__ opens a wildcard that nothing names or closes: write __name__, or \\__ for text"
            )
        if mark == "}":
            self.stop(start, "} closes nothing: remove it, or write \\}")
        if mark == "${":
            fix = "variables are the sweep's 'vars', filled in by {name}"
            self.stop(
                start, f"${{...}} is not part of a template: {fix}; write \\${{ for a dollar before a choice"
            )
        return token["escaped"] or token[0]

    def _refuse_foreign(self, text: str, start: int) -> None:
        """Refuse what Dynamic Prompts gives a meaning to and this grammar does not, in a piece of plain text."""
        # A comment in the line of a wildcard is cut off by the reader of its file.
        found = _COMMENT.search(self._text, start, start + len(text)) if self._place is None else None
        if found:
            self.stop(
                found.start(), "# begins a comment in Dynamic Prompts: remove it, or write \\# for the sign"
            )
        if self._options_open and "$$" in text:
            fix = "write the number first, as in {2$$a|b} or {2$$ and $$a|b}; or \\$\\$ for the text"
            self.stop(start + text.index("$$"), f"$$ stands here without a number of picks: {fix}")
        if text.endswith("%") and self._is_wrapping(start + len(text)):
            fix = "write the text before or after a choice, as in 'in the style of {a|b}'; or %\\{ for text"
            self.stop(start + len(text) - 1, f"%{{...$$...}} (wrapping) is not part of a template: {fix}")

    def _is_wrapping(self, brace: int) -> bool:
        """Say whether the braces that open here hold `$$` before their options, and no number in front of it."""
        return self._text[brace : brace + 1] == "{" and bool(_WRAPPED.match(self._text, brace + 1))

    def _brace(self, start: int) -> tuple[_Part, ...]:
        """Read what follows an opening brace: a name, or a choice."""
        if named := _NAME.match(self._text, start):
            self._at = named.end()
            return (self._slot(named[1], start),)
        self._refuse_sampling()
        bounds = self._match(_BOUNDS)
        separator = self._match(_SEPARATOR) if bounds else None
        options, name = self._options(start)
        low, high = _bounds(bounds, len(options))
        if low > high:
            self.stop(start, f"{low}-{high}: write the smaller number first")
        if high > len(options):
            self.stop(start, f"{high} of {len(options)} different options: pick at most {len(options)}")
        if high > PICKS_MAX:
            self.stop(start, f"{high} picks: use at most {PICKS_MAX}")
        return self._inlined(
            TextChoice(
                options=options,
                low=low,
                high=high,
                separator=separator["separator"] if separator else DEFAULT_SEPARATOR,
                name=name,
            ),
            start,
        )

    def _slot(self, name: str, start: int) -> Slot:
        if name not in self._parser.slots:
            self._refuse_name(name, start)
        return Slot(name)

    def _refuse_name(self, name: str, start: int) -> NoReturn:
        if name == PROMPT_SLOT:
            self.stop(start, "{prompt} is for styles: remove it, or write \\{prompt\\}")
        near = difflib.get_close_matches(name, self._parser.slots, n=1)
        known = f"did you mean {{{near[0]}}}?" if near else "add it to the sweep's 'vars'"
        self.stop(start, f"nothing is called {name!r}: {known}; or write \\{{{name}\\}} for the text")

    def _options(self, start: int) -> tuple[Options, str]:
        """Read options up to the closing brace. One alone is a wildcard, whose name and lines are then theirs."""
        self.depth += 1
        self._options_open += 1
        self._check_depth(start)
        options: list[_Option] = []
        while True:
            weight = self._weight()
            self._match(_SPACE)
            parts = self._sequence(is_option=True)
            if self._at == len(self._text):
                self.stop(start, "{ is never closed: write }, or \\{ for text")
            options.append(_Option(_option_item(self._checked(parts, start)), weight))
            self._at += 1
            if self._text[self._at - 1] == "}":
                break
        self.depth -= 1
        self._options_open -= 1
        if len(options) > 1:
            return self.merge(options, start), ""
        return self._only(parts, start)

    def _only(self, parts: tuple[_Part, ...], start: int) -> tuple[Options, str]:
        """Return the options of braces without |, and the wildcard that they are the lines of."""
        inside = self._text[start + 1 : self._at - 1]
        wildcard = _TOKEN.fullmatch(inside[inside.rfind("$$") + 2 if "$$" in inside else 0 :].strip())
        if wildcard is None or wildcard["wildcard"] is None:
            fix = "separate options by |, or write \\{ and \\} for text"
            self.stop(start, f"one option is no choice: {fix}")
        name = _wildcard_name(wildcard)
        assert name is not None
        return self._parser.options(name, self, start), name

    def _inlined(self, choice: TextChoice, start: int) -> tuple[_Part, ...]:
        """Return a choice, or what stands in its place where there is nothing to choose."""
        self._check_size(choice, start)
        if len(choice.options) == choice.low == choice.high == 1:
            return _as_template(choice.options.items[0]).parts
        return (choice,)

    def _weight(self) -> Fraction:
        start = self._at
        found = self._match(_WEIGHT)
        if found is None:
            return _ONE
        if len(found["weight"]) > _WEIGHT_CHARS_MAX:
            self.stop(
                start, f"the weight has {len(found['weight'])} characters: use at most {_WEIGHT_CHARS_MAX}"
            )
        weight = Fraction(found["weight"])
        if not weight:
            self.stop(start, "the weight is 0: remove the option, or write 0\\:: for text")
        return weight

    def _refuse_sampling(self) -> None:
        if found := self._match(_SAMPLING):
            sign = found[0].strip()
            fix = "the sweep's 'expand' says how to choose"
            self.stop(found.end() - 1, f"{sign} says how to choose: {fix}; remove it, or write \\{sign}")

    def _checked(self, parts: tuple[_Part, ...], position: int) -> tuple[_Part, ...]:
        """Return parts with neighbouring strings joined, unless they say more than a prompt may hold."""
        merged = _merged(parts)
        template = TextTemplate(merged)
        if template.bytes_max > PROMPT_BYTES_MAX:
            size = f"{template.bytes_max:,} bytes"
            self.stop(position, f"its longest text has {size}: use at most {PROMPT_BYTES_MAX:,}")
        if sum(choice.count.bit_length() - 1 for choice in template.choices) > COUNT_BITS_MAX:
            self._refuse_count(position)
        return merged

    def _check_size(self, choice: TextChoice, position: int) -> None:
        """Refuse a choice that would take long to count."""
        options = choice.options
        if options.depth > TEMPLATE_DEPTH_MAX:
            self._refuse_depth(position)
        largest = max(options.counts or (1,))
        if choice.high * (largest.bit_length() + len(options).bit_length()) > COUNT_BITS_MAX + 64:
            self._refuse_count(position)

    def _refuse_count(self, position: int) -> NoReturn:
        digits = math.floor(COUNT_BITS_MAX * math.log10(2))
        self.stop(position, f"more than 10^{digits} combinations: wildcards within wildcards multiply")

    def _check_depth(self, position: int) -> None:
        if self.depth > TEMPLATE_DEPTH_MAX:
            self._refuse_depth(position)

    def _refuse_depth(self, position: int) -> NoReturn:
        self.stop(
            position, f"choices and wildcards are nested more than {TEMPLATE_DEPTH_MAX} deep: flatten them"
        )

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found


def _wildcard_name(token: re.Match[str]) -> str | None:
    """Return the name of a wildcard; None where a token is none."""
    if token["wildcard"] is None:
        return None
    return token["wildcard"][2:-2].strip().strip("/") or None


def _merged(parts: Iterable[_Part]) -> tuple[_Part, ...]:
    """Return parts with neighbouring strings joined and empty ones left out."""
    merged: list[_Part] = []
    for is_text, run in itertools.groupby(parts, key=lambda part: isinstance(part, str)):
        if not is_text:
            merged += run
        elif text := "".join(map(str, run)):
            merged.append(text)
    return tuple(merged)


def _with_numbers(template: TextTemplate) -> TextTemplate:
    """Return a template whose nameless choices are called by their number; those within options stay nameless."""
    numbers = itertools.count(1)
    return TextTemplate(
        tuple(
            dataclasses.replace(part, name=f"choice_{next(numbers)}")
            if isinstance(part, TextChoice) and not part.name
            else part
            for part in template.parts
        )
    )


def _option_item(parts: tuple[_Part, ...]) -> str | TextTemplate:
    """Return what stands for parts in a choice: plain text as a string."""
    if not parts:
        return ""
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else TextTemplate(parts)


def _as_template(item: str | TextTemplate) -> TextTemplate:
    return template_of(item) if isinstance(item, str) else item


def _whole_weights(weights: list[Fraction]) -> tuple[int, ...] | None:
    """Return weights as the smallest whole numbers of the same proportions; None where all are equal."""
    if len(set(weights)) <= 1:
        return None
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    divisor = math.gcd(*whole)
    return tuple(weight // divisor for weight in whole)


def _bounds(found: re.Match[str] | None, count: int) -> tuple[int, int]:
    """Return how few and how many options to pick, of so many."""
    if found is None:
        return 1, 1
    if found["exact"]:
        return int(found["exact"]), int(found["exact"])
    if found["most"]:
        return 1, int(found["most"])
    return int(found["low"]), int(found["high"]) if found["high"] else count


def _listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them, no more than a glance takes in."""
    shown = [repr(name) for name in names]
    if len(shown) > _NAMES_SHOWN:
        shown[_NAMES_SHOWN:] = [f"{len(shown) - _NAMES_SHOWN} more"]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _show(text: str, position: int) -> str:
    """Return a text around a position: one line, no longer than a glance."""
    start = max(0, min(position - _SHOWN_CHARS // 2, len(text) - _SHOWN_CHARS))
    shown = repr(text[start : start + _SHOWN_CHARS])
    before, after = "…" * (start > 0), "…" * (start + _SHOWN_CHARS < len(text))
    return f"{shown[0]}{before}{shown[1:-1]}{after}{shown[-1]}"
