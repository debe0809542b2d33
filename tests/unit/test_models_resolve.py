"""What a sweep means by a model's name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

import worker
from producer.fleet.models import KnownModel, known_models, model_card, resolve_model
from shared.errors import ModelAmbiguous, ModelUnknown
from shared.fingerprint import fingerprint_path
from shared.ledger import WorkerInfo
from shared.names import DEFAULT_MODEL

REVISION = "0123456789abcdef0123456789abcdef01234567"
SD_A = "sha:aaaa1111" + "0" * 24
SD_B = "sha:bbbb2222" + "0" * 24
TURBO = "sha:cccc3333" + "0" * 24

KNOWN = [
    KnownModel(name="sd", fingerprint=SD_A, places=("/models/sd", "worker one")),
    KnownModel(name="sd", fingerprint=SD_B, places=("worker two",)),
    KnownModel(name="turbo", fingerprint=TURBO, places=("worker two",)),
]


def make_worker(name: str, models: dict[str, list[str]]) -> WorkerInfo:
    """Return a live worker that holds models: fingerprint -> names."""
    return WorkerInfo(
        name=name,
        host="host",
        pid=1,
        device="cpu",
        dtype="float32",
        batch_rows=4,
        models=models,
        queues=[],
        images_per_second=0.0,
        chunks=[],
        draining=False,
        refused={},
        trouble=None,
        versions={},
    )


def make_model(folder, content="weights"):
    """Make a folder that passes for a model, with no weights worth the name."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    header = json.dumps({"__metadata__": {"is": content}}).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.mark.parametrize(
    ("name", "expected_name", "expected"),
    [
        ("turbo", "turbo", TURBO),
        ("turbo@sha:cccc", "turbo", TURBO),
        ("sd@sha:aaaa1111", "sd", SD_A),
        ("sd@sha:b", "sd", SD_B),
        (f"sd@{SD_B}", "sd", SD_B),
        (SD_A, SD_A, SD_A),
        (f"org/name@{REVISION}", f"org/name@{REVISION}", f"hub:org/name@{REVISION}"),
        (f"hub:org/name@{REVISION}", f"hub:org/name@{REVISION}", f"hub:org/name@{REVISION}"),
    ],
)
def test_resolves(tmp_path, name, expected_name, expected):
    """A name, a name with the start of a fingerprint, a fingerprint and a hub name in full each mean one model."""
    found = resolve_model(name, KNOWN, cache_dir=tmp_path)
    assert (found.name, found.fingerprint) == (expected_name, expected)


def test_ambiguous(tmp_path):
    """A name of two models lists each with the start of its fingerprint and its places; what it lists resolves."""
    with pytest.raises(ModelAmbiguous) as caught:
        resolve_model("sd", KNOWN, cache_dir=tmp_path)
    expected = (
        "model 'sd' means 2 different models: write one of "
        "sd@sha:aaaa1111 (/models/sd, worker one); sd@sha:bbbb2222 (worker two)"
    )
    assert expected == str(caught.value)
    assert SD_A == resolve_model("sd@sha:aaaa1111", KNOWN, cache_dir=tmp_path).fingerprint


def test_ambiguous_prefix(tmp_path):
    """A start of a fingerprint that two models share is ambiguous still."""
    with pytest.raises(ModelAmbiguous, match="2 different models"):
        resolve_model("sd@sha:", KNOWN, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "sb",
        "sd@sha:dddd",
        "SD",
        "org/name",
        "org/name@main",
        "~nobody_here/model",
        "x" * 300,
        "no/such/folder",
        "sha:12",
    ],
)
def test_unknown(tmp_path, name):
    """A name nobody has is an error that lists what there is."""
    with pytest.raises(ModelUnknown, match=r"there is: sd, turbo$"):
        resolve_model(name, KNOWN, cache_dir=tmp_path)


def test_unknown_where_there_is_nothing(tmp_path):
    """Where nobody has any model the error says what to do."""
    with pytest.raises(ModelUnknown, match="there is: none: start a worker, or set PRINTROOM_MODELS"):
        resolve_model("sd", [], cache_dir=tmp_path)


def test_path(tmp_path):
    """A path of this machine is hashed, and named by its last part; a name somebody has goes first."""
    folder = make_model(tmp_path / "own" / "mine")
    found = resolve_model(str(folder), KNOWN, cache_dir=tmp_path / "cache")
    assert (found.name, found.fingerprint) == ("mine", fingerprint_path(folder))
    known = [KnownModel(name=str(folder), fingerprint=TURBO, places=("worker two",))]
    assert TURBO == resolve_model(str(folder), known, cache_dir=tmp_path / "cache").fingerprint


def test_home(tmp_path, monkeypatch):
    """A path may begin at the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_model(tmp_path / "mine")
    assert fingerprint_path(folder) == resolve_model("~/mine", [], cache_dir=tmp_path / "cache").fingerprint


def test_known_models(tmp_path):
    """The default model, folders of models, a folder that is one, files and live workers; twice the same is one."""
    models, cache = tmp_path / "models", tmp_path / "cache"
    shared = fingerprint_path(make_model(models / "shared"))
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({"model.diffusion_model.weight": tensor}).encode()
    (models / "single.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (models / "notes.txt").write_text("no model")
    alone = make_model(tmp_path / "alone", "alone")
    bundled = Path(worker.__file__).parent / "models" / DEFAULT_MODEL
    workers = [make_worker("one", {shared: ["shared", "alias"]}), make_worker("two", {SD_A: ["shared"]})]

    known = known_models([models, alone, tmp_path / "none"], workers, cache_dir=cache)

    expected = {
        ("alias", shared): ("worker one",),
        ("alone", fingerprint_path(alone)): (str(alone),),
        (DEFAULT_MODEL, fingerprint_path(bundled)): (str(bundled),),
        ("shared", shared): (str(models / "shared"), "worker one"),
        ("shared", SD_A): ("worker two",),
        ("single", fingerprint_path(models / "single.safetensors")): (str(models / "single.safetensors"),),
    }
    assert expected == {(m.name, m.fingerprint): m.places for m in known}
    assert [m.name for m in known] == sorted(m.name for m in known)


def test_two_paths_of_one_model_are_not_ambiguous(tmp_path):
    """The same weights in two folders of one name are one model."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        make_model(folder / "sd")
    known = known_models(folders, [], cache_dir=tmp_path / "cache")
    (found,) = (model for model in known if model.name == "sd")
    assert len(found.places) == 2
    assert found.fingerprint == resolve_model("sd", known, cache_dir=tmp_path / "cache").fingerprint


def test_the_default_model_is_known_without_a_worker(tmp_path):
    """A producer names the default model, and shows its card, with no folder of models and nobody alive."""
    known = known_models([], [], cache_dir=tmp_path)
    assert [model.name for model in known] == [DEFAULT_MODEL]
    assert known[0].fingerprint == resolve_model(DEFAULT_MODEL, known, cache_dir=tmp_path).fingerprint
    assert "# Portraits" in model_card(DEFAULT_MODEL, known)


def test_a_producer_without_the_worker_package_knows_no_default_model(tmp_path, monkeypatch):
    """Where the worker's package is not installed there is no bundled model, and no error."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert known_models([], [], cache_dir=tmp_path) == []


def test_a_path_to_something_else_is_called_what_it_is(tmp_path):
    """A folder of models, a pickled checkpoint and another file are not said to be missing."""
    make_model(tmp_path / "all" / "photo")
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.ckpt").write_bytes(b"PK")
    (tmp_path / "q4.gguf").write_bytes(b"GGUF")
    for name, said in {
        "all": "is a folder without a model_index.json: name one in it: all/photo",
        "empty": "is a folder without a model_index.json: a model's folder has one",
        "old.ckpt": "is a file that is not read: convert it: a .safetensors file, or a diffusers folder",
        "q4.gguf": "is a file that is not read: name a model: a .safetensors file, or a diffusers folder",
    }.items():
        with pytest.raises(ModelUnknown, match=said):
            resolve_model(str(tmp_path / name), KNOWN, cache_dir=tmp_path)
