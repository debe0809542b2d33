"""Requests to jobs that are ready for a batch: checked, tokenized and scheduled. Knows nothing of batches or noise.

All texts of a job stand on an equal footing: each is padded to the longest of them, and none is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from shared.errors import JobInvalid
from shared.guidance import read_rule
from shared.schedulers import SCHEDULERS
from worker.sampling.families.base import Conditioning, ImageSettings, TokenizedText
from worker.sampling.guidance import (
    EMPTY,
    FIRST_EXTRA,
    NEGATIVE,
    POSITIVE,
    Guidance,
    peak_rows,
    resolve_guidance,
)
from worker.sampling.model import LoadedModel
from worker.sampling.request import SampleRequest
from worker.sampling.request_checks import check_numbers, check_size
from worker.sampling.schedules.programs import NotLinear, ScheduleProgram, compile_program, make_scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedJob:
    """A request that was checked, tokenized and scheduled."""

    request: SampleRequest
    #: Its texts by branch (see `guidance`).
    texts: Mapping[int, TokenizedText]
    #: Length that all its texts are padded to, in the family's unit.
    length: int
    program: ScheduleProgram | NotLinear
    #: What each model evaluation does.
    guidance: tuple[Guidance, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """What must be equal for jobs to share a call of the denoiser: height, width, text length."""
        return (self.request.height, self.request.width, self.length)

    @property
    def peak_rows(self) -> int:
        """The most rows it takes at once."""
        return peak_rows(self.guidance)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, without begin and end marks."""
        return self._tokens(POSITIVE)

    @property
    def negative_tokens(self) -> int:
        """Tokens of the negative prompt; 0 where it is not used."""
        return self._tokens(NEGATIVE)

    def _tokens(self, branch: int) -> int:
        text = self.texts.get(branch)
        return text.tokens if text else 0


def prepare(model: LoadedModel, request: SampleRequest) -> PreparedJob:
    """Return a request ready for a batch.

    Raises:
        JobInvalid: it asks for what this model cannot do; the message has the value and what to use instead.
    """
    _check(model, request)
    program = compile_program(model.scheduler_config, request.scheduler, request.steps)
    evaluations = _evaluations(model, request, program)
    guidance = resolve_guidance(request.guidance_rule, request.guidance_scale, evaluations)
    branches = sorted({branch for step in guidance for branch in step.branches})
    texts = {branch: model.networks.tokenize(_text(request, branch)) for branch in branches}
    length = max(text.length for text in texts.values())
    return PreparedJob(request=request, texts=texts, length=length, program=program, guidance=guidance)


@torch.inference_mode()
def encode_texts(model: LoadedModel, job: PreparedJob) -> dict[int, Conditioning]:
    """Return what each of a job's texts conditions a row with, by branch."""
    request = job.request
    settings = ImageSettings(
        height=request.height,
        width=request.width,
        text_length=job.length,
        guidance_scale=request.guidance_scale,
    )
    return {branch: model.networks.condition(text, settings) for branch, text in job.texts.items()}


def _evaluations(model: LoadedModel, request: SampleRequest, program: ScheduleProgram | NotLinear) -> int:
    if isinstance(program, ScheduleProgram):
        return program.evaluations
    return len(make_scheduler(model.scheduler_config, request.scheduler, request.steps).timesteps)


def _text(request: SampleRequest, branch: int) -> str | None:
    """Return the text of a branch; None is no text, and what that means is the family's."""
    if branch == POSITIVE:
        return request.prompt
    if branch >= FIRST_EXTRA:
        return read_rule(request.guidance_rule).negatives[branch - FIRST_EXTRA].text
    return None if branch == EMPTY else request.negative_prompt


def _check(model: LoadedModel, request: SampleRequest) -> None:
    if request.scheduler not in SCHEDULERS:
        raise JobInvalid(f"scheduler={request.scheduler!r}: use one of {', '.join(SCHEDULERS)}")
    check_numbers(request)
    _check_rule(request)
    check_size(model.name, request, unit_px=model.networks.size_unit_px)


def _check_rule(request: SampleRequest) -> None:
    try:
        read_rule(request.guidance_rule)
    except ValueError as error:
        raise JobInvalid(str(error)) from error
