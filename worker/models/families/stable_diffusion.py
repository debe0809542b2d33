"""Loads Stable Diffusion 1.x, 2.x and XL: their files become a UNet, a VAE, CLIP encoders and tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.errors import ModelUnsupported
from shared.model_facts import unet_problem
from worker.models.precision import without_overflow
from worker.models.scheduler_config import held_config, read_scheduler_config
from worker.models.weights import DTYPE_OPTION, SUPPORTED, load_weights
from worker.sampling.families.base import FamilyNetworks
from worker.sampling.families.sd import StableDiffusion
from worker.sampling.families.sdxl import StableDiffusionXL

#: Files of a hub repository that we read: configs and tokenizers, then weights by variant. No safety checker.
_HUB_CONFIGS = ("model_index.json", "scheduler/*.json", "unet/*.json", "vae/*.json", "text_encoder*/*.json")
_HUB_TOKENIZERS = ("tokenizer*/*.json", "tokenizer*/merges.txt")
_HUB_WEIGHTS = (
    "unet/diffusion_pytorch_model{}.safetensors",
    "unet/diffusion_pytorch_model{}-*.safetensors",
    "vae/diffusion_pytorch_model{}.safetensors",
    "text_encoder*/model{}.safetensors",
    "text_encoder*/model{}-*.safetensors",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StableDiffusionLoader:
    """Reads one of the two families; see `FamilyLoader` for the methods."""

    #: "sd" or "sdxl", as `shared.model_facts.unet_problem` names it.
    name: str
    pipeline_class: str
    single_file_families: Sequence[str]
    #: In the order their hidden states are concatenated.
    text_encoders: tuple[str, ...]
    #: What the family's pipeline puts into a scheduler's config where the key has another value.
    scheduler_corrections: Mapping[str, Any]
    #: Whether `force_upcast` in the VAE's config is true to the word. Stable Diffusion 1.x and 2.x have it from its
    #: default, and their VAEs are fine in float16; diffusers ignores it there, and so do we.
    heeds_force_upcast: bool
    hub_networks: Sequence[str] = ("unet",)

    def hub_patterns(self, variant: str) -> list[str]:
        """Return which files of a hub repository are read."""
        return [*_HUB_CONFIGS, *_HUB_TOKENIZERS, *(pattern.format(variant) for pattern in _HUB_WEIGHTS)]

    def read_folder(self, folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> StableDiffusionParts:
        """Read a diffusers folder.

        Raises: ModelUnsupported where a component is of another class than the family's own.
        """
        self._check_classes(folder, index)
        return StableDiffusionParts(
            loader=self,
            # The VAE is read as float32, since it may become bfloat16: float16 between would round twice.
            vae=load_weights(AutoencoderKL, folder / "vae", **{DTYPE_OPTION: torch.float32}),
            unet=load_weights(UNet2DConditionModel, folder / "unet", **{DTYPE_OPTION: dtype}),
            text_encoders=tuple(
                load_weights(_encoder_class(name), folder / name) for name in self.text_encoders
            ),
            tokenizers=tuple(
                CLIPTokenizer.from_pretrained(str(folder / _tokenizer(name)), local_files_only=True)
                for name in self.text_encoders
            ),
            scheduler_config=read_scheduler_config(folder, index, self.scheduler_corrections),
            zeros_for_null_negative=bool(index.get("force_zeros_for_empty_prompt", True)),
        )

    def read_file(self, file: Path, configs: Mapping[str, Any]) -> StableDiffusionParts:
        """Read a checkpoint in one file, with diffusers' own conversion."""
        left_out = {} if self.name == "sdxl" else {"safety_checker": None, "feature_extractor": None}
        pipeline = getattr(diffusers, self.pipeline_class).from_single_file(
            str(file), **{DTYPE_OPTION: torch.float32}, **left_out, **configs
        )
        return StableDiffusionParts(
            loader=self,
            unet=pipeline.unet,
            vae=pipeline.vae,
            text_encoders=tuple(getattr(pipeline, name) for name in self.text_encoders),
            tokenizers=tuple(getattr(pipeline, _tokenizer(name)) for name in self.text_encoders),
            scheduler_config=held_config(pipeline.scheduler, self.scheduler_corrections),
            zeros_for_null_negative=bool(pipeline.config.get("force_zeros_for_empty_prompt", True)),
        )

    def vae_dtype(self, dtype: torch.dtype, device: torch.device, *, force_upcast: bool) -> torch.dtype:
        """Return the dtype of the VAE: SDXL's overflows in float16 where its config says `force_upcast`."""
        return without_overflow(dtype, device) if self.heeds_force_upcast and force_upcast else dtype

    def _check_classes(self, folder: Path, index: Mapping[str, Any]) -> None:
        expected = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
        expected |= {name: _encoder_class(name).__name__ for name in self.text_encoders}
        for component, class_name in expected.items():
            found = (index.get(component) or [None, None])[1]
            if found != class_name:
                raise ModelUnsupported(f"{folder}: {component} is {found}, not {class_name}; {SUPPORTED}")


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusionParts:
    """What the files hold; see `LoadedParts` for the methods."""

    loader: StableDiffusionLoader
    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    scheduler_config: Mapping[str, Any]
    #: Only SDXL asks.
    zeros_for_null_negative: bool

    def problem(self) -> str | None:
        """Return what stands in the way: an inpainting, distilled or otherwise conditioned UNet; a refiner."""
        problem = unet_problem(self.unet.config, family=self.loader.name)
        if problem is None and any(encoder is None for encoder in self.text_encoders):
            problem = "a text encoder is missing (a refiner)"
        return problem

    def place(self, device: torch.device, dtype: torch.dtype) -> FamilyNetworks:
        """Move the networks to a device."""
        force_upcast = bool(self.vae.config.force_upcast)
        vae_dtype = self.loader.vae_dtype(dtype, device, force_upcast=force_upcast)
        networks: dict[str, Any] = {
            "unet": _moved(self.unet, device, dtype),
            "vae": _moved(self.vae, device, vae_dtype),
            "text_encoders": tuple(_moved(encoder, device, dtype) for encoder in self.text_encoders),
            "tokenizers": self.tokenizers,
            "device": device,
            "dtype": dtype,
            "vae_dtype": vae_dtype,
        }
        if self.loader.name == "sdxl":
            return StableDiffusionXL(**networks, zeros_for_null_negative=self.zeros_for_null_negative)
        return StableDiffusion(**networks)


SD = StableDiffusionLoader(
    name="sd",
    pipeline_class="StableDiffusionPipeline",
    single_file_families=("sd1", "sd2"),
    text_encoders=("text_encoder",),
    scheduler_corrections={"steps_offset": 1, "clip_sample": False},
    heeds_force_upcast=False,
)

SDXL = StableDiffusionLoader(
    name="sdxl",
    pipeline_class="StableDiffusionXLPipeline",
    single_file_families=("sdxl",),
    text_encoders=("text_encoder", "text_encoder_2"),
    scheduler_corrections={},
    heeds_force_upcast=True,
)


def _encoder_class(name: str) -> Any:
    return CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _moved(module: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    # torch's own `to`: diffusers' warns of modules to be kept in float32, of which these have none.
    return torch.nn.Module.to(module, device, dtype).eval().requires_grad_(False)
