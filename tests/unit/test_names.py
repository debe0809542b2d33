"""One name, one meaning: no two public classes or type aliases of the shipped packages share a name."""

import ast
from collections import defaultdict
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("shared", "producer", "worker", "testing")


def _public_types(path: Path) -> set[str]:
    """Names of a module's classes and of its aliases of types: `Kind = Literal[...]`, `Layout = A | B`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in found if not name.startswith("_") and not name.isupper()}


def test_no_two_public_types_share_a_name():
    """`Outcome` in three modules means three things: a reader must open each import to know which."""
    places = defaultdict(list)
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            for name in _public_types(path):
                places[name].append(str(path.relative_to(_ROOT)))
    assert len(places) > 200
    assert {} == {name: paths for name, paths in places.items() if len(paths) > 1}
