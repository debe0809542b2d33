"""A list of prompts that is something else under another name is refused; what looks odd in it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.language.complete import SweepFile, read_sweep_file
from producer.language.sweep import sweep_of
from shared.errors import SweepError

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


def planned(folder: Path, lines: str, options: str = "") -> SweepFile:
    """Read a sweep of the prompts of a file, or raise what is wrong with it."""
    (folder / "p.txt").write_text(lines)
    (folder / "sweep.yaml").write_text(f"prompt: {{file: p.txt{options}}}\n")
    file = read_sweep_file(folder / "sweep.yaml")
    sweep_of(file)
    return file


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "prompt,seed\na cat,1\n",
            "line 1: 'prompt,seed' names columns, as a table has: write delimiter: \",\"",
        ),
        ("caption;cfg;width\na;7,5;512\n", 'names columns, as a table has: write delimiter: ";"'),
        ('"Prompt"\t"Seed"\na\t1\nb\n', r'write delimiter: "\\t" to read them, or delimiter: none'),
        ('{"prompt": "a cat"}\n{"prompt": "b"}\n', "line 1: JSON begins here: .* end in .jsonl"),
        ('["a cat",\n"a dog"]\n', "line 1: JSON begins here: .* end in .json,"),
        ('{\n"prompts": ["a"]\n}\n', "line 1: JSON begins here: .* end in .json,"),
        (f"a cat\nNegative prompt: x\n{SETTINGS}\n", "line 3: A1111's settings stand here, and no prompt"),
        (f"one\na cat Negative prompt: x {SETTINGS}\n", "line 2: A1111's settings stand here"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(tmp_path: Path, lines: str, said: str) -> None:
    """Each of them was a night of prompts like `a cat,1`; `delimiter: none` takes the lines as they are."""
    with pytest.raises(SweepError, match=said):
        planned(tmp_path, lines)
    kept = planned(tmp_path, lines, ", delimiter: none").document.value["prompt"]
    assert lines.splitlines() == kept


@pytest.mark.parametrize(
    "lines",
    [
        "a cat, a dog\nprompt, please\n",
        "red, seed\na\n",
        "{a|b} cat\n",
        "[a|b] cat\n[c]\n",
        "Steps: 20 of a stair\n",
        "#nofilter cat\n- a cat\n",
        '"quoted" cat\n"a" and "b" too\n',
    ],
)
def test_prompts_that_only_begin_like_something_else_are_prompts(tmp_path: Path, lines: str) -> None:
    """A prompt may have commas, braces and quotes, and nothing is said of them."""
    file = planned(tmp_path, lines)
    assert lines.splitlines() == file.document.value["prompt"]
    assert () == file.notes


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("# mine\na cat\n", "a line begins with '# ', as '# mine': taken as text; comments: true leaves"),
        ("- a cat\n- a dog\n", "every line has the mark of a list in front, as '- a cat': part of the text"),
        ("1. a cat\n2. a dog\n", "every line has the mark of a list in front, as '1. a cat'"),
        ("prompts:\n  - a cat\n  - a dog\n", "every line has the mark of a list in front"),
        ('"a cat",\n"a dog"\n', "every line stands in quotes, as '\"a cat\",'"),
        ("\u201ca cat\u201d\n\u201ca dog\u201d\n", "every line stands in quotes"),
    ],
)
def test_what_may_be_no_part_of_a_prompt_is_said(tmp_path: Path, lines: str, said: str) -> None:
    """The lines are kept to the letter, and `plan` shows one of them."""
    file = planned(tmp_path, lines)
    assert lines.splitlines() == file.document.value["prompt"]
    assert said in file.notes[0]


def test_a_folder_of_captions_in_files_of_their_own_is_told_of(tmp_path: Path) -> None:
    """Trainers keep a .txt beside each image; what the message says to write reads them."""
    (tmp_path / "all" / "cats").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "all" / "cats" / f"{name}.txt").write_text(f"cat {name}\n")
    path = tmp_path / "sweep.yaml"
    path.write_text("prompt: {folder: all/cats}\n")
    with pytest.raises(SweepError, match=r"caption in a .txt beside it: {file: 'all/cats/\*.txt'}"):
        sweep_of(read_sweep_file(path))
    path.write_text("prompt: {file: 'all/cats/*.txt'}\n")
    assert ["cat a", "cat b"] == read_sweep_file(path).document.value["prompt"]


def test_a_list_and_a_table_are_not_one_axis(tmp_path: Path) -> None:
    """A pattern that matches both says which is of another kind."""
    (tmp_path / "a.txt").write_text("a cat\n")
    (tmp_path / "b.csv").write_text("prompt\na dog\n")
    (tmp_path / "sweep.yaml").write_text("prompt: {file: '[ab].*'}\n")
    with pytest.raises(SweepError, match=r"b.csv': is of another kind than 'a.txt': name files of one kind"):
        sweep_of(read_sweep_file(tmp_path / "sweep.yaml"))
