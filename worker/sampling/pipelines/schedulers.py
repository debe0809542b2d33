"""Which schedulers of the table fit a pipeline, and how each is made from the model's own. Knows nothing of requests.

Nothing is exchanged for something near it: a scheduler that does not fit is refused, with the keys that do.
A model trained by flow matching takes the table's flow rows with the model's own shift; any other takes what diffusers
calls compatible with its own scheduler. Some pipelines set noise levels in a way that not every scheduler takes; that
shows when the scheduler is first asked, and is remembered.
"""

from __future__ import annotations

from typing import Any

import diffusers

from shared.errors import JobInvalid
from shared.job_checks import OWN_NOISE, knows_schedule, prediction_problem, steps_problem
from shared.model_facts import original_steps
from shared.schedulers import SCHEDULE_PARTS, SCHEDULERS, SchedulerSpec, model_path
from worker.sampling.pipelines.model import LoadedPipeline
from worker.sampling.schedules.schedulers import from_held_config


def check_scheduler(model: LoadedPipeline, key: str, *, steps: int) -> None:
    """Refuse a scheduler that does not fit, or cannot make so few steps.

    Raises: JobInvalid, with the keys or the number that would do.
    """
    if key in model.unfit_schedulers:
        raise unfit(model, key)
    if key not in SCHEDULERS or not _fits(model, SCHEDULERS[key]):
        own = f"{model.name} ({model.family}, {model.scheduler_class})"
        raise unfit(model, key, f"it does not fit {own}")
    config = model.scheduler_config
    problem = prediction_problem(key, str(config.get("prediction_type"))) or steps_problem(
        key, steps, original_steps=original_steps(config)
    )
    if problem is not None:
        raise JobInvalid(problem.text)


def unfit(model: LoadedPipeline, key: str, reason: str | None = None) -> JobInvalid:
    """Return the refusal of a scheduler, with the keys that may be used in its place.

    Args:
        model: what it does not fit.
        key: of the scheduler.
        reason: why; None for one that is known by now.
    """
    reason = model.unfit_schedulers.setdefault(key, reason or "it does not fit")
    fitting = fitting_schedulers(model)
    fix = f"use {', '.join(fitting)}" if fitting else "no scheduler of the table fits"
    return JobInvalid(f"scheduler={key}: {reason}; {fix}")


def fitting_schedulers(model: LoadedPipeline) -> list[str]:
    """Return the keys of the table that fit a model as far as is known, in the table's order."""
    return [
        key for key, spec in SCHEDULERS.items() if key not in model.unfit_schedulers and _fits(model, spec)
    ]


def make_pipeline_scheduler(model: LoadedPipeline, key: str) -> Any:
    """Return a fresh diffusers scheduler for a call, made from the model's own as diffusers' users make it.

    Raises: JobInvalid where it refuses the model's config.
    """
    spec = SCHEDULERS[key]
    overrides = dict(spec.overrides)
    if spec.path == "flow":
        # The two kinds of schedulers call the model's own shift another name.
        overrides["shift" if _is_flow_class(spec.class_name) else "flow_shift"] = _shift(model)
    try:
        config = {**model.scheduler_config, "_class_name": model.scheduler_class}
        return from_held_config(config, spec.class_name, overrides)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise unfit(model, key, f"{type(error).__name__}: {error}") from error


def _fits(model: LoadedPipeline, spec: SchedulerSpec) -> bool:
    scheduler_class = _class_of(spec)
    config = {**model.scheduler_config, "_class_name": model.scheduler_class}
    if scheduler_class is None or spec.path != model_path(config):
        return False
    if spec.class_name in OWN_NOISE or (spec.eta and "eta" not in model.call.keywords):
        return False
    if spec.path == "flow":
        return knows_schedule(spec, [part for part in SCHEDULE_PARTS if model.scheduler_config.get(part)])
    own = getattr(diffusers, model.scheduler_class)
    # diffusers' lists are not symmetric: special schedulers list the common ones, which know nothing of what makes
    # them special.
    return scheduler_class is own or (
        spec.class_name in own._compatibles and model.scheduler_class in scheduler_class._compatibles
    )


def _shift(model: LoadedPipeline) -> float:
    shift = model.scheduler_config.get("shift" if _is_flow_class(model.scheduler_class) else "flow_shift")
    return 1.0 if shift is None else float(shift)


def _is_flow_class(name: str) -> bool:
    return name.startswith("FlowMatch")


def _class_of(spec: SchedulerSpec) -> Any:
    return getattr(diffusers, spec.class_name, None)
