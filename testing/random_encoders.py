"""Makes tiny text encoders of many kinds with their tokenizers, offline. Knows nothing of pipelines.

The vocabularies come from the words of `random_weights`, so that a common word is one to three tokens; the weights are
whatever the library draws, and are filled by `random_pipelines`.
"""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from testing.random_weights import CORPUS, create_random_model

#: Width of every text encoder's hidden states, but for what says otherwise.
TEXT_WIDTH = 32

#: Words and pieces of words in a trained vocabulary, beside its single characters.
PIECES = 400

#: Turns a prompt into a conversation of one message, as the chat templates of language models do.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_clip(number: int, *, projection: bool) -> tuple[Any, Any]:
    """Return a CLIP text encoder and its tokenizer, the first or the second of SDXL's."""
    ending = "" if number == 1 else "_2"
    with tempfile.TemporaryDirectory() as workshop:
        place = create_random_model(Path(workshop) / "sdxl", family="sdxl")
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(place / f"tokenizer{ending}"))
        config = transformers.CLIPTextConfig.from_pretrained(str(place / f"text_encoder{ending}"))
    encoder_class = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return encoder_class(config), tokenizer


def _t5_tokenizer() -> Any:
    """Return a T5 tokenizer: words of the corpus, else single characters; what has neither is <unk>."""
    words = dict.fromkeys(CORPUS.split())
    characters = dict.fromkeys("▁" + string.ascii_letters + string.digits + string.punctuation)
    # A word costs as much as a character does, so that the fewest pieces win.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    pieces += [(f"▁{word}", -8.0) for word in words] + [(character, -8.0) for character in characters]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def make_t5(*, width: int = TEXT_WIDTH, multilingual: bool = False) -> tuple[Any, Any]:
    """Return the encoder of a T5 or a UMT5, and a T5's tokenizer."""
    tokenizer = _t5_tokenizer()
    config_class = transformers.UMT5Config if multilingual else transformers.T5Config
    encoder_class = transformers.UMT5EncoderModel if multilingual else transformers.T5EncoderModel
    config = config_class(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    return encoder_class(config), tokenizer


def _pieces(alphabet: list[str], before: Any, special: list[str]) -> tuple[dict[str, int], list[Any]]:
    """Return the vocabulary and the merges of a BPE that is trained on the corpus."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = before
    size = len(alphabet) + len(special) + PIECES
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([" " + word for word in CORPUS.split()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _qwen_tokenizer() -> Any:
    """Return a Qwen tokenizer: bytes and their merges, with the marks of a conversation."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    before = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary, merges = _pieces(sorted(pre_tokenizers.ByteLevel.alphabet()), before, special)
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=2048)
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _gemma_tokenizer() -> Any:
    """Return a Gemma tokenizer: characters and their merges, bytes for characters it does not know."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    before = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    vocabulary, merges = _pieces(alphabet, before, [*special, *fallback])
    return transformers.GemmaTokenizer(
        vocab=vocabulary, merges=merges, add_bos_token=True, model_max_length=2048
    )


def make_gemma(*, first: bool = False) -> tuple[Any, Any]:
    """Return a Gemma 2, or a Gemma of the first generation, and its tokenizer."""
    tokenizer = _gemma_tokenizer()
    config_class = transformers.GemmaConfig if first else transformers.Gemma2Config
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
    )
    return (transformers.GemmaModel if first else transformers.Gemma2Model)(config), tokenizer


def make_qwen3(*, layers: int = 2, causal: bool = False) -> tuple[Any, Any]:
    """Return a Qwen 3, with the head of a language model or without, and its tokenizer."""
    tokenizer = _qwen_tokenizer()
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    return (transformers.Qwen3ForCausalLM if causal else transformers.Qwen3Model)(config), tokenizer


def make_qwen_vl() -> tuple[Any, Any]:
    """Return a Qwen 2.5 VL and its tokenizer."""
    tokenizer = _qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [2, 2, 4], "rope_type": "default"},
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": TEXT_WIDTH,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=1,
        vision_end_token_id=2,
        vision_token_id=0,
        image_token_id=0,
        video_token_id=0,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), tokenizer


def make_bert() -> tuple[Any, Any]:
    """Return a BERT and its tokenizer, which knows words of the corpus and single letters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *CORPUS.split()]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
    )
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, model_max_length=77)
    return transformers.BertModel(config), tokenizer
