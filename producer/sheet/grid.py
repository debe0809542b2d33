"""Jobs in their places: which row, which column, which section below the last. Knows no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from producer.fields import FIELDS
from producer.sheet.cells import Cell, Key, check_axes, fields_of, key, ordered, value, variables_of
from producer.sheet.words import field_name, phrase
from shared.errors import UsageError

_DOT = "  ·  "

#: Longer rows are broken where nobody says what goes along the top; shorter pieces than the least look torn.
WRAP_COLUMNS, WRAP_COLUMNS_MIN = 24, 8

#: Width over height of what is broken.
_SCREEN_ASPECT = 1.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One grid: all other fields are the same in it."""

    title: str
    #: A value for each field of the side, outer first; equal outer values stand together.
    rows: Sequence[Key]
    columns: Sequence[Key]
    #: (row, column) -> cell; a place that is not here is no job of the sweep.
    cells: Mapping[tuple[Key, Key], Cell]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What stands where on a sheet, without a measure."""

    #: One field or two, outer first.
    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    title: str
    #: What is the same in all jobs, in words.
    subtitle: str
    sections: Sequence[Section]
    #: Model fingerprint -> name.
    models: Mapping[str, str]
    #: Every job of the sheet, in plan order; a baseline may stand in another section.
    cells: Sequence[Cell]
    #: Largest width and height of the images, pixels.
    largest: tuple[int, int]


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

    Args:
        cells: in plan order, which is the order of sections, and of rows and columns unless their labels are numbers.
        rows, columns: a field, or two of which the first is outer.
        wrap: break rows that are too long for a screen, as text is broken into lines.

    Raises: UsageError for unknown fields, the same field twice, or no cells at all.
    """
    row_fields, column_fields = fields(rows), fields(columns)
    known = (*FIELDS, *variables_of(cells))
    check_axes(row_fields, column_fields, fields_of(cells))
    if not cells:
        raise UsageError("no jobs to draw: nothing in the sweep matches")
    others = [name for name in known if name not in (*row_fields, *column_fields)]
    varying = [name for name in others if len({value(cell, name) for cell in cells}) > 1]
    kept = _independent(cells, (*row_fields, *column_fields), varying)
    names = models or {}
    sections = list(_sections(cells, row_fields, column_fields, kept, names))
    if wrap:
        sections = [strip for one in sections for strip in _strips(one, column_fields, names)]
    return Grid(
        row_fields=row_fields,
        column_fields=column_fields,
        title=title,
        subtitle=_subtitle(cells[0], [n for n in others if n not in varying], varying, kept, names),
        sections=sections,
        models=names,
        cells=cells,
        largest=(max(cell.job.width for cell in cells), max(cell.job.height for cell in cells)),
    )


def fields(side: str | Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a side: one name, names with commas between them, or several names."""
    names = side.split(",") if isinstance(side, str) else side
    return tuple(name.strip() for name in names)


def crop(grid: Grid, sections: Iterable[Section]) -> Grid:
    """Return the same grid with other sections."""
    return replace(grid, sections=list(sections))


def runs(keys: Sequence[Key]) -> Iterator[tuple[Key, int, int]]:
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
        seen: dict[Key, object] = {}
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
    parts = [phrase(name, value(cell, name), models) for name in said]
    if following:
        verb = "follows" if len(following) == 1 else "follow"
        parts.append(f"{' and '.join(following)} {verb} the other fields")
    return _DOT.join(parts)


def _sections(
    cells: Sequence[Cell],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    varying: Sequence[str],
    models: Mapping[str, str],
) -> Iterator[Section]:
    groups: dict[Key, dict[tuple[Key, Key], Cell]] = {}
    for cell in cells:
        group = groups.setdefault(key(cell, varying), {})
        place = (key(cell, rows), key(cell, columns))
        if place not in group or (group[place].state != "done" and cell.state == "done"):
            group[place] = cell
    for values, placed in groups.items():
        phrases = (phrase(name, one, models) for name, one in zip(varying, values, strict=True))
        yield Section(
            title=_DOT.join(phrases),
            rows=_nested(rows, (row for row, _ in placed)),
            columns=_nested(columns, (column for _, column in placed)),
            cells=placed,
        )


def _strips(section: Section, columns: tuple[str, ...], models: Mapping[str, str]) -> Iterator[Section]:
    """Yield a section in pieces of some of its columns, so that all of it together has about a screen's shape."""
    count, rows = len(section.columns), len(section.rows)
    if count <= WRAP_COLUMNS:
        yield section
        return
    wide = max(WRAP_COLUMNS_MIN, round(math.sqrt(_SCREEN_ASPECT * count * (rows + 1))))
    each = math.ceil(count / math.ceil(count / min(wide, count)))
    for start in range(0, count, each):
        part = section.columns[start : start + each]
        ends = (part[0], part[-1]) if len(part) > 1 else (part[0],)
        said = " to ".join(
            ", ".join(phrase(name, one, models) for name, one in zip(columns, end, strict=True))
            for end in ends
        )
        wanted = set(part)
        yield replace(
            section,
            title=_DOT.join(filter(None, (section.title, said))),
            columns=part,
            cells={place: cell for place, cell in section.cells.items() if place[1] in wanted},
        )


def _nested(names: tuple[str, ...], found: Iterable[Key]) -> list[Key]:
    """Return keys so that equal outer values stand together, each level in the order of its field."""
    keys = list(dict.fromkeys(found))
    ranks = [
        {one: rank for rank, one in enumerate(ordered(name, level))}
        for name, level in zip(names, zip(*keys, strict=True), strict=True)
    ]
    return sorted(keys, key=lambda one: [rank[part] for rank, part in zip(ranks, one, strict=True)])
