"""Loads a folder of a family that diffusers' own pipeline renders. Knows nothing of jobs, or of the row engine.

What a folder may make this process run is settled before anything of it is loaded: the pipeline is one that diffusers
itself offers for text to image, every component is a class of diffusers or transformers, weights are safetensors, and
no file asks for code of its own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoPipelineForText2Image
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from shared.errors import ModelUnsupported, SettingsError
from shared.settings import OffloadMode
from shared.walk import walk_files
from worker.models.weights import DTYPE_OPTION, SUPPORTED, load_weights
from worker.sampling.pipelines.model import LoadedPipeline, wrap_pipeline

#: diffusers' text-to-image pipelines by class name.
TEXT_TO_IMAGE: Mapping[str, Any] = {
    kind.__name__: kind for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
}

#: Components that are left out: they judge or mark a finished image, and are pickles as often as not.
LEFT_OUT = ("safety_checker", "watermarker")

#: What a component may be.
_KINDS = (
    torch.nn.Module,
    diffusers.SchedulerMixin,
    transformers.PreTrainedTokenizerBase,
    transformers.ProcessorMixin,
    transformers.FeatureExtractionMixin,
    transformers.ImageProcessingMixin,
)

#: What a call must not want, and what that means.
_NOT_FROM_TEXT_ALONE = {
    "control_image": "wants a control image beside the text",
    "controlnet_conditioning_scale": "wants a control image beside the text",
    "num_frames": "makes videos",
    "prior_num_inference_steps": "samples in two stages, with a step count and a guidance scale for each",
}

#: How transformers' `from_pretrained` calls the dtype: 4.56 renamed it and deprecates the old name.
_TRANSFORMERS_DTYPE = (
    "dtype" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56) else "torch_dtype"
)

#: Weights in a component's folder, plain or of a variant ("{}" is "" or ".fp16"), whole or in shards.
_HUB_WEIGHTS = (
    "{0}/model{1}.safetensors",
    "{0}/model{1}-*.safetensors",
    "{0}/diffusion_pytorch_model{1}.safetensors",
    "{0}/diffusion_pytorch_model{1}-*.safetensors",
)

#: Everything else of a component that is read: configs, vocabularies (also sentencepiece's) and chat templates.
_HUB_REST = ("{0}/*.json", "{0}/*.txt", "{0}/*.model", "{0}/*.jinja")


def load_pipeline(
    folder: Path,
    *,
    name: str,
    fingerprint: str,
    device: torch.device,
    dtype: torch.dtype,
    offload: OffloadMode = "none",
) -> LoadedPipeline:
    """Load a diffusers folder as the pipeline it names.

    Args:
        folder: holds a model_index.json.
        name: and `fingerprint`: for messages and logs.
        device: where it will run.
        dtype: of its networks; float16 becomes bfloat16 (see `pipeline_dtype`).
        offload: where its networks wait.

    Raises:
        ModelUnsupported: a pipeline, a component or a format that is not rendered here; the message says what is.
        ModelLoadFailed: weights are missing.
        SettingsError: offloading without a GPU.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    classes = check_pipeline(folder, index)
    if offload != "none" and device.type != "cuda":
        raise SettingsError(f"offload={offload}: there is no GPU to offload from ({device}); use none")
    dtype = pipeline_dtype(dtype, device)
    networks = {
        network: load_weights(classes[network], folder / network, **{_dtype_option(classes[network]): dtype})
        for network in pipeline_networks(classes)
    }
    pipeline = AutoPipelineForText2Image.from_pretrained(
        str(folder),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        **networks,
        **_absent(index),
    )
    _place(pipeline, device, offload)
    return wrap_pipeline(pipeline, name=name, fingerprint=fingerprint, device=device, dtype=dtype)


def pipeline_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of a pipeline's networks: bfloat16 where float16 is asked for, else what is asked for.

    These families were trained in bfloat16 or have a T5; in float16 some of them overflow. A GPU without bfloat16
    gets float32.
    """
    if dtype != torch.float16:
        return dtype
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float32
    return torch.bfloat16


def hub_patterns(index: Mapping[str, Any], variant: str) -> list[str]:
    """Return the files of a hub repository that are read, by the components its index names: no code, no pickles.

    Args:
        index: the content of model_index.json.
        variant: "" for the plain weights, ".fp16" for those of the variant.
    """
    names = ["scheduler", *(name for name in _components(index) if name.replace("_", "").isalnum())]
    patterns = [pattern.format(name, variant) for name in names for pattern in (*_HUB_REST, *_HUB_WEIGHTS)]
    return ["model_index.json", *patterns]


def pipeline_networks(classes: Mapping[str, Any]) -> list[str]:
    """Return the names of the components that have weights, of the classes that `check_pipeline` found."""
    return [name for name, kind in classes.items() if issubclass(kind, torch.nn.Module)]


# Checks, before anything is loaded


def check_pipeline(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the class of each component of a folder that may be loaded.

    Raises: ModelUnsupported, with what stands in the way.
    """
    pipeline_class = _pipeline_class(folder, index)
    wanted, _ = pipeline_class._get_signature_keys(pipeline_class)
    may_lack = {*pipeline_class._optional_components, *LEFT_OUT}
    present = {name for name, entry in index.items() if _is_pair(entry)}
    if lacking := sorted(set(wanted) - present - may_lack):
        raise ModelUnsupported(
            f"{folder}: a {pipeline_class.__name__} has {', '.join(lacking)}, this model_index.json not; {SUPPORTED}"
        )
    classes = {}
    for name, entry in _components(index).items():
        if name in wanted:  # diffusers loads nothing else, and a pipeline's options may be pairs too
            classes[name] = _component_class(folder, name, entry)
            _check_no_code(folder / name)
    return classes


def _pipeline_class(folder: Path, index: Mapping[str, Any]) -> Any:
    named = index.get("_class_name")
    if not isinstance(named, str) or "custom_pipeline" in index:
        raise ModelUnsupported(
            f"{folder}: its pipeline {named} is code of its own, which is never run; {SUPPORTED}"
        )
    if named not in TEXT_TO_IMAGE:
        known = ", ".join(sorted(name for name, kind in TEXT_TO_IMAGE.items() if _obstacle(kind) is None))
        raise ModelUnsupported(
            f"{folder}: a {named} is not rendered here; {SUPPORTED}. "
            f"The pipelines of diffusers {diffusers.__version__} that can be: {known}"
        )
    pipeline_class = TEXT_TO_IMAGE[named]
    if obstacle := _obstacle(pipeline_class):
        raise ModelUnsupported(
            f"{folder}: a {named} {obstacle}; a job has a text, one step count and one scale"
        )
    return pipeline_class


def _obstacle(pipeline_class: Any) -> str | None:
    """Return why a text-to-image pipeline cannot be called with what a job has; None where it can."""
    parameters = inspect.signature(pipeline_class.__call__).parameters
    return next((why for name, why in _NOT_FROM_TEXT_ALONE.items() if name in parameters), None)


def _components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return library and class of what looks like a component in an index, but for those left out."""
    return {
        name: (str(entry[0]), str(entry[1]))
        for name, entry in index.items()
        if _is_pair(entry) and entry[0] is not None and name not in LEFT_OUT
    }


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2


def _component_class(folder: Path, name: str, entry: tuple[str, str]) -> Any:
    """Return a component's class, which must be diffusers' or transformers'."""
    library, class_name = entry
    if library in ("diffusers", "transformers"):
        module: Any = diffusers if library == "diffusers" else transformers
    elif library.isidentifier() and hasattr(diffusers.pipelines, library):
        module = getattr(diffusers.pipelines, library)  # diffusers keeps a few networks beside their pipeline
    else:
        raise ModelUnsupported(
            f"{folder}: {name} is {library}.{class_name}, code of its own, which is never run; {SUPPORTED}"
        )
    kind = getattr(module, class_name, None)
    if isinstance(kind, type) and issubclass(kind, _KINDS):
        return kind
    if wants := getattr(kind, "_backends", None):  # a stand-in for a class whose packages are not here
        raise ModelUnsupported(
            f"{folder}: {name} is a {class_name}, which wants {', '.join(wants)}: install it"
        )
    raise ModelUnsupported(f"{folder}: {name} is {library}.{class_name}, which is no component; {SUPPORTED}")


def _check_no_code(folder: Path) -> None:
    """Refuse a component that brings code, or that points to some."""
    for path in (file for file in walk_files(folder) if file.suffix == ".py"):
        raise ModelUnsupported(f"{path}: code that comes with a model is never run; {SUPPORTED}")
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith("config.json") and "auto_map" in json.loads(path.read_text(encoding="utf-8")):
            raise ModelUnsupported(
                f"{path}: its auto_map wants code of its own, which is never run; {SUPPORTED}"
            )


# Loading


def _dtype_option(kind: Any) -> str:
    return DTYPE_OPTION if issubclass(kind, diffusers.ModelMixin) else _TRANSFORMERS_DTYPE


def _absent(index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that say what a pipeline goes without: what its index leaves empty, and `LEFT_OUT`."""
    known = inspect.signature(TEXT_TO_IMAGE[index["_class_name"]].__init__).parameters
    empty = [name for name, entry in index.items() if _is_pair(entry) and entry[0] is None]
    given = {**dict.fromkeys([*empty, *LEFT_OUT]), "requires_safety_checker": False}
    return {name: value for name, value in given.items() if name in known}


def _place(pipeline: Any, device: torch.device, offload: OffloadMode) -> None:
    """Put a pipeline's networks where they belong, ready to render."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    decoder: Any = getattr(pipeline, "vae", None)
    if hasattr(decoder, "enable_slicing"):
        decoder.enable_slicing()  # image by image: what a batch must fit is the denoiser
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
