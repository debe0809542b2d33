"""The row batch: who shares a UNet call, that rows stay full, and that company does not change an image."""

import random
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shared.guidance import parse_rule
from worker.sampling.events import RowCounts
from worker.sampling.request import Sampled
from worker.sampling.rows.batch import RowBatch
from worker.sampling.rows.loop import sample
from worker.sampling.rows.prepare import encode_texts, prepare
from worker.sampling.rows.step_inputs import RowAssignment

#: A size that a test can afford by the thousand: latents of 2 x 2.
TINY = {"width": 16, "height": 16}

SCHEDULERS = [
    "ddim",
    "euler_a",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "heun",
    "unipc",
    "lcm",
    "pndm",
    "dpm_sde_brownian",
]
RULES = [
    None,
    "apg",
    {"rescale": 0.6},
    {"interval": [0.3, 0.8]},
    {"negative_interval": [0.5, 1]},
    {"rule": "decoupled", "negatives": ["hat"]},
    "perp_neg",
    "cfg_zero_star",
]


@pytest.fixture
def batch_of(tiny_model):
    """A function that returns a row batch for requests of one shape, and a function that admits one of them."""

    def make(requests, rows, family="sd1"):
        model = tiny_model(family)
        jobs = [prepare(model, request) for request in requests]
        batch = RowBatch(model, shape=jobs[0].shape, rows=rows)
        return batch, lambda index: batch.admit(index, jobs[index], encode_texts(model, jobs[index]))

    return make


def varied_requests(make_request, count, seed=0):
    """Return requests that differ in everything but their shape."""
    chance = random.Random(seed)
    return [
        make_request(
            seed=chance.randrange(2**64),
            prompt=chance.choice(["a man", "a cat", "", "a red castle"]),
            negative_prompt=chance.choice([None, "", "mustache"]),
            guidance_scale=chance.choice([1.0, 3.0, 7.5]),
            steps=chance.randint(1, 4),
            scheduler=chance.choice(SCHEDULERS),
            guidance_rule=parse_rule(chance.choice(RULES)),
            **TINY,
        )
        for _ in range(count)
    ]


def digests(model, requests, rows):
    """Return the digest of every request's pixels; each must come out."""
    found = {}
    for outcome in sample(model, requests, batch_rows=rows):
        assert isinstance(outcome, Sampled), outcome
        found[outcome.request_index] = sha256(outcome.pixels.tobytes()).hexdigest()
    return [found[index] for index in range(len(requests))]


# Who shares a call


def test_every_call_has_all_rows(copy_tiny, make_request):
    """R rows go through the UNet at every step, whoever is there: padding fills what nobody needs."""
    model, sizes = copy_tiny("sd1"), []
    model.networks.unet.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    list(sample(model, varied_requests(make_request, 7), batch_rows=8))
    assert set(sizes) == {8}


def test_r_is_a_step_of_the_ladder(tiny_model, make_request):
    """Of other sizes nobody has looked whether a row's place matters: what is asked for is rounded down."""
    for asked, rows in ((1, 2), (3, 2), (6, 4), (15, 8), (100, 64)):
        (outcome,) = sample(tiny_model("sd1"), [make_request(steps=1, **TINY)], batch_rows=asked)
        assert outcome.batch_rows == rows


def test_each_row_has_its_own_timestep(copy_tiny, make_request):
    """Jobs of other lengths and schedulers stand at other timesteps in one call."""
    model, seen = copy_tiny("sd1"), []
    model.networks.unet.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[1].tolist())
    )
    requests = [make_request(steps=2, guidance_scale=1.0), make_request(steps=4, guidance_scale=5.0)]
    list(sample(model, requests, batch_rows=4))
    assert seen == [[501, 751, 751, 0], [1, 501, 501, 0], [251, 251, 0, 0], [1, 1, 0, 0]]


def test_a_finished_job_makes_room_at_the_next_step(tiny_model, make_request):
    """The batch does not drain: 24 guided jobs of 1 to 6 steps in 8 rows leave hardly a row unused."""
    counts = RowCounts()
    steps = [1 + index % 6 for index in range(24)]
    requests = [make_request(seed=index, steps=n, **TINY) for index, n in enumerate(steps)]
    list(sample(tiny_model("sd1"), requests, batch_rows=8, notice=counts))
    assert counts.used == 2 * sum(steps)
    assert counts.calls <= 2 * sum(steps) / 8 + max(steps)
    in_order = sum(max(steps[start : start + 4]) for start in range(0, 24, 4))
    assert counts.calls < in_order


def test_rows_are_decided_at_every_step(tiny_model, make_request):
    """A guidance interval frees a row for the steps outside it."""
    counts = RowCounts()
    rule = parse_rule({"interval": [0.5, 1]})
    list(sample(tiny_model("sd1"), [make_request(guidance_rule=rule, **TINY)], batch_rows=4, notice=counts))
    assert (counts.calls, counts.used, counts.total) == (4, 1 + 1 + 2 + 2, 16)


def test_a_job_waits_where_rows_run_short(batch_of, make_request):
    """Jobs admitted while they needed one row each take turns when they need two; nobody is lost or changed."""
    rule = parse_rule({"interval": [0.5, 1]})
    requests = [make_request(seed=seed, guidance_rule=rule, **TINY) for seed in range(4)]
    batch, admit = batch_of(requests, rows=4)
    for index in range(4):
        admit(index)
    done, taken = [], []
    while len(batch):
        taken.append(batch.rows_taken())
        done += batch.step()
    assert [finished.ticket for finished in done] == [0, 1, 2, 3]
    assert taken[:2] == [{0: 1, 1: 1, 2: 1, 3: 1}] * 2
    assert taken[2:] == [{0: 2, 1: 2}] * 2 + [{2: 2, 3: 2}] * 2
    for finished in done:
        alone, admit = batch_of([requests[finished.ticket]], rows=4)
        admit(0)
        steps = [alone.step() for _ in range(4)]
        assert torch.equal(steps[-1][0].latents, finished.latents)


def test_a_step_never_takes_more_rows_than_there_are():
    """Jobs get rows in order as far as they fit; a smaller one behind a larger one still gets in."""
    assignment = RowAssignment(rows=5)
    for place, branches in enumerate([(0, 1), (0, 1, 3, 2), (0, 1), (0,), (0,)]):
        assignment.assign(place, branches)
    assert assignment.taken == {0: [0, 1], 2: [2, 3], 3: [4]}
    assert assignment.owners == [(0, 0), (0, 1), (2, 0), (2, 1), (3, 0)]


def test_a_rule_of_many_rows_gets_a_batch_that_holds_it(tiny_model, make_request):
    """A job that needs more rows than R has them, in a batch that is as large as it needs."""
    rule = parse_rule({"rule": "decoupled", "negatives": ["a", "b", "c"]})
    (outcome,) = sample(tiny_model("sd1"), [make_request(guidance_rule=rule, **TINY)], batch_rows=2)
    assert isinstance(outcome, Sampled)
    assert outcome.batch_rows == 8


# The device


class _NoReading(TorchDispatchMode):
    """Fails on what reads a tensor's values on the host, which on a GPU would wait for it."""

    _READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_assert_async")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self._READS, f"{name} reads the device"
        return function(*args, **(kwargs or {}))


def test_a_step_reads_nothing_from_the_device(tiny_model, make_request):
    """Neither guidance, nor schedules, nor the UNet's inputs ask the device for a value."""
    requests = [
        request
        for request in varied_requests(make_request, 40)
        if request.scheduler != "dpm_sde_brownian"  # has a scheduler object of its own
    ]
    model = tiny_model("sd1")
    jobs = [prepare(model, request) for request in requests]
    batch = RowBatch(model, shape=jobs[0].shape, rows=12)
    waiting = list(enumerate(jobs))
    while waiting or len(batch):
        while waiting and batch.has_room(waiting[0][1]):
            index, job = waiting.pop(0)
            batch.admit(index, job, encode_texts(model, job))
        with _NoReading():
            batch.step()


# The contract: same job, same R, same device and versions, same bytes


@pytest.fixture(scope="module")
def one_thread():
    """Run on one thread: how many a matrix product is cut into is part of a machine's arithmetic."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("quarter", range(4))
def test_an_image_does_not_depend_on_its_company(tiny_model, make_request, one_thread, quarter, long):
    """Each of 40 jobs is the same bytes in random mixes, 1,000 in a long run: any company, order, place and entry."""
    model, requests = tiny_model("sd1"), varied_requests(make_request, 40, seed=1)
    wanted = [digests(model, [request], rows=8)[0] for request in requests]
    assert len(set(wanted)) > 30  # jobs of one prompt at guidance 1 may differ in nothing that counts
    chance = random.Random(2 + quarter)
    for _ in range(250 if long else 50):
        mix = [chance.randrange(40) for _ in range(chance.randint(2, 6))]
        assert digests(model, [requests[index] for index in mix], rows=8) == [wanted[index] for index in mix]


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_the_contract_holds_in_every_family(tiny_model, make_request, one_thread, family):
    """v-prediction, two encoders, pooled texts and sizes: still a job's own affair."""
    model, requests = tiny_model(family), varied_requests(make_request, 12, seed=3)
    forwards, backwards = (digests(model, order, rows=8) for order in (requests, requests[::-1]))
    assert forwards == backwards[::-1]


_OTHER_WORKER = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from pathlib import Path
import conftest
from test_sampling_rows import digests, varied_requests
from worker.models.loader import ModelSource, load_model
from worker.sampling.request import SampleRequest
source = ModelSource(name="m", fingerprint="m", kind="folder", location={folder!r})
make = lambda **fields: SampleRequest(**{{**{defaults!r}, **fields}})
model = load_model(source, device=torch.device("cpu"))
print("\\n".join(digests(model, varied_requests(make, 12, seed=4)[::-1], rows=8)))
"""


def test_another_worker_makes_the_same_bytes(model_folder, tiny_model, make_request, one_thread):
    """Another process, with the jobs in another order, renders the same bytes."""
    from pathlib import Path

    here = digests(tiny_model("sd1"), varied_requests(make_request, 12, seed=4), rows=8)
    defaults = {
        name: getattr(make_request(), name)
        for name in (
            "prompt",
            "negative_prompt",
            "seed",
            "guidance_scale",
            "steps",
            "scheduler",
            "width",
            "height",
        )
    }
    code = _OTHER_WORKER.format(
        tests=str(Path(__file__).parent), folder=str(model_folder("sd1")), defaults=defaults
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.split() == here[::-1]


def test_another_r_is_near_but_not_promised(tiny_model, make_request):
    """Across R the latents differ by rounding only: a few parts in a million."""
    model, requests = tiny_model("sd1"), varied_requests(make_request, 6, seed=5)
    images = []
    for rows in (8, 16):
        outcomes = {o.request_index: o.pixels.astype(int) for o in sample(model, requests, batch_rows=rows)}
        images.append(np.stack([outcomes[index] for index in range(6)]))
    assert np.abs(images[0] - images[1]).max() <= 1
