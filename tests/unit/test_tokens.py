"""Tokens counted from a tokenizer's files are those that transformers' own CLIP tokenizer makes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.preview.tokens import (
    ModelTokenizer,
    TokenizerInvalid,
    least_size,
    pieces,
    read_tokenizer,
    tokenizer_kind,
)

#: What CLIP's pattern treats apart: contractions, digits, marks of its own, spaces, letters that change with case.
ODD = [
    "",
    " ",
    "portrait photo of a man's hat, don't we'll I'm they've he'd you're",
    "35mm f1.8 2024 ½ ² Ⅷ ٣",
    "naïve cafe\u0301 猫 ΟΔΥΣΣΕΥΣ İstanbul straße ŉ",
    "<|endoftext|> a<|startoftext|>b <|ENDOFTEXT|> <|endoftext",
    "\x1c a\x85b\u3000c\u2028d\t\n e",
    "🤖🤖 a_b (word:1.2) [x|y] {z} \\",
    "word " * 80,
    "\u200b\ufeff'",
]
MARKS = ("<|startoftext|>", "<|endoftext|>")

#: Letters of blocks that have not changed in years, and all of ASCII.
LETTERS = st.characters(max_codepoint=0x1FFF, exclude_categories=("Cs", "Cn", "Co"))
TEXTS = st.one_of(st.sampled_from(ODD), st.text(LETTERS, max_size=30), st.text("abM '<|>st1é ", max_size=40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder with a table learnt from the odd texts, across the places where CLIP cuts: a wrong cut shows."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import BPE

    before = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = before
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        [text.lower() for text in ODD],
        trainers.BpeTrainer(
            vocab_size=2000,
            initial_alphabet=alphabet,
            special_tokens=[*MARKS, *alphabet, *(letter + "</w>" for letter in alphabet)],
            end_of_word_suffix="</w>",
            min_frequency=1,
            show_progress=False,
        ),
    )
    table = json.loads(learner.to_str())["model"]
    folder = tmp_path_factory.mktemp("model")
    (folder / "tokenizer").mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    files = {
        "vocab.json": json.dumps(table["vocab"]),
        "merges.txt": "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in table["merges"]),
        "tokenizer_config.json": json.dumps(
            {"bos_token": MARKS[0], "eos_token": MARKS[1], "pad_token": MARKS[1], "unk_token": MARKS[1]}
            | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
        ),
    }
    for name, text in files.items():
        (folder / "tokenizer" / name).write_text(text, encoding="utf-8")
    assert len(table["merges"]) > 100
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """Transformers' tokenizer of that model."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)


@pytest.fixture(scope="module")
def ours(folder) -> ModelTokenizer:
    """Ours, of the same files."""
    found = read_tokenizer(folder)
    assert found is not None
    return found


def count(theirs, text: str) -> int:
    """Count as the worker does."""
    return len(theirs(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])


def test_odd_texts_have_as_many_tokens(ours, theirs):
    """Contractions, digits, marks, spaces and letters of many scripts are counted as transformers counts them."""
    assert [size.tokens for size in ours.sizes(ODD)] == [count(theirs, text) for text in ODD]


def test_any_text_has_as_many_tokens(ours, theirs):
    """The counts are equal for any text of assigned characters, and a text has no fewer tokens than pieces."""

    @settings(deadline=None)  # a slow machine is no wrong count
    @given(TEXTS)
    def check(text: str) -> None:
        (size,) = ours.sizes([text])
        assert size.tokens == count(theirs, text)
        assert least_size(text).tokens <= size.tokens
        assert size.chunks == max(1, math.ceil(size.tokens / 75))

    check()


def test_a_whole_tokenizer_file_is_read_too(ours, theirs, folder, tmp_path):
    """What newer versions save, one tokenizer.json, gives the same counts."""
    theirs.save_pretrained(str(tmp_path / "tokenizer"))
    (tmp_path / "tokenizer" / "merges.txt").unlink(missing_ok=True)
    (tmp_path / "model_index.json").write_text((folder / "model_index.json").read_text())
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
    found = read_tokenizer(tmp_path)
    assert found is not None
    assert found.sizes(ODD) == ours.sizes(ODD)


def test_a_single_file_has_its_tokenizer_beside_it(folder, tmp_path, ours):
    """Weights in one file are read with the tokenizer in the folder of the same name; without one it is unknown."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert read_tokenizer(tmp_path / "model.safetensors") is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer").symlink_to(folder / "tokenizer")
    found = read_tokenizer(tmp_path / "model.safetensors")
    assert found is not None
    assert found.sizes(ODD) == ours.sizes(ODD)


def test_two_encoders_take_two_rows_and_zeros_take_none(model_folder):
    """SDXL's two tokenizers are read, and that no negative is zeros to it."""
    found = read_tokenizer(model_folder("sdxl"))
    assert found is not None
    assert (found.encoders, found.content, found.null_is_zeros) == (2, 75, True)


def test_other_kinds_of_models_are_not_counted(folder, tmp_path):
    """A pipeline that is no Stable Diffusion reads texts in ways of its own, whatever tokenizer lies there."""
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert (read_tokenizer(tmp_path), tokenizer_kind(tmp_path)) == (None, "other")
    assert tokenizer_kind(folder) == "clip"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("merges.txt", "a b c\n", "not a CLIP tokenizer"),
        ("tokenizer.json", '{"model": {}}', "not a CLIP tokenizer"),
        ("tokenizer.json", "{", "not JSON"),
        ("vocab.json", "{}", "neither merges.txt nor tokenizer.json"),
    ],
)
def test_a_broken_tokenizer_is_named(tmp_path, name, text, said):
    """Files that are not what they should be are an error that names them, not a count."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / name).write_text(text)
    with pytest.raises(TokenizerInvalid, match=said):
        read_tokenizer(tmp_path)


def test_pieces_are_cut_as_clip_cuts_them():
    """Words, single digits and runs of signs are pieces; case and runs of spaces do not count."""
    expected = ["a", "cat", "'s", "hat", ",", "3", "5", "mm", "!!!"]
    assert expected == pieces("A  cat's HAT, 35mm!!!")
