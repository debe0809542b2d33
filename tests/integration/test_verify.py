"""`printroom verify` on a real Valkey, a folder and a real S3 server: what does not agree is found, and repaired."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.cli import cli
from shared import names
from shared.ledger import ChunkOutcome
from tests.integration import test_verbs

# The client, and a worker that is faster than any: on a folder and on S3, on a folder alone.
settings, bench, local = test_verbs.settings, test_verbs.bench, test_verbs.local


@pytest.fixture
def done(bench):
    """A finished sweep of 66 jobs, in two chunks, of which one job has failed."""
    sweep, plan = bench.submit()
    bench.work(sweep, plan, 0, failed=(3,))
    bench.work(sweep, plan, 1)
    return bench, sweep, plan


def key_of(plan, index: int) -> str:
    """Return the key of a job's image."""
    return names.image_key(plan.job(index).id)


@pytest.mark.parametrize("deep", [False, True])
def test_all_agrees(done, deep):
    """A finished sweep: every figure is told, every job was looked at."""
    bench, sweep, _ = done
    seen = []
    report = bench.client.verify(sweep, deep=deep, on_job=seen.append)
    assert (report.agrees, report.done, report.failed, report.waiting) == (True, 65, 1, 0)
    assert (report.images, report.ledger, report.problems, seen) == (65, True, [], [66] * 66)


def test_an_image_that_is_gone_is_rendered_again(done):
    """The chunk is opened again for that job alone; when it is done again, all agrees."""
    bench, sweep, plan = done
    bench.store.delete(key_of(plan, 5))
    report = bench.client.verify(sweep, repair=True)
    assert (dict(report.counts), report.repaired) == ({"image_missing": 1}, 1)
    assert key_of(plan, 5) in report.problems[0].detail
    status = bench.client.ledger.status(sweep)
    assert (status.state, status.done, status.failed, status.chunks_done) == ("active", 64, 1, 1)
    bits = bench.client.ledger.bit_counts(sweep)
    assert bits == {"done": 64, "failed": 1, "chunks": 1}
    bench.work(sweep, plan, 0, failed=(3,))
    assert bench.client.ledger.status(sweep).state == "done"
    assert bench.client.verify(sweep, deep=True).agrees


def test_a_damaged_image_is_found_by_reading_it(done):
    """Other bytes of the same size are found by --deep alone; another size at once. Both give way to a good image."""
    bench, sweep, plan = done
    good = bench.store.get(key_of(plan, 7))
    bench.store.put(key_of(plan, 7), good[:-1] + bytes([good[-1] ^ 1]), content_type="image/png")
    assert bench.client.verify(sweep).agrees
    assert dict(bench.client.verify(sweep, deep=True).counts) == {"image_damaged": 1}
    bench.store.put(key_of(plan, 8), b"short", content_type="image/png")
    assert dict(bench.client.verify(sweep).counts) == {"image_damaged": 1}
    report = bench.client.verify(sweep, deep=True, repair=True)
    assert (report.counts["image_damaged"], report.repaired) == (2, 2)
    assert bench.store.head(key_of(plan, 7)) is bench.store.head(key_of(plan, 8)) is None


def test_another_jobs_image_is_found(done):
    """An image whose bytes are its row's, and whose recipe is another job's: somebody has written the row."""
    bench, sweep, _ = done
    manifest = bench.store.get(names.manifest_key(sweep, 1))
    table = pq.read_table(pa.BufferReader(manifest))
    for name in ("key", "sha256", "size_bytes"):
        values = table.column(name).to_pylist()[::-1]
        position = table.column_names.index(name)
        table = table.set_column(
            position, table.schema.field(name), pa.array(values, table.schema.field(name).type)
        )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    bench.store.put(names.manifest_key(sweep, 1), sink.getvalue().to_pybytes(), content_type="x")
    assert bench.client.verify(sweep).agrees
    report = bench.client.verify(sweep, deep=True)
    assert dict(report.counts) == {"image_damaged": 2}
    assert "recipe of another job" in report.problems[0].detail


def test_manifests_that_are_gone_damaged_or_wrong(done):
    """A chunk without a manifest, with half of one, or with another chunk's rows is rendered again, whole."""
    bench, sweep, plan = done
    first, second = (names.manifest_key(sweep, chunk) for chunk in (0, 1))
    good = bench.store.get(first)
    bench.store.delete(second)
    report = bench.client.verify(sweep)
    assert (dict(report.counts), report.waiting) == ({"manifest_missing": 1}, 2)
    bench.store.put(second, good, content_type="x")
    assert dict(bench.client.verify(sweep).counts) == {"row_wrong": 1}
    bench.store.put(first, good[:-20], content_type="x")
    report = bench.client.verify(sweep, repair=True)
    assert dict(report.counts) == {"manifest_damaged": 1, "row_wrong": 1}
    assert report.repaired == 66
    status = bench.client.ledger.status(sweep)
    assert (status.state, status.done, status.failed, status.chunks_done) == ("active", 0, 0, 0)
    for chunk in (0, 1):
        bench.work(sweep, plan, chunk)
    assert bench.client.verify(sweep, deep=True).agrees


def test_what_is_not_rendered_yet_is_no_problem(bench):
    """A sweep under way: what is there agrees, the rest waits. An image without its row yet is not counted as wrong."""
    sweep, plan = bench.submit()
    bench.work(sweep, plan, 1)
    bench.client.ledger.record(sweep, ChunkOutcome(done=[0, 1, 2]))
    report = bench.client.verify(sweep, deep=True)
    assert (report.agrees, report.done, report.waiting) == (True, 2, 64)


def test_figures_that_are_wrong(done, key_prefix):
    """A counter that is not the number of its bits, and bits that are not the number of rows."""
    bench, sweep, _ = done
    redis = bench.client.ledger._redis
    meta = f"{key_prefix}:{{{sweep}}}:meta"
    redis.hset(meta, "done", 64)
    report = bench.client.verify(sweep)
    assert [p.detail for p in report.problems] == ["the ledger counts 64 done, 65 bits are set"]
    redis.setbit(f"{key_prefix}:{{{sweep}}}:done", 3, 1)
    redis.hset(meta, "done", 66)
    report = bench.client.verify(sweep)
    assert [p.detail for p in report.problems] == ["the ledger counts 66 done, the rows 65"]


def test_without_redis_the_store_is_compared_with_itself(done):
    """A sweep that Redis has lost: what is wrong loses its manifest, so that it is rendered again once read back."""
    bench, sweep, plan = done
    bench.client.ledger._redis.delete(*bench.client.ledger._redis.keys(f"*{sweep}*"))
    bench.store.delete(key_of(plan, 5))
    report = bench.client.verify(sweep, repair=True)
    assert (dict(report.counts), report.ledger, report.repaired) == ({"image_missing": 1}, False, 1)
    assert "`printroom resume`" in report.summary()
    assert bench.client.resume(sweep) == "active"
    status = bench.client.ledger.status(sweep)
    assert (status.done, status.chunks_done) == (2, 1)
    bench.work(sweep, plan, 0)
    assert bench.client.verify(sweep, deep=True).agrees


def test_the_command(local, monkeypatch, capsys):
    """Exit status 0 where all agrees and 1 where not; one problem a line; --json says the same."""
    monkeypatch.setattr("producer.cli._client", lambda: local.client)
    sweep, plan = local.submit()
    for chunk in (0, 1):
        local.work(sweep, plan, chunk)
    assert cli.main(["verify", "faces"], standalone_mode=False) == 0
    assert "66 jobs: 66 done, 0 failed, 0 not rendered yet; 66 images found" in capsys.readouterr().err
    local.store.delete(key_of(plan, 5))
    local.store.put(f"sweeps/{sweep}/shards/000000000-{'0' * 16}.png.tar", b"", content_type="x")
    assert cli.main(["verify", "faces"], standalone_mode=False) == 1
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["image_missing", "extra_object"]
    assert "--repair has them rendered again" in err
    assert cli.main(["verify", "faces", "--json", "--repair"], standalone_mode=False) == 1
    seen = json.loads(capsys.readouterr().out)
    assert (seen["agrees"], seen["counts"], seen["repaired"]) == (
        False,
        {"image_missing": 1, "extra_object": 1},
        1,
    )
