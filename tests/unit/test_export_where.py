"""Conditions on rows: what is written is what is compared."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.results.where import (
    FILTERS,
    Comparison,
    condition_fields,
    hints,
    is_wanted,
    parse_where,
    read_where,
    where_texts,
)
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
    if not text.startswith(("=", "~")):  # these make another sign
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
        ("prompt>a", "--where prompt>a: column 7: only numbers have an order: use = or !="),
        ("guidance_rule<=apg", "only numbers have an order"),
        ("seed<null", "only numbers have an order"),
        ("seed>=x", "--where seed>=x: column 7: seed is a number"),
        ("seed==x", "--where seed==x: column 7: seed is a number"),
        ("seed=x", "seed is a number: write seed=3"),
        ("seed=1.0", "seed is a number: write seed=1"),
        ("seed=>5", "seed is a number: write seed>=5"),
        ("seed<>5", "seed is a number: write seed!=5"),
        ("seed=1,2", r"seed is a number: write 'seed in \(1,2\)'"),
        ("guidance_scale=inf5", "guidance_scale is a number: write guidance_scale=3"),
        ("size=64x64", "no field 'size': write 'width=512 and height=512', or one of the two"),
        ("size>64", "no field 'size': write 'width=512"),
        ("seed~3", "--where seed~3: column 5: ~ looks into text, and seed is none: use = or !="),
        ("prompt~", "--where prompt~: column 7: nothing to look for"),
        ("prompt=~[a", "column 9: '\\[a' is no regular expression: missing ]"),
        ("promt~a", "no field 'promt': did you mean 'prompt'?"),
        ("sed>3", "no field 'sed'"),
        ("prompt=~a[z-b]", "column 11: .* invalid character class range: z-b"),
        ("seed", "write field=value, such as seed=3, or seed>=3"),
    ],
)
def test_what_cannot_be_compared(condition, said):
    """A condition that makes no sense names itself and the fix."""
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
        Comparison(sign="%", value=1)
    with pytest.raises(UsageError, match="sign '~' looks for text, not for 1"):
        Comparison(sign="~", value=1)


ROWS = [
    {
        "seed": 1,
        "prompt": "a cat",
        "status": "done",
        "guidance_rule": None,
        "label:style": "sunny",
        "label:score": "3.5",
    },
    {
        "seed": 2,
        "prompt": "a dog and hat",
        "status": "failed",
        "guidance_rule": '{"rule":"apg"}',
        "label:score": "10",
    },
    {"seed": 3, "prompt": "a Cat", "status": "done", "guidance_rule": None, "label:score": "many"},
]


@pytest.mark.parametrize(
    ("condition", "seeds"),
    [
        ("seed=1 or seed=3", [1, 3]),
        ("seed in [1, 2] and not status = 'failed'", [1]),
        ("(prompt='a cat' or prompt ~ 'DOG') and seed<3", [1, 2]),
        ("prompt='a cat' and seed=1", [1]),
        ("prompt =~ '^a [cC]at$' and seed > 1", [3]),
        ("'cat' in prompt", [1]),
        ("score>3", [1, 2]),
        ("score>=3.5 and score<10", [1]),
        ("score=10", [2]),
        ("label:score = 10.0 or seed = 9", [2]),
        ("style is null", [2, 3]),
        ("guidance_rule = 'apg' or seed = 9", [2]),
        ("prompt=a dog and hat", [2]),
        ("prompt~dog and", [2]),
    ],
)
def test_expressions_choose_rows(condition, seeds):
    """What is no field, sign and value is an expression; it is written as it is read."""
    labels = ("style", "score")
    where = read_where([condition], labels)
    assert [row["seed"] for row in ROWS if is_wanted(where, lambda name: row.get(name))] == seeds  # noqa: B023
    assert read_where(where_texts(where), labels) == where
    assert set(condition_fields(where)) <= {*FILTERS, "label:style", "label:score"}


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("status=failed or seed=1", "column 8: unknown name 'failed': .*; quote text: 'failed'"),
        ("seed = 1 or (promt ~ 'a')", "column 14: unknown name 'promt': did you mean 'prompt'?"),
        ("(prompt =~ 'a[')", r"column 14: 'a\[' is no regular expression: missing \]"),
        ("seed=1 or seed=", "column 16: not a condition .it ends too early."),
        ("guidance_rule='apgg' or seed=1", "column 15: .*rule='apgg' is unknown"),
        ("seed=1 or status ~ 3", "column 20: 3 is a number: '~' looks for text in text"),
    ],
)
def test_wrong_expressions_say_their_place(condition, said):
    """The column is that of the condition as it was typed."""
    with pytest.raises(UsageError, match=said):
        is_wanted(parse_where([condition]), {"seed": 2, "status": "done"}.get)


def test_a_value_that_reads_like_an_expression_is_told_of():
    """The short form takes everything as it stands; where nothing meets it, a hint says how it is meant otherwise."""
    (hint,) = hints(parse_where(["prompt=a cat or seed=1"]))
    assert hint.endswith("an expression begins with a bracket: (prompt=a cat or seed=1)")
    assert hints(parse_where(["prompt='a cat'"])) != []
    assert hints(parse_where(["prompt=salt and pepper", "seed=1 or seed=2"])) == []
