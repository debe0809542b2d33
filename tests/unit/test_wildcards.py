"""A folder of wildcards is read as people keep them, and what is wrong with one file is said where it is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from producer.language.document import read_yaml
from producer.language.wildcards import Wildcard, read_wildcards, wildcards_from_value
from shared.errors import SweepError


def lines(wildcards: dict[str, Wildcard]) -> dict[str, tuple[str, ...]]:
    """Return what each wildcard stands for."""
    return {name: wildcard.lines for name, wildcard in wildcards.items()}


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    """Folders, spaces, comments, empty lines, CRLF, byte order marks and a missing last newline are all read."""
    (tmp_path / "my animals/big cats").mkdir(parents=True)
    (tmp_path / "my animals/big cats/a b.txt").write_bytes(
        b"\xef\xbb\xbf# cats\r\ntabby\r\n\r\n  manx \r\nC# # note\r\n\\#1"
    )
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    (tmp_path / ".hidden.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    found = read_wildcards(tmp_path).found
    assert {"empty": (), "my animals/big cats/a b": ("tabby", "manx", "C#", "\\#1")} == lines(found)
    cats = found["my animals/big cats/a b"]
    assert (2, 4, 5, 6) == cats.numbers
    assert f"{tmp_path.as_posix()}/my animals/big cats/a b.txt, line 4" == cats.place(1)


def test_a_line_separator_within_a_prompt_does_not_cut_it(tmp_path: Path) -> None:
    """U+2028 and U+0085 come with text from the web, and are no ends of lines."""
    (tmp_path / "a.txt").write_text("one\u2028two\u0085three\rfour\n", newline="")
    assert ("one\u2028two\u0085three", "four") == read_wildcards(tmp_path).found["a"].lines


def test_collections(tmp_path: Path) -> None:
    """YAML and JSON files are mappings of wildcards, as dynamicprompts has them; a list is called as its file."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/pets.yaml").write_text(
        "animals:\n  cats: [tabby, 2::manx]\n  lone: fox\nyears:\n  - 1980\n  - no\n  - {text: eel, weight: 3}\n"
    )
    (tmp_path / "list.json").write_text('["a", {"content": "b", "weight": 0.00001}, {"text": "c"}, 5]')
    found = read_wildcards(tmp_path).found
    expected = {
        "list": ("a", "0.00001::b", "1::c", "5"),
        "sub/animals/cats": ("tabby", "2::manx"),
        "sub/animals/lone": ("fox",),
        "sub/years": ("1980", "no", "3::eel"),
    }
    assert expected == lines(found)
    assert f"{tmp_path.as_posix()}/sub/pets.yaml, line 6" == found["sub/years"].place(1)
    assert f"{tmp_path.as_posix()}/list.json, item 2" == found["list"].place(1)


def test_bytes_that_are_not_utf8_are_kept_as_a_problem(tmp_path: Path) -> None:
    """One Latin-1 file among a thousand is told to whoever uses it, with the line, and to nobody else."""
    (tmp_path / "old.txt").write_bytes(b"ok\ncaf\xe9\n")
    (tmp_path / "new.txt").write_text("ok")
    found = read_wildcards(tmp_path).found
    assert found["new"].problem is None
    expected = (
        f"{tmp_path.as_posix()}/old.txt, line 2: byte 0xe9 at offset 6 is not UTF-8: save the file as UTF-8"
    )
    assert expected == found["old"].problem


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """A folder of nothing is a wrong path, most likely."""
    with pytest.raises(SweepError, match=r"there is no .txt, .yaml or .json file in it"):
        read_wildcards(tmp_path)


@pytest.mark.parametrize(
    ("files", "broken", "note"),
    [
        ({"a.txt": "x", "b.yaml": "a: [y]"}, ["a"], "'a' is in FOLDER/a.txt and FOLDER/b.yaml: remove one"),
        ({"hair.api_info.json": "{"}, [], "FOLDER/hair.api_info.json: not JSON: "),
        ({"hair.api_info.json": '{"a": {"b": null}, "n": 3}'}, ["a/b"], "a/b: null: write text in quotes"),
        ({"x.yaml": "hair:\n  - *x*\n"}, [], "FOLDER/x.yaml, line 2: not YAML ("),
        ({"a.yaml": "a: [x, null]\nb: [y]"}, ["a"], "FOLDER/a.yaml, line 1: a: null: write text"),
        (
            {"a.yaml": "a: [x]\nb: [y]\na: [z]"},
            ["a"],
            "line 3: the key 'a' stands here twice (first in line 1)",
        ),
        ({"a.yaml": "m: {a: [x], a: [z]}\nb: [y]"}, ["m/a"], "line 1: the key 'a' stands here twice"),
        (
            {"a.json": '{"m": {"a": ["x"], "a": ["y"]}, "b": ["z"]}'},
            ["m/a"],
            "the key 'a' stands there twice",
        ),
        ({"a.yaml": "d: [2024-01-01]\nb: [y]"}, ["d"], "line 1: d: 2024-01-01 is a date to YAML"),
        ({"a.yaml": "- [x]\n- y"}, ["a"], "a: ['x']: write text in quotes"),
        ({"a.yaml": "a: [x\n"}, [], "FOLDER/a.yaml, line 1: not YAML"),
        ({"a.yaml": ""}, [], "FOLDER/a.yaml: the file is empty"),
        ({"a.yaml": "a__b: [x]\n3: [y]"}, [], "'a__b' cannot be a name: use letters, digits, spaces"),
        ({"a.json": '{"a": [{"text": 3}]}'}, ["a"], "a: {'text': 3}: write text in quotes"),
        ({"bin.txt": "x\0y"}, ["bin"], "FOLDER/bin.txt, line 1: a NUL stands here: this is no text"),
    ],
)
def test_an_odd_entry_hides_no_others(
    tmp_path: Path, files: dict[str, str], broken: list[str], note: str
) -> None:
    """What is wrong with an entry is noted with file, line and fix; the good file beside it is read."""
    (tmp_path / "good.txt").write_text("fine\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    read = read_wildcards(tmp_path)
    assert ("fine",) == read.found["good"].lines
    assert broken == [name for name, wildcard in read.found.items() if wildcard.problem]
    assert note in "\n".join(read.notes).replace(tmp_path.as_posix(), "FOLDER")


def test_what_cannot_be_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a file too large and a folder with too many lines: each is noted, none is waited for."""
    (tmp_path / "good.txt").write_text("fine\n")
    os.mkfifo(tmp_path / "pipe.txt")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(300 << 20)
    (tmp_path / "many.txt").write_text("a\nb\nc\n")
    monkeypatch.setattr("producer.language.wildcards.LINES_MAX", 3)
    read = read_wildcards(tmp_path)
    assert {"huge", "many", "pipe"} == {name for name, one in read.found.items() if one.problem}
    said = "\n".join(read.notes)
    assert "pipe.txt: this is no regular file" in said
    assert "huge.txt: 300.0 MiB: a file holds at most 64 MiB" in said
    assert "many.txt: with it the folder has more than 3 lines" in said


def test_links_to_folders_are_entered_once(tmp_path: Path) -> None:
    """Large collections are linked into place; a circle of links ends."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/a.txt").write_text("x\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/linked").symlink_to(tmp_path / "shared")
    (tmp_path / "shared/loop").symlink_to(tmp_path / "shared")
    (tmp_path / "mine/gone").symlink_to(tmp_path / "nowhere")
    assert ["linked/a"] == list(read_wildcards(tmp_path / "mine").found)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A missing folder and a file in its place are told apart."""
    with pytest.raises(SweepError, match="no: there is no such folder"):
        read_wildcards(tmp_path / "no")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SweepError, match=r"a.txt: is a file: name the folder it is in"):
        read_wildcards(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "expected", "problems"),
    [
        ("{animal: [cat, ' dog '], place: beach}", {"animal": ("cat", "dog"), "place": ("beach",)}, []),
        ("{a: {b: [x], c: [y]}}", {"a/b": ("x",), "a/c": ("y",)}, []),
        ("{a/b: [x], a: {b: [y]}}", {"a/b": ("x",)}, ["wildcards: 'a/b' stands here twice: remove one"]),
        ("{a: [[x]]}", {"a": ()}, ["wildcards: a: ['x']: write text in quotes, or {text: ..., weight: 2}"]),
        ("[a]", {}, ["wildcards: write a mapping: a name, and a list of texts"]),
        (
            "{__a__: [x]}",
            {},
            ["wildcards: '__a__' cannot be a name: use letters, digits, spaces and / . - _, "],
        ),
    ],
)
def test_wildcards_in_a_sweep(text: str, expected: Any, problems: list[str]) -> None:
    """A sweep may list its wildcards itself; every problem has its line."""
    document = read_yaml(text, filename="sweep.yaml")
    found, refused = wildcards_from_value(document.value, located=document.located, filename="sweep.yaml")
    assert expected == lines(found)
    assert len(problems) == len(refused)
    for problem, wanted in zip(refused, problems, strict=True):
        assert problem.text.startswith(wanted)
        assert 1 == problem.line
