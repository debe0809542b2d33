"""A chunk's way into the store, in both layouts: what is there when, what is used again, what is never replaced."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import names
from shared.images.format import PNG, parse_format
from shared.job import Job, make_job
from shared.metadata import image_bytes, read_image
from shared.result import Provenance, StoredImage
from shared.store.folder import FolderStore
from worker import publish
from worker.publish import ObjectPublisher, ShardPublisher

SWEEP, CHUNK = "cd" * 16, 3

MADE_BY = Provenance(
    model_name="fake",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=1,
    versions={"printroom": "0"},
)
OTHER_GPU = replace(MADE_BY, device="another device", batch_rows=16)


def _job(seed: int) -> Job:
    return make_job(
        prompt=f"a cat {seed}",
        negative_prompt=None,
        seed=seed,
        guidance_scale=5.0,
        steps=4,
        scheduler="euler",
        width=16,
        height=16,
        model="fake",
    )


def _image(job: Job, made_by: Provenance = MADE_BY) -> bytes:
    pixels = np.random.default_rng(job.seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return image_bytes(job, pixels, made_by)


#: A chunk of ten jobs, from index 40 on.
JOBS = {index: _job(index) for index in range(40, 50)}


@dataclass
class Delivery:
    """One worker's run over the chunk: a publisher, and what it has called finished."""

    store: FolderStore
    attempt: int = 1
    made_by: Provenance = MADE_BY
    finished: dict[int, StoredImage] = field(default_factory=dict)
    reused: set[int] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.publisher = ShardPublisher(
            store=self.store,
            image_format=PNG,
            sweep=SWEEP,
            chunk=CHUNK,
            jobs=JOBS,
            attempt=self.attempt,
            patiently=patiently,
            finish=self.finish,
        )
        self.publisher.open()

    def finish(self, job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        """Take note, having looked: the image is in the store, where it is said to be."""
        assert image.offset is not None
        data = self.store.get_range(image.key, image.offset, image.size_bytes)
        assert hashlib.sha256(data).hexdigest() == image.sha256
        assert read_image(data).job.id == job.id
        assert (sample_seconds is None) == reused
        with self.lock:
            self.finished[job.seed] = image
            self.calls[job.seed] += 1
            if reused:
                self.reused.add(job.seed)

    def render(self, *seeds: int) -> None:
        """Publish some images."""
        for seed in seeds:
            job = JOBS[seed]
            self.publisher.publish(job, _image(job, self.made_by), self.made_by, sample_seconds=0.1)

    def missing(self) -> list[int]:
        """Return the jobs that are neither finished nor waiting."""
        return [
            seed for seed, job in JOBS.items() if seed not in self.finished and not self.publisher.holds(job)
        ]


def patiently(action: Callable[[], Any]) -> Any:
    """Try once."""
    return action()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store")


def _shards(store: FolderStore) -> list[str]:
    return [info.key for info in store.list(names.sweep_prefix(SWEEP))]


def test_one_shard_a_chunk(store: FolderStore) -> None:
    """A chunk that is rendered in one go is one tar, of all its images, put at the end and not before."""
    worker = Delivery(store)
    worker.render(*reversed(range(40, 49)))
    assert (_shards(store), worker.finished, worker.missing()) == ([], {}, [49])
    worker.render(49)
    worker.publisher.flush()
    (key,) = _shards(store)
    assert set(worker.finished) == set(JOBS)
    assert {image.key for image in worker.finished.values()} == {key}
    assert worker.reused == set()
    with tarfile.open(Path(store.url) / key) as tar:
        assert len(tar.getnames()) == 3 * len(JOBS)


def test_the_image_is_the_same_file_in_both_layouts(store: FolderStore) -> None:
    """Byte for byte: an image out of a shard is the object that the other layout stores."""
    objects: dict[int, StoredImage] = {}

    def finish(job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        objects[job.seed] = image

    publisher = ObjectPublisher(store=store, image_format=PNG, patiently=patiently, finish=finish)
    for job in JOBS.values():
        assert publisher.publish(job, _image(job), MADE_BY, sample_seconds=0.1)
    other = FolderStore(Path(store.url) / "other")
    worker = Delivery(other)
    worker.render(*JOBS)
    worker.publisher.flush()
    for seed, image in objects.items():
        place = worker.finished[seed]
        assert image.offset is None
        assert place.offset is not None
        data = store.get(image.key)
        assert data == other.get_range(place.key, place.offset, place.size_bytes)
        assert (image.sha256, image.size_bytes) == (place.sha256, place.size_bytes)


def test_a_redelivery_finds_all_and_renders_nothing(store: FolderStore) -> None:
    """Where the shard is whole, the next delivery takes every image out of it and writes nothing."""
    first = Delivery(store)
    first.render(*JOBS)
    first.publisher.flush()
    before = _shards(store)
    second = Delivery(store, attempt=2)
    assert (second.finished, second.missing()) == (first.finished, [])
    assert second.reused == set(JOBS)
    second.publisher.flush()
    assert _shards(store) == before


def test_what_an_interrupted_delivery_stored_stays_where_it_is(store: FolderStore) -> None:
    """A drained or retried chunk gets one more shard; places that a manifest may already name are still right."""
    first = Delivery(store)
    first.render(*range(40, 46))
    first.publisher.flush()
    named = dict(first.finished)
    second = Delivery(store)
    assert second.missing() == [46, 47, 48, 49]
    second.render(*second.missing())
    second.publisher.flush()
    assert set(second.finished) == set(JOBS)
    assert {seed: second.finished[seed] for seed in named} == named
    assert len(_shards(store)) == 2
    for image in named.values():
        assert image.offset is not None
        data = store.get_range(image.key, image.offset, image.size_bytes)
        assert hashlib.sha256(data).hexdigest() == image.sha256
    assert Delivery(store).finished == second.finished


def test_a_damaged_shard_is_rendered_again(store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is believed of a tar that has changed; the same images put the right one in its place."""
    first = Delivery(store)
    first.render(*JOBS)
    first.publisher.flush()
    (key,) = _shards(store)
    whole = store.get(key)
    store.put(key, whole[:1500] + b"x" + whole[1501:], content_type="application/x-tar")
    second = Delivery(store)
    assert second.missing() == list(JOBS)
    assert any(record.message == "shard_unreadable" for record in caplog.records)
    second.render(*JOBS)
    second.publisher.flush()
    assert (store.get(key), _shards(store)) == (whole, [key])


@pytest.mark.parametrize("made_by", [MADE_BY, OTHER_GPU])
def test_two_workers_with_one_chunk(store: FolderStore, made_by: Provenance) -> None:
    """Who comes second takes what the first has put: one shard, whatever device each of them has."""
    sleeper, other = Delivery(store), Delivery(store, made_by=made_by)
    sleeper.render(*JOBS)
    other.render(*JOBS)
    other.publisher.flush()
    sleeper.publisher.flush()
    assert sleeper.finished == other.finished
    assert sleeper.reused == set(JOBS)
    assert len(_shards(store)) == 1


def test_two_workers_that_put_at_the_same_moment(store: FolderStore) -> None:
    """Even past each other's last look, neither replaces what the other's manifest names."""
    sleeper, other = Delivery(store), Delivery(store, made_by=OTHER_GPU)
    sleeper.render(*JOBS)
    other.render(*JOBS)
    keys = store.list
    store.list = lambda prefix: iter(())  # type: ignore[method-assign]
    other.publisher.flush()
    sleeper.publisher.flush()
    store.list = keys  # type: ignore[method-assign]
    assert {image.key for image in sleeper.finished.values()} != {
        image.key for image in other.finished.values()
    }
    for image in (*sleeper.finished.values(), *other.finished.values()):
        assert image.offset is not None
        data = store.get_range(image.key, image.offset, image.size_bytes)
        assert hashlib.sha256(data).hexdigest() == image.sha256
    third = Delivery(store)
    assert third.calls == dict.fromkeys(JOBS, 1)
    assert {image.key for image in third.finished.values()} == {min(_shards(store))}


def test_memory_is_bounded(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of large images is put in several shards as it goes."""
    size = len(_image(JOBS[40]))
    monkeypatch.setattr(publish, "SHARD_BYTES", 3 * size - 50)
    worker = Delivery(store)
    worker.render(40, 41)
    assert worker.finished == {}
    worker.render(42)
    assert set(worker.finished) == {40, 41, 42}
    worker.render(*range(43, 50))
    worker.publisher.flush()
    assert set(worker.finished) == set(JOBS)
    assert len(_shards(store)) == 4


def test_after_a_loss_little_waits(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second delivery stores a few images at a time: a job that kills its worker costs the others little."""
    monkeypatch.setattr(publish, "SHARD_IMAGES_AFTER_LOSS", 4)
    for attempt, expected in ((1, 0), (2, 8)):
        worker = Delivery(store, attempt=attempt)
        worker.render(*range(40, 49))
        assert len(worker.finished) == expected


def test_an_object_of_the_other_layout_is_copied(store: FolderStore) -> None:
    """An image that another sweep has as an object is not rendered again; one that lies is."""
    job, liar = JOBS[40], JOBS[41]
    store.put(names.image_key(job.id), _image(job), content_type="image/png")
    store.put(names.image_key(liar.id), _image(job), content_type="image/png")
    store.put(names.image_key(JOBS[42].id, parse_format("webp")), _image(JOBS[42]), content_type="image/png")
    worker = Delivery(store)
    assert [worker.publisher.take(job) for job in JOBS.values()] == [True] + [False] * 9
    assert worker.missing() == list(range(41, 50))
    worker.publisher.flush()
    assert (set(worker.finished), worker.reused) == ({40}, {40})
    assert store.get(names.image_key(job.id)) == _image(job)


def test_many_threads(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads publish at once, shards going out under their feet: each image is finished once."""
    monkeypatch.setattr(publish, "SHARD_BYTES", 2 * len(_image(JOBS[40])))
    worker = Delivery(store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(worker.render, JOBS))
    worker.publisher.flush()
    assert worker.calls == dict.fromkeys(JOBS, 1)


def test_who_waited_to_write_looks_again(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads find the shard full: one puts all there is, the other leaves what has come since for the next."""
    monkeypatch.setattr(publish, "SHARD_BYTES", 2 * min(len(_image(job)) for job in JOBS.values()))
    worker, put = Delivery(store), store.put

    def put_while_one_more_comes(key: str, data: bytes, *, content_type: str) -> None:
        worker.render(43)
        put(key, data, content_type=content_type)

    monkeypatch.setattr(store, "put", put_while_one_more_comes)
    with ThreadPoolExecutor(2) as pool:
        with worker.publisher._writing:
            threads = []
            for seeds in (
                (40, 41),
                (42,),
            ):  # one after the other: who finds the shard full waits, and renders no more
                threads.append(pool.submit(worker.render, *seeds))
                while seeds[-1] in worker.missing():
                    time.sleep(0.01)
        for thread in threads:
            thread.result()
    assert set(worker.finished) == {40, 41, 42}
    assert worker.publisher.holds(JOBS[43])


def test_a_store_that_fails_leaves_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that could not be put is not there, nothing of it is called finished, and the error is heard."""

    def refuse(key: str, data: bytes, *, content_type: str) -> None:
        raise RuntimeError("no")

    worker = Delivery(store)
    worker.render(*range(40, 45))
    with monkeypatch.context() as patch:
        patch.setattr(store, "put", refuse)
        with pytest.raises(RuntimeError, match="no"):
            worker.publisher.flush()
    assert (worker.finished, _shards(store)) == ({}, [])


def test_an_object_is_not_replaced(store: FolderStore) -> None:
    """A worker that publishes an image after another worker leaves the first image as it is, and reports that one."""
    job, finished = JOBS[40], []

    def finish(job: Job, image: StoredImage, *, reused: bool, sample_seconds: float | None) -> None:
        finished.append((image.sha256, reused))

    def publish_image(made_by: Provenance) -> bool:
        publisher = ObjectPublisher(store=store, image_format=PNG, patiently=patiently, finish=finish)
        return publisher.publish(job, _image(job, made_by), made_by, sample_seconds=0.1)

    assert publish_image(MADE_BY)
    assert not publish_image(OTHER_GPU)
    first = _image(job, MADE_BY)
    assert store.get(names.image_key(job.id, PNG)) == first
    sha256 = hashlib.sha256(first).hexdigest()
    assert finished == [(sha256, False), (sha256, True)]
