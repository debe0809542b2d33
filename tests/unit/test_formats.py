"""Every image format: its name and key, its pixels and texts there and back, its damage found, its absence said."""

from __future__ import annotations

import io
import itertools
import json
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from sd_parsers import ParserManager

from producer.cli import _sweep_or_prompt
from producer.fleet.status import _unencoded
from producer.language.sweep import parse_sweep
from producer.local.render import render_locally
from producer.planning.compile import compile_sweep
from producer.preview import preview, render_preview
from producer.prompt_words import PromptOptions
from producer.sheet import Cell, draw_sheet
from shared import names
from shared.errors import SettingsError, SweepError
from shared.fingerprint import ResolvedModel
from shared.images import files
from shared.images.exif import read_exif, write_exif
from shared.images.format import PNG, FormatInvalid, ImageFormat, parse_format
from shared.images.png import encode_png
from shared.images.texts import KEYWORD, Texts
from shared.images.xmp import TRAINED_ALGORITHMIC_MEDIA, read_xmp, write_xmp
from shared.job import Job, make_job
from shared.metadata import ImageMetadata, image_bytes, infotext, read_image
from shared.plan import Bucket, Plan
from shared.result import Provenance
from shared.settings import Settings
from shared.store.keys import check_key

LOSSLESS = [parse_format(text) for text in ("png", "webp", "jxl")]
LOSSY = [parse_format(text) for text in ("webp:90", "jpeg:95", "jpeg:60")]
EVERY = pytest.mark.parametrize("image_format", [*LOSSLESS, *LOSSY], ids=str)

PROVENANCE = Provenance(
    model_name="runwayml/stable-diffusion-v1-5",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=9,
    negative_tokens=2,
    versions={"printroom": "0.1.0", "torch": "2.9.1"},
)

#: Prompts that XML, EXIF or JSON could trip over.
HARD_PROMPTS = [
    "",
    "a cat 🐈‍⬛ in the snow, 雪",
    "<b>&amp;</b> ]]> <!-- \"quotes\" 'too' <?xpacket?>",
    "control \x01 \x1f \x7f \x85 and \ufffe \uffff \ufeff",
    "line one\nline two\r\nline three\u2028",
    "a sign that says\nNegative prompt: keep out",
]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def _pixels(height: int = 48, width: int = 64) -> np.ndarray:
    """Return a smooth picture with an edge in it: (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / width, y * 255 / height, (x + y > 50) * 200]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _job(**fields: Any) -> Job:
    recipe: dict[str, Any] = {
        "prompt": "a cat, (fluffy:1.2)",
        "negative_prompt": "blurry,\nlow quality",
        "seed": 42,
        "guidance_scale": 7.5,
        "steps": 20,
        "scheduler": "dpmpp_2m_karras",
        "width": 64,
        "height": 48,
        "model": "sha:6ce01616890123456789abcdef012345",
    }
    return make_job(**{**recipe, **fields})


def _file(image_format: ImageFormat, job: Job | None = None) -> bytes:
    return image_bytes(job or _job(), _pixels(), PROVENANCE, image_format)


# Names and keys.


@pytest.mark.parametrize(
    ("text", "expected", "ending", "media_type"),
    [
        ("png", "png", "png", "image/png"),
        ("webp", "webp", "webp", "image/webp"),
        ("webp:90", "webp:90", "q90.webp", "image/webp"),
        ("jpeg", "jpeg:95", "q95.jpg", "image/jpeg"),
        ("jpeg:95", "jpeg:95", "q95.jpg", "image/jpeg"),
        ("jpg:1", "jpeg:1", "q1.jpg", "image/jpeg"),
        (" JPG : 100 ", "jpeg:100", "q100.jpg", "image/jpeg"),
        ("JXL", "jxl", "jxl", "image/jxl"),
        ("jpeg-xl", "jxl", "jxl", "image/jxl"),
    ],
)
def test_a_format_has_one_name(text: str, expected: str, ending: str, media_type: str) -> None:
    """However it is written, a format has one text, and from it follow its ending and its Content-Type."""
    found = parse_format(text.replace(" : ", ":"))
    assert (str(found), found.ending, found.media_type) == (expected, ending, media_type)
    assert parse_format(str(found)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gif", "format='gif' is unknown: use png, webp, webp:90, jpeg:95 or jxl"),
        ("", "format='' is unknown"),
        ("png:9", "format='png:9': png is lossless and has no quality: write png"),
        ("jxl:90", "jxl is lossless"),
        ("webp:0", "format='webp:0': use a quality of 1 to 100: webp:90"),
        ("jpeg:101", "use a quality of 1 to 100"),
        ("jpeg:", "use a quality of 1 to 100"),
        ("jpeg:९०", "use a quality of 1 to 100"),
        ("webp:lossless", "use a quality of 1 to 100"),
        ("x" * 1000, "format='" + "x" * 40 + "' is unknown"),
    ],
)
def test_other_names_are_refused_with_a_fix(text: str, said: str) -> None:
    """What names no format says what does."""
    with pytest.raises(FormatInvalid) as caught:
        parse_format(text)
    assert said in str(caught.value)


def test_no_two_formats_share_a_key() -> None:
    """Each kind and each quality has its own object; PNG's is what it always was."""
    kinds = ["png", "webp", "jxl"]
    kinds += [f"{kind}:{quality}" for kind in ("webp", "jpeg") for quality in range(1, 101)]
    keys = [names.image_key("ab" * 16, parse_format(text)) for text in kinds]
    assert len(set(keys)) == len(keys) == 203
    assert all(check_key(key) for key in keys)
    assert names.image_key("ab" * 16) == keys[0] == f"images/ab/{'ab' * 16}.png"


def test_a_plan_carries_the_format_and_its_jobs_do_not() -> None:
    """In another format a sweep is another sweep of the same jobs; the format survives the store."""
    plans = [Plan(name="s", models={}, axes=(), blocks=(), image_format=f) for f in (*LOSSLESS, *LOSSY)]
    assert len({plan.id for plan in plans}) == len(plans)
    for plan in plans:
        again = Plan.from_bytes(plan.to_bytes())
        assert (again.image_format, again.id) == (plan.image_format, plan.id)


def _compiled(text: str) -> Plan:
    """Return the plan of a sweep's text."""
    return compile_sweep(
        parse_sweep(text), resolve=lambda name: ResolvedModel(name=name, fingerprint="sha:m")
    )


def test_a_sweep_says_its_format_once_for_all() -> None:
    """However a format is written, equal ones are one sweep; none at all is PNG; the file it gives says it too."""
    by_default, png, jpg, jpeg = (
        _compiled(f"prompt: a\n{line}") for line in ("", "format: PNG", "format: jpg", "format: jpeg:95")
    )
    assert (by_default.id, by_default.image_format) == (png.id, PNG)
    assert (jpg.id, str(jpg.image_format)) == (jpeg.id, "jpeg:95")
    assert jpg.id != png.id
    assert [job.id for _, job in jpg.jobs()] == [job.id for _, job in png.jobs()]
    assert jpg.buckets == png.buckets != _compiled("prompt: a\nformat: jxl").buckets
    assert parse_sweep("prompt: a\nformat: JPG:80").model_dump(exclude_unset=True)["format"] == "jpeg:80"


def test_a_preview_says_what_the_files_take() -> None:
    """Format and size are on the page and in the JSON; a format that few workers have is a warning."""
    sizes = {}
    for text in ("png", "webp", "jxl", "jpeg:95", "jpeg:50", "webp:90", "webp:1"):
        found = preview(_compiled(f"prompt: a\nseed: {{count: 1000}}\nsize: 512\nformat: {text}"))
        sizes[text] = found.to_json()["storage_bytes"]
        assert found.to_json()["format"] == text
        page = io.StringIO()
        render_preview(found, Console(file=page, width=120))
        assert ("in the store" in page.getvalue(), f"{text}, about" in page.getvalue()) == (
            True,
            text != "png",
        )
        assert any("pip install 'printroom[jxl]'" in line for line in found.warnings) == (text == "jxl")
    assert 450e6 < sizes["png"] < 500e6
    assert sorted(sizes, key=sizes.__getitem__) == [
        "webp:1",
        "jpeg:50",
        "webp:90",
        "jpeg:95",
        "jxl",
        "webp",
        "png",
    ]
    twice = preview(_compiled("prompt: [a, a]\nsize: 512"))
    assert twice.storage_bytes == sizes["png"] / 1000


def test_the_command_line_takes_a_format_with_a_prompt() -> None:
    """`--format` is a key like the others, refused like the others, and goes with a prompt."""
    assert _sweep_or_prompt("a cat", PromptOptions(format="jpg:80")).sweep.format == "jpeg:80"
    assert _sweep_or_prompt("a cat", PromptOptions(format=None)).sweep.format == "png"
    with pytest.raises(SweepError, match="format='gif' is unknown"):
        _sweep_or_prompt("a cat", PromptOptions(format="gif"))
    with pytest.raises(click.UsageError, match="--format goes with a prompt"):
        _sweep_or_prompt("sweep.yaml", PromptOptions(format="png"))


# Pixels and texts, there and back.


@EVERY
@settings(max_examples=25, deadline=None)
@given(
    prompt=texts | st.sampled_from(HARD_PROMPTS),
    negative_prompt=st.none() | texts | st.sampled_from(HARD_PROMPTS),
    seed=st.integers(0, 2**64 - 1),
    guidance_rule=st.none() | texts,
)
@example(prompt=HARD_PROMPTS[2], negative_prompt=HARD_PROMPTS[3], seed=0, guidance_rule=HARD_PROMPTS[4])
def test_the_recipe_round_trips(image_format: ImageFormat, **fields: Any) -> None:
    """Whatever the prompts say, a file of every format gives back the job, its provenance and its own format."""
    job = _job(**fields)
    expected = ImageMetadata(job=job, provenance=PROVENANCE, image_format=image_format)
    assert read_image(_file(image_format, job)) == expected


@pytest.mark.parametrize("image_format", LOSSLESS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (48, 64), (129, 255)])
def test_lossless_pixels_are_exact(image_format: ImageFormat, size: tuple[int, int]) -> None:
    """What went in comes out, noise and views that are not contiguous included."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 6), np.uint8)[:, :, ::2]
    data = files.encode(pixels, Texts(infotext="i", truth="{}"), image_format)
    np.testing.assert_array_equal(np.asarray(files.open_image(data)), pixels)


@pytest.mark.parametrize(("image_format", "most"), list(zip(LOSSY, (4.0, 1.5, 4.0), strict=True)), ids=str)
def test_lossy_pixels_are_near(image_format: ImageFormat, most: float) -> None:
    """A lossy file shows the same picture, and a lower quality is a smaller file."""
    found = np.asarray(files.open_image(_file(image_format)).convert("RGB")).astype(int)
    assert 0 < np.abs(found - _pixels()).mean() < most
    lower = ImageFormat(image_format.kind, 10)
    assert len(_file(lower)) < len(_file(image_format))


def test_jpeg_keeps_the_edge_of_a_colour() -> None:
    """Colour is not halved in resolution: a red column one pixel wide stays red."""
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[:, 7] = (255, 0, 0)
    data = files.encode(pixels, Texts(infotext="", truth="{}"), parse_format("jpeg:95"))
    red = np.asarray(files.open_image(data)).astype(int)[:, 7]
    assert np.abs(red - (255, 0, 0)).max() < 40


@EVERY
def test_same_input_same_bytes(image_format: ImageFormat) -> None:
    """The bytes depend on the job, the pixels, the provenance and the format; not on a process or its hash seed."""
    expected = _file(image_format)
    assert expected == _file(image_format)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_formats as t; "
        "sys.stdout.buffer.write(t._file(t.parse_format(sys.argv[2])))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(__file__).rpartition("/")[0], str(image_format)],
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "12345", "PYTHONPATH": ":".join(sys.path)},
    )
    assert made.stdout == expected


@EVERY
def test_texts_stand_before_the_pixels_or_where_readers_look(image_format: ImageFormat) -> None:
    """The recipe is found in the file as text, without decoding anything."""
    assert b'"prompt":"a cat, (fluffy:1.2)"' in _file(image_format).replace(b"&quot;", b'"')


# What other programs see.


@pytest.mark.parametrize("image_format", [f for f in (*LOSSLESS, *LOSSY) if f.kind != "jxl"], ids=str)
def test_sd_parsers_reads_it(image_format: ImageFormat) -> None:
    """An independent parser finds prompts, sampler and settings where A1111 writes them."""
    found = ParserManager().parse(io.BytesIO(_file(image_format)))
    assert found is not None
    (sampler,) = found.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a cat, (fluffy:1.2)"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blurry,\nlow quality"]
    assert sampler.parameters == {"cfg_scale": "7.5", "seed": "42", "steps": "20", "scheduler": "Karras"}


@pytest.mark.parametrize("image_format", [LOSSLESS[1], *LOSSY], ids=str)
def test_pillow_reads_it(image_format: ImageFormat) -> None:
    """Pillow sees the size, EXIF's one field and a packet of XMP."""
    with Image.open(io.BytesIO(_file(image_format))) as image:
        assert (image.size, image.mode) == ((64, 48), "RGB")
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment[8:].decode("utf-16-be") == infotext(_job(), PROVENANCE)
        assert b"urn:printroom:image#" in image.info["xmp"]


def test_libjxl_reads_the_boxes() -> None:
    """The container written here is one to the library that codes the pixels."""
    imagecodecs = pytest.importorskip("imagecodecs")
    data = _file(parse_format("jxl"))
    assert data[12:32] == struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode(data), _pixels())


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_others_is_read(order: str) -> None:
    """A comment in either byte order, behind other fields, and in ASCII, is found."""
    comment = "a cat, 雪\nSteps: 1"
    for value in (
        b"UNICODE\0" + comment.encode("utf-16-le"),
        b"UNICODE\0" + comment.encode("utf-16-be"),
        b"ASCII\0\0\0" + comment.encode(),
    ):
        mark = b"II*\0" if order == "<" else b"MM\0*"
        first = struct.pack(f"{order}H HHII HHII I", 2, 0x010F, 2, 4, 0x41424300, 0x8769, 4, 1, 38, 0)
        second = struct.pack(f"{order}H HHII I", 1, 0x9286, 7, len(value), 56, 0)
        assert read_exif(mark + struct.pack(f"{order}I", 8) + first + second + value) == comment
    assert read_exif(write_exif(comment)) == comment


def test_fields_that_other_programs_write_anew_are_read() -> None:
    """Adobe's tools turn elements into attributes, and all add fields of their own."""
    rest = [b"pixels"]
    packet = write_xmp('{"a": "<&>"}', rest).decode()
    seal = packet.partition("<printroom:seal>")[2][:8]
    start, _, more = packet.partition('xmlns:printroom="urn:printroom:image#">')
    fields = (
        'xmlns:printroom="urn:printroom:image#" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:creator="me" '
        f"printroom:seal='{seal}' printroom:recipe='{{\"a\": \"&lt;&amp;&gt;\"}}'>"
    )
    turned = start + fields + more[more.index("</rdf:Description>") :]
    assert read_xmp(turned.encode(), rest) == read_xmp(packet.encode(), rest) == '{"a": "<&>"}'


# Long texts.


def test_long_prompts_fit_every_format() -> None:
    """The longest prompts are whole in every format; a JPEG, whose segments end at 64 kB, leaves out the infotext."""
    long = "雪 and more, " * 4600
    assert 60_000 < len(long.encode()) <= 2**16 + 8_000
    job = _job(prompt=long, negative_prompt=long[::-1])
    for image_format in (*LOSSLESS, *LOSSY):
        data = _file(image_format, job)
        assert read_image(data).job == job
        expected = None if image_format.kind == "jpeg" else infotext(job, PROVENANCE)
        assert files.read_texts(data).infotext == expected
        assert files.open_image(data).size == (64, 48)


def test_a_missing_part_of_a_long_text_is_found() -> None:
    """A JPEG whose XMP goes on in further segments is not believed when one of them is gone."""
    data = _file(parse_format("jpeg"), _job(prompt="x" * 65_536, negative_prompt="y" * 65_536))
    starts = [found for found in range(len(data)) if data.startswith(b"http://ns.adobe.com/xmp/ext", found)]
    assert len(starts) == 3
    (length,) = struct.unpack_from(">H", data, starts[1] - 2)
    cut = data[: starts[1] - 4] + data[starts[1] - 2 + length :]
    with pytest.raises(ValueError, match="bytes of extended XMP"):
        read_image(cut)


@EVERY
def test_nul_is_refused(image_format: ImageFormat) -> None:
    """A prompt with NUL or half a surrogate pair, which should never come this far, is not written."""
    for prompt in ("a\0b", "a\ud800b"):
        with pytest.raises(ValueError):
            files.encode(_pixels(), Texts(infotext=prompt, truth="{}"), image_format)


# Damage.


@EVERY
def test_every_truncation_is_found(image_format: ImageFormat) -> None:
    """A file cut at any byte is refused."""
    data = _file(image_format)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            read_image(data[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of EXIF that a flip has spoilt
@EVERY
def test_every_flipped_bit_is_found_or_does_no_harm(image_format: ImageFormat) -> None:
    """One wrong bit anywhere is found; where it is not (in what is for other programs), recipe and pixels are whole."""
    data = _file(image_format)
    expected, pixels = read_image(data), np.asarray(files.open_image(data))
    unharmed = 0
    for position, bit in itertools.product(range(len(data)), (0x01, 0x20)):
        damaged = bytearray(data)
        damaged[position] ^= bit
        try:
            found = read_image(bytes(damaged))
        except ValueError:
            continue
        unharmed += 1
        assert found == expected
        np.testing.assert_array_equal(np.asarray(files.open_image(bytes(damaged))), pixels)
    assert unharmed < (1 if image_format == PNG else 1500)


@EVERY
def test_bytes_after_the_end_are_found(image_format: ImageFormat) -> None:
    """Two files run together are not one image."""
    for more in (b"\0", b"\xff\xd9", _file(image_format)):
        with pytest.raises(ValueError):
            read_image(_file(image_format) + more)


def test_a_recipe_is_not_moved_to_other_pixels() -> None:
    """The text of one file in another of the same kind does not fit its seal."""
    one, other = _file(parse_format("webp")), _file(parse_format("webp"), _job(seed=43))
    ours, theirs = one.index(b"<?xpacket"), other.index(b"<?xpacket")
    pixels = files.encode(
        _pixels()[::-1], Texts(infotext=infotext(_job(), PROVENANCE), truth="{}"), LOSSLESS[1]
    )
    packet = one[ours - 8 :]
    moved = pixels[: pixels.index(b"XMP ")] + packet
    moved = moved[:4] + struct.pack("<I", len(moved) - 8) + moved[8:]
    with pytest.raises(ValueError, match="do not match their seal"):
        read_image(moved)
    assert theirs > 0


def test_a_converted_file_is_found() -> None:
    """A PNG that says it is a JPEG has been converted: its pixels are not those that were made."""
    truth = files.read_texts(_file(parse_format("jpeg"))).truth
    assert truth is not None
    with pytest.raises(ValueError, match="image_format 'jpeg:95' in a png file"):
        read_image(encode_png(_pixels(), {KEYWORD: truth}))
    without = {name: value for name, value in json.loads(truth).items() if name != "image_format"}
    with pytest.raises(ValueError, match="image_format: expected a text"):
        read_image(encode_png(_pixels(), {KEYWORD: json.dumps(without)}))


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from(
        [
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\x14\0\0\0WEBP",
            b"\xff\xd8\xff\xe1\0\x20Exif\0\0",
            b"\0\0\0\x0cJXL \r\n\x87\n",
        ]
    ),
    rest=st.binary(max_size=80),
)
def test_anything_else_is_a_value_error(start: bytes, rest: bytes) -> None:
    """Bytes that only begin like an image are refused, and nothing but ValueError comes of them."""
    with pytest.raises(ValueError):
        read_image(start + rest)
    assert read_exif(rest) is None or rest


def test_images_of_others_have_no_truth() -> None:
    """Files by Pillow alone, and a bare codestream, are read and are not ours."""
    made = []
    for kind in ("PNG", "WEBP", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(_pixels()).save(file, kind)
        made.append(file.getvalue())
    imagecodecs = pytest.importorskip("imagecodecs")
    made.append(imagecodecs.jpegxl_encode(_pixels(), lossless=True))
    made.append(imagecodecs.jpegxl_encode(_pixels(), lossless=True, usecontainer=True))
    for data in made:
        assert files.read_texts(data) == Texts()
        with pytest.raises(ValueError, match="not an image of Printroom's"):
            read_image(data)
    with pytest.raises(ValueError, match="not a PNG, WebP, JPEG or JPEG XL file"):
        read_image(b"GIF89a")


# Without imagecodecs.


@pytest.fixture
def without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where it is not installed."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)


def test_missing_imagecodecs_is_said(without_imagecodecs: None) -> None:
    """Writing and decoding JPEG XL name the package and the fix; all else goes on."""
    jxl = parse_format("jxl")
    for action in (lambda: _file(jxl), lambda: files.require_encoder(jxl)):
        with pytest.raises(SettingsError, match=r"imagecodecs: pip install 'printroom\[jxl\]'"):
            action()
    assert set(files.encoders()) == {"png", "webp", "jpeg"}
    for image_format in (PNG, *LOSSY):
        files.require_encoder(image_format)
        assert read_image(_file(image_format)).job == _job()


def test_a_recipe_is_read_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes are read here: only the pixels want the package."""
    data = _file(parse_format("jxl"))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert read_image(data).job == _job()
    with pytest.raises(SettingsError, match="imagecodecs"):
        files.open_image(data)


def test_a_local_render_refuses_before_it_starts(tmp_path: Path, without_imagecodecs: None) -> None:
    """Where the one worker would be of this machine, a format that it cannot write is a mistake to fix."""
    with pytest.raises(SettingsError, match="imagecodecs"):
        render_locally({"prompt": "a", "format": "jxl"}, tmp_path / "prints", Settings())
    assert not (tmp_path / "prints").exists()


@EVERY
def test_a_sheet_draws_every_format(image_format: ImageFormat) -> None:
    """A contact sheet shows what is in the file."""
    cell = Cell(job=_job(), state="done", load=lambda: _file(image_format))
    drawn = np.asarray(draw_sheet([cell], rows="prompt", columns="seed"))
    assert ((drawn[:, :, 1] > 180) & (drawn[:, :, 2] < 60)).sum() > 100  # its green corner


def test_a_sheet_says_what_it_cannot_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without imagecodecs the sheet of a sweep in JPEG XL has notes in the places of its images."""
    data = _file(parse_format("jxl"))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    drawn = np.asarray(
        draw_sheet([Cell(job=_job(), state="done", load=lambda: data)], rows="prompt", columns="seed")
    )
    assert (drawn == (248, 228, 224)).all(axis=-1).sum() > 1000


def test_jobs_that_want_jxl_wait_in_a_queue_of_their_own() -> None:
    """A worker without the encoder does not listen there; every other format shares the model's one queue."""
    from worker.serving import can_serve  # brings torch, which another process of this file can do without

    plain = Bucket(model="sha:m", width=64, height=64)
    special = Bucket(model="sha:m", width=64, height=64, encoder=parse_format("jxl").encoder)
    assert plain.queue != special.queue
    assert {f.encoder for f in (*LOSSLESS, *LOSSY)} == {"", "jxl"}
    models = SimpleNamespace(holds={"sha:m"}.__contains__, broken={})
    has, lacks = (
        SimpleNamespace(versions=versions, models=models) for versions in ({"jxl": "1"}, {"png": "1"})
    )
    served = [can_serve(context, bucket, []) for context in (has, lacks) for bucket in (plain, special)]
    assert served == [True, True, True, False]


def test_status_says_what_nobody_can_write() -> None:
    """A sweep in JPEG XL without a worker that has it names the fix; with one, nothing."""
    plan = Plan(name="s", models={}, axes=(), blocks=(), image_format=parse_format("jxl"))
    has, lacks = (SimpleNamespace(versions=versions) for versions in ({"jxl": "1"}, {}))
    (said,) = _unencoded(plan, [lacks, lacks])
    assert "no live worker can write jxl" in said
    assert "pip install 'printroom[jxl]'" in said
    assert _unencoded(plan, [lacks, has]) == []
    assert _unencoded(Plan(name="s", models={}, axes=(), blocks=()), [lacks]) == []


def test_an_image_names_the_encoder_it_was_made_with_and_no_other() -> None:
    """Of a worker's versions, an image keeps those that decide its bytes."""
    versions = {"printroom": "1", "torch": "2", **files.encoders()}
    assert list(files.versions_for(versions, "webp")) == ["printroom", "torch", "webp"]
    assert "libjpeg" in files.versions_for(versions, "jpeg")["jpeg"]


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3), np.float32)])
@EVERY
def test_other_pixels_are_refused(image_format: ImageFormat, pixels: np.ndarray) -> None:
    """Only (H, W, 3) uint8 is written, in any format; nothing is converted in silence."""
    with pytest.raises(ValueError, match="use \\(H, W, 3\\) uint8"):
        files.encode(pixels, Texts(infotext="", truth="{}"), image_format)


@pytest.mark.parametrize("name", ["png", "webp", "webp:90", "jpeg:95", "jxl"])
@pytest.mark.parametrize("prompt_length", [10, 90_000])
def test_an_image_says_that_a_model_made_it(name, prompt_length):
    """IPTC's digital source type stands in the XMP of every format, where programs look; a setting leaves it out."""
    image_format = parse_format(name)
    if image_format.kind == "jxl":
        pytest.importorskip("imagecodecs")
    job = _job(prompt="x" * prompt_length)
    pixels = _pixels(job.height, job.width)
    for source in (TRAINED_ALGORITHMIC_MEDIA, None):
        provenance = replace(PROVENANCE, digital_source_type=source)
        data = image_bytes(job, pixels, provenance, image_format)
        assert read_image(data).provenance == provenance
        packets = re.findall(rb"<x:xmpmeta.*?</x:xmpmeta>", data, re.DOTALL)
        said = [
            ET.fromstring(packet).iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
            for packet in packets[:1]
        ]
        assert [element.text for found in said for element in found] == ([source] if source else [])
        if source and image_format.kind != "jxl":  # which Pillow does not open
            with Image.open(io.BytesIO(data)) as opened:
                assert source in opened.info["xmp"].decode()
