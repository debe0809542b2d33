"""A job's fields are listed in one table; the code derives the rest from it."""

import ast
from pathlib import Path
from typing import get_type_hints

import pytest

from shared.job import JOB_FIELDS, RECIPE_FIELDS, Job, make_job

_ROOT = Path(__file__).parents[2]

#: A statement that spells as many of the fields is a listing.
_FIELDS_OF_A_LISTING = 4

#: Module and kind of syntax -> (how many listings it may have, why they are not made from the table).
_ALLOWED = {
    ("shared/job.py", "ClassDef"): (1, "the typed tuple itself"),
    ("shared/job.py", "Tuple"): (1, "the table itself"),
    ("shared/names.py", "FunctionDef"): (1, "the arguments are what a queue's name is made of"),
    ("shared/plan.py", "ClassDef"): (1, "Bucket: typed for mypy; an encoder belongs to it too"),
    ("producer/language/fields.py", "Dict"): (1, "the check of each field: new fields bring one"),
    ("producer/language/parts.py", "ClassDef"): (1, "the pydantic model of a case"),
    ("producer/language/prompt_files/column_names.py", "Dict"): (1, "names in other programs' tables"),
    ("producer/language/prompt_files/columns.py", "Tuple"): (1, "columns that only our own rows have"),
    ("producer/language/prompt_files/options.py", "Dict"): (1, "options of another program's prompt lines"),
    ("producer/language/schema.py", "Dict"): (2, "the JSON schema of each field, and its words"),
    ("producer/language/sweep.py", "ClassDef"): (1, "the pydantic model of a sweep"),
    ("producer/planning/compile.py", "Tuple"): (1, "an order of axes, which plans in stores depend on"),
    ("producer/preview/failures.py", "Tuple"): (1, "the fields that the checks of pipelines read"),
    ("producer/preview/rates.py", "Tuple"): (1, "the columns that decide how long an image takes"),
    ("producer/results/manifest_row.py", "ClassDef"): (
        1,
        "a row typed for mypy; a test compares it with the schema",
    ),
    ("producer/sheet/sweep_sheet.py", "Tuple"): (2, "orders of preference for a sheet's two sides"),
    ("worker/sampling/request.py", "ClassDef"): (1, "what the sampler reads, typed for mypy"),
}


def spelled(node: ast.AST) -> set[str]:
    """Return the fields of a job that a node spells itself: keys, items, arguments, attributes of a class."""
    match node:
        case ast.Dict(keys=keys):
            found = [key.value for key in keys if isinstance(key, ast.Constant)]
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            found = [text for item in items if (text := first_text(item)) is not None]
        case ast.Call(keywords=keywords):
            found = [keyword.arg for keyword in keywords]
        case ast.ClassDef(body=body):
            found = [
                line.target.id
                for line in body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            ]
        case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
            found = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
        case _:
            found = []
    return set(RECIPE_FIELDS).intersection(found)


def first_text(item: ast.expr) -> str | None:
    """Return the text of an item: its own, or the one that a pair or a call begins with, or a call's name."""
    if isinstance(item, ast.Constant) and isinstance(item.value, str):
        return item.value
    if isinstance(item, ast.Tuple) and item.elts:
        return first_text(item.elts[0])
    if isinstance(item, ast.Call):
        named = [word.value for word in item.keywords if word.arg == "name"]
        return next((text for part in (*item.args, *named) if (text := first_text(part)) is not None), None)
    return None


def listings(code: str) -> list[tuple[str, int]]:
    """Return the kind of syntax and the line of each listing of a job's fields."""
    return [
        (type(node).__name__, node.lineno)
        for node in ast.walk(ast.parse(code))
        if len(spelled(node)) >= _FIELDS_OF_A_LISTING
    ]


def test_table_and_tuple_agree():
    """The table has exactly the fields of Job, in the canonical order, with the types that Job declares."""
    assert (*RECIPE_FIELDS, "id") == Job._fields
    hints = get_type_hints(Job)
    for field in JOB_FIELDS:
        declared = hints[field.name]
        assert set(field.types) == set(getattr(declared, "__args__", (declared,)))


@pytest.mark.parametrize(
    "code",
    [
        "x = {'seed': 1, 'steps': 2, 'width': 3, 'height': 4}",
        "x = ('seed', 'steps', 'width', 'height')",
        "x = [column('seed'), column('steps'), column('width'), column(name='height')]",
        "f(seed=1, steps=2, width=3, height=4)",
        "def f(*, seed, steps, width, height): ...",
        "class A:\n    seed: int\n    steps: int\n    width: int\n    height: int",
    ],
)
def test_a_listing_is_found(code):
    """Each way to list fields is seen, and three fields are no listing."""
    assert len(listings(code)) == 1
    assert listings(code.replace("seed", "other")) == []


def test_no_new_listings():
    """No module lists a job's fields but those that are named here with a reason."""
    found: dict[tuple[str, str], int] = {}
    for package in ("shared", "producer", "worker"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            for kind, _ in listings(path.read_text()):
                place = (path.relative_to(_ROOT).as_posix(), kind)
                found[place] = found.get(place, 0) + 1
    assert found == {place: count for place, (count, _) in _ALLOWED.items()}


@pytest.mark.parametrize("change", [{"sted": 1}, {"steps": None}])
def test_make_job_wants_exactly_the_fields(change):
    """A field that is missing or misspelled is refused with its name."""
    values = {field.name: field.types[0]() for field in JOB_FIELDS} | change
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(TypeError, match=f"check {next(iter(change))}"):
        make_job(**values)
