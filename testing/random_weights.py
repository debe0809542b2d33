"""Writes a complete, tiny, randomly initialised Stable Diffusion folder. Knows nothing of sampling.

The demo, the tests and the benchmarks need a model that loads like a real one, in every component, and runs
on two CPU cores: text encoder(s), tokenizer(s), UNet, VAE and scheduler, in diffusers' folder layout, under
1 MB. The same seed and versions give the same bytes on every machine, so the folder's content hash is
stable: weights come from numpy's PCG64 as scaled uniforms (exact arithmetic, no libm), the tokenizer's
vocabulary from a fixed word list.

    python -m testing.random_weights DIR --family sd1
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from worker.models.quiet import no_progress_bars

#: What `create_random_model` can write: SD 1.x (epsilon), SD 2.x (v-prediction), SDXL (two text encoders).
RandomFamily = Literal["sd1", "sd2", "sdxl"]

#: Tokens in a row, with BOS and EOS: CLIP's own limit, so that long texts behave as in a real model.
MAX_TOKENS = 77

#: Latent size that the UNet is "trained" at: 8 x 8, so 64 x 64 pixels.
SAMPLE_SIZE = 8

#: Width of the text encoder's hidden states.
TEXT_WIDTH = 32

#: Merges learnt for the tokenizer: enough that a common word is one to three tokens, as in CLIP.
MERGES = 400

#: What the tokenizer learns its merges from: words that prompts are made of.
CORPUS = """
a an the of in on at with without and or by for from to as is are into over under behind near between through
portrait photo photograph picture image painting drawing sketch illustration render poster print watercolor oil
digital art artwork concept style stylized realistic photorealistic detailed highly intricate sharp focus blurry
man woman person people child boy girl old young face eyes hair hand hands body mustache beard smiling standing
sitting running walking holding wearing looking cat dog bird horse fox bear fish lion tiger rabbit robot dragon
house city street building castle bridge tower room kitchen window door table chair book car train ship boat
mountain river lake sea ocean forest tree flower garden field sky cloud sun moon star night day morning evening
light lighting shadow dark bright soft warm cold golden hour sunset sunrise snow rain fog water fire stone wood
glass metal gold silver red green blue yellow orange purple pink black white gray brown colorful color colors
beautiful ugly cute small large big tiny giant ancient modern future fantasy science fiction steampunk cyberpunk
quality best low worst high resolution masterpiece bad anatomy deformed disfigured duplicate extra limbs fingers
missing cropped out frame watermark text signature jpeg artifacts morbid mutated mutation poorly drawn proportions
cinematic dramatic studio background foreground close up wide angle view from above below side front back lens
camera film grain depth field bokeh macro aerial minimal abstract surreal vintage retro one two three four five
"""


def create_random_model(folder: Path, *, family: RandomFamily, seed: int = 0) -> Path:
    """Write a random model as a diffusers folder and return it.

    Args:
        folder: where; made if missing.
        family: which architecture to write in miniature.
        seed: another seed is another model.
    """
    vocabulary, merges = _learn_vocabulary()
    weights = _uniforms(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in _text_encoders(family, len(vocabulary)).items():
        encoder_class = CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel
        encoder = encoder_class(CLIPTextConfig(**config))
        _fill(encoder, weights, gain=1.0)
        _save(encoder, folder / name)
        _write_tokenizer(
            folder / name.replace("text_encoder", "tokenizer"), vocabulary, merges, config["pad_token_id"]
        )
    unet = UNet2DConditionModel(**_unet_config(family))
    _fill(unet, weights, gain=1.0)  # much more, and rounding errors grow a thousandfold over the steps
    _save(unet, folder / "unet")
    vae = AutoencoderKL(**_vae_config(family))
    _fill(vae, weights, gain=1.2)
    _save(vae, folder / "vae")
    _scheduler(family).save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _model_index(family))
    return folder


# Weights


def _uniforms(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _fill(module: torch.nn.Module, generator: np.random.Generator, *, gain: float) -> None:
    """Fill a module's parameters, in the order of their names, keeping the variance through its layers.

    Args:
        module: filled in place.
        generator: drawn from.
        gain: standard deviation of a layer's output for an input of standard deviation 1.
    """
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            draws = generator.random(parameter.numel(), dtype=np.float32)
            centred = torch.from_numpy(draws).reshape(parameter.shape) * 2 - 1  # U(-1, 1), variance 1/3
            if parameter.ndim >= 2:
                fan_in = 1 if "embedding" in name and "token" in name else parameter[0].numel()
                parameter.copy_(centred * (gain * (3.0 / fan_in) ** 0.5))
            elif name.endswith("weight"):  # a norm's scale
                parameter.copy_(1 + centred * 0.2)
            else:
                parameter.copy_(centred * 0.2)


def _save(component: Any, folder: Path) -> None:
    with no_progress_bars():
        component.save_pretrained(folder, safe_serialization=True)


# Architectures


def _text_encoders(family: RandomFamily, vocabulary_size: int) -> dict[str, dict[str, Any]]:
    """Return the CLIPTextConfig of each text encoder, by folder name."""
    first = {
        "vocab_size": vocabulary_size,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "projection_dim": TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "quick_gelu" if family != "sd2" else "gelu",
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        # SD 1.x and the first encoder of SDXL pad with EOS, OpenCLIP's encoders with "!" (token 0).
        "pad_token_id": vocabulary_size - 1 if family != "sd2" else 0,
    }
    if family != "sdxl":
        return {"text_encoder": first}
    return {"text_encoder": first, "text_encoder_2": {**first, "hidden_act": "gelu", "pad_token_id": 0}}


def _unet_config(family: RandomFamily) -> dict[str, Any]:
    config: dict[str, Any] = {
        "sample_size": SAMPLE_SIZE,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4 if family == "sd1" else (2, 4),
        "norm_num_groups": 4,
        "cross_attention_dim": TEXT_WIDTH,
    }
    if family == "sd2":
        return {**config, "use_linear_projection": True}
    if family == "sdxl":
        time_width = 8
        return {
            **config,
            "cross_attention_dim": 2 * TEXT_WIDTH,  # both encoders' hidden states, side by side
            "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time_width,
            "projection_class_embeddings_input_dim": 6 * time_width + TEXT_WIDTH,
        }
    return config


def _vae_config(family: RandomFamily) -> dict[str, Any]:
    return {
        "block_out_channels": (8, 8, 16, 16),  # four levels: latents are 8 times smaller than pixels
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 8 * SAMPLE_SIZE,
        "scaling_factor": 0.13025 if family == "sdxl" else 0.18215,
        "force_upcast": family == "sdxl",
    }


def _scheduler(family: RandomFamily) -> Any:
    """Return the scheduler that the real models of a family come with."""
    shared = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if family == "sd1":
        return PNDMScheduler(**shared, skip_prk_steps=True, set_alpha_to_one=False)
    if family == "sd2":
        return DDIMScheduler(
            **shared, set_alpha_to_one=False, clip_sample=False, prediction_type="v_prediction"
        )
    return EulerDiscreteScheduler(**shared, timestep_spacing="leading")


def _model_index(family: RandomFamily) -> dict[str, Any]:
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", type(_scheduler(family)).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if family != "sdxl":
        return {**index, "safety_checker": [None, None], "requires_safety_checker": False}
    return {
        **index,
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "force_zeros_for_empty_prompt": True,
    }


# Tokenizer: CLIP's byte-level BPE, so that any text has tokens, emoji included


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (as GPT-2's)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    characters, stand_ins = [], 0
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(256 + stand_ins))
            stand_ins += 1
    return characters


def _learn_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary (token -> id) and the merges, in order, of a BPE learnt from `CORPUS`."""
    characters = sorted(_byte_characters())  # "!" first: token 0, which OpenCLIP pads with
    words = Counter((*word[:-1], word[-1] + "</w>") for word in CORPUS.split())
    merges: list[tuple[str, str]] = []
    while len(merges) < MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({tuple(_merged(word, best)): count for word, count in words.items()})
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> Iterator[str]:
    """Yield a word's symbols with every occurrence of a pair made one symbol."""
    position = 0
    while position < len(word):
        if word[position : position + 2] == pair:
            yield pair[0] + pair[1]
            position += 2
        else:
            yield word[position]
            position += 1


def _write_tokenizer(
    folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]], pad_token_id: int
) -> None:
    """Write the four files that CLIPTokenizer loads from, in transformers 4 and 5."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>" if pad_token_id else "!",
        "unk_token": "<|endoftext|>",
    }
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "errors": "replace",
        "add_prefix_space": False,
    }
    _write_json(folder / "vocab.json", vocabulary)
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json", config)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Write a random model where the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m testing.random_weights", description=create_random_model.__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=get_args(RandomFamily), default="sd1")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = create_random_model(options.folder, family=options.family, seed=options.seed)
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
