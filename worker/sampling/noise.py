"""Draws the noise of each image from its own CPU generator. Knows nothing of batches or prompts.

An image draws its initial latents first and its step noises after, in order, from its own generator: what
diffusers draws for `generator=torch.Generator("cpu").manual_seed(seed)`. Always drawn in float32 on the
CPU, so the noise does not depend on the device or on the other images of the batch.
"""

from __future__ import annotations

import torch


def make_generator(seed: int) -> torch.Generator:
    """Return the CPU generator of one image. Schedulers that add noise draw from it at each step."""
    return torch.Generator("cpu").manual_seed(seed)


def draw_noise(generator: torch.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the next unit noise of an image, (1, *shape) float32 on the CPU."""
    return torch.randn((1, *shape), generator=generator, dtype=torch.float32)
