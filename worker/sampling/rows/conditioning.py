"""Prompts to conditioning. Knows nothing of guidance scales, noise or pixels.

Both prompts stand on an equal footing. A text is cut into chunks of 75 tokens, each wrapped in BOS and EOS
and padded to 77 as the tokenizer pads; nothing is ever truncated. The shorter prompt of an image is padded
with empty chunks, since the UNet wants both of one length. SDXL's pooled embedding is the first chunk's.

A chunk is encoded alone and kept under its token ids, so an encoder row is spent per distinct chunk, not per
image, and an embedding never depends on what was encoded beside it: for texts of one chunk it is bit for bit
what diffusers' pipelines compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.sampling.families import family_of
from worker.sampling.families.base import Conditioning
from worker.sampling.model import LoadedModel

#: Token ids of one chunk, BOS and EOS and padding included.
TokenChunk = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedText:
    """A text as every encoder of a model reads it."""

    #: Tokens of the text, without BOS and EOS, as the first tokenizer counts.
    tokens: int
    #: Chunks per text encoder; each encoder has the same number.
    chunks: tuple[tuple[TokenChunk, ...], ...]

    @property
    def length(self) -> int:
        """Chunks per encoder."""
        return len(self.chunks[0])


def tokenize(model: LoadedModel, text: str) -> TokenizedText:
    """Cut a text into chunks for each text encoder of a model."""
    ids = [_content_ids(tokenizer, text) for tokenizer in model.tokenizers]
    sizes = [_chunk_size(model, encoder) for encoder in range(len(model.tokenizers))]
    length = max(max(1, -(-len(row) // (size - 2))) for row, size in zip(ids, sizes, strict=True))
    chunks = tuple(
        tuple(
            _wrap(tokenizer, row[start * (size - 2) : (start + 1) * (size - 2)], size)
            for start in range(length)
        )
        for tokenizer, row, size in zip(model.tokenizers, ids, sizes, strict=True)
    )
    return TokenizedText(tokens=len(ids[0]), chunks=chunks)


@torch.inference_mode()
def encode(model: LoadedModel, text: TokenizedText, *, length: int) -> Conditioning:
    """Encode a text to `length` chunks, empty chunks behind its own."""
    hidden, pooled = [], None
    for encoder, chunks in enumerate(text.chunks):
        empty = _wrap(model.tokenizers[encoder], [], _chunk_size(model, encoder))
        padded = [*chunks, *[empty] * (length - len(chunks))]
        parts = [_encode_chunk(model, encoder, chunk) for chunk in padded]
        hidden.append(torch.cat([part.hidden for part in parts]))
        pooled = parts[0].pooled  # of the last encoder, as SDXL has it
    return Conditioning(hidden=torch.cat(hidden, dim=-1), pooled=pooled)


def zeros_like(conditioning: Conditioning) -> Conditioning:
    """Return the conditioning that SDXL calls no text at all."""
    pooled = None if conditioning.pooled is None else torch.zeros_like(conditioning.pooled)
    return Conditioning(hidden=torch.zeros_like(conditioning.hidden), pooled=pooled)


def _content_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text without BOS and EOS. `verbose` would warn of lengths we handle."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def _chunk_size(model: LoadedModel, encoder: int) -> int:
    """Return how many tokens an encoder takes at once, with BOS and EOS: 77 in every CLIP of SD and SDXL."""
    limit: int = model.text_encoders[encoder].config.max_position_embeddings
    return min(model.tokenizers[encoder].model_max_length, limit)


def _wrap(tokenizer: Any, content: Sequence[int], size: int) -> TokenChunk:
    """Return one chunk: BOS, content, EOS, padding."""
    marked = [tokenizer.bos_token_id, *content, tokenizer.eos_token_id]
    return (*marked, *[tokenizer.pad_token_id] * (size - len(marked)))


def _encode_chunk(model: LoadedModel, encoder: int, chunk: TokenChunk) -> Conditioning:
    def run() -> Conditioning:
        ids = torch.tensor([chunk], device=model.device)  # (1, 77)
        return family_of(model).encode_chunk(model, encoder, ids)

    return model.embeddings.get_or_make((encoder, chunk), run)
