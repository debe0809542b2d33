"""The sampler against diffusers' own pipelines, on tiny random models, in float32 on the CPU."""

from functools import cache

import diffusers
import numpy as np
import pytest
import torch

from shared.schedulers import SCHEDULERS
from worker.sampling.rows.batch import RowBatch
from worker.sampling.rows.loop import sample
from worker.sampling.rows.prepare import encode_texts, prepare

#: max|ours - theirs| / max|theirs| of final latents.
TOLERANCE = 1e-5

#: 100 tokens and more: two chunks. The pipelines cut it at 77; the oracle gets its embeddings instead.
LONG_TEXT = "a highly detailed portrait of an old man with a mustache, " * 8


@pytest.fixture(scope="module")
def pipelines(model_folder):
    """A function that returns diffusers' pipeline over a tiny model's folder."""

    def load(family):
        pipeline_class = (
            diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
        )
        pipeline = pipeline_class.from_pretrained(model_folder(family), local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, dict(pipeline.scheduler.config)

    return cache(load)


@pytest.fixture
def oracle(pipelines):
    """A function that renders one request with diffusers' pipeline."""

    def render(family, request, *, output_type="latent", **replaced):
        pipeline, scheduler_config = pipelines(family)
        spec = SCHEDULERS[request.scheduler]
        scheduler_class = getattr(diffusers, spec.class_name)
        pipeline.scheduler = scheduler_class.from_config(scheduler_config, **spec.overrides)
        if hasattr(pipeline.scheduler, "noise_sampler_seed"):
            pipeline.scheduler.noise_sampler_seed = request.seed
        texts = replaced or {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        return pipeline(
            **texts,
            height=request.height,
            width=request.width,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            eta=spec.eta,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type=output_type,
        ).images

    return render


def our_latents(model, requests, rows=16):
    """Return the final latents of requests, in their order; those of one shape share a batch, as they find room."""
    jobs = {index: prepare(model, request) for index, request in enumerate(requests)}
    latents = {}
    for shape in {job.shape for job in jobs.values()}:
        waiting = [index for index, job in jobs.items() if job.shape == shape]
        batch = RowBatch(model, shape=shape, rows=rows)
        while waiting or len(batch):
            while waiting and batch.has_room(jobs[waiting[0]]):
                index = waiting.pop(0)
                batch.admit(index, jobs[index], encode_texts(model, jobs[index]))
            latents |= {done.ticket: done.latents[0] for done in batch.step()}
    return [latents[index] for index in range(len(requests))]


def relative_error(ours, theirs):
    """Return max|ours - theirs| / max|theirs|."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0, 12.0])
@pytest.mark.parametrize(
    ("prompt", "negative_prompt"),
    [
        ("a red castle", None),
        ("a red castle", "mustache, blurry"),
        ("", ""),
        ("a cat", ""),
        ("a 🦉 in ночь", "☃"),
    ],
)
def test_latents_are_the_pipelines(
    tiny_model, oracle, make_request, family, guidance_scale, prompt, negative_prompt
):
    """Each family, with and without a negative, empty and non-English texts, at three guidance scales."""
    request = make_request(prompt=prompt, negative_prompt=negative_prompt, guidance_scale=guidance_scale)
    (ours,) = our_latents(tiny_model(family), [request])
    assert relative_error(ours, oracle(family, request)[0]) < TOLERANCE


#: Every sampler that fits Stable Diffusion; of its spacings the plain one and Karras. The programs of all rows, beta
#: and exponential too, are compared with diffusers' schedulers in test_sampling_programs.py.
FITTING = [
    key
    for key, spec in SCHEDULERS.items()
    if spec.path == "betas" and not key.endswith(("_beta", "_exponential"))
]


@pytest.mark.parametrize("scheduler", FITTING)
def test_every_scheduler_is_the_pipelines(tiny_model, oracle, make_request, scheduler):
    """Every sampler, deterministic, ancestral and SDE, at an odd number of steps."""
    request = make_request(scheduler=scheduler, steps=7)
    (ours,) = our_latents(tiny_model("sd1"), [request])
    assert relative_error(ours, oracle("sd1", request)[0]) < TOLERANCE


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler_a", "dpmpp_2m_sde_karras", "unipc", "heun", "lcm"])
def test_schedulers_follow_the_models_config(tiny_model, oracle, make_request, family, scheduler):
    """v-prediction and SDXL's spacing reach every kind of scheduler through the model's own config."""
    request = make_request(scheduler=scheduler, steps=5)
    (ours,) = our_latents(tiny_model(family), [request])
    assert relative_error(ours, oracle(family, request)[0]) < TOLERANCE


def test_sdxl_keeps_null_and_empty_negatives_apart(tiny_model, oracle, make_request):
    """On SDXL a null negative is zeros and an empty one is encoded: two images, each the pipeline's own."""
    requests = [make_request(negative_prompt=None), make_request(negative_prompt="")]
    null, empty = our_latents(tiny_model("sdxl"), requests)
    assert relative_error(null, oracle("sdxl", requests[0])[0]) < TOLERANCE
    assert relative_error(empty, oracle("sdxl", requests[1])[0]) < TOLERANCE
    assert relative_error(null, empty) > 0.01


def test_sdxl_may_encode_a_null_negative(copy_tiny, make_request):
    """Where the model's index says so, SDXL's null negative is the encoded empty text."""
    model = copy_tiny("sdxl")
    model.networks.zeros_for_null_negative = False
    null, empty = our_latents(model, [make_request(negative_prompt=None), make_request(negative_prompt="")])
    torch.testing.assert_close(null, empty)


def test_null_and_empty_negatives_are_one_on_sd(tiny_model, make_request):
    """On SD 1.x and 2.x a null negative means an empty one."""
    requests = [make_request(negative_prompt=None), make_request(negative_prompt="")]
    null, empty = our_latents(tiny_model("sd1"), requests)
    torch.testing.assert_close(null, empty)


def test_a_mixed_batch_is_each_jobs_own_pipeline_call(tiny_model, oracle, make_request):
    """Jobs that differ in everything share UNet calls, come and go at any step, and change nothing in each other."""
    requests = [
        make_request(seed=1, guidance_scale=1.0, scheduler="euler_a"),
        make_request(seed=2, guidance_scale=12.0, scheduler="dpmpp_2m_karras", negative_prompt=None, steps=9),
        make_request(seed=2**64 - 1, prompt="a small fox", negative_prompt="", scheduler="unipc", steps=3),
        make_request(seed=4, guidance_scale=0.0, prompt="", scheduler="heun"),
        make_request(seed=5, guidance_scale=1.5, negative_prompt="ugly", scheduler="pndm_prk", steps=7),
        make_request(seed=6, scheduler="dpmpp_3m_sde", steps=11),
        make_request(seed=7, scheduler="kdpm2_a", guidance_scale=2.0, steps=2),
        make_request(seed=8, scheduler="lcm", steps=1),
        make_request(seed=9, scheduler="dpm_sde_brownian", steps=3),
    ]
    for family in ("sd1", "sdxl"):
        for request, ours in zip(requests, our_latents(tiny_model(family), requests, rows=6), strict=True):
            assert relative_error(ours, oracle(family, request)[0]) < TOLERANCE, request


@pytest.mark.parametrize(("width", "height"), [(64, 96), (40, 72), (8, 8)])
def test_any_size_is_the_pipelines(tiny_model, oracle, make_request, width, height):
    """Sizes that are not square, and not a multiple of what the UNet halves, are the pipeline's too."""
    request = make_request(width=width, height=height)
    (ours,) = our_latents(tiny_model("sd1"), [request])
    assert relative_error(ours, oracle("sd1", request)[0]) < TOLERANCE


def chunked_ids(tokenizer, text, chunks):
    """Return a text's ids as rows of 77: 75 of content between BOS and EOS, empty rows behind."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [ids[75 * start : 75 * (start + 1)] for start in range(chunks)]
    pad = tokenizer.pad_token_id
    return torch.tensor(
        [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] + [pad] * (75 - len(row)) for row in rows]
    )


@pytest.mark.filterwarnings("ignore:.*longer than the specified maximum")
@pytest.mark.parametrize(
    ("prompt", "negative_prompt"),
    [(LONG_TEXT, "blurry"), ("a cat", LONG_TEXT), (LONG_TEXT, LONG_TEXT + "ugly")],
)
def test_long_texts_are_chunked_on_sd(tiny_model, pipelines, oracle, make_request, prompt, negative_prompt):
    """Texts over 77 tokens are whole in both branches: equal to embeddings made by plain transformers calls."""
    request = make_request(prompt=prompt, negative_prompt=negative_prompt)
    pipeline, _ = pipelines("sd1")
    longest = max(len(pipeline.tokenizer(text)["input_ids"]) - 2 for text in (prompt, negative_prompt))
    chunks = -(-longest // 75)
    assert chunks > 1
    with torch.no_grad():
        positive, negative = (
            pipeline.text_encoder(chunked_ids(pipeline.tokenizer, text, chunks))[0].reshape(
                1, 77 * chunks, -1
            )
            for text in (prompt, negative_prompt)
        )
    (ours,) = our_latents(tiny_model("sd1"), [request])
    theirs = oracle("sd1", request, prompt_embeds=positive, negative_prompt_embeds=negative)[0]
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("negative_prompt", [LONG_TEXT, None])
def test_long_texts_are_chunked_on_sdxl(tiny_model, pipelines, oracle, make_request, negative_prompt):
    """On SDXL too, in both encoders, pooled from the first chunk; a null negative is zeros of that length."""
    request = make_request(prompt=LONG_TEXT + "smiling", negative_prompt=negative_prompt)
    pipeline, _ = pipelines("sdxl")
    chunks = -(-len(pipeline.tokenizer(request.prompt)["input_ids"]) // 75)

    def embed(text):
        first_ids = chunked_ids(pipeline.tokenizer, text, chunks)
        second_ids = chunked_ids(pipeline.tokenizer_2, text, chunks)
        with torch.no_grad():
            first = pipeline.text_encoder(first_ids, output_hidden_states=True)
            second = pipeline.text_encoder_2(second_ids, output_hidden_states=True)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return hidden.reshape(1, 77 * chunks, -1), second.text_embeds[:1]

    positive, pooled = embed(request.prompt)
    negative, negative_pooled = embed(negative_prompt or "")
    if negative_prompt is None:
        negative, negative_pooled = torch.zeros_like(negative), torch.zeros_like(negative_pooled)
    theirs = oracle(
        "sdxl",
        request,
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        pooled_prompt_embeds=pooled,
        negative_pooled_prompt_embeds=negative_pooled,
    )[0]
    (ours,) = our_latents(tiny_model("sdxl"), [request])
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_pixels_are_the_pipelines(tiny_model, oracle, make_request, family):
    """Decoded images equal the pipeline's PIL images, to one level of 255."""
    requests = [
        make_request(seed=seed, guidance_scale=scale) for seed, scale in [(1, 5.0), (2, 1.0), (3, 9.0)]
    ]
    for outcome in sample(tiny_model(family), requests, batch_rows=8):
        (theirs,) = oracle(family, requests[outcome.request_index], output_type="pil")
        difference = np.abs(outcome.pixels.astype(int) - np.asarray(theirs).astype(int))
        assert difference.max() <= 1


def test_sdxl_latent_statistics_reach_the_decoder(copy_tiny, pipelines, oracle, make_request):
    """A VAE config with latents_mean and latents_std is decoded as the pipeline decodes it."""
    statistics = {"latents_mean": [0.1, -0.3, 0.2, 0.5], "latents_std": [1.5, 0.5, 2.0, 1.0]}
    model, (pipeline, _) = copy_tiny("sdxl"), pipelines("sdxl")
    request, original = make_request(), dict(pipeline.vae.config)
    model.networks.vae.register_to_config(**statistics)
    pipeline.vae.register_to_config(**statistics)
    try:
        (theirs,) = oracle("sdxl", request, output_type="pil")
    finally:
        pipeline.vae.register_to_config(latents_mean=None, latents_std=None)
    assert original["latents_mean"] is None
    (outcome,) = sample(model, [request], batch_rows=2)
    assert np.abs(outcome.pixels.astype(int) - np.asarray(theirs).astype(int)).max() <= 1
