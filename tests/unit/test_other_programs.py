"""Images of other programs are named, and read as far as sd-parsers reads them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from producer.cli import cli
from producer.recipe.show import show_image
from shared.errors import UsageError
from shared.images.exif import write_exif

COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7, "steps": 20, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a \x1b[31mcat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
}  # fmt: skip
#: As the program itself writes it: only with links of real types can an independent reader follow it.
COMFY_WORKFLOW = {
    "links": [
        [1, 4, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "CONDITIONING"], [3, 7, 0, 3, 2, "CONDITIONING"],
        [4, 5, 0, 3, 3, "LATENT"], [5, 4, 1, 6, 0, "CLIP"], [6, 4, 1, 7, 0, "CLIP"], [7, 3, 0, 8, 0, "LATENT"],
    ]
}  # fmt: skip
NOVELAI = {"sampler": "k_euler_ancestral", "seed": 7, "steps": 28, "scale": 6.5, "uc": "blurry"}
FOOOCUS = {
    "base_model": "sdxl", "base_model_hash": "1a2b", "guidance_scale": 6.5, "scheduler": "karras", "seed": "7",
    "sharpness": 2.0, "steps": 30, "sampler": "dpmpp_2m_sde", "prompt": "a cat", "negative_prompt": "blurry",
}  # fmt: skip
INVOKEAI = {
    "positive_prompt": "a cat", "negative_prompt": "blurry", "seed": 7, "steps": 20, "cfg_scale": 6.5,
    "scheduler": "euler", "model": {"name": "v1", "hash": "1a2b"}, "width": 512, "height": 512,
}  # fmt: skip


def _png(folder: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(folder / "theirs.png", pnginfo=info)
    return folder / "theirs.png"


NOVELAI_TEXTS = {
    "Software": "NovelAI", "Description": "a cat", "Source": "Stable Diffusion 1D44365E",
    "Comment": json.dumps(NOVELAI),
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("ComfyUI", {"prompt": json.dumps(COMFY), "workflow": json.dumps(COMFY_WORKFLOW)}),
        ("ComfyUI", {"prompt": json.dumps(COMFY)}),
        ("InvokeAI", {"invokeai_metadata": json.dumps(INVOKEAI)}),
        ("NovelAI", NOVELAI_TEXTS),
        ("Fooocus", {"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
    ],
)
def test_a_program_is_named_and_read(tmp_path: Path, program: str, texts: Any) -> None:
    """Prompt, negative, seed and guidance arrive; what the parser does not tell stays open."""
    shown = show_image(_png(tmp_path, **texts))
    assert (shown.program, shown.source) == (program, "other")
    assert shown.sweep["prompt"].endswith("cat")
    assert [shown.sweep[key] for key in ("negative_prompt", "seed", "guidance_scale")] == ["blurry", 7, 6.5]
    assert ("size" in shown.open) == (program in ("NovelAI", "Fooocus"))
    assert "scheduler" in shown.sweep or program == "InvokeAI"


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("Easy Diffusion", {"use_stable_diffusion_model": "x", "prompt": "a cat"}),
        ("ComfyUI", {"workflow": "not json"}),
        ("InvokeAI", {"sd-metadata": "[]"}),
        ("NovelAI", {"Software": "NovelAI", "Comment": "null"}),
        ("Draw Things", {"XML:com.adobe.xmp": "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"}),
    ],
)
def test_what_cannot_be_read_is_still_named(tmp_path: Path, program: str, texts: Any) -> None:
    """A damaged text, or a program that nobody reads, is an error that names the program."""
    with pytest.raises(UsageError, match=f"made by {program}"):
        show_image(_png(tmp_path, **texts))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["big", "little"])
def test_fooocus_in_exif(tmp_path: Path, kind: str, order: str) -> None:
    """JSON in a UserComment of either byte order is read."""
    text = json.dumps(FOOOCUS)
    block = write_exif(text)
    if order == "little":
        block = block.replace(text.encode("utf-16-be"), text.encode("utf-16-le"))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=b"Exif\0\0" + block)
    (tmp_path / "theirs").write_bytes(file.getvalue())
    shown = show_image(tmp_path / "theirs")
    assert (shown.program, shown.sweep["prompt"], shown.sweep["seed"]) == ("Fooocus", "a cat", 7)


def test_without_the_extra_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is named without the library, and one line says how to install it."""
    monkeypatch.setitem(sys.modules, "sd_parsers.parsers", None)
    with pytest.raises(UsageError, match=r"made by NovelAI; .*pip install 'printroom\[recipes\]'"):
        show_image(_png(tmp_path, **NOVELAI_TEXTS))


def test_the_verb_prints_no_escape_codes(tmp_path: Path) -> None:
    """A prompt with escape codes reaches the terminal escaped, in each form."""
    path = str(_png(tmp_path, prompt=json.dumps(COMFY)))
    for more in ([], ["--sweep"], ["--json"]):
        done = CliRunner().invoke(cli, ["show", path, *more])
        assert (done.exit_code, "\x1b" in done.stdout + done.stderr) == (0, False)


def test_a_random_text_is_nobodys(tmp_path: Path) -> None:
    """A prompt text that is no workflow, as any program may write one, names no program."""
    with pytest.raises(UsageError, match="no infotext"):
        show_image(_png(tmp_path, prompt="a caption", Software="Photo 1.0"))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            {"invokeai_metadata": json.dumps({**INVOKEAI, "scheduler": "dpmpp_2m_k", "height": 768})},
            {"scheduler": "dpmpp_2m_karras", "size": "512x768", "model": "v1"},
        ),
        (
            {"invokeai_metadata": json.dumps({**INVOKEAI, "scheduler": "unipc", "model": {"base": "sd-1"}})},
            {"scheduler": "unipc", "size": "512x512", "model": None},
        ),
        (
            {
                "parameters": json.dumps(
                    {**FOOOCUS, "sampler": "dpmpp_2m_sde_gpu", "resolution": "(1024, 768)"}
                )
            },
            {"scheduler": "dpmpp_2m_sde_karras", "size": "1024x768"},
        ),
        (
            {**NOVELAI_TEXTS, "Comment": json.dumps({**NOVELAI, "width": 512, "height": 768})},
            {"steps": 28, "size": "512x768", "scheduler": "euler_a"},
        ),
        ({"prompt": json.dumps(COMFY)}, {"size": "512x512", "model": "v1.safetensors"}),
        ({"invokeai_metadata": json.dumps({**INVOKEAI, "width": 513})}, {"size": None}),
        ({"invokeai_metadata": json.dumps({**INVOKEAI, "seed": 2**70})}, {"seed": None}),
    ],
)
def test_what_a_program_says_in_its_own_place_is_read(tmp_path: Path, texts: Any, expected: Any) -> None:
    """Sizes, NovelAI's steps, models and samplers of today's InvokeAI; what no sweep may say stays open (None)."""
    shown = show_image(_png(tmp_path, **texts))
    assert expected == {key: shown.sweep.get(key) for key in expected}
    assert [key for key, value in expected.items() if value is None] == [
        key for key in expected if key in shown.open
    ]


def test_swarmui_is_named(tmp_path: Path) -> None:
    """Its parameters are JSON in the place of A1111's infotext."""
    path = _png(tmp_path, parameters=json.dumps({"sui_image_params": {"prompt": "a cat", "seed": 1}}))
    with pytest.raises(UsageError, match="made by SwarmUI, whose recipes cannot be read here"):
        show_image(path)
