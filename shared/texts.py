"""Makes a text from a template and a number, as plans make prompts. Pure; knows no grammar and no files.

A `Text` is a string, or strings with named holes between them. A `TextTemplate` stands for many texts: its parts are
strings, holes and choices, and the options of a choice are templates again. A text is read off its number by
mixed-radix digits, the last choice fastest; nothing is ever expanded, so a template of 10^30 texts costs as little
as one of ten.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

#: What stands between the options picked, where a template does not say. dynamicprompts' own.
DEFAULT_SEPARATOR = ","


@dataclass(frozen=True, slots=True)
class Slot:
    """A named hole in a text."""

    name: str


#: A text, or its strings and holes: `make_text` joins neighbouring strings and drops empty ones.
Text = str | tuple[str | Slot, ...]


def make_text(pieces: Iterable[str | Slot]) -> Text:
    """Return pieces as one text: without a hole it is a string."""
    joined: list[str | Slot] = []
    run: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            run.append(piece)
            continue
        if text := "".join(run):
            joined.append(text)
        joined.append(piece)
        run = []
    text = "".join(run)
    if not joined:
        return text
    return (*joined, text) if text else tuple(joined)


def join_texts(texts: Iterable[Text]) -> Text:
    """Return texts one after the other as one."""
    return make_text(piece for text in texts for piece in ((text,) if isinstance(text, str) else text))


def fill(text: Text, values: Mapping[str, Text]) -> str:
    """Return a text with its holes filled, in one pass: what a hole is filled with is never searched.

    A value may have holes of its own; they are filled from the same values. The caller sees to it that no
    value names itself.

    Raises: KeyError naming a hole without a value.
    """
    if isinstance(text, str):
        return text
    return "".join(piece if isinstance(piece, str) else fill(values[piece.name], values) for piece in text)


def text_to_json(text: Text) -> Any:
    """Return a text as JSON: a string, or a list of strings and {"slot": name}."""
    if isinstance(text, str):
        return text
    return [piece if isinstance(piece, str) else {"slot": piece.name} for piece in text]


def text_from_json(value: Any) -> Text:
    """Return the text that `text_to_json` wrote. Raises ValueError for anything else."""
    try:
        if isinstance(value, str):
            return value
        return make_text(piece if isinstance(piece, str) else Slot(piece["slot"]) for piece in value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a text: {value!r}") from error


@dataclass(frozen=True, kw_only=True)
class Options:
    """What choices choose from. A wildcard is one, shared by all who name it."""

    #: Plain text as a string, which is most of the lines of most wildcards.
    items: tuple[str | TextTemplate, ...]
    #: How often each is drawn, as whole numbers, so that every machine draws the same; None where all are equal.
    weights: tuple[int, ...] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def count(self) -> int:
        """How many texts there are to choose one from."""
        return self.count_stops[-1] if self.count_stops else len(self.items)

    @cached_property
    def counts(self) -> tuple[int, ...] | None:
        """How many texts each option is; None where each is one."""
        counts = tuple(1 if isinstance(item, str) else item.count for item in self.items)
        return None if all(count == 1 for count in counts) else counts

    @cached_property
    def count_stops(self) -> tuple[int, ...] | None:
        """Running sum of `counts`."""
        return None if self.counts is None else tuple(itertools.accumulate(self.counts))

    @cached_property
    def weight_stops(self) -> tuple[int, ...] | None:
        """Running sum of `weights`."""
        return None if self.weights is None else tuple(itertools.accumulate(self.weights))

    @cached_property
    def slots(self) -> frozenset[str]:
        """The names of the holes in the options."""
        return frozenset().union(*(item.slots for item in self.items if isinstance(item, TextTemplate)))

    @cached_property
    def depth(self) -> int:
        """How deep choices are nested in one another, this one included."""
        return 1 + max((item.depth for item in self.items if isinstance(item, TextTemplate)), default=0)

    @cached_property
    def name_counts(self) -> Mapping[str, int]:
        """How often at most each name of a choice occurs in one option."""
        counts: Counter[str] = Counter()
        for item in self.items:
            if isinstance(item, TextTemplate):
                counts |= Counter(item.name_counts)
        return counts

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Most bytes of UTF-8 that each option takes, holes aside."""
        return tuple(_byte_count(item) if isinstance(item, str) else item.bytes_max for item in self.items)

    @cached_property
    def _hash(self) -> int:
        return hash((self.items, self.weights))


@dataclass(frozen=True, kw_only=True)
class TextChoice:
    """From `low` to `high` of the options, in any order and none twice, joined by the separator."""

    options: Options
    low: int = 1
    high: int = 1
    separator: str = DEFAULT_SEPARATOR
    #: What people call it; "" for nothing. It decides no text, so choices that differ in it alone are equal.
    name: str = field(default="", compare=False)

    @cached_property
    def count(self) -> int:
        """How many texts the choice stands for; the order of what is picked counts."""
        return sum(self.pick_counts)

    @cached_property
    def pick_counts(self) -> tuple[int, ...]:
        """How many texts pick `low` options, `low + 1`, ... `high`."""
        if self.low == self.high == 1:
            return (self.options.count,)
        return tuple(_count_picks(self.options, picks) for picks in range(self.low, self.high + 1))

    @property
    def bytes_max(self) -> int:
        """Most bytes of UTF-8 that a text takes, holes aside."""
        sizes = self.options.sizes
        longest = max(sizes, default=0) if self.high == 1 else sum(heapq.nlargest(self.high, sizes))
        return longest + max(0, self.high - 1) * _byte_count(self.separator)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenText:
    """What a named choice has become in one text."""

    name: str
    #: All of it: several options with their separators, and what was chosen within them.
    text: Text


@dataclass(frozen=True)
class TextTemplate:
    """A text with choices in it: `count` texts, each read off its number or drawn."""

    parts: tuple[str | Slot | TextChoice, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def count(self) -> int:
        """How many combinations of its choices there are. May exceed 64 bits."""
        return math.prod(choice.count for choice in self.choices)

    @cached_property
    def choices(self) -> tuple[TextChoice, ...]:
        """The choices, in the order of the text; those within options are not among them."""
        return tuple(part for part in self.parts if isinstance(part, TextChoice))

    @property
    def has_choices(self) -> bool:
        """Whether there is anything to choose. Without choices `combination(0)` is all there is."""
        return bool(self.choices)

    @cached_property
    def slots(self) -> frozenset[str]:
        """The names of all holes, those in options too."""
        own = frozenset(part.name for part in self.parts if isinstance(part, Slot))
        return own.union(*(choice.options.slots for choice in self.choices))

    @cached_property
    def name_counts(self) -> Mapping[str, int]:
        """How often at most each name of a choice occurs in one text."""
        counts: Counter[str] = Counter()
        for choice in self.choices:
            counts.update({name: count * choice.high for name, count in choice.options.name_counts.items()})
            if choice.name:
                counts[choice.name] += 1
        return counts

    @cached_property
    def bytes_max(self) -> int:
        """Most bytes of UTF-8 that a text takes, holes aside."""
        return sum(
            _byte_count(part) if isinstance(part, str) else part.bytes_max
            for part in self.parts
            if not isinstance(part, Slot)
        )

    @property
    def depth(self) -> int:
        """How deep choices are nested in one another; 0 without choices."""
        return max((choice.options.depth for choice in self.choices), default=0)

    def combination(self, number: int, chosen: list[ChosenText] | None = None) -> Text:
        """Return the combination of a number, 0 <= number < count; the last choice moves fastest.

        Args:
            chosen: told what each named choice has become, those within options behind the one that they are in.

        Raises: IndexError for another number.
        """
        if not 0 <= number < self.count:
            raise IndexError(f"combination {number}: the template has {self.count}")
        return make_text(_combine(self, number, chosen))

    def draw(self, seed: int, number: int, chosen: list[ChosenText] | None = None) -> Text:
        """Return a text by chance, options by their weights: the same for a seed and a number on every machine.

        Args:
            chosen: as in `combination`.
        """
        return make_text(_draw(self, _Dice(seed, number), chosen))

    def to_json(self) -> Any:
        """Return the template as JSON. Several are smaller together: `templates_to_json`."""
        return templates_to_json([self])

    @classmethod
    def from_json(cls, value: Any) -> TextTemplate:
        """Return the template that `to_json` wrote. Raises ValueError for anything else."""
        (template,) = templates_from_json(value)
        return template

    @cached_property
    def _hash(self) -> int:
        return hash(self.parts)


def written(text: Text | TextTemplate, *, chars_max: int = 200) -> str:
    """Return a text as a person would write it, no longer than a glance: holes in braces, choices by their names."""
    parts = (text,) if isinstance(text, str) else text.parts if isinstance(text, TextTemplate) else text
    pieces: list[str] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, Slot):
            pieces.append(part.name[1:] if part.name.startswith("=") else f"{{{part.name}}}")
        elif part.name and not part.name.startswith("choice_"):
            pieces.append(f"__{part.name}__")
        else:
            options = itertools.islice(part.options.items, chars_max)
            pieces.append(f"{{{'|'.join(written(item, chars_max=chars_max) for item in options)}}}")
    whole = " ".join("".join(pieces).split())
    return whole if len(whole) <= chars_max else f"{whole[: chars_max - 1]}…"


def template_of(text: Text) -> TextTemplate:
    """Return a text as a template without choices."""
    if isinstance(text, str):
        return TextTemplate((text,) if text else ())
    return TextTemplate(text)


def templates_to_json(templates: Sequence[TextTemplate]) -> Any:
    """Return templates as one JSON table, in which equal choices and equal options stand once.

    Options and choices come before those who name them by position, so that the table is read in one pass.
    """
    writer = _TableWriter()
    written = [writer.write(template) for template in templates]
    return {"options": writer.options, "choices": writer.choices, "templates": written}


def choice_names_to_json(templates: Sequence[TextTemplate]) -> Any:
    """Return the names of the choices in a table of these templates; None where no choice has one.

    They stand beside the table and not in it, so that what a text says does not depend on them. Templates with
    choices follow one another as in the table, each with the position of its names in a list of different ones.
    """
    writer = _TableWriter()
    for template in templates:
        writer.write(template)
    lists: dict[tuple[str, ...], int] = {}
    places = [
        lists.setdefault(tuple(choice.name for choice in template.choices), len(lists))
        for template in (*writer.option_templates, *templates)
        if template.has_choices
    ]
    return {"lists": [list(names) for names in lists], "places": places} if any(map(any, lists)) else None


def templates_from_json(table: Any, names: Any = None) -> list[TextTemplate]:
    """Return the templates that `templates_to_json` wrote, their choices named as `choice_names_to_json` says.

    Raises: ValueError for anything else.
    """
    try:
        return _read_table(table, names)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"not a table of templates: {error!r}") from error


def _byte_count(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _noted(
    choice: TextChoice, pieces: Iterator[str | Slot], chosen: list[ChosenText] | None
) -> Iterable[str | Slot]:
    """Return what a choice has become, once it is noted."""
    if chosen is None:
        return pieces
    place = len(chosen)
    kept = tuple(pieces)
    if choice.name:
        chosen.insert(place, ChosenText(name=choice.name, text=make_text(kept)))
    return kept


def _combine(template: TextTemplate, number: int, chosen: list[ChosenText] | None) -> Iterator[str | Slot]:
    digits: list[int] = []
    for choice in reversed(template.choices):
        number, digit = divmod(number, choice.count)
        digits.append(digit)
    for part in template.parts:
        if isinstance(part, TextChoice):
            yield from _noted(part, _combine_choice(part, digits.pop(), chosen), chosen)
        else:
            yield part


def _combine_choice(choice: TextChoice, number: int, chosen: list[ChosenText] | None) -> Iterator[str | Slot]:
    picks = choice.low
    for count in choice.pick_counts:
        if number < count:
            break
        number -= count
        picks += 1
    options = choice.options
    if picks == 1:  # by far the most frequent, and needs no search
        if options.count_stops is None:
            yield from _combine_option(options, number, 0, chosen)
        else:
            position = bisect_right(options.count_stops, number)
            start = options.count_stops[position - 1] if position else 0
            yield from _combine_option(options, position, number - start, chosen)
        return
    positions, number = _unrank_picks(options, picks, number)
    digits: list[int] = []
    for position in reversed(positions):
        number, digit = divmod(number, options.counts[position] if options.counts else 1)
        digits.append(digit)
    for position in positions:
        if len(digits) < picks:
            yield choice.separator
        yield from _combine_option(options, position, digits.pop(), chosen)


def _combine_option(
    options: Options, position: int, number: int, chosen: list[ChosenText] | None
) -> Iterator[str | Slot]:
    item = options.items[position]
    if isinstance(item, str):
        yield item
    else:
        yield from _combine(item, number, chosen)


def _count_picks(options: Options, picks: int) -> int:
    """Return how many texts pick so many options, in any order."""
    if options.counts is None:
        return math.perm(len(options), picks)
    return math.factorial(picks) * _symmetric_sums(options.counts, picks)[picks]


def _symmetric_sums(counts: Iterable[int], degree: int) -> list[int]:
    """Return the elementary symmetric sums of degrees 0 to `degree`: products of so many counts, summed."""
    sums = [1] + [0] * degree
    for count in counts:
        for at in range(degree, 0, -1):
            sums[at] += count * sums[at - 1]
    return sums


def _unrank_picks(options: Options, picks: int, number: int) -> tuple[list[int], int]:
    """Return the options that a number picks, in order, and the number that is left for their own choices.

    Picks are ordered by their first option, then by their second, ...
    """
    positions: list[int] = []
    if options.counts is None:
        taken: list[int] = []
        for left in range(picks, 0, -1):
            digit, number = divmod(number, math.perm(len(options) - len(taken) - 1, left - 1))
            positions.append(_untaken(digit, taken, None))
            insort(taken, positions[-1])
        return positions, number
    counts = options.counts
    remaining = list(range(len(options)))
    scale = 1  # the number of texts of what has been picked
    for left in range(picks - 1, -1, -1):
        sums = _symmetric_sums((counts[position] for position in remaining), left)
        factor = scale * math.factorial(left)
        for position in remaining:
            block = factor * counts[position] * _without(sums, counts[position])
            if number < block:
                break
            number -= block
        positions.append(position)
        remaining.remove(position)
        scale *= counts[position]
    return positions, number


def _without(sums: Sequence[int], count: int) -> int:
    """Return the last of the symmetric sums as it were without one of the counts."""
    value = 1
    for total in sums[1:]:
        value = total - count * value
    return value


def _untaken(value: int, taken: Sequence[int], weight_stops: Sequence[int] | None) -> int:
    """Return the option that a number falls on, those taken being no longer there.

    Args:
        value: below the sum of the weights of what is not taken.
        taken: positions, ascending.
        weight_stops: running sum of the weights; None where each is 1.
    """
    for position in taken:
        stop = position + 1 if weight_stops is None else weight_stops[position]
        start = stop - _weight(position, weight_stops)
        if value < start:
            break
        value += stop - start
    return value if weight_stops is None else bisect_right(weight_stops, value)


def _weight(position: int, weight_stops: Sequence[int] | None) -> int:
    if weight_stops is None:
        return 1
    return weight_stops[position] - (weight_stops[position - 1] if position else 0)


class _Dice:
    """Whole numbers by chance, one after the other, as a seed and a number have them."""

    def __init__(self, seed: int, number: int) -> None:
        self._words = self._throw(f"{seed}:{number}")

    def below(self, stop: int) -> int:
        """Return a number, 0 <= number < stop. 128 bits leave no visible preference."""
        return next(self._words) * stop >> 128 if stop > 1 else 0

    @staticmethod
    def _throw(key: str) -> Iterator[int]:
        for block in itertools.count():
            digest = blake2b(f"{key}:{block}".encode(), digest_size=64, person=b"printroom text").digest()
            for start in range(0, 64, 16):
                yield int.from_bytes(digest[start : start + 16], "little")


def _draw(template: TextTemplate, dice: _Dice, chosen: list[ChosenText] | None) -> Iterator[str | Slot]:
    for part in template.parts:
        if isinstance(part, TextChoice):
            yield from _noted(part, _draw_choice(part, dice, chosen), chosen)
        else:
            yield part


def _draw_choice(choice: TextChoice, dice: _Dice, chosen: list[ChosenText] | None) -> Iterator[str | Slot]:
    options = choice.options
    stops = options.weight_stops
    total = len(options) if stops is None else stops[-1]
    taken: list[int] = []
    for pick in range(choice.low + dice.below(choice.high - choice.low + 1)):
        if pick:
            yield choice.separator
        position = _untaken(dice.below(total), taken, stops)
        insort(taken, position)
        total -= _weight(position, stops)
        item = options.items[position]
        if isinstance(item, str):
            yield item
        else:
            yield from _draw(item, dice, chosen)


class _TableWriter:
    """Gives options and choices their positions in a table."""

    def __init__(self) -> None:
        self.options: list[Any] = []
        self.choices: list[Any] = []
        self._option_positions: dict[Options, int] = {}
        self._choice_positions: dict[TextChoice, int] = {}

    @property
    def option_templates(self) -> Iterator[TextTemplate]:
        """The templates among the options, in the order of the table."""
        return (
            item
            for options in self._option_positions
            for item in options.items
            if isinstance(item, TextTemplate)
        )

    def write(self, template: str | TextTemplate) -> Any:
        if isinstance(template, str):
            return template
        return [self._part(part) for part in template.parts]

    def _part(self, part: str | Slot | TextChoice) -> Any:
        if isinstance(part, str):
            return part
        if isinstance(part, Slot):
            return {"slot": part.name}
        if part not in self._choice_positions:
            written = {"options": self._place_options(part.options)}
            fields = {"low": part.low, "high": part.high, "separator": part.separator}
            defaults = {"low": 1, "high": 1, "separator": DEFAULT_SEPARATOR}
            self.choices.append(
                written | {key: value for key, value in fields.items() if value != defaults[key]}
            )
            self._choice_positions[part] = len(self.choices) - 1
        return {"choice": self._choice_positions[part]}

    def _place_options(self, options: Options) -> int:
        if options not in self._option_positions:
            written: dict[str, Any] = {"items": [self.write(item) for item in options.items]}
            if options.weights is not None:
                written["weights"] = list(options.weights)
            self.options.append(written)
            self._option_positions[options] = len(self.options) - 1
        return self._option_positions[options]


def _read_table(table: Any, names: Any) -> list[TextTemplate]:
    options: list[Options] = []
    choices: list[TextChoice] = []
    named_choices: dict[tuple[int, str], TextChoice] = {}
    places = iter(names["places"] if names else ())

    def choice(position: int) -> TextChoice:
        for written in table["choices"][len(choices) : position + 1]:
            choices.append(TextChoice(**{**written, "options": options[written["options"]]}))
        return choices[position]

    def named(position: int, name: str) -> TextChoice:
        found = named_choices.get((position, name))
        if found is None:
            found = named_choices[position, name] = replace(choice(position), name=name)
        return found

    def template(written: list[Any]) -> TextTemplate:
        has_choices = any(not isinstance(part, str) and "choice" in part for part in written)
        own = iter(names["lists"][next(places, None)] if names and has_choices else ())
        return TextTemplate(tuple(part if isinstance(part, str) else read(part, own) for part in written))

    def read(part: dict[str, Any], own: Iterator[str]) -> Slot | TextChoice:
        return Slot(part["slot"]) if "slot" in part else named(part["choice"], next(own, ""))

    for written in table["options"]:
        items = tuple(item if isinstance(item, str) else template(item) for item in written["items"])
        weights = tuple(written["weights"]) if "weights" in written else None
        options.append(Options(items=items, weights=weights))
    return [template(written) for written in table["templates"]]
