"""The sweep language compiled: the laws that hold however axes, texts, filters and samples are combined."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.language.complete import read_sweep_file
from producer.language.sweep import Sweep, parse_sweep, sweep_from_mapping, sweep_of
from producer.planning.compile import compile_sweep
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel
from shared.plan import Plan
from shared.sample import permute


def resolve(name: str) -> ResolvedModel:
    """Know every model by its name."""
    return ResolvedModel(name=name, fingerprint=f"fp:{name}")


def compiled(source: str | dict | Sweep) -> Plan:
    """Compile a sweep however it is given."""
    if isinstance(source, str):
        source = parse_sweep(source)
    elif isinstance(source, dict):
        source = sweep_from_mapping(source)
    return compile_sweep(source, resolve=resolve)


def prompts(plan: Plan) -> list[str]:
    """Return the prompts of all jobs, in order."""
    return [job.prompt for _, job in plan.jobs()]


def pairs(plan: Plan) -> list[tuple[str, str | None]]:
    """Return (prompt, negative prompt) of all jobs, in order."""
    return [(job.prompt, job.negative_prompt) for _, job in plan.jobs()]


def refusal(text: str) -> str:
    """Return what a sweep is refused with."""
    with pytest.raises(SweepError) as caught:
        compiled(text)
    return str(caught.value)


# --- axes -----------------------------------------------------------------------------------------------------


def test_a_zip_group_is_one_axis():
    """Fields of a group move together and are crossed with all others."""
    plan = compiled("zip: {prompt: [a, b], negative_prompt: [x, null]}\nseed: [1, 2]")
    seen = [(job.prompt, job.negative_prompt, job.seed) for _, job in plan.jobs()]
    assert seen == [("a", "x", 1), ("b", None, 1), ("a", "x", 2), ("b", None, 2)]


def test_a_zip_group_may_set_the_bucket():
    """Model and size in a group make buckets, each with its own rows only."""
    plan = compiled("prompt: p\nzip: {size: [64, 128, 64], seed: [1, 2, 3]}")
    seen = {(job.width, job.seed) for _, job in plan.jobs()}
    assert seen == {(64, 1), (128, 2), (64, 3)}
    assert [bucket.width for bucket in plan.buckets] == [64, 128]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("zip: {prompt: [a, b], seed: [1]}", "zip: prompt has 2, seed has 1: make the lists equally long"),
        ("prompt: a\nzip: {prompt: [a, b]}", "prompt stands in a zip group and at the top: keep one of them"),
        (
            "prompt: a\nzip: [{seed: [1, 2]}, {seed: [3]}]",
            "seed stands in a zip group and in another zip group: keep one of them",
        ),
        ("prompt: a\nzip: {sede: [1, 2]}", "no prompt or negative prompt has {sede}: did you mean 'seed'?"),
        ("prompt: a\nzip: {seed: [1, -2]}", "seed=-2: use 0 or more"),
        ("prompt: a\nzip: [3]", "a zip group is the number 3: write a mapping of equally long lists"),
    ],
)
def test_a_bad_zip_group_is_refused(written, said):
    """Unequal lists, a field twice and bad values are each named."""
    assert said in refusal(written)


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seeds=st.integers(1, 3),
    negatives=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_the_count_is_the_product(lengths, seeds, negatives):
    """However many groups and axes there are, jobs are the product of their lengths, and all differ."""
    names = ["a", "b", "c"][: len(lengths)]
    groups = [
        {name: [f"{name}{n}" for n in range(length)], f"{name}2": [f"{n}{name}" for n in range(length)]}
        for name, length in zip(names, lengths, strict=True)
    ]
    holes = " ".join(f"{{{name}}} {{{name}2}}" for name in names)
    plan = compiled(
        {
            "prompt": holes,
            "zip": groups,
            "seed": {"start": 0, "count": seeds},
            "negative_prompt": [f"n{n}" for n in range(negatives)],
        }
    )
    count = seeds * negatives
    for length in lengths:
        count *= length
    ids = [job.id for _, job in plan.jobs()]
    assert (len(plan), len(set(ids))) == (count, count)


@given(
    colours=st.integers(1, 3),
    animals=st.integers(1, 3),
    negatives=st.integers(1, 3),
    rows=st.integers(1, 3),
    scales=st.integers(1, 3),
    seeds=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_the_order_is_that_of_the_enumeration(colours, animals, negatives, rows, scales, seeds):
    """Read off its index, each job is the one that nested loops in the documented order come to."""
    choices = [f"c{number}" for number in range(colours)]
    kinds = [f"k{number}" for number in range(animals)]
    others = [f"n{number}" for number in range(negatives)]
    table = [(f"r{number}", number + 5) for number in range(rows)]
    plan = compiled(
        {
            "expand": "all",
            "prompt": [
                "{" + "|".join(choices) + "} {kind} {row}" if colours > 1 else "c0 {kind} {row}",
                "plain",
            ],
            "vars": {"kind": kinds},
            "zip": {"row": [row for row, _ in table], "steps": [steps for _, steps in table]},
            "negative_prompt": others,
            "guidance_scale": [2.0 + number for number in range(scales)],
            "seed": {"start": 0, "count": seeds},
        }
    )
    expected = [
        (scale, seed, steps, prompt, negative)
        for scale in (2.0 + number for number in range(scales))
        for seed in range(seeds)
        for row, steps in table
        for kind in kinds
        for prompt in [*(f"{choice} {kind} {row}" for choice in choices), "plain"]
        for negative in others
    ]
    found = [
        (job.guidance_scale, job.seed, job.steps, job.prompt, job.negative_prompt) for _, job in plan.jobs()
    ]
    assert found == expected


def test_ranges_are_counted_in_decimal():
    """A range holds its stop, and no rounding error of binary fractions."""
    plan = compiled(
        "prompt: a\nguidance_scale: {start: 1.1, stop: 1.5, step: 0.1}\nsteps: {start: 10, count: 2, step: 5}"
    )
    assert sorted({job.guidance_scale for _, job in plan.jobs()}) == [1.1, 1.2, 1.3, 1.4, 1.5]
    assert sorted({job.steps for _, job in plan.jobs()}) == [10, 15]


def test_vars_fill_both_texts():
    """One var has one value in a job, in the prompt and in the negative prompt."""
    plan = compiled("prompt: 'a {x} cat, {x}'\nnegative_prompt: not {x}\nvars: {x: [red, 7]}")
    assert pairs(plan) == [("a red cat, red", "not red"), ("a 7 cat, 7", "not 7")]


def test_what_fills_a_hole_is_never_searched():
    """Values with braces or other names in them stay as they are: replacement is simultaneous."""
    plan = compiled("prompt: cat and dog\nreplace: {cat: [cat, dog], dog: [dog, cat]}")
    assert prompts(plan) == ["cat and dog", "cat and cat", "dog and dog", "dog and cat"]
    plan = compiled("prompt: '{a}{b}'\nvars: {a: ['{b}'], b: [x]}")
    assert prompts(plan) == ["{b}x"]


def test_a_var_or_word_that_nothing_has_is_refused():
    """A slip in a name costs no jobs."""
    assert "no prompt or negative prompt has {animal}" in refusal("prompt: a {anmial}\nvars: {animal: [cat]}")
    assert "no prompt or negative prompt has 'fox': check the spelling" in refusal(
        "prompt: a cat\nreplace: {fox: [a]}"
    )


# --- templates ------------------------------------------------------------------------------------------------


def test_texts_are_literal_unless_the_sweep_says_expand():
    """Braces and bars in a prompt are what they are; with expand they are choices."""
    assert prompts(compiled("prompt: 'a {red|blue} cat'")) == ["a {red|blue} cat"]
    assert prompts(compiled("expand: all\nprompt: 'a {red|blue} cat'")) == ["a red cat", "a blue cat"]


def test_choices_in_a_negative_never_multiply():
    """A negative's choices are drawn for each prompt; adding a prompt leaves the others' draws alone."""
    text = "expand: all\nprompt: ['{a|b|c}'{}]\nnegative_prompt: ['{x|y|z}', plain]"
    plan = compiled(text.replace("{}", ""))
    assert len(plan) == 6
    assert {pair[1] for pair in pairs(plan)} <= {"x", "y", "z", "plain"}
    longer = compiled(text.replace("{}", ", d"))
    assert pairs(plan) == pairs(longer)[:6]
    assert (
        len(
            {
                negative
                for _, negative in pairs(
                    compiled("expand: all\nprompt: '{1|2|3|4|5|6|7|8|9}'\nnegative_prompt: '{x|y|z}'")
                )
            }
        )
        == 3
    )


def test_random_draws_are_the_same_each_time():
    """`expand: {count, seed}` draws so many texts a template, by the seed alone."""
    text = "expand: {count: 50, seed: SEED}\nprompt: ['{9::a|1::b} {1|2|3|4|5|6|7|8}', plain]"
    plan = compiled(text.replace("SEED", "1"))
    assert len(plan) == 51
    assert prompts(plan) == prompts(compiled(text.replace("SEED", "1")))
    assert prompts(plan) != prompts(compiled(text.replace("SEED", "2")))
    letters = Counter(prompt[0] for prompt in prompts(plan)[:50])
    assert letters["a"] > 35


def test_templates_are_drawn_independently():
    """One draw of each of many templates with the same choice takes each option about equally often."""
    plan = compiled(
        {"expand": {"count": 1, "seed": 7}, "prompt": [f"{{a|b}} {number}" for number in range(400)]}
    )
    taken = Counter(prompt[0] for prompt in prompts(plan))
    assert 150 < taken["a"] < 250
    zipped = {"negative_prompt": ["{x|y}"] * 200, "prompt": [f"p{number}" for number in range(200)]}
    negatives = Counter(pair[1] for pair in pairs(compiled({"expand": "all", "zip": zipped})))
    assert 60 < negatives["x"] < 140


def test_wildcards_of_a_folder_are_read_and_kept(tmp_path):
    """Wildcards nest, and only those that are used are kept in the complete sweep."""
    cards = tmp_path / "cards"
    (cards / "animals").mkdir(parents=True)
    (cards / "animals" / "cats.txt").write_bytes(b"\xef\xbb\xbflion\r\n# none\r\n\r\n__colour__ tiger")
    (cards / "colour.txt").write_text("red\nblue\n")
    (cards / "unused.txt").write_text("nothing\n")
    file = tmp_path / "sweep.yaml"
    file.write_text("expand: all\nwildcards: cards\nprompt: a __animals/cats__\n")
    read = read_sweep_file(file)
    assert prompts(compiled(sweep_of(read))) == ["a lion", "a red tiger", "a blue tiger"]
    assert "nothing" not in read.text
    again = parse_sweep(read.text, filename="elsewhere.yaml")
    assert compiled(again).id == compiled(sweep_of(read)).id


def test_wildcards_that_nothing_expands_are_refused(tmp_path):
    """A prompt that names a wildcard of the sweep, without expand, is a slip; one that names none is not."""
    (tmp_path / "a.txt").write_text("x\n")
    file = tmp_path / "sweep.yaml"
    file.write_text("wildcards: .\nprompt: an __a__\n")
    with pytest.raises(SweepError, match=r"line 1: wildcards: a prompt has __a__.*write expand: all"):
        sweep_of(read_sweep_file(file))
    file.write_text("wildcards: .\nprompt: a snake_case__\n")
    assert prompts(compiled(sweep_of(read_sweep_file(file)))) == ["a snake_case__"]


def test_a_wildcard_that_is_not_there_is_refused_with_its_line(tmp_path):
    """An unresolved and a recursive wildcard are named, with a fix."""
    (tmp_path / "a.txt").write_text("x __b__\n")
    (tmp_path / "b.txt").write_text("y __a__\n")
    file = tmp_path / "sweep.yaml"
    file.write_text("expand: all\nwildcards: .\nprompt:\n- fine\n- __ab__\n")
    with pytest.raises(SweepError, match=r"line 5: prompt: .*no wildcard is called 'ab'"):
        sweep_of(read_sweep_file(file))
    file.write_text("expand: all\nwildcards: .\nprompt: __a__\n")
    with pytest.raises(SweepError, match="__a__ -> __b__ -> __a__"):
        sweep_of(read_sweep_file(file))


def test_the_prompts_of_a_file_are_templates_too(tmp_path):
    """A table's rows may have choices; each row keeps what else it says."""
    (tmp_path / "t.csv").write_text("text,neg,seed\n{a|b} cat,{x|y},1\ndog,,2\n")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "expand: all\nzip: {file: t.csv, columns: {prompt: text, negative_prompt: neg, seed: seed}}\n"
    )
    plan = compiled(sweep_of(read_sweep_file(file)))
    seen = [(job.prompt, job.seed) for _, job in plan.jobs()]
    assert seen == [("a cat", 1), ("b cat", 1), ("dog", 2)]
    assert {job.negative_prompt for _, job in plan.jobs()} <= {"x", "y", None}


def test_styles_wrap_the_prompt_and_add_their_negative():
    """A style's own negative comes first; null stays null where neither says anything."""
    plan = compiled(
        "prompt: a {x}\nnegative_prompt: [null, '', bad]\nvars: {x: [cat]}\nstyle: [null, film, bare]\n"
        "styles: {film: {prompt: 'film still of {prompt}, 35mm', negative_prompt: cartoon}, bare: {prompt: sketch}}"
    )
    assert pairs(plan) == [
        ("a cat", None),
        ("a cat", ""),
        ("a cat", "bad"),
        ("film still of a cat, 35mm", "cartoon"),
        ("film still of a cat, 35mm", "cartoon"),
        ("film still of a cat, 35mm", "cartoon, bad"),
        ("a cat, sketch", None),
        ("a cat, sketch", ""),
        ("a cat, sketch", "bad"),
    ]
    zipped = compiled("zip: {prompt: [a, b], style: [ink, null]}\nstyles: {ink: in ink}")
    assert prompts(zipped) == ["a, in ink", "b"]
    assert "style='flim' is not in styles: did you mean 'film'?" in refusal(
        "prompt: a\nstyle: flim\nstyles: {film: x}"
    )


def test_negatives_take_themselves_apart():
    """Leave-one-out, one at a time, presets and placebos are arms of the negative axis."""
    plan = compiled("prompt: p\nnegative_prompt: [null, {leave_one_out: 'a, b, c'}, {one_at_a_time: 'a, b'}]")
    arms = [negative for _, negative in pairs(plan)]
    assert arms[:5] == [None, "a, b, c", "b, c", "a, c", "a, b"]
    assert arms[5:][-2:] == ["a", "b"]
    assert "negative_prompt" in refusal("prompt: p\nnegative_prompt: {preset: nothing-like-it}")


# --- seeds ----------------------------------------------------------------------------------------------------


def test_seeds_of_their_own():
    """`per` gives equal values equal seeds, and others others; adding a prompt moves no seed of another."""
    plan = compiled("prompt: [a, b]\nnegative_prompt: [null, x]\nseed: {count: 3, per: prompt}")
    seeds: dict[str, set[int]] = {}
    for _, job in plan.jobs():
        seeds.setdefault(job.prompt, set()).add(job.seed)
    assert [len(found) for found in seeds.values()] == [3, 3]
    assert not seeds["a"] & seeds["b"]
    each = compiled("prompt: [a, b]\nnegative_prompt: [null, x]\nseed: {per: job}")
    assert len({job.seed for _, job in each.jobs()}) == len(each) == 4
    longer = compiled("prompt: [c, a, b]\nnegative_prompt: [null, x]\nseed: {count: 3, per: prompt}")
    assert {job.id for _, job in plan.jobs()} <= {job.id for _, job in longer.jobs()}
    later = compiled("prompt: [a, b]\nnegative_prompt: [null, x]\nseed: {start: 1, count: 3, per: prompt}")
    assert len({job.id for _, job in plan.jobs()} & {job.id for _, job in later.jobs()}) == len(plan) * 2 // 3


def test_repeat_is_a_run_of_seeds():
    """`repeat: 3` from seed 5 is seeds 5, 6, 7, and the same plan as the range."""
    assert (
        compiled("prompt: a\nseed: 5\nrepeat: 3").id == compiled("prompt: a\nseed: {start: 5, count: 3}").id
    )
    for seeds in ("seed: [1, 2]", "zip: {seed: [1, 2]}", "cases: [{seed: 1}]"):
        assert "repeat goes with one seed" in refusal(f"prompt: a\n{seeds}\nrepeat: 3")


def test_seeds_from_start_to_stop():
    """A range of seeds with a stop counts by ones; with a step it does as other ranges do."""
    assert [job.seed for _, job in compiled("prompt: a\nseed: {start: 3, stop: 6}").jobs()] == [3, 4, 5, 6]
    assert [job.seed for _, job in compiled("prompt: a\nseed: {start: 0, stop: 9, step: 4}").jobs()] == [
        0,
        4,
        8,
    ]


# --- where, skip, sample --------------------------------------------------------------------------------------


def test_where_and_skip_leave_jobs_out():
    """What is left is what an enumeration with the same test leaves, whatever is tied together."""
    axes = (
        "prompt: ['{x} a', b]\nguidance_scale: [1, 5, 9]\nnegative_prompt: [null, n]\n"
        "vars: {x: [p, q]}\nseed: [0, 1, 2]\n"
    )
    whole = compiled(axes)
    some = compiled(
        f"{axes}where: ['guidance_scale > 1 or negative_prompt is null', 'seed < 2']\n"
        "skip: \"prompt == 'q a' and guidance_scale == 9\""
    )
    wanted = [
        job.id
        for _, job in whole.jobs()
        if (job.guidance_scale > 1 or job.negative_prompt is None)
        and job.seed < 2
        and not (job.prompt == "q a" and job.guidance_scale == 9)
    ]
    assert Counter(job.id for _, job in some.jobs()) == Counter(wanted)
    assert len(some) < len(whole)


def test_a_condition_on_the_bucket_drops_the_bucket():
    """Models and sizes are chosen by without looking at anything else."""
    plan = compiled("prompt: a\nsize: [64, 128]\nmodel: [m, n]\nskip: \"model == 'n' and width > 64\"")
    assert [(plan.models[b.model], b.width) for b in plan.buckets] == [("m", 64), ("m", 128), ("n", 64)]
    assert "no job is left" in refusal("prompt: a\nwhere: 'seed > 5'")
    assert "did you mean 'steps'" in refusal("prompt: a\nwhere: 'stesp > 5'")


@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 5),
    prompts_=st.integers(1, 5),
    seeds=st.integers(1, 9),
    sizes=st.sampled_from(["64", "[64, 128]", "[64, 128, 192]"]),
)
@settings(deadline=None, max_examples=80)
def test_a_sample_is_of_the_product_without_repetition(count, seed, prompts_, seeds, sizes):
    """A sample has exactly so many jobs, all of the product and no two the same; the same each time."""
    names = ", ".join(f"p{number}" for number in range(prompts_))
    text = f"prompt: [{names}]\nseed: {{start: 0, count: {seeds}}}\nsize: {sizes}\n"
    whole = compiled(text)
    count = min(count, len(whole))
    sampled = compiled(text + f"sample: {{count: {count}, seed: {seed}}}")
    ids = [job.id for _, job in sampled.jobs()]
    assert len(ids) == len(set(ids)) == len(sampled) == count
    assert set(ids) <= {job.id for _, job in whole.jobs()}
    assert ids == [job.id for _, job in compiled(text + f"sample: {{count: {count}, seed: {seed}}}").jobs()]


@pytest.mark.parametrize("other", [1, 6, 7, 35])
def test_where_one_place_goes_says_nothing_of_where_another_goes(other):
    """Over many keys, two places of 36, side by side or not, come to lie anyhow to each other."""
    keys = 4_000
    found = [
        [permute(place, 36, key=number.to_bytes(4, "big")) for place in (0, other)] for number in range(keys)
    ]
    for apart in (
        Counter((one // 6 - two // 6) % 6 for one, two in found),
        Counter((one - two) % 6 for one, two in found),
    ):
        # Of the 35 places that the other one may have, five are in the same row, and five in the same column.
        for steps in range(6):
            assert apart[steps] / keys == pytest.approx((6 if steps else 5) / 35, abs=0.03)


@pytest.mark.parametrize("method", ["uniform", "latin"])
def test_each_size_and_model_gets_a_sample_of_its_own(method):
    """Otherwise a sample of two sizes would show the same prompts twice, and all others never."""
    prompts = [f"prompt {number}" for number in range(40)]
    sweep = {
        "prompt": prompts,
        "steps": list(range(1, 11)),
        "size": [64, 128],
        "model": ["a", "b"],
        "sample": {"count": 40, "seed": 1, "method": method},
    }
    chosen = {}
    for _, job in compiled(sweep).jobs():
        chosen.setdefault((job.model, job.width), set()).add((job.prompt, job.steps))
    assert len(chosen) == 4
    assert len({frozenset(jobs) for jobs in chosen.values()}) == 4


def test_the_axes_of_a_latin_sample_are_shuffled_apart():
    """The same shuffle for each axis would pair the first prompt with the first seed only, the last with the last."""
    sweep = {
        "prompt": [f"prompt {number:02}" for number in range(16)],
        "seed": list(range(16)),
        "sample": {"count": 16, "seed": 3, "method": "latin"},
    }
    pairs = {(int(job.prompt.removeprefix("prompt ")), job.seed) for _, job in compiled(sweep).jobs()}
    assert {prompt for prompt, _ in pairs} == {seed for _, seed in pairs} == set(range(16))
    assert pairs != {(number, number) for number in range(16)}


def test_every_job_is_as_likely_to_be_sampled():
    """Over many seeds each job of a small product is drawn about equally often, in both buckets."""
    text = "prompt: [a, b, c, d, e]\nsize: [64, 128]\nsample: {count: 3, seed: SEED}"
    seen = Counter(
        (job.prompt, job.width)
        for seed in range(600)
        for _, job in compiled(text.replace("SEED", str(seed))).jobs()
    )
    assert len(seen) == 10
    assert all(130 <= count <= 230 for count in seen.values()), seen  # 180 expected, sd 11


def test_a_latin_hypercube_uses_every_stratum_once():
    """With as many samples as values each value of each axis comes up once; a range without a step is filled."""
    plan = compiled(
        "prompt: [a, b, c, d, e, f, g, h]\nseed: {start: 0, count: 8}\nguidance_scale: {start: 2, stop: 10}\n"
        "sample: {count: 8, seed: 3, method: latin}"
    )
    jobs = [job for _, job in plan.jobs()]
    assert sorted(job.prompt for job in jobs) == list("abcdefgh")
    assert sorted(job.seed for job in jobs) == list(range(8))
    assert sorted(job.guidance_scale for job in jobs) == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5]


def test_a_span_without_a_latin_sample_is_refused():
    """A range without a step says nothing by itself."""
    assert "step" in refusal("prompt: a\nguidance_scale: {start: 2, stop: 10}")


def test_huge_products_are_immediate():
    """A sample of a product of 10^12 and the last job of ten million are read off their index."""
    plan = compiled(
        "expand: all\nprompt: '{%s} {%s} {%s}'\nseed: {start: 0, count: 1000000}\nsample: {count: 1000, seed: 1}"
        % (("|".join(map(str, range(100))),) * 3)
    )
    assert plan.product_of(plan.blocks[0]) == 10**12
    assert len({job.id for _, job in plan.jobs()}) == 1000
    plan = compiled({"prompt": [f"p{n}" for n in range(100_000)], "seed": {"start": 0, "count": 100}})
    assert (len(plan), plan.job(10**7 - 1).prompt) == (10**7, "p99999")
    assert "jobs: one sweep holds at most" in refusal(
        "prompt: ['{%s} {%s} {%s}']\nexpand: all\nseed: {count: 100000}"
        % (("|".join(map(str, range(100))),) * 3)
    )


# --- plans and files ------------------------------------------------------------------------------------------


SWEEPS = {
    "plain": "prompt: [a, b]\nseed: [1, 5]",
    "all at once": (
        "expand: {count: 3, seed: 2}\nprompt: ['{1|2|3} {x}', 'no {x}']\nnegative_prompt: ['{u|v}', null]\n"
        "vars: {x: [r, s]}\nreplace: {'no': ['yes', 'no']}\nstyle: [null, f]\nstyles: {f: 'in ink'}\n"
        "seed: {count: 2, per: [prompt, x]}\nsize: [64, 128]\n"
        "where: 'width == 64 or x == \"r\"'\nsample: {count: 20, seed: 4}\nlayout: webdataset"
    ),
    "latin": "prompt: [a, b, c]\nsteps: {start: 5, stop: 25}\nsample: {count: 9, method: latin}",
}


@pytest.mark.parametrize("text", SWEEPS.values(), ids=SWEEPS)
def test_a_plan_of_any_kind_survives_its_bytes(text):
    """Written and read back, a plan has the same id and the same jobs; chunks cover them in order, once."""
    plan = compiled(text)
    again = Plan.from_bytes(plan.to_bytes())
    assert (plan, plan.id) == (again, again.id)
    assert [job for _, job in plan.jobs()] == [job for _, job in again.jobs()]
    chunks = [plan.chunk(number) for number in range(plan.chunks)]
    assert list(itertools.chain.from_iterable(range(chunk.start, chunk.stop) for chunk in chunks)) == list(
        range(len(plan))
    )
    with pytest.raises(IndexError):
        plan.job(len(plan))


def test_what_is_kept_is_complete(tmp_path):
    """A sweep with includes, settings, prompts from a file, a style file and a preset is kept with all of it inside."""
    (tmp_path / "common.yaml").write_text("steps: 10\nguidance_scale: 5\n")
    (tmp_path / "prompts.txt").write_text("a cat\n0\n  spaced \n")
    (tmp_path / "styles.json").write_text(
        json.dumps([{"name": "ink", "prompt": "{prompt} in ink", "negative_prompt": "photo"}])
    )
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "include: common.yaml\nprompt: {file: prompts.txt}\nstyles: styles.json\nstyle: [null, ink]\n"
        "negative_prompt: {leave_one_out: 'a, b'}\n"
    )
    read = read_sweep_file(file, settings=["steps=12", "seed.count=2", "seed.start=0"])
    plan = compiled(sweep_of(read))
    assert (len(plan), plan.job(0).steps, plan.job(0).guidance_scale) == (2 * 3 * 2 * 3, 12, 5.0)
    for name in ("common.yaml", "prompts.txt", "styles.json"):
        (tmp_path / name).unlink()
    kept = tmp_path / "kept.yaml"
    kept.write_text(read.text)
    assert compiled(sweep_of(read_sweep_file(kept))).id == plan.id
    assert "prompts.txt: 3 values, sha256" in read.text


@pytest.mark.parametrize(
    "text", [*SWEEPS.values(), "zip: {prompt: [a], guidance_rule: [apg]}"], ids=[*SWEEPS, "zip"]
)
def test_a_sweep_is_written_as_it_is_read(text):
    """What a Sweep says of itself is a sweep file of the same plan."""
    sweep = parse_sweep(text)
    again = sweep_from_mapping(sweep.model_dump(mode="json", exclude_unset=True))
    assert compiled(again).id == compiled(sweep).id


def test_a_sweep_that_names_nothing_is_kept_as_it_is(tmp_path):
    """Comments and all."""
    file = tmp_path / "plain.yaml"
    file.write_text("# mine\nprompt: a\n")
    assert read_sweep_file(Path(file)).text == "# mine\nprompt: a\n"
