"""Loads a model from a diffusers folder, the Hugging Face hub or one .safetensors file, onto a device.

Stable Diffusion becomes a `LoadedModel`, which the row engine renders; a folder of any other family a `LoadedPipeline`
(`worker.models.pipelines`). Nothing is executed that comes with a model: weights are read from safetensors only, never
from pickles, and no remote code is trusted. Knows nothing of jobs, or of how a name became a `ModelSource`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.errors import ModelLoadFailed, ModelUnsupported, OutOfMemory, RenderError, SettingsError
from shared.model_facts import FLOW_READING, ModelFacts, read_facts, unet_problem
from shared.model_reading import AS_IT_SAYS, Reading
from shared.safetensors_header import HeaderInvalid, read_header
from shared.schedulers import model_path
from shared.settings import OffloadMode
from worker.models.pipelines import check_pipeline, hub_patterns, load_pipeline, pipeline_networks
from worker.models.precision import decoder_dtype, default_dtype
from worker.models.quiet import no_progress_bars
from worker.models.scheduler_config import held_config, read_scheduler_config
from worker.models.weights import DTYPE_OPTION, PICKLES, SUPPORTED, load_weights
from worker.sampling.model import FamilyName, LoadedModel
from worker.sampling.pipelines.model import LoadedPipeline

#: Pipeline class in model_index.json -> family.
PIPELINE_FAMILIES: Mapping[str, FamilyName] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
}

#: The text encoders of each family, in the order their hidden states are concatenated.
TEXT_ENCODERS: Mapping[FamilyName, tuple[str, ...]] = {
    "sd": ("text_encoder",),
    "sdxl": ("text_encoder", "text_encoder_2"),
}

#: Files of a hub repository that we read: configs and tokenizers, then weights by variant. No safety checker.
HUB_CONFIGS = ["model_index.json", "scheduler/*.json", "unet/*.json", "vae/*.json", "text_encoder*/*.json"]
HUB_TOKENIZERS = ["tokenizer*/*.json", "tokenizer*/merges.txt"]
HUB_WEIGHTS = [
    "unet/diffusion_pytorch_model{}.safetensors",
    "unet/diffusion_pytorch_model{}-*.safetensors",
    "vae/diffusion_pytorch_model{}.safetensors",
    "text_encoder*/model{}.safetensors",
    "text_encoder*/model{}-*.safetensors",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Where a model's files are."""

    #: The name people use, and the content hash or resolved revision that identifies the weights.
    name: str
    fingerprint: str
    kind: Literal["folder", "single_file", "hub"]
    #: A path, or a hub id such as "stabilityai/stable-diffusion-xl-base-1.0".
    location: str
    #: Of a hub id: a commit, tag or branch; None is the default branch.
    revision: str | None = None
    #: How a sweep wants it read, where its files do not say.
    reading: Reading = AS_IT_SAYS


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """The components of a model, on the CPU or not, before they are checked."""

    family: FamilyName
    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    scheduler_config: Mapping[str, Any]
    zeros_for_null_negative: bool


def load_model(
    source: ModelSource,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    offload: OffloadMode = "none",
) -> LoadedModel | LoadedPipeline:
    """Load a model onto a device.

    Args:
        source: its files.
        device: where it will run.
        dtype: of UNet and text encoders; by default float16 on a GPU and float32 on a CPU, whatever the
            files hold. The VAE follows it unless it would overflow (`worker.models.precision`). Pipelines get
            bfloat16 for float16 (`worker.models.pipelines`).
        offload: where a pipeline's networks wait for their turn. Stable Diffusion is always whole on the device:
            rows are refilled at every step, and its largest network takes 5 GB.

    Raises:
        ModelUnsupported: a family or a format that is not rendered here; the message says what is.
        ModelLoadFailed: files are missing or broken.
        OutOfMemory: the device has no room for it.
        SettingsError: offloading without a GPU.
    """
    dtype = dtype or default_dtype(device)
    try:
        with no_progress_bars():
            return _load(source, device, dtype, offload)
    except (RenderError, SettingsError):
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(f"model {source.name}: no room on {device}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelLoadFailed(f"model {source.name} ({source.location}): {reason}") from error


def _load(
    source: ModelSource, device: torch.device, dtype: torch.dtype, offload: OffloadMode
) -> LoadedModel | LoadedPipeline:
    if source.kind == "single_file":
        parts = _load_single_file(Path(source.location))
    else:
        folder = _download(source) if source.kind == "hub" else Path(source.location)
        index = _read_index(folder)
        if not _is_native(index):
            pipeline = load_pipeline(
                folder,
                name=source.name,
                fingerprint=source.fingerprint,
                device=device,
                dtype=dtype,
                offload=offload,
            )
            pipeline.scheduler_config = _read_as(source, pipeline.scheduler_config)
            return pipeline
        parts = _load_folder(folder, index, dtype)
    _check_architecture(source, parts)
    parts = replace(parts, scheduler_config=_read_as(source, parts.scheduler_config))
    return _place(source, parts, device, dtype)


def _read_as(source: ModelSource, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a scheduler config as the sweep says that the model is to be read.

    Raises: ModelUnsupported for a model of flow matching, which predicts neither noise nor v.
    """
    if source.reading and model_path(config) == "flow":
        raise ModelUnsupported(f"model {source.name}: it was trained by flow matching: {FLOW_READING}")
    return _with_settings(config, source.reading.overrides())


def _with_settings(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a scheduler config with keys set as if its file had said them."""
    if not overrides:
        return config
    made = {**config, **overrides}
    if defaults := made.get(
        "_use_default_values"
    ):  # what stands there is lost when another class is made of it
        made["_use_default_values"] = [key for key in defaults if key not in overrides]
    return made


def _place(source: ModelSource, parts: _Parts, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Move the components to their device and dtypes."""
    vae_config = parts.vae.config
    vae_dtype = decoder_dtype(parts.family, dtype, device, force_upcast=bool(vae_config.force_upcast))
    return LoadedModel(
        name=source.name,
        fingerprint=source.fingerprint,
        family=parts.family,
        unet=_moved(parts.unet, device, dtype),
        vae=_moved(parts.vae, device, vae_dtype),
        text_encoders=tuple(_moved(encoder, device, dtype) for encoder in parts.text_encoders),
        tokenizers=parts.tokenizers,
        scheduler_config=parts.scheduler_config,
        device=device,
        dtype=dtype,
        vae_dtype=vae_dtype,
        vae_scale_factor=2 ** (len(vae_config.block_out_channels) - 1),
        prediction_type=parts.scheduler_config.get("prediction_type", "epsilon"),
        zeros_for_null_negative=parts.zeros_for_null_negative,
    )


def _moved(module: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    # torch's own `to`: diffusers' warns of modules to be kept in float32, of which these have none.
    return torch.nn.Module.to(module, device, dtype).eval().requires_grad_(False)


# A diffusers folder


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        raise ModelUnsupported(f"{folder}: no model_index.json, so not a diffusers folder; {SUPPORTED}")
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


def _is_native(index: Mapping[str, Any]) -> bool:
    """Return whether a pipeline is of a family that is rendered without diffusers' pipeline."""
    named = index.get("_class_name")
    return isinstance(named, str) and named in PIPELINE_FAMILIES


def _load_folder(folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> _Parts:
    family = _family(folder, index)
    encoders = TEXT_ENCODERS[family]
    return _Parts(
        family=family,
        # The VAE is read as float32, since it may become bfloat16: float16 between would round twice.
        vae=load_weights(AutoencoderKL, folder / "vae", **{DTYPE_OPTION: torch.float32}),
        unet=load_weights(UNet2DConditionModel, folder / "unet", **{DTYPE_OPTION: dtype}),
        text_encoders=tuple(load_weights(_encoder_class(name), folder / name) for name in encoders),
        tokenizers=tuple(
            CLIPTokenizer.from_pretrained(
                str(folder / name.replace("text_encoder", "tokenizer")), local_files_only=True
            )
            for name in encoders
        ),
        scheduler_config=read_scheduler_config(folder, index, family),
        zeros_for_null_negative=bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _family(folder: Path, index: Mapping[str, Any]) -> FamilyName:
    """Return the family that a model_index.json names.

    Raises:
        ModelUnsupported: components of other classes than the family's own.
    """
    family = PIPELINE_FAMILIES[index["_class_name"]]
    expected = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    expected |= {name: _encoder_class(name).__name__ for name in TEXT_ENCODERS[family]}
    for component, class_name in expected.items():
        found = (index.get(component) or [None, None])[1]
        if found != class_name:
            raise ModelUnsupported(f"{folder}: {component} is {found}, not {class_name}; {SUPPORTED}")
    return family


def _encoder_class(name: str) -> Any:
    return CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel


# The hub


def _download(source: ModelSource) -> Path:
    """Bring a hub model's configs and safetensors here (or find them in the hub's cache) and return the folder."""
    folder = _snapshot(source, ["model_index.json"])
    index = _read_index(folder)
    if _is_native(index):
        networks = ["unet"]
    else:
        networks = pipeline_networks(check_pipeline(folder, index))  # before gigabytes of it come here
    for dot in ("", ".fp16"):
        folder = _snapshot(source, _native_patterns(dot) if _is_native(index) else hub_patterns(index, dot))
        lacking = [name for name in networks if not list(folder.glob(f"{name}/*.safetensors"))]
        if not lacking:
            return folder
    raise ModelUnsupported(
        f"{source.location}: its repository has no {lacking[0]}/*.safetensors; {SUPPORTED}"
    )


def _native_patterns(dot: str) -> list[str]:
    return [*HUB_CONFIGS, *HUB_TOKENIZERS, *(pattern.format(dot) for pattern in HUB_WEIGHTS)]


def _snapshot(source: ModelSource, patterns: list[str]) -> Path:
    return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=patterns))


# One file


def _load_single_file(path: Path) -> _Parts:
    """Load a checkpoint in one file, with diffusers' own conversion.

    The file has no configs. diffusers takes them from the hub or its cache; a folder beside the file with
    its name less the ending, holding a diffusers folder's json and tokenizer files, is taken instead.
    """
    if path.suffix in PICKLES:
        raise ModelUnsupported(f"{path}: pickled weights can run code and are never read; {SUPPORTED}")
    if path.suffix.lower() != ".safetensors":
        raise ModelUnsupported(f"{path}: not a .safetensors file; {SUPPORTED}")
    facts = _single_file_facts(path)
    family: FamilyName = "sdxl" if facts.family == "sdxl" else "sd"
    configs = path.with_suffix("")
    beside = (
        {"config": str(configs), "local_files_only": True} if (configs / "model_index.json").is_file() else {}
    )
    pipeline_class = (
        diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    )
    extra = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    try:
        with _plainly_named(path) as file:
            pipeline = pipeline_class.from_single_file(
                str(file), **{DTYPE_OPTION: torch.float32}, **extra, **beside
            )
    except Exception as error:
        mend = (
            f"its configs come from the Hugging Face hub or its cache, or from a folder {configs} beside it"
        )
        raise ModelLoadFailed(f"{path}: {type(error).__name__}: {error} ({mend})") from error
    parts = _from_pipeline(pipeline, family)
    if not facts.marked:
        return parts
    # The file itself says more than the configs, which are those of its family.
    said = {"prediction_type": facts.prediction_type, "rescale_betas_zero_snr": facts.zero_snr}
    return replace(parts, scheduler_config=_with_settings(parts.scheduler_config, said))


def _single_file_facts(path: Path) -> ModelFacts:
    """Return what a checkpoint says of itself; reads no weights. Raises: ModelUnsupported, ModelLoadFailed."""
    try:
        read_header(path)
    except HeaderInvalid as error:
        raise ModelLoadFailed(str(error)) from error
    facts = read_facts(path)
    if facts is None:
        raise ModelLoadFailed(f"{path}: the configs beside it cannot be read: {path.with_suffix('')}")
    if facts.refusal:
        raise ModelUnsupported(f"{path}: {facts.refusal}; {SUPPORTED}")
    return facts


@contextmanager
def _plainly_named(path: Path) -> Iterator[Path]:
    """Give a file an ending in small letters, by a link: diffusers takes any other for a pickle."""
    if path.suffix == ".safetensors":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="printroom-") as folder:
        link = Path(folder, path.stem + ".safetensors")
        link.symlink_to(path.resolve())
        yield link


def _from_pipeline(pipeline: Any, family: FamilyName) -> _Parts:
    names = TEXT_ENCODERS[family]
    return _Parts(
        family=family,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoders=tuple(getattr(pipeline, name) for name in names),
        tokenizers=tuple(getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in names),
        scheduler_config=held_config(pipeline.scheduler, family),
        zeros_for_null_negative=bool(pipeline.config.get("force_zeros_for_empty_prompt", True)),
    )


# What every source must satisfy


def _check_architecture(source: ModelSource, parts: _Parts) -> None:
    """Refuse UNets that want inputs a text-to-image job does not have.

    Raises:
        ModelUnsupported: inpainting, guidance-distilled or otherwise conditioned UNets; refiners.
    """
    problem = unet_problem(parts.unet.config, family=parts.family)
    if problem is None and any(encoder is None for encoder in parts.text_encoders):
        problem = "a text encoder is missing (a refiner)"
    if problem is not None:
        raise ModelUnsupported(f"model {source.name}: {problem}; {SUPPORTED}")
