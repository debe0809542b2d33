"""Checks a request against a model, tokenizes its texts, resolves its schedule. Knows nothing of batches or noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import JobInvalid
from shared.guidance import read_rule
from shared.job_checks import side_problem
from shared.schedulers import SCHEDULERS
from worker.sampling.families import family_of
from worker.sampling.families.base import Conditioning
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
from worker.sampling.rows.conditioning import TokenizedText, encode, tokenize, zeros_like
from worker.sampling.schedules.programs import NotLinear, ScheduleProgram, compile_program, make_scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedJob:
    """A request that was checked, tokenized and scheduled."""

    request: SampleRequest
    #: Its texts by branch (see `rules`); None is a conditioning of zeros.
    texts: Mapping[int, TokenizedText | None]
    #: Chunks that all its texts are padded to.
    length: int
    program: ScheduleProgram | NotLinear
    #: What each model evaluation does.
    guidance: tuple[Guidance, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """What must be equal for jobs to share a UNet call: height, width, chunks."""
        return (self.request.height, self.request.width, self.length)

    @property
    def peak_rows(self) -> int:
        """The most UNet rows it takes at once."""
        return peak_rows(self.guidance)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, without BOS and EOS."""
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
        JobInvalid: it asks for what this model cannot do; the message has the value and the mend.
    """
    _check(model, request)
    program = compile_program(model.scheduler_config, request.scheduler, request.steps)
    evaluations = _evaluations(model, request, program)
    guidance = resolve_guidance(request.guidance_rule, request.guidance_scale, evaluations)
    branches = sorted({branch for step in guidance for branch in step.branches})
    texts = {branch: _text(model, request, branch) for branch in branches}
    length = max(text.length for text in texts.values() if text is not None)
    return PreparedJob(request=request, texts=texts, length=length, program=program, guidance=guidance)


def encode_texts(model: LoadedModel, job: PreparedJob) -> dict[int, Conditioning]:
    """Return what each of a job's texts conditions a row with."""
    prompt = job.texts[POSITIVE]
    assert prompt is not None
    positive = encode(model, prompt, length=job.length)
    return {
        branch: zeros_like(positive) if text is None else encode(model, text, length=job.length)
        for branch, text in job.texts.items()
    }


def _evaluations(model: LoadedModel, request: SampleRequest, program: ScheduleProgram | NotLinear) -> int:
    if isinstance(program, ScheduleProgram):
        return program.evaluations
    return len(make_scheduler(model.scheduler_config, request.scheduler, request.steps).timesteps)


def _text(model: LoadedModel, request: SampleRequest, branch: int) -> TokenizedText | None:
    """Return the text of a branch, or None where it is zeros."""
    if branch == POSITIVE:
        return tokenize(model, request.prompt)
    if branch >= FIRST_EXTRA:
        return tokenize(model, read_rule(request.guidance_rule).negatives[branch - FIRST_EXTRA].text)
    text = None if branch == EMPTY else request.negative_prompt
    if text is None and family_of(model).null_is_zeros(model):
        return None
    return tokenize(model, text or "")


def _check(model: LoadedModel, request: SampleRequest) -> None:
    if request.scheduler not in SCHEDULERS:
        raise JobInvalid(f"scheduler={request.scheduler!r}: use one of {', '.join(SCHEDULERS)}")
    if request.steps < 1:
        raise JobInvalid(f"steps={request.steps}: use 1 or more")
    if not math.isfinite(request.guidance_scale):
        raise JobInvalid(f"guidance_scale={request.guidance_scale}: use a finite number")
    if not 0 <= request.seed < 2**64:
        raise JobInvalid(f"seed={request.seed}: use 0 to 2**64 - 1")
    _check_rule(request)
    for side in ("width", "height"):
        _check_side(model, side, getattr(request, side))


def _check_rule(request: SampleRequest) -> None:
    try:
        read_rule(request.guidance_rule)
    except ValueError as error:
        raise JobInvalid(str(error)) from error


def _check_side(model: LoadedModel, side: str, value: int) -> None:
    problem = side_problem(model.name, side, value, model.vae_scale_factor)
    if problem is not None:
        raise JobInvalid(problem.text)
