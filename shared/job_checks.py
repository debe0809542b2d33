"""Checks whether a model can do a job, from facts alone; used before submitting and by the worker.

Each check returns the problem or None. A worker asks them of the model it has loaded, a producer of the facts in the
model's files; what only torch can tell (a schedule that computes NaN) stays with the worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared.job import Job
from shared.model_facts import ModelFacts
from shared.schedulers import NO_SAMPLE_PREDICTION, SCHEDULE_PARTS, SCHEDULERS, ModelPath, SchedulerSpec

#: Schedulers whose noise does not come from the generators of a pipeline's call: nobody could make such an image again.
OWN_NOISE = frozenset({"DPMSolverSDEScheduler"})

#: Schedulers named in a message.
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class JobProblem:
    """Why a job is certain to fail."""

    #: Value, reason and fix, in one line.
    text: str
    #: A condition of the sweep language that holds for such jobs, but for their model; "" where none can say it.
    condition: str


def job_problem(facts: ModelFacts, name: str, job: Job) -> JobProblem | None:
    """Return the first reason why a job of a model is certain to fail, as far as the model's files tell.

    Args:
        name: the model's, for the message.
    """
    named = _named(facts, name)
    checks = [
        bucket_problem(facts, name, width=job.width, height=job.height),
        scheduler_problem(facts, named, job.scheduler),
        steps_problem(job.scheduler, job.steps, original_steps=facts.original_steps),
    ]
    if not facts.is_native:
        checks += [
            rule_problem(named, job.guidance_rule),
            guidance_problem(
                named,
                scale=job.guidance_scale,
                has_negative=job.negative_prompt is not None,
                guided=facts.guided,
                negative=facts.negative,
                needs_negative=facts.needs_negative,
                distilled=facts.distilled,
            ),
            words_problem(named, "prompt", job.prompt, facts.text_limit),
            words_problem(named, "negative_prompt", _heard_negative(job), facts.text_limit),
        ]
    return next((problem for problem in checks if problem is not None), None)


def bucket_problem(facts: ModelFacts, name: str, *, width: int, height: int) -> JobProblem | None:
    """Return why no image of a size can be rendered with a model, whatever else a job says."""
    if facts.refusal:
        return JobProblem(text=f"model={name}: {facts.refusal}", condition=f"model == {name!r}")
    named, unit = _named(facts, name), facts.size_unit_px
    return side_problem(named, "width", width, unit) or side_problem(named, "height", height, unit)


def scheduler_problem(facts: ModelFacts, named: str, key: str) -> JobProblem | None:
    """Return why a scheduler does not fit a model, with some that do."""
    if facts.is_native and facts.path is not None:
        return (
            path_problem(key, facts.path)
            or prediction_problem(key, facts.prediction_type)
            or shifting_problem(key, facts.path, facts.schedule_parts)
        )
    if facts.path is None or _may_fit(facts, SCHEDULERS[key]):
        return prediction_problem(key, facts.prediction_type)
    fitting = [other for other, spec in SCHEDULERS.items() if _may_fit(facts, spec)]
    return _scheduler(key, f"scheduler={key}: it does not fit {named}; {_use(fitting)}")


def path_problem(key: str, path: ModelPath) -> JobProblem | None:
    """Return why a scheduler cannot walk the path from noise to image that a model was trained on."""
    own = SCHEDULERS[key].path
    if own == path:
        return None
    fitting = [other for other, spec in SCHEDULERS.items() if spec.path == path]
    said = f"scheduler={key} is for models trained on the path {own!r}, and this one's is {path!r}"
    return _scheduler(key, f"{said}: {_use(fitting)}")


def shifting_problem(key: str, path: ModelPath, parts: Iterable[str]) -> JobProblem | None:
    """Return why the row engine does not render a flow model that shifts its noise by the size of an image."""
    if path != "flow" or "use_dynamic_shifting" not in parts:
        return None
    said = "use_dynamic_shifting=True in the model's scheduler config is not supported"
    return _scheduler(key, f"scheduler={key}: {said}: set it to False and give a shift")


def prediction_problem(key: str, prediction_type: str) -> JobProblem | None:
    """Return why a scheduler does not take what a model predicts."""
    if prediction_type != "sample" or SCHEDULERS[key].class_name not in NO_SAMPLE_PREDICTION:
        return None
    taking = [
        other
        for other, spec in SCHEDULERS.items()
        if spec.path == SCHEDULERS[key].path and spec.class_name not in NO_SAMPLE_PREDICTION
    ]
    return _scheduler(
        key, f"scheduler={key} does not take a model with prediction_type sample: {_use(taking)}"
    )


def steps_problem(key: str, steps: int, *, original_steps: int) -> JobProblem | None:
    """Return why a scheduler cannot do a number of steps.

    Args:
        original_steps: `original_inference_steps` of the model, for schedulers that pick from those.
    """
    spec = SCHEDULERS[key]
    if steps < spec.min_steps:
        text = f"scheduler={key}, steps={steps}: use {spec.min_steps} or more"
        return JobProblem(text=text, condition=f"scheduler == {key!r} and steps < {spec.min_steps}")
    if spec.picks_steps and steps > original_steps:
        text = f"scheduler={key}, steps={steps}: use {original_steps} or fewer"
        return JobProblem(text=text, condition=f"scheduler == {key!r} and steps > {original_steps}")
    return None


def side_problem(named: str, side: str, value: int, unit: int) -> JobProblem | None:
    """Return why a side of an image does not fit the model's latents."""
    if value >= unit and value % unit == 0:
        return None
    nearest = max(unit, round(value / unit) * unit)
    text = f"{side}={value}: {named} wants a multiple of {unit}, such as {nearest}"
    return JobProblem(text=text, condition=f"{side} == {value}")


def rule_problem(named: str, rule: str | None) -> JobProblem | None:
    """Return why a model that a diffusers pipeline renders takes no guidance rule."""
    if rule is None:
        return None
    text = f"guidance_rule={rule}: rules are for Stable Diffusion 1.x, 2.x and SDXL; {named} takes none: remove it"
    return JobProblem(text=text, condition="guidance_rule is not null")


def guidance_problem(
    named: str,
    *,
    scale: float,
    has_negative: bool,
    guided: bool,
    negative: bool,
    needs_negative: bool,
    distilled: bool,
) -> JobProblem | None:
    """Return why a pipeline cannot do what a guidance scale and a negative prompt ask for together.

    Args:
        guided: and the following: see `ModelFacts`.
    """
    if scale <= 1.0:
        return None
    if has_negative:
        if not negative:
            text = f"negative_prompt: {named} hears none; set negative_prompt: null"
            return JobProblem(text=text, condition="negative_prompt is not null and guidance_scale > 1")
        return None
    if distilled:
        return None
    if not guided:
        text = f"guidance_scale={scale:g}: {named} is not guided; set guidance_scale: 1"
        return JobProblem(text=text, condition="guidance_scale > 1")
    if needs_negative:
        text = (
            f"guidance_scale={scale:g}: {named} is guided only with a negative prompt; "
            "set negative_prompt: '' to guide away from the empty prompt, or guidance_scale: 1 for no guidance"
        )
        return JobProblem(text=text, condition="negative_prompt is null and guidance_scale > 1")
    return None


def words_problem(named: str, field: str, said: str, limit: int | None) -> JobProblem | None:
    """Return why a text is too long whatever the tokenizer makes of it: each word is a token or more."""
    if not too_many_words(said, limit):
        return None
    text = f"{field}: at least {count_words(said)} tokens, and {named} reads {limit}: shorten it"
    return JobProblem(text=text, condition="")


def too_many_words(text: str, limit: int | None) -> bool:
    """Say whether a text has more words than a model reads tokens."""
    # A word and the space after it are two characters: most texts need no counting.
    return limit is not None and len(text) > 2 * limit and count_words(text) > limit


def count_words(text: str) -> int:
    """Return the words of a text: the least number of tokens that any tokenizer makes of it."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def knows_schedule(spec: SchedulerSpec, parts: Iterable[str]) -> bool:
    """Say whether a flow scheduler knows the parts of a model's own schedule that the model uses."""
    return all(spec.class_name in SCHEDULE_PARTS[part] for part in parts)


def _heard_negative(job: Job) -> str:
    return (job.negative_prompt or "") if job.guidance_scale > 1.0 else ""


def _named(facts: ModelFacts, name: str) -> str:
    return name if facts.is_native else f"{name} ({facts.family})"


def _may_fit(facts: ModelFacts, spec: SchedulerSpec) -> bool:
    """Say whether nothing that is known without diffusers speaks against a scheduler of a pipeline."""
    if spec.path != facts.path or spec.class_name in OWN_NOISE or (spec.eta and not facts.takes_eta):
        return False
    return spec.path != "flow" or knows_schedule(spec, facts.schedule_parts)


def _scheduler(key: str, text: str) -> JobProblem:
    return JobProblem(text=text, condition=f"scheduler == {key!r}")


def _use(fitting: list[str]) -> str:
    return f"use {' or '.join(fitting[:_NAMED])}" if fitting else "no scheduler of the table fits"
