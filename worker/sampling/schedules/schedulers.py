"""Makes the diffusers scheduler that a job names, from the model's own config. Knows nothing of programs or of jobs."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import diffusers
import torch

from shared.errors import JobInvalid
from shared.job_checks import path_problem, prediction_problem, shifting_problem, steps_problem
from shared.model_facts import original_steps
from shared.schedulers import SCHEDULE_PARTS, SCHEDULERS, SchedulerSpec, model_path
from worker.sampling.schedules.rounding import RootsOfRounding

#: How diffusers says no to a config, a number of steps, or (at a step) to what the model predicts.
REFUSALS = (ValueError, NotImplementedError, IndexError)

#: Schedulers that are kept for further numbers of steps; one is some tensors of as many numbers as timesteps.
_SCHEDULERS_KEPT = 128


def make_scheduler(config: Mapping[str, Any], name: str, steps: int) -> Any:
    """Return a fresh diffusers scheduler for a loop, made as diffusers' users make it.

    Raises:
        JobInvalid: the scheduler does not fit the model, or refuses its config or the number of steps.
    """
    _check_fit(config, name, steps)
    try:
        scheduler = copy.deepcopy(_without_timesteps(json.dumps(dict(config), sort_keys=True), name))
        with RootsOfRounding():
            scheduler.set_timesteps(steps, device="cpu")
    except REFUSALS as error:
        raise refusal(name, steps, error) from error
    # Without it the scheduler searches its timesteps for the first one, and where a schedule repeats that
    # timestep (many steps, dense at the start) it would begin at the second.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def step_options(scheduler: Any, name: str, generator: torch.Generator | None) -> dict[str, Any]:
    """Return what the pipelines pass to a scheduler's step: the job's generator, and eta where it is known.

    A scheduler that grows a Brownian tree of its own instead of asking the generator gets the generator's seed
    for it, so that its noise is the job's too.
    """
    if generator is not None and hasattr(scheduler, "noise_sampler_seed"):
        scheduler.noise_sampler_seed = generator.initial_seed()
    options = {"generator": generator, "eta": SCHEDULERS[name].eta}
    known = inspect.signature(scheduler.step).parameters
    return {option: value for option, value in options.items() if option in known}


def from_held_config(config: Mapping[str, Any], class_name: str, overrides: Mapping[str, Any]) -> Any:
    """Return the scheduler that a user of diffusers gets from a pipeline which holds this config.

    That is the pipeline's own scheduler as it stands, where class and overrides ask for nothing else. Any other is
    made by `from_config`, which takes the new class's defaults for what the model's file leaves out
    (`_use_default_values`), also where the pipeline has corrected it.

    Args:
        config: its `_class_name` is the class of the pipeline's own scheduler.
        class_name: of the scheduler to make.
        overrides: settings in place of the config's.
    """
    as_it_stands = class_name == config.get("_class_name") and all(
        key in config and config[key] == value for key, value in overrides.items()
    )
    if as_it_stands:
        config = {key: value for key, value in config.items() if key != "_use_default_values"}
    return getattr(diffusers, class_name).from_config(dict(config), **overrides)


def settings(scheduler: Any) -> dict[str, Any]:
    """Return what a scheduler's class knows of its config; the rest is the model's, for other classes."""
    known = inspect.signature(type(scheduler).__init__).parameters
    return {key: value for key, value in scheduler.config.items() if key in known}


def refusal(name: str, steps: int, error: Exception) -> JobInvalid:
    """Return a scheduler's own refusal as the job's error, with a fix where diffusers gives none."""
    fix = ""
    if isinstance(error, IndexError):
        # A timestep past the model's last one: an offset, and as many steps as the model has timesteps.
        fix = ": use fewer steps"
    elif isinstance(error, NotImplementedError):
        fix = ": use another scheduler"
    return JobInvalid(f"scheduler={name}, steps={steps}: {error}{fix}")


@lru_cache(maxsize=_SCHEDULERS_KEPT)
@torch.inference_mode(False)
def _without_timesteps(config_text: str, name: str) -> Any:
    """Return a scheduler before its steps are set, shared: copy it. Some classes take 0.2 s to make."""
    config, spec = json.loads(config_text), SCHEDULERS[name]
    return from_held_config(config, spec.class_name, _overrides(config, spec))


def _check_fit(config: Mapping[str, Any], name: str, steps: int) -> None:
    path, parts = model_path(config), [part for part in SCHEDULE_PARTS if config.get(part)]
    problem = (
        path_problem(name, path)
        or prediction_problem(name, str(config.get("prediction_type")))
        or steps_problem(name, steps, original_steps=original_steps(config))
        or shifting_problem(name, path, parts)
    )
    if problem is not None:
        raise JobInvalid(problem.text)


def _overrides(config: Mapping[str, Any], spec: SchedulerSpec) -> dict[str, Any]:
    """Return a row's overrides; a flow model's shift goes by two names, depending on the class."""
    if spec.path != "flow":
        return dict(spec.overrides)
    shift = "flow_shift" if "use_flow_sigmas" in spec.overrides else "shift"
    return {**spec.overrides, shift: config.get("shift", config.get("flow_shift", 1.0))}
