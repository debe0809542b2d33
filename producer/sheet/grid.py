"""Arranges jobs in rows, columns and sections. Knows no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.language.fields import FIELDS
from producer.sheet.cells import Cell, GroupKey, check_axes, fields_of, key, ordered, value, variables_of
from producer.sheet.words import field_name, label, labels_in_words, phrase
from shared.errors import UsageError

#: Between the parts of a title.
DOT = "  ·  "

#: Where fewer of a grid's places are filled, its values are a sample, and a list of the images is easier to read.
SPARSE = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One grid: all other fields are the same in it."""

    title: str
    #: A value for each field of the side, outer first; equal outer values stand together.
    rows: Sequence[GroupKey]
    columns: Sequence[GroupKey]
    #: (row, column) -> cell; a place that is not here is no job of the sweep.
    cells: Mapping[tuple[GroupKey, GroupKey], Cell]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What stands where on a sheet, without a measure."""

    #: One field or two, outer first; none on a list, whose images stand one after the other.
    row_fields: tuple[str, ...]
    #: One field or two, outer first; on a list each that an image is labelled with.
    column_fields: tuple[str, ...]
    title: str
    #: What is the same in all jobs, in words.
    subtitle: str
    sections: Sequence[Section]
    #: Model fingerprint -> name.
    models: Mapping[str, str]
    #: Field -> its values in the order they stand in -> what tells each from the others, for titles ...
    labels: Mapping[str, Mapping[Any, str]]
    #: ... and uncut, for where there is room.
    long_labels: Mapping[str, Mapping[Any, str]]
    #: Every job of the sheet, in the order they stand in; a baseline may stand in another section.
    cells: Sequence[Cell]
    #: Largest width and height of the images, pixels.
    largest: tuple[int, int]
    #: Whether rows that are too long for a screen are broken, as text is broken into lines.
    wrap: bool

    @property
    def is_list(self) -> bool:
        """Whether the images stand one after the other, each with its own label."""
        return not self.row_fields

    def column_groups(self, columns: Sequence[GroupKey]) -> Iterator[tuple[GroupKey, int, int]]:
        """Yield (outer values, start, stop) for every group of columns; a list has one."""
        return iter([((), 0, len(columns))]) if self.is_list else runs(columns)

    def phrase(self, field: str, value: Any) -> str:
        """Return a field and the short label of a value, as a title has them."""
        return phrase(field, value, self.labels[field][value])


def make_grid(
    cells: Sequence[Cell],
    *,
    rows: str | Sequence[str],
    columns: str | Sequence[str],
    title: str = "",
    models: Mapping[str, str] | None = None,
    wrap: bool = False,
) -> Grid:
    """Give every job its place. Of equal jobs in one place a finished one stands there.

    Values stand in plan order, and labels that are numbers by size. On a list, and where most places would be empty,
    all numbers stand by size: they are a sample, in an order that says nothing.

    Args:
        cells: in plan order.
        rows, columns: a field, or two of which the first is outer. Without rows it is a list, by all of `columns`.
        wrap: break rows that are too long for a screen, as text is broken into lines.

    Raises: UsageError for unknown fields, the same field twice, or no cells at all.
    """
    row_fields, column_fields = fields(rows), fields(columns)
    known = (*FIELDS, *variables_of(cells))
    every = fields_of(cells)
    if row_fields:
        check_axes(row_fields, column_fields, every)
    if not cells:
        raise UsageError("no jobs to draw: nothing in the sweep matches")
    placed = (*row_fields, *column_fields)
    others = [name for name in known if name not in placed]
    varying = [name for name in others if len({value(cell, name) for cell in cells}) > 1]
    kept = _independent(cells, placed, varying)
    names = models or {}
    by_size = not row_fields or _is_sparse(cells, row_fields, column_fields, kept)
    values = {name: _values(cells, name, by_size) for name in every}
    labels = {name: labels_in_words(name, found, names) for name, found in values.items()}
    ranks = {name: {one: rank for rank, one in enumerate(labels[name])} for name in every}
    if by_size:
        order = (*kept, *placed)
        cells = sorted(cells, key=lambda cell: [ranks[name][value(cell, name)] for name in order])
    return Grid(
        row_fields=row_fields,
        column_fields=column_fields,
        title=title,
        subtitle=_subtitle(cells[0], [n for n in others if n not in varying], varying, kept, names),
        sections=list(_sections(cells, row_fields, column_fields, kept, labels, ranks)),
        models=names,
        labels=labels,
        long_labels={name: labels_in_words(name, found, names, limit=None) for name, found in values.items()},
        cells=cells,
        largest=(max(cell.job.width for cell in cells), max(cell.job.height for cell in cells)),
        wrap=wrap,
    )


def fields(side: str | Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a side: one name, names with commas between them, or several names."""
    names = side.split(",") if isinstance(side, str) else side
    return tuple(name.strip() for name in names)


def crop(grid: Grid, sections: Iterable[Section]) -> Grid:
    """Return the same grid with other sections."""
    return replace(grid, sections=list(sections))


def runs(keys: Sequence[GroupKey]) -> Iterator[tuple[GroupKey, int, int]]:
    """Yield (outer values, start, stop) for every run of keys that differ in the innermost field alone."""
    start = 0
    for position in range(1, len(keys) + 1):
        if position == len(keys) or keys[position][:-1] != keys[start][:-1]:
            yield keys[start][:-1], start, position
            start = position


def _independent(cells: Sequence[Cell], placed: tuple[str, ...], varying: Sequence[str]) -> list[str]:
    """Drop the fields that follow from the others: the seed where it was zipped with the prompt on the side."""
    kept = list(varying)
    for name in reversed(varying):
        rest = (*placed, *(other for other in kept if other != name))
        seen: dict[GroupKey, object] = {}
        if all(seen.setdefault(key(cell, rest), value(cell, name)) == value(cell, name) for cell in cells):
            kept.remove(name)
    return kept


def _subtitle(
    cell: Cell,
    constant: Sequence[str],
    varying: Sequence[str],
    kept: Sequence[str],
    models: Mapping[str, str],
) -> str:
    # Plain guidance everywhere is not worth a word.
    said = [name for name in constant if not (name == "guidance_rule" and cell.job.guidance_rule is None)]
    following = [field_name(name) for name in varying if name not in kept]
    parts = [phrase(name, one, label(name, one, models)) for name in said for one in [value(cell, name)]]
    if following:
        verb = "follows" if len(following) == 1 else "follow"
        parts.append(f"{' and '.join(following)} {verb} the other fields")
    return DOT.join(parts)


def _sections(
    cells: Sequence[Cell],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    varying: Sequence[str],
    labels: Mapping[str, Mapping[Any, str]],
    ranks: Mapping[str, Mapping[Any, int]],
) -> Iterator[Section]:
    groups: dict[GroupKey, dict[tuple[GroupKey, GroupKey], Cell]] = {}
    for cell in cells:
        group = groups.setdefault(key(cell, varying), {})
        place = (key(cell, rows), key(cell, columns))
        if place not in group or (group[place].state != "done" and cell.state == "done"):
            group[place] = cell
    for values, placed in groups.items():
        phrases = (phrase(name, one, labels[name][one]) for name, one in zip(varying, values, strict=True))
        yield Section(
            title=DOT.join(phrases),
            rows=_nested((row for row, _ in placed), [ranks[name] for name in rows]),
            columns=_nested((column for _, column in placed), [ranks[name] for name in columns]),
            cells=placed,
        )


def _nested(found: Iterable[GroupKey], ranks: Sequence[Mapping[Any, int]]) -> list[GroupKey]:
    """Return keys so that equal outer values stand together, each level in the order of its values."""
    return sorted(set(found), key=lambda one: [level[part] for level, part in zip(ranks, one, strict=True)])


def _is_sparse(
    cells: Sequence[Cell], rows: Sequence[str], columns: Sequence[str], sections: Sequence[str]
) -> bool:
    """Whether most places of the grid would be empty."""
    places = math.prod(len({key(cell, side) for cell in cells}) for side in (rows, columns, sections))
    return len({key(cell, (*rows, *columns, *sections)) for cell in cells}) < SPARSE * places


def _values(cells: Sequence[Cell], name: str, by_size: bool) -> list[Any]:
    """Return a field's different values in plan order, or by size where all are numbers."""
    found = ordered(name, (value(cell, name) for cell in cells))
    sizes = {one: _size(one) for one in found} if by_size else {}
    if by_size and all(size is not None for size in sizes.values()):
        found.sort(key=lambda one: sizes[one])
    return found


def _size(one: Any) -> Any:
    """Return a number, or a size, to sort by; none of a text that is no number. No value stands before all."""
    if one is None:
        return -math.inf
    if isinstance(one, str):
        try:
            one = float(one)
        except ValueError:
            return None
    return None if isinstance(one, float) and math.isnan(one) else one
