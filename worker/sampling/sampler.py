"""Requests to images, batch by batch, with each image's failure its own. Knows nothing of queues or storage.

What a failing batch costs the others: a batch of several images that crashes is run again one image at a
time, and only what crashes alone fails. A batch that runs out of memory is run again at half the rows, and so
on down to one image; smaller batches of that shape are remembered for the rest of the call.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from shared.errors import ImageNotFinite, JobCrashed, OutOfMemory, RenderError
from worker.sampling.batch import Batch, PreparedJob, batch_size_rows, make_batches
from worker.sampling.decode import Decoded, decode
from worker.sampling.loop import sample_latents
from worker.sampling.model import LoadedModel
from worker.sampling.prepare import prepare
from worker.sampling.request import Outcome, Sampled, SampleFailed, SampleRequest

log = logging.getLogger(__name__)

#: What torch says, as a plain RuntimeError, when the CPU has no memory left.
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"


class CallerFailed(Exception):
    """`on_step` raised. Carries the caller's exception through the sampler's own handling, unjudged."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def sample(
    model: LoadedModel,
    requests: Sequence[SampleRequest],
    *,
    batch_rows: int,
    on_step: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Sample requests and yield an outcome for each, as batches finish (not in the order given).

    Args:
        model: what to sample with.
        requests: any mix; those of one scheduler, step count, size and text length share UNet calls.
        batch_rows: UNet rows a batch may take; a guided image takes two, an unguided one takes one.
        on_step: a sign of life, called after every UNet call and every group of decoded images. What it
            raises leaves `sample` as it is.
        should_stop: asked before each batch; when true, the requests not yet yielded are left undone.
    """
    jobs: list[PreparedJob] = []
    for index, request in enumerate(requests):
        prepared = _prepare(model, index, request)
        if isinstance(prepared, SampleFailed):
            yield prepared
        else:
            jobs.append(prepared)
    yield from _sample_batches(model, jobs, batch_rows, _guarded(on_step), should_stop)


def _sample_batches(
    model: LoadedModel,
    jobs: list[PreparedJob],
    batch_rows: int,
    on_step: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Iterator[Outcome]:
    """Work through the batches of prepared jobs, cutting those that fail into smaller ones."""
    pending = deque(make_batches(jobs, batch_rows))
    while pending and not should_stop():
        batch = pending.popleft()
        outcome = _attempt(model, batch, on_step)
        if isinstance(outcome, list):
            yield from outcome
            continue
        if isinstance(outcome, OutOfMemory):
            _release_memory(model.device)
        if len(batch) == 1:
            yield SampleFailed(request_index=batch[0].index, error=outcome)
        elif isinstance(outcome, OutOfMemory):
            pending = _with_fewer_rows(batch, pending)
        else:
            log.warning("batch_retried_alone", extra={"jobs": len(batch), "reason": str(outcome)})
            pending.extendleft((job,) for job in reversed(batch))


def _attempt(model: LoadedModel, batch: Batch, on_step: Callable[[], None]) -> list[Outcome] | RenderError:
    """Return the outcomes of a batch, or why it failed as a whole.

    The exception itself does not leave this function: its traceback would keep the batch's tensors alive.
    """
    started = time.perf_counter()
    try:
        images = decode(model, sample_latents(model, batch, on_step), on_step)
    except CallerFailed as failure:
        raise failure.error from None
    except Exception as error:
        return _judge(error)
    seconds = (time.perf_counter() - started) / len(batch)
    return [_outcome(job, image, seconds) for job, image in zip(batch, images, strict=True)]


def _outcome(job: PreparedJob, image: Decoded, seconds: float) -> Outcome:
    if not image.finite:
        reason = "NaN or infinity left the sampler; a lower guidance_scale or another dtype may help"
        return SampleFailed(request_index=job.index, error=ImageNotFinite(reason))
    return Sampled(
        request_index=job.index,
        pixels=image.pixels,
        prompt_tokens=job.prompt.tokens,
        negative_tokens=job.negative.tokens if job.negative else 0,
        seconds=seconds,
    )


def _prepare(model: LoadedModel, index: int, request: SampleRequest) -> PreparedJob | SampleFailed:
    try:
        return prepare(model, index, request)
    except Exception as error:
        return SampleFailed(request_index=index, error=_judge(error))


def _judge(error: Exception) -> RenderError:
    """Return an exception as a render error: its own kind, out of memory, or a crash with its reason."""
    if isinstance(error, RenderError):
        return error.with_traceback(None)
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_OUT_OF_MEMORY in reason:
        return OutOfMemory(reason)
    return JobCrashed(reason)


def _with_fewer_rows(batch: Batch, pending: deque[Batch]) -> deque[Batch]:
    """Return what is pending after a batch ran out of memory: it and all of its shape at half its rows."""
    rows = batch_size_rows(batch) // 2
    log.warning("batch_halved", extra={"rows": rows, "shape": batch[0].shape})
    smaller = deque(make_batches(batch, rows))
    for waiting in pending:
        smaller.extend(make_batches(waiting, rows) if waiting[0].shape == batch[0].shape else [waiting])
    return smaller


def _release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _guarded(on_step: Callable[[], None]) -> Callable[[], None]:
    """Return `on_step` such that what it raises is told apart from what sampling raises."""

    def beat() -> None:
        try:
            on_step()
        except Exception as error:
            raise CallerFailed(error) from error

    return beat
