"""Checks a request against a model and tokenizes its texts. Knows nothing of batches or noise."""

from __future__ import annotations

import math

from shared.errors import JobInvalid
from shared.schedulers import SCHEDULERS
from worker.sampling.batch import PreparedJob
from worker.sampling.model import LoadedModel
from worker.sampling.request import SampleRequest
from worker.sampling.text import TokenizedText, tokenize


def prepare(model: LoadedModel, index: int, request: SampleRequest) -> PreparedJob:
    """Return a request ready for a batch.

    Raises:
        JobInvalid: it asks for what this model cannot do; the message has the value and the mend.
    """
    _check(model, request)
    prompt = tokenize(model, request.prompt)
    negative = _negative_text(model, request)
    length = max(prompt.length, negative.length if negative else 1)
    return PreparedJob(index=index, request=request, prompt=prompt, negative=negative, length=length)


def _negative_text(model: LoadedModel, request: SampleRequest) -> TokenizedText | None:
    """Return the text of the negative row; None where there is no such row or it is zeros."""
    if not request.guided:
        return None
    if request.negative_prompt is None and model.family == "sdxl" and model.zeros_for_null_negative:
        return None
    return tokenize(model, request.negative_prompt or "")


def _check(model: LoadedModel, request: SampleRequest) -> None:
    if request.scheduler not in SCHEDULERS:
        raise JobInvalid(f"scheduler={request.scheduler!r}: use one of {', '.join(SCHEDULERS)}")
    if request.steps < 1:
        raise JobInvalid(f"steps={request.steps}: use 1 or more")
    if not math.isfinite(request.guidance_scale):
        raise JobInvalid(f"guidance_scale={request.guidance_scale}: use a finite number")
    if not 0 <= request.seed < 2**64:
        raise JobInvalid(f"seed={request.seed}: use 0 to 2**64 - 1")
    for side in ("width", "height"):
        _check_side(model, side, getattr(request, side))


def _check_side(model: LoadedModel, side: str, value: int) -> None:
    unit = model.vae_scale_factor
    if value < unit or value % unit:
        raise JobInvalid(
            f"{side}={value}: {model.name} wants a multiple of {unit}, such as {_nearest(value, unit)}"
        )


def _nearest(value: int, unit: int) -> int:
    return max(unit, round(value / unit) * unit)
