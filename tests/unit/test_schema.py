"""The JSON Schema of sweep files is current, takes what a sweep may say and refuses what it may not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from producer.cli import cli
from producer.language.fields import FIELDS
from producer.language.schema import SCHEMA_PATH, schema_text, sweep_schema
from producer.language.sweep import Sweep, parse_sweep
from shared.errors import SweepError
from shared.guidance import RULE_FIELDS

_ROOT = Path(__file__).parents[2]
_EXAMPLES = sorted(_ROOT.glob("examples/**/*.yaml"))
_VALIDATOR = jsonschema.Draft202012Validator(sweep_schema())

#: Says where editors find the schema.
_MODELINE = "# yaml-language-server: $schema="


def complaints(text: str) -> list[str]:
    """Return what the schema refuses in a sweep."""
    return [error.message for error in _VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_the_schema_that_is_kept_is_current() -> None:
    """The file in docs is what `python -m producer.language.schema --write` writes."""
    assert (_ROOT / SCHEMA_PATH).read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_one() -> None:
    """It is a valid schema of draft 2020-12, and each key of a sweep has a description and a default."""
    jsonschema.Draft202012Validator.check_schema(sweep_schema())
    for key, schema in sweep_schema()["properties"].items():
        assert schema["description"].endswith("."), key
        assert "default" in schema, key


def test_every_key_of_a_sweep_is_in_the_schema() -> None:
    """A key that a sweep takes is in the table, and the other way around; so are a case's and a rule's."""
    keys = set(sweep_schema()["properties"])
    assert keys - {"include"} == set(Sweep.model_fields)
    (case,) = [sweep_schema()["properties"]["cases"]["items"]]
    assert set(case["properties"]) == set(FIELDS)
    rule = next(form for form in sweep_schema()["$defs"]["rule"]["anyOf"] if "properties" in form)
    assert set(rule["properties"]) == set(RULE_FIELDS)


def test_defaults_are_those_of_a_sweep() -> None:
    """What the schema says stands there when nobody says is what a sweep has then."""
    whole = Sweep.model_validate({"prompt": "a"})
    plain = json.loads(json.dumps(whole.model_dump(mode="json")))
    for key, schema in sweep_schema()["properties"].items():
        if key in (
            "prompt",
            "name",
            "size",
            "include",
        ):  # needed; the file's; the model's own; gone once read
            continue
        default = schema["default"]
        assert plain[key] in (default, [default]), key


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_taken_and_names_the_schema(path: Path) -> None:
    """An example has no complaint, and its first line leads editors to the schema that is kept."""
    text = path.read_text(encoding="utf-8")
    assert complaints(text) == []
    first = text.splitlines()[0]
    assert first.startswith(_MODELINE)
    assert (path.parent / first.removeprefix(_MODELINE)).resolve() == _ROOT / SCHEMA_PATH


@pytest.mark.parametrize(
    "text",
    [
        "prompt: a cat",
        "prompt: [a cat, {file: prompts.txt, comments: true, limit: 5}]",
        "prompt: {file: t.csv, column: caption}\nseed: {count: 4}",
        "prompt: a\nseed: {per: prompt}\nsteps: {start: 10, stop: 50, step: 10}\nguidance_scale: {start: 1, count: 3}",
        "zip: {file: t.csv, columns: {prompt: caption, animal: animal}}",
        "zip: [{prompt: [a, b], seed: [1, 2]}, {folder: faces}, {animal: [cat, dog], size: [512, 768]}]",
        "prompt: a {animal}\nvars: {animal: [cat, dog], place: {file: places.txt}, n: [1, 2.5]}",
        "prompt: a cat\nreplace: {cat: [cat, dog], a: {file: articles.txt}}",
        "prompt: '{a|b} __animals__'\nexpand: {count: 100, seed: 1}\nwildcards: wild",
        "prompt: a\nexpand: all\nwildcards: {animals: [cat, dog]}",
        "prompt: a\nstyles: styles.csv\nstyle: [null, cinematic]",
        "prompt: a\nstyles: {x: '{prompt}, ink', y: {prompt: 'oil {prompt}', negative_prompt: photo}}\nstyle: x",
        "prompt: a\nwhere: steps < 30\nskip: [seed == 1, guidance_scale > 5]",
        "prompt: a\nsample: {count: 9, seed: 1, method: latin}",
        "prompt: a\nsample: 9\nrepeat: 4\nlayout: webdataset\nformat: webp:90\ninclude: [common.yaml]",
        "prompt: a\nnegative_prompt: [null, '', {preset: quality}, {leave_one_out: {preset: photo}}, {placebo: a b}]",
        "prompt: a\nscheduler: [ddim, DPM++ 2M Karras, Euler a, DPMSolverMultistepScheduler]",
        "prompt: a\nguidance_rule: [null, apg, {rescale: [0, 0.3]}]",
        "prompt: a\nguidance_rule: [{interval: [[0, 1], [0.2, 0.8]]}, {interval: [0, 1]}]",
        "prompt: a\nguidance_rule: {rule: perp_neg, negatives: [hat, [beard, 0.5], {text: x, weight: -1}]}",
        "cases: [{prompt: a, seed: 1}, {prompt: b, size: 512x768, negative_prompt: null}]",
        "name: Bärte 2\nprompt: a\nsize: [512, 512x768, 512 x 768]",
    ],
)
def test_what_a_sweep_may_say_is_taken(text: str) -> None:
    """Every form of every key passes."""
    assert complaints(text) == []


BAD = [
    "- prompt: a",
    "prompt: 0",
    "prompt: []",
    "prompt: {column: x}",
    "prompt: {file: a.csv, folder: b}",
    "prompt: {file: a.csv, collumn: x}",
    "prompt: a\ncfg_scale: 7",
    "prompt: a\nseed: -1",
    "prompt: a\nseed: 18446744073709551616",
    "prompt: a\nseed: {start: 0}",
    "prompt: a\nsteps: 0",
    "prompt: a\nsteps: '20'",
    "prompt: a\nsteps: 20.5",
    "prompt: a\nsteps: {start: 1, stop: 5, count: 5}",
    "prompt: a\nguidance_scale: 1001",
    "prompt: a\nguidance_rule: apgg",
    "prompt: a\nguidance_rule: {rescale: 7}",
    "prompt: a\nguidance_rule: {resale: 0.7}",
    "prompt: a\nsize: 500",
    "prompt: a\nsize: big",
    "prompt: a\nscheduler: eular",
    "prompt: a\nnegative_prompt: [no]",
    "prompt: a\nnegative_prompt: {preset: qualty}",
    "prompt: a\nnegative_prompt: {preset: quality, placebo: x}",
    "prompt: a\nformat: gif",
    "prompt: a\nformat: jpeg:0",
    "prompt: a\nformat: [png]",
    "prompt: a\nname: ../x",
    "prompt: a\ncases: [{seeds: 1}]",
    "prompt: a\ncases: [{seed: [1, 2]}]",
    "prompt: a\nvars: {2nd: [a]}",
    "prompt: a\nexpand: some",
    "prompt: a\nexpand: {seed: 1}",
    "prompt: a\nsample: {count: 0}",
    "prompt: a\nsample: {count: 1, method: random}",
    "prompt: a\nrepeat: 0",
    "prompt: a\nlayout: tar",
    "prompt: a\nwhere: [1]",
]


@pytest.mark.parametrize("text", BAD)
def test_what_a_sweep_may_not_say_is_refused(text: str) -> None:
    """The schema complains, and so does the check that decides: neither refuses what the other takes."""
    assert complaints(text)
    with pytest.raises(SweepError):
        parse_sweep(text)


def test_the_command_prints_the_schema(capsys) -> None:
    """`printroom plan --schema` needs no file and prints the schema as JSON."""
    assert cli.main(["plan", "--schema"], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out) == sweep_schema()
