"""Stable Diffusion XL: two CLIP encoders side by side, a pooled embedding, and the image's size as conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from worker.sampling.families.base import Conditioning, Family, plain_unscale
from worker.sampling.model import LoadedModel


def encode_chunk(model: LoadedModel, encoder: int, ids: torch.Tensor) -> Conditioning:
    """Return the layer before the last, without the final norm: what SDXL was trained on."""
    output = model.text_encoders[encoder](ids, output_hidden_states=True)
    # The second encoder has a projection: its first output is the pooled embedding, (1, P).
    pooled = output[0][0] if output[0].ndim == 2 else None
    return Conditioning(hidden=output.hidden_states[-2][0], pooled=pooled)


def unet_conditioning(rows: Sequence[Conditioning], height: int, width: int) -> dict[str, Any]:
    """Return the rows' texts, and the original size, crop corner and target size."""
    hidden = torch.stack([row.hidden for row in rows])  # (R, 77 * chunks, D)
    pooled = torch.stack([row.pooled for row in rows if row.pooled is not None])  # (R, P)
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=hidden.dtype)
    time_ids = sizes.to(hidden.device, non_blocking=True).expand(len(rows), 6)
    return {
        "encoder_hidden_states": hidden,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
    }


def unscale(model: LoadedModel, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling; mean and deviation are restored where the VAE's config has both."""
    config = model.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return plain_unscale(model, latents)
    return latents * _per_channel(std, latents) / config.scaling_factor + _per_channel(mean, latents)


def _per_channel(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True).view(1, -1, 1, 1)


SDXL = Family(
    encode_chunk=encode_chunk,
    unet_conditioning=unet_conditioning,
    unscale=unscale,
    null_is_zeros=lambda model: model.zeros_for_null_negative,
)
