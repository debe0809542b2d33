"""Finds the baseline of a job, the same job with one field changed, and measures how far two images differ.

Knows nothing of stores and sheets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from producer.language.fields import FIELDS
from producer.sheet.cells import Cell, GroupKey, fields_of, key, value, variables_of
from producer.sheet.words import field_name, label
from shared.errors import UsageError

#: Differences are drawn this many times as strong: images of one seed and two prompts differ by some 20 of 255.
GAIN = 4

#: Colours of a difference, from none to 255 / GAIN and more: dark to light in even steps, also to the colour-blind.
#: Stops of matplotlib's "inferno" at 0, 1/4, 1/2, 3/4 and 1.
_STOPS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))

#: Values of a field that an error lists.
_LISTED = 6

_TEXTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDifference:
    """How far two images are apart."""

    #: Mean absolute difference over all pixels and channels, 0 to 255.
    mean: float
    #: The same a pixel, mean over its channels, times GAIN, in colours.
    heat: Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """The jobs that others are compared with."""

    field: str
    value: Any
    #: What a job and its baseline have in common.
    shared_fields: tuple[str, ...]
    #: Values of the shared fields -> baseline.
    jobs: Mapping[GroupKey, Cell]

    def holds(self, cell: Cell) -> bool:
        """Whether a job is a baseline itself."""
        return bool(value(cell, self.field) == self.value)

    def place(self, cell: Cell) -> GroupKey:
        """Return what a job and its baseline have in common."""
        return key(cell, self.shared_fields)

    def of(self, cell: Cell) -> Cell | None:
        """Return the job to compare a job with, or None where the sweep has none."""
        return self.jobs.get(self.place(cell))

    def words(self, models: Mapping[str, str]) -> str:
        """Return what the baseline is, as a legend has it."""
        return f"{field_name(self.field)} {label(self.field, self.value, models)}"


def find_baseline(cells: Sequence[Cell], field: str, wanted: Any, models: Mapping[str, str]) -> Baseline:
    """Choose the jobs with a value of a field as baseline.

    Raises: UsageError for an unknown field, sizes, and a value that no job has.
    """
    variables = variables_of(cells)
    known = (*FIELDS, *variables)
    if field not in fields_of(cells):
        raise UsageError(f"--diff {field}: unknown field; use one of {', '.join(fields_of(cells))}")
    if field == "size":
        raise UsageError("--diff size: images of two sizes have no difference; use another field")
    # A variable and the texts that it is filled into change together.
    moving = {*_TEXTS} if field in variables else {*variables} if field in _TEXTS else set()
    shared = tuple(name for name in known if name != field and name not in moving)
    jobs: dict[GroupKey, Cell] = {}
    for cell in cells:
        if value(cell, field) == wanted and (place := key(cell, shared)) not in jobs:
            jobs[place] = cell
    if not jobs:
        raise UsageError(_no_baseline(cells, field, wanted, models))
    return Baseline(field=field, value=wanted, shared_fields=shared, jobs=jobs)


def difference(image: Image.Image, baseline: Image.Image) -> ImageDifference:
    """Compare two RGB images of one size."""
    apart = np.abs(np.asarray(image, np.int16) - np.asarray(baseline, np.int16))  # (H, W, 3)
    shade = np.minimum(apart.mean(axis=2) * GAIN, 255).astype(np.uint8)  # (H, W)
    return ImageDifference(mean=float(apart.mean()), heat=Image.fromarray(heat_colours()[shade]))


def heat_colours() -> npt.NDArray[np.uint8]:
    """Return the 256 colours of a difference, (256, 3)."""
    stops = np.linspace(0, 255, len(_STOPS))
    channels = [np.interp(np.arange(256), stops, channel) for channel in zip(*_STOPS, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _no_baseline(cells: Sequence[Cell], field: str, wanted: Any, models: Mapping[str, str]) -> str:
    found = list(dict.fromkeys(label(field, value(cell, field), models) for cell in cells))
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (
        f"--diff {field}: no job on the sheet has {label(field, wanted, models)!r}; "
        f"there are: {', '.join(found[:_LISTED])}{more}"
    )
