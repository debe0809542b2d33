"""What the sampler is asked for and what it answers. Knows nothing of models or tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from shared.errors import RenderError
from shared.job import Job


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """One image to sample."""

    prompt: str
    #: The text of the unconditional branch. None is not "": SDXL takes zeros for None.
    negative_prompt: str | None
    #: Seed of the image's own CPU generator, 0 <= seed < 2**64.
    seed: int
    #: w of classifier-free guidance; at 1 or less there is no negative branch.
    guidance_scale: float
    #: Sampling steps, 1 or more.
    steps: int
    #: A name in `shared.schedulers.SCHEDULERS`.
    scheduler: str
    #: Image size, pixels; a multiple of the model's VAE scale factor.
    width: int
    height: int
    #: Canonical text of a guidance rule (`shared.guidance`); None is plain classifier-free guidance.
    guidance_rule: str | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the request for a job's image: the job's fields that have the same names."""
        return cls(**{field.name: getattr(job, field.name) for field in fields(cls)})

    @property
    def guided(self) -> bool:
        """Whether there is a negative branch, as in diffusers: only for a scale above 1."""
        return self.guidance_scale > 1.0

    @property
    def rows(self) -> int:
        """UNet batch elements this image takes at every step."""
        return 2 if self.guided else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """An image came out."""

    #: Position of the request in what `sample` was given.
    request_index: int
    #: RGB, uint8.
    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    #: Tokens of each prompt, without the begin and end marks; the negative is 0 where it is not used.
    prompt_tokens: int
    negative_tokens: int
    #: The image's share of the seconds its batches took, text to pixels, by rows.
    seconds: float
    #: R, the rows of the UNet calls it took part in: with another R the last bits differ.
    batch_rows: int
    #: The network's: float16, bfloat16, float32.
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFailed:
    """No image came out, and why. The other requests are not touched."""

    request_index: int
    error: RenderError


SampleOutcome = Sampled | SampleFailed
