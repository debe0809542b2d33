"""The ledger's scripts take what they take by name."""

from __future__ import annotations

import re

import pytest

from shared.ledger_lua import SCRIPTS, Script


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_all_that_it_declares_and_nothing_by_position(name):
    """Each key and argument is read in the body, under its name; KEYS and ARGV stand in generated lines alone."""
    script = SCRIPTS[name]
    declared = [*script.keys, *script.arguments, *([script.rest] if script.rest else [])]
    assert len(set(declared)) == len(declared)
    assert [word for word in declared if not re.search(rf"\b{word}\b", script.body)] == []
    assert not re.search(r"\b(KEYS|ARGV)\b", script.body)
    assert [word for word in declared if re.search(rf"\blocal\s+(\w+,\s*)*{word}\b", script.body)] == []


def test_values_come_in_the_order_of_the_text():
    """Whatever order the caller names them in; further ones follow, where the script takes any."""
    script = Script(keys=("k",), arguments=("a", "b"), rest="more", body="return {a, b, more}")
    assert script.values({"b": 2, "a": 1}, [3, 4]) == [1, 2, 3, 4]
    assert script.text.splitlines()[:3] == ["local k = KEYS[1]", "local a = ARGV[1]", "local b = ARGV[2]"]
    assert "for n = 3, #ARGV do more[n - 2] = ARGV[n] end" in script.text


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 2}])
def test_wrong_names_are_refused(arguments):
    """A name too few, one too many, or another one: none reaches Redis."""
    script = Script(keys=(), arguments=("a", "b"), body="return a")
    with pytest.raises(TypeError, match="the script takes"):
        script.values(arguments)
    with pytest.raises(TypeError):
        script.values({"a": 1, "b": 2}, [3])
