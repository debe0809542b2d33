"""One stage of training: steps, learning rate, EMA, checkpoints to resume from. Knows nothing of what is learnt."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from training.portraits.progress import progress

log = logging.getLogger(__name__)

#: Share of the steps in which the learning rate rises to its peak.
WARM_UP = 0.03

#: Steps between the moments when processes that train side by side average their weights. On a CPU that is
#: much faster than threads: nobody waits for anybody inside a layer.
SHARE_EVERY = 8

#: Gradients longer than this are shortened to it.
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """How a stage is trained."""

    #: Names its checkpoint.
    name: str
    steps: int
    #: Peak learning rate of AdamW, and the lowest one, at the end of a cosine.
    learning_rate: float
    last_learning_rate: float
    #: Decay of the moving average of the weights, per step.
    ema: float
    #: Steps between checkpoints.
    save_every: int
    seed: int
    #: Parameters with this in their names learn so many times as fast.
    factors: tuple[tuple[str, float], ...] = ()


def process_count() -> int:
    """Return how many processes train side by side."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_number() -> int:
    """Return which of them this one is."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def is_first() -> bool:
    """Return whether this is the process that keeps the average, saves and reports."""
    return process_number() == 0


class Stage:
    """Trains modules together and keeps a moving average of their weights."""

    def __init__(self, modules: Mapping[str, Any], settings: StageSettings, folder: Path) -> None:
        self.modules: Any = torch.nn.ModuleDict(dict(modules))
        self.averages: Any = copy.deepcopy(self.modules).eval().requires_grad_(False)
        self.settings = settings
        self.step = 0
        self._path = folder / f"{settings.name}.checkpoint.pt"
        self._optimizer = torch.optim.AdamW(
            self._groups(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )

    def resume(self) -> None:
        """Go on where the checkpoint ends, if there is one."""
        if self._path.is_file():
            state = torch.load(self._path, weights_only=True)
            self.modules.load_state_dict(state["modules"])
            self.averages.load_state_dict(state["averages"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            log.info("%s: resumed at step %d", self.settings.name, self.step)

    def start_from(self, folder: Path) -> None:
        """Begin with the averages that another run of this stage ended with, and a new optimizer."""
        state = torch.load(folder / self._path.name, weights_only=True)
        self.modules.load_state_dict(state["averages"])
        self.averages.load_state_dict(state["averages"])
        log.info("%s: starts from step %d of %s", self.settings.name, int(state["step"]), folder)

    def run(self, loss_of: Callable[[int], torch.Tensor], report: Callable[[], str]) -> None:
        """Take the steps that are left.

        Args:
            loss_of: the loss of a step, given its number; what it draws at random depends on that alone.
            report: a few words on how it goes, asked for at every checkpoint.
        """
        self.modules.train()
        left = range(self.step, self.settings.steps)
        started = time.monotonic()
        for step in progress(left, total=len(left), title=self.settings.name):
            self._take(loss_of(step))
            if not is_first():
                continue
            if self.step % self.settings.save_every == 0 or self.step == self.settings.steps:
                self._save()
                log.info("%s step %d: %s", self.settings.name, self.step, report())
        self._tell_averages()
        log.info("%s: %.0f s", self.settings.name, time.monotonic() - started)

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameters in groups of one learning rate each."""
        groups: dict[float, list[Any]] = {}
        for name, parameter in self.modules.named_parameters():
            found = [factor for part, factor in self.settings.factors if part in name]
            groups.setdefault(found[0] if found else 1.0, []).append(parameter)
        return [{"params": groups[factor], "factor": factor} for factor in sorted(groups)]

    def _take(self, loss: torch.Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate() * group["factor"]
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        self.step += 1
        if self.step % SHARE_EVERY == 0 or self.step == self.settings.steps:
            self._share()
        if is_first():
            self._average()

    def _learning_rate(self) -> float:
        """Return the rate of this step: a short rise, then half a cosine."""
        settings, done = self.settings, self.step / self.settings.steps
        if done < WARM_UP:
            return settings.learning_rate * (done / WARM_UP + 1e-3)
        fall = 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
        return settings.last_learning_rate + fall * (settings.learning_rate - settings.last_learning_rate)

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows fast, so that it forgets the untrained weights.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        averages: list[torch.Tensor] = list(self.averages.parameters())
        current: list[torch.Tensor] = list(self.modules.parameters())
        torch._foreach_lerp_(averages, current, 1 - decay)

    @torch.no_grad()
    def _share(self) -> None:
        """Give every process the mean of all processes' weights."""
        if process_count() == 1:
            return
        weights = list(self.modules.parameters())
        flat = torch.cat([weight.flatten() for weight in weights])
        torch.distributed.all_reduce(flat)
        flat /= process_count()
        for weight, mean in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
            weight.copy_(mean.view_as(weight))

    def _tell_averages(self) -> None:
        """Give every process the first one's averages."""
        if process_count() > 1:
            for average in self.averages.parameters():
                torch.distributed.broadcast(average.data, 0)

    def _save(self) -> None:
        state = {
            "modules": self.modules.state_dict(),
            "averages": self.averages.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
        }
        unfinished = self._path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._path)
