"""Stable Diffusion 1.x and 2.x: a UNet conditioned on the last hidden states of one CLIP encoder.

A chunk of a text is encoded alone and cached by its token ids, so an encoder runs once per distinct chunk, not per
image, and an embedding never depends on what was encoded beside it: for texts of one chunk it is bit for bit what
diffusers' pipeline computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.sampling.cache import LruCache
from worker.sampling.families.base import Conditioning, ImageSettings, TokenChunk, TokenizedText
from worker.sampling.families.clip_texts import chunk_size, cut_into_chunks, pad_chunks

#: Chunks whose embeddings are kept. SDXL in fp16: 77 x 2048 x 2 bytes, so about 160 MB when full.
EMBEDDINGS_KEPT = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChunk:
    """What one CLIP encoder makes of one chunk."""

    hidden: torch.Tensor  # (77, D)
    #: The pooled embedding, where the family has one.
    pooled: torch.Tensor | None  # (P,)


@dataclass(kw_only=True, eq=False)
class StableDiffusion:
    """The networks of Stable Diffusion 1.x and 2.x; see `FamilyNetworks` for the methods."""

    #: diffusers' UNet2DConditionModel and AutoencoderKL.
    unet: Any
    vae: Any
    #: CLIP text encoders with their tokenizers, in the order their hidden states are concatenated.
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    device: torch.device
    #: Of the UNet and the text encoders.
    dtype: torch.dtype
    #: Of the VAE: bfloat16 or float32 where float16 overflows.
    vae_dtype: torch.dtype
    #: Encoded chunks, by the encoder's number and token ids; they live and die with the encoders.
    embeddings: LruCache[tuple[int, TokenChunk], EncodedChunk] = field(
        default_factory=lambda: LruCache(EMBEDDINGS_KEPT)
    )

    @property
    def family(self) -> str:
        """The family's name."""
        return "sd"

    @property
    def size_unit_px(self) -> int:
        """Pixels per latent, along each side: the VAE halves the size between its blocks."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the latents of one image, (C, h, w)."""
        return (self.unet.config.in_channels, height // self.size_unit_px, width // self.size_unit_px)

    def tokenize(self, text: str | None) -> TokenizedText:
        """Return a text's chunks; a missing negative prompt is an empty text."""
        return cut_into_chunks(self.tokenizers, self._chunk_sizes(), text or "")

    def condition(self, text: TokenizedText, settings: ImageSettings) -> Conditioning:
        """Return the hidden states of all chunks, (77 * chunks, D)."""
        return {"hidden": self._hidden(text, settings.text_length)}

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Call the UNet; latents and predictions are (R, C, h, w) float32."""
        predicted: torch.Tensor = self.unet(
            latents.to(self.dtype),
            timesteps,
            return_dict=False,
            encoder_hidden_states=conditioning["hidden"],  # (R, 77 * chunks, D)
        )[0]
        return predicted.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Call the VAE on the latents of one image, (1, C, h, w)."""
        values: torch.Tensor = self.vae.decode(self._unscaled(latents).to(self.vae_dtype), return_dict=False)[
            0
        ]
        return values.float()

    def compile_denoiser(self, compile_module: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
        """Replace the UNet by its compiled form."""
        self.unet = compile_module(self.unet)

    # --- what SDXL does in another way ------------------------------------------------------------------------

    def _encode_chunk(self, encoder: int, ids: torch.Tensor) -> EncodedChunk:
        """Return the encoder's last hidden states of one chunk, (1, 77)."""
        module = self.text_encoders[encoder]
        masked = getattr(module.config, "use_attention_mask", False)
        mask = self._attention_mask(encoder, ids) if masked else None
        return EncodedChunk(hidden=module(ids, attention_mask=mask)[0][0], pooled=None)

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Return final latents as the VAE expects them: without the scaling factor."""
        unscaled: torch.Tensor = latents / self.vae.config.scaling_factor
        return unscaled

    # --- what both share --------------------------------------------------------------------------------------

    def _chunk_sizes(self) -> list[int]:
        return [
            chunk_size(tokenizer, encoder)
            for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True)
        ]

    def _hidden(self, text: TokenizedText, length: int) -> torch.Tensor:
        """Return the hidden states of a text padded to `length` chunks, the encoders side by side."""
        encoded = [
            torch.cat([self._encoded(encoder, chunk).hidden for chunk in chunks])
            for encoder, chunks in enumerate(self._padded(text, length))
        ]
        return torch.cat(encoded, dim=-1)

    def _padded(self, text: TokenizedText, length: int) -> list[list[TokenChunk]]:
        """Return a text's chunks for each encoder, with empty ones behind them."""
        sizes = self._chunk_sizes()
        return [
            list(pad_chunks(chunks, self.tokenizers[encoder], sizes[encoder], length=length))
            for encoder, chunks in enumerate(text.chunks)
        ]

    def _encoded(self, encoder: int, chunk: TokenChunk) -> EncodedChunk:
        def run() -> EncodedChunk:
            return self._encode_chunk(encoder, torch.tensor([chunk], device=self.device))  # (1, 77)

        return self.embeddings.get_or_make((encoder, chunk), run)

    def _attention_mask(self, encoder: int, ids: torch.Tensor) -> torch.Tensor:
        """Return 1 up to and including the first EOS, 0 on the padding behind it."""
        ends = ids == self.tokenizers[encoder].eos_token_id
        return ((ends.cumsum(dim=1) - ends.int()) == 0).long()
