"""Final latents to uint8 pixels. Knows nothing of how the latents came about.

In float32 the pixels are those of diffusers' pipelines. Where the VAE runs in half precision the last steps
(denormalise, clamp, round) still run in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from worker.sampling.model import LoadedModel

#: Pixels decoded at once: four 512 x 512 images, one 1024 x 1024. The VAE's activations, not the UNet's, are
#: what fills a device: about 2.5 GB in float16 for this many pixels.
GROUP_PIXELS = 4 * 512 * 512

#: Images decoded at once however small they are.
GROUP_IMAGES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Pixels of one image, and whether they are what the networks meant."""

    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    #: False when NaN or infinity was among the latents or the decoded values.
    finite: bool


@torch.inference_mode()
def decode(model: LoadedModel, latents: torch.Tensor, on_step: Callable[[], None]) -> list[Decoded]:
    """Decode final latents, (B, C, h, w) float32, in small groups; `on_step` is called after each."""
    images: list[Decoded] = []
    for group in latents.split(_group_size(model, latents)):
        images += _decode_group(model, group)
        on_step()
    return images


def _group_size(model: LoadedModel, latents: torch.Tensor) -> int:
    pixels = latents.shape[-1] * latents.shape[-2] * model.vae_scale_factor**2
    return max(1, min(GROUP_IMAGES, GROUP_PIXELS // pixels))


def _decode_group(model: LoadedModel, latents: torch.Tensor) -> list[Decoded]:
    values = model.vae.decode(_unscale(model, latents).to(model.vae_dtype), return_dict=False)[0].float()
    finite = latents.isfinite().flatten(1).all(dim=1) & values.isfinite().flatten(1).all(dim=1)  # (B,)
    unit = (values * 0.5 + 0.5).clamp(0, 1).nan_to_num()
    pixels = (
        (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )  # (B, H, W, 3)
    return [Decoded(pixels=image, finite=ok) for image, ok in zip(pixels, finite.tolist(), strict=True)]


def _unscale(model: LoadedModel, latents: torch.Tensor) -> torch.Tensor:
    """Return latents as the VAE wants them: mean and deviation restored where the VAE's config has both."""
    config = model.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if model.family == "sdxl" and mean is not None and std is not None:
        return latents * _per_channel(std, latents) / config.scaling_factor + _per_channel(mean, latents)
    unscaled: torch.Tensor = latents / config.scaling_factor
    return unscaled


def _per_channel(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
