"""A model's fingerprint: what it is, not where it lies."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from shared import fingerprint
from shared.errors import ModelUnknown
from shared.fingerprint import FileHashCache, fingerprint_path, hub_fingerprint, is_model, parse_hub_name

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path):
    """A folder with a model's files; the weights are no weights."""
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "config.json").write_text('{"sample_size": 8}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights of the unet")
    (folder / "tokenizer" / "merges.txt").write_text("a b")
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read and hashed, in order."""
    read = []
    hash_file = fingerprint._hash_file
    monkeypatch.setattr(fingerprint, "_hash_file", lambda path: read.append(path.name) or hash_file(path))
    return read


def test_same_content_elsewhere(model, tmp_path):
    """The same model at two paths, with other dates, is the same model."""
    copy = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(model, copy)
    os.utime(copy / "model_index.json", (1, 1))
    assert fingerprint_path(model) == fingerprint_path(copy)
    assert fingerprint_path(model).startswith("sha:")


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/merges.txt",
    ],
)
def test_two_fine_tunes_differ(model, file):
    """A byte changed in any config, weight or vocabulary is another model."""
    before = fingerprint_path(model)
    changed = bytearray((model / file).read_bytes())
    changed[-1] ^= 1
    (model / file).write_bytes(changed)
    assert before != fingerprint_path(model)


@pytest.mark.parametrize("file", ["tokenizer/spiece.model", "tokenizer/chat_template.jinja"])
def test_what_prompts_are_read_with_counts(model, file):
    """Another vocabulary of sentencepiece's, or another chat template, reads prompts differently: another model."""
    before = fingerprint_path(model)
    (model / file).write_text("one")
    with_it = fingerprint_path(model)
    (model / file).write_text("two")
    assert len({before, with_it, fingerprint_path(model)}) == 3


def test_a_file_moved_within_the_model(model):
    """The same bytes under another name are another model: a unet is no vae."""
    before = fingerprint_path(model)
    (model / "unet").rename(model / "vae")
    assert before != fingerprint_path(model)


@pytest.mark.parametrize(
    "extra", ["README.md", "card.png", ".gitattributes", ".cache/state.json", "optimizer.bin"]
)
def test_what_does_not_decide_images(model, extra):
    """Cards, pictures, download leftovers and training states do not change what a model is."""
    before = fingerprint_path(model)
    (model / extra).parent.mkdir(exist_ok=True)
    (model / extra).write_text("nothing that an image depends on")
    assert before == fingerprint_path(model)


def test_single_file(tmp_path):
    """A single file is named by its content alone, whatever it is called."""
    one, two, other = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "other"))
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    other.write_bytes(b"other weights")
    assert fingerprint_path(one) == fingerprint_path(two) != fingerprint_path(other)


def test_nothing_to_hash(tmp_path):
    """A folder without a model, and no folder at all, are ModelUnknown that name the path."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelUnknown, match=path.name):
            fingerprint_path(path)


def test_hashed_once(model, tmp_path, hashed):
    """Files are read once; a process that comes later reads only those whose size or date has changed."""
    file = tmp_path / "cache" / "fingerprints.json"
    first = fingerprint_path(model, cache=FileHashCache(file))
    assert len(hashed) == 4
    assert first == fingerprint_path(model, cache=FileHashCache(file))
    assert len(hashed) == 4

    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    stat = weights.stat()
    weights.write_bytes(b"weights of the UNET")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert first != fingerprint_path(model, cache=FileHashCache(file))
    assert hashed[4:] == [weights.name]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"'])
def test_broken_cache(model, tmp_path, content, hashed):
    """A cache that cannot be read is only slow, and is mended."""
    file = tmp_path / "fingerprints.json"
    file.write_text(content)
    assert fingerprint_path(model) == fingerprint_path(model, cache=FileHashCache(file))
    assert len(json.loads(file.read_text())) == 4


def test_unwritable_cache(model, tmp_path):
    """A cache that cannot be written is only slow."""
    (tmp_path / "file").write_text("")
    cache = FileHashCache(tmp_path / "file" / "fingerprints.json")
    assert fingerprint_path(model) == fingerprint_path(model, cache=cache)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"org/name@{REVISION}", f"hub:org/name@{REVISION}"),
        (f"stable-diffusion-v1-5/sd.1_5@{REVISION}", f"hub:stable-diffusion-v1-5/sd.1_5@{REVISION}"),
        ("org/name", None),
        ("org/name@main", None),
        (f"org/name@{REVISION[:-1]}", None),
        (f"org/name@{REVISION}0", None),
        (f"name@{REVISION}", None),
        (f"a/b/c@{REVISION}", None),
    ],
)
def test_hub_names(name, expected):
    """A hub name in full is a fingerprint by itself; a branch or a short hash is not: they move."""
    assert expected == parse_hub_name(name)
    if expected:
        assert expected == hub_fingerprint(*name.split("@"))


def test_is_model(model, tmp_path):
    """A pipeline folder and a .safetensors file are models; other paths, and what is no path, are not."""
    weights = tmp_path / "one.safetensors"
    weights.write_bytes(b"")
    assert [is_model(path) for path in (model, weights)] == [True, True]
    others = [
        tmp_path,
        tmp_path / "none",
        model / "model_index.json",
        tmp_path / ("x" * 300),
        tmp_path / "nul\0",
    ]
    assert [is_model(path) for path in others] == [False] * 5
