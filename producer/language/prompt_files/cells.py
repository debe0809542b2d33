"""Turns the cells of a column into values of a field; reads other programs' spellings of numbers and of nothing.

A cell that reads two ways, or that a spreadsheet has damaged, is named with the reason and not guessed at.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from producer.language.document import read_option
from producer.language.prompt_files.column_names import DIFFUSIONDB_SAMPLERS, scheduler_called
from producer.language.wording import show
from shared.errors import SweepError
from shared.job import JOB_FIELDS

#: Fields for which an empty cell of a CSV is null.
_NULLABLE = ("negative_prompt", "guidance_rule", "style")

#: Fields of numbers, and sides of a size: what is written for no value is no value there.
_WHOLE_FIELDS = ("size", *(field.name for field in JOB_FIELDS if int in field.types))
_NUMBERS = (*_WHOLE_FIELDS, *(field.name for field in JOB_FIELDS if float in field.types))

#: Fields whose cells in a CSV are more than their text.
_CONVERTED = (*_NUMBERS, "scheduler", "guidance_rule")

#: What programs write for no value, in small letters. Where a column holds texts these are texts.
_NOTHING = frozenset(("", "nan", "null", "none", "na", "n/a", "#n/a", "<na>", "nil"))

#: Longest cell that may be one of these, with some spaces.
_NOTHING_MAX = 10

_WHOLE = re.compile(r"\s*[-+]?[0-9]{1,40}\s*\Z", re.ASCII)
_NUMBER = re.compile(
    r"\s*[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,4})?\s*\Z", re.ASCII
)
_SCIENTIFIC = re.compile(r"([0-9]+)(?:\.([0-9]*))?[eE]([-+]?)([0-9]{1,4})\Z", re.ASCII)

#: What keeps a spreadsheet from reading a number: a formula of a text, or an apostrophe in front.
_GUARDED = re.compile(r"=\"([^\"]*)\"\Z|'(.+)\Z")

#: Signs between groups of three digits: a point, a comma, spaces of three kinds, apostrophes.
_GROUP_SIGNS = ".,' \u2019\u00a0\u202f"
_GROUPED = re.compile(rf"[-+]?[0-9]{{1,3}}(?:([{_GROUP_SIGNS}])[0-9]{{3}})(?:\1[0-9]{{3}})*\Z", re.ASCII)
_DECIMAL_COMMA = re.compile(r"([-+]?[0-9]{0,40}),([0-9]{1,40})((?:[eE][-+]?[0-9]{1,4})?)\Z", re.ASCII)

#: What a spreadsheet makes of 7.5 or 5/7 where it takes them for a date.
_DATE = re.compile(
    r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(\s.*)?\Z"
    r"|[0-9]{1,2}[-. ]{1,2}[^\W\d_]{3,9}\.?([-. ][0-9]{2,4})?\Z|[^\W\d_]{3,9}\.?[- ][0-9]{1,4}\Z"
)

#: The first whole number that a float cannot hold beside its neighbours.
_FLOAT_EXACT_MAX = 2**53

#: Digits that a spreadsheet keeps of a number; those behind become zeros.
_SPREADSHEET_DIGITS = 15


class _CellInvalid(ValueError):
    """A cell cannot be taken. The message says why and what to do, and does not name the field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """A column's values."""

    values: list[Any]
    #: Position -> what is wrong there; as a sentence that the field's name begins.
    problems: Mapping[int, str] = field(default_factory=dict)
    #: What may be meant otherwise, a line each, as sentences that the column's name begins.
    notes: tuple[str, ...] = ()


def read_cells(
    field: str | None, cells: Sequence[Any], *, is_text: bool, decimal_comma: bool = False
) -> Cells:
    """Return a column's values.

    Text without a type becomes what its field takes, where it reads so; the rest stays text, for the sweep to refuse.

    Args:
        field: the job's field that the column is for; None for a variable's texts, which may be empty.
        is_text: whether the cells are text without a type, as in a CSV.
        decimal_comma: whether a comma in a number is its decimal sign.
    """
    values = list(cells)
    problems: dict[int, str] = {}
    if is_text and field not in _CONVERTED and "" not in values:
        return Cells(values=values, notes=tuple(_notes(field, cells, is_text)))
    codes = field == "scheduler" and all(_code(cell) is not None for cell in values)
    for position, cell in enumerate(values):
        try:
            values[position] = _value(field, cell, is_text, decimal_comma, codes)
        except _CellInvalid as error:
            problems[position] = str(error)
    return Cells(values=values, problems=problems, notes=tuple(_notes(field, cells, is_text)))


def read_sizes(widths: Cells, heights: Cells) -> Cells:
    """Return the sizes that a column of widths and one of heights make."""
    values = [f"{width}x{height}" for width, height in zip(widths.values, heights.values, strict=True)]
    return Cells(values=values, problems={**heights.problems, **widths.problems})


def _value(field: str | None, cell: Any, is_text: bool, decimal_comma: bool, codes: bool) -> Any:
    """Return what a cell means. Raises: _CellInvalid."""
    if isinstance(cell, float) and math.isnan(cell):
        cell = None
    if field in _NUMBERS:
        if isinstance(cell, str) and _WHOLE.match(cell):
            return int(cell)
        return _number_cell(field, cell, decimal_comma)
    if isinstance(cell, str) and is_text and cell == "" and field is not None:
        if field not in _NULLABLE:
            raise _CellInvalid(_empty(field))
        return None
    if codes:
        return _coded(_code(cell))
    if field == "scheduler" and isinstance(cell, str):
        return scheduler_called(cell)
    if field == "guidance_rule" and isinstance(cell, str):
        return None if is_text and cell.strip().casefold() in _NOTHING else _rule(cell)
    return cell


def _number_cell(field: str, cell: Any, decimal_comma: bool) -> Any:
    whole = field in _WHOLE_FIELDS
    if isinstance(cell, Decimal):
        cell = int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, str):  # in JSON and Parquet too: a column that somebody read as texts
        if cell.strip().casefold() in _NOTHING:
            raise _CellInvalid("is empty: write a value")
        return _number_text(cell, whole, decimal_comma)
    if isinstance(cell, float) and whole and cell.is_integer():
        if abs(cell) > _FLOAT_EXACT_MAX:
            raise _CellInvalid(
                f"={cell!r}: a float of this size has lost its last digits: write a whole number"
            )
        return int(cell)
    return cell


def _number_text(text: str, whole: bool, decimal_comma: bool) -> Any:
    """Return the number that a text is; what is none stays text, for the sweep to refuse it."""
    plain = text.strip()
    if guarded := _GUARDED.match(plain):
        plain = guarded[1] or guarded[2]
    if not plain.isascii() or any(sign in plain for sign in ", '"):
        plain = _without_signs(plain, whole, decimal_comma)
    if not _NUMBER.match(plain):
        groups = _GROUPED.match(plain)
        if groups and plain.count(groups[1]) > 1:
            return int(plain.replace(groups[1], ""))
        if _DATE.match(plain):
            raise _CellInvalid(
                f"={show(text)}: a spreadsheet made a date of it: write the number as text there"
            )
        return text
    if found := _SCIENTIFIC.match(plain):
        _refuse_lost_digits(text, found)
    number = Decimal(plain)
    if not whole:
        return int(plain) if _WHOLE.match(plain) else float(plain)
    if number != number.to_integral_value():
        if _GROUPED.match(plain):
            without = plain.replace(".", "")
            raise _CellInvalid(
                f"={show(text)}: write a whole number: {without} if the point is a thousands separator"
            )
        return text
    if "." in plain and abs(number) > _FLOAT_EXACT_MAX:
        raise _CellInvalid(
            f"={show(text)}: a float of this size has lost its last digits: write a whole number"
        )
    return int(number)


def _without_signs(plain: str, whole: bool, decimal_comma: bool) -> str:
    """Return a number with a point, and without signs between its groups. Raises where it reads two ways."""
    grouped = _GROUPED.match(plain)
    comma = _DECIMAL_COMMA.match(plain)
    if (grouped and grouped[1] != ",") or (grouped and plain.count(",") > 1):
        return plain.translate({ord(sign): None for sign in _GROUP_SIGNS})
    if grouped and (whole or not decimal_comma):
        without, point = plain.replace(",", ""), plain.replace(",", ".")
        raise _CellInvalid(
            f"={show(plain)}: the comma may be a thousands separator: write {without} or {point}"
        )
    if comma:
        return f"{comma[1]}.{comma[2]}{comma[3]}"
    mixed = re.fullmatch(r"([0-9]{1,3}(?:[. '\u2019\u00a0\u202f][0-9]{3})+),([0-9]+)", plain)
    if mixed:
        return f"{re.sub('[^0-9]', '', mixed[1])}.{mixed[2]}"
    other = re.fullmatch(r"([0-9]{1,3}(?:,[0-9]{3})+)\.([0-9]+)", plain)
    return f"{other[1].replace(',', '')}.{other[2]}" if other else plain


def _refuse_lost_digits(text: str, found: re.Match[str]) -> None:
    """Refuse scientific notation that a program has rounded a number to: 3.18901E+09. 1e3 is what a person writes."""
    decimals, exponent = (found[2] or "").rstrip("0"), int(found[4])
    written_by_program = found[3] == "+" or len(found[2] or "") >= 3
    if found[3] != "-" and written_by_program and len(decimals) < exponent:
        fix = "make the column one of whole numbers, or of text, and export it again"
        raise _CellInvalid(f"={show(text)}: rounded to scientific notation, its last digits are lost: {fix}")


def _empty(field: str) -> str:
    """Return what to do about an empty cell of a field that takes none."""
    if field == "prompt":
        return (
            "is empty: write it or remove the row; an empty prompt stands in the sweep itself, or in .jsonl"
        )
    return "is empty: write a value"


def _code(cell: Any) -> int | None:
    """Return a sampler's number in DiffusionDB; None for what is none."""
    if isinstance(cell, str) and _WHOLE.match(cell):
        return int(cell)
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if isinstance(cell, int) and not isinstance(cell, bool) else None


def _coded(code: int | None) -> str:
    if code is None or code not in DIFFUSIONDB_SAMPLERS:
        said = "'others' in DiffusionDB" if code == 9 else "none of DiffusionDB's samplers (1 to 8)"
        fix = "remove the row, or name the columns that you mean: 'columns: [prompt, seed]' and a scheduler at the top"
        raise _CellInvalid(f"={code} is {said}: {fix}")
    return DIFFUSIONDB_SAMPLERS[code]


def _rule(text: str) -> Any:
    """Return a rule's name, or the mapping that a cell writes as `{rescale: 0.7}`."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)  # a manifest's canonical text; YAML reads 1e-05 as a word
    except (ValueError, RecursionError):
        pass
    try:
        document = read_option(text, what="guidance_rule")
    except SweepError:
        return text
    return text if document.problems else document.value


def _notes(field: str | None, cells: Sequence[Any], is_text: bool) -> list[str]:
    notes = []
    if is_text and field in ("prompt", "negative_prompt", "style"):
        short = (cell for cell in cells if 0 < len(cell) <= _NOTHING_MAX)
        found = [cell for cell in short if cell.strip().casefold() in _NOTHING]
        if found:
            shown = " and ".join(map(show, dict.fromkeys(found)))
            notes.append(f"{len(found):,} cells say {shown}: taken as text; leave a cell empty for no value")
    if is_text and field == "seed":
        long = [
            cell.strip() for cell in cells if len(cell.strip()) > _SPREADSHEET_DIGITS and _WHOLE.match(cell)
        ]
        if long and all(set(cell[_SPREADSHEET_DIGITS:]) == {"0"} for cell in long):
            notes.append(
                f"{show(long[0])}: digits behind the fifteenth are all 0, as spreadsheets make them: compare the seeds"
            )
    return notes
