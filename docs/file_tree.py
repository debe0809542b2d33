"""Prints the repository's tree with a comment a file: the first sentence of each module's docstring.

`python docs/file_tree.py` prints it, `--write` puts it into README.md between its two marks. Knows nothing of git.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The packages whose modules are listed.
PACKAGES = ("shared", "producer", "worker", "testing")

#: Folders that are one line each: their files come and go, or say what they are by name.
FOLDERS = {
    "tests/unit": "no socket, seconds",
    "tests/integration": "a real Valkey and a real S3 server, on free ports",
    "tests/acceptance": "the command line and real worker processes, killed and frozen",
    "tests/gpu": "needs a GPU; skipped without one",
    "examples": "sweeps that run as they are; the tests render them",
    "benchmarks": "scripts that measure; `make bench`",
    "docs": "these pages; start at docs/README.md",
    "training": "draws portraits, trains the model in the box on them, measures it",
    "docker": "images of the producer and the worker",
}

#: Folders inside the packages that hold no modules.
DATA = {"worker/models/portraits": "The model in the box: weights, tokenizer, card (docs/portraits.md)"}

_COMMENT_COLUMN = 24
_MARKS = ("<!-- file tree: python docs/file_tree.py --write -->\n```\n", "```\n<!-- /file tree -->")


def tree(root: Path) -> str:
    """Return the tree as text, a line a file."""
    lines = [line for package in PACKAGES for line in _package(root / package, root)]
    lines += [_line(f"{name}/", comment) for name, comment in FOLDERS.items()]
    return "\n".join(lines) + "\n"


def write(readme: Path, text: str) -> None:
    """Put the tree between its marks. Raises: ValueError where the marks are not there."""
    start, end = _MARKS
    before, found, rest = readme.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{readme}: no marks for the file tree")
    readme.write_text(before + start + text + end + after, encoding="utf-8")


def shown(readme: Path) -> str:
    """Return the tree that a page shows, or "" where it shows none."""
    start, end = _MARKS
    return readme.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]


def _package(folder: Path, root: Path) -> Iterator[str]:
    depth = len(folder.relative_to(root).parts) - 1
    init = folder / "__init__.py"
    yield _line(f"{'  ' * depth}{folder.name}/", _first_sentence(init) if init.is_file() else "")
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(f"{'  ' * (depth + 1)}{path.name}", _first_sentence(path))
    for name in DATA:
        if (root / name).parent == folder:
            yield _line(f"{'  ' * (depth + 1)}{Path(name).name}/", DATA[name])
    for inner in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        yield from _package(inner, root)


def _first_sentence(path: Path) -> str:
    """Return a module's first line up to its first full stop, without the stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = docstring.partition("\n")[0]
    return re.split(r"\.(?: |$)", line)[0]


def _line(name: str, comment: str) -> str:
    return f"{name:{_COMMENT_COLUMN}} {comment}".rstrip()


def main() -> None:
    """Print the tree, or write it into README.md."""
    text = tree(ROOT)
    if "--write" in sys.argv[1:]:
        write(ROOT / "README.md", text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
