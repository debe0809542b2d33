"""Lines of prompt files that carry other programs' options are read as those programs read them, or warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from producer.language.complete import SweepFile, read_sweep_file
from producer.language.prompt_files.options import find_options, read_options
from producer.language.sweep import sweep_of
from shared.errors import SweepError

A1111 = [
    '--prompt "a red cat, wet" --negative_prompt "blurry, text" --seed 1 --steps 20 --cfg_scale 7 '
    '--width 512 --height 768 --sampler_name "Euler a"',
    "--negative_prompt low quality --prompt a dog --seed -1 --n_iter 1 --do_not_save_grid true",
    "a plain prompt",
]
KOHYA = [
    "# drawn after every epoch",
    "a red cat, wet --n blurry, text --w 512 --h 768 --d 1 --l 7.5 --s 20",
    "a dog --W 64 --H 64 --ss k_lms",
    "a plain prompt",
]


def planned(folder: Path, lines: list[str], text: str = "prompt: {file: p.txt}") -> SweepFile:
    """Write a file of prompts and a sweep of it, and read it, or raise what is wrong with it."""
    (folder / "p.txt").write_text("\n".join(lines))
    (folder / "sweep.yaml").write_text(text)
    file = read_sweep_file(folder / "sweep.yaml")
    sweep_of(file)
    return file


def refused(folder: Path, lines: list[str], text: str = "prompt: {file: p.txt}") -> list[str]:
    """Return what is wrong with a sweep of a file of prompts."""
    with pytest.raises(SweepError) as caught:
        planned(folder, lines, text)
    return caught.value.problems


def test_a1111s_lines_are_cases(tmp_path: Path) -> None:
    """Each line is a job with what it says; the rest comes from the sweep, and `plan` says what was done."""
    file = planned(tmp_path, A1111, "prompt: {file: p.txt}\nsteps: 30\nscheduler: [ddim]")
    cases = [case.model_dump(exclude_unset=True) for case in sweep_of(file).cases]
    assert [
        {
            "prompt": "a red cat, wet",
            "negative_prompt": "blurry, text",
            "seed": 1,
            "steps": 20,
            "guidance_scale": 7.0,
            "scheduler": "euler_a",
            "size": "512x768",
        },
        {"negative_prompt": "low quality", "prompt": "a dog"},
        {"prompt": "a plain prompt"},
    ] == cases
    assert ("lines with A1111's options", "options: none for text as it is") == file.files[0].read_as
    assert 3 == file.files[0].values
    assert 3 == sweep_of(file).jobs


def test_kohyas_lines_are_cases(tmp_path: Path) -> None:
    """Short options behind the prompt, in either case, and comments."""
    cases = [case.model_dump(exclude_unset=True) for case in sweep_of(planned(tmp_path, KOHYA)).cases]
    assert [
        {
            "prompt": "a red cat, wet",
            "negative_prompt": "blurry, text",
            "size": "512x768",
            "seed": 1,
            "guidance_scale": 7.5,
            "steps": 20,
        },
        {"prompt": "a dog", "size": "64x64", "scheduler": "lms"},
        {"prompt": "a plain prompt"},
    ] == cases


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (A1111, "a1111"),
        (KOHYA, "kohya"),
        (["a cat", "a dog -- wet", "e-mail -- no"], None),
        (["a cat --ar 16:9 --v 5 --no hands", "a dog --w 512 --h 512 --ar 1:1"], None),
        (["a cat --s 250"], None),
        (["a cat --s 250 --q 2"], None),
        (["--no hands"], None),
        (["a cat --n blurry"], "kohya"),
        (["a cat --d 1"], "kohya"),
        (['--prompt "a"'], "a1111"),
        (["  --steps 20 --prompt a"], "a1111"),
        ([], None),
    ],
)
def test_whose_options_they_are(lines: list[str], found: str | None) -> None:
    """Midjourney's options are not kohya's, though some are spelt alike."""
    assert found == find_options(lines)


def test_the_sweep_says_whose_options_they_are(tmp_path: Path) -> None:
    """`options: none` keeps every line as it is; a program's name forces it; anything else is refused."""
    file = planned(tmp_path, KOHYA, "prompt: {file: p.txt, options: none}")
    assert KOHYA == file.document.value["prompt"]
    forced = planned(tmp_path, ["a cat --s 20"], "prompt: {file: p.txt, options: kohya}")
    assert [{"prompt": "a cat", "steps": 20}] == forced.document.value["cases"]
    (problem,) = refused(tmp_path, ["a"], "prompt: {file: p.txt, options: midjourney}")
    assert "sweep.yaml, line 1: prompt: options='midjourney': write a1111, kohya or none" == problem


def test_two_dialects_in_one_file_are_refused(tmp_path: Path) -> None:
    """One file is one program's."""
    (problem,) = refused(tmp_path, ["--prompt a --steps 3", "b --n c"])
    assert (
        "some lines carry A1111's options and some kohya's: keep them in two files, or write options: a1111"
        in problem
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            '--prompt "a cat --steps 20',
            "no closing quotation: close it; a text with an apostrophe stands in double quotes",
        ),
        ("--prompt a --steps many", "--steps many: write one number"),
        ("--prompt a --tiling true", "--tiling true has no equal here: remove it"),
        ("--prompt a --n_iter 4", "--n_iter 4 has no equal here: remove it"),
        ("--prompt a --styles film", "--styles has no equal here: remove it"),
        ("--prompt a --width 512", "it says only one side of the image: write both, or neither"),
        ("--prompt a --steps 2 --steps 3", "--steps stands there twice: keep one"),
        ("a cat --steps 20", "the text in front of its options stands alone: begin with --prompt"),
        ("--prompt a --steps 0", "case 1: steps=0: use 1 or more"),
        ("--prompt a --sampler_name Oiler", "case 1: scheduler='Oiler' is unknown"),
        ("--steps 20", "case 1: no prompt, and none at the top: add one"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """Each has its line and what to do, once."""
    found = refused(tmp_path, ["", line], "prompt: {file: p.txt, options: a1111}")
    assert 1 == len(found), found
    assert found[0].startswith(f"p.txt, line 2: {problem}")


def test_kohyas_options_without_an_equal_are_named() -> None:
    """A control image is no part of a job."""
    assert ["--cn has no equal here: remove it"] == read_options("a --cn x.png --w 8 --h 8", "kohya").problems


def test_such_a_file_stands_alone(tmp_path: Path) -> None:
    """Among other prompts, in a zip group or beside cases its lines cannot be cases, and are not taken as text."""
    for text in ("prompt: [a, {file: p.txt}]", "zip: {prompt: {file: p.txt}}"):
        (problem,) = refused(tmp_path, KOHYA, text)
        assert "'p.txt' has lines with kohya's options: such a file stands alone" in problem
    (problem,) = refused(tmp_path, KOHYA, "prompt: {file: p.txt}\ncases: [{seed: 1}]")
    assert (
        "the lines of 'p.txt' carry options, so they are cases: write all cases there, or options: none"
        in problem
    )


def test_a_list_at_the_top_and_an_option_are_refused(tmp_path: Path) -> None:
    """What every case sets cannot be an axis as well."""
    problems = refused(tmp_path, KOHYA[1:2], "prompt: {file: p.txt}\nsteps: [10, 20]")
    assert [
        "p.txt, line 1: case 1: steps is a list at the top and set in a case: keep one of them"
    ] == problems


def test_what_is_kept_compiles_to_the_same(tmp_path: Path) -> None:
    """The sweep that the store keeps has the cases in it and names no file."""
    file = planned(tmp_path, A1111)
    (tmp_path / "p.txt").unlink()
    again: Any = sweep_of(read_sweep_file(tmp_path / "kept.yaml", data=file.text))
    assert sweep_of(file).cases == again.cases
