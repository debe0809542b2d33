"""Computes every position of a sheet in pixels, from a grid of jobs. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.sheet.baseline import Baseline
from producer.sheet.cells import Cell, GroupKey
from producer.sheet.grid import Grid, Section, crop, runs
from producer.sheet.lettering import text_px, wrap
from producer.sheet.measures import (
    CAPTION_PX,
    COLUMN_LEADING,
    COLUMN_READABLE_PX,
    COLUMN_TEXT,
    DIFFERENCE_GAP_PX,
    FIELDS_PX,
    FOOT_PX,
    GAP_PX,
    GROUP_GAP_PX,
    LABEL_GAP_PX,
    LABEL_LINES,
    LEGEND_PX,
    MARGIN_PX,
    MAX_PIXELS,
    OUTER_LABEL_PX,
    ROW_LABEL_PX,
    ROW_LEADING,
    ROW_TEXT,
    SECTION_GAP_PX,
    SECTION_TITLE_PX,
    SECTIONS_MAX,
    STRIP_GAP_PX,
    SUBTITLE_LEADING,
    SUBTITLE_LINES,
    SUBTITLE_TEXT,
    THUMB_MAX_PX,
    THUMB_MIN_PX,
    THUMB_READABLE_PX,
    TITLE_PX,
    WIDTH_MIN_PX,
)
from producer.sheet.shape import ASPECT_MIN, HEAD_PX, LONG_ASPECT_MIN, GridShape
from producer.sheet.strips import break_rows

#: Labels of a list that are looked at for the room they take.
_LABELS_SAMPLED = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One section, measured. Offsets count from its own upper left corner."""

    section: Section
    #: Height of the outer labels of columns, 0 without them, and of the inner ones.
    outer_px: int
    inner_px: int
    #: Left edge of each column, and what is right of the last.
    column_x: Sequence[int]
    width: int
    #: Top of each row, and its height without the gap below.
    row_y: Sequence[int]
    row_px: Sequence[int]
    height: int

    @property
    def labels_y(self) -> int:
        """Where the names of the fields stand."""
        return SECTION_TITLE_PX if self.section.title else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetLayout:
    """A sheet, measured."""

    grid: Grid
    baseline: Baseline | None
    subtitle: Sequence[str]
    frames: Sequence[Frame]
    #: What images are scaled by, and the box of the largest.
    scale: float
    cell: tuple[int, int]
    column_px: int
    header_px: int
    width: int
    height: int
    #: What is left off, in words.
    notes: Sequence[str]

    def size_of(self, cell: Cell) -> tuple[int, int]:
        """Return the size of a job's thumbnail."""
        return max(1, round(cell.job.width * self.scale)), max(1, round(cell.job.height * self.scale))


def lay_out(
    grid: Grid,
    *,
    max_pixels: int = MAX_PIXELS,
    thumb_px: int | None = None,
    baseline: Baseline | None = None,
) -> SheetLayout:
    """Measure a sheet that is to be one picture: thumbnails shrink, then rows, columns and sections are left off.

    Args:
        max_pixels: width times height never goes beyond it by more than the labels of a single thumbnail need.
        thumb_px: longest side of the largest image; chosen where not given.
    """
    notes: list[str] = []
    grid = _crop_sections(grid, notes)
    scale = first_scale(grid.largest, thumb_px)
    if grid.wrap:
        near = min(scale, _fitting_scale(grid, max_pixels, baseline))
        grid = break_rows(grid, shape_of(grid, scale=near, baseline=baseline).strip_columns)
    grid = _crop(grid, max_pixels // (1 if baseline is None else 2), notes)
    scale_min = min(scale, THUMB_MIN_PX / max(grid.largest))
    while True:
        layout = measure(grid, scale=scale, baseline=baseline, notes=notes)
        if layout.width * layout.height <= max_pixels or scale <= scale_min:
            return layout
        # Labels do not shrink with the thumbnails, so this takes a few rounds.
        shrink = math.sqrt(max_pixels / (layout.width * layout.height))
        scale = max(scale * min(0.95, shrink), scale_min)
        notes = [note for note in notes if not note.startswith("images")]
        notes.append(f"images drawn at {scale:.0%} of their size")


def first_scale(largest: tuple[int, int], thumb_px: int | None = None) -> float:
    """Return what images are scaled by where there is room."""
    longest = max(largest)
    if thumb_px is not None:
        return thumb_px / longest
    if longest > THUMB_MAX_PX:
        return THUMB_MAX_PX / longest
    return float(max(1, -(-THUMB_READABLE_PX // longest)))


def shape_of(grid: Grid, *, scale: float, baseline: Baseline | None = None) -> GridShape:
    """Return what a grid of unbroken rows comes to at a scale, about."""
    cell = box(grid.largest, scale)
    column_px = max(cell[0], _column_min(grid))
    below = 0 if baseline is None else cell[1] + DIFFERENCE_GAP_PX + CAPTION_PX
    return GridShape(
        rows=max(len(section.rows) for section in grid.sections),
        columns=max(len(section.columns) for section in grid.sections),
        sections=len(grid.sections),
        box=(column_px, cell[1] + below),
        left_px=label_px(grid.row_fields),
        groups=max(len(list(grid.column_groups(section.columns))) for section in grid.sections),
        head_px=_list_head_px(grid, column_px) if grid.is_list else HEAD_PX,
        aspect_min=LONG_ASPECT_MIN if grid.is_list else ASPECT_MIN,
    )


def box(largest: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the room of an image at a scale."""
    return max(8, round(largest[0] * scale)), max(8, round(largest[1] * scale))


def measure(
    grid: Grid,
    *,
    scale: float,
    baseline: Baseline | None = None,
    notes: Sequence[str] = (),
    place: str = "",
) -> SheetLayout:
    """Measure a sheet at a scale, however large it becomes.

    Args:
        place: which tile of a larger sheet it is, in words.
    """
    cell = box(grid.largest, scale)
    column_px = max(cell[0], _column_min(grid))
    left = label_px(grid.row_fields)
    widths = [_column_x(grid, section, left, column_px)[1] for section in grid.sections]
    width = max(2 * MARGIN_PX + max(widths), WIDTH_MIN_PX)
    subtitle = wrap(grid.subtitle, width - 2 * MARGIN_PX, SUBTITLE_TEXT, SUBTITLE_LINES)
    subtitle = [place, *subtitle] if place else subtitle
    header_px = MARGIN_PX + (TITLE_PX if grid.title else 0) + SUBTITLE_LEADING * len(subtitle)
    header_px += (LEGEND_PX if baseline else 0) + 24
    layout = SheetLayout(
        grid=grid,
        baseline=baseline,
        subtitle=subtitle,
        frames=[],
        scale=scale,
        cell=cell,
        column_px=column_px,
        header_px=header_px,
        width=width,
        height=0,
        notes=notes,
    )
    frames = [_frame(layout, section, left) for section in grid.sections]
    body = sum(frame.height for frame in frames) + section_gap_px(grid) * (len(frames) - 1)
    foot = FOOT_PX if notes else 0
    return replace(layout, frames=frames, height=header_px + body + MARGIN_PX + foot)


def section_gap_px(grid: Grid) -> int:
    """Return what is between sections, or between the strips of a list."""
    return STRIP_GAP_PX if grid.is_list else SECTION_GAP_PX


def label_px(row_fields: Sequence[str]) -> int:
    """Return how wide the labels left of the images are."""
    return (ROW_LABEL_PX if row_fields else 0) + (OUTER_LABEL_PX if len(row_fields) > 1 else 0)


def column_label(grid: Grid, column: GroupKey, width: int) -> list[str]:
    """Return the innermost label of a column, in lines; that of an image on a list says every field."""
    if not grid.is_list:
        return _lines(grid, grid.column_fields[-1], column[-1], (width, COLUMN_TEXT), LABEL_LINES)
    return [
        line
        for name, one in zip(grid.column_fields, column, strict=True)
        for line in wrap(grid.phrase(name, one), width, COLUMN_TEXT, LABEL_LINES)
    ]


def outer_column_label(grid: Grid, outer: GroupKey, width: int) -> list[str]:
    """Return the label of a group of columns, in lines."""
    return _lines(grid, grid.column_fields[0], outer[0], (width, COLUMN_TEXT), LABEL_LINES)


def row_label(grid: Grid, row: GroupKey, height: int) -> list[str]:
    """Return the innermost label of a row, in as many lines as the row has room for."""
    if grid.is_list:
        return []
    lines_max = max(LABEL_LINES, height // ROW_LEADING)
    return _lines(grid, grid.row_fields[-1], row[-1], (ROW_LABEL_PX - LABEL_GAP_PX, ROW_TEXT), lines_max)


def outer_row_label(grid: Grid, outer: GroupKey, height: int) -> list[str]:
    """Return the label of a group of rows, in as many lines as the group has room for."""
    lines_max = max(LABEL_LINES, height // ROW_LEADING)
    return _lines(grid, grid.row_fields[0], outer[0], (OUTER_LABEL_PX - LABEL_GAP_PX, ROW_TEXT), lines_max)


def _lines(grid: Grid, field: str, value: Any, measure: tuple[int, int], lines_max: int) -> list[str]:
    """Break a label into lines of a width and a size of letters; where there is no room, the short one."""
    lines = wrap(grid.long_labels[field][value], *measure, lines_max + 1)
    return lines if len(lines) <= lines_max else wrap(grid.labels[field][value], *measure, lines_max)


def _column_min(grid: Grid) -> int:
    """Return how wide a column must be for its labels: short ones whole, long ones with a word or two a line."""
    columns = {column for section in grid.sections for column in section.columns}
    if grid.is_list:
        fields = enumerate(grid.column_fields)
        texts = {grid.phrase(name, column[at]) for at, name in fields for column in columns}
    else:
        texts = {grid.labels[grid.column_fields[-1]][column[-1]] for column in columns}
    return min(
        COLUMN_READABLE_PX,
        max(math.ceil(text_px(text[:COLUMN_READABLE_PX], COLUMN_TEXT)) for text in texts),
    )


def _list_head_px(grid: Grid, column_px: int) -> int:
    """Return how high the labels above the images of a list are, with the gap before them."""
    some = grid.sections[0].columns[:_LABELS_SAMPLED]
    return STRIP_GAP_PX + COLUMN_LEADING * max(len(column_label(grid, one, column_px)) for one in some)


def _column_x(grid: Grid, section: Section, left: int, column_px: int) -> tuple[list[int], int]:
    """Return where columns begin, and where the last one ends."""
    found: list[int] = []
    x = left
    for _, start, stop in grid.column_groups(section.columns):
        found += [x + number * (column_px + GAP_PX) for number in range(stop - start)]
        x = found[-1] + column_px + GAP_PX + GROUP_GAP_PX
    return found, found[-1] + column_px


def _frame(layout: SheetLayout, section: Section, left: int) -> Frame:
    grid, column_px = layout.grid, layout.column_px
    column_x, width = _column_x(grid, section, left, column_px)
    inner = max(len(column_label(grid, column, column_px)) for column in section.columns)
    outer_px = 0
    if len(grid.column_fields) > 1 and not grid.is_list:
        spans = [
            (outer, column_x[stop - 1] + column_px - column_x[start])
            for outer, start, stop in runs(section.columns)
        ]
        outer_px = COLUMN_LEADING * max(len(outer_column_label(grid, *span)) for span in spans) + 12
    inner_px = COLUMN_LEADING * inner + 6
    row_px = _row_heights(layout, section)
    fields_px = 0 if grid.is_list else FIELDS_PX
    y = (SECTION_TITLE_PX if section.title else 0) + fields_px + outer_px + inner_px
    row_y: list[int] = []
    for _, start, stop in runs(section.rows):
        for number in range(start, stop):
            row_y.append(y)
            y += row_px[number] + GAP_PX
        y += GROUP_GAP_PX if len(grid.row_fields) > 1 else 0
    return Frame(
        section=section,
        outer_px=outer_px,
        inner_px=inner_px,
        column_x=column_x,
        width=width,
        row_y=row_y,
        row_px=row_px,
        height=row_y[-1] + row_px[-1],
    )


def _row_heights(layout: SheetLayout, section: Section) -> list[int]:
    grid, heights = layout.grid, []
    for row in section.rows:
        found = (section.cells.get((row, column)) for column in section.columns)
        block = _block_px(layout, [cell for cell in found if cell is not None])
        heights.append(max(block, ROW_LEADING * len(row_label(grid, row, block))))
    if len(grid.row_fields) > 1:
        for outer, start, stop in runs(section.rows):
            room = sum(heights[start:stop]) + GAP_PX * (stop - start - 1)
            heights[stop - 1] += max(0, ROW_LEADING * len(outer_row_label(grid, outer, room)) - room)
    return heights


def _block_px(layout: SheetLayout, cells: Sequence[Cell]) -> int:
    """Return how high the images of a row are with what stands below them; baselines have no difference there."""
    thumb_px = max((layout.size_of(cell)[1] for cell in cells), default=layout.cell[1])
    baseline = layout.baseline
    if baseline is None:
        return thumb_px
    differs = not cells or any(not baseline.holds(cell) for cell in cells)
    return thumb_px * (2 if differs else 1) + DIFFERENCE_GAP_PX + CAPTION_PX


def _fitting_scale(grid: Grid, max_pixels: int, baseline: Baseline | None) -> float:
    """Return at what scale all images together leave labels a third of the picture, about."""
    images_px = len(grid.cells) * grid.largest[0] * grid.largest[1] * (1 if baseline is None else 2)
    return math.sqrt(max_pixels * 2 / 3 / images_px)


def _crop_sections(grid: Grid, notes: list[str]) -> Grid:
    if len(grid.sections) <= SECTIONS_MAX:
        return grid
    notes.append(f"the first {SECTIONS_MAX} of {len(grid.sections):,} sections")
    return crop(grid, grid.sections[:SECTIONS_MAX])


def _crop(grid: Grid, max_pixels: int, notes: list[str]) -> Grid:
    """Leave off what would not fit even with the smallest thumbnails."""
    sections = list(grid.sections)
    pitch = THUMB_MIN_PX + GAP_PX
    fitting = max(1, int(max_pixels * 0.8 / pitch**2))
    columns_max = max(1, min(max(len(section.columns) for section in sections), math.isqrt(fitting * 4)))
    left = max(1, fitting // columns_max)
    cropped: list[Section] = []
    for section in sections:
        rows, columns = section.rows[: max(1, left)], section.columns[:columns_max]
        if len(columns) < len(section.columns):
            notes.append(f"the first {len(columns):,} of {len(section.columns):,} columns")
        if len(rows) < len(section.rows):
            notes.append(f"the first {len(rows):,} of {len(section.rows):,} rows")
        cropped.append(replace(section, rows=rows, columns=columns))
        left -= len(rows)
        if left <= 0:
            break
    if len(cropped) < len(sections):
        notes.append(f"the first {len(cropped)} of {len(sections)} sections that would fit")
    notes[:] = dict.fromkeys(notes)
    return crop(grid, cropped)
