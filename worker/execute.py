"""One chunk, start to end: BEGIN, reuse, render, upload, manifest, COMMIT. Knows nothing of Celery.

The order is the promise. An image is in the store before its bit is set; the manifest is in the store before
the chunk's bit is set; the caller acknowledges the message last. Dying anywhere in between costs work, never an
image, and nothing is counted twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime
from typing import Any, TypeVar

from shared import names
from shared.errors import (
    BrokerError,
    MessageCorrupt,
    ModelLoadFailed,
    ObjectMissing,
    PlanUnreadable,
    PrintroomError,
    RenderError,
    StoreMismatch,
    WorkerLost,
)
from shared.images.files import versions_for
from shared.images.xmp import TRAINED_ALGORITHMIC_MEDIA
from shared.job import Job
from shared.ledger import ChunkOutcome
from shared.manifest import read_manifest, write_manifest
from shared.message import ChunkMessage
from shared.metadata import image_bytes
from shared.plan import Chunk, Plan
from shared.result import Done, Failed, Provenance, Result, StoredImage
from shared.store.identity import identity_of
from worker.backoff import Abandoned, persist
from worker.context import WorkerContext
from worker.failpoints import failpoint
from worker.meter import (
    ImageEncoded,
    ImageReused,
    ImageSampled,
    ImageStored,
    JobFailed,
    TroubleBegun,
    TroubleEnded,
)
from worker.publish import ObjectPublisher, Publisher, ShardPublisher
from worker.retry_policy import Decision, decide
from worker.sampling.request import Sampled, SampleOutcome, SampleRequest
from worker.sampling.rows.capacity import choose_rows
from worker.serving import offered_elsewhere

log = logging.getLogger(__name__)

#: Progress goes to Redis at most this often; the last of it goes with the commit.
_PROGRESS_SECONDS = 0.5

#: How often a chunk asks whether its sweep was cancelled.
_LISTEN_SECONDS = 1.0

#: Plans kept in memory.
_PLANS_KEPT = 8

_PARQUET = "application/vnd.apache.parquet"

_R = TypeVar("_R")


def execute(message: ChunkMessage, context: WorkerContext, *, beat: Callable[..., None]) -> None:
    """Render one chunk, or find that there is nothing to do.

    Args:
        beat: says that the task lives; `allow_seconds=` when it may be silent for longer.

    Raises: StoreMismatch for a sweep of another store; MessageCorrupt for a chunk that its plan does not have;
        Abandoned when the worker drains with work left (the chunk has been given back).
    """
    _check_store(context, message.sweep, beat)
    begun = _patiently(context, beat, lambda: context.ledger.begin(message.sweep, message.chunk))
    failpoint("begun")
    if begun.verdict != "render":
        log.info("skipped", extra={"sweep": message.sweep, "chunk": message.chunk, "verdict": begun.verdict})
        return
    log.info("chunk_begun", extra={"sweep": message.sweep, "chunk": message.chunk, "attempt": begun.attempt})
    plan = _plan(context, message.sweep, beat)
    try:
        chunk = plan.chunk(message.chunk)
    except IndexError as error:
        raise MessageCorrupt(f"{message.sweep}: no chunk {message.chunk} in its plan") from error
    _ChunkRun(context, message.sweep, plan, chunk, begun.attempt, beat).run()


class _ChunkRun:
    """The state of one chunk on its way. Results arrive from several threads."""

    def __init__(
        self,
        context: WorkerContext,
        sweep: str,
        plan: Plan,
        chunk: Chunk,
        attempt: int,
        beat: Callable[..., None],
    ) -> None:
        self._context, self._sweep, self._plan, self._chunk = context, sweep, plan, chunk
        self._attempt, self._beat = attempt, beat
        self._lock = threading.Lock()
        self._results: dict[int, Result] = {}
        self._unreported: list[int] = []
        self._reported_at = time.monotonic()
        self._stopped = threading.Event()
        self._listened_at = time.monotonic()
        #: Job id -> every index of the chunk that asks for this image.
        self._indices: dict[str, list[int]] = {}
        self._jobs: dict[str, Job] = {}
        for index, job in plan.jobs(chunk.start, chunk.stop):
            self._indices.setdefault(job.id, []).append(index)
            self._jobs.setdefault(job.id, job)
        self._publisher = self._make_publisher()

    def run(self) -> None:
        """See `execute`."""
        started = time.monotonic()
        try:
            self._keep_failures()
            self._reuse()
            try:
                self._render(self._missing())
            finally:
                self._publisher.flush()
            if len(self._results) < len(self._chunk):
                raise Abandoned
            self._commit()
        except BaseException as error:
            counts = not isinstance(error, Abandoned)
            self._give_back(count_attempt=counts)
            raise
        seconds, failed = (
            time.monotonic() - started,
            sum(isinstance(r, Failed) for r in self._results.values()),
        )
        fields = {
            "sweep": self._sweep,
            "chunk": self._chunk.number,
            "jobs": len(self._chunk),
            "failed": failed,
        }
        log.info("chunk_done", extra={**fields, "seconds": round(seconds, 2), "attempt": self._attempt})

    def _make_publisher(self) -> Publisher:
        """Return the way into the store that the sweep's layout asks for."""
        store, image_format = self._context.store, self._plan.image_format
        if self._plan.layout == "images":
            return ObjectPublisher(
                store=store, image_format=image_format, patiently=self._patiently, finish=self._finish
            )
        return ShardPublisher(
            store=store,
            image_format=image_format,
            sweep=self._sweep,
            chunk=self._chunk.number,
            jobs={self._indices[job.id][0]: job for job in self._jobs.values()},
            attempt=self._attempt,
            patiently=self._patiently,
            finish=self._finish,
        )

    # --- what stands from before ----------------------------------------------------------------------------

    def _keep_failures(self) -> None:
        """Keep the rows of failures that nobody has taken back: a retry of some jobs renders those alone again."""
        ledger, chunk = self._context.ledger, self._chunk
        standing = set(self._patiently(lambda: ledger.failed_in(self._sweep, chunk)))
        if not standing:
            return
        try:
            key = names.manifest_key(self._sweep, chunk.number)
            rows = read_manifest(self._patiently(lambda: self._context.store.get(key)))
        except (ObjectMissing, ValueError):  # then they are tried again
            return
        for row in rows:
            twins = self._indices.get(row.job.id, [])
            if isinstance(row, Failed) and row.index in twins and standing.issuperset(twins):
                self._results[row.index] = row

    # --- reuse ----------------------------------------------------------------------------------------------

    def _reuse(self) -> None:
        """Take images that are in the store already: of another sweep, or of a delivery that died."""
        self._publisher.open()
        take = self._publisher.take
        self._await([self._context.publishers.submit(take, job) for job in self._missing()])

    def _missing(self) -> list[Job]:
        """Return the jobs whose image is neither in the store nor on its way there."""
        return [
            job
            for job in self._jobs.values()
            if self._indices[job.id][0] not in self._results and not self._publisher.holds(job)
        ]

    # --- render ---------------------------------------------------------------------------------------------

    def _render(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        if self._attempt > self._context.settings.max_attempts:
            lost = WorkerLost(f"{self._attempt - 1} deliveries ended without a word; see the workers' logs")
            self._fail(jobs, lost)
            return
        uploads: list[Future[None]] = []
        waiting = self._submit(jobs)
        try:
            while waiting:
                self._beat_with_engine()
                self._listen()
                if self._should_stop():
                    _cancel(waiting)
                answered, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in answered:
                    self._take_answer(waiting.pop(future), future, uploads)
        finally:
            _cancel(waiting)
        self._await(uploads)

    def _submit(self, jobs: Sequence[Job]) -> dict[Future[SampleOutcome], Job]:
        if self._should_stop():
            return {}
        bucket = self._chunk.bucket
        rows = choose_rows(2 * self._plan.jobs_in(bucket), limit=self._context.device.batch_rows)
        submit = self._context.engine.submit
        return {submit(bucket.model, SampleRequest.of(job), rows=rows): job for job in jobs}

    def _take_answer(self, job: Job, future: Future[SampleOutcome], uploads: list[Future[None]]) -> None:
        if future.cancelled():
            return
        try:
            outcome = future.result()
        except RenderError as error:  # the model, not the job
            decision = decide(error, attempt=self._attempt, max_attempts=self._context.settings.max_attempts)
            if decision is not Decision.FAIL_JOBS and not self._last_hope(error):
                raise
            self._fail([job], error)
            return
        if isinstance(outcome, Sampled):
            uploads.append(self._context.publishers.submit(self._publish, job, outcome))
            failpoint("sampled")
        else:
            self._fail([job], outcome.error)

    def _last_hope(self, error: RenderError) -> bool:
        """Whether a model does not load here and no other live worker offers it: its jobs would wait for ever."""
        if not isinstance(error, ModelLoadFailed):
            return False
        workers = self._patiently(self._context.ledger.workers)
        return not offered_elsewhere(self._context, self._chunk.bucket.model, workers)

    def _publish(self, job: Job, sampled: Sampled) -> None:
        """Encode one image and give it to the publisher."""
        wanted = self._plan.image_format
        provenance = Provenance(
            model_name=self._plan.models.get(job.model, job.model),
            device=self._context.device.name,
            dtype=sampled.dtype,
            batch_rows=sampled.batch_rows,
            prompt_tokens=sampled.prompt_tokens,
            negative_tokens=sampled.negative_tokens,
            versions=versions_for(self._context.versions, wanted.kind),
            digital_source_type=TRAINED_ALGORITHMIC_MEDIA if self._context.settings.mark_generated else None,
        )
        notice = self._context.meter.notice
        notice(ImageSampled(seconds=sampled.seconds))
        began = time.monotonic()
        data = image_bytes(job, sampled.pixels, provenance, wanted)
        encoded = time.monotonic()
        notice(ImageEncoded(seconds=encoded - began, size_bytes=len(data)))
        if self._publisher.publish(job, data, provenance, sample_seconds=sampled.seconds):
            stored = time.monotonic() - encoded
            notice(ImageStored(seconds=stored, size_bytes=len(data)))
        if self._publisher.holds(job):
            self._report()  # its bit waits for its shard; a cancel is heard now

    # --- results --------------------------------------------------------------------------------------------

    def _finish(self, job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        now = datetime.now(UTC)
        if reused:
            self._context.meter.notice(ImageReused())
        for position, index in enumerate(self._indices[job.id]):
            again = reused or position > 0
            done = Done(
                index=index,
                job=self._plan.job(index),
                image=image,
                reused=again,
                sample_seconds=None if again else sample_seconds,
                attempt=self._attempt,
                worker=self._context.name,
                finished_at=now,
                labels=self._plan.labels(index),
            )
            with self._lock:
                self._results[index] = done
                self._unreported.append(index)
        self._report()

    def _fail(self, jobs: Iterable[Job], error: RenderError) -> None:
        now = datetime.now(UTC)
        for job in jobs:
            log.warning("job_failed", extra={"job": job.id, "code": error.code, "reason": str(error)})
            self._context.meter.notice(JobFailed(code=error.code))
            for index in self._indices[job.id]:
                failed = Failed(
                    index=index,
                    job=self._plan.job(index),
                    code=error.code,
                    reason=str(error),
                    attempt=self._attempt,
                    worker=self._context.name,
                    finished_at=now,
                    labels=self._plan.labels(index),
                )
                with self._lock:
                    self._results[index] = failed

    def _report(self) -> None:
        """Move the counters, now and then; failures wait for the manifest that tells their reason."""
        with self._lock:
            if time.monotonic() - self._reported_at < _PROGRESS_SECONDS:
                return
            indices, self._unreported, self._reported_at = self._unreported, [], time.monotonic()
        state = self._patiently(lambda: self._context.ledger.record(self._sweep, self._outcome(indices)))
        if state == "cancelled":
            self._stopped.set()

    def _commit(self) -> None:
        """Write the manifest, then set the bits: the chunk is done."""
        if self._patiently(lambda: self._context.ledger.committed(self._sweep, self._chunk.number)):
            return  # somebody finished it while we were away; their manifest stands
        rows = [self._results[index] for index in range(self._chunk.start, self._chunk.stop)]
        data = write_manifest(rows, sweep=self._sweep, chunk=self._chunk.number)
        key = names.manifest_key(self._sweep, self._chunk.number)
        failpoint("before_manifest")
        self._patiently(lambda: self._context.store.put(key, data, content_type=_PARQUET))
        failpoint("before_commit")
        outcome = self._outcome(range(self._chunk.start, self._chunk.stop))
        self._patiently(lambda: self._context.ledger.record(self._sweep, outcome, chunk=self._chunk))
        failpoint("committed")

    def _outcome(self, indices: Iterable[int]) -> ChunkOutcome:
        rows = [self._results[index] for index in indices]
        return ChunkOutcome(
            done=[row.index for row in rows if isinstance(row, Done)],
            reused=[row.index for row in rows if isinstance(row, Done) and row.reused],
            failed={row.index: (row.code, row.reason) for row in rows if isinstance(row, Failed)},
        )

    def _give_back(self, *, count_attempt: bool) -> None:
        """Report what is done and hand the rest to the feeder; without Redis, the lease runs out instead."""
        try:
            self._context.ledger.record(self._sweep, self._outcome(sorted(self._unreported)))
            self._context.ledger.give_back(self._sweep, self._chunk.number, count_attempt=count_attempt)
        except Exception as error:  # the reconciler finds the chunk
            fields = {"sweep": self._sweep, "chunk": self._chunk.number}
            log.warning("not_given_back", extra={**fields, "reason": str(error)})

    # --- waiting --------------------------------------------------------------------------------------------

    def _beat_with_engine(self) -> None:
        """Live on as long as the engine does: who waits for a hung device must lose its lease."""
        left = self._context.engine.seconds_left()
        if left > 0:
            self._beat(allow_seconds=left)

    def _listen(self) -> None:
        """Hear of a cancel between two images, which may be minutes apart. A Redis that is away says nothing."""
        if time.monotonic() - self._listened_at < _LISTEN_SECONDS:
            return
        self._listened_at = time.monotonic()
        try:
            state = self._context.ledger.state(self._sweep)
        except BrokerError:
            return
        if state == "cancelled":
            self._stopped.set()

    def _should_stop(self) -> bool:
        return self._context.draining.is_set() or self._stopped.is_set()

    def _await(self, futures: Sequence[Future[Any]]) -> None:
        """Wait for uploads, keeping the lease; then raise what the first failed one raised."""
        pending = set(futures)
        while pending:
            self._beat()
            _, pending = wait(pending, timeout=1.0)
        for future in futures:
            future.result()

    def _patiently(self, action: Callable[[], _R]) -> _R:
        return _patiently(self._context, self._beat, action)


def _patiently(context: WorkerContext, beat: Callable[..., None], action: Callable[[], _R]) -> _R:
    def on_trouble(error: PrintroomError | None) -> None:
        context.meter.notice(TroubleEnded() if error is None else TroubleBegun(error=error))

    return persist(action, beat=beat, draining=context.draining, on_trouble=on_trouble)


def _check_store(context: WorkerContext, sweep: str, beat: Callable[..., None]) -> None:
    """Refuse a sweep of another store: its images would never be found. Raises: StoreMismatch."""
    theirs = _patiently(context, beat, lambda: context.ledger.store_of(sweep))
    ours = identity_of(context.store)
    if theirs.id and not _patiently(context, beat, lambda: ours.has(theirs.id)):
        raise StoreMismatch(f"sweep {sweep[:12]} is in {theirs}, this worker renders into {ours.mark}")


def _plan(context: WorkerContext, sweep: str, beat: Callable[..., None]) -> Plan:
    """Return a sweep's plan: from memory, from Redis, or from the store."""
    plan = context.plans.get(sweep)
    if plan is None:
        plan = _read_plan(context, sweep, beat)
        # The two task threads share this; each step of it is one that Python does whole.
        context.plans[sweep] = plan
        for old in list(context.plans)[:-_PLANS_KEPT]:
            context.plans.pop(old, None)
    return plan


def _read_plan(context: WorkerContext, sweep: str, beat: Callable[..., None]) -> Plan:
    """Read the copy in Redis, or the store's where there is none or a damaged one. Raises: PlanUnreadable."""
    hot = _patiently(context, beat, lambda: context.ledger.plan_bytes(sweep))
    if hot is not None:
        try:
            return Plan.from_bytes(hot)
        except PlanUnreadable as error:
            log.warning("plan_unreadable", extra={"sweep": sweep, "reason": str(error)})
    return Plan.from_bytes(_patiently(context, beat, lambda: context.store.get(names.plan_key(sweep))))


def _cancel(futures: Iterable[Future[SampleOutcome]]) -> None:
    """Take back what has no rows yet; the engine finishes what has."""
    for future in futures:
        future.cancel()
