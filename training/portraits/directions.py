"""Finds in which direction of the latents each change of a picture points. Knows nothing of captions and the UNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from training.portraits.autoencoder import draw_variants
from training.portraits.population import CHOICES, MENTIONED, variants

#: What one caption may say more than another, see `write_contrast`: an attribute, the kind, or nothing.
CONTRASTED = (*MENTIONED, "kind", None)

#: Seed of the portraits that directions are averaged over.
DIRECTIONS_SEED = 800_001


@dataclass(frozen=True, kw_only=True, slots=True)
class Directions:
    """The mean changes of scaled latents, a row for each of `CONTRASTED`."""

    #: From the absence to the presence of each attribute, (7, 4, 8, 8); zero for the kind and for nothing.
    steps: torch.Tensor
    #: Of everything else: unit vectors, (7, N, 256); its own are zero.
    others: torch.Tensor


@torch.inference_mode()
def find_directions(vae: Any, device: torch.device, *, portraits: int) -> Directions:
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
    values = [(name, value) for name, (values, _) in CHOICES.items() for value in values]
    units = torch.nn.functional.normalize(
        torch.stack([*steps, *(sums[key] for key in values)]).flatten(1), dim=1
    )
    owners = [*MENTIONED, *(name for name, _ in values)]
    others = torch.stack(
        [
            units * torch.tensor([[float(owner != name)] for owner in owners], device=device)
            for name in CONTRASTED
        ]
    )
    still = torch.zeros_like(steps[: len(CONTRASTED) - len(MENTIONED)])
    return Directions(steps=torch.cat([steps, still]), others=others)
