"""Which fields a sheet is laid out by where nobody says: a table of sweeps, and what each comes to."""

import itertools

import pytest

from producer.sheet import Cell
from producer.sheet.grid import make_grid
from producer.sheet.sides import ASPECT_MAX, ASPECT_MIN, Shape, choose_sides
from shared.job import make_job

DOWN = ("negative_prompt", "prompt", "guidance_scale", "scheduler", "steps", "seed")
ACROSS = ("seed", "guidance_scale", "steps", "scheduler", "negative_prompt", "prompt")


def product(**counts):
    """Return the cells of a product, by the number of each field's values, and the fields that vary in both orders."""
    values = {
        "prompt": [f"prompt {n}" for n in range(99)],
        "negative_prompt": [None, *(f"negative {n}" for n in range(99))],
        "guidance_scale": [1.5 + n for n in range(99)],
        "steps": list(range(1, 99)),
        "scheduler": ["ddim", "euler", "heun", "unipc", "lms"],
        "seed": list(range(5000)),
    }
    base = {"width": 64, "height": 64, "model": "m"}
    rows = itertools.product(*(values[name][: counts.get(name, 1)] for name in values))
    cells = [
        Cell(job=make_job(**base, **dict(zip(values, row, strict=True))), state="missing") for row in rows
    ]
    varying = [name for name, count in counts.items() if count > 1]
    return cells, [n for n in DOWN if n in varying], [n for n in ACROSS if n in varying]


@pytest.mark.parametrize(
    ("counts", "sides"),
    [
        ({"negative_prompt": 3, "seed": 8}, (("negative_prompt",), ("seed",))),
        ({"prompt": 4, "seed": 6}, (("prompt",), ("seed",))),
        ({"negative_prompt": 2, "seed": 4, "guidance_scale": 2}, (("negative_prompt",), ("seed",))),
        ({"prompt": 2, "negative_prompt": 3, "guidance_scale": 3, "seed": 2}, None),
        ({"prompt": 5, "negative_prompt": 4, "guidance_scale": 3, "seed": 4}, None),
        ({"prompt": 3, "negative_prompt": 3, "steps": 3, "scheduler": 3}, None),
        ({"seed": 60, "guidance_scale": 3}, (("guidance_scale",), ("seed",))),
    ],
)
def test_a_sheet_fits_a_screen(counts, sides):
    """The first choice stands where it fits; else sides whose sheet has a screen's shape, or the nearest to it."""
    cells, down, across = product(**counts)
    chosen = choose_sides(cells, down, across)
    if sides is not None:
        assert chosen == sides
        return
    size = lambda names: len({tuple(getattr(c.job, n) for n in names) for c in cells})  # noqa: E731
    rest = [name for name in counts if name not in (*chosen[0], *chosen[1])]
    shape = Shape(
        rows=size(chosen[0]), columns=size(chosen[1]), sections=size(rest), outer_rows=len(chosen[0]) > 1
    )
    assert ASPECT_MIN <= shape.aspect <= ASPECT_MAX
    assert shape.cost == 0


def test_the_choice_is_always_the_same():
    """Nothing of it hangs on chance or on the order of a set."""
    cells, down, across = product(prompt=5, negative_prompt=4, guidance_scale=3, seed=4)
    assert len({choose_sides(cells, down, across) for _ in range(5)}) == 1


@pytest.mark.parametrize(("prompts", "seeds"), [(1, 1500), (3, 60), (1, 25), (2, 24)])
def test_long_rows_are_broken_like_text(prompts, seeds):
    """Every job keeps its place once, in pieces of about equal width that say what they cover."""
    cells, *_ = product(prompt=prompts, seed=seeds)
    grid = make_grid(cells, rows="prompt", columns="seed", wrap=True)
    placed = [cell for section in grid.sections for cell in section.cells.values()]
    assert sorted(cell.job.id for cell in placed) == sorted(cell.job.id for cell in cells)
    widths = [len(section.columns) for section in grid.sections]
    assert (len(widths) == 1) == (seeds <= 24)
    assert max(widths) - min(widths) < max(widths)
    aspect = (1.5 + max(widths)) / (len(widths) * (prompts + 1))
    assert 0.4 <= aspect <= 10
    if seeds == 1500:
        assert len(widths) <= 24  # what one picture holds
        assert grid.sections[0].title == f"seed 0 to seed {max(widths) - 1}"


def test_what_is_asked_for_is_not_broken():
    """Columns that somebody names stay in one row."""
    cells, *_ = product(seed=100)
    assert len(make_grid(cells, rows="prompt", columns="seed").sections) == 1
