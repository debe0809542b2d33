"""A guidance rule has one spelling, is refused with its fix, and says in few words what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer.language.guidance_rules import RULES_MAX, count_rules, expand_rule, written_rule
from producer.language.problem import Problem
from shared.guidance import (
    NEGATIVES_MAX,
    RULE_FIELDS,
    GuidanceRule,
    RuleInvalid,
    WeightedText,
    check_field,
    parse_rule,
    read_rule,
    rule_label,
    rule_text,
)
from shared.job import PROMPT_BYTES_MAX

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
WEIGHTS = st.floats(-1000, 1000)
PARTS = st.floats(0, 1)
INTERVALS = st.tuples(PARTS, PARTS).filter(lambda sides: sides[0] != sides[1]).map(lambda s: tuple(sorted(s)))
NEGATIVES = st.lists(
    st.builds(WeightedText, text=TEXTS, weight=WEIGHTS), max_size=NEGATIVES_MAX, unique_by=lambda n: n.text
).map(tuple)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "rescale": PARTS,
    "interval": INTERVALS,
    "negative_interval": INTERVALS,
}
WEIGHTED = {"negative_weight": st.none() | WEIGHTS, "negatives": NEGATIVES}


def _rules(name: str, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[GuidanceRule]:
    optional = st.fixed_dictionaries({}, optional={**COMMON, **own})
    return optional.map(lambda given: GuidanceRule(rule=name, **given))  # type: ignore[arg-type]


RULES = st.one_of(
    _rules("cfg"),
    _rules("decoupled", **WEIGHTED),
    _rules("perp_neg", **WEIGHTED),
    _rules("apg", eta=PARTS, norm_threshold=st.floats(0, 1e6), momentum=st.floats(-1, 1)),
    _rules("cfg_zero_star", zero_init_steps=st.integers(0, 1000)),
)


@given(RULES)
@example(GuidanceRule(rescale=-0.0))
@example(GuidanceRule(interval=(-0.0, 0.5)))
@example(GuidanceRule(rule="decoupled", negative_weight=-0.0))
@example(GuidanceRule(rule="apg", momentum=-0.0, norm_threshold=-0.0))
def test_a_rule_survives_its_text(rule: GuidanceRule) -> None:
    """Text, mapping and rule say the same; the text of a rule read back is the same text."""
    text = rule_text(rule)
    assert text == parse_rule(text)
    assert text == rule_text(read_rule(text))
    assert text == parse_rule(written_rule(text))
    if text is not None:
        assert text == parse_rule(json.loads(text))
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@given(RULES)
def test_what_is_read_is_what_was_said(rule: GuidanceRule) -> None:
    """Of a rule's fields, nothing is lost but what is no arithmetic: order and zeros of negatives, given defaults."""
    again = read_rule(rule_text(rule))
    for name in (
        "rescale",
        "interval",
        "negative_interval",
        "eta",
        "norm_threshold",
        "momentum",
        "zero_init_steps",
    ):
        assert getattr(rule, name) == getattr(again, name)
    assert {n for n in rule.negatives if n.weight} == set(again.negatives)
    if rule.negative_weight not in (None, 1.0):
        assert (rule.rule, rule.negative_weight) == (again.rule, again.negative_weight)


@pytest.mark.parametrize(
    "spellings",
    [
        [None, "cfg", {}, {"rule": "cfg"}, {"rescale": 0, "interval": [0, 1]}, {"rule": "decoupled"}],
        ["apg", {"rule": "apg"}, {"rule": "apg", "eta": 0, "momentum": -0.5, "norm_threshold": 15}],
        ["perp_neg", {"rule": "perp_neg", "negative_weight": 1}, '{"rule":"perp_neg"}'],
        [
            {"rule": "perp_neg", "negatives": {"hat": 1, "beard": 0.5, "scarf": 0}},
            {"rule": "perp_neg", "negatives": [["beard", 0.5], "hat"]},
            {"rule": "perp_neg", "negatives": ({"text": "hat"}, {"text": "beard", "weight": 0.5})},
        ],
        [{"rescale": 0.7, "rule": "decoupled", "negative_weight": None}, {"rescale": 0.7}],
        [{"interval": (0, 0.5)}, {"interval": [-0.0, 0.5]}, '{"interval":[0.0,0.5]}'],
    ],
)
def test_one_rule_has_one_text(spellings: list[Any]) -> None:
    """However a rule is written, equal arithmetic is equal text: equal jobs have equal ids."""
    assert len({parse_rule(spelling) for spelling in spellings}) == 1


def test_texts_that_stay() -> None:
    """The canonical text stands in job ids: these will not change."""
    assert parse_rule("cfg") is None
    assert parse_rule({"rule": "apg", "eta": 0.5}) == '{"eta":0.5,"rule":"apg"}'
    said = {"rule": "perp_neg", "interval": [0, 0.8], "negatives": {"hat": 1, "béard": 0.5}}
    expected = '{"interval":[0.0,0.8],"negatives":[["béard",0.5],["hat",1.0]],"rule":"perp_neg"}'
    assert parse_rule(said) == expected


MEND = "write a number from"

#: What a person writes -> what it is refused for.
REFUSED: dict[str, tuple[Any, str]] = {
    "a number": (0.7, "0.7: write a name such as apg, or a mapping such as {rescale: 0.7}"),
    "a list": (["apg"], "['apg']: write a name such as apg, or a mapping such as {rescale: 0.7}"),
    "an unknown name": ("apgg", "rule='apgg' is unknown: did you mean apg?"),
    "another spelling": ("Perp-Neg", "rule='Perp-Neg' is unknown: did you mean perp_neg?"),
    "the paper's star": ("CFG-Zero*", "rule='CFG-Zero*' is unknown: did you mean cfg_zero_star?"),
    "nothing like it": (
        "zzz",
        "rule='zzz' is unknown: use one of cfg, decoupled, perp_neg, apg, cfg_zero_star",
    ),
    "a rule that is a number": (
        {"rule": 3},
        "rule=3 is unknown: use one of cfg, decoupled, perp_neg, apg, cfg_zero_star",
    ),
    "an unknown field": ({"rescal": 0.7}, "unknown 'rescal': did you mean rescale?"),
    "a field of nobody": ({"zzz": 1}, f"unknown 'zzz': use {', '.join(RULE_FIELDS)}"),
    "a key that is a number": ({1: 2}, f"unknown 1: use {', '.join(RULE_FIELDS)}"),
    "rescale above": ({"rescale": 1.5}, "rescale=1.5: use 0 to 1"),
    "rescale below": ({"rescale": -0.1}, "rescale=-0.1: use 0 to 1"),
    "rescale nan": ({"rescale": float("nan")}, "rescale=nan: use 0 to 1"),
    "rescale huge": ({"rescale": 10**400}, "rescale=a number of 1329 bits: use 0 to 1"),
    "rescale text": ({"rescale": "0.7"}, f"rescale='0.7': {MEND} 0 to 1"),
    "rescale boolean": ({"rescale": True}, f"rescale=true: {MEND} 0 to 1"),
    "rescale null": ({"rescale": None}, f"rescale=null: {MEND} 0 to 1"),
    "interval number": (
        {"interval": 0.2},
        "interval=0.2: write [start, stop], parts of the steps such as [0.2, 0.8]",
    ),
    "interval of three": (
        {"interval": [0, 0.5, 1]},
        "interval=[0, 0.5, 1]: write [start, stop], parts of the steps such as [0.2, 0.8]",
    ),
    "interval of texts": ({"interval": [0, "1"]}, f"interval='1': {MEND} 0 to 1"),
    "interval in percent": ({"interval": [20, 80]}, "interval=20: use 0 to 1"),
    "interval backwards": ({"interval": [0.8, 0.2]}, "interval=[0.8, 0.2]: start must be less than stop"),
    "interval empty": (
        {"negative_interval": [0.5, 0.5]},
        "negative_interval=[0.5, 0.5]: start must be less than stop",
    ),
    "weight of cfg": (
        {"negative_weight": 2},
        "negative_weight is not read by cfg: set rule: decoupled or perp_neg, or remove it",
    ),
    "weight too large": (
        {"rule": "decoupled", "negative_weight": 1001},
        "negative_weight=1001: use -1000 to 1000",
    ),
    "weight text": (
        {"rule": "decoupled", "negative_weight": "2"},
        f"negative_weight='2': {MEND} -1000 to 1000",
    ),
    "negatives of cfg": (
        {"negatives": {"hat": 1}},
        "negatives is not read by cfg: set rule: decoupled or perp_neg, or remove it",
    ),
    "negatives text": (
        {"rule": "perp_neg", "negatives": "hat"},
        "negatives='hat': write a mapping of text to weight, such as {hat: 1, blurry: 0.5}",
    ),
    "too many negatives": (
        {"rule": "perp_neg", "negatives": [f"n{n}" for n in range(9)]},
        "9 negatives: use at most 8",
    ),
    "negative number": (
        {"rule": "perp_neg", "negatives": [3]},
        "negatives: 3: write a text, or a text and its weight",
    ),
    "negative of three": (
        {"rule": "perp_neg", "negatives": [["hat", 1, 2]]},
        "negatives: ['hat', 1, 2]: write a text, or a text and its weight",
    ),
    "negative without text": (
        {"rule": "perp_neg", "negatives": [{"weight": 1}]},
        "negatives: {'weight': 1}: write a text, or a text and its weight",
    ),
    "negative of a wrong weight": (
        {"rule": "perp_neg", "negatives": {"hat": "1"}},
        f"negatives: weight='1': {MEND} -1000 to 1000",
    ),
    "negative of a large weight": (
        {"rule": "perp_neg", "negatives": {"hat": 1e4}},
        "negatives: weight=10000.0: use -1000 to 1000",
    ),
    "empty negative": (
        {"rule": "perp_neg", "negatives": {"": 1}},
        "negatives: '' pushes nowhere: remove it",
    ),
    "negative twice": (
        {"rule": "perp_neg", "negatives": ["hat", ["hat", 2]]},
        "negatives: 'hat' stands there twice: keep one, with the weights added",
    ),
    "NUL": ({"rule": "perp_neg", "negatives": ["a\0"]}, r"negatives: 'a\x00': remove the NUL character"),
    "half a surrogate pair": (
        {"rule": "perp_neg", "negatives": ["\ud800"]},
        r"negatives: '\ud800': remove the half of a surrogate pair",
    ),
    "a negative too long": (
        {"rule": "perp_neg", "negatives": ["x" * (PROMPT_BYTES_MAX + 1)]},
        "negatives: a text is 65,537 bytes long: use at most 65,536",
    ),
    "eta of cfg": ({"eta": 0.5}, "eta is not read by cfg: set rule: apg, or remove it"),
    "eta above": ({"rule": "apg", "eta": 2}, "eta=2: use 0 to 1"),
    "threshold below": ({"rule": "apg", "norm_threshold": -1}, "norm_threshold=-1: use 0 to 1e+06"),
    "threshold of perp_neg": (
        {"rule": "perp_neg", "norm_threshold": 3},
        "norm_threshold is not read by perp_neg: set rule: apg, or remove it",
    ),
    "momentum above": ({"rule": "apg", "momentum": 1.5}, "momentum=1.5: use -1 to 1"),
    "momentum of cfg": ({"momentum": 0}, "momentum is not read by cfg: set rule: apg, or remove it"),
    "steps of apg": (
        {"rule": "apg", "zero_init_steps": 1},
        "zero_init_steps is not read by apg: set rule: cfg_zero_star, or remove it",
    ),
    "steps below": (
        {"rule": "cfg_zero_star", "zero_init_steps": -1},
        "zero_init_steps=-1: write a whole number from 0 to 1000",
    ),
    "steps float": (
        {"rule": "cfg_zero_star", "zero_init_steps": 1.0},
        "zero_init_steps=1.0: write a whole number from 0 to 1000",
    ),
    "JSON cut short": ('{"rule":', """'{"rule":': not JSON"""),
    "JSON too deep": ('{"a":' + "[" * 100_000, f"""'{'{"a":' + "[" * 51}…': not JSON"""),
}


@pytest.mark.parametrize(("value", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_rule_is_refused_with_its_fix(value: Any, said: str) -> None:
    """Each refusal is a ValueError of one line: the field, the value, the fix."""
    with pytest.raises(RuleInvalid) as caught:
        parse_rule(value)
    assert str(caught.value) == f"guidance_rule: {said}"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "text",
    ["apg", "", "[]", '{"rescale":0}', '{"rescale": 0.7}', '{"rule":"cfg"}', '{"zzz":1}', '{"rescale":7}'],
)
def test_only_canonical_texts_are_read(text: str) -> None:
    """A job's rule is the text that `parse_rule` writes, or it is no job of ours."""
    with pytest.raises(ValueError, match="guidance_rule: "):
        read_rule(text)


@pytest.mark.parametrize(
    ("rule", "rows", "needs_empty"),
    [
        (None, 2, False),
        ("apg", 2, False),
        ("cfg_zero_star", 2, False),
        ({"rescale": 0.7, "interval": [0.2, 0.8]}, 2, False),
        ("perp_neg", 3, True),
        ({"rule": "decoupled", "negative_weight": 2}, 3, True),
        ({"rule": "perp_neg", "negatives": {"hat": 1, "beard": 2}}, 5, True),
    ],
)
def test_rows_are_prompts(rule: Any, rows: int, needs_empty: bool) -> None:
    """A row for the prompt, one for each negative, and one for the empty prompt where the rule measures from it."""
    found = read_rule(parse_rule(rule))
    assert (found.rows, found.needs_empty) == (rows, needs_empty)


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        (None, "cfg"),
        ("apg", "apg"),
        ({"rescale": 0.7}, "rescale 0.7"),
        ({"interval": [0.2, 0.8]}, "interval 0.2–0.8"),
        ({"rescale": 0.7, "negative_interval": [0.25, 1]}, "rescale 0.7, negative interval 0.25–1"),
        ({"rule": "apg", "eta": 0.5, "momentum": 0}, "apg, eta 0.5, momentum 0"),
        (
            {"rule": "perp_neg", "negatives": {"hat": 1, "beard": 0.5}},
            "perp_neg, negatives beard 0.5 and hat",
        ),
        ({"rule": "decoupled", "negatives": {"x" * 99: 1}}, f"decoupled, negatives {'x' * 23}…"),
        ({"rule": "cfg_zero_star", "zero_init_steps": 1}, "cfg_zero_star, zero init steps 1"),
    ],
)
def test_labels_are_short(rule: Any, label: str) -> None:
    """A label says what is not the default, and no more."""
    assert rule_label(parse_rule(rule)) == label


@given(st.text())
def test_a_label_never_fails(text: str) -> None:
    """What is no rule here, such as one of a later version, is shown as it stands."""
    assert len(rule_label(text)) <= 24


def test_check_field_names_the_field() -> None:
    """A single field is checked by itself, whatever the rule."""
    assert check_field("eta", 1) == 1.0
    with pytest.raises(RuleInvalid) as caught:
        check_field("eta", 2)
    assert caught.value.field == "eta"


class TestExpand:
    """Lists in a rule are axes of their own."""

    @pytest.mark.parametrize(
        ("value", "labels"),
        [
            ("apg", ["apg"]),
            ({"rescale": [0, 0.3, 0.7]}, ["cfg", "rescale 0.3", "rescale 0.7"]),
            ({"rule": ["cfg", "perp_neg"]}, ["cfg", "perp_neg"]),
            ({"interval": [0.2, 0.8]}, ["interval 0.2–0.8"]),
            ({"interval": [[0, 1], [0.2, 0.8]]}, ["cfg", "interval 0.2–0.8"]),
            ({"negative_interval": ((0, 0.5),)}, ["negative interval 0–0.5"]),
            (
                {"interval": [[0, 0.5], [0.5, 1]], "rescale": [0.3, 0.7]},  # the order of keys does not count
                [
                    "rescale 0.3, interval 0–0.5",
                    "rescale 0.3, interval 0.5–1",
                    "rescale 0.7, interval 0–0.5",
                    "rescale 0.7, interval 0.5–1",
                ],
            ),
            (
                {"rule": "perp_neg", "negatives": ["hat", "scarf"], "negative_weight": [0.5, 2]},
                [f"perp_neg, negative weight {weight}, negatives hat and scarf" for weight in ("0.5", "2")],
            ),
        ],
    )
    def test_product(self, value: Any, labels: list[str]) -> None:
        """Every field that takes one value may hold several; an interval is one value, and negatives are one."""
        rules, problems = expand_rule(value)
        assert ([rule_label(rule) for rule in rules], problems) == (labels, [])
        assert count_rules(value) == len(labels)

    def test_every_problem_once(self) -> None:
        """Each wrong value of a list is named by its place; what is wrong with many combinations is said once."""
        _, problems = expand_rule({"rescale": [0, 2, "x"], "etaa": 1, "momentum": []})
        assert [(problem.path, problem.text.partition(": ")[2]) for problem in problems] == [
            (("rescale", 1), "rescale=2: use 0 to 1"),
            (("rescale", 2), "rescale='x': write a number from 0 to 1"),
            (("etaa",), "unknown 'etaa': did you mean eta?"),
            (("momentum",), "momentum: the list is empty: give it a value or remove the key"),
        ]
        rules, problems = expand_rule({"rule": ["cfg", "apg"], "eta": [0.1, 0.2, 0.3]})
        text = "guidance_rule: eta is not read by cfg: set rule: apg, or remove it"
        assert (len(rules), problems) == (3, [Problem(path=("eta",), text=text)])

    def test_one_value_where_one_is_wanted(self) -> None:
        """A case holds one rule: a list is refused there."""
        _, problems = expand_rule({"rescale": [0.3]}, lists=False)
        assert [problem.text for problem in problems] == [
            "guidance_rule: rescale=[0.3]: write a number from 0 to 1"
        ]

    def test_counting_does_not_expand(self) -> None:
        """A product too large to make is counted all the same."""
        assert count_rules({"rescale": [0] * 10**5, "rule": ["cfg"] * 10**5}) == 10**10 > RULES_MAX


@pytest.mark.parametrize(
    "value",
    [
        None,
        "apg",
        {"rescale": 0.7},
        {"interval": [0.2, 0.8], "rule": "perp_neg", "negatives": {"beard": 0.5, "hat": 1.0}},
    ],
)
def test_a_rule_is_written_as_it_was_said(value: Any) -> None:
    """The sweep that a store keeps says rules as people do, not as ids do."""
    assert written_rule(parse_rule(value)) == value
