"""Reads facts out of a model's files: family, prediction, noise schedule, sizes, guidance. No torch, no weights.

The loader renders by these facts and `plan` checks jobs by them, so that both mean the same model. In a single file
the tensors `v_pred` and `ztsnr` (as ComfyUI reads them) come first, then a v-prediction in its metadata (`modelspec.*`,
kohya's `ss_*`), then the configs in the folder of its name beside it, then metadata that say epsilon (which trainers
write unasked), then what diffusers takes for the family.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shared.model_reading import PREDICTIONS, Reading
from shared.safetensors_header import Header, HeaderInvalid, read_header
from shared.schedulers import SCHEDULE_PARTS, ModelPath, model_path

#: Families that the row engine renders; any other is named by the class of its pipeline.
STABLE_DIFFUSION = ("sd1", "sd2", "sdxl")

#: What a checkpoint in one file is known by: a tensor that only its family has.
SINGLE_FILE_MARKS: Mapping[str, str] = {
    "conditioner.embedders.1.model.ln_final.weight": "sdxl",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": "sd1",
    "cond_stage_model.model.ln_final.weight": "sd2",
}

#: What is predicted where nothing says so: what diffusers loads for a single file without configs of its own.
_FAMILY_PREDICTS = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}
_FAMILY_SIDE = {"sd1": 512, "sd2": 768, "sdxl": 1024}

#: Where most models say what they predict.
BY_CONFIG = "its scheduler_config.json"

#: Tensors of single files, empty ones, that say how to read it.
_V_PRED, _ZERO_SNR = "v_pred", "ztsnr"
#: Tensors of models trained on EDM's noise levels (Playground 2.5, CosXL), which no sampler of the table has.
_EDM = ("edm_mean", "edm_vpred.sigma_max")
#: What a sweep is told that says how to read a model which knows neither.
FLOW_READING = "remove prediction_type and zero_snr"

_EDM_SAID = "it was trained on EDM's noise levels, which no scheduler of the table has"

#: The first layer of a UNet in a single file; text to image has four channels.
_FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
_CHANNELS = 4

#: Words of `modelspec.prediction_type` -> ours; sd-scripts writes v, others spell it out.
_SPELLINGS = {
    "v": "v_prediction",
    "v_pred": "v_prediction",
    "v-prediction": "v_prediction",
    "v_prediction": "v_prediction",
    "vpred": "v_prediction",
    "epsilon": "epsilon",
    "eps": "epsilon",
}

#: `original_inference_steps` of diffusers' LCM and TCD schedulers where a model's config has none.
_ORIGINAL_STEPS = 50

#: What a VAE's config calls the widths of its levels, each half as wide as the one before.
_VAE_LEVELS = ("block_out_channels", "encoder_block_out_channels")
_VAE_HALVINGS = "temperal_downsample"  # diffusers' own spelling


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a model's files say of it."""

    #: "sd1", "sd2", "sdxl", or the class of a diffusers pipeline.
    family: str
    #: "epsilon", "v_prediction" or "sample"; for flow models it has no effect.
    prediction_type: str = "epsilon"
    #: Whether the noise schedule is rescaled to end in pure noise.
    zero_snr: bool = False
    #: Where the two come from, in words.
    source: str = ""
    #: Whether they are only assumed, since the files leave it open.
    assumed: bool = False
    #: Whether diffusers, given these files, would take them for something else.
    marked: bool = False
    #: The path from image to noise; None where it is not known.
    path: ModelPath | None = None
    #: Parts of the model's own schedule that a scheduler must know (`shared.schedulers.SCHEDULE_PARTS`).
    schedule_parts: tuple[str, ...] = ()
    #: The most steps of lcm and tcd.
    original_steps: int = _ORIGINAL_STEPS
    #: Side of the images that it was trained on, pixels; None where it is not known.
    side_px: int | None = None
    #: Sides of images are multiples of this.
    size_unit_px: int = 1
    #: Tokens that the pipeline reads at most; None: any number, or not known.
    text_limit: int | None = None
    #: Whether the network takes the guidance scale as an input (guidance-distilled).
    distilled: bool = False
    #: Whether there is classifier-free guidance, a negative prompt for it, and whether it does nothing without one.
    guided: bool = True
    negative: bool = True
    needs_negative: bool = False
    #: Whether the pipeline passes eta to its scheduler.
    takes_eta: bool = True
    #: Why no job of it can be rendered; "" where nothing is known against it.
    refusal: str = ""

    @property
    def is_native(self) -> bool:
        """Whether the row engine renders it: guidance rules, texts of any length."""
        return self.family in STABLE_DIFFUSION

    def read_as(self, reading: Reading) -> ModelFacts:
        """Return the facts as a sweep that says how to read the model means them."""
        if not reading:
            return self
        prediction = reading.prediction_type or self.prediction_type
        zero_snr = self.zero_snr if reading.zero_snr is None else reading.zero_snr
        refusal = self.refusal
        if self.path == "flow":
            refusal = refusal or f"it was trained by flow matching: {FLOW_READING}"
        assumed = self.assumed and reading.prediction_type is None
        return replace(
            self,
            prediction_type=prediction,
            zero_snr=zero_snr,
            assumed=assumed,
            source="the sweep says so",
            refusal=refusal,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values, for a heartbeat: what is not the default."""
        fields = self.__dataclass_fields__
        return {name: value for name, value in asdict(self).items() if value != fields[name].default}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelFacts:
        """Read facts of any version: what we do not know is left out. Raises: ValueError for anything else."""
        try:
            known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
            known["schedule_parts"] = tuple(known.get("schedule_parts", ()))
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no facts of a model: {error}") from error


def read_facts(path: Path) -> ModelFacts | None:
    """Return what a folder or a single file says; None where it cannot be read, which its loader will say."""
    try:
        return _single_file(path, read_header(path)) if path.is_file() else _folder(path)
    except (HeaderInvalid, OSError, ValueError, TypeError, AttributeError, KeyError, IndexError):
        return None


def unet_problem(config: Mapping[str, Any], *, family: str) -> str | None:
    """Return what a Stable Diffusion UNet wants beside a text, by its config; None for text to image."""
    wanted = "text_time" if family == "sdxl" else None
    channels, added = config.get("in_channels", _CHANNELS), config.get("addition_embed_type")
    problems = {
        f"its UNet takes {channels} channels (inpainting or editing)": channels != _CHANNELS,
        "its UNet takes the guidance scale as an input (distilled)": config.get("time_cond_proj_dim")
        is not None,
        f"its UNet is conditioned on {added}": added != wanted,
        "its UNet has a class embedding": config.get("class_embed_type") is not None
        or config.get("num_class_embeds") is not None,
        "its UNet projects other encoders' states": config.get("encoder_hid_dim_type") is not None,
    }
    return next((problem for problem, present in problems.items() if present), None)


def original_steps(config: Mapping[str, Any]) -> int:
    """Return the steps that lcm and tcd pick from, by a model's scheduler config."""
    found = config.get("original_inference_steps")
    return found if isinstance(found, int) else _ORIGINAL_STEPS


# A diffusers folder


def _folder(folder: Path) -> ModelFacts | None:
    index = _read(folder / "model_index.json")
    if not isinstance(index.get("_class_name"), str):
        return None
    network = _read(folder / "unet" / "config.json") or _read(folder / "transformer" / "config.json")
    vae = _read(folder / "vae" / "config.json") or _read(folder / "vqvae" / "config.json")
    schedule = _schedule(folder, index)
    if not schedule:
        return None
    family = _folder_family(index["_class_name"], network)
    facts = _of_schedule(family, schedule)
    scale = _vae_scale(vae)
    sample = network.get("sample_size")
    facts = replace(facts, side_px=sample * scale if isinstance(sample, int) and scale else None)
    if family in STABLE_DIFFUSION:
        problem = facts.refusal or unet_problem(network, family=family) or ""
        return replace(facts, size_unit_px=scale or 1, refusal=problem)
    return _pipeline(facts, index, network, scale)


def _folder_family(class_name: str, network: Mapping[str, Any]) -> str:
    if class_name == "StableDiffusionXLPipeline":
        return "sdxl"
    if class_name == "StableDiffusionPipeline":
        return "sd2" if network.get("cross_attention_dim") == 1024 else "sd1"
    return class_name


def _schedule(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return a folder's scheduler config as diffusers reads it; an empty one where there is no file.

    The class is the index's, whatever the config says; keys that the config lists as left to defaults do not count.
    """
    config = _read(folder / "scheduler" / "scheduler_config.json")
    left_out = config.get("_use_default_values") or ()
    config = {key: value for key, value in config.items() if key not in left_out}
    named = index.get("scheduler")
    if config and isinstance(named, list) and len(named) == 2 and named[1] is not None:
        config["_class_name"] = named[1]
    return config


def _of_schedule(family: str, config: Mapping[str, Any]) -> ModelFacts:
    """Return what a scheduler config says."""
    path = model_path(config) if config else None
    prediction = config.get("prediction_type")
    said = prediction in PREDICTIONS
    parts = tuple(part for part in SCHEDULE_PARTS if config.get(part))
    return ModelFacts(
        family=family,
        prediction_type=str(prediction) if said else "epsilon",
        zero_snr=bool(config.get("rescale_betas_zero_snr")),
        source=BY_CONFIG + ("" if said else ", which leaves it to diffusers' default"),
        path=path,
        schedule_parts=parts,
        original_steps=original_steps(config),
        refusal=_EDM_SAID if path == "edm" else "",
    )


def _vae_scale(config: Mapping[str, Any]) -> int | None:
    """Return how many pixels of an image are one of its latents, along a side."""
    for key in _VAE_LEVELS:
        if isinstance(config.get(key), list):
            return int(2 ** (len(config[key]) - 1))
    halvings = config.get(_VAE_HALVINGS)
    return int(2 ** len(halvings)) if isinstance(halvings, list) else None


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON mapping; an empty one where there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


# Families that diffusers' pipelines render


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineTraits:
    """What the class of a pipeline decides, whatever its configs say."""

    text_limit: int | None = None
    #: Pixels that its latents are packed by, along a side, on top of the VAE's own.
    packing: int = 1
    #: Whether guidance goes by `true_cfg_scale`.
    true_cfg: bool = False
    #: Whether it takes a negative prompt, and eta.
    negative: bool = True
    eta: bool = False
    #: Whether it ignores classifier-free guidance.
    unguided: bool = False


#: The pipelines whose traits are known here; a test holds them against diffusers. Of any other the worker finds out.
PIPELINES: Mapping[str, PipelineTraits] = {
    "AuraFlowPipeline": PipelineTraits(text_limit=256),
    "ChromaPipeline": PipelineTraits(text_limit=512, packing=2),
    "CogView3PlusPipeline": PipelineTraits(text_limit=224, eta=True),
    "CogView4Pipeline": PipelineTraits(text_limit=1024),
    "Flux2KleinPipeline": PipelineTraits(text_limit=512, packing=2, negative=False),
    "FluxPipeline": PipelineTraits(text_limit=512, packing=2, true_cfg=True),
    "HunyuanDiTPipeline": PipelineTraits(eta=True),
    "LatentConsistencyModelPipeline": PipelineTraits(negative=False, unguided=True),
    "Lumina2Pipeline": PipelineTraits(text_limit=256, packing=2),
    "LuminaPipeline": PipelineTraits(text_limit=256),
    "OvisImagePipeline": PipelineTraits(text_limit=256, packing=2),
    "PixArtAlphaPipeline": PipelineTraits(text_limit=120, eta=True),
    "PixArtSigmaPipeline": PipelineTraits(text_limit=300, eta=True),
    "QwenImagePipeline": PipelineTraits(text_limit=512, packing=2, true_cfg=True),
    "SanaPipeline": PipelineTraits(text_limit=300, eta=True),
    "StableDiffusion3Pipeline": PipelineTraits(text_limit=256),
    "ZImagePipeline": PipelineTraits(text_limit=512, packing=2),
}


def _pipeline(
    facts: ModelFacts, index: Mapping[str, Any], network: Mapping[str, Any], scale: int | None
) -> ModelFacts:
    embedded = bool(network.get("guidance_embeds")) or network.get("time_cond_proj_dim") is not None
    traits = PIPELINES.get(facts.family)
    if traits is None:
        return replace(facts, distilled=embedded)
    unguided = traits.unguided or bool(index.get("is_distilled"))
    guided = traits.true_cfg or not (embedded or unguided)
    return replace(
        facts,
        distilled=embedded,
        guided=guided,
        negative=traits.negative and guided,
        needs_negative=traits.true_cfg,
        takes_eta=traits.eta,
        text_limit=traits.text_limit,
        size_unit_px=traits.packing * (scale or 1),
    )


# One file

#: What a file is that is no Stable Diffusion checkpoint -> what a name of its tensors has. The first that fits.
_OTHER_FILES: Mapping[str, str] = {
    "a LoRA, which changes a model and is none: merge it into one, or name the model": (
        r"lora_|\.lora[._]|\.hada_w1|\.lokr_w"
    ),
    "a ControlNet, which steers a model and is none: name the model": r"\A(control_model\.|controlnet_)",
    "an embedding (textual inversion) and no model: name the model": r"\A(emb_params|clip_[lg])\Z",
    "Flux in one file: name its diffusers folder, which has a model_index.json": r"(\A|\.)double_blocks\.",
    "Stable Diffusion 3 in one file: name its diffusers folder, which has a model_index.json": r"(\A|\.)joint_blocks\.",
    "the refiner of Stable Diffusion XL: name the base": r"\Aconditioner\.embedders\.0\.model\.",
    "only a UNet: name a whole checkpoint, or a diffusers folder": r"\A(model\.)?diffusion_model\.|\Adown_blocks\.",
    "a text encoder and no model: name the model": r"\A(text_model|text_encoders|encoder\.block)\.",
    "a VAE and no model: name the model": r"\A(first_stage_model|decoder|encoder|quant_conv)\.",
}


def _single_file(path: Path, header: Header) -> ModelFacts:
    family = next((family for mark, family in SINGLE_FILE_MARKS.items() if mark in header.tensors), "")
    beside = path.with_suffix("")
    schedule = _schedule(beside, _read(beside / "model_index.json"))
    facts = _of_schedule(family, schedule) if schedule else _by_family(family)
    facts = _as_marked(facts, header, has_configs=bool(schedule))
    scale = _vae_scale(_read(beside / "vae" / "config.json"))
    return replace(
        facts,
        size_unit_px=scale or 8,
        side_px=_side(header, family, beside, scale),
        refusal=_single_file_refusal(header, family) or facts.refusal,
    )


def _by_family(family: str) -> ModelFacts:
    """Return what is assumed of a file that says nothing and has no configs beside it: what diffusers would take."""
    return ModelFacts(
        family=family,
        prediction_type=_FAMILY_PREDICTS.get(family, "epsilon"),
        source="the usual one of its family: the file does not say",
        # Stable Diffusion 2 was published both ways, at 768 and at 512 pixels; the others only as epsilon.
        assumed=family == "sd2",
        path="betas",
    )


def _as_marked(facts: ModelFacts, header: Header, *, has_configs: bool) -> ModelFacts:
    """Return facts as the file's own marks correct them."""
    prediction, source = _prediction(header)
    if prediction == "epsilon" and has_configs:
        prediction = None  # trainers write it unasked; the configs beside the file were put there on purpose
    zero_snr = facts.zero_snr or _says_zero_snr(header)
    marked = replace(
        facts,
        prediction_type=prediction or facts.prediction_type,
        zero_snr=zero_snr,
        source=source if prediction else facts.source,
        assumed=facts.assumed and prediction is None,
    )
    changed = (marked.prediction_type, zero_snr) != (facts.prediction_type, facts.zero_snr)
    return replace(marked, marked=changed)


def _prediction(header: Header) -> tuple[str | None, str]:
    """Return what a file's tensors or metadata say it predicts, and where."""
    if _V_PRED in header.tensors:
        return "v_prediction", "the file has v_pred"
    said = {name: text.strip().casefold() for name, text in header.metadata.items()}
    if found := _SPELLINGS.get(said.get("modelspec.prediction_type", "")):
        return found, f"the file's modelspec.prediction_type is {said['modelspec.prediction_type']}"
    if said.get("ss_v_parameterization") == "true":
        return "v_prediction", "the file's ss_v_parameterization is True"
    version = said.get("ss_base_model_version", "")
    if version in ("sd_v1_v", "sd_v2_v"):
        return "v_prediction", f"the file's ss_base_model_version is {version}"
    architecture = said.get("modelspec.architecture", "").partition("/")[0]
    if architecture == "stable-diffusion-v2-768-v":
        return "v_prediction", f"the file's modelspec.architecture is {architecture}"
    if architecture == "stable-diffusion-v2-512":
        return "epsilon", f"the file's modelspec.architecture is {architecture}"
    return None, ""


def _says_zero_snr(header: Header) -> bool:
    said = header.metadata.get("ss_zero_terminal_snr", "")
    return _ZERO_SNR in header.tensors or said.strip().casefold() == "true"


def _side(header: Header, family: str, beside: Path, scale: int | None) -> int | None:
    width, _, height = header.metadata.get("modelspec.resolution", "").partition("x")
    if width.strip().isdigit() and height.strip().isdigit():
        return math.isqrt(int(width) * int(height))
    sample = _read(beside / "unet" / "config.json").get("sample_size")
    if isinstance(sample, int) and scale:
        return int(sample * scale)
    return _FAMILY_SIDE.get(family)


def _single_file_refusal(header: Header, family: str) -> str:
    if not family:
        return _what_else(header)
    first = header.tensors.get(_FIRST_LAYER)
    if first is not None and len(first.shape) > 1 and first.shape[1] != _CHANNELS:
        return f"its UNet takes {first.shape[1]} channels (inpainting or editing)"
    return _EDM_SAID if any(name in header.tensors for name in _EDM) else ""


def _what_else(header: Header) -> str:
    """Return what a single file is that is no Stable Diffusion checkpoint, and what to do about it."""
    for kind, mark in _OTHER_FILES.items():
        if any(re.search(mark, name) for name in header.tensors):
            return kind
    return "not a checkpoint of a family we know: name a diffusers folder, or a file of Stable Diffusion 1, 2 or XL"
