"""The mutation tool kills what a test notices, reports what none does, and its tables name files that exist."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[2]

_TOY = '''"""A toy."""


def is_adult(years: int) -> bool:
    """Return whether 18 years are reached."""
    return years >= 18
'''

#: Never looks at the boundary.
_TOY_TEST = """from toy import is_adult


def test_a_child_and_a_grandmother():
    assert is_adult(80)
    assert not is_adult(8)
"""


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    """The script, imported: tests is no package."""
    spec = importlib.util.spec_from_file_location("mutants", _ROOT / "tests/mutants.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


def test_a_noticed_change_is_killed_and_an_unnoticed_one_survives(mutants, tmp_path):
    """A toy whose test skips the boundary: `None` for the answer is killed, `>` for `>=` survives."""
    (tmp_path / "toy.py").write_text(_TOY)
    (tmp_path / "test_toy.py").write_text(_TOY_TEST)
    by_change = {mutant.change: mutant for mutant in mutants.sample({"toy.py": _TOY}, seed=1)}
    with mutants.Workshop(tmp_path) as workshop:
        survivor = workshop.judge(by_change["years >= 18 -> years > 18"], ["test_toy.py"])
        killed = workshop.judge(by_change["return years >= 18 -> return None"], ["test_toy.py"])
    assert survivor.killed_by is None
    assert killed.killed_by == "test_toy.py::test_a_child_and_a_grandmother"
    assert (tmp_path / "toy.py").read_text() == _TOY


def test_a_test_that_fails_without_a_mutant_kills_nothing(mutants, tmp_path):
    """A red test must not raise the score."""
    (tmp_path / "toy.py").write_text(_TOY)
    (tmp_path / "test_toy.py").write_text(
        "def test_red():\n    assert False\n\n\n" + _TOY_TEST.replace("80", "18")
    )
    by_change = {mutant.change: mutant for mutant in mutants.sample({"toy.py": _TOY}, seed=1)}
    with mutants.Workshop(tmp_path) as workshop:
        outcome = workshop.judge(by_change["years >= 18 -> years > 18"], ["test_toy.py"])
    assert outcome.killed_by == "test_toy.py::test_a_child_and_a_grandmother"


def test_a_seed_is_a_sample(mutants):
    """The same seed gives the same mutants in the same order, another seed another order."""
    source = (_ROOT / "shared/sample.py").read_text(encoding="utf-8")

    def changes(seed: int) -> list[str]:
        return [mutant.change for mutant in mutants.sample({"shared/sample.py": source}, seed=seed)]

    assert changes(1) == changes(1)
    assert changes(1) != changes(2)
    assert sorted(changes(1)) == sorted(changes(2))


def test_docstrings_logs_and_annotations_are_left_alone(mutants):
    """No test should fail for a word in a log or for a type."""
    source = (
        '"""A."""\nsize: Literal[1, 2]\nlog.info("a", count=1)\n\ndef __repr__(a: int = 5):\n    return 1\n'
    )
    assert list(mutants.sample({"a.py": source}, seed=1)) == []


def test_each_module_has_tests_and_each_named_test_exists(mutants):
    """A renamed module or test file must not leave the sample in silence."""
    assert [] == [module for module in mutants.MODULES if not (_ROOT / module).is_file()]
    assert [] == [module for module in mutants.MODULES if not mutants.tests_of(module)]
    named = {*mutants.MORE_TESTS, *(test for tests in mutants.MORE_TESTS.values() for test in tests)}
    assert [] == sorted(name for name in named if not (_ROOT / name).is_file())
