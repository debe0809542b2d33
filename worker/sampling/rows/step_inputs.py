"""The numbers of one step: which job takes which rows, and every job's coefficients. Knows nothing of networks.

A step's numbers travel as one float copy and one integer copy; the views that `StepInputs` names are cut out of
them on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worker.sampling.guidance import EMPTY, NUMBERS, Guidance
from worker.sampling.schedules.programs import ScheduleProgram

#: Slots of state and noises a step that a schedule program may need.
MAX_SLOTS = 6
MAX_DRAWS = 2

Floats = npt.NDArray[np.float32]

#: A step's coefficients of one job, side by side: c, A, b, G, and the timestep.
_SCALE = 0
_A = slice(1, 1 + MAX_SLOTS**2)
_B = slice(_A.stop, _A.stop + MAX_SLOTS)
_G = slice(_B.stop, _B.stop + MAX_SLOTS * MAX_DRAWS)
_TIMESTEP = _G.stop
_COEFFICIENTS = _TIMESTEP + 1


@dataclass(kw_only=True, slots=True)
class RowAssignment:
    """Which job takes which rows at one step."""

    rows: int
    #: (place, branch) of every row taken.
    owners: list[tuple[int, int]] = field(default_factory=list)
    #: Places that take part, each with its rows in the order of its branches.
    taken: dict[int, list[int]] = field(default_factory=dict)

    def assign(self, place: int, branches: Sequence[int]) -> None:
        """Let a job take its rows, if enough are left; otherwise it waits for a later step."""
        first = len(self.owners)
        if first + len(branches) <= self.rows:
            self.owners += [(place, branch) for branch in branches]
            self.taken[place] = list(range(first, len(self.owners)))

    @property
    def places(self) -> list[int]:
        """The places that take part."""
        return list(self.taken)

    @property
    def used(self) -> int:
        """Rows taken."""
        return len(self.owners)


@dataclass(frozen=True, kw_only=True, eq=False)
class StepInputs:
    """A step's numbers on the device; J places, R rows, B branches at most, K slots, D noises.

    Those per job end in as many ones as latents have dimensions, to broadcast over them: here (1, 1, 1).
    """

    slots: int
    branches: int
    scale: torch.Tensor  # (J, 1, 1, 1): from the sample, slot 0, to the model's input
    A: torch.Tensor  # (J, K, K, 1, 1, 1)
    b: torch.Tensor  # (J, K, 1, 1, 1)
    G: torch.Tensor  # (J, K, D, 1, 1, 1)
    active: torch.Tensor  # (J, 1, 1, 1) bool
    weights: torch.Tensor  # (J, B)
    numbers: torch.Tensor  # (J, NUMBERS)
    is_empty: torch.Tensor  # (J, B)
    timesteps: torch.Tensor  # (R,)
    row_places: torch.Tensor  # (R,) int64: the place whose latents a row shows
    branch_rows: torch.Tensor  # (J, B) int64: the row of each branch
    methods: tuple[str, ...]
    rescale: torch.Tensor | None  # (J,)


def pack(program: ScheduleProgram) -> Floats:
    """Return a program as rows of coefficients, one per evaluation, (N, P).

    Raises: ValueError for a program that needs more than `MAX_SLOTS` or `MAX_DRAWS`.
    """
    slots, draws = program.slots, program.noise_gain.shape[2]
    if slots > MAX_SLOTS or draws > MAX_DRAWS:
        raise ValueError(f"a program of {slots} slots and {draws} draws: at most {MAX_SLOTS} and {MAX_DRAWS}")
    n = program.evaluations
    packed = np.zeros((n, _COEFFICIENTS), np.float32)
    packed[:, _SCALE] = program.input_scales.numpy()
    packed[:, _A].reshape(n, MAX_SLOTS, MAX_SLOTS)[:, :slots, :slots] = program.transition.numpy()
    packed[:, _B][:, :slots] = program.gain.numpy()
    packed[:, _G].reshape(n, MAX_SLOTS, MAX_DRAWS)[:, :slots, :draws] = program.noise_gain.numpy()
    packed[:, _TIMESTEP] = program.timesteps.numpy()
    return packed


def own_scheduler_coefficients(timesteps: torch.Tensor) -> Floats:
    """Return coefficients that only show slot 0: an own scheduler writes it itself, scaled."""
    packed = np.zeros((len(timesteps), _COEFFICIENTS), np.float32)
    packed[:, _SCALE] = 1.0
    packed[:, _TIMESTEP] = timesteps.float().numpy()
    return packed


def make_step_inputs(
    assignment: RowAssignment,
    steps: Mapping[int, tuple[Guidance, Floats]],
    device: torch.device,
    *,
    latent_rank: int,
) -> StepInputs:
    """Lay out a step's numbers and send them to the device.

    Args:
        assignment: who takes part. There are as many places as rows.
        steps: of every place that takes part, its guidance and its row of coefficients.
        device: where they go.
        latent_rank: dimensions of one image's latents.
    """
    branches = max((len(rows) for rows in assignment.taken.values()), default=1)
    columns = _Columns(branches)
    floats = np.zeros(
        (assignment.rows, columns.end), np.float32
    )  # a line is a place, but for the timesteps a row
    whole = np.zeros(
        (assignment.rows, 1 + branches), np.int64
    )  # column 0: a row's place; the others: a place's rows
    methods = [""] * assignment.rows
    for place, rows in assignment.taken.items():
        guidance, coefficients = steps[place]
        line, methods[place] = floats[place], guidance.method
        line[:_TIMESTEP] = coefficients[:_TIMESTEP]
        line[columns.weights][: len(rows)] = guidance.weights
        line[columns.is_empty][: len(rows)] = [branch == EMPTY for branch in guidance.branches]
        line[columns.numbers] = guidance.numbers
        line[columns.active], line[columns.rescale] = 1.0, guidance.rescale
        whole[place, 1:] = rows + rows[:1] * (branches - len(rows))
        whole[rows, 0], floats[rows, _TIMESTEP] = place, coefficients[_TIMESTEP]
    rescaled = bool(floats[:, columns.rescale].any())
    slots = _slots_used(floats)
    return _cut(
        _send(floats, device),
        _send(whole, device),
        columns,
        slots,
        tuple(methods),
        rescaled=rescaled,
        latent_rank=latent_rank,
    )


class _Columns:
    """Where what stands in a line of floats, behind the coefficients."""

    def __init__(self, branches: int) -> None:
        self.branches = branches
        self.weights = slice(_COEFFICIENTS, _COEFFICIENTS + branches)
        self.is_empty = slice(self.weights.stop, self.weights.stop + branches)
        self.numbers = slice(self.is_empty.stop, self.is_empty.stop + NUMBERS)
        self.active = self.numbers.stop
        self.rescale = self.active + 1
        self.end = self.rescale + 1


def _slots_used(floats: Floats) -> int:
    """Return how many slots of state this step reads or writes: the others stay zero."""
    touched = np.zeros(MAX_SLOTS, bool)
    for part in (_B, _A, _G):
        touched |= floats[:, part].reshape(len(floats), MAX_SLOTS, -1).any(axis=(0, 2))
    touched |= floats[:, _A].reshape(-1, MAX_SLOTS, MAX_SLOTS).any(axis=(0, 1))
    return int(np.flatnonzero(touched).max(initial=0)) + 1


def _send(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array on the device, by way of pinned memory where that lets the host go on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _cut(
    floats: torch.Tensor,
    whole: torch.Tensor,
    columns: _Columns,
    slots: int,
    methods: tuple[str, ...],
    *,
    rescaled: bool,
    latent_rank: int,
) -> StepInputs:
    places, ones = len(floats), (1,) * latent_rank

    def per_latent(part: slice, *shape: int) -> torch.Tensor:
        return floats[:, part].reshape(places, *shape, *ones)

    return StepInputs(
        slots=slots,
        branches=columns.branches,
        scale=per_latent(slice(_SCALE, _SCALE + 1)),
        A=per_latent(_A, MAX_SLOTS, MAX_SLOTS),
        b=per_latent(_B, MAX_SLOTS),
        G=per_latent(_G, MAX_SLOTS, MAX_DRAWS),
        active=floats[:, columns.active].view(places, *ones) > 0,
        weights=floats[:, columns.weights],
        numbers=floats[:, columns.numbers],
        is_empty=floats[:, columns.is_empty],
        timesteps=floats[:, _TIMESTEP],
        row_places=whole[:, 0],
        branch_rows=whole[:, 1:],
        methods=methods,
        rescale=floats[:, columns.rescale] if rescaled else None,
    )
