"""The models: which model is loaded, and that the worker's settings reach how it is loaded."""

import pytest
import torch

from shared.errors import ModelUnknown
from shared.model_facts import ModelFacts
from shared.settings import Settings
from worker.device import Device
from worker.models import loaded as loaded_module
from worker.models.loaded import LoadedModels
from worker.models.loader import ModelSource

_DEVICE = Device(torch_device=torch.device("cpu"), name="cpu", dtype=torch.float32, batch_rows=16)


@pytest.fixture
def make_shelf(model_folder):
    """A function that returns a shelf with two tiny models, under the given settings."""

    def make(**settings):
        sources = {
            family: [
                ModelSource(
                    name=family, fingerprint=family, kind="folder", location=str(model_folder(family))
                )
            ]
            for family in ("sd1", "sd2")
        }
        return LoadedModels(sources, _DEVICE, Settings(**settings))

    return make


def test_one_model_is_kept(make_shelf):
    """The same model is loaded once; another one takes its place; one that is not held is unknown."""
    models = make_shelf()
    first = models.load("sd1")
    assert models.load("sd1") is first
    assert models.load("sd2").fingerprint == "sd2"
    assert models.load("sd1") is not first
    with pytest.raises(ModelUnknown, match="nobody's"):
        models.load("nobody's")


def test_a_model_is_read_as_its_fingerprint_ends(make_shelf):
    """A held model with a reading at the end of its fingerprint is offered, and loaded as that says."""
    models = make_shelf()
    assert models.holds("sd1+v_prediction")
    assert not models.holds("sdxl+v_prediction")
    read = models.load("sd1+v_prediction+zero_snr")
    assert (read.fingerprint, read.prediction_type) == ("sd1+v_prediction+zero_snr", "v_prediction")
    assert read.scheduler_config["rescale_betas_zero_snr"] is True
    assert models.load("sd1").prediction_type == "epsilon"


def test_what_the_files_say_is_told(make_shelf):
    """What a producer must know of each model stands ready for the heartbeat."""
    facts = {name: ModelFacts.from_json(said) for name, said in make_shelf().facts.items()}
    assert all(one.is_native for one in facts.values())
    assert facts["sd2"].prediction_type == "v_prediction"


@pytest.mark.parametrize("mode", ["off", "reduce-overhead"])
def test_the_unet_is_compiled_when_asked(make_shelf, monkeypatch, tmp_path, mode):
    """`PRINTROOM_COMPILE` reaches torch.compile with static shapes, and nothing is compiled unasked."""
    asked = []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.append(options) or module)
    make_shelf(compile=mode, cache=tmp_path).load("sd1")
    wanted = [] if mode == "off" else [{"mode": mode, "fullgraph": True, "dynamic": False}]
    assert asked == wanted


def test_offload_reaches_the_loader(make_shelf, monkeypatch):
    """`PRINTROOM_OFFLOAD` is handed to `load_model`."""
    asked, genuine = [], loaded_module.load_model

    def load_model(source, *, offload, **options):
        asked.append(offload)
        return genuine(source, **options)

    monkeypatch.setattr(loaded_module, "load_model", load_model)
    make_shelf(offload="sequential").load("sd1")
    assert asked == ["sequential"]
