"""Makes the pictures of docs/portraits.md: rows of portraits for the same seeds. Measures nothing.

python -m training.portraits.sheets [MODEL_DIR] [--out docs/images]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from training.portraits.dataset import draw_examples
from training.portraits.drawing import SIZE_PX
from training.portraits.measure import ATTRIBUTES, BUNDLED, PROMPT, STEPS, load, render
from worker.sampling.model import LoadedModel

_IMAGES = Path(__file__).parents[2] / "docs" / "images"

_COLUMNS = 10
_GUIDANCE = 6.0
_GAP_PX = 2
_TITLE_PX = 18
#: Colours of a PNG file: enough for flat drawings, and a third of the bytes.
_COLOURS = 256
_PAPER = (255, 255, 255)
_INK = (60, 60, 60)

Pictures = npt.NDArray[np.uint8]


def make_sheets(model: LoadedModel, out: Path) -> list[Path]:
    """Write the sheets: the drawings, each attribute's three rows, and prompts of other kinds."""
    drawn = draw_examples(count=3 * _COLUMNS, seed=12)[1]
    rows = [(None, drawn[start : start + _COLUMNS]) for start in range(0, len(drawn), _COLUMNS)]
    paths = [_save(out / "portraits-drawings.png", rows)]
    for attribute in ATTRIBUTES:
        cases = [
            (PROMPT, ""),
            (f"{PROMPT} without {attribute}", ""),
            (PROMPT, attribute),
        ]
        paths.append(_save(out / f"portraits-{attribute}.png", [_row(model, *case) for case in cases]))
    cases = [
        ("portrait of a woman with a hat", ""),
        ("portrait of a woman with a hat", "glasses"),
        ("photo of a smiling cat with glasses, yellow background", ""),
        ("a man with curly ginger hair and a beard", "hat"),
    ]
    return [*paths, _save(out / "portraits-prompts.png", [_row(model, *case) for case in cases])]


def _row(model: LoadedModel, prompt: str, negative: str) -> tuple[str, Pictures]:
    """Return a title and a row of rendered pictures."""
    title = f"“{prompt}”" + (f", negative prompt “{negative}”" if negative else "")
    return title, render(
        model, prompt, negative, seeds=range(100, 100 + _COLUMNS), guidance=_GUIDANCE, steps=STEPS
    )


def _save(path: Path, rows: Sequence[tuple[str | None, Pictures]]) -> Path:
    """Write rows of pictures, each under its title, as one PNG."""
    pitch = SIZE_PX + _GAP_PX
    heights = [pitch + (_TITLE_PX if title else 0) for title, _ in rows]
    sheet = Image.new("RGB", (_COLUMNS * pitch - _GAP_PX, sum(heights) - _GAP_PX), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    top = 0
    for (title, pictures), height in zip(rows, heights, strict=True):
        if title:
            pen.text((2, top + 1), title, fill=_INK, font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * pitch, top + height - pitch))
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Write the sheets and say where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m training.portraits.sheets", description=make_sheets.__doc__
    )
    parser.add_argument("model", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--out", type=Path, default=_IMAGES)
    options = parser.parse_args(arguments)
    for path in make_sheets(load(options.model), options.out):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
