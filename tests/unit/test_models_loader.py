"""Loading models: folders, hub caches, single files, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from shared.errors import ModelLoadFailed, ModelUnsupported
from shared.model_reading import Reading
from shared.names import DEFAULT_MODEL
from worker.models import bundled
from worker.models.families import SD, SDXL
from worker.models.loader import ModelSource, load_model
from worker.models.precision import default_dtype
from worker.sampling.rows.loop import sample

CPU = torch.device("cpu")


@pytest.fixture
def folder(model_folder, tmp_path):
    """A function that returns a private copy of a tiny model's folder."""
    return lambda family="sd1": shutil.copytree(model_folder(family), tmp_path / family)


def load(location, *, kind="folder", revision=None, **options):
    """Load a model from a place onto the CPU."""
    source = ModelSource(name="mine", fingerprint="f", kind=kind, location=str(location), revision=revision)
    return load_model(source, device=CPU, **options)


def edit_json(path, **fields):
    """Replace fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def store_as(folder, dtype, variant=""):
    """Store every weight of a folder in a dtype, in files of a variant."""
    for path in list(folder.rglob("*.safetensors")):
        tensors = safetensors.torch.load_file(path)
        path.unlink()
        halves = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()
        }
        safetensors.torch.save_file(
            halves, path.with_suffix(f"{variant}.safetensors"), metadata={"format": "pt"}
        )


@pytest.mark.parametrize(
    ("tiny", "family", "prediction", "encoders"),
    [("sd1", "sd", "epsilon", 1), ("sd2", "sd", "v_prediction", 1), ("sdxl", "sdxl", "epsilon", 2)],
)
def test_a_folder_says_what_it_is(tiny_model, tiny, family, prediction, encoders):
    """Family, prediction, encoders and scale factor come from the folder."""
    model = tiny_model(tiny)
    assert (model.family, model.prediction_type) == (family, prediction)
    assert len(model.networks.text_encoders) == len(model.networks.tokenizers) == encoders
    assert (model.networks.size_unit_px, model.dtype, model.networks.vae_dtype) == (
        8,
        torch.float32,
        torch.float32,
    )
    assert not any(parameter.requires_grad for parameter in model.networks.unet.parameters())


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_half_files_load_as_single_on_the_cpu(folder, make_request, variant):
    """Files stored in float16, also as the fp16 variant, are computed in float32 on a CPU."""
    place = folder()
    store_as(place, torch.float16, variant)
    model = load(place)
    networks = (model.networks.unet, model.networks.vae, *model.networks.text_encoders)
    assert {parameter.dtype for module in networks for parameter in module.parameters()} == {torch.float32}
    (outcome,) = sample(model, [make_request()], batch_rows=2)
    assert outcome.pixels.std() > 10


def test_pickles_are_refused(folder):
    """A component that has only a pickle is refused, with the file and what is supported."""
    place = folder()
    (place / "unet" / "diffusion_pytorch_model.safetensors").rename(
        place / "unet" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(ModelUnsupported, match=r"diffusion_pytorch_model\.bin.*safetensors"):
        load(place)


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".bin", ".gguf"])
def test_single_files_are_safetensors_only(tmp_path, ending):
    """A checkpoint of any other ending is refused unread."""
    place = tmp_path / f"model{ending}"
    place.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelUnsupported, match="safetensors"):
        load(place, kind="single_file")


def test_another_pipeline_is_refused_by_name(folder):
    """An unsupported family is named, and what is supported too."""
    place = folder()
    edit_json(place / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(ModelUnsupported, match=r"FluxPipeline.*Stable Diffusion 1\.x, 2\.x and SDXL"):
        load(place)


def test_remote_code_is_refused(folder):
    """A pipeline or component with code of its own is refused; the code is not imported."""
    place = folder()
    (place / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(place / "model_index.json", _class_name=["evil", "EvilPipeline"])
    with pytest.raises(ModelUnsupported):
        load(place)
    edit_json(place / "model_index.json", _class_name="StableDiffusionPipeline", unet=["evil", "EvilUNet"])
    with pytest.raises(ModelUnsupported, match="unet is EvilUNet"):
        load(place)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"in_channels": 9}, "9 channels"),
        ({"time_cond_proj_dim": 32}, "distilled"),
        ({"class_embed_type": "timestep"}, "class"),
    ],
)
def test_a_unet_that_wants_more_is_refused(folder, fields, said):
    """Inpainting and distilled UNets are told from text-to-image ones."""
    import diffusers

    place = folder()
    config = json.loads((place / "unet" / "config.json").read_text())
    diffusers.UNet2DConditionModel.from_config({**config, **fields}).save_pretrained(place / "unet")
    with pytest.raises(ModelUnsupported, match=said):
        load(place)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    """A folder without model_index.json is not a model."""
    with pytest.raises(ModelUnsupported, match=r"model_index\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    "breakage",
    [
        "truncated",
        "not_safetensors",
        "no_weights",
        "weights_missing",
        "no_tokenizer",
        "bad_json",
        "wrong_shape",
    ],
)
def test_a_broken_folder_fails_to_load(folder, breakage):
    """Whatever is broken, the error is model_load_failed and names the model's place."""
    place = folder()
    weights = place / "unet" / "diffusion_pytorch_model.safetensors"
    if breakage == "truncated":
        weights.write_bytes(weights.read_bytes()[:50_000])
    elif breakage == "not_safetensors":
        weights.write_bytes(b"<html>404</html>" * 100)
    elif breakage == "no_weights":
        weights.unlink()
    elif breakage == "weights_missing":
        text = place / "text_encoder" / "model.safetensors"
        tensors = safetensors.torch.load_file(text)
        del tensors[sorted(tensors)[-1]]
        safetensors.torch.save_file(tensors, text, metadata={"format": "pt"})
    elif breakage == "no_tokenizer":
        shutil.rmtree(place / "tokenizer")
    elif breakage == "bad_json":
        (place / "unet" / "config.json").write_text("{")
    else:
        edit_json(place / "unet" / "config.json", block_out_channels=[16, 16])
    with pytest.raises(ModelLoadFailed, match=str(place)):
        load(place)


def test_an_old_schedulers_config_is_mended(folder):
    """SD configs of the first days get what StableDiffusionPipeline gives them."""
    place = folder()
    edit_json(
        place / "scheduler" / "scheduler_config.json",
        _class_name="DDIMScheduler",
        steps_offset=0,
        clip_sample=True,
    )
    config = load(place).scheduler_config
    assert (config["steps_offset"], config["clip_sample"]) == (1, False)


def test_a_scheduler_nobody_has_is_refused(folder):
    """A scheduler class that diffusers does not have, or that is none, is refused."""
    place = folder()
    for name in ("EvilScheduler", "UNet2DConditionModel"):
        edit_json(place / "model_index.json", scheduler=["diffusers", name])
        with pytest.raises(ModelUnsupported, match=rf"model_index\.json: .* has no scheduler {name}"):
            load(place)
    edit_json(place / "model_index.json", scheduler=[None, None])
    edit_json(place / "scheduler" / "scheduler_config.json", _class_name="EvilScheduler")
    with pytest.raises(ModelUnsupported, match=r"scheduler_config\.json: .* has no scheduler EvilScheduler"):
        load(place)


def test_a_hub_model_loads_from_the_hubs_cache(folder, tmp_path, monkeypatch):
    """A hub id with a revision loads offline when its snapshot is in the hub's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / commit
    shutil.copytree(folder("sdxl"), snapshot)
    model = load("someone/tiny", kind="hub", revision=commit)
    assert model.family == "sdxl"
    with pytest.raises(ModelLoadFailed, match="someone/other"):
        load("someone/other", kind="hub")


#: Names in a diffusers folder (patterns) -> names in a checkpoint of the original Stable Diffusion code.
UNET_NAMES = [
    (r"time_embedding\.linear_1", "time_embed.0"),
    (r"time_embedding\.linear_2", "time_embed.2"),
    (r"conv_in\.", "input_blocks.0.0."),
    (r"conv_norm_out", "out.0"),
    (r"conv_out", "out.2"),
    (r"down_blocks\.0\.resnets\.0", "input_blocks.1.0"),
    (r"down_blocks\.0\.attentions\.0", "input_blocks.1.1"),
    (r"down_blocks\.0\.downsamplers\.0\.conv", "input_blocks.2.0.op"),
    (r"down_blocks\.1\.resnets\.0", "input_blocks.3.0"),
    (r"mid_block\.resnets\.0", "middle_block.0"),
    (r"mid_block\.attentions\.0", "middle_block.1"),
    (r"mid_block\.resnets\.1", "middle_block.2"),
    (r"up_blocks\.0\.resnets\.([01])", r"output_blocks.\1.0"),
    (r"up_blocks\.0\.upsamplers\.0\.conv", "output_blocks.1.1.conv"),
    (r"up_blocks\.1\.resnets\.0", "output_blocks.2.0"),
    (r"up_blocks\.1\.attentions\.0", "output_blocks.2.1"),
    (r"up_blocks\.1\.resnets\.1", "output_blocks.3.0"),
    (r"up_blocks\.1\.attentions\.1", "output_blocks.3.1"),
    (r"(put_blocks\.\d\.0|middle_block\.[02])\.norm1", r"\1.in_layers.0"),
    (r"(put_blocks\.\d\.0|middle_block\.[02])\.conv1", r"\1.in_layers.2"),
    (r"time_emb_proj", "emb_layers.1"),
    (r"(put_blocks\.\d\.0|middle_block\.[02])\.norm2", r"\1.out_layers.0"),
    (r"(put_blocks\.\d\.0|middle_block\.[02])\.conv2", r"\1.out_layers.3"),
    (r"conv_shortcut", "skip_connection"),
]
VAE_NAMES = [
    (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2"),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    *((rf"decoder\.up_blocks\.{up}\.resnets\.(\d)", rf"decoder.up.{3 - up}.block.\1") for up in range(4)),
    *((rf"decoder\.up_blocks\.{up}\.upsamplers\.0", f"decoder.up.{3 - up}.upsample") for up in range(4)),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
]
#: transformers 5 leaves the module's name out of the file, earlier versions and old checkpoints have it.
TEXT_NAMES = [(r"^(?!text_model\.)", "text_model.")]


def original_checkpoint(folder):
    """Return the tensors of an SD 1.x folder under the names of the original code's checkpoints."""

    def renamed(file, names, prefix):
        for name, value in safetensors.torch.load_file(folder / file).items():
            for pattern, replacement in names:
                name = re.sub(pattern, replacement, name)
            # The original VAE's attention is made of 1 x 1 convolutions.
            conv = "mid.attn_1" in name and value.ndim == 2
            yield prefix + name, (value[:, :, None, None] if conv else value).contiguous()

    return {
        **dict(renamed("unet/diffusion_pytorch_model.safetensors", UNET_NAMES, "model.diffusion_model.")),
        **dict(renamed("vae/diffusion_pytorch_model.safetensors", VAE_NAMES, "first_stage_model.")),
        **dict(renamed("text_encoder/model.safetensors", TEXT_NAMES, "cond_stage_model.transformer.")),
    }


def test_a_single_file_is_the_folder_it_was_made_of(folder, tmp_path, tiny_model, make_request):
    """A checkpoint in one file, with configs in a folder beside it, renders the same image as its folder."""
    place = tmp_path / "photo.safetensors"
    source = folder()
    safetensors.torch.save_file(original_checkpoint(source), place)
    for weights in source.rglob("*.safetensors"):
        weights.unlink()
    source.rename(tmp_path / "photo")
    request = make_request()
    ours, theirs = (
        next(sample(m, [request], batch_rows=2)) for m in (load(place, kind="single_file"), tiny_model("sd1"))
    )
    assert (ours.pixels == theirs.pixels).all()


@pytest.fixture
def single_file(folder, tmp_path):
    """A function that writes an SD 1.x checkpoint in one file, configs beside it, with marks of its own."""

    def make(tensors=(), metadata=None):
        place = tmp_path / "photo.safetensors"
        source = folder()
        marks = {name: torch.zeros(0) for name in tensors}
        safetensors.torch.save_file({**original_checkpoint(source), **marks}, place, metadata=metadata)
        for weights in source.rglob("*.safetensors"):
            weights.unlink()
        source.rename(tmp_path / "photo")
        return place

    return make


def diffusers_pixels(place, request, **scheduler_settings):
    """Return what diffusers' own pipeline over a single file draws, with its scheduler told what the file predicts."""
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_single_file(
        str(place), config=str(place.with_suffix("")), local_files_only=True, safety_checker=None
    )
    pipeline.scheduler.register_to_config(**scheduler_settings)
    config = pipeline.scheduler.config
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(config, clip_sample=False, steps_offset=1)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        width=request.width,
        height=request.height,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="np",
    ).images
    return (images[0] * 255).round().astype("uint8").astype(int)


@pytest.mark.parametrize(
    ("tensors", "metadata", "zero_snr"),
    [
        (("v_pred",), None, False),
        (("v_pred", "ztsnr"), None, True),
        ((), {"modelspec.prediction_type": "v"}, False),
        ((), {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}, True),
    ],
)
def test_a_single_file_is_read_as_it_says(single_file, make_request, tensors, metadata, zero_snr):
    """What marks a v-prediction checkpoint, in tensors or metadata, makes it render as diffusers' pipeline told so."""
    place, request = single_file(tensors, metadata), make_request()
    model = load(place, kind="single_file")
    assert model.prediction_type == "v_prediction"
    (ours,) = sample(model, [request], batch_rows=2)
    theirs = diffusers_pixels(place, request, prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr)
    assert abs(ours.pixels.astype(int) - theirs).max() <= 1
    unread = diffusers_pixels(place, request)
    assert abs(unread - theirs).max() > 10  # or the case would prove nothing


@pytest.mark.parametrize("kind", ["folder", "single_file"])
def test_a_sweep_says_how_a_model_is_read(folder, single_file, make_request, kind):
    """A reading given by the sweep goes before the files', for a folder and for a single file."""
    place = folder("sd2") if kind == "folder" else single_file()
    reading = Reading(prediction_type="epsilon" if kind == "folder" else "v_prediction", zero_snr=True)
    source = ModelSource(name="mine", fingerprint="f", kind=kind, location=str(place), reading=reading)
    model = load_model(source, device=CPU)
    assert model.prediction_type == reading.prediction_type
    assert model.scheduler_config["rescale_betas_zero_snr"] is True
    if kind == "single_file":
        (ours,) = sample(model, [make_request()], batch_rows=2)
        theirs = diffusers_pixels(place, make_request(), **reading.overrides())
        assert abs(ours.pixels.astype(int) - theirs).max() <= 1


def test_a_single_file_of_an_unknown_family_is_refused(tmp_path):
    """A safetensors file that is no checkpoint of ours is refused by its tensors' names."""
    place = tmp_path / "lora.safetensors"
    safetensors.torch.save_file({"lora_unet_down.weight": torch.zeros(2)}, place)
    with pytest.raises(ModelUnsupported, match="a LoRA"):
        load(place, kind="single_file")
    place.write_bytes(b"x" * 100)
    with pytest.raises(ModelLoadFailed, match="lora"):
        load(place, kind="single_file")


def test_a_single_file_without_configs_says_what_it_needs(tmp_path, monkeypatch):
    """Offline, a checkpoint whose configs are nowhere names the places they may come from."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "photo.safetensors"
    mark = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    safetensors.torch.save_file({mark: torch.zeros(4, 4)}, place)
    with pytest.raises(ModelLoadFailed, match="configs come from"):
        load(place, kind="single_file")


def test_dtypes_follow_device_and_family():
    """float16 on CUDA, float32 on CPU; SDXL's VAE leaves float16 for bfloat16, SD's stays."""
    assert default_dtype(torch.device("cuda")) == torch.float16
    assert default_dtype(CPU) == torch.float32
    half, single, brain = torch.float16, torch.float32, torch.bfloat16
    assert SDXL.vae_dtype(half, CPU, force_upcast=True) == brain
    assert SDXL.vae_dtype(half, CPU, force_upcast=False) == half
    assert SD.vae_dtype(half, CPU, force_upcast=True) == half
    assert SDXL.vae_dtype(single, CPU, force_upcast=True) == single


def test_the_bundled_model_comes_with_the_package():
    """The default model lies in the worker's package under its name and loads as it is."""
    folder = bundled.bundled_model()
    assert folder == Path(bundled.__file__).parent / DEFAULT_MODEL
    model = load(folder)
    assert (model.family, model.prediction_type, model.dtype) == ("sd", "v_prediction", torch.float32)


def test_a_lost_bundled_model_is_named(monkeypatch):
    """An installation without the weights says where they should be."""
    monkeypatch.setattr(bundled, "DEFAULT_MODEL", "gone")
    with pytest.raises(ModelLoadFailed, match="models/gone: the model that comes with"):
        bundled.bundled_model()
