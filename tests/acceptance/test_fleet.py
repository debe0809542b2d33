"""A fleet of real workers on a real Valkey and a real SeaweedFS, and what happens to it overnight."""

from __future__ import annotations

import re
import signal
import time

import pytest

from shared import names
from testing.random_weights import create_random_model

SWEEP_300 = {
    "name": "three hundred",
    "model": "tiny",
    "size": "32x32",
    "prompt": ["portrait photo of a man", "a lighthouse at dusk", "a red bicycle"],
    "negative_prompt": [None, "mustache"],
    "seed": {"start": 0, "count": 25},
    "guidance_scale": [5, 7.5],
    "steps": 4,
}


def test_300_jobs_two_workers_one_killed(fleet, check_promise):
    """Killing one of two workers midway costs no image, makes no extra one, and every figure is exact."""
    first, _ = fleet.start(slow=0.05), fleet.start(slow=0.05)
    fleet.wait_up(2)
    sweep = fleet.client.submit(SWEEP_300).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 60, 120, "60 images")
    first.kill()
    fleet.wait_done(sweep, 180)
    check_promise(fleet, sweep)
    assert fleet.client.ledger.status(sweep).jobs == 300


def test_redis_wiped_midway(private_fleet, check_promise):
    """After Redis has lost everything, resume renders only what is missing."""
    fleet = private_fleet
    worker = fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**SWEEP_300, "seed": {"start": 0, "count": 16}, "steps": 8}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).chunks_done >= 1, 120, "a chunk")
    assert worker.drain() == 0
    before = {info.key: fleet.client.store.get(info.key) for info in fleet.client.store.list("images/")}
    assert 64 <= len(before) < 192
    manifests = {info.key for info in fleet.client.store.list(names.manifest_prefix(sweep))}
    fleet.client.ledger._redis.flushall()

    assert fleet.client.resume(sweep) == "active"
    assert fleet.client.ledger.status(sweep).done >= 64
    fleet.start()
    fleet.wait_done(sweep, 180)
    check_promise(fleet, sweep)
    rows = list(fleet.client.results(sweep))
    later = [row for row in rows if names.manifest_key(sweep, row["chunk"]) not in manifests]
    rendered_again = [row["key"] for row in later if not row["reused"] and row["key"] in before]
    new = [row for row in rows if row["key"] not in before]
    assert (len(new), rendered_again) == (192 - len(before), [])
    assert {key: fleet.client.store.get(key) for key in before} == before


def test_models_take_turns_by_priority_and_are_loaded_once(fleet, check_promise):
    """Of two models a worker loads each once. An urgent sweep of a third one waits for the chunks in hand alone."""
    models = [
        create_random_model(fleet.folder / "models" / name, family="sd1", seed=n)
        for n, name in enumerate("abc")
    ]
    worker = fleet.start(slow=0.05)
    fleet.wait_up()
    small = {"prompt": "a cat", "seed": {"start": 0, "count": 80}, "steps": 10, "size": "32x32"}
    long = [
        fleet.client.submit({**small, "name": path.name, "model": path.name}).sweep for path in models[:2]
    ]
    fleet.wait_for(lambda: sum(fleet.begun().values()) >= 3, 60, "some chunks to begin")
    begun = sum(fleet.begun().values())
    urgent = fleet.client.submit({**small, "seed": 7, "model": "c"}, priority=10).sweep
    fleet.wait_for(lambda: f"{urgent}/0" in fleet.begun(), 60, "the urgent chunk to begin")
    waited = sum(fleet.begun().values()) - begun - 1
    for sweep in (*long, urgent):
        fleet.wait_done(sweep)
        check_promise(
            fleet,
            sweep,
            extra=frozenset(
                job.id for s in {*long, urgent} - {sweep} for _, job in fleet.client.plan(s).jobs()
            ),
        )
    loads = re.findall(r"model_loaded model=(\w)", worker.log)
    assert (sorted(loads)[-1], len(loads)) in {("c", 3), ("c", 4)}
    assert waited <= 3  # two in hand, and one that began before the schedule was heard of


@pytest.mark.parametrize(
    "step", ["begun", "sampled", "uploaded", "before_manifest", "before_commit", "committed"]
)
def test_kill_at_every_step(fleet, check_promise, step):
    """Dying at any step of a chunk, between any two promises, loses nothing and counts nothing twice."""
    doomed = fleet.start(PRINTROOM_FAILPOINT=f"{step}:1")
    sweep = fleet.client.submit({**SWEEP_300, "seed": 7, "steps": 2}).sweep
    # The second one starts while the first is at work: it takes seconds to come up.
    fleet.wait_for(lambda: fleet.begun() or doomed.poll(), 60, "the chunk to begin")
    fleet.start()
    assert doomed.wait(60) == -signal.SIGKILL
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)


def test_frozen_worker_wakes_late(fleet, check_promise):
    """A worker frozen past its lease, whose chunk another one finished, changes nothing when it wakes."""
    sleeper = fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**SWEEP_300, "seed": [1, 2, 3], "steps": 12}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).chunks_running >= 1, 60, "a chunk begun")
    time.sleep(1.0)
    sleeper.signal(signal.SIGSTOP)
    fleet.start()
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    manifests = {
        i.key: fleet.client.store.get(i.key) for i in fleet.client.store.list(names.manifest_prefix(sweep))
    }
    sleeper.signal(signal.SIGCONT)
    fleet.wait_for(
        lambda: "chunk_done" in sleeper.log or "skipped" in sleeper.log, 30, "the sleeper to finish"
    )
    assert sleeper.drain() == 0
    check_promise(fleet, sweep)
    assert {key: fleet.client.store.get(key) for key in manifests} == manifests


def test_drain_gives_the_rest_back(fleet, check_promise):
    """SIGTERM finishes what is sampled, commits it, returns the rest, exits 0; another worker takes over."""
    first = fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**SWEEP_300, "steps": 20}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 10, 60, "ten images")
    assert first.drain() == 0
    kept = fleet.client.ledger.status(sweep)
    images = len(list(fleet.client.store.list("images/")))
    assert (kept.done, kept.chunks_running) == (images, 0)
    assert fleet.client.ledger.workers() == []
    fleet.client.cancel(sweep)


def test_cancel_resume_and_extension(fleet, check_promise):
    """Cancel stops within a batch, resume goes on, and an extended sweep renders only what is new."""
    fleet.start(slow=0.05)
    fleet.wait_up()
    small = {**SWEEP_300, "seed": {"start": 0, "count": 10}, "steps": 8}
    sweep = fleet.client.submit(small).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 8, 60, "eight images")
    assert fleet.client.cancel(sweep) == "cancelled"
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).chunks_running == 0, 20, "the worker to let go")
    assert fleet.client.ledger.status(sweep).done < 120
    assert fleet.client.resume(sweep) == "active"
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    ids = frozenset(job.id for _, job in fleet.client.plan(sweep).jobs())

    again = fleet.client.submit(small)
    assert (again.sweep, again.outcome, again.state) == (sweep, "known", "done")
    extended = fleet.client.submit({**small, "seed": {"start": 0, "count": 12}}).sweep
    fleet.wait_done(extended)
    check_promise(fleet, extended)
    assert fleet.client.ledger.status(extended).reused == len(ids) == 120


def test_a_cancel_is_heard_between_two_images(fleet):
    """Images may be half a minute apart: what has no rows yet is left at once, and the next sweep has its turn."""
    fleet.start(slow=0.5)
    fleet.wait_up()
    slow = {
        "name": "slow",
        "prompt": "a cat",
        "seed": {"start": 0, "count": 64},
        "steps": 12,
        "size": "32x32",
    }
    sweep = fleet.client.submit(slow).sweep
    fleet.wait_for(lambda: fleet.begun(), 60, "the chunk to begin")
    fleet.client.cancel(sweep)
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).chunks_running == 0, 40, "the worker to let go")
    assert fleet.client.ledger.status(sweep).done <= 8  # those that had rows: 16 rows are 8 guided jobs
    other = fleet.client.submit({**slow, "name": "next", "seed": 99, "steps": 1}).sweep
    fleet.wait_done(other, 30)


POISON = """
from worker.sampling.rows.batch import RowBatch
plain = RowBatch.step
def step(batch):
    if any(job.prepared.request.prompt == "poison" for job in batch.jobs):
        raise RuntimeError("this one is poisoned")
    return plain(batch)
RowBatch.step = step
"""


def test_one_bad_job_fails_alone(fleet, check_promise):
    """A job that cannot be made fails with its code and reason; the rest of its chunk is done; retry makes it."""
    poisoned = fleet.start(patch=POISON)
    fleet.wait_up()
    sweep = fleet.client.submit(
        {
            "name": "bad",
            "model": "tiny",
            "size": "32x32",
            "prompt": ["a cat", "poison"],
            "seed": [1, 2, 3, 4],
            "steps": 3,
        }
    ).sweep
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    status = fleet.client.ledger.status(sweep)
    assert (status.done, status.failed, dict(status.failures)) == (4, 4, {"job_crashed": 4})
    failed = list(fleet.client.results(sweep, where={"status": "failed"}))
    assert {(row["prompt"], row["error_code"]) for row in failed} == {("poison", "job_crashed")}
    assert all("this one is poisoned" in row["error"] for row in failed)
    assert poisoned.drain() == 0
    fleet.start()
    few = {"where": {"seed": 1}, "codes": ("job_crashed",)}
    assert fleet.client.retry(sweep, dry_run=True, **few).jobs == 1
    retried = fleet.client.retry(sweep, **few)
    assert (retried.jobs, retried.left) == (1, {"job_crashed": 3})
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    assert fleet.client.ledger.status(sweep).done == 5
    # What was left stands as it was, in the chunk that was rendered again as well.
    left = list(fleet.client.results(sweep, where={"status": "failed"}))
    assert left == [row for row in failed if row["seed"] != 1]
    assert fleet.client.retry(sweep).jobs == 3
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    assert fleet.client.ledger.status(sweep).done == 8
