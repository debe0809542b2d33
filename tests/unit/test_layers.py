"""docs/architecture.md shows the layers that import-linter enforces."""

import importlib.util
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawing():
    """The script that draws them."""
    spec = importlib.util.spec_from_file_location("layers", _ROOT / "docs/layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_and_the_tables_are_current(drawing):
    """`python docs/layers.py --write` would change nothing."""
    assert drawing.picture() == drawing.PICTURE.read_text(encoding="utf-8")
    assert drawing.tables() == drawing.shown()


def test_every_module_stands_in_a_layer(drawing):
    """A module or package that is new has a layer, and a layer names nothing that is gone."""
    for package, rows in drawing.layers().items():
        folder = _ROOT.joinpath(*package.split("."))
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        packages = {path.parent.name for path in folder.glob("*/__init__.py")}
        assert {name for row in rows for name in row} == modules | packages
