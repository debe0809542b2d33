"""A file's texts come out to the letter, with their lines, or the file is refused with the fix."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from producer.language.problem import Problem
from producer.language.prompt_files import tables
from producer.language.prompt_files.tables import (
    NAMELESS,
    FileInvalid,
    ReadOptions,
    nearest_file,
    read_bytes,
    read_table,
    read_text_lines,
)

PARTIPROMPTS = Path(__file__).parents[3] / "shared" / "data" / "partiprompts" / "PartiPrompts.tsv"


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file, and return where."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_is_its_lines(tmp_path: Path) -> None:
    """BOM, CRLF, blank lines and a missing last line end go; spaces, quotes, `0`, repeats and U+2028 stay."""
    text = '\ufeffa cat\r\n\r\n  edge \r\n0\r\n   \r\n"quoted\r\na cat\r\n# no comment\r\nx\u2028y\u0085z'
    path = written(tmp_path, "p.txt", text)
    table = read_text_lines(path)
    assert (NAMELESS,) == table.columns
    assert ["a cat", "  edge ", "0", '"quoted', "a cat", "# no comment", "x\u2028y\u0085z"] == table.values[
        NAMELESS
    ]
    assert [1, 3, 4, 6, 7, 8, 9] == table.lines
    assert ("line", True) == (table.unit, table.is_text)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == table.sha256


def test_comments_are_skipped_on_request_only(tmp_path: Path) -> None:
    """A prompt may begin with '#', so it takes a word to make it a comment."""
    path = written(tmp_path, "p.txt", "# one\na # two\n  # three\nb\n")
    assert ["a # two", "b"] == read_table(path, options=ReadOptions(comments=True)).values[NAMELESS]
    assert 4 == len(read_table(path).values[NAMELESS])


_LINES = st.lists(
    st.text(st.characters(exclude_characters="\r\n\0\t", exclude_categories=("Cs",))).filter(
        lambda t: t.strip()
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(lines=_LINES, end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
def test_text_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, last: bool
) -> None:
    """Any list of texts without line ends comes back as it was, whatever the line ends are."""
    tabs = {line.count("\t") for line in lines}
    assume(
        len(lines) < 2 or len(tabs) > 1 or tabs == {0}
    )  # as many tabs in each line are a table, and refused
    content = end.join(lines) + (end if last else "")
    path = written(tmp_path_factory.getbasetemp(), "round.txt", content)
    expected = [line.removeprefix("\ufeff") if number == 0 else line for number, line in enumerate(lines)]
    assert [line for line in expected if line.strip()] == read_table(path).values[NAMELESS]


_CELLS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=("Cs",)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(_CELLS, _CELLS), max_size=5), delimiter=st.sampled_from([",", ";", "\t"]))
def test_csv_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    """What the csv module writes is read back: quotes, delimiters and line ends in cells, and the line of each row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("one", "two"), *rows])
    path = written(tmp_path_factory.getbasetemp(), "round.csv", text.getvalue())
    table = read_table(path, options=ReadOptions(delimiter=delimiter))
    assert list(rows) == list(zip(table.values["one"], table.values["two"], strict=True))
    begin = 2
    for row, line in zip(rows, table.lines, strict=True):
        assert begin == line
        begin += 1 + sum(cell.count("\n") for cell in row)


def test_a_quote_in_a_tsv_is_a_quote(tmp_path: Path) -> None:
    """PartiPrompts has prompts that begin with a quote; read otherwise they swallow the lines after them."""
    path = written(tmp_path, "p.tsv", 'Prompt\tNote\n"A" is for\t1\n"open\t2\n0\t3\n')
    assert ['"A" is for', '"open', "0"] == read_table(path).values["Prompt"]
    quoted = written(tmp_path, "q.tsv", 'Prompt\tNote\n"a\tb"\t1\n')
    assert ["a\tb"] == read_table(quoted, options=ReadOptions(quotes_are_text=False)).values["Prompt"]


@pytest.mark.skipif(not PARTIPROMPTS.exists(), reason="PartiPrompts is not beside the repository")
def test_partiprompts_is_read_whole() -> None:
    """The published file gives its 1,632 prompts, `0`, quotes and edge spaces as they stand."""
    prompts = read_table(PARTIPROMPTS, only=["Prompt"]).values["Prompt"]
    assert 1632 == len(prompts)
    assert "0" in prompts
    assert any(prompt.startswith('"') for prompt in prompts)
    raw = PARTIPROMPTS.read_bytes().decode().replace("\r\n", "\n").split("\n")
    assert [line.split("\t")[0] for line in raw[1:] if line] == prompts


def test_rows_of_another_width_are_named_and_the_others_read(tmp_path: Path) -> None:
    """A row with a cell too few or too many would shift columns."""
    table = read_table(written(tmp_path, "t.csv", "a,b\n1,2\n3\n\n4,5,6\n7,8\n"))
    assert {"a": ["1", "7"], "b": ["2", "8"]} == table.values
    assert [2, 6] == table.lines
    fix = "under 2 columns: give it one a column, in quotes where it holds the delimiter"
    assert (
        Problem(line=3, text=f"1 cell {fix}"),
        Problem(line=5, text=f"3 cells {fix}"),
    ) == table.problems


def test_json_keeps_types_and_a_missing_key_is_none(tmp_path: Path) -> None:
    """JSON says what a value is; columns are those of all objects, in the order of their first mention."""
    records = [{"prompt": "a\u2028b\n", "seed": 1}, {"seed": 2.5, "rule": {"eta": 0}}]
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    for name, text in (("t.jsonl", lines), ("t.ndjson", lines), ("t.json", json.dumps(records))):
        table = read_table(written(tmp_path, name, text))
        assert ("prompt", "seed", "rule") == table.columns
        expected = {"prompt": ["a\u2028b\n", None], "seed": [1, 2.5], "rule": [None, {"eta": 0}]}
        assert expected == table.values
        assert not table.is_text
        assert ([1, 3], "line") == (table.lines, table.unit) or ([1, 2], "item") == (table.lines, table.unit)
    assert ["a", "b"] == read_table(written(tmp_path, "l.json", '["a", "b"]')).values[NAMELESS]


def test_wrong_json_lines_are_named_one_by_one(tmp_path: Path) -> None:
    """Each line is a text of its own: all that are wrong are said at once."""
    deep = "[" * 100_000
    text = f'{{"p": "a"}}\n{{"p": 1, "p": 2}}\n{{"p": Infinity}}\n"x"\n{{bad\n{deep}\n'
    table = read_table(written(tmp_path, "t.jsonl", text))
    assert {"p": ["a"]} == table.values
    expected = {
        2: "not JSON (the key 'p' stands there twice): fix the line",
        3: "not JSON (Infinity is no JSON number): fix the line",
        4: "text: write an object, as the first is",
        5: "not JSON (Expecting property name enclosed in double quotes, column 2): fix the line",
        6: "not JSON (it is nested too deeply): fix the line",
    }
    assert expected == {problem.line: problem.text for problem in table.problems}


def test_parquet_reads_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    """Types stay, rows are numbered from 1, and pictures beside the texts are not unpacked."""
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"p": ["a", None], "seed": [1, 2**63 - 1], "image": [b"x", b"y"]}), path)
    table = read_table(path, only=["seed", "p"])
    assert {"p": ["a", None], "seed": [1, 2**63 - 1]} == table.values
    assert ("p", "seed", "image") == table.columns
    assert ("row", [1, 2]) == (table.unit, list(table.lines))


def test_a_limit_reads_no_more_of_a_parquet_file_than_it_needs(tmp_path: Path) -> None:
    """Rows come out of the row groups that hold them, across their edges."""
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"p": list(range(10))}), path, row_group_size=3, compression="none")
    for offset, limit in ((0, 2), (2, 2), (3, 3), (5, 10), (9, 1), (0, None), (10, 1)):
        table = read_table(path, options=ReadOptions(offset=offset, limit=limit))
        assert list(range(10))[offset:][:limit] == table.values["p"]
        assert list(range(1, 11))[offset:][:limit] == list(table.lines)


def test_offset_and_limit_cut_rows_in_every_format(tmp_path: Path) -> None:
    """The same two options mean the same rows everywhere, and lines stay those of the file."""
    records = [{"p": str(number)} for number in range(6)]
    written(tmp_path, "t.txt", "0\n1\n\n2\n3\n4\n5\n")
    written(tmp_path, "t.csv", "p\n0\n1\n\n2\n3\n4\n5\n")
    written(tmp_path, "t.tsv", "p\n0\n1\n2\n3\n4\n5\n")
    written(tmp_path, "t.jsonl", "\n".join(map(json.dumps, records)))
    written(tmp_path, "t.json", json.dumps(records))
    parquet.write_table(pa.table({"p": [record["p"] for record in records]}), tmp_path / "t.parquet")
    found = {}
    for end in ("txt", "csv", "tsv", "jsonl", "json", "parquet"):
        table = read_table(tmp_path / f"t.{end}", options=ReadOptions(offset=1, limit=2))
        assert [["1", "2"]] == list(table.values.values())
        found[end] = list(table.lines)
    assert {
        "txt": [2, 4],
        "csv": [3, 5],
        "tsv": [3, 4],
        "jsonl": [2, 3],
        "json": [2, 3],
        "parquet": [2, 3],
    } == found


@pytest.mark.parametrize(
    ("name", "content", "line", "text"),
    [
        (
            "t.txt",
            b"a\nb\xe9\n",
            2,
            "byte 0xe9 at offset 3 is not UTF-8: save the file as UTF-8, or write encoding: cp1252 if 'b\xe9' is right",
        ),
        (
            "t.csv",
            b"a\n\x81\n",
            2,
            "byte 0x81 at offset 2 is not UTF-8: save the file as UTF-8, or write encoding: and what it is",
        ),
        (
            "t.txt",
            "a".encode("utf-16") + b"b",
            None,
            "the file is UTF-16 that breaks off at offset 4: save it as UTF-8",
        ),
        (
            "t.txt",
            "a\nb".encode("utf-16-le"),
            1,
            "a NUL stands here: remove it; if the file is UTF-16, save it as UTF-8 or write encoding: utf-16-le",
        ),
        ("t.csv", "", None, "the file is empty: its first line names the columns"),
        (
            "t.csv",
            'p\na\n"open\nb\n',
            3,
            "the row that begins here cannot be read (unexpected end of data): "
            'write "" for a quote in quotes, or quoting: none',
        ),
        ("t.csv", "seed,q,seed\n1,2,3\n", 1, "two columns are called 'seed': rename one"),
        (
            "t.json",
            '{"p": ["a"]}',
            None,
            'the file is a mapping: write a list of objects: [{"prompt": "a cat"}]',
        ),
        ("t.json", '["a",\n b]', 2, "not JSON (Expecting value, column 2): fix it"),
        ("t.json", '{"a": 1}\n{"a": 2}', 2, "not JSON (Extra data, column 1): one object a line is .jsonl"),
        (
            "t.yaml",
            "a",
            None,
            "its name ends in '.yaml': use one of .txt, .csv, .tsv, .jsonl, .ndjson, .json, .parquet",
        ),
        ("t", "a", None, "its name has no end: use .txt, .csv, .tsv, .jsonl, .ndjson, .json, .parquet"),
    ],
)
def test_a_wrong_file_names_line_and_fix(
    tmp_path: Path, name: str, content: str | bytes, line: int | None, text: str
) -> None:
    """Every way in which a file as a whole is wrong has a message of its own."""
    with pytest.raises(FileInvalid) as caught:
        read_table(written(tmp_path, name, content))
    assert (line, text) == (caught.value.line, str(caught.value))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """Pyarrow's error is said as ours."""
    with pytest.raises(FileInvalid, match=r"no Parquet file that can be read .*: write it anew"):
        read_table(written(tmp_path, "t.parquet", "prompt\na\n"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a missing file and a name that no file can have end in words, with the nearest name."""
    written(tmp_path, "prompts.txt", "a")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    for name, text in (
        ("promts.txt", "there is no such file: did you mean 'prompts.txt'?"),
        ("zebra.txt", "there is no such file: check the name and the folder"),
        ("nowhere/a.txt", "there is no such file, nor its folder: check the path"),
        ("folder.txt", "this is a folder: name a file in it"),
        ("pipe.txt", "this is no regular file: write it to one first"),
        ("a\0.txt", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(FileInvalid) as caught:
            read_table(tmp_path / name)
        assert text == str(caught.value)
    assert ": did you mean 'prompts.txt'?" == nearest_file(tmp_path / "Prompts.txt")


def test_too_large_a_file_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file of 300 MiB is named by its size; so is one with more rows than a sweep has values."""
    path = tmp_path / "t.txt"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(FileInvalid, match=r"300.0 MiB: a file holds at most 256 MiB: split it"):
        read_bytes(path)


def test_too_many_rows_are_refused_unless_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on rows, and a limit as the way around it."""
    monkeypatch.setattr(tables, "VALUES_MAX", 3)
    path = written(tmp_path, "t.txt", "a\nb\nc\nd\n")
    with pytest.raises(FileInvalid, match="more than 3 rows: a sweep holds no more values: set a limit"):
        read_table(path)
    assert ["a", "b", "c"] == read_table(path, options=ReadOptions(limit=3)).values[NAMELESS]


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": {"0": "a", "1": "b"}, "seed": {"0": 1, "1": 2}, "note": {"0": "x", "1": null}}',
        '{"prompt": ["a", "b"], "seed": [1, 2], "note": ["x", null]}',
    ],
    ids=["pandas", "datasets"],
)
def test_json_that_keeps_columns_apart_is_a_table(tmp_path: Path, text: str) -> None:
    """It is what `DataFrame.to_json` writes unasked."""
    (tmp_path / "t.json").write_text(text)
    table = read_table(tmp_path / "t.json")
    assert {"prompt": ["a", "b"], "seed": [1, 2], "note": ["x", None]} == dict(table.values)


def test_json_with_one_list_of_texts_is_a_list(tmp_path: Path) -> None:
    """Its key is what people call it."""
    (tmp_path / "t.json").write_text('{"prompts": ["a", "b"]}')
    assert {"": ["a", "b"]} == dict(read_table(tmp_path / "t.json").values)


def test_pictures_by_their_prompts_are_no_columns(tmp_path: Path) -> None:
    """A mapping of names to records is as it was: each its own row."""
    (tmp_path / "t.json").write_text('{"a.png": {"prompt": "a"}, "b.png": {"prompt": "b"}}')
    assert ["a", "b"] == read_table(tmp_path / "t.json").values["prompt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"prompt": "a"},\n{"prompt": "b"}\n',
            ["1: not JSON (Extra data, column 16): remove the comma at its end"],
        ),
        ("{'prompt': 'a'}\n", ["write double quotes, as JSON has them"]),
        (
            '{\n"prompt": "a"\n}\n{\n"prompt": "b"\n}\n',
            ["1: an object stands on several lines: write one a line"],
        ),
        ('{\n"prompts": ["a"]\n}\n', ["1: the file is one JSON value: let its name end in .json"]),
        ('{"prompt": "a"}\n{"prompt": \n', ["2: not JSON (Expecting value, column 12): fix the line"]),
    ],
)
def test_lines_that_are_no_json_say_what_is_meant(tmp_path: Path, text: str, said: list[str]) -> None:
    """A comma at the end, Python's quotes, objects over several lines: one problem each, with its fix."""
    (tmp_path / "t.jsonl").write_text(text)
    found = [f"{problem.line}: {problem.text}" for problem in read_table(tmp_path / "t.jsonl").problems]
    assert len(said) == len(found)
    assert all(part in whole for part, whole in zip(said, found, strict=True))


def test_an_empty_json_file_is_called_empty(tmp_path: Path) -> None:
    """Its first character is not at fault."""
    (tmp_path / "t.json").write_text("\n")
    with pytest.raises(FileInvalid, match="the file is empty: write a list of objects"):
        read_table(tmp_path / "t.json")
