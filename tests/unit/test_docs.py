"""What the documentation says is so: commands, settings, sweeps, errors, tests cited, the file tree."""

import functools
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import producer.local.render  # noqa: F401 - brings an error class of its own
from producer.cli import cli
from producer.language.sweep import parse_sweep
from shared.errors import PrintroomError, SweepError
from shared.settings import Settings

_ROOT = Path(__file__).parents[2]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md"), *_ROOT.glob("examples/*.md")])

#: Variables that are no settings: for the tests of faults only.
_OTHER_VARIABLES = {"PRINTROOM_FAILPOINT"}

#: Before the verb in a shell line.
_COMMANDS = (["printroom"], ["docker", "compose", "run", "--rm", "producer"])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PAGE = pytest.mark.parametrize("page", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages."""
    return [text for language, text in _FENCE.findall(page.read_text()) if language in languages]


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words after `printroom` of every command a page shows, in blocks and in prose."""
    text = page.read_text()
    lines = [line for block in blocks(page, "", "sh", "console") for line in block.splitlines()]
    lines += re.findall(r"`(printroom [a-z][^`\n]*)`", _FENCE.sub("", text))
    for line in lines:
        for part in re.split(r"\s(?:&&|\||;|>)\s", line.strip().removeprefix("$ ")):
            if not any(part.startswith(" ".join(words)) or " printroom " in part for words in _COMMANDS):
                continue
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            for prefix in _COMMANDS:
                if words[: len(prefix)] == prefix and words != prefix:
                    yield words[len(prefix) :]


def problem(words: list[str]) -> str | None:
    """Say what is wrong with a verb and its options, or None."""
    if words[0].startswith("-"):
        return None if words[0] in ("--help", "--version", "-h") else f"no option {words[0]}"
    verb = cli.commands.get(words[0])
    if verb is None:
        return f"no verb {words[0]}"
    options = {name: param for param in verb.params if isinstance(param, click.Option) for name in param.opts}
    arguments = [param for param in verb.params if isinstance(param, click.Argument)]
    room = 1_000 if any(param.nargs == -1 for param in arguments) else len(arguments)
    rest, count = iter(words[1:]), 0
    for word in rest:
        if not word.startswith("-") or word == "-" or word[1:].isdigit():
            count += 1
        elif word.partition("=")[0] not in options:
            return f"{words[0]} has no option {word}"
        elif not options[word.partition("=")[0]].is_flag and "=" not in word and next(rest, None) is None:
            return f"{words[0]} {word} wants a value"
    return f"{words[0]} takes {room} arguments, not {count}" if count > room else None


def error_codes() -> dict[str, str]:
    """Return code -> class name over the whole tree of errors."""
    found, left = {}, [PrintroomError]
    while left:
        kind = left.pop()
        found[kind.code] = kind.__name__
        left += kind.__subclasses__()
    return found


@functools.cache
def file_tree():
    """The script, imported: docs is no package."""
    spec = importlib.util.spec_from_file_location("file_tree", _ROOT / "docs/file_tree.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["file_tree"] = module
    spec.loader.exec_module(module)
    return module


@_PAGE
def test_every_command_is_one(page):
    """Every `printroom ...` on a page is a verb there is, with options it has."""
    assert [(words, said) for words in command_lines(page) if (said := problem(words))] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("printroom frobnicate x", "no verb frobnicate"),
        ("PRINTROOM_STORE=x printroom status --colour", "status has no option --colour"),
        ("printroom pause a b && echo", "pause takes 1 arguments, not 2"),
        ("docker compose run --rm producer sheet SWEEP -o", "sheet -o wants a value"),
    ],
)
def test_a_wrong_command_is_found(tmp_path, line, said):
    """The check of commands sees a wrong verb, option, value and number of arguments, in blocks and in prose."""
    (tmp_path / "block.md").write_text(f"```sh\n{line}\n```\n")
    assert [problem(words) for words in command_lines(tmp_path / "block.md")] == [said]


def test_commands_are_found_in_prose(tmp_path):
    """A command between backticks is read as one in a block is."""
    (tmp_path / "prose.md").write_text("Run `printroom status SWEEP --watch`, not `printroom` alone.\n")
    assert list(command_lines(tmp_path / "prose.md")) == [["status", "SWEEP", "--watch"]]


def test_the_pages_show_every_verb():
    """No verb of the command line is left without a word in the documentation."""
    shown = {words[0] for page in _PAGES for words in command_lines(page)}
    assert set(cli.commands) - shown == set()


@_PAGE
def test_every_setting_named_exists(page):
    """A PRINTROOM_ variable on a page is a setting."""
    known = {f"PRINTROOM_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    assert set(re.findall(r"PRINTROOM_[A-Z0-9_]*[A-Z0-9]", page.read_text())) - known == set()


@_PAGE
def test_every_sweep_shown_is_valid(page):
    """A YAML block that is a sweep passes the checks a submitted one passes."""
    for text in blocks(page, "yaml"):
        if re.search(r"^(prompt|cases):", text, re.MULTILINE):
            assert parse_sweep(text).jobs > 0


@_PAGE
def test_every_python_block_compiles(page):
    """A Python block is Python."""
    for number, text in enumerate(blocks(page, "python")):
        compile(text, f"{page.name}, block {number + 1}", "exec")


@_PAGE
def test_every_test_cited_exists(page):
    """A test that stands behind a claim is in the file that is linked."""
    for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)#]+\.py)\)", page.read_text()):
        path = (page.parent / target).resolve()
        assert re.search(rf"def {name}\(", path.read_text()), f"{name} is not in {path.name}"


@_PAGE
def test_a_page_stands_alone(page):
    """A page names nothing that a reader of this repository does not have."""
    assert re.findall(r"/work/|\.\./shared/docs|/root/|/home/\w+/", page.read_text()) == []


def test_every_error_has_a_row():
    """docs/errors.md has each code of the tree once, beside its class, and no code that is not there."""
    text = (_ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \S.*\|$", text, re.MULTILINE)
    assert sorted(rows) == sorted(error_codes().items())


def test_the_messages_shown_are_the_messages():
    """Each row of the bad-input table in docs/sweeps.md is what that line brings, to the letter."""
    text = (_ROOT / "docs/sweeps.md").read_text().partition("## Bad input")[2]
    rows = re.findall(r"^\| `(.+?)` \| `(sweep\.yaml.+)` \|$", text, re.MULTILINE)
    assert len(rows) > 15
    for line, said in rows:
        with pytest.raises(SweepError) as refused:
            parse_sweep(f"prompt: a cat\n{line}\n")
        assert str(refused.value) == said


def test_every_scheduler_is_listed():
    """docs/sweeps.md lists the schedulers there are."""
    from shared.schedulers import SCHEDULERS

    section = (_ROOT / "docs/sweeps.md").read_text().partition("## Schedulers")[2].partition("\n\n")[2]
    assert re.findall(r"`(\w+)`", section.partition("\n\n")[0]) == list(SCHEDULERS)


def test_the_redis_keys_are_the_ledgers():
    """docs/architecture.md names every part of a sweep's keys that the ledger's scripts are given."""
    parts = set(re.findall(r'_sweep_key\(sweep, "(\w+)"\)', (_ROOT / "shared/ledger.py").read_text()))
    for listed in re.findall(r"parts \+?= \[(.+?)\]", (_ROOT / "shared/ledger.py").read_text()):
        parts |= set(re.findall(r'"(\w+)"', listed))
    page = (_ROOT / "docs/architecture.md").read_text()
    section = page.partition("## Redis, key by key")[2].partition("\n## ")[0]
    assert parts - set(re.findall(r"`(?:\{<sweep>\})?:(\w+)`", section)) == set()


def test_the_file_tree_is_current():
    """README's tree is what `python docs/file_tree.py --write` writes."""
    assert file_tree().shown(_ROOT / "README.md") == file_tree().tree(_ROOT)


def test_the_file_tree_is_written_between_its_marks(tmp_path):
    """Writing replaces the tree and nothing else; a page without marks is refused."""
    tree = file_tree()
    start, end = tree._MARKS
    (tmp_path / "README.md").write_text(f"before\n{start}old\n{end}\nafter\n")
    tree.write(tmp_path / "README.md", "new\n")
    assert (tmp_path / "README.md").read_text() == f"before\n{start}new\n{end}\nafter\n"
    (tmp_path / "other.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="no marks"):
        tree.write(tmp_path / "other.md", "new\n")
