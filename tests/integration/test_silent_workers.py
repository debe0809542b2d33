"""What the status says of a worker that died with chunks in hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import redis

from producer.fleet.status import overview
from shared.ledger import Ledger, WorkerInfo
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange
from shared.store.identity import identity_of

PLAN = Plan(
    name="sweep",
    models={"sha:m": "m"},
    axes=(
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=8),
    ),
    blocks=(Block(bucket=Bucket(model="sha:m", width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=2),),
)


@pytest.fixture
def bench(valkey_server, key_prefix, folder_store):
    """A ledger with a sweep of four chunks, of which two have been begun, and a way to let workers beat."""

    class Bench:
        client = redis.Redis.from_url(valkey_server.url)
        ledger = Ledger(client, prefix=f"{key_prefix}:")

        def beat(self, name: str, chunks: list[int], *, seconds_ago: float = 0.0) -> None:
            info = WorkerInfo(
                name=name, host="h", pid=1, device="cpu", dtype="float32", batch_rows=4, models={"sha:m": ["m"]},
                queues=[], images_per_second=0.0, chunks=[f"{PLAN.id}/{n}" for n in chunks], draining=False,
                refused={}, trouble=None, versions={}, moves_after_seconds=25.0,
            )  # fmt: skip
            self.ledger.heartbeat(replace(info), expires_seconds=30)
            beat = json.loads(self.client.hget(f"{key_prefix}:beats", name))
            aged = {**beat, "at": beat["at"] - seconds_ago}
            self.client.hset(f"{key_prefix}:beats", name, json.dumps(aged))
            if seconds_ago > 12:
                self.client.delete(f"{key_prefix}:worker:{name}")

        def obstacles(self) -> list[str]:
            return list(overview(PLAN.id, self.ledger, identity_of(folder_store)).obstacles)

    made = Bench()
    made.ledger.submit(PLAN.id, PLAN)
    for chunk in (0, 1):
        made.ledger.feed(PLAN.id, 0, chunk, chunk + 1, 1)
        made.ledger.begin(PLAN.id, chunk)
    return made


@pytest.mark.parametrize(("seconds_ago", "said"), [(8, "within 1[0-7] s"), (40, "as soon as a hand is free")])
def test_a_dead_workers_chunks(bench, seconds_ago, said):
    """Who is silent, since when, how many chunks it holds, and when they go to others; before and after it is gone."""
    bench.beat("alive", [])
    bench.beat("dead", [0, 1], seconds_ago=seconds_ago)
    (line,) = bench.obstacles()
    assert re.fullmatch(rf"worker dead silent for \d+ s: 2 chunks of it go to others {said}", line)


def test_what_others_have_begun_is_not_waited_for(bench):
    """A chunk that another worker has in hand, or that is done, is no longer the dead one's."""
    bench.beat("dead", [0, 1], seconds_ago=40)
    bench.beat("alive", [0])
    (line,) = bench.obstacles()
    assert "1 chunk of it goes to others" in line
    bench.beat("alive", [0, 1])
    assert bench.obstacles() == []


def test_nobody_is_left(bench):
    """Without any live worker the status says both."""
    bench.beat("dead", [0], seconds_ago=40)
    none, silent = bench.obstacles()
    assert none.startswith("no live worker")
    assert silent.startswith("worker dead silent")
