"""Learns CLIP's kind of vocabulary from captions and writes it as a tokenizer folder. Knows nothing of networks.

Byte-level BPE: any text has tokens; words of the captions are one token each, other words are spelt.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from training.portraits.networks import MAX_TOKENS

#: Merges learnt; with 512 byte tokens and two marks the vocabulary has up to 1100 tokens.
MERGES = 586

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"

#: How CLIP cuts ASCII text into words: letters together, digits apart, marks together.
_WORDS = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a BPE tokenizer knows."""

    #: Token to id; BOS and EOS are the last two.
    ids: Mapping[str, int]
    #: In the order they are applied.
    merges: list[Pair]

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({"ids": dict(self.ids), "merges": self.merges})

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Return what `to_json` wrote."""
        value = json.loads(text)
        return cls(ids=value["ids"], merges=[(left, right) for left, right in value["merges"]])


def learn_vocabulary(captions: Iterable[str]) -> Vocabulary:
    """Learn a vocabulary: again and again, the pair of symbols that occurs most often becomes one symbol."""
    words = _count_words(captions)
    merges: list[Pair] = []
    while len(merges) < MERGES:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {tuple(_merged(word, best)): count for word, count in words.items()}
    characters = sorted(_byte_characters())
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    return Vocabulary(ids={token: n for n, token in enumerate([*tokens, _BOS, _EOS])}, merges=merges)


def write_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    """Write a CLIPTokenizer's files: those of transformers 4 and the `tokenizer.json` of transformers 5."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": _BOS, "eos_token": _EOS, "pad_token": _EOS, "unk_token": _EOS}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in vocabulary.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "vocab.json", vocabulary.ids)
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": MAX_TOKENS,
            "do_lower_case": True,
        },
    )
    whole = folder / "whole"
    CLIPTokenizer.from_pretrained(str(folder)).save_pretrained(str(whole))
    (whole / "tokenizer.json").replace(folder / "tokenizer.json")
    shutil.rmtree(whole)


def tokenize(tokenizer: Any, captions: list[str]) -> Any:
    """Return the captions' token ids, (N, 77): cut and padded as a pipeline does it."""
    return tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )["input_ids"]


def _count_words(captions: Iterable[str]) -> dict[tuple[str, ...], int]:
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word in _WORDS.findall(caption.lower()) if word.isascii())
    return {(*word[:-1], f"{word[-1]}</w>"): count for word, count in sorted(counts.items())}


def _merged(word: tuple[str, ...], pair: Pair) -> Iterator[str]:
    """Yield a word's symbols with every occurrence of a pair made one symbol."""
    position = 0
    while position < len(word):
        if word[position : position + 2] == pair:
            yield pair[0] + pair[1]
            position += 2
        else:
            yield word[position]
            position += 1


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (as GPT-2's)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
