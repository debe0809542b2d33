"""Reads the images for a sheet, scaled and compared with the baseline, a few at a time and in order.

One lost or damaged file must not cost the other nine hundred: it becomes a note in its place.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from producer.sheet.baseline import Baseline, difference
from producer.sheet.cells import Cell
from producer.sheet.words import STATE_WORDS
from shared.errors import PrintroomError
from shared.images.files import open_image

log = logging.getLogger(__name__)

#: Images read at the same time, and before the next ones are asked for.
_READERS = 8
_READ_AHEAD = 64

#: Baselines kept decoded, pixels: 400 MB. A row of a sheet wants one, or a few.
_KEPT_PIXELS = 128 * 1024 * 1024

#: What reading an image may raise because of the image.
_UNREADABLE = (PrintroomError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What stands where an image does not."""

    state: str
    reason: str | None
    failed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """An image beside its baseline."""

    #: `baseline`, `diff 3.1`, or why there is no difference.
    words: str
    is_baseline: bool
    #: Mean absolute difference of 255, and its picture, scaled as the image is; None where there is none.
    mean: float | None = None
    heat: Image.Image | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Print:
    """An image, scaled."""

    picture: Image.Image
    #: None on a sheet without a baseline.
    compared: Compared | None = None


class Darkroom:
    """Makes prints of jobs; may be used by several threads."""

    def __init__(self, size_of: Callable[[Cell], tuple[int, int]], baseline: Baseline | None = None) -> None:
        self._size_of = size_of
        self._baseline = baseline
        self._lock = threading.Lock()
        #: Baseline's job id -> its image, decoded once for all that are compared with it.
        self._kept: OrderedDict[str, Future[Image.Image]] = OrderedDict()

    def develop(self, cell: Cell) -> Print | Note:
        """Return a job's print, or what to say in its place."""
        if cell.state == "failed":
            return Note(state="failed", reason=cell.reason, failed=True)
        if cell.state != "done" or cell.load is None:
            return Note(state=STATE_WORDS[cell.state], reason=cell.reason, failed=False)
        try:
            picture = _decode(cell)
        except _UNREADABLE as error:
            log.warning("sheet_image_unreadable", extra={"job": cell.job.id, "error": str(error)})
            return Note(state="unreadable", reason=_reason(error), failed=True)
        return Print(picture=_scaled(picture, self._size_of(cell)), compared=self._compare(cell, picture))

    def _compare(self, cell: Cell, picture: Image.Image) -> Compared | None:
        if self._baseline is None:
            return None
        if self._baseline.holds(cell):
            return Compared(words="baseline", is_baseline=True)
        base = self._baseline.of(cell)
        if base is None:
            return Compared(words="no baseline", is_baseline=False)
        if base.state != "done" or base.load is None:
            return Compared(words=f"baseline {STATE_WORDS[base.state]}", is_baseline=False)
        try:
            other = self._keep(base)
        except _UNREADABLE:  # its own place says why
            return Compared(words="baseline unreadable", is_baseline=False)
        if other.size != picture.size:
            return Compared(words="baseline of another size", is_baseline=False)
        found = difference(picture, other)
        heat = _scaled(found.heat, self._size_of(cell))
        return Compared(words=f"diff {found.mean:.1f}", is_baseline=False, mean=found.mean, heat=heat)

    def _keep(self, cell: Cell) -> Image.Image:
        """Return a baseline's image; threads that want the same one wait for the first."""
        with self._lock:
            reading = self._kept.get(cell.job.id)
            first = reading is None
            if reading is None:
                reading = self._kept[cell.job.id] = Future()
                while len(self._kept) > max(1, _KEPT_PIXELS // (cell.job.width * cell.job.height)):
                    self._kept.popitem(last=False)
        if first:
            try:
                reading.set_result(_decode(cell))
            except BaseException as error:
                reading.set_exception(error)
        return reading.result()


def in_order(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """Yield what is made of each item, in their order, making a few ahead: most of the wait is for the store."""
    left = iter(items)
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = deque(pool.submit(make, item) for item in islice(left, _READ_AHEAD))
        while ahead:
            made = ahead.popleft().result()
            ahead.extend(pool.submit(make, item) for item in islice(left, 1))
            yield made


def _decode(cell: Cell) -> Image.Image:
    assert cell.load is not None
    with open_image(cell.load()) as picture:
        return picture.convert("RGB")


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    if picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _reason(error: Exception) -> str:
    """Say what is wrong with a file; Pillow names the buffer it read from, which helps nobody."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
