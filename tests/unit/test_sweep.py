"""A sweep file is read as written, or refused with every problem's line, field and fix."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer.language.complete import read_sweep_file
from producer.language.document import SWEEP_FILE_BYTES_MAX
from producer.language.fields import SEED_STOP
from producer.language.parts import Case, SeedSpan
from producer.language.sweep import (
    Sweep,
    parse_sweep,
    sweep_from_mapping,
    sweep_of,
)
from shared.errors import SweepError
from shared.guidance import rule_label
from shared.job import PROMPT_BYTES_MAX
from shared.names import DEFAULT_MODEL
from shared.schedulers import DEFAULT_SCHEDULER

EXAMPLES = Path(__file__).parents[2] / "examples"


def problems(text: str | bytes) -> list[str]:
    """Return what a text is refused for."""
    with pytest.raises(SweepError) as caught:
        parse_sweep(text)
    return caught.value.problems


def test_a_sweep_needs_only_a_prompt_and_says_its_defaults() -> None:
    """What nobody says has one default, in one place."""
    sweep = parse_sweep("prompt: a cat")
    expected = {
        "name": "sweep",
        "format": "png",
        "prompt": ("a cat",),
        "negative_prompt": (None,),
        "seed": (0,),
        "guidance_scale": (7.5,),
        "guidance_rule": (None,),
        "steps": (25,),
        "scheduler": (DEFAULT_SCHEDULER,),
        "size": (),
        "model": (DEFAULT_MODEL,),
        "cases": (),
        "layout": "images",
        "zip": [],
        "vars": {},
        "replace": {},
        "expand": None,
        "wildcards": {},
        "styles": {},
        "labels": {},
        "style": (None,),
        "where": (),
        "skip": (),
        "sample": None,
        "repeat": 1,
    }
    assert expected == sweep.model_dump()


def test_lists_are_axes_and_every_field_can_be_one() -> None:
    """A list is an axis; null and "" stay apart; a scalar is an axis of one."""
    sweep = parse_sweep(
        """
        prompt: [a cat, a dog]
        negative_prompt: [null, "", ugly, ~]
        seed: {start: 5, count: 3}
        guidance_scale: [1, 7.5]
        guidance_rule: [null, cfg, apg, {rescale: 0.7}]
        steps: [10, 20]
        scheduler: [Euler a, ddim]
        size: [512, 512x768, "64 x 96"]
        model: [one, org/two]
        name: My sweep
        """
    )
    assert sweep.negative_prompt == (None, "", "ugly", None)
    assert sweep.seed == SeedSpan(start=5, count=3)
    assert sweep.guidance_scale == (1.0, 7.5)
    assert isinstance(sweep.guidance_scale[0], float)
    assert sweep.guidance_rule == (None, None, '{"rule":"apg"}', '{"rescale":0.7}')
    assert sweep.scheduler == ("euler_a", "ddim")
    assert sweep.size == ("512x512", "512x768", "64x96")
    assert sweep.jobs == 2 * 4 * 3 * 2 * 4 * 2 * 2 * 3 * 2


def test_cases_override_single_values_and_bring_what_the_sweep_lacks() -> None:
    """A case holds what it sets, and a null negative is something to set."""
    sweep = parse_sweep(
        "steps: 9\nseed: [1, 2]\ncases: [{prompt: a, steps: 3}, {prompt: b, negative_prompt: null}, {prompt: ''}]"
    )
    assert sweep.cases[0] == Case(prompt="a", steps=3)
    assert sweep.cases[1].model_fields_set == {"prompt", "negative_prompt"}
    assert sweep.case_fields == ("prompt", "negative_prompt", "steps")
    assert sweep.jobs == 6


def test_a_list_of_one_may_be_overridden_by_a_case() -> None:
    """`steps: [20]` is the same as `steps: 20`, also for cases."""
    assert (
        parse_sweep("prompt: x\nsteps: [20]\nseed: {start: 3, count: 1}\ncases: [{steps: 3, seed: 4}]").jobs
        == 1
    )


def test_lists_in_a_rule_are_axes_too() -> None:
    """A rule's field with a list is its values one by one; an interval is one value, and so are all negatives."""
    sweep = parse_sweep(
        """
        prompt: a
        guidance_rule:
          - apg
          - {rescale: [0, 0.3], interval: [[0, 1], [0.2, 0.8]]}
          - {rule: perp_neg, negatives: [hat, beard]}
          - {negative_interval: [0.5, 1]}
        """
    )
    labels = ["apg", "cfg", "interval 0.2–0.8", "rescale 0.3", "rescale 0.3, interval 0.2–0.8"]
    labels += ["perp_neg, negatives beard and hat", "negative interval 0.5–1"]
    assert [rule_label(rule) for rule in sweep.guidance_rule] == labels
    assert sweep.jobs == 7


def test_a_case_holds_one_rule() -> None:
    """A case's rule may be written in any way but as a list; null is plain guidance, and something to set."""
    sweep = parse_sweep(
        "prompt: a\nguidance_rule: apg\ncases: [{guidance_rule: {rescale: 0.3}}, {guidance_rule: null}, {seed: 1}]"
    )
    assert sweep.case_fields == ("seed", "guidance_rule")
    assert [case.guidance_rule for case in sweep.cases[:2]] == ['{"rescale":0.3}', None]
    assert sweep.jobs == 3


NAME_RULE = "use 1 to 100 letters, digits, spaces and . _ -, beginning with a letter or digit"
KEYS = (
    "use prompt, negative_prompt, seed, guidance_scale, guidance_rule, steps, scheduler, size, model, "
    "name, format, layout, cases, zip, vars, replace, expand, wildcards, styles, style, where, skip, sample, repeat, "
    "include"
)

#: What a person writes -> the line and the text of the one problem it is refused for.
BAD_INPUT = {
    "misspelt key": (
        "prompt: a\n\nnegativ_prompt: b",
        3,
        "unknown key 'negativ_prompt': did you mean 'negative_prompt'?",
    ),
    "another program's key": (
        "prompt: a\ncfg_scale: 3",
        2,
        "unknown key 'cfg_scale': did you mean 'guidance_scale'?",
    ),
    "unknown key": (
        "prompt: a\nquux: [1]",
        2,
        "unknown key 'quux': " + KEYS,
    ),
    "key in a case": (
        "cases:\n- prompt: a\n  step: 3",
        3,
        "case 1: unknown key 'step': did you mean 'steps'?",
    ),
    "key in a seed range": (
        "prompt: a\nseed:\n  start: 0\n  count: 3\n  stride: 4",
        5,
        "unknown key 'stride': did you mean 'step'?",
    ),
    "seed range without count": (
        "prompt: a\nseed: {start: 3}",
        2,
        "seed has no count: write {start: 0, count: 8}",
    ),
    "no prompt": ("steps: 3", 1, "no prompt: give the sweep a 'prompt', or one to every case"),
    "no prompt in a case": (
        "cases:\n- prompt: a\n- steps: 3",
        3,
        "case 2: no prompt, and none at the top: add one",
    ),
    "axis and case": (
        "prompt: a\nsteps: [1, 2]\ncases:\n- steps: 3",
        4,
        "case 1: steps is a list at the top and set in a case: keep one of them",
    ),
    "list in a case": (
        "cases:\n- prompt: [a, b]",
        2,
        "case 1: prompt is a list: write text, in quotes if it begins with a bracket",
    ),
    "case that is text": (
        "cases:\n- a cat",
        2,
        "case 1: a case is text: write a mapping such as {prompt: a cat, seed: 1}",
    ),
    "cases that are a mapping": (
        "prompt: a\ncases: {steps: 3}",
        2,
        "cases is a mapping: write a list of mappings: '- {prompt: ...}'",
    ),
    "no cases": ("prompt: a\ncases: []", 2, "cases is empty: give it a case or remove the key"),
    "empty axis": ("prompt: a\nsteps: []", 2, "steps: the list is empty: give it a value or remove the key"),
    "null axis": ("prompt: a\nsteps:", 2, "steps=null: write a whole number"),
    "steps 0": ("prompt: a\nsteps:\n- 20\n- 0", 4, "steps=0: use 1 or more"),
    "steps 1001": ("prompt: a\nsteps: 1001", 2, "steps=1001: use 1000 or less"),
    "steps in quotes": ("prompt: a\nsteps: '20'", 2, "steps='20': this is text: write 20"),
    "steps as float": ("prompt: a\nsteps: 20.0", 2, "steps=20.0: write a whole number: 20"),
    "steps as boolean": ("prompt: a\nsteps: yes", 2, "steps=true: write a whole number"),
    "nested list": ("prompt: a\nsteps: [[20]]", 2, "steps=[20]: write a whole number"),
    "seed as 1e3": ("prompt: a\nseed: 1e3", 2, "seed='1e3': this is text: write 1000"),
    "seed octal": (
        "prompt: a\nseed: 010",
        2,
        "seed: 010 is no plain decimal number (YAML makes 8 of it): write one, or quote text: '010'",
    ),
    "seed hexadecimal": (
        "prompt: a\nseed: [1, 0x1F]",
        2,
        "seed: 0x1F is no plain decimal number (YAML makes 31 of it): write one, or quote text: '0x1F'",
    ),
    "seed negative": ("prompt: a\nseed: -1", 2, "seed=-1: use 0 or more"),
    "seed 2**64": (
        "prompt: a\nseed: 18446744073709551616",
        2,
        "seed=18446744073709551616: use 18446744073709551615 or less",
    ),
    "seed range past 2**64": (
        "prompt: a\nseed: {start: 18446744073709551615, count: 2}",
        2,
        "seed: the last of 2 from 18446744073709551615 is 18446744073709551616: stay below 2**64",
    ),
    "seed count 0": ("prompt: a\nseed: {count: 0}", 2, "seed count=0: use 1 or more"),
    "guidance nan": ("prompt: a\nguidance_scale: .nan", 2, "guidance_scale=nan: use a number from 0 to 1000"),
    "guidance inf": (
        "prompt: a\nguidance_scale: [1, .inf]",
        2,
        "guidance_scale=inf: use a number from 0 to 1000",
    ),
    "guidance below 0": (
        "prompt: a\nguidance_scale: -1.5",
        2,
        "guidance_scale=-1.5: use a number from 0 to 1000",
    ),
    "guidance decimal comma": (
        "prompt: a\nguidance_scale: 7,5",
        2,
        "guidance_scale='7,5': this is text: write 7.5",
    ),
    "guidance sexagesimal": (
        "prompt: a\nguidance_scale: 1:30.5",
        2,
        "guidance_scale: 1:30.5 is no plain decimal number (YAML makes 90.5 of it): "
        "write one, or quote text: '1:30.5'",
    ),
    "unknown rule": (
        "prompt: a\nguidance_rule:\n- cfg\n- apgg",
        4,
        "guidance_rule: rule='apgg' is unknown: did you mean apg?",
    ),
    "rule that is a number": (
        "prompt: a\nguidance_rule: 0.7",
        2,
        "guidance_rule: 0.7: write a name such as apg, or a mapping such as {rescale: 0.7}",
    ),
    "field of a rule out of range": (
        "prompt: a\nguidance_rule:\n  rule: apg\n  eta: 2",
        4,
        "guidance_rule: eta=2: use 0 to 1",
    ),
    "one of a rule's values out of range": (
        "prompt: a\nguidance_rule:\n- apg\n- rescale:\n  - 0\n  - 7",
        6,
        "guidance_rule: rescale=7: use 0 to 1",
    ),
    "unknown field of a rule": (
        "prompt: a\nguidance_rule:\n- rescal: 0.7",
        3,
        "guidance_rule: unknown 'rescal': did you mean rescale?",
    ),
    "field that the rule does not read": (
        "prompt: a\nguidance_rule:\n  rule: [apg, cfg]\n  eta: [0.1, 0.2]",
        4,
        "guidance_rule: eta is not read by cfg: set rule: apg, or remove it",
    ),
    "negatives of plain guidance": (
        "prompt: a\nguidance_rule: {negatives: {hat: 1}}",
        2,
        "guidance_rule: negatives is not read by cfg: set rule: decoupled or perp_neg, or remove it",
    ),
    "negative interval backwards": (
        "prompt: a\nguidance_rule: {negative_interval: [1, 0.5]}",
        2,
        "guidance_rule: negative_interval=[1, 0.5]: start must be less than stop",
    ),
    "interval with null": (
        "prompt: a\nguidance_rule: {interval: [[0, 1], null]}",
        2,
        "guidance_rule: interval=null: write [start, stop], parts of the steps such as [0.2, 0.8]",
    ),
    "octal in a rule": (
        "prompt: a\nguidance_rule:\n  rule: perp_neg\n  negatives:\n  - [hat, 010]",
        5,
        "negatives: 010 is no plain decimal number (YAML makes 8 of it): write one, or quote text: '010'",
    ),
    "no rules": (
        "prompt: a\nguidance_rule: []",
        2,
        "guidance_rule: the list is empty: give it a value or remove the key",
    ),
    "no values in a rule": (
        "prompt: a\nguidance_rule: {rescale: []}",
        2,
        "guidance_rule: rescale: the list is empty: give it a value or remove the key",
    ),
    "too many rules": (
        f"prompt: a\nguidance_rule: {{rescale: {[0.5] * 1000}, interval: {[[0, 1]] * 1000}}}",
        2,
        "guidance_rule: 1,000,000 rules: use at most 10,000",
    ),
    "list in a case's rule": (
        "cases:\n- prompt: a\n  guidance_rule:\n    rescale: [0.3, 0.7]",
        4,
        "case 1: guidance_rule: rescale=[0.3, 0.7]: write a number from 0 to 1",
    ),
    "list of rules in a case": (
        "cases:\n- prompt: a\n  guidance_rule: [apg, cfg]",
        3,
        "case 1: guidance_rule: ['apg', 'cfg']: write a name such as apg, or a mapping such as {rescale: 0.7}",
    ),
    "rules at the top and in a case": (
        "prompt: a\nguidance_rule: {rescale: [0, 0.3]}\ncases:\n- guidance_rule: apg",
        4,
        "case 1: guidance_rule is a list at the top and set in a case: keep one of them",
    ),
    "another program's rescale": (
        "prompt: a\nguidance_rescale: 0.7",
        2,
        "unknown key 'guidance_rescale': write 'guidance_rule: {rescale: 0.7}'",
    ),
    "rule": ("prompt: a\nrule: apg", 2, "unknown key 'rule': did you mean 'guidance_rule'?"),
    "a rule's name as a key in a case": (
        "prompt: a\ncases: [{perp-neg: 1}]",
        2,
        "case 1: unknown key 'perp-neg': write 'guidance_rule: perp_neg'",
    ),
    "unknown scheduler": (
        "prompt: a\nscheduler: eular_a",
        2,
        "scheduler='eular_a' is unknown: did you mean 'euler_a' or 'euler_beta' or 'euler'?",
    ),
    "size 513": ("prompt: a\nsize: 512x513", 2, "size='512x513': 513 is not a multiple of 8: use 512 or 520"),
    "size 0": ("prompt: a\nsize: 0", 2, "size=0: use sides of 8 to 8192 pixels"),
    "size 8200": ("prompt: a\nsize: 8200", 2, "size=8200: use sides of 8 to 8192 pixels"),
    "size of three": (
        "prompt: a\nsize: 8x8x8",
        2,
        "size='8x8x8': write a side in pixels (512) or 'WIDTHxHEIGHT' ('512x768')",
    ),
    "prompt no": ("prompt: no", 1, "prompt is the boolean False: quote it: 'no'"),
    "prompt 0": ("prompt:\n- a\n- 0", 3, "prompt is the number 0: quote it: '0'"),
    "prompt null": ("prompt:", 1, "prompt is empty (null): write the text, or '' for an empty one"),
    "prompt date": ("prompt: 2024-01-01", 1, "prompt: 2024-01-01 is a date to YAML: quote it: '2024-01-01'"),
    "prompt 1:30": (
        "prompt: 1:30",
        1,
        "prompt: 1:30 is no plain decimal number (YAML makes 90 of it): write one, or quote text: '1:30'",
    ),
    "prompt in braces": (
        "prompt: {a|b}",
        1,
        "prompt is a mapping: write text, in quotes if it begins with a bracket",
    ),
    "prompt with NUL": ('prompt: "a\\0b"', 1, "prompt='a\\x00b': character 2 is NUL: remove it"),
    "10 MB of prompt": (
        "prompt: " + "x" * 10_000_000,
        1,
        "prompt is 10,000,000 bytes long: use at most 65,536",
    ),
    "10 MB of negative": (
        "prompt: a\nnegative_prompt: " + "é" * 5_000_000,
        2,
        "negative_prompt is 10,000,000 bytes long: use at most 65,536",
    ),
    "name that climbs": (
        "prompt: a\nname: ../../etc/passwd",
        2,
        "name='../../etc/passwd': " + NAME_RULE,
    ),
    "name of dots": (
        "prompt: a\nname: '..'",
        2,
        "name='..': " + NAME_RULE,
    ),
    "name with a line end": (
        'prompt: a\nname: "a\\n"',
        2,
        "name='a\\n': " + NAME_RULE,
    ),
    "model number": ("prompt: a\nmodel: 15", 2, "model is the number 15: quote it: '15'"),
    "empty model": ("prompt: a\nmodel: ''", 2, "model='': use a name of 1 to 300 printable characters"),
    "10**12 jobs": (
        "prompt: a\nseed: {count: 1000000000000}",
        2,
        "1,000,000,000,000 jobs: one sweep holds at most 4,294,967,296: split it",
    ),
    "2**64 jobs": (
        "prompt: a\nseed: {count: 18446744073709551616}",
        2,
        "18,446,744,073,709,551,616 jobs: one sweep holds at most 4,294,967,296: split it",
    ),
    "duplicate key": (
        "prompt: a\nsteps: 3\nprompt: b",
        3,
        "the key 'prompt' stands here twice (first in line 1): keep one",
    ),
    "key that is a boolean": ("prompt: a\non: 3", 2, "the key on is not text to YAML: quote it: 'on'"),
    "merge key": (
        "prompt: a\n<<: {steps: 3}",
        2,
        "merge keys ('<<') are not part of a sweep: write the keys out",
    ),
    "python tag": (
        "prompt: a\nmodel: !!python/object:os.system x",
        2,
        "model: the tag !!python/object:os.system "
        "is not part of a sweep: remove it, or quote text that begins with '!'",
    ),
    "tagged list": ("prompt: !!set {a}", 1, "the tag !!set is not part of a sweep: remove it"),
    "tab": ("prompt:\n\t- a", 2, "a tab: indent with spaces"),
    "deep nesting": ("prompt: " + "[" * 100_000, 1, "nested more than 16 deep: a sweep is flat"),
    "two documents": (
        "prompt: a\n---\nprompt: b",
        2,
        "a second document begins here ('---'): keep one sweep a file",
    ),
    "empty file": ("# nothing\n", None, "the file is empty: a sweep needs at least a prompt"),
    "a list": ("- a\n- b", 1, "the file is a list: a sweep is a mapping: 'prompt: a cat'"),
    "control character": ("prompt: a\nname: b\x07", 2, "character U+0007 may not stand in YAML: remove it"),
    "lone surrogate": ("prompt: a\ud800", 1, "character U+D800 may not stand in YAML: remove it"),
    "Latin-1": (
        b"steps: 3\nprompt: caf\xe9",
        2,
        "byte 0xe9 at offset 20 is not UTF-8: save the file as UTF-8",
    ),
    "UTF-16": (
        "prompt: a".encode("utf-16") + b"b",
        None,
        "the file is UTF-16 that breaks off at offset 20: save it as UTF-8",
    ),
    "too large": (b"#" * (SWEEP_FILE_BYTES_MAX + 1), None, "64.0 MiB: a sweep file holds at most 64 MiB"),
}


@pytest.mark.parametrize(("text", "line", "problem"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_line_with_line_field_and_fix(
    text: str | bytes, line: int | None, problem: str
) -> None:
    """Each wrong file is refused with exactly one problem that says where, what and how to fix it."""
    place = "sweep.yaml" if line is None else f"sweep.yaml, line {line}"
    assert [f"{place}: {problem}"] == problems(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prompt: [a", 1),
        ("steps: 3\nprompt: 'a\n\n\n", 2),
        ("prompt: photo: a man", 1),
        ("prompt: a\nname: @x", 2),
    ],
)
def test_what_is_not_yaml_names_its_line(text: str, line: int) -> None:
    """Broken syntax names the line that a person has to look at, and the usual fix."""
    (problem,) = problems(text)
    assert problem.startswith(f"sweep.yaml, line {line}: not YAML (")
    assert "quote text" in problem


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    """Nobody fixes a file one error at a time."""
    text = "steps: 0\nseed: 010\nnegativ_prompt: x\nsize: [513, 7]\nname: ''\nname: x\n"
    lines = [problem.split(": ")[0].split("line ")[1] for problem in problems(text)]
    assert lines == ["1", "1", "2", "3", "4", "4", "5", "6"]


def test_thousands_of_problems_are_counted_not_scrolled() -> None:
    """A table with a wrong column ends in a count."""
    found = problems("prompt: [" + "1, " * 5000 + "a]")
    assert len(found) == 101
    assert found[-1] == "... and 4,900 more problems"


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    """Ten lines that mean a billion prompts cost nothing."""
    bomb = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"{b}: &{b} [{', '.join(['*' + a] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (problem,) = problems("\n".join(bomb))
    assert "line 7" in problem
    assert "more than 2,000,000 values, aliases (*name) expanded" in problem


def test_an_anchor_inside_itself_is_refused() -> None:
    """A list that holds itself has no end."""
    (problem,) = problems("prompt: &a [x, *a]")
    assert problem.startswith("sweep.yaml, line 1: *a names no anchor that is complete above it")


def test_a_few_aliases_are_fine() -> None:
    """Anchors save typing, and an error in one names the line it is used in."""
    assert parse_sweep("prompt: &p a cat\ncases:\n- negative_prompt: *p").cases[0].negative_prompt == "a cat"
    text = "prompt: a\nsteps: &zero 0\nseed: 1\nguidance_scale: 3\ncases:\n- seed: 2\n- seed: *zero\n  steps: *zero"
    assert problems(text) == [
        "sweep.yaml, line 2: steps=0: use 1 or more",
        "sweep.yaml, line 8: case 2: steps=0: use 1 or more",
    ]


@pytest.mark.parametrize(
    "text", ["prompt: ' a\r\n'", "\ufeffprompt: ' a\n'", b"\xef\xbb\xbfprompt: ' a\n'\r\n"]
)
def test_byte_order_marks_and_crlf_change_nothing(text: str | bytes) -> None:
    """What Windows editors add is not part of a prompt."""
    assert parse_sweep(text).prompt == (" a ",)


def test_prompts_that_yaml_leaves_alone_arrive_to_the_letter() -> None:
    """Quoted zeros, emoji, YAML's own signs and the longest prompt are prompts."""
    texts = [
        "0",
        "no",
        "",
        " edge ",
        "a: b",
        "🎩",
        "#1",
        "{a|b}",
        "x" * PROMPT_BYTES_MAX,
        "1e3",
        "~",
        "\u2028",
        "\x85",
    ]
    assert parse_sweep(yaml.safe_dump({"prompt": texts})).prompt == tuple(texts)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), min_size=1
    )
)
def test_any_text_survives_yaml(texts: list[str]) -> None:
    """Whatever a YAML writer wrote comes back as it was."""
    assert parse_sweep(yaml.safe_dump({"prompt": texts})).prompt == tuple(texts)


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_otherwise_than_it_promises(text: str) -> None:
    """Any text is a sweep or a SweepError, nothing else."""
    for candidate in (text, f"prompt: {text}", f"prompt: a\nseed: {text}\ncases: {text}"):
        with contextlib.suppress(SweepError):
            assert isinstance(parse_sweep(candidate), Sweep)


def test_the_name_is_the_files_where_the_file_says_none(tmp_path: Path) -> None:
    """A sweep names itself by its file, made harmless."""
    path = tmp_path / "my sweep (2)..yaml"
    path.write_text("prompt: a")
    assert sweep_of(read_sweep_file(path)).name == "my sweep -2"
    assert parse_sweep("prompt: a", filename="....yaml").name == "sweep"
    assert parse_sweep("prompt: a\nname: b", filename="c.yaml").name == "b"


def test_python_values_are_held_to_the_same_rules() -> None:
    """Without a file the field and the item are named."""
    sweep = sweep_from_mapping({"name": "x", "prompt": ("a", "b"), "seed": range(3)})
    assert sweep == parse_sweep("name: x\nprompt: [a, b]\nseed: [0, 1, 2]")
    with pytest.raises(SweepError) as caught:
        sweep_from_mapping(
            {
                "prompt": ["a", 0, "\ud800"],
                "guidance_rule": ["cfg", {"rescale": [0.3, 3]}],
                "steps": -1,
                "cfg": 3,
                "cases": [{}, {"seed": 1.5}],
            }
        )
    assert caught.value.problems == [
        "item 2: prompt is the number 0: write text",
        "item 3: prompt='\\ud800': character 1 is half of a surrogate pair: remove it",
        "item 2: guidance_rule: rescale=3: use 0 to 1",
        "steps=-1: use 1 or more",
        "case 2: seed=1.5: write a whole number",
        "unknown key 'cfg': did you mean 'guidance_scale'?",
    ]


def test_a_sweep_is_frozen_and_survives_a_round_trip() -> None:
    """A validated sweep does not change, and its dump is a sweep again."""
    sweep = parse_sweep(
        "prompt: [a, b]\nseed: {start: 2, count: 5}\nsize: 64\nguidance_rule: [null, apg, {rescale: [0.3, 0.7]}]\n"
        "cases: [{steps: 3}, {negative_prompt: null}]"
    )
    assert Sweep.model_validate(sweep.model_dump(exclude_unset=True)) == sweep
    assert sweep.model_dump()["guidance_rule"] == (None, "apg", {"rescale": 0.3}, {"rescale": 0.7})
    one = parse_sweep("prompt: a\ncases: [{guidance_rule: {rule: perp_neg, negatives: {hat: 0.5}}}]")
    said = {"guidance_rule": {"rule": "perp_neg", "negatives": {"hat": 0.5}}}
    assert one.model_dump(mode="json", exclude_unset=True)["cases"] == [said]
    assert sweep_from_mapping(one.model_dump(mode="json", exclude_unset=True)) == one
    with pytest.raises(ValidationError):
        sweep.steps = (3,)


def test_the_last_seed_is_a_seed() -> None:
    """2**64 - 1 is the last of 64 bits."""
    assert parse_sweep(f"prompt: a\nseed: {SEED_STOP - 1}").seed == (SEED_STOP - 1,)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_sweeps(path: Path) -> None:
    """Every example is valid and says its own name."""
    assert sweep_of(read_sweep_file(path)).name == path.stem
