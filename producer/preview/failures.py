"""Finds the jobs of a plan that are certain to fail, from the values on its axes, without going through its jobs.

A block is a product of axes. What a check asks of a job (its scheduler, whether it has few steps, whether it is guided)
takes few values on each axis, so a block is as few cases as those multiply to, each with how many jobs it stands for.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from producer.preview.count import COUNTED_MAX, SPREAD_JOBS, block_ranges
from producer.preview.spread import spread
from shared.axes import HOLE, STYLE_FIELDS, Axis, ListAxis
from shared.errors import SweepError
from shared.job import JOB_FIELDS, Job
from shared.job_checks import JobProblem, bucket_problem, job_problem, too_many_words
from shared.model_facts import ModelFacts
from shared.plan import Block, Plan
from shared.schedulers import SCHEDULERS

#: Reasons shown of a sweep that is refused.
_SHOWN = 10

#: Steps from which on only the schedulers with a most are particular.
_STEPS_ENOUGH = max(spec.min_steps for spec in SCHEDULERS.values())

#: What is asked of a job, and what only of one that a diffusers pipeline renders.
_ASKED = ("scheduler", "steps")
_ASKED_OF_PIPELINES = ("guidance_scale", "guidance_rule", "negative_prompt", "prompt")


#: A job of which every field is null, zero or empty: what no check reads keeps these values.
_UNASKED = Job(**{field.name: field.types[-1]() for field in JOB_FIELDS}, id="")


@dataclass(frozen=True, kw_only=True, slots=True)
class CertainFailure:
    """Jobs that are certain to fail for one reason."""

    #: Value, reason and fix, of the first of them.
    reason: str
    #: What leaves them out, as an expression of `skip`; "" where only the fix helps.
    skip: str
    #: How many jobs; where `exact` is not, at least as many as were found among those looked at.
    jobs: int
    exact: bool
    #: Plan index of the first.
    first: int


def certain_failures(plan: Plan, facts: Mapping[str, ModelFacts]) -> tuple[CertainFailure, ...]:
    """Return what is certain to fail, in the order of the plan.

    Args:
        facts: fingerprint -> what is known of the model. Of others nothing is known, and nothing said.
    """
    found: dict[str, CertainFailure] = {}
    for block, (start, stop) in zip(plan.blocks, block_ranges(plan), strict=True):
        model = facts.get(block.bucket.model)
        if model is None:
            continue
        name = plan.models.get(block.bucket.model, block.bucket.model)
        for problem, jobs, index, exact in _block_failures(plan, block, start, stop, model, name):
            skip = _condition(problem, name, several=len(plan.models) > 1)
            key = skip or problem.text.partition(":")[0]
            one = found.get(key)
            found[key] = (
                CertainFailure(reason=problem.text, skip=skip, jobs=jobs, exact=exact, first=index)
                if one is None
                else replace(
                    one, jobs=one.jobs + jobs, exact=one.exact and exact, first=min(one.first, index)
                )
            )
    return tuple(sorted(found.values(), key=lambda failure: failure.first))


def refuse_certain_failures(plan: Plan, failures: Sequence[CertainFailure]) -> None:
    """Raise SweepError for jobs that are certain to fail, with every reason and what to do."""
    if not failures:
        return
    jobs, least = sum(failure.jobs for failure in failures), all(failure.exact for failure in failures)
    said = f"{'' if least else 'at least '}{jobs:,} of {len(plan):,} jobs are certain to fail, so nothing is rendered:"
    lines = [said, *map(say_failure, failures[:_SHOWN])]
    if len(failures) > _SHOWN:
        lines.append(f"... and {len(failures) - _SHOWN:,} more reasons: `printroom plan` lists them")
    skips = [failure.skip for failure in failures[:_SHOWN] if failure.skip]
    if skips and jobs < len(plan):
        lines += [
            "to leave them out, write in the sweep:",
            "skip:",
            *(f"  - {json.dumps(skip)}" for skip in skips),
        ]
    lines.append("to render the others and let these fail: --allow-failing (allow_failing=True in Python)")
    raise SweepError(lines)


def say_failure(failure: CertainFailure) -> str:
    """Return a reason with how many jobs it is of, in one line."""
    jobs = f"{'' if failure.exact else 'at least '}{failure.jobs:,} job{'' if failure.jobs == 1 else 's'}"
    return f"{failure.reason} ({jobs}, the first is number {failure.first:,})"


def _condition(problem: JobProblem, name: str, *, several: bool) -> str:
    if not several or not problem.condition or problem.condition.startswith("model =="):
        return problem.condition
    return f"model == {name!r} and {problem.condition}"


def _block_failures(
    plan: Plan, block: Block, start: int, stop: int, facts: ModelFacts, name: str
) -> Iterator[tuple[JobProblem, int, int, bool]]:
    """Yield (problem, jobs, plan index of the first, whether that is all) of a block."""
    width, height = block.bucket.width, block.bucket.height
    if whole := bucket_problem(facts, name, width=width, height=height):
        yield whole, stop - start, start, True
        return
    asked = _ASKED if facts.is_native else (*_ASKED, *_ASKED_OF_PIPELINES)
    axes = [plan.axes[position] for position in block.axes]
    if block.sample is None and all(_is_told_by_values(axis, asked) for axis in axes):
        values = _UNASKED._replace(width=width, height=height)
        yield from _by_axes(axes, start, asked, values, facts, name)
    else:
        yield from _by_jobs(plan, start, stop, facts, name)


def _is_told_by_values(axis: Axis, asked: Sequence[str]) -> bool:
    """Say whether an axis decides what is asked by the values it lists."""
    fields = set(axis.fields)
    if not fields & set(asked):
        # What fills holes and wraps texts decides texts.
        texts = {field for field in fields if field.startswith(HOLE)} | fields & set(STYLE_FIELDS)
        return not (texts and "prompt" in asked)
    if not isinstance(axis, ListAxis):
        return False
    positions = [position for position, field in enumerate(axis.fields) if field in asked]
    return not any(isinstance(value[position], tuple) for value in axis.values for position in positions)


def _by_axes(
    axes: Sequence[Axis],
    start: int,
    asked: Sequence[str],
    values: Job,
    facts: ModelFacts,
    name: str,
) -> Iterator[tuple[JobProblem, int, int, bool]]:
    """Go through the cases that the axes multiply to."""
    strides = [math.prod(axis.length for axis in axes[position + 1 :]) for position in range(len(axes))]
    cases = [_cases(axis, asked, facts) for axis in axes]
    for picked in itertools.product(*cases):
        fields = {field: value for case in picked for field, value in case.values.items()}
        problem = job_problem(facts, name, values._replace(**fields))
        if problem is not None:
            jobs = math.prod(case.digits for case in picked)
            index = start + sum(case.first * stride for case, stride in zip(picked, strides, strict=True))
            yield problem, jobs, index, True


@dataclass(kw_only=True, slots=True)
class _Case:
    """Digits of an axis that are alike to every check."""

    values: Mapping[str, Any]
    first: int
    digits: int = 0


def _cases(axis: Axis, asked: Sequence[str], facts: ModelFacts) -> list[_Case]:
    places = [(field, position) for position, field in enumerate(axis.fields) if field in asked]
    if not places:
        return [_Case(values={}, first=0, digits=axis.length)]
    found: dict[tuple[Any, ...], _Case] = {}
    for digit in range(axis.length):
        value = axis.at(digit)
        key = tuple(_kind(field, value[position], facts) for field, position in places)
        case = found.get(key)
        if case is None:
            case = found[key] = _Case(values={f: value[p] for f, p in places}, first=digit)
        case.digits += 1
    return list(found.values())


def _kind(field: str, value: Any, facts: ModelFacts) -> Any:
    """Return what the checks see of a value: equal kinds, equal verdicts."""
    match field:
        case "steps":
            return value if value < _STEPS_ENOUGH else _STEPS_ENOUGH + (value > facts.original_steps)
        case "guidance_scale":
            return value > 1.0
        case "guidance_rule":
            return value is None
        case "negative_prompt":
            return (value is None, too_many_words(value or "", facts.text_limit))
        case "prompt":
            return too_many_words(value, facts.text_limit)
        case _:
            return value


def _by_jobs(
    plan: Plan, start: int, stop: int, facts: ModelFacts, name: str
) -> Iterator[tuple[JobProblem, int, int, bool]]:
    """Look at jobs one by one, where the axes do not say it: at all of them, or at some, evenly spread."""
    exact = stop - start <= COUNTED_MAX
    for index in range(start, stop) if exact else spread(start, stop, SPREAD_JOBS):
        problem = job_problem(facts, name, plan.job(index))
        if problem is not None:
            yield problem, 1, index, exact
