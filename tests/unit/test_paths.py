"""A file's name may begin in a home folder, be a pattern, and be packed; each means what a shell makes of it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from producer.language.complete import SweepFile, read_sweep_file
from producer.language.prompt_files import tables
from producer.language.prompt_files.paths import find_path, find_paths
from producer.language.prompt_files.tables import FileInvalid
from producer.language.sweep import sweep_of
from shared.errors import SweepError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder beside the sweep's."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def planned(folder: Path, text: str) -> SweepFile:
    """Write a sweep and read it with all that it names, or raise what is wrong with it."""
    (folder / "sweep.yaml").write_text(text)
    file = read_sweep_file(folder / "sweep.yaml")
    sweep_of(file)
    return file


def value_of(folder: Path, text: str) -> dict[str, Any]:
    """Return what a sweep says when all has been read."""
    value: dict[str, Any] = planned(folder, text).document.value
    return value


def test_names_begin_in_a_home_folder(home: Path) -> None:
    """`~` is the home folder in prompt files, includes, wildcards and styles; the kept sweep says it as written."""
    work = home.parent / "work"
    (home / "p.txt").write_text("a cat\n")
    (home / "common.yaml").write_text("steps: 3\nseed: {file: seeds.txt}\n")
    (home / "seeds.txt").write_text("5\n")
    (home / "cards").mkdir()
    (home / "cards/a.txt").write_text("x\n")
    (home / "styles.csv").write_text("name,prompt\nfilm,35mm\n")
    text = "include: ~/common.yaml\nprompt: ['__a__', {file: ~/p.txt}]\nexpand: all\nwildcards: ~/cards\n"
    file = planned(work, f"{text}styles: ~/styles.csv\nstyle: film\n")
    value = file.document.value
    assert (3, [5], ["__a__", "a cat"]) == (value["steps"], value["seed"], value["prompt"])
    assert "~/p.txt" in [found.path for found in file.files]
    assert str(home) not in file.text


def test_patterns_match_files_in_natural_order(tmp_path: Path) -> None:
    """part-2 comes before part-10; a name with the pattern's signs in it is itself."""
    for number in (1, 2, 10):
        (tmp_path / f"part-{number}.txt").write_text(f"prompt {number}\n")
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/part-3.txt").write_text("prompt 3\n")
    (tmp_path / "part-[x].txt").write_text("itself\n")
    assert ["prompt 1", "prompt 2", "prompt 10"] == value_of(tmp_path, "prompt: {file: 'part-[0-9]*.txt'}")[
        "prompt"
    ]
    assert ["prompt 3"] == value_of(tmp_path, "prompt: {file: '**/er/*.txt'}")["prompt"]
    assert ["itself"] == value_of(tmp_path, "prompt: {file: 'part-[x].txt'}")["prompt"]
    text = "prompt: {file: 'part-?*.txt', offset: 1, limit: 2}"
    file = planned(tmp_path, text)
    assert ["prompt 2", "prompt 10"] == file.document.value["prompt"]
    row = file.document.located.children["prompt"].children[1]
    assert ("part-10.txt", 1) == (row.file, row.line)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    """An empty match is a wrong path, most likely, wherever it stands."""
    for text, key in (
        ("prompt: {file: 'x*.txt'}", "prompt: file='x*.txt'"),
        ("prompt: a\ninclude: 'x*.yaml'", "include='x*.yaml'"),
        ("prompt: __a__\nexpand: all\nwildcards: 'x*'", "wildcards='x*'"),
        ("prompt: a\nstyle: b\nstyles: 'x*.csv'", "styles='x*.csv'"),
    ):
        with pytest.raises(SweepError) as caught:
            planned(tmp_path, text)
        (problem,) = caught.value.problems
        assert problem.endswith(f"{key}: no file matches: check the name and the folder")


def test_files_of_a_pattern_are_one_table(tmp_path: Path) -> None:
    """Columns are found by their names; files that differ in them, or in kind, are refused by name."""
    (tmp_path / "t1.csv").write_text("prompt,seed\na,1\n")
    (tmp_path / "t2.csv").write_text("seed;prompt\n2;b\n3;c\n")
    assert {"prompt": ["a", "b", "c"], "seed": [1, 2, 3]} == value_of(tmp_path, "zip: {file: 't*.csv'}")[
        "zip"
    ]
    (tmp_path / "t3.csv").write_text("prompt,sed\na,1\n")
    with pytest.raises(SweepError, match=r"file='t3.csv': has other columns than 't1.csv' \('se"):
        planned(tmp_path, "zip: {file: 't*.csv'}")
    (tmp_path / "t1.jsonl").write_text('{"prompt": "a"}')
    with pytest.raises(SweepError, match=r"is of another kind than 't1.csv': name files of one kind"):
        planned(tmp_path, "zip: {file: 't1.*'}")
    (tmp_path / "t2.jsonl").write_text('{"prompt": "b", "negative_prompt": "x"}')
    found = value_of(tmp_path, "zip: {file: 't?.jsonl'}")["zip"]
    assert {"prompt": ["a", "b"], "negative_prompt": [None, "x"]} == found


def test_several_includes_and_styles_of_a_pattern(tmp_path: Path) -> None:
    """Includes are read one after the other, and the last wins; styles of several files are one collection."""
    (tmp_path / "c1.yaml").write_text("steps: 3\nseed: 1\n")
    (tmp_path / "c2.yaml").write_text("steps: 4\n")
    (tmp_path / "s1.csv").write_text("name,prompt\nfilm,35mm\n")
    (tmp_path / "s2.json").write_text('[{"name": "ink", "prompt": "ink"}]')
    value = value_of(tmp_path, "include: 'c*.yaml'\nprompt: a\nstyles: 's[12].*'\nstyle: [film, ink]\n")
    assert (4, 1, {"film", "ink"}) == (value["steps"], value["seed"], set(value["styles"]))


def test_one_file_is_wanted_where_one_can_be_used(tmp_path: Path) -> None:
    """Several folders of wildcards are named, not chosen from."""
    for name in ("a", "b"):
        (tmp_path / f"cards-{name}").mkdir()
    with pytest.raises(FileInvalid, match=r"2 match \('cards-a', 'cards-b'\): name one"):
        find_path(tmp_path, "cards-*", folders=True)
    assert ["cards-a", "cards-b"] == [found.shown for found in find_paths(tmp_path, "cards-*", folders=True)]


def zstd(data: bytes) -> bytes:
    """Return data as zstd packs it."""
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.mark.parametrize("end", list(PACKED))
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "a cat\na dog\n"),
        ("p.csv", "prompt;seed\na cat;1\na dog;2\n"),
        ("p.tsv", "prompt\tseed\na cat\t1\na dog\t2\n"),
        ("P.JSONL", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n'),
        ("p.json", '["a cat", "a dog"]'),
    ],
)
def test_packed_files_are_read(tmp_path: Path, end: str, name: str, content: str) -> None:
    """gzip, bzip2, xz and zstd, of every kind of table; `plan` says which."""
    (tmp_path / f"{name}.{end}").write_bytes(PACKED[end](content.encode()))
    file = planned(tmp_path, f"prompt: {{file: {name}.{end}}}")
    assert ["a cat", "a dog"] == file.document.value["prompt"]
    assert {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}[end] in file.files[0].read_as


def test_a_packed_parquet_file_is_read(tmp_path: Path) -> None:
    """Nobody should, and some do."""
    parquet.write_table(pa.table({"prompt": ["a"]}), tmp_path / "t.parquet")
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress((tmp_path / "t.parquet").read_bytes()))
    assert ["a"] == value_of(tmp_path, "prompt: {file: t.parquet.gz}")["prompt"]


@pytest.mark.parametrize("end", list(PACKED))
def test_a_bomb_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Unpacked bytes are bounded as those of any file are."""
    monkeypatch.setattr(tables, "PROMPT_FILE_BYTES_MAX", 1 << 20)
    (tmp_path / f"p.txt.{end}").write_bytes(PACKED[end](b"a\n" * (1 << 20)))
    with pytest.raises(SweepError, match="unpacked it has more than 1 MiB: split it"):
        planned(tmp_path, f"prompt: {{file: p.txt.{end}}}")


@pytest.mark.parametrize("end", list(PACKED))
def test_a_damaged_packed_file_is_refused(tmp_path: Path, end: str) -> None:
    """One that breaks off, and one that is none at all."""
    data = PACKED[end](json.dumps(list(range(1000))).encode())
    for damaged in (data[: len(data) // 2], b"not packed at all"):
        (tmp_path / f"p.json.{end}").write_bytes(damaged)
        with pytest.raises(SweepError, match=r"cannot be unpacked by .*: write it again"):
            planned(tmp_path, f"prompt: {{file: p.json.{end}}}")
