"""A sweep, what it includes and what `--set` says become one document, each value with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.document import Document, read_yaml
from producer.language.include import INCLUDE_DEPTH_MAX, INCLUDES_MAX, assemble
from shared.errors import SweepError


def assembled(folder: Path, text: str, *options: str) -> Document:
    """Return a sweep in a folder, put together."""
    document = read_yaml(text, filename="sweep.yaml")
    return assemble(document, path=folder / "sweep.yaml", settings=options)


def said(document: Document) -> list[str]:
    """Return a document's problems as a person reads them."""
    return [problem.in_words("sweep.yaml") for problem in document.problems]


def refused(folder: Path, text: str, *options: str) -> str:
    """Return the one problem that ends the work."""
    with pytest.raises(SweepError) as caught:
        assembled(folder, text, *options)
    (problem,) = caught.value.problems
    return problem


def write(folder: Path, **texts: str) -> None:
    """Write YAML files by their stems; `__` stands for a folder."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_the_including_file_wins_and_keys_are_replaced_whole(tmp_path: Path) -> None:
    """Later includes win over earlier ones, the file itself over all, and no two mappings are mixed."""
    write(tmp_path, one="steps: 10\nseed: {start: 5, count: 3}\nsize: 64", two="steps: 20\nmodel: two")
    document = assembled(tmp_path, "include: [one.yaml, two.yaml]\nprompt: a\nseed: {count: 1}\n")
    expected = {"steps": 20, "seed": {"count": 1}, "size": 64, "model": "two", "prompt": "a"}
    assert (expected, []) == (document.value, said(document))


def test_places_name_the_file_and_the_line(tmp_path: Path) -> None:
    """What is wrong with an included value is said with the file as seen from the sweep's folder."""
    write(tmp_path, lib__base="\nsteps: 010\n", lib__common="include: base.yaml\nsize:\n  - 64\n  - 65\n")
    document = assembled(tmp_path, "prompt: a\ninclude: lib/common.yaml\n")
    problem = "steps: 010 is no plain decimal number (YAML makes 8 of it): write one, or quote text: '010'"
    assert [f"lib/base.yaml, line 2: {problem}"] == said(document)
    size = document.located.children["size"].children[1]
    assert ("lib/common.yaml", 4) == (size.file, size.line)
    prompt = document.located.children["prompt"]
    assert (None, 1) == (prompt.file, prompt.line)


def test_circles_and_depth_are_refused(tmp_path: Path) -> None:
    """Files that include each other end in a message that shows the way round; so does a chain without end."""
    write(tmp_path, a="include: b.yaml", b="steps: 1\ninclude: lib/../a.yaml")
    circle = "sweep.yaml -> a.yaml -> b.yaml -> a.yaml"
    expected = [
        f"b.yaml, line 2: include='lib/../a.yaml': files include each other in a circle ({circle}): remove one include"
    ]
    document = assembled(tmp_path, "include: a.yaml")
    assert ({"steps": 1}, expected) == (document.value, said(document))
    own = assembled(tmp_path, "include: sweep.yaml")
    (problem,) = said(own)
    assert "(sweep.yaml -> sweep.yaml)" in problem
    write(
        tmp_path, **{f"d{number}": f"include: d{number + 1}.yaml" for number in range(INCLUDE_DEPTH_MAX + 2)}
    )
    (problem,) = said(assembled(tmp_path, "include: d0.yaml"))
    assert f"includes nest more than {INCLUDE_DEPTH_MAX} deep: include fewer files" in problem


def test_a_bomb_of_includes_is_refused(tmp_path: Path) -> None:
    """Files that each include the next one many times do not multiply without end."""
    for number in range(5):
        write(tmp_path, **{f"d{number}": f"include: [{', '.join([f'd{number + 1}.yaml'] * 20)}]"})
    write(tmp_path, d5="steps: 1")
    problems = said(assembled(tmp_path, "include: d0.yaml"))
    assert f"more than {INCLUDES_MAX} files are included: include fewer" in problems[0]


def test_one_file_may_be_included_on_two_ways(tmp_path: Path) -> None:
    """That is no circle."""
    write(tmp_path, base="steps: 1", a="include: base.yaml", b="include: base.yaml")
    document = assembled(tmp_path, "include: [a.yaml, b.yaml]")
    assert ({"steps": 1}, []) == (document.value, said(document))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "include: comon.yaml",
            ["line 1: include='comon.yaml': there is no such file: did you mean 'common.yaml'?"],
        ),
        ("include: .", ["line 1: include='.': this is a folder: name a file in it"]),
        ('include: "a\\0b"', ["line 1: include='a\\x00b': cannot be read: embedded null byte"]),
        (
            "include:\n- 5\n- ''\n-\n",
            [
                "line 2: include is the number 5: write the name of a file: common.yaml",
                "line 3: include is empty: write the name of a file: common.yaml",
                "line 4: include is empty (null): write the name of a file: common.yaml",
            ],
        ),
        ("include: {a: b}", ["line 1: include is a mapping: write the name of a file: common.yaml"]),
    ],
)
def test_a_wrong_include_names_the_fix(tmp_path: Path, text: str, problems: list[str]) -> None:
    """Every wrong include is said at once, with its line."""
    write(tmp_path, common="steps: 1")
    assert [f"sweep.yaml, {problem}" for problem in problems] == said(assembled(tmp_path, text))


def test_an_included_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    """Its own name stands in the message, with what YAML says of it."""
    write(tmp_path, items="- a\n- b", empty="# nothing\n", broken="a: [1\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    expected = "items.yaml, line 1: the file is a list: an included file is a mapping: 'steps: 25'"
    assert expected == refused(tmp_path, "include: items.yaml")
    assert "empty.yaml: the file is empty: give it a key" == refused(tmp_path, "include: empty.yaml")
    assert refused(tmp_path, "include: broken.yaml").startswith("broken.yaml, line 1: not YAML (")
    byte = "byte 0xe9 at offset 3 is not UTF-8: save the file as UTF-8"
    assert f"latin.yaml, line 1: {byte}" == refused(tmp_path, "include: latin.yaml")


def test_text_from_elsewhere_includes_nothing() -> None:
    """Without a file there is no folder, and none is guessed."""
    document = assemble(read_yaml("include: a.yaml", filename="sweep.yaml"), path=None)
    text = "include='a.yaml': this sweep is no file, so none stands beside it: write the keys out"
    assert [f"sweep.yaml, line 1: {text}"] == said(document)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("prompt: a", ["steps=20", "prompt=a cat"], {"prompt": "a cat", "steps": 20}),
        ("prompt: a", ["seed.count=4", "seed.start=2"], {"prompt": "a", "seed": {"count": 4, "start": 2}}),
        ("seed:", ["seed.count=4"], {"seed": {"count": 4}}),
        (
            "zip: [{prompt: [a], seed: [1]}]",
            ["zip.0.prompt=[b, c]"],
            {"zip": [{"prompt": ["b", "c"], "seed": [1]}]},
        ),
        ("steps: [1, 2, 3]", ["steps.1=9"], {"steps": [1, 9, 3]}),
        ("a: {b: {c: 1, d: 2}}", ["a.b.c=null"], {"a": {"b": {"c": None, "d": 2}}}),
        ("a: 1", ["a=2", "a=3"], {"a": 3}),
        ("a: 1", ["where=seed == 5"], {"a": 1, "where": "seed == 5"}),
        ("a: &x {b: 1}\nc: *x", ["c.b=2"], {"a": {"b": 1}, "c": {"b": 2}}),
        ("a: &x [1, 2]\nc: *x", ["a.0=7"], {"a": [7, 2], "c": [1, 2]}),
        ("a: 1", [" a =2"], {"a": 2}),
    ],
)
def test_settings_are_made_last(
    tmp_path: Path, text: str, options: list[str], expected: dict[str, Any]
) -> None:
    """A path leads to the value, missing mappings are made, and an alias changes in the place that is named."""
    document = assembled(tmp_path, text, *options)
    assert (expected, []) == (document.value, said(document))


_KEYS = st.sampled_from(["a", "b", "c"])
_TREES = st.recursive(
    st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(_KEYS, inner, max_size=3)
)


@settings(deadline=None, max_examples=60)
@given(
    tree=st.dictionaries(_KEYS, _TREES, min_size=1),
    path=st.lists(_KEYS, min_size=1, max_size=3),
    value=_TREES,
)
def test_a_setting_changes_one_place_and_nothing_else(
    tree: dict[str, Any], path: list[str], value: Any
) -> None:
    """Either the value stands where the path leads and all else is as before, or the path is refused."""
    document = read_yaml(yaml.safe_dump(tree), filename="sweep.yaml")
    before = yaml.safe_dump(document.value)
    option = f"{'.'.join(path)}={yaml.safe_dump(value, default_flow_style=True)}"
    try:
        found = assemble(document, path=None, settings=[option]).value
    except SweepError:
        inner: Any = tree
        steps = [inner := inner.get(key, {}) for key in path[:-1] if isinstance(inner, dict)]
        assert any(not isinstance(step, dict) for step in steps)
        return
    assert before == yaml.safe_dump(document.value)
    expected: Any = yaml.safe_load(yaml.safe_dump(tree))
    inner = expected
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    assert expected == found


def test_a_settings_problem_names_the_option(tmp_path: Path) -> None:
    """There is no line to name; the values in the setting know where they stand too."""
    document = assembled(tmp_path, "prompt: a", "seed={start: 010, count: [1]}")
    option = "--set seed={start: 010, count: [1]}"
    problem = "start: 010 is no plain decimal number (YAML makes 8 of it): write one, or quote text: '010'"
    assert [f"{option}: {problem}"] == said(document)
    place = document.located.children["seed"].children["count"].children[0]
    assert f"{option}: wrong" == place.problem("wrong").in_words("sweep.yaml")
    made = assembled(tmp_path, "prompt: a", "vars.animal=cat").located.children["vars"]
    assert "--set vars.animal=cat: wrong" == made.problem("wrong").in_words("sweep.yaml")


@pytest.mark.parametrize(
    ("text", "option", "problem"),
    [
        ("a: 1", "steps", "write key=value, such as --set steps=20 or --set seed.count=8"),
        ("a: 1", "=5", "write key=value, such as --set steps=20 or --set seed.count=8"),
        ("a: 1", "a..b=5", "write key=value, such as --set steps=20 or --set seed.count=8"),
        ("a: 1", ".".join("a" * 20) + "=5", "write key=value, such as --set steps=20 or --set seed.count=8"),
        ("a: 1", "a=", "nothing there: write a value, or null"),
        ("a: 1", "a=# x", "the file is empty: give it a key"),
        ("a: 1", "include=b.yaml", "what is included stands in a file: write 'include: common.yaml' there"),
        ("a: text", "a.b=1", "a is text and has no 'b': set it whole: --set 'a={b: ...}'"),
        ("a: [1, 2]", "a.2=1", "a is a list of 2 and has no '2': use a position of 0 to 1"),
        ("a: [1]", "a.x=1", "a is a list of 1 and has no 'x': use a position of 0"),
        ("a: []", "a.0=1", "a is a list of 0 and has no '0': set the whole list"),
        ("a: 1", "zip.0.b=1", "zip is not there, so it has no item 0: set the whole list: --set 'zip=[...]'"),
    ],
)
def test_a_wrong_setting_names_the_fix(tmp_path: Path, text: str, option: str, problem: str) -> None:
    """A setting that leads nowhere makes nothing."""
    shown = f"--set {option}"
    assert f"{shown}: {problem}" == refused(tmp_path, text, option)


def test_a_setting_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    """The message has no line of a file, and a long value is cut."""
    assert refused(tmp_path, "a: 1", "a=[1").startswith("--set a=[1: not YAML (")
    long = refused(tmp_path, "a: 1", f"a=[{'x' * 100}")
    assert long.startswith(f"--set a=[{'x' * 56}…: not YAML (")


def test_a_bomb_in_a_setting_is_walked_once(tmp_path: Path) -> None:
    """Aliases of aliases in an option cost what their text costs."""
    doubled = "a: [&a0 [1], " + ", ".join(f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 12)) + "]"
    document = assembled(tmp_path, "b: 1", f"x={{{doubled}}}")
    assert 12 == len(document.value["x"]["a"])


def test_what_is_no_mapping_is_left_for_its_reader(tmp_path: Path) -> None:
    """The sweep's own reader has the words for a file that is a list."""
    document = read_yaml("- a", filename="sweep.yaml")
    assert document is assemble(document, path=tmp_path / "sweep.yaml", settings=["a=1"])
