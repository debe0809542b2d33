"""A template's texts are read off their numbers: each once, in the order of the choices, and always the same."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.texts import (
    Options,
    Slot,
    Text,
    TextChoice,
    TextTemplate,
    fill,
    join_texts,
    make_text,
    template_of,
    templates_from_json,
    templates_to_json,
    text_from_json,
    text_to_json,
)

#: Drawn once, and for all time.
DRAWN = ["h z,x", "d z", "c x,z,y", "h z,x,y", "e z,y", "a z"]

words = st.text(st.sampled_from("ab é,"), max_size=3)
slots = st.sampled_from(["animal", "=cat", "prompt"]).map(Slot)
texts = st.lists(words | slots, max_size=4).map(make_text)


@st.composite
def options(draw: st.DrawFn, item: st.SearchStrategy[str | TextTemplate]) -> Options:
    """Return options, with weights or without."""
    items = draw(st.lists(item, min_size=1, max_size=3, unique=True))
    weights = draw(st.none() | st.lists(st.integers(1, 9), min_size=len(items), max_size=len(items)))
    return Options(items=tuple(items), weights=None if weights is None else tuple(weights))


@st.composite
def choices(draw: st.DrawFn, item: st.SearchStrategy[str | TextTemplate]) -> TextChoice:
    """Return a choice of options, with any bounds that fit."""
    found = draw(options(item))
    low = draw(st.integers(0, len(found)))
    high = draw(st.integers(low, len(found)))
    return TextChoice(options=found, low=low, high=high, separator=draw(words))


def templates_over(item: st.SearchStrategy[str | TextTemplate]) -> st.SearchStrategy[TextTemplate]:
    """Return templates whose options are of a kind."""
    return st.lists(words | slots | choices(item), max_size=3).map(lambda parts: TextTemplate(tuple(parts)))


templates = templates_over(words | templates_over(words))


def enumerate_texts(template: str | TextTemplate) -> Iterator[tuple[str | Slot, ...]]:
    """Yield every text of a template the slow way, by its definition."""
    if isinstance(template, str):
        yield (template,)
        return
    ways = [
        list(enumerate_choice(part)) if isinstance(part, TextChoice) else [(part,)] for part in template.parts
    ]
    for combination in itertools.product(*ways):
        yield tuple(itertools.chain.from_iterable(combination))


def enumerate_choice(choice: TextChoice) -> Iterator[tuple[str | Slot, ...]]:
    """Yield every text of a choice."""
    for count in range(choice.low, choice.high + 1):
        for picked in itertools.permutations(choice.options.items, count):
            for ways in itertools.product(*(list(enumerate_texts(item)) for item in picked)):
                pieces: list[str | Slot] = []
                for number, way in enumerate(ways):
                    pieces += (choice.separator, *way) if number else way
                yield tuple(pieces)


@given(templates.filter(lambda template: template.count <= 2000))
@settings(max_examples=60, deadline=None)
def test_every_number_has_its_text_and_all_together_are_the_product(template: TextTemplate) -> None:
    """Reading texts off their numbers gives what enumerating every choice gives, in the same order."""
    expected = [make_text(pieces) for pieces in enumerate_texts(template)]
    assert len(expected) == template.count
    assert expected == [template.combination(number) for number in range(template.count)]


@given(templates, st.integers(), st.integers())
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_is_one_of_the_texts(template: TextTemplate, seed: int, number: int) -> None:
    """A draw is a combination, holes and picks included, and the same when it is drawn again."""
    drawn = template.draw(seed, number)
    assert drawn == TextTemplate.from_json(template.to_json()).draw(seed, number)
    if template.count <= 500:
        assert drawn in {make_text(pieces) for pieces in enumerate_texts(template)}


@given(st.lists(templates, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_table_of_templates_survives_json(found: list[TextTemplate]) -> None:
    """What is written to a plan is what is read from it, and equal templates are written the same way."""
    table = json.loads(json.dumps(templates_to_json(found)))
    assert found == templates_from_json(table)
    assert table == templates_to_json(templates_from_json(table))


def test_draws_are_the_same_on_every_machine() -> None:
    """A plan's random texts never change: these were drawn once and stand for all time."""
    template = TextTemplate(
        (
            TextChoice(options=Options(items=tuple("abcdefgh"))),
            " ",
            TextChoice(options=Options(items=("x", "y", "z"), weights=(1, 2, 3)), low=1, high=3),
        )
    )
    assert DRAWN == [template.draw(7, number) for number in range(6)]
    assert template.draw(7, 0) != template.draw(8, 0)


def test_options_are_drawn_by_their_weights_and_picks_are_distinct() -> None:
    """A weight of three is drawn three times as often, and what has been picked is not picked again."""
    heavy = Options(items=("a", "b", "c"), weights=(6, 3, 1))
    single = TextTemplate((TextChoice(options=heavy),))
    counts = Counter(single.draw(0, number) for number in range(2000))
    assert abs(counts["a"] - 1200) < 100
    assert abs(counts["b"] - 600) < 100
    pairs = TextTemplate((TextChoice(options=heavy, low=2, high=2, separator=""),))
    counts = Counter(pairs.draw(0, number) for number in range(2000))
    assert {"ab", "ba", "ac", "ca", "bc", "cb"} == set(counts)
    assert abs(counts["ab"] - 2000 * 0.6 * 0.75) < 100


def test_more_combinations_than_64_bits_hold_are_read_at_once() -> None:
    """A template is as large as its text: the last of 10^60 combinations costs what the first does."""
    digits = TextChoice(options=Options(items=tuple("0123456789")))
    template = TextTemplate((digits,) * 60)
    assert 10**60 == template.count
    assert "0" * 60 == template.combination(0)
    assert "9" * 60 == template.combination(10**60 - 1)
    assert f"{123456789:060}" == template.combination(123456789)


def test_picks_from_a_long_wildcard_are_not_enumerated() -> None:
    """Three of ten thousand lines are 10^12 texts, in the order of their lines."""
    lines = tuple(f"w{number}" for number in range(10_000))
    template = TextTemplate((TextChoice(options=Options(items=lines), low=3, high=3),))
    assert 10_000 * 9_999 * 9_998 == template.count
    assert "w0,w1,w2" == template.combination(0)
    assert "w9999,w9998,w9997" == template.combination(template.count - 1)
    assert "w1,w0,w2" == template.combination(9_999 * 9_998)


def test_a_number_outside_is_refused() -> None:
    """There is no wrapping around: a number that no combination has is a mistake of the plan's."""
    template = template_of("a cat")
    assert "a cat" == template.combination(0)
    for number in (-1, 1):
        with pytest.raises(IndexError, match="the template has 1"):
            template.combination(number)


def test_equal_options_are_stored_once() -> None:
    """A wildcard of ten thousand lines in a hundred prompts takes its room once, however it is picked from."""
    lines = tuple(f"line {number}" for number in range(10_000))
    found = [
        TextTemplate(
            (f"prompt {number} ", TextChoice(options=Options(items=lines), low=1, high=1 + number % 2))
        )
        for number in range(100)
    ]
    written = json.dumps(templates_to_json(found))
    assert 1 == written.count('"line 17"')
    read = templates_from_json(json.loads(written))
    assert found == read
    (first, second) = (template.choices[0].options for template in read[:2])
    assert first is second


def test_filling_is_one_pass() -> None:
    """What a hole is filled with is never searched for holes, so that two replacements cannot corrupt each other."""
    text = make_text([Slot("=cat"), " and ", Slot("=dog")])
    assert "dog and cat" == fill(text, {"=cat": "dog", "=dog": "cat"})
    assert "{=dog}" == fill((Slot("=cat"),), {"=cat": "{=dog}", "=dog": "x"})


def text_slots(text: Text) -> set[str]:
    """Return the names of a text's holes."""
    return set() if isinstance(text, str) else {piece.name for piece in text if isinstance(piece, Slot)}


def test_a_filling_may_have_holes_of_its_own() -> None:
    """A style holds a prompt, which holds a variable: each is filled from the same values."""
    values: dict[str, Text] = {"prompt": ("a ", Slot("animal")), "animal": "cat"}
    assert "photo of a cat, 35mm" == fill(("photo of ", Slot("prompt"), ", 35mm"), values)
    with pytest.raises(KeyError, match="place"):
        fill((Slot("place"),), values)


@given(texts, texts)
def test_texts_are_canonical(first: Text, second: Text) -> None:
    """A text has one form: no empty strings, none side by side, a string where there is no hole; JSON keeps it."""
    joined = join_texts([first, second])
    assert joined == make_text(joined if isinstance(joined, tuple) else [joined])
    assert text_slots(first) | text_slots(second) == text_slots(joined)
    assert joined == text_from_json(json.loads(json.dumps(text_to_json(joined))))
    values = {"animal": "A", "=cat": "C", "prompt": "P"}
    assert fill(first, values) + fill(second, values) == fill(joined, values)


@given(templates)
@settings(max_examples=60, deadline=None)
def test_bounds_hold(template: TextTemplate) -> None:
    """No text is longer than `bytes_max` says, and none has a hole that `slots` does not name."""
    for number in range(min(template.count, 20)):
        for text in (template.combination(number), template.draw(0, number)):
            assert text_slots(text) <= template.slots
            assert len(fill(text, dict.fromkeys(template.slots, "")).encode()) <= template.bytes_max


@pytest.mark.parametrize(
    "table",
    [
        None,
        [],
        {},
        {"options": [], "choices": [], "templates": [[{"choice": 0}]]},
        {"options": [], "choices": [{"options": 0}], "templates": [[{"choice": 0}]]},
        {"options": [{"items": ["a"]}], "choices": [{"options": 0, "x": 1}], "templates": [[{"choice": 0}]]},
        {"options": [], "choices": [], "templates": [[{"hole": "a"}]]},
    ],
)
def test_a_broken_table_is_a_value_error(table: object) -> None:
    """A plan that was damaged is refused by one kind of error."""
    with pytest.raises(ValueError, match="not a table of templates"):
        templates_from_json(table)


def test_a_broken_text_is_a_value_error() -> None:
    """So is a text."""
    for value in (None, 3, [{"hole": "a"}]):
        with pytest.raises(ValueError, match="not a text"):
            text_from_json(value)
