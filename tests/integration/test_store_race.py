"""Two workers whose bytes differ publish one job at the same moment: every row tells of the image that is there."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared import names
from shared.images.format import PNG
from shared.job import Job, make_job
from shared.metadata import image_bytes
from shared.result import Provenance, StoredImage
from shared.store.base import Store
from shared.store.s3 import S3Store
from worker.publish import ObjectPublisher

MADE_BY = Provenance(
    model_name="fake",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=1,
    versions={},
)
JOB = make_job(
    prompt="a cat", negative_prompt=None, seed=1, guidance_scale=5.0, steps=4, scheduler="euler", width=16, height=16,
    model="fake",
)  # fmt: skip
KEY = names.image_key(JOB.id)


def image_of(worker: int) -> bytes:
    """Return what one worker renders: the same pixels, and another device in the metadata."""
    return image_bytes(JOB, np.zeros((16, 16, 3), np.uint8), replace(MADE_BY, device=f"device {worker}"))


@pytest.fixture
def ignoring_store(moto_store: S3Store) -> S3Store:
    """A server that knows no conditional writes, and ignores the condition."""
    strip = lambda request, **_: request.headers.__delitem__("If-None-Match")  # noqa: E731
    moto_store._client().meta.events.register("before-sign.s3.PutObject", strip)
    return moto_store


@pytest.fixture
def linkless_store(folder_store, monkeypatch):
    """A folder on a file system without links."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    return folder_store


class Worker:
    """One worker's delivery of the job."""

    def __init__(self, number: int, store: Store) -> None:
        self.row: StoredImage | None = None
        self.reused = False
        self._image = image_of(number)
        self.publisher = ObjectPublisher(
            store=store, image_format=PNG, patiently=lambda action: action(), finish=self._finish
        )

    def _finish(self, job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        self.row, self.reused = image, reused

    def publish(self) -> bool:
        """Publish the image that was rendered."""
        return self.publisher.publish(JOB, self._image, MADE_BY, sample_seconds=0.1)


@pytest.mark.parametrize("kind", ["folder_store", "s3_store", "moto_store"])
def test_the_first_image_stays(kind, request):
    """Both rows, and any later one, have the sha256 of the object; one worker's image counts as made."""
    store = request.getfixturevalue(kind)
    store.put_new("images/before", b"", content_type=PNG.media_type)
    workers, start = [Worker(number, store) for number in range(4)], threading.Barrier(4)

    def publish(worker: Worker) -> bool:
        start.wait()
        return worker.publish()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(publish, workers))
    for worker in workers:
        worker.publisher.flush()
    sha256 = hashlib.sha256(store.get(KEY)).hexdigest()
    assert [worker.row.sha256 for worker in workers] == [sha256] * 4
    assert (made.count(True), [worker.reused for worker in workers].count(False)) == (1, 1)


@pytest.mark.parametrize("kind", ["ignoring_store", "linkless_store"])
def test_without_conditional_writes_a_row_is_checked_before_it_is_written(kind, request):
    """Where a later worker could replace the image, the first one looks again, and takes what is there."""
    store = request.getfixturevalue(kind)
    first, third = Worker(1, store), Worker(3, store)
    assert store.put_new("images/before", b"", content_type=PNG.media_type)
    assert not store.keeps_first
    assert first.publish()
    # The second worker had looked before the first one put.
    store.put(KEY, image_of(2), content_type=PNG.media_type)
    first.publisher.flush()
    assert (first.row.sha256, first.reused) == (hashlib.sha256(image_of(2)).hexdigest(), True)
    assert not third.publish()
    assert third.row.sha256 == first.row.sha256


@pytest.mark.parametrize("kind", ["folder_store", "s3_store", "ignoring_store", "linkless_store"])
def test_an_answer_that_was_lost_is_no_other_worker(kind, request):
    """A put that was done, and said to have failed, is done again: the image is this worker's own."""
    store, worker = request.getfixturevalue(kind), Worker(1, request.getfixturevalue(kind))
    store.put_new(KEY, image_of(1), content_type=PNG.media_type)
    assert worker.publish()
    worker.publisher.flush()
    assert (worker.reused, store.get(KEY)) == (False, image_of(1))


def test_what_cannot_be_believed_is_replaced(folder_store):
    """A damaged object under the job's key gives way to the image."""
    worker = Worker(1, folder_store)
    folder_store.put(KEY, b"damaged", content_type=PNG.media_type)
    assert worker.publish()
    assert folder_store.get(KEY) == image_of(1)
