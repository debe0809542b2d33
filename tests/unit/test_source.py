"""Whatever a caller has of a sweep becomes one checked source, which is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from producer.language.complete import read_sweep_file
from producer.language.sweep import parse_sweep, sweep_from_mapping
from producer.prompt_words import PromptOptions, prompt_source
from producer.source import find_sweep_file, read_changed_file, read_source
from shared.errors import SweepError, UsageError

TEXT = "# mine\nname: cats\nprompt: [a cat, a dog]\nseed: {start: 0, count: 2}\n"
KEYS = {"name": "cats", "prompt": ["a cat", "a dog"], "seed": {"start": 0, "count": 2}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sweep file."""
    file = tmp_path / "cats.yaml"
    file.write_text(TEXT)
    return file


def test_every_shape_is_the_same_sweep(path: Path) -> None:
    """A path, its text, a mapping, a Sweep, a file that has been read, and a source itself: one sweep."""
    expected = parse_sweep(TEXT)
    given: list[Any] = [path, str(path), KEYS, sweep_from_mapping(KEYS), read_sweep_file(path)]
    assert [read_source(one).sweep for one in given] == [expected] * 5


def test_a_source_is_not_read_again(path: Path) -> None:
    """What is compiled is what is kept: a file that changes in between changes neither."""
    source = read_source(path)
    path.write_text("prompt: something else\n")
    assert read_source(source) is source
    assert source.text == TEXT


def test_the_kept_text_asks_for_the_same_sweep(path: Path) -> None:
    """A file is kept as it is written; Python values are written out."""
    assert read_source(path).text == TEXT
    assert parse_sweep(read_source(KEYS).text) == read_source(KEYS).sweep
    prompt = prompt_source("a cat", PromptOptions(negatives=("hat",), count=3))
    assert parse_sweep(prompt.text) == prompt.sweep


def test_changes_are_in_the_sweep_and_in_its_text(path: Path) -> None:
    """`--set` changes what is rendered, and what is kept."""
    source = read_changed_file(path, changes=["seed.count=5"])
    assert source.sweep.seed.count == 5
    assert parse_sweep(source.text) == source.sweep


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    """A path of no file, and a prompt in its place, are mistakes that the message names."""
    with pytest.raises(SweepError, match="no such file"):
        read_source(tmp_path / "none.yaml")
    with pytest.raises(SweepError, match="no such file; to render this text as a prompt"):
        read_source("a cat")
    with pytest.raises(UsageError, match="this is a folder"):
        find_sweep_file(str(tmp_path))


def test_options_that_are_set_are_named() -> None:
    """A zero is set; what is empty, None or False is not."""
    assert PromptOptions(steps=0, guidance=0.0, count=None, negatives=()).given() == ["guidance", "steps"]
