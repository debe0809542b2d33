"""Renders requests through a diffusers pipeline, batch by batch; each image fails alone.

The promises are those of the row engine's `sample`: a batch that crashes is run again one image at a time, and only
what crashes alone fails; a batch that runs out of memory is run again at half the rows. What a whole batch is refused
for (a scheduler, a size) fails all of it at once; texts that are too long fail alone, and the rest run again together.

A pipeline is called with lists and with one CPU generator per image. The call is not changed; its scheduler is watched
(`_Watched`). Knows nothing of queues or storage.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shared.errors import ImageNotFinite, JobInvalid, OutOfMemory, RenderError
from worker.sampling.failures import CallerFailed, guarded, judge, release_memory
from worker.sampling.noise import make_generator
from worker.sampling.pipelines.call import (
    CallBatch,
    PreparedCall,
    call_arguments,
    make_call_batches,
    prepare_call,
    too_long,
)
from worker.sampling.pipelines.model import LoadedPipeline
from worker.sampling.pipelines.schedulers import make_pipeline_scheduler, unfit
from worker.sampling.pipelines.text_checks import TextsCut, TokenizedCall
from worker.sampling.request import Sampled, SampleFailed, SampleOutcome, SampleRequest
from worker.sampling.schedules.rounding import RootsOfRounding

log = logging.getLogger(__name__)

#: What diffusers' pipelines say, as a plain ValueError, to a scheduler that does not take their noise levels.
_SCHEDULER_REFUSED = "does not support custom"

#: What they say to a size, by the same.
_SIZE_REFUSED = "divisible by"

#: Why such a scheduler is refused.
_NOT_ITS_LEVELS = "{} sets noise levels in a way it does not take"


def sample_with_pipeline(
    model: LoadedPipeline,
    requests: Sequence[SampleRequest],
    *,
    batch_rows: int,
    on_step: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[SampleOutcome]:
    """Sample requests and yield an outcome for each, as batches finish (not in the order given).

    Args:
        model: what to sample with.
        requests: any mix; those whose call arguments but for texts and seed are equal share calls.
        batch_rows: network rows a call may take; an image with classifier-free guidance takes two, any other one.
        on_step: a sign of life, called after every step and after every call. What it raises leaves as it is.
        should_stop: asked before each call; when true, the requests not yet yielded are left undone.
    """
    jobs: list[PreparedCall] = []
    for index, request in enumerate(requests):
        try:
            jobs.append(prepare_call(model, index, request))
        except Exception as error:
            yield SampleFailed(request_index=index, error=judge(error))
    yield from _sample_batches(model, jobs, batch_rows, guarded(on_step), should_stop)


def _sample_batches(
    model: LoadedPipeline,
    jobs: list[PreparedCall],
    batch_rows: int,
    on_step: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Iterator[SampleOutcome]:
    """Work through the batches of prepared jobs, cutting those that fail into smaller ones."""
    pending = deque(make_call_batches(jobs, batch_rows))
    while pending and not should_stop():
        batch = pending.popleft()
        outcome = _attempt(model, batch, on_step)
        if isinstance(outcome, list):
            yield from outcome
            left = _without(batch, outcome)
            pending.extendleft([left] if left else [])
            continue
        if isinstance(outcome, OutOfMemory):
            release_memory(model.device)
        if len(batch) == 1 or isinstance(outcome, JobInvalid):
            yield from (SampleFailed(request_index=job.index, error=outcome) for job in batch)
        elif isinstance(outcome, OutOfMemory):
            pending = _with_fewer_rows(batch, pending)
        else:
            log.warning("batch_retried_alone", extra={"jobs": len(batch), "reason": str(outcome)})
            pending.extendleft((job,) for job in reversed(batch))


def _attempt(
    model: LoadedPipeline, batch: CallBatch, on_step: Callable[[], None]
) -> list[SampleOutcome] | RenderError:
    """Return outcomes of a batch, of all its jobs or of those whose texts are too long; or why it failed as a whole.

    The exception itself does not leave this function: its traceback would keep the batch's tensors alive.
    """
    started = time.perf_counter()
    try:
        images = _call(model, batch, on_step)
        on_step()
    except CallerFailed as failure:
        raise failure.error from None
    except TextsCut as cut:
        return _cut_outcomes(model, batch, cut) or judge(cut)
    except Exception as error:
        return _judge_call(model, batch[0].request, error)
    share = (time.perf_counter() - started) / len(batch)
    return [_outcome(model, batch, job, image, share) for job, image in zip(batch, images, strict=True)]


def _call(model: LoadedPipeline, batch: CallBatch, on_step: Callable[[], None]) -> npt.NDArray[np.float32]:
    """Call the pipeline and return its images, (B, H, W, 3) in 0..1.

    Raises: JobInvalid where they are not of the size that was asked for.
    """
    first = batch[0].request
    scheduler = make_pipeline_scheduler(model, first.scheduler)
    generators = [make_generator(job.request.seed) for job in batch]
    model.pipeline.scheduler = scheduler
    model.texts.forget()
    watched = _Watched(model, first, scheduler, generators, on_step)
    try:
        made = model.pipeline(**call_arguments(model, batch), generator=generators).images
    finally:
        watched.let_go()
    images = np.asarray(made, dtype=np.float32)
    if images.shape != (len(batch), first.height, first.width, 3):
        got = f"{images.shape[2]}x{images.shape[1]}" if images.ndim == 4 else f"shape {images.shape}"
        raise JobInvalid(
            f"width={first.width}, height={first.height}: {model.name} ({model.family}) made {got} of it; "
            "use another size"
        )
    return images


class _Watched:
    """A scheduler for one call, whose steps are watched.

    After each step it beats. Before the first it makes sure that all texts were read whole. Where a pipeline gives its
    scheduler no generators (FLUX, SD3 and others expect schedulers that draw nothing) it gives it those of the images,
    so that what is drawn can be drawn again.
    """

    def __init__(
        self,
        model: LoadedPipeline,
        request: SampleRequest,
        scheduler: Any,
        generators: list[torch.Generator],
        on_step: Callable[[], None],
    ) -> None:
        self._scheduler, self._begun = scheduler, False
        step, set_timesteps = scheduler.step, scheduler.set_timesteps
        draws = "generator" in inspect.signature(step).parameters

        @functools.wraps(step)
        def watched_step(*arguments: Any, **options: Any) -> Any:
            if not self._begun:
                model.texts.check()
                self._begun = True
            if draws and options.get("generator") is None:
                options["generator"] = generators
            with RootsOfRounding():
                made = step(*arguments, **options)
            on_step()
            return made

        @functools.wraps(set_timesteps)
        def watched_set_timesteps(*arguments: Any, **options: Any) -> Any:
            try:
                with RootsOfRounding():
                    return set_timesteps(*arguments, **options)
            except (AssertionError, TypeError) as error:  # it does not take what this pipeline says
                raise unfit(model, request.scheduler, _NOT_ITS_LEVELS.format(model.family)) from error
            except (ValueError, IndexError, NotImplementedError) as error:
                raise JobInvalid(f"scheduler={request.scheduler}, steps={request.steps}: {error}") from error

        scheduler.step, scheduler.set_timesteps = watched_step, watched_set_timesteps

    def let_go(self) -> None:
        """Give the scheduler its own methods back: it stays with the pipeline, and would keep what this call holds."""
        del self._scheduler.step, self._scheduler.set_timesteps


def _outcome(
    model: LoadedPipeline,
    batch: CallBatch,
    job: PreparedCall,
    image: npt.NDArray[np.float32],
    seconds: float,
) -> SampleOutcome:
    if not np.isfinite(image).all():
        reason = "NaN or infinity left the pipeline; a lower guidance_scale or another scheduler may help"
        return SampleFailed(request_index=job.index, error=ImageNotFinite(reason))
    return Sampled(
        request_index=job.index,
        pixels=(image * 255).round().astype(np.uint8),  # as diffusers makes its PIL images
        prompt_tokens=job.prompt_tokens,
        negative_tokens=job.negative_tokens,
        seconds=seconds,
        batch_rows=sum(other.rows for other in batch),
        dtype=str(model.dtype).removeprefix("torch."),
    )


# Failures


def _judge_call(model: LoadedPipeline, request: SampleRequest, error: Exception) -> RenderError:
    """Return why a call failed; what pipelines say as plain errors about arguments is the job's mistake."""
    said = str(error)
    if isinstance(error, ValueError) and _SCHEDULER_REFUSED in said:
        return unfit(model, request.scheduler, _NOT_ITS_LEVELS.format(model.family))
    if isinstance(error, ValueError) and _SIZE_REFUSED in said:
        return JobInvalid(f"width={request.width}, height={request.height}: {said}")
    return judge(error)


def _cut_outcomes(model: LoadedPipeline, batch: CallBatch, cut: TextsCut) -> list[SampleOutcome]:
    """Return the failures of jobs whose texts are too long; none where it cannot be known whose they are."""
    failed: dict[int, SampleOutcome] = {}
    for reading in cut.readings:
        if reading.rows != len(batch) and len(batch) > 1:
            continue
        job = batch[reading.row] if len(batch) > 1 else batch[0]
        error = too_long(model, _field(job, reading), reading.tokens, reading.limit)
        failed.setdefault(job.index, SampleFailed(request_index=job.index, error=error))
    return list(failed.values())


def _field(job: PreparedCall, reading: TokenizedCall) -> str:
    """Return which of a job's texts a tokenizer was given, with what the pipeline put around it or made of it."""
    text, prompt = reading.text.casefold(), job.request.prompt.casefold().strip()
    negative = (job.negative or "").casefold().strip()
    return "negative_prompt" if negative and negative in text and prompt not in text else "prompt"


def _without(batch: CallBatch, outcomes: list[SampleOutcome]) -> CallBatch:
    done = {outcome.request_index for outcome in outcomes}
    return tuple(job for job in batch if job.index not in done)


def _with_fewer_rows(batch: CallBatch, pending: deque[CallBatch]) -> deque[CallBatch]:
    """Return what is pending after a batch ran out of memory: it and all of its shape at half its rows."""
    rows = sum(job.rows for job in batch) // 2
    log.warning("batch_halved", extra={"rows": rows, "shape": batch[0].shape})
    smaller = deque(make_call_batches(batch, rows))
    for waiting in pending:
        smaller.extend(make_call_batches(waiting, rows) if waiting[0].shape == batch[0].shape else [waiting])
    return smaller
