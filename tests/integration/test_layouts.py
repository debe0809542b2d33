"""Both layouts from sweep to sheet: the worker's own code on a real Valkey and real stores, a painter for a GPU."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import urllib.request
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest

from producer import Printroom
from producer.results.images import read_stored_image
from shared import metadata, names
from shared.errors import JobCrashed
from shared.message import ChunkMessage
from shared.settings import Settings
from worker import execute as executing
from worker import publish
from worker.backoff import Abandoned
from worker.execute import execute
from worker.meter import ImageEncoded, ImageStored, JobFailed, Meter
from worker.sampling.request import Sampled, SampleFailed

#: 66 jobs: a chunk of 64, and one of 2.
SWEEP = {
    "name": "faces",
    "prompt": ["a face", 'naïve 猫, with "quotes"\nand a line'],
    "negative_prompt": [None, "", "mustache"],
    "seed": {"start": 0, "count": 11},
    "guidance_scale": 5.0,
    "steps": 4,
    "size": "16x16",
    "model": "fake",
    "layout": "webdataset",
}

#: What differs between two deliveries of the same image, or between the layouts.
OF_THE_DELIVERY = ("sweep", "key", "offset", "reused", "sample_seconds", "attempt", "worker", "finished_at")


class Waiting(Future):
    """A request that has no rows yet: taken back, it is answered at once, as the engine does."""

    def cancel(self):
        """Take it back."""
        if not self.done() and super().cancel():
            self.set_running_or_notify_cancel()
        return self.cancelled()


class Painter:
    """An engine that paints at once what a request says, and breaks where it is told to."""

    def __init__(self) -> None:
        self.painted = 0
        self.broken_seeds: set[int] = set()
        #: Called with each request; requests beyond `most` never end by themselves.
        self.on_request = lambda: None
        self.most = 2**30

    def submit(self, model, request, *, rows):
        """Answer a request."""
        future = Waiting()
        if self.painted < self.most:
            future.set_result(self._paint(request, rows))
        self.on_request()
        return future

    def seconds_left(self):
        """Return a while."""
        return 60.0

    def _paint(self, request, rows):
        if request.seed in self.broken_seeds:
            return SampleFailed(request_index=0, error=JobCrashed("told to"))
        self.painted += 1
        text = f"{request.prompt}/{request.negative_prompt}/{request.seed}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        shape = (request.height, request.width, 3)
        return Sampled(
            request_index=0,
            pixels=np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
            prompt_tokens=2,
            negative_tokens=0,
            seconds=0.1,
            batch_rows=rows,
            dtype="float32",
        )


class Studio:
    """A client and a worker's context on the same servers."""

    def __init__(self, settings: Settings, store) -> None:
        self.client = Printroom(settings)
        self.client.__dict__["store"] = self.store = store
        self.painter = Painter()
        self.context = SimpleNamespace(
            name="painter",
            settings=settings,
            ledger=self.client.ledger,
            store=store,
            device=SimpleNamespace(name="cpu", batch_rows=4),
            engine=self.painter,
            publishers=ThreadPoolExecutor(4),
            versions={"printroom": "0", "png": "x"},
            meter=Meter(),
            draining=threading.Event(),
            plans={},
        )

    def submit(self, **fields):
        """Submit the sweep with some fields changed."""
        return self.client.submit({**SWEEP, **fields}).sweep

    def deliver(self, sweep, chunk):
        """Give a chunk to the worker."""
        execute(ChunkMessage(sweep=sweep, chunk=chunk), self.context, beat=lambda **_: None)

    def work(self, sweep):
        """Deliver every chunk."""
        for chunk in range(self.client.plan(sweep).chunks):
            self.deliver(sweep, chunk)

    def render(self, **fields):
        """Submit a sweep and work it off."""
        sweep = self.submit(**fields)
        self.work(sweep)
        return sweep

    def shards(self, sweep):
        """Return the keys of a sweep's shards."""
        return [info.key for info in self.store.list(f"sweeps/{sweep}/shards/")]

    def check(self, sweep):
        """Assert the promise: a row a job, every image where its row says, figures exact, no shard too many."""
        plan, rows = self.client.plan(sweep), list(self.client.results(sweep))
        assert [row["index"] for row in rows] == list(range(len(plan)))
        done = [row for row in rows if row["status"] == "done"]
        for row in done:
            data = read_stored_image(self.store, row)
            assert len(data) == row["size_bytes"]
            assert metadata.read_image(data).job.id == row["job_id"] == plan.job(row["index"]).id
        if plan.layout == "webdataset":
            assert {row["key"] for row in done} == set(self.shards(sweep))
        status, bits = self.client.ledger.status(sweep), self.client.ledger.bit_counts(sweep)
        assert (status.state, status.done, status.failed) == ("done", len(done), len(rows) - len(done))
        assert bits == {"done": status.done, "failed": status.failed, "chunks": plan.chunks}


@pytest.fixture
def settings(valkey_server, key_prefix, tmp_path):
    """Settings of this test alone, whose only model is a fake: enough for a name to mean something."""
    model = tmp_path / "models" / "fake"
    model.mkdir(parents=True)
    (model / "model_index.json").write_text('{"_class_name": "None"}')
    (model / "weights.safetensors").write_bytes(b"no weights")
    return Settings(
        redis_url=valkey_server.url,
        redis_prefix=f"{key_prefix}:",
        models=(tmp_path / "models",),
        cache=tmp_path / "cache",
        store=str(tmp_path / "store"),
    )


@pytest.fixture(params=["folder_store", "s3_store", "moto_store"])
def studio(request, settings):
    """A studio on each store."""
    made = Studio(settings, request.getfixturevalue(request.param))
    yield made
    made.context.publishers.shutdown()


@pytest.fixture
def local(settings, folder_store):
    """A studio on a folder."""
    made = Studio(settings, folder_store)
    yield made
    made.context.publishers.shutdown()


def fetched(studio, sweep, folder):
    """Return a fetched sweep's files by name."""
    done = studio.client.fetch(sweep, folder)
    assert (done.fetched, done.failed, done.broken) == (66, 0, ())
    assert studio.client.fetch(sweep, folder).skipped == 66
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


def told(studio, sweep):
    """Return a sweep's rows without what belongs to the delivery."""
    return [
        {name: value for name, value in row.items() if name not in OF_THE_DELIVERY}
        for row in studio.client.results(sweep)
    ]


def test_both_layouts_from_sweep_to_sheet(studio, tmp_path):
    """The same sweep in both layouts is the same rows, the same files when fetched and the same contact sheet."""
    shards = studio.render()
    assert [info.key for info in studio.store.list("images/")] == []
    assert len(studio.shards(shards)) == 2
    studio.check(shards)
    images = studio.render(layout="images")
    studio.check(images)
    assert images != shards
    assert studio.painter.painted == 2 * 66
    assert told(studio, images) == told(studio, shards)
    assert {row["offset"] for row in studio.client.results(images)} == {None}
    assert fetched(studio, images, tmp_path / "i") == fetched(studio, shards, tmp_path / "s")
    sheets = [np.asarray(studio.client.sheet(sweep)) for sweep in (images, shards)]
    assert np.array_equal(*sheets)
    again = studio.render(name="again")
    studio.check(again)
    assert (studio.client.ledger.status(again).reused, studio.painter.painted) == (66, 2 * 66)


def test_an_old_manifest_is_still_read(local, tmp_path):
    """A sweep whose manifests are of format 2 is listed, fetched and drawn as before."""
    sweep = local.render(layout="images")
    rows, sheet = list(local.client.results(sweep)), np.asarray(local.client.sheet(sweep))
    for info in list(local.store.list(names.manifest_prefix(sweep))):
        table = pq.read_table(pyarrow.BufferReader(local.store.get(info.key))).drop_columns(["offset"])
        sink = pyarrow.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({"printroom.manifest_format": "2"}), sink)
        local.store.put(info.key, sink.getvalue().to_pybytes(), content_type="x")
    assert list(local.client.results(sweep)) == rows
    assert np.array_equal(np.asarray(local.client.sheet(sweep)), sheet)
    assert len(fetched(local, sweep, tmp_path / "home")) == 66


def test_a_failed_job_and_its_retry(studio):
    """A job that fails stands in the manifest only; a retry renders it alone, and moves no other image."""
    studio.painter.broken_seeds = {3}
    sweep = studio.render()
    studio.check(sweep)
    before = {row["index"]: row for row in studio.client.results(sweep)}
    assert studio.client.ledger.status(sweep).failed == 6
    assert len(studio.shards(sweep)) == 2
    studio.painter.broken_seeds, painted = set(), studio.painter.painted
    assert studio.client.retry(sweep).jobs == 6
    studio.work(sweep)
    studio.check(sweep)
    assert studio.painter.painted == painted + 6
    assert studio.client.ledger.status(sweep).failed == 0
    assert len(studio.shards(sweep)) == 3
    for row in studio.client.results(sweep):
        old = before[row["index"]]
        if old["status"] == "done":
            assert (row["key"], row["offset"]) == (old["key"], old["offset"])


@pytest.mark.parametrize(
    ("step", "shards"),
    [
        (
            "begun",
            range(4, 10),
        ),  # after a delivery that left nothing a shard is put for every eight images or so
        ("uploaded", [2]),
        ("before_manifest", [2]),
        ("before_commit", [2]),
        ("committed", [2]),
    ],
)
def test_a_death_between_any_two_steps(studio, monkeypatch, step, shards):
    """Wherever a delivery ends, the next one finds what is stored, and every figure is exact."""
    alive = executing.failpoint

    def die(here):
        if here == step:
            raise SystemExit(here)

    sweep = studio.submit()
    for module in (executing, publish):
        monkeypatch.setattr(module, "failpoint", die)
    with pytest.raises(SystemExit):
        studio.deliver(sweep, 0)
    for module in (executing, publish):
        monkeypatch.setattr(module, "failpoint", alive)
    studio.work(sweep)
    studio.check(sweep)
    assert studio.painter.painted == 66
    assert len(studio.shards(sweep)) in shards


def test_a_death_while_rendering_leaves_no_shard(local, monkeypatch):
    """A worker that is gone midway leaves nothing of its chunk, and the next one renders all of it."""
    sweep = local.submit()

    def die():
        raise SystemExit

    local.painter.on_request = die
    # What a dead process cannot do either.
    monkeypatch.setattr(publish.ShardPublisher, "flush", lambda self: None)
    with pytest.raises(SystemExit):
        local.deliver(sweep, 0)
    assert (local.shards(sweep), local.client.ledger.status(sweep).done) == ([], 0)
    monkeypatch.undo()
    local.painter.on_request = lambda: None
    local.work(sweep)
    local.check(sweep)


def test_a_drain_keeps_what_is_rendered(studio):
    """SIGTERM in mid chunk: what is rendered is stored and counted, the rest is given back, at no attempt's cost."""
    sweep = studio.submit()
    studio.painter.most, studio.painter.on_request = 10, studio.context.draining.set
    with pytest.raises(Abandoned):
        studio.deliver(sweep, 0)
    assert studio.client.ledger.status(sweep).done == 10
    assert len(studio.shards(sweep)) == 1
    studio.painter.most, studio.painter.on_request = 2**30, lambda: None
    studio.context.draining.clear()
    studio.work(sweep)
    studio.check(sweep)
    assert studio.painter.painted == 66
    assert len(studio.shards(sweep)) == 3
    assert {row["attempt"] for row in studio.client.results(sweep)} == {1}


def test_a_cancel_is_heard_before_the_shard_is_put(local, monkeypatch):
    """Though no bit can be set before its shard is there, a worker learns of a cancel as it goes."""
    monkeypatch.setattr(executing, "_PROGRESS_SECONDS", 0.0)
    sweep = local.submit()
    local.painter.most = 10
    cancelled = threading.Event()

    def cancel():
        if not cancelled.is_set():
            cancelled.set()
            local.client.cancel(sweep)

    local.painter.on_request = cancel
    with pytest.raises(Abandoned):
        local.deliver(sweep, 0)
    status = local.client.ledger.status(sweep)
    assert (status.state, status.done, status.chunks_running) == ("cancelled", 10, 0)
    local.painter.most = 2**30
    assert local.client.resume(sweep) == "active"
    local.work(sweep)
    local.check(sweep)
    assert local.painter.painted == 66


def test_jobs_that_are_one_image_are_one_sample(local):
    """A value that a list repeats is rendered and stored once, and every row says where."""
    sweep = local.render(prompt=["a cat", "a cat"], negative_prompt=None, seed=[1, 2])
    local.check(sweep)
    places = {(row["job_id"], row["key"], row["offset"]) for row in local.client.results(sweep)}
    assert (len(places), local.painter.painted) == (2, 2)


def test_a_damaged_image_in_a_shard_is_named(local, tmp_path):
    """One image whose bytes have changed costs that image alone: fetch names it and goes on."""
    sweep = local.render()
    row = next(row for row in local.client.results(sweep) if row["index"] == 7)
    data = bytearray(local.store.get(row["key"]))
    data[row["offset"] + 100] ^= 1
    local.store.put(row["key"], bytes(data), content_type="application/x-tar")
    done = local.client.fetch(sweep, tmp_path / "home")
    assert done.fetched == 65
    assert [f"{row['key']}, byte {row['offset']}: its sha256 is not what the manifest says"] == list(
        done.broken
    )


def test_a_url_and_a_row_are_enough(studio):
    """Presigned URLs work in this layout too: the row says which part of the object is the image."""
    sweep = studio.render()
    row = next(iter(studio.client.results(sweep, urls=True)))
    end = row["offset"] + row["size_bytes"]
    request = urllib.request.Request(row["url"], headers={"Range": f"bytes={row['offset']}-{end - 1}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        data = answer.read()
    if row["url"].startswith("file:"):  # a file has no ranges
        data = data[row["offset"] : end]
    assert hashlib.sha256(data).hexdigest() == row["sha256"]


# webdataset leaves the files it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_training_program_reads_them_where_they_lie(local, tmp_path, capsys):
    """The lines of docs/sweeps.md give every image of the sweep, once, with its prompt and its row."""
    sweep = local.render()
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "webdataset" in block]
    exec(lines.replace("prints", local.store.url).replace("SWEEP", sweep), {})
    printed = capsys.readouterr().out
    keys = [names.sample_key(row["index"], row["job_id"]) for row in local.client.results(sweep)]
    assert re.findall(r"^([0-9]{8}-[0-9a-f]{8}) ", printed, re.M) == keys
    assert printed.count("(16, 16, 3)") == 66


def test_a_chunk_reports_each_image(studio):
    """Sampled, encoded and stored; in another sweep of these jobs reused, and no more; a failure with its code."""
    heard = []
    studio.context.meter = Meter([heard.append])
    studio.render(layout="images")
    assert Counter(type(event).__name__ for event in heard) == {
        "ImageSampled": 66,
        "ImageEncoded": 66,
        "ImageStored": 66,
    }
    assert all(event.size_bytes > 0 for event in heard if isinstance(event, ImageEncoded | ImageStored))
    heard.clear()
    studio.painter.broken_seeds = {99}
    studio.render(layout="images", seed=[*range(11), 99])
    assert Counter(type(event).__name__ for event in heard) == {"ImageReused": 66, "JobFailed": 6}
    assert {event.code for event in heard if isinstance(event, JobFailed)} == {"job_crashed"}


def test_a_chunk_is_tried_as_often_as_the_setting_says(local):
    """The last delivery that is allowed still renders; the next one fails the jobs, and renders nothing."""
    sweep = local.submit(layout="images")
    most = local.client.settings.max_attempts
    for chunk, deaths in ((0, most - 1), (1, most)):
        for _ in range(deaths):
            local.client.ledger.begin(sweep, chunk)  # a delivery that ends without a word
    painted = {}
    for chunk in (0, 1):
        before = local.painter.painted
        local.deliver(sweep, chunk)
        painted[chunk] = local.painter.painted - before
    plan, status = local.client.plan(sweep), local.client.ledger.status(sweep)
    assert painted == {0: len(plan.chunk(0)), 1: 0}
    assert dict(status.failures) == {"worker_lost": len(plan.chunk(1))}


def test_twins_are_one_image(local):
    """A job that a chunk has twice is rendered once; its second row says that the image is reused."""
    sweep = local.render(layout="images", seed=[1, 2, 1])
    rows = list(local.client.results(sweep))
    twins = {}
    for row in rows:
        twins.setdefault(row["job_id"], []).append(row["reused"])
    assert sorted(twins.values(), key=len) == [[False]] * 6 + [[False, True]] * 6
    assert local.painter.painted == 12
    assert local.client.ledger.status(sweep).reused == 6


def test_rows_are_those_of_the_whole_sweep(local):
    """How many rows a batch gets depends on the sweep, not on what of it is missing: the bytes depend on it."""
    local.context.device.batch_rows = 64
    sweep = local.render(layout="images")
    (rows,) = {row["batch_rows"] for row in local.client.results(sweep)}
    keys = [row["key"] for row in local.client.results(sweep)][:3]
    for key in keys:
        local.store.delete(key)
    assert local.client.verify(sweep, repair=True).agrees is False
    local.work(sweep)
    assert {row["batch_rows"] for row in local.client.results(sweep)} == {rows}
    assert rows > 2 * len(keys)


def test_the_samples_say_what_the_manifest_says(local):
    """The JSON beside each image agrees with its manifest row, column by column."""
    sweep = local.render()
    rows = {row["index"]: row for row in local.client.results(sweep)}
    seen = 0
    for key in local.shards(sweep):
        with tarfile.open(fileobj=io.BytesIO(local.store.get(key))) as tar:
            for info in tar:
                if info.name.endswith(".json"):
                    said = json.loads(tar.extractfile(info).read())
                    assert said == {name: rows[said["index"]][name] for name in said}
                    seen += 1
    assert seen == 66
