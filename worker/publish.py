"""Where a chunk's images go, and what of them is there already: an object each, or tar shards. Knows nothing of Redis.

Either way an image is in the store before it is called finished, and nothing that a manifest may name is ever
replaced by other bytes: objects are looked for before they are put, and shards are named by their content.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared import names
from shared.errors import ObjectMissing
from shared.images.format import ImageFormat
from shared.job import Job
from shared.metadata import read_image
from shared.result import Provenance, StoredImage
from shared.shard import MEDIA_TYPE, ShardSample, make_shard, read_shard
from shared.store.base import Store
from worker.failpoints import failpoint

log = logging.getLogger(__name__)

#: Images that a shard is waited for with. A chunk that makes more becomes several shards, and memory stays bounded:
#: 64 PNGs of 1024x1024 are about 100 MB. The tar is built beside them.
SHARD_BYTES = 128 * 2**20

#: Images that a shard is waited for with once a delivery has ended without a word: if a job takes its worker down, what
#: was rendered before it is not lost each time.
SHARD_IMAGES_AFTER_LOSS = 8

_R = TypeVar("_R")


class Patiently(Protocol):
    """Tries an action until the store answers (`worker.backoff`)."""

    def __call__(self, action: Callable[[], _R]) -> _R:
        """Return what the action returns."""


class Finish(Protocol):
    """Takes note that a job's image is in the store. Called from any thread."""

    def __call__(self, job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        """Note it."""


class Publisher(Protocol):
    """One chunk's way into the store. `take` and `publish` come from several threads."""

    def open(self) -> None:
        """Take what earlier deliveries of this chunk have left, all at once."""

    def take(self, job: Job) -> bool:
        """Take one image from the store, if it is there and is what its name says."""

    def publish(self, job: Job, data: bytes, provenance: Provenance, *, sample_seconds: float) -> bool:
        """Bring one rendered image into the store, now or with the next flush.

        Returns: whether it is ours; False where another worker was faster.
        """

    def holds(self, job: Job) -> bool:
        """Return whether an image waits here for the flush: made, but not in the store."""

    def flush(self) -> None:
        """Bring what waits into the store."""


class ObjectPublisher:
    """Every image an object of its own, named by its job and shared by all sweeps.

    Two workers whose bytes differ may render one job at the same moment, in two sweeps or after a lost lease. The first
    image stays, and both rows tell of it.
    """

    def __init__(
        self, *, store: Store, image_format: ImageFormat, patiently: Patiently, finish: Finish
    ) -> None:
        self._store, self._format, self._patiently, self._finish = store, image_format, patiently, finish
        #: What this delivery has put. Each change is one step of Python's.
        self._put: list[tuple[Job, StoredImage]] = []

    def open(self) -> None:
        """Do nothing: `take` asks for each image."""

    def take(self, job: Job) -> bool:
        """See `Publisher`."""
        return self._take(job, other_than="")

    def publish(self, job: Job, data: bytes, provenance: Provenance, *, sample_seconds: float) -> bool:
        """See `Publisher`."""
        key, media_type = names.image_key(job.id, self._format), self._format.media_type
        ours = _stored(key, data, provenance)
        if not self._patiently(lambda: self._store.put_new(key, data, content_type=media_type)):
            if self._take(job, other_than=ours.sha256):
                return False  # another worker was faster; a manifest may already hold that file's sha256
            # Our own, of a request whose answer was lost; or one that cannot be believed.
            self._patiently(lambda: self._store.put(key, data, content_type=media_type))
        failpoint("uploaded")
        self._put.append((job, ours))
        self._finish(job, ours, reused=False, sample_seconds=sample_seconds)
        return True

    def holds(self, job: Job) -> bool:
        """Return False: nothing waits."""
        return False

    def flush(self) -> None:
        """Look once more at what was put, where the store cannot tell who was first: a row tells of what is there."""
        put, self._put = self._put, []
        if not self._store.keeps_first:
            for job, ours in put:
                self._take(job, other_than=ours.sha256)

    def _take(self, job: Job, *, other_than: str) -> bool:
        """Take one image from the store, unless it is the one of this sha256."""
        found = _read_object(self._store, job, self._format, self._patiently)
        if found is None or found.image.sha256 == other_than:
            return False
        self._finish(job, found.image, reused=True, sample_seconds=None)
        return True


class ShardPublisher:
    """A chunk's images in one tar, put when the chunk is rendered; in several if it is large or was interrupted.

    A shard is never changed. A later delivery takes the images of those that are there and puts the others into one
    more, so a manifest's offsets hold for ever, and two workers that render the same chunk do each other no harm.

    Args:
        jobs: first index -> job, of the whole chunk.
        attempt: delivery of the chunk, from 1.
    """

    def __init__(
        self,
        *,
        store: Store,
        image_format: ImageFormat,
        sweep: str,
        chunk: int,
        jobs: Mapping[int, Job],
        attempt: int,
        patiently: Patiently,
        finish: Finish,
    ) -> None:
        self._store, self._format, self._sweep, self._chunk = store, image_format, sweep, chunk
        self._patiently, self._finish = patiently, finish
        self._jobs = {job.id: job for job in jobs.values()}
        self._index = {job.id: index for index, job in jobs.items()}
        self._images_max = math.inf if attempt == 1 else SHARD_IMAGES_AFTER_LOSS
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_bytes = 0
        #: Held by who writes a shard. What is below belongs to the holder.
        self._writing = threading.Lock()
        self._seen: set[str] = set()
        self._finished: set[str] = set()

    def open(self) -> None:
        """See `Publisher`."""
        with self._writing:
            self._take_shards()

    def take(self, job: Job) -> bool:
        """Take a copy of an image that is an object, of a sweep in the other layout; it goes into the shard."""
        found = _read_object(self._store, job, self._format, self._patiently)
        if found is not None:
            self._add(job, found.data, found.image.provenance, reused=True, sample_seconds=None)
        return found is not None

    def publish(self, job: Job, data: bytes, provenance: Provenance, *, sample_seconds: float) -> bool:
        """Keep an image for the next shard."""
        self._add(job, data, provenance, reused=False, sample_seconds=sample_seconds)
        return True

    def holds(self, job: Job) -> bool:
        """See `Publisher`."""
        with self._lock:
            return job.id in self._waiting

    def flush(self) -> None:
        """Put what waits as one shard, but for what another worker has put meanwhile."""
        with self._writing:
            self._flush(self._take_waiting())

    def _flush_if_full(self) -> None:
        """Flush, unless who held the pen before has taken what there was: no shard of one image."""
        with self._writing:
            with self._lock:
                still_full = self._is_full()
            if still_full:
                self._flush(self._take_waiting())

    def _flush(self, waiting: Mapping[str, _Waiting]) -> None:
        if waiting:
            self._take_shards()
        ours = {job_id: image for job_id, image in waiting.items() if job_id not in self._finished}
        if ours:
            self._put(ours)

    def _take_waiting(self) -> dict[str, _Waiting]:
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            return waiting

    def _is_full(self) -> bool:
        return self._waiting_bytes >= SHARD_BYTES or len(self._waiting) >= self._images_max

    def _add(
        self, job: Job, data: bytes, provenance: Provenance, *, reused: bool, sample_seconds: float | None
    ) -> None:
        sample = ShardSample(index=self._index[job.id], job=job, image=data, provenance=provenance)
        with self._lock:
            self._waiting[job.id] = _Waiting(sample=sample, reused=reused, sample_seconds=sample_seconds)
            self._waiting_bytes += len(data)
            full = self._is_full()
        if full:
            self._flush_if_full()

    def _put(self, waiting: Mapping[str, _Waiting]) -> None:
        samples = [image.sample for image in waiting.values()]
        shard = make_shard(samples, sweep=self._sweep, chunk=self._chunk, image_format=self._format)
        self._patiently(lambda: self._store.put(shard.key, shard.data, content_type=MEDIA_TYPE))
        self._seen.add(shard.key)
        failpoint("uploaded")
        for job_id, image in waiting.items():
            self._finished.add(job_id)
            self._finish(
                image.sample.job,
                shard.images[job_id],
                reused=image.reused,
                sample_seconds=image.sample_seconds,
            )

    def _take_shards(self) -> None:
        """Take the images of shards not seen yet: of a delivery that died, or of a worker that was faster."""
        prefix = names.shard_prefix(self._sweep, self._chunk)
        keys = [info.key for info in self._patiently(lambda: list(self._store.list(prefix)))]
        for key in keys:
            if key in self._seen:
                continue
            self._seen.add(key)
            for job_id, image in self._read_shard(key).items():
                if job_id in self._jobs and job_id not in self._finished:
                    self._finished.add(job_id)
                    self._finish(self._jobs[job_id], image, reused=True, sample_seconds=None)

    def _read_shard(self, key: str) -> dict[str, StoredImage]:
        """Return a shard's images; none of one that is damaged, whose images are then rendered again."""
        try:
            return read_shard(key, self._patiently(lambda: self._store.get(key)), self._format)
        except (ObjectMissing, ValueError) as error:
            log.warning("shard_unreadable", extra={"key": key, "reason": str(error)})
            return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """An image that waits for its shard."""

    sample: ShardSample
    reused: bool
    sample_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """An image that lies in the store as an object."""

    data: bytes
    image: StoredImage


def _read_object(store: Store, job: Job, image_format: ImageFormat, patiently: Patiently) -> _Found | None:
    """Read a job's image object, or return None where there is none that can be believed."""
    key = names.image_key(job.id, image_format)
    try:
        data = patiently(lambda: store.get(key))
        found = read_image(data)
    except ObjectMissing:
        return None
    except ValueError as error:
        log.warning("image_unreadable", extra={"key": key, "reason": str(error)})
        return None
    if (found.job.id, found.image_format) != (job.id, image_format):
        holds = names.image_key(found.job.id, found.image_format)
        log.warning("image_misplaced", extra={"key": key, "holds": holds})
        return None
    return _Found(data=data, image=_stored(key, data, found.provenance))


def _stored(key: str, data: bytes, provenance: Provenance) -> StoredImage:
    sha256 = hashlib.sha256(data).hexdigest()
    return StoredImage(key=key, size_bytes=len(data), sha256=sha256, provenance=provenance)
