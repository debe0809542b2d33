"""The thread that owns the device: takes requests from any thread, at any time, and answers each by a future.

Requests for one model and one R join the batch that is running, whichever chunk or sweep they came from; others wait
their turn, first come first served, so that nothing starves. How much waits is bounded by who asks: a worker takes
two chunks at a time. Knows nothing of queues, storage or where models come from.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from worker.sampling.events import Notice, ignore
from worker.sampling.model import LoadedModel
from worker.sampling.pipelines.model import LoadedPipeline
from worker.sampling.pipelines.sampler import sample_with_pipeline
from worker.sampling.request import SampleOutcome, SampleRequest
from worker.sampling.rows.capacity import RowCeilings
from worker.sampling.rows.loop import RowLoop

log = logging.getLogger(__name__)

#: Turns a model's fingerprint into the model on the device. Raises RenderError; called by the engine's thread only.
LoadModel = Callable[[str], LoadedModel | LoadedPipeline]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Submission:
    """A request and who waits for it."""

    model: str
    rows: int
    request: SampleRequest
    future: Future[SampleOutcome] = field(default_factory=Future)

    @property
    def group(self) -> tuple[str, int]:
        """What must be equal to run side by side."""
        return (self.model, self.rows)


class Engine:
    """See the module.

    Args:
        load: the model of a fingerprint, already there or loaded now.
        stall_seconds: how long one step may take before the engine no longer counts as alive.
        load_seconds: the same for loading a model.
        ceilings: how many rows fit the device.
        notice: gets a `StepDone` after every call of the denoiser, in the engine's thread.
    """

    def __init__(
        self,
        load: LoadModel,
        *,
        stall_seconds: float,
        load_seconds: float,
        ceilings: RowCeilings | None = None,
        notice: Notice = ignore,
    ) -> None:
        self._notice = notice
        self._load, self._stall_seconds, self._load_seconds = load, stall_seconds, load_seconds
        self._inbox: deque[_Submission] = deque()
        self._changed = threading.Condition()
        self._closed = False
        #: Until when (monotonic) the engine may go on without another sign of life.
        self._lives_until = 0.0
        self._ceilings = ceilings or RowCeilings()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, model: str, request: SampleRequest, *, rows: int) -> Future[SampleOutcome]:
        """Queue a request.

        The future's result is the request's outcome, with `request_index` 0; its exception is why the model could not
        be had. A future that is cancelled before the request has rows is left undone.
        """
        submission = _Submission(model=model, rows=rows, request=request)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if not self._inbox:
                self._lives_for(self._stall_seconds)
            self._inbox.append(submission)
            self._changed.notify()
        return submission.future

    def seconds_left(self) -> float:
        """Return how long the engine may still be silent; negative once it has stalled."""
        return self._lives_until - time.monotonic()

    def close(self) -> None:
        """End the thread after what is in hand; what waits is cancelled."""
        with self._changed:
            self._closed = True
            while self._inbox:
                self._inbox.popleft().future.cancel()
            self._changed.notify()
        self._thread.join()

    # --- the engine's own thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._wait()) is not None:
            group, unanswered = first.group, dict[int, _Submission]()
            del first  # an answer holds an image: nothing here may keep one until the engine is idle
            try:
                self._serve(group, unanswered)
            except (
                BaseException
            ) as error:  # whatever it is, who waits must hear of it, and the next be served
                log.warning("engine_failed", extra={"model": group[0], "reason": str(error)})
                for submission in [*unanswered.values(), *self._take(group)]:
                    if not submission.future.done():
                        submission.future.set_exception(error)

    def _wait(self) -> _Submission | None:
        """Return what waits longest, still in the inbox; None when the engine is closed."""
        with self._changed:
            while not self._inbox and not self._closed:
                self._changed.wait()
            return None if self._closed else self._inbox[0]

    def _take(self, group: tuple[str, int]) -> list[_Submission]:
        """Take what may run now: of the group, and older than anything else."""
        taken: list[_Submission] = []
        with self._changed:
            while self._inbox and self._inbox[0].group == group:
                taken.append(self._inbox.popleft())
        return taken

    def _serve(self, group: tuple[str, int], unanswered: dict[int, _Submission]) -> None:
        """Render what waits for one model, and what comes in meanwhile.

        Args:
            unanswered: by ticket, who waits for an answer; each leaves with it.
        """
        fingerprint, rows = group
        self._lives_for(self._load_seconds)
        model = self._load(fingerprint)
        self._lives_for(self._stall_seconds)
        tickets = itertools.count()
        if isinstance(model, LoadedPipeline):
            unanswered.update(zip(tickets, self._take(group), strict=False))
            self._serve_pipeline(model, rows, unanswered)
            return
        loop = RowLoop(
            model,
            rows=rows,
            on_step=lambda: self._lives_for(self._stall_seconds),
            begins=lambda ticket: _begins_or_leaves(unanswered, ticket),
            ceilings=self._ceilings,
            notice=self._notice,
        )
        while True:
            for submission in self._take(group):
                ticket = next(tickets)
                unanswered[ticket] = submission
                loop.add(ticket, submission.request)
            if not loop:
                return
            _answer_all(unanswered, loop.turn())

    def _serve_pipeline(self, model: LoadedPipeline, rows: int, unanswered: dict[int, _Submission]) -> None:
        """Render what waits for a model that diffusers' own pipeline samples, a few images at a time.

        A pipeline call cannot be joined or left: few at a time, so that who cancels is not kept waiting.
        """
        while unanswered:
            tickets = list(unanswered)[:rows]
            begun = [ticket for ticket in tickets if _begins_or_leaves(unanswered, ticket)]
            outcomes = sample_with_pipeline(
                model,
                [unanswered[ticket].request for ticket in begun],
                batch_rows=rows,
                on_step=lambda: self._lives_for(self._stall_seconds),
            )
            for outcome in outcomes:
                _answer(unanswered.pop(begun[outcome.request_index]).future, outcome)
                del outcome

    def _lives_for(self, seconds: float) -> None:
        self._lives_until = time.monotonic() + seconds


def _begins(future: Future[SampleOutcome]) -> bool:
    """Return whether the answer is still wanted; from then on it cannot be cancelled. A retry asks again."""
    return future.running() or future.set_running_or_notify_cancel()


def _begins_or_leaves(unanswered: dict[int, _Submission], ticket: int) -> bool:
    """Return whether a request begins; one that was cancelled is forgotten."""
    begins = _begins(unanswered[ticket].future)
    if not begins:
        del unanswered[ticket]
    return begins


def _answer_all(unanswered: dict[int, _Submission], outcomes: list[SampleOutcome]) -> None:
    """Answer some requests, by ticket; in a function of its own, so that the last outcome is let go as well."""
    for outcome in outcomes:
        _answer(unanswered.pop(outcome.request_index).future, outcome)


def _answer(future: Future[SampleOutcome], outcome: SampleOutcome) -> None:
    """Answer, unless the request was cancelled: one that could not be prepared has not begun."""
    if _begins(future):
        future.set_result(outcome)
