"""Client, sweep and workers that mean different stores are told of it, at submit, in the status, and when rows lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from producer import Printroom
from producer.export.fetch import LAYOUTS, FetchOptions
from shared.errors import RowsMissing, StoreMismatch
from shared.message import ChunkMessage
from shared.store.folder import FolderStore
from shared.store.identity import StoreIdentity
from tests.integration.test_verbs import SWEEP, Bench, make_settings, worker_info
from worker.context import WorkerContext
from worker.execute import execute
from worker.meter import Meter
from worker.retry_policy import Decision, decide


@pytest.fixture
def settings(valkey_server, key_prefix, tmp_path):
    """Settings of this test alone on the shared Valkey."""
    return make_settings(valkey_server.url, f"{key_prefix}:", tmp_path)


@pytest.fixture(params=["folder_store", "s3_store"])
def bench(request, settings):
    """The client on a folder, then on S3."""
    return Bench(settings, request.getfixturevalue(request.param))


@pytest.fixture
def local(settings, folder_store):
    """The client on a folder."""
    return Bench(settings, folder_store)


@pytest.fixture
def other(tmp_path):
    """A store that is another one, with an identity."""
    store = FolderStore(tmp_path / "other")
    return store, StoreIdentity(store).settle()


def heartbeat(bench, mark, name="stranger", **fields):
    """Say that a worker with this store lives."""
    info = worker_info(name, store=mark.id, store_place=mark.place, **fields)
    bench.client.ledger.heartbeat(info, expires_seconds=30)


def done(bench):
    """Return a sweep all of whose chunks are done."""
    sweep, plan = bench.submit()
    for chunk in range(plan.chunks):
        bench.work(sweep, plan, chunk)
    return sweep


class TestSubmit:
    """A submit that nobody would find the images of is refused before anything is written."""

    def test_a_worker_elsewhere(self, bench, other):
        """The message names the worker, both stores with their whole paths and the fix; nothing is left behind."""
        heartbeat(bench, other[1])
        with pytest.raises(StoreMismatch, match="worker stranger renders into") as caught:
            bench.submit()
        for text in (other[0].url, bench.store.url, "set PRINTROOM_STORE"):
            assert text in str(caught.value)
        assert ([], []) == (list(bench.store.list("")), bench.client.ledger.sweeps())

    def test_workers_here_and_old_ones(self, bench):
        """A worker of the same store under any address, and one of an older version that tells none, are fine."""
        heartbeat(bench, StoreIdentity(bench.store).settle())
        bench.client.ledger.heartbeat(worker_info("old"), expires_seconds=30)
        assert bench.client.submit(SWEEP).outcome == "new"

    def test_a_sweep_of_another_store(self, local, other, settings):
        """The same sweep from a client of another store is not "known already", nor is it rebuilt there."""
        local.submit()
        there = Bench(settings, other[0])
        with pytest.raises(StoreMismatch, match="was submitted into"):
            there.submit()

    def test_a_store_made_anew(self, local):
        """A store that was emptied since is told of, with what to do."""
        local.submit()
        for info in list(local.store.list("")):
            local.store.delete(info.key)
        again = Bench(local.client.settings, FolderStore(local.store.url))
        with pytest.raises(StoreMismatch, match="If the store was emptied"):
            again.submit()

    def test_an_old_sweep(self, local, other):
        """A sweep that Redis knows without a store goes on as before: no check, no obstacle."""
        sweep, _ = local.submit()
        key = f"{local.client.settings.redis_prefix}{{{sweep}}}:meta"
        local.client._redis.hdel(key, "store", "store_place")
        assert local.client.submit(SWEEP).outcome == "known"
        assert "submitted into" not in "".join(local.client.status(sweep).obstacles)


class TestStatus:
    """The status says whose store is whose."""

    def test_a_worker_elsewhere(self, local, other):
        """A worker that came later with another store is an obstacle of the sweep."""
        sweep, plan = local.submit()
        heartbeat(local, other[1], models={plan.buckets[0].model: ["fake"]})
        (obstacle,) = local.client.status(sweep).obstacles
        assert obstacle.startswith(f"worker stranger renders into {other[1]}, this sweep is in ")

    def test_this_client_elsewhere(self, local, other, settings):
        """A client of another store is told so even when the sweep is done."""
        sweep = done(local)
        (obstacle,) = Bench(settings, other[0]).client.status(sweep).obstacles
        assert "was submitted into" in obstacle
        assert [] == list(local.client.status(sweep).obstacles)

    def test_a_store_that_is_down(self, local, settings):
        """A store that does not answer is no mismatch, and does not hold up the status."""
        sweep = done(local)
        away = {"store": "s3://bucket", "s3_endpoint_url": "http://127.0.0.1:1"}
        assert [] == list(Printroom(settings.model_copy(update=away)).status(sweep).obstacles)


class TestTooFewRows:
    """Done is compared, not believed."""

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_fetch(self, local, other, settings, tmp_path, layout):
        """Every layout brings what is there, and then says that rows lack, and where the sweep's store is."""
        sweep = done(local)
        client = Bench(settings, other[0]).client
        said = r"the ledger counts 66 done, this store has 0 rows: is PRINTROOM_STORE the worker's store\?"
        with pytest.raises(RowsMissing, match=said) as caught:
            client.fetch(sweep, tmp_path / "home", options=FetchOptions(layout=layout))
        assert local.store.url in str(caught.value)

    def test_results_and_sheet(self, local, tmp_path):
        """Rows that are there come first; one manifest too few is noticed by each reader."""
        sweep = done(local)
        local.store.delete(f"sweeps/{sweep}/manifest/000000001.parquet")
        rows = local.client.results(sweep)
        assert 64 == len([next(rows) for _ in range(64)])
        with pytest.raises(RowsMissing, match="66 done, this store has 64 rows"):
            next(rows)
        with pytest.raises(RowsMissing):
            local.client.write_sheet(sweep, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").is_file()

    def test_retry(self, local, other, settings):
        """No failure in another store is no reason to say that there is nothing to retry."""
        sweep, plan = local.submit()
        for chunk in range(plan.chunks):
            local.work(sweep, plan, chunk, failed=(65,))
        client = Printroom(settings)
        client.__dict__["store"] = other[0]
        with pytest.raises(RowsMissing, match="this store has 0 rows"):
            client.retry(sweep, dry_run=True)
        assert local.client.retry(sweep, dry_run=True).jobs == 1

    def test_a_running_sweep(self, local, tmp_path):
        """Jobs whose chunk has no manifest yet are not missing, nor does a filter make rows missing."""
        sweep, plan = local.submit()
        local.work(sweep, plan, 0)
        local.work(sweep, plan, 1, commit=False)
        assert local.client.fetch(sweep, tmp_path / "home").fetched == 66
        assert len(list(local.client.results(sweep, where={"seed": 0}))) == 6

    def test_the_command(self, local, other, settings, tmp_path):
        """`fetch` of a client in another folder exits 1 with one line; a submit there exits 2."""
        sweep = done(local)
        model = next(iter(local.client.models())).name
        command = [sys.executable, "-m", "producer.cli"]
        environment = {
            **os.environ,
            "PRINTROOM_REDIS_URL": settings.redis_url.get_secret_value(),
            "PRINTROOM_REDIS_PREFIX": settings.redis_prefix,
            "PRINTROOM_MODELS": str(tmp_path / "models"),
            "PRINTROOM_STORE": other[0].url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        run = lambda *words: subprocess.run(  # noqa: E731
            [*command, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        fetched = run("fetch", sweep, "home")
        assert fetched.returncode == 1
        assert "the ledger counts 66 done, this store has 0 rows" in fetched.stderr
        heartbeat(local, StoreIdentity(local.store).read())
        (tmp_path / "s.json").write_text(json.dumps({**SWEEP, "model": model, "name": "another"}))
        (tmp_path / "s.yaml").write_text((tmp_path / "s.json").read_text())
        submitted = run("submit", "s.yaml")
        assert (submitted.returncode, submitted.stdout) == (2, "")
        assert "worker stranger renders into" in submitted.stderr


class TestWorker:
    """A worker takes no chunk whose images it would put elsewhere."""

    def test_refuses(self, local, other):
        """The chunk is put back, unbegun, with a code of its own; the sweep of its own store it begins."""
        sweep, _ = local.submit()
        context = WorkerContext.__new__(WorkerContext)
        context.ledger, context.store, context.meter = local.client.ledger, other[0], Meter()
        context.draining = None
        with pytest.raises(StoreMismatch, match=f"sweep {sweep[:12]} is in ") as caught:
            execute(ChunkMessage(sweep=sweep, chunk=0), context, beat=lambda **_: None)
        assert decide(caught.value, attempt=1, max_attempts=1) is Decision.REFUSE
        assert local.client.status(sweep).status.chunks_running == 0
