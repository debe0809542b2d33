"""Loads a model from a diffusers folder, the Hugging Face hub or one .safetensors file, onto a device.

A family with a loader in `worker.models.families` becomes a `LoadedModel`, which the row engine renders; a folder of
any other family becomes a `LoadedPipeline` (`worker.models.pipelines`). No code that comes with a model is run: weights
are read from safetensors only, never from pickles, and no remote code is trusted. Knows nothing of jobs, of how a name
became a `ModelSource`, or of what a family's networks are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download

from shared.errors import ModelLoadFailed, ModelUnsupported, OutOfMemory, RenderError, SettingsError
from shared.model_facts import FLOW_READING, ModelFacts, read_facts
from shared.model_reading import AS_IT_SAYS, Reading
from shared.safetensors_header import HeaderInvalid, read_header
from shared.schedulers import model_path
from shared.settings import OffloadMode
from worker.models.families import loader_of_file, loader_of_index
from worker.models.families.base import LoadedParts
from worker.models.pipelines import check_pipeline, hub_patterns, load_pipeline, pipeline_networks
from worker.models.precision import default_dtype
from worker.models.quiet import no_progress_bars
from worker.models.weights import PICKLES, SUPPORTED
from worker.sampling.model import LoadedModel
from worker.sampling.pipelines.model import LoadedPipeline


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
        dtype: of the denoiser; by default float16 on a GPU and float32 on a CPU, whatever the files hold. The
            family decides about its other networks. Pipelines get bfloat16 for float16 (`worker.models.pipelines`).
        offload: where a pipeline's networks wait for their turn. A model of the row engine is always whole on the
            device, since rows are refilled at every step.

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
        parts, config = _read_single_file(Path(source.location))
    else:
        folder = _download(source) if source.kind == "hub" else Path(source.location)
        index = _read_index(folder)
        family = loader_of_index(index)
        if family is None:
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
        parts = family.read_folder(folder, index, dtype)
        config = parts.scheduler_config
    if problem := parts.problem():
        raise ModelUnsupported(f"model {source.name}: {problem}; {SUPPORTED}")
    config = _read_as(source, config)
    return LoadedModel(
        name=source.name,
        fingerprint=source.fingerprint,
        networks=parts.place(device, dtype),
        scheduler_config=config,
    )


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


# A diffusers folder


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        raise ModelUnsupported(f"{folder}: no model_index.json, so not a diffusers folder; {SUPPORTED}")
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


# The hub


def _download(source: ModelSource) -> Path:
    """Bring a hub model's configs and safetensors here (or find them in the hub's cache) and return the folder."""
    folder = _snapshot(source, ["model_index.json"])
    index = _read_index(folder)
    family = loader_of_index(index)
    if family is not None:
        networks = family.hub_networks
    else:
        networks = pipeline_networks(check_pipeline(folder, index))  # before gigabytes of it come here
    for dot in ("", ".fp16"):
        folder = _snapshot(source, family.hub_patterns(dot) if family else hub_patterns(index, dot))
        lacking = [name for name in networks if not list(folder.glob(f"{name}/*.safetensors"))]
        if not lacking:
            return folder
    raise ModelUnsupported(
        f"{source.location}: its repository has no {lacking[0]}/*.safetensors; {SUPPORTED}"
    )


def _snapshot(source: ModelSource, patterns: list[str]) -> Path:
    return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=patterns))


# One file


def _read_single_file(path: Path) -> tuple[LoadedParts, Mapping[str, Any]]:
    """Read a checkpoint in one file, and return its parts with the scheduler config that the file asks for.

    The file has no configs. diffusers takes them from the hub or its cache; a folder beside the file with
    its name less the ending, holding a diffusers folder's json and tokenizer files, is taken instead.
    """
    if path.suffix in PICKLES:
        raise ModelUnsupported(f"{path}: pickled weights can run code and are never read; {SUPPORTED}")
    if path.suffix.lower() != ".safetensors":
        raise ModelUnsupported(f"{path}: not a .safetensors file; {SUPPORTED}")
    facts = _single_file_facts(path)
    family = loader_of_file(facts.family)
    if family is None:
        raise ModelUnsupported(f"{path}: a checkpoint of {facts.family}; {SUPPORTED}")
    configs = path.with_suffix("")
    beside = (
        {"config": str(configs), "local_files_only": True} if (configs / "model_index.json").is_file() else {}
    )
    try:
        with _plainly_named(path) as file:
            parts = family.read_file(file, beside)
    except Exception as error:
        fix = f"its configs come from the Hugging Face hub or its cache, or from a folder {configs} beside it"
        raise ModelLoadFailed(f"{path}: {type(error).__name__}: {error} ({fix})") from error
    if not facts.marked:
        return parts, parts.scheduler_config
    # The file itself says more than the configs, which are those of its family.
    said = {"prediction_type": facts.prediction_type, "rescale_betas_zero_snr": facts.zero_snr}
    return parts, _with_settings(parts.scheduler_config, said)


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
