"""Turns finished and unfinished jobs into a labelled contact sheet: one field down, one across. Stores nothing.

What else varies becomes titled sections, one below the other. Nothing is refused for its size: thumbnails shrink,
then rows, columns and sections are left off, and the sheet says so at its foot.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from shared.errors import PrintroomError, UsageError
from shared.guidance import rule_label
from shared.images.files import open_image
from shared.job import Job

log = logging.getLogger(__name__)

#: What a sheet can be laid out by.
SHEET_FIELDS = (
    "prompt",
    "negative_prompt",
    "seed",
    "guidance_scale",
    "guidance_rule",
    "steps",
    "scheduler",
    "size",
    "model",
)

#: Pixels of a sheet. Pillow warns of a decompression bomb from 89 million on, and other viewers give up soon after.
MAX_PIXELS = 80_000_000

#: Longest side of a thumbnail. Larger images are scaled down to it, as every image on the sheet.
THUMB_MAX_PX = 512

#: Thumbnails are enlarged by whole factors until labels above them can be read ...
THUMB_READABLE_PX = 160

#: ... and are not shrunk below this to make a sheet fit.
THUMB_MIN_PX = 48

#: Sections below one another.
SECTIONS_MAX = 24

_MARGIN_PX = 48
_GAP_PX = 12
_SECTION_GAP_PX = 40
_ROW_LABEL_PX = 220
_LABEL_LINES = 5

#: Images read at the same time, and before the next ones are asked for.
_READERS = 8
_READ_AHEAD = 64

_Colour = tuple[int, int, int]
_PAPER = (250, 249, 246)
_INK = (33, 33, 36)
_FAINT = (128, 126, 122)
_RULE = (222, 219, 212)
_MISSING = ((238, 236, 231), (128, 126, 122))
_FAILED = ((248, 228, 224), (158, 42, 34))

#: Fonts with more scripts than the one that Pillow brings, tried by name where a text needs them.
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")

#: Pillow's own font draws Latin; from here on another is looked for.
_LATIN_STOP = 0x250

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One job of a sweep and what has become of it."""

    job: Job
    state: Literal["done", "failed", "missing"]
    #: Reads the image's bytes, when the sheet gets to it.
    load: Callable[[], bytes] | None = None
    #: Why it failed, in a few words.
    reason: str | None = None


def draw_sheet(
    cells: Sequence[Cell],
    *,
    rows: str,
    columns: str,
    title: str = "",
    model_names: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Draw a contact sheet. Cells of one place (equal jobs) are drawn once.

    Args:
        cells: in plan order, which is the order of rows, columns and sections.
        rows: the field that varies down the sheet, of SHEET_FIELDS.
        columns: the field that varies across.
        model_names: model fingerprint -> name for labels.
        max_pixels: width times height never goes beyond it by more than the labels of a single thumbnail need.

    Raises: UsageError for an unknown field, the same field twice, or no cells at all.
    """
    _check_fields(rows, columns)
    if not cells:
        raise UsageError("no jobs to draw: nothing in the sweep matches")
    layout = _lay_out(cells, rows, columns, model_names or {}, title, max_pixels)
    if layout.notes:
        log.warning("sheet_reduced", extra={"notes": layout.notes})
    image = Image.new("RGB", (layout.width, layout.height), _PAPER)
    _draw(ImageDraw.Draw(image), image, layout)
    return image


def _check_fields(rows: str, columns: str) -> None:
    for field in (rows, columns):
        if field not in SHEET_FIELDS:
            near = difflib.get_close_matches(field, SHEET_FIELDS, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(SHEET_FIELDS)}"
            raise UsageError(f"unknown field {field!r}: {mend}")
    if rows == columns:
        raise UsageError(f"rows and columns are both {rows!r}: name two fields")


# What stands where.


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    """One grid: all other fields are the same in it."""

    title: str
    rows: list[Any]
    columns: list[Any]
    #: (row value, column value) -> cell.
    cells: dict[tuple[Any, Any], Cell]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Every measure of a sheet, pixels."""

    rows_field: str
    columns_field: str
    title: str
    subtitle: list[str]
    sections: list[_Section]
    models: Mapping[str, str]
    #: Box of one thumbnail.
    cell: tuple[int, int]
    #: What images are scaled by.
    scale: float
    #: Height of the column labels, for each section.
    head_px: list[int]
    #: Height of each row of each section: a long label may be taller than its thumbnails.
    row_px: list[list[int]]
    header_px: int
    width: int
    height: int
    notes: list[str]


def _lay_out(
    cells: Sequence[Cell], rows: str, columns: str, models: Mapping[str, str], title: str, max_pixels: int
) -> _Layout:
    others = [field for field in SHEET_FIELDS if field not in (rows, columns)]
    varying = [field for field in others if len({_value(cell.job, field) for cell in cells}) > 1]
    # Plain guidance everywhere is not worth a word.
    plain = [field for field in others if field == "guidance_rule" and cells[0].job.guidance_rule is None]
    constant = [field for field in others if field not in [*varying, *plain]]
    subtitle = "  ·  ".join(_phrase(field, _value(cells[0].job, field), models) for field in constant)
    sections = list(_sections(cells, rows, columns, varying, models))
    notes: list[str] = []
    if len(sections) > SECTIONS_MAX:
        notes.append(f"the first {SECTIONS_MAX} of {len(sections):,} sections")
        sections = sections[:SECTIONS_MAX]
    sections = _crop(sections, max_pixels, notes)
    natural = max(cell.job.width for cell in cells), max(cell.job.height for cell in cells)
    scale = _first_scale(natural)
    scale_min = min(scale, THUMB_MIN_PX / max(natural))
    while True:
        layout = _measure(sections, rows, columns, models, title, subtitle, natural, scale, notes)
        if layout.width * layout.height <= max_pixels or scale <= scale_min:
            return layout
        # Labels do not shrink with the thumbnails, so this takes a few rounds.
        shrink = math.sqrt(max_pixels / (layout.width * layout.height))
        scale = max(scale * min(0.95, shrink), scale_min)
        notes = [note for note in notes if not note.startswith("images")]
        notes.append(f"images drawn at {scale:.0%} of their size")


def _first_scale(natural: tuple[int, int]) -> float:
    longest = max(natural)
    if longest > THUMB_MAX_PX:
        return THUMB_MAX_PX / longest
    return float(max(1, -(-THUMB_READABLE_PX // longest)))


def _sections(
    cells: Sequence[Cell], rows: str, columns: str, varying: list[str], models: Mapping[str, str]
) -> Iterator[_Section]:
    groups: dict[tuple[Any, ...], dict[tuple[Any, Any], Cell]] = {}
    for cell in cells:
        group = groups.setdefault(tuple(_value(cell.job, field) for field in varying), {})
        place = (_value(cell.job, rows), _value(cell.job, columns))
        if place not in group or (group[place].state != "done" and cell.state == "done"):
            group[place] = cell
    for values, placed in groups.items():
        phrases = (_phrase(field, value, models) for field, value in zip(varying, values, strict=True))
        yield _Section(
            title="  ·  ".join(phrases),
            rows=list(dict.fromkeys(row for row, _ in placed)),
            columns=list(dict.fromkeys(column for _, column in placed)),
            cells=placed,
        )


def _crop(sections: list[_Section], max_pixels: int, notes: list[str]) -> list[_Section]:
    """Leave off what would not fit even with the smallest thumbnails."""
    pitch = THUMB_MIN_PX + _GAP_PX
    fitting = max(1, int(max_pixels * 0.8 / pitch**2))
    columns_max = max(1, min(max(len(section.columns) for section in sections), math.isqrt(fitting * 4)))
    left = max(1, fitting // columns_max)
    cropped = []
    for section in sections:
        rows = section.rows[: max(1, left)]
        columns = section.columns[:columns_max]
        if len(columns) < len(section.columns):
            notes.append(f"the first {len(columns):,} of {len(section.columns):,} columns")
        if len(rows) < len(section.rows):
            notes.append(f"the first {len(rows):,} of {len(section.rows):,} rows")
        cropped.append(_Section(title=section.title, rows=rows, columns=columns, cells=section.cells))
        left -= len(rows)
        if left <= 0:
            break
    if len(cropped) < len(sections):
        notes.append(f"the first {len(cropped)} of {len(sections)} sections that would fit")
    notes[:] = dict.fromkeys(notes)
    return cropped


def _measure(
    sections: list[_Section],
    rows: str,
    columns: str,
    models: Mapping[str, str],
    title: str,
    subtitle: str,
    natural: tuple[int, int],
    scale: float,
    notes: list[str],
) -> _Layout:
    cell = max(8, round(natural[0] * scale)), max(8, round(natural[1] * scale))
    columns_px = max(len(section.columns) for section in sections) * (cell[0] + _GAP_PX)
    width = max(2 * _MARGIN_PX + _ROW_LABEL_PX + columns_px, 640)
    wrapped = _wrap(subtitle, width - 2 * _MARGIN_PX, 14, 3)
    header_px = _MARGIN_PX + (44 if title else 0) + 20 * len(wrapped) + 24
    head_px, row_px = [], []
    for section in sections:
        labels = (_label(columns, value, models) for value in section.columns)
        lines = max(len(_wrap(text, cell[0], 14, _LABEL_LINES)) for text in labels)
        head_px.append((36 if section.title else 0) + 22 + 19 * lines + 6)
        row_px.append([_row_px(section, value, _label(rows, value, models), scale) for value in section.rows])
    body = sum(head_px) + sum(map(sum, row_px)) + _SECTION_GAP_PX * (len(sections) - 1)
    return _Layout(
        rows_field=rows,
        columns_field=columns,
        title=title,
        subtitle=wrapped,
        sections=sections,
        models=models,
        cell=cell,
        scale=scale,
        head_px=head_px,
        row_px=row_px,
        header_px=header_px,
        width=width,
        height=header_px + body + _MARGIN_PX + (24 if notes else 0),
        notes=notes,
    )


def _row_px(section: _Section, row: Any, label: str, scale: float) -> int:
    lines = len(_wrap(label, _ROW_LABEL_PX - 24, 15, _LABEL_LINES))
    cells = (section.cells.get((row, column)) for column in section.columns)
    tallest = max((cell.job.height for cell in cells if cell is not None), default=0)
    return max(round(tallest * scale), 20 * lines) + _GAP_PX


# Ink on paper.


def _draw(pen: ImageDraw.ImageDraw, image: Image.Image, layout: _Layout) -> None:
    y = _MARGIN_PX
    if layout.title:
        _write(pen, (_MARGIN_PX, y - 6), _fit(layout.title, layout.width - 2 * _MARGIN_PX, 28), 28, _INK)
        y += 44
    for line in layout.subtitle:
        _write(pen, (_MARGIN_PX, y), line, 14, _FAINT)
        y += 20
    pen.line((_MARGIN_PX, y + 6, layout.width - _MARGIN_PX, y + 6), fill=_RULE)
    y = layout.header_px
    for number in range(len(layout.sections)):
        y = _draw_section(pen, image, layout, number, y) + _SECTION_GAP_PX
    if layout.notes:
        text = f"Shown: {'; '.join(layout.notes)}."
        place = (_MARGIN_PX, layout.height - _MARGIN_PX)
        _write(pen, place, _fit(text, layout.width - 2 * _MARGIN_PX, 14), 14, _FAINT)


def _draw_section(pen: ImageDraw.ImageDraw, image: Image.Image, layout: _Layout, number: int, y: int) -> int:
    """Draw one grid from `y` down. Return where it ends."""
    section = layout.sections[number]
    left = _MARGIN_PX + _ROW_LABEL_PX
    labels_y = y
    if section.title:
        _write(pen, (_MARGIN_PX, y), _fit(section.title, layout.width - 2 * _MARGIN_PX, 18), 18, _INK)
        labels_y += 36
    _write(pen, (_MARGIN_PX, labels_y), _field_name(layout.rows_field), 13, _FAINT)
    _write(pen, (left, labels_y), _field_name(layout.columns_field), 13, _FAINT)
    for position, value in enumerate(section.columns):
        x = left + position * (layout.cell[0] + _GAP_PX)
        lines = _wrap(_label(layout.columns_field, value, layout.models), layout.cell[0], 14, _LABEL_LINES)
        _write_lines(pen, (x, labels_y + 22), lines, 14, 19, _INK)
    y += layout.head_px[number]
    places: list[tuple[tuple[int, int], Cell]] = []
    for row, height in zip(section.rows, layout.row_px[number], strict=True):
        label = _label(layout.rows_field, row, layout.models)
        _write_lines(pen, (_MARGIN_PX, y), _wrap(label, _ROW_LABEL_PX - 24, 15, _LABEL_LINES), 15, 20, _INK)
        for position, column in enumerate(section.columns):
            x = left + position * (layout.cell[0] + _GAP_PX)
            cell = section.cells.get((row, column))
            if cell is None:
                pen.rectangle((x, y, x + layout.cell[0] - 1, y + height - _GAP_PX - 1), outline=_RULE)
            else:
                places.append(((x, y), cell))
        y += height
    _draw_cells(pen, image, places, layout)
    return y


def _draw_cells(
    pen: ImageDraw.ImageDraw, image: Image.Image, places: list[tuple[tuple[int, int], Cell]], layout: _Layout
) -> None:
    """Draw jobs, reading a few images at a time: most of the wait is for the store."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(places), _READ_AHEAD):
            batch = places[start : start + _READ_AHEAD]
            outcomes = pool.map(lambda placed: _picture(placed[1], layout.scale), batch)
            for (place, cell), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, _Note):
                    _draw_note(pen, place, (layout.cell[0], round(cell.job.height * layout.scale)), outcome)
                else:
                    image.paste(outcome, (place[0] + (layout.cell[0] - outcome.width) // 2, place[1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Note:
    """What stands where an image does not."""

    state: str
    reason: str | None
    colours: tuple[_Colour, _Colour]


def _picture(cell: Cell, scale: float) -> Image.Image | _Note:
    if cell.state == "failed":
        return _Note(state="failed", reason=cell.reason, colours=_FAILED)
    if cell.state == "missing" or cell.load is None:
        return _Note(state="missing", reason=cell.reason, colours=_MISSING)
    try:
        return _thumb(cell.load(), cell.job, scale)
    except (PrintroomError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # One lost or damaged file must not cost the other nine hundred.
        log.warning("sheet_image_unreadable", extra={"job": cell.job.id, "error": str(error)})
        return _Note(state="unreadable", reason=_reason(error), colours=_FAILED)


def _reason(error: Exception) -> str:
    """Say what is wrong with a file; Pillow names the buffer it read from, which helps nobody."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)


def _thumb(data: bytes, job: Job, scale: float) -> Image.Image:
    size = max(1, round(job.width * scale)), max(1, round(job.height * scale))
    with open_image(data) as picture:
        thumb = picture.convert("RGB")
    return thumb if thumb.size == size else thumb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _draw_note(pen: ImageDraw.ImageDraw, place: tuple[int, int], size: tuple[int, int], note: _Note) -> None:
    paper, ink = note.colours
    pen.rectangle((*place, place[0] + size[0] - 1, place[1] + size[1] - 1), fill=paper)
    lines_max = max(1, (size[1] - 12) // 17)
    lines = _wrap(note.state, size[0] - 16, 14, lines_max)
    if note.reason and len(lines) < lines_max:
        lines += _wrap(note.reason, size[0] - 16, 14, lines_max - len(lines))
    top = place[1] + max(2, (size[1] - 17 * len(lines)) // 2)
    for position, line in enumerate(lines):
        x = place[0] + (size[0] - _text_px(line, 14)) / 2
        _write(pen, (x, top + 17 * position), line, 14, ink)


# Words.


def _value(job: Job, field: str) -> Any:
    return (job.width, job.height) if field == "size" else getattr(job, field)


def _label(field: str, value: Any, models: Mapping[str, str]) -> str:
    """Return a field's value as the sheet shows it: null and "" apart."""
    if field == "guidance_rule":
        return _one_line(rule_label(value))
    if value is None:
        return "(no negative)"
    if value == "":
        return "(empty)"
    match field:
        case "size":
            return f"{value[0]} x {value[1]}"
        case "guidance_scale":
            return f"{value:g}"
        case "model":
            return models.get(value, value)
    return _one_line(str(value))


def _phrase(field: str, value: Any, models: Mapping[str, str]) -> str:
    label = _label(field, value, models)
    if isinstance(value, str) and field.endswith("prompt") and value:
        label = f"“{label}”"
    return label if label == "(no negative)" else f"{_field_name(field)} {label}"


def _field_name(field: str) -> str:
    short = {"negative_prompt": "negative", "guidance_scale": "guidance", "guidance_rule": "rule"}
    return short.get(field, field)


def _one_line(text: str) -> str:
    """Return text without line ends and without characters that have no shape."""
    return "".join(c if c.isprintable() else " " for c in text)


def _wrap(text: str, width_px: float, size_px: int, lines_max: int) -> list[str]:
    """Break text into lines of a width; what does not fit in the last line ends in an ellipsis."""
    lines: list[str] = []
    rest = _one_line(text).strip()
    while rest:
        if len(lines) == lines_max - 1:
            return [*lines, _fit(rest, width_px, size_px)]
        count = _fitting(rest, width_px, size_px)
        if count < len(rest):
            space = rest.rfind(" ", 0, count + 1)
            count = space if space > 0 else count
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return lines or [" "]


def _fit(text: str, width_px: float, size_px: int) -> str:
    text = _one_line(text)
    count = _fitting(text, width_px, size_px)
    return (
        text
        if count >= len(text)
        else text[: max(1, _fitting(text, width_px - size_px, size_px))].rstrip() + "…"
    )


def _fitting(text: str, width_px: float, size_px: int) -> int:
    """Return how many characters of a text fit in a width, one at the least."""
    # No font is narrower than a tenth of its size: a prompt of 64 kB is not measured to its end.
    low, high = 1, min(len(text), int(width_px / size_px * 10) + 2)
    while low < high:
        middle = (low + high + 1) // 2
        if _text_px(text[:middle], size_px) <= width_px:
            low = middle
        else:
            high = middle - 1
    return low


def _text_px(text: str, size_px: int) -> float:
    return _font(size_px, _is_wide(text)).getlength(text)


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size_px: int, ink: _Colour
) -> None:
    pen.text(place, text, font=_font(size_px, _is_wide(text)), fill=ink)


def _write_lines(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: list[str],
    size_px: int,
    leading_px: int,
    ink: _Colour,
) -> None:
    for position, line in enumerate(lines):
        _write(pen, (place[0], place[1] + leading_px * position), line, size_px, ink)


def _is_wide(text: str) -> bool:
    return any(ord(c) >= _LATIN_STOP and c not in "…·–—‘’“”" for c in text)


@lru_cache(maxsize=16)
def _font(size_px: int, wide: bool) -> _Font:
    """Return Pillow's own font, or one of the machine's that knows more scripts. A glyph nobody has is a box."""
    for name in _WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return ImageFont.load_default(size=size_px)
