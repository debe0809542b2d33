"""Finds in which direction of the latents each change of a picture points. Knows nothing of captions and the UNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from training.portraits.autoencoder import draw_variants
from training.portraits.population import CHOICES, MENTIONED, variants

#: Seed and number of the portraits that directions are averaged over.
DIRECTIONS_SEED = 800_001
PORTRAITS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Directions:
    """The mean changes of scaled latents, in the order of `MENTIONED`; last, for words that mean nothing."""

    #: From the absence to the presence of each attribute, (6, 4, 8, 8); last, zero.
    steps: torch.Tensor
    #: Of everything but that attribute: unit vectors, (6, N, 256); the attribute's own is zero. Last, of everything.
    others: torch.Tensor


@torch.inference_mode()
def find_directions(vae: Any, device: torch.device, portraits: int = PORTRAITS) -> Directions:
    """Average the changes of many portraits: of attributes from absence to presence, of others towards each value."""
    sums: dict[tuple[str, Any], torch.Tensor] = {}
    for index in range(portraits):
        portrait, *changed = variants(DIRECTIONS_SEED, index)
        latents = vae.encode(draw_variants(DIRECTIONS_SEED, index, device)).latent_dist.mode()
        changes = (latents[1:] - latents[0]) * vae.config.scaling_factor
        for name, other, change in zip((*MENTIONED, *CHOICES), changed, changes, strict=True):
            for value, sign in ((getattr(other, name), 1), (getattr(portrait, name), -1)):
                sums[name, value] = sums.get((name, value), 0) + sign * change
    steps = torch.stack([sums[name, True] for name in MENTIONED]) / portraits
    values = [sums[name, value] for name, (values, _) in CHOICES.items() for value in values]
    units = torch.nn.functional.normalize(torch.stack([*steps, *values]).flatten(1), dim=1)
    others = units.repeat(len(MENTIONED) + 1, 1, 1)
    others[range(len(MENTIONED)), range(len(MENTIONED))] = 0
    return Directions(steps=torch.cat([steps, torch.zeros_like(steps[:1])]), others=others)
