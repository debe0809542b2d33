"""Conditions on rows: what is written is what is compared."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.results import Condition, is_wanted, parse_where, where_texts
from shared.errors import UsageError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: text != "null")
signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])

#: Python's own comparisons: what `holds` is held against.
COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@settings(deadline=None)
@given(texts)
def test_any_text_is_a_value(text):
    """Whatever follows the first sign is the value, signs and line breaks included."""
    if not text.startswith("="):
        assert is_wanted(parse_where([f"prompt={text}"]), {"prompt": text}.__getitem__)
    assert not is_wanted(parse_where([f"prompt!={text}"]), {"prompt": text}.__getitem__)
    assert is_wanted(parse_where([f"prompt!={text}"]), {"prompt": f"{text}x"}.__getitem__)


@settings(deadline=None)
@given(signs, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_numbers_are_compared_as_numbers(sign, wanted, found):
    """A comparison of seeds is that of the numbers, not of their digits or of floats near them."""
    where = parse_where([f"seed{sign}{wanted}"])
    assert COMPARE[sign](found, wanted) == is_wanted(where, {"seed": found}.__getitem__)


@settings(deadline=None)
@given(st.lists(st.tuples(signs, st.integers(0, 20)), min_size=1, max_size=4), st.integers(0, 20))
def test_all_conditions_have_to_be_met(conditions, found):
    """Several conditions on one field are met together or not at all."""
    where = parse_where([f"steps{sign}{value}" for sign, value in conditions])
    expected = all(COMPARE[sign](found, value) for sign, value in conditions)
    assert expected == is_wanted(where, {"steps": found}.__getitem__)


@settings(deadline=None)
@given(st.lists(st.tuples(signs, st.integers(0, 20)), min_size=1, max_size=4))
def test_conditions_are_written_as_they_are_read(conditions):
    """What a card or a record says of conditions is read as the same conditions."""
    where = parse_where(
        [f"seed{sign}{value}" for sign, value in conditions] + ["prompt=a>b", "guidance_rule!=apg"]
    )
    assert where == parse_where(where_texts(where))


@pytest.mark.parametrize(
    ("condition", "met"),
    [("=null", True), ("!=null", False), ("=", False), ("!=", True), ("!=hat", True), ("=hat", False)],
)
def test_null_is_no_text(condition, met):
    """A row without a value equals null and nothing else."""
    assert met == is_wanted(parse_where([f"negative_prompt{condition}"]), lambda name: None)


def test_null_has_no_order():
    """A row without a value, as a failed job has no token count, meets no comparison."""
    assert not is_wanted(parse_where(["prompt_tokens<9"]), lambda name: None)
    assert not is_wanted(parse_where(["prompt_tokens>=0"]), lambda name: None)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("prompt>a", "--where prompt>a: only numbers have an order: use = or !="),
        ("guidance_rule<=apg", "only numbers have an order"),
        ("seed<null", "only numbers have an order"),
        ("seed>=x", "--where seed>=x: seed is a number"),
        ("seed==x", "--where seed==x: seed is a number"),
        ("seed~3", "--where seed~3: ~ looks into text, and seed is none: use = or !="),
        ("prompt~", "--where prompt~: nothing to look for"),
        ("prompt=~[a", "'\\[a' is no regular expression: missing ]"),
        ("promt~a", "no field 'promt': did you mean 'prompt'?"),
        ("sed>3", "no field 'sed'"),
        ("seed", "write field=value, such as seed=3, or seed>=3"),
    ],
)
def test_what_cannot_be_compared(condition, said):
    """A condition that makes no sense names itself and the mend."""
    with pytest.raises(UsageError, match=said):
        parse_where([condition])


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("prompt~WOMAN", ["a Woman in a hat", "~WOMAN, AT ITS START"]),
        ("prompt!~woman", ["a man", "", None]),
        ("prompt=~^a .*[mn]an", ["a Woman in a hat", "a man"]),
        ("prompt==~WOMAN, AT ITS START", ["~WOMAN, AT ITS START"]),
        ("prompt=", [""]),
        ("prompt=null", [None]),
    ],
)
def test_text_is_looked_into(condition, found):
    """~ contains, in any case; =~ matches a regular expression somewhere; null contains nothing."""
    rows = ["a Woman in a hat", "a man", "~WOMAN, AT ITS START", "", None]
    where = parse_where([condition])
    assert [row for row in rows if is_wanted(where, lambda name: row)] == found  # noqa: B023


def test_a_regular_expression_takes_no_time():
    """One that takes other engines for ever is answered at once: a filter cannot hang."""
    assert not is_wanted(parse_where(["prompt=~(a|a)*(a|a)*(a|a)*$b"]), lambda name: "a" * 5_000)


def test_a_sign_there_is_none_of():
    """From Python too, a sign is one of those there are, and looks for what it can find."""
    with pytest.raises(UsageError, match="sign '%': use one of = !="):
        Condition(sign="%", value=1)
    with pytest.raises(UsageError, match="sign '~' looks for text, not for 1"):
        Condition(sign="~", value=1)
