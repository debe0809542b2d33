"""How many rows a batch gets: as many as a sweep can use, at most as many as fit the device. Knows nothing of jobs.

R decides an image's last bits, so it must not depend on what happens to wait: it follows from the sweep (`choose_rows`)
and from the device. On a GPU what fits is measured once for a model and a shape, and kept in a file; a GPU that runs
out of memory all the same lowers it. A CPU has no such limit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worker.sampling.families.base import Conditioning, ImageSettings
from worker.sampling.model import LoadedModel
from worker.sampling.rows.batch import stack
from worker.sampling.rows.decode import decode

log = logging.getLogger(__name__)

#: Height, width, length of the texts in the family's unit.
RowShape = tuple[int, int, int]

#: The sizes of batches, and no others. Few, so that sweeps of about one size have one R; the small ones are for few
#: images on a CPU. With three or six rows of very small latents a row's last bits depend on its place: matrix
#: products are cut into blocks, and the last one is reckoned otherwise.
LADDER = (2, 4, 8, 16, 24, 32, 48, 64)

#: Share of the free memory that is left alone: allocators fragment, and drivers want some for themselves.
RESERVE = 0.1

#: Rows of the two denoiser calls whose memory is measured; the difference is what two rows take.
_PROBE_ROWS = (2, 4)


def choose_rows(wanted: int, *, limit: int) -> int:
    """Return R for a sweep that could use `wanted` rows at once in one bucket, at most `limit`."""
    return step_down(min(limit, step_up(wanted)))


def step_up(rows: int) -> int:
    """Return the smallest size of `LADDER` that holds so many rows, or the largest there is."""
    return next((size for size in LADDER if size >= rows), LADDER[-1])


def step_down(rows: int) -> int:
    """Return the largest size of `LADDER` of at most so many rows, or the smallest there is."""
    return max((size for size in LADDER if size <= rows), default=LADDER[0])


class RowCeilings:
    """How many rows fit, by model and shape.

    Args:
        path: where it is kept between runs; None forgets it.
        device: the device's name, and whatever else decides what fits: part of the key in the file.
        measure: returns how many rows of a shape fit a model's device, or None where there is no limit.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        device: str = "",
        measure: Callable[[LoadedModel, RowShape], int | None] | None = None,
    ) -> None:
        self._path, self._device, self._measure = path, device, measure or fitting_rows
        self._known: dict[str, int | None] = self._read()

    def rows(self, model: LoadedModel, shape: RowShape, wanted: int) -> int:
        """Return R for a batch of a shape: what is wanted, if it fits."""
        key = self._key(model, shape)
        if key not in self._known:
            self._keep(key, self._measure(model, shape))
            log.info("rows_calibrated", extra={"model": model.name, "shape": shape, "rows": self._known[key]})
        ceiling = self._known[key]
        return wanted if ceiling is None else min(wanted, ceiling)

    def lower(self, model: LoadedModel, shape: RowShape, rows: int) -> None:
        """Remember that no more than so many rows fit."""
        self._keep(self._key(model, shape), rows)

    def _key(self, model: LoadedModel, shape: RowShape) -> str:
        return json.dumps([self._device, model.fingerprint, *shape, torch.__version__])

    def _keep(self, key: str, rows: int | None) -> None:
        self._known[key] = rows
        if self._path is None or rows is None:
            return
        # Another worker on this machine may have written meanwhile; what it knows of other keys stays.
        kept = {**self._read(), key: rows}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(f".{id(self)}.part")
            unfinished.write_text(json.dumps(kept, indent=1, sort_keys=True), encoding="utf-8")
            unfinished.replace(self._path)
        except OSError as error:
            log.warning("rows_not_kept", extra={"path": str(self._path), "reason": str(error)})

    def _read(self) -> dict[str, int | None]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}  # nothing kept yet, or a damaged file: it is measured again
        if not isinstance(found, dict):
            return {}
        return {key: rows for key, rows in found.items() if isinstance(rows, int) and rows > 0}


def fitting_rows(model: LoadedModel, shape: RowShape) -> int | None:
    """Measure how many rows of a shape fit a model's device beside its decoder at work; None on a CPU.

    Returns: a size of `LADDER`, the smallest one even where it does not fit: the step itself will say so.
    """
    return _measured_rows(model, shape) if model.device.type == "cuda" else None


def _measured_rows(model: LoadedModel, shape: RowShape) -> int:
    row = _blank_row(model, shape)  # before the first measurement: encoders are not part of a step
    few, many = (_peak_bytes(model, partial(_denoise_once, model, shape, [row] * n)) for n in _PROBE_ROWS)
    row_bytes = max(1, (many - few) // (_PROBE_ROWS[1] - _PROBE_ROWS[0]))
    fixed = max(0, few - _PROBE_ROWS[0] * row_bytes)
    decoder = _peak_bytes(model, partial(_decode_one, model, shape))
    free = torch.cuda.mem_get_info(model.device)[0]
    return step_down(int((free * (1 - RESERVE) - fixed - decoder) // row_bytes))


def _peak_bytes(model: LoadedModel, action: Callable[[], Any]) -> int:
    """Return the most memory an action takes beyond what is taken already."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(model.device)
    before = torch.cuda.memory_allocated(model.device)
    action()
    torch.cuda.synchronize(model.device)
    peak: int = torch.cuda.max_memory_allocated(model.device) - before
    torch.cuda.empty_cache()
    return peak


@torch.inference_mode()
def _blank_row(model: LoadedModel, shape: RowShape) -> Conditioning:
    """Return a conditioning of a shape's sizes: that of the empty text."""
    height, width, length = shape
    settings = ImageSettings(height=height, width=width, text_length=length, guidance_scale=1.0)
    return model.networks.condition(model.networks.tokenize(""), settings)


@torch.inference_mode()
def _denoise_once(model: LoadedModel, shape: RowShape, rows: list[Conditioning]) -> None:
    latents = torch.zeros(len(rows), *_latent_shape(model, shape), device=model.device)
    model.networks.denoise(latents, torch.zeros(len(rows), device=model.device), stack(rows))


def _decode_one(model: LoadedModel, shape: RowShape) -> None:
    decode(model, torch.zeros(1, *_latent_shape(model, shape), device=model.device)).result()


def _latent_shape(model: LoadedModel, shape: RowShape) -> tuple[int, ...]:
    height, width, _ = shape
    return model.networks.latent_shape(height, width)
