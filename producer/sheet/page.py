"""Writes a sheet as one HTML file that needs nothing else: images inside, laid out anew by any two to four fields.

The file works from a disk, fetches nothing (its own content policy forbids it), and runs `page.js` beside this module.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from producer.language.fields import FIELDS
from producer.language.guidance_rules import written_rule
from producer.sheet.baseline import GAIN, Baseline
from producer.sheet.cells import Cell, key, value
from producer.sheet.grid import Grid
from producer.sheet.prints import Darkroom, Note, Print, in_order
from producer.sheet.words import NO_JOB, STATE_WORDS, field_name, label
from shared.whole_file import whole_file

#: Bytes that the images of a page may take, as text: a browser keeps all of it in memory.
PAGE_BYTES = 64 * 1024 * 1024

#: Longest side of an image on a page, where it has room.
_IMAGE_MAX_PX = 512
_IMAGE_MIN_PX = 32

#: WebP's quality, and what a pixel takes at it: enough for flat drawings and photographs alike.
_QUALITY = 90
_BYTES_A_PIXEL = 0.25

#: A figure is drawn this wide at first, at most.
_FIRST_CELL_PX = 256
_FIRST_CELL_MIN_PX = 96

#: Images up to this size are enlarged as squares, so that each pixel is seen. Larger ones, and all that are drawn
#: smaller than they are, are smooth.
_PIXELS_PX = 128

#: What JSON leaves as it is and YAML folds or refuses: the lines' ends and controls beyond ASCII, and the BOM.
_YAML_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

#: Nothing is fetched from anywhere; images are data.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    """An encoded picture."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Numbered:
    """The fields a page can be laid out by, with their values numbered in the order they stand in."""

    names: Sequence[str]
    values: Sequence[dict[Any, int]]

    def of(self, cell: Cell) -> str:
        """Return a job's values by number."""
        found = zip(key(cell, self.names), self.values, strict=True)
        return ",".join(str(numbers[one]) for one, numbers in found)


def write_page(
    grid: Grid,
    path: Path,
    *,
    thumb_px: int | None = None,
    baseline: Baseline | None = None,
    max_bytes: int = PAGE_BYTES,
    on_image: Callable[[int | None], None] = lambda total: None,
) -> None:
    """Write a page. Images are read and written one after the other.

    Args:
        thumb_px: longest side of the largest image; chosen to fit `max_bytes` where not given.
        max_bytes: images are made smaller until all of them together take no more, but not below 32 pixels.
        on_image: told the number of jobs at each one written.
    """
    fields = _number(grid)
    pictures = len(grid.cells) * (1 if baseline is None else 2)
    budget = max_bytes * 3 // 4 // pictures  # base64 takes 4 bytes for 3
    longest = max(grid.largest)
    scale = _scale(longest, thumb_px, budget)
    darkroom = Darkroom(lambda cell: _size(cell, scale), baseline)

    def figure(cell: Cell) -> str:
        return _figure(cell, darkroom.develop(cell), fields, grid, budget=budget)

    with whole_file(path) as page:
        page.write(_head(grid, scale * longest, longest, baseline).encode())
        for text in in_order(figure, grid.cells):
            page.write(text.encode())
            on_image(len(grid.cells))
        page.write(_tail(grid, fields, scale * longest).encode())


def script() -> str:
    """Return the page's program."""
    return _resource("page.js")


def _resource(name: str) -> str:
    return resources.files("producer.sheet").joinpath(name).read_text(encoding="utf-8")


def _number(grid: Grid) -> _Numbered:
    placed = (*grid.row_fields, *grid.column_fields)
    names = [name for name, labels in grid.labels.items() if len(labels) > 1 or name in placed]
    values = [{one: number for number, one in enumerate(grid.labels[name])} for name in names]
    return _Numbered(names=names, values=values)


# Images.


def _scale(longest: int, thumb_px: int | None, budget: int) -> float:
    fitting = math.isqrt(int(budget / _BYTES_A_PIXEL))
    return max(_IMAGE_MIN_PX, thumb_px or min(longest, _IMAGE_MAX_PX, fitting)) / longest


def _size(cell: Cell, scale: float) -> tuple[int, int]:
    return max(1, round(cell.job.width * scale)), max(1, round(cell.job.height * scale))


def _encode(picture: Image.Image, budget: int) -> _Image:
    """Return a picture as WebP of at most `budget` bytes, smaller in size where that takes it."""
    while True:
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=_QUALITY, method=4)
        size = data.tell()
        if size <= budget or max(picture.size) <= _IMAGE_MIN_PX:
            return _Image(data=data.getvalue(), width=picture.width, height=picture.height)
        shrink = max(min(0.9, math.sqrt(budget / size)), _IMAGE_MIN_PX / max(picture.size))
        smaller = max(1, int(picture.width * shrink)), max(1, int(picture.height * shrink))
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)


# HTML. Whatever a sweep or a store says goes through `html.escape`, or through `_json`.


def _figure(cell: Cell, made: Print | Note, fields: _Numbered, grid: Grid, *, budget: int) -> str:
    share, tall = cell.job.width / grid.largest[0], cell.job.height / grid.largest[0]
    style = "" if share == tall == 1 else f' style="--share:{share:.4g};--tall:{tall:.4g}"'
    if isinstance(made, Note):
        kind: str = "failed" if made.failed else cell.state
        reason = f"<span>{html.escape(made.reason)}</span>" if made.reason else ""
        inner = f'<div class="note"><b>{html.escape(made.state)}</b>{reason}</div>'
    else:
        kind = "done baseline" if made.compared and made.compared.is_baseline else "done"
        inner = _pictures(made, _alt(cell, fields, grid), budget)
    attributes = f'class="{kind}" tabindex="0" data-id="{cell.job.id}" data-v="{fields.of(cell)}"{style}'
    return f"<figure {attributes}>{inner}</figure>\n"


def _pictures(made: Print, alt: str, budget: int) -> str:
    parts = [_img(_encode(made.picture, budget), "print", alt)]
    if made.compared is not None:
        if made.compared.heat is not None:
            parts.append(_img(_encode(made.compared.heat, budget), "heat", "difference from the baseline"))
        parts.append(f'<span class="mean">{html.escape(made.compared.words)}</span>')
    return "".join(parts)


def _img(image: _Image, kind: str, alt: str) -> str:
    source = f"data:image/webp;base64,{base64.b64encode(image.data).decode()}"
    size = f'width="{image.width}" height="{image.height}"'
    return (
        f'<img class="{kind}" loading="lazy" decoding="async" {size} alt="{html.escape(alt)}" src="{source}">'
    )


def _alt(cell: Cell, fields: _Numbered, grid: Grid) -> str:
    return ", ".join(grid.phrase(name, value(cell, name)) for name in fields.names)


def _head(grid: Grid, drawn_px: float, longest: int, baseline: Baseline | None) -> str:
    title = html.escape(grid.title or "Contact sheet")
    counts: dict[str, int] = {}
    for cell in grid.cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    words = ", ".join(f"{number:,} {STATE_WORDS[state]}" for state, number in counts.items())  # type: ignore[index]
    small = "" if drawn_px >= longest else f"  ·  images at {drawn_px / longest:.0%} of their size"
    body = ' class="pixels"' if longest <= _PIXELS_PX else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}</title>
<style>
{_resource("page.css")}</style>
</head>
<body{body}>
<header class="bar">
<h1>{title}</h1>
{_selectors()}
<label><input id="wrap" type="checkbox"> break long rows</label>
<label>size <input id="size" type="range" min="32" max="1024" step="8"></label>
{'<label><input id="diff" type="checkbox"> differences</label>' if baseline else ""}
<button id="theme" type="button">light / dark</button>
<output>{html.escape(words)}</output>
</header>
<p class="about">{html.escape(grid.subtitle + small)}</p>
{_legend(grid, baseline) if baseline else ""}<noscript><p class="about">Rows and columns want JavaScript; \
these are the images in the sweep's order.</p></noscript>
<main>
"""


def _selectors() -> str:
    sides = (("rows", "rows"), ("columns", "columns"))
    return "\n".join(
        f'<label>{words} <select data-side="{side}" data-level="0" aria-label="{words}"></select>'
        f'<select data-side="{side}" data-level="1" aria-label="{words} within these"></select></label>'
        for side, words in sides
    )


def _legend(grid: Grid, baseline: Baseline) -> str:
    words = (
        f"0 … {255 / GAIN:.0f} of 255: difference from {baseline.words(grid.models)}, "
        f"drawn {GAIN} times as strong; the number is its mean"
    )
    return f'<p class="about legend"><i></i>{html.escape(words)}</p>\n'


def _tail(grid: Grid, fields: _Numbered, drawn_px: float) -> str:
    listed = [
        {
            "name": name,
            "label": field_name(name),
            "values": list(grid.labels[name].values()),
            "said": [grid.phrase(name, one) for one in numbers],
            "whole": [label(name, one, grid.models) for one in numbers],
            "raw": [_raw(name, one, grid) for one in numbers] if name in FIELDS else None,
        }
        for name, numbers in zip(fields.names, fields.values, strict=True)
    ]
    first = grid.cells[0]
    constants = {name: _raw(name, value(first, name), grid) for name in FIELDS if name not in fields.names}
    columns = [fields.names.index(name) for name in grid.column_fields]
    view = {
        "rows": [fields.names.index(name) for name in grid.row_fields],
        "columns": [] if grid.is_list else columns,
        "cell": max(_FIRST_CELL_MIN_PX, _first_px(drawn_px) * grid.largest[0] // max(grid.largest)),
        "wrap": grid.wrap,
    }
    differing = [number for number, values in enumerate(fields.values) if len(values) > 1]
    page = {
        "fields": listed,
        "constants": constants,
        "order": FIELDS,
        "view": view,
        "captions": columns if grid.is_list else differing,
        "no_job": NO_JOB,
    }
    return f"""</main>
<dialog aria-label="one image">
<div class="pictures"></div>
<div class="facts">
<p><button class="copy" type="button">copy</button> <button class="close" type="button">close</button></p>
<p class="state"></p>
<pre></pre>
<p class="keys">job <span class="id"></span></p>
<p class="keys">Arrows: next image. c: copy the recipe, a sweep of this image. Escape: close. + and −: size.</p>
</div>
</dialog>
<script type="application/json" id="page">{_json(page)}</script>
<script>
{script()}</script>
</body>
</html>
"""


def _first_px(drawn_px: float) -> int:
    """Return how long an image is drawn at first, at most; small ones are enlarged by whole factors."""
    px = round(min(_FIRST_CELL_PX, drawn_px))
    return px * math.ceil(_FIRST_CELL_MIN_PX / px)


def _raw(name: str, one: Any, grid: Grid) -> str:
    """Return a value as a sweep has it, in JSON that is YAML too: a text, so that no number loses digits."""
    match name:
        case "size":
            one = f"{one[0]}x{one[1]}"
        case "model":
            one = grid.models.get(one, one).removeprefix("hub:")
        case "guidance_rule":
            one = written_rule(one)
    return _YAML_BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(one, ensure_ascii=False))


def _json(document: Any) -> str:
    """Return JSON that no text in it can end: in a script element, `<` begins the only way out."""
    return json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")
