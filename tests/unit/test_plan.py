"""The compiled plan: bytes there and back, chunk bounds, order. Compiling a sweep is test_compile.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PlanUnreadable
from shared.job import SAMPLER_VERSION, make_job
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange, jobs_per_chunk

MODEL = "sha:" + "a" * 32
OTHER = "sha:" + "b" * 32

APG = '{"rule":"apg"}'

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def make_plan(*, seeds: int = 100, prompts: tuple[str, ...] = ("a", "b"), jobs_per_chunk: int = 16) -> Plan:
    """Return a plan of two buckets: a seed range times prompts, then listed seeds."""
    axes = (
        SeedRange(start=5, count=seeds),
        ListAxis(fields=("prompt", "negative_prompt"), values=tuple((text, "ugly") for text in prompts)),
        ListAxis(
            fields=("scheduler", "steps", "guidance_scale", "guidance_rule"),
            values=(("ddim", 4, 7.5, None), ("euler", 2, 1.0, APG), ("euler", 2, 3.0, APG)),
        ),
        ListAxis(fields=("seed",), values=((7,), (2**64 - 1,), (0,))),
    )
    small = Bucket(model=MODEL, width=64, height=64)
    large = Bucket(model=OTHER, width=128, height=64)
    blocks = (
        Block(bucket=small, axes=(2, 0, 1), jobs_per_chunk=jobs_per_chunk),
        Block(bucket=large, axes=(2, 3, 1), jobs_per_chunk=jobs_per_chunk),
    )
    return Plan(name="two buckets", models={MODEL: "small", OTHER: "large"}, axes=axes, blocks=blocks)


plans = st.builds(
    make_plan,
    seeds=st.integers(1, 70),
    prompts=st.lists(texts, min_size=1, max_size=4).map(tuple),
    jobs_per_chunk=st.integers(1, 64),
)


@given(plans)
def test_bytes_round_trip(plan):
    """A plan read back is the same plan: id, every job, every chunk."""
    again = Plan.from_bytes(plan.to_bytes())
    assert plan == again
    assert (plan.id, len(plan), plan.chunks) == (again.id, len(again), again.chunks)
    assert list(plan.jobs()) == list(again.jobs())
    assert [plan.chunk(n) for n in range(plan.chunks)] == [again.chunk(n) for n in range(again.chunks)]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a plan"),
        (b"{}", "not a plan"),
        (make_plan().to_bytes()[:-5], "not a plan"),
        (zstandard.compress(b"no json"), "not a plan"),
        (zstandard.compress(b"\x80"), "decode"),
        (zstandard.compress(b"{}"), "plan format None: this version reads 3"),
        (zstandard.compress(b'{"format": 1}'), "plan format 1: this version reads 3"),
        (zstandard.compress(b"[]"), "not a plan"),
        (zstandard.compress(b'{"format": 3}'), "not a plan"),
    ],
)
def test_bad_bytes(data, said):
    """Bytes that are no plan, or one of another format, are a ValueError that says so."""
    with pytest.raises(ValueError, match=said):
        Plan.from_bytes(data)


@given(plans)
def test_chunks_cover_every_index_once(plan):
    """Chunks follow each other without gap or overlap, within one bucket, and chunk_of finds each index's own."""
    expected_start = 0
    for number in range(plan.chunks):
        chunk = plan.chunk(number)
        assert expected_start == chunk.start
        assert 1 <= len(chunk) <= max(block.jobs_per_chunk for block in plan.blocks)
        for index, job in plan.jobs(chunk.start, chunk.stop):
            assert number == plan.chunk_of(index)
            assert (job.model, job.width, job.height) == (
                chunk.bucket.model,
                chunk.bucket.width,
                chunk.bucket.height,
            )
        expected_start = chunk.stop
    assert expected_start == len(plan)


@given(plans)
def test_chunk_runs_are_the_blocks(plan):
    """The runs of chunks, one a block, are all the chunks in order, each of the run's bucket."""
    runs = list(plan.chunk_runs())
    assert [bucket for bucket, _, _ in runs] == list(plan.buckets)
    numbers = [number for _, first, stop in runs for number in range(first, stop)]
    assert numbers == list(range(plan.chunks))
    assert all(plan.chunk(n).bucket == bucket for bucket, first, stop in runs for n in range(first, stop))


@pytest.mark.parametrize("outside", [-1, 10**9])
def test_outside(outside):
    """An index or chunk outside the plan is an IndexError, never another job."""
    plan = make_plan()
    for look in (plan.job, plan.chunk, plan.chunk_of):
        with pytest.raises(IndexError, match=f"{outside} is outside"):
            look(outside)


def test_the_ends_of_the_bounds():
    """The first and the last index and chunk are inside, the next one is not; an empty plan has none."""
    plan = make_plan()
    assert plan.chunk(plan.chunks - 1).stop == len(plan)
    assert plan.chunk_of(len(plan) - 1) == plan.chunks - 1
    assert plan.job(len(plan) - 1).model == OTHER
    for look, end in ((plan.job, len(plan)), (plan.chunk, plan.chunks)):
        with pytest.raises(IndexError):
            look(end)
    empty = Plan(name="none", models={}, axes=(), blocks=())
    assert (0, 0, []) == (len(empty), empty.chunks, list(empty.jobs()))
    with pytest.raises(IndexError):
        empty.job(0)


def test_jobs_order():
    """Jobs come in index order, the last axis fastest, and each is what make_job makes of its fields."""
    plan = make_plan(seeds=2)
    assert [job.guidance_rule for _, job in plan.jobs(3, 5)] == [None, APG]
    seen = [(index, j.scheduler, j.steps, j.guidance_scale, j.seed, j.prompt) for index, j in plan.jobs(0, 5)]
    assert seen == [
        (0, "ddim", 4, 7.5, 5, "a"),
        (1, "ddim", 4, 7.5, 5, "b"),
        (2, "ddim", 4, 7.5, 6, "a"),
        (3, "ddim", 4, 7.5, 6, "b"),
        (4, "euler", 2, 1.0, 5, "a"),
    ]
    for _, job in plan.jobs():
        assert make_job(**job.recipe()) == job


def test_queue_names():
    """A queue belongs to one model, one size and one sampler version; equal buckets share theirs."""
    bucket = Bucket(model=MODEL, width=64, height=128)
    others = [
        Bucket(model=OTHER, width=64, height=128),
        Bucket(model=MODEL, width=128, height=64),
        Bucket(model=MODEL, width=64, height=128, sampler="none of ours"),
    ]
    assert bucket.queue == Bucket(model=MODEL, width=64, height=128).queue
    assert len({bucket.queue, *(other.queue for other in others)}) == 4
    assert bucket.queue.startswith(f"render.v1.s{SAMPLER_VERSION}.")


@pytest.mark.parametrize(
    ("width", "height", "steps", "rows", "expected"),
    [
        (512, 512, 30, 2, 64),
        (64, 64, 1, 2, 64),
        (1024, 1024, 30, 2, 16),
        (512, 512, 60, 2, 32),
        (512, 512, 30, 4, 32),
        (2048, 2048, 1000, 11, 16),
    ],
)
def test_jobs_per_chunk(width, height, steps, rows, expected):
    """A chunk is about two minutes of a slow GPU, between 16 and 64 jobs; more UNet rows take longer."""
    assert expected == jobs_per_chunk(width, height, steps, rows)


def test_the_same_in_another_process():
    """Plan id and job ids do not depend on the process or its hash seed."""
    plan = make_plan()
    code = (
        "import sys; from shared.plan import Plan; p = Plan.from_bytes(sys.stdin.buffer.read());"
        "print(p.id, p.job(0).id, p.job(len(p) - 1).id)"
    )
    expected = [plan.id, plan.job(0).id, plan.job(len(plan) - 1).id]
    for hash_seed in ("0", "12345"):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            input=plan.to_bytes(),
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert expected == answer.stdout.decode().split()


def test_the_id_is_the_content():
    """The order of keys in the document does not matter to the id; anything else does."""
    plan = make_plan()
    document = json.loads(zstandard.decompress(plan.to_bytes()))
    shuffled = zstandard.compress(json.dumps(dict(reversed(document.items()))).encode())
    assert plan.id == Plan.from_bytes(shuffled).id
    assert plan.id != make_plan(seeds=101).id
    document["name"] = "renamed"
    assert plan.id != Plan.from_bytes(zstandard.compress(json.dumps(document).encode())).id


def _packed(document: object) -> bytes:
    return zstandard.compress(json.dumps(document).encode())


DAMAGES = {
    "not packed": lambda plan: plan._canonical,
    "cut": lambda plan: plan.to_bytes()[:-5],
    "empty": lambda plan: b"",
    "no object": lambda plan: _packed([1]),
    "another format": lambda plan: _packed({**json.loads(plan._canonical), "format": 99}),
    "no jobs a chunk": lambda plan: _with_block(plan, jobs_per_chunk=0),
    "half a pixel": lambda plan: _with_block(plan, width=0.5),
    "an axis too many": lambda plan: _with_block(plan, axes=[0, 99]),
    "nested": lambda plan: zstandard.compress(b"[" * 500_000 + b"]" * 500_000),
    "no name": lambda plan: _packed({**json.loads(plan._canonical), "name": 5}),
    "a bomb": lambda plan: _frame_of(2**33),
    "a frame of unknown size": lambda plan: zstandard.ZstdCompressor(write_content_size=False).compress(
        plan._canonical
    ),
}


def _with_block(plan: Plan, **changed: object) -> bytes:
    document = json.loads(plan._canonical)
    return _packed({**document, "blocks": [{**document["blocks"][0], **changed}]})


def _frame_of(size: int) -> bytes:
    """Return the beginning of a frame that says how large it will be when it is opened."""
    packer = zstandard.ZstdCompressor().compressobj(size=size)
    return packer.compress(b" " * 1000) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_plan_is_refused_with_one_error(damage: str) -> None:
    """Whatever stands where a plan should: PlanUnreadable, in one line, before any of it is used."""
    axes = (
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=4),
    )
    block = Block(bucket=Bucket(model="sha:m", width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=2)
    plan = Plan(name="p", models={"sha:m": "m"}, axes=axes, blocks=(block,))
    assert Plan.from_bytes(plan.to_bytes()).id == plan.id
    with pytest.raises(PlanUnreadable) as caught:
        Plan.from_bytes(DAMAGES[damage](plan))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert ("at most" in str(caught.value)) == (damage in ("a bomb", "a frame of unknown size"))
