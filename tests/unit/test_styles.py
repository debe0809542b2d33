"""Styles are read from the files that other programs keep them in, and stand around a prompt as they do there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.styles import (
    make_style,
    read_styles,
    written_style,
)
from shared.decoding import add_negative
from shared.errors import SweepError
from shared.texts import Slot, fill

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
    found = read_styles(path)
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
    found = read_styles(path)
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
    assert (Slot("prompt"), ", 35mm") == read_styles(path)["film"].prompt


@pytest.mark.parametrize(
    ("name", "data", "errors"),
    [
        ("a.txt", b"", ["FILE: styles are in a .csv file (A1111) or a .json file (sdxl_prompt_styler)"]),
        ("a.json", b"[]", ["FILE: the file has no styles"]),
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
        ("a.json", b'{"x": "y"}', ["FILE, style 1: x: write {prompt: ..., negative_prompt: ...}"]),
        (
            "a.json",
            b'{"x": {"promt": "y"}}',
            ["FILE, style 1: x: 'promt' is not part of a style: use prompt and "],
        ),
        ("a.json", b'{"x": {"prompt": 3}}', ["FILE, style 1: x: prompt=3: write text in quotes"]),
        (
            "a.csv",
            b"noir,dark,\n",
            ["FILE, line 1: the first row names no columns: write name,prompt,negative_prompt"],
        ),
        (
            "a.csv",
            b"name,prompt,negative_prompt\na,x,y\nb,1,2,3\na,x,z\na,x,y\nc,x,{prompt}\n",
            [
                "FILE, line 3: 4 cells under 3 columns: quote text that holds a comma",
                "FILE, line 4: 'a' stands here twice and differs: rename one",
                "FILE, line 6: c: negative_prompt has {prompt}, and a prompt is never a negative one: remove it",
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
            ["FILE, line 2: byte 0xe9 at offset 17 is not UTF-8: save the file as"],
        ),
    ],
)
def test_a_file_of_styles_that_cannot_be_read(
    tmp_path: Path, name: str, data: bytes, errors: list[str]
) -> None:
    """Every problem of a file is found in one go, with its place and its mend."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SweepError) as caught:
        read_styles(path)
    found = [text.removeprefix("styles: ").replace(path.as_posix(), "FILE") for text in caught.value.problems]
    assert len(errors) == len(found), found
    for text, error in zip(found, errors, strict=True):
        assert text.startswith(error)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The path is named as the system says why."""
    with pytest.raises(SweepError, match=r"styles: .*/no.csv: No such file or directory"):
        read_styles(tmp_path / "no.csv")


@given(st.text(), st.text(), st.text())
def test_a_written_style_is_the_same_style(name: str, prompt: str, negative: str) -> None:
    """What is stored of a style is read again as the style that it was."""
    style = make_style(name, prompt, negative)
    assert style == make_style(name, **written_style(style))


@pytest.mark.skipif(not SDXL_STYLES.is_dir(), reason="the collection of styles is not here")
def test_real_styles_are_read() -> None:
    """The files of sdxl_prompt_styler are read whole, each style with a place for the prompt."""
    found = [read_styles(path) for path in sorted(SDXL_STYLES.glob("*.json"))]
    assert [1, 17, 89] == [len(styles) for styles in found]
    for style in (style for styles in found for style in styles.values()):
        assert Slot("prompt") in style.prompt
        assert style == make_style(style.name, **written_style(style))
