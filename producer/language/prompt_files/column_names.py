"""Maps the column names of other programs' tables to ours. Knows no values.

Names are compared without case, spaces and signs: `Negative prompt`, `negative_prompt` and `negativePrompt` are one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

#: Field -> what it is called in tables by A1111 (log.csv, infotext), InvokeAI, Civitai, DiffusionDB and diffusers.
_CALLED: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "positive", "positive_prompt"),
    "negative_prompt": (
        "negative_prompt",
        "negative",
        "neg_prompt",
        "neg",
        "prompt_negative",
        "uncond_prompt",
    ),
    "seed": ("seed", "noise_seed"),
    "guidance_scale": ("guidance_scale", "guidance", "cfg", "cfgs", "cfg_scale", "guidance_scales"),
    "guidance_rule": ("guidance_rule",),
    "steps": ("steps", "step", "num_steps", "num_inference_steps", "sampling_steps", "inference_steps"),
    "scheduler": ("scheduler", "sampler", "sampler_name", "sampling_method"),
    "size": ("size", "resolution", "image_size"),
    "model": ("model",),
    "style": ("style",),
}

#: Columns that make a size together.
SIDES = ("width", "height")

#: What a column of prompts is called where none is called so: Hugging Face, kohya's metadata.
CAPTIONS = ("text", "caption")

#: How alike a name and a slip of it are: `negtive_prompt`, `seeds`, but not `prompt_tokens`.
_SLIP = 0.85

_SIGNS = re.compile(r"[\W_]+")


def folded(name: str) -> str:
    """Return a name without what programs write differently."""
    return _SIGNS.sub("", name).casefold()


_FIELDS = {folded(name): field for field, names in _CALLED.items() for name in names}
_KNOWN = {*_FIELDS, *SIDES, *CAPTIONS, "w", "h"}


def field_called(name: str) -> str | None:
    """Return the field that a column is called as; None where it is called as none."""
    return _FIELDS.get(folded(name))


def field_meant(name: str) -> str | None:
    """Return the field that a column is most likely meant for, its name being a slip of the pen; else None."""
    near = difflib.get_close_matches(folded(name), _FIELDS, n=1, cutoff=_SLIP)
    return _FIELDS[near[0]] if near else None


def is_known_column(name: str) -> bool:
    """Say whether a column of a table of prompts may well be called so."""
    return folded(name) in _KNOWN


#: DiffusionDB's `sampler`, by number. 9 is "others".
DIFFUSIONDB_SAMPLERS: Mapping[int, str] = {
    1: "ddim",
    2: "pndm",
    3: "euler",
    4: "euler_a",
    5: "heun",
    6: "kdpm2",
    7: "kdpm2_a",
    8: "lms",
}

#: k-diffusion's, ComfyUI's and InvokeAI's names of samplers that A1111 and diffusers call otherwise -> our scheduler.
_SAMPLERS: Mapping[str, str] = {
    "k_lms": "lms",
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "k_euler_ancestral": "euler_a",
    "euler_ancestral": "euler_a",
    "k_heun": "heun",
    "ddik_heunm": "heun",  # as DiffusionDB's own loader writes it
    "k_dpm_2": "kdpm2",
    "k_dpm_2_a": "kdpm2_a",
    "k_dpm_2_ancestral": "kdpm2_a",
    "dpm_2": "kdpm2",
    "dpm_2_ancestral": "kdpm2_a",
    "kdpm_2": "kdpm2",
    "kdpm_2_a": "kdpm2_a",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2": "dpmpp_2m",
    "uni_pc": "unipc",
    "euler_k": "euler_karras",
    "heun_k": "heun_karras",
    "lms_k": "lms_karras",
    "dpmpp_2m_k": "dpmpp_2m_karras",
    "dpmpp_2s_k": "dpmpp_2s_karras",
    "dpmpp_sde_k": "dpmpp_sde_karras",
    "dpmpp_2m_sde_k": "dpmpp_2m_sde_karras",
}


def scheduler_called(name: str) -> str:
    """Return the scheduler that a sampler of another program is; a name that nobody else uses stays as it is."""
    return _SAMPLERS.get(name.strip().casefold().replace("-", "_").replace(" ", "_"), name)
