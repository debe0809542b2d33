"""Cuts a sheet that is too large for one picture into tiles with labels, and writes a page that shows them all.

Images are read, drawn and written tile by tile: what is in memory is one tile.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from producer.sheet.baseline import Baseline
from producer.sheet.draw import draw
from producer.sheet.grid import DOT, Grid, Section, crop
from producer.sheet.layout import (
    SheetLayout,
    first_scale,
    label_px,
    measure,
    section_gap_px,
    shape_of,
)
from producer.sheet.measures import (
    COLUMN_LEADING,
    GAP_PX,
    LABEL_LINES,
    LEGEND_PX,
    MARGIN_PX,
    MAX_PIXELS,
    ROW_LEADING,
    SUBTITLE_LEADING,
    TITLE_PX,
    WIDTH_MIN_PX,
)
from producer.sheet.shape import LONG_ASPECT_MIN
from producer.sheet.strips import break_rows, key_range, key_words, words_range
from shared.whole_file import whole_file, write_png

#: Longest side of a picture; from 32,767 on, programs that count in 16 bits fail.
_SIDE_MAX_PX = 32_000

#: Above the first section, at most: title, five lines, the legend.
_HEADER_MAX_PX = MARGIN_PX + TITLE_PX + 5 * SUBTITLE_LEADING + LEGEND_PX + 24

#: What labels may grow by where a group of rows or columns is cut in two.
_SEAM_PX = LABEL_LINES * (COLUMN_LEADING + ROW_LEADING)

_INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem }}
.flow {{ display: flex; flex-wrap: wrap; gap: 8px }}
table {{ border-spacing: 8px }} td {{ vertical-align: top; padding: 0 }}
figure {{ margin: 0; width: 320px }} figcaption {{ margin: 4px 0 12px; overflow-wrap: anywhere }}
img {{ display: block; width: 320px; height: auto; border: 1px solid #8886 }}
</style>
<h1>{title}</h1>
<p>{words}</p>
{tiles}
</html>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One picture of a larger sheet, at a row and a column of pictures."""

    row: int
    column: int
    #: What it holds, in words.
    covers: str
    layout: SheetLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Rows `start <= row < stop` of a section."""

    section: Section
    start: int
    stop: int


def tile(
    grid: Grid,
    *,
    max_pixels: int = MAX_PIXELS,
    thumb_px: int | None = None,
    baseline: Baseline | None = None,
) -> list[Tile]:
    """Cut a sheet into pictures of up to `max_pixels`, one where it fits. Nothing is shrunk or left off.

    A picture goes beyond `max_pixels` only where a single row, or a single image with its labels, does.
    """
    scale = first_scale(grid.largest, thumb_px)
    shape = shape_of(grid, scale=scale, baseline=baseline)
    side = min(math.isqrt(max_pixels), _SIDE_MAX_PX)
    choices = (shape.strip_columns, shape.narrow_columns(side)) if grid.wrap else (shape.columns,)
    for columns in dict.fromkeys(choices):
        whole = measure(break_rows(grid, columns), scale=scale, baseline=baseline)
        if whole.width * whole.height <= max_pixels and max(whole.width, whole.height) <= _SIDE_MAX_PX:
            return [Tile(row=0, column=0, covers=_covers(grid, whole.grid.sections), layout=whole)]
    pieces = _pieces(whole, side)
    widest = max(WIDTH_MIN_PX, 2 * MARGIN_PX + max(_piece_px(whole, *piece) for piece in pieces))
    height = min(max_pixels // widest, _SIDE_MAX_PX)
    if grid.wrap:  # a tile is as wide as its strips
        height = min(height, round(widest / LONG_ASPECT_MIN))
    bands = list(_bands(whole, height - _HEADER_MAX_PX - MARGIN_PX))
    return list(_tiles(whole, pieces, bands))


def write_tiles(
    tiles: Sequence[Tile],
    folder: Path,
    *,
    stem: str = "sheet",
    index: str = "index.html",
    on_tile: Callable[[int], None] = lambda total: None,
) -> list[Path]:
    """Draw tiles into `<stem>-r<row>-c<column>.png`, and a page that shows them. Return the page, then the tiles.

    Args:
        on_tile: told the number of tiles at each one written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in tiles:
        path = folder / f"{stem}-r{one.row}-c{one.column}.png"
        write_png(draw(one.layout), path)
        paths.append(path)
        on_tile(len(tiles))
    page = folder / index
    with whole_file(page) as file:
        file.write(_index(tiles, paths).encode())
    return [page, *paths]


def _pieces(whole: SheetLayout, width: int) -> list[tuple[int, int]]:
    """Return runs of columns of about equal length, each no wider than `width` where that is possible."""
    count = max(len(section.columns) for section in whole.grid.sections)
    pieces = 1
    while True:
        edges = [round(number * count / pieces) for number in range(pieces + 1)]
        runs = list(pairwise(edges))
        if pieces == count or max(_piece_px(whole, *run) for run in runs) + 2 * MARGIN_PX <= width:
            return runs
        pieces += 1


def _piece_px(whole: SheetLayout, start: int, stop: int) -> int:
    """Return how wide labels and columns `start <= column < stop` are, in the widest section."""
    widths = [
        frame.column_x[min(stop, len(frame.column_x)) - 1] + whole.column_px - frame.column_x[start]
        for frame in whole.frames
        if start < len(frame.column_x)
    ]
    return label_px(whole.grid.row_fields) + max(widths)


def _bands(whole: SheetLayout, height: int) -> Iterator[list[_Run]]:
    """Yield runs of rows that fit a height, one row at the least; a section may be cut between two rows."""
    band: list[_Run] = []
    used = 0
    for frame in whole.frames:
        start = 0
        seam = _SEAM_PX if frame.outer_px or _is_nested(whole) else 0
        head = frame.row_y[0] + section_gap_px(whole.grid) + seam
        used += head
        for number in range(len(frame.row_px)):
            row = (
                frame.row_px[number]
                + GAP_PX
                + (0 if number == 0 else _group_gap(frame.row_y, frame.row_px, number))
            )
            if used + row > height and (band or number > start):
                if number > start:
                    band.append(_Run(section=frame.section, start=start, stop=number))
                yield band
                band, used, start = [], head, number
            used += row
        band.append(_Run(section=frame.section, start=start, stop=len(frame.row_px)))
    yield band


def _is_nested(whole: SheetLayout) -> bool:
    return len(whole.grid.row_fields) > 1


def _group_gap(row_y: Sequence[int], row_px: Sequence[int], number: int) -> int:
    return row_y[number] - row_y[number - 1] - row_px[number - 1] - GAP_PX


def _tiles(whole: SheetLayout, pieces: list[tuple[int, int]], bands: list[list[_Run]]) -> Iterator[Tile]:
    rows = sum(len(section.rows) for section in whole.grid.sections)
    columns = max(len(section.columns) for section in whole.grid.sections)
    first = 0
    for number, band in enumerate(bands):
        length = sum(run.stop - run.start for run in band)
        for column, (start, stop) in enumerate(pieces):
            runs = [run for run in band if start < len(run.section.columns)]
            if not runs:  # its sections end left of here
                continue
            covers = _covers(whole.grid, [_cut(run, start, stop) for run in runs])
            counted = (
                f"rows {first + 1:,} to {first + length:,} of {rows:,}, "
                f"columns {start + 1:,} to {stop:,} of {columns:,}"
            )
            layout = measure(
                crop(whole.grid, [_continued(run, _cut(run, start, stop)) for run in runs]),
                scale=whole.scale,
                baseline=whole.baseline,
                place=f"Tile r{number} c{column}: {covers if whole.grid.wrap else counted}",
            )
            yield Tile(row=number, column=column, covers=covers, layout=layout)
        first += length


def _cut(run: _Run, start: int, stop: int) -> Section:
    return replace(
        run.section,
        rows=run.section.rows[run.start : run.stop],
        columns=run.section.columns[start:stop],
    )


def _continued(run: _Run, cut: Section) -> Section:
    return replace(cut, title=f"{cut.title} (continued)") if cut.title and run.start else cut


def _covers(grid: Grid, sections: Sequence[Section]) -> str:
    """Return what a picture holds, in words: its first and last section, row and column."""
    first, last = sections[0], sections[-1]
    row, last_row = (key_words(grid, grid.row_fields, one) for one in (first.rows[0], last.rows[-1]))
    if first.title == last.title:
        said = [first.title, words_range(row, last_row)]
    else:
        said = [words_range([first.title, *row], [last.title, *last_row])]
    if grid.is_list or first.columns == last.columns:  # else the titles say them
        said.append(key_range(grid, grid.column_fields, first.columns[0], last.columns[-1]))
    return DOT.join(filter(None, said)) or "one image"


def _index(tiles: Sequence[Tile], paths: Sequence[Path]) -> str:
    grid = tiles[0].layout.grid
    rows: dict[int, str] = {}
    flow = not any(one.column for one in tiles)
    for one, path in zip(tiles, paths, strict=True):
        name = html.escape(quote(path.name))
        size = f'width="{one.layout.width}" height="{one.layout.height}"'
        covers = html.escape(one.covers)
        image = f'<img src="{name}" {size} loading="lazy" alt="{covers}">'
        words = f"<figcaption><b>r{one.row} c{one.column}</b> {covers}</figcaption>"
        figure = f'<figure><a href="{name}">{image}</a>{words}</figure>'
        rows[one.row] = rows.get(one.row, "") + (figure if flow else f"<td>{figure}</td>")
    return _INDEX.format(
        title=html.escape(grid.title or "Contact sheet"),
        words=html.escape(grid.subtitle),
        tiles="\n".join(
            [
                '<div class="flow">' if flow else "<table>",
                *(row if flow else f"<tr>{row}</tr>" for row in rows.values()),
                "</div>" if flow else "</table>",
            ]
        ),
    )
