"""The loaded model as the sampler sees it: networks, tokenizers and the few facts that decide its arithmetic.

Knows nothing of files, hubs or names on disk; `worker.models.loader` fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from worker.sampling.cache import LruCache

#: What the sampler renders: "sd" is Stable Diffusion 1.x and 2.x, "sdxl" Stable Diffusion XL base.
FamilyName = Literal["sd", "sdxl"]

#: Chunks whose embeddings are kept. SDXL in fp16: 77 x 2048 x 2 bytes, so about 160 MB when full.
EMBEDDINGS_KEPT = 512


@dataclass(kw_only=True, eq=False)
class LoadedModel:
    """A diffusion model on its device, ready to sample."""

    #: The name people use, and the content hash or hub revision behind it. For messages and logs.
    name: str
    fingerprint: str
    family: FamilyName
    #: diffusers' UNet2DConditionModel and AutoencoderKL.
    unet: Any
    vae: Any
    #: CLIP text encoders with their tokenizers, in the order their hidden states are concatenated.
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    #: The model's own scheduler config; a job's scheduler is made from it.
    scheduler_config: Mapping[str, Any]
    device: torch.device
    #: Of the UNet and the text encoders.
    dtype: torch.dtype
    #: Of the VAE: bfloat16 or float32 where float16 overflows.
    vae_dtype: torch.dtype
    #: Pixels per latent, along each side.
    vae_scale_factor: int
    #: "epsilon", "v_prediction" or "sample": what the UNet predicts. The scheduler acts on it.
    prediction_type: str
    #: SDXL: a null negative prompt is zeros (True) or an encoded empty text (False).
    zeros_for_null_negative: bool
    #: Encoded chunks, by token ids; lives and dies with the encoders.
    embeddings: LruCache[tuple[int, tuple[int, ...]], Any] = field(
        default_factory=lambda: LruCache(EMBEDDINGS_KEPT)
    )
