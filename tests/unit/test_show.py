"""An image file gives back its recipe and the sweep that asks for it again; A1111's files as far as they go."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from producer.cli import cli
from producer.fleet.models import resolve_model
from producer.language.document import read_yaml
from producer.language.sweep import parse_sweep, sweep_from_mapping
from producer.planning.compile import compile_sweep
from producer.recipe.infotext import read_infotext
from producer.recipe.show import Shown, show_image
from shared.errors import UsageError
from shared.images.exif import write_exif
from shared.images.format import parse_format
from shared.job import Job, make_job
from shared.metadata import image_bytes, infotext
from shared.result import Provenance

PIXELS = np.zeros((8, 16, 3), np.uint8)

PROVENANCE = Provenance(
    model_name="portraits",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=9,
    negative_tokens=2,
    versions={"printroom": "0.1.0", "torch": "2.9.1"},
)

PERP_NEG = '{"negatives":[["hat",0.5]],"rule":"perp_neg"}'

#: As A1111 1.10 writes it, with what a sweep has no place for.
A1111 = """portrait photo of a (red:1.3) cat <lora:fur:0.8>
on two lines
Negative prompt: blurry, low quality,
text
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890, Size: 512x768, Model hash: \
6ce0161689, Model: v1-5-pruned, Denoising strength: 0.5, Clip skip: 2, Hires upscale: 2, \
Lora hashes: "fur: 1a2b, x: 3", Version: v1.10.1"""


#: What stands in images and is no recipe: a caption, a note on steps, another program's fields.
NO_INFOTEXT = [
    "Title: Sunset, Author: Me, Year: 2020",
    "Steps: 3, then turn left",
    "a photo of a cat. Steps: 3, Mood: calm, Light: soft",
    '{"seed": 1, "steps": 20, "sampler": "k_euler"}',
]


def _job(**fields: Any) -> Job:
    recipe: dict[str, Any] = {
        "prompt": "a cat\nin the snow, 雪",
        "negative_prompt": "blurry",
        "seed": 2**64 - 1,
        "guidance_scale": 7.5,
        "steps": 20,
        "scheduler": "dpmpp_2m_karras",
        "width": 16,
        "height": 8,
        "model": "sha:6ce01616890123456789abcdef012345",
    }
    return make_job(**{**recipe, **fields})


def _write(folder: Path, job: Job, image_format: str = "png") -> Path:
    path = folder / "image.bin"
    path.write_bytes(image_bytes(job, PIXELS, PROVENANCE, parse_format(image_format)))
    return path


def _first_job(sweep: Any) -> Job:
    """Compile a sweep of one job, with nobody there who knows a model."""
    plan = compile_sweep(sweep, resolve=lambda name: resolve_model(name, [], cache_dir=Path("nowhere")))
    assert len(plan) == 1
    return plan.job(0)


def _a1111(kind: str, text: str = A1111) -> bytes:
    """Return a file as A1111 saves it."""
    file, image = io.BytesIO(), Image.fromarray(PIXELS)
    if kind == "PNG":
        info = PngInfo()
        info.add_text("parameters", text)
        image.save(file, kind, pnginfo=info)
    else:
        image.save(file, kind, exif=b"Exif\0\0" + write_exif(text))
    return file.getvalue()


# Files of ours.


@pytest.mark.parametrize("image_format", ["png", "webp", "webp:80", "jpeg:90", "jxl"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"negative_prompt": None},
        {"negative_prompt": ""},
        {"guidance_rule": PERP_NEG},
        {"guidance_scale": 1.0, "negative_prompt": None},
        {"model": "hub:org/name@" + "0123456789" * 4},
        {"prompt": "# no: comment\t'\"\u2028\x85"},
    ],
    ids=str,
)
def test_the_sweep_of_an_image_asks_for_this_image(tmp_path: Path, image_format: str, fields: Any) -> None:
    """What --sweep prints is a sweep of one job, the same job, in the same format."""
    job = _job(**fields)
    shown = show_image(_write(tmp_path, job, image_format))
    for sweep in (sweep_from_mapping(shown.sweep), parse_sweep(shown.to_yaml())):
        assert _first_job(sweep) == job
        assert sweep.format == image_format
    assert (shown.source, shown.job, shown.provenance, shown.open) == ("printroom", job, PROVENANCE, {})
    assert json.loads(json.dumps(shown.to_json()))["job_id"] == job.id


def test_another_sampler_is_said(tmp_path: Path) -> None:
    """An image by another version of the sampler's arithmetic cannot be had again, and says so."""
    (note,) = show_image(_write(tmp_path, _job(sampler="0"))).notes
    assert "sampler version 0" in note


def test_a_recompressed_file_is_read_by_its_infotext(tmp_path: Path) -> None:
    """Where another program has written our pixels anew, what A1111 would read is shown, and why."""
    whole = image_bytes(_job(), PIXELS, PROVENANCE, parse_format("jpeg:95"))
    file = io.BytesIO()
    with Image.open(io.BytesIO(whole)) as image:
        image.save(file, "JPEG", quality=50, exif=image.info["exif"], xmp=image.info["xmp"])
    path = tmp_path / "again.jpg"
    path.write_bytes(file.getvalue())
    shown = show_image(path)
    assert (shown.source, shown.sweep["seed"], shown.image_format) == ("a1111", 2**64 - 1, "jpeg")
    assert "do not match their seal" in shown.notes[0]


# Files of A1111's.


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a1111_files_are_read(tmp_path: Path, kind: str) -> None:
    """All that means the same here becomes a key; the rest is said. An independent parser reads the same."""
    path = tmp_path / "theirs"
    path.write_bytes(_a1111(kind))
    shown = show_image(path)
    assert shown.sweep == {
        "name": "a1111-1234567890",
        "prompt": "portrait photo of a (red:1.3) cat <lora:fur:0.8>\non two lines",
        "negative_prompt": "blurry, low quality,\ntext",
        "seed": 1234567890,
        "guidance_scale": 6.5,
        "steps": 28,
        "size": "512x768",
        "scheduler": "dpmpp_2m_karras",
        "model": "v1-5-pruned",
    }
    assert (shown.source, shown.open, shown.job) == ("a1111", {}, None)
    notes = "\n".join(shown.notes)
    for part in (
        "'v1-5-pruned' (hash 6ce0161689) is taken by its name",
        "'(red:1.3)' is text here",
        "cannot be reproduced here: Denoising strength: 0.5, Clip skip: 2, Hires upscale: 2, Lora hashes: fur: 1a2b",
        "another image here",
    ):
        assert part in notes
    found = ParserManager().parse(io.BytesIO(path.read_bytes()))
    assert found is not None
    (sampler,) = found.samplers
    assert sampler.parameters["seed"] == str(shown.sweep["seed"])
    assert [prompt.value for prompt in sampler.prompts] == [shown.sweep["prompt"]]
    assert [prompt.value for prompt in sampler.negative_prompts] == [shown.sweep["negative_prompt"]]


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (("Sampler: DPM++ 2M", "Sampler: Restart"), "scheduler", "'Restart Karras'"),
        (("Schedule type: Karras", "Schedule type: KL Optimal"), "scheduler", "'DPM++ 2M KL Optimal'"),
        (("Sampler: DPM++ 2M", "Sampler: DDIM CFG++"), "scheduler", "'DDIM CFG++ Karras'"),
        (("Sampler: DPM++ 2M, Schedule type: Karras, ", ""), "scheduler", "says none"),
        ((", Model: v1-5-pruned", ""), "model", "hash 6ce0161689, which is A1111's own"),
        (("Seed: 1234567890", "Seed: random"), "seed", "'random' is no number"),
        (("Seed: 1234567890", "Seed: -1"), "seed", "'-1' is no number"),
        (("CFG scale: 6.5", "CFG scale: NaN"), "guidance_scale", "'NaN' is no number"),
        (("CFG scale: 6.5, ", ""), "guidance_scale", "says no 'CFG scale'"),
        (("Size: 512x768, ", ""), "size", "says no 'Size'"),
        (("Size: 512x768", "Size: 513x768"), "size", "513 is not a multiple of 8: use 512 or 520"),
        (("Size: 512x768", "Size: large"), "size", "write a side in pixels"),
        (("CFG scale: 6.5", "CFG scale: 6,5"), "guidance_scale", "'6,5' is no number"),
        (("Seed: 1234567890", "Seed: 99999999999999999999"), "seed", "or less"),
    ],
)
def test_what_is_not_known_stays_open(change: tuple[str, str], key: str, said: str) -> None:
    """A sampler, model or number that cannot be told is left out with its reason, never guessed."""
    reading = read_infotext(A1111.replace(*change))
    assert reading is not None
    assert key not in reading.sweep
    assert list(reading.open) == [key]
    assert said in reading.open[key]


@pytest.mark.parametrize(
    ("sampler", "schedule", "scheduler"),
    [
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE", "Automatic", "dpmpp_2m_sde_exponential"),
        ("DPM2 a", "Automatic", "kdpm2_a_karras"),
        ("Euler a", "Automatic", "euler_a"),
        ("DDIM", "Automatic", "ddim"),
        ("PLMS", "Automatic", "pndm"),
        ("UniPC", "Automatic", "unipc"),
        ("LCM", "Automatic", "lcm"),
        ("Euler", "Simple", "euler_sgm_uniform"),
        ("Euler", "SGM Uniform", "euler_sgm_uniform"),
        ("Euler", "Uniform", "euler"),
        ("Euler", "Normal", "euler"),
        ("DPM++ 2M", "DDIM", "dpmpp_2m"),
        ("DPM++ 2M", "Exponential", "dpmpp_2m_exponential"),
        ("Euler", "Beta", "euler_beta"),
        ("DPM++ 2M", "Simple", None),
        ("DPM++ 2M", "Polyexponential", None),
        ("DPM++ 2M", "Align Your Steps", None),
        ("Restart", "Automatic", None),
    ],
)
def test_schedule_types_of_today(sampler: str, schedule: str, scheduler: str | None) -> None:
    """Automatic means what the sampler's own schedule is; what nothing here does stays open."""
    change = f"Sampler: {sampler}, Schedule type: {schedule}"
    reading = read_infotext(A1111.replace("Sampler: DPM++ 2M, Schedule type: Karras", change))
    assert reading is not None
    assert reading.sweep.get("scheduler") == scheduler
    assert ("scheduler" in reading.open) == (scheduler is None)


SETTINGS = "Steps: 28, Sampler: Euler a, CFG scale: 6.5, Seed: 7, Size: 64x64, Model: m"


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        (f"a cat Negative prompt: blurry, bad {SETTINGS}", "a cat", "blurry, bad"),
        (f"a cat {SETTINGS}", "a cat", None),
        (f"a cat\r\nNegative prompt: blurry\r\n{SETTINGS}\r\n", "a cat", "blurry"),
        (f"a cat\nNegative prompt: blurry {SETTINGS}", "a cat", "blurry"),
        (f"Steps: 3, up the stairs\na cat\n{SETTINGS}", "Steps: 3, up the stairs\na cat", None),
        (
            f"walk Steps: 3, Sampler: x, Seed: 1, end\n{SETTINGS}",
            "walk Steps: 3, Sampler: x, Seed: 1, end",
            None,
        ),
        (f"say Negative prompt: aloud\n{SETTINGS}", "say Negative prompt: aloud", None),
        (f"a cat\n{SETTINGS}\nTemplate: a {{cat|dog}}\nNegative Template: Steps: 1, x", "a cat", None),
        (f"a cat {SETTINGS} Template: a {{cat, dog}} Negative Template: x", "a cat", None),
        (SETTINGS, "", None),
    ],
)
def test_prompts_are_told_from_settings(text: str, prompt: str, negative: str | None) -> None:
    """Flattened by a site, followed by templates, or with settings in the prompt: each part is found."""
    reading = read_infotext(text)
    assert reading is not None
    assert (reading.sweep["prompt"], reading.sweep.get("negative_prompt")) == (prompt, negative)
    assert (reading.sweep["seed"], reading.sweep["model"], reading.open) == (7, "m", {})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Civitai resources", '[{"type":"checkpoint","modelVersionId":1,"modelName":"a, b: [c]"}]', None),
        ("Civitai metadata", '{"remixOfId":1, "Seed": 9}', None),
        ("Hashes", '{"model": "6ce0", "lora:x": "1, 2"}', None),
        ("Lora hashes", '"a: b, Seed: 9"', "a: b, Seed: 9"),
        ("TI hashes", '"a \\"b\\", Seed: 9"', 'a "b", Seed: 9'),
        ("ADetailer prompt", '"x, Steps: 3, Seed: 9"', "x, Steps: 3, Seed: 9"),
        ("Note", "[no, json", "[no, json"),
        ("ADM Guidance", "(1.5, 0.8, 0.3)", None),
    ],
)
def test_a_value_with_commas_is_one_value(name: str, value: str, said: str | None) -> None:
    """JSON and quoted values are one setting each, and hide nothing that comes after them."""
    reading = read_infotext(f"a cat\n{SETTINGS.replace(', Seed: 7', '')}, {name}: {value}, Seed: 7")
    assert reading is not None
    assert reading.sweep["seed"] == 7
    assert any(f"{name}: {said or value}" in note for note in reading.notes)


@settings(max_examples=100)
@given(scale=st.floats(1.5, 30), seed=st.integers(0, 2**64 - 1), rule=st.sampled_from([None, PERP_NEG]))
def test_our_own_infotext_reads_back(scale: float, seed: int, rule: str | None) -> None:
    """Infotext of ours and its reading agree on every key, a plain prompt given."""
    job = _job(guidance_scale=scale, seed=seed, guidance_rule=rule)
    reading = read_infotext(infotext(job, PROVENANCE))
    assert reading is not None
    expected = {name: getattr(job, name) for name in ("prompt", "negative_prompt", "seed", "steps")}
    expected |= {"guidance_scale": scale, "scheduler": job.scheduler, "size": "16x8", "model": "portraits"}
    assert (reading.sweep, reading.open) == (expected, {})


@pytest.mark.parametrize(
    "text", ["", "a cat", "a cat\nNegative prompt: x", "a: 1, b: 2", "\n\n", *NO_INFOTEXT]
)
def test_other_text_is_no_infotext(text: str) -> None:
    """A last line without settings means that there is no recipe."""
    assert read_infotext(text) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_read_or_not(text: str, more: str) -> None:
    """Whatever a file says, reading it raises nothing, and the sweep that it gives is YAML that says the same."""
    read_infotext(text)
    reading = read_infotext(f"{text}\nSteps: 1, Seed: 2, CFG scale: {more}, Size: 8x8, Model: {more}")
    if reading is not None:
        shown = Shown(
            path=Path(f"{more}/x"),
            source="a1111",
            image_format="png",
            sweep=reading.sweep,
            open=reading.open,
            notes=tuple(reading.notes),
        )
        assert read_yaml(shown.to_yaml(), filename="x").value == reading.sweep


# The verb.


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["show", *arguments])


def test_the_verb_prints_recipe_sweep_or_json(tmp_path: Path) -> None:
    """Three forms of one recipe on stdout; with a file of ours nothing is left to say on stderr."""
    path = str(_write(tmp_path, _job(guidance_rule=PERP_NEG), "webp"))
    plain, as_sweep, as_json = (_run(path, *more) for more in ([], ["--sweep"], ["--json"]))
    assert [done.exit_code for done in (plain, as_sweep, as_json)] == [0, 0, 0]
    assert [done.stderr for done in (plain, as_sweep, as_json)] == ["", "", ""]
    for part in (
        _job(guidance_rule=PERP_NEG).id,
        "Printroom's, checked",
        "model_name: portraits",
        "rule: perp_neg",
    ):
        assert part in plain.stdout
    assert _first_job(parse_sweep(as_sweep.stdout)) == _job(guidance_rule=PERP_NEG)
    assert json.loads(as_json.stdout)["recipe"]["seed"] == 2**64 - 1


def test_the_verb_obeys_nothing_that_a_file_says(tmp_path: Path) -> None:
    """Escape codes and line ends in a file's texts reach neither the terminal nor the comments of a sweep."""
    path = tmp_path / "evil.png"
    text = (
        "\x1b[31mred\nSteps: 1, Sampler: \x1b[0m\x85x, Seed: 3, Size: 64x64, CFG scale: 2, bell: \x07\x1b[1m"
    )
    path.write_bytes(_a1111("PNG", text))
    done = _run(str(path))
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
    assert "! scheduler is open" in done.stderr
    sweep = parse_sweep(_run(str(path), "--sweep").stdout)
    assert sweep.prompt == ("\x1b[31mred",)


def test_resubmit_wants_a_whole_recipe(tmp_path: Path) -> None:
    """What is open is listed and nothing is submitted; two wishes at once are refused."""
    path = tmp_path / "theirs.png"
    path.write_bytes(_a1111("PNG", A1111.replace("Sampler: DPM++ 2M", "Sampler: Restart")))
    refused = _run(str(path), "--resubmit")
    assert isinstance(refused.exception, UsageError)
    assert "not submitted\nscheduler: no scheduler here is called 'Restart Karras'" in str(refused.exception)
    assert _run(str(path), "--sweep", "--resubmit").exit_code == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a PNG, WebP, JPEG or JPEG XL file"),
        (b"GIF89a", "not a PNG, WebP, JPEG or JPEG XL file"),
        (_a1111("PNG", "a cat"), "not an image of Printroom's; and no infotext"),
        (_a1111("JPEG")[:-10], "truncated JPEG"),
    ],
)
def test_a_file_that_says_nothing_is_an_error(tmp_path: Path, data: bytes, said: str) -> None:
    """A file that is no image, damaged or without a recipe names itself and the reason."""
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=said) as caught:
        show_image(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A folder is no file."""
    with pytest.raises(UsageError, match="Is a directory"):
        show_image(tmp_path)
