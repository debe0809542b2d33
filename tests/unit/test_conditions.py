"""A condition says what Python would say of the same words, or refuses them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.conditions.comparisons import ConditionInvalid, LabelText
from producer.language.conditions.expression import CONDITION_MAX, parse_condition
from producer.language.guidance_rules import RULE_READING

NAMES = ("prompt", "negative_prompt", "seed", "guidance_scale", "animal", "is_big")
VALUES: dict[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": None,
    "seed": 5,
    "guidance_scale": 7.5,
    "animal": "cat",
    "is_big": True,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed < 10", True),
        ("seed == 5.0", True),
        ("seed != 5", False),
        ("5 <= guidance_scale < 7.5", False),
        ("seed in [1, 5]", True),
        ("seed not in (1, 5)", False),
        ("seed in []", False),
        ("seed % 2 == 1 and seed // 2 == 2 and seed / 2 == 2.5 and -seed + 1 * 2 == -3", True),
        ("animal in prompt", True),
        ("'dog' in prompt or 'cat' in prompt", True),
        ("'b' < animal < 'd'", True),
        ("animal in ['cat', 'dog']", True),
        ("not (animal == 'cat')", False),
        ("negative_prompt is null", True),
        ("negative_prompt is not null", False),
        ("negative_prompt == null", True),
        ("negative_prompt == None", True),
        ("negative_prompt == 'x'", False),
        ("negative_prompt in ['x', null]", True),
        ("'x' in negative_prompt", False),
        ("'x' not in negative_prompt", True),
        ("startswith(negative_prompt, 'x')", False),
        ("lower(negative_prompt) is null", True),
        ("negative_prompt is not null and len(negative_prompt) > 2", False),
        ("negative_prompt is null or len(negative_prompt) > 2", True),
        ("len(prompt) == 9", True),
        ("startswith(prompt, 'a red') and endswith(prompt, 'cat')", True),
        ("lower('CAT') == animal", True),
        ("is_big", True),
        ("is_big == true and not is_big == False", True),
        ("  seed <\n\t 10\n", True),
        ("seed = 5 and seed=5.0 and not seed = 4", True),
        ("prompt ~ 'RED' and prompt !~ 'dog'", True),
        ("negative_prompt ~ 'x' or negative_prompt =~ 'x'", False),
        ("negative_prompt !~ 'x'", True),
        ("prompt =~ '^a (red|blue) .at$'", True),
        ("prompt =~ '\\bred\\b' and not prompt =~ 'e{3}'", True),
        ("prompt =~ '(a|a)*(a|a)*(a|a)*$b'", False),
        ("lower(prompt) ~ animal", True),
        ("`seed` == 5 and (seed) in (5,)", True),
        ("0x5 == seed and 5_0 / 1e1 == seed and .5e1 == seed", True),
        ("'a' ' red' in prompt", True),
        ("'a = b && !c' == prompt", False),
        ("'it\\'s' == \"it's\"", True),
    ],
)
def test_conditions_hold_as_they_read(text: str, expected: bool) -> None:
    """What is written is what is asked; null holds nothing, begins with nothing and equals null alone."""
    assert expected is parse_condition(text, names=NAMES).holds(VALUES)


def test_a_condition_knows_the_names_that_it_reads() -> None:
    """Names in strings, functions and literals are none."""
    condition = parse_condition("len(prompt) > 3 and seed == 1 or 'animal' in prompt or true", names=NAMES)
    assert frozenset({"prompt", "seed"}) == condition.names


_NUMBERS = st.one_of(st.just("seed"), st.just("guidance_scale"), st.integers(0, 20).map(str))
_SUMS = st.recursive(
    _NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({' '.join(t)})"),
    max_leaves=5,
)
_COMPARED = st.tuples(_SUMS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), _SUMS).map(" ".join)
_LOGIC = st.recursive(
    _COMPARED,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(text=_LOGIC, seed=st.integers(0, 20), scale=st.floats(0, 20))
def test_conditions_agree_with_python(text: str, seed: int, scale: float) -> None:
    """Precedence, chains and arithmetic are Python's: eval is the oracle, on texts made here."""
    values = {"seed": seed, "guidance_scale": scale}
    assert eval(text, {}, dict(values)) is parse_condition(text, names=values).holds(values)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    """No text, however odd, ends in another error, and none runs anything."""
    with contextlib.suppress(ConditionInvalid):
        parse_condition(text, names=NAMES).holds(VALUES)


_GRAMMAR = (
    "use and, or, not, = == != < <= > >=, ~ !~ =~, in, is null, + - * / // %, len(x), lower(x), startswith(x, 'a'), "
    "endswith(x, 'a')"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a condition is empty: write an expression: 'seed < 10'"),
        ("seed = = 5", f"column 8: not a condition ('=' is not expected here): {_GRAMMAR}"),
        ("prompt ~= 'a'", "column 8: write '=~' for '~='"),
        ("prompt =~ 'a[bc'", "column 13: 'a[bc' is no regular expression: missing ]: [bc"),
        (
            "seed > 1 and prompt =~ 'x(?=y)'",
            "column 26: 'x(?=y)' is no regular expression: invalid perl operator: (?=",
        ),
        ("prompt =~ animal", "column 11: a regular expression stands in quotes: prompt =~ '^a .*cat$'"),
        ("prompt ~ 'cat", f"column 10: not a condition (the text is never closed): {_GRAMMAR}"),
        ("(seed > 1", f"column 1: not a condition ('(' is never closed): {_GRAMMAR}"),
        ("seed > 1)", f"column 9: not a condition (')' is not expected here): {_GRAMMAR}"),
        ("seed > 1 prompt", f"column 10: not a condition ('prompt' is not expected here): {_GRAMMAR}"),
        ("(" * 300 + "is_big" + ")" * 300, "nested too deeply: use at most 50 levels"),
        ("9" * 5000 + " < seed", f"column 1: '{'9' * 56}…' is no number that can be read here"),
        ("seed < 5 && seed > 1", "column 10: write 'and' for '&&'"),
        ("seed < 5 || seed > 1", "column 10: write 'or' for '||'"),
        ("!is_big", "column 1: write 'not' for '!'"),
        ("seed <> 5", "column 6: write '!=' for '<>'"),
        ("promt == 'a'", "column 1: unknown name 'promt': did you mean 'prompt'?; quote text: 'promt'"),
        ("'é' in promt", "column 8: unknown name 'promt': did you mean 'prompt'?; quote text: 'promt'"),
        ("  promt == 'a'", "column 3: unknown name 'promt': did you mean 'prompt'?; quote text: 'promt'"),
        ("size(prompt) > 1", "column 1: unknown function 'size': use endswith, len, lower, startswith"),
        ("len(prompt, 1) > 1", "column 1: len takes 1 value: write len(prompt)"),
        ("startswith(prompt)", "column 1: startswith takes 2 values: write startswith(prompt, 'a')"),
        ("seed is 5", "column 9: 'is' stands only before null: write '==' to compare"),
        ("[1] == 1", "column 1: a list stands only after 'in': seed in [1, 2]"),
        ("prompt.upper() == 'A'", f"column 1: '.upper' is not part of a condition: {_GRAMMAR}"),
        ("prompt[0] == 'a'", f"column 1: 'prompt[0]' is not part of a condition: {_GRAMMAR}"),
        ("seed ** 2 > 1", f"column 1: 'seed ** 2' is not part of a condition: {_GRAMMAR}"),
        (
            "(lambda: true)()",
            f"column 8: not a condition (':' is no part of it): {_GRAMMAR}",
        ),
        (
            "__import__('os') == 1",
            "column 1: unknown function '__import__': use endswith, len, lower, startswith",
        ),
        ("f'{seed}' == '5'", f"column 1: \"f'{{seed}}'\" is not part of a condition: {_GRAMMAR}"),
        ("b'a' == prompt", f"column 1: b'a' is not part of a condition: {_GRAMMAR}"),
        ("'\\d' in prompt", "column 2: a backslash stands twice in text: '\\\\'"),
        ("seed <", f"column 7: not a condition (it ends too early): {_GRAMMAR}"),
        ("1+" * 400 + "1 > 0", "nested too deeply: use at most 50 levels"),
        ("not " * 60 + "is_big", "nested too deeply: use at most 50 levels"),
        ("'" + "a" * CONDITION_MAX + "'", "a condition of 10,002 characters: use at most 10,000"),
    ],
)
def test_a_wrong_condition_names_the_column_and_the_fix(text: str, message: str) -> None:
    """What Python has and a condition has not is refused by name, at its place."""
    with pytest.raises(ConditionInvalid) as caught:
        parse_condition(text, names=NAMES)
    found = str(caught.value)
    if "nested" in message:
        found = found.partition(": ")[2] if found.startswith("column") else found
    assert message == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seed == '5'",
            "column 1: seed is a number (5) and '5' is text: compare a number with a number, and text with text",
        ),
        (
            "seed in ['5']",
            "column 1: seed is a number (5) and '5' is text: compare a number with a number, and text with text",
        ),
        (
            "animal < 5",
            "column 1: animal is text ('cat') and 5 is a number: compare a number with a number, and text with text",
        ),
        (
            "negative_prompt < 'a'",
            "column 1: negative_prompt is null, and '<' takes none: add 'negative_prompt is not null and'",
        ),
        (
            "len(negative_prompt) > 1",
            "column 5: negative_prompt is null: len takes text: add 'negative_prompt is not null and'",
        ),
        ("len(seed) > 1", "column 5: seed is a number: len takes text"),
        ("seed ~ '5'", "column 1: seed is a number: '~' looks for text in text"),
        ("prompt ~ 5", "column 10: 5 is a number: '~' looks for text in text"),
        ("animal + 1 > 2", "column 1: animal is text: '+' takes numbers"),
        ("seed / (seed - 5) > 1", "column 9: this divides by 0: add 'seed - 5 != 0 and'"),
        ("seed", "the condition is the number 5: compare it with something"),
        ("prompt and is_big", "column 1: prompt is text, not true or false: compare it with something"),
        ("1 in seed", "column 1: 1 is a number: text is looked for in text, or in a list: [1, 2]"),
        ("is_big > 1", "column 1: is_big is true: '>' takes numbers or texts"),
    ],
)
def test_values_that_do_not_compare_are_refused(text: str, message: str) -> None:
    """A condition that could never be true is an error and not an empty sweep."""
    condition = parse_condition(text, names=NAMES)
    with pytest.raises(ConditionInvalid) as caught:
        condition.holds(VALUES)
    assert message == str(caught.value)


def test_a_condition_that_is_no_text_is_refused() -> None:
    """YAML makes a boolean of `where: true`."""
    with pytest.raises(ConditionInvalid, match="a condition is the boolean True: write an expression"):
        parse_condition(True, names=NAMES)  # type: ignore[arg-type]


def test_a_var_that_is_a_number_is_compared_as_one() -> None:
    """Vars are texts; where one is held against a number it is the number, and refused if it is none."""
    values = {"count": LabelText("10"), "kind": LabelText("ten")}
    for text, expected in (
        ("count > 9", True),
        ("count = 10.0", True),
        ("count in [1, 10]", True),
        ("count > '9'", False),
    ):
        assert expected is parse_condition(text, names=values).holds(values)
    assert parse_condition("count * 2 = 20", names=values).holds(values)
    with pytest.raises(ConditionInvalid, match="kind is text"):
        parse_condition("kind > 9", names=values).holds(values)


def test_rows_with_gaps_meet_no_comparison() -> None:
    """In rows a value may be missing, and a label no number: then nothing holds of it but what is said of null."""
    values = {"tokens": None, "score": LabelText("many"), "text": None}
    for text, expected in (
        ("tokens > 1 or tokens <= 1", False),
        ("tokens + 1 > 0", False),
        ("tokens is null and tokens != 3", True),
        ("score > 1 or score < 1", False),
        ("score = 'many'", True),
        ("len(text) > 0 or text in ['a'] or 'a' in text", False),
        ("text not in ['a'] and text !~ 'a'", True),
    ):
        assert expected is parse_condition(text, names=values, has_gaps=True).holds(values)


def test_a_rule_is_compared_however_it_is_written() -> None:
    """What a person writes of a guidance rule is held against the one way in which it is kept."""
    values = {"guidance_rule": '{"rule":"apg"}'}
    for text, expected in (
        ("guidance_rule = 'apg'", True),
        ("'{rule: apg}' = guidance_rule", True),
        ("guidance_rule in ['cfg', 'apg']", True),
        ("guidance_rule != 'cfg'", True),
    ):
        assert expected is parse_condition(text, names=values, readings=RULE_READING).holds(values)
    with pytest.raises(ConditionInvalid, match=r"column 17: .*'apgg' is unknown: did you mean apg"):
        parse_condition("guidance_rule = 'apgg'", names=values, readings=RULE_READING)


def test_names_that_are_no_words() -> None:
    """A label may be called anything: as it is, if it begins as a word does, and else in backquotes."""
    values = {
        "worn/things": LabelText("hat"),
        "my note": LabelText("x"),
        "1st": LabelText("5"),
        "worn": LabelText("y"),
    }
    for text in ("worn/things = 'hat' and worn = 'y'", "my note='x'", "`my note` = 'x' and `1st` > 4"):
        assert parse_condition(text, names=values).holds(values)
