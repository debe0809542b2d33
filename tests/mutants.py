"""Changes one small thing in a module at a time and lists the changes that no test notices.

`make mutants SEED=1 COUNT=60` takes a sample; the same seed gives the same sample of the same code. Each mutant runs in
a copy of the repository, against the unit and integration tests that import its module and those in `MORE_TESTS`.
A failing test counts only where it passes on the unchanged code. Exit status: 0 where the score reaches
`--threshold`, 1 where it does not, 2 for a wrong argument. Knows nothing of what the modules do.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What a night rests on and what people read.
MODULES: tuple[str, ...] = tuple(
    f"{folder}/{name}.py"
    for folder, names in {
        "worker": "execute publish lease transport consumer background backoff retry_policy serving",
        "worker/sampling": "guidance",
        "worker/sampling/rows": "loop capacity",
        "shared": "ledger feeder schedule plan decoding sample job manifest shard command_exit envelope names metadata",
        "shared/store": "folder s3 s3_errors identity",
        "producer": "cli",
        "producer/fleet": "status doctor retry submit store_match lineage",
        "producer/export": "fetch base shards state",
        "producer/results": "rows search verify where",
        "producer/planning": "compile selection",
    }.items()
    for name in names.split()
)

#: Tests of a module that do not import it: they go through the command line or through another module.
MORE_TESTS: Mapping[str, tuple[str, ...]] = {
    "worker/background.py": ("tests/integration/test_transport.py", "tests/integration/test_layouts.py"),
    "shared/store/s3_errors.py": ("tests/integration/test_store_faults.py",),
    "shared/decoding.py": (
        "tests/unit/test_language.py",
        "tests/unit/test_plan.py",
        "tests/unit/test_compile.py",
    ),
    "shared/sample.py": (
        "tests/unit/test_language.py",
        "tests/unit/test_plan.py",
        "tests/unit/test_compile.py",
    ),
    "producer/fleet/status.py": ("tests/integration/test_verbs.py",),
    "producer/fleet/doctor.py": ("tests/integration/test_doctor.py",),
    "producer/fleet/retry.py": ("tests/integration/test_verbs.py",),
    "producer/fleet/submit.py": ("tests/integration/test_feeder.py", "tests/integration/test_verbs.py"),
    "producer/fleet/store_match.py": ("tests/integration/test_store_match.py",),
    "producer/export/base.py": ("tests/integration/test_export.py",),
    "producer/export/shards.py": ("tests/unit/test_export.py", "tests/integration/test_export.py"),
    "producer/export/state.py": ("tests/integration/test_export.py",),
    "producer/results/search.py": ("tests/integration/test_verbs.py",),
    "producer/results/verify.py": ("tests/integration/test_verify.py",),
    "producer/planning/selection.py": ("tests/unit/test_preview.py", "tests/unit/test_preview_verb.py"),
}

#: Mutants that change nothing anyone can see: (module, the change as the table prints it) -> why.
EQUIVALENT: Mapping[tuple[str, str], str] = {}

_COMPARISONS: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
#: A change of a larger number is no boundary.
_LARGEST_INTEGER = 1000
#: Arguments that only guard against a mistake of ours.
_GUARDS = frozenset({"strict"})


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one small change."""

    module: str
    line: int
    #: As printed: `a < b -> a <= b`.
    change: str
    #: The whole changed module.
    source: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the tests found of a mutant."""

    mutant: Mutant
    #: The test that failed, "time limit", or None for a survivor.
    killed_by: str | None


def places_of(source: str) -> list[tuple[int, int]]:
    """Return the number of each place of a module that can change, with the number of each change there."""
    return [
        (number, kind)
        for number, (_, _, _, node) in enumerate(_mutable(ast.parse(source)))
        for kind in range(len(list(_variants(node))))
    ]


def mutant_at(module: str, source: str, place: tuple[int, int]) -> Mutant:
    """Return a module with the change of one of `places_of`."""
    number, kind = place
    tree = ast.parse(source)
    parent, field, index, node = next(islice(_mutable(tree), number, None))
    replacement = list(_variants(node))[kind]
    change = f"{_head(node)} -> {_head(replacement)}"
    if index is None:
        setattr(parent, field, replacement)
    else:
        getattr(parent, field)[index] = replacement
    changed = ast.unparse(ast.fix_missing_locations(tree))
    return Mutant(module=module, line=getattr(node, "lineno", 0), change=change, source=changed)


def sample(sources: Mapping[str, str], seed: int) -> Iterator[Mutant]:
    """Yield all mutants in the seed's order: one of each module in turn, as long as each has more."""
    lot = random.Random(seed)
    shuffled = []
    for module, source in sources.items():
        places = places_of(source)
        shuffled.append([(module, place) for place in lot.sample(places, len(places))])
    lot.shuffle(shuffled)
    for layer in zip_longest(*shuffled):
        for one in layer:
            if one is not None:
                mutant = mutant_at(one[0], sources[one[0]], one[1])
                if (mutant.module, mutant.change) not in EQUIVALENT:
                    yield mutant


def tests_of(module: str) -> list[str]:
    """Return the test files to run for a module: those named after it first, then those that import it."""
    dotted = module.removesuffix(".py").replace("/", ".")
    parent, _, name = dotted.rpartition(".")
    imports = re.compile(rf"\b{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{name}\b")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("unit", "integration")
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))
        if imports.search(path.read_text(encoding="utf-8"))
    ]
    wanted = dict.fromkeys([*found, *MORE_TESTS.get(module, ())])
    return sorted(wanted, key=lambda test: (name not in Path(test).name, "integration" in test))


class Workshop:
    """A copy of the repository in which one mutant at a time meets its tests; a context manager."""

    def __init__(self, root: Path = ROOT, *, limit_seconds: float = 300) -> None:
        self._root, self._limit_seconds = root, limit_seconds
        # Inside the repository, where `make clean` finds what a killed run leaves.
        (root / ".mutants").mkdir(exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=root / ".mutants"))
        self._sound: dict[str, bool] = {}
        self._clock = int(time.time())

    def __enter__(self) -> Workshop:
        shutil.copytree(
            self._root,
            self._folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(
                ".git", ".mutants", ".venv", "*_cache", "__pycache__", ".hypothesis", "prints"
            ),
        )
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run is at work beside this one
            self._folder.parent.rmdir()

    def judge(self, mutant: Mutant, tests: Sequence[str]) -> Outcome:
        """Run the tests on a mutant, stop at the first that fails, and put the module back."""
        original = (self._root / mutant.module).read_text(encoding="utf-8")
        skipped: list[str] = []
        while True:
            self._write(mutant.module, mutant.source)
            try:
                failed = self._first_failure([*tests, *(f"--deselect={test}" for test in skipped)])
            finally:
                self._write(mutant.module, original)
            if failed is None or failed == "time limit" or self._passes_unchanged(failed):
                return Outcome(mutant=mutant, killed_by=failed)
            skipped.append(failed)

    def _passes_unchanged(self, test: str) -> bool:
        """Return whether a test, or a file that could not be collected, passes on the unchanged code."""
        if test not in self._sound:
            self._sound[test] = self._first_failure([test]) is None
        return self._sound[test]

    def _write(self, module: str, source: str) -> None:
        path = self._folder / module
        path.write_text(source, encoding="utf-8")
        # Python takes a compiled file of the same second and size for the same source.
        self._clock += 1
        os.utime(path, (self._clock, self._clock))

    def _first_failure(self, arguments: Sequence[str]) -> str | None:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "OMP_NUM_THREADS": "1"}
        try:
            run = subprocess.run(
                command, cwd=self._folder, env=environment, capture_output=True, text=True,
                timeout=self._limit_seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "time limit"
        if run.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
        if failed is None and run.returncode != 1:
            raise RuntimeError(
                f"pytest ended with {run.returncode}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
            )
        return failed[1] if failed else "a test"


def _mutable(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield (parent, field, index, node) of all but what no test should notice: annotations, docstrings, logs."""
    for field, value in ast.iter_fields(parent):
        if field in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST) and not _is_left_alone(node):
                yield parent, field, index, node
                yield from _mutable(node)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.FunctionDef(name="__repr__") | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.keyword(arg=str(name)):
            return name in _GUARDS
    return False


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.Compare(ops=[operator]):
            yield _with(node, ops=[_COMPARISONS[type(operator)]()])
        case ast.BoolOp(op=operator):
            yield _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(op=ast.Sub()):
            yield _with(node, op=ast.Add())
        case ast.Constant(value=bool(value)):
            yield ast.Constant(value=not value)
        case ast.Constant(value=int(value)) if abs(value) <= _LARGEST_INTEGER:
            yield ast.Constant(value=value + 1)
            yield ast.Constant(value=value - 1)
        case ast.If() | ast.IfExp():
            yield _with(node, test=ast.Constant(value=True))
            yield _with(node, test=ast.Constant(value=False))
        case ast.Return(value=ast.expr() as value) if (
            not isinstance(value, ast.Constant) or value.value is not None
        ):
            yield ast.Return(value=ast.Constant(value=None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            yield _with(node, func=ast.Name(id="max" if name == "min" else "min", ctx=ast.Load()))
        case ast.Call(keywords=keywords):
            for dropped in keywords:
                if dropped.arg is not None and dropped.arg not in _GUARDS:
                    yield _with(node, keywords=[keyword for keyword in keywords if keyword is not dropped])
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.ExceptHandler():
            yield _with(node, body=[ast.Raise(exc=None, cause=None)])


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _head(node: ast.AST) -> str:
    """Return the code of a node on one line; of a statement with a body, its first two lines."""
    lines = ast.unparse(ast.fix_missing_locations(node)).strip().splitlines()
    return " ".join(line.strip() for line in lines[:2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge a sample of mutants, print a line for each and the score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "modules", nargs="*", help="such as shared/plan.py; without any, all that the tool knows"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60, help="mutants in the sample")
    parser.add_argument("--threshold", type=float, default=90, help="percent to kill for exit status 0")
    parser.add_argument("--limit-seconds", type=float, default=300, help="for all tests of one mutant")
    options = parser.parse_args(arguments)
    modules = options.modules or MODULES
    if wrong := [module for module in modules if not (ROOT / module).is_file() or not tests_of(module)]:
        parser.error(f"no such module, or no tests of it: {', '.join(wrong)}")
    sources = {module: (ROOT / module).read_text(encoding="utf-8") for module in modules}
    outcomes = []
    with Workshop(limit_seconds=options.limit_seconds) as workshop:
        for mutant in islice(sample(sources, options.seed), options.count):
            outcome = workshop.judge(mutant, tests_of(mutant.module))
            outcomes.append(outcome)
            verdict = f"killed by {outcome.killed_by}" if outcome.killed_by else "SURVIVED"
            print(f"{mutant.module}:{mutant.line}  {mutant.change}  {verdict}", flush=True)
    killed = sum(outcome.killed_by is not None for outcome in outcomes)
    percent = 100 * killed / len(outcomes) if outcomes else 0.0
    print(f"{killed} of {len(outcomes)} mutants killed ({percent:.0f}%), seed {options.seed}")
    return 0 if percent >= options.threshold else 1


if __name__ == "__main__":
    sys.exit(main())
