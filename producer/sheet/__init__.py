"""Turns jobs and their results into contact sheets: pictures, tiles of pictures, or a page of HTML.

Knows nothing of plans, manifests and Redis; `producer.sheet.sweep_sheet` brings the jobs.
"""

from producer.sheet.baseline import Baseline, find_baseline
from producer.sheet.cells import Cell, CellState
from producer.sheet.draw import draw_sheet
from producer.sheet.measures import MAX_PIXELS

__all__ = ["MAX_PIXELS", "Baseline", "Cell", "CellState", "draw_sheet", "find_baseline"]
