"""Finds the dialect of a delimited file: its delimiter, its header, its quoting.

People call a file .csv whatever separates its cells: Excel writes semicolons where a comma is the decimal sign, tabs
as "Unicode text", and a first line `sep=;` for itself. The line that names the columns says which it is, and the rows
below it decide between two. What they leave open is refused: a wrong guess is a night of prompts like `a cat;1`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from producer.language.prompt_files.column_names import is_known_column
from producer.language.wording import show

#: What separates cells, the most common first.
DELIMITERS = (",", ";", "\t", "|")

#: How `plan` names them.
_SPOKEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}

#: Stands for "no delimiter: one column", a character that no text has: the unit separator of ASCII.
NO_DELIMITER = "\x1f"

#: Characters that are looked at to find the delimiter.
_CHARS_LOOKED_AT = 1 << 20

#: Excel's own first line: it names the delimiter and is no row.
_SEP = re.compile(r'\A"?sep=(.)"?[ \t]*(?:\r?\n|\Z)', re.IGNORECASE)


class DialectUnclear(ValueError):
    """Several delimiters fit a file. The message says which, and what to write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a delimited file is written."""

    delimiter: str
    #: The line that names the columns, from 1, blank lines not skipped.
    first_line: int = 1
    #: Whether spaces behind a delimiter are no part of a cell, so that a quote behind them opens one.
    skips_spaces: bool = False

    @property
    def has_decimal_comma(self) -> bool:
        """Whether a comma in a number is most likely its decimal sign."""
        return self.delimiter == ";"

    def __str__(self) -> str:
        if self.delimiter == NO_DELIMITER:
            return "one column"
        return _SPOKEN.get(self.delimiter, f"cells between {show(self.delimiter)}")


def find_dialect(
    text: str, *, delimiter: str | None = None, quotes_are_text: bool = False, prefers_tabs: bool = False
) -> Dialect:
    """Return how a file is written.

    Args:
        text: the whole of it.
        prefers_tabs: whether tabs are taken wherever they are, as the name of a .tsv says.
        delimiter: what the sweep says, which is not questioned.
        quotes_are_text: whether a quote is part of a cell.
    Raises: DialectUnclear where several delimiters fit.
    """
    said = _SEP.match(text)
    first = 2 if said else 1
    if delimiter is not None or said:
        return Dialect(delimiter=delimiter or (said[1] if said else ","), first_line=first)
    some = text[:_CHARS_LOOKED_AT]
    if len(text) > len(some):  # the last line may be cut
        some = some[: some.rfind("\n") + 1] or some
    read = {one: _read_some(some, one, quotes_are_text) for one in DELIMITERS}
    fits = {one: rows for one, rows in read.items() if rows and len(rows[0]) > 1}
    if not fits:
        return Dialect(delimiter=NO_DELIMITER)
    if prefers_tabs and "\t" in fits:
        return Dialect(delimiter="\t")
    found = next(iter(fits)) if len(fits) == 1 else _decide(fits)
    spaced = not (quotes_are_text or _all_fit(fits[found])) and _all_fit(
        _read_some(some, found, quotes_are_text, skips_spaces=True)
    )
    return Dialect(delimiter=found, skips_spaces=spaced)


def written_delimiter(delimiter: str) -> str:
    """Return a delimiter as a sweep would say it."""
    return '"\\t"' if delimiter == "\t" else "none" if delimiter == NO_DELIMITER else f'"{delimiter}"'


def _decide(fits: dict[str, list[list[str]]]) -> str:
    """Return the one delimiter that gives every row the cells of the first; of several, the one that gives names."""
    whole = {one: rows for one, rows in fits.items() if _all_fit(rows)}
    known = {one: sum(map(is_known_column, rows[0])) for one, rows in (whole or fits).items()}
    best = [one for one, count in known.items() if count == max(known.values())]
    if len(best) == 1 and (whole or known[best[0]]):
        return best[0]
    listed = " or ".join(f"{len(fits[one][0])} columns between {_SPOKEN[one]}" for one in best)
    fix = " or ".join(f"delimiter: {written_delimiter(one)}" for one in best)
    raise DialectUnclear(f"its first line may be {listed}: say which: {fix}")


def _all_fit(rows: list[list[str]]) -> bool:
    return all(_fits(row, rows[0]) for row in rows)


def _read_some(
    text: str, delimiter: str, quotes_are_text: bool, *, skips_spaces: bool = False
) -> list[list[str]]:
    """Return the rows of a text that are not blank, up to one that cannot be read."""
    found: list[list[str]] = []
    try:
        rows = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if quotes_are_text else csv.QUOTE_MINIMAL,
            skipinitialspace=skips_spaces,
        )
        for row in rows:
            if any(map(str.strip, row)):
                found.append(row)
    except csv.Error:
        return found
    return found


def _fits(row: Sequence[str], header: Sequence[str]) -> bool:
    """Say whether a row has a cell a column, and beyond them only what spreadsheets leave empty at the end."""
    return len(row) >= width(header) and width(row) <= len(header)


def width(row: Sequence[str]) -> int:
    """Return how many cells a row has without the empty ones that spreadsheets leave at its end."""
    width = len(row)
    while width and not row[width - 1].strip():
        width -= 1
    return width
