"""Families beyond Stable Diffusion, rendered by diffusers' own pipelines: tiny random models, float32, on the CPU."""

import json
import shutil
from functools import cache
from typing import get_args

import diffusers
import numpy as np
import pytest
import torch

from shared.errors import ImageNotFinite, JobCrashed, JobInvalid, OutOfMemory
from shared.job_checks import scheduler_problem
from shared.model_facts import read_facts
from shared.schedulers import SCHEDULERS, SchedulerSpec
from testing.random_pipelines import PipelineFamily, create_random_pipeline
from worker.models.loader import ModelSource, load_model
from worker.sampling.pipelines.call import make_call_batches, prepare_call
from worker.sampling.pipelines.sampler import sample_with_pipeline
from worker.sampling.pipelines.schedulers import fitting_schedulers
from worker.sampling.request import Sampled, SampleFailed, SampleRequest

# diffusers' own Chroma still uses a name that diffusers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

FAMILIES = get_args(PipelineFamily)

#: The rest follow a flow.
BETAS = {"pixart_sigma", "hunyuan_dit"}

#: Guided, but away from the empty prompt only.
NO_NEGATIVE = {"flux2_klein"}

#: Guided by a true classifier-free guidance that wants a negative prompt.
TRUE_CFG = {"flux_schnell", "qwen_image"}

#: More tokens than any CLIP reads, fewer than any T5 or language model.
LONG_TEXT = "a highly detailed portrait of an old man with a mustache " * 9


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory):
    """A function that returns the folder of a tiny random model of a family."""
    torch.set_num_threads(1)
    return cache(
        lambda family: create_random_pipeline(tmp_path_factory.mktemp("pipelines") / family, family=family)
    )


def load(folder, name, **options):
    """Load a folder afresh onto the CPU."""
    source = ModelSource(name=name, fingerprint="f", kind="folder", location=str(folder))
    return load_model(source, device=torch.device("cpu"), **options)


@pytest.fixture(scope="module")
def tiny(pipeline_folder):
    """A function that returns a loaded tiny model, shared: do not change it."""
    return cache(lambda family: load(pipeline_folder(family), f"tiny-{family}"))


@pytest.fixture
def own(pipeline_folder):
    """A function that returns a loaded tiny model for a test to break."""
    return lambda family: load(pipeline_folder(family), f"tiny-{family}")


def scheduler_of(family):
    """Return a scheduler that fits a family and draws no noise."""
    return "dpmpp_2m" if family in BETAS else "flow_euler"


def make_request(family="sd3", **fields):
    """Return a request that a family can do; keywords replace its fields."""
    defaults = {
        "prompt": "portrait photo of a man",
        "negative_prompt": None if family in NO_NEGATIVE else "mustache",
        "seed": 7,
        "guidance_scale": 4.0,
        "steps": 3,
        "scheduler": scheduler_of(family),
        "width": 64,
        "height": 64,
    }
    return SampleRequest(**{**defaults, **fields})


def by_index(outcomes):
    """Return outcomes by request index; each index comes once."""
    outcomes = list(outcomes)
    found = {outcome.request_index: outcome for outcome in outcomes}
    assert len(found) == len(outcomes)
    return found


def images(model, requests, batch_rows=64):
    """Return the pixels of requests, in their order; none may fail."""
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=batch_rows))
    failed = [outcome.error for outcome in outcomes.values() if isinstance(outcome, SampleFailed)]
    assert failed == []
    return [outcomes[index].pixels for index in range(len(requests))]


def difference(one, other):
    """Return the largest difference of two images, in levels."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


# --- the oracle: the family's pipeline as its users call it, for one image ------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_say_what_the_loaded_pipeline_does(pipeline_folder, tiny, family):
    """What a producer reads off a folder without torch is what the worker learns from the pipeline it loaded."""
    facts, model = read_facts(pipeline_folder(family)), tiny(family)
    call = model.call
    assert facts.family == model.family
    assert (facts.guided, facts.negative, facts.needs_negative, facts.distilled) == (
        call.scale is not None,
        call.negative,
        call.needs_negative,
        call.embedded,
    )
    assert (facts.size_unit_px, facts.text_limit) == (call.size_unit_px, call.text_limit)
    for key in fitting_schedulers(model):
        assert scheduler_problem(facts, "it", key) is None


@pytest.fixture(scope="module")
def pipelines(pipeline_folder):
    """A function that returns diffusers' own pipeline over a tiny model's folder."""

    def load_plain(family):
        from worker.models.quiet import no_progress_bars

        with no_progress_bars():
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(pipeline_folder(family))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, pipeline.scheduler

    return cache(load_plain)


def documented_guidance(family, request):
    """Return the guidance arguments that docs/families.md says a request means."""
    scale, negative = request.guidance_scale, request.negative_prompt
    if scale <= 1 and family != "flux":
        return {
            "true_cfg_scale" if family in TRUE_CFG else "guidance_scale": scale if family != "z_image" else 0
        }
    if family == "flux" and (scale <= 1 or negative is None):
        return {"guidance_scale": scale}
    if family in {"flux", *TRUE_CFG}:
        return {"true_cfg_scale": scale, "negative_prompt": negative}
    return {"guidance_scale": scale} | ({} if negative is None else {"negative_prompt": negative})


@pytest.fixture
def oracle(pipelines):
    """A function that renders one request with diffusers' pipeline and returns its PIL image."""

    def render(family, request):
        pipeline, scheduler = pipelines(family)
        spec = SCHEDULERS[request.scheduler]
        shift = scheduler.config.get("shift") or scheduler.config.get("flow_shift") or 1.0
        extra = (
            {"shift" if spec.class_name.startswith("Flow") else "flow_shift": shift}
            if spec.path == "flow"
            else {}
        )
        scheduler_class = getattr(diffusers, spec.class_name)
        pipeline.scheduler = scheduler_class.from_config(scheduler.config, **spec.overrides, **extra)
        options = documented_guidance(family, request) | ({"eta": spec.eta} if spec.eta else {})
        if family in {"pixart_sigma", "sana", "hunyuan_dit"}:
            options["use_resolution_binning"] = False
        if family in {"pixart_sigma", "lumina"}:
            options["clean_caption"] = False
        (image,) = pipeline(
            prompt=request.prompt,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            **options,
        ).images
        return image

    return render


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_the_pipelines(tiny, oracle, family):
    """Texts of many lengths, null, empty and other negatives, guided or not, in shared calls: the pipeline's own."""
    null = "" if family in TRUE_CFG else None  # without a negative prompt these would not be guided
    changes = [
        {},
        {"prompt": "a red castle on a mountain", "negative_prompt": "ugly, blurry"},
        {"negative_prompt": null},
        {"negative_prompt": ""},
        {"guidance_scale": 1.0, "negative_prompt": "not used"},
        {"guidance_scale": 9.0, "prompt": "a cat"},
        {"width": 96, "height": 64},
        {"prompt": "a dog", "negative_prompt": "cat"},
    ]
    if family in NO_NEGATIVE:
        changes = [{**change, "negative_prompt": None} for change in changes]
    requests = [make_request(family, seed=2**64 - 1 - seed, **change) for seed, change in enumerate(changes)]
    for request, ours in zip(requests, images(tiny(family), requests), strict=True):
        assert difference(ours, oracle(family, request)) <= 1, request


@pytest.mark.parametrize("family", FAMILIES)
def test_different_jobs_are_visibly_different(tiny, family):
    """A change of prompt, negative, seed or guidance moves the pixels by several levels on average."""
    changes = [{}, {"prompt": "a red castle"}, {"seed": 8}, {"guidance_scale": 9.0}]
    changes += [] if family in NO_NEGATIVE else [{"negative_prompt": "ugly"}]
    base, *others = images(tiny(family), [make_request(family, **change) for change in changes])
    for change, other in zip(changes[1:], others, strict=True):
        assert np.abs(base.astype(float) - other).mean() > 1, change


@pytest.mark.parametrize("family", ["pixart_sigma", "sd3", "sana"])
def test_every_scheduler_that_fits_is_the_pipelines(tiny, oracle, family):
    """Each key that is said to fit renders what the pipeline renders with it, ancestral and SDE ones too."""
    keys = fitting_schedulers(tiny(family))
    assert {"pixart_sigma": 40, "sd3": 6, "sana": 6}[family] <= len(keys)
    requests = [make_request(family, scheduler=key, steps=5, seed=seed) for key in keys for seed in (7, 8)]
    made = images(tiny(family), requests)  # two to a call; the second shows whose noise is whose
    for request, ours in list(zip(requests, made, strict=True))[1::2]:
        assert difference(ours, oracle(family, request)) <= 1, request.scheduler


# --- guidance -------------------------------------------------------------------------------------------------


def outcome_of(model, request):
    """Return the one outcome of one request."""
    (outcome,) = sample_with_pipeline(model, [request], batch_rows=4)
    return outcome


def test_flux_takes_its_scale_as_an_input_until_there_is_a_negative_prompt(tiny):
    """FLUX dev: null costs one row and the scale is the network's; any text, also the empty one, costs two."""
    requests = [
        make_request(negative_prompt=None),
        make_request(negative_prompt=None, guidance_scale=2.0),
        make_request(negative_prompt=""),
        make_request(negative_prompt="ugly", guidance_scale=1.0),
        make_request(negative_prompt=None, guidance_scale=1.0),
    ]
    calls = [prepare_call(tiny("flux"), 0, request) for request in requests]
    assert [call.rows for call in calls] == [1, 1, 2, 1, 1]
    assert [dict(call.guidance) for call in calls] == [
        {"guidance_scale": 4.0},
        {"guidance_scale": 2.0},
        {"true_cfg_scale": 4.0},
        {"guidance_scale": 1.0},
        {"guidance_scale": 1.0},
    ]
    low, high = images(tiny("flux"), requests[:2])
    assert difference(low, high) > 1


@pytest.mark.parametrize("family", sorted(TRUE_CFG))
def test_a_scale_that_would_do_nothing_is_refused(tiny, family):
    """Where only a negative prompt makes guidance act, a null one with a scale above 1 is a mistake, and it says so."""
    error = outcome_of(tiny(family), make_request(family, negative_prompt=None)).error
    assert isinstance(error, JobInvalid)
    assert "guidance_scale=4" in str(error)
    assert "negative_prompt: ''" in str(error)
    assert isinstance(
        outcome_of(tiny(family), make_request(family, negative_prompt=None, guidance_scale=1.0)), Sampled
    )


def test_no_guidance_is_zero_where_scales_count_from_zero(tiny):
    """Z-Image writes p + g (p - n): its 0 is everybody else's 1, and other numbers go to it as they are."""
    scales = [
        prepare_call(tiny("z_image"), 0, make_request(guidance_scale=w)).guidance for w in (0.5, 1.0, 4.0)
    ]
    assert scales == [{"guidance_scale": 0.0}, {"guidance_scale": 0.0}, {"guidance_scale": 4.0}]
    once, twice = images(tiny("z_image"), [make_request(guidance_scale=w) for w in (0.5, 1.0)])
    assert (once == twice).all()


def test_a_pipeline_that_hears_no_negative_prompt_refuses_one(tiny):
    """FLUX.2 klein is guided away from the empty prompt: null takes its two rows, any text is refused."""
    model = tiny("flux2_klein")
    call = prepare_call(model, 0, make_request("flux2_klein"))
    assert (call.rows, call.guidance, call.negative) == (2, {"guidance_scale": 4.0}, None)
    for negative in ("ugly", ""):
        error = outcome_of(model, make_request("flux2_klein", negative_prompt=negative)).error
        assert isinstance(error, JobInvalid)
        assert "negative_prompt" in str(error)
    assert isinstance(outcome_of(model, make_request(negative_prompt="unused", guidance_scale=1.0)), Sampled)


def test_a_scale_that_a_distilled_model_would_ignore_is_refused(own, pipeline_folder, tmp_path):
    """FLUX.2 klein, distilled, says itself that it is not guided: a scale above 1 is a mistake."""
    place = shutil.copytree(pipeline_folder("flux2_klein"), tmp_path / "distilled")
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps({**index, "is_distilled": True}))
    model = load(place, "distilled")
    error = outcome_of(model, make_request("flux2_klein")).error
    assert isinstance(error, JobInvalid)
    assert "guidance_scale=4" in str(error)
    call = prepare_call(model, 0, make_request("flux2_klein", guidance_scale=1.0))
    assert (call.rows, call.guidance) == (1, {})


def test_a_network_may_take_the_scale_and_nothing_else(pipeline_folder, tmp_path):
    """A latent consistency model's scale is an input: one row, the number acts, negatives are refused."""
    components = load(pipeline_folder("flux"), "x").pipeline
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=32,
        time_cond_proj_dim=16,
    )
    made = diffusers.LatentConsistencyModelPipeline(
        vae=components.vae,
        text_encoder=components.text_encoder,
        tokenizer=components.tokenizer,
        unet=unet,
        scheduler=diffusers.LCMScheduler(beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(tmp_path / "lcm")
    model = load(tmp_path / "lcm", "tiny-lcm")
    assert model.call.embedded
    assert fitting_schedulers(model) == ["lcm"]
    request = make_request(scheduler="lcm", negative_prompt=None)
    low, high = images(
        model, [request, make_request(scheduler="lcm", negative_prompt=None, guidance_scale=9.0)]
    )
    assert difference(low, high) > 0
    error = outcome_of(model, make_request(scheduler="lcm", negative_prompt="ugly")).error
    assert isinstance(error, JobInvalid)
    assert "negative_prompt" in str(error)


def test_a_guidance_rule_is_refused(tiny):
    """Rules belong to the row engine; a job with one is told so, and its neighbour is rendered."""
    rule = '{"rule":"apg"}'
    outcomes = by_index(
        sample_with_pipeline(tiny("sd3"), [make_request(guidance_rule=rule), make_request()], batch_rows=4)
    )
    assert isinstance(outcomes[0].error, JobInvalid)
    assert "apg" in str(outcomes[0].error)
    assert isinstance(outcomes[1], Sampled)


# --- schedulers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scheduler_that_does_not_fit_is_refused_with_those_that_do(tiny, family):
    """A sweep's default is not quietly exchanged on a flow model, nor a flow row on another; fitting keys are named."""
    unfit = "flow_euler" if family in BETAS else "dpmpp_2m"
    error = outcome_of(tiny(family), make_request(family, scheduler=unfit)).error
    assert isinstance(error, JobInvalid)
    assert f"scheduler={unfit}" in str(error)
    assert scheduler_of(family) in str(error).partition("; use ")[2].split(", ")
    assert unfit not in str(error).partition("; use ")[2].split(", ")


@pytest.mark.parametrize("scheduler", ["no_such", "dpm_sde_brownian"])
def test_a_scheduler_that_nobody_can_repeat_or_has_is_refused(tiny, scheduler):
    """Neither a key that is not there nor noise that does not come from the image's generator."""
    error = outcome_of(tiny("pixart_sigma"), make_request("pixart_sigma", scheduler=scheduler)).error
    assert isinstance(error, JobInvalid)
    assert scheduler in str(error)


def test_a_special_scheduler_is_not_exchanged_for_a_common_one(own):
    """Diffusers lists the common schedulers as compatible with CogVideoX's, whose noise levels they do not have."""
    model = own("pixart_sigma")
    model.scheduler_class = "CogVideoXDDIMScheduler"
    assert fitting_schedulers(model) == []
    assert "no scheduler of the table fits" in str(outcome_of(model, make_request("pixart_sigma")).error)


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("flux_schnell", "flow_heun"), ("flux_schnell", "flow_dpmpp_2m"), ("z_image", "flow_heun")],
)
def test_a_scheduler_that_turns_out_not_to_fit_is_remembered(own, family, scheduler):
    """What a pipeline's noise levels do not suit shows in the first call; all of it is refused, then at once."""
    model, calls = recorded(own(family))
    requests = [make_request(family, scheduler=scheduler, seed=seed) for seed in range(3)]
    for _ in range(2):
        outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
        assert {type(outcome.error) for outcome in outcomes.values()} == {JobInvalid}
        assert f"scheduler={scheduler}" in str(outcomes[0].error)
        assert scheduler not in str(outcomes[0].error).partition("; use ")[2].split(", ")
        assert "flow_euler" in str(outcomes[0].error)
    assert calls == [[0, 1, 2]]


def test_too_many_or_too_few_steps_are_the_jobs_mistake(tiny):
    """What the scheduler says to a number of steps is invalid for all jobs that ask for it, and for no other."""
    requests = [
        make_request("pixart_sigma", scheduler="pndm_prk", steps=2),
        make_request("pixart_sigma", scheduler="ddpm", steps=2000),
        make_request("pixart_sigma"),
    ]
    outcomes = by_index(sample_with_pipeline(tiny("pixart_sigma"), requests, batch_rows=4))
    for index, named in ((0, "steps=2"), (1, "steps=2000")):
        assert isinstance(outcomes[index].error, JobInvalid)
        assert named in str(outcomes[index].error)
    assert isinstance(outcomes[2], Sampled)


def test_noise_is_each_images_own_even_where_the_pipeline_gives_none(tiny, monkeypatch):
    """SD3's pipeline passes no generators on; a scheduler that draws gets them all the same: alone or beside others."""
    spec = SchedulerSpec(
        class_name="FlowMatchEulerDiscreteScheduler",
        overrides={"stochastic_sampling": True},
        path="flow",
        a1111_sampler="x",
    )
    monkeypatch.setitem(SCHEDULERS, "drawing", spec)
    requests = [make_request(scheduler="drawing", seed=seed) for seed in range(3)]
    together = images(tiny("sd3"), requests)
    torch.manual_seed(99)
    for request, image in zip(requests, together, strict=True):
        (alone,) = images(tiny("sd3"), [request])
        assert difference(alone, image) <= 1


# --- texts ----------------------------------------------------------------------------------------------------


def test_token_counts_are_the_roomiest_tokenizers(tiny):
    """Counts are without marks: T5's beside CLIP, the language model's alone; an unused negative has none."""
    requests = [make_request(negative_prompt="a red car"), make_request(guidance_scale=1.0)]
    for family, tokenizer in (("sd3", "tokenizer_3"), ("z_image", "tokenizer")):
        reader = getattr(tiny(family).pipeline, tokenizer)
        count = lambda text: len(reader(text, add_special_tokens=False)["input_ids"])  # noqa: B023, E731
        outcomes = by_index(sample_with_pipeline(tiny(family), requests, batch_rows=4))
        words = count("portrait photo of a man")
        assert (outcomes[0].prompt_tokens, outcomes[0].negative_tokens) == (words, count("a red car"))
        assert (outcomes[1].prompt_tokens, outcomes[1].negative_tokens) == (words, 0)


@pytest.mark.parametrize("family", ["sd3", "flux", "hunyuan_dit"])
def test_a_text_longer_than_clip_reads_is_read_by_t5(tiny, oracle, family):
    """Beside a T5, CLIP and BERT read the beginning, by design: such a prompt is rendered, as the pipeline does."""
    requests = [make_request(family, prompt=LONG_TEXT), make_request(family, negative_prompt=LONG_TEXT)]
    outcomes = by_index(sample_with_pipeline(tiny(family), requests, batch_rows=4))
    assert 77 < outcomes[0].prompt_tokens == outcomes[1].negative_tokens
    for index, request in enumerate(requests):
        assert difference(outcomes[index].pixels, oracle(family, request)) <= 1


def test_without_t5_clip_decides(pipeline_folder, tmp_path):
    """SD3 is often stored without its T5: then a prompt over 77 tokens would be cut, and is refused."""
    place = shutil.copytree(pipeline_folder("sd3"), tmp_path / "sd3")
    index = json.loads((place / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (place / "model_index.json").write_text(json.dumps(index))
    model = load(place, "small-sd3")
    outcomes = by_index(
        sample_with_pipeline(
            model, [make_request(prompt=LONG_TEXT), make_request(prompt="a cat")], batch_rows=4
        )
    )
    assert isinstance(outcomes[0].error, JobInvalid)
    assert "reads 77" in str(outcomes[0].error)
    assert isinstance(outcomes[1], Sampled)


@pytest.mark.parametrize(
    ("family", "field"),
    [
        (family, field)
        for family in FAMILIES
        for field in ("prompt", "negative_prompt")
        if (family, field) != ("flux2_klein", "negative_prompt")
    ],
)
def test_a_text_that_would_be_cut_fails_alone(own, family, field):
    """A text no tokenizer reads whole names its tokens and the limit; its neighbours are rendered."""
    model, calls = recorded(own(family))
    requests = [make_request(family, seed=seed) for seed in range(4)]
    requests[2] = make_request(family, seed=2, **{field: "cat " * 1100})
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
    error = outcomes[2].error
    assert isinstance(error, JobInvalid)
    assert str(error).startswith(f"{field}: 11")
    assert "reads " in str(error)
    assert all(isinstance(outcomes[index], Sampled) for index in (0, 1, 3))
    assert len(calls) <= 3


@pytest.mark.parametrize(
    ("family", "most"),
    [("sd3", 255), ("pixart_sigma", 299), ("sana", 299), ("auraflow", 255), ("hunyuan_dit", 255)],
)
def test_the_longest_text_is_exact(own, family, most):
    """The last text that fits is rendered, one token more is refused: marks and templates are counted too."""
    model, calls = recorded(own(family))
    texts = [" ".join(["cat"] * count) for count in (most, most + 1)]
    requests = [make_request(family, prompt=text, seed=seed) for seed, text in enumerate(texts)]
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
    assert isinstance(outcomes[0], Sampled)
    assert isinstance(outcomes[1].error, JobInvalid)
    assert calls[-1] == [0]  # what is left runs again


@pytest.mark.parametrize(("family", "limit"), [("lumina2", 256), ("z_image", 512)])
def test_what_a_pipeline_says_around_a_text_counts(own, family, limit):
    """A system prompt or a chat template takes room: a text within the limit is refused when both are over it."""
    model = own(family)
    text = " ".join(["cat"] * (limit - 2))
    assert model.texts.count(text) <= limit
    error = outcome_of(model, make_request(family, prompt=text)).error
    assert isinstance(error, JobInvalid)
    assert f"reads {limit}" in str(error)


def test_a_negative_is_not_cut_to_the_prompts_length(tiny):
    """Lumina reads a negative as far as its prompt is long (to the next 8 tokens): a longer one is refused."""
    requests = [
        make_request(prompt="a cat", negative_prompt="mustache, beard, blurry, ugly"),
        make_request(prompt="portrait photo of a man with a hat", negative_prompt="mustache, beard"),
    ]
    outcomes = by_index(sample_with_pipeline(tiny("lumina"), requests, batch_rows=4))
    assert isinstance(outcomes[0].error, JobInvalid)
    assert str(outcomes[0].error).startswith("negative_prompt: ")
    assert "reads 8" in str(outcomes[0].error)
    assert isinstance(outcomes[1], Sampled)


def test_texts_share_a_call_only_where_their_lengths_cannot_matter(tiny):
    """Where a pipeline pads to its longest text, a call's texts are of one length; elsewhere all stand together."""
    texts = ["a cat", "a red castle on a mountain", "a dog"]
    for family, expected in (("sd3", [3]), ("qwen_image", [2, 1])):
        jobs = [
            prepare_call(tiny(family), index, make_request(family, prompt=text))
            for index, text in enumerate(texts)
        ]
        assert [len(batch) for batch in make_call_batches(jobs, 64)] == expected


# --- batches and failures -------------------------------------------------------------------------------------


class Recorded:
    """A pipeline that notes the seeds of each call, and may be told what to raise."""

    def __init__(self, pipeline, calls, trouble):
        self.__dict__.update(pipeline=pipeline, calls=calls, trouble=trouble)

    def __setattr__(self, name, value):
        setattr(self.pipeline, name, value)

    def __call__(self, **arguments):
        """Note the call, run into trouble or on."""
        seeds = [generator.initial_seed() for generator in arguments["generator"]]
        self.calls.append(seeds)
        self.trouble(seeds)
        return self.pipeline(**arguments)


def recorded(model, trouble=lambda seeds: None):
    """Return a model whose calls are noted, and the notes: seeds, call by call."""
    calls, family = [], model.family
    model.pipeline = type(family, (Recorded,), {})(model.pipeline, calls, trouble)
    assert model.family == family
    return model, calls


def test_batches_are_filled_by_rows(own):
    """A guided job takes two rows, an unguided one takes one; unequal arguments do not share a call."""
    model, calls = recorded(own("sd3"))
    scales = [4.0, 1.0, 1.0, 4.0, 0.5, 4.0, 6.0]
    requests = [make_request(guidance_scale=scale, seed=seed) for seed, scale in enumerate(scales)]
    requests += [make_request(seed=7, negative_prompt=None)]
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=4))
    assert calls == [[0, 3], [5], [1, 2, 4], [6], [7]]
    assert [outcomes[index].batch_rows for index in range(8)] == [4, 3, 3, 4, 3, 2, 2, 2]


def test_a_guided_job_gets_its_two_rows_even_where_one_is_allowed(own):
    """`batch_rows=1` samples job by job and still guides."""
    model, calls = recorded(own("sd3"))
    list(sample_with_pipeline(model, [make_request(seed=1), make_request(seed=2)], batch_rows=1))
    assert calls == [[1], [2]]


def raising(seed, error):
    """Return a trouble that calls with a seed run into."""

    def trouble(seeds):
        if seed in seeds:
            raise error

    return trouble


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("bad shape"), JobCrashed, "ValueError: bad shape"),
        (RuntimeError("CUDA error: unspecified"), JobCrashed, "RuntimeError: CUDA error: unspecified"),
        (MemoryError("host"), OutOfMemory, "MemoryError: host"),
        (torch.OutOfMemoryError("device"), OutOfMemory, "device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "DefaultCPUAllocator"),
    ],
)
def test_one_bad_job_fails_alone(own, error, kind, text):
    """Whatever one job raises, it alone fails, with its code and reason, and the others are rendered."""
    model, _ = recorded(own("sd3"), raising(3, error))
    requests = [make_request(seed=seed, steps=1) for seed in range(6)]
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
    assert sorted(outcomes) == list(range(6))
    assert type(outcomes[3].error) is kind
    assert text in str(outcomes[3].error)
    assert all(isinstance(outcomes[index], Sampled) for index in range(6) if index != 3)


def test_a_crashed_batch_is_retried_job_by_job(own):
    """A batch of several that crashes is run again alone; other batches are left as they are."""
    model, calls = recorded(own("sd3"), raising(1, ValueError("bad")))
    list(sample_with_pipeline(model, [make_request(seed=seed, steps=1) for seed in range(5)], batch_rows=6))
    assert calls == [[0, 1, 2], [0], [1], [2], [3, 4]]


def test_out_of_memory_halves_the_rows_first(own):
    """Out of memory runs again at half the rows, remembers it for batches of that size, and loses no job."""

    def full(seeds):
        if len(seeds) > 2:
            raise torch.OutOfMemoryError("full")

    model, calls = recorded(own("sd3"), full)
    requests = [make_request(seed=seed, steps=1) for seed in range(12)]
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
    assert [len(seeds) for seeds in calls] == [8, 4, 2, 2, 2, 2, 2, 2]
    assert all(isinstance(outcome, Sampled) for outcome in outcomes.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_no_picture(own, value):
    """NaN or infinity in one job's latents fails that job, without a retry, and no other."""
    model, calls = recorded(own("sd3"))

    def spoil(module, given, made):
        made[0][1] = value

    model.pipeline.pipeline.transformer.register_forward_hook(spoil)
    requests = [make_request(seed=seed, guidance_scale=1.0) for seed in range(3)]
    outcomes = by_index(sample_with_pipeline(model, requests, batch_rows=16))
    assert isinstance(outcomes[1].error, ImageNotFinite)
    assert isinstance(outcomes[0], Sampled)
    assert isinstance(outcomes[2], Sampled)
    assert len(calls) == 1


def test_nan_in_the_decoder_is_no_picture(own):
    """NaN that appears only in the VAE is found too."""
    model = own("sd3")
    with torch.no_grad():
        model.pipeline.vae.decoder.conv_out.bias[0] = float("nan")
    assert isinstance(outcome_of(model, make_request()).error, ImageNotFinite)


@pytest.mark.parametrize(
    ("family", "fields", "named"),
    [
        ("flux", {"width": 72}, "width=72"),
        ("qwen_image", {"height": 40}, "height=40"),
        ("sd3", {"width": 72}, "width=72"),  # only its pipeline says so, when it is called
        ("sd3", {"height": 0}, "height=0"),
        ("sd3", {"height": -64}, "height=-64"),
        ("sd3", {"steps": 0}, "steps=0"),
        ("sd3", {"seed": -1}, "seed=-1"),
        ("sd3", {"seed": 2**64}, "seed="),
        ("sd3", {"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ("sd3", {"guidance_scale": float("inf")}, "guidance_scale=inf"),
    ],
)
def test_an_impossible_job_is_invalid_and_alone(tiny, family, fields, named):
    """A job this model cannot do fails with its value named, and its neighbours are rendered."""
    requests = [make_request(family), make_request(family, **fields), make_request(family)]
    outcomes = by_index(sample_with_pipeline(tiny(family), requests, batch_rows=8))
    assert isinstance(outcomes[1].error, JobInvalid)
    assert named in str(outcomes[1].error)
    assert isinstance(outcomes[0], Sampled)
    assert isinstance(outcomes[2], Sampled)


def test_an_image_of_another_size_is_no_answer(own):
    """A pipeline that quietly renders another size than it was asked for has not done the job."""
    model, _ = recorded(own("sd3"))
    call = type(model.pipeline).__call__
    type(model.pipeline).__call__ = lambda self, **given: call(self, **{**given, "width": 80})
    error = outcome_of(model, make_request()).error
    assert isinstance(error, JobInvalid)
    assert "made 80x64" in str(error)


def test_a_text_without_tokens_is_that_jobs_failure(tiny):
    """A prompt that the tokenizer cannot read (a lone surrogate) fails alone."""
    requests = [make_request(prompt="\ud800"), make_request()]
    outcomes = by_index(sample_with_pipeline(tiny("sd3"), requests, batch_rows=8))
    assert isinstance(outcomes[0], SampleFailed)
    assert isinstance(outcomes[1], Sampled)


@pytest.mark.parametrize("family", ["sd3", "pixart_sigma", "z_image"])
def test_on_step_beats_after_every_step_and_call(tiny, family):
    """The beat comes after each step, also where a pipeline has no callback for it, and once after the call."""
    beats = []
    list(
        sample_with_pipeline(
            tiny(family), [make_request(family)], batch_rows=8, on_step=lambda: beats.append(1)
        )
    )
    assert len(beats) == 4


def test_what_the_beat_raises_is_the_callers_own(tiny):
    """An exception from `on_step` ends sampling as it is; it is nobody's failed job."""

    def lost():
        raise TimeoutError("lease lost")

    with pytest.raises(TimeoutError, match="lease lost"):
        list(sample_with_pipeline(tiny("sd3"), [make_request()], batch_rows=8, on_step=lost))


def test_should_stop_leaves_the_rest_undone(tiny):
    """Between calls a stop ends it: what was yielded stands, the rest has no outcome."""
    yielded = []
    requests = [make_request(seed=seed, guidance_scale=1.0, steps=1) for seed in range(6)]
    for outcome in sample_with_pipeline(
        tiny("sd3"), requests, batch_rows=2, should_stop=lambda: len(yielded) >= 3
    ):
        yielded.append(outcome.request_index)  # `should_stop` watches it grow
    assert yielded == [0, 1, 2, 3]


def test_a_call_leaves_nothing_behind(own):
    """After a call, and after a failed one, no tensors of it are kept alive and the scheduler is as it was."""
    import gc
    import weakref

    model, seen = own("sd3"), []

    def note(module, given, made):
        seen.append(weakref.ref(made[0]))
        if len(seen) == 5:
            raise RuntimeError("broken")

    model.pipeline.transformer.register_forward_hook(note)
    gc.collect()
    gc.disable()  # what is left now is held by something, or by a circle
    try:
        outcomes = [outcome_of(model, make_request(seed=seed)) for seed in range(2)]
        assert [type(outcome) for outcome in outcomes] == [Sampled, SampleFailed]
        assert [ref() for ref in seen if ref() is not None] == []
    finally:
        gc.enable()
    assert "step" not in vars(model.pipeline.scheduler)


def test_nothing_to_do_is_nothing_done(tiny):
    """No requests, no outcomes."""
    assert list(sample_with_pipeline(tiny("sd3"), [], batch_rows=4)) == []
