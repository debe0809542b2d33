"""The smallest state-space form of a linear sampler, computed from its response. Knows nothing of schedulers or images.

A sampler that is linear in its inputs (initial noise, model outputs, noise draws) is known by its response: how
every sample depends on every input before it. What inputs up to now still decide about samples to come is its
state; the rank of that map is the number of slots, and any basis of it will do. This one has two virtues: slot 0
is the sample itself, so that a one-slot program is the update its authors wrote down, and the other slots are
orthonormal to it and to each other as functions of the inputs, so that no coefficient is large and no two slots
nearly cancel.

Source: realization of a time-varying system from its Hankel matrices, Dewilde & van der Veen 1998, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import normalize

#: Samples ahead that tell states apart: for K slots at least K - 1. A Runge-Kutta step of PNDM asks for 4.
_WINDOW = 12

#: Singular values below it are rounding (up to 1e-14 seen); those of real slots reach down to 1e-9, where the
#: far end of a multistep history hardly counts.
_TOLERANCE = 1e-11


@dataclass(frozen=True, kw_only=True, eq=False)
class Response:
    """How N evaluations' samples depend on unit inputs."""

    #: Row n is the sample before evaluation n, row N the final one. Columns in order of time: the initial noise,
    #: then for each evaluation its model output and the noise drawn after it. Zero where the input comes later.
    rows: torch.Tensor  # (N + 1, 1 + N + sum(draws)) float64
    #: Noise draws after each evaluation.
    draws: tuple[int, ...]  # (N,)

    @property
    def past(self) -> list[int]:
        """Inputs before each evaluation, and before the end: N + 1 numbers of columns."""
        counts = [1]
        for drawn in self.draws:
            counts.append(counts[-1] + 1 + drawn)
        return counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Realization:
    """s' = A s + b m + G z, with the sample in slot 0; float64."""

    transition: torch.Tensor  # (N, K, K): A
    gain: torch.Tensor  # (N, K): b
    noise_gain: torch.Tensor  # (N, K, D): G
    start: torch.Tensor  # (K,)


def realize(response: Response) -> Realization:
    """Return the program of fewest slots with this response."""
    past = response.past
    bases = [_basis(response.rows[n : n + 1 + _WINDOW], count) for n, count in enumerate(past)]
    slots = max(len(basis) for basis in bases)
    evaluations, draws = len(response.draws), max(response.draws, default=0)
    A = response.rows.new_zeros(evaluations, slots, slots)
    b = response.rows.new_zeros(evaluations, slots)
    G = response.rows.new_zeros(evaluations, slots, draws)
    for n, (S, following) in enumerate(pairwise(bases)):
        old, new = S.shape[0], following.shape[0]
        # Rows of S are orthogonal: its pseudoinverse is its transpose over their squared lengths.
        A[n, :new, :old] = following[:, : past[n]] @ S.T / S.square().sum(dim=1)
        b[n, :new] = following[:, past[n]]
        G[n, :new, : response.draws[n]] = following[:, past[n] + 1 : past[n + 1]]
    start = response.rows.new_zeros(slots)
    start[: len(bases[0])] = bases[0][:, 0]
    return Realization(transition=A, gain=b, noise_gain=G, start=start)


def _basis(ahead: torch.Tensor, past: int) -> torch.Tensor:
    """Return the state as functions of past inputs: the present sample, and what else decides those ahead.

    Args:
        ahead: the present row of a response and the ones that follow, (<= 1 + _WINDOW, inputs).
        past: the inputs that have happened.

    Returns:
        Orthogonal rows, (slots here, past); the first is the present sample, the others have length 1.
    """
    sample = ahead[:1, :past]
    unit = normalize(sample)
    later = ahead[1:, :past] / ahead[1:].norm(dim=1, keepdim=True).clamp_min(_TOLERANCE)
    _, weights, directions = torch.linalg.svd(later - later @ unit.T @ unit, full_matrices=False)
    return torch.cat([sample, directions[weights > _TOLERANCE]])
