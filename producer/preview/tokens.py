"""Counts the tokens of a text as a model's own CLIP tokenizer does, from its files alone. Knows nothing of torch.

CLIP cuts a text into pieces (words, single digits, runs of signs) and each piece by its table of merges, so a text's
count is the sum of its pieces' counts. Pieces repeat from prompt to prompt and are counted once. Without a table the
number of pieces is a lower bound: each is a token or more.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

#: Tokens that CLIP reads at once in every Stable Diffusion, begin and end marks included.
CHUNK_TOKENS = 77

#: Begin and end mark of each chunk.
_MARKS = 2

#: Pipelines whose texts are cut into chunks by CLIP tokenizers alone. Others read texts in ways of their own.
_FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

#: What the tokenizer takes for space: Unicode's White_Space. Python's own \s also has the separators 1C to 1F.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = re.compile(f"[{_SPACE}]+")

#: CLIP's own pattern, over texts whose other letters, numbers and signs became a, 0 and !.
_PIECE = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", re.ASCII
)

#: What CLIP's pattern keeps apart as marks is cut once more before parts are merged: `<|`, `endoftext`, `|>`.
_MARK_TEXTS = frozenset(("<|startoftext|>", "<|endoftext|>"))
_MARKS_ALONE = re.compile("|".join(map(re.escape, sorted(_MARK_TEXTS))))
_SIGNS = re.compile(r"(?<=<\|)|(?=\|>)")

#: Ends the last part of every piece in the tables.
_WORD_END = "</w>"


class TokenizerInvalid(ValueError):
    """A model's tokenizer files are not CLIP's. The message names the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSize:
    """How long a text is to a model."""

    #: Without begin and end marks.
    tokens: int
    #: Rows that each text encoder takes for it.
    chunks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelTokenizer:
    """How the text encoders of a model read texts."""

    tables: tuple[MergeTable, ...]
    #: Text encoders; several may share a table.
    encoders: int = 1
    #: Tokens of a text that go into one chunk.
    content: int = CHUNK_TOKENS - _MARKS
    #: Whether no negative prompt is zeros to the model, and not an encoded empty text.
    null_is_zeros: bool = False

    def sizes(self, texts: Iterable[str]) -> list[TextSize]:
        """Return the size of each text. The first encoder's tokens are counted, as manifests have them."""
        return [self._size(text) for text in texts]

    def _size(self, text: str) -> TextSize:
        counts = [table.count(text) for table in self.tables]
        return TextSize(tokens=counts[0], chunks=_chunks(max(counts), self.content))


class MergeTable:
    """The byte-pair table of a CLIP tokenizer."""

    def __init__(self, merges: Sequence[tuple[str, str]], special: Sequence[str] = ()) -> None:
        """Take a table.

        Args:
            merges: pairs of parts, the first to merge first.
            special: texts that are one token each, wherever they stand.
        """
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._special = re.compile("|".join(map(re.escape, special))) if special else None
        self._counts = _Counts(self._count_piece)

    def count(self, text: str) -> int:
        """Return the tokens of a text, without begin and end marks."""
        if self._special is None or not self._special.search(text):
            return sum(map(self._counts.__getitem__, pieces(text)))
        parts = self._special.split(text)
        return len(parts) - 1 + sum(self._counts[piece] for part in parts for piece in pieces(part))

    def _count_piece(self, piece: str) -> int:
        alphabet = _byte_letters()
        parts = [alphabet[byte] for byte in piece.encode("utf-8", "surrogatepass")]
        parts[-1] += _WORD_END
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            parts = _merged(parts, best)
        return len(parts)


class _Counts(dict[str, int]):
    """Piece -> tokens, counted when first asked for."""

    def __init__(self, count: Any) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, piece: str) -> int:
        self[piece] = found = int(self._count(piece))
        return found


def pieces(text: str) -> list[str]:
    """Return what a text is cut into before its parts are merged: each is a token or more."""
    if text.isascii():
        found = _PIECE.findall(text.lower())
        return _cut_marks(found) if "|>" in text else found
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    # Letter by letter: Python's own lower() of a whole text knows a sigma at the end of a word.
    text = "".join(map(str.lower, text))
    shadow = "".join(map(_shadow, text))
    found = [text[match.start() : match.end()] for match in _PIECE.finditer(shadow)]
    return _cut_marks(found) if "|>" in text else found


def _cut_marks(found: list[str]) -> list[str]:
    """Return pieces with CLIP's own marks, where they are text and no marks, cut at their signs."""
    return [part for piece in found for part in (_SIGNS.split(piece) if piece in _MARK_TEXTS else [piece])]


def least_size(text: str) -> TextSize:
    """Return the least that a text can be to a CLIP tokenizer, whatever its table."""
    parts = _MARKS_ALONE.split(text)
    tokens = len(parts) - 1 + sum(len(pieces(part)) for part in parts)
    return TextSize(tokens=tokens, chunks=_chunks(tokens, CHUNK_TOKENS - _MARKS))


TokenizerKind = Literal["clip", "other", "unknown"]


def tokenizer_kind(model: Path) -> TokenizerKind:
    """Return whether a diffusers folder is read by CLIP tokenizers alone; a single file does not say."""
    index = _read_json(model / "model_index.json")
    if not isinstance(index, dict):
        return "unknown"
    return "clip" if index.get("_class_name") in _FAMILIES else "other"


def read_tokenizer(model: Path) -> ModelTokenizer | None:
    """Return the tokenizer of a model's folder; of a single file, that of the folder of its name beside it.

    Returns None where there is none, or where the model does not read texts in CLIP's chunks.

    Raises: TokenizerInvalid for files that are not what they should be.
    """
    if model.is_file():
        model = model.with_suffix("")
    folders = [folder for folder in (model / "tokenizer", model / "tokenizer_2") if folder.is_dir()]
    if not folders or tokenizer_kind(model) == "other":
        return None
    tables = {_content(folder): folder for folder in reversed(folders)}
    index = _read_json(model / "model_index.json") or {}
    sdxl = index.get("_class_name") == "StableDiffusionXLPipeline"
    return ModelTokenizer(
        tables=tuple(_read_table(folder) for folder in reversed(tables.values())),
        encoders=len(folders),
        content=min(_limit(model, folder) for folder in folders) - _MARKS,
        null_is_zeros=sdxl and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _read_table(folder: Path) -> MergeTable:
    special = _special_tokens(folder)
    whole = _read_json(folder / "tokenizer.json")
    try:
        if (folder / "merges.txt").is_file():
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            return MergeTable(
                [_pair(line) for line in lines if line and not line.startswith("#version")], special
            )
        if isinstance(whole, dict):
            return MergeTable([_pair(pair) for pair in whole["model"]["merges"]], special)
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerInvalid(f"{folder}: not a CLIP tokenizer: {error}") from error
    raise TokenizerInvalid(f"{folder}: neither merges.txt nor tokenizer.json")


def _pair(written: Any) -> tuple[str, str]:
    first, second = written.split(" ") if isinstance(written, str) else written
    return first, second


def _special_tokens(folder: Path) -> list[str]:
    config = _read_json(folder / "tokenizer_config.json") or {}
    named = [config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")]
    texts = [token.get("content") if isinstance(token, dict) else token for token in named]
    return list(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _limit(model: Path, folder: Path) -> int:
    """Return how many tokens an encoder takes at once, as the worker has it."""
    config = _read_json(folder / "tokenizer_config.json") or {}
    encoder = _read_json(model / folder.name.replace("tokenizer", "text_encoder") / "config.json") or {}
    limits = (config.get("model_max_length"), encoder.get("max_position_embeddings"))
    return min((limit for limit in limits if isinstance(limit, int) and limit > _MARKS), default=CHUNK_TOKENS)


def _content(folder: Path) -> bytes:
    """Return what tells a table from another."""
    names = ("merges.txt", "tokenizer.json", "tokenizer_config.json")
    named = ("merges.txt",) if (folder / "merges.txt").is_file() else names
    return b"\0".join((folder / name).read_bytes() for name in named if (folder / name).is_file())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # of a model in one file there is no inside
        return None
    except ValueError as error:
        raise TokenizerInvalid(f"{path}: not JSON: {error}") from error


def _chunks(tokens: int, content: int) -> int:
    return max(1, -(-tokens // content))


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts with every such pair, from the left, made one."""
    merged: list[str] = []
    position = 0
    while position < len(parts):
        if tuple(parts[position : position + 2]) == pair:
            merged.append(parts[position] + parts[position + 1])
            position += 2
        else:
            merged.append(parts[position])
            position += 1
    return merged


@lru_cache(maxsize=65_536)
def _shadow(character: str) -> str:
    """Return what CLIP's pattern takes a character for."""
    if character.isascii():
        return character
    kind = unicodedata.category(character)[0]
    return {"L": "a", "N": "0"}.get(kind, "!")


@lru_cache(maxsize=1)
def _byte_letters() -> list[str]:
    """Return the printable letter that stands for each byte in the tables, as GPT-2 chose them."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return [letters[byte] for byte in range(256)]
