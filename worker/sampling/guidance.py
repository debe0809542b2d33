"""Classifier-free guidance with a scale per image. Knows nothing of schedulers or of where predictions come from.

Row order of a batch, everywhere in this package: guided images come first. The UNet gets the negative rows
of the G guided images, then the positive rows of all B images; an unguided image has no negative row.

Source: Ho & Salimans 2022 (arXiv:2207.12598), the negative prompt in the unconditional branch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def stack_rows(latents: torch.Tensor, guided: int) -> torch.Tensor:
    """Return the UNet's rows for latents of B images whose first `guided` are guided: (G + B, C, H, W)."""
    return torch.cat([latents[:guided], latents]) if guided else latents


def scale_column(scales: Sequence[float], device: torch.device) -> torch.Tensor:
    """Return guidance scales as a float32 column that broadcasts over predictions: (G, 1, 1, 1)."""
    return torch.tensor(scales, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def guide(rows: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Step away from the negative and towards the positive: e_neg + w (e_pos - e_neg).

    Args:
        rows: float32 predictions of the G negative rows, then of the B positive ones, (G + B, C, H, W).
        scales: w of the guided images, (G, 1, 1, 1).

    Returns:
        One prediction per image, (B, C, H, W); an unguided image's is its positive row.
    """
    guided = len(scales)
    if not guided:
        return rows
    negative, positive, plain = rows[:guided], rows[guided : 2 * guided], rows[2 * guided :]
    return torch.cat([negative + scales * (positive - negative), plain])
