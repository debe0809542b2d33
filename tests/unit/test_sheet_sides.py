"""Which fields a sheet is laid out by where nobody says: a table of sweeps, and what each comes to."""

import itertools
import random

import pytest

from producer.sheet import Cell
from producer.sheet.cells import value
from producer.sheet.grid import make_grid
from producer.sheet.layout import column_label, lay_out
from producer.sheet.measures import MAX_PIXELS
from producer.sheet.shape import (
    ASPECT_MAX,
    ASPECT_MIN,
    LONG_ASPECT_MIN,
    STRIP_COLUMNS_MAX,
    STRIP_MAX_PX,
    GridShape,
)
from producer.sheet.sides import choose_sides
from producer.sheet.strips import break_rows
from producer.sheet.tiles import tile
from shared.job import make_job

DOWN = ("negative_prompt", "prompt", "guidance_scale", "scheduler", "steps", "seed")
ACROSS = ("seed", "guidance_scale", "steps", "scheduler", "negative_prompt", "prompt")


def product(size=(64, 64), **counts):
    """Return the cells of a product, by the number of each field's values, and the fields that vary in both orders."""
    values = {
        "prompt": [f"prompt {n}" for n in range(99)],
        "negative_prompt": [None, *(f"negative {n}" for n in range(99))],
        "guidance_scale": [1.5 + n for n in range(99)],
        "steps": list(range(1, 99)),
        "scheduler": ["ddim", "euler", "heun", "unipc", "lms"],
        "seed": list(range(10_000)),
    }
    base = {"width": size[0], "height": size[1], "model": "m"}
    rows = itertools.product(*(values[name][: counts.get(name, 1)] for name in values))
    cells = [
        Cell(job=make_job(**base, **dict(zip(values, row, strict=True))), state="missing") for row in rows
    ]
    varying = [name for name, count in counts.items() if count > 1]
    return cells, [n for n in DOWN if n in varying], [n for n in ACROSS if n in varying]


BOX = (192, 192)


def sheet(cells, down, across, box=BOX, **options):
    """Return the grid that a sheet has where nobody says anything."""
    rows, columns = choose_sides(cells, down, across, box=box)
    return make_grid(cells, rows=rows, columns=columns, wrap=True, **options)


@pytest.mark.parametrize(
    ("counts", "sides"),
    [
        ({"negative_prompt": 3, "seed": 8}, (("negative_prompt",), ("seed",))),
        ({"prompt": 4, "seed": 6}, (("prompt",), ("seed",))),
        ({"negative_prompt": 2, "seed": 4, "guidance_scale": 2}, (("negative_prompt",), ("seed",))),
        ({"seed": 60, "guidance_scale": 3}, (("guidance_scale",), ("seed",))),
        ({"seed": 9}, ((), ("seed",))),
    ],
)
def test_the_first_choice_stands_where_it_fits(counts, sides):
    """Texts go down and seeds across; one field alone is a list of images."""
    assert choose_sides(*product(**counts), box=BOX) == sides


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt": 2, "negative_prompt": 3, "guidance_scale": 3, "seed": 2},
        {"prompt": 5, "negative_prompt": 4, "guidance_scale": 3, "seed": 4},
        {"prompt": 3, "negative_prompt": 3, "steps": 3, "scheduler": 3},
        {"prompt": 2, "negative_prompt": 5, "seed": 12, "guidance_scale": 2},
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (512, 768), (1024, 256)])
def test_a_sheet_of_several_axes_fits_a_screen(counts, size):
    """What is drawn has a screen's shape, about: no ribbon, whatever the images' own shape."""
    cells, down, across = product(size, **counts)
    box = (192, 192) if size == (64, 64) else (512 * size[0] // max(size), 512 * size[1] // max(size))
    layout = lay_out(sheet(cells, down, across, box))
    assert ASPECT_MIN * 0.8 <= layout.width / layout.height <= ASPECT_MAX * 1.2


def test_the_choice_is_always_the_same():
    """Nothing of it hangs on chance or on the order of a set."""
    cells, down, across = product(prompt=5, negative_prompt=4, guidance_scale=3, seed=4)
    assert len({choose_sides(cells, down, across, box=BOX) for _ in range(5)}) == 1


# Long rows.


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (1024, 256), (512, 768)])
@pytest.mark.parametrize(("prompts", "seeds"), [(1, 1500), (1, 8), (1, 25), (2, 24), (3, 60), (1, 600)])
def test_long_rows_are_broken_like_text(prompts, seeds, size):
    """Every job keeps its place once, and every picture has a screen's shape, with whole rows on it."""
    cells, down, across = product(size, prompt=prompts, seed=seeds)
    tiles = tile(sheet(cells, down, across))
    placed = [c for one in tiles for section in one.layout.grid.sections for c in section.cells.values()]
    assert sorted(cell.job.id for cell in placed) == sorted(cell.job.id for cell in cells)
    assert {one.column for one in tiles} == {0}
    widths = [len(section.columns) for one in tiles for section in one.layout.grid.sections]
    assert len(set(widths)) <= 2
    for one in tiles[:-1] or tiles:  # the last may be what is left
        assert LONG_ASPECT_MIN * 0.9 <= one.layout.width / one.layout.height <= ASPECT_MAX * 1.2
    if len(tiles) > 1:
        assert max(widths) <= STRIP_COLUMNS_MAX
        assert max(one.layout.width for one in tiles) <= STRIP_MAX_PX


@pytest.mark.parametrize("seeds", [1500, 10_000])
def test_one_picture_of_many_images_leaves_none_off(seeds):
    """Thumbnails shrink and rows are broken for that size; strips are no sections to be counted."""
    cells, down, across = product((512, 512), seed=seeds)
    layout = lay_out(sheet(cells, down, across))
    assert sum(len(frame.section.cells) for frame in layout.frames) == seeds
    assert layout.width * layout.height <= MAX_PIXELS
    assert LONG_ASPECT_MIN <= layout.width / layout.height <= ASPECT_MAX
    assert [note for note in layout.notes if not note.startswith("images drawn at")] == []


def test_a_strip_says_what_it_covers():
    """Pieces of a row are called by their first and last column; outer groups stay whole."""
    cells, *_ = product(prompt=2, seed=60)
    grid = lay_out(make_grid(cells, rows="prompt", columns="seed", wrap=True)).grid
    wide = len(grid.sections[0].columns)
    assert grid.sections[0].title == f"seed 0 to seed {wide - 1}"
    cells, *_ = product(prompt=2, guidance_scale=7, seed=10)
    grid = lay_out(make_grid(cells, rows="prompt", columns="guidance_scale,seed", wrap=True)).grid
    assert len(grid.sections) > 1
    assert {len(section.columns) % 10 for section in grid.sections} == {0}
    grid = break_rows(make_grid(cells, rows="prompt", columns="guidance_scale,seed"), 6)
    assert [len(section.columns) for section in grid.sections] == [5, 5] * 7
    assert {len({column[0] for column in section.columns}) for section in grid.sections} == {1}


@pytest.mark.parametrize("max_pixels", [1_500_000, 4_000_000, 9_000_000])
def test_broken_rows_of_groups_fit_small_tiles(max_pixels):
    """The wider gaps between groups count: no tile cuts a strip."""
    cells, *_ = product(prompt=2, guidance_scale=60, seed=2)
    tiles = tile(
        make_grid(cells, rows="prompt", columns="guidance_scale,seed", wrap=True), max_pixels=max_pixels
    )
    assert len(tiles) > 1
    assert {one.column for one in tiles} == {0}
    assert max(one.layout.width for one in tiles) <= max_pixels**0.5


def test_what_is_asked_for_is_not_broken():
    """Columns that somebody names stay in one row."""
    cells, *_ = product(seed=100)
    assert len(lay_out(make_grid(cells, rows="prompt", columns="seed")).frames) == 1


def test_a_broken_row_costs_as_much_as_a_higher_sheet():
    """A little too wide is better than broken; a list has no rows to compare, and is broken freely."""
    rows = GridShape(rows=3, columns=8, sections=1, box=(512, 512), left_px=220)
    assert rows.strip_columns == 8
    assert GridShape(rows=1, columns=8, sections=1, box=(512, 512), left_px=0).strip_columns == 4
    assert GridShape(rows=60, columns=60, sections=1, box=BOX, left_px=220).narrow_columns(9000) == 60


# Samples and zips.


def sample(count=10, **fields):
    """Return a sample of guidance, steps and seeds, each value once, in no order; and the fields that vary."""
    base = {
        "width": 64,
        "height": 64,
        "model": "m",
        "prompt": "a",
        "negative_prompt": None,
        "scheduler": "ddim",
    }
    cells = [
        Cell(
            job=make_job(
                **{
                    **base,
                    "guidance_scale": 1 + n * 7 % count,
                    "steps": 5 + n * 3 % count,
                    "seed": 90 + n,
                    **{name: values[n % len(values)] for name, values in fields.items()},
                }
            ),
            state="missing",
        )
        for n in range(count)
    ]  # fmt: skip
    varying = {name for name in DOWN if len({value(cell, name) for cell in cells}) > 1}
    return cells, [n for n in DOWN if n in varying], [n for n in ACROSS if n in varying]


def test_a_sample_becomes_a_list_sorted_by_value():
    """Ten jobs of a hypercube are ten images, not a hundred places; each says its own values."""
    cells, down, across = sample()
    grid = sheet(cells, down, across)
    assert (grid.row_fields, grid.column_fields) == ((), ("guidance_scale", "steps", "seed"))
    [section] = grid.sections
    assert [column[0] for column in section.columns] == list(range(1, 11))
    assert [one.job.guidance_scale for one in grid.cells] == list(range(1, 11))
    assert column_label(grid, section.columns[3], 192) == ["guidance 4", "steps 12", "seed 99"]
    assert sum(len(frame.section.columns) for frame in lay_out(grid).frames) == 10


def test_a_sample_whose_values_come_again_is_a_list_too():
    """Most places of every grid are empty, though no field has a value of its own for each job."""
    cells, down, across = product(prompt=4, steps=4, guidance_scale=10, seed=10)
    for number in range(20):
        some = random.Random(number).sample(cells, 40)
        assert len({cell.job.seed for cell in some}) < len(some)
        assert choose_sides(some, down, across, box=BOX) == ((), tuple(down))
    assert choose_sides(cells, down, across, box=BOX)[0] != ()


def test_a_list_keeps_texts_in_plan_order_and_sorts_numbers_within():
    """Prompts stand as they were written, the numbers of each by size."""
    cells, down, across = sample(20, prompt=["z", "a"])
    grid = sheet(cells, down, across)
    columns = grid.sections[0].columns
    assert grid.column_fields[0] == "prompt"
    assert [column[0] for column in columns] == ["z"] * 10 + ["a"] * 10
    for half in (columns[:10], columns[10:]):
        assert [column[1] for column in half] == sorted(column[1] for column in half)


def test_sides_of_a_sample_that_are_named_are_sorted_too():
    """Whoever names sides gets a grid; its numbers stand by size where most of it is empty, else as planned."""
    cells, *_ = sample()
    [section] = make_grid(cells, rows="steps", columns="guidance_scale").sections
    assert [row[0] for row in section.rows] == list(range(5, 15))
    assert [column[0] for column in section.columns] == list(range(1, 11))
    cells = [
        Cell(job=make_job(**{**cells[0].job.recipe(), "seed": seed, "steps": steps}), state="missing")
        for seed in (7, 3)
        for steps in (20, 10)
    ]
    [section] = make_grid(cells, rows="seed", columns="steps").sections
    assert (list(section.rows), list(section.columns)) == ([(7,), (3,)], [(20,), (10,)])


def test_what_is_zipped_is_one_axis():
    """A seed that comes with its prompt is no side of its own: prompts against steps fill their grid."""
    base = {"width": 64, "height": 64, "model": "m", "negative_prompt": None, "scheduler": "ddim"}
    cells = [
        Cell(
            job=make_job(**base, guidance_scale=7.5, prompt=f"p{n}", seed=n * 5 % 7, steps=steps),
            state="missing",
        )
        for n in range(6)
        for steps in (1, 2, 3, 4)
    ]
    sides = choose_sides(cells, ("prompt", "steps", "seed"), ("seed", "steps", "prompt"), box=BOX)
    assert sides == (("prompt",), ("steps",))


@pytest.mark.parametrize("texts", ["ab", "abc"])
def test_seeds_that_belong_to_prompts_stand_within_them(texts):
    """Three seeds of its own for each prompt make rows of prompts and their seeds, not rows of seeds alone."""
    base = {"width": 64, "height": 64, "model": "m", "scheduler": "ddim", "guidance_scale": 7.5, "steps": 9}
    cells = [
        Cell(job=make_job(**base, prompt=f"p{n}", seed=10 * n + m, negative_prompt=text), state="missing")
        for n in range(4)
        for m in range(3)
        for text in texts
    ]
    down, across = ("negative_prompt", "prompt", "seed"), ("seed", "negative_prompt", "prompt")
    rows, columns = choose_sides(cells, down, across, box=BOX)
    assert {rows, columns} == {("prompt", "seed"), ("negative_prompt",)}


def test_what_each_job_has_its_own_of_is_no_side():
    """Seeds that are used once leave the grid of the other fields full."""
    base = {"width": 64, "height": 64, "model": "m", "negative_prompt": None, "scheduler": "ddim"}
    places = enumerate(itertools.product(range(4), range(5)))
    cells = [
        Cell(job=make_job(**base, guidance_scale=7.5, prompt=f"p{p}", steps=s + 1, seed=n), state="missing")
        for n, (p, s) in places
    ]
    sides = choose_sides(cells, ("prompt", "steps", "seed"), ("seed", "steps", "prompt"), box=BOX)
    assert sides == (("prompt",), ("steps",))
