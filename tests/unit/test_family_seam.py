"""The wall between the row engine and families: its code names none, and it renders one that is like no other."""

import ast
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from shared.guidance import parse_rule
from worker.sampling.engine import Engine
from worker.sampling.families.base import TokenizedText
from worker.sampling.model import LoadedModel
from worker.sampling.rows.batch import RowBatch
from worker.sampling.rows.prepare import encode_texts, prepare
from worker.sampling.schedules.programs import NotLinear

_SAMPLING = Path(__file__).parents[2] / "worker/sampling"

#: The modules that serve every family.
ENGINE = [
    *(_SAMPLING / "rows").glob("*.py"),
    *(_SAMPLING / f"{name}.py" for name in ("engine", "model", "guidance", "noise", "request_checks")),
]

#: Words of single families: of networks, of their arguments and of their texts.
FAMILY_WORDS = (
    "unet", "vae", "clip", "sdxl", "stable_diffusion", "stable diffusion", "stablediffusion", "transformer",
    "t5", "text_embeds", "time_ids", "vae_scale_factor", "encoder_hidden_states", "added_cond", "pooled",
    "cross_attention", "tokenizer", "text_encoder", "scaling_factor", "77",
)  # fmt: skip

#: max|ours - theirs| / max|theirs| of final latents.
TOLERANCE = 1e-5

CHANNELS, LENGTH, WIDTH = 5, 6, 8
CONFIG = {
    **diffusers.DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction").config,
    "_class_name": "DDIMScheduler",
    "_use_default_values": [],  # all of it is said: a key that stands there is lost when another class is made
}
SCHEDULERS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
}


def words(source):
    """Return every name, string and number of a module, in small letters; comments are not among them."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=word):
                yield str(word).lower()
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word) | ast.alias(name=word):
                yield word.lower()
            case ast.ImportFrom(module=word):
                yield str(word).lower()
            case ast.Constant(value=value):
                yield str(value).lower()


def family_words(source):
    """Return the words of families in a module."""
    return {word for found in words(source) for word in FAMILY_WORDS if word in found}


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_the_engine_names_no_family(path):
    """No name, string or number of the row engine is a family's own."""
    assert family_words(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    [
        "model.unet(x)",
        "def call_unet(): pass",
        "x = {'time_ids': 1}",
        "width = 77 * chunks",
        "f(text_embeds=pool)",
        'if family == "sdxl": pass',
        "from worker.sampling.families.clip_texts import cut",
    ],
)
def test_the_search_finds_families(source):
    """The search above would notice a family's word as a name, an argument, a string or a number."""
    assert family_words(source)


class ToyNetworks:
    """A family like no other: latents (5, N), texts with a mask, the scale as an input, a learned blank."""

    family, device, dtype, size_unit_px = "toy", torch.device("cpu"), torch.float32, 8

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.first = torch.randn(CHANNELS + WIDTH + 2, 16, generator=generator) / 4
        self.last = torch.randn(16, CHANNELS, generator=generator) / 4
        self.words = torch.randn(64, WIDTH, generator=generator)
        self.blank = torch.randn(WIDTH, generator=generator)

    def latent_shape(self, height, width):
        """Return a sequence of one token for every 8 x 8 pixels."""
        return (CHANNELS, (height // 8) * (width // 8))

    def tokenize(self, text):
        """Return a number for each word, of one length for all texts; -1 is a missing negative prompt."""
        ids = (-1,) if text is None else tuple(sum(word.encode()) % 64 for word in text.split())
        return TokenizedText(tokens=len(ids), length=LENGTH, chunks=((ids,),))

    def condition(self, text, settings):
        """Return padded words, which of them count, and the scale."""
        ((ids,),) = text.chunks
        words = torch.zeros(settings.text_length, WIDTH)
        for place, number in enumerate(ids):
            words[place] = self.blank if number < 0 else self.words[number]
        mask = torch.arange(settings.text_length) < len(ids)
        return {"words": words, "mask": mask, "scale": torch.tensor(settings.guidance_scale / 10)}

    def denoise(self, latents, timesteps, conditioning):
        """Run a small network on every token of every row."""
        assert conditioning["words"].shape == (len(latents), LENGTH, WIDTH)
        text = conditioning["words"].masked_fill(~conditioning["mask"][:, :, None], 0).sum(dim=1)
        more = torch.stack([conditioning["scale"], timesteps / 1000], dim=1)
        seen = torch.cat([text, more], dim=1)[:, None].expand(-1, latents.shape[2], -1)
        hidden = torch.tanh(torch.cat([latents.transpose(1, 2), seen], dim=2) @ self.first)
        return (hidden @ self.last).transpose(1, 2)

    def decode(self, latents):
        """Return a picture whose rows are all the sequence: for images of 8 pixels' height."""
        return torch.tanh(latents[:, :3, None]).repeat_interleave(8, dim=3).expand(-1, -1, 8, -1)


@pytest.fixture
def toy():
    """A function that returns the toy model; keywords replace keys of its scheduler config."""

    def make(**config):
        return LoadedModel(
            name="toy", fingerprint="toy", networks=ToyNetworks(), scheduler_config={**CONFIG, **config}
        )

    return make


@torch.inference_mode()
def plain(model, request):
    """Return a job's final latents by a loop over diffusers' scheduler, one network row at a time."""
    networks = model.networks
    kind, overrides = SCHEDULERS[request.scheduler]
    scheduler = kind.from_config(model.scheduler_config, **overrides)
    scheduler.set_timesteps(request.steps)

    def predict(x, t, text):
        embedded = [networks.words[sum(word.encode()) % 64] for word in (text or "").split()]
        embedded = [networks.blank] if text is None else embedded
        words = torch.stack([*embedded, *[torch.zeros(WIDTH)] * (LENGTH - len(embedded))])
        mask = torch.tensor([place < len(embedded) for place in range(LENGTH)])
        scale = torch.tensor([request.guidance_scale / 10])
        conditioning = {"words": words[None], "mask": mask[None], "scale": scale}
        return networks.denoise(x, t.reshape(1).float(), conditioning)

    generator = torch.Generator().manual_seed(request.seed)
    shape = (1, CHANNELS, (request.height // 8) * (request.width // 8))
    x = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        m = predict(shown, t, request.prompt)
        if request.guidance_scale > 1:
            positive, negative = m, predict(shown, t, request.negative_prompt)
            m = negative + request.guidance_scale * (positive - negative)
            if request.guidance_rule == RESCALED:
                m = rescale_noise_cfg(m, positive, guidance_rescale=0.7)
        draws = {"generator": generator} if request.scheduler == "euler_a" else {}
        x = scheduler.step(m, t, x, return_dict=False, **draws)[0]
    return x[0]


RESCALED = parse_rule({"rescale": 0.7})


@pytest.fixture
def jobs(make_request):
    """Jobs of many kinds, of one size."""
    texts = ("a red boat", "cat", "three small grey birds")
    negatives = (None, "", "fog and rain", "fog")
    return [
        make_request(
            prompt=texts[index % 3],
            negative_prompt=negatives[index % 4],
            seed=index,
            steps=2 + index % 6,
            scheduler=list(SCHEDULERS)[index % 5],
            guidance_scale=(1.0, 4.0, 7.5)[index % 3],
            guidance_rule=RESCALED if index % 7 == 4 else None,
            width=40,
            height=8,
        )
        for index in range(15)
    ]


def rendered(model, requests, *, rows):
    """Return the final latents of requests of one shape that go through one batch."""
    prepared = [prepare(model, request) for request in requests]
    batch = RowBatch(model, shape=prepared[0].shape, rows=rows)
    waiting, latents = list(enumerate(prepared)), {}
    while waiting or len(batch):
        while waiting and batch.has_room(waiting[0][1]):
            ticket, job = waiting.pop(0)
            batch.admit(ticket, job, encode_texts(model, job))
        latents |= {done.ticket: done.latents[0] for done in batch.step()}
    return [latents[index] for index in range(len(requests))]


def distance(ours, theirs):
    """Return the largest difference over the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_a_family_like_no_other_is_each_jobs_plain_loop(toy, jobs):
    """Mixed schedulers, steps, scales and texts in six rows of a toy family: each job is its own plain loop."""
    model = toy()
    for request, ours in zip(jobs, rendered(model, jobs, rows=6), strict=True):
        assert distance(ours, plain(model, request)) < TOLERANCE, request


def test_what_is_no_linear_program_knows_no_rank_either(toy, jobs):
    """A job with a scheduler of its own (thresholding) is its plain loop too."""
    model = toy(thresholding=True)
    some = [request for request in jobs if request.scheduler == "dpmpp_2m"]
    assert all(isinstance(prepare(model, request).program, NotLinear) for request in some)
    for request, ours in zip(some, rendered(model, some, rows=4), strict=True):
        assert distance(ours, plain(model, request)) < TOLERANCE, request


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "apg", "eta": 0.3, "norm_threshold": 2.0, "momentum": -0.5},
        {"rule": "perp_neg"},
        {"rule": "cfg_zero_star"},
    ],
    ids=lambda rule: rule["rule"],
)
def test_guidance_is_the_same_in_another_rank(toy, make_request, rule):
    """A rule's projections see one long vector, whether latents are (5, N) or (5, 1, N)."""

    class Flat(ToyNetworks):
        def latent_shape(self, height, width):
            channels, length = super().latent_shape(height, width)
            return (channels, 1, length)

        def denoise(self, latents, timesteps, conditioning):
            return super().denoise(latents[:, :, 0], timesteps, conditioning)[:, :, None]

    request = make_request(
        prompt="cat", negative_prompt="fog", width=40, height=8, guidance_rule=parse_rule(rule)
    )
    model = toy()
    (ours,) = rendered(model, [request], rows=4)
    model.networks = Flat()
    (theirs,) = rendered(model, [request], rows=4)
    assert distance(ours, theirs[:, 0]) < TOLERANCE


def test_the_engine_makes_a_new_familys_pictures(toy, jobs):
    """From requests to pixels through the engine's thread: the decoder's values, to one level of 255."""
    model = toy()
    engine = Engine(lambda fingerprint: model, stall_seconds=60.0, load_seconds=60.0)
    try:
        futures = [engine.submit("toy", request, rows=8) for request in jobs]
        outcomes = [future.result(timeout=60) for future in futures]
    finally:
        engine.close()
    for request, outcome in zip(jobs, outcomes, strict=True):
        values = model.networks.decode(plain(model, request)[None])[0].permute(1, 2, 0)
        expected = ((values * 0.5 + 0.5) * 255).round().numpy()
        assert outcome.pixels.shape == (8, 40, 3)
        assert np.abs(outcome.pixels.astype(int) - expected).max() <= 1
        assert outcome.prompt_tokens == len(request.prompt.split())
