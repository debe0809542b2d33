"""Runs a diffusers scheduler on chosen inputs and records its samples. Knows nothing of models or of images.

Inputs, in order of time: the initial noise, then for each evaluation its model output and the noise drawn after it.
One channel of a tensor (1, B, 1, 1) is one experiment: a scheduler treats all elements alike, so that B of them cost
little more than one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from worker.sampling.schedules.minimal_state import Response
from worker.sampling.schedules.rounding import RootsOfRounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """What a scheduler did over N evaluations of B experiments, float64."""

    #: The sample before each evaluation, and the final one.
    samples: torch.Tensor  # (N + 1, B)
    #: The same as the model is shown it; the final one as it is.
    shown: torch.Tensor  # (N + 1, B)
    #: Noise draws after each evaluation.
    draws: tuple[int, ...]  # (N,)

    @property
    def scales(self) -> torch.Tensor:
        """The factor from the sample to what the model is shown, (N + 1,)."""
        return (self.shown * self.samples).sum(dim=1) / self.samples.square().sum(dim=1)


def play(scheduler: Any, options: Mapping[str, Any], inputs: Iterator[torch.Tensor]) -> Played:
    """Run a copy of a fresh scheduler to its end.

    Args:
        options: what its `step` is given besides.
        inputs: (1, B, 1, 1) float64 each.

    Raises:
        ValueError, NotImplementedError: the scheduler's own, at a step.
    """
    scheduler = copy.deepcopy(scheduler)
    draws: list[int] = []
    samples, shown = [], []

    def draw() -> torch.Tensor:
        draws[-1] += 1
        return next(inputs)

    # Asked instead of the generator, where there is one; it would grow a Brownian tree.
    scheduler.noise_sampler = lambda *_: draw()
    x = next(inputs) * initial_scale(scheduler)
    with torch.no_grad(), RootsOfRounding(), _Trial(draw):
        for timestep in scheduler.timesteps:
            draws.append(0)
            samples.append(x.flatten())
            shown.append(scale_input(scheduler, x, timestep).flatten())
            x = scheduler.step(next(inputs), timestep, x, return_dict=False, **options)[0]
    samples.append(x.flatten())
    shown.append(x.flatten())
    return Played(samples=torch.stack(samples), shown=torch.stack(shown), draws=tuple(draws))


def respond(scheduler: Any, options: Mapping[str, Any], draws: int) -> Response:
    """Return a fresh scheduler's response to unit inputs.

    Args:
        draws: how often it draws noise, over all evaluations.
    """
    played = play(scheduler, options, unit_inputs(1 + len(scheduler.timesteps) + draws))
    return Response(rows=played.samples, draws=played.draws)


def unit_inputs(count: int) -> Iterator[torch.Tensor]:
    """Yield one input after another, each alone in a channel of its own."""
    for index in range(count):
        unit = torch.zeros(1, count, 1, 1, dtype=torch.float64)
        unit[0, index] = 1.0
        yield unit


def random_inputs(channels: int) -> Iterator[torch.Tensor]:
    """Yield standard normal inputs without end, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.empty(1, channels, 1, 1, dtype=torch.float64).normal_(generator=generator)


def initial_scale(scheduler: Any) -> float:
    """Return the factor from unit noise to the first sample. Flow matching's schedulers have none."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def scale_input(scheduler: Any, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return a sample as the model is shown it. Flow matching's schedulers have nothing to scale."""
    if not hasattr(scheduler, "scale_model_input"):
        return x
    scaled: torch.Tensor = scheduler.scale_model_input(x, timestep)
    return scaled


class _Trial(TorchFunctionMode):
    """In this thread only: noise comes from `draw`, and no cast to float32 takes digits off an experiment.

    Several schedulers round the sample to float32 at every step. In a response that rounding would look like
    a state of its own; a program, run in float32, has its own.
    """

    def __init__(self, draw: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self._draw = draw

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.randn:
            return self._draw()
        if func is torch.Tensor.to and args[0].dtype is torch.float64 and args[0].dim() == 4:
            return args[0]
        return func(*args, **(kwargs or {}))
