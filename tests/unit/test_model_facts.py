"""What a model's files say of it, read without torch: held against diffusers and against what the worker loads."""

from __future__ import annotations

import hashlib
import inspect
import json
import struct
from pathlib import Path

import pytest

from shared.fingerprint import fingerprint_path
from shared.model_facts import PIPELINES, SINGLE_FILE_MARKS, ModelFacts, read_facts
from shared.model_reading import AS_IT_SAYS, Reading, split_reading
from shared.safetensors_header import HEADER_BYTES_MAX, HeaderInvalid, read_header
from shared.schedulers import NO_SAMPLE_PREDICTION, SCHEDULE_PARTS, SCHEDULERS

MARKS = {family: mark for mark, family in SINGLE_FILE_MARKS.items()}


def write_file(path: Path, tensors: dict[str, list[int]], **metadata: str) -> Path:
    """Write a .safetensors file of zero-length-typed tensors; only its header means something."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, shape in tensors.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * start)
    return path


def write_json(path: Path, **fields: object) -> None:
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("family", "tensors", "metadata", "expected"),
    [
        ("sdxl", ("v_pred",), {}, ("v_prediction", False)),
        ("sdxl", ("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ("sdxl", (), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ("sdxl", (), {"modelspec.prediction_type": "V_Prediction"}, ("v_prediction", False)),
        ("sdxl", (), {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
        ("sdxl", (), {}, ("epsilon", False)),
        ("sd1", (), {"ss_base_model_version": "sd_v1_v"}, ("v_prediction", False)),
        (
            "sd1",
            (),
            {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
            ("v_prediction", True),
        ),
        ("sd2", (), {"modelspec.architecture": "stable-diffusion-v2-512"}, ("epsilon", False)),
        ("sd2", (), {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, ("v_prediction", False)),
        ("sd2", (), {}, ("v_prediction", False)),
    ],
)
def test_a_single_file_says_what_it_predicts(tmp_path, family, tensors, metadata, expected):
    """Tensors and metadata that mark v-prediction and zero SNR are read; without any it is the family's usual one."""
    names = (MARKS[family], *tensors)
    facts = read_facts(write_file(tmp_path / "a.safetensors", {name: [0] for name in names}, **metadata))
    assert facts is not None
    assert (facts.family, facts.prediction_type, facts.zero_snr) == (family, *expected)
    assert facts.assumed == (family == "sd2" and not metadata)
    assert facts.is_native
    assert facts.path == "betas"
    assert facts.size_unit_px == 8


def test_the_configs_beside_a_file_go_between_its_marks(tmp_path):
    """Configs beside a file yield to its v_pred, and win over an epsilon that a trainer wrote into its metadata."""
    write_json(tmp_path / "a" / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    tensors = {MARKS["sdxl"]: [0]}
    said = read_facts(
        write_file(tmp_path / "a.safetensors", tensors, **{"modelspec.prediction_type": "epsilon"})
    )
    assert said is not None
    assert (said.prediction_type, said.marked) == ("v_prediction", False)
    write_json(tmp_path / "b" / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    said = read_facts(write_file(tmp_path / "b.safetensors", {**tensors, "v_pred": [0]}))
    assert said is not None
    assert (said.prediction_type, said.marked) == ("v_prediction", True)


def test_only_a_file_that_was_read_wrongly_is_another_model(tmp_path):
    """A fingerprint changes where marks were once ignored, and stays where they only repeat what the configs say."""

    def before(path):
        configs = path.with_suffix("")
        beside = [(file.relative_to(configs).as_posix(), file) for file in configs.rglob("*.json")]
        digest = hashlib.blake2b(digest_size=16)
        for name, file in [("", path), *sorted(beside)]:
            content = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
        return f"sha:{digest.hexdigest()}"

    plain = write_file(tmp_path / "plain.safetensors", {MARKS["sdxl"]: [0]})
    marked = write_file(tmp_path / "marked.safetensors", {MARKS["sdxl"]: [0], "v_pred": [0]})
    told = write_file(tmp_path / "told.safetensors", {MARKS["sdxl"]: [0], "v_pred": [0]})
    write_json(tmp_path / "told" / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert fingerprint_path(plain) == before(plain)
    assert fingerprint_path(told) == before(told)
    assert fingerprint_path(marked) != before(marked)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lora_unet_down.weight": [2]}, "a LoRA"),
        ({MARKS["sd1"]: [0], "model.diffusion_model.input_blocks.0.0.weight": [4, 9, 1, 1]}, "9 channels"),
        ({MARKS["sdxl"]: [0], "edm_mean": [0]}, "EDM"),
        ({MARKS["sdxl"]: [0], "v_pred": [0], "edm_vpred.sigma_max": [0]}, "EDM"),
    ],
)
def test_a_file_that_cannot_be_rendered_says_so(tmp_path, tensors, said):
    """LoRAs, inpainting UNets and EDM's models are known by their headers."""
    facts = read_facts(write_file(tmp_path / "a.safetensors", tensors))
    assert facts is not None
    assert said in facts.refusal


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "only 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "header"),
        (struct.pack("<Q", HEADER_BYTES_MAX + 1), "header"),
        (struct.pack("<Q", 100) + b"{}", "cut off"),
        (struct.pack("<Q", 2) + b"[]", "cannot be read"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "cannot be read"),
    ],
)
def test_a_header_that_is_none_is_one_line(tmp_path, content, said):
    """What is no header of safetensors is refused in one line that names the file, and says nothing of the model."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderInvalid, match=said) as error:
        read_header(path)
    assert "a.safetensors" in str(error.value)
    assert "\n" not in str(error.value)
    assert read_facts(path) is None


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_folder_says_what_the_worker_loads(model_folder, tiny_model, family):
    """Prediction and size unit in a folder's configs are those of the loaded model."""
    facts, model = read_facts(model_folder(family)), tiny_model(family)
    assert facts is not None
    assert facts.is_native
    assert not facts.refusal
    assert facts.family.startswith(model.family)
    assert (facts.prediction_type, facts.size_unit_px) == (model.prediction_type, model.networks.size_unit_px)


def test_the_pipelines_traits_are_diffusers():
    """What is written down of each pipeline's class is what diffusers' class says."""
    import diffusers

    for name, traits in PIPELINES.items():
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        limit = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else None
        found = (limit, *(key in parameters for key in ("true_cfg_scale", "negative_prompt", "eta")))
        assert (traits.text_limit, traits.true_cfg, traits.negative, traits.eta) == found, name


def test_the_tables_of_schedulers_are_diffusers():
    """Which classes know of a part of a flow schedule, and which do not take `sample`, is as diffusers has it."""
    import diffusers

    for part, classes in SCHEDULE_PARTS.items():
        flow = {spec.class_name for spec in SCHEDULERS.values() if spec.path == "flow"}
        knowing = {
            name for name in flow if part in inspect.signature(getattr(diffusers, name).__init__).parameters
        }
        assert knowing == set(classes)
    assert {spec.class_name for spec in SCHEDULERS.values()} >= NO_SAMPLE_PREDICTION


@pytest.mark.parametrize(
    ("text", "base", "reading"),
    [
        ("photo", "photo", AS_IT_SAYS),
        ("photo+v_prediction", "photo", Reading(prediction_type="v_prediction")),
        ("photo+epsilon+no_zero_snr", "photo", Reading(prediction_type="epsilon", zero_snr=False)),
        ("a+b+zero_snr", "a+b", Reading(zero_snr=True)),
        ("a+b", "a+b", AS_IT_SAYS),
        ("+epsilon", "+epsilon", AS_IT_SAYS),
        ("zero_snr", "zero_snr", AS_IT_SAYS),
    ],
)
def test_a_reading_is_the_end_of_a_name(text, base, reading):
    """A name is split into the model and how it is read, and put together again as it was."""
    assert split_reading(text) == (base, reading)
    assert f"{base}{reading}" == text


def test_facts_of_another_version_are_read():
    """Facts of a newer worker, with a field more, and of an older one, with a field less, are read."""
    facts = ModelFacts(family="sdxl", schedule_parts=("shift_terminal",))
    document = json.loads(json.dumps(facts.to_json()))
    assert ModelFacts.from_json({**document, "later": 1}) == facts
    with pytest.raises(ValueError, match="no facts"):
        ModelFacts.from_json({"size": 1})


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA, which changes a model and is none"),
        ("transformer.blocks.0.attn.to_k.lora_A.weight", "a LoRA"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("emb_params", "an embedding"),
        (
            "model.diffusion_model.double_blocks.0.img_attn.proj.weight",
            "Flux in one file: name its diffusers",
        ),
        ("double_blocks.0.img_attn.proj.weight", "Flux in one file"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3 in one file"),
        ("conditioner.embedders.0.model.ln_final.weight", "the refiner of Stable Diffusion XL"),
        ("model.diffusion_model.input_blocks.0.0.weight", "only a UNet: name a whole checkpoint"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder and no model"),
        ("first_stage_model.decoder.conv_in.weight", "a VAE and no model"),
        ("strange.weight", "not a checkpoint of a family we know: name a diffusers folder"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path, tensor, said):
    """Its refusal says what to name instead."""
    facts = read_facts(write_file(tmp_path / "a.safetensors", {tensor: [0]}))
    assert facts is not None
    assert facts.refusal.startswith(said)
