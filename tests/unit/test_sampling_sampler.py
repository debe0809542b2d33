"""What `sample` promises beside the arithmetic: outcomes, rows, failures, beats, stops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shared.errors import ImageNotFinite, JobCrashed, JobInvalid, OutOfMemory
from worker.sampling.events import RowCounts
from worker.sampling.request import Sampled, SampleFailed
from worker.sampling.rows import loop as sampler
from worker.sampling.rows.batch import RowBatch
from worker.sampling.rows.loop import RowLoop, sample
from worker.sampling.rows.prepare import encode_texts, prepare


@pytest.fixture
def model(copy_tiny):
    """A tiny SD 1.x model that the test may break."""
    return copy_tiny("sd1")


@pytest.fixture
def unet_rows(model):
    """The number of rows of every UNet call, in order."""
    rows = []
    model.networks.unet.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    return rows


def by_index(outcomes):
    """Return outcomes by request index; each index comes once."""
    outcomes = list(outcomes)
    found = {outcome.request_index: outcome for outcome in outcomes}
    assert len(found) == len(outcomes)
    return found


def test_every_request_has_one_outcome_in_full(model, make_request):
    """Mixed requests come out once each, as uint8 RGB of their size, with their token counts."""
    requests = [
        make_request(seed=1, width=64, height=96),
        make_request(seed=2, guidance_scale=1.0),
        make_request(seed=3, prompt="", negative_prompt=None, steps=2),
        make_request(seed=4, scheduler="euler_a"),
    ]
    outcomes = by_index(sample(model, requests, batch_rows=4))
    assert sorted(outcomes) == [0, 1, 2, 3]
    for index, request in enumerate(requests):
        outcome = outcomes[index]
        assert isinstance(outcome, Sampled)
        assert outcome.pixels.shape == (request.height, request.width, 3)
        assert outcome.pixels.dtype == np.uint8
        assert outcome.pixels.std() > 10
        assert outcome.seconds > 0
    count = lambda text: len(model.networks.tokenizers[0](text, add_special_tokens=False)["input_ids"])  # noqa: E731
    words, mustache = count("portrait photo of a man"), count("mustache")
    counts = [(outcomes[index].prompt_tokens, outcomes[index].negative_tokens) for index in range(4)]
    assert counts == [(words, mustache), (words, 0), (0, 0), (words, mustache)]


def test_different_jobs_are_visibly_different(model, make_request):
    """A change of prompt, negative, seed or guidance moves the pixels by several levels on average."""
    changes = [
        {},
        {"prompt": "a red castle"},
        {"negative_prompt": "ugly"},
        {"seed": 8},
        {"guidance_scale": 12.0},
    ]
    outcomes = by_index(sample(model, [make_request(steps=8, **change) for change in changes], batch_rows=16))
    base = outcomes[0].pixels.astype(float)
    for index in range(1, len(changes)):
        assert np.abs(outcomes[index].pixels - base).mean() > 3, changes[index]


def test_a_guided_job_gets_its_two_rows_even_where_one_is_allowed(model, make_request, unet_rows):
    """`batch_rows=1` samples job by job and still guides."""
    outcomes = by_index(sample(model, [make_request(steps=1), make_request(steps=1)], batch_rows=1))
    assert unet_rows == [2, 2]
    assert all(isinstance(outcome, Sampled) for outcome in outcomes.values())


def test_jobs_of_one_size_and_text_length_share_calls(model, make_request, unet_rows):
    """Steps, scheduler and guidance do not split a batch; size and the number of text chunks do."""
    together = [make_request(), make_request(steps=3), make_request(scheduler="euler", guidance_scale=1.0)]
    list(sample(model, together, batch_rows=8))
    assert unet_rows == [8] * 4
    unet_rows.clear()
    apart = [
        make_request(steps=1),
        make_request(steps=1, width=72),
        make_request(steps=1, prompt="very " * 80),
    ]
    list(sample(model, apart, batch_rows=8))
    assert unet_rows == [8] * 3


def test_the_same_call_gives_the_same_pixels(model, make_request):
    """Two calls with the same requests give the same bytes, ancestral noise included."""
    requests = [make_request(seed=seed, scheduler="euler_a") for seed in range(3)]
    first, second = (by_index(sample(model, requests, batch_rows=8)) for _ in range(2))
    assert all((first[index].pixels == second[index].pixels).all() for index in range(3))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 60}, "width=60"),
        ({"height": 0}, "height=0"),
        ({"height": -64}, "height=-64"),
        ({"scheduler": "no_such"}, "no_such"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2000}, "steps=2000"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed="),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale=inf"),
    ],
)
def test_an_impossible_job_is_invalid_and_alone(model, make_request, fields, named):
    """A job this model cannot do fails with its value named, and its neighbours are rendered."""
    outcomes = by_index(sample(model, [make_request(), make_request(**fields), make_request()], batch_rows=8))
    assert isinstance(outcomes[1].error, JobInvalid)
    assert named in str(outcomes[1].error)
    assert isinstance(outcomes[0], Sampled)
    assert isinstance(outcomes[2], Sampled)


def test_a_text_without_tokens_is_that_jobs_failure(model, make_request):
    """A prompt that the tokenizer cannot read (a lone surrogate) fails alone."""
    outcomes = by_index(sample(model, [make_request(prompt="\ud800"), make_request()], batch_rows=8))
    assert isinstance(outcomes[0], SampleFailed)
    assert isinstance(outcomes[1], Sampled)


@pytest.fixture
def fail_steps(monkeypatch):
    """A function: steps for which `broken(seeds, rows, height)` holds raise an error. Returns every step's seeds."""
    tried = []

    def arm(broken, error):
        genuine = RowBatch.step

        def step(batch):
            seeds = [job.prepared.request.seed for job in batch.jobs]
            tried.append(seeds)
            if broken(seeds, batch.rows, batch.shape[0]):
                raise error
            return genuine(batch)

        monkeypatch.setattr(RowBatch, "step", step)
        return tried

    return arm


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("bad shape"), JobCrashed, "ValueError: bad shape"),
        (RuntimeError("CUDA error: unspecified"), JobCrashed, "RuntimeError: CUDA error: unspecified"),
        (JobInvalid("no"), JobInvalid, "no"),
        (MemoryError("host"), OutOfMemory, "MemoryError: host"),
        (torch.OutOfMemoryError("device"), OutOfMemory, "device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "DefaultCPUAllocator"),
    ],
)
def test_one_bad_job_fails_alone(model, make_request, fail_steps, error, kind, text):
    """Whatever one job raises, it alone fails, with its code and reason, and the others are rendered."""
    fail_steps(lambda seeds, rows, height: 3 in seeds, error)
    outcomes = by_index(sample(model, [make_request(seed=seed) for seed in range(6)], batch_rows=8))
    assert sorted(outcomes) == list(range(6))
    assert type(outcomes[3].error) is kind
    assert text in str(outcomes[3].error)
    assert all(isinstance(outcomes[index], Sampled) for index in range(6) if index != 3)


def test_a_crashed_batch_is_retried_job_by_job(model, make_request, fail_steps):
    """A batch of several that crashes begins again alone, once each; who waited goes on side by side."""
    tried = fail_steps(lambda seeds, rows, height: 1 in seeds, ValueError("bad"))
    list(sample(model, [make_request(seed=seed, steps=2) for seed in range(4)], batch_rows=4))
    assert tried == [[0, 1], [0], [0], [1], [2, 3], [2, 3]]


def test_a_retry_gives_the_same_bytes(model, make_request, fail_steps):
    """A job that began again after another one's crash is the image it would have been."""
    requests = [make_request(seed=seed, scheduler="euler_a") for seed in range(3)]
    calm = by_index(sample(model, requests, batch_rows=8))
    left = [2]  # the third step crashes once

    def broken(seeds, rows, height):
        left[0] -= 1
        return left[0] == -1

    fail_steps(broken, ValueError("bad"))
    again = by_index(sample(model, requests, batch_rows=8))
    assert all(np.array_equal(again[index].pixels, calm[index].pixels) for index in range(3))


def test_out_of_memory_halves_the_rows_first(model, make_request, fail_steps):
    """Out of memory runs again at half the rows, remembers it for that shape, and loses no job."""
    tried = fail_steps(lambda seeds, rows, height: rows > 4, torch.OutOfMemoryError("full"))
    requests = [make_request(seed=seed, steps=1) for seed in range(12)]
    outcomes = by_index(sample(model, requests, batch_rows=16))
    assert [len(seeds) for seeds in tried] == [8, 4, 2, 2, 2, 2, 2, 2]
    assert {outcome.batch_rows for outcome in outcomes.values()} == {4}


def test_out_of_memory_alone_is_the_jobs_failure(model, make_request, fail_steps):
    """A job with no room even alone fails as out_of_memory, and jobs of another size go on."""
    fail_steps(lambda seeds, rows, height: height > 64, torch.OutOfMemoryError("full"))
    requests = [make_request(height=128), make_request(height=128), make_request(), make_request()]
    outcomes = by_index(sample(model, requests, batch_rows=16))
    assert [isinstance(outcomes[index], Sampled) for index in range(4)] == [False, False, True, True]
    assert isinstance(outcomes[0].error, OutOfMemory)
    assert isinstance(outcomes[1].error, OutOfMemory)


def test_out_of_memory_in_the_decoder_makes_room(model, make_request, monkeypatch):
    """A decoder without room gets that of half the rows, and the finished image is not sampled again."""
    genuine, full = sampler.decode, [True]

    def decode(model, latents):
        if full.pop() if full else False:
            raise torch.OutOfMemoryError("full")
        return genuine(model, latents)

    monkeypatch.setattr(sampler, "decode", decode)
    counts = RowCounts()
    requests = [make_request(steps=1, guidance_scale=1.0), make_request(steps=3), make_request(steps=3)]
    outcomes = by_index(sample(model, requests, batch_rows=8, notice=counts))
    assert all(isinstance(outcome, Sampled) for outcome in outcomes.values())
    assert [outcomes[index].batch_rows for index in range(3)] == [8, 4, 4]
    assert counts.calls == 1 + 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_latent_that_is_not_finite_is_no_picture(model, make_request, value):
    """NaN or infinity that the UNet makes of one job fails that job, without a retry, and no other."""
    calls = []

    def spoil(module, arguments, output):
        calls.append(1)
        output[0][2:4, 0, 0, 0] = value  # the rows of the second job

    model.networks.unet.register_forward_hook(spoil)
    outcomes = by_index(sample(model, [make_request(seed=seed) for seed in range(3)], batch_rows=8))
    assert isinstance(outcomes[1].error, ImageNotFinite)
    assert isinstance(outcomes[0], Sampled)
    assert isinstance(outcomes[2], Sampled)
    assert len(calls) == 4


def test_an_overflow_in_the_decoder_is_no_picture(model, make_request):
    """Infinity that appears only in the VAE is found too."""
    with torch.no_grad():
        model.networks.vae.decoder.conv_out.bias[0] = float("inf")
    (outcome,) = sample(model, [make_request()], batch_rows=2)
    assert isinstance(outcome.error, ImageNotFinite)


def test_on_step_beats_after_every_call(model, make_request, unet_rows):
    """The beat comes once after each UNet call and once after each decoded image."""
    beats = []
    requests = [make_request(steps=3), make_request(steps=5, scheduler="heun")]
    list(sample(model, requests, batch_rows=8, on_step=lambda: beats.append(len(unet_rows))))
    assert beats == [1, 2, 3, 3, *range(4, 10), 9]  # Heun calls the UNet 2 * 5 - 1 times


def test_what_the_beat_raises_is_the_callers_own(model, make_request):
    """An exception from `on_step` ends sampling as it is; it is nobody's failed job."""

    def lost():
        raise TimeoutError("lease lost")

    with pytest.raises(TimeoutError, match="lease lost"):
        list(sample(model, [make_request(), make_request()], batch_rows=8, on_step=lost))


def test_should_stop_leaves_the_rest_undone(model, make_request):
    """A stop lets what has rows finish; what has none has no outcome."""
    yielded = []
    requests = [make_request(seed=seed, guidance_scale=1.0) for seed in range(6)]
    beats = []
    stop = lambda: len(beats) >= 2  # noqa: E731 - in the middle of the first two
    for outcome in sample(model, requests, batch_rows=2, on_step=lambda: beats.append(1), should_stop=stop):
        yielded.append(outcome.request_index)
    assert yielded == [0, 1]


def test_jobs_may_come_in_between_turns(model, make_request, unet_rows):
    """A job added while others run joins them at the next step, and the batch does not drain for it."""
    loop, outcomes = RowLoop(model, rows=4), []
    loop.add(0, make_request(steps=4))
    loop.turn()
    loop.add(1, make_request(seed=8, steps=4))
    while loop:
        outcomes += loop.turn()
    assert [outcome.request_index for outcome in outcomes] == [0, 1]
    assert len(unet_rows) == 5


def test_a_job_that_nobody_wants_any_more_gets_no_rows(model, make_request):
    """`begins` is asked when rows are free for a job; a refusal leaves no outcome and holds nobody up."""
    loop = RowLoop(model, rows=2, begins=lambda ticket: ticket != 1)
    for ticket in range(3):
        loop.add(ticket, make_request(steps=1))
    outcomes = []
    while loop:
        outcomes += loop.turn()
    assert [outcome.request_index for outcome in outcomes] == [0, 2]


def test_seconds_are_shared_by_rows(model, make_request, monkeypatch):
    """A step of three seconds is two of the guided job's, which takes two rows, and one of the other's."""
    genuine, now = RowBatch.step, [0.0]

    def step(batch):
        now[0] += 3.0
        return genuine(batch)

    monkeypatch.setattr(RowBatch, "step", step)
    monkeypatch.setattr(sampler, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    requests = [make_request(steps=4), make_request(steps=4, guidance_scale=1.0)]
    outcomes = by_index(sample(model, requests, batch_rows=4))
    assert [outcomes[index].seconds for index in range(2)] == [8.0, 4.0]


def test_no_seconds_are_kept_of_jobs_that_left(model, make_request, fail_steps):
    """Jobs that began, crashed together and are dropped before they begin again leave nothing behind."""
    fail_steps(lambda seeds, rows, height: len(seeds) > 1, ValueError("bad"))
    loop = RowLoop(model, rows=8)
    for ticket in range(3):
        loop.add(ticket, make_request(seed=ticket))
    loop.turn()
    assert loop.drop_waiting() == [0, 1, 2]
    assert loop._seconds == {}


def test_nothing_to_do_is_nothing_done(model):
    """No requests, no outcomes."""
    assert list(sample(model, [], batch_rows=4)) == []


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_half_precision_is_near_single(load_tiny, tiny_model, make_request, family):
    """float16 UNet and encoders over float32 latents give nearly the float32 image, in the dtypes promised."""
    half = load_tiny(family, dtype=torch.float16)
    seen = {}
    half.networks.unet.register_forward_pre_hook(lambda module, given: seen.update(unet=given[0].dtype))
    half.networks.vae.decoder.register_forward_pre_hook(lambda module, given: seen.update(vae=given[0].dtype))
    requests = [make_request(guidance_scale=scale, steps=3) for scale in (3.0, 1.0)]
    halves, singles = (
        by_index(sample(model, requests, batch_rows=4)) for model in (half, tiny_model(family))
    )
    for index in range(2):
        difference = np.abs(halves[index].pixels.astype(float) - singles[index].pixels)
        assert difference.mean() < 4
    assert {half.networks.unet.dtype, *(encoder.dtype for encoder in half.networks.text_encoders)} == {
        torch.float16
    }
    # SDXL's VAE would overflow in float16.
    assert seen == {"unet": torch.float16, "vae": torch.bfloat16 if family == "sdxl" else torch.float16}


def test_latents_stay_in_single_precision(load_tiny, make_request):
    """With a float16 UNet the schedule still works on float32 latents."""
    half = load_tiny("sd1", dtype=torch.float16)
    job = prepare(half, make_request(steps=1))
    batch = RowBatch(half, shape=job.shape, rows=2)
    batch.admit(0, job, encode_texts(half, job))
    (done,) = batch.step()
    assert done.latents.dtype == torch.float32
