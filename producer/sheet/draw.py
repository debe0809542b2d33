"""Draws a measured sheet: titles, labels, images, and a note where there is no image. Stores nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from producer.sheet.baseline import GAIN, Baseline, heat_colours
from producer.sheet.cells import Cell
from producer.sheet.grid import DOT, Grid, make_grid, runs
from producer.sheet.layout import (
    Frame,
    SheetLayout,
    column_label,
    label_px,
    lay_out,
    outer_column_label,
    outer_row_label,
    row_label,
    section_gap_px,
)
from producer.sheet.lettering import Colour, fit, fit_parts, text_px, wrap, write, write_lines
from producer.sheet.measures import (
    COLUMN_LEADING,
    COLUMN_TEXT,
    DIFFERENCE_GAP_PX,
    FIELDS_PX,
    GROUP_GAP_PX,
    LABEL_GAP_PX,
    MARGIN_PX,
    MAX_PIXELS,
    OUTER_LABEL_PX,
    ROW_LEADING,
    ROW_TEXT,
    SUBTITLE_LEADING,
    SUBTITLE_TEXT,
    TITLE_PX,
)
from producer.sheet.prints import Compared, Darkroom, Note, Print, in_order
from producer.sheet.words import NO_JOB, STATE_WORDS, field_name

log = logging.getLogger(__name__)

_PAPER = (250, 249, 246)
_INK = (33, 33, 36)
_FAINT = (128, 126, 122)
_PALE = (190, 187, 180)
_RULE = (222, 219, 212)
_ACCENT = (38, 92, 148)

#: Paper and ink of what stands where an image does not.
_MISSING = ((238, 236, 231), _FAINT)
_RUNNING = ((226, 236, 246), _ACCENT)
_FAILED = ((248, 228, 224), (158, 42, 34))

_NOTE_TEXT, _NOTE_LEADING = 14, 17
_CAPTION_TEXT = 13

#: The scale of a difference's colours, in the legend.
_BAR_PX = (160, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a job's image goes: the upper left corner of its column."""

    x: int
    y: int
    cell: Cell


def draw_sheet(
    cells: Sequence[Cell],
    *,
    rows: str | Sequence[str],
    columns: str | Sequence[str],
    title: str = "",
    model_names: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
    thumb_px: int | None = None,
    baseline: Baseline | None = None,
    wrap: bool = False,
) -> Image.Image:
    """Draw a contact sheet as one picture. Cells of one place (equal jobs) are drawn once.

    Nothing is refused for its size: thumbnails shrink, then rows, columns and sections are left off, and the sheet
    says so at its foot. `producer.sheet.tiles` draws several pictures instead.

    Args:
        cells: in plan order, which is the order of rows, columns and sections.
        rows: the field that varies down the sheet, of FIELDS or the cells' variables; or two, outer first. Without
            one it is a list, each image labelled with its `columns`.
        columns: what varies across.
        model_names: model fingerprint -> name for labels.
        max_pixels: width times height never goes beyond it by more than the labels of a single thumbnail need.
        thumb_px: longest side of the largest image.
        baseline: what each image is compared with (`find_baseline`).
        wrap: break rows that are too long for a screen.

    Raises: UsageError for an unknown field, the same field twice, or no cells at all.
    """
    grid = make_grid(cells, rows=rows, columns=columns, title=title, models=model_names, wrap=wrap)
    layout = lay_out(grid, max_pixels=max_pixels, thumb_px=thumb_px, baseline=baseline)
    if layout.notes:
        log.warning("sheet_reduced", extra={"notes": layout.notes})
    return draw(layout)


def draw(layout: SheetLayout) -> Image.Image:
    """Draw a measured sheet."""
    image = Image.new("RGB", (layout.width, layout.height), _PAPER)
    pen = ImageDraw.Draw(image)
    _draw_header(pen, image, layout)
    y, places = layout.header_px, list[_Place]()
    for frame in layout.frames:
        _draw_labels(pen, layout, frame, y)
        places += _places(pen, layout, frame, y)
        y += frame.height + section_gap_px(layout.grid)
    _draw_places(pen, image, layout, places)
    if layout.notes:
        text = f"Shown: {'; '.join(layout.notes)}."
        foot = (MARGIN_PX, layout.height - MARGIN_PX)
        write(pen, foot, fit(text, layout.width - 2 * MARGIN_PX, SUBTITLE_TEXT), SUBTITLE_TEXT, _FAINT)
    return image


# Words around the images.


def _draw_header(pen: ImageDraw.ImageDraw, image: Image.Image, layout: SheetLayout) -> None:
    y = MARGIN_PX
    if layout.grid.title:
        write(pen, (MARGIN_PX, y - 6), fit(layout.grid.title, layout.width - 2 * MARGIN_PX, 28), 28, _INK)
        y += TITLE_PX
    write_lines(pen, (MARGIN_PX, y), layout.subtitle, SUBTITLE_TEXT, SUBTITLE_LEADING, _FAINT)
    y += SUBTITLE_LEADING * len(layout.subtitle)
    if layout.baseline:
        _draw_legend(pen, image, layout, layout.baseline, y + 4)
    rule = layout.header_px - 18
    pen.line((MARGIN_PX, rule, layout.width - MARGIN_PX, rule), fill=_RULE)


def _draw_legend(
    pen: ImageDraw.ImageDraw, image: Image.Image, layout: SheetLayout, baseline: Baseline, y: int
) -> None:
    """Say what is compared with what, and draw the scale of the colours."""
    bar = Image.fromarray(heat_colours()[None]).resize(_BAR_PX, Image.Resampling.NEAREST)
    image.paste(bar, (MARGIN_PX, y + 4))
    text = (
        f"0 … {255 / GAIN:.0f} of 255: difference from {baseline.words(layout.grid.models)}, "
        f"drawn {GAIN} times as strong; the number is its mean"
    )
    x = MARGIN_PX + _BAR_PX[0] + 12
    write(pen, (x, y), fit(text, layout.width - MARGIN_PX - x, SUBTITLE_TEXT), SUBTITLE_TEXT, _INK)


def _draw_labels(pen: ImageDraw.ImageDraw, layout: SheetLayout, frame: Frame, y: int) -> None:
    grid = layout.grid
    if frame.section.title:
        title = fit_parts(frame.section.title.split(DOT), DOT, layout.width - 2 * MARGIN_PX, 18)
        write(pen, (MARGIN_PX, y), title, 18, _INK)
    top = y + frame.labels_y
    if grid.is_list:
        _draw_column_labels(pen, layout, frame, top)
        return
    left = MARGIN_PX + label_px(grid.row_fields)
    if len(grid.row_fields) > 1:
        write(pen, (MARGIN_PX, top), field_name(grid.row_fields[0]), 13, _FAINT)
    write(pen, (_inner_x(grid), top), field_name(grid.row_fields[-1]), 13, _FAINT)
    write(pen, (left, top), " / ".join(map(field_name, grid.column_fields)), 13, _FAINT)
    _draw_column_labels(pen, layout, frame, top + FIELDS_PX)
    _draw_row_labels(pen, layout, frame, y)


def _inner_x(grid: Grid) -> int:
    return MARGIN_PX + (OUTER_LABEL_PX if len(grid.row_fields) > 1 else 0)


def _draw_column_labels(pen: ImageDraw.ImageDraw, layout: SheetLayout, frame: Frame, y: int) -> None:
    grid, columns = layout.grid, frame.section.columns
    for outer, start, stop in runs(columns) if frame.outer_px else ():
        x, right = frame.column_x[start], frame.column_x[stop - 1] + layout.column_px
        lines = outer_column_label(grid, outer, right - x)
        write_lines(pen, (MARGIN_PX + x, y), lines, COLUMN_TEXT, COLUMN_LEADING, _INK)
        rule = y + frame.outer_px - 6
        pen.line((MARGIN_PX + x, rule, MARGIN_PX + right - 1, rule), fill=_PALE)
    for x, column in zip(frame.column_x, columns, strict=True):
        lines = column_label(grid, column, layout.column_px)
        place = (MARGIN_PX + x, y + frame.outer_px)
        write_lines(pen, place, lines, COLUMN_TEXT, COLUMN_LEADING, _INK)


def _draw_row_labels(pen: ImageDraw.ImageDraw, layout: SheetLayout, frame: Frame, y: int) -> None:
    grid, rows = layout.grid, frame.section.rows
    for outer, start, stop in runs(rows) if len(grid.row_fields) > 1 else ():
        top, bottom = y + frame.row_y[start], y + frame.row_y[stop - 1] + frame.row_px[stop - 1]
        lines = outer_row_label(grid, outer, bottom - top)
        write_lines(pen, (MARGIN_PX, top), lines, ROW_TEXT, ROW_LEADING, _INK)
        if start:
            rule = top - (GROUP_GAP_PX + LABEL_GAP_PX // 2) // 2
            pen.line((MARGIN_PX, rule, MARGIN_PX + frame.width - 1, rule), fill=_RULE)
    for row, top, height in zip(rows, frame.row_y, frame.row_px, strict=True):
        lines = row_label(grid, row, height)
        write_lines(pen, (_inner_x(grid), y + top), lines, ROW_TEXT, ROW_LEADING, _INK)


# Images, and what stands where there is none.


def _places(pen: ImageDraw.ImageDraw, layout: SheetLayout, frame: Frame, y: int) -> Iterator[_Place]:
    """Yield where a section's jobs stand, and mark the places of none."""
    for row, row_y in zip(frame.section.rows, frame.row_y, strict=True):
        for column, x in zip(frame.section.columns, frame.column_x, strict=True):
            cell = frame.section.cells.get((row, column))
            if cell is None:
                _draw_hole(pen, (MARGIN_PX + x, y + row_y), layout)
            else:
                yield _Place(x=MARGIN_PX + x, y=y + row_y, cell=cell)


def _draw_places(
    pen: ImageDraw.ImageDraw, image: Image.Image, layout: SheetLayout, places: Sequence[_Place]
) -> None:
    darkroom = Darkroom(layout.size_of, layout.baseline)
    prints = in_order(lambda place: darkroom.develop(place.cell), places)
    for place, made in zip(places, prints, strict=True):
        size = layout.size_of(place.cell)
        if isinstance(made, Note):
            _draw_note(pen, (place.x, place.y), (layout.cell[0], size[1]), made)
        else:
            _draw_print(pen, image, (place.x, place.y), made)


def _draw_print(pen: ImageDraw.ImageDraw, image: Image.Image, place: tuple[int, int], made: Print) -> None:
    image.paste(made.picture, place)
    if made.compared is not None:
        _draw_compared(pen, image, place, made.picture.size, made.compared)


def _draw_compared(
    pen: ImageDraw.ImageDraw,
    image: Image.Image,
    place: tuple[int, int],
    size: tuple[int, int],
    compared: Compared,
) -> None:
    """Draw below an image how it differs from its baseline, or frame it as the baseline."""
    (x, y), (width, height) = place, size
    below = y + height + DIFFERENCE_GAP_PX
    if compared.heat is not None:
        image.paste(compared.heat, (x, below))
        below += height
    if compared.is_baseline:
        pen.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=_ACCENT, width=2)
    words = fit(compared.words, width, _CAPTION_TEXT)
    ink = _ACCENT if compared.is_baseline else _INK if compared.heat is not None else _FAINT
    write(pen, (x, below + 3), words, _CAPTION_TEXT, ink)


def _draw_note(pen: ImageDraw.ImageDraw, place: tuple[int, int], size: tuple[int, int], note: Note) -> None:
    colours = _FAILED if note.failed else _RUNNING if note.state == STATE_WORDS["running"] else _MISSING
    _write_middle(pen, place, size, [note.state, note.reason or ""], colours)


def _draw_hole(pen: ImageDraw.ImageDraw, place: tuple[int, int], layout: SheetLayout) -> None:
    """Outline the place of a job that the sweep does not have."""
    (x, y), (width, height) = place, layout.cell
    pen.rectangle((x, y, x + width - 1, y + height - 1), outline=_RULE)
    _write_middle(pen, place, layout.cell, [NO_JOB], (None, _PALE))


def _write_middle(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    size: tuple[int, int],
    texts: Sequence[str],
    colours: tuple[Colour | None, Colour],
) -> None:
    """Write texts in the middle of a box, one after the other, as far as there is room."""
    paper, ink = colours
    if paper is not None:
        pen.rectangle((*place, place[0] + size[0] - 1, place[1] + size[1] - 1), fill=paper)
    room = max(1, (size[1] - 12) // _NOTE_LEADING)
    lines: list[str] = []
    for text in filter(None, texts):
        if len(lines) < room:
            lines += wrap(text, size[0] - 16, _NOTE_TEXT, room - len(lines))
    top = place[1] + max(2, (size[1] - _NOTE_LEADING * len(lines)) // 2)
    for position, line in enumerate(lines):
        x = place[0] + (size[0] - text_px(line, _NOTE_TEXT)) / 2
        write(pen, (x, top + _NOTE_LEADING * position), line, _NOTE_TEXT, ink)
