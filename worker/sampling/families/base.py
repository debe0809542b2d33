"""What the row engine asks of a family of models. Knows no family.

A family is a few functions over its loaded networks; batching, guidance, schedules, noise and failures are the
engine's. To add one: a module beside this one with a `Family`, a line in `worker.sampling.families`, and how it is
loaded in `worker.models.loader`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.sampling.model import LoadedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioning:
    """What one UNet row is conditioned on."""

    #: Hidden states of all chunks, the encoders side by side.
    hidden: torch.Tensor  # (77 * chunks, D)
    #: The pooled embedding of the first chunk, where the family has one.
    pooled: torch.Tensor | None  # (P,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How a family's networks are called."""

    #: (model, encoder's number, token ids (1, 77)) -> hidden states (77, D), and the pooled embedding or None.
    encode_chunk: Callable[[LoadedModel, int, torch.Tensor], Conditioning]
    #: (rows, height, width) -> keyword arguments of the UNet for these rows.
    unet_conditioning: Callable[[Sequence[Conditioning], int, int], dict[str, Any]]
    #: Final latents (B, C, h, w) float32 as the VAE wants them.
    unscale: Callable[[LoadedModel, torch.Tensor], torch.Tensor]
    #: Whether a null negative prompt is a conditioning of zeros, instead of an encoded empty text.
    null_is_zeros: Callable[[LoadedModel], bool]


def plain_unscale(model: LoadedModel, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling factor, which is all that most VAEs want."""
    unscaled: torch.Tensor = latents / model.vae.config.scaling_factor
    return unscaled
