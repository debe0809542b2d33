"""A sheet's page holds every image, says every value as it is, needs no network, and is laid out by its own program."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from producer.language.sweep import parse_sweep
from producer.sheet import Cell, find_baseline
from producer.sheet.grid import make_grid
from producer.sheet.page import PAGE_BYTES, script, write_page
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

#: What would end a script, open a comment, or close an attribute.
HOSTILE = "</script><script>alert(1)</script> <!-- \" ' & <img src=x onerror=alert(1)> \u2028 ${x} `"


def cell(colour: tuple[int, int, int] | None = (200, 0, 0), **fields: Any) -> Cell:
    """Return a finished job of one colour, or one that waits."""
    job = make_job(**{**RECIPE, **fields})
    if colour is None:
        return Cell(job=job, state="waiting")
    data = io.BytesIO()
    Image.new("RGB", (job.width, job.height), colour).save(data, "PNG")
    return Cell(job=job, state="done", load=data.getvalue)


class Page(HTMLParser):
    """A page as a browser's parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[dict[str, str | None]] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.words = ""
        self.policy = ""
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element; none has a program of its own."""
        found = dict(attrs)
        self.tags.append(tag)
        self._in_script = tag == "script"
        if tag == "script":
            self.scripts.append("")
        elif tag == "figure":
            self.figures.append(found)
        elif tag == "img":
            self.images.append(found)
        elif tag == "meta" and "http-equiv" in found:
            self.policy = str(found["content"])
        assert not [name for name in found if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        """Leave a script."""
        self._in_script = False

    def handle_data(self, data: str) -> None:
        """Note words, and programs apart."""
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.words += data

    @property
    def data(self) -> dict[str, Any]:
        """What the program reads."""
        return json.loads(self.scripts[0])


def write(
    tmp_path: Path, cells: list[Cell], rows: Any = "prompt", columns: Any = "seed", **options: Any
) -> Page:
    """Write a page and parse it."""
    title = options.pop("title", "faces")
    wrap = options.pop("wrap", False)
    grid = make_grid(cells, rows=rows, columns=columns, title=title, models={"sha:abc": "tiny"}, wrap=wrap)
    path = tmp_path / "sheet.html"
    write_page(grid, path, **options)
    return Page(path.read_text(encoding="utf-8"))


def test_every_image_is_inside(tmp_path: Path) -> None:
    """Each job is a figure with its picture as data, in the sweep's order."""
    cells = [cell((60 * seed, 0, 0), seed=seed) for seed in range(4)]
    page = write(tmp_path, cells)
    assert [figure["data-id"] for figure in page.figures] == [one.job.id for one in cells]
    for seed, image in enumerate(page.images):
        data = str(image["src"]).removeprefix("data:image/webp;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (64, 64)
            assert picture.convert("RGB").getpixel((32, 32))[0] == pytest.approx(60 * seed, abs=6)  # type: ignore[index]
        assert f"seed {seed}" in str(image["alt"])


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    """The page's own policy forbids the network, and it names no address."""
    page = write(tmp_path, [cell()])
    assert page.policy.startswith("default-src 'none'; img-src data:;")
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "link" not in page.tags


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Prompts, names and reasons that look like HTML open no element, and the program reads them as they were."""
    failed = Cell(job=cell(prompt="b").job, state="failed", reason=HOSTILE)
    page = write(tmp_path, [cell(prompt=HOSTILE, negative_prompt=HOSTILE), failed], title=HOSTILE)
    plain = write(tmp_path, [cell(prompt="a", negative_prompt="n"), failed])
    assert [tag for tag in page.tags if tag != "span"] == [tag for tag in plain.tags if tag != "span"]
    assert page.tags.count("script") == 2
    [field] = [field for field in page.data["fields"] if field["name"] == "prompt"]
    assert json.loads(field["raw"][0]) == HOSTILE
    assert HOSTILE in page.words


@settings(deadline=None, max_examples=30)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_prompt_comes_back_from_the_page(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a prompt holds, what the page's program reads is that prompt, and so does YAML."""
    page = write(tmp_path_factory.mktemp("page"), [cell(None, prompt=text), cell(None, prompt=text + "!")])
    [field] = [field for field in page.data["fields"] if field["name"] == "prompt"]
    assert [json.loads(raw) for raw in field["raw"]] == [text, text + "!"]
    assert [yaml.safe_load(raw) for raw in field["raw"]] == [text, text + "!"]


def test_states_are_marked(tmp_path: Path) -> None:
    """A figure without an image says why, and carries its state for the style."""
    job = cell(seed=2).job
    cells = [
        cell(seed=0),
        cell(None, seed=1),
        Cell(job=job, state="failed", reason="image_not_finite: NaN"),
        Cell(job=cell(seed=3).job, state="running"),
        Cell(job=cell(seed=4).job, state="done", load=lambda: b"no image"),
    ]
    page = write(tmp_path, cells)
    assert [figure["class"] for figure in page.figures] == ["done", "waiting", "failed", "running", "failed"]
    for words in ("image_not_finite: NaN", "being rendered", "waiting", "unreadable"):
        assert words in page.words
    assert "2 done, 1 waiting, 1 failed, 1 being rendered" in page.words


def test_a_page_stays_within_its_size(tmp_path: Path) -> None:
    """Images shrink until all of them fit; what they are scaled by is said."""
    noise = [Image.effect_noise((256, 256), 120.0 + seed) for seed in range(6)]

    def load(seed: int) -> bytes:
        data = io.BytesIO()
        noise[seed].save(data, "PNG")
        return data.getvalue()

    cells = [
        Cell(job=cell(seed=seed, width=256, height=256).job, state="done", load=lambda seed=seed: load(seed))
        for seed in range(6)
    ]
    page = write(tmp_path, cells, max_bytes=60_000)
    assert sum(len(str(image["src"])) for image in page.images) <= 60_000 + 6 * 40
    assert "of their size" in page.words
    assert PAGE_BYTES == 64 * 1024 * 1024


def test_differences_and_their_numbers_are_on_the_page(tmp_path: Path) -> None:
    """Each image has its difference below; the baseline is marked, and the legend says the scale."""
    cells = [cell((0, 0, 100), seed=0), cell((30, 30, 130), seed=1)]
    page = write(tmp_path, cells, baseline=find_baseline(cells, "seed", 0, {}))
    assert [figure["class"] for figure in page.figures] == ["done baseline", "done"]
    assert [image["class"] for image in page.images] == ["print", "print", "heat"]
    assert "diff 30.0" in page.words
    assert "0 … 64 of 255: difference from seed 0, drawn 4 times as strong" in page.words


# The program, without a browser.


def run_script(expression: str, tmp_path: Path) -> Any:
    """Evaluate an expression of the page's functions in node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to run the page's program")
    path = tmp_path / "page.cjs"
    path.write_text(script(), encoding="utf-8")
    code = f"const page = require({json.dumps(str(path))}); console.log(JSON.stringify({expression}))"
    done = subprocess.run([node, "-e", code], capture_output=True, text=True, check=True, timeout=100)
    return json.loads(done.stdout)


def test_the_program_lays_out_as_pictures_are(tmp_path: Path) -> None:
    """Browser and picture agree on sections, nested rows and columns, holes, and fields that follow."""
    cells = [
        cell(None, prompt=prompt, negative_prompt=negative, seed=seed, steps=20 + seed, guidance_scale=scale)
        for seed, scale, prompt, negative in itertools.product((5, 1), (2.0, 9.0), "ab", (None, "n"))
        if (prompt, negative, seed) != ("b", "n", 1)
    ]
    grid = make_grid(cells, rows="negative_prompt,seed", columns="prompt")
    page = write(tmp_path, cells, "negative_prompt,seed", "prompt")
    names = [field["name"] for field in page.data["fields"]]
    listed = [[int(number) for number in str(figure["data-v"]).split(",")] for figure in page.figures]
    view = page.data["view"]
    given_cells = json.dumps([{"v": values, "done": False} for values in listed])
    found = run_script(
        f"page.pivot({given_cells}, {len(names)}, {view['rows']}, {view['columns']})"
        ".map((s) => ({rows: s.rows, columns: s.columns, size: s.at.size}))",
        tmp_path,
    )

    def numbered(keys: Any, fields: tuple[str, ...]) -> list[list[int]]:
        values = [page.data["fields"][names.index(name)]["raw"] for name in fields]
        return [[raw.index(json.dumps(one)) for raw, one in zip(values, key, strict=True)] for key in keys]

    assert found == [
        {
            "rows": numbered(section.rows, grid.row_fields),
            "columns": numbered(section.columns, grid.column_fields),
            "size": len(section.cells),
        }
        for section in grid.sections
    ]
    assert len(found) == 2


def test_the_address_keeps_the_view(tmp_path: Path) -> None:
    """Rows, columns, size and theme come back from the address; a wrong one is the page's own layout."""
    fields = json.dumps([{"name": name} for name in ("prompt", "seed", "steps")])
    view = {"rows": [0, 2], "columns": [1], "cell": 200, "wrap": False, "theme": "dark", "plain": True}
    fallback = json.dumps({"rows": [1], "columns": [0], "cell": 96, "wrap": True})
    address = run_script(f"page.writeAddress({json.dumps(view)}, {fields})", tmp_path)
    assert address == "#rows=prompt,steps&cols=seed&wrap=off&cell=200&theme=dark&diff=off"
    assert run_script(f"page.readAddress({json.dumps(address)}, {fields}, {fallback})", tmp_path) == view
    read = run_script(f"page.readAddress('#rows=&cols=', {fields}, {fallback})", tmp_path)
    assert (read["rows"], read["columns"], read["wrap"]) == ([], [], True)
    for wrong in (
        "",
        "#rows=zzz&cols=seed&cell=1e9",
        "#rows=seed&cols=seed",
        "#rows=prompt,seed,steps&cols=seed",
    ):
        read = run_script(f"page.readAddress({json.dumps(wrong)}, {fields}, {fallback})", tmp_path)
        assert (read["rows"], read["columns"], read["cell"]) == ([1], [0], 96)


@pytest.mark.parametrize(
    ("choice", "rows", "columns"),
    [
        (("rows", 0, 2), [2], [1]),
        (("rows", 0, 1), [1], [0]),  # taken from the columns: they swap
        (("rows", 1, 2), [0, 2], [1]),
        (("rows", 1, 1), [0], [1]),  # the only column cannot go
        (("rows", 1, -1), [0], [1]),
    ],
)
def test_choosing_a_field_never_names_one_twice(
    tmp_path: Path, choice: tuple[str, int, int], rows: list[int], columns: list[int]
) -> None:
    """A field stands in one place: choosing it elsewhere moves or swaps it."""
    view = json.dumps({"rows": [0], "columns": [1]})
    side, level, field = choice
    found = run_script(f"page.choose({view}, {json.dumps(side)}, {level}, {field})", tmp_path)
    assert (found["rows"], found["columns"]) == (rows, columns)


@pytest.mark.parametrize(
    ("rows", "choice", "found"),
    [
        ([0], ("rows", 0, -1), ([], [])),  # from a table to the list
        ([], ("rows", 0, 2), ([2], [0])),  # and back: another field comes along
        ([], ("columns", 0, 0), ([1], [0])),
        ([], ("columns", 0, -1), ([], [])),
    ],
)
def test_a_list_is_chosen_and_left(
    tmp_path: Path, rows: list[int], choice: tuple[str, int, int], found: tuple[list[int], list[int]]
) -> None:
    """Without rows there are no columns either; a table has both."""
    view = json.dumps({"rows": rows, "columns": [1] if rows else []})
    side, level, field = choice
    view = run_script(f"page.choose({view}, {json.dumps(side)}, {level}, {field}, 3)", tmp_path)
    assert (view["rows"], view["columns"]) == found  # type: ignore[index]


@pytest.mark.parametrize(
    ("columns", "longest", "widths"),
    [
        ([[n] for n in range(10)], 10, [10]),
        ([[n] for n in range(10)], 4, [4, 4, 2]),
        ([[n] for n in range(9)], 8, [5, 4]),
        ([[outer, inner] for outer in range(4) for inner in range(3)], 8, [6, 6]),  # no group is torn
        ([[outer, inner] for outer in range(2) for inner in range(5)], 3, [3, 2, 3, 2]),  # nor mixed
        ([[0, 0], [0, 1], [1, 0], [2, 0]], 3, [2, 2]),
    ],
)
def test_long_rows_are_broken_to_the_window(
    tmp_path: Path, columns: list[list[int]], longest: int, widths: list[int]
) -> None:
    """Strips have about equal length, in order, and keep groups whole where one fits."""
    section = json.dumps({"columns": columns})
    strips = run_script(f"page.strips({section}, {longest})", tmp_path)
    assert [column for strip in strips for column in strip["columns"]] == columns
    assert [len(strip["columns"]) for strip in strips] == widths


def test_a_sample_is_a_list_on_the_page_too(tmp_path: Path) -> None:
    """Figures stand by value, with captions; of equal jobs the finished one is shown."""
    cells = [cell(None, seed=seed, guidance_scale=scale) for seed, scale in ((5, 3.0), (1, 2.0), (9, 4.0))]
    page = write(
        tmp_path, [*cells, cell(seed=5, guidance_scale=3.0)], (), ("guidance_scale", "seed"), wrap=True
    )
    data = page.data
    names = [field["name"] for field in data["fields"]]
    assert (data["view"]["rows"], data["view"]["columns"], data["view"]["wrap"]) == ([], [], True)
    assert [names[number] for number in data["captions"]] == ["guidance_scale", "seed"]
    assert [field["values"] for field in data["fields"]] == [["1", "5", "9"], ["2", "3", "4"]]
    figures = [{"v": figure["data-v"], "done": figure["class"] == "done"} for figure in page.figures]
    expression = f"page.listed({json.dumps(figures)}.map((f) => ({{...f, v: f.v.split(',')}})))"
    assert [(one["v"], one["done"]) for one in run_script(expression, tmp_path)] == [
        (["0", "0"], False),
        (["1", "1"], True),
        (["2", "2"], False),
    ]


def test_pixels_are_squares_only_where_images_are_enlarged(tmp_path: Path) -> None:
    """An image drawn smaller than it is, or one of many pixels, is smooth."""
    page = write(tmp_path, [cell()])
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert re.findall(r"(.*) { image-rendering: pixelated; }", text) == [".pixels img.enlarged"]
    assert page.data["view"]["cell"] == 128  # twice its pixels
    assert '<body class="pixels">' in text
    write(tmp_path, [cell(width=512, height=512)])
    assert '<body class="pixels">' not in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    marked = run_script("[63, 64, 65].map((drawn) => page.isEnlarged(drawn, 64))", tmp_path)
    assert marked == [False, False, True]


def test_portraits_are_as_wide_as_their_column(tmp_path: Path) -> None:
    """Figures are measured by the widest image, and the longest side of all is 256 pixels at first."""
    page = write(tmp_path, [cell(width=512, height=768)])
    assert page.figures[0]["style"] == "--share:1;--tall:1.5"
    assert page.data["view"]["cell"] == 256 * 512 // 768
    page = write(tmp_path, [cell(width=512, height=768), cell(width=1024, height=256)])
    assert [figure["style"] for figure in page.figures] == [
        "--share:0.5;--tall:0.75",
        "--share:1;--tall:0.25",
    ]


def test_long_texts_are_told_apart_on_the_page(tmp_path: Path) -> None:
    """Headings and what screen readers are told say what differs; the whole text is in the tip of a heading."""
    shared = ", ".join(f"term {number}" for number in range(40))
    texts = [f"{shared}, hat", f"{shared}, beard"]
    page = write(tmp_path, [cell(negative_prompt=text) for text in texts], rows="negative_prompt")
    [field] = [field for field in page.data["fields"] if field["name"] == "negative_prompt"]
    assert field["values"] == ["…, hat", "…, beard"]
    assert field["whole"] == texts
    assert [image["alt"] for image in page.images] == [
        "negative “…, hat”, seed 0",
        "negative “…, beard”, seed 0",
    ]


def test_the_copied_recipe_is_a_sweep_of_that_image(tmp_path: Path) -> None:
    """What the copy button gives can be submitted: every field, and no digit of a long seed lost."""
    seed = 2**64 - 1
    cells = [
        cell(None, prompt=HOSTILE, seed=seed, guidance_rule='{"rule":"apg"}', guidance_scale=7.0),
        cell(None, negative_prompt="", width=512, height=768),
    ]
    page = write(tmp_path, cells)
    data = page.data
    values = str(page.figures[0]["data-v"]).split(",")
    one = json.dumps({"v": [int(number) for number in values], "id": page.figures[0]["data-id"]})
    parts = ", ".join(json.dumps(data[name]) for name in ("fields", "constants", "order"))
    sweep = parse_sweep(run_script(f"page.recipe({one}, {parts})", tmp_path))
    assert sweep.jobs == 1
    assert (list(sweep.prompt), list(sweep.seed)) == ([HOSTILE], [seed])
    assert (list(sweep.guidance_scale), list(sweep.model)) == ([7.0], ["tiny"])
    assert list(sweep.guidance_rule) == ['{"rule":"apg"}']
    assert "64x64" in str(sweep.size)
