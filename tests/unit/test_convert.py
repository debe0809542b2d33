"""Published prompt sets become sweeps to the letter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer.convert import geneval_sweep, partiprompts_sweep, sweep_yaml
from producer.language.sweep import parse_sweep, sweep_from_mapping
from producer.planning.compile import compile_sweep
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel

ROOT = Path(__file__).parents[2]
PARTIPROMPTS = ROOT.parent / "shared" / "data" / "partiprompts" / "PartiPrompts.tsv"
GENEVAL = ROOT.parent / "shared" / "data" / "geneval" / "evaluation_metadata.jsonl"

PARTI_SAMPLE = 'Prompt\tCategory\n"G I G G L E" painted\tx\n0\tx\nedge \tx\n"open quote\tx\nlast one\tx'


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_partiprompts_traps_are_kept_to_the_letter(tmp_path: Path, newline: str, mark: str) -> None:
    """Quotes, the prompt 0, edge spaces, CRLF, BOM and a missing last line end change no prompt."""
    path = tmp_path / "p.tsv"
    path.write_bytes((mark + PARTI_SAMPLE.replace("\n", newline)).encode())
    expected = ['"G I G G L E" painted', "0", "edge ", '"open quote', "last one"]
    sweep = partiprompts_sweep(path)
    assert sweep == {
        "name": "PartiPrompts",
        "prompt": expected,
        "labels": {"prompt": {"Category": "x\nx\nx\nx\nx\n"}},
    }
    assert parse_sweep(sweep_yaml(sweep)) == sweep_from_mapping(sweep)


def test_geneval_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    """Empty lines are skipped; line separators inside a prompt are not line ends."""
    path = tmp_path / "g.jsonl"
    path.write_text('{"tag": "x", "prompt": "a\u2028b"}\r\n\n{"prompt": "0"}', encoding="utf-8")
    sweep = geneval_sweep(path)
    assert sweep["prompt"] == ["a\u2028b", "0"]
    assert sweep["labels"] == {"prompt": {"tag": "x\n\n"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Text\tCategory\na\tb\n", "p, line 1: no column 'Prompt'"),
        (b"Prompt\tCategory\na\tb\n\tb\n", "p, line 3: no prompt: remove the line"),
        (b"Prompt\ncaf\xe9\n", "p: byte 0xe9 at offset 10 is not UTF-8"),
        (b"Prompt\n", "p: no prompts"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    """A file that is not PartiPrompts is an error with its line, not a strange sweep."""
    path = tmp_path / "p"
    path.write_bytes(text)
    with pytest.raises(SweepError) as caught:
        partiprompts_sweep(path)
    assert str(caught.value).startswith(message)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
@example(["\x85", "\u2028", "a\u2029b", " \n ", "", "0", "no", "1e3", "2024-01-01", "=", "<<"])
def test_a_sweep_survives_being_written(prompts: list[str]) -> None:
    """Any prompt that was written to a sweep file is read from it unchanged."""
    assert parse_sweep(sweep_yaml({"prompt": prompts})).prompt == tuple(prompts)


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt": 3}', '{"prompt": ""}'])
def test_broken_json_lines_are_refused(tmp_path: Path, line: str) -> None:
    """The line that holds no prompt is named."""
    path = tmp_path / "g.jsonl"
    path.write_text('{"prompt": "a"}\n' + line)
    with pytest.raises(SweepError, match=r"g\.jsonl, line 2: "):
        geneval_sweep(path)


@pytest.mark.skipif(not PARTIPROMPTS.exists(), reason="PartiPrompts.tsv is not beside the repository")
def test_all_of_partiprompts_becomes_a_plan() -> None:
    """1632 prompts go through file, sweep and plan unchanged."""
    done = subprocess.run(
        [sys.executable, "-m", "producer.convert", "partiprompts", str(PARTIPROMPTS)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    plan = compile_sweep(
        parse_sweep(done.stdout), resolve=lambda name: ResolvedModel(name=name, fingerprint=name)
    )
    expected = [line.split("\t")[0] for line in PARTIPROMPTS.read_text().split("\n")[1:] if line]
    assert expected == [job.prompt for _, job in plan.jobs()]
    assert len(expected) == 1632
    assert "0" in expected


@pytest.mark.skipif(not GENEVAL.exists(), reason="GenEval is not beside the repository")
def test_all_of_geneval_becomes_a_plan() -> None:
    """553 prompts, equal to the plain list that GenEval ships beside them."""
    sweep = sweep_from_mapping({**geneval_sweep(GENEVAL), "seed": [0, 1, 2, 3]})
    plan = compile_sweep(sweep, resolve=lambda name: ResolvedModel(name=name, fingerprint=name))
    expected = (GENEVAL.parent / "generation_prompts.txt").read_text().splitlines()
    assert expected == [job.prompt for _, job in plan.jobs(0, 553)]
    assert len(plan) == 4 * 553


def test_an_unreadable_file_is_one_line_and_exit_two(tmp_path: Path) -> None:
    """The command says what is wrong on stderr and writes no sweep."""
    path = tmp_path / "p.tsv"
    path.write_text("nothing")
    done = subprocess.run(
        [sys.executable, "-m", "producer.convert", "partiprompts", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "printroom: p.tsv, line 1: no column 'Prompt': this is not PartiPrompts\n"
