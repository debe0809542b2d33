"""Scheduler configs as people have them, old and partial, against the pipeline that diffusers loads from the folder."""

import copy
import json
import shutil
from functools import cache

import diffusers
import numpy as np
import pytest
import torch

from shared.model_facts import read_facts
from shared.schedulers import SCHEDULERS
from worker.models.families import loader_of_index
from worker.models.loader import ModelSource, load_model
from worker.models.scheduler_config import read_scheduler_config
from worker.sampling.pipelines.schedulers import make_pipeline_scheduler as make_for_pipeline
from worker.sampling.rows.loop import sample
from worker.sampling.schedules.schedulers import make_scheduler, settings

CPU = torch.device("cpu")
STEPS = 7

BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
PNDM_2022 = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.2.2", **BETAS, "skip_prk_steps": True}
DDIM_2022 = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.2.4", **BETAS, "timestep_values": None}
SD21 = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    **BETAS,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
EULER_SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **BETAS,
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}

#: Name -> (scheduler_config.json, the scheduler's class in model_index.json).
CONFIGS = {
    "pndm_2022": (PNDM_2022, "PNDMScheduler"),
    "pndm_without_skip": ({**PNDM_2022, "skip_prk_steps": False}, "PNDMScheduler"),
    "pndm_alpha_to_one": ({**PNDM_2022, "set_alpha_to_one": True, "clip_sample": False}, "PNDMScheduler"),
    "pndm_wrong_values": ({**PNDM_2022, "steps_offset": 0, "clip_sample": True}, "PNDMScheduler"),
    "ddim_2022": (DDIM_2022, "DDIMScheduler"),
    "ddim_alpha": ({**DDIM_2022, "set_alpha_to_one": False, "clip_sample": True}, "DDIMScheduler"),
    "ddim_trained_betas": (
        {"_class_name": "DDIMScheduler", "trained_betas": [0.001 + n * 1.2e-5 for n in range(1000)]},
        "DDIMScheduler",
    ),
    "ddim_bare": ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
    "sd21": (SD21, "DDIMScheduler"),
    "lms_2022": ({"_class_name": "LMSDiscreteScheduler", **BETAS}, "LMSDiscreteScheduler"),
    "euler": (EULER_SDXL, "EulerDiscreteScheduler"),
    "euler_unknown_keys": (
        {"_class_name": "EulerDiscreteScheduler", **BETAS, "predict_epsilon": True, "made_by": "a person"},
        "EulerDiscreteScheduler",
    ),
    "dpm_partial": (
        {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "use_karras_sigmas": True, "lambda": 1},
        "DPMSolverMultistepScheduler",
    ),
    "listed_default_values": (
        {**SD21, "prediction_type": "epsilon", "_use_default_values": ["steps_offset", "clip_sample"]},
        "DDIMScheduler",
    ),
    "index_names_another": (PNDM_2022, "DDIMScheduler"),
    "index_names_euler": (SD21, "EulerDiscreteScheduler"),
    "no_class": (BETAS, "PNDMScheduler"),
    "class_of_another_time": ({**DDIM_2022, "_class_name": "GoneScheduler"}, "DDIMScheduler"),
}

#: One row of every kind.
KEYS = [
    *(
        "ddim",
        "ddim_eta1",
        "ddpm",
        "pndm",
        "pndm_prk",
        "lms",
        "euler",
        "euler_a",
        "heun",
        "kdpm2",
        "dpmpp_2m",
    ),
    *(
        "dpmpp_2m_karras",
        "dpmpp_2m_sde",
        "dpmpp_2s",
        "deis",
        "unipc",
        "sa",
        "lcm",
        "tcd",
        "euler_sgm_uniform",
    ),
]


#: What diffusers says of an old config when it corrects it.
pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of:FutureWarning")

SCHEDULER_ALONE = dict.fromkeys(["vae", "text_encoder", "tokenizer", "unet"])


def write_config(folder, config, class_name, **index):
    """Give a folder a scheduler config; keywords replace fields of its model_index.json."""
    path = folder / "model_index.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "scheduler": ["diffusers", class_name], **index})
    )
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


@pytest.fixture
def with_config(model_folder, tmp_path):
    """A function that returns a copy of a tiny model's folder with a scheduler config of its own."""

    def make(config, class_name, family="sd1", **index):
        folder = shutil.copytree(model_folder(family), tmp_path / "model")
        write_config(folder, config, class_name, **index)
        return folder

    return make


@pytest.fixture(scope="module")
def bare_folder(model_folder, tmp_path_factory):
    """A function that returns a folder without weights, to be given one config after another."""

    def copy_configs(family):
        place = tmp_path_factory.mktemp("configs") / family
        return shutil.copytree(model_folder(family), place, ignore=shutil.ignore_patterns("*.safetensors"))

    return cache(copy_configs)


def load(folder):
    """Return a folder as Printroom loads it."""
    return load_model(
        ModelSource(name="mine", fingerprint="f", kind="folder", location=str(folder)), device=CPU
    )


def load_theirs(folder, **components):
    """Return a folder's pipeline as diffusers loads it."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, **components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def their_scheduler(pipeline, key):
    """Return a job's scheduler as a user of diffusers has it: the pipeline's own, or another made from its config."""
    spec, own = SCHEDULERS[key], pipeline.scheduler
    kind = getattr(diffusers, spec.class_name)
    if type(own) is kind and all(own.config[name] == value for name, value in spec.overrides.items()):
        return copy.deepcopy(own)
    return kind.from_config(own.config, **spec.overrides)


def what_differs(ours, theirs):
    """Return which settings, tables and counters of two schedulers differ before their first step."""
    mine, own = ({**vars(scheduler), **settings(scheduler)} for scheduler in (ours, theirs))
    names = (mine.keys() | own.keys()) - {"_internal_dict"}
    return [name for name in sorted(names) if not same(mine.get(name), own.get(name))]


def same(one, other):
    """Return whether two values are the same, tensors to the last bit, NaN included."""
    if isinstance(one, torch.Tensor | np.ndarray) and type(one) is type(other):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    return bool(one == other)


@pytest.mark.parametrize(
    ("name", "family"),
    [*((name, "sd1") for name in CONFIGS), *((name, "sdxl") for name in ("ddim_2022", "euler", "no_class"))],
)
def test_every_scheduler_is_the_folders_own_pipelines(bare_folder, name, family):
    """For each config and each scheduler: the same settings, timesteps and tables as from diffusers' pipeline."""
    folder = bare_folder(family)
    write_config(folder, *CONFIGS[name])
    more = {"text_encoder_2": None, "tokenizer_2": None} if family == "sdxl" else {}
    pipeline = load_theirs(folder, **SCHEDULER_ALONE, **more)
    index = json.loads((folder / "model_index.json").read_text())
    config = read_scheduler_config(folder, index, loader_of_index(index).scheduler_corrections)
    wrong = {}
    for key in KEYS:
        theirs = their_scheduler(pipeline, key)
        theirs.set_timesteps(STEPS)
        if hasattr(theirs, "set_begin_index"):
            theirs.set_begin_index(0)
        if found := what_differs(make_scheduler(config, key, STEPS), theirs):
            wrong[key] = found
    assert not wrong


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("pndm_2022", "pndm"),
        ("ddim_2022", "ddim"),
        ("index_names_another", "ddim"),
        ("dpm_partial", "dpmpp_2m"),
    ],
)
def test_an_old_folders_images_are_its_own_pipelines(with_config, make_request, name, key):
    """Folders of 2022 rendered whole, by their own scheduler or another: diffusers' pixels, to one level of 255."""
    folder = with_config(*CONFIGS[name])
    pipeline, request = load_theirs(folder), make_request(scheduler=key, steps=STEPS)
    pipeline.scheduler = their_scheduler(pipeline, key)
    (theirs,) = pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
    ).images
    (ours,) = sample(load(folder), [request], batch_rows=2)
    assert np.abs(ours.pixels.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_a_pipelines_own_corrections_hold_too(with_config):
    """What a pipeline of diffusers corrects in its scheduler reaches the jobs that name that scheduler."""
    folder = with_config(*CONFIGS["ddim_2022"], _class_name="StableDiffusionPAGPipeline")
    model, pipeline = load(folder), load_theirs(folder)
    assert model.family == "StableDiffusionPAGPipeline"
    for key in ("ddim", "pndm", "euler", "dpmpp_2m"):
        ours, theirs = make_for_pipeline(model, key), their_scheduler(pipeline, key)
        assert settings(ours) == settings(theirs)


def test_a_producer_reads_the_class_that_the_index_names(tmp_path):
    """What `plan` says of a folder follows model_index.json, and leaves out what diffusers leaves out."""
    for part in ("scheduler", "unet"):
        (tmp_path / part).mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    write_config(tmp_path, {**SD21, "_class_name": "FlowMatchEulerDiscreteScheduler"}, "DDIMScheduler")
    facts = read_facts(tmp_path)
    assert (facts.path, facts.prediction_type) == ("betas", "v_prediction")
    write_config(tmp_path, {**SD21, "_use_default_values": ["prediction_type"]}, "EDMEulerScheduler")
    facts = read_facts(tmp_path)
    assert (facts.path, facts.prediction_type) == ("edm", "epsilon")
