"""A contact sheet shows every job where its labels say, whatever has become of it, at a size that opens."""

from __future__ import annotations

import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from producer.sheet import MAX_PIXELS, Cell, draw_sheet, find_baseline
from producer.sheet.baseline import GAIN, difference, heat_colours
from producer.sheet.grid import Grid, make_grid, runs
from producer.sheet.layout import lay_out, measure, row_label
from producer.sheet.lettering import _font, _is_wide, fit, fit_parts, text_px, wrap
from producer.sheet.prints import Darkroom, Note, Print, in_order
from producer.sheet.tiles import tile, write_tiles
from producer.sheet.words import label
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


def cell(
    colour: tuple[int, int, int] | None = None, variables: dict[str, str] | None = None, **fields: Any
) -> Cell:
    """Return a finished job of one colour, or one that is still missing."""
    job = make_job(**{**RECIPE, **fields})
    if colour is None:
        return Cell(job=job, state="missing", variables=variables or {})
    data = png(colour, (job.width, job.height))
    return Cell(job=job, state="done", load=lambda: data, variables=variables or {})


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
def test_any_text_can_be_alabel(text: str) -> None:
    """Emoji, other scripts, control characters and the longest prompt are drawn or boxed, never fatal."""
    cells = [
        cell((0, 200, 0), prompt=text, negative_prompt=text),
        cell((0, 0, 200), prompt="b", negative_prompt="b"),
    ]
    for rows, columns in (("prompt", "negative_prompt"), ("seed", "prompt"), ("seed", "steps")):
        assert draw_sheet(cells, rows=rows, columns=columns, title=text).width < 4000


def test_no_part_of_a_title_is_lost_to_a_longer_one() -> None:
    """Two sections of one long prompt differ by what stands behind it: the prompt is cut, and not the seed."""
    prompt = "prompt “a portrait of a woman with a very long description in many words, and some more”"
    titles = [fit_parts([prompt, f"seed {seed}"], " · ", 400, 18) for seed in (1, 2)]
    assert [title.rpartition("… · ")[2] for title in titles] == ["seed 1", "seed 2"]
    assert all(text_px(title, 18) <= 400 for title in titles)
    assert fit_parts(["steps 2", "seed 1"], " · ", 400, 18) == "steps 2 · seed 1"


def test_null_and_empty_negatives_have_different_labels() -> None:
    """Null is no negative prompt, "" is an empty one."""
    assert label("negative_prompt", None, {}) == "(no negative)"
    assert label("negative_prompt", "", {}) == "(empty)"
    assert label("guidance_scale", 7.0, {}) == "7"
    assert label("guidance_rule", None, {}) == "cfg"
    assert label("guidance_rule", '{"interval":[0.2,0.8]}', {}) == "interval 0.2–0.8"
    assert label("model", "sha:abc", {"sha:abc": "tiny"}) == "tiny"


def test_plain_guidance_everywhere_is_not_worth_a_word() -> None:
    """A sheet names the rule where there is one, and where rules vary."""
    plain, apg = cell(seed=1), cell(seed=1, guidance_rule='{"rule":"apg"}')

    def words(cells: list[Cell]) -> str:
        grid = make_grid(cells, rows="prompt", columns="seed")
        return " ".join([grid.subtitle, *(section.title for section in grid.sections)])

    assert "rule" not in words([plain])
    assert "rule apg" in words([apg])
    assert ["rule cfg" in words([plain, apg]), "rule apg" in words([plain, apg])] == [True, True]


def test_wrapping_keeps_every_word_until_the_last_line() -> None:
    """Lines fit their width; what is left over ends in an ellipsis."""
    text = "the quick brown fox jumps over the lazy dog"
    assert " ".join(wrap(text, 90, 14, 20)) == text
    assert len(wrap(text, 90, 14, 2)) == 2
    assert wrap(text, 90, 14, 2)[-1].endswith("…")
    assert fit("short", 500, 14) == "short"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ("sed", "prompt", "unknown field 'sed': did you mean 'seed'?"),
        ("seed", "zzz", "unknown field 'zzz': use one of prompt, negative_prompt"),
        ("seed", "seed", "rows and columns are both 'seed': name two fields"),
        ("prompt,seed", "seed", "rows and columns are both 'seed': name two fields"),
        ("seed,seed", "prompt", "'seed' is named twice on one side: name two fields"),
        ("seed,steps,size", "prompt", "rows seed, steps, size: name one field, or two one in the other"),
        ("prompt,sed", "steps", "unknown field 'sed': did you mean 'seed'?"),
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


# Two fields on a side.


def section_keys(grid: Grid) -> list[tuple[list[Any], list[Any]]]:
    """Return the rows and columns of each section."""
    return [(list(section.rows), list(section.columns)) for section in grid.sections]


def test_nested_fields_stand_together_whatever_the_plans_order() -> None:
    """An outer value is one group of rows, also where the plan runs through it fastest."""
    cells = [cell(seed=seed, steps=steps) for seed in (3, 1) for steps in (20, 10)]
    grid = make_grid(cells, rows="steps,seed", columns="prompt")
    [(rows, columns)] = section_keys(grid)
    assert rows == [(20, 3), (20, 1), (10, 3), (10, 1)]
    assert columns == [("portrait photo of a man",)]
    assert list(runs(rows)) == [((20,), 0, 2), ((10,), 2, 4)]


def test_nested_images_stand_in_their_groups() -> None:
    """Outer columns are wider apart than inner ones; every image is where its four values say."""
    grid = {
        (steps, seed): (50 * steps, 100 * seed, 80) for steps, seed in itertools.product((1, 2), (0, 1, 2))
    }
    cells = [cell(colour, steps=steps, seed=seed) for (steps, seed), colour in grid.items()]
    centres = colours(draw_sheet(cells, rows="prompt", columns="steps,seed"))
    x = [centres[colour][0] for colour in grid.values()]
    gaps = [right - left for left, right in itertools.pairwise(x)]
    assert gaps[0] == pytest.approx(gaps[1], abs=8)
    assert gaps[2] > gaps[1] + 15
    assert len({round(centres[colour][1]) for colour in grid.values()}) == 1


def test_a_field_that_follows_from_the_others_makes_no_sections() -> None:
    """A seed that was zipped with the prompt does not give each prompt a sheet of its own, and the sheet says so."""
    cells = [cell(prompt=f"p{n}", seed=n, steps=steps) for n in range(3) for steps in (1, 2)]
    grid = make_grid(cells, rows="prompt", columns="steps")
    assert len(grid.sections) == 1
    assert "seed follows the other fields" in grid.subtitle


def test_variables_are_fields() -> None:
    """A sweep's own variables lay a sheet out, and the prompt they are filled into makes no sections."""
    cells = [
        cell(prompt=f"a {animal} in {place}", variables={"animal": animal, "place": place})
        for animal in ("cat", "dog")
        for place in ("Rome", "Oslo", "Lima")
    ]
    grid = make_grid(cells, rows="animal", columns="place")
    assert section_keys(grid) == [([("cat",), ("dog",)], [("Rome",), ("Oslo",), ("Lima",)])]
    with pytest.raises(UsageError, match="did you mean 'animal'"):
        make_grid(cells, rows="animl", columns="place")


def test_long_labels_widen_narrow_columns_and_use_the_height_of_tall_rows() -> None:
    """Under a thumbnail of 16 pixels a prompt has 112; beside one of 512 it has all its words."""
    words = "a very long prompt of many words that goes on and on, " * 6
    small = [cell(prompt=words, width=16, height=16), cell(prompt="b", width=16, height=16)]
    narrow = measure(make_grid(small, rows="seed", columns="prompt"), scale=1.0)
    assert narrow.column_px == 112
    tall = [cell(prompt=words, width=512, height=512)]
    layout = measure(make_grid(tall, rows="prompt", columns="seed"), scale=1.0)
    assert layout.frames[0].row_px[0] == 512
    assert " ".join(row_label(layout.grid, (words,), 512)) == words.strip()


# What stands where there is no image.


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("waiting", "waiting"),
        ("running", "being rendered"),
        ("paused", "paused"),
        ("cancelled", "cancelled"),
        ("missing", "not rendered"),
        ("failed", "failed"),
    ],
)
def test_every_state_is_said(state: Any, said: str) -> None:
    """A hole says whether anybody is at work on it."""
    made = Darkroom(lambda one: (64, 64)).develop(Cell(job=cell().job, state=state, reason="why"))
    assert made == Note(state=said, reason="why", failed=state == "failed")


def test_a_place_of_no_job_is_outlined_and_named() -> None:
    """A pair that was never asked for is not the same as one that is missing."""
    cells = [cell((200, 0, 0), steps=1, seed=0), cell((0, 200, 0), steps=2, seed=1)]
    whole = np.asarray(draw_sheet(cells, rows="steps", columns="seed"))
    assert (whole == (222, 219, 212)).all(axis=-1).sum() > 8 * 150  # two outlines of 192 pixels a side
    assert not (whole == (238, 236, 231)).all(axis=-1).any()  # nothing is drawn as missing


def test_images_keep_their_order_however_long_they_take() -> None:
    """Reading ahead changes no place, and looks no further ahead than it says."""
    asked: list[int] = []

    def items() -> Any:
        for number in range(300):
            asked.append(number)
            yield number

    made = in_order(lambda number: -number, items())
    assert next(made) == 0
    assert len(asked) < 100
    assert list(made) == [-number for number in range(1, 300)]


# Compared with a baseline.


def compared(cells: list[Cell], field: str, wanted: Any) -> list[Any]:
    """Return what stands below each image."""
    room = Darkroom(lambda one: (64, 64), find_baseline(cells, field, wanted, {}))
    return [made.compared for made in map(room.develop, cells) if isinstance(made, Print)]


def test_the_mean_of_a_difference_is_the_mean_of_the_images() -> None:
    """Each image is compared with the one that differs in the field alone, over pixels and channels."""
    cells = [
        cell((10 * seed + bump, 0, 0), seed=seed, negative_prompt=negative)
        for seed in range(3)
        for negative, bump in ((None, 0), ("", 3), ("hat", 60))
    ]
    found = compared(cells, "negative_prompt", None)
    assert [one.words for one in found] == ["baseline", "diff 1.0", "diff 20.0"] * 3
    assert [one.mean for one in found[:3]] == [None, 1.0, 20.0]


def test_a_difference_is_drawn_as_strong_as_the_legend_says() -> None:
    """A grey that differs by d has the colour number d * GAIN, and no more than the last."""
    black = Image.new("RGB", (4, 4))
    for apart in (0, 7, 63, 200):
        heat = np.asarray(difference(Image.new("RGB", (4, 4), (apart,) * 3), black).heat)
        assert (heat == heat_colours()[min(apart * GAIN, 255)]).all()


def test_what_has_no_difference_says_why() -> None:
    """A baseline may be unfinished, lost, unasked for, or of another size."""
    jobs = [
        cell((1, 1, 1), seed=0, steps=2),
        cell((1, 1, 1), seed=1, steps=2),
        cell((1, 1, 1), seed=2, steps=2),
    ]
    jobs += [cell(seed=0, steps=1)]  # missing
    broken = cell(seed=1, steps=1)
    jobs += [Cell(job=broken.job, state="done", load=lambda: b"not a picture")]
    assert [one.words for one in compared(jobs, "steps", 1)] == [
        "baseline not rendered",
        "baseline unreadable",
        "no baseline",
    ]
    other = cell((1, 1, 1), seed=0, steps=1)
    odd = Cell(job=other.job, state="done", load=lambda: png((1, 1, 1), (32, 32)))
    assert [one.words for one in compared([jobs[0], odd], "steps", 1)] == [
        "baseline of another size",
        "baseline",
    ]


def test_a_variable_is_compared_across_the_prompts_it_is_filled_into() -> None:
    """Cat against dog is a comparison, though the prompt differs with the animal."""
    cells = [
        cell((20 * number, 0, 0), prompt=f"a {animal}", variables={"animal": animal})
        for number, animal in enumerate(("cat", "dog"))
    ]
    assert [one.words for one in compared(cells, "animal", "cat")] == ["baseline", "diff 6.7"]
    assert [one.words for one in compared(cells, "prompt", "a cat")] == ["baseline", "diff 6.7"]


@pytest.mark.parametrize(
    ("field", "wanted", "message"),
    [
        ("negative_prompt", "hat", r"no job on the sheet has 'hat'; there are: \(no negative\)"),
        ("size", (64, 64), "images of two sizes have no difference"),
        ("colour", 1, "--diff colour: unknown field; use one of prompt"),
    ],
)
def test_a_baseline_that_is_none_is_refused(field: str, wanted: Any, message: str) -> None:
    """What cannot be compared with is named, with what can."""
    with pytest.raises(UsageError, match=message):
        find_baseline([cell()], field, wanted, {})


def test_a_sheet_of_differences_draws_them_below_their_images() -> None:
    """Image, difference below, the baseline framed; the scale of colours stands in the legend."""
    cells = [cell((0, 0, 200), seed=0), cell((48, 48, 248), seed=1)]
    baseline = find_baseline(cells, "seed", 0, {})
    image = draw_sheet(cells, rows="prompt", columns="seed", baseline=baseline)
    centres = colours(image)
    heat = tuple(int(c) for c in heat_colours()[48 * GAIN])
    assert centres[heat][0] == pytest.approx(centres[48, 48, 248][0], abs=8)  # type: ignore[index]
    assert centres[heat][1] > centres[48, 48, 248][1] + 150  # type: ignore[index]
    pixels = np.asarray(image)
    for end in (0, -1):
        assert (pixels == heat_colours()[end]).all(axis=-1).any()
    assert (pixels == (38, 92, 148)).all(axis=-1).sum() > 4 * 190


def test_a_row_of_baselines_has_no_room_for_differences() -> None:
    """Where a row has only baselines, the next one follows their captions: no empty band between them."""
    cells = [cell((0, 0, 200), seed=0), cell((48, 48, 248), seed=1)]
    baseline = find_baseline(cells, "seed", 0, {})
    found = colours(draw_sheet(cells, rows="seed", columns="prompt", baseline=baseline))
    heat = tuple(int(c) for c in heat_colours()[48 * GAIN])
    rows = [found[colour][1] for colour in ((0, 0, 200), (48, 48, 248), heat)]  # type: ignore[index]
    assert 180 < rows[1] - rows[0] < 192 + 60
    assert 180 < rows[2] - rows[1] < 192 + 10


# Tiles.


def every_place(grids: list[Grid]) -> list[Any]:
    """Return the places of jobs that grids show, with their section's own fields."""
    return [
        section.cells[row, column].job.id
        for grid in grids
        for section in grid.sections
        for row in section.rows
        for column in section.columns
        if (row, column) in section.cells
    ]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    sections=st.integers(1, 4),
    nested=st.booleans(),
    max_pixels=st.integers(400_000, 4_000_000),
)
def test_tiles_show_every_job_once_and_keep_their_size(
    rows: int, columns: int, sections: int, nested: bool, max_pixels: int
) -> None:
    """Whatever a sheet's shape: each image is on one tile, and no tile is larger than was asked for."""
    cells = [
        Cell(
            job=make_job(**{**RECIPE, "seed": seed, "steps": steps, "guidance_scale": 2.0 + n}),
            state="missing",
        )
        for n in range(sections)
        for seed in range(rows)
        for steps in range(1, columns + 1)
    ]
    down = ("guidance_scale", "seed") if nested else ("seed",)
    grid = make_grid(cells, rows=down, columns="steps", title="many")
    tiles = tile(grid, max_pixels=max_pixels, thumb_px=64)
    assert sorted(every_place([one.layout.grid for one in tiles])) == sorted(c.job.id for c in cells)
    assert max(one.layout.width * one.layout.height for one in tiles) <= max_pixels
    assert len({(one.row, one.column) for one in tiles}) == len(tiles)


def test_what_fits_is_one_picture() -> None:
    """A sheet is not cut without need, and not shrunk either."""
    grid = make_grid([cell(seed=seed) for seed in range(9)], rows="prompt", columns="seed")
    [only] = tile(grid)
    assert (only.row, only.column) == (0, 0)
    assert (only.layout.width, only.layout.height) == (
        lay_out(grid).width,
        lay_out(grid).height,
    )


class _Links(HTMLParser):
    """Collects what a page shows."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.alts: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += [str(dict(attrs)["src"])] if tag == "img" else []
        self.alts += [str(dict(attrs)["alt"])] if tag == "img" else []
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_tiles_are_written_beside_a_page_that_shows_them(tmp_path: Path) -> None:
    """Files are named by their place; the page escapes what a sweep calls itself."""
    cells = [cell((0, 0, 9 * seed), seed=seed, steps=steps) for seed in range(12) for steps in range(1, 13)]
    title = "<script>alert(1)</script> & more"
    grid = make_grid(cells, rows="seed", columns="steps", title=title)
    tiles = tile(grid, max_pixels=800_000, thumb_px=64)
    seen: list[int] = []
    page, *pictures = write_tiles(tiles, tmp_path / "out", on_tile=seen.append)
    assert seen == [len(tiles)] * len(tiles)
    assert pictures[0].name == "sheet-r0-c0.png"
    assert {path.name for path in pictures} == {f"sheet-r{one.row}-c{one.column}.png" for one in tiles}
    for path, one in zip(pictures, tiles, strict=True):
        with Image.open(path) as picture:
            assert picture.size == (one.layout.width, one.layout.height)
    links = _Links()
    links.feed(page.read_text(encoding="utf-8"))
    assert links.images == [path.name for path in pictures]
    assert links.alts == [one.covers for one in tiles]
    assert len(set(links.alts)) == len(tiles)
    assert links.alts[0].startswith("seed 0 to seed ")
    assert [text.strip() for text in links.text if text.strip() in links.alts] == links.alts
    assert title in links.text


def test_a_continued_section_says_so() -> None:
    """A section that is cut keeps its title, on every tile."""
    cells = [cell(seed=seed, prompt=prompt) for prompt in "ab" for seed in range(30)]
    tiles = tile(make_grid(cells, rows="seed", columns="steps"), max_pixels=640 * 900, thumb_px=64)
    titles = [section.title for one in tiles for section in one.layout.grid.sections]
    assert titles[0] == "prompt “a”"
    assert "prompt “a” (continued)" in titles
    assert {title.removesuffix(" (continued)") for title in titles} == {"prompt “a”", "prompt “b”"}
    assert tiles[0].layout.subtitle[0].startswith("Tile r0 c0: rows 1 to ")


def test_a_tile_says_what_it_covers() -> None:
    """Sections, rows and columns of a tile are named by their first and last; a list by its images."""
    cells = [cell(seed=seed, prompt=prompt) for prompt in "ab" for seed in range(30)]
    tiles = tile(make_grid(cells, rows="seed", columns="steps"), max_pixels=640 * 900, thumb_px=64)
    assert tiles[0].covers == "prompt “a”  ·  seed 0 to seed 5"
    tiles = tile(make_grid(cells, rows="seed", columns="steps"), max_pixels=640 * 5000, thumb_px=64)
    assert tiles[0].covers.startswith("prompt “a”, seed 0 to prompt “b”, seed ")
    nested = tile(make_grid(cells, rows="prompt,seed", columns="steps"), max_pixels=640 * 900, thumb_px=64)
    assert nested[0].covers == "prompt “a”, seed 0 to seed 1"
    [only] = tile(make_grid(cells[:1], rows="seed", columns="steps"))
    assert only.covers == "one image"
    listed = tile(make_grid(cells[:30], rows=(), columns="seed", wrap=True), max_pixels=500_000)
    numbers = [tuple(map(int, re.findall(r"\d+", one.covers))) for one in listed]
    assert [start for start, _ in numbers] == [0, *(stop + 1 for _, stop in numbers[:-1])]
    assert numbers[-1][1] == 29
    assert [one.layout.subtitle[0] for one in listed] == [
        f"Tile r{one.row} c0: {one.covers}" for one in listed
    ]


# Letters.


@pytest.mark.parametrize("text", ["café – naïve", "Ærøskøbing", "портрет", "20 × 30"])
def test_letters_that_the_plain_font_lacks_are_not_drawn_as_boxes(text: str) -> None:
    """An accent is drawn with a font that has it, where the machine has one."""
    wide, plain = _font(14, True), _font(14, False)
    if wide.getname() == plain.getname():  # type: ignore[union-attr]
        pytest.skip("no font with more letters here")
    assert text_px(text, 14) == wide.getlength(text)
    assert not _is_wide("plain words, “quoted”…")
