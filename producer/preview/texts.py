"""Computes what the texts of a plan cost the text encoders, by model. Knows nothing of plans' axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from producer.preview.count import BlockCount
from producer.preview.tokens import CHUNK_TOKENS, ModelTokenizer, TextSize, least_size

#: Prompts, and negatives, kept as examples of those that take several chunks.
_EXAMPLES = 3

#: Counted with the model's own tokenizer; the least that CLIP could make of it, which is no count; not known at all.
Basis = Literal["counted", "at least", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFound:
    """What is known of how a model reads texts."""

    #: None where its files are not here.
    tokenizer: ModelTokenizer | None = None
    #: Why there is none, and what would bring one; "" where there is.
    reason: str = ""
    #: Whether the model reads texts in ways of its own, not in CLIP's chunks.
    other_kind: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LongText:
    """A text that takes several chunks of a text encoder."""

    text: str
    tokens: int
    negative: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTexts:
    """What the text encoders of one model have to read."""

    #: The model as the sweep names it, and what it is.
    model: str
    fingerprint: str
    #: Different prompts, different negatives, and both with the empty text where guidance needs it.
    prompts: int
    negatives: int
    texts: int
    #: Rows of all text encoders: one for each chunk of each text.
    encoder_rows: int
    #: Tokens of the longest text and of all; None where they are unknown.
    tokens_max: int | None
    tokens: int | None
    #: Tokens of a chunk, begin and end marks included.
    chunk_tokens: int
    #: Prompts and negatives of more than one chunk, and the longest of both.
    long_prompts: int
    long_negatives: int
    longest: tuple[LongText, ...]
    #: How token counts came about, and why so where no tokenizer counted them.
    basis: Basis
    reason: str
    #: Jobs that the texts were read off, evenly spread; None for all.
    looked_at: int | None


def count_texts(
    counts: Iterable[BlockCount], names: Mapping[str, str], tokenizers: Mapping[str, TokenizerFound]
) -> tuple[ModelTexts, ...]:
    """Return what each model has to read, in the order of the plan.

    Args:
        names: fingerprint -> the model's name in the sweep.
        tokenizers: fingerprint -> what is known of its tokenizer.
    """
    blocks: dict[str, list[BlockCount]] = {}
    for found in counts:
        blocks.setdefault(found.block.bucket.model, []).append(found)
    unknown = TokenizerFound(reason="the model is not on this machine")
    return tuple(
        _model_texts(names.get(model, model), model, found, tokenizers.get(model, unknown))
        for model, found in blocks.items()
    )


def _model_texts(name: str, model: str, blocks: list[BlockCount], found: TokenizerFound) -> ModelTexts:
    prompts = {text for block in blocks for text in block.prompts}
    negatives = {text for block in blocks for text in block.negatives}
    sizes = _sizes([*(prompts | negatives), ""], found)
    texts = prompts | negatives | _empty(blocks, found, (sizes[text] for text in prompts | negatives))
    long_prompts = _longest(prompts, sizes, negative=False)
    long_negatives = _longest(negatives, sizes, negative=True)
    looked_at = [block.looked_at for block in blocks if block.looked_at is not None]
    return ModelTexts(
        model=name,
        fingerprint=model,
        prompts=len(prompts),
        negatives=len(negatives),
        texts=len(texts),
        encoder_rows=sum(sizes[text].chunks for text in texts) * _encoders(found),
        tokens_max=None if found.other_kind else max(sizes[text].tokens for text in texts),
        tokens=None if found.other_kind else sum(sizes[text].tokens for text in texts),
        chunk_tokens=found.tokenizer.content + 2 if found.tokenizer else CHUNK_TOKENS,
        long_prompts=len(long_prompts),
        long_negatives=len(long_negatives),
        longest=(*long_prompts[:_EXAMPLES], *long_negatives[:_EXAMPLES]),
        basis=_basis(found),
        reason=found.reason,
        looked_at=sum(looked_at) if looked_at else None,
    )


def _longest(texts: set[str], sizes: Mapping[str, TextSize], *, negative: bool) -> list[LongText]:
    """Return the texts of several chunks, the longest first."""
    long = [
        LongText(text=text, tokens=sizes[text].tokens, negative=negative)
        for text in texts
        if sizes[text].chunks > 1
    ]
    return sorted(long, key=lambda one: (-one.tokens, one.text))


def _sizes(texts: list[str], found: TokenizerFound) -> dict[str, TextSize]:
    if found.other_kind:
        return dict.fromkeys(texts, TextSize(tokens=0, chunks=1))
    if found.tokenizer is None:
        return {text: least_size(text) for text in texts}
    return dict(zip(texts, found.tokenizer.sizes(texts), strict=True))


def _empty(blocks: list[BlockCount], found: TokenizerFound, sizes: Iterable[TextSize]) -> set[str]:
    """Return the empty text if it is encoded: for no negative, for a rule that wants it, to fill up shorter texts."""
    zeros = found.tokenizer is not None and found.tokenizer.null_is_zeros
    lengths = {size.chunks for size in sizes}
    wanted = any(block.without_negative or block.needs_empty for block in blocks) and not zeros
    return {""} if wanted or len(lengths) > 1 else set()


def _encoders(found: TokenizerFound) -> int:
    return found.tokenizer.encoders if found.tokenizer else 1


def _basis(found: TokenizerFound) -> Basis:
    if found.other_kind:
        return "unknown"
    return "counted" if found.tokenizer else "at least"
