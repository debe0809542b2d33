"""A preview counts from the axes what counting every job would count, and warns of what people regret."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from producer.compile import compile_sweep
from producer.preview import Preview, preview, render_preview
from producer.sweep import Sweep, parse_sweep, sweep_from_mapping
from shared.fingerprint import ResolvedModel
from shared.guidance import read_rule

#: Few values, so that repeats are common.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(["a", "b"]),
    "negative_prompt": st.sampled_from([None, "", "x"]),
    "seed": st.integers(0, 2),
    "guidance_scale": st.sampled_from([0, 1, 1.5, 7]),
    "guidance_rule": st.sampled_from([None, "apg", {"rule": "perp_neg", "negatives": {"hat": 1}}]),
    "steps": st.integers(1, 2),
    "size": st.sampled_from([64, 72]),
    "model": st.sampled_from(["one", "two"]),
}


def resolve(name: str) -> ResolvedModel:
    """Name models by themselves."""
    return ResolvedModel(name=name, fingerprint=f"sha:{name}")


def previewed(text: str) -> Preview:
    """Preview the text of a sweep."""
    return preview(compile_sweep(parse_sweep(text), resolve=resolve))


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    """Draw sweeps that repeat themselves, with guidance, rules and negatives in one axis, two axes or the cases."""
    case_fields = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, unique=True))
    always = {field: VALUES[field] for field in case_fields[::2]}
    sometimes = {field: VALUES[field] for field in case_fields[1::2]}
    cases = draw(st.lists(st.fixed_dictionaries(always, optional=sometimes), max_size=5))
    mapping: dict[str, Any] = {"prompt": "a"}
    for field in sorted(VALUES):
        if field not in case_fields or not cases:
            mapping[field] = draw(st.lists(VALUES[field], min_size=1, max_size=3))
    return sweep_from_mapping({**mapping, **({"cases": cases} if cases else {})})


@given(sweeps())
def test_duplicates_are_counted_exactly_without_counting(sweep: Sweep) -> None:
    """The product of distinct axis values is the number of distinct job ids."""
    plan = compile_sweep(sweep, resolve=resolve)
    images = len({job.id for _, job in plan.jobs()})
    found = preview(plan)
    assert (found.jobs, found.images, found.duplicates) == (len(plan), images, len(plan) - images)


@given(sweeps())
def test_totals_are_those_of_the_plan(sweep: Sweep) -> None:
    """Buckets add up to the plan, and a model is loaded once."""
    plan = compile_sweep(sweep, resolve=resolve)
    found = preview(plan)
    assert sum(bucket.jobs for bucket in found.buckets) == len(plan)
    assert sum(bucket.chunks for bucket in found.buckets) == plan.chunks
    assert found.model_loads == len({job.model for _, job in plan.jobs()})
    rules = {(job.guided, job.guidance_rule) for _, job in plan.jobs()}
    assert found.rows_max == max(read_rule(rule).rows if guided else 1 for guided, rule in rules)
    assert found.first == tuple(job for _, job in plan.jobs(0, min(5, len(plan))))


def test_guidance_one_makes_all_negatives_one_image_and_says_so() -> None:
    """3 negatives at guidance 1 are one image, at 7 they are three."""
    found = previewed("prompt: a\nnegative_prompt: [null, '', x]\nguidance_scale: [1, 7]")
    assert (found.jobs, found.images) == (6, 4)
    assert any(
        "guidance_scale 1 or less never uses the negative prompt" in warning for warning in found.warnings
    )
    for harmless in ("prompt: a\nguidance_scale: [1, 7]", "prompt: a\nnegative_prompt: x\nguidance_scale: 2"):
        assert previewed(harmless).warnings == ()
    in_one_case = "prompt: a\ncases: [{guidance_scale: 1}, {negative_prompt: x}]"
    assert previewed(in_one_case).warnings == ()
    cases = "[{guidance_scale: 1}, {guidance_scale: 1, negative_prompt: x}, {negative_prompt: x}]"
    found = previewed(f"prompt: a\ncases: {cases}")
    assert (found.jobs, found.images, len(found.warnings)) == (3, 2, 1)


def test_guidance_one_makes_all_rules_one_image_and_says_so_once() -> None:
    """What guidance 1 does not use stands in one warning: negatives, rules, or both."""
    found = previewed("prompt: a\nguidance_rule: [cfg, apg, perp_neg]\nguidance_scale: [1, 7]")
    assert (found.jobs, found.images) == (6, 4)
    start = "guidance_scale 1 or less never uses the"
    assert found.warnings == (f"{start} guidance rule: jobs that differ only in it are one image",)
    found = previewed("prompt: a\nnegative_prompt: [a, b]\nguidance_rule: [cfg, apg]\nguidance_scale: [1, 7]")
    assert (found.jobs, found.images) == (8, 5)
    both = f"{start} negative prompt or the guidance rule: jobs that differ only in them are one image"
    assert found.warnings == (both,)
    in_cases = "[{guidance_scale: 1, guidance_rule: apg}, {guidance_rule: perp_neg}]"
    assert len(previewed(f"prompt: a\ncases: {in_cases}").warnings) == 1
    in_other_cases = "[{guidance_scale: 1}, {guidance_rule: perp_neg}]"
    assert previewed(f"prompt: a\ncases: {in_other_cases}").warnings == ()


def test_rules_are_shown_with_what_they_cost() -> None:
    """The axis, the rule of each job and the UNet rows of the costliest are on the page; without rules none is."""
    rules = "[cfg, {rule: perp_neg, negatives: {hat: 1, beard: 1}}]"
    found = previewed(f"prompt: a\nguidance_rule: {rules}\nguidance_scale: 5")
    assert (found.rows_max, found.to_json()["rows_max"]) == (5, 5)
    assert found.axes == (("guidance_rule", 2),)
    page = io.StringIO()
    render_preview(found, Console(file=page, width=160))
    for part in ("2 guidance_rule", "up to 5 a job at each step", "perp_neg, negatives beard"):
        assert part in page.getvalue()
    plain = io.StringIO()
    render_preview(previewed("prompt: a"), Console(file=plain, width=160))
    assert "rule" not in plain.getvalue()
    assert "UNet rows" not in plain.getvalue()
    assert previewed("prompt: a\nguidance_scale: 1\nguidance_rule: perp_neg").rows_max == 1
    cases = "[{guidance_scale: 1, guidance_rule: perp_neg}, {guidance_rule: apg}]"
    assert previewed(f"prompt: a\ncases: {cases}").rows_max == 2


def test_a_negation_in_a_prompt_names_the_word_to_move() -> None:
    """The sentence says what to take out and where to put it; words that merely contain a negation do not."""
    found = previewed("prompt: [portrait photo of a man without a mustache, a knot in a notebook]")
    expected = (
        "a prompt that says 'without a mustache' tends to draw it: say 'mustache' in negative_prompt instead"
    )
    assert found.warnings == (expected,)
    texts = [
        "a street with no cars, rain",
        "a man not wearing glasses",
        "a cat without Fur or tail",
        "a sky, never red",
    ]
    found = previewed(f"prompt: {json.dumps(texts)}")
    assert [warning.split("say '")[-1].split("'")[0] for warning in found.warnings[:3]] == [
        "cars",
        "wearing glasses",
        "Fur",
    ]
    assert found.warnings[3] == "... in all 4 prompts say without, no, not or never"


def test_repeats_long_texts_and_edge_spaces_are_named() -> None:
    """Each oddity is one line with an example."""
    found = previewed(f"prompt: [a, a, ' b', '{'word ' * 76}c']\nsteps: [3, 3]")
    assert "prompt 'a' stands 2 times: the same images, rendered once" in found.warnings
    assert "steps 3 stands 2 times: the same images, rendered once" in found.warnings
    rules = previewed("prompt: a\nguidance_rule: [cfg, null, apg, apg]").warnings
    said = (
        "guidance_rule cfg stands 2 times, guidance_rule apg stands 2 times: the same images, rendered once"
    )
    assert rules == (said,)
    assert any(
        w.startswith("a prompt has more than 75 words") and "nothing is cut off" in w for w in found.warnings
    )
    assert any(w.startswith("spaces at the edge of ' b'") for w in found.warnings)


def test_a_preview_is_json_and_a_page() -> None:
    """Both forms hold the counts; markup and escape codes in a prompt are shown, not obeyed."""
    found = previewed('prompt: ["[red]x[/red]", "\\e[31mevil"]\nsize: [64, 64x96]\nseed: {count: 1200}')
    document = json.loads(json.dumps(found.to_json()))
    assert (document["jobs"], document["images"], len(document["buckets"])) == (4800, 4800, 2)
    assert document["axes"] == [{"fields": ["seed"], "values": 1200}, {"fields": ["prompt"], "values": 2}]
    assert document["first"][0]["prompt"] == "[red]x[/red]"
    page = io.StringIO()
    render_preview(found, Console(file=page, width=120))
    for part in ("4,800", "tiny-random", "64x96", "[red]x[/red]", "\\x1b[31mevil"):
        assert part in page.getvalue()
    assert "\x1b" not in page.getvalue()


def test_a_large_plan_is_looked_over_at_once() -> None:
    """Four billion jobs are previewed without touching them."""
    found = previewed("prompt: a\nseed: {count: 4294967296}")
    assert found.jobs == found.images == 2**32
