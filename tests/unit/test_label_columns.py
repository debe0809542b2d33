"""Choices of templates and columns of prompt files are labels of jobs; no id knows of them, and plans stay small."""

import json
from hashlib import md5

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.complete import read_sweep_file
from producer.language.groups import check_labels
from producer.language.prompt_files.row_labels import written_labels
from producer.language.sweep import parse_sweep, sweep_from_mapping, sweep_of
from producer.planning.compile import compile_sweep
from producer.preview import preview
from producer.sheet.cells import ordered
from producer.sheet.grid import make_grid
from producer.sheet.sweep_sheet import _cells as cells_of
from producer.sheet.sweep_sheet import _layout as layout_of
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel
from shared.labels import LabelColumn, number_of
from shared.plan import Plan

PROMPTS = "prompt,category,year,seed\na cat,animal,1990,1\na pie,food,5,2\na dog,animal,,3\n"
MODELS = "model,prompt,category\na,x,one\na,y,two\nb,x,three\nb,y,four\n"

#: What these sweeps' ids were before anything but vars and styles was a label.
SWEEPS = {
    "11a8da96d2e1ea9634745ef930fad6b4": "prompt: {file: p.csv}\nseed: [1, 2]\n",
    "8403774876784af3fa4d6ea83b6dea73": "zip: {file: p.csv}\n",
    "d1acdbae9e63ea48829ecc7f18f60486": "zip: {file: p.csv, columns: [prompt]}\nseed: 3\nstyle: [null, s]\n"
    "styles: {s: '{prompt}, s'}\n",
    "b187107461a496fbbf48a83462c31aa0": "zip: {file: m.csv}\n",
    "9807451a6bf15cd80645e9da35a52fd3": "zip: {file: m.csv, columns: [model]}\nprompt: x\n",
    "4b3ca1679371b6a632d5db091eeb5239": "prompt: [first, {file: p.csv}]\n",
    "78e27f6e64afa2d1d86bc08aa109b025": "prompt: ['a {red|blue} __pet__ in {2$$__place__}', 'plain']\n"
    "negative_prompt: ['{dark|light} __pet__']\nexpand: all\nwildcards: {pet: [cat, 'dog with __color__ collar'],"
    " color: [red, blue], place: [town, wood, sea]}\n",
    "9539d5a5fab5a52dc9fe59ce37525701": "prompt: 'a __hair__ hair and __eye__ eyes {animal}'\n"
    "vars: {animal: [cat, dog]}\nexpand: {count: 7, seed: 3}\nwildcards: {hair: [red, blue], eye: [red, blue]}\n"
    "seed: [0,1]\n",
    "e918dd28a127774d4029d26874448459": "prompt: 'a {red|blue} __pet__ {animal}'\nvars: {animal: [cat, dog]}\n"
    "expand: all\nwildcards: {pet: [old, young]}\n"
    "where: \"'red' in prompt and seed < 2 or 'young dog' in prompt\"\nseed: [0,1,2]\n",
    "2e6235921d3d825d58850e4c5eb42218": "zip: {file: p.csv}\nwhere: seed != 2\n",
    "d0554c0d256a7086b42f29e134caca7f": "prompt: 'a {red|blue} __pet__'\nexpand: all\n"
    "wildcards: {pet: [old, young]}\nseed: {start: 0, count: 10}\nsample: 9\n",
}


@pytest.fixture
def plan_of(tmp_path, monkeypatch):
    """Return what makes plans of sweeps beside two prompt files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(PROMPTS)
    (tmp_path / "m.csv").write_text(MODELS)

    def make(text):
        return compiled(parse_sweep(f"{text}size: 64x64\n"))

    return make


def compiled(sweep):
    """Return the plan of a sweep."""
    return compile_sweep(
        sweep,
        resolve=lambda name: ResolvedModel(name=name, fingerprint=f"sha:{md5(name.encode()).hexdigest()}"),
    )


def labels_of(plan):
    """Return the labels of all jobs of a plan, in order."""
    return [plan.labels(index) for index in range(len(plan))]


@pytest.mark.parametrize(("wanted", "text"), SWEEPS.items())
def test_no_id_knows_of_labels(plan_of, wanted, text):
    """A sweep has the id that it had without labels, and its plan the same labels after a journey."""
    plan = plan_of(text)
    read = Plan.from_bytes(plan.to_bytes())
    assert (plan.id, plan.id) == (wanted, read.id)
    assert (labels_of(plan), plan.label_names) == (labels_of(read), read.label_names)
    assert any(labels_of(plan))
    assert {name for labels in labels_of(plan) for name in labels} <= set(plan.label_names)


def test_a_reader_that_knows_no_labels_reads_the_same_plan(plan_of):
    """What is hashed does not change by what stands beside it: without the key it is the same sweep."""
    plan = plan_of(SWEEPS["8403774876784af3fa4d6ea83b6dea73"])
    document = json.loads(zstandard.ZstdDecompressor().decompress(plan.to_bytes()))
    del document["labels"]
    bare = Plan.from_bytes(zstandard.ZstdCompressor().compress(json.dumps(document).encode()))
    assert (bare.id, bare.job(1)) == (plan.id, plan.job(1))
    assert (bare.labels(1), plan.labels(1)) == ({}, {"category": "food", "year": "5"})


def test_choices_are_called_by_their_wildcards(plan_of):
    """A choice is its wildcard's name or its number; what stands in a line has its own; negatives are told apart."""
    plan = plan_of(SWEEPS["78e27f6e64afa2d1d86bc08aa109b025"])
    for index, job in plan.jobs():
        labels = plan.labels(index)
        if job.prompt == "plain":
            assert not {"pet", "place", "choice_1"} & labels.keys()
            continue
        assert job.prompt == f"a {labels['choice_1']} {labels['pet']} in {labels['place']}"
        assert job.negative_prompt == f"{labels['negative.choice_1']} {labels['negative.pet']}"
        assert labels["pet"] == (f"dog with {labels['color']} collar" if "color" in labels else "cat")


def test_wildcards_of_the_same_lines_keep_their_names(plan_of):
    """Two wildcards with equal lines are one in the plan, and two labels; a name used twice is told apart."""
    plan = plan_of(SWEEPS["9539d5a5fab5a52dc9fe59ce37525701"])
    assert plan.label_names == ("animal", "hair", "eye")
    for index, job in Plan.from_bytes(plan.to_bytes()).jobs():
        labels = plan.labels(index)
        assert job.prompt == f"a {labels['hair']} hair and {labels['eye']} eyes {labels['animal']}"
    twice = plan_of("prompt: '__c__ hair, __c__ eyes'\nexpand: all\nwildcards: {c: [red, blue]}\n")
    assert (twice.label_names, twice.labels(1)) == (("c", "c_2"), {"c": "red", "c_2": "blue"})


def test_choices_outlive_a_condition(plan_of):
    """A condition that looks at prompts makes a list of them; the labels of what was chosen stay."""
    plan = plan_of(SWEEPS["e918dd28a127774d4029d26874448459"])
    for index, job in plan.jobs():
        labels = plan.labels(index)
        assert job.prompt == f"a {labels['choice_1']} {labels['pet']} {labels['animal']}"


def test_columns_stay_with_their_rows(plan_of):
    """Whatever becomes of a file's rows - buckets, conditions, samples, other axes - each job has its row's columns."""
    rows = {"a cat": ("animal", "1990"), "a pie": ("food", "5"), "a dog": ("animal", None)}
    for text in (
        "prompt: {file: p.csv}\nseed: [1, 2]\n",
        "zip: {file: p.csv}\nwhere: seed != 2\n",
        "prompt: {file: p.csv}\nnegative_prompt: '{dark|light}'\nexpand: all\n",
        "zip: {file: p.csv}\nguidance_scale: [1, 2, 3]\nsample: 5\n",
        "prompt: {file: p.csv}\nsize: [64x64, 128x64]\n".replace("size", "steps").replace(
            "64x64, 128x64", "4, 5"
        ),
    ):
        plan = plan_of(text)
        for index, job in plan.jobs():
            labels = plan.labels(index)
            assert (labels.get("category"), labels.get("year")) == rows[job.prompt]
    by_model = plan_of("zip: {file: m.csv}\n")
    assert [labels["category"] for labels in labels_of(by_model)] == ["one", "two", "three", "four"]
    one_each = plan_of("zip: {file: m.csv, columns: [model], limit: 1}\nprompt: x\n")
    assert labels_of(one_each) == [{"category": "one"}]


def test_a_name_that_is_taken_says_what_it_is_of(plan_of):
    """A column or wildcard named like a field or a var never hides it."""
    plan = plan_of(
        "prompt: ['__seed__ {animal} __kind__ {a|b}']\nvars: {animal: [cat]}\nexpand: all\n"
        "wildcards: {seed: [x, y], kind: [k, l]}\n"
        "labels: {prompt: {animal: [zoo], seed: [s], kind: [m], choice_1: [n]}}\n"
    )
    assert plan.labels(0) == {
        "animal": "cat",
        "column.animal": "zoo",
        "column.seed": "s",
        "kind": "m",
        "choice_1": "n",
        "choice.seed": "x",
        "choice.kind": "k",
        "choice.choice_1": "a",
    }
    assert set(plan.label_names) == plan.labels(0).keys()


def test_two_columns_of_one_name_are_told_apart(plan_of):
    """Of two files with a category each job has both; a choice that a condition has looked at keeps its name too."""
    plan = plan_of(
        "prompt: ['{a|b}', c]\nnegative_prompt: [x, y]\nexpand: all\n"
        "where: prompt != 'a' and negative_prompt.kind = 'q'\n"
        "labels: {prompt: {kind: [m, n], choice_1: [k, l]}, negative_prompt: {kind: [p, q]}}\n"
    )
    assert [plan.labels(index) for index in range(len(plan))] == [
        {
            "kind": "m",
            "choice_1": "k",
            "negative_prompt.kind": "q",
            "choice.choice_1": "b",
            "template": "{a|b}",
        },
        {"kind": "n", "choice_1": "l", "negative_prompt.kind": "q", "template": "c"},
    ]
    zipped = plan_of(
        "prompt: x\nzip: [{seed: [1, 2]}, {steps: [3, 4]}]\nlabels: {seed: {n: [a, b]}, steps: {n: [c, d]}}\n"
    )
    assert zipped.labels(1) == {"n": "a", "steps.n": "d"}


@pytest.mark.parametrize(
    ("text", "templates"),
    [
        (
            "prompt: ['a {animal}', 'the {animal}']\nvars: {animal: [cat, dog]}\n",
            {"a {animal}", "the {animal}"},
        ),
        ("prompt: [x, y]\nstyle: [null, s]\nstyles: {s: '{prompt}, s'}\n", {"x", "y"}),
        ("prompt: [a hat, the hat]\nreplace: {hat: [hat, cap]}\n", {"a hat", "the hat"}),
        (
            "prompt: ['{a|b} __c__', '{a} \\{x\\}']\nvars: {a: [v]}\nexpand: all\nwildcards: {c: [d, e]}\n",
            {"{a|b} __c__", "{a} {x}"},
        ),
        (
            "prompt: ['{a|b} {v}', 'c {v}']\nvars: {v: [q, r]}\nexpand: all\nwhere: prompt != 'a q'\n",
            {"{a|b} {v}", "c {v}"},
        ),
        ("prompt: [x, y]\n", set()),
        ("prompt: 'a {animal}'\nvars: {animal: [cat, dog]}\n", set()),
    ],
)
def test_texts_are_axes_as_they_are_written(plan_of, text, templates):
    """Where several prompts are filled in, chosen from or styled, each job says which of them it is of."""
    plan = plan_of(text)
    assert {labels["template"] for labels in labels_of(plan) if "template" in labels} == templates
    assert ("template" in plan.label_names) == bool(templates)
    assert labels_of(Plan.from_bytes(plan.to_bytes())) == labels_of(plan)


def test_styles_and_prompts_make_a_whole_sheet(plan_of, folder_store):
    """Two prompts in two styles are four images in two rows and two columns, and no place is empty."""
    plan = plan_of(
        "prompt: [x, y]\nnegative_prompt: [null, n]\nstyle: [null, s]\n"
        "styles: {s: {prompt: '{prompt}, s', negative_prompt: m}}\n"
    )
    assert plan.label_names == ("style", "template", "negative.template")
    cells = cells_of(plan.id, plan, folder_store, {}, None, jobs_max=100)
    down, across = layout_of(cells, None, None)
    assert {*down, *across} <= {"style", "template", "negative.template"}
    grid = make_grid(cells, rows=down, columns=across)
    assert sum(len(one.rows) * len(one.columns) for one in grid.sections) == len(plan) == 8


def test_labels_are_written_by_hand(plan_of):
    """`labels` says what values are called: of a field, a var, a group; in a list or lines; through Python too."""
    plan = plan_of(
        "prompt: ['a {animal}', 'an {animal}']\nvars: {animal: [cat, ox]}\nzip: {seed: [1, 2], steps: [3, 4]}\n"
        'labels: {animal: {legs: [4, null]}, steps: {speed: "fast\\nslow\\n"}, prompt: {article: [a, an]}}\n'
    )
    for index, job in plan.jobs():
        labels = plan.labels(index)
        assert labels["speed"] == {3: "fast", 4: "slow"}[job.steps]
        assert labels["article"] == job.prompt.split()[0]
        assert labels.get("legs") == ("4" if "cat" in job.prompt else None)
    sweep = sweep_from_mapping({"prompt": ["x", "y"], "labels": {"prompt": {"n": [1, 2.5]}}})
    assert labels_of(compiled(sweep)) == [{"n": "1"}, {"n": "2.5"}]
    again = sweep_from_mapping(sweep.model_dump(mode="json", exclude_unset=True))
    assert labels_of(compiled(again)) == [{"n": "1"}, {"n": "2.5"}]


def test_models_sizes_and_cases_have_labels(plan_of):
    """What is said of a model or a size is said of all its jobs, and of a case of that case."""
    plan = compiled(
        parse_sweep(
            "prompt: x\nmodel: [a, b]\nsize: [64x64, 128x64]\nwhere: family = 'new' or shape = 'wide'\n"
            "labels: {model: {family: [old, new]}, size: {shape: [square, wide]}}\n"
        )
    )
    found = [(plan.models[job.model], job.width, plan.labels(index)) for index, job in plan.jobs()]
    assert found == [
        ("a", 128, {"family": "old", "shape": "wide"}),
        ("b", 64, {"family": "new", "shape": "square"}),
        ("b", 128, {"family": "new", "shape": "wide"}),
    ]
    cases = plan_of(
        "cases: [{prompt: x, seed: 1}, {prompt: y, seed: 2}]\nlabels: {cases: {why: [first, null]}}\n"
    )
    assert labels_of(cases) == [{"why": "first"}, {}]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("{promt: {a: [b]}}", "'promt' is no list of this sweep: did you mean 'prompt'?"),
        ("{prompt: {a: [b]}}", "a has 1 values beside 2 of prompt: write one for each, null for none"),
        ("{prompt: [b]}", "prompt is a list: write a mapping: {category: [...]}"),
        ("{prompt: {a: [[b], c]}}", "a has a list in it: write texts, numbers and null"),
        ("{model: {a: [b, c]}}", "a has 2 values beside 1 of model"),
        ("{cases: {a: [b, c]}}", "'cases' is no list of this sweep"),
        ("[a]", "labels is a list: write a mapping"),
    ],
)
def test_labels_beside_nothing_are_refused(labels, problem):
    """A label that no value could have is an error, with the line."""
    with pytest.raises(SweepError) as caught:
        parse_sweep(f"prompt: [x, y]\nlabels: {labels}\n")
    assert problem in str(caught.value)
    assert "line 2" in str(caught.value)


def test_a_sweep_that_is_kept_has_its_labels(tmp_path):
    """What is stored beside the images names no file, and compiles to the same sweep with the same labels."""
    (tmp_path / "p.csv").write_text(PROMPTS)
    (tmp_path / "sweep.yaml").write_text("prompt: {file: p.csv}\nseed: [1, 2]\nsize: 64x64\n")
    plan = compiled(sweep_of(read_sweep_file(tmp_path / "sweep.yaml")))
    (tmp_path / "p.csv").unlink()
    (tmp_path / "sweep.yaml").write_text(kept := read_kept(tmp_path, PROMPTS))
    again = compiled(sweep_of(read_sweep_file(tmp_path / "sweep.yaml")))
    assert (plan.id, labels_of(plan)) == (again.id, labels_of(again))
    assert "p.csv" in kept


def read_kept(folder, prompts):
    """Return the text that would be stored of a folder's sweep."""
    (folder / "p.csv").write_text(prompts)
    text = read_sweep_file(folder / "sweep.yaml").text
    (folder / "p.csv").unlink()
    return text


def test_a_column_keeps_each_text_once():
    """A hundred thousand rows of three categories cost little more than their order; rows without one have none."""
    values = [("animal", "food", None, "city")[place * 7 % 4] for place in range(100_000)]
    column = LabelColumn.of("category", values)
    assert [column.at(place) for place in range(8)] == values[:8]
    assert (len(column), column.texts) == (100_000, ("animal", "city", "food"))
    assert LabelColumn.from_json(json.loads(json.dumps(column.to_json()))) == column
    names = LabelColumn.of("id", map(str, range(1000)))
    assert (names.places, names.at(7), LabelColumn.from_json(names.to_json())) == (None, "7", names)


def test_numbers_of_labels_have_an_order():
    """Numbers stand by size where all labels are numbers, and as they come in where one is none; nothing is last."""
    assert ordered("year", ["10", "9", None, "1e1", "-2.5"]) == ["-2.5", "9", "10", "1e1", None]
    assert ordered("year", ["10", "9", "none"]) == ["10", "9", "none"]
    assert ordered("seed", [3, 1]) == [3, 1]
    assert [number_of(text) for text in ("5", "-1.5", ".5", "2e3", "inf", "1_000", "", "٣")] == [
        5,
        -1.5,
        0.5,
        2000.0,
        None,
        None,
        None,
        None,
    ]


def test_sheets_take_choices_for_axes_and_columns_for_fields(plan_of, folder_store):
    """Without a word a sheet has the choices on its sides; a column is never there unasked, and by number if asked."""
    plan = plan_of("prompt: 'a {red|blue} {cat|dog}'\nexpand: all\nseed: [1, 2]\n")
    cells = cells_of(plan.id, plan, folder_store, {}, None, jobs_max=100)
    assert {name for side in layout_of(cells, None, None) for name in side} == {
        "choice_1",
        "choice_2",
        "seed",
    }
    plan = plan_of("prompt: {file: p.csv}\nseed: [1, 2]\n")
    cells = cells_of(plan.id, plan, folder_store, {}, None, jobs_max=100)
    assert {name for side in layout_of(cells, None, None) for name in side} == {"prompt", "seed"}
    grid = make_grid(cells, rows="year", columns="seed")
    assert [row for section in grid.sections[:1] for row in section.rows] == [("5",), ("1990",), (None,)]


def test_a_sweep_is_chosen_by_its_labels(plan_of):
    """A condition of the sweep knows the columns of its files, as numbers where they are compared with one."""
    assert [j.prompt for _, j in plan_of("zip: {file: p.csv}\nwhere: category = 'animal'\n").jobs()] == [
        "a cat",
        "a dog",
    ]
    assert [
        j.prompt for _, j in plan_of("prompt: {file: p.csv}\nskip: year is null or year < 10\n").jobs()
    ] == ["a cat"]
    plan = plan_of("zip: {file: m.csv}\nwhere: category in ['two', 'three'] and seed < 2\nseed: [1, 2]\n")
    assert [plan.labels(index)["category"] for index in range(len(plan))] == ["two", "three"]
    whole = plan_of("zip: {file: m.csv, columns: [model], limit: 1}\nprompt: x\nwhere: category = 'one'\n")
    assert len(whole) == 1
    with pytest.raises(SweepError, match="unknown name 'categry': did you mean 'category'"):
        plan_of("zip: {file: p.csv}\nwhere: categry = 'animal'\n")


def test_a_preview_names_the_labels(plan_of):
    """`plan` says what jobs can be chosen by, and what the jobs that it shows are called."""
    seen = preview(plan_of("zip: {file: p.csv}\n"), sample=3).to_json()
    assert seen["labels"] == ["category", "year"]
    assert [job["labels"].get("year") for job in seen["sample"]] == ["1990", "5", None]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.sampled_from([None, "a long label of an animal", "b" * 30, "0", "-"]), min_size=1000, max_size=1200
    )
)
def test_many_labels_are_kept_by_number(texts):
    """Few texts of many values stand once in the sweep that is kept, and are read as they were."""
    written = written_labels({"prompt": {"kind": texts}})
    assert check_labels(written)["prompt"]["kind"] == tuple(texts)
    kept = written["prompt"]["kind"]
    size = len(kept) if isinstance(kept, str) else sum(map(len, kept.values()))
    assert size <= 2 * (2 * len(texts) + 60)


@pytest.mark.parametrize(
    "value", [{"texts": "a"}, {"texts": "a", "rows": "1"}, {"texts": "a", "rows": "x"}, {"rows": "0"}]
)
def test_wrong_numbers_of_labels_are_refused(value):
    """What is not as Printroom writes it is refused with how a person would write it."""
    with pytest.raises(
        SweepError, match="kind is a mapping: write a list, or a text with a line for each value"
    ):
        sweep_from_mapping({"prompt": "x", "labels": {"prompt": {"kind": value}}})
