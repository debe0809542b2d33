"""Loading families beyond Stable Diffusion: what is taken, what is refused unread, and the tiny models of the tests."""

import hashlib
import json
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants

from shared.errors import ModelLoadFailed, ModelUnsupported, SettingsError
from shared.fingerprint import find_models, fingerprint_path
from testing.random_pipelines import PipelineFamily, create_random_pipeline
from worker.models.loader import ModelSource, load_model
from worker.models.pipelines import TEXT_TO_IMAGE, hub_patterns, pipeline_dtype
from worker.sampling.pipelines.model import LoadedPipeline
from worker.sampling.pipelines.sampler import sample_with_pipeline
from worker.sampling.request import Sampled, SampleRequest

# diffusers' own Chroma still uses a name that diffusers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

CPU = torch.device("cpu")

REQUEST = SampleRequest(
    prompt="a cat",
    negative_prompt="ugly",
    seed=1,
    guidance_scale=4.0,
    steps=2,
    scheduler="flow_euler",
    width=64,
    height=64,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that returns the folder of a tiny random model of a family, shared: do not change it."""
    torch.set_num_threads(1)
    return cache(
        lambda family: create_random_pipeline(tmp_path_factory.mktemp("pipelines") / family, family=family)
    )


@pytest.fixture
def folder(made, tmp_path):
    """A function that returns a private copy of a tiny model's folder."""
    return lambda family="z_image": shutil.copytree(made(family), tmp_path / family)


def load(location, *, kind="folder", revision=None, **options):
    """Load a model from a place onto the CPU."""
    source = ModelSource(name="mine", fingerprint="f", kind=kind, location=str(location), revision=revision)
    return load_model(source, device=CPU, **options)


def edit_index(place, **fields):
    """Replace fields of a folder's model_index.json."""
    edit_json(place / "model_index.json", **fields)


def edit_json(path, **fields):
    """Replace fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("family", get_args(PipelineFamily))
def test_a_folder_of_another_family_becomes_its_pipeline(made, family):
    """A folder loads as the pipeline it names, with its own scheduler known and every network ready and frozen."""
    model = load(made(family))
    index = json.loads((made(family) / "model_index.json").read_text())
    assert isinstance(model, LoadedPipeline)
    assert (model.name, model.fingerprint, model.family) == ("mine", "f", index["_class_name"])
    assert model.scheduler_class == index["scheduler"][1]
    networks = [part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert len(networks) >= 3
    assert not any(network.training for network in networks)
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())
    assert {parameter.dtype for network in networks for parameter in network.parameters()} == {torch.float32}


def test_stable_diffusion_stays_with_the_row_engine(model_folder):
    """SD 1.x, 2.x and SDXL are not taken by the adapter, although diffusers' list has them too."""
    for family in ("sd1", "sd2", "sdxl"):
        assert not isinstance(load(model_folder(family)), LoadedPipeline)


def test_a_models_folder_of_any_family_is_found_and_named(made, tmp_path):
    """The worker's search for models sees such folders, and names them by content."""
    shutil.copytree(made("sd3"), tmp_path / "models" / "three")
    shutil.copytree(made("flux"), tmp_path / "models" / "flux")
    assert [name for name, _ in find_models([tmp_path / "models"])] == ["flux", "three"]
    assert fingerprint_path(tmp_path / "models" / "three") == fingerprint_path(made("sd3"))


def test_half_precision_is_bfloat16(made):
    """float16 becomes bfloat16, in which such a model renders; other dtypes are taken as they are."""
    assert pipeline_dtype(torch.float16, CPU) == torch.bfloat16
    assert pipeline_dtype(torch.float32, CPU) == torch.float32
    model = load(made("sd3"), dtype=torch.float16)
    assert (model.dtype, model.pipeline.transformer.dtype) == (torch.bfloat16, torch.bfloat16)
    single, half = (
        next(sample_with_pipeline(m, [REQUEST], batch_rows=2)) for m in (load(made("sd3")), model)
    )
    assert isinstance(half, Sampled)
    assert half.pixels.std() > 10
    assert single.pixels.shape == half.pixels.shape


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_there_is_nothing_to_offload_from_without_a_gpu(made, offload):
    """Offloading on a CPU is a mistake in the settings, not a broken model."""
    with pytest.raises(SettingsError, match=f"offload={offload}"):
        load(made("sd3"), offload=offload)


@pytest.mark.parametrize(
    ("offload", "expected"),
    [("none", "to"), ("model", "enable_model_cpu_offload"), ("sequential", "enable_sequential_cpu_offload")],
)
def test_networks_wait_where_they_are_told(made, monkeypatch, offload, expected):
    """Each way of offloading is diffusers' own, for the device asked for; none moves all networks there."""
    placed = []
    for name in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            DiffusionPipeline,
            name,
            lambda self, *where, name=name, **named: placed.append((name, *where, *named.values())),
        )
    source = ModelSource(name="mine", fingerprint="f", kind="folder", location=str(made("sd3")))
    device = torch.device("cuda:1")
    model = load_model(source, device=device, dtype=torch.float32, offload=offload)
    assert placed == [(expected, device)]
    assert (model.device, model.pipeline.transformer.device) == (device, CPU)


def store_as_variant(place, dtype, variant):
    """Store every weight of a folder in a dtype, in files of a variant."""
    for path in list(place.rglob("*.safetensors")):
        tensors = {name: value.to(dtype) for name, value in safetensors.torch.load_file(path).items()}
        path.unlink()
        target = path.with_suffix(f".{variant}.safetensors")
        safetensors.torch.save_file(tensors, target, metadata={"format": "pt"})


def test_files_of_the_fp16_variant_are_read(folder):
    """A folder that has only float16 files loads, in the dtype asked for."""
    place = folder("sd3")
    store_as_variant(place, torch.float16, "fp16")
    model = load(place)
    assert model.pipeline.transformer.dtype == torch.float32
    assert isinstance(next(sample_with_pipeline(model, [REQUEST], batch_rows=2)), Sampled)


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
def test_pickles_are_refused_unread(folder, component):
    """A network that has only a pickle is refused with the file's name; the pickle is not opened."""
    place = folder()
    (weights,) = (place / component).glob("*.safetensors")
    weights.unlink()
    pickle = weights.with_name("pytorch_model.bin")
    pickle.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelUnsupported, match=rf"{component}.*pytorch_model\.bin.*safetensors"):
        load(place)


@pytest.mark.parametrize(
    "fields",
    [
        {"transformer": ["evil", "EvilTransformer"]},
        {"transformer": ["transformers_modules.evil", "EvilTransformer"]},
        {"tokenizer": ["diffusers_modules.local.evil", "EvilTokenizer"]},
        {"_class_name": ["evil", "ZImagePipeline"]},
        {"_class_name": None},
        {"custom_pipeline": "evil"},
    ],
)
def test_code_of_its_own_is_refused(folder, fields):
    """A pipeline or a component of any other library is refused; its code is not imported."""
    place = folder()
    for name in ("evil.py", "transformer/evil.py", "pipeline.py"):
        (place / name).write_text("raise SystemExit('ran')")
    edit_index(place, **fields)
    with pytest.raises(ModelUnsupported, match="code of its own, which is never run"):
        load(place)


@pytest.mark.parametrize(
    "file", ["transformer/diffusers.py", "scheduler/diffusers.py", "tokenizer/anything.py"]
)
def test_code_beside_a_component_is_refused(folder, file):
    """A Python file in a component's folder, also one of a library's name, is refused and not run."""
    place = folder()
    (place / file).write_text("raise SystemExit('ran')")
    with pytest.raises(ModelUnsupported, match="never run"):
        load(place)


@pytest.mark.parametrize("file", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_a_config_that_points_to_code_is_refused(folder, file):
    """A config with an auto_map wants code from somewhere."""
    place = folder()
    edit_json(place / file, auto_map={"AutoModel": "evil--modeling.EvilModel"})
    with pytest.raises(ModelUnsupported, match="auto_map"):
        load(place)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (["diffusers", "DiffusionPipeline"], "no component"),  # it would read an index of its own
        (["diffusers", "no_such_class"], "no component"),
        (["transformers", "pipeline"], "no component"),
        (["os", "system"], "code of its own"),
    ],
)
def test_what_is_no_component_is_refused(folder, entry, said):
    """A component is a network, a scheduler, a tokenizer or a processor, and nothing else that a library has."""
    place = folder()
    edit_index(place, transformer=entry)
    with pytest.raises(ModelUnsupported, match=said):
        load(place)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("EvilPipeline", "not rendered here"),
        ("WanPipeline", "not rendered here"),
        ("FluxInpaintPipeline", "not rendered here"),
        ("FluxControlPipeline", "control image"),
        ("StableDiffusionControlNetPipeline", "control image"),
        ("HeliosPipeline", "videos"),
        ("StableCascadeCombinedPipeline", "two stages"),
        ("KandinskyV22CombinedPipeline", "two stages"),
    ],
)
def test_a_pipeline_that_wants_more_than_a_job_has_is_refused(folder, name, said):
    """Images, videos and stages are refused by what they want; an unknown pipeline with the list of known ones."""
    place = folder()
    edit_index(place, _class_name=name)
    with pytest.raises(ModelUnsupported, match=said) as refused:
        load(place)
    assert name in str(refused.value)
    if said == "not rendered here":
        listed = str(refused.value).rpartition(": ")[2].split(", ")
        assert {"FluxPipeline", "StableDiffusion3Pipeline", "QwenImagePipeline", "SanaPipeline"} <= set(
            listed
        )
        assert not any("Control" in known or "Combined" in known or "Helios" in known for known in listed)


def test_every_pipeline_that_is_listed_can_be_called_with_what_a_job_has():
    """No pipeline that is let through has an argument without a default that a job does not fill."""
    import inspect

    from worker.models.pipelines import _obstacle

    for name, kind in TEXT_TO_IMAGE.items():
        parameters = inspect.signature(kind.__call__).parameters
        if _obstacle(kind) is None:
            wanted = {word for word, found in parameters.items() if found.default is found.empty}
            assert wanted - {"self", "prompt", "kwargs"} == set(), name
            assert {"prompt", "height", "width", "num_inference_steps", "generator", "output_type"} <= set(
                parameters
            )
            assert {"guidance_scale", "true_cfg_scale"} & set(parameters), name


@pytest.mark.parametrize("broken", ["component", "weights", "no_weights", "truncated"])
def test_a_folder_that_is_not_whole_does_not_load(folder, broken):
    """A component or weights that are missing are named."""
    place = folder()
    (weights,) = (place / "transformer").glob("*.safetensors")
    index = json.loads((place / "model_index.json").read_text())
    kind, said = ModelLoadFailed, "transformer"
    if broken == "component":
        del index["transformer"]
        kind = ModelUnsupported
    elif broken == "weights":
        tensors = safetensors.torch.load_file(weights)
        del tensors[sorted(tensors)[0]]
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
        said = "1 weights are missing"
    elif broken == "no_weights":
        weights.unlink()
        said = "no .safetensors"
    else:
        weights.write_bytes(weights.read_bytes()[:50_000])
        said = str(place)
    (place / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(kind, match=said):
        load(place)


def test_options_that_look_like_components_are_options(folder):
    """A pair of strings in an index may be an option of the pipeline; what is neither is left alone."""
    place = folder("sd3")
    edit_index(
        place,
        _class_name="StableDiffusion3PAGPipeline",
        pag_applied_layers=["blocks.0", "blocks.1"],
        refiner=["evil", "EvilRefiner"],
    )
    model = load(place)
    assert model.family == "StableDiffusion3PAGPipeline"
    assert model.pipeline.pag_applied_layers == ["blocks.0", "blocks.1"]


# --- the hub ------------------------------------------------------------------------------------------------------


def test_only_what_is_read_is_fetched(made):
    """Of a repository: configs, vocabularies, templates, safetensors of one variant; no code, no pickles."""
    index = json.loads((made("z_image") / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "../up": ["diffusers", "X"],
    }
    plain, half = hub_patterns(index, ""), hub_patterns(index, ".fp16")

    def fetched(patterns, file):
        return any(fnmatch(file, pattern) for pattern in patterns)

    for path in made("z_image").rglob("*"):
        assert not path.is_file() or fetched(plain, str(path.relative_to(made("z_image"))))
    wanted = [
        "text_encoder/model-00001-of-00003.safetensors",
        "text_encoder/model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "tokenizer/spiece.model",
        "tokenizer/chat_template.jinja",
        "tokenizer/merges.txt",
    ]
    assert [file for file in wanted if not fetched(plain, file)] == []
    unwanted = [
        "pipeline.py",
        "transformer/modeling.py",
        "transformer/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/flax_model.msgpack",
        "safety_checker/model.safetensors",
        "flux1-dev.safetensors",
        "../up/config.json",
        "README.md",
    ]
    assert [file for file in unwanted if fetched(plain, file)] == []
    assert fetched(half, "text_encoder/model.fp16.safetensors")
    assert not fetched(half, "text_encoder/model.safetensors")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A function that puts a folder in the hub's cache as a repository's snapshot; the hub does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(place):
        snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / COMMIT
        shutil.copytree(place, snapshot)
        return snapshot

    return put


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_a_hub_model_loads_from_the_hubs_cache(folder, hub_cache, variant):
    """A hub id with a revision loads offline when its snapshot is in the hub's cache, of either variant."""
    place = folder("sd3")
    if variant:
        store_as_variant(place, torch.float16, variant)
    hub_cache(place)
    model = load("someone/tiny", kind="hub", revision=COMMIT)
    assert model.family == "StableDiffusion3Pipeline"


def test_a_hub_model_is_refused_before_its_weights_come(folder, hub_cache, monkeypatch):
    """What model_index.json tells is enough to refuse: nothing but it is asked of the hub."""
    from worker.models import loader

    place = folder("sd3")
    edit_index(place, transformer=["evil", "EvilTransformer"])
    hub_cache(place)
    asked, genuine = [], loader.snapshot_download
    monkeypatch.setattr(
        loader,
        "snapshot_download",
        lambda *words, allow_patterns, **options: (
            asked.append(allow_patterns) or genuine(*words, allow_patterns=allow_patterns, **options)
        ),
    )
    with pytest.raises(ModelUnsupported, match="EvilTransformer"):
        load("someone/tiny", kind="hub", revision=COMMIT)
    assert asked == [["model_index.json"]]


def test_a_hub_model_without_safetensors_is_refused(folder, hub_cache):
    """A repository whose network has no safetensors of any variant is refused by that network's name."""
    place = folder("sd3")
    for weights in (place / "transformer").glob("*.safetensors"):
        weights.unlink()
    hub_cache(place)
    with pytest.raises(ModelUnsupported, match=r"transformer/\*\.safetensors"):
        load("someone/tiny", kind="hub", revision=COMMIT)


# --- the tiny models ------------------------------------------------------------------------------------------------


def contents(place):
    """Return the hash of every file of a folder, by relative path."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("family", get_args(PipelineFamily))
def test_a_seed_is_one_model(made, tmp_path, family):
    """The same seed writes the same bytes again, another seed other weights; all of it is small."""
    again = create_random_pipeline(tmp_path / "again", family=family)
    assert contents(again) == contents(made(family))
    other = contents(create_random_pipeline(tmp_path / "other", family=family, seed=1))
    changed = {name for name, digest in contents(again).items() if other[name] != digest}
    assert changed == {name for name in other if name.endswith(".safetensors")}
    assert sum(path.stat().st_size for path in again.rglob("*.safetensors")) < 3_000_000


def test_the_command_writes_the_same_model(made, tmp_path):
    """The command line writes what the function writes, in another process, and says where."""
    place = tmp_path / "made"
    command = [sys.executable, "-m", "testing.random_pipelines", str(place), "--family", "flux"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert done.stdout == f"{place}\n"
    assert contents(place) == contents(made("flux"))


def test_nothing_of_this_machine_is_in_them(made):
    """No config of a folder holds a path."""
    for family in get_args(PipelineFamily):
        for path in made(family).rglob("*config.json"):
            assert str(Path.home()) not in path.read_text()
            assert str(made(family).parent) not in path.read_text()
