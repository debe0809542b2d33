"""Breaks long rows of a grid into strips below one another, as text is broken into lines. Knows no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from producer.sheet.cells import GroupKey
from producer.sheet.grid import DOT, Grid, Section, crop


def break_rows(grid: Grid, columns: int) -> Grid:
    """Return a grid whose rows have up to so many columns; a strip is a section that says what it covers."""
    return crop(grid, (strip for section in grid.sections for strip in _strips(grid, section, columns)))


def key_range(grid: Grid, fields: Sequence[str], first: GroupKey, last: GroupKey) -> str:
    """Return the first and the last of some rows or columns, in words."""
    return words_range(key_words(grid, fields, first), key_words(grid, fields, last))


def key_words(grid: Grid, fields: Sequence[str], one: GroupKey) -> list[str]:
    """Return the values of a row or a column in words, without those that are the same on all the sheet."""
    varying = [(name, part) for name, part in zip(fields, one, strict=True) if len(grid.labels[name]) > 1]
    return [grid.phrase(name, part) for name, part in varying]


def words_range(first: Sequence[str], last: Sequence[str]) -> str:
    """Return two ends in words; what they begin with alike is said once."""
    pairs = enumerate(zip(first, last, strict=False))
    apart = next((number for number, (one, other) in pairs if one != other), len(first))
    return " to ".join(filter(None, (", ".join(first), ", ".join(last[apart:]))))


def _strips(grid: Grid, section: Section, columns: int) -> Iterator[Section]:
    if len(section.columns) <= columns:
        yield section
        return
    for part in _pieces(grid, section.columns, columns):
        # The images of a list have labels of their own.
        said = "" if grid.is_list else key_range(grid, grid.column_fields, part[0], part[-1])
        places = [(row, column) for row in section.rows for column in part]
        yield replace(
            section,
            title=DOT.join(filter(None, (section.title, said))),
            columns=part,
            cells={place: section.cells[place] for place in places if place in section.cells},
        )


def _pieces(grid: Grid, columns: Sequence[GroupKey], longest: int) -> Iterator[Sequence[GroupKey]]:
    """Yield runs of columns of about equal length; they end where groups of an outer value do, if these are alike."""
    groups = {stop - start for _, start, stop in grid.column_groups(columns)}
    whole = max(groups) if len(groups) == 1 else len(columns)
    if grid.is_list:
        length = longest
    elif whole <= longest:
        length = longest - longest % whole
    else:
        length = math.ceil(whole / math.ceil(whole / longest))
    step = max(whole, length)
    for start in range(0, len(columns), step):
        group = columns[start : start + step]
        for first in range(0, len(group), length):
            yield group[first : first + length]
