"""Guidance rules: the rows each takes, and its arithmetic against closed forms and diffusers' own guiders."""

import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
)

from shared.guidance import parse_rule
from worker.sampling.guidance import (
    EMPTY,
    FIRST_EXTRA,
    NEGATIVE,
    POSITIVE,
    Predictions,
    combine,
    peak_rows,
    resolve_guidance,
)

#: Of one latent.
SHAPE = (4, 6, 5)


def resolve(rule, *, scale=5.0, evaluations=10):
    """Return what a job with a rule, written as in a sweep, does at each evaluation."""
    return resolve_guidance(parse_rule(rule), scale, evaluations)


def predictions_of(count, *, seed=0, jobs=1):
    """Return `count` random predictions of (jobs, 4, 6, 5)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(jobs, *SHAPE, generator=generator) for _ in range(count)]


def apply(steps, branches, memory=None):
    """Combine one batch: `steps` says what each job does; `branches` maps a branch to all jobs' predictions."""
    widest = max(len(step.branches) for step in steps)
    rows = []
    for number in range(widest):
        rows.append(
            torch.stack(
                [
                    branches[step.branches[number] if number < len(step.branches) else POSITIVE][job]
                    for job, step in enumerate(steps)
                ]
            )
        )
    pad = lambda values: [*values, *[0.0] * (widest - len(values))]  # noqa: E731
    rescale = torch.tensor([step.rescale for step in steps])
    return combine(
        Predictions(
            branches=rows,
            weights=torch.tensor([pad(step.weights) for step in steps]),
            numbers=torch.tensor([step.numbers for step in steps]),
            is_empty=torch.tensor(
                [pad([float(branch == EMPTY) for branch in step.branches]) for step in steps]
            ),
            memory=torch.zeros(len(steps), *SHAPE) if memory is None else memory,
        ),
        tuple(step.method for step in steps),
        rescale if rescale.any() else None,
    )


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (None, 2),
        ("cfg", 2),
        ({"rescale": 0.7}, 2),
        ("apg", 2),
        ("cfg_zero_star", 2),
        ({"rule": "decoupled", "negative_weight": 4}, 2),
        ({"rule": "decoupled", "negative_weight": 2}, 3),
        ({"rule": "decoupled", "negatives": ["a", "b"]}, 5),
        ("perp_neg", 3),
        ({"rule": "perp_neg", "negatives": ["a"]}, 4),
    ],
)
def test_rows_of_each_rule(rule, rows):
    """A pair of rows, and one more for the empty prompt and for each further negative."""
    steps = resolve(rule)
    assert {len(step.branches) for step in steps} == {rows}
    assert peak_rows(steps) == rows
    assert all(step.branches[0] == POSITIVE for step in steps)


@pytest.mark.parametrize("rule", [None, "apg", {"rule": "decoupled", "negatives": ["a"]}])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_no_guidance_is_one_row(rule, scale):
    """At a scale of 1 or less no rule applies: e+ alone."""
    assert {step.branches for step in resolve(rule, scale=scale)} == {(POSITIVE,)}


def test_the_guidance_interval_is_one_row_outside():
    """Evaluations n with start <= n / N < stop are guided; 0.29 of 100 begins at 29, not at 28."""
    steps = resolve({"interval": [0.29, 0.8]}, evaluations=100)
    assert [n for n, step in enumerate(steps) if len(step.branches) == 2] == list(range(29, 80))


def test_the_negative_interval_swaps_the_empty_prompt_in():
    """Outside it the other row is the empty prompt's, at the same scale; several negatives fall away together."""
    steps = resolve({"negative_interval": [0.5, 1]}, evaluations=4)
    assert [step.branches for step in steps] == [(POSITIVE, EMPTY)] * 2 + [(POSITIVE, NEGATIVE)] * 2
    assert len({step.weights for step in steps}) == 1
    many = resolve({"rule": "perp_neg", "negatives": ["a"], "negative_interval": [0, 0.5]}, evaluations=2)
    assert [step.branches for step in many] == [
        (POSITIVE, NEGATIVE, FIRST_EXTRA, EMPTY),
        (POSITIVE, EMPTY),
    ]


def test_cfg_is_diffusers():
    """e- + w (e+ - e-), as diffusers' guider computes it."""
    positive, negative = predictions_of(2)
    ours, _ = apply(resolve(None, scale=7.5)[:1], {POSITIVE: positive, NEGATIVE: negative})
    theirs = ClassifierFreeGuidance(guidance_scale=7.5).forward(positive, negative).pred
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_rescale_is_diffusers(phi):
    """Guidance rescale pulls the standard deviation back, as diffusers' guider does."""
    positive, negative = predictions_of(2)
    ours, _ = apply(resolve({"rescale": phi}, scale=9.0)[:1], {POSITIVE: positive, NEGATIVE: negative})
    theirs = ClassifierFreeGuidance(guidance_scale=9.0, guidance_rescale=phi).forward(positive, negative).pred
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_cfg_zero_star_is_diffusers():
    """The negative is scaled by its projection first, and the first steps may be zero."""
    positive, negative = predictions_of(2)
    steps = resolve({"rule": "cfg_zero_star", "zero_init_steps": 1}, scale=4.0)
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=0)
    guider.set_state(step=5, num_inference_steps=10, timestep=torch.tensor(500))
    ours, _ = apply(steps[1:2], {POSITIVE: positive, NEGATIVE: negative})
    torch.testing.assert_close(ours, guider.forward(positive, negative).pred, rtol=1e-5, atol=1e-5)
    zero, _ = apply(steps[:1], {POSITIVE: positive})
    assert steps[0].branches == (POSITIVE,)
    assert not zero.any()


def test_apg_is_diffusers_over_several_steps():
    """Momentum, length limit and projection, as diffusers' guider in the paper's formulation at scale w - 1."""
    rule = {"rule": "apg", "eta": 0.3, "norm_threshold": 5.0, "momentum": -0.5}
    guider = AdaptiveProjectedGuidance(
        guidance_scale=6.0 - 1.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=5.0,
        eta=0.3,
        use_original_formulation=True,
    )
    memory = None
    for step in range(4):
        positive, negative = predictions_of(2, seed=step)
        guider.set_state(step=step, num_inference_steps=10, timestep=torch.tensor(500))
        guider.prepare_inputs({})
        theirs = guider.forward(positive, negative).pred
        ours, memory = apply(resolve(rule, scale=6.0)[:1], {POSITIVE: positive, NEGATIVE: negative}, memory)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_apg_without_projection_is_cfg():
    """With eta 1, no momentum and no limit nothing is left of it."""
    positive, negative = predictions_of(2)
    rule = {"rule": "apg", "eta": 1, "norm_threshold": 0, "momentum": 0}
    ours, _ = apply(resolve(rule)[:1], {POSITIVE: positive, NEGATIVE: negative})
    plain, _ = apply(resolve(None)[:1], {POSITIVE: positive, NEGATIVE: negative})
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.7, 5.0, 7.3, 12.0])
def test_decoupled_with_a_weight_of_w_less_1_is_cfg_to_the_bit(scale):
    """Classifier-free guidance is the decoupled rule whose negative weighs w - 1: two rows, the same weights."""
    rule = {"rule": "decoupled", "negative_weight": scale - 1.0}
    assert parse_rule(rule) is not None
    assert [(step.branches, step.weights) for step in resolve(rule, scale=scale)] == [
        (step.branches, step.weights) for step in resolve(None, scale=scale)
    ]


def test_decoupled_is_its_formula():
    """e_ + w (e+ - e_) - sum_i w_i (e_i - e_), with weights of either sign."""
    positive, negative, first, second, empty = predictions_of(5)
    rule = {"rule": "decoupled", "negative_weight": 2.5, "negatives": {"a": 1.5, "b": -0.5}}
    branches = {
        POSITIVE: positive,
        NEGATIVE: negative,
        FIRST_EXTRA: first,
        FIRST_EXTRA + 1: second,
        EMPTY: empty,
    }
    ours, _ = apply(resolve(rule, scale=6.0)[:1], branches)
    theirs = (
        empty
        + 6.0 * (positive - empty)
        - 2.5 * (negative - empty)
        - 1.5 * (first - empty)
        + 0.5 * (second - empty)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_perp_neg_is_its_formula():
    """Each negative pushes only by what is perpendicular to the prompt's own direction."""
    positive, negative, extra, empty = (value.double() for value in predictions_of(4))
    rule = {"rule": "perp_neg", "negative_weight": 0.8, "negatives": {"a": 1.5}}
    branches = {POSITIVE: positive, NEGATIVE: negative, FIRST_EXTRA: extra, EMPTY: empty}
    ours, _ = apply(
        resolve(rule, scale=6.0)[:1], {branch: value.float() for branch, value in branches.items()}
    )
    towards = positive - empty
    push = 0
    for weight, text in ((0.8, negative), (1.5, extra)):
        away = text - empty
        perpendicular = away - towards * ((away * towards).sum() / (towards * towards).sum())
        assert abs(float((perpendicular * towards).sum())) < 1e-9
        push = push + weight * perpendicular
    torch.testing.assert_close(ours, (empty + 6.0 * (towards - push)).float(), rtol=1e-4, atol=1e-4)


def test_a_batch_of_all_rules_is_each_alone():
    """Jobs of different rules, side by side and in any place, get the very numbers they get alone."""
    rules = [
        (None, 5.0),
        ("apg", 7.0),
        ({"rescale": 0.5}, 3.0),
        ("perp_neg", 4.0),
        ("cfg_zero_star", 2.0),
        ({"rule": "decoupled", "negatives": {"a": 2}}, 8.0),
        (None, 1.0),
    ]
    steps = [resolve(rule, scale=scale)[0] for rule, scale in rules]
    jobs = len(steps)
    branches = {
        branch: predictions_of(1, seed=branch, jobs=jobs)[0]
        for branch in (POSITIVE, NEGATIVE, EMPTY, FIRST_EXTRA)
    }
    together, _ = apply(steps, branches)
    order = [3, 0, 6, 5, 1, 4, 2]
    shuffled, _ = apply(
        [steps[job] for job in order], {branch: value[order] for branch, value in branches.items()}
    )
    for position, job in enumerate(order):
        assert torch.equal(shuffled[position], together[job])
        alone, _ = apply([steps[job]], {branch: value[[job]] for branch, value in branches.items()})
        torch.testing.assert_close(alone[0], together[job], rtol=1e-5, atol=1e-6)


def test_a_neighbour_that_is_not_finite_stays_alone():
    """NaN and infinity in one job's predictions do not reach another job's."""
    steps = [resolve(rule)[0] for rule in ("apg", None, "perp_neg", {"rescale": 1})]
    branches = {branch: predictions_of(1, seed=branch, jobs=4)[0] for branch in (POSITIVE, NEGATIVE, EMPTY)}
    clean, _ = apply(steps, branches)
    branches[NEGATIVE][1] = float("nan")
    branches[POSITIVE][1, 0] = float("inf")
    broken, _ = apply(steps, branches)
    assert not broken[1].isfinite().all()
    for job in (0, 2, 3):
        assert torch.equal(broken[job], clean[job])
