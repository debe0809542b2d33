"""Stable Diffusion 1.x and 2.x: one CLIP encoder, its last hidden states, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from worker.sampling.families.base import Conditioning, Family, plain_unscale
from worker.sampling.model import LoadedModel


def encode_chunk(model: LoadedModel, encoder: int, ids: torch.Tensor) -> Conditioning:
    """Return the encoder's last hidden states."""
    module = model.text_encoders[encoder]
    masked = getattr(module.config, "use_attention_mask", False)
    mask = _attention_mask(model, encoder, ids) if masked else None
    return Conditioning(hidden=module(ids, attention_mask=mask)[0][0], pooled=None)


def _attention_mask(model: LoadedModel, encoder: int, ids: torch.Tensor) -> torch.Tensor:
    """Return 1 up to and including the first EOS, 0 on the padding behind it."""
    ends = ids == model.tokenizers[encoder].eos_token_id
    return ((ends.cumsum(dim=1) - ends.int()) == 0).long()


def unet_conditioning(rows: Sequence[Conditioning], height: int, width: int) -> dict[str, Any]:
    """Return the rows' texts."""
    return {"encoder_hidden_states": torch.stack([row.hidden for row in rows])}  # (R, 77 * chunks, D)


SD = Family(
    encode_chunk=encode_chunk,
    unet_conditioning=unet_conditioning,
    unscale=plain_unscale,
    null_is_zeros=lambda model: False,
)
