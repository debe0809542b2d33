"""Texts, chunks and the embedding cache."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.sampling.cache import LruCache
from worker.sampling.families.base import ImageSettings
from worker.sampling.rows.loop import sample


@torch.inference_mode()
def encode(model, text, *, length):
    """A text's conditioning, padded to a length, for an image of 64 x 96 pixels."""
    settings = ImageSettings(height=64, width=96, text_length=length, guidance_scale=5.0)
    return model.networks.condition(model.networks.tokenize(text), settings)


@pytest.fixture
def encoder_rows(copy_tiny):
    """A fresh model of a family, and the rows its text encoders were given, one list each."""

    def watch(family):
        model = copy_tiny(family)
        rows = [[] for _ in model.networks.text_encoders]
        for encoder, seen in zip(model.networks.text_encoders, rows, strict=True):
            encoder.register_forward_pre_hook(
                lambda module, given, seen=seen: seen.extend(tuple(row) for row in given[0].tolist())
            )
        return model, rows

    return watch


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("text", ["", "a cat", "portrait photo of a man", "🦉 ночь ☃ x̂", "<|endoftext|> !"])
def test_short_texts_are_bit_for_bit_the_encoders(tiny_model, family, text):
    """A text of one chunk has exactly the ids and embeddings of plain tokenizer and encoder calls."""
    model = tiny_model(family)
    hidden, pooled = [], None
    for tokenizer, encoder in zip(model.networks.tokenizers, model.networks.text_encoders, strict=True):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.no_grad():
            output = encoder(ids.input_ids, output_hidden_states=True)
        hidden.append(output.hidden_states[-2] if family == "sdxl" else output[0])
        pooled = output[0] if family == "sdxl" else None
    ours = encode(model, text, length=1)
    assert torch.equal(ours["hidden"], torch.cat(hidden, dim=-1)[0])
    assert "pooled" not in ours if pooled is None else torch.equal(ours["pooled"], pooled[0])


@settings(max_examples=60, deadline=None)
@given(
    piece=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    times=st.integers(min_value=1, max_value=20),
)
@example(piece="a cat ", times=100)
def test_no_token_is_ever_lost(tiny_model, piece, times):
    """For any text the chunks hold every token in order, 75 each, and their number is the token count's."""
    model, text = tiny_model("sd1"), piece * times
    ids = model.networks.tokenizers[0](text, add_special_tokens=False, verbose=False)["input_ids"]
    tokenized = model.networks.tokenize(text)
    kept = [
        token
        for start, chunk in enumerate(tokenized.chunks[0])
        for token in chunk[1 : 1 + len(ids[75 * start : 75 * (start + 1)])]
    ]
    assert kept == ids
    assert tokenized.tokens == len(ids)
    assert tokenized.length == max(1, -(-len(ids) // 75))
    for chunk in tokenized.chunks[0]:
        assert len(chunk) == 77
        assert chunk[0] == model.networks.tokenizers[0].bos_token_id


@pytest.mark.parametrize(("words", "length"), [(0, 1), (74, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_chunks_hold_75_tokens(tiny_model, words, length):
    """The 76th token opens a second chunk, the 151st a third."""
    text = " ".join("a" for _ in range(words))
    tokenized = tiny_model("sdxl").networks.tokenize(text)
    assert (tokenized.tokens, tokenized.length) == (words, length)
    assert len(tokenized.chunks[0]) == len(tokenized.chunks[1]) == length


def test_a_short_text_is_padded_with_empty_chunks(tiny_model):
    """Behind a text's own chunks stand those of the empty text, and its own do not change."""
    model = tiny_model("sd2")
    padded, own, filling = (
        encode(model, text, length=length)["hidden"] for text, length in (("a cat", 3), ("a cat", 1), ("", 1))
    )
    assert torch.equal(padded, torch.cat([own, filling, filling]))


def test_zeros_are_of_the_same_shape(tiny_model):
    """SDXL's null text is zeros, hidden and pooled, of the length of the other prompt."""
    model = tiny_model("sdxl")
    zeros, text = (encode(model, text, length=2) for text in (None, "a cat"))
    assert zeros["hidden"].shape == text["hidden"].shape == (154, 64)
    assert zeros["pooled"].shape == text["pooled"].shape == (32,)
    assert not zeros["hidden"].any()
    assert not zeros["pooled"].any()
    assert torch.equal(zeros["time_ids"], text["time_ids"])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_encoder_row_is_spent_per_distinct_text(encoder_rows, make_request, family):
    """Twelve jobs of two prompts and two negatives cost four rows an encoder, and a second call none."""
    model, rows = encoder_rows(family)
    requests = [
        make_request(prompt=prompt, negative_prompt=negative, seed=seed, steps=1)
        for prompt in ("a cat", "a dog")
        for negative in ("ugly", "")
        for seed in range(3)
    ]
    list(sample(model, requests, batch_rows=8))
    assert [len(seen) for seen in rows] == [4] * len(rows)
    assert all(len(set(seen)) == 4 for seen in rows)
    list(sample(model, requests, batch_rows=24))
    assert [len(seen) for seen in rows] == [4] * len(rows)


def test_an_unused_negative_costs_no_row(encoder_rows, make_request):
    """Without guidance the negative prompt is neither encoded nor counted."""
    model, rows = encoder_rows("sd1")
    (outcome,) = sample(
        model, [make_request(guidance_scale=1.0, negative_prompt="ugly", steps=1)], batch_rows=2
    )
    assert len(rows[0]) == 1
    assert outcome.negative_tokens == 0


def test_the_cache_forgets_what_was_used_longest_ago():
    """A full cache drops the least recently used value and makes it again when asked."""
    made = []

    def make(key):
        return lambda: made.append(key) or key

    cache = LruCache(2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get_or_make(key, make(key)) == key
    assert made == ["a", "b", "c", "b"]
    assert len(cache) == 2
