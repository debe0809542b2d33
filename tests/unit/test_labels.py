"""Vars, styles and replaced words: values of a job for people, in manifests, filters and sheets, and not in ids."""

import pytest

from producer.language.sweep import parse_sweep
from producer.planning.compile import compile_sweep
from producer.results.rows import manifest_rows, why_nothing
from producer.results.search import search_rows, why_nothing_found
from producer.results.where import parse_where, read_where
from producer.sheet.sweep_sheet import _cells as cells_of
from producer.sheet.sweep_sheet import _layout as layout_of
from producer.sheet.sweep_sheet import sweep_sheet
from shared import names
from shared.errors import UsageError
from shared.fingerprint import ResolvedModel
from shared.manifest import read_manifest, write_manifest
from shared.plan import Plan
from shared.result import Failed

SWEEP = """
name: styled
prompt: a {animal} on grass
vars: {animal: [cat, dog]}
replace: {grass: [grass, snow]}
style: [null, sunny, gloomy]
styles:
  sunny: {prompt: "{prompt}, sunny"}
  gloomy: {prompt: "{prompt}, gloomy", negative_prompt: sun}
seed: [1, 2]
size: 64x64
"""


@pytest.fixture
def plan():
    """The plan of a sweep with a var, a replaced word and styles."""
    return compiled(SWEEP)


def compiled(text):
    """Return the plan of a sweep's text."""
    return compile_sweep(
        parse_sweep(text), resolve=lambda name: ResolvedModel(name=name, fingerprint="sha:" + "0" * 32)
    )


@pytest.fixture
def store(plan, folder_store, now):
    """A store with a manifest of every job, all failed: rows are rows."""
    for number in range(plan.chunks):
        chunk = plan.chunk(number)
        rows = [
            Failed(
                index=i,
                job=plan.job(i),
                code="job_crashed",
                reason="why",
                attempt=1,
                worker="w",
                finished_at=now,
                labels=plan.labels(i),
            )
            for i in range(chunk.start, chunk.stop)
        ]
        data = write_manifest(rows, sweep=plan.id, chunk=number)
        assert [row.labels for row in read_manifest(data)] == [row.labels for row in rows]
        folder_store.put(names.manifest_key(plan.id, number), data, content_type="x")
    return folder_store


@pytest.fixture
def now():
    """A moment."""
    from datetime import UTC, datetime

    return datetime(2026, 1, 1, tzinfo=UTC)


def test_each_job_has_what_made_it(plan):
    """The labels of a job say which var, word and style its prompt has; null is left out."""
    assert plan.label_names == ("style", "animal", "grass")
    assert len({tuple(sorted(plan.labels(i).items())) for i in range(len(plan))}) == 12
    for index, job in plan.jobs():
        labels = plan.labels(index)
        assert f"a {labels['animal']} on {labels['grass']}" in job.prompt
        assert job.prompt.endswith(labels.get("style", labels["grass"]))
        assert (job.negative_prompt == "sun") == (labels.get("style") == "gloomy")


def test_labels_are_in_no_id(plan):
    """The same images asked for by plain prompts are the same jobs; a sweep without labels has none."""
    plain = compiled("prompt: [a cat on grass, 'a cat on grass, sunny']\nseed: [1, 2]\nsize: 64x64\n")
    assert {job.id for _, job in plain.jobs()} < {job.id for _, job in plan.jobs()}
    assert (plain.label_names, plain.labels(0)) == ((), {})
    assert Plan.from_bytes(plan.to_bytes()).labels(5) == plan.labels(5)


def test_rows_are_chosen_by_labels(plan, store):
    """A label is named like a field where the sweep is known, and as label:NAME anywhere; a typo is told of."""
    for condition, found in (
        ("style=sunny", 8),
        ("style=null", 8),
        ("animal~CA", 12),
        ("label:grass=snow", 12),
        ("style!=sunny", 16),
    ):
        rows = list(manifest_rows(plan.id, store, where=read_where([condition], plan.label_names)))
        assert len(rows) == found, condition
    assert (
        len(
            list(
                manifest_rows(
                    plan.id, store, where=read_where({"animal": "dog", "seed": 1}, plan.label_names)
                )
            )
        )
        == 6
    )
    assert list(manifest_rows(plan.id, store, where=parse_where(["label:nonesuch=1"]))) == []
    with pytest.raises(UsageError, match="no field 'stile': did you mean 'style'"):
        read_where(["stile=sunny"], plan.label_names)


def test_sheets_are_laid_out_by_labels(plan, store):
    """Without a word a sheet has the sweep's own axes, and no place that the sweep does not have."""
    cells = cells_of(plan.id, plan, store, {}, None, jobs_max=100)
    down, across = layout_of(cells, None, None)
    assert (down[0], {*down[1:], *across} <= {"seed", "animal", "grass"}) == ("style", True)
    some = cells_of(
        plan.id, plan, store, read_where(["style=sunny", "animal=cat"], plan.label_names), None, jobs_max=100
    )
    assert len(some) == 4
    assert sweep_sheet(plan.id, plan, store, rows="style", columns="animal", where={}).width > 100


def test_a_word_that_is_a_column_is_told_apart():
    """A replaced word `seed` is `var.seed`: the seed stays the job's, and the sheet has every job."""
    plan = compiled(
        "prompt: photo of a seed\nreplace: {seed: [nut, pip]}\nseed: {start: 0, count: 3}\nsize: 64x64\n"
    )
    assert plan.label_names == ("var.seed",)
    assert [plan.labels(i)["var.seed"] for i in range(6)].count("pip") == 3
    assert {plan.job(i).seed for i in range(6)} == {0, 1, 2}


def test_all_sweeps_are_searched_by_their_own_labels(plan, store):
    """`find` knows each sweep's labels; a field that no sweep has is an error."""
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="x")
    other = compiled("prompt: plain\nsize: 64x64\n")
    store.put(names.plan_key(other.id), other.to_bytes(), content_type="x")
    assert len(list(search_rows(store, ["style=sunny", "animal=dog"]))) == 4
    assert len(list(search_rows(store, "style=sunny"))) == 8
    with pytest.raises(UsageError, match="no field 'stile'"):
        list(search_rows(store, ["stile=sunny"]))
    with pytest.raises(UsageError, match="column 18: unknown name 'stile': did you mean 'style'"):
        list(search_rows(store, "animal='dog' and stile='sunny'"))


def test_a_search_that_finds_nothing_says_which_values_there_are(plan, store):
    """In one sweep that has the fields; a value in quotes is told of too. Without a sweep there is nothing to say."""
    assert why_nothing_found(store, ["seed=5"]) == []
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="x")
    (said,) = why_nothing_found(store, ["style=rainy"])
    assert said.startswith(f"in {plan.name}: label:style=rainy: 0 rows by itself; label:style is ")
    assert (
        "an expression begins with a bracket: (prompt='a cat')"
        in why_nothing_found(store, "prompt='a cat'")[-1]
    )


@pytest.mark.parametrize("recorded", [{}, {"style": "rainy"}])
def test_rows_have_the_labels_of_their_plan(plan, folder_store, now, recorded):
    """Rows recorded with no labels or others are found by the plan's, shown with them, and told of by them."""
    chunk = plan.chunk(0)
    rows = [
        Failed(
            index=i,
            job=plan.job(i),
            code="x",
            reason="y",
            attempt=1,
            worker="w",
            finished_at=now,
            labels=recorded,
        )
        for i in range(chunk.start, chunk.stop)
    ]
    data = write_manifest(rows, sweep=plan.id, chunk=0)
    folder_store.put(names.manifest_key(plan.id, 0), data, content_type="x")
    folder_store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="x")
    where = read_where(["style=sunny"], plan.label_names)
    assert list(manifest_rows(plan.id, folder_store, where=where)) == []
    found = list(manifest_rows(plan.id, folder_store, where=where, plan=plan))
    assert [row["labels"] for row in found] == [plan.labels(row["index"]) for row in found]
    assert (
        len(found) == sum(plan.labels(i).get("style") == "sunny" for i in range(chunk.start, chunk.stop)) > 0
    )
    assert len(list(search_rows(folder_store, "style=sunny"))) == len(found)
    (said,) = why_nothing(plan.id, folder_store, read_where(["style=rainy"], plan.label_names), plan=plan)
    assert f"'sunny' ({len(found)})" in said


def test_a_sheet_compares_with_a_label(plan, store):
    """--diff knows labels by their names, as --where does."""
    from producer.sheet.sweep_sheet import _baseline as baseline_of

    cells = cells_of(plan.id, plan, store, {}, None, jobs_max=100)
    baseline = baseline_of(cells, ["style=null"], plan)
    assert (baseline.field, baseline.value) == ("style", None)
    assert baseline_of(cells, {"animal": "dog"}, plan).value == "dog"
    with pytest.raises(UsageError, match="write one field=value"):
        baseline_of(cells, ["style='sunny' or seed=1"], plan)
