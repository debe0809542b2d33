"""A template says what its grammar says, and what dynamicprompts reads in it; anything else is refused with a fix."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.document import read_yaml
from producer.language.templates import (
    SPECIAL,
    TEMPLATE_DEPTH_MAX,
    TemplateInvalid,
    TemplateParser,
    WordReplacer,
    match_wildcards,
    parse_literal,
    template_of,
    used_wildcards,
)
from producer.language.wildcards import Wildcard, read_wildcards, wildcards_from_value
from shared.job import PROMPT_BYTES_MAX
from shared.texts import Slot, Text, TextTemplate, fill, make_text, templates_to_json

PAGE = Path(__file__).parents[2] / "docs" / "templates.md"
COLLECTION = Path(__file__).parents[3] / "shared" / "data" / "wildcards"


def wildcards(**lines: Sequence[str]) -> dict[str, Wildcard]:
    """Return wildcards as a folder would have them; two underscores in a name stand for a slash."""
    return {
        name.replace("__", "/"): Wildcard(
            lines=tuple(found), numbers=tuple(range(1, len(found) + 1)), file=f"{name.replace('__', '/')}.txt"
        )
        for name, found in lines.items()
    }


ANIMALS = wildcards(
    animals__cats=["tabby", "manx"],
    animals__dogs=["pug", "3::collie"],
    colors=["red", "{dark|pale} blue"],
    scene=["a __colors__ house"],
    both=["__animals/cats__", "__animals/dogs__"],
)


def parse_template(
    text: str,
    *,
    wildcards: Mapping[str, Wildcard] | None = None,
    expand: bool,
    slots: Collection[str] = (),
) -> TextTemplate:
    """Return the template that a text says; without `expand` it is literal but for the names in `slots`."""
    if expand:
        return TemplateParser(wildcards=wildcards or {}, slots=slots).parse(text)
    return template_of(parse_literal(text, slots=slots))


def all_texts(text: str, known: Mapping[str, Wildcard] = ANIMALS, **options: Any) -> list[Text]:
    """Return every text of a template."""
    template = parse_template(text, wildcards=known, expand=True, **options)
    return [template.combination(number) for number in range(template.count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", ["a cat"]),
        ("{cat|dog} on {a bed|grass}", ["cat on a bed", "cat on grass", "dog on a bed", "dog on grass"]),
        ("{a|{b|c}}", ["a", "b", "c"]),
        ("{very |}big", ["very big", "big"]),
        ("{ a | b }", ["a ", "b "]),
        ("{3::a|0.5::b|.5::c}", ["a", "b", "c"]),
        ("{a|a|b}", ["a", "b"]),
        ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        ("{2$$ and $$a|b}", ["a and b", "b and a"]),
        ("{2$$$$a|b}", ["ab", "ba"]),
        ("{2$$|$$a|b}", ["a|b", "b|a"]),
        ("{0-1$$a|b}", ["", "a", "b"]),
        ("{-1$$a|b}", ["a", "b"]),
        ("{1-$$a|b}", ["a", "b", "a,b", "b,a"]),
        ("{2$$a|{b|c}}", ["a,b", "a,c", "b,a", "c,a"]),
        ("__colors__", ["red", "dark blue", "pale blue"]),
        ("__ colors __!", ["red!", "dark blue!", "pale blue!"]),
        ("__scene__", ["a red house", "a dark blue house", "a pale blue house"]),
        ("__animals/*__", ["tabby", "manx", "pug", "collie"]),
        ("__*ts__", ["tabby", "manx"]),
        ("__cats__", ["tabby", "manx"]),
        ("{2$$__cats__}", ["tabby,manx", "manx,tabby"]),
        ("{__cats__|{animal}}", ["tabby", "manx", (Slot("animal"),)]),
        ("a {animal}.", [("a ", Slot("animal"), ".")]),
        (r"\{a\|b\} \__cats\__ \( \\ C\_\_", [r"{a|b} __cats__ \( \ C__"]),
        (r"{3\::a|\~b}", ["3::a", "~b"]),
        ("a|b, $5, #tag, snake_case, 3::a, a\nb", ["a|b, $5, #tag, snake_case, 3::a, a\nb"]),
    ],
)
def test_the_grammar(text: str, expected: list[Text]) -> None:
    """Each line of the grammar's page, as the texts it gives, in their order."""
    assert expected == all_texts(text, slots={"animal"})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a {b|c", "'a {b|c', character 3: { is never closed: write }, or \\{ for text"),
        ("a }", "'a }', character 3: } closes nothing: remove it, or write \\}"),
        ("{}", "one option is no choice: separate options by |, or write \\{ and \\} for text"),
        ("{{masterpiece}}", "nothing is called 'masterpiece': add it to the sweep's 'vars'"),
        ("{two words}", "one option is no choice"),
        ("{anmal}", "nothing is called 'anmal': did you mean {animal}?; or write \\{anmal\\} for the text"),
        ("{prompt}, 35mm", "{prompt} is for styles: remove it, or write \\{prompt\\}"),
        ("${x=1}", "${...} is not part of a template: variables are the sweep's 'vars', filled in by {name}"),
        ("{~a|b}", "character 2: ~ says how to choose: the sweep's 'expand' says how to choose; remove it"),
        ("{0::a|b}", "the weight is 0: remove the option, or write 0\\:: for text"),
        ("{0.0000000000001::a|b}", "the weight has 15 characters: use at most 12"),
        ("{3$$a|b}", "3 of 2 different options: pick at most 2"),
        ("{2$$a|a}", "2 of 1 different options: pick at most 1"),
        ("{3-2$$a|b|c}", "3-2: write the smaller number first"),
        ("{17$$" + "|".join("abcdefghijklmnopqrst") + "}", "17 picks: use at most 16"),
        ("____", "__ opens a wildcard that nothing names or closes: write __name__, or \\__ for text"),
        ("a __ b", "character 3: __ opens a wildcard that nothing names or closes"),
        ("__animal/cats__", "no wildcard is called 'animal/cats': did you mean 'animals/cats'"),
        ("__x__", "no wildcard is called 'x': there are 'animals/cats', 'animals/dogs', 'both', 'colors' or"),
    ],
)
def test_what_is_refused(text: str, error: str) -> None:
    """What a template may not say is refused, with the character and the fix."""
    with pytest.raises(TemplateInvalid) as caught:
        all_texts(text, slots={"animal"})
    assert error in str(caught.value)
    assert "" != caught.value.fix
    assert caught.value.place is None


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("{a|b}", None),
        ("{2::a|2::b}", None),
        ("{3::a|b}", (3, 1)),
        ("{0.3::a|b|.5::c}", (3, 10, 5)),
        ("{a|b|a}", (2, 1)),
        ("{3::a|b|0.5::a}", (7, 2)),
        ("__dogs__", (1, 3)),
    ],
)
def test_weights_are_whole_numbers(text: str, weights: tuple[int, ...] | None) -> None:
    """Weights are exact proportions, so that every machine draws alike; those of equal options are added."""
    (choice,) = parse_template(text, wildcards=ANIMALS, expand=True).choices
    assert weights == choice.options.weights


def test_the_page_shows_what_its_templates_give() -> None:
    """Every example of the grammar's page is true."""
    text = PAGE.read_text()
    sweep = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert sweep is not None
    document = read_yaml(sweep[1], filename="templates.md")
    known, problems = wildcards_from_value(
        document.value["wildcards"], located=document.located.children["wildcards"], filename="templates.md"
    )
    assert [] == problems
    examples = re.findall(r"^(.+?) +=> (.+)$", text, re.MULTILINE)
    assert 20 < len(examples)
    for template, texts in examples:
        found = [fill(text, {"place": "{place}"}) for text in all_texts(template, known, slots={"place"})]
        assert texts.split(" / ") == found, template


def test_an_error_in_a_wildcard_names_its_file_and_line() -> None:
    """A thousand lines are not searched by hand."""
    known = wildcards(places=["a beach", "a {beach"], scene=["__places__"])
    with pytest.raises(TemplateInvalid) as caught:
        all_texts("on __scene__", known)
    expected = "places.txt, line 2: 'a {beach', character 3: { is never closed: write }, or \\{ for text"
    assert expected == str(caught.value)
    assert (3 - 1, "places.txt, line 2") == (caught.value.position, caught.value.place)


@pytest.mark.parametrize(
    ("known", "cycle"),
    [
        (wildcards(a=["x", "__a__"]), "__a__ -> __a__"),
        (wildcards(a=["__b__"], b=["{x|__c__}"], c=["__b__"]), "__b__ -> __c__ -> __b__"),
        (wildcards(a=["__f/*__"], f__one=["1"], f__all=["__f/*__"]), "__f/all__ -> __f/all__"),
    ],
)
def test_a_wildcard_that_names_itself_is_refused(known: dict[str, Wildcard], cycle: str) -> None:
    """The circle is shown, however it closes."""
    with pytest.raises(TemplateInvalid, match=re.escape(f"names itself: {cycle}: break the circle")):
        all_texts("__a__", known)


def test_a_name_without_its_folders_is_found_where_it_is_clear() -> None:
    """Collections name their own files from their own root, wherever that is put."""
    known = wildcards(x__cats=["a"], y__cats=["b"], y__z__dogs=["c"])
    assert ["c"] == all_texts("__z/dogs__", known)
    with pytest.raises(
        TemplateInvalid, match=r"'cats' may be 'x/cats' or 'y/cats': write one of them, or __\*cats__"
    ):
        all_texts("__cats__", known)
    assert ["a", "b"] == all_texts("__*cats__", known)
    assert [] == match_wildcards("ats", known)


def test_a_bad_wildcard_hurts_only_where_it_is_used() -> None:
    """An empty or unreadable file in a collection stops nobody who does not name it."""
    known = {
        **wildcards(ok=["a"], empty=[]),
        "latin": Wildcard(lines=(), numbers=(), file="latin.txt", problem="latin.txt, line 3: save as UTF-8"),
    }
    assert ["a"] == all_texts("__ok__", known)
    assert ["a"] == all_texts("__*k__", known)
    with pytest.raises(
        TemplateInvalid, match=r"the wildcard 'empty' is empty: write a line into 'empty.txt'"
    ):
        all_texts("__empty__", known)
    with pytest.raises(TemplateInvalid, match=r"latin.txt, line 3: save as UTF-8"):
        all_texts("__latin__", known)


def test_a_line_no_prompt_may_hold_is_refused() -> None:
    """NUL in a wildcard would otherwise be found by a worker, at night."""
    with pytest.raises(
        TemplateInvalid, match=re.escape(r"a.txt, line 1: 'x\x00', character 2: character U+0000")
    ):
        all_texts("__a__", wildcards(a=["x\0"]))


def doubling(levels: int, leaf: str) -> dict[str, Wildcard]:
    """Return wildcards each of which names the next one twice."""
    steps = {f"w{level}": [f"__w{level + 1}____w{level + 1}__"] for level in range(levels)}
    return wildcards(**steps, **{f"w{levels}": [leaf]})


@pytest.mark.parametrize(
    ("known", "error"),
    [
        (doubling(20, "abc"), f"use at most {PROMPT_BYTES_MAX:,}"),
        (doubling(20, "{a|b}"), "more than 10^1233 combinations: wildcards within wildcards multiply"),
        (doubling(20, "{|a}"), "more than 10^1233 combinations: wildcards within wildcards multiply"),
        (doubling(TEMPLATE_DEPTH_MAX + 1, "a"), f"nested more than {TEMPLATE_DEPTH_MAX} deep: flatten them"),
    ],
)
def test_a_bomb_of_wildcards_is_refused(known: dict[str, Wildcard], error: str) -> None:
    """A few short lines cannot stand for more than a machine can hold, and are refused before it tries."""
    with pytest.raises(TemplateInvalid, match=re.escape(error)):
        all_texts("__w0__", known)


def test_braces_are_nested_only_so_deep() -> None:
    """Deep nesting is refused, not a crash; so is nesting that wildcards parsed before add up to."""
    deep = "{a|" * 500 + "b" + "}" * 500
    with pytest.raises(TemplateInvalid, match=f"nested more than {TEMPLATE_DEPTH_MAX} deep"):
        all_texts(deep)
    most = "{a|" * (TEMPLATE_DEPTH_MAX - 2) + "b" + "}" * (TEMPLATE_DEPTH_MAX - 2)
    parser = TemplateParser(wildcards=wildcards(a=[most]))
    assert TEMPLATE_DEPTH_MAX - 1 == parser.parse("{__a__|c}").count - 1
    with pytest.raises(TemplateInvalid, match=f"nested more than {TEMPLATE_DEPTH_MAX} deep"):
        parser.parse("{a|{b|{c|{d|__a__}}}}")


@given(st.text())
def test_escaped_text_is_the_text(text: str) -> None:
    """Anything can be said: an escaped text is a template of that text alone."""
    escaped = re.sub(r"[\\{}|_#$]", r"\\\g<0>", text)
    assert text == parse_template(escaped, expand=True).combination(0)


@given(st.text(), st.sampled_from([[], ["a"]]))
def test_without_expand_a_text_is_literal(text: str, slots: list[str]) -> None:
    """Prompts from other people's files hold braces and underscores; they are not touched unless that is asked for."""
    template = parse_template(text, expand=False, slots=slots)
    assert not template.has_choices
    assert text == fill(template.combination(0), {"a": "{a}"})


def test_without_expand_known_names_are_holes() -> None:
    """`{name}` of a variable needs no `expand`; other braces stay as they are."""
    assert ("a ", Slot("b"), " {c} {b|c} __w__") == parse_literal("a {b} {c} {b|c} __w__", slots=["b"])


@given(st.text(st.sampled_from(SPECIAL + "ab/* 12.-\n"), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_refused_at_a_character_of_it(text: str) -> None:
    """No text crashes the parser, and every refusal points into the text."""
    try:
        template = parse_template(text, wildcards=wildcards(a=["x"], b=["{y|z}"]), expand=True, slots=["a"])
    except TemplateInvalid as error:
        refused = error
    else:
        assert template == TextTemplate.from_json(json.loads(json.dumps(template.to_json())))
        template.combination(template.count - 1)
        template.draw(0, 0)
        return
    assert 0 <= refused.position <= len(refused.text)


def test_a_parsed_wildcard_is_shared() -> None:
    """A thousand prompts with one wildcard hold its lines once, in memory and as JSON."""
    lines = [f"line {number}" for number in range(1000)]
    parser = TemplateParser(wildcards=wildcards(w=lines))
    found = [parser.parse(f"{number} __w__ {{2$$__w__}}") for number in range(1000)]
    assert 1 == len({id(choice.options) for template in found for choice in template.choices})
    assert 1 == json.dumps(templates_to_json(found)).count('"line 17"')


def test_used_wildcards_are_those_named_and_those_they_name() -> None:
    """What a sweep must keep of a collection is what its templates can come to, and no more."""
    known = {**ANIMALS, **wildcards(unused=["x"], loop=["__loop__"])}
    assert ["colors", "scene"] == list(used_wildcards(["{a|__scene__}", r"\__unused__"], known))
    assert ["animals/cats", "animals/dogs", "both"] == list(used_wildcards(["__both__", "__none__"], known))
    assert ["loop"] == list(used_wildcards(["__loop__"], known))


def test_words_are_replaced_all_at_once() -> None:
    """Replacements neither see what another one wrote, nor depend on their order; the longest word wins."""
    text = WordReplacer(["cat", "red cat", "dog"]).text("a cat, a red cat and a dog")
    assert ("a ", Slot("=cat"), ", a ", Slot("=red cat"), " and a ", Slot("=dog")) == text
    assert "a dog, a fox and a cat" == fill(text, {"=cat": "dog", "=dog": "cat", "=red cat": "fox"})
    assert (Slot("=cats"), " ", Slot("=cat")) == WordReplacer(["cat", "cats"]).text("cats cat")
    assert "a cat" == WordReplacer([]).text("a cat")
    with pytest.raises(ValueError, match="the word to replace is empty"):
        WordReplacer([""]).text("a cat")


def test_words_are_replaced_within_choices_and_beside_holes() -> None:
    """A word is found in every option and every line of a wildcard; holes stay, options stay shared."""
    parser = TemplateParser(wildcards=wildcards(w=["a cat", "a dog"]), slots=["cat"])
    replacer = WordReplacer(["cat"])
    first, second = (replacer.template(parser.parse(text)) for text in ("{cat} cat {x|cat}: __w__", "__w__"))
    expected = (Slot("cat"), " ", Slot("=cat"), " x: a ", Slot("=cat"))
    assert expected == first.combination(0)
    assert {"cat", "=cat"} == first.slots
    assert first.choices[1].options is second.choices[0].options
    assert ("a ", Slot("=cat")) == replacer.text("a cat")


@given(
    st.text(st.sampled_from("abc "), max_size=20),
    st.sets(st.text(st.sampled_from("abc"), min_size=1), max_size=4),
)
def test_replacing_words_by_themselves_changes_nothing(text: str, found: set[str]) -> None:
    """Cutting a text at its words loses none of it."""
    replaced = WordReplacer(found).text(text)
    assert text == fill(replaced, {f"={word}": word for word in found})
    if isinstance(replaced, tuple):
        assert not any(word in piece for piece in replaced if isinstance(piece, str) for word in found)


def expand_with_dynamicprompts(text: str, folder: Path | None, count: int) -> list[str]:
    """Return every text that dynamicprompts gives for a template."""
    generators = pytest.importorskip("dynamicprompts.generators")
    manager = pytest.importorskip("dynamicprompts.wildcards").WildcardManager(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks pyparsing for names that pyparsing would like to forget
        # One more than there are, so that a text too many is seen.
        found = generators.CombinatorialPromptGenerator(manager).generate(text, count + 1)
        return [str(text) for text in found]


@pytest.mark.parametrize(
    "text",
    [
        "a cat",
        "a {cat|dog} on {a bed|grass}",
        "{a|{b|c}} {d|e}",
        "{ a | b } c",
        "{very |}big",
        "{a||b}",
        "{3::a|0.5::b}",
        "{2$$a|b|c}",
        "{2$$a|{b|c}|d}",
        "{2$$ and $$a|b|c}",
        "{2$$|$$a|b}",
        "{1-2$$a|b|c}",
        "{-2$$a|b|c}",
        "{2-$$a|b|c}",
        "{0-1$$a|b}",
        "{2$${1-2$$; $$x|y}|z}",
        "a|b",
        "  edge  spaces ",
        "(a:1.2), [b], <lora:c:1>",
        "{a|b}{c|d}{e|f}",
        "é {ü|漢字} 🙂",
    ],
)
def test_dynamicprompts_reads_the_same_choices_in_the_same_order(text: str) -> None:
    """A template written for the Dynamic Prompts extension means here what it means there."""
    expected = all_texts(text)
    assert expected == expand_with_dynamicprompts(text, None, len(expected))


@pytest.mark.parametrize(
    "text",
    [
        "__cats__",
        "a __animals/dogs__!",
        "__animals/*__",
        "{2$$__colors__}",
        "{__cats__|x} {y|z}",
        "__scene__",
        "__pets__",
    ],
)
def test_dynamicprompts_reads_the_same_wildcards(tmp_path: Path, text: str) -> None:
    """A folder of wildcards means here what it means there, but for the order: there, lines are sorted."""
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/cats.txt").write_bytes(b"\xef\xbb\xbftabby\r\n# none\r\n\r\n  manx")
    (tmp_path / "animals/dogs.txt").write_text("pug\ncollie\npug\n")
    (tmp_path / "colors.txt").write_text("red\n{dark|pale} blue\n__cats__ grey\n")
    (tmp_path / "scene.txt").write_text("a __colors__ house\n")
    (tmp_path / "more.yaml").write_text("pets:\n  - cat\n  - {text: eel, weight: 2}\n")
    expected = all_texts(text, read_wildcards(tmp_path).found)
    if "pets" in text:  # there, a weight is a line said so many times
        expected += ["eel"]
    found = expand_with_dynamicprompts(text, tmp_path, len(expected))
    assert sorted(map(str, expected)) == sorted(
        one.replace("\ufeff", "") for one in found
    )  # it keeps the mark


#: What people write for Dynamic Prompts, with what this grammar lacks and what nobody reads.
_FORMS = [
    "%{in the style of ...$$a|b}",
    "%{in the style of ...$${a|b}}",
    "%{...$$x}",
    "%{a ... b ...$$c|d} e",
    "{%{x ...$$a|b}|c}",
    "{2$$, $$a|b}",
    "{1-3$$a|b|c}",
    "{2$$ and $$__cats__}",
    "{0.5::a|b}",
    "{~a|b}",
    "{!a}",
    "{!a|b}",
    "{@a|b}",
    "{~2$$a|b}",
    "{ ~a|b}",
    "__~cats__",
    "__@cats__",
    "__!cats__",
    "__~{a|b}__",
    "__{cats|dogs}__",
    "__cats(x=1)__",
    "__[c]ats__",
    "${x={a|b}} ${x}",
    "${x=!{a|b}} ${x}",
    "${x}",
    "${x:a}",
    "__ca*__",
    "__pets/dogs__",
    "__dogs__",
    "__pets/*__",
    "__cat__s__",
    "___cats___",
    "__cats",
    "cats__",
    "a # comment",
    "# comment",
    "a {b|c}\n# d\ne",
    "{a # b|c}",
    "{a|{b|c}} {d|}",
    "{{a|b}|c}",
    "{{a|b}",
    "{a|b}}",
    "{a",
    "a}",
    "{}",
    "{a}",
    "{1::a}",
    "{$$a|b}",
    "{$$, $$a|b}",
    "{1.5$$a|b}",
    "{ 2 $$a|b}",
    "{2 $$a|b}",
    "{1 - 2$$a|b}",
    "{-$$a|b}",
    "{a$$b|c}",
    "{2$${a|b}$$c|d}",
    "{3$$a|b}",
    "{2$$a|b|c}",
]


@pytest.mark.parametrize("text", _FORMS)
def test_a_form_of_dynamicprompts_is_equal_or_refused(tmp_path: Path, text: str) -> None:
    """No form of the other program is silently taken to the letter: equal texts, or an error with place and fix."""
    (tmp_path / "pets").mkdir()
    (tmp_path / "cats.txt").write_text("manx\ntabby\n")
    (tmp_path / "pets/dogs.txt").write_text("collie\npug\n")
    parser = TemplateParser(wildcards=read_wildcards(tmp_path).found)
    refused: TemplateInvalid | None = None
    try:
        template = parser.parse(text)
    except TemplateInvalid as error:
        refused = error
    if refused is not None:
        assert ": " in refused.fix
        assert f"character {refused.position + 1}" in str(refused)
        return
    expected = [str(template.combination(number)) for number in range(template.count)]
    assert expected == expand_with_dynamicprompts(text, tmp_path, len(expected))


@pytest.mark.parametrize(
    ("text", "position", "fix"),
    [
        (
            "a %{in the style of ...$$a|b}",
            2,
            "%{...$$...} (wrapping) is not part of a template: write the text before",
        ),
        ("{a$$b|c}", 2, "$$ stands here without a number of picks: write the number first, as in {2$$a|b}"),
        ("a {b|c} # d", 8, "# begins a comment in Dynamic Prompts: remove it, or write \\# for the sign"),
        ("__~cats__", 0, "~ says how to choose: the sweep's 'expand' says how to choose: write __cats__"),
    ],
)
def test_what_this_grammar_lacks_is_named(text: str, position: int, fix: str) -> None:
    """The place is the sign that begins it, and the fix is a way to say the same."""
    with pytest.raises(TemplateInvalid) as caught:
        parse_template(text, expand=True)
    assert position == caught.value.position
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(
    "text", ["50%{ off| on}", "%{a|b}", r"a \# b", r"{a\$\$b|c}", "a #1 {b|c}", "C# {b|c}", "a $$ b"]
)
def test_signs_that_mean_nothing_there_either_are_text(text: str) -> None:
    """A per cent sign before a choice, a hash within a word, and escaped signs stay what they were."""
    assert parse_template(text, expand=True).count in (1, 2)


@pytest.mark.skipif(not COLLECTION.is_dir(), reason="the collection of wildcards is not here")
def test_dynamicprompts_reads_the_same_in_a_large_collection() -> None:
    """Wildcards that people use, nested ones above all, give the same texts here and there."""
    known = read_wildcards(COLLECTION).found
    parser = TemplateParser(wildcards=known)
    for name in (name for name, wildcard in known.items() if 1 <= len(wildcard.lines) <= 100):
        template = parser.parse(f"__{name}__")
        expected = {str(template.combination(number)) for number in range(template.count)}
        found = expand_with_dynamicprompts(f"__{name}__", COLLECTION, template.count)
        # It writes tabs as spaces, and keeps some at the end of a line.
        assert {" ".join(one.split()) for one in expected} == {" ".join(one.split()) for one in found}, name


@pytest.mark.skipif(not COLLECTION.is_dir(), reason="the collection of wildcards is not here")
def test_every_wildcard_of_a_large_collection_can_be_used() -> None:
    """Nothing in a real collection is refused, but the file in it that is empty."""
    parser = TemplateParser(wildcards=read_wildcards(COLLECTION).found)
    refused = {}
    for name in read_wildcards(COLLECTION).found:
        try:
            parser.parse(f"__{name}__")
        except TemplateInvalid as error:
            refused[name] = error.fix
    assert ["jumbo/creatures/empty_misc"] == list(refused)


def test_texts_are_canonical() -> None:
    """Escapes and names leave no empty or split strings behind, so that equal templates are equal."""
    assert ("{a}",) == parse_template(r"\{a\}", expand=True).parts
    assert () == parse_template("", expand=True).parts
    assert (Slot("a"), "b") == parse_template("{a}b", expand=True, slots=["a"]).parts
    assert make_text([Slot("a"), "b"]) == parse_template("{a}b", expand=True, slots=["a"]).combination(0)
