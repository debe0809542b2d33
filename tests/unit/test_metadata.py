"""What an image says of itself: to us by JSON, to other tools by infotext."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import ParserManager

from shared.images.png import encode_png, read_png_texts
from shared.job import Job, make_job
from shared.metadata import KEYWORD, ImageMetadata, image_bytes, infotext, read_image
from shared.result import Provenance

PIXELS = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)

PROVENANCE = Provenance(
    model_name="runwayml/stable-diffusion-v1-5",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=9,
    negative_tokens=2,
    versions={"printroom": "0.1.0", "torch": "2.9.1"},
)

APG = '{"rule":"apg"}'

#: Prompts that others misread, and that the JSON must not.
HARD_PROMPTS = [
    "",
    "a cat 🐈‍⬛ in the snow, 雪",
    "line one\nline two\r\nline three\n",
    "a sign that says\nNegative prompt: keep out",
    "foo: 1, bar: 2, baz: 3",
    "Steps: 1, Sampler: none, CFG scale: 0, Seed: 7",
    '{"format": 1}',
    "Hashes: {",
]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def _job(**fields: Any) -> Job:
    recipe: dict[str, Any] = {
        "prompt": "a cat, (fluffy:1.2)",
        "negative_prompt": "blurry,\nlow quality",
        "seed": 42,
        "guidance_scale": 7.5,
        "steps": 20,
        "scheduler": "dpmpp_2m_karras",
        "width": 16,
        "height": 8,
        "model": "sha:6ce01616890123456789abcdef012345",
    }
    return make_job(**{**recipe, **fields})


def _image_with(truth: Any) -> bytes:
    text = truth if isinstance(truth, str) else json.dumps(truth)
    return encode_png(PIXELS, {KEYWORD: text})


def _truth(job: Job | None = None) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads(
        read_png_texts(image_bytes(job or _job(), PIXELS, PROVENANCE))[KEYWORD]
    )
    return truth


@settings(max_examples=150, deadline=None)
@given(
    prompt=texts | st.sampled_from(HARD_PROMPTS),
    negative_prompt=st.none() | texts | st.sampled_from(HARD_PROMPTS),
    seed=st.integers(0, 2**64 - 1),
    guidance_scale=st.floats(1.0, 1e6, exclude_min=True),
    guidance_rule=st.none() | texts,
)
@example(prompt="a", negative_prompt="", seed=2**64 - 1, guidance_scale=7.0, guidance_rule=None)
@example(prompt="a", negative_prompt=None, seed=0, guidance_scale=1.0000000000000002, guidance_rule=APG)
def test_json_always_round_trips(**fields: Any) -> None:
    """Whatever the prompts say, the image gives back the job, null and "" apart, and its provenance."""
    job = _job(**fields)
    assert read_image(image_bytes(job, PIXELS, PROVENANCE)) == ImageMetadata(job=job, provenance=PROVENANCE)


@pytest.mark.parametrize("guidance_scale", [1.0, 0.0, 0.5])
def test_unguided_job_has_no_negative(guidance_scale: float) -> None:
    """Without guidance two jobs that differ in the unused negative and rule are one image: same id, same bytes."""
    one = _job(guidance_scale=guidance_scale, negative_prompt="ugly", guidance_rule=APG)
    other = _job(guidance_scale=guidance_scale, negative_prompt=None)
    assert one.id == other.id
    data = image_bytes(one, PIXELS, PROVENANCE)
    assert data == image_bytes(other, PIXELS, PROVENANCE)
    assert read_image(data).job == other
    assert "Negative prompt" not in infotext(one, PROVENANCE)
    assert "Guidance rule" not in infotext(one, PROVENANCE)


def test_same_job_same_bytes() -> None:
    """The bytes depend on the job, the pixels and the provenance's content, not on a dict's order."""
    turned = replace(PROVENANCE, versions=dict(reversed(PROVENANCE.versions.items())))
    assert image_bytes(_job(), PIXELS, PROVENANCE) == image_bytes(_job(), PIXELS, turned)


def test_infotext_is_spelled_as_a1111_does() -> None:
    """The whole text, character by character."""
    assert infotext(_job(), PROVENANCE) == (
        "a cat, (fluffy:1.2)\n"
        "Negative prompt: blurry,\n"
        "low quality\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 16x8,"
        " Model hash: 6ce0161689, Model: runwayml/stable-diffusion-v1-5, Version: printroom 0.1.0"
    )


@pytest.mark.parametrize(
    ("fields", "model_name", "expected"),
    [
        ({"guidance_scale": 7.0}, "m", "CFG scale: 7, "),
        ({"negative_prompt": ""}, "m", "a cat, (fluffy:1.2)\nSteps: "),
        ({"scheduler": "euler_a"}, "m", "Sampler: Euler a, CFG scale"),
        ({"scheduler": "not: a, sampler"}, "m", "Sampler: not_ a_ sampler, "),
        ({"model": "hub:a/b@" + "0123456789" * 4}, "m", "Model hash: 0123456789, "),
        ({"model": "tiny"}, "m", "Size: 16x8, Model: m, "),
        ({"guidance_rule": None}, "m", "CFG scale: 7.5, Seed: 42"),
        ({"guidance_rule": APG}, "m", "CFG scale: 7.5, Guidance rule: apg, Seed: 42"),
        (
            {"guidance_rule": '{"eta":0.5,"interval":[0.2,0.8],"rule":"apg"}'},
            "m",
            ", Guidance rule: apg / interval 0.2-0.8 / eta 0.5, Seed",
        ),
        (
            {"guidance_rule": '{"negatives":[["a: hat, red",0.5]],"rule":"perp_neg"}'},
            "m",
            ", Guidance rule: perp_neg / negatives a_ hat / red 0.5, Seed",
        ),
        ({"guidance_rule": "no rule: of, ours"}, "m", ", Guidance rule: no rule_ of / ours, Seed"),
        ({}, 'a, b: "c"\n{d}', "Model: a_ b_ _c_ _d_, Version"),
    ],
)
def test_infotext_values(fields: dict[str, Any], model_name: str, expected: str) -> None:
    """Each value is in A1111's spelling, and none holds a comma or a colon."""
    assert expected in infotext(_job(**fields), replace(PROVENANCE, model_name=model_name))


@pytest.mark.parametrize("rule", [None, '{"negatives":[["a: hat, red",0.5]],"rule":"perp_neg"}'])
@pytest.mark.parametrize("negative_prompt", ["blurry,\nlow quality", None])
def test_sd_parsers_reads_it(negative_prompt: str | None, rule: str | None) -> None:
    """An independent parser finds both prompts, the sampler, its settings and the model; a rule confuses nothing."""
    data = image_bytes(_job(negative_prompt=negative_prompt, guidance_rule=rule), PIXELS, PROVENANCE)
    found = ParserManager().parse(io.BytesIO(data))
    assert found is not None
    (sampler,) = found.samplers
    assert sampler.name == "DPM++ 2M"
    assert [prompt.value for prompt in sampler.prompts] == ["a cat, (fluffy:1.2)"]
    assert [prompt.value for prompt in sampler.negative_prompts] == [negative_prompt] * bool(negative_prompt)
    assert sampler.parameters == {"cfg_scale": "7.5", "seed": "42", "steps": "20", "scheduler": "Karras"}
    assert (sampler.model.name, sampler.model.hash) == (PROVENANCE.model_name, "6ce0161689")
    assert found.metadata["Size"] == "16x8"


def test_pillow_reads_the_file() -> None:
    """Pillow sees the pixels and exactly our two texts; no name that belongs to another tool."""
    image = Image.open(io.BytesIO(image_bytes(_job(prompt="雪"), PIXELS, PROVENANCE)))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert list(image.info) == ["parameters", "printroom"]
    assert image.info["parameters"].startswith("雪\nNegative prompt: ")


def test_pixels_of_another_size_are_refused() -> None:
    """An image is never written under a job of another size."""
    with pytest.raises(ValueError, match="8x16x3"):
        image_bytes(_job(), PIXELS.transpose(1, 0, 2), PROVENANCE)


def test_nul_is_refused() -> None:
    """A prompt with NUL, which should never come this far, is not written."""
    with pytest.raises(ValueError, match="NUL"):
        image_bytes(_job(prompt="a\0b"), PIXELS, PROVENANCE)


@pytest.mark.parametrize(
    "field", ["prompt", "negative_prompt", "seed", "guidance_scale", "guidance_rule", "model", "steps"]
)
def test_changed_recipe_is_found(field: str) -> None:
    """A recipe that was edited no longer gives the image's id."""
    truth, other = _truth(), _truth(_job(**{field: _other(field)}))
    truth["job"][field] = other["job"][field]
    with pytest.raises(ValueError, match="does not match its recipe"):
        read_image(_image_with(truth))


def _other(field: str) -> Any:
    others = {"negative_prompt": None, "seed": 43, "guidance_scale": 7.25, "steps": 21}
    return others.get(field, "another")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda truth: "no json", "not JSON"),
        (lambda truth: "[" * 100_000, "not JSON"),
        (lambda truth: [], "format 2"),
        (lambda truth: {**truth, "format": 1}, "format 2"),
        (lambda truth: {**truth, "id": None}, "does not match"),
        (lambda truth: {**truth, "job": {}}, "job: expected exactly"),
        (lambda truth: {**truth, "job": {**truth["job"], "seed": True}}, "job.seed: bool"),
        (lambda truth: {**truth, "job": {**truth["job"], "more": 1}}, "job: expected exactly"),
        (lambda truth: {**truth, "provenance": None}, "provenance: expected exactly"),
        (
            lambda truth: {**truth, "provenance": {**truth["provenance"], "batch_rows": "4"}},
            "batch_rows: str",
        ),
        (lambda truth: {**truth, "provenance": {**truth["provenance"], "versions": {"a": 1}}}, "versions"),
    ],
)
def test_other_json_is_refused(change: Any, reason: str) -> None:
    """Each way the JSON can be wrong has its reason."""
    with pytest.raises(ValueError, match=reason):
        read_image(_image_with(change(_truth())))


def test_image_of_others_is_refused() -> None:
    """A PNG without our text is not ours, and a damaged one of ours is not believed."""
    with pytest.raises(ValueError, match="not an image of Printroom's"):
        read_image(encode_png(PIXELS, {"parameters": "a cat"}))
    data = bytearray(image_bytes(_job(), PIXELS, PROVENANCE))
    data[-20] ^= 1
    with pytest.raises(ValueError, match="CRC"):
        read_image(bytes(data))
