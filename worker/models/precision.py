"""Which dtype a network runs in on a device. Pure; knows nothing of files or families."""

from __future__ import annotations

import torch


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of a model's denoiser: float16 on a GPU, float32 on a CPU (its half is slow)."""
    return torch.float16 if device.type == "cuda" else torch.float32


def without_overflow(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of a network that overflows in float16.

    In its place stands bfloat16, which has float32's range at half its size, or float32 on GPUs without bfloat16.
    """
    if dtype != torch.float16:
        return dtype
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float32
    return torch.bfloat16
