"""Computes the width and height of a grid on a screen, and where long rows are best broken.

Knows no jobs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from producer.sheet.measures import (
    COLUMN_LEADING,
    FIELDS_PX,
    GAP_PX,
    GROUP_GAP_PX,
    MARGIN_PX,
    SECTION_GAP_PX,
    SECTION_TITLE_PX,
    TITLE_PX,
    WIDTH_MIN_PX,
)

#: Width over height of a sheet that a screen shows whole or nearly so: a sheet within it is as good as any other.
ASPECT_MIN, ASPECT_MAX = 0.7, 2.5

#: A list, and a picture of several, is read from top to bottom, and may be as high as two screens.
LONG_ASPECT_MIN = 0.5

#: ... and of those that are, the one nearest to a screen's.
_ASPECT = 1.6

#: A wider picture is shrunk even by the widest screens, and so are more columns by the common ones.
STRIP_MAX_PX = 4000
STRIP_COLUMNS_MAX = 24

#: Broken rows cost as much as a sheet of twice the height: below one another, images are harder to compare.
_BROKEN_ROWS = 1.0

#: Rows that are left whole may be wide for the same reason.
_WHOLE_ROWS = 0.5

#: What stands above the rows of a section or of a strip: title, fields, two lines of labels, the gap before it.
HEAD_PX = SECTION_GAP_PX + SECTION_TITLE_PX + FIELDS_PX + 2 * COLUMN_LEADING

#: Margins, title, what is the same in all jobs.
_FRAME_PX = 2 * MARGIN_PX + TITLE_PX + 2 * COLUMN_LEADING


@dataclass(frozen=True, kw_only=True, slots=True)
class GridShape:
    """How many rows and columns there are, and the room that each takes, in pixels."""

    rows: int
    columns: int
    sections: int
    #: Width and height of an image with what stands below it.
    box: tuple[int, int]
    #: Width of the labels left of the rows.
    left_px: int
    #: Groups of columns, with a wider gap between them.
    groups: int = 1
    head_px: int = HEAD_PX
    aspect_min: float = ASPECT_MIN

    def size(self, columns: int) -> tuple[int, int]:
        """Return width and height where rows are broken into strips of so many columns."""
        strips = math.ceil(self.columns / columns)
        wide, high = (px + GAP_PX for px in self.box)
        gaps = GROUP_GAP_PX * (math.ceil(self.groups * columns / self.columns) - 1) - GAP_PX
        width = 2 * MARGIN_PX + self.left_px + columns * wide + gaps
        height = _FRAME_PX + self.sections * strips * (self.head_px + self.rows * high)
        return max(WIDTH_MIN_PX, width), height

    def cost(self, columns: int) -> float:
        """Return how far it then is from a screen: 0 is a fit, and each doubling of the height beyond costs 1."""
        width, height = self.size(columns)
        aspect = width / height
        wide = max(math.log2(width / STRIP_MAX_PX), math.log2(columns / STRIP_COLUMNS_MAX), 0.0)
        if columns == self.columns:
            wide *= _WHOLE_ROWS
        broken = _BROKEN_ROWS if columns < self.columns and self.rows > 1 else 0.0
        return broken + wide + max(math.log2(self.aspect_min / aspect), math.log2(aspect / ASPECT_MAX), 0.0)

    @property
    def strip_columns(self) -> int:
        """How many columns a strip of a single picture has; all of them where rows are best left whole."""
        return min(self._choices(), key=lambda columns: (self.cost(columns), self._off(columns)))

    def narrow_columns(self, width: int) -> int:
        """Return how many columns a strip has where the sheet is several pictures, each of up to this width."""
        if self.strip_columns == self.columns:
            return self.columns
        width = min(width, STRIP_MAX_PX)
        fitting = (columns for columns in self._choices() if self.size(columns)[0] <= width)
        return max((columns for columns in fitting if columns <= STRIP_COLUMNS_MAX), default=1)

    def _choices(self) -> Iterator[int]:
        """Yield the numbers of columns that make strips of about equal length."""
        strips = 1
        while True:
            columns = math.ceil(self.columns / strips)
            yield columns
            if columns == 1:
                return
            strips = math.ceil(self.columns / (columns - 1))  # the fewest that make them shorter

    def _off(self, columns: int) -> float:
        width, height = self.size(columns)
        return abs(math.log2(width / height / _ASPECT))
