"""Renders requests by continuous batching: a job that ends frees its rows for the next one at the next step.

Each image fails alone. When a step crashes, the jobs of the batch begin again one at a time, and only what crashes by
itself fails; since an image does not depend on the others in its batch, the others come out the same. A step that runs
out of memory is tried again with half the rows, down to what one job needs, and the smaller batch is remembered for
that size. Knows nothing of queues or storage.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shared.errors import ImageNotFinite, OutOfMemory, RenderError
from worker.sampling.events import Notice, ignore
from worker.sampling.failures import CallerFailed, guarded, judge, release_memory
from worker.sampling.model import LoadedModel
from worker.sampling.request import Sampled, SampleFailed, SampleOutcome, SampleRequest
from worker.sampling.rows.batch import Finished, RowBatch
from worker.sampling.rows.capacity import RowCeilings, RowShape, step_down, step_up
from worker.sampling.rows.decode import Decoded, Decoding, decode
from worker.sampling.rows.prepare import PreparedJob, encode_texts, prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """A job that has no rows yet."""

    ticket: int
    job: PreparedJob


def sample(
    model: LoadedModel,
    requests: Sequence[SampleRequest],
    *,
    batch_rows: int,
    on_step: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    notice: Notice = ignore,
) -> Iterator[SampleOutcome]:
    """Sample requests and yield an outcome for each, as they finish (not in the order given).

    Args:
        model: what to sample with.
        requests: any mix; those of one size and text length share calls of the denoiser.
        batch_rows: rows of every call, or the next smaller size of `capacity.LADDER`; a guided image takes two,
            an unguided one takes one. A job that needs more at once gets them.
        on_step: a sign of life, called after every call of the denoiser and every decoded image. What it raises leaves
            `sample` as it is.
        should_stop: asked between calls; when true, requests that have not begun are left undone.
        notice: gets a `StepDone` after every call of the denoiser.
    """
    loop = RowLoop(model, rows=batch_rows, on_step=on_step, notice=notice)
    for index, request in enumerate(requests):
        loop.add(index, request)
    while loop:
        if should_stop():
            loop.drop_waiting()
        yield from loop.turn()


class RowLoop:
    """Keeps a batch of rows full while jobs wait. Jobs may be added between turns.

    Args:
        model: what to sample with.
        rows: R, the next smaller size of `LADDER`.
        on_step: see `sample`.
        begins: asked before a job gets its rows, by ticket; false leaves it undone.
        ceilings: how many rows fit; shared between loops.
        notice: gets a `StepDone` after every call of the denoiser.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        rows: int,
        on_step: Callable[[], None] = lambda: None,
        begins: Callable[[int], bool] = lambda ticket: True,
        ceilings: RowCeilings | None = None,
        notice: Notice = ignore,
    ) -> None:
        self._model, self._rows, self._begins = model, step_down(rows), begins
        self._beat = guarded(on_step)
        self._ceilings = ceilings or RowCeilings()
        self._notice = notice
        #: By shape, the one that has waited longest first.
        self._waiting: dict[RowShape, deque[_Waiting]] = {}
        #: Jobs of a batch that crashed: each runs by itself.
        self._suspects: deque[_Waiting] = deque()
        #: Whether the batch is a suspect's own.
        self._alone = False
        self._batch: RowBatch | None = None
        self._finished: deque[Finished] = deque()
        self._decoding: deque[tuple[Finished, Decoding]] = deque()
        self._outcomes: list[SampleOutcome] = []
        #: By ticket, of jobs in the batch or on their way to pixels, and of no others.
        self._seconds: dict[int, float] = {}

    def __bool__(self) -> bool:
        """Whether a turn is of any use."""
        batch = len(self._batch) if self._batch else 0
        return bool(
            self._waiting or self._suspects or batch or self._finished or self._decoding or self._outcomes
        )

    def add(self, ticket: int, request: SampleRequest) -> None:
        """Queue a job; one that this model cannot do fails with the next turn."""
        try:
            job = prepare(self._model, request)
        except Exception as error:
            self._fail(ticket, judge(error))
        else:
            self._queue(job.shape).append(_Waiting(ticket=ticket, job=job))

    def drop_waiting(self) -> list[int]:
        """Forget the jobs that have no rows yet and return their tickets."""
        waiting = [*self._suspects, *(entry for queue in self._waiting.values() for entry in queue)]
        self._suspects.clear()
        self._waiting.clear()
        return [entry.ticket for entry in waiting]

    def turn(self) -> list[SampleOutcome]:
        """Call the denoiser at most once, decode what it finished, and return what is done.

        What `on_step` raises leaves as it is.
        """
        try:
            self._decode()
            self._fill()
            if self._batch:
                self._step(self._batch)
            self._collect(wait=not self._batch and not self._waiting and not self._suspects)
        except CallerFailed as failure:
            raise failure.error from None
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # --- rows -----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give rows to waiting jobs as far as they go."""
        if not self._batch:
            self._open_batch()
        batch = self._batch
        if self._alone or batch is None:
            return
        queue = self._waiting.get(batch.shape, deque())
        while queue and queue[0].job.peak_rows <= batch.rows and batch.has_room(queue[0].job):
            self._admit(batch, queue.popleft())
        self._tidy(batch.shape)

    def _open_batch(self) -> None:
        """Make a batch for who comes first: a suspect by itself, or the shape that waits longest."""
        self._alone = bool(self._suspects)
        if self._suspects:
            entry = self._suspects.popleft()
            self._batch = self._make_batch(entry.job)
            self._admit(self._batch, entry)
        elif self._waiting:
            first = next(iter(self._waiting.values()))[0].job
            self._batch = self._make_batch(first)

    def _make_batch(self, job: PreparedJob) -> RowBatch:
        rows = max(self._ceilings.rows(self._model, job.shape, self._rows), step_up(job.peak_rows))
        if self._batch is not None and (self._batch.shape, self._batch.rows) == (job.shape, rows):
            return self._batch
        self._batch = None  # its tensors, before the new ones
        return RowBatch(self._model, shape=job.shape, rows=rows, notice=self._notice)

    def _admit(self, batch: RowBatch, entry: _Waiting) -> None:
        if not self._begins(entry.ticket):
            return
        started = time.perf_counter()
        try:
            batch.admit(entry.ticket, entry.job, encode_texts(self._model, entry.job))
        except Exception as error:
            self._fail(entry.ticket, judge(error))
        else:
            self._seconds[entry.ticket] = time.perf_counter() - started

    def _step(self, batch: RowBatch) -> None:
        started, taken = time.perf_counter(), batch.rows_taken()
        try:
            self._finished += batch.step()
        except Exception as error:
            self._recover(batch, judge(error))
            return
        share = (time.perf_counter() - started) / max(1, sum(taken.values()))
        for ticket, rows in taken.items():
            self._seconds[ticket] += rows * share
        self._beat()

    # --- failures -------------------------------------------------------------------------------------------

    def _recover(self, batch: RowBatch, error: RenderError) -> None:
        """Begin the batch's jobs again: with fewer rows, or each by itself; a job by itself fails."""
        if isinstance(error, OutOfMemory) and self._shrink(batch):
            return
        entries = self._take_out(batch)
        if len(entries) == 1:
            self._fail(entries[0].ticket, error)
        else:
            log.warning("batch_retried_alone", extra={"jobs": len(entries), "reason": str(error)})
            self._suspects.extend(entries)

    def _shrink(self, batch: RowBatch) -> bool:
        """Let a batch's jobs begin again with half the rows; return False where no fewer would do.

        Fewer rows are remembered for the shape.
        """
        rows = max(step_down(batch.rows // 2), *(step_up(job.prepared.peak_rows) for job in batch.jobs))
        if rows >= batch.rows:
            return False
        log.warning("batch_halved", extra={"rows": rows, "shape": batch.shape})
        self._ceilings.lower(self._model, batch.shape, rows)
        self._queue(batch.shape).extendleft(reversed(self._take_out(batch)))
        self._batch = None
        release_memory(self._model.device)
        return True

    def _take_out(self, batch: RowBatch) -> list[_Waiting]:
        """Take all jobs out of a batch, as jobs that have not begun: their seconds are counted anew."""
        entries = [_Waiting(ticket=job.ticket, job=job.prepared) for job in batch.clear()]
        for entry in entries:
            self._seconds.pop(entry.ticket, None)
        return entries

    def _fail(self, ticket: int, error: RenderError) -> None:
        self._seconds.pop(ticket, None)
        self._outcomes.append(SampleFailed(request_index=ticket, error=error))

    # --- images ---------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Decode what the last step finished."""
        while self._finished:
            done, started = self._finished.popleft(), time.perf_counter()
            try:
                self._decoding.append((done, decode(self._model, done.latents)))
            except Exception as error:
                self._recover_decoding(done, judge(error))
                continue
            self._seconds[done.ticket] += time.perf_counter() - started
            self._beat()

    def _recover_decoding(self, done: Finished, error: RenderError) -> None:
        """Make room by a smaller batch and decode again, or fail the one job."""
        if isinstance(error, OutOfMemory) and self._batch and self._shrink(self._batch):
            self._finished.appendleft(done)
        else:
            self._fail(done.ticket, error)

    def _collect(self, *, wait: bool) -> None:
        """Take the images that have come off the device; with `wait`, all of them."""
        while self._decoding and (wait or self._decoding[0][1].ready()):
            done, decoding = self._decoding.popleft()
            try:
                self._outcomes.append(self._outcome(done, decoding.result()))
            except Exception as error:  # what the device did earlier is often said only here
                self._fail(done.ticket, judge(error))

    def _outcome(self, done: Finished, image: Decoded) -> SampleOutcome:
        seconds = self._seconds.pop(done.ticket)
        if not image.finite:
            reason = "NaN or infinity left the sampler; a lower guidance_scale or another dtype may help"
            return SampleFailed(request_index=done.ticket, error=ImageNotFinite(reason))
        return Sampled(
            request_index=done.ticket,
            pixels=image.pixels,
            prompt_tokens=done.prepared.prompt_tokens,
            negative_tokens=done.prepared.negative_tokens,
            seconds=seconds,
            batch_rows=done.batch_rows,
            dtype=str(self._model.dtype).removeprefix("torch."),
        )

    # --- queues ---------------------------------------------------------------------------------------------

    def _queue(self, shape: RowShape) -> deque[_Waiting]:
        return self._waiting.setdefault(shape, deque())

    def _tidy(self, shape: RowShape) -> None:
        if not self._waiting.get(shape, True):
            del self._waiting[shape]
