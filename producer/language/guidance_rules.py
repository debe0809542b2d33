"""Turns the guidance rules of a sweep file into rules: one, or several where a field holds a list. Knows no YAML.

A rule's fields hold one value each, so a list of values is an axis, and a rule with several is their product, in the
order of `shared.guidance.RULE_FIELDS`, the last fastest. An interval is itself a list: a list of intervals is an axis.
`negatives` is a list by nature and never one.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from producer.language.document import read_inline
from producer.language.problem import Problem
from shared.errors import SweepError
from shared.guidance import RULE_FIELDS, RuleInvalid, check_field, parse_rule

#: Most rules on one axis. More is a slip: lists in six fields multiply fast.
RULES_MAX = 10_000

_INTERVALS = ("interval", "negative_interval")
_LISTS = (list, tuple, range)


def rule_of_text(text: str) -> str | None:
    """Return the rule that a text means, as it is kept: a name, or a mapping in YAML. Raises: ValueError."""
    try:
        return parse_rule(read_inline(text, what="guidance_rule"))
    except SweepError as error:
        raise ValueError(str(error)) from error


#: How a condition reads a text that it compares with a rule: one rule may be written in several ways.
RULE_READING: Mapping[str, Callable[[str], str | None]] = {"guidance_rule": rule_of_text}


def count_rules(value: Any) -> int:
    """Return how many rules a value stands for, right or wrong."""
    if not isinstance(value, Mapping):
        return 1
    return math.prod(max(1, len(found)) for name, found in value.items() if _is_axis(name, found))


def expand_rule(value: Any, *, lists: bool = True) -> tuple[list[str | None], list[Problem]]:
    """Return the rules that a value stands for, as canonical texts, and every problem it has.

    Args:
        value: what `shared.guidance.parse_rule` takes; a mapping's fields may hold lists.
        lists: False where one value is wanted, as in a case: then a list is a problem.
    """
    if not isinstance(value, Mapping):
        return _parsed([value])
    choices: dict[str, list[Any]] = {}
    problems: list[Problem] = []
    for name, found in value.items():
        is_axis = lists and _is_axis(name, found)
        choices[name] = list(found) if is_axis else [found]
        if is_axis and not found:
            text = f"guidance_rule: {name}: the list is empty: give it a value or remove the key"
            problems.append(Problem(path=(name,), text=text))
        for position, choice in enumerate(choices[name]):
            try:
                check_field(name, choice)
            except RuleInvalid as error:
                place = (name, position) if is_axis else (name,)
                problems.append(Problem(path=place, text=str(error)))
    if problems:
        return [], problems
    names = [name for name in RULE_FIELDS if name in choices]
    combinations = itertools.product(*(choices[name] for name in names))
    return _parsed(dict(zip(names, combination, strict=True)) for combination in combinations)


def written_rule(rule: str | None) -> Any:
    """Return a canonical text as a sweep file would say it: null, a name or a mapping."""
    if rule is None:
        return None
    value = json.loads(rule)
    if value.keys() == {"rule"}:
        return value["rule"]
    if "negatives" in value:
        value["negatives"] = dict(value["negatives"])
    return value


def _parsed(values: Any) -> tuple[list[str | None], list[Problem]]:
    rules: list[str | None] = []
    problems: dict[Problem, None] = {}  # combinations that differ elsewhere have the same one
    for value in values:
        try:
            rules.append(parse_rule(value))
        except RuleInvalid as error:
            place = () if error.field is None else (error.field,)
            problems[Problem(path=place, text=str(error))] = None
    return rules, list(problems)


def _is_axis(name: Any, found: Any) -> bool:
    if not isinstance(found, _LISTS) or name == "negatives":
        return False
    return name not in _INTERVALS or any(isinstance(side, _LISTS) for side in found)
