"""Continuous batching: one batch of denoiser rows for jobs of any scheduler, step count, guidance and text.

A batch has R rows and R batch slots for jobs, which this code calls places. At each step every job takes as many rows
as its guidance needs, one call of the denoiser serves them all, and each job's state moves on by its own schedule
program. A job that ends frees its place for the next one. R never changes, rows that no job needs are padding, and
everything but the denoiser is elementwise or sums over one job alone. So a job's numbers depend on R, not on what
stands beside it.

The host knows all schedules: a step reads nothing from the device, and its numbers go there as two small copies.
Knows nothing of pixels, of failures, of callers, or of what a family's networks are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.sampling.events import Notice, StepDone, ignore
from worker.sampling.families.base import Conditioning
from worker.sampling.guidance import Guidance, Predictions, combine
from worker.sampling.model import LoadedModel
from worker.sampling.noise import draw_noise, make_generator
from worker.sampling.rows.prepare import PreparedJob
from worker.sampling.rows.step_inputs import (
    MAX_SLOTS,
    Floats,
    RowAssignment,
    StepInputs,
    make_step_inputs,
    own_scheduler_coefficients,
    pack,
)
from worker.sampling.schedules.programs import ScheduleProgram, make_scheduler, step_options
from worker.sampling.schedules.rounding import RootsOfRounding
from worker.sampling.schedules.unroll import initial_scale, scale_input


@dataclass(kw_only=True, eq=False)
class OwnScheduler:
    """A scheduler object of one job, for a configuration that is no linear program."""

    scheduler: Any
    options: dict[str, Any]
    sample: torch.Tensor  # (1, *latent_shape) float32


@dataclass(kw_only=True, eq=False)
class ActiveJob:
    """A job on its way through the batch."""

    #: What its owner knows it by.
    ticket: int
    prepared: PreparedJob
    #: What each of its texts conditions a row with, by branch (see `guidance`).
    texts: dict[int, Conditioning]
    generator: torch.Generator
    #: What each evaluation tells the device (see `step_inputs`).
    coefficients: Floats  # (N, P)
    own: OwnScheduler | None = None
    #: Model evaluations done.
    done: int = 0

    @property
    def guidance(self) -> Guidance:
        """What the job's next evaluation does."""
        return self.prepared.guidance[self.done]

    @property
    def draws(self) -> int:
        """Noises that the job draws after its next evaluation; an own scheduler draws for itself."""
        program = self.prepared.program
        return program.draws[self.done] if isinstance(program, ScheduleProgram) else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A job's final latents."""

    ticket: int
    prepared: PreparedJob
    latents: torch.Tensor  # (1, *latent_shape) float32, scaled as the denoiser sees them
    #: R of the batch.
    batch_rows: int


def stack(rows: Sequence[Conditioning]) -> Conditioning:
    """Return the conditioning of some rows: each tensor with a first dimension of as many rows."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class RowBatch:
    """See the module. All jobs have one image size and one text length; latents are written (C, h, w) here."""

    def __init__(
        self, model: LoadedModel, *, shape: tuple[int, int, int], rows: int, notice: Notice = ignore
    ) -> None:
        self.shape = shape
        self.rows = rows
        self._notice = notice
        self._model = model
        height, width, _ = shape
        self._latent = model.networks.latent_shape(height, width)
        self._places: list[ActiveJob | None] = [None] * rows
        #: Places in the order their jobs came: the first has first call on rows.
        self._order: list[int] = []
        options: dict[str, Any] = {"dtype": torch.float32, "device": model.device}
        self._state = torch.zeros(rows, MAX_SLOTS, *self._latent, **options)  # (J, K, C, h, w)
        self._memory = torch.zeros(rows, *self._latent, **options)  # (J, C, h, w)
        self._conditioned: list[Conditioning] = []
        self._conditioning: Conditioning = {}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def jobs(self) -> list[ActiveJob]:
        """The jobs in the batch, in the order they came."""
        return [self._at(place) for place in self._order]

    def has_room(self, job: PreparedJob) -> bool:
        """Whether a job would take part in the next step."""
        taken = self._assign_rows().used
        return len(self) < self.rows and taken + len(job.guidance[0].branches) <= self.rows

    def rows_taken(self) -> dict[int, int]:
        """Return how many rows each job takes at the next step, by ticket; those that wait are left out."""
        return {self._at(place).ticket: len(rows) for place, rows in self._assign_rows().taken.items()}

    @torch.inference_mode()
    def admit(self, ticket: int, prepared: PreparedJob, texts: dict[int, Conditioning]) -> None:
        """Give a job a place and draw its first noise."""
        place, program = self._places.index(None), prepared.program
        generator = make_generator(prepared.request.seed)
        noise = draw_noise(generator, self._latent).to(self._model.device, non_blocking=True)  # (1, C, h, w)
        self._state[place], self._memory[place] = 0, 0
        own = None
        if isinstance(program, ScheduleProgram):
            coefficients = pack(program)
            self._state[place, 0] = noise[0] * float(program.start[0])
        else:
            own = self._own_scheduler(prepared, generator, noise)
            coefficients = own_scheduler_coefficients(own.scheduler.timesteps)
            self._show(place, own, 0)
        self._order.append(place)
        self._places[place] = ActiveJob(
            ticket=ticket,
            prepared=prepared,
            texts=texts,
            generator=generator,
            coefficients=coefficients,
            own=own,
        )

    def clear(self) -> list[ActiveJob]:
        """Take all jobs out; they would have to begin again."""
        jobs = self.jobs
        self._places, self._order = [None] * self.rows, []
        self._conditioned, self._conditioning = [], {}
        return jobs

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        """Take a step of every job that gets its rows, in one denoiser call, and return the jobs that are done."""
        assignment = self._assign_rows()
        step = make_step_inputs(
            assignment, self._steps(assignment), self._model.device, latent_rank=len(self._latent)
        )
        self._advance(assignment, step)
        self._notice(StepDone(used=assignment.used, rows=self.rows))
        return list(self._finish(assignment))

    def _assign_rows(self) -> RowAssignment:
        assignment = RowAssignment(rows=self.rows)
        for place in self._order:
            assignment.assign(place, self._at(place).guidance.branches)
        return assignment

    def _steps(self, assignment: RowAssignment) -> dict[int, tuple[Guidance, Floats]]:
        jobs = {place: self._at(place) for place in assignment.places}
        return {place: (job.guidance, job.coefficients[job.done]) for place, job in jobs.items()}

    # --- a step ---------------------------------------------------------------------------------------------

    def _advance(self, assignment: RowAssignment, step: StepInputs) -> None:
        slots = step.slots
        inputs = self._state[:, 0] * step.scale  # (J, C, h, w)
        predicted = self._model.networks.denoise(
            inputs[step.row_places], step.timesteps, self._condition(assignment)
        )  # (R, C, h, w)
        m, memory = combine(
            Predictions(
                branches=[predicted[step.branch_rows[:, branch]] for branch in range(step.branches)],
                weights=step.weights,
                numbers=step.numbers,
                is_empty=step.is_empty,
                memory=self._memory,
            ),
            step.methods,
            step.rescale,
        )
        moved = m[:, None] * step.b[:, :slots]  # (J, K, C, h, w)
        for slot in range(slots):
            moved = moved + self._state[:, slot : slot + 1] * step.A[:, :slots, slot]
        for number, noise in enumerate(self._draw(assignment)):
            moved = moved + noise[:, None] * step.G[:, :slots, number]
        self._state[:, :slots] = torch.where(step.active[:, None], moved, self._state[:, :slots])
        self._memory = torch.where(step.active, memory, self._memory)
        for place in assignment.places:
            job = self._at(place)
            if job.own is not None:
                self._step_own(place, job.own, job.done, m[place : place + 1])

    def _draw(self, assignment: RowAssignment) -> Iterator[torch.Tensor]:
        """Yield the noises of this step, (J, C, h, w) each: each job's next ones, in order, zeros where none."""
        draws = {place: self._at(place).draws for place in assignment.places}
        for number in range(max(draws.values(), default=0)):
            noise = torch.zeros(self.rows, *self._latent, pin_memory=self._model.device.type == "cuda")
            for place, count in draws.items():
                if number < count:
                    noise[place] = draw_noise(self._at(place).generator, self._latent)[0]
            yield noise.to(self._model.device, non_blocking=True)

    def _condition(self, assignment: RowAssignment) -> Conditioning:
        """Return the conditioning of all rows; the last one again where the rows have the same texts."""
        texts = [self._at(place).texts[branch] for place, branch in assignment.owners]
        texts += [texts[0]] * (self.rows - len(texts))
        if len(texts) != len(self._conditioned) or any(
            new is not old for new, old in zip(texts, self._conditioned, strict=True)
        ):
            self._conditioning = stack(texts)
            self._conditioned = texts
        return self._conditioning

    def _finish(self, assignment: RowAssignment) -> Iterator[Finished]:
        for place in assignment.places:
            job = self._at(place)
            job.done += 1
            if job.done == len(job.prepared.guidance):
                latents = self._final(place, job)
                yield Finished(
                    ticket=job.ticket, prepared=job.prepared, latents=latents, batch_rows=self.rows
                )
                self._places[place] = None
                self._order.remove(place)

    def _final(self, place: int, job: ActiveJob) -> torch.Tensor:
        if job.own is not None:
            return job.own.sample
        return self._state[place, :1].clone()  # slot 0 is the sample

    def _at(self, place: int) -> ActiveJob:
        job = self._places[place]
        assert job is not None
        return job

    # --- jobs with a scheduler of their own -------------------------------------------------------------------

    def _own_scheduler(
        self, prepared: PreparedJob, generator: torch.Generator, noise: torch.Tensor
    ) -> OwnScheduler:
        request = prepared.request
        scheduler = make_scheduler(self._model.scheduler_config, request.scheduler, request.steps)
        return OwnScheduler(
            scheduler=scheduler,
            options=step_options(scheduler, request.scheduler, generator),
            sample=noise * initial_scale(scheduler),
        )

    def _show(self, place: int, own: OwnScheduler, evaluation: int) -> None:
        """Put what the denoiser sees next where the step finds it: slot 0, already scaled."""
        timestep = own.scheduler.timesteps[evaluation]
        self._state[place, 0] = scale_input(own.scheduler, own.sample, timestep)[0]

    def _step_own(self, place: int, own: OwnScheduler, evaluation: int, m: torch.Tensor) -> None:
        timesteps = own.scheduler.timesteps
        with RootsOfRounding():
            own.sample = own.scheduler.step(
                m, timesteps[evaluation], own.sample, return_dict=False, **own.options
            )[0]
        if evaluation + 1 < len(timesteps):
            self._show(place, own, evaluation + 1)
