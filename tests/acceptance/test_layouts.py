"""Sweeps whose images become shards, by real workers that die at every step."""

from __future__ import annotations

import signal

import pytest

from shared import names

SWEEP = {
    "name": "shards",
    "model": "tiny",
    "size": "32x32",
    "prompt": ["portrait photo of a man", "a lighthouse at dusk", "a red bicycle"],
    "negative_prompt": [None, "mustache"],
    "guidance_scale": [5, 7.5],
    "seed": 7,
    "steps": 2,
    "layout": "webdataset",
}


@pytest.mark.parametrize(
    "step", ["begun", "sampled", "uploaded", "before_manifest", "before_commit", "committed"]
)
def test_kill_at_every_step(fleet, check_promise, step):
    """Dying at any step of a chunk loses nothing that was stored, counts nothing twice and leaves no shard too many."""
    doomed = fleet.start(PRINTROOM_FAILPOINT=f"{step}:1")
    sweep = fleet.client.submit(SWEEP).sweep
    # The second one starts while the first is at work: it takes seconds to come up.
    fleet.wait_for(lambda: fleet.begun() or doomed.poll(), 60, "the chunk to begin")
    fleet.start()
    assert doomed.wait(60) == -signal.SIGKILL
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)


def test_two_workers_one_killed(fleet, check_promise, tmp_path):
    """Many chunks, two workers, one killed midway: every image is where its row says, and all of them come home."""
    first, _ = fleet.start(slow=0.05), fleet.start(slow=0.05)
    fleet.wait_up(2)
    sweep = fleet.client.submit({**SWEEP, "seed": {"start": 0, "count": 16}, "steps": 4}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 30, 120, "a shard")
    first.kill()
    fleet.wait_done(sweep, 180)
    check_promise(fleet, sweep)
    plan = fleet.client.plan(sweep)
    shards = list(fleet.client.store.list(f"{names.sweep_prefix(sweep)}shards/"))
    assert plan.chunks <= len(shards) < len(plan)
    assert fleet.client.fetch(sweep, tmp_path / "home").fetched == len(plan)
    assert fleet.client.sheet(sweep).width > 100
