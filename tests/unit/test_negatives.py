"""Negative prompts are taken apart into the comparisons that tell what their terms do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.language.negatives import (
    PLACEBO_WORDS,
    PRESETS,
    NegativeInvalid,
    expand_negative,
    leave_one_out,
    one_at_a_time,
    placebo,
    split_terms,
)

#: Made once, and for all time.
PLACEBO = "maybe, meanwhile merely, moreover"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blurry, low quality ,text", ["blurry", "low quality", "text"]),
        ("(blurry, dark:1.3), [a, b], {c, d|e}", ["(blurry, dark:1.3)", "[a, b]", "{c, d|e}"]),
        (r"smile \(mouth, open\), <lora:a,b:1>", [r"smile \(mouth", r"open\)", "<lora:a,b:1>"]),
        ("((a, b), c), d", ["((a, b), c)", "d"]),
        (", ,a,", ["a"]),
        ("", []),
        ("é 漢字\nx, y", ["é 漢字\nx", "y"]),
        ("a\\", ["a\\"]),
    ],
)
def test_terms_are_what_commas_separate(text: str, expected: list[str]) -> None:
    """Commas within brackets, which weights and choices need, separate nothing."""
    assert expected == split_terms(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a, (b, c", "'a, (b, c', character 4: ( is never closed: fix it, or write a backslash before it"),
        ("a), b", "'a), b', character 2: ) closes nothing: fix it, or write a backslash before it"),
        ("(a], b", "'(a], b', character 3: ] closes nothing"),
        (":>, b", "character 2: > closes nothing"),
    ],
)
def test_brackets_that_do_not_match_are_refused(text: str, error: str) -> None:
    """A comparison of terms that nobody meant is worse than none."""
    with pytest.raises(NegativeInvalid, match=re.escape(error)):
        split_terms(text)


@given(st.lists(st.text(st.sampled_from("ab é():1."), min_size=1), max_size=6))
def test_splitting_loses_nothing(terms: list[str]) -> None:
    """Terms put together again are the terms."""
    try:
        found = split_terms(", ".join(terms))
    except NegativeInvalid:
        return
    assert found == split_terms(", ".join(found))
    assert "".join(terms).replace(" ", "") == "".join(found).replace(", ", "").replace(" ", "")


def test_leaving_one_out() -> None:
    """The whole comes first, as it was written; then each arm lacks one term and no other."""
    arms = leave_one_out("blurry,(dark, dull:1.2),  text")
    expected = [
        ("blurry,(dark, dull:1.2),  text", "all terms"),
        ("(dark, dull:1.2), text", "without blurry"),
        ("blurry, text", "without (dark, dull:1.2)"),
        ("blurry, (dark, dull:1.2)", "without text"),
    ]
    assert expected == [(arm.text, arm.label) for arm in arms]


def test_one_at_a_time() -> None:
    """Each arm has one term and no other."""
    expected = [("blurry", "only blurry"), ("text", "only text")]
    assert expected == [(arm.text, arm.label) for arm in one_at_a_time("blurry, text")]


def test_a_placebo_keeps_all_but_the_words() -> None:
    """As many words, the same commas, brackets, weights, tags and keywords; equal words stay equal."""
    text = "bad hands, (bad_art:1.3), <lora:x:0.5> BREAK 3d, 8"
    ((arm,)) = placebo(text)
    assert "placebo" == arm.label
    assert arm.text is not None
    shape = re.fullmatch(r"(\w+) (\w+), \((\w+):1\.3\), <lora:x:0\.5> BREAK (\w+), 8", arm.text)
    assert shape is not None
    assert set(shape.groups()) <= set(PLACEBO_WORDS)
    assert 4 == len(set(shape.groups()))
    (again,) = placebo("bad, bad, good")
    first, second, third = str(again.text).split(", ")
    assert first == second != third


def test_a_placebo_is_the_same_everywhere() -> None:
    """A control arm that changed from machine to machine would be no control: this one was made once."""
    assert PLACEBO == placebo("blurry, low quality, text")[0].text
    assert len(set(PLACEBO_WORDS)) == len(PLACEBO_WORDS)


@given(st.text(st.sampled_from("ab ,()é-'"), min_size=1))
def test_a_placebo_has_as_many_words(text: str) -> None:
    """Its length in words is the text's, whatever the text."""
    words = re.compile(r"\w+(?:[-'’]\w+)*")
    try:
        (arm,) = placebo(text)
    except NegativeInvalid:
        assert not words.search(text)
        return
    assert len(words.findall(text)) == len(words.findall(str(arm.text)))


def test_presets_can_be_taken_apart() -> None:
    """Each preset says what it is for and where it is from, and has terms of its own to compare."""
    for name, preset in PRESETS.items():
        assert preset.purpose, name
        assert preset.source, name
        arms, problems = expand_negative({"leave_one_out": {"preset": name}})
        assert [] == problems, name
        assert 1 + len(split_terms(preset.text)) == len(arms)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (None, [(None, "null")]),
        ("", [("", "''")]),
        ("blurry", [("blurry", "blurry")]),
        ({"preset": "lettering"}, [("text, watermark, signature, logo", "preset lettering")]),
        ({"leave_one_out": "a, b"}, [("a, b", "all terms"), ("b", "without a"), ("a", "without b")]),
        (
            {"one_at_a_time": {"preset": "lettering"}},
            [(t, f"only {t}") for t in ["text", "watermark", "signature", "logo"]],
        ),
    ],
)
def test_items_of_the_axis(item: Any, expected: list[tuple[str | None, str]]) -> None:
    """Null and the empty text stay apart, and a mapping stands for the negatives it says."""
    arms, problems = expand_negative(item)
    assert [] == problems
    assert expected == [(arm.text, arm.label) for arm in arms]


@pytest.mark.parametrize(
    ("item", "place", "text"),
    [
        (
            3,
            (),
            "negative_prompt=3: write text, null, or one of {preset, leave_one_out, one_at_a_time, placebo}",
        ),
        ({}, (), "negative_prompt: 0 keys: write one of preset, leave_one_out, one_at_a_time, placebo"),
        (
            {"leave_one": "a"},
            ("leave_one",),
            "negative_prompt: unknown key 'leave_one': did you mean leave_one_out?",
        ),
        (
            {3: "a"},
            (3,),
            "negative_prompt: unknown key 3: use one of preset, leave_one_out, one_at_a_time, placebo",
        ),
        (
            {"preset": "qualty"},
            ("preset",),
            "negative_prompt: no preset is called 'qualty': did you mean quality?",
        ),
        ({"preset": None}, ("preset",), "negative_prompt: no preset is called None: there are quality, "),
        (
            {"placebo": {"preset": "x"}},
            ("placebo", "preset"),
            "negative_prompt: no preset is called 'x': there are ",
        ),
        ({"placebo": 3}, ("placebo",), "negative_prompt: placebo: write text, or {preset: NAME}"),
        (
            {"placebo": "1.5, ()"},
            ("placebo",),
            "negative_prompt: placebo: '1.5, ()': there is no word to replace",
        ),
        (
            {"leave_one_out": "a"},
            ("leave_one_out",),
            "negative_prompt: leave_one_out: 'a' has one term: write at least 2",
        ),
        (
            {"one_at_a_time": " ,"},
            ("one_at_a_time",),
            "negative_prompt: one_at_a_time: ' ,' has no term: write at least 1",
        ),
        (
            {"leave_one_out": "a, b, a"},
            ("leave_one_out",),
            "negative_prompt: leave_one_out: the term 'a' stands twice: ",
        ),
    ],
)
def test_items_that_are_refused(item: Any, place: tuple[Any, ...], text: str) -> None:
    """Each problem names its place, the value and the fix."""
    arms, problems = expand_negative(item)
    assert [] == arms
    ((problem,)) = problems
    assert place == problem.path
    assert problem.text.startswith(text)
