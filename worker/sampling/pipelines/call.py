"""Makes the arguments of a pipeline's call from requests. Only counts tokens; calls no network.

| the pipeline | no negative prompt (null) | a negative prompt ("" is one) |
|---|---|---|
| classifier-free guidance by `guidance_scale` | the pipeline's own empty prompt | it |
| `true_cfg_scale`, scale as an input (FLUX dev) | `guidance_scale` = w, one row | `true_cfg_scale` = w, two rows |
| `true_cfg_scale` alone (FLUX schnell, Qwen-Image) | refused above 1: nothing would happen | `true_cfg_scale` = w |
| scale as an input alone (FLUX.2, LCM) | `guidance_scale` = w, one row | refused above 1 |

A guidance scale of 1 or less is no guidance, here as everywhere in Printroom: the negative prompt is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import JobInvalid
from shared.job_checks import guidance_problem, rule_problem
from shared.schedulers import SCHEDULERS
from worker.sampling.pipelines.model import ONE_AT_A_TIME, PADS_TO_ONE_LENGTH, LoadedPipeline
from worker.sampling.pipelines.schedulers import check_scheduler
from worker.sampling.request import SampleRequest
from worker.sampling.request_checks import check_numbers, check_size

#: What is said to every pipeline that asks. The size asked for is the size sampled, not the nearest one of a list,
#: scaled; and text is text: cleaning it depends on packages that may not be there.
_FIXED: Mapping[str, bool] = {"use_resolution_binning": False, "clean_caption": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCall:
    """A request that was checked."""

    #: Position of the request in what the sampler was given.
    index: int
    request: SampleRequest
    #: The negative prompt as the pipeline gets it; None where it gets none.
    negative: str | None
    #: Guidance arguments, by keyword.
    guidance: Mapping[str, float]
    #: Network rows at every step.
    rows: int
    prompt_tokens: int
    negative_tokens: int
    #: What must be equal to share a call.
    key: tuple[object, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """What decides the memory of a row: height, width."""
        return (self.request.height, self.request.width)


#: Requests of one call.
CallBatch = tuple[PreparedCall, ...]


def prepare_call(model: LoadedPipeline, index: int, request: SampleRequest) -> PreparedCall:
    """Return a request ready for a call.

    Raises:
        JobInvalid: it asks for what this pipeline cannot do; the message has the value and what to use instead.
    """
    _check(model, request)
    guidance, negative, rows = _guidance(model, request)
    prompt_tokens = _count(model, "prompt", request.prompt)
    negative_tokens = _count(model, "negative_prompt", negative) if negative else 0
    shared: tuple[object, ...] = (
        request.steps,
        request.scheduler,
        request.height,
        request.width,
        *sorted(guidance.items()),
        negative is None,
    )
    if model.family not in PADS_TO_ONE_LENGTH:
        shared += (prompt_tokens, negative_tokens)
    return PreparedCall(
        index=index,
        request=request,
        negative=negative,
        guidance=guidance,
        rows=rows,
        prompt_tokens=prompt_tokens,
        negative_tokens=negative_tokens,
        key=(*shared, index) if model.family in ONE_AT_A_TIME else shared,
    )


def call_arguments(model: LoadedPipeline, batch: CallBatch) -> dict[str, Any]:
    """Return the arguments of the call that renders a batch, but for its generators."""
    first = batch[0].request
    arguments: dict[str, Any] = {
        # Lists of their own: some pipelines write into them.
        "prompt": [job.request.prompt for job in batch],
        "height": first.height,
        "width": first.width,
        "num_inference_steps": first.steps,
        "output_type": "np",
        **batch[0].guidance,
    }
    if batch[0].negative is not None:
        arguments["negative_prompt"] = [job.negative for job in batch]
    if "max_area" in model.call.keywords:  # or it samples the size's ratio at a size of its own
        arguments["max_area"] = first.height * first.width
    if eta := SCHEDULERS[first.scheduler].eta:
        arguments["eta"] = eta
    return arguments | {name: value for name, value in _FIXED.items() if name in model.call.keywords}


def make_call_batches(jobs: Iterable[PreparedCall], batch_rows: int) -> list[CallBatch]:
    """Group jobs that can share a call and cut groups into batches of at most `batch_rows` rows, at least one job."""
    groups: dict[object, list[PreparedCall]] = {}
    for job in jobs:
        groups.setdefault(job.key, []).append(job)
    batches: list[CallBatch] = []
    for group in groups.values():
        size = max(1, batch_rows // group[0].rows)
        batches += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    return batches


def _guidance(model: LoadedPipeline, request: SampleRequest) -> tuple[dict[str, float], str | None, int]:
    """Return the guidance arguments, the negative prompt and the rows a request takes."""
    facts, scale = model.call, request.guidance_scale
    negative = request.negative_prompt if request.guided else None
    problem = guidance_problem(
        f"{model.name} ({model.family})",
        scale=scale,
        has_negative=negative is not None,
        guided=facts.scale is not None,
        negative=facts.negative,
        needs_negative=facts.needs_negative,
        distilled=facts.embedded,
    )
    if problem is not None:
        raise JobInvalid(problem.text)
    if facts.embedded and negative is None:
        return {"guidance_scale": scale}, None, 1
    if facts.scale is None:
        return {}, None, 1
    if not request.guided:
        return {facts.scale: facts.unguided_scale}, None, 1
    return {facts.scale: scale}, negative, 2


def _count(model: LoadedPipeline, field: str, text: str) -> int:
    """Return the tokens of a text.

    Raises: JobInvalid where they are more than the pipeline says it reads.
    """
    tokens, limit = model.texts.count(text), model.call.text_limit
    if limit is not None and tokens > limit:
        raise too_long(model, field, tokens, limit)
    return tokens


def too_long(model: LoadedPipeline, field: str, tokens: int, limit: int) -> JobInvalid:
    """Return the refusal of a text that would be cut."""
    return JobInvalid(
        f"{field}: {tokens} tokens, and {model.name} ({model.family}) reads {limit}: shorten it"
    )


def _check(model: LoadedPipeline, request: SampleRequest) -> None:
    named = f"{model.name} ({model.family})"
    if problem := rule_problem(named, request.guidance_rule):
        raise JobInvalid(problem.text)
    check_numbers(request)
    check_scheduler(model, request.scheduler, steps=request.steps)
    check_size(named, request, unit_px=model.call.size_unit_px)
