"""Schedule programs: the state-space form of diffusers' schedulers. Knows nothing of models or of images.

After evaluation n, with the guided model output m and noises z_d, a job's state becomes

    s' = A_n s + b_n m + sum_d G_n[:, d] z_d

and the model is shown c_n s_0: slot 0 is the sample. The coefficients are taken from diffusers' own scheduler
object, run once on unit inputs (`unroll`), and written with the fewest slots (`minimal_state`). A program is checked
on random inputs before it is given out. A scheduler that is not linear, or not in few slots, keeps its
object: `NotLinear` says why.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from shared.errors import JobInvalid
from worker.sampling.cache import LruCache
from worker.sampling.schedules.minimal_state import realize
from worker.sampling.schedules.schedulers import REFUSALS, make_scheduler, refusal, settings, step_options
from worker.sampling.schedules.unroll import Played, play, random_inputs, respond

__all__ = ["NotLinear", "ScheduleProgram", "compile_program", "make_scheduler", "step_options"]

#: State slots a program may have; diffusers' need at most 5 (PNDM with Runge-Kutta steps).
SLOTS_AT_MOST = 6

#: Largest difference of a float32 program from its scheduler in float64, over the largest value at that evaluation;
#: 3e-6 is usual at 200 evaluations. float32's own rounding grows with their number: from 500 on, so does this.
_TOLERANCE = 1e-5
_TOLERANCE_EVALUATIONS = 500

#: Experiments of the check: enough that one meets a limit on values, where there is one.
_CHANNELS = 64

#: Config keys that make a step depend on the values it sees. With them, a check on values of moderate size says little.
_NOT_LINEAR = ("clip_sample", "thresholding")

#: Programs that are kept; 25 steps in 3 slots are 2 kB.
_PROGRAMS_KEPT = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class ScheduleProgram:
    """A scheduler unrolled into coefficients: N model evaluations, K state slots, at most D noise draws at once."""

    #: The timestep that the model gets at each evaluation.
    timesteps: torch.Tensor  # (N,) float32
    #: c: the factor from the sample to what the model is shown. The final latents are the sample itself.
    input_scales: torch.Tensor  # (N,) float32
    #: A, b and G of the update after each evaluation.
    transition: torch.Tensor  # (N, K, K) float32
    gain: torch.Tensor  # (N, K) float32
    noise_gain: torch.Tensor  # (N, K, D) float32
    #: Noise draws after each evaluation, in the order diffusers draws them from the job's generator.
    draws: tuple[int, ...]  # (N,)
    #: The state before evaluation 0 is start * unit noise.
    start: torch.Tensor  # (K,) float32

    @property
    def slots(self) -> int:
        """K. Slot 0 is the sample."""
        return len(self.start)

    @property
    def evaluations(self) -> int:
        """N: model calls, more than the steps for Heun's and Runge-Kutta methods."""
        return len(self.timesteps)


@dataclass(frozen=True, kw_only=True)
class NotLinear:
    """No program: the job keeps a scheduler object of its own."""

    #: Why, for logs.
    reason: str


_PROGRAMS: LruCache[tuple[str, str, int], ScheduleProgram | NotLinear] = LruCache(_PROGRAMS_KEPT)
_LOCK = threading.Lock()


def compile_program(config: Mapping[str, Any], name: str, steps: int) -> ScheduleProgram | NotLinear:
    """Return the program of a scheduler. Made once, then kept; safe to call from any thread.

    Args:
        config: the model's scheduler config.
        name: a key of `SCHEDULERS`.
        steps: as a person counts them.

    Raises:
        JobInvalid: the scheduler does not fit the model, or refuses this number of steps.
    """
    key = (json.dumps(dict(config), sort_keys=True), name, steps)
    with _LOCK:
        return _PROGRAMS.get_or_make(key, lambda: _compile(config, name, steps))


@torch.inference_mode(False)
def _compile(config: Mapping[str, Any], name: str, steps: int) -> ScheduleProgram | NotLinear:
    scheduler = make_scheduler(config, name, steps)
    options = step_options(scheduler, name, None)
    if hasattr(scheduler, "get_lms_coefficient"):
        # It integrates numerically at every step. Over plain floats that is 90 times faster than over tensors of one
        # number, and 1e-7 closer to the truth.
        floats = SimpleNamespace(sigmas=scheduler.sigmas.tolist())
        scheduler.get_lms_coefficient = partial(type(scheduler).get_lms_coefficient, floats)
    try:
        played = play(scheduler, options, random_inputs(_CHANNELS))
    except REFUSALS as error:
        raise refusal(name, steps, error) from error
    if not played.samples.isfinite().all():
        raise _not_finite(scheduler, name, steps)
    if reason := _why_not_linear(scheduler):
        return NotLinear(reason=reason)
    program = _program(scheduler, options, played)
    return _why_not_exact(program, played) or program


def _not_finite(scheduler: Any, name: str, steps: int) -> JobInvalid:
    """Say what asked for NaN: too many steps for the spacing, noise predicted at zero SNR, the root of less than 0."""
    keys = ("prediction_type", "timestep_spacing", "rescale_betas_zero_snr")
    own = settings(scheduler)
    shown = ", ".join(f"{key}={own[key]}" for key in keys if key in own)
    return JobInvalid(
        f"scheduler={name}, steps={steps} computes NaN or infinity with {shown}, whatever the model predicts: "
        "use another number of steps, or another scheduler"
    )


def _why_not_linear(scheduler: Any) -> str:
    """Return why a scheduler cannot be linear, from its config; empty where nothing speaks against it."""
    own = settings(scheduler)
    for key in _NOT_LINEAR:
        if own.get(key):
            return f"{key}={own[key]} in the scheduler's config: its steps depend on the values they see"
    if "noise_sampler_seed" in own:
        return "its noise comes from a Brownian tree (noise_sampler_seed), not from the job's generator"
    return ""


def _program(scheduler: Any, options: Mapping[str, Any], played: Played) -> ScheduleProgram:
    real = realize(respond(scheduler, options, sum(played.draws)))
    return ScheduleProgram(
        timesteps=scheduler.timesteps.float(),
        input_scales=played.scales[:-1].float(),
        transition=real.transition.float(),
        gain=real.gain.float(),
        noise_gain=real.noise_gain.float(),
        draws=played.draws,
        start=real.start.float(),
    )


def _why_not_exact(program: ScheduleProgram, played: Played) -> NotLinear | None:
    """Check a program against what its scheduler made of the same random inputs."""
    if program.slots > SLOTS_AT_MOST:
        return NotLinear(reason=f"{program.slots} state slots: more than {SLOTS_AT_MOST}")
    difference = (_run(program) - played.shown).abs().amax(dim=1)
    error = float((difference / played.shown.abs().amax(dim=1)).max())
    tolerance = _TOLERANCE * max(1.0, program.evaluations / _TOLERANCE_EVALUATIONS)
    if not error <= tolerance:
        return NotLinear(reason=f"a linear program is {error:.1e} off: more than {tolerance:.0e}")
    return None


def _run(program: ScheduleProgram) -> torch.Tensor:
    """Return what a program shows the model on the random inputs, and its final latents, (N + 1, B) float32."""
    inputs = (row.float().flatten() for row in random_inputs(_CHANNELS))
    state = torch.outer(program.start, next(inputs))  # (K, B)
    shown = []
    for n, draws in enumerate(program.draws):
        shown.append(program.input_scales[n] * state[0])
        state = program.transition[n] @ state + torch.outer(program.gain[n], next(inputs))
        for d in range(draws):
            state = state + torch.outer(program.noise_gain[n, :, d], next(inputs))
    return torch.stack([*shown, state[0]])
