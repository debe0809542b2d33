"""The tiny random model: a whole pipeline folder, the same bytes each time."""

import hashlib
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from testing.random_weights import create_random_model

FAMILIES = ["sd1", "sd2", "sdxl"]


def contents(folder):
    """Return the hash of every file of a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_is_one_model(model_folder, tmp_path, family):
    """The same seed writes the same bytes again, another seed other weights."""
    again = create_random_model(tmp_path / "again", family=family)
    assert contents(again) == contents(model_folder(family))
    other = contents(create_random_model(tmp_path / "other", family=family, seed=1))
    changed = {name for name, digest in contents(again).items() if other[name] != digest}
    assert changed == {name for name in other if name.endswith(".safetensors")}


def test_torchs_seed_and_threads_do_not_matter(model_folder, tmp_path):
    """Neither the global random state nor the hash seed of the process reaches the bytes."""
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    folder = tmp_path / "made"
    command = [sys.executable, "-m", "testing.random_weights", str(folder), "--family", "sd1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert done.stdout == f"{folder}\n"
    assert contents(folder) == contents(model_folder("sd1"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_small(model_folder, family):
    """The weights of a model are under a megabyte."""
    sizes = [path.stat().st_size for path in model_folder(family).rglob("*.safetensors")]
    assert sum(sizes) < 1_000_000


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_and_runs_it_as_it_stands(model_folder, family):
    """Plain `from_pretrained` and a plain call give a 64 x 64 picture that is not one grey."""
    pipeline_class = (
        diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    )
    pipeline = pipeline_class.from_pretrained(model_folder(family))
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a cat", num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 20
    assert pipeline.scheduler.config.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["a red castle", "🦉 ночь ☃", "naïve CAFÉ", "\x00\t\u200b"])
def test_any_text_has_tokens(tiny_model, family, text):
    """Byte-level tokens cover any text: nothing becomes the unknown token, and common words are short."""
    tokenizer = tiny_model(family).networks.tokenizers[-1]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer("portrait photo of a man", add_special_tokens=False)["input_ids"]) < 14


def test_tokenizers_pad_as_the_real_ones(tiny_model):
    """SD 1.x and SDXL's first tokenizer pad with EOS, OpenCLIP's with "!"."""
    sd1, sd2, (first, second) = (tiny_model(family).networks.tokenizers for family in FAMILIES)
    assert [tokenizer.pad_token for tokenizer in (sd1[0], first)] == ["<|endoftext|>"] * 2
    assert [(tokenizer.pad_token, tokenizer.pad_token_id) for tokenizer in (sd2[0], second)] == [("!", 0)] * 2


def test_nothing_of_this_machine_is_in_it(model_folder):
    """No file of the folder holds a path."""
    for path in model_folder("sd1").rglob("*.json"):
        assert str(Path.home()) not in path.read_text()
        assert "tmp" not in path.read_text().split('"vocab"')[0] or path.name == "vocab.json"
