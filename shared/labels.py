"""The labels of a job: the values in its sweep that made it, by name. Not part of the job, nor of a plan's id.

Labels are vars, the words in place of others, a style's name, what named choices of a template have become, the text
before all of these where there are several, and columns that stand beside the values of an axis: those of a prompt file
that are no fields of a job. Knows nothing of plans.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from shared.axes import HOLE, WORD, Axis, ListAxis, TextAxis
from shared.job import RECIPE_FIELDS
from shared.sample import JobSample, digits_of
from shared.texts import Text, TextTemplate, fill, written

#: Names of a row's columns, and what a sheet calls them: no label may be called so.
_TAKEN = frozenset(
    {*RECIPE_FIELDS, "size", "style", "index", "job_id", "status", "error_code", "chunk", "worker", "device"}
    | {"model_name", "prompt_tokens", "negative_tokens"}
)

#: A number as a person or a table writes it; no more digits than anything that is counted or measured has.
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")

#: Values of an axis whose labels are remembered.
_VALUES_KEPT = 4096

#: What a text is called before its holes are filled, its choices made and its style put around it.
_TEMPLATE = "template"

_TEXT_FIELDS = ("prompt", "negative_prompt")

#: Begins the label of a choice in a negative prompt.
_NEGATIVE = "negative."


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelColumn:
    """A label of each value of an axis, each different text kept once: a million rows of ten categories are small."""

    name: str
    #: The different texts, in the order of first use.
    texts: tuple[str, ...]
    #: Position of each value's text, -1 for none; None where each text stands once and none is missing.
    places: array[int] | None
    #: Whether a template has chosen the texts, and no person: then they are an axis of the sweep by themselves.
    is_choice: bool = False

    @classmethod
    def of(cls, name: str, values: Iterable[str | None], *, is_choice: bool = False) -> LabelColumn:
        """Return a column of these values, in the order of the axis; None is no label."""
        positions: dict[str, int] = {}
        places = array(
            "i", (-1 if text is None else positions.setdefault(text, len(positions)) for text in values)
        )
        is_whole = len(positions) == len(places)
        return cls(
            name=name, texts=tuple(positions), places=None if is_whole else places, is_choice=is_choice
        )

    def __len__(self) -> int:
        return len(self.texts if self.places is None else self.places)

    def at(self, place: int) -> str | None:
        """Return the label of a value."""
        position = place if self.places is None else self.places[place]
        return None if position < 0 else self.texts[position]

    def spread(self, *, each: int = 1, times: int = 1) -> LabelColumn:
        """Return the column of an axis in which each value stands so often in a row, and all of them so many times."""
        values = [self.at(place) for place in range(len(self)) for _ in range(each)]
        return LabelColumn.of(self.name, values * times, is_choice=self.is_choice)

    @property
    def key(self) -> tuple[Any, ...]:
        """What equal columns have in common."""
        return (
            self.name,
            self.texts,
            None if self.places is None else self.places.tobytes(),
            self.is_choice,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the column as plain values for JSON."""
        places = None if self.places is None else self.places.tolist()
        return {"name": self.name, "texts": list(self.texts), "places": places, "choice": self.is_choice}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LabelColumn:
        """Return the column that `to_json` was given."""
        places = None if document["places"] is None else array("i", document["places"])
        return cls(
            name=document["name"],
            texts=tuple(document["texts"]),
            places=places,
            is_choice=document["choice"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledAxis:
    """An axis, and the columns that stand beside its values: one text a digit, or a row of a text axis."""

    axis: Axis
    columns: tuple[LabelColumn, ...] = ()

    def row_of(self, digit: int) -> int:
        """Return where in the columns a digit is."""
        return self.axis.row_of(digit) if isinstance(self.axis, TextAxis) else digit


class LabelNames:
    """What the labels of a plan are called, no two alike, and none like a field of a job.

    A name that is taken says what it is of: a word `seed` that is replaced is `var.seed`, a column `column.seed`, a
    wildcard `choice.seed`.
    """

    def __init__(self, axes: Iterable[Axis], columns: Iterable[LabelColumn]) -> None:
        axes = list(axes)
        #: Whether some jobs have a style around their texts.
        self.is_styled = is_styled(axes)
        fields = (field for axis in axes for field in axis.fields if is_label(field))
        #: Vars, words and style, in the order of the axes.
        self.fields = tuple(dict.fromkeys(map(_field_label, fields)))
        columns = list(columns)
        own = dict.fromkeys(column.name for column in columns if not column.is_choice)
        self._columns = {name: self._free(name, "column") for name in own}
        #: Columns of files.
        self.columns = tuple(self._columns.values())
        listed = (self.of_choice(column.name) for column in columns if column.is_choice)
        #: Choices, of templates and of those that a condition has looked through.
        self.choices = tuple(dict.fromkeys([*self._template_names(axes), *listed, *self._chosen_names(axes)]))

    def of_column(self, column: LabelColumn) -> str:
        """Return what a column's label is called."""
        return self.of_choice(column.name) if column.is_choice else self._columns[column.name]

    def of_choice(self, name: str) -> str:
        """Return what a choice's label is called."""
        return f"choice.{name}" if name in self.columns else self._free(name, "choice")

    def _free(self, name: str, kind: str) -> str:
        return f"{kind}.{name}" if name in _TAKEN or name in self.fields else name

    def _template_names(self, axes: Iterable[Axis]) -> Iterator[str]:
        for axis in axes:
            for field in templated_fields(axis, is_styled=self.is_styled):
                yield self.of_choice(_choice_name(field, _TEMPLATE))

    def _chosen_names(self, axes: Iterable[Axis]) -> Iterator[str]:
        for axis in axes:
            for field, counts in axis.name_counts.items() if isinstance(axis, TextAxis) else ():
                for name, count in counts.items():
                    for number in range(1, count + 1):
                        yield self.of_choice(_numbered(_choice_name(field, name), number))


class BlockLabels:
    """Reads the labels of one block's jobs."""

    def __init__(
        self, axes: Sequence[LabelledAxis], sample: JobSample | None, names: LabelNames, *, salt: str
    ) -> None:
        """Take a block.

        Args:
            axes: outermost first; one of a single value may stand for the block as a whole.
            sample: of the product of the axes; None for all of it.
            salt: tells the samples of several blocks apart.
        """
        self._sample, self._names, self._salt = sample, names, salt
        self._lengths = [axis.axis.length for axis in axes]
        #: Neighbours share most of their values, and rows are asked for in the order of the plan.
        self._read = []
        for place, axis in enumerate(axes):
            templated = templated_fields(axis.axis, is_styled=names.is_styled)
            if templated or _says_anything(axis):
                read = lru_cache(maxsize=_VALUES_KEPT)(partial(self._said_by, axis, templated))
                self._read.append((place, read))

    def at(self, index: int) -> dict[str, str]:
        """Return the labels of the job at an index of the block."""
        digits = digits_of(index, self._lengths, self._sample, salt=self._salt)
        said = [read(digits[place]) for place, read in self._read]
        holes: dict[str, Text] = {}
        labels: dict[str, Text] = {}
        for one in said:
            holes.update(one.holes)
            labels.update(one.fields)
        for one in said:
            labels.update(one.beside)
        return {name: text if type(text) is str else filled(text, holes) for name, text in labels.items()}

    def _said_by(self, axis: LabelledAxis, templated: Sequence[str], digit: int) -> _Said:
        """Return what an axis says of a digit."""
        values: dict[str, Any] = {}
        if any(map(is_label, axis.axis.fields)):
            values = dict(zip(axis.axis.fields, axis.axis.at(digit), strict=True))
        columns = {self._names.of_column(column): column.at(axis.row_of(digit)) for column in axis.columns}
        made = {**templates_of(axis.axis, templated, digit), **choices_of(axis.axis, digit)}
        # What a condition has looked through has its own columns, of the templates that it was.
        chosen = {self._names.of_choice(name): text for name, text in made.items()}
        return _Said(
            holes={name[len(HOLE) :]: value for name, value in values.items() if name.startswith(HOLE)},
            fields={
                _field_label(name): value
                for name, value in values.items()
                if is_label(name) and value is not None
            },
            beside={name: text for name, text in (*chosen.items(), *columns.items()) if text is not None},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """What an axis says of one of its digits."""

    #: Name of a hole -> what fills it.
    holes: Mapping[str, Text]
    #: Labels, which may have holes themselves: of the axis' own fields, and of what stands beside them.
    fields: Mapping[str, Text]
    beside: Mapping[str, Text]


def _says_anything(axis: LabelledAxis) -> bool:
    has_choices = isinstance(axis.axis, TextAxis) and bool(axis.axis.name_counts)
    return bool(axis.columns) or has_choices or any(map(is_label, axis.axis.fields))


def is_styled(axes: Iterable[Axis]) -> bool:
    """Whether some jobs of these axes have a style around their texts."""
    return any("style" in axis.fields for axis in axes)


def templated_fields(axis: Axis, *, is_styled: bool) -> tuple[str, ...]:
    """Return the texts of an axis of which there are several, and which jobs have otherwise than they are written."""
    rows = axis.rows if isinstance(axis, TextAxis) else axis.values if isinstance(axis, ListAxis) else ()
    return tuple(
        name
        for position, name in enumerate(axis.fields)
        if name in _TEXT_FIELDS
        and any(row[position] != rows[0][position] for row in rows)
        and (is_styled or any(_is_open(row[position]) for row in rows))
    )


def templates_of(axis: Axis, fields: Sequence[str], digit: int) -> dict[str, Text]:
    """Return what some texts of an axis are at a digit as a person wrote them, before anything is made of them."""
    if not isinstance(axis, TextAxis | ListAxis) or not fields:
        return {}
    row = axis.rows[axis.row_of(digit)] if isinstance(axis, TextAxis) else axis.values[digit]
    texts = {name: row[axis.fields.index(name)] for name in fields}
    return {_choice_name(name, _TEMPLATE): written(text) for name, text in texts.items() if text is not None}


def _is_open(text: Text | TextTemplate | None) -> bool:
    if isinstance(text, TextTemplate):
        return text.has_choices or bool(text.slots)
    return isinstance(text, tuple)


def choices_of(axis: Axis, digit: int) -> dict[str, Text]:
    """Return what the named choices of an axis have become at a digit.

    Of several with one name the second is called NAME_2, and those of negative prompts negative.NAME.
    """
    if not isinstance(axis, TextAxis) or not axis.name_counts:
        return {}
    found: dict[str, Text] = {}
    for field, chosen in axis.chosen(digit).items():
        for one in chosen:
            name, number = _choice_name(field, one.name), 1
            while _numbered(name, number) in found:
                number += 1
            found[_numbered(name, number)] = one.text
    return found


def chosen_columns(
    axes: Sequence[LabelledAxis], kept: Sequence[Sequence[int]], *, is_styled: bool
) -> tuple[LabelColumn, ...]:
    """Return the columns of an axis that is made of several: of the combinations of digits that are kept."""
    columns = [
        LabelColumn.of(
            column.name,
            (column.at(axis.row_of(digits[position])) for digits in kept),
            is_choice=column.is_choice,
        )
        for position, axis in enumerate(axes)
        for column in axis.columns
    ]
    chosen: dict[str, list[str | None]] = {}
    templated = [
        templated_fields(axis.axis, is_styled=is_styled) if isinstance(axis.axis, TextAxis) else ()
        for axis in axes
    ]
    if any(templated) or any(isinstance(axis.axis, TextAxis) and axis.axis.name_counts for axis in axes):
        plain = [axis.axis for axis in axes]
        for place, digits in enumerate(kept):
            made: dict[str, str] = _choices_at(plain, digits)
            for axis, fields, digit in zip(plain, templated, digits, strict=True):
                made |= {name: filled(text, {}) for name, text in templates_of(axis, fields, digit).items()}
            for name, text in made.items():
                chosen.setdefault(name, [None] * len(kept))[place] = text
    return (*columns, *(LabelColumn.of(name, texts, is_choice=True) for name, texts in chosen.items()))


def filled(text: Any, holes: Mapping[str, Text]) -> str:
    """Return a label as a string; a hole that nothing fills here stands in braces."""
    if not isinstance(text, tuple):
        return str(text)
    return fill(text, _Braces(holes))


def number_of(label: str) -> int | float | None:
    """Return the number that a label is, None where it is none: labels are text, and 10 comes behind 9."""
    if not _NUMBER.fullmatch(label):
        return None
    return int(label) if label.lstrip("+-").isdigit() else float(label)


def is_label(field: str) -> bool:
    """Whether an axis' field is a value of a job for people: a var, a word in place of another, a style's name."""
    return field == "style" or field.startswith(HOLE)


class _Braces(dict[str, Text]):
    def __missing__(self, name: str) -> Text:
        return f"{{{name.removeprefix(WORD)}}}"


def _choices_at(axes: Sequence[Axis], digits: Sequence[int]) -> dict[str, str]:
    pairs = list(zip(axes, digits, strict=True))
    holes = {
        name[len(HOLE) :]: value
        for axis, digit in pairs
        if any(name.startswith(HOLE) for name in axis.fields)
        for name, value in zip(axis.fields, axis.at(digit), strict=True)
        if name.startswith(HOLE)
    }
    return {
        name: filled(text, holes) for axis, digit in pairs for name, text in choices_of(axis, digit).items()
    }


def _field_label(field: str) -> str:
    """Return what people call a field that is a label: the name of a var, the word that is replaced, `style`."""
    name = field.removeprefix(HOLE).removeprefix(WORD)
    return f"var.{name}" if name in _TAKEN and field != "style" else name


def _choice_name(field: str, name: str) -> str:
    return f"{_NEGATIVE}{name}" if field == "negative_prompt" else name


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


#: An axis of one value without fields: what stands beside it is said of a block as a whole.
WHOLE_BLOCK = ListAxis(fields=(), values=((),))
