"""What a sweep reads from files stands in it afterwards, to the letter, and each value knows its file and line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from producer.language.document import Located, read_yaml
from producer.language.fields import FIELDS
from producer.language.include import assemble
from producer.language.prompt_files import read as sources
from producer.language.prompt_files.columns import AXES
from producer.language.prompt_files.read import Inlined, SourceFile, inline_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a sweep's folder with files of each kind."""
    texts = {
        "prompts.txt": "\ufeffa cat\r\n\r\n  edge \r\n0\r\n",
        "t.csv": 'caption,neg,seed,scale\n"a, cat",,7,7.5\nb,ugly,8,1e1\n',
        "own.csv": "prompt,seed,animal,my note\na {animal},1,cat,x\nan {animal},2,,y\n",
        "bad.csv": "prompt,seed\na\nb,2\n,3\nd,4x\n",
        "Prompt.tsv": 'Prompt\tNote\n"a\tb\n',
        "t.jsonl": '{"text": "a", "seed": 1, "box": [1]}\n\n{"text": "b"}\n',
        "list.json": '["x", "y"]',
        "seeds.txt": "3\n 4 \n5.5\nx\n",
        "lib/inner.txt": "inner\n",
        "lib/common.yaml": "prompt: {file: inner.txt}",
        "hf/metadata.jsonl": '{"file_name": "a.png", "text": "a cat"}\n{"file_name": "b.png", "text": "a dog"}\n',
        "two/metadata.csv": "file_name,text\na,b\n",
        "two/metadata.jsonl": "{}",
        "split/train/metadata.csv": "file_name,text\na,b\n",
        "empty.txt": "\n",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(text.encode())
    columns = {"prompt": ["p", "q"], "seed": [1, 2], "image": [b"x", b"y"]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path


def inlined(folder: Path | None, text: str) -> Inlined:
    """Return a sweep's text with its files read."""
    document = read_yaml(text, filename="sweep.yaml")
    path = None if folder is None else folder / "sweep.yaml"
    return inline_sources(assemble(document, path=path), folder=folder)


def said(found: Inlined) -> list[str]:
    """Return the problems as a person reads them."""
    return [problem.in_words("sweep.yaml") for problem in found.document.problems]


def place(found: Inlined, *keys: str | int) -> str:
    """Return where a value stands, as a problem of it would say."""
    located: Located = found.document.located
    for key in keys:
        located = located.children[key]
    return located.problem("!").in_words("sweep.yaml").removesuffix(": !")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt: {file: prompts.txt}", {"prompt": ["a cat", "  edge ", "0"]}),
        ("prompt: {file: prompts.txt, offset: 1, limit: 1}", {"prompt": ["  edge "]}),
        ("prompt: {file: t.csv, column: caption}", {"prompt": ["a, cat", "b"]}),
        ("negative_prompt: {file: t.csv, column: neg}", {"negative_prompt": [None, "ugly"]}),
        ("seed: {file: t.csv}", {"seed": [7, 8]}),
        ("guidance_scale: {file: t.csv, column: scale}", {"guidance_scale": [7.5, 10.0]}),
        ("seed: {file: seeds.txt}", {"seed": [3, 4, "5.5", "x"]}),
        ("prompt: {file: t.jsonl, column: text}", {"prompt": ["a", "b"]}),
        ("prompt: {file: t.parquet}", {"prompt": ["p", "q"]}),
        ("prompt: {folder: hf, column: text}", {"prompt": ["a cat", "a dog"]}),
        (
            "prompt: [first, {file: list.json}, {file: prompts.txt, limit: 1}, last]",
            {"prompt": ["first", "x", "y", "a cat", "last"]},
        ),
        ("negative_prompt: [null, {preset: quality}]", {"negative_prompt": [None, {"preset": "quality"}]}),
        ("vars: {animal: {file: list.json}, n: [1]}", {"vars": {"animal": ["x", "y"], "n": [1]}}),
        ("vars: {caption: {file: t.csv}}", {"vars": {"caption": ["a, cat", "b"]}}),
        ("vars: {neg: {file: t.csv}}", {"vars": {"neg": ["", "ugly"]}}),
        ("replace: {cat: [cat, {file: list.json}]}", {"replace": {"cat": ["cat", "x", "y"]}}),
        (
            "zip: {file: t.csv, columns: {prompt: caption, negative_prompt: neg, seed: seed, guidance_scale: scale}}",
            {
                "zip": {
                    "prompt": ["a, cat", "b"],
                    "negative_prompt": [None, "ugly"],
                    "seed": [7, 8],
                    "guidance_scale": [7.5, 10.0],
                }
            },
        ),
        (
            "zip: [{file: own.csv}, {prompt: {file: list.json}, seed: [1, 2]}]",
            {
                "zip": [
                    {"prompt": ["a {animal}", "an {animal}"], "seed": [1, 2], "animal": ["cat", ""]},
                    {"prompt": ["x", "y"], "seed": [1, 2]},
                ]
            },
        ),
        (
            "zip: {file: t.jsonl, columns: {prompt: text, seed: seed}}",
            {"zip": {"prompt": ["a", "b"], "seed": [1, None]}},
        ),
        ("zip: {file: t.parquet, columns: [prompt, seed]}", {"zip": {"prompt": ["p", "q"], "seed": [1, 2]}}),
        ("zip: {folder: hf, columns: {prompt: text}}", {"zip": {"prompt": ["a cat", "a dog"]}}),
        ("zip: {folder: [a, b], prompt: [c, d]}", {"zip": {"folder": ["a", "b"], "prompt": ["c", "d"]}}),
        ("include: lib/common.yaml", {"prompt": ["inner"]}),
        ("wildcards: lib\nstyles: x.csv\nname: a\nseed: {count: 3}", None),
    ],
)
def test_files_become_values(folder: Path, text: str, expected: dict[str, Any] | None) -> None:
    """Every place in which a file may stand, and that nothing else is touched."""
    found = inlined(folder, text)
    assert [] == said(found)
    values = {key: value for key, value in found.document.value.items() if key != "labels"}
    assert (read_yaml(text, filename="x").value if expected is None else expected) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt: {file: t.csv, column: caption}", {"prompt": {"scale": "7.5\n1e1\n"}}),
        (
            "prompt: [first, {folder: hf, column: text}, last]",
            {"prompt": {"file_name": "\na.png\nb.png\n\n"}},
        ),
        ("vars: {neg: {file: t.csv, labels: scale}}", {"neg": {"scale": "7.5\n1e1\n"}}),
        ("zip: {file: own.csv}", {"prompt": {"my note": "x\ny\n"}}),
        ("zip: {file: own.csv, labels: none}", None),
        ("zip: {file: own.csv, columns: [seed], labels: [animal]}", {"seed": {"animal": "cat\n\n"}}),
        (
            "zip: {file: own.csv}\nlabels: {prompt: {mine: [1, 2]}}",
            {"prompt": {"my note": "x\ny\n", "mine": [1, 2]}},
        ),
        ("prompt: {file: t.jsonl, column: text}", None),  # boxes are no labels, nor are seeds
        ("model: {file: own.csv, column: my note}", {"model": {"animal": "cat\n\n"}}),
    ],
)
def test_other_columns_of_a_file_are_labels(folder: Path, text: str, expected: dict[str, Any] | None) -> None:
    """What is no part of a job stands beside the values of the axis, a line for each; none is an empty line."""
    found = inlined(folder, text)
    assert [] == said(found)
    assert expected == found.document.value.get("labels")


def test_rows_of_ours_bring_their_labels(folder: Path) -> None:
    """Of all that Printroom says of an image only the labels are for people."""
    rows = [
        {"job_id": "a", "prompt": "p", "guidance_rule": None, "scheduler": "euler", "model": "m", "key": "k"}
        | {"labels": labels}
        for labels in ({"style": "sunny"}, None, '{"style": "gloomy", "year": 5}')
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = inlined(folder, "zip: {file: rows.jsonl, columns: [prompt]}")
    assert {"style": "sunny\n\ngloomy\n", "year": "\n\n5\n"} == found.document.value["labels"]["prompt"]


def test_columns_that_hold_no_labels_are_said(folder: Path) -> None:
    """Captions and lists are left out with a word, and refused where they are asked for."""
    rows = [{"prompt": "p", "long": "x" * 600, "tags": ["a"], "kind": True}]
    (folder / "odd.jsonl").write_text(json.dumps(rows[0]))
    found = inlined(folder, "zip: {file: odd.jsonl}")
    assert {"prompt": {"kind": "true\n"}} == found.document.value["labels"]
    assert (
        "'long' left out: it has texts of more than 500 characters",
        "'tags' left out: it has a list in it",
        "labels: kind",
    ) == found.files[0].read_as
    assert (
        "'tags' that is no label: it has a list in it"
        in said(inlined(folder, "zip: {file: odd.jsonl, labels: tags}"))[0]
    )
    assert (
        "has no column 'knd': did you mean 'kind'?"
        in said(inlined(folder, "zip: {file: odd.jsonl, labels: [knd]}"))[0]
    )


def test_a_rule_in_a_cell_is_a_name_or_a_mapping(folder: Path) -> None:
    """A guidance rule of several fields fits in a cell of a CSV as it is written in a sweep."""
    (folder / "r.csv").write_text(
        "guidance_rule;seed\napg;1\n{rescale: 0.7, interval: [0, 1]};2\n;3\n{bad;4\n"
    )
    found = inlined(folder, "zip: {file: r.csv, delimiter: ;}")
    expected = ["apg", {"rescale": 0.7, "interval": [0, 1]}, None, "{bad"]
    assert (expected, []) == (found.document.value["zip"]["guidance_rule"], said(found))


def test_each_value_remembers_its_file_and_line(folder: Path) -> None:
    """Lines of text files, rows of Parquet, items of a JSON list; values of the sweep keep their own."""
    found = inlined(
        folder,
        "prompt:\n- first\n- {file: prompts.txt}\n- {file: list.json}\n- last\nseed: {file: t.parquet}\n",
    )
    assert "sweep.yaml, line 2" == place(found, "prompt", 0)
    assert "prompts.txt, line 3" == place(found, "prompt", 2)
    assert "list.json, item 2" == place(found, "prompt", 5)
    assert "sweep.yaml, line 5" == place(found, "prompt", 6)
    assert "t.parquet, row 2" == place(found, "seed", 1)
    assert "sweep.yaml, line 6" == place(found, "seed")
    found = inlined(folder, "include: lib/common.yaml\nzip: {file: t.csv, columns: {prompt: caption}}")
    assert "lib/inner.txt, line 1" == place(found, "prompt", 0)
    assert "lib/common.yaml, line 1" == place(found, "prompt")
    assert "t.csv, line 3" == place(found, "zip", "prompt", 1)
    with pytest.raises(KeyError):
        place(found, "prompt", 1)


def test_files_are_listed_with_their_hashes(folder: Path) -> None:
    """What the values came from can be told later, by content."""
    found = inlined(
        folder, "prompt: {file: prompts.txt, limit: 2}\nzip: {folder: hf, columns: {animal: text}}"
    )
    hashes = [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("prompts.txt", "hf/metadata.jsonl")
    ]
    expected = (
        SourceFile(path="prompts.txt", sha256=hashes[0], values=2),
        SourceFile(path="hf/metadata.jsonl", sha256=hashes[1], values=2, read_as=("labels: file_name",)),
    )
    assert expected == found.files


_PROMPTS = st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(prompts=_PROMPTS, before=st.integers(0, 2), after=st.integers(0, 2))
def test_a_file_spliced_is_its_values_in_place(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], before: int, after: int
) -> None:
    """A list with a file in it is the list with the file's values there, any text whatever, each with its line."""
    base = tmp_path_factory.getbasetemp()
    (base / "p.jsonl").write_text("\n".join(json.dumps({"p": prompt}) for prompt in prompts))
    items = ["a"] * before + ["{file: p.jsonl, column: p}"] + ["b"] * after
    found = inlined(base, f"prompt: [{', '.join(items)}]")
    assert ["a"] * before + prompts + ["b"] * after == found.document.value["prompt"]
    lines = [place(found, "prompt", before + number) for number in range(len(prompts))]
    assert [f"p.jsonl, line {number + 1}" for number in range(len(prompts))] == lines


def test_what_is_left_reads_the_same_without_files(folder: Path) -> None:
    """Inlining twice is inlining once: the result names no file."""
    text = "prompt: [a, {file: prompts.txt}]\nzip: [{file: own.csv}]\nvars: {b: {file: list.json}}"
    once = inlined(folder, text).document
    again = inline_sources(once, folder=None)
    assert (once.value, ()) == (again.document.value, again.files)


def test_an_alias_of_a_file_is_read_in_both_places(folder: Path) -> None:
    """Copies are made, so one place cannot change the other."""
    found = inlined(folder, "prompt: &p {file: list.json}\nnegative_prompt: *p")
    assert {"prompt": ["x", "y"], "negative_prompt": ["x", "y"]} == found.document.value


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "prompt: {file: promts.txt}",
            [
                "sweep.yaml, line 1: prompt: file='promts.txt': there is no such file: did you mean 'prompts.txt'?"
            ],
        ),
        (
            "prompt: {file: hf}",
            ["sweep.yaml, line 1: prompt: file='hf': this is a folder: name a file in it"],
        ),
        ("prompt: {file: 5}", ["sweep.yaml, line 1: prompt: file=5: write the name of a file"]),
        (
            "prompt: {file: empty.txt}",
            [
                "sweep.yaml, line 1: prompt: file='empty.txt': no values: the file is empty: write at least one"
            ],
        ),
        (
            "prompt: {file: list.json, offset: 2}",
            ["sweep.yaml, line 1: prompt: file='list.json': offset=2 leaves no row: use a smaller one"],
        ),
        (
            "prompt:\n  file: prompts.txt\n  comments: 1\n  limit: 0\n  offset: -1\n  colum: a",
            [
                "sweep.yaml, line 6: prompt: unknown key 'colum': did you mean 'column'?",
                "sweep.yaml, line 3: prompt: comments=1: write true or false",
                "sweep.yaml, line 4: prompt: limit=0: write a whole number of 1 or more",
                "sweep.yaml, line 5: prompt: offset=-1: write a whole number of 0 or more",
            ],
        ),
        (
            "prompt: {file: t.csv, quoting: all, delimiter: ab}",
            [
                "sweep.yaml, line 1: prompt: quoting='all': write none (a quote is a quote) or csv",
                "sweep.yaml, line 1: prompt: delimiter='ab': write one character: ';', or tab, or none for one column",
            ],
        ),
        (
            "prompt: {file: prompts.txt, column: a}",
            ["sweep.yaml, line 1: prompt: file='prompts.txt': a text file has no columns: remove 'column'"],
        ),
        (
            "prompt: {file: t.csv, comments: true}",
            ["sweep.yaml, line 1: prompt: file='t.csv': comments is for .txt: remove it"],
        ),
        (
            "prompt: {file: a.txt, folder: b}",
            ["sweep.yaml, line 1: prompt: both file and folder: keep one of them"],
        ),
        (
            "style: {file: t.csv}",
            [
                "sweep.yaml, line 1: style: 't.csv' has the columns 'caption', 'neg', 'seed', 'scale': "
                "say which one: 'column: ...'"
            ],
        ),
        (
            "prompt: {file: t.csv, column: captoin}",
            ["sweep.yaml, line 1: prompt: 't.csv' has no column 'captoin': did you mean 'caption'?"],
        ),
        (
            "prompt: {file: t.csv, column: 5}",
            ["sweep.yaml, line 1: prompt: column is the number 5: write a column's name"],
        ),
        (
            "zip: {file: bad.csv}",
            [
                "bad.csv, line 2: 1 cell under 2 columns: give it one a column, in quotes where it holds the delimiter",
                "bad.csv, line 4: prompt is empty: write it or remove the row; an empty prompt stands in the sweep "
                "itself, or in .jsonl",
            ],
        ),
        (
            "zip: {file: list.json}",
            ["sweep.yaml, line 1: zip: 'list.json' has no columns: write 'zip: {prompt: {file: ...}}'"],
        ),
        (
            "zip:\n  file: t.csv\n  columns:\n    Prompt: caption\n    my var: caption\n    seed: 5",
            [
                "sweep.yaml, line 6: zip: columns: seed is the number 5: write a column's name, in quotes",
                "sweep.yaml, line 4: zip: 'Prompt' is no field: did you mean 'prompt'?",
                "sweep.yaml, line 5: zip: 'my var' is no name: use letters, digits and _, beginning with a letter",
            ],
        ),
        (
            "zip: {file: t.csv, columns: {prompt: captoin, seed: sed}}",
            [
                "sweep.yaml, line 1: zip: 't.csv' has no column 'captoin': did you mean 'caption'?; "
                "has no column 'sed': did you mean 'seed'?"
            ],
        ),
        (
            "zip: {file: t.csv, columns: caption}",
            ["sweep.yaml, line 1: zip: columns is text: write {prompt: name of a column}"],
        ),
        (
            "zip: {file: t.csv, seed: [1, 2]}",
            [
                "sweep.yaml, line 1: zip: unknown key 'seed': use file, folder, columns, labels, delimiter, quoting, "
                "encoding, limit, offset"
            ],
        ),
        (
            "zip: {folder: two}",
            [
                "sweep.yaml, line 1: zip: folder='two': it has metadata.csv and metadata.jsonl: name the one you mean: "
                "'file:'"
            ],
        ),
        (
            "zip: {folder: split}",
            [
                "sweep.yaml, line 1: zip: folder='split': it has no metadata.csv, metadata.jsonl or metadata.parquet: "
                "train has one: name that folder"
            ],
        ),
        (
            "zip: {folder: spilt}",
            ["sweep.yaml, line 1: zip: folder='spilt': there is no such folder: did you mean 'split'?"],
        ),
        (
            "vars: {file: t.csv}",
            ["sweep.yaml, line 1: vars: the columns of a file are a zip group: write 'zip: {file: t.csv}'"],
        ),
    ],
)
def test_a_wrong_source_names_place_and_fix(folder: Path, text: str, problems: list[str]) -> None:
    """Every way to name a file wrongly has a message, at the line to fix; what is wrong in a file, at its line."""
    found = inlined(folder, text)
    assert problems == said(found)


def test_refused_places_are_marked(folder: Path) -> None:
    """A later reader does not complain again of what could not be read."""
    found = inlined(
        folder, "prompt: {file: no.txt}\nseed: [1, {file: no.txt}]\nzip: [{folder: false}, {file: bad.csv}]"
    )
    children = found.document.located.children
    assert children["prompt"].refused
    assert children["seed"].refused
    groups = children["zip"].children
    assert groups[0].refused
    prompts = groups[1].children["prompt"].children
    assert [False, True, False] == [row.refused for row in prompts.values()]
    assert not groups[1].children["seed"].children[1].refused


def test_text_from_elsewhere_names_no_file() -> None:
    """Without a folder no file is looked for in whatever folder the program stands."""
    text = "prompt: file='a.txt': this sweep is no file, so none stands beside it: write the values out"
    assert [f"sweep.yaml, line 1: {text}"] == said(inlined(None, "prompt: {file: a.txt}"))


def test_all_files_together_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files of an allowed size do not make a sweep of any size."""
    monkeypatch.setattr(sources, "VALUES_MAX", 4)
    found = inlined(folder, "prompt: {file: prompts.txt}\nnegative_prompt: {file: list.json}")
    text = "negative_prompt: file='list.json': more than 4 values in all files: set a limit"
    assert [f"sweep.yaml, line 2: {text}"] == said(found)


def test_every_field_of_a_job_may_come_from_a_file() -> None:
    """A field that is added to the sweep is not forgotten here."""
    assert set(FIELDS) <= set(AXES)
