"""Draws the packages and their layers as pyproject.toml states them for import-linter, and lists them for the page.

`python docs/layers.py --write` puts the picture into docs/images/layers.svg and the tables into docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/layers.svg"
PAGE = ROOT / "docs/architecture.md"

#: Package -> how the page introduces its table.
PACKAGES = {
    "producer": "`producer`, from the command line down to the sweep language",
    "worker": "`worker`, from the process down to the sampler",
    "worker.sampling": "`worker/sampling`, from the engine down to the arithmetic of one row",
}

_MARKS = ("<!-- layers: python docs/layers.py --write -->\n", "<!-- /layers -->")

# The picture, in pixels.
_PANEL, _GAP, _BOX, _MARGIN, _TITLE = 330, 24, 34, 20, 34


def layers(root: Path = ROOT) -> dict[str, list[list[str]]]:
    """Return each package's layers, the highest one first: lists of its modules and packages."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found = {}
    for contract in contracts:
        for package in contract.get("containers", ()):
            if package in PACKAGES:
                found[package] = [re.split(r"\s*\|\s*", layer) for layer in contract["layers"]]
    return found


def purpose(package: str, name: str, root: Path = ROOT) -> str:
    """Return the first sentence of a module's or a package's docstring."""
    folder = root.joinpath(*package.split("."))
    path = folder / name / "__init__.py" if (folder / name).is_dir() else folder / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?: |$)", docstring.partition("\n")[0])[0]


def picture(root: Path = ROOT) -> str:
    """Return the picture as SVG: a column a package, a row a layer, `shared` below all of them."""
    found = layers(root)
    height = _MARGIN + _TITLE + max(len(rows) for rows in found.values()) * (_BOX + 6)
    width = 2 * _MARGIN + len(found) * _PANEL + (len(found) - 1) * _GAP
    parts = [_box(0, 0, width, height + _BOX + 3 * _MARGIN, "#ffffff", "", radius=10)]
    for column, (package, rows) in enumerate(found.items()):
        x = _MARGIN + column * (_PANEL + _GAP)
        parts.append(_text(x + _PANEL / 2, _MARGIN + 18, package.replace(".", "/"), size=17, bold=True))
        for row, names in enumerate(rows):
            each = (_PANEL - 6 * (len(names) - 1)) / len(names)
            for place, name in enumerate(names):
                parts.append(
                    _box(
                        x + place * (each + 6),
                        _MARGIN + _TITLE + row * (_BOX + 6),
                        each,
                        _BOX,
                        _colour(package, name, root),
                        name,
                    )
                )
    parts.append(_box(_MARGIN, height + _MARGIN, width - 2 * _MARGIN, _BOX, "#d9e8d2", "shared"))
    title = "What imports what: a box imports only boxes below it in its column, and shared"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + _BOX + 3 * _MARGIN}"'
        f' font-family="sans-serif" role="img">\n<title>{title}</title>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def tables(root: Path = ROOT) -> str:
    """Return the same as tables: a line a module, the highest layer first."""
    parts = []
    for package, rows in layers(root).items():
        parts.append(f"{PACKAGES[package]}:\n\n| layer | module | what it does |\n|---|---|---|\n")
        for number, names in enumerate(rows, 1):
            for name in names:
                parts.append(
                    f"| {number} | `{name}` | {purpose(package, name, root).replace('|', chr(92) + '|')} |\n"
                )
        parts.append("\n")
    return "".join(parts)


def shown(page: Path = PAGE) -> str:
    """Return the tables that the page shows now."""
    start, end = _MARKS
    return page.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]


def write() -> None:
    """Write the picture, and the tables between their marks. Raises: ValueError where the marks are missing."""
    start, end = _MARKS
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{PAGE}: no marks for the layers")
    PAGE.write_text(before + start + tables() + end + after, encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")


def _colour(package: str, name: str, root: Path) -> str:
    is_package = root.joinpath(*package.split("."), name).is_dir()
    return "#cfe0f3" if is_package else "#eef1f4"


def _box(x: float, y: float, width: float, height: float, fill: str, text: str, *, radius: int = 5) -> str:
    rect = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}"'
        f' fill="{fill}" stroke="#8a94a0"/>'
    )
    size = min(15.0, 1.6 * width / max(1, len(text)))
    return rect + (_text(x + width / 2, y + height / 2 + size / 3, text, size=size) if text else "")


def _text(x: float, y: float, text: str, *, size: float, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}" text-anchor="middle"'
    return f'<text {place} fill="#1b1f24"{weight}>{text}</text>'


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write()
    else:
        sys.stdout.write(tables())
