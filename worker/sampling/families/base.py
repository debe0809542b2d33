"""What the row engine needs from a family of models: its loaded networks, and six calls on them. Knows no family.

Batching, guidance, schedules, noise and failures belong to the engine. Everything that differs between families stands
behind `FamilyNetworks`: the shape of latents, how texts are tokenized and encoded, what a missing negative prompt
means, the denoiser's arguments, and the decoder. To add a family, write two modules: one beside this one with a class
that has these methods, and one in `worker.models.families` that loads it. docs/families.md lists the steps.

The engine also measures the memory of a row and of a decoded image by these calls, so a family states no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

#: Token ids that an encoder reads in one call, with begin and end marks and padding.
TokenChunk = tuple[int, ...]

#: What one row of the denoiser is conditioned on: tensors by name, without a row dimension. The names and shapes are
#: the family's own. For one image size and one text length they are equal for all rows: the engine stacks them along
#: a new first dimension and passes them back to the family, but never reads them. A family whose texts have different
#: lengths pads each text to `ImageSettings.text_length` and adds a mask, or a length, as one more tensor.
Conditioning = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedText:
    """A text as every text encoder of a model reads it."""

    #: Tokens of the text, without begin and end marks, as the first tokenizer counts them.
    tokens: int
    #: Length of the text in the family's own unit (for CLIP, chunks). The texts of a job are padded to their longest.
    length: int
    #: Token ids of each text encoder, in the order of the encoders; empty where no encoder runs.
    chunks: tuple[tuple[TokenChunk, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """What a row's conditioning may depend on beside its text."""

    #: Pixels.
    height: int
    width: int
    #: Length that the text is padded to, in the unit of `TokenizedText.length`.
    text_length: int
    #: The job's scale, for families whose denoiser takes it as an input.
    guidance_scale: float


class FamilyNetworks(Protocol):
    """A model's networks and tokenizers on their device. No method may depend on what stands in other rows."""

    @property
    def family(self) -> str:
        """The family's name, for people and logs."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's dtype; it is recorded with every image."""
        ...

    @property
    def size_unit_px(self) -> int:
        """Width and height of an image must be multiples of this."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of one image's latents, without a row dimension; of any rank, channels first."""
        ...

    def tokenize(self, text: str | None) -> TokenizedText:
        """Return a text's token ids. None is a missing negative prompt; the family decides what it means."""
        ...

    def condition(self, text: TokenizedText, settings: ImageSettings) -> Conditioning:
        """Return what a row with this text is conditioned on. Called once for each text of a job."""
        ...

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Run the denoiser once.

        Args:
            latents: (R, *latent_shape) float32, scaled as the schedule says.
            timesteps: (R,) float32; rows may stand at different timesteps.
            conditioning: the rows' conditionings, stacked along a first dimension of R.

        Returns: predictions, (R, *latent_shape) float32.
        """
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pixel values of one image, (1, 3, H, W) float32 from -1 to 1.

        Args:
            latents: final latents, (1, *latent_shape) float32, scaled as the denoiser sees them.
        """
        ...

    def compile_denoiser(self, compile_module: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
        """Replace the denoiser by its compiled form."""
        ...
