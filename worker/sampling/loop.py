"""The sampling loop: one batch of prepared jobs to final latents. Knows nothing of pixels or of failures.

One UNet call a step for all rows of the batch, guidance per image, one scheduler for the batch, one
generator per image. In float32 it computes what diffusers' pipelines compute. In float16 it differs from
them on purpose: only the UNet runs in half precision; latents, guidance and the scheduler's arithmetic stay
in float32, where the pipelines round all three to float16 at every step.

The loop itself reads no device memory on the host: timesteps and sigmas stay on the CPU for the scheduler,
and the UNet gets its own copy of the timesteps on the device. What still makes the host wait at a step are
the copies of freshly drawn noise (ancestral and SDE samplers) and UniPC's own linear solve.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import torch

from shared.errors import JobInvalid
from shared.schedulers import SCHEDULERS
from worker.sampling.batch import Batch, PreparedJob
from worker.sampling.guidance import guide, scale_column, stack_rows
from worker.sampling.model import LoadedModel
from worker.sampling.noise import draw_latents, make_generators
from worker.sampling.text import Conditioning, encode, zeros_like


@torch.inference_mode()
def sample_latents(model: LoadedModel, batch: Batch, on_step: Callable[[], None]) -> torch.Tensor:
    """Sample a batch and return its final latents, scaled as the UNet sees them, (B, C, h, w) float32.

    Args:
        model: what to sample with.
        batch: jobs of one loop, guided ones first.
        on_step: called after every UNet call.

    Raises:
        JobInvalid: the scheduler refuses the number of steps.
    """
    first, guided = batch[0].request, [job for job in batch if job.request.guided]
    scheduler = make_scheduler(model, first.scheduler, first.steps)
    generators = make_generators([job.request.seed for job in batch])
    step_options = _step_options(scheduler, generators)
    scales = scale_column([job.request.guidance_scale for job in guided], model.device)
    conditioning = _unet_conditioning(model, batch)
    timesteps = scheduler.timesteps.to(model.device)

    latents = draw_latents(generators, _latent_shape(model, first.height, first.width), model.device)
    latents = latents * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep).to(model.dtype)
        rows = model.unet(
            stack_rows(scaled, len(guided)), timesteps[step], return_dict=False, **conditioning
        )[0]
        prediction = guide(rows.float(), scales)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **step_options)[0]
        on_step()
    return latents


def make_scheduler(model: LoadedModel, name: str, steps: int) -> Any:
    """Return a fresh diffusers scheduler for a loop, made as diffusers' users make it.

    Raises:
        JobInvalid: the scheduler refuses the model's config or the number of steps.
    """
    spec = SCHEDULERS[name]
    try:
        scheduler = getattr(diffusers, spec.class_name).from_config(model.scheduler_config, **spec.overrides)
        scheduler.set_timesteps(steps, device="cpu")
    except (ValueError, NotImplementedError) as error:
        raise JobInvalid(f"scheduler={name}, steps={steps}: {error}") from error
    # Without it the scheduler searches its timesteps for the first one, and where a schedule repeats that
    # timestep (many steps, dense at the start) it would begin at the second.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def _step_options(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """Return what the pipelines pass to a scheduler's step: the generators, and eta = 0 where it is known."""
    options = {"generator": generators, "eta": 0.0}
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in options.items() if name in known}


def _latent_shape(model: LoadedModel, height: int, width: int) -> tuple[int, int, int]:
    return (model.unet.config.in_channels, height // model.vae_scale_factor, width // model.vae_scale_factor)


def _unet_conditioning(model: LoadedModel, batch: Batch) -> dict[str, Any]:
    """Return the UNet's keyword arguments that stay the same at every step, for all rows of a batch."""
    positives = [encode(model, job.prompt, length=job.length) for job in batch]
    negatives = [
        _negative(model, job, positive)
        for job, positive in zip(batch, positives, strict=True)
        if job.request.guided
    ]
    rows = [*negatives, *positives]
    hidden = torch.stack([row.hidden for row in rows])  # (R, 77 * chunks, D)
    if model.family == "sd":
        return {"encoder_hidden_states": hidden}
    pooled = torch.stack([row.pooled for row in rows if row.pooled is not None])  # (R, P)
    time_ids = _time_ids(batch[0], hidden).expand(len(rows), 6)
    return {
        "encoder_hidden_states": hidden,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
    }


def _negative(model: LoadedModel, job: PreparedJob, positive: Conditioning) -> Conditioning:
    """Return the negative row of a guided job: its text, or zeros where it has none."""
    if job.negative is None:
        return zeros_like(positive)
    return encode(model, job.negative, length=job.length)


def _time_ids(job: PreparedJob, like: torch.Tensor) -> torch.Tensor:
    """Return SDXL's size conditioning: original size, crop corner, target size, (1, 6)."""
    height, width = job.request.height, job.request.width
    return torch.tensor([[height, width, 0, 0, height, width]], dtype=like.dtype, device=like.device)
