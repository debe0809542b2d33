"""A delimited file is read as it is written, whoever wrote it; what reads two ways is refused with the key to write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from producer.language.complete import SweepFile, read_sweep_file
from producer.language.prompt_files.dialects import NO_DELIMITER
from producer.language.prompt_files.tables import FileInvalid, ReadOptions, read_table
from producer.language.sweep import sweep_of
from shared.errors import SweepError


def table_of(
    folder: Path, content: str | bytes, name: str = "t.csv", **options: Any
) -> tuple[str, dict[str, Any]]:
    """Write a file and read it; return its delimiter and its columns."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(path, options=ReadOptions(**options))
    assert not table.problems
    return table.dialect.delimiter if table.dialect else "", dict(table.values)


def planned(folder: Path, text: str) -> SweepFile:
    """Write a sweep and read it with all that it names, or raise what is wrong with it."""
    (folder / "sweep.yaml").write_text(text)
    file = read_sweep_file(folder / "sweep.yaml")
    sweep_of(file)
    return file


def column(folder: Path, cells: list[str], name: str = "seed", delimiter: str = ";") -> list[Any]:
    """Return what a column of a CSV becomes."""
    rows = [f"a cat {number}{delimiter}{cell}" for number, cell in enumerate(cells)]
    (folder / "t.csv").write_text("\n".join([f"prompt{delimiter}{name}", *rows]))
    values: list[Any] = planned(folder, "zip: {file: t.csv}").document.value["zip"][name]
    return values


def refusal(folder: Path, cell: str, name: str = "seed", delimiter: str = ";") -> str:
    """Return why a cell is refused."""
    with pytest.raises(SweepError) as caught:
        column(folder, [cell], name, delimiter)
    (problem,) = caught.value.problems
    return problem


_CAT = {"prompt": ["a red cat, blurry"], "seed": ["1"]}


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ('prompt,seed\n"a red cat, blurry",1\n', ","),
        ("prompt;seed\na red cat, blurry;1\n", ";"),
        ("prompt\tseed\na red cat, blurry\t1\n", "\t"),
        ("prompt|seed\na red cat, blurry|1\n", "|"),
        ("sep=;\nprompt;seed\na red cat, blurry;1\n", ";"),
        ("SEP=;\r\nprompt;seed\r\na red cat, blurry;1\r\n", ";"),
        ('"sep=;"\nprompt;seed\na red cat, blurry;1\n', ";"),
        ("sep=#\nprompt#seed\na red cat, blurry#1\n", "#"),
        ("\ufeffsep=;\nprompt;seed\na red cat, blurry;1", ";"),
        ("\ufeffprompt;seed\na red cat, blurry;1", ";"),
        ("prompt;seed\ra red cat, blurry;1\r", ";"),
        ('"prompt";"seed"\n"a red cat, blurry";"1"\n', ";"),
        ("prompt;seed;;\na red cat, blurry;1;;\n;;;\n;;;\n", ";"),
        ("prompt;seed\na red cat, blurry;1;;;\n\n\n", ";"),
        ("\n\nprompt;seed\n\na red cat, blurry;1\n", ";"),
        ("prompt;seed;\na red cat, blurry;1\n", ";"),
    ],
)
def test_every_dialect_of_one_table(tmp_path: Path, content: str, delimiter: str) -> None:
    """Delimiters, `sep=`, byte order marks, line ends, quotes and what Excel leaves at the end: one table."""
    found, values = table_of(tmp_path, content)
    assert (delimiter, _CAT) == (found, {name: values[name] for name in _CAT})
    assert set(_CAT) == set(values)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_unicode_text_of_excel_is_read(tmp_path: Path, encoding: str, name: str) -> None:
    """UTF-16 with its mark and tabs is what Excel calls Unicode text."""
    content = "prompt\tseed\r\na réd 貓, blurry\t1\r\n".encode(encoding)
    assert ("\t", {"prompt": ["a réd 貓, blurry"], "seed": ["1"]}) == table_of(tmp_path, content, name)


def test_quotes_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    """Doubled quotes are one, and a delimiter within quotes is text, in every dialect."""
    content = 'prompt;seed\n"a ""red"" cat; wet\nfur";1\n'
    assert (";", {"prompt": ['a "red" cat; wet\nfur'], "seed": ["1"]}) == table_of(tmp_path, content)


def test_one_column_of_prompts_stays_one_column(tmp_path: Path) -> None:
    """A file of prompts under one name has no delimiter, however many commas, semicolons and bars its prompts hold."""
    content = 'prompt\na red cat, blurry, 4k\na dog; a {wet|dry} nose\n"quoted, and"\n\na,b\n'
    expected = ["a red cat, blurry, 4k", "a dog; a {wet|dry} nose", "quoted, and", "a,b"]
    assert (NO_DELIMITER, {"prompt": expected}) == table_of(tmp_path, content)
    file = planned(tmp_path, "prompt: {file: t.csv}")
    assert expected == file.document.value["prompt"]
    assert ("one column",) == file.files[0].read_as


def test_rows_decide_between_two_delimiters(tmp_path: Path) -> None:
    """A header that reads two ways is read as all rows fit, or else as its names are known ones."""
    content = "prompt,note;more\na cat,x;y\na dog,z\n"
    assert (",", {"prompt": ["a cat", "a dog"], "note;more": ["x;y", "z"]}) == table_of(tmp_path, content)
    content = "prompt;steps;a,b\nx, y;20;p,q\nz;30;r,s\n"
    assert ";" == table_of(tmp_path, content)[0]
    content = "prompt;seed, or not\na cat, wet;1\na dog;2\n"
    assert ";" == table_of(tmp_path, content)[0]


def test_what_reads_two_ways_is_refused_with_the_key(tmp_path: Path) -> None:
    """Two delimiters that fit alike: the message says both and the key that chooses; the key does."""
    content = "a,b;c\nx,y;z\n"
    with pytest.raises(FileInvalid) as caught:
        table_of(tmp_path, content)
    text = "its first line may be 2 columns between commas or 2 columns between semicolons: say which: "
    assert f'{text}delimiter: "," or delimiter: ";"' == str(caught.value)
    assert {"a": ["x"], "b;c": ["y;z"]} == table_of(tmp_path, content, delimiter=",")[1]
    assert {"a,b;c": ["x,y;z"]} == table_of(tmp_path, content, delimiter=NO_DELIMITER)[1]
    with pytest.raises(SweepError, match=r't.csv, line 1: its first line may be .* delimiter: ","'):
        planned(tmp_path, "prompt: {file: t.csv, column: a}")
    for said, wanted in ((",", "x"), ("comma", "x"), ("none", "x,y;z"), ("semicolon", "x,y")):
        text = f"prompt: {{file: t.csv, delimiter: '{said}', column: {{}}}}"
        name = {"none": "'a,b;c'", "semicolon": "'a,b'"}.get(said, "a")
        text = f"prompt: {{file: t.csv, delimiter: '{said}', column: {name}}}"
        assert [wanted] == planned(tmp_path, text).document.value["prompt"]


def test_a_row_too_long_says_which_delimiter_was_taken(tmp_path: Path) -> None:
    """Where a guess was wrong, its message says so."""
    (tmp_path / "t.csv").write_text("prompt;seed\na;b;1\n")
    text = "3 cells under 2 columns: give it one a column, in quotes where it holds the delimiter"
    with pytest.raises(SweepError) as caught:
        planned(tmp_path, "zip: {file: t.csv}")
    assert [
        f"t.csv, line 2: {text} (semicolons were taken: delimiter: says otherwise)"
    ] == caught.value.problems


def test_bytes_of_another_encoding_want_its_name(tmp_path: Path) -> None:
    """What a Western Windows writes is refused with a word of it, and read under `encoding: cp1252`."""
    (tmp_path / "t.csv").write_bytes("prompt;seed\na café;1\n".encode("cp1252"))
    with pytest.raises(
        SweepError, match=r"t.csv, line 2: byte 0xe9 .* or write encoding: cp1252 if 'café;1' is right"
    ):
        planned(tmp_path, "zip: {file: t.csv}")
    file = planned(tmp_path, "zip: {file: t.csv, encoding: cp1252}")
    assert ["a café"] == file.document.value["zip"]["prompt"]
    assert ("semicolons", "cp1252") == file.files[0].read_as
    with pytest.raises(SweepError, match="encoding='cp125': write utf-8, utf-16, cp1252"):
        planned(tmp_path, "zip: {file: t.csv, encoding: cp125}")
    with pytest.raises(SweepError, match="encoding='hex': write utf-8"):
        planned(tmp_path, "zip: {file: t.csv, encoding: hex}")


def test_a_table_that_is_called_txt_is_refused(tmp_path: Path) -> None:
    """Excel saves Unicode text as .txt: each line as a prompt would draw the tabs and the seeds."""
    (tmp_path / "t.txt").write_bytes("prompt\tseed\r\na cat\t1\r\n".encode("utf-16"))
    with pytest.raises(SweepError, match=r't.txt, line 1: .*, as a table has: write delimiter: "\\t"'):
        planned(tmp_path, "prompt: {file: t.txt}")
    found = planned(tmp_path, 'zip: {file: t.txt, delimiter: "\\t"}').document.value["zip"]
    assert {"prompt": ["a cat"], "seed": [1]} == found
    assert ["prompt\tseed", "a cat\t1"] == planned(
        tmp_path, "prompt: {file: t.txt, delimiter: none}"
    ).document.value["prompt"]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (gzip.compress(b"prompt\na\n", mtime=0), "it is packed by gzip: let its name end in .gz"),
        (b"PK\x03\x04\xff\xff", "it is a zip archive, as .xlsx files are: save the sheet as CSV"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, start: bytes, said: str) -> None:
    """A renamed archive is told from an encoding."""
    (tmp_path / "t.csv").write_bytes(start)
    with pytest.raises(SweepError, match=said):
        planned(tmp_path, "zip: {file: t.csv}")
    (tmp_path / "t.xlsx").write_bytes(start)
    with pytest.raises(SweepError, match=r"its name ends in '.xlsx': save the sheet as CSV"):
        planned(tmp_path, "zip: {file: t.xlsx}")


def test_spaces_in_front_of_quotes(tmp_path: Path) -> None:
    """`1, "a, b"` is two cells where only that gives every row its cells; quotes within a text are text."""
    content = 'seed, prompt\n1, "a, b"\n2, c\n'
    assert (",", {"seed": ["1", "2"], "prompt": ["a, b", "c"]}) == table_of(tmp_path, content)
    assert [' "a"', " b"] == table_of(tmp_path, 'seed,prompt\n1, "a"\n2, b\n')[1]["prompt"]


def test_a_prompt_in_place_of_the_columns_name_is_warned_of(tmp_path: Path) -> None:
    """A file of prompts without a heading loses its first; a heading does not."""
    (tmp_path / "t.csv").write_text("a red cat\na dog\n")
    (note,) = planned(tmp_path, "prompt: {file: t.csv}").notes
    assert note.startswith("t.csv: the first line, 'a red cat', is the name of the column and no value")
    (tmp_path / "t.csv").write_text("3\n4\n")
    assert "the first line, '3'," in planned(tmp_path, "prompt: a\nseed: {file: t.csv}").notes[0]
    (tmp_path / "t.csv").write_text("Prompt\na dog\n")
    assert () == planned(tmp_path, "prompt: {file: t.csv}").notes


def test_cells_without_names_are_warned_of(tmp_path: Path) -> None:
    """One name above rows that all have as many semicolons: most likely the other names are missing."""
    (tmp_path / "t.csv").write_text("prompt\na red cat;blurry;1\na dog;;2\n")
    (note,) = planned(tmp_path, "prompt: {file: t.csv}").notes
    assert note.startswith(
        "t.csv: every row has ';' 2 times and is one value: if they separate cells, name the columns"
    )
    (tmp_path / "t.txt").write_text("sep=;\nprompt;seed\na cat;1\n")
    with pytest.raises(SweepError, match=r't.txt, line 1: \'sep=;\' begins a table .*: write delimiter: ";"'):
        planned(tmp_path, "prompt: {file: t.txt}")
    assert ["a cat"] == planned(tmp_path, "prompt: {file: t.txt, delimiter: ';'}").document.value["prompt"]


def test_quotes_that_a_tsv_keeps_are_warned_of(tmp_path: Path) -> None:
    """Excel quotes in tabbed text too; one cell that only begins with a quote says that quotes are meant."""
    (tmp_path / "t.tsv").write_text('prompt\tseed\n"a ""red"" cat"\t1\n')
    (note,) = planned(tmp_path, "zip: {file: t.tsv}").notes
    assert note.startswith("t.tsv: 1 cells stand in quotes, which are kept")
    file = planned(tmp_path, "zip: {file: t.tsv, quoting: csv}")
    assert (['a "red" cat'], ()) == (file.document.value["zip"]["prompt"], file.notes)
    (tmp_path / "t.tsv").write_text('prompt\tseed\n"A" is for\t1\n"b"\t2\n')
    assert () == planned(tmp_path, "zip: {file: t.tsv}").notes


# --- cells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3189012345.0", 3189012345),
        ("3189012345", 3189012345),
        (" 7 ", 7),
        ("1e3", 1000),
        ("1.5e3", 1500),
        ("3.189012345E+09", 3189012345),
        ("3189012345,0", 3189012345),
        ("3,189,012,345", 3189012345),
        ("3.189.012.345", 3189012345),
        ("3 189 012 345", 3189012345),
        ("3\u202f189\u202f012\u202f345", 3189012345),
        ("3'189'012'345", 3189012345),
        ("18446744073709551615", 18446744073709551615),
        ('"=""3189012345"""', 3189012345),
        ("'3189012345", 3189012345),
    ],
)
def test_whole_numbers_are_whole(tmp_path: Path, cell: str, value: int) -> None:
    """What programs and countries write for one seed is that seed."""
    assert [value] == column(tmp_path, [cell])


@pytest.mark.parametrize(
    ("name", "cell", "said"),
    [
        ("seed", "3,18901E+09", "rounded to scientific notation, its last digits are lost"),
        ("seed", "3.18901E+09", "rounded to scientific notation, its last digits are lost"),
        ("seed", "1E+09", "rounded to scientific notation, its last digits are lost"),
        ("seed", "3.18901e9", "rounded to scientific notation, its last digits are lost"),
        ("seed", "1.2345678901234567e+18", "rounded to scientific notation, its last digits are lost"),
        ("seed", "9223372036854775807.0", "a float of this size has lost its last digits"),
        ("seed", "1,234", "the comma may be a thousands separator: write 1234 or 1.234"),
        ("seed", "1.5", "write a whole number"),
        ("seed", "1.234", "write a whole number: 1234 if the point is a thousands separator"),
        ("seed", "TRUE", "write a whole number"),
        ("seed", "NaN", "is empty: write a value"),
        ("seed", "", "is empty: write a value"),
        ("steps", "<NA>", "is empty: write a value"),
        ("steps", "2026-05-07", "a spreadsheet made a date of it"),
        ("guidance_scale", "07.Mai", "a spreadsheet made a date of it"),
        ("guidance_scale", "7-May", "a spreadsheet made a date of it"),
        ("guidance_scale", "7/5/2026", "a spreadsheet made a date of it"),
        ("guidance_scale", "null", "is empty: write a value"),
    ],
)
def test_damaged_numbers_are_refused_with_the_reason(tmp_path: Path, name: str, cell: str, said: str) -> None:
    """A spreadsheet's damage is no number: the line says what happened to it."""
    problem = refusal(tmp_path, cell, name)
    assert problem.startswith(f"t.csv, line 2: {name}")
    assert said in problem


def test_decimal_commas(tmp_path: Path) -> None:
    """In a file of semicolons a comma is a decimal sign; between commas one that reads two ways is refused."""
    cells = ["7,5", "7.5", "7", "7,500", "1e1"]
    assert [7.5, 7.5, 7, 7.5, 10.0] == column(tmp_path, cells, "guidance_scale")
    assert [7.5] == column(tmp_path, ['"7,5"'], "guidance_scale", ",")
    assert "the comma may be a thousands separator" in refusal(tmp_path, '"7,500"', "guidance_scale", ",")


def test_words_for_nothing_are_texts_where_texts_stand(tmp_path: Path) -> None:
    """A prompt `null` is drawn as written, and `plan` says that it is taken so."""
    (tmp_path / "t.csv").write_text("prompt,negative_prompt\nNA,null\nnull,\nNone,NaN\n")
    file = planned(tmp_path, "zip: {file: t.csv}")
    assert {
        "prompt": ["NA", "null", "None"],
        "negative_prompt": ["null", None, "NaN"],
    } == file.document.value["zip"]
    assert [
        "t.csv: prompt: 3 cells say 'NA' and 'null' and 'None': taken as text; leave a cell empty for no value",
        "t.csv: negative_prompt: 2 cells say 'null' and 'NaN': taken as text; leave a cell empty for no value",
    ] == list(file.notes)


def test_seeds_with_zeros_behind_the_fifteenth_digit_are_warned_of(tmp_path: Path) -> None:
    """A spreadsheet keeps fifteen digits of a seed of 64 bits and says nothing."""
    (tmp_path / "t.csv").write_text("prompt,seed\na,12345678901234500000\nb,9876543210987650000\n")
    assert "spreadsheets make them" in planned(tmp_path, "zip: {file: t.csv}").notes[0]
    (tmp_path / "t.csv").write_text("prompt,seed\na,12345678901234567890\nb,9876543210987650000\n")
    assert () == planned(tmp_path, "zip: {file: t.csv}").notes


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_numbers_of_pandas_are_whole(tmp_path: Path, kind: str) -> None:
    """A column with a gap becomes floats in pandas; nullable columns and NaN too come out as people mean them."""
    frame = pd.DataFrame(
        {
            "prompt": ["a", "b"],
            "negative_prompt": ["x", None],
            "seed": [3189012345.0, 7.0],
            "steps": pd.array([20, 30], dtype="Int64"),
            "guidance_scale": pd.array([7.5, 7], dtype="Float64"),
        }
    )
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    found = planned(tmp_path, f"zip: {{file: t.{kind}}}").document.value["zip"]
    assert {"prompt": ["a", "b"], "seed": [3189012345, 7], "steps": [20, 30]} == {
        name: found[name] for name in ("prompt", "seed", "steps")
    }
    assert (["x", None], [7.5, 7]) == (found["negative_prompt"], found["guidance_scale"])
    assert [True, True] == [isinstance(seed, int) for seed in found["seed"]]


def test_numbers_that_are_texts_in_json_are_numbers(tmp_path: Path) -> None:
    """A column that somebody read as texts is one of numbers where its field is; what is none is refused."""
    (tmp_path / "t.jsonl").write_text('{"prompt": "a", "seed": "3189012345", "cfg": "7.5"}\n')
    found = planned(tmp_path, "zip: {file: t.jsonl}").document.value["zip"]
    assert {"prompt": ["a"], "seed": [3189012345], "guidance_scale": [7.5]} == found
    (tmp_path / "t.jsonl").write_text(
        '{"prompt": "a", "seed": "3.18901E+09"}\n{"prompt": "b", "seed": "x"}\n'
    )
    with pytest.raises(SweepError) as caught:
        planned(tmp_path, "zip: {file: t.jsonl}")
    assert ["t.jsonl, line 1: seed='3.18901E+09'", "t.jsonl, line 2: seed='x'"] == [
        problem[: problem.index(":", 18)] for problem in caught.value.problems
    ]


def test_numbers_of_32_bits_are_those_that_were_written(tmp_path: Path) -> None:
    """7.1 in a column of 32 bits, as DiffusionDB's, is 7.1 and not 7.099999904632568."""
    columns = {"prompt": ["a", "b"], "cfg": pa.array([7.1, None], pa.float32())}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert {"prompt": ["a", "b"], "cfg": [7.1, None]} == read_table(tmp_path / "t.parquet").values
    seeds = pa.array([16777216.0, 3189012345.0, 3e9], pa.float32())
    parquet.write_table(pa.table({"prompt": ["a", "b", "c"], "seed": seeds}), tmp_path / "t.parquet")
    with pytest.raises(SweepError) as caught:
        planned(tmp_path, "zip: {file: t.parquet}")
    assert ["t.parquet, row 2: seed='3.189012E+09'", "t.parquet, row 3: seed='3.000000E+09'"] == [
        problem.split(": rounded")[0] for problem in caught.value.problems
    ]


def test_a_list_under_the_name_of_lines_is_read(tmp_path: Path) -> None:
    """A .jsonl that is one JSON list is what it is; a list a line stays a list a line."""
    (tmp_path / "t.jsonl").write_text('[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n')
    assert ["a", "b"] == planned(tmp_path, "prompt: {file: t.jsonl}").document.value["prompt"]
    (tmp_path / "t.jsonl").write_text('["a"]\n["b"]\n')
    assert [["a"], ["b"]] == list(next(iter(read_table(tmp_path / "t.jsonl").values.values())))


def test_a_column_of_pictures_as_text_does_no_harm(tmp_path: Path) -> None:
    """A cell of 200,000 characters that nobody asks for is no error."""
    (tmp_path / "t.csv").write_text(f"prompt,image\na cat,{'A' * 200_000}\n")
    assert {"prompt": ["a cat"]} == planned(tmp_path, "zip: {file: t.csv}").document.value["zip"]


def test_nan_is_no_value_in_every_format(tmp_path: Path) -> None:
    """NaN where a negative may be is none; where a number must be it is an empty cell, with its row."""
    parquet.write_table(
        pa.table({"prompt": ["a", "b"], "negative_prompt": ["x", None], "seed": [1.0, float("nan")]}),
        tmp_path / "t.parquet",
    )
    records = [{"prompt": "a", "negative_prompt": float("nan"), "seed": 1.0}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = planned(tmp_path, "zip: {file: t.jsonl}").document.value["zip"]
    assert {"prompt": ["a"], "negative_prompt": [None], "seed": [1]} == found
    with pytest.raises(SweepError, match=r"t.parquet, row 2: seed=null: write a whole number"):
        planned(tmp_path, "zip: {file: t.parquet}")
    (tmp_path / "t.jsonl").write_text('{"prompt": "a", "seed": 1.8446744073709552e19}')
    with pytest.raises(
        SweepError, match=r"t.jsonl, line 1: seed=.* a float of this size has lost its last digits"
    ):
        planned(tmp_path, "zip: {file: t.jsonl}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# made by me\nprompt,seed\na,1\n", "line 1: line 2 names the columns: remove what stands above it"),
        ("My prompts,,\n\nprompt,seed,cfg\na,1,7\n", "line 1: line 3 names the columns"),
        (
            "prompt^seed\na^1\n",
            "line 1: 'prompt\\^seed' names columns: write delimiter: \"\\^\" to read them",
        ),
        ("prompt:cfg:seed\na:1:2\n", 'write delimiter: ":" to read them, or delimiter: none'),
    ],
)
@pytest.mark.parametrize("sweep", ["zip: {file: t.csv}", "prompt: {file: t.csv}"])
def test_names_of_columns_in_another_place_are_found(
    tmp_path: Path, text: str, said: str, sweep: str
) -> None:
    """A title, a comment or a rare delimiter made prompts of the names of the columns."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SweepError, match=said):
        planned(tmp_path, f"{sweep}\n")


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("text", ["a cat\nb\n", "a café cat\nb\n"])
def test_wide_encodings_without_their_mark_are_told(tmp_path: Path, encoding: str, text: str) -> None:
    """What the message says to write reads the file."""
    (tmp_path / "p.txt").write_bytes(text.encode(encoding))
    with pytest.raises(SweepError, match=f"write encoding: {encoding}\\Z"):
        planned(tmp_path, "prompt: {file: p.txt}\n")
    file = planned(tmp_path, f"prompt: {{file: p.txt, encoding: {encoding}}}\n")
    assert text.splitlines() == file.document.value["prompt"]


def test_a_file_of_prompts_is_no_sweep_and_told_how_to_be_one(tmp_path: Path) -> None:
    """People hand the list itself to `printroom plan`."""
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    with pytest.raises(SweepError, match=r"'prompt: a cat', or 'prompt: {file: p.txt}' in a file of its own"):
        read_sweep_file(tmp_path / "p.txt")


def test_a_packed_sweep_is_told_to_be_unpacked(tmp_path: Path) -> None:
    """Saving it as UTF-8 is no help."""
    (tmp_path / "s.yaml.gz").write_bytes(gzip.compress(b"prompt: a cat\n"))
    with pytest.raises(SweepError, match=r"s.yaml.gz: the file is packed by gzip: unpack it first"):
        read_sweep_file(tmp_path / "s.yaml.gz")
