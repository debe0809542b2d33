"""The axes that a plan multiplies. Each is a function from a digit to values of its fields. Knows nothing of jobs.

Fields are those of a job, and a few that make one: `$name` fills a hole of the texts, `style...` wraps them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from shared.job import RECIPE_FIELDS, canonical_json
from shared.texts import (
    ChosenText,
    Text,
    TextTemplate,
    choice_names_to_json,
    templates_from_json,
    templates_to_json,
    text_from_json,
    text_to_json,
)

#: Begins the field that fills the hole of the same name in the texts.
HOLE = "$"

#: Begins, after that, the name of a hole that stands where a word was.
WORD = "="

#: Fields of a style: its name, its prompt with a hole named `prompt`, and its negative prompt.
STYLE_FIELDS = ("style", "style_prompt", "style_negative")

#: Bytes of a seed that is derived: 32 bits, as other programs' seeds have.
_SEED_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ListAxis:
    """One or more fields that move together through listed values."""

    fields: tuple[str, ...]
    #: One tuple a digit, in the order of `fields`.
    values: tuple[tuple[Any, ...], ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def length(self) -> int:
        """How many digits the axis has."""
        return len(self.values)

    @property
    def is_plain(self) -> bool:
        """Whether every value is one of a job as it stands."""
        return all(name in RECIPE_FIELDS for name in self.fields) and not any(
            isinstance(part, tuple) for value in self.values for part in value
        )

    def at(self, digit: int) -> tuple[Any, ...]:
        """Return the values at a digit, in the order of `fields`."""
        return self.values[digit]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRange:
    """Consecutive seeds, `start <= seed < start + count`."""

    start: int
    count: int

    @property
    def fields(self) -> tuple[str, ...]:
        """The one field this axis moves."""
        return ("seed",)

    def __len__(self) -> int:
        return self.count

    @property
    def length(self) -> int:
        """How many digits the axis has: len() ends at 2**63."""
        return self.count

    @property
    def is_plain(self) -> bool:
        """Whether every value is one of a job as it stands."""
        return True

    def at(self, digit: int) -> tuple[Any, ...]:
        """Return the seed at a digit."""
        return (self.start + digit,)


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedSeeds(SeedRange):
    """Seeds that follow from other fields: equal values of those get equal seeds, others get others.

    A seed is a hash of values, not a count of places: adding a prompt to a sweep leaves all other seeds as they are.
    """

    #: Fields that seeds are derived from.
    per: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether every value is one of a job as it stands."""
        return False

    def at(self, digit: int) -> tuple[Any, ...]:
        """Return the digit itself: `seed` makes a seed of it, once the other fields are known."""
        return (digit,)

    def seed(self, digit: int, values: Mapping[str, Any]) -> int:
        """Return the seed at a digit for a job with these values."""
        source = canonical_json([self.start + digit, {name: values[name] for name in self.per}])
        return int.from_bytes(blake2b(source, digest_size=_SEED_BYTES).digest(), "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """How often each template is drawn at random."""

    count: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class TextAxis:
    """Texts with choices in them. A row is as many digits as its prompt has combinations, or as are drawn of it.

    Choices in any other text of a row never multiply: they are drawn anew for each prompt, by what it says.
    """

    fields: tuple[str, ...]
    #: One tuple a row, in the order of `fields`; a template for a text, None for no negative prompt.
    rows: tuple[tuple[Any, ...], ...]
    #: None for every combination.
    draws: Draws | None
    #: What choices outside prompts are drawn by.
    seed: int = 0

    @property
    def length(self) -> int:
        """How many digits the axis has."""
        return self._stops[-1]

    @property
    def is_plain(self) -> bool:
        """Whether every value is one of a job as it stands."""
        return False

    def at(self, digit: int) -> tuple[Any, ...]:
        """Return the values at a digit, in the order of `fields`; texts may have holes."""
        return self._values(digit, {})

    def chosen(self, digit: int) -> dict[str, list[ChosenText]]:
        """Return what the named choices of each text have become at a digit, by field."""
        noted: dict[str, list[ChosenText]] = {name: [] for name in self.fields}
        self._values(digit, noted)
        return noted

    def row_of(self, digit: int) -> int:
        """Return which row a digit is in."""
        if not 0 <= digit < self.length:
            raise IndexError(f"{digit} is outside 0 .. {self.length - 1}")
        return bisect_right(self._stops, digit)

    def _values(self, digit: int, noted: Mapping[str, list[ChosenText]]) -> tuple[Any, ...]:
        number = self.row_of(digit)
        row, place = self.rows[number], digit - (self._stops[number - 1] if number else 0)
        values = list(row)
        lead: Text | None = None
        if "prompt" in self.fields:
            position = self.fields.index("prompt")
            values[position] = lead = self._prompt(row[position], place, noted.get("prompt"))
        for position, value in enumerate(values):
            if isinstance(value, TextTemplate):
                is_drawn, chosen = value.has_choices, noted.get(self.fields[position])
                values[position] = (
                    value.draw(self.seed, _number_of(lead), chosen) if is_drawn else value.combination(0)
                )
        return tuple(values)

    def _prompt(self, template: TextTemplate, place: int, chosen: list[ChosenText] | None) -> Text:
        if self.draws is None or not template.has_choices:
            return template.combination(place, chosen)
        # By what the template says: two of them drawn by their places alone would throw the same dice.
        return template.draw(self.draws.seed, _number_of(template.combination(0)) + place, chosen)

    @cached_property
    def name_counts(self) -> Mapping[str, Mapping[str, int]]:
        """How often at most each name of a choice occurs in a text, by field; only fields with such names."""
        found: dict[str, Counter[str]] = {}
        seen: set[tuple[str, ...]] = set()
        for row in self.rows:
            for name, value in zip(self.fields, row, strict=True):
                if isinstance(value, TextTemplate) and value.has_choices:
                    # A million prompts have a handful of ways to name what they choose from.
                    shape = (name, *(f"{choice.name} {id(choice.options)}" for choice in value.choices))
                    if shape not in seen:
                        seen.add(shape)
                        found[name] = found.get(name, Counter()) | Counter(value.name_counts)
        return {name: counts for name, counts in found.items() if counts}

    @cached_property
    def _stops(self) -> list[int]:
        stops, total = [], 0
        for row in self.rows:
            total += self._row_length(row)
            stops.append(total)
        return stops

    def _row_length(self, row: tuple[Any, ...]) -> int:
        if "prompt" not in self.fields:
            return 1
        template = row[self.fields.index("prompt")]
        if self.draws is not None and template.has_choices:
            return self.draws.count
        return int(template.count)


Axis = ListAxis | SeedRange | TextAxis


def axis_to_json(axis: Axis) -> dict[str, Any]:
    """Return an axis as plain values for canonical JSON."""
    match axis:
        case DerivedSeeds():
            return {"seed": {"start": axis.start, "count": axis.count, "per": list(axis.per)}}
        case SeedRange():
            return {"seed": {"start": axis.start, "count": axis.count}}
        case TextAxis():
            return _text_axis_to_json(axis)
    values = [[text_to_json(v) if isinstance(v, tuple) else v for v in value] for value in axis.values]
    return {"fields": list(axis.fields), "values": values}


def choice_names_of(axis: Axis) -> Any:
    """Return the names of an axis' choices as plain values for JSON, which `axis_to_json` leaves out; None without."""
    return choice_names_to_json(_table(axis)) if isinstance(axis, TextAxis) else None


def axis_from_json(document: dict[str, Any], names: Any = None) -> Axis:
    """Return the axis that `axis_to_json` was given, its choices named as `choice_names_of` says."""
    if "seed" in document:
        seed = document["seed"]
        if "per" in seed:
            return DerivedSeeds(start=seed["start"], count=seed["count"], per=tuple(seed["per"]))
        return SeedRange(**seed)
    if "rows" in document:
        return _text_axis_from_json(document, names)
    values = tuple(
        tuple(text_from_json(v) if isinstance(v, list) else v for v in value) for value in document["values"]
    )
    return ListAxis(fields=tuple(document["fields"]), values=values)


def _text_axis_to_json(axis: TextAxis) -> dict[str, Any]:
    """Return a text axis with its templates in one table: rows have their places in it."""
    table = _table(axis)
    places = {template: place for place, template in enumerate(table)}
    rows = [
        [{"text": places[value]} if isinstance(value, TextTemplate) else value for value in row]
        for row in axis.rows
    ]
    draws = None if axis.draws is None else {"count": axis.draws.count, "seed": axis.draws.seed}
    return {
        "fields": list(axis.fields),
        "templates": templates_to_json(table),
        "rows": rows,
        "draws": draws,
        "draw_seed": axis.seed,
    }


def _text_axis_from_json(document: dict[str, Any], names: Any) -> TextAxis:
    templates = templates_from_json(document["templates"], names)
    rows = tuple(
        tuple(templates[value["text"]] if isinstance(value, dict) else value for value in row)
        for row in document["rows"]
    )
    draws = None if document["draws"] is None else Draws(**document["draws"])
    return TextAxis(fields=tuple(document["fields"]), rows=rows, draws=draws, seed=document["draw_seed"])


def _table(axis: TextAxis) -> list[TextTemplate]:
    """Return the different templates of an axis, in the order of first use."""
    templates = (value for row in axis.rows for value in row if isinstance(value, TextTemplate))
    return list(dict.fromkeys(templates))


def _number_of(lead: Text | None) -> int:
    """Return what to draw by: what a text says, so that other texts of the sweep do not matter."""
    if lead is None:
        return 0
    return int.from_bytes(blake2b(canonical_json(text_to_json(lead)), digest_size=8).digest(), "big")
