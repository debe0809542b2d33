"""Refuses texts that a pipeline would cut: watches what its tokenizers read. Knows nothing of requests or images.

Pipelines cut a text that is too long, and most say so in a log at best. Each has a limit of its own, and adds to a
text what it likes: marks, a conversation, a page of instructions. So what decides is what its tokenizers are really
asked: they are watched, and a text that none of them read to its end is found at the first step.

One reader is enough. Beside a T5 that reads hundreds of tokens, SD3, FLUX and Hunyuan-DiT have a CLIP or a BERT that
reads the first 77, by design.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase


class TextsCut(Exception):
    """A call was given texts that no tokenizer reads whole. Carries what happened to which rows."""

    def __init__(self, readings: list[TokenizedCall]) -> None:
        self.readings = readings
        super().__init__(f"{len(readings)} texts are longer than the pipeline reads")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedCall:
    """A text as a tokenizer got it, with all that the pipeline put around it."""

    text: str
    #: Its place in the tokenizer's call, and how many texts that call had.
    row: int
    rows: int
    #: Tokens it has, marks included, and tokens the tokenizer was asked to keep.
    tokens: int
    limit: int


@dataclass(kw_only=True, eq=False)
class TextWatch:
    """What the tokenizers of one pipeline were asked since the last `forget`."""

    #: The tokenizer with the most room: token counts are its.
    counter: Any
    readings: list[TokenizedCall] = field(default_factory=list)

    def count(self, text: str) -> int:
        """Return the tokens of a text, without marks. `verbose` would warn of lengths that we check."""
        return len(self.counter(text, add_special_tokens=False, verbose=False)["input_ids"])

    def forget(self) -> None:
        """Start anew, before a call."""
        self.readings.clear()

    def check(self) -> None:
        """Raise TextsCut if a text of this call was read whole by no tokenizer."""
        whole = {reading.text for reading in self.readings if reading.tokens <= reading.limit}
        cut = [reading for reading in self.readings if reading.text not in whole]
        if cut:
            raise TextsCut(cut)


def watch_texts(pipeline: Any) -> TextWatch:
    """Watch the tokenizers of a pipeline from now on."""
    tokenizers = list(_tokenizers(pipeline))
    roomiest = max(reversed(tokenizers), key=lambda tokenizer: tokenizer.model_max_length)
    watch = TextWatch(counter=roomiest)
    for tokenizer in tokenizers:
        _watch(tokenizer, watch)
    return watch


def _tokenizers(pipeline: Any) -> Iterator[Any]:
    """Yield a pipeline's tokenizers, also those inside processors."""
    for _, component in sorted(pipeline.components.items()):
        inner = getattr(component, "tokenizer", component)
        if isinstance(inner, PreTrainedTokenizerBase):
            yield inner


def _watch(tokenizer: Any, watch: TextWatch) -> None:
    """Have a tokenizer note what it is asked. Python looks `__call__` up on the class, so it gets one of its own."""
    plain = type(tokenizer)

    def call(self: Any, text: Any = None, *arguments: Any, **options: Any) -> Any:
        texts = [text] if isinstance(text, str) else list(text or [])
        if options.get("truncation") and all(isinstance(one, str) for one in texts):
            limit = options.get("max_length") or self.model_max_length
            special = options.get("add_special_tokens", True)
            whole = plain.__call__(self, texts, add_special_tokens=special, verbose=False)["input_ids"]
            watch.readings += [
                TokenizedCall(text=one, row=row, rows=len(texts), tokens=len(ids), limit=limit)
                for row, (one, ids) in enumerate(zip(texts, whole, strict=True))
            ]
        return plain.__call__(self, text, *arguments, **options)

    tokenizer.__class__ = type(plain.__name__, (plain,), {"__call__": call, "__module__": plain.__module__})
