"""The producer's verbs on a real Valkey, a folder and a real S3 server. Images and manifests are made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from producer import Printroom
from producer.cli import cli
from producer.export.fetch import FetchOptions
from producer.export.folder import file_name
from producer.fleet import doctor
from producer.results.where import parse_where
from shared import names
from shared.errors import (
    BrokerUnavailable,
    ConfirmationNeeded,
    ModelUnknown,
    StoreError,
    StoreUnavailable,
    SweepError,
    SweepUnknown,
    UsageError,
)
from shared.ledger import ChunkOutcome, Ledger, WorkerInfo
from shared.manifest import write_manifest
from shared.metadata import image_bytes, read_image
from shared.model_facts import ModelFacts
from shared.names import DEFAULT_MODEL
from shared.plan import Plan
from shared.result import Done, Failed, Provenance, StoredImage
from shared.settings import Settings
from shared.store.folder import FolderStore

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
}

#: Half of these 132 jobs cannot be rendered with a Stable Diffusion.
GRID = {**SWEEP, "scheduler": ["ddim", "flow_euler"]}

MADE_BY = Provenance(
    model_name="fake",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=1,
    versions={"printroom": "0"},
)


class Bench:
    """A client, and a worker that is faster than any: it writes what one would have written."""

    def __init__(self, settings: Settings, store) -> None:
        self.client = Printroom(settings)
        self.client.__dict__["store"] = store
        self.store = store

    def submit(self, **fields) -> tuple[str, Plan]:
        """Submit the sweep with some fields changed."""
        sweep = self.client.submit({**SWEEP, **fields}).sweep
        return sweep, self.client.plan(sweep)

    def work(
        self, sweep: str, plan: Plan, chunk: int, *, failed: tuple[int, ...] = (), commit: bool = True
    ) -> None:
        """Do a chunk: images, manifest, commit."""
        jobs = list(plan.jobs(plan.chunk(chunk).start, plan.chunk(chunk).stop))
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda job: (self._fail if job[0] in failed else self._make)(*job), jobs))
        manifest = write_manifest(rows, sweep=sweep, chunk=chunk)
        self.store.put(
            names.manifest_key(sweep, chunk), manifest, content_type="application/vnd.apache.parquet"
        )
        if commit:
            outcome = ChunkOutcome(
                done=[row.index for row in rows if isinstance(row, Done)],
                failed={row.index: (row.code, row.reason) for row in rows if isinstance(row, Failed)},
            )
            self.client.ledger.begin(sweep, chunk)
            self.client.ledger.record(sweep, outcome, chunk=plan.chunk(chunk))

    def _make(self, index, job) -> Done:
        pixels = np.full((job.height, job.width, 3), index % 251, dtype=np.uint8)
        data, key = image_bytes(job, pixels, MADE_BY), names.image_key(job.id)
        self.store.put(key, data, content_type="image/png")
        image = StoredImage(
            key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), provenance=MADE_BY
        )
        return Done(
            index=index, job=job, image=image, reused=False, sample_seconds=0.1, attempt=1, worker="hand",
            finished_at=datetime.now(UTC),
        )  # fmt: skip

    def _fail(self, index, job) -> Failed:
        return Failed(
            index=index, job=job, code="job_crashed", reason="by hand", attempt=1, worker="hand",
            finished_at=datetime.now(UTC),
        )  # fmt: skip


def make_settings(url: str, prefix: str, folder, **more) -> Settings:
    """Return settings whose only model is a fake: enough for a name to mean something."""
    model = folder / "models" / "fake"
    model.mkdir(parents=True, exist_ok=True)
    (model / "model_index.json").write_text('{"_class_name": "None"}')
    (model / "weights.safetensors").write_bytes(b"no weights")
    options = {
        "models": (folder / "models",),
        "cache": folder / "cache",
        "store": str(folder / "store"),
        **more,
    }
    return Settings(redis_url=url, redis_prefix=prefix, **options)


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


def worker_info(name: str = "hand", **fields) -> WorkerInfo:
    """Return a live worker that holds nothing."""
    defaults = {
        "host": "h", "pid": 1, "device": "cpu", "dtype": "float32", "batch_rows": 4, "models": {}, "queues": [],
        "images_per_second": 0.0, "chunks": [], "draining": False, "refused": {}, "trouble": None, "versions": {},
    }  # fmt: skip
    return WorkerInfo(name=name, **{**defaults, **fields})


class TestSubmit:
    """Submitting is durable, and doing it again changes nothing."""

    def test_new_then_known(self, bench):
        """The first submit stores plan and source and feeds; the second finds everything there."""
        first = bench.client.submit(SWEEP)
        assert (first.outcome, first.jobs, first.state) == ("new", 66, "active")
        assert Plan.from_bytes(bench.store.get(names.plan_key(first.sweep))).id == first.sweep
        assert "猫" in bench.store.get(names.source_key(first.sweep)).decode()
        assert bench.client.status(first.sweep).status.chunks_queued == 2
        second = bench.client.submit(SWEEP)
        assert (second.outcome, second.sweep) == ("known", first.sweep)
        assert [first.sweep] == [status.sweep for status in bench.client.statuses()]

    def test_other_labels_are_taken(self, bench):
        """The same jobs with other labels are the same sweep, which has the new ones; again is no change."""
        sweep = {**SWEEP, "seed": [1, 2], "labels": {"seed": {"luck": ["good", "bad"]}}}
        bare = bench.client.submit({**SWEEP, "seed": [1, 2]})
        again = bench.client.submit(sweep)
        assert (again.sweep, again.outcome) == (bare.sweep, "relabelled")
        assert bench.client.plan(bare.sweep).label_names == ("luck",)
        assert Plan.from_bytes(bench.store.get(names.plan_key(bare.sweep))).label_names == ("luck",)
        assert "luck" in bench.store.get(names.source_key(bare.sweep)).decode()
        assert bench.client.submit(sweep).outcome == "known"

    def test_a_submit_that_died_after_the_store(self, bench):
        """What reached the store and not Redis is made known by the next submit, with its priority."""
        plan = bench.client.compile(SWEEP)
        bench.store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="application/zstd")
        again = bench.client.submit(SWEEP, priority=3)
        assert (again.outcome, again.state) == ("rebuilt", "active")
        assert bench.client.status(plan.id).status.priority == 3

    def test_bad_sweeps_leave_nothing(self, local):
        """A model nobody has stops the sweep before anything is stored or queued."""
        with pytest.raises(ModelUnknown, match=f"there is: fake, {DEFAULT_MODEL}"):
            local.client.submit({**SWEEP, "model": ["fake", "nobody's"]})
        assert ([], []) == (list(local.store.list("")), local.client.statuses())

    def test_very_large(self, local):
        """More than ten million jobs want a yes; with it they are submitted."""
        seeds = {"start": 0, "count": 10_000_001}
        with pytest.raises(ConfirmationNeeded, match="60,000,006 jobs"):
            local.client.submit({**SWEEP, "seed": seeds})
        assert [] == list(local.store.list(""))
        assert local.client.submit({**SWEEP, "seed": seeds}, confirmed=True).jobs == 60_000_006


class TestCertainFailures:
    """A sweep with jobs that are certain to fail is refused before anything of it is kept."""

    @pytest.fixture
    def told(self, local):
        """The client, and a live worker that tells what the files of the producer's model do not."""
        fingerprint = local.client.compile(SWEEP).blocks[0].bucket.model
        facts = ModelFacts(family="sd1", path="betas", size_unit_px=8).to_json()
        worker = worker_info(models={fingerprint: ["fake"]}, facts={fingerprint: facts})
        (local.client.settings.models[0] / "fake" / "model_index.json").unlink()
        local.client.ledger.heartbeat(worker, expires_seconds=60)
        return local

    def test_refused_with_what_to_write(self, told):
        """A producer without the model's files refuses by the worker's facts, and keeps nothing."""
        with pytest.raises(SweepError, match="66 of 132 jobs are certain to fail") as refused:
            told.client.submit(GRID)
        assert "- \"scheduler == 'flow_euler'\"" in str(refused.value)
        assert ([], []) == (list(told.store.list("")), told.client.statuses())
        assert told.client.submit({**GRID, "skip": "scheduler == 'flow_euler'"}).jobs == 66

    def test_allowed(self, told):
        """Asked for, it is submitted all the same; and then it is known, and refused no more."""
        assert told.client.submit(GRID, allow_failing=True).outcome == "new"
        assert told.client.submit(GRID).outcome == "known"


class TestResults:
    """Rows of the manifests, as plain values."""

    @pytest.fixture
    def sweep(self, bench):
        """A finished sweep with two failures."""
        sweep, plan = bench.submit()
        assert plan.chunks == 2
        bench.work(sweep, plan, 1)
        bench.work(sweep, plan, 0, failed=(3, 5))
        return sweep

    def test_all(self, bench, sweep):
        """Every job has one row, in plan order, that says what it was and what came of it."""
        rows = list(bench.client.results(sweep))
        plan = bench.client.plan(sweep)
        assert [(index, job.id) for index, job in plan.jobs()] == [
            (row["index"], row["job_id"]) for row in rows
        ]
        assert json.loads(json.dumps(rows)) == rows
        failed = [row for row in rows if row["status"] == "failed"]
        assert [(index, "job_crashed", "by hand", None) for index in (3, 5)] == [
            (row["index"], row["error_code"], row["error"], row["key"]) for row in failed
        ]

    def test_where(self, bench, sweep):
        """Conditions are on values: numbers as numbers, null apart from empty."""
        table = [
            ([], 66),
            (["seed=3"], 6),
            (["seed=3", "negative_prompt=null"], 2),
            (["negative_prompt="], 22),
            (["negative_prompt=mustache"], 22),
            (["guidance_scale=5"], 66),
            (["guidance_scale=5.1"], 0),
            (["guidance_rule=null"], 66),
            (["guidance_rule=cfg", "seed=3"], 6),
            (["guidance_rule={rescale: 0.7}"], 0),
            (["index=7"], 1),
            (["seed>=3", "seed<5"], 12),
            (["seed>9"], 6),
            (["seed<=0"], 6),
            (["guidance_scale!=5"], 0),
            (["negative_prompt!=null"], 44),
            (["negative_prompt!=mustache"], 44),
            (["guidance_rule!=apg"], 66),
            (["prompt_tokens<3"], 64),
            (["chunk=1"], 2),
            (["status=failed"], 2),
            (["error_code=job_crashed"], 2),
            (["error_code=null"], 64),
            (['prompt=naïve 猫, with "quotes"\nand a line'], 33),
        ]
        for conditions, expected in table:
            rows = list(bench.client.results(sweep, where=parse_where(conditions)))
            assert (conditions, expected) == (conditions, len(rows))

    def test_where_a_rule(self, local):
        """A rule is found however it is written, from the command line and from Python; each row says its own."""
        rules = ["cfg", "apg", {"rule": "perp_neg", "negatives": {"hat": 1, "beard": 0.5}}]
        sweep, plan = local.submit(guidance_rule=rules, seed=0)
        local.work(sweep, plan, 0)
        rows = list(local.client.results(sweep))
        assert [row["guidance_rule"] for row in rows] == [job.guidance_rule for _, job in plan.jobs()]
        perp_neg = "{negatives: [hat, [beard, 0.5]], rule: perp_neg}"
        wanted = [
            ({"guidance_rule": "apg"}, 6),
            ({"guidance_rule": rules[2]}, 6),
            ({"guidance_rule": None}, 6),
        ]
        wanted += [(parse_where([f"guidance_rule={text}"]), 6) for text in ("null", "cfg", "apg", perp_neg)]
        wanted += [(parse_where([f"guidance_rule={rows[-1]['guidance_rule']}"]), 6)]
        for where, expected in wanted:
            assert len(list(local.client.results(sweep, where=where))) == expected
            assert local.client.sheet(sweep, where=where).width > 0
        assert "perp_neg" in local.store.get(names.source_key(sweep)).decode()
        with pytest.raises(UsageError, match="rule='apgg' is unknown"):
            local.client.results(sweep, where={"guidance_rule": "apgg"}).__next__()

    def test_urls(self, bench, sweep):
        """Each image's URL reads that image; a failed job has none."""
        rows = list(bench.client.results(sweep, where={"seed": 0}, urls=True))
        assert [row["index"] for row in rows if row["url"] is None] == [3, 5]
        for row in rows:
            if row["url"]:
                with urllib.request.urlopen(row["url"], timeout=10) as answer:
                    assert read_image(answer.read()).job.id == row["job_id"]

    def test_unknown_field(self, bench, sweep):
        """A field rows do not have is an error that lists those they have."""
        with pytest.raises(UsageError, match=r"no field 'sed': did you mean 'seed'\?"):
            list(bench.client.results(sweep, where={"sed": 3}))

    def test_all_sweeps_of_the_store_are_searched(self, bench, sweep):
        """Rows of every sweep that meet the conditions, each with its sweep's name; without Redis as well."""
        other, plan = bench.submit(name="others", prompt="a face in profile", seed=1)
        bench.work(other, plan, 0)
        seen = []
        found = list(
            bench.client.search(
                {"negative_prompt": "mustache", **parse_where(["prompt~FACE", "seed<2"])},
                on_sweep=seen.append,
            )
        )
        assert sorted((one.name, one.row["prompt"], one.row["seed"]) for one in found) == [
            ("faces", "a face", 0),
            ("faces", "a face", 1),
            ("others", "a face in profile", 1),
        ]
        assert {one.sweep for one in found} == {sweep, other}
        assert max(total for total in seen) == 2
        bench.client.__dict__["ledger"] = None  # not asked
        assert len(list(bench.client.search(parse_where(["prompt~profile"])))) == 3

    def test_a_filter_that_matches_nothing_says_what_there_is(self, bench, sweep):
        """Each field with its values and counts, and the nearest one to what was asked for."""
        assert list(bench.client.results(sweep, where={"prompt": "a fase"})) == []
        (line,) = bench.client.why_nothing(sweep, {"prompt": "a fase"})
        assert line.startswith("prompt=a fase: 0 rows by itself; prompt is 'a face' (33)")
        assert line.endswith("nearest: 'a face'")
        lines = bench.client.why_nothing(sweep, parse_where(["prompt~FACE", "seed>=900"]))
        assert [re.sub(r"^(\S+: )[1-9]\d* ", r"\1n ", line).partition(";")[0] for line in lines] == [
            "prompt~FACE: n rows by itself",
            "seed>=900: 0 rows by itself",
        ]

    def test_a_damaged_manifest(self, bench, sweep):
        """A manifest that is not whole is named."""
        bench.store.put(names.manifest_key(sweep, 1), b"PAR1 and no more", content_type="x")
        with pytest.raises(StoreError, match=r"000000001\.parquet .*damaged"):
            list(bench.client.results(sweep))

    def test_many_manifests(self, local):
        """However many manifests there are, few are in memory at once, and reading may stop early."""
        read = []
        for chunk in range(100):
            local.store.put(
                names.manifest_key("s", chunk), write_manifest([], sweep="s", chunk=chunk), content_type="x"
            )
        get = local.store.get
        local.store.get = lambda key: read.append(key) or get(key)
        from producer.results.rows import manifests

        found = manifests("s", local.store)
        assert next(found)[0] == names.manifest_key("s", 0)
        found.close()
        assert len(read) < 50
        assert [key for key, _ in manifests("s", local.store)] == [
            names.manifest_key("s", n) for n in range(100)
        ]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("seed", "write field=value"),
        ("sed=1", "no field 'sed'"),
        ("seed=x", "seed is a number"),
        ("seed>=x", "seed is a number"),
        ("prompt>a", "only numbers have an order: use = or !="),
        ("seed<null", "only numbers have an order"),
        ("guidance_rule=apgg", "rule='apgg' is unknown: did you mean apg"),
        ("guidance_rule={rescale: 7}", "guidance_rule: rescale=7: use 0 to 1"),
        ("guidance_rule={rescale: 0.7", "--where, line 1: not YAML"),
        ("guidance_rule=", "--where: nothing there"),
        ("", "write field"),
    ],
)
def test_wrong_conditions(condition, said):
    """A condition that cannot be read names itself and the fix."""
    with pytest.raises(UsageError, match=said):
        parse_where([condition])


class TestFetch:
    """Images and metadata come home whole, once."""

    @pytest.fixture
    def sweep(self, bench):
        """A sweep of which one chunk is done, with a failure."""
        sweep, plan = bench.submit()
        bench.work(sweep, plan, 0, failed=(3,))
        return sweep

    def test_everything(self, bench, sweep, tmp_path):
        """Every image so far, a line a job, the sweep's file and its manifests; later, only what is new."""
        home = tmp_path / "home"
        seen = []
        fetched = bench.client.fetch(sweep, home, on_image=seen.append)
        assert (fetched.fetched, fetched.skipped, fetched.failed, fetched.broken) == (63, 0, 1, ())
        assert seen == [66] * 64
        lines = [json.loads(line) for line in (home / "metadata.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(64))
        assert lines[3]["file_name"] is None
        for line in lines:
            if line["file_name"]:
                assert read_image((home / line["file_name"]).read_bytes()).job.id == line["job_id"]
        assert bench.store.get(names.source_key(sweep)) == (home / "sweep.yaml").read_bytes()
        assert ["000000000.parquet"] == [path.name for path in (home / "manifest").iterdir()]

        bench.work(sweep, bench.client.plan(sweep), 1)
        again = bench.client.fetch(sweep, home)
        assert (again.fetched, again.skipped, again.failed) == (2, 63, 1)
        assert len(list((home / "images").iterdir())) == 65

    def test_mends_what_was_damaged_here(self, bench, sweep, tmp_path):
        """A local file that is not what it should be, by length or by content, is fetched again; no other is."""
        bench.client.fetch(sweep, tmp_path)
        images = sorted((tmp_path / "images").iterdir())
        whole = [path.read_bytes() for path in images[:3]]
        images[0].write_bytes(whole[0][:-1])
        images[1].write_bytes(whole[1][:-1] + b"x")
        images[2].unlink()
        again = bench.client.fetch(sweep, tmp_path)
        assert (again.fetched, again.skipped) == (3, 60)
        assert whole == [path.read_bytes() for path in images[:3]]

    def test_says_what_the_store_has_lost(self, bench, sweep, tmp_path):
        """Images that are gone from the store, or are not what the manifest says, are named; the rest comes."""
        rows = list(bench.client.results(sweep))
        bench.store.put(rows[0]["key"], b"not what it was", content_type="image/png")
        bench.store.delete(rows[1]["key"])
        fetched = bench.client.fetch(sweep, tmp_path)
        assert (fetched.fetched, fetched.skipped) == (61, 0)
        assert len(fetched.broken) == 2
        said = "\n".join(fetched.broken)
        assert f"{rows[0]['key']}: its sha256 is not what the manifest says" in said
        assert f"{rows[1]['key']}: gone from {bench.store.url}" in said
        assert not (tmp_path / file_name(rows[0])).exists()

    def test_where(self, bench, sweep, tmp_path):
        """A part may be fetched by itself."""
        fetched = bench.client.fetch(sweep, tmp_path, where={"seed": 3})
        assert (fetched.fetched, len(list((tmp_path / "images").iterdir()))) == (6, 6)

    def test_interrupted(self, bench, sweep, tmp_path):
        """An interrupted fetch leaves whole files only, and the next one fetches the rest."""

        def interrupt(total: int) -> None:
            if (done := len(list((tmp_path / "images").glob("*.png")))) >= 5:
                raise KeyboardInterrupt(done)

        with pytest.raises(KeyboardInterrupt):
            bench.client.fetch(sweep, tmp_path, on_image=interrupt)
        left = sorted((tmp_path / "images").iterdir())
        assert 5 <= len(left) < 63
        for path in left:
            read_image(path.read_bytes())
        again = bench.client.fetch(sweep, tmp_path)
        assert (again.fetched, again.skipped) == (63 - len(left), len(left))

    def test_a_store_that_fails(self, local, tmp_path):
        """A store that goes away midway ends the fetch with its error, and only whole files are left."""
        sweep, plan = local.submit()
        local.work(sweep, plan, 0)
        get, count, lock = local.store.get, [0], threading.Lock()

        def failing(key: str) -> bytes:
            with lock:
                count[0] += 1
                if count[0] > 10:
                    raise StoreUnavailable("down")
            return get(key)

        local.store.get = failing
        with pytest.raises(StoreUnavailable):
            local.client.fetch(sweep, tmp_path / "home")
        for path in (tmp_path / "home" / "images").iterdir():
            read_image(path.read_bytes())

    def test_no_place(self, local, tmp_path):
        """A target that is no folder is an error that names it."""
        sweep, _ = local.submit()
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="file/images"):
            local.client.fetch(sweep, tmp_path / "file")


class TestResume:
    """A sweep goes on: after a pause, a cancel, and a Redis that lost everything."""

    def test_after_a_wipe(self, start_valkey, tmp_path, s3_store, key_prefix):
        """Bits, counters and failures are rebuilt from the manifests exactly, and only what is missing is fed."""
        server = start_valkey()
        bench = Bench(make_settings(server.url, f"{key_prefix}:", tmp_path), s3_store)
        sweep, plan = bench.submit(seed={"start": 0, "count": 60})
        assert plan.chunks == 6
        for chunk in (0, 1, 5):
            bench.work(sweep, plan, chunk, failed=(70,) if chunk == 1 else ())
        before = bench.client.status(sweep).status
        bits = {part: self._bits(bench, sweep, part) for part in ("done", "failed", "chunks")}
        bench.store.put(names.manifest_key(sweep, 2), b"half a manifest", content_type="x")

        bench.client._redis.flushall()

        with pytest.raises(SweepUnknown, match="the store has it: `printroom resume"):
            bench.client.status(sweep)
        assert bench.client.resume(sweep) == "active"

        after = bench.client.status(sweep).status
        assert bits == {part: self._bits(bench, sweep, part) for part in bits}
        for field in (
            "name",
            "state",
            "jobs",
            "done",
            "failed",
            "chunks",
            "chunks_done",
            "failures",
            "reasons",
        ):
            assert getattr(before, field) == getattr(after, field), field
        assert {2, 3} == bench.client.ledger.fed_chunks(sweep)
        for chunk in (2, 3, 4):
            bench.work(sweep, plan, chunk)
        assert bench.client.status(sweep).status.state == "done"
        assert bench.client.resume(sweep) == "done"

    def test_an_interrupted_rebuild_starts_again(self, start_valkey, tmp_path, folder_store, monkeypatch):
        """A rebuild that dies midway feeds nothing, and says so; resume reads every manifest after all."""
        server = start_valkey()
        bench = Bench(make_settings(server.url, "again:", tmp_path), folder_store)
        sweep, plan = bench.submit(seed={"start": 0, "count": 60})
        for chunk in (0, 1, 5):
            bench.work(sweep, plan, chunk)
        before = bench.client.status(sweep).status
        bench.client._redis.flushall()
        plain, calls = Ledger.record, []

        def record(*args, **kwargs):
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return plain(*args, **kwargs)

        monkeypatch.setattr(Ledger, "record", record)
        with pytest.raises(KeyboardInterrupt):
            bench.client.resume(sweep)
        seen = bench.client.status(sweep)
        assert (seen.status.state, bench.client.feed(), bench.client.pause(sweep)) == (
            "rebuilding",
            0,
            "rebuilding",
        )
        assert "printroom resume" in seen.obstacles[0]
        assert bench.client.resume(sweep) == "active"
        after = bench.client.status(sweep).status
        assert (after.done, after.chunks_done) == (before.done, before.chunks_done)

    def test_a_finished_sweep_after_a_wipe(self, start_valkey, tmp_path, folder_store):
        """A sweep that was done is done again, and nothing is fed; a failed job can still be retried."""
        server = start_valkey()
        bench = Bench(make_settings(server.url, "t:", tmp_path), folder_store)
        sweep, plan = bench.submit()
        bench.work(sweep, plan, 0)
        bench.work(sweep, plan, 1, failed=(65,))
        bench.client._redis.flushall()
        assert bench.client.submit(SWEEP).outcome == "rebuilt"
        status = bench.client.status(sweep).status
        assert (status.state, status.done, status.failed, status.chunks_queued) == ("done", 65, 1, 0)
        with pytest.raises(UsageError, match="'job_crash' is not known: did you mean job_crashed"):
            bench.client.retry(sweep, codes=["job_crash"])
        with pytest.raises(UsageError, match="'x' is not known: there are: image_not_finite, job_crashed, "):
            bench.client.retry(sweep, codes=["x"], dry_run=True)
        assert bench.client.retry(sweep, codes=["worker_lost"], dry_run=True).left
        assert bench.client.retry(sweep).jobs == 1
        assert {1} == bench.client.ledger.fed_chunks(sweep)

    def test_pause_and_cancel(self, local):
        """A paused or cancelled sweep says so and goes on when asked."""
        sweep, _ = local.submit()
        assert [local.client.pause(sweep), local.client.resume(sweep)] == ["paused", "active"]
        assert [local.client.cancel(sweep), local.client.resume(sweep)] == ["cancelled", "active"]

    @staticmethod
    def _bits(bench, sweep, part):
        key = names.sweep_redis_key(bench.client.settings.redis_prefix, sweep, part)
        return (bench.client._redis.get(key) or b"").rstrip(b"\0")


class TestFind:
    """Which sweep is meant."""

    def test_an_id_its_start_or_its_name(self, local):
        """The id, four digits of it or more, and the name all mean the sweep."""
        sweep, _ = local.submit()
        for text in (sweep, sweep[:12], sweep[:4], "faces"):
            assert sweep == local.client.find(text)

    def test_a_name_means_its_newest_sweep(self, local):
        """After an edit the name means the new sweep, says so, and NAME@1 or an id means the old one."""
        said = []
        local.client._on_note = said.append
        one, _ = local.submit()
        two, _ = local.submit(seed=99)
        local.submit()  # the first again: known, and no newer for it
        assert local.client.find("faces") == two
        assert said == [f"faces: the newest of 2 sweeps, {two[:12]}; the other: faces@1"]
        assert [local.client.find(text) for text in ("faces@1", "faces@2", one[:8])] == [one, two, one]
        assert len(said) == 1
        assert (local.client.cancel("faces"), local.client.status(two).status.state) == (
            "cancelled",
            "cancelled",
        )
        assert local.client.status("faces@1").status.state == "active"
        with pytest.raises(UsageError, match="faces@3: the sweeps named 'faces' have the numbers 1 to 2"):
            local.client.find("faces@3")

    def test_ambiguous(self, local):
        """The start of two ids is an error that lists both, although neither has been submitted whole."""
        with local.client._redis.pipeline() as pipe:
            for twin in ("abcd" + "0" * 28, "abcd" + "1" * 28):
                pipe.zadd(f"{local.client.settings.redis_prefix}sweeps", {twin: 1})
            pipe.execute()
        with pytest.raises(UsageError, match=r"'abcd' means 2 sweeps: abcd00000000 .*abcd11111111"):
            local.client.find("abcd")

    @pytest.mark.parametrize("text", ["0" * 32, "0123", "no such name", "", "../etc"])
    def test_unknown(self, local, text, tmp_path):
        """A sweep nobody knows is an error for every verb; it is never done."""
        local.submit()
        client = local.client
        for verb in (
            client.status,
            client.wait,
            client.pause,
            client.resume,
            client.cancel,
            client.retry,
            client.results,
        ):
            with pytest.raises(SweepUnknown, match="no such sweep"):
                verb(text)
        with pytest.raises(SweepUnknown, match="no such sweep"):
            client.fetch(text, tmp_path / "home")

    def test_without_redis(self, tmp_path, folder_store, valkey_server, key_prefix):
        """Results and fetch read the store alone; what needs Redis says so."""
        bench = Bench(make_settings(valkey_server.url, f"{key_prefix}:", tmp_path), folder_store)
        sweep, plan = bench.submit()
        bench.work(sweep, plan, 0)
        down = Bench(make_settings("redis://127.0.0.1:1/0", "t:", tmp_path), folder_store)
        assert len(list(down.client.results(sweep))) == 64
        assert down.client.fetch(sweep, tmp_path / "home").fetched == 64
        assert [model.name for model in down.client.models()] == ["fake", DEFAULT_MODEL]
        for verb in (down.client.status, down.client.pause, down.client.resume, down.client.retry):
            with pytest.raises(BrokerUnavailable):
                verb(sweep)


class TestStatus:
    """How it goes, and why not."""

    def test_nobody_works(self, local):
        """Without a worker the status says so, and the fix."""
        sweep, _ = local.submit()
        assert ["no live worker: start one with `printroom worker`"] == list(
            local.client.status(sweep).obstacles
        )

    def test_a_name_with_a_spelling_mistake(self, local):
        """The nearest name is said, in whatever case it was written."""
        local.submit()
        (name,) = {one.name for one in local.client.statuses()}
        for text in (name.upper(), f" {name}", f"{name}x"):
            with pytest.raises(SweepUnknown, match=f"no such sweep; did you mean '{name}'"):
                local.client.status(text)

    def test_a_submit_to_nobody(self, local):
        """What any worker brings along needs no copying: submit asks for a worker, and for no folder of models."""
        assert local.client.submit({"prompt": "a cat"}).advice == (
            "no live worker: start one with `printroom worker`",
        )
        local.client.ledger.heartbeat(worker_info(models={"sha:1": ["other"]}), expires_seconds=30)
        (line,) = local.client.submit({"prompt": "a dog"}).advice
        assert line.startswith("no live worker has model portraits")

    def test_a_model_nobody_holds(self, local):
        """Jobs of a model that no live worker holds are counted, with what the workers do hold."""
        sweep, plan = local.submit()
        model = plan.buckets[0].model
        local.client.ledger.heartbeat(worker_info(models={"sha:1": ["other"]}), expires_seconds=30)
        expected = f"no live worker has model fake ({model}): 66 jobs wait; workers hold other"
        assert [expected] == list(local.client.status(sweep).obstacles)
        local.client.ledger.heartbeat(worker_info("two", models={model: ["fake"]}), expires_seconds=30)
        assert [] == list(local.client.status(sweep).obstacles)

    def test_troubles(self, local):
        """What holds a worker up, and what it refuses, stands in the status."""
        sweep, plan = local.submit()
        holds = {plan.buckets[0].model: ["fake"]}
        troubled = worker_info(
            models=holds, trouble="store_full: no space", refused={"version_unsupported": 2}
        )
        local.client.ledger.heartbeat(troubled, expires_seconds=30)
        assert [
            "worker hand: store_full: no space",
            "worker hand refused messages: version_unsupported x2",
        ] == list(local.client.status(sweep).obstacles)

    def test_paused_and_over(self, local):
        """A paused sweep says how to go on; one that is over has no obstacles."""
        sweep, _ = local.submit()
        local.client.pause(sweep)
        assert [f"paused: `printroom resume {sweep[:12]}` goes on"] == list(
            local.client.status(sweep).obstacles
        )
        local.client.cancel(sweep)
        assert [] == list(local.client.status(sweep).obstacles)

    def test_json(self, local):
        """The whole overview is plain JSON."""
        sweep, _ = local.submit()
        local.client.ledger.heartbeat(worker_info(), expires_seconds=30)
        found = json.loads(json.dumps(local.client.status(sweep).to_json()))
        assert (found["sweep"], found["remaining"], found["workers"][0]["name"]) == (sweep, 66, "hand")

    def test_wait(self, local):
        """Waiting ends when the sweep is over, or with what is left when the time is."""
        sweep, plan = local.submit()
        with pytest.raises(TimeoutError, match=r"66 jobs to go after 0\.1 s"):
            local.client.wait(sweep, timeout_seconds=0.1, poll_seconds=0.01)
        for chunk in range(plan.chunks):
            local.work(sweep, plan, chunk)
        assert local.client.wait(sweep, timeout_seconds=5).state == "done"


class TestDoctor:
    """Each thing a fleet rests on: ok, or the fix."""

    @staticmethod
    def checks(client):
        """Return the checks by name."""
        return {check.name: check for check in client.examine()}

    def test_ok(self, bench):
        """On healthy servers every check is ok, and nothing is left in the store."""
        bench.client._redis.ping()
        checks = self.checks(bench.client)
        assert {name for name, check in checks.items() if not check.ok} == set()
        assert {
            "broker",
            "broker memory",
            "broker durability",
            "store",
            "store URLs",
            "workers",
            "models",
        } <= set(checks)
        assert checks["broker"].detail.startswith("valkey 9.")
        assert checks["broker durability"].detail == "append-only file on"
        assert [] == list(bench.store.list(""))

    def test_no_broker(self, tmp_path):
        """Without Redis the broker is not ok, says why and how to fix it; the rest is still looked at."""
        checks = self.checks(Printroom(make_settings("redis://127.0.0.1:1/0", "t:", tmp_path)))
        assert not checks["broker"].ok
        assert "PRINTROOM_REDIS_URL" in checks["broker"].fix
        assert checks["store"].ok

    def test_wrong_password(self, valkey_server, tmp_path):
        """A wrong password is named as such, and not shown."""
        url = f"redis://:wrong-password@127.0.0.1:{valkey_server.port}/0"
        check = self.checks(Printroom(make_settings(url, "t:", tmp_path)))["broker"]
        assert not check.ok
        assert "check the password" in check.detail
        assert "wrong-password" not in f"{check}"

    def test_a_broker_that_evicts(self, start_valkey, tmp_path):
        """A server that evicts keys, or keeps no append-only file, is told of with the fix."""
        server = start_valkey("--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
        checks = self.checks(Printroom(make_settings(server.url, "t:", tmp_path)))
        assert not checks["broker memory"].ok
        assert "noeviction" in checks["broker memory"].fix
        assert "append-only file off" in checks["broker durability"].detail

    @pytest.mark.parametrize("store", ["s3://no-such-bucket/x", "s3://printroom-tests"])
    def test_no_store(self, settings, seaweed_server, monkeypatch, store):
        """A bucket that is not there, and wrong keys, are not ok, with the fix."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed_server.access_key)
        secret = seaweed_server.secret_key if "no-such" in store else "wrong-secret"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        more = {"store": store, "s3_endpoint_url": seaweed_server.endpoint_url, "store_patience_seconds": 2.0}
        check = self.checks(Printroom(settings.model_copy(update=more)))["store"]
        assert not check.ok
        assert "PRINTROOM_STORE" in check.fix
        assert "wrong-secret" not in f"{check}"

    def test_a_folder_that_is_none(self, settings, tmp_path):
        """A store folder that is a file is not ok."""
        (tmp_path / "file").write_text("")
        check = self.checks(Printroom(settings.model_copy(update={"store": str(tmp_path / "file")})))["store"]
        assert not check.ok

    def test_a_store_that_loses_bytes(self, local):
        """A store that does not give back what it was given is not ok; the test object is gone all the same."""
        get = FolderStore.get
        local.store.get = lambda key: get(local.store, key)[:-1]
        check = {check.name: check for check in doctor.examine(local.client.ledger, lambda: local.store)}[
            "store"
        ]
        assert not check.ok
        assert check.fix
        assert [] == list(local.store.list(""))

    def test_urls_that_do_not_read(self, local):
        """Presigned URLs that nobody can read are told of, and the test object is removed."""
        local.store.presign = lambda key, expires_seconds: "file:///nowhere/at/all"
        checks = self.checks(local.client)
        assert not checks["store URLs"].ok
        assert [] == list(local.store.list(""))

    def test_waiting_for_workers(self, local):
        """Sweeps that wait for a worker, a worker in trouble and dead letters are told of."""
        local.submit()
        assert "printroom worker" in self.checks(local.client)["workers"].fix
        local.client.ledger.heartbeat(worker_info(trouble="store_full: no space"), expires_seconds=30)
        local.client.ledger.dead_letter({"code": "message_corrupt", "reason": "no JSON"})
        checks = self.checks(local.client)
        assert checks["workers"].ok
        assert (checks["worker hand"].ok, checks["worker hand"].detail) == (False, "store_full: no space")
        assert checks["dead letters"].detail.startswith(
            "1 messages nobody could act on; the newest: message_corrupt"
        )


class TestOwnRowsAsInput:
    """What a sweep has made is the input of the next."""

    def test_what_fetch_brings_home_asks_for_the_same_jobs(self, local, tmp_path):
        """metadata.jsonl, results.jsonl, failed.jsonl, the hf table, the store's manifests: the jobs keep their ids."""
        sweep, plan = local.submit()
        local.work(sweep, plan, 0, failed=(3, 5))
        local.work(sweep, plan, 1)
        ids = {job.id for _, job in plan.jobs()}
        for layout, failed in (("folder", True), ("jsonl", False), ("hf", False)):
            options = FetchOptions(layout=layout, with_failed=failed)
            local.client.fetch(sweep, tmp_path / layout, options=options)
        done = {job.id for index, job in plan.jobs() if index not in (3, 5)}
        for name, expected in (
            ("folder/metadata.jsonl", ids),
            ("folder/failed.jsonl", ids - done),
            ("jsonl/results.jsonl", ids),
            ("hf/train/metadata.parquet", done),
            (f"store/sweeps/{sweep}/manifest/*.parquet", ids),
        ):
            path = tmp_path / "again.yaml"
            path.write_text(f"zip: {{file: '{name}'}}\n")
            assert {job.id for _, job in local.client.compile(path).jobs()} == expected, name

    def test_a_sweep_on_stdin_is_submitted(self, local, tmp_path, monkeypatch, capsys):
        """`submit -` submits what a pipe brings, files of the current folder in it, and says what is odd."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "p.csv").write_text("prompt;seed;negative_prompt\na face;1;null\n")
        text = "zip: {file: p.csv}\nmodel: fake\nsize: 16\n"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        monkeypatch.setattr("producer.cli._client", lambda: local.client)
        cli.main(["submit", "-", "--json"], standalone_mode=False)
        printed = capsys.readouterr()
        plan = local.client.plan(json.loads(printed.out)["sweep"])
        assert [(job.prompt, job.seed, job.negative_prompt) for _, job in plan.jobs()] == [
            ("a face", 1, "null")
        ]
        assert plan.name == "stdin"
        assert "! p.csv: negative_prompt: 1 cells say 'null': taken as text" in printed.err
