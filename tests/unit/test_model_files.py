"""Models as people's disks have them: cut off, half fetched, linked together, in folders of folders."""

import json
import os
import shutil
import struct

import pytest

from producer.fleet.models import known_models, resolve_model
from shared.errors import ModelDamaged, ModelUnknown
from shared.fingerprint import find_models, fingerprint_path
from shared.model_files import what_is_wrong
from worker.models.inventory import take_inventory


def weights(*names, metadata=None):
    """Return a `.safetensors` file of small tensors."""
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * n, 8 * n + 8]}
        for n, name in enumerate(names)
    }
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 8 * len(names)


@pytest.fixture
def model(tmp_path):
    """A diffusers folder in a folder of models, in files alone."""
    folder = tmp_path / "models" / "mine"
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    index = {name: ["diffusers", kind] for name, kind in parts.items()} | {
        "tokenizer": ["transformers", "CLIPTokenizer"]
    }
    for name in parts:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "diffusion_pytorch_model.safetensors").write_bytes(weights("a", "b"))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **index}))
    return folder


UNET = "unet/diffusion_pytorch_model.safetensors"


def cut(folder):
    """Lose the end of the UNet."""
    data = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(data[: len(data) - 5])


def replace(content, name=UNET):
    """Return what writes something else in a file's place."""
    return lambda folder: (folder / name).write_bytes(content)


def shards(missing=False, lacking=False):
    """Return what puts the UNet into two files: one may be missing, or lack a tensor."""

    def damage(folder):
        (folder / UNET).unlink()
        first, second = (
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
        )
        (folder / "unet" / first).write_bytes(weights("a"))
        if not missing:
            (folder / "unet" / second).write_bytes(weights("c" if lacking else "b"))
        places = {"weight_map": {"a": first, "b": second}}
        (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(places))

    return damage


def only_fp16(folder):
    """The plain file is a pointer that nobody fetched; a worker loads the plain one where it is there."""
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "unet/diffusion_pytorch_model.safetensors: cut off: "),
        (replace(b""), "safetensors: empty: fetch it again"),
        (replace(LFS), "safetensors: a Git LFS pointer, not the weights: run `git lfs pull`"),
        (replace(b"<!DOCTYPE html><html>404"), "safetensors: a web page, not weights"),
        (replace(b"PK\x03\x04archive"), "safetensors: pickled weights under the name of safetensors"),
        (replace(b"\x01\x02"), "only 2 bytes"),
        (replace(b"\xff" * 200), "not a .safetensors file"),
        (replace(struct.pack("<Q", 4000) + b"{"), "cut off: its header is 4,000 bytes long"),
        (replace(struct.pack("<Q", 3) + b"{{{"), "its header cannot be read"),
        (shards(missing=True), "00002-of-00002.safetensors: missing: diffusion_pytorch_model.safetensors.index.json"),
        (shards(lacking=True), "1 tensors that diffusion_pytorch_model.safetensors.index.json names are not in it"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae: model_index.json names this component"),
        (lambda folder: (folder / "tokenizer/vocab.json").unlink(), "tokenizer: the folder of this component is empty"),
        (replace(b"{", "unet/config.json"), "unet/config.json: no JSON"),
        (replace(b"[]", "model_index.json"), "model_index.json: not a JSON object"),
    ],
)  # fmt: skip
def test_damage_is_seen_by_everybody(model, tmp_path, damage, said):
    """`models` lists it with the reason, a sweep that names it is refused, and a worker does not offer it."""
    assert what_is_wrong(model) == ""
    damage(model)
    (found,) = [one for one in known_models([model.parent], [], cache_dir=tmp_path) if one.name == "mine"]
    assert said in found.broken
    assert "\n" not in found.broken
    for name in ("mine", str(model)):
        with pytest.raises(ModelDamaged) as refused:
            resolve_model(name, [found], cache_dir=tmp_path)
        assert said in str(refused.value)
    names = [
        source.name
        for sources in take_inventory([model.parent], (), cache_dir=tmp_path).values()
        for source in sources
    ]
    assert names == ["portraits"]


@pytest.mark.parametrize(
    "whole", [shards(), only_fp16, replace(LFS, "unet/other.safetensors"), replace(LFS, "big.safetensors")]
)
def test_what_is_not_loaded_may_be_damaged(model, whole):
    """Shards that are all there, another variant, and files beside the model do not make it a damaged one."""
    whole(model)
    assert what_is_wrong(model) == ""


def test_linked_folders_count(model, tmp_path):
    """Two models alike but for a linked unet are two models; linked or copied, the same content is the same model."""
    plain = fingerprint_path(model)
    shared = tmp_path / "shared"
    shutil.copytree(model / "unet", shared / "one")
    shutil.copytree(model / "unet", shared / "two")
    (shared / "two" / "diffusion_pytorch_model.safetensors").write_bytes(weights("a", "x"))
    prints = []
    for which in ("one", "two"):
        shutil.rmtree(model / "unet") if not (model / "unet").is_symlink() else (model / "unet").unlink()
        (model / "unet").symlink_to(shared / which)
        prints.append(fingerprint_path(model))
    assert prints[0] == plain != prints[1]
    assert what_is_wrong(model) == ""
    whole = tmp_path / "linked"
    whole.symlink_to(model)
    assert fingerprint_path(whole) == prints[1]


def test_links_that_lead_round_are_an_error(model, tmp_path):
    """A link to a folder that it lies in is named, by the fingerprint and by what looks for models."""
    (model / "unet" / "again").symlink_to(model)
    with pytest.raises(ModelUnknown, match="again: a link leads round in a circle"):
        fingerprint_path(model)
    assert "again: a link leads round in a circle" in what_is_wrong(model)
    (model.parent / "self").symlink_to(model.parent)
    assert [name for name, _ in find_models([model.parent])] == ["mine"]


def test_a_link_that_leads_nowhere_is_no_file(model):
    """A dangling link among the files changes nothing."""
    before = fingerprint_path(model)
    (model / "unet" / "gone.safetensors").symlink_to("nowhere")
    assert (fingerprint_path(model), what_is_wrong(model)) == (before, "")


def test_models_are_found_where_people_keep_them(model, tmp_path):
    """In folders of folders, with any case of the ending; LoRAs, VAEs, configs of a file and hidden ones are none."""
    folder = model.parent
    for name in ("Stable-diffusion/sdxl", ".cache", "Lora", "plain"):
        (folder / name).mkdir(parents=True)
    checkpoint = weights("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x")
    (folder / "Stable-diffusion" / "sdxl" / "deep.safetensors").write_bytes(checkpoint)
    (folder / "LOUD.SAFETENSORS").write_bytes(checkpoint)
    (folder / ".cache" / "hidden.safetensors").write_bytes(checkpoint)
    (folder / "Lora" / "style.safetensors").write_bytes(weights("lora_unet_down.weight"))
    (folder / "vae.safetensors").write_bytes(weights("decoder.conv_in.weight"))
    (folder / "plain.safetensors").write_bytes(checkpoint)
    (folder / "plain" / "model_index.json").write_text("{}")
    names = [name for name, _ in find_models([folder])]
    assert sorted(names) == ["LOUD", "deep", "mine", "plain"]


def test_a_broken_cache_is_only_slow(model, tmp_path):
    """Whatever stands in the file of remembered digests, the fingerprint is right."""
    expected = fingerprint_path(model)
    path = os.path.realpath(model / UNET)
    for entries in ("[]", "{", json.dumps({path: 5}), json.dumps({path: [1]}), json.dumps({path: {"0": 1}})):
        (tmp_path / "fingerprints.json").write_text(entries)
        (found,) = [m for m in known_models([model.parent], [], cache_dir=tmp_path) if m.name == "mine"]
        assert found.fingerprint == expected
