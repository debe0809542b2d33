"""Redis from an older copy of its append-only file: nothing is lost, nothing counted twice."""

import shutil

import redis

from shared.ledger import ChunkOutcome, Ledger
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange

MODEL = "sha:" + "a" * 32


def make_plan():
    """Return a plan of three chunks of four jobs."""
    axes = (
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=12),
    )
    block = Block(bucket=Bucket(model=MODEL, width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=4)
    return Plan(name="sweep", models={MODEL: "tiny"}, axes=axes, blocks=(block,))


def commit(ledger, plan, number):
    """Commit a chunk whose jobs are all done."""
    chunk = plan.chunk(number)
    ledger.record(plan.id, ChunkOutcome(done=list(range(chunk.start, chunk.stop))), chunk=chunk)


def ledger_of(server):
    """Return a ledger on a server."""
    return Ledger(redis.Redis.from_url(server.url), prefix="backup:")


def test_an_old_copy_of_redis(start_valkey):
    """A server on an older copy knows what was known then; chunks done since are begun again and counted once."""
    server, plan = start_valkey(), make_plan()
    ledger = ledger_of(server)
    ledger.submit(plan.id, plan, priority=7)
    ledger.feed(plan.id, 0, 0, plan.chunks, plan.chunks)
    commit(ledger, plan, 0)
    server.stop()  # writes out what it holds back
    copy = server.folder.parent / "copy"
    shutil.copytree(server.folder / "appendonlydir", copy)
    server.start()
    commit(ledger_of(server), plan, 1)
    restored = start_valkey()
    restored.stop()
    shutil.rmtree(restored.folder / "appendonlydir")
    shutil.copytree(copy, restored.folder / "appendonlydir")
    restored.start()
    again = ledger_of(restored)
    status = again.status(plan.id)
    assert (status.done, status.chunks_done, status.priority) == (4, 1, 7)
    assert [again.begin(plan.id, number).verdict for number in range(3)] == ["complete", "render", "render"]
    for number in (1, 1, 2, 0):
        commit(again, plan, number)
    status = again.status(plan.id)
    assert (status.done, status.chunks_done, status.state) == (12, 3, "done")
