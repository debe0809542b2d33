"""Commands and outputs that README and docs show, typed in their order as a reader types them, and compared.

A page's shell blocks run from top to bottom in a folder of their own, with the sweeps that the page shows saved under
the names it says. What cannot run here is named in `_NOT_RUN`, with the reason; any other line that does not run, or
ends with another status than 0, is a failure.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from producer.cli import cli
from producer.local import render as local

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Start of a line -> why it is not run here.
_NOT_RUN = {
    "make ": "its targets run these tests, and one of the sweeps below",
    ". .venv/bin/activate": "the tests run in that environment",
    "mkdir -p models": "belongs to the line after it",
    "cp -r ~/my-model": "stands for the reader's own model",
    "printroom worker": "runs until it is stopped; a worker of the test takes its place",
    "PRINTROOM_HUB_MODELS=": "asks the Hugging Face hub",
    "python -m training.": "trains or measures for minutes; tests/unit/test_portraits_training.py runs it in small",
    "python -m producer.convert": "reads files that the reader brings; tests/unit/test_convert.py runs it",
    "docker ": "needs a Docker engine; tests/unit/test_compose.py checks its files",
    "cp .env.example .env": "belongs to the compose fleet",
}

#: Lines of an output that depend on the machine, by their start.
_OF_THE_MACHINE = re.compile(r"^│? *(time|files|benchmarks/|\(by|cpu)\b|.*benchmarks/results")


class Reader:
    """Somebody who types what a page shows, into one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment, self.sweep = folder, environment, "SWEEP"

    def types(self, line: str, *, status: int | None = 0) -> str:
        """Type a line; return all that it prints."""
        words = [self.sweep if word == "SWEEP" else word for word in shlex.split(line, comments=True)]
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[: words.index(">")] if target else words
        assert words[0] == "printroom", f"neither run nor named in _NOT_RUN: {line}"
        with contextlib.chdir(self.folder):
            answer = CliRunner(env={**self.environment, "COLUMNS": "80"}).invoke(
                cli, words[1:], standalone_mode=False
            )
            if target:
                Path(target).write_text(answer.stdout)
        if answer.exception is not None and not isinstance(answer.exception, SystemExit):
            said = f"printroom: {answer.exception}\n"
            assert status is None, f"{line}\n{said}"
            return answer.output + said
        # A verb's status is what it returns; the command line's edge makes the process end with it.
        returned = answer.return_value if answer.exception is None else answer.exit_code
        assert status is None or (returned or 0) == status, f"{line}\n{answer.output}"
        return answer.output


def blocks(page: str, *languages: str) -> list[str]:
    """Return a page's blocks in these languages, in order."""
    return [text for language, text in _FENCE.findall((ROOT / page).read_text()) if language in languages]


def lines_of(page: str) -> list[str]:
    """Return the lines of a page's shell blocks that run here."""
    lines = [line for text in blocks(page, "sh") for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(tuple(_NOT_RUN))]


def plain(text: str) -> list[str]:
    """Return the lines of an output that every machine has, without the spaces at their ends."""
    return [line.rstrip() for line in text.splitlines() if line.strip() and not _OF_THE_MACHINE.match(line)]


def assert_shown(shown: str, output: str) -> None:
    """Assert that the lines a page shows are in an output, in their order: a page may leave some out."""
    left = iter(plain(output))
    for line in plain(shown):
        assert any(line == other for other in left), f"not in the output, or not here: {line!r}\n{output}"


class _Forked:
    """A worker forked from a process with torch in it, where a local run starts one by itself."""

    def __init__(self, worker) -> None:
        self._worker = worker
        self.poll, self.kill, self.send_signal = worker.poll, worker.kill, worker.signal

    def wait(self) -> int:
        return self._worker.wait(60)

    def communicate(self) -> None:
        """There are no pipes to read."""


@pytest.fixture
def quick_local_runs(monkeypatch, fork_worker):
    """Let local runs fork their worker: one second instead of ten."""

    def enter(self):
        self._process = _Forked(fork_worker(self._environment, self._log_path))
        return self

    monkeypatch.setattr(local._LocalWorker, "__enter__", enter)


@pytest.fixture
def reader(tmp_path):
    """A reader with the examples at hand, no fleet, and an empty folder otherwise."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return Reader(tmp_path, {"PRINTROOM_REDIS_URL": "redis://127.0.0.1:1/0"})


def test_the_quickstart(reader, quick_local_runs):
    """From the first command to the extended sweep: what is typed works, and what is shown comes out."""
    page = "docs/quickstart.md"
    sweep, *_ = blocks(page, "yaml")
    planned, mistake, rendered, extended = blocks(page, "text")
    prompt, plan, render, again = lines_of(page)
    assert "16 of 16 done" in reader.types(prompt)
    file = reader.folder / "portraits.yaml"
    file.write_text(sweep)
    assert_shown(planned, reader.types(plan))
    file.write_text(sweep.replace("steps:", "step:"))
    assert reader.types(plan, status=None).strip() == mistake.strip()
    file.write_text(sweep)
    assert_shown(rendered, reader.types(render))
    file.write_text(sweep.replace("count: 4", "count: 6"))
    assert_shown(extended, reader.types(again))


def test_the_readme(reader, quick_local_runs):
    """The sweep of the README plans to the number it says, and renders; so does what `make demo` shows."""
    demo = next(text for text in blocks("README.md", "text") if text.startswith("images"))
    out = reader.types("printroom render examples/mustache.yaml --out prints/mustache")
    assert_shown(demo, out)
    (sweep,) = (text for text in blocks("README.md", "yaml") if "mustaches" in text)
    file = reader.folder / "mustaches.yaml"
    file.write_text(sweep)
    _, plan, render = lines_of("README.md")
    (jobs,) = re.findall(r"# (\d+) jobs", plan)
    assert re.search(rf"jobs +{jobs}\b", reader.types(plan))
    file.write_text(
        yaml.safe_dump({**yaml.safe_load(sweep), "seed": {"start": 0, "count": 1}})
    )  # in less time
    assert "4 of 4 done" in reader.types(render)


def test_the_pages_of_a_fleet(fleet, tmp_path):
    """How to, datasets and sheets: every line on one fleet; the lists of files that a page shows are what there is."""
    (tmp_path / "reader").mkdir()
    reader = Reader(tmp_path / "reader", fleet.environment)
    shutil.copytree(ROOT / "examples", reader.folder / "examples")
    (example,) = (text for text in blocks("docs/quickstart.md", "yaml") if "portrait" in text)
    for name in ("sweep", "urgent"):
        text = f"name: {name}\n{example.replace('count: 4', 'count: 1')}"
        (reader.folder / f"{name}.yaml").write_text(text)
    (reader.folder / "portraits.yaml").write_text(f"name: portraits\n{example}")
    reader.types("printroom submit portraits.yaml")
    (status,) = (text for text in blocks("docs/howto.md", "text") if "no live worker" in text)
    assert_shown(status, reader.types("printroom status portraits"))
    fleet.start()
    fleet.wait_up()
    for line in lines_of("docs/datasets.md"):
        reader.types(line)
    reader.sweep = "portraits"
    fleet.wait_done(fleet.client.find("portraits"))
    reader.types("printroom submit examples/mustache.yaml --set seed.count=1")  # only paused and resumed
    for line in lines_of("docs/howto.md"):
        # Nothing has failed here, which the filter says by its status.
        reader.types(line, status=1 if "status=failed" in line else 0)
    for line in lines_of("docs/sheets.md"):
        reader.types(line)
    listed = [text for page in ("docs/datasets.md", "docs/howto.md") for text in blocks(page, "text")]
    paths = [
        line.split()[0]
        for text in listed
        for line in text.splitlines()
        if re.match(r"(faces|home)\S*/\S+ ", line)
    ]
    assert len(paths) > 15
    missing = [path for path in paths if "..." not in path and not (reader.folder / path).exists()]
    assert missing == []


def test_every_line_that_does_not_run_has_its_reason():
    """No reason is left over for a line that no page shows."""
    pages = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
    lines = [line for page in pages for text in blocks(page, "sh", "") for line in text.splitlines()]
    assert [start for start in _NOT_RUN if not any(line.startswith(start) for line in lines)] == []
