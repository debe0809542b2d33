"""A plan holds every combination of its sweep once, in a fixed order, under an id that never changes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.language.sweep import Sweep, default_size, parse_sweep, size_sides, sweep_from_mapping
from producer.planning.compile import compile_sweep
from shared.errors import ModelUnknown
from shared.fingerprint import ResolvedModel
from shared.job import Job, make_job
from shared.plan import SWEEP_JOBS_MAX, Plan

ROOT = Path(__file__).parents[2]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt": TEXTS,
    "negative_prompt": st.none() | TEXTS,
    "seed": st.integers(0, 3) | st.integers(0, 2**64 - 1),
    "guidance_scale": st.sampled_from([0, 1, 1.5, 7.5]),
    "guidance_rule": st.sampled_from([None, "apg", "perp_neg", {"rescale": 0.7}]),
    "steps": st.integers(1, 40),
    "scheduler": st.sampled_from(["ddim", "Euler a", "euler_a", "unipc"]),
    "size": st.sampled_from([64, "64x64", "64x96", 512]),
    "model": st.sampled_from(["one", "two", "also-one", "portraits"]),
}


def resolve(name: str) -> ResolvedModel:
    """Name models by themselves; `also-one` is the same weights as `one`."""
    return ResolvedModel(name=name, fingerprint=f"sha:{name.removeprefix('also-')}")


def compiled(text: str) -> Plan:
    """Compile the text of a sweep."""
    return compile_sweep(parse_sweep(text), resolve=resolve)


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    """Draw small sweeps: some axes, some cases that set other fields."""
    case_fields = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    always = {field: VALUES[field] for field in case_fields[::2]}
    sometimes = {field: VALUES[field] for field in case_fields[1::2]}
    cases = draw(st.lists(st.fixed_dictionaries(always, optional=sometimes), max_size=4))
    mapping: dict[str, Any] = {"prompt": draw(VALUES["prompt"])}
    for field in sorted(VALUES):
        if field not in case_fields or not cases:
            longest = 3 if field in ("prompt", "negative_prompt", "seed") else 2
            axis: st.SearchStrategy[Any] = st.lists(VALUES[field], min_size=1, max_size=longest)
            if field == "seed":
                axis |= st.fixed_dictionaries({"start": st.integers(0, 9), "count": st.integers(1, 4)})
            if field == "prompt" or draw(st.booleans()):
                mapping[field] = draw(axis)
    if cases:
        mapping["cases"] = cases
    return sweep_from_mapping(mapping)


def expected_jobs(sweep: Sweep) -> list[Job]:
    """Return every combination by plain loops, each bucket's repeats left out."""
    seeds = (
        sweep.seed
        if isinstance(sweep.seed, tuple)
        else range(sweep.seed.start, sweep.seed.start + sweep.seed.count)
    )
    jobs, seen = [], set()
    product = itertools.product(sweep.model, sweep.size or (None,), range(len(sweep.cases) or 1))
    for model, size, number in product:
        case = sweep.cases[number] if sweep.cases else None
        own = {field: getattr(case, field) for field in case.model_fields_set} if case else {}
        model = own.get("model", model)
        width, height = size_sides(own.get("size", size) or default_size(model))
        fingerprint = resolve(model).fingerprint
        if (fingerprint, width, height, number) in seen:
            continue
        seen.add((fingerprint, width, height, number))
        for scheduler, steps, rule, scale, seed, prompt, negative in itertools.product(
            sweep.scheduler,
            sweep.steps,
            sweep.guidance_rule,
            sweep.guidance_scale,
            seeds,
            sweep.prompt,
            sweep.negative_prompt,
        ):
            recipe: dict[str, Any] = {
                "scheduler": scheduler,
                "steps": steps,
                "guidance_rule": rule,
                "guidance_scale": scale,
                "seed": seed,
            }
            recipe |= {"prompt": prompt, "negative_prompt": negative, **own}
            recipe |= {"model": fingerprint, "width": width, "height": height}
            recipe.pop("size", None)
            jobs.append(make_job(**recipe))
    return jobs


@given(sweeps())
def test_a_plan_is_the_product_of_its_sweep(sweep: Sweep) -> None:
    """Every combination is in the plan as often as the sweep declares it, with the id that its content has."""
    plan = compile_sweep(sweep, resolve=resolve)
    assert Counter(expected_jobs(sweep)) == Counter(job for _, job in plan.jobs())


@given(sweeps())
def test_chunks_cover_the_plan_and_never_mix_buckets(sweep: Sweep) -> None:
    """Chunks are consecutive, complete and of one bucket; a bucket has one block; one model stays together."""
    plan = compile_sweep(sweep, resolve=resolve)
    chunks = [plan.chunk(number) for number in range(plan.chunks)]
    assert [index for chunk in chunks for index in range(chunk.start, chunk.stop)] == list(range(len(plan)))
    for chunk in chunks:
        buckets = {(job.model, job.width, job.height) for _, job in plan.jobs(chunk.start, chunk.stop)}
        assert buckets == {(chunk.bucket.model, chunk.bucket.width, chunk.bucket.height)}
    assert len(plan.buckets) == len(set(plan.buckets))
    models = [model for model, _ in itertools.groupby(bucket.model for bucket in plan.buckets)]
    assert len(models) == len(set(models))


@given(sweeps())
def test_a_plan_survives_its_bytes(sweep: Sweep) -> None:
    """Plan -> bytes -> plan is the same plan, with the same id and bytes."""
    plan = compile_sweep(sweep, resolve=resolve)
    again = Plan.from_bytes(plan.to_bytes())
    assert (again, again.id, again.to_bytes()) == (plan, plan.id, plan.to_bytes())


def test_the_order_of_axes_keeps_texts_innermost() -> None:
    """Model, size, scheduler, steps, rule, guidance, seed, cases, prompt, negative: the last varies fastest."""
    plan = compiled(
        """
        model: [one, two]
        size: [64, 96]
        scheduler: [ddim, euler]
        steps: [1, 2]
        guidance_rule: [cfg, apg]
        guidance_scale: [2, 3]
        seed: [5, 9]
        prompt: [a, b]
        negative_prompt: [null, c]
        """
    )
    fields = ("model", "width", "scheduler", "steps", "guidance_rule", "guidance_scale", "seed", "prompt")
    fields += ("negative_prompt",)
    values = [[getattr(job, field) for _, job in plan.jobs()] for field in fields]
    changes = [sum(a != b for a, b in itertools.pairwise(column)) for column in values]
    assert changes == [2**power - 1 for power in range(1, 10)]
    in_cases = compiled("seed: [1, 2]\ncases: [{steps: 1}, {steps: 2}]\nprompt: [a, b]")
    seen = [(job.seed, job.steps, job.prompt) for _, job in in_cases.jobs()]
    assert seen == list(itertools.product((1, 2), (1, 2), "ab"))


def test_cases_are_grouped_into_the_buckets_they_name() -> None:
    """Cases that set model or size land in one block per bucket, models side by side."""
    plan = compiled(
        """
        prompt: a
        size: [64, 128]
        cases: [{model: one, seed: 1}, {model: two, seed: 2}, {model: also-one, seed: 3}]
        """
    )
    assert [(bucket.model, bucket.width) for bucket in plan.buckets] == [
        ("sha:one", 64),
        ("sha:one", 128),
        ("sha:two", 64),
        ("sha:two", 128),
    ]
    assert [job.seed for _, job in plan.jobs()] == [1, 3, 1, 3, 2, 2]
    assert plan.models == {"sha:one": "one", "sha:two": "two"}


def test_a_case_overrides_any_single_value() -> None:
    """Each field of a case replaces the sweep's; what it does not set is the sweep's, or the default."""
    plan = compiled(
        """
        prompt: a
        negative_prompt: n
        seed: 1
        guidance_scale: 2
        steps: 3
        scheduler: ddim
        size: 512
        model: one
        cases:
        - {}
        - {prompt: b, seed: 4, guidance_scale: 5, guidance_rule: apg, steps: 6, scheduler: euler, model: two}
        - {negative_prompt: null, size: 64x96}
        """
    )
    jobs = [
        (j.prompt, j.negative_prompt, j.seed, j.guidance_scale, j.steps, j.scheduler) for _, j in plan.jobs()
    ]
    own = [("a", "n", 1, 2.0, 3, "ddim"), ("a", None, 1, 2.0, 3, "ddim"), ("b", "n", 4, 5.0, 6, "euler")]
    assert own == jobs
    assert [job.guidance_rule for _, job in plan.jobs()] == [None, None, '{"rule":"apg"}']
    buckets = [(bucket.model, bucket.width, bucket.height) for bucket in plan.buckets]
    assert [("sha:one", 512, 512), ("sha:one", 64, 96), ("sha:two", 512, 512)] == buckets


def test_blocks_share_their_axes() -> None:
    """An axis of a hundred prompts is stored once for all sizes."""
    plan = compiled(f"prompt: [{', '.join(f'p{n}' for n in range(100))}]\nsize: [64, 72, 80, 88]")
    assert len(plan.blocks) == 4
    assert len({block.axes for block in plan.blocks}) == 1
    assert [len(axis) for axis in plan.axes if "prompt" in axis.fields] == [100]


def test_models_have_sizes_of_their_own() -> None:
    """Without a size the default model draws 64x64, any other 512x512."""
    plan = compiled("prompt: a\nmodel: [portraits, other]")
    assert [bucket.width for bucket in plan.buckets] == [64, 512]


def test_chunks_are_cut_for_the_longest_job_of_their_block() -> None:
    """Cases' own step counts and rules decide, not the default that none of them uses."""
    plan = compiled(
        "prompt: a\nsize: 512\nsteps: 1000\ncases: [{steps: 10}, {steps: 30}]\nseed: {count: 500}"
    )
    assert plan.chunk(0).stop == 64
    plan = compiled("prompt: a\nsize: 512\nsteps: [30, 60]\nseed: {count: 500}")
    assert plan.chunk(0).stop == 32
    four_rows = "{rule: perp_neg, negatives: {hat: 1}}"
    for rules in (
        f"guidance_rule: [cfg, {four_rows}]",
        f"cases: [{{guidance_rule: {four_rows}}}, {{guidance_rule: apg}}]",
    ):
        plan = compiled(f"prompt: a\nsize: 512\nsteps: 30\nseed: {{count: 500}}\n{rules}")
        assert plan.chunk(0).stop == 32


SAME = [
    "prompt: [a, b]\nnegative_prompt: null\nseed: {start: 3, count: 2}\nguidance_scale: 7\nsize: 64\nname: sweep",
    "seed: [3, 4]\nsize: [64x64]\nguidance_scale: [7.0]\nprompt:\n  - 'a'\n  - \"b\"\n",
    '{"prompt": ["a", "b"], "seed": {"count": 2, "start": 3}, '
    '"scheduler": "DPM++ 2M", "guidance_scale": 7, "size": 64}',
]


def test_equal_sweeps_have_equal_ids_however_written() -> None:
    """Key order, quotes, JSON, scalar or list, range or list, defaults or not: one plan."""
    assert len({compiled(text).id for text in SAME}) == 1
    assert compiled(SAME[0]).id != compiled(SAME[0].replace("null", "''")).id


def test_equal_rules_are_equal_plans() -> None:
    """A list in a rule, the rules one by one, defaults written out, negatives in another order: one plan."""
    texts = [
        "{rule: perp_neg, negatives: {hat: 1, beard: 2}, rescale: [0, 0.7]}",
        "[{rule: perp_neg, negatives: [[beard, 2], hat]}, "
        "{negatives: {hat: 1, beard: 2}, rescale: 0.7, rule: perp_neg}]",
        "{interval: [[0, 1]], rescale: [0, 0.7], negatives: {hat: 1, beard: 2}, rule: perp_neg, negative_weight: 1}",
    ]
    plans = [compiled(f"prompt: a\nguidance_rule: {text}") for text in texts]
    assert (len(plans[0]), len({plan.id for plan in plans})) == (2, 1)


def test_ids_are_the_same_in_every_process() -> None:
    """Python's hash seed decides nothing."""
    script = (
        "from producer.planning.compile import compile_sweep; from producer.language.sweep import parse_sweep\n"
        "from shared.fingerprint import ResolvedModel\n"
        "text = 'cases: [{model: b, prompt: x}, {size: 96, prompt: y, seed: 4}]\\nsteps: [1, 2]'\n"
        "plan = compile_sweep(parse_sweep(text), resolve=lambda n: ResolvedModel(name=n, fingerprint=n))\n"
        "print(plan.id, *(job.id for _, job in plan.jobs()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 5


def test_an_unknown_model_stops_the_compiler() -> None:
    """What `resolve` raises is what a person sees; a model that no job uses is not asked for."""

    def resolve_none(name: str) -> ResolvedModel:
        raise ModelUnknown(name)

    with pytest.raises(ModelUnknown, match="portraits"):
        compile_sweep(parse_sweep("prompt: a"), resolve=resolve_none)
    plan = compiled("prompt: a\nmodel: never-used\ncases: [{model: one}]")
    assert list(plan.models.values()) == ["one"]


def test_the_largest_sweep_compiles_and_ends_in_its_last_job() -> None:
    """2**32 jobs are a plan of a few hundred bytes."""
    plan = compiled(f"prompt: a\nseed: {{count: {SWEEP_JOBS_MAX}}}")
    assert len(plan) == SWEEP_JOBS_MAX
    assert plan.job(SWEEP_JOBS_MAX - 1).seed == SWEEP_JOBS_MAX - 1
    assert len(plan.to_bytes()) < 1000


def test_ten_million_jobs_cost_no_more_than_ten() -> None:
    """A sweep of ten million jobs is a plan as small as its axes (benchmarks/large_sweep.py times it)."""
    ten = list(range(1, 11))
    sweep = f"prompt: [a, b, c, d, e, f, g, h, i, j]\nguidance_scale: {ten}"
    large, small = compiled(f"{sweep}\nseed: {{count: 100000}}"), compiled(f"{sweep}\nseed: {{count: 1}}")
    assert (len(large), len(small)) == (10**7, 100)
    assert len(large.to_bytes()) - len(small.to_bytes()) < 20
