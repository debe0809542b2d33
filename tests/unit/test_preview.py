"""A preview counts from the axes what counting every job would count, and warns of what people regret."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from producer.language.sweep import Sweep, parse_sweep, sweep_from_mapping
from producer.planning.compile import compile_sweep
from producer.preview import (
    UNMEASURED,
    ModelTexts,
    Preview,
    TokenizerFound,
    compare_plans,
    preview,
    render_difference,
    render_preview,
)
from producer.preview.rates import Rate
from producer.preview.tokens import MergeTable, ModelTokenizer
from shared.errors import UsageError
from shared.fingerprint import ResolvedModel
from shared.guidance import read_rule
from shared.ledger import WorkerInfo
from shared.plan import Plan

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


@settings(deadline=None)  # a slow machine is no wrong count
@given(sweeps())
def test_duplicates_are_counted_exactly_without_counting(sweep: Sweep) -> None:
    """The product of distinct axis values is the number of distinct job ids."""
    plan = compile_sweep(sweep, resolve=resolve)
    images = len({job.id for _, job in plan.jobs()})
    found = preview(plan)
    assert (found.jobs, found.images, found.duplicates) == (len(plan), images, len(plan) - images)


@settings(deadline=None)  # a slow machine is no wrong count
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
    assert all(plan.job(seen.index) == seen.job for seen in found.sample)
    assert [seen.job for seen in preview(plan, first=True).sample] == [
        job for _, job in plan.jobs(0, min(5, len(plan)))
    ]


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
    long = next(warning for warning in found.warnings if "tokens" in warning)
    assert long.startswith("a prompt takes more than 77 tokens with begin and end ('word word")
    assert long.endswith("has at least 77): encoded in several chunks or more, nothing is cut off")
    assert any(w.startswith("spaces at the edge of ' b'") for w in found.warnings)


def test_a_preview_is_json_and_a_page() -> None:
    """Both forms hold the counts; markup and escape codes in a prompt are shown, not obeyed."""
    found = previewed('prompt: ["[red]x[/red]", "\\e[31mevil"]\nsize: [64, 64x96]\nseed: {count: 1200}')
    document = json.loads(json.dumps(found.to_json()))
    assert (document["jobs"], document["images"], len(document["buckets"])) == (4800, 4800, 2)
    assert document["axes"] == [{"fields": ["seed"], "values": 1200}, {"fields": ["prompt"], "values": 2}]
    assert (document["sample"][0]["index"], document["sample"][0]["prompt"]) == (0, "[red]x[/red]")
    page = io.StringIO()
    render_preview(found, Console(file=page, width=120))
    for part in ("4,800", "portraits", "64x96", "[red]x[/red]", "\\x1b[31mevil"):
        assert part in page.getvalue()
    assert "\x1b" not in page.getvalue()


@pytest.mark.parametrize("width", [32, 40, 60])
def test_a_narrow_terminal_cuts_nothing(width: int) -> None:
    """What has no room in a line goes on in the next: the whole id is there."""
    found = previewed("prompt: a portrait\nscheduler: dpmpp_2m_karras\nseed: 18446744073709551615\n")
    page = io.StringIO()
    render_preview(found, Console(file=page, width=width))
    assert "\u2026" not in page.getvalue()
    _, _, after = page.getvalue().partition("  sweep  ")
    assert after.translate(dict.fromkeys(map(ord, "\u2502 \n"))).startswith(found.sweep)


def test_a_large_plan_is_looked_over_at_once() -> None:
    """Four billion jobs are previewed without touching them."""
    found = previewed("prompt: a\nseed: {count: 4294967296}")
    assert found.jobs == found.images == 2**32


@settings(deadline=None)  # a slow machine is no wrong count
@given(sweeps(), sweeps())
def test_a_difference_is_that_of_the_ids(before: Sweep, after: Sweep) -> None:
    """What is added, kept and dropped is what sets of all job ids say, and every example is one."""
    old, new = (compile_sweep(sweep, resolve=resolve) for sweep in (before, after))
    olds, news = ({job.id for _, job in plan.jobs()} for plan in (old, new))
    found = compare_plans(old, new)
    assert (found.added, found.kept, found.dropped) == (len(news - olds), len(news & olds), len(olds - news))
    for plan, seen, only in ((new, found.added_jobs, news - olds), (old, found.dropped_jobs, olds - news)):
        assert len({one.job.id for one in seen} & only) == len(seen) == min(3, len(only))
        assert all(plan.job(one.index) == one.job for one in seen)


def compiled(text: str) -> Plan:
    """Compile the text of a sweep."""
    return compile_sweep(parse_sweep(text), resolve=resolve)


def test_a_difference_of_billions_is_exact_and_at_once() -> None:
    """Consecutive seeds are compared as ranges, cases with lists by what they say."""
    old = compiled("prompt: [a, b]\nseed: {count: 1000000000}")
    new = compiled("prompt: [a, c]\nseed: {start: 1, count: 1000000000}")
    found = compare_plans(old, new)
    assert (found.added, found.kept, found.dropped) == (10**9 + 1, 10**9 - 1, 10**9 + 1)
    cases = compiled("cases: [{prompt: a, steps: 25}, {prompt: b, steps: 3}]\nseed: {count: 1000000000}")
    assert compare_plans(cases, old).kept == 10**9
    assert compare_plans(old, old).added_jobs == ()


def test_plans_of_templates_are_compared_job_by_job() -> None:
    """Where axes do not say what jobs there are the ids do, up to a bound that is refused and not guessed beyond."""
    old = compiled("prompt: a {x}\nvars: {x: [cat, dog]}\nseed: {count: 3}")
    new = compiled("prompt: [a cat, a cow]\nseed: {count: 4}")
    found = compare_plans(old, new)
    assert (found.added, found.kept, found.dropped) == (5, 3, 3)
    assert found.added_jobs[0].job.prompt == "a cow"
    many = compiled("prompt: a {x}\nvars: {x: [cat, dog]}\nseed: {count: 1000001}")
    with pytest.raises(UsageError, match="2,000,002 jobs"):
        compare_plans(many, new)


def test_another_format_is_said() -> None:
    """The same jobs in another format are kept by id, and the difference says that their images are not."""
    found = compare_plans(compiled("prompt: a\nformat: webp"), compiled("prompt: a"))
    assert (found.added, found.kept, found.old_format) == (0, 1, "webp")
    page = io.StringIO()
    render_difference(found, Console(file=page, width=120))
    assert "0 added, 1 kept, 0 dropped" in page.getvalue()
    assert "rendered anew" in page.getvalue()
    assert json.loads(json.dumps(found.to_json()))["kept"] == 1


def test_templates_are_counted_job_by_job() -> None:
    """Two vars that make one text make one image; too many jobs to go through are said to be up to so many."""
    found = previewed("prompt: '{x}{y}'\nvars: {x: [a, ab], y: [bc, c]}")
    assert (found.jobs, found.images) == (4, 3)
    many = previewed("prompt: '{x}'\nvars: {x: [a, b]}\nseed: {count: 200000}")
    assert (many.images, many.duplicates, many.texts[0].looked_at) == (None, None, 10_000)
    page = io.StringIO()
    render_preview(many, Console(file=page, width=120))
    assert "up to 400,000" in page.getvalue()


def test_the_sample_is_spread_over_the_plan() -> None:
    """Each fifth of a plan has a job in the sample; with `first` the first ones are."""
    plan = compiled("prompt: [a, b]\nnegative_prompt: [c, d]\nseed: {count: 250}")
    indices = [seen.index for seen in preview(plan).sample]
    assert [index // 200 for index in indices] == [0, 1, 2, 3, 4]
    assert indices[0] == 0
    assert len({plan.job(index).negative_prompt for index in indices}) == 2
    assert [seen.index for seen in preview(plan, sample=3, first=True).sample] == [0, 1, 2]
    assert [seen.index for seen in preview(compiled("prompt: a")).sample] == [0]


def texts_of(text: str, found: TokenizerFound | None = None) -> ModelTexts:
    """Return what the one model of a sweep reads."""
    plan = compiled(text)
    (texts,) = preview(plan, tokenizers={"sha:portraits": found} if found else {}).texts
    return texts


#: Every piece is as many tokens as it has letters.
LETTERS = TokenizerFound(tokenizer=ModelTokenizer(tables=(MergeTable([]),)))
TWO_ENCODERS = TokenizerFound(
    tokenizer=ModelTokenizer(tables=(MergeTable([]),), encoders=2, null_is_zeros=True)
)


def test_texts_to_encode_are_the_different_ones_that_guidance_uses() -> None:
    """Negatives count where something is guided, those of rules too, and the empty text stands for no negative."""
    base = "prompt: [cat, cow, cat]\nnegative_prompt: [null, dog]\n"
    guided = texts_of(base + "guidance_scale: [1, 7]", LETTERS)
    assert (guided.prompts, guided.negatives, guided.texts, guided.encoder_rows) == (2, 1, 4, 4)
    assert texts_of(base + "guidance_scale: 1", LETTERS).texts == 2
    assert texts_of(base, TWO_ENCODERS).texts == 3
    assert texts_of(base, TWO_ENCODERS).encoder_rows == 6
    rule = "guidance_rule: {rule: perp_neg, negatives: {hat: 1}}\n"
    assert texts_of("prompt: cat\nnegative_prompt: dog\n" + rule, LETTERS).texts == 4
    cases = "prompt: cat\ncases: [{negative_prompt: dog, guidance_scale: 1}, {negative_prompt: ox}]"
    assert texts_of(cases, LETTERS).negatives == 1


def test_tokens_are_counted_or_said_to_be_a_lower_bound() -> None:
    """With the model's tokenizer counts are exact, without it the number of pieces, and other models' are unknown."""
    text = f"prompt: [{'x' * 76}, cat, {'y' * 80}]\nnegative_prompt: {'z' * 151}"
    counted = texts_of(text, LETTERS)
    assert (counted.basis, counted.tokens_max, counted.tokens) == ("counted", 151, 76 + 3 + 80 + 151)
    assert (counted.long_prompts, counted.long_negatives) == (2, 1)
    assert [(long.tokens, long.negative) for long in counted.longest] == [
        (80, False),
        (76, False),
        (151, True),
    ]
    assert counted.encoder_rows == 2 + 1 + 2 + 3 + 1  # and the empty chunk that fills up the shorter ones
    least = texts_of(text)
    assert (least.basis, least.tokens_max, least.long_prompts) == ("at least", 1, 0)
    assert "not on this machine" in least.reason
    other = texts_of(text, TokenizerFound(other_kind=True, reason="its own ways"))
    assert (other.basis, other.tokens_max, other.tokens) == ("unknown", None, None)
    page = io.StringIO()
    render_preview(preview(compiled(text)), Console(file=page, width=200))
    assert (
        "the longest has at least 1 tokens (not counted: the model is not on this machine)" in page.getvalue()
    )


def rate(**words: Any) -> Rate:
    """Return a rate of half a second a row, at the size of the tests' sweeps."""
    place = ("sha:portraits", 64, 64)
    return Rate(**{"place": place, "device": "gpu", "seconds": 0.5, "images": 10, "source": "there", **words})


def test_time_follows_from_rows_that_were_measured() -> None:
    """Steps, guidance and the sampler's calls make rows; rows and what one took make the time; nothing is unknown's."""
    plan = compiled("prompt: a\nsteps: [10, 20]\nguidance_scale: [1, 7]\nscheduler: [ddim, heun]")
    (time,) = preview(plan, rates=[rate()]).times
    assert time.seconds == pytest.approx(0.5 * 3 * (10 + 20 + 19 + 39))
    assert (time.images, time.measured, time.sources) == (8, 10, ("there",))
    nothing = preview(plan, rates=[rate(place=("sha:portraits", 64, 72))])
    assert (nothing.times, nothing.time_unknown) == ((), UNMEASURED)
    page = io.StringIO()
    render_preview(nothing, Console(file=page, width=120))
    assert "unknown: no image of these" in page.getvalue()


def test_a_part_that_was_measured_is_said_to_be_a_part() -> None:
    """A device that drew one of two sizes has an estimate of its share; the rate of most images is taken."""
    plan = compiled("prompt: a\nsize: [64, 128]\nseed: {count: 4}\nguidance_scale: 1\nsteps: 10")
    rates = [rate(seconds=9.0, images=1), rate(), rate(device="slow", seconds=5.0)]
    worker = WorkerInfo(
        **dict.fromkeys(WorkerInfo.__dataclass_fields__)
        | {"device": "gpu", "models": {"sha:portraits": ["x"]}}
    )  # type: ignore[arg-type]
    found = preview(plan, rates=rates, workers=[worker, worker])
    assert [(time.device, time.seconds, time.images, time.workers) for time in found.times] == [
        ("gpu", 20.0, 4, 2),
        ("slow", 200.0, 4, 0),
    ]
    page = io.StringIO()
    render_preview(found, Console(file=page, width=200))
    assert (
        "about 20 s on one gpu for 4 of the images, 10 s on the 2 that are live (by 10 images: there)"
        in page.getvalue()
    )


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a {red|blue} cat", "'{red|blue}'"),
        ("a __animals/cats__", "'__animals/cats__'"),
        ("a {animal} here", "'{animal}'"),
        ("snake_case__ and {b c} and a | b", None),
    ],
)
def test_a_template_that_nobody_expands_is_warned_of(prompt: str, shown: str | None) -> None:
    """Braces that would be drawn as they stand are named, with what would make a template of them."""
    plan = compile_sweep(sweep_from_mapping({"prompt": prompt}), resolve=resolve)
    said = [warning for warning in preview(plan).warnings if "expand: all" in warning]
    assert said == ([] if shown is None else [f"{shown} {said[0].partition(' ')[2]}"])


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (
            ["a cat --ar 16:9 --v 5 --no hands", "a dog"],
            "a text holds options of another program, such as '--ar 16:9' in 'a cat --ar 16:9 --v 5 --no hands'",
        ),
        (["a --v 5", "b --q 2"], "2 texts hold options of another program, such as '--v 5' in 'a --v 5'"),
        (["a (red:1.3) cat", "(blue: .5)"], "2 texts have A1111's weights ('(red:1.3)', '(blue: .5)')"),
        (["a ((red)) cat"], "a text has A1111's emphasis ('((red))')"),
        (["a [dull] cat"], "a text has A1111's emphasis ('[dull]')"),
        (["a [cat:dog:0.5]"], "a text has A1111's prompt editing ('[cat:dog:0.5]')"),
        (["a <lora:film:0.8>"], "a text has A1111's extra networks ('<lora:film:0.8>')"),
        (["a cat \u2014ar 16:9"], "a text holds options of another program, such as '\u2014ar 16:9' in"),
        (
            ["a cat -s50 -C7.5"],
            "a text holds options of another program, such as '-s50' in 'a cat -s50 -C7.5'",
        ),
        (["a cat, embedding:easynegative"], "a text has ComfyUI's embeddings ('embedding:easynegative')"),
        (["a (red cat)1.3, blue++"], "a text has Compel's weights (')1.3')"),
        (["hot::2 dog"], "a text has Midjourney's weights ('::2')"),
        (["a cat BREAK a dog"], "a text has A1111's BREAK ('BREAK')"),
        (["a cat AND a dog"], "a text has A1111's AND ('AND')"),
        (
            ["a \\\\(cat:1.2\\\\)", "a cat (1990)", "R AND B".lower(), "a well--known -- cat", "[x", "1:2"],
            None,
        ),
    ],
)
def test_what_other_programs_would_read_is_warned_of(prompts: list[str], said: str | None) -> None:
    """Options and A1111's syntax are drawn as they stand, and `plan` counts them with an example."""
    found = previewed(f"prompt: {json.dumps(prompts)}").warnings
    about = [line for line in found if "to the letter" in line]
    assert len(about) == (said is not None)
    assert said is None or about[0].startswith(said)
