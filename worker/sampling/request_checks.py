"""Checks of a request that hold for every model, however it is rendered. Knows nothing of schedulers or texts."""

from __future__ import annotations

import math

from shared.errors import JobInvalid
from shared.job_checks import side_problem
from worker.sampling.request import SampleRequest


def check_numbers(request: SampleRequest) -> None:
    """Check the numbers that no model limits.

    Raises: JobInvalid, with the value and what to use instead.
    """
    if request.steps < 1:
        raise JobInvalid(f"steps={request.steps}: use 1 or more")
    if not math.isfinite(request.guidance_scale):
        raise JobInvalid(f"guidance_scale={request.guidance_scale}: use a finite number")
    if not 0 <= request.seed < 2**64:
        raise JobInvalid(f"seed={request.seed}: use 0 to 2**64 - 1")


def check_size(named: str, request: SampleRequest, *, unit_px: int) -> None:
    """Check that both sides are multiples of what the model's latents stand for.

    Args:
        named: the model's name, for the message.
        unit_px: see `shared.job_checks.side_problem`.

    Raises: JobInvalid, with the value and the nearest ones that fit.
    """
    for side, value in (("width", request.width), ("height", request.height)):
        if problem := side_problem(named, side, value, unit_px):
            raise JobInvalid(problem.text)
