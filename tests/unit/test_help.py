"""Every verb's help, as it stands on terminals of 80 and 100 columns."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from producer.cli import cli
from producer.terminal.help import EXAMPLES, SECTIONS

ROOT = Path(__file__).resolve().parents[2]

_WIDTHS = pytest.mark.parametrize("columns", [80, 100])
_VERBS = pytest.mark.parametrize("verb", sorted(cli.commands))


def shown(columns, *words):
    """Return the help at a width."""
    answer = CliRunner().invoke(cli, [*words, "--help"], terminal_width=columns)
    assert answer.exit_code == 0
    return answer.output


@_WIDTHS
@_VERBS
def test_the_help_of_a_verb_is_whole(verb, columns):
    """Lines fit, no mark of the formatter is left, every option says what it does, every example has its line."""
    text = shown(columns, verb)
    examples = [line.strip() for line in EXAMPLES[verb].strip().splitlines()]
    assert re.findall(r"\\b|\x08|`{3}|[a-z]\.\.\.$", text, re.MULTILINE) == []
    assert [line for line in text.splitlines() if len(line) > columns and line.strip() not in examples] == []
    assert set(examples) <= {line.strip() for line in text.splitlines()}
    for option in cli.commands[verb].params:
        assert not isinstance(option, click.Option) or option.help, option.name


@_WIDTHS
def test_the_help_of_all_verbs_is_whole(columns):
    """The first page lists each verb once, in sections, with its whole first sentence."""
    text = shown(columns)
    assert re.findall(r"\\b|\x08|[a-z]\.\.\.$", text, re.MULTILINE) == []
    assert [line for line in text.splitlines() if len(line) > columns] == []
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands)
    for name in cli.commands:
        assert len(re.findall(rf"^  {name}  ", text, re.MULTILINE)) == 1


@_VERBS
def test_every_example_parses(verb):
    """An example of the help is a command line that its verb takes."""
    for line in EXAMPLES[verb].strip().splitlines():
        program, name, *words = shlex.split(line.partition(" > ")[0])
        assert (program, name) == ("printroom", verb)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(click.Path, "convert", lambda self, value, parameter, context: Path(value))
            cli.commands[verb].make_context(verb, words)


@pytest.mark.parametrize("columns", ["0", "1", "10"])
def test_a_terminal_of_no_width_shows_what_there_is(columns, tmp_path, monkeypatch):
    """COLUMNS=0 hides nothing: a plan is printed in 40 columns at least."""
    monkeypatch.setenv("PRINTROOM_REDIS_URL", "redis://127.0.0.1:1/0")
    file = tmp_path / "s.yaml"
    file.write_text("prompt: a cat\n")
    shown = CliRunner(env={"COLUMNS": columns}).invoke(cli, ["plan", str(file)]).output
    assert "portraits" in shown
    assert max(map(len, shown.splitlines())) == 40


def test_a_priority_below_zero_is_no_option():
    """`priority SWEEP -5` is a number, and what is none is named."""
    asked = cli.commands["priority"].make_context("priority", ["mustaches", "-5"])
    assert asked.params == {"sweep": "mustaches", "number": -5}
    with pytest.raises(click.BadParameter, match="'-x' is not a valid integer"):
        cli.commands["priority"].make_context("priority", ["mustaches", "-x"])


def test_debug_is_taken_anywhere():
    """--debug may stand before or after the verb."""
    for words in (["--debug", "show", "no.png"], ["show", "no.png", "--debug"]):
        ended = subprocess.run(
            [sys.executable, "-m", "producer.cli", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, "No such option" in ended.stderr) == (2, False)
