"""A dataset out of a real S3 server: brought home, added to, linked to. Images and manifests are made by hand."""

from __future__ import annotations

import hashlib
import json
import tarfile
import urllib.request
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from producer.export.fetch import FetchOptions, fetch
from producer.results.rows import manifest_rows
from shared import names
from shared.job import make_job
from shared.manifest import write_manifest
from shared.metadata import image_bytes
from shared.result import Done, Provenance, StoredImage

SWEEP = "ab" * 16

MADE_BY = Provenance(
    model_name="fake",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=0,
    versions={"printroom": "0"},
)


def work(store, chunk: int, count: int = 20) -> None:
    """Do a chunk as a worker would have: images, then their manifest."""
    rows = []
    for index in range(chunk * count, (chunk + 1) * count):
        job = make_job(
            prompt="naïve 猫", negative_prompt=None, seed=index, guidance_scale=5.0, guidance_rule=None, steps=4,
            scheduler="ddim", width=16, height=16, model="sha:00",
        )  # fmt: skip
        data = image_bytes(job, np.full((16, 16, 3), index, dtype=np.uint8), MADE_BY)
        key = names.image_key(job.id)
        store.put(key, data, content_type="image/png")
        image = StoredImage(
            key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), provenance=MADE_BY
        )
        rows.append(
            Done(
                index=index, job=job, image=image, reused=False, sample_seconds=0.1, attempt=1, worker="hand",
                finished_at=datetime.now(UTC),
            )
        )  # fmt: skip
    manifest = write_manifest(rows, sweep=SWEEP, chunk=chunk)
    store.put(names.manifest_key(SWEEP, chunk), manifest, content_type="application/vnd.apache.parquet")


@pytest.fixture
def store(s3_store):
    """A bucket with the first chunk of a sweep and its file."""
    s3_store.put(names.source_key(SWEEP), b"prompt: a face\n", content_type="application/yaml")
    work(s3_store, 0)
    return s3_store


@pytest.mark.parametrize("layout", ["folder", "webdataset", "parquet", "hf"])
def test_a_running_sweep_comes_home(store, tmp_path, layout):
    """What is there comes, checked; later what is new comes, and nothing twice; a lost image is named."""
    options = FetchOptions(layout=layout)
    first = fetch(SWEEP, store, tmp_path, options=options)
    assert (first.fetched, first.skipped, first.broken) == (20, 0, ())
    work(store, 1)
    lost = list(manifest_rows(SWEEP, store))[30]["key"]
    store.delete(lost)
    second = fetch(SWEEP, store, tmp_path, options=options)
    assert (second.fetched, second.skipped) == (19, 20)
    assert second.broken == (f"{lost}: gone from {store.url}",)
    assert (tmp_path / "sweep.yaml").read_bytes() == b"prompt: a face\n"


def test_shards_hold_what_the_bucket_has(store, tmp_path):
    """Each image in a shard is the object's bytes, in both kinds of shards."""
    for layout in ("webdataset", "parquet"):
        fetch(SWEEP, store, tmp_path / layout, options=FetchOptions(layout=layout))
    objects = [store.get(row["key"]) for row in manifest_rows(SWEEP, store)]
    with tarfile.open(tmp_path / "webdataset" / "sweep-000000.tar") as tar:
        assert objects == [tar.extractfile(member).read() for member in tar if member.name.endswith(".png")]
    table = pq.read_table(tmp_path / "parquet" / "data" / "train-00000.parquet")
    assert objects == [image["bytes"] for image in table["image"].to_pylist()]


def test_links(store, tmp_path):
    """The URLs of a list read the images from the bucket."""
    fetch(SWEEP, store, tmp_path, options=FetchOptions(layout="jsonl", url_seconds=60))
    line = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[3])
    with urllib.request.urlopen(line["url"], timeout=10) as answer:
        assert hashlib.sha256(answer.read()).hexdigest() == line["sha256"]
