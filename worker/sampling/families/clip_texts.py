"""Texts to chunks of token ids for CLIP encoders, which read 77 tokens at once. Knows nothing of networks.

A text is cut into chunks of 75 tokens, each wrapped in BOS and EOS and padded to 77 as the tokenizer pads; nothing is
ever truncated. Behind a text that is shorter than the others of its image stand empty chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.sampling.families.base import TokenChunk, TokenizedText


def chunk_size(tokenizer: Any, encoder: Any) -> int:
    """Return how many tokens an encoder takes at once, with BOS and EOS: 77 in every CLIP of SD and SDXL."""
    limit: int = encoder.config.max_position_embeddings
    return min(tokenizer.model_max_length, limit)


def cut_into_chunks(tokenizers: Sequence[Any], sizes: Sequence[int], text: str) -> TokenizedText:
    """Cut a text into chunks for each encoder; all encoders get the same number of chunks.

    Args:
        tokenizers: one per encoder.
        sizes: tokens that each encoder takes at once.
        text: of any length.
    """
    ids = [_content_ids(tokenizer, text) for tokenizer in tokenizers]
    length = max(max(1, -(-len(row) // (size - 2))) for row, size in zip(ids, sizes, strict=True))
    chunks = tuple(
        tuple(
            _wrap(tokenizer, row[start * (size - 2) : (start + 1) * (size - 2)], size)
            for start in range(length)
        )
        for tokenizer, row, size in zip(tokenizers, ids, sizes, strict=True)
    )
    return TokenizedText(tokens=len(ids[0]), length=length, chunks=chunks)


def pad_chunks(
    chunks: Sequence[TokenChunk], tokenizer: Any, size: int, *, length: int
) -> Sequence[TokenChunk]:
    """Return `length` chunks: a text's own, then empty ones."""
    return [*chunks, *[_wrap(tokenizer, [], size)] * (length - len(chunks))]


def _content_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text without BOS and EOS. `verbose` would warn of lengths that we handle."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def _wrap(tokenizer: Any, content: Sequence[int], size: int) -> TokenChunk:
    """Return one chunk: BOS, content, EOS, padding."""
    marked = [tokenizer.bos_token_id, *content, tokenizer.eos_token_id]
    return (*marked, *[tokenizer.pad_token_id] * (size - len(marked)))
