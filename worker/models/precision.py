"""Which dtype each part of a model runs in. Pure; knows nothing of files."""

from __future__ import annotations

import torch

from worker.sampling.model import FamilyName


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of UNet and text encoders: float16 on a GPU, float32 on a CPU (its half is slow)."""
    return torch.float16 if device.type == "cuda" else torch.float32


def decoder_dtype(
    family: FamilyName, dtype: torch.dtype, device: torch.device, *, force_upcast: bool
) -> torch.dtype:
    """Return the dtype of the VAE: the model's own, unless float16 overflows in it.

    SDXL's VAE overflows in float16 and its config says so (`force_upcast`); it gets bfloat16, which has
    float32's range at half its size, or float32 on GPUs without it. SD 1.x and 2.x VAEs are fine in float16;
    diffusers ignores their `force_upcast`, whose default is true, and so do we.
    """
    if dtype != torch.float16 or family != "sdxl" or not force_upcast:
        return dtype
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float32
    return torch.bfloat16
