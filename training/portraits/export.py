"""Writes trained networks as a folder that StableDiffusionPipeline loads as it stands. Knows nothing of training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from training.portraits.networks import make_scheduler
from training.portraits.tokenizer import Vocabulary, write_tokenizer


def export_model(folder: Path, *, vae: Any, unet: Any, text_encoder: Any, vocabulary: Vocabulary) -> None:
    """Write a model: weights in float16, no safety checker, nothing to execute."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in {"vae": vae, "unet": unet, "text_encoder": text_encoder}.items():
        half = copy.deepcopy(module).to("cpu", torch.float16, memory_format=torch.contiguous_format)
        half.save_pretrained(folder / name, safe_serialization=True)
        for weights in (folder / name).glob("*.safetensors"):
            weights.chmod(0o644)  # they are written for their owner alone
    _compute_in_float32(folder / "text_encoder" / "config.json")
    write_tokenizer(vocabulary, folder / "tokenizer")
    make_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(make_scheduler()).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _compute_in_float32(config: Path) -> None:
    """Make transformers load the text encoder in float32 where nobody names a dtype, as diffusers does the rest.

    Since version 5 it takes the dtype that the config names, which is that of the weights as they are stored; a
    pipeline would then have its text in float16 and its UNet in float32, and fail.
    """
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
