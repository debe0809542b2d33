"""A contact sheet shows every job where its labels say, whatever has become of it, at a size that opens."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
from PIL import Image

from producer.sheet import MAX_PIXELS, Cell, _fit, _label, _lay_out, _wrap, draw_sheet
from shared.errors import ObjectMissing, UsageError
from shared.job import make_job

RECIPE: dict[str, Any] = {
    "prompt": "portrait photo of a man",
    "negative_prompt": None,
    "seed": 0,
    "guidance_scale": 7.5,
    "steps": 25,
    "scheduler": "dpmpp_2m",
    "width": 64,
    "height": 64,
    "model": "sha:abc",
}


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    """Return a picture of one colour."""
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def cell(colour: tuple[int, int, int] | None = None, **fields: Any) -> Cell:
    """Return a finished job of one colour, or one that is still missing."""
    job = make_job(**{**RECIPE, **fields})
    if colour is None:
        return Cell(job=job, state="missing")
    data = png(colour, (job.width, job.height))
    return Cell(job=job, state="done", load=lambda: data)


def colours(image: Image.Image) -> dict[tuple[int, int, int], tuple[float, float]]:
    """Return the centre of every colour that fills a thumbnail."""
    found: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    pixels = image.load()
    assert pixels is not None
    for y, x in itertools.product(range(0, image.height, 8), range(0, image.width, 8)):
        found.setdefault(pixels[x, y], []).append((x, y))  # type: ignore[arg-type]
    return {
        colour: (sum(x for x, _ in places) / len(places), sum(y for _, y in places) / len(places))
        for colour, places in found.items()
        if len(places) > 200
    }


def test_images_stand_in_their_row_and_column() -> None:
    """Rows go down and columns across, in plan order, each image in its own place."""
    grid = {
        (None, 3): (200, 0, 0),
        (None, 1): (0, 200, 0),
        ("", 3): (0, 0, 200),
        ("", 1): (200, 200, 0),
    }
    cells = [cell(colour, negative_prompt=negative, seed=seed) for (negative, seed), colour in grid.items()]
    centres = colours(draw_sheet(cells, rows="negative_prompt", columns="seed", title="x"))
    red, green, blue, yellow = (centres[colour] for colour in grid.values())
    assert red[1] == green[1] < blue[1] == yellow[1]
    assert red[0] == blue[0] < green[0] == yellow[0]


def test_other_fields_become_sections_below_one_another() -> None:
    """What varies beside rows and columns is neither dropped nor refused."""
    cells = [cell(((n + 1) * 40, 0, 0), prompt=f"p{n}", seed=1) for n in range(3)]
    centres = colours(draw_sheet(cells, rows="steps", columns="seed"))
    heights = [centres[(n + 1) * 40, 0, 0][1] for n in range(3)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3


def test_failed_missing_and_unreadable_jobs_are_marked() -> None:
    """A hole in a sheet says why it is one; a file that is lost or broken costs only its own place."""

    def lost() -> bytes:
        raise ObjectMissing("images/ab/abc.png")

    jobs = [make_job(**{**RECIPE, "seed": seed}) for seed in range(4)]
    cells = [
        Cell(job=jobs[0], state="failed", reason="image_not_finite: NaN left the sampler"),
        Cell(job=jobs[1], state="missing"),
        Cell(job=jobs[2], state="done", load=lambda: b"not a picture"),
        Cell(job=jobs[3], state="done", load=lost),
    ]
    for one in cells:
        image = draw_sheet([one, cell((0, 200, 0), seed=9)], rows="steps", columns="seed")
        filled = colours(image)
        assert (0, 200, 0) in filled
        assert len(filled) == 3


def test_of_equal_jobs_the_finished_one_is_drawn() -> None:
    """Two cells in one place are one picture."""
    assert (0, 200, 0) in colours(draw_sheet([cell(), cell((0, 200, 0))], rows="prompt", columns="seed"))


def test_a_huge_grid_shrinks_and_is_cut_but_never_refused() -> None:
    """40,000 large images make a sheet that Pillow still opens without a warning."""
    shared_load = cell((0, 200, 0), width=512, height=512).load
    cells = []
    for seed, steps in itertools.product(range(400), range(1, 101)):
        cells.append(Cell(job=cell(seed=seed, steps=steps, width=512, height=512).job, state="missing"))
    cells[0] = Cell(job=cells[0].job, state="done", load=shared_load)
    image = draw_sheet(cells, rows="seed", columns="steps", max_pixels=12_000_000)
    assert image.width * image.height <= 12_000_000
    assert MAX_PIXELS < (Image.MAX_IMAGE_PIXELS or 0)


def test_small_images_are_enlarged_and_large_ones_reduced() -> None:
    """64 pixels become readable under their labels, 1024 do not fill the wall."""
    small = draw_sheet([cell((0, 200, 0))], rows="prompt", columns="seed")
    large = draw_sheet([cell((0, 200, 0), width=1024, height=1024)], rows="prompt", columns="seed")
    assert small.width >= 640
    assert large.width < 1024


@pytest.mark.parametrize(
    "text", ["🎩 портрет 日本 \u202e\x1b[31m", "x" * 60_000, "", " ", "a\nb\tc", "\u0301" * 500]
)
def test_any_text_can_be_a_label(text: str) -> None:
    """Emoji, other scripts, control characters and the longest prompt are drawn or boxed, never fatal."""
    cells = [
        cell((0, 200, 0), prompt=text, negative_prompt=text),
        cell((0, 0, 200), prompt="b", negative_prompt="b"),
    ]
    for rows, columns in (("prompt", "negative_prompt"), ("seed", "prompt"), ("seed", "steps")):
        assert draw_sheet(cells, rows=rows, columns=columns, title=text).width < 4000


def test_null_and_empty_negatives_have_different_labels() -> None:
    """Null is no negative prompt, "" is an empty one."""
    assert _label("negative_prompt", None, {}) == "(no negative)"
    assert _label("negative_prompt", "", {}) == "(empty)"
    assert _label("guidance_scale", 7.0, {}) == "7"
    assert _label("guidance_rule", None, {}) == "cfg"
    assert _label("guidance_rule", '{"interval":[0.2,0.8]}', {}) == "interval 0.2–0.8"
    assert _label("model", "sha:abc", {"sha:abc": "tiny"}) == "tiny"


def test_plain_guidance_everywhere_is_not_worth_a_word() -> None:
    """A sheet names the rule where there is one, and where rules vary."""
    plain, apg = cell(seed=1), cell(seed=1, guidance_rule='{"rule":"apg"}')

    def words(cells: list[Cell]) -> str:
        layout = _lay_out(cells, "prompt", "seed", {}, "", MAX_PIXELS)
        return " ".join([*layout.subtitle, *(section.title for section in layout.sections)])

    assert "rule" not in words([plain])
    assert "rule apg" in words([apg])
    assert ["rule cfg" in words([plain, apg]), "rule apg" in words([plain, apg])] == [True, True]


def test_wrapping_keeps_every_word_until_the_last_line() -> None:
    """Lines fit their width; what is left over ends in an ellipsis."""
    text = "the quick brown fox jumps over the lazy dog"
    assert " ".join(_wrap(text, 90, 14, 20)) == text
    assert len(_wrap(text, 90, 14, 2)) == 2
    assert _wrap(text, 90, 14, 2)[-1].endswith("…")
    assert _fit("short", 500, 14) == "short"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ("sed", "prompt", "unknown field 'sed': did you mean 'seed'?"),
        ("seed", "zzz", "unknown field 'zzz': use one of prompt, negative_prompt"),
        ("seed", "seed", "rows and columns are both 'seed': name two fields"),
    ],
)
def test_wrong_fields_are_named(rows: str, columns: str, message: str) -> None:
    """A slip on the command line is answered with the nearest name."""
    with pytest.raises(UsageError) as caught:
        draw_sheet([cell()], rows=rows, columns=columns)
    assert str(caught.value).startswith(message)


def test_nothing_to_draw_is_an_error() -> None:
    """An empty sheet would look like success."""
    with pytest.raises(UsageError, match="no jobs to draw"):
        draw_sheet([], rows="seed", columns="prompt")
