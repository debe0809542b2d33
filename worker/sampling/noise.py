"""Noise, one CPU generator per image. Knows nothing of batches' fate or of prompts.

An image draws its initial latents first and its step noises after, in order, from its own generator: what
diffusers draws for `generator=torch.Generator("cpu").manual_seed(seed)`. Always drawn in float32 on the
CPU, so the noise does not depend on the device or on the other images of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def make_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return a CPU generator per seed. Schedulers that add noise draw from the same ones at each step."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def draw_latents(
    generators: Sequence[torch.Generator], shape: tuple[int, int, int], device: torch.device
) -> torch.Tensor:
    """Return unit noise, one draw of (C, H, W) per generator, float32 on the device."""
    draws = [torch.randn((1, *shape), generator=generator, dtype=torch.float32) for generator in generators]
    return torch.cat(draws).to(device)  # (B, C, H, W)
