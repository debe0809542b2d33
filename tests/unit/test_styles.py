"""Styles are read from the files that other programs keep them in, and stand around a prompt as they do there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.language.prompt_files.paths import NamedPath
from producer.language.styles import (
    Styles,
    make_style,
    read_styles,
    written_style,
)
from shared.decoding import add_negative
from shared.errors import SweepError
from shared.texts import Slot, fill


def styles_of(path: Path) -> Styles:
    """Read the styles of one file or folder."""
    return read_styles([NamedPath(shown=path.as_posix(), path=path)])


SDXL_STYLES = Path(__file__).parents[3] / "shared" / "data" / "sdxl-styles-twri"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("photo of {prompt}, 35mm", "photo of a cat, 35mm"),
        ("{prompt} and {prompt}", "a cat and a cat"),
        ("35mm", "a cat, 35mm"),
        ("", "a cat"),
        ("{prompt} {lens} {a|b}", "a cat {lens} {a|b}"),
    ],
)
def test_a_style_stands_around_the_prompt(prompt: str, expected: str) -> None:
    """`{prompt}` is where the prompt stands, as often as it is there; without it the style follows after a comma."""
    style = make_style("any", prompt, "")
    assert expected == fill(style.prompt, {"prompt": "a cat"})


@pytest.mark.parametrize(
    ("style", "own", "expected"),
    [
        ("blurry", "text", "blurry, text"),
        ("blurry", None, "blurry"),
        ("blurry", "", "blurry"),
        ("", "text", "text"),
        ("", None, None),
        ("", "", ""),
    ],
)
def test_negative_prompts_are_merged(style: str, own: str | None, expected: str | None) -> None:
    """The style's negative stands first; where neither says anything, null stays null and nothing stays nothing."""
    assert expected == add_negative(style, own)


def test_sdxl_styles_are_read(tmp_path: Path) -> None:
    """A list of names and texts, as sdxl_prompt_styler has it; Fooocus leaves out what is empty."""
    path = tmp_path / "styles.json"
    path.write_text(
        json.dumps(
            [
                {"name": "photo", "prompt": "photo of {prompt}", "negative_prompt": "drawing"},
                {"name": "clean", "negative_prompt": "noise"},
            ]
        )
    )
    found = styles_of(path).styles
    assert {"photo": ("photo of ", Slot("prompt")), "clean": (Slot("prompt"),)} == {
        name: style.prompt for name, style in found.items()
    }
    assert ["drawing", "noise"] == [style.negative_prompt for style in found.values()]


def test_a1111_styles_are_read(tmp_path: Path) -> None:
    """styles.csv, with a byte order mark, CRLF, quoted commas, quotes and line ends, and rows that are headings."""
    path = tmp_path / "styles.csv"
    path.write_bytes(
        b'\xef\xbb\xbfname,prompt,negative_prompt\r\n-- film --,,\r\n\r\n"noir, 1940s","a ""film noir"" of {prompt},\n'
        b'black and white",colour\r\nplain,35mm,'
    )
    found = styles_of(path).styles
    assert ["noir, 1940s", "plain"] == list(found)
    noir, plain = found.values()
    assert ('a "film noir" of ', Slot("prompt"), ",\nblack and white") == noir.prompt
    assert ("colour", (Slot("prompt"), ", 35mm"), "") == (
        noir.negative_prompt,
        plain.prompt,
        plain.negative_prompt,
    )


def test_old_a1111_styles_are_read(tmp_path: Path) -> None:
    """Before negative prompts there was one column, called text."""
    path = tmp_path / "styles.csv"
    path.write_text("name,text\nfilm,35mm\n")
    assert (Slot("prompt"), ", 35mm") == styles_of(path).styles["film"].prompt


@pytest.mark.parametrize(
    ("name", "data", "errors"),
    [
        (
            "a.txt",
            b"",
            ["FILE: styles are in a .csv file (A1111) or a .json file (sdxl_prompt_styler, Fooocus"],
        ),
        ("a.json", b"[]", ["FILE: there are no styles in it"]),
        ("a.json", b"[", ["FILE: not JSON: Expecting value: line 1 column 2 (char 1)"]),
        ("a.json", b"[" * 100_000, ["FILE: not JSON: "]),
        (
            "a.json",
            b'["x", {"prompt": "y"}, {"name": "z"}]',
            [
                "FILE, style 1: 'x': write {name, prompt, negative_prompt}",
                "FILE, style 2: None is no name: write text",
                "FILE, style 3: z: the style says nothing: give it a prompt or a negative_prompt",
            ],
        ),
        ("a.json", b'{"x": "y"}', ["FILE, style 1: a: 'x' is not part of a style: use prompt and "]),
        (
            "a.json",
            b'{"x": {"promt": "y"}}',
            ["FILE, style 1: x: 'promt' is not part of a style: use prompt and "],
        ),
        ("a.json", b'{"x": {"prompt": 3}}', ["FILE, style 1: x: prompt=3: write text in quotes"]),
        (
            "a.csv",
            b"noir,dark,\n",
            ["FILE: the first row names no columns: write name,prompt,negative_prompt"],
        ),
        (
            "a.csv",
            b"name,prompt,negative_prompt\na,x,y\nb,1,2,3\na,x,z\na,x,y\n",
            [
                "FILE, line 3: 4 cells under 3 columns: quote text that holds the delimiter",
                "FILE, line 4: 'a' stands here twice and differs: rename one",
                "FILE, line 5: 'a' stands here twice and differs: rename one",
            ],
        ),
        (
            "a.csv",
            b'name,prompt\na,"x\n',
            ["FILE, line 2: unexpected end of data: look for a quote that is not closed"],
        ),
        (
            "a.csv",
            b"name,prompt\na,caf\xe9\n",
            ["FILE: line 2: byte 0xe9 at offset 17 is not UTF-8: save the file as"],
        ),
    ],
)
def test_a_file_of_styles_that_cannot_be_read(
    tmp_path: Path, name: str, data: bytes, errors: list[str]
) -> None:
    """Every problem of a file is found in one go, with its place and its fix."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SweepError) as caught:
        styles_of(path)
    found = [text.removeprefix("styles: ").replace(path.as_posix(), "FILE") for text in caught.value.problems]
    assert len(errors) == len(found), found
    for text, error in zip(found, errors, strict=True):
        assert text.startswith(error)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The path is named, and what to do."""
    with pytest.raises(SweepError, match=r"styles: .*/no.csv: there is no such file: check the name"):
        styles_of(tmp_path / "no.csv")


@given(st.text(), st.text(), st.text())
def test_a_written_style_is_the_same_style(name: str, prompt: str, negative: str) -> None:
    """What is stored of a style is read again as the style that it was."""
    style = make_style(name, prompt, negative)
    assert style == make_style(name, **written_style(style))


@pytest.mark.skipif(not SDXL_STYLES.is_dir(), reason="the collection of styles is not here")
def test_real_styles_are_read() -> None:
    """The files of sdxl_prompt_styler are read whole, each style with a place for the prompt."""
    read = [styles_of(path) for path in sorted(SDXL_STYLES.glob("*.json"))]
    found = [one.styles for one in read]
    assert [1, 17, 89] == [len(styles) for styles in found]
    assert [[], [], []] == [one.notes for one in read]
    for style in (style for styles in found for style in styles.values()):
        assert Slot("prompt") in style.prompt
        assert style == make_style(style.name, **written_style(style))


def test_a_negative_prompt_stands_where_a1111_puts_it() -> None:
    """`{prompt}` in a style's negative is the job's own negative; without one nothing stands there."""
    assert "blurry, text, noise" == add_negative("blurry, {prompt}, noise", "text")
    assert "blurry, , noise" == add_negative("blurry, {prompt}, noise", None)
    assert [None, "", "text"] == [add_negative("{prompt}", own) for own in (None, "", "text")]


def test_odd_rows_of_a_csv_hide_no_others(tmp_path: Path) -> None:
    """Short rows, headings, comments, a BOM, duplicates and a row too long: the other styles are there."""
    path = tmp_path / "styles.csv"
    path.write_bytes(
        b"\xef\xbb\xbfname,prompt,negative_prompt\r\n-- film --\r\n# mine,a,b\r\nshort,35mm\r\n"
        b'neg,,"grey, {prompt}"\r\nlong,a,b,c\r\ntwice,a,\r\ntwice,b,\r\nempty,a,b,,,\r\n'
    )
    read = styles_of(path)
    assert ["short", "neg", "empty"] == list(read.styles)
    assert "grey, {prompt}" == read.styles["neg"].negative_prompt
    assert {"long", "twice"} == set(read.broken)
    assert "line 8: 'twice' stands here twice and differs: rename one" in read.broken["twice"]


def test_a_csv_with_semicolons_is_read(tmp_path: Path) -> None:
    """What Excel saves in half of Europe has semicolons, and sometimes a first line that says so."""
    for first in ("", "sep=;\n"):
        path = tmp_path / "styles.csv"
        path.write_text(f"{first}name;prompt;negative_prompt\nfilm;{{prompt}}, 35mm;colour\n")
        assert (Slot("prompt"), ", 35mm") == styles_of(path).styles["film"].prompt


def test_sdnext_styles_are_read(tmp_path: Path) -> None:
    """SD.Next keeps a style a file in folders, with keys of its own; a list and a mapping are read too."""
    (tmp_path / "art").mkdir()
    (tmp_path / "art/Ink.json").write_text(
        json.dumps(
            {"name": "Ink", "description": "", "prompt": "ink of {prompt}", "negative": "colour", "extra": ""}
        )
    )
    (tmp_path / "nameless.json").write_text(json.dumps({"prompt": "{prompt}, oil", "negative_prompt": ""}))
    (tmp_path / "map.json").write_text(json.dumps({"Neon": {"prompt": "neon {prompt}", "preview": "x.jpg"}}))
    (tmp_path / "list.json").write_text(json.dumps({"styles": [{"name": "Wax", "prompt": "wax"}]}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    read = styles_of(tmp_path)
    assert {"Ink", "nameless", "Neon", "Wax"} == set(read.styles)
    assert "colour" == read.styles["Ink"].negative_prompt
    assert 1 == len(read.notes)
    assert "broken.json: not JSON" in read.notes[0]


def test_columns_of_styles_are_called_as_people_call_them(tmp_path):
    """A spreadsheet's names differ in case and signs from A1111's."""
    (tmp_path / "styles.csv").write_text("Name,Prompt,Negative Prompt\nsunny,{prompt} in the sun,dark\n")
    read = styles_of(tmp_path / "styles.csv")
    assert make_style("sunny", "{prompt} in the sun", "dark") == read.styles["sunny"]
