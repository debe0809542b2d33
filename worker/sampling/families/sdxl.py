"""Stable Diffusion XL: a UNet conditioned on two CLIP encoders side by side, a pooled text and the image's size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.sampling.families.base import Conditioning, ImageSettings, TokenizedText
from worker.sampling.families.sd import EncodedChunk, StableDiffusion

#: A missing negative prompt where it is zeros: no encoder runs for it, and it has no length of its own.
NO_TEXT = TokenizedText(tokens=0, length=0, chunks=())


@dataclass(kw_only=True, eq=False)
class StableDiffusionXL(StableDiffusion):
    """The networks of Stable Diffusion XL; see `FamilyNetworks` for the methods."""

    #: Whether a missing negative prompt is zeros (True) or an encoded empty text (False).
    zeros_for_null_negative: bool

    @property
    def family(self) -> str:
        """The family's name."""
        return "sdxl"

    def tokenize(self, text: str | None) -> TokenizedText:
        """Return a text's chunks. A missing negative prompt and an empty one are two things here."""
        if text is None and self.zeros_for_null_negative:
            return NO_TEXT
        return super().tokenize(text)

    def condition(self, text: TokenizedText, settings: ImageSettings) -> Conditioning:
        """Return hidden states (77 * chunks, D), the first chunk's pooled text (P,), and the sizes (6,)."""
        hidden, pooled = (
            self._zeros(settings) if not text.chunks else self._encoded_text(text, settings.text_length)
        )
        # The original size, the crop's corner and the target size, as the model was trained on.
        sizes = [settings.height, settings.width, 0, 0, settings.height, settings.width]
        time_ids = torch.tensor(sizes, dtype=hidden.dtype).to(self.device, non_blocking=True)
        return {"hidden": hidden, "pooled": pooled, "time_ids": time_ids}

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Call the UNet; latents and predictions are (R, C, h, w) float32."""
        predicted: torch.Tensor = self.unet(
            latents.to(self.dtype),
            timesteps,
            return_dict=False,
            encoder_hidden_states=conditioning["hidden"],  # (R, 77 * chunks, D)
            added_cond_kwargs={
                "text_embeds": conditioning["pooled"],  # (R, P)
                "time_ids": conditioning["time_ids"],  # (R, 6)
            },
        )[0]
        return predicted.float()

    def _encode_chunk(self, encoder: int, ids: torch.Tensor) -> EncodedChunk:
        """Return the layer before the last, without the final norm: what SDXL was trained on."""
        output = self.text_encoders[encoder](ids, output_hidden_states=True)
        # The second encoder has a projection: its first output is the pooled embedding, (1, P).
        pooled = output[0][0] if output[0].ndim == 2 else None
        return EncodedChunk(hidden=output.hidden_states[-2][0], pooled=pooled)

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Undo the scaling; mean and deviation are restored where the VAE's config has both."""
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            return super()._unscaled(latents)
        return latents * _per_channel(std, latents) / config.scaling_factor + _per_channel(mean, latents)

    def _encoded_text(self, text: TokenizedText, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states and pooled text; the pooled one is the last encoder's, of the first chunk."""
        pooled = self._encoded(len(self.text_encoders) - 1, text.chunks[-1][0]).pooled
        assert pooled is not None
        return self._hidden(text, length), pooled

    def _zeros(self, settings: ImageSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what stands for a missing negative prompt: zeros of the shapes of an encoded text."""
        tokens = settings.text_length * self._chunk_sizes()[0]
        width = sum(encoder.config.hidden_size for encoder in self.text_encoders)
        pooled_width = self.text_encoders[-1].config.projection_dim
        hidden = torch.zeros(tokens, width, dtype=self.dtype, device=self.device)
        return hidden, torch.zeros(pooled_width, dtype=self.dtype, device=self.device)


def _per_channel(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True).view(1, -1, 1, 1)
