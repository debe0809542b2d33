"""Guidance rules on tensors: which denoiser rows a job needs at a step, and how their predictions become one.

A rule of a job (`shared.guidance.GuidanceRule`) is resolved once into one `Guidance` per model evaluation: plain
data. `combine` then applies every job's own at once. A rule that is a weighted sum of predictions needs no code
here but its weights; one that is not has a function in `_METHODS`, over all jobs of the batch, whose result is
taken where a job asks for it. Knows nothing of schedulers, of texts, of the rank
of latents, or of where rows stand in a call of the denoiser.

Names: e+ is the prediction for the prompt, e- for the negative prompt, e_ for the empty prompt; w is the scale.
To add a rule: a name and its fields in `shared.guidance`, its rows in `_guided`, and, if it is not a weighted sum,
a method here. docs/sampler.md shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch

from shared.guidance import GuidanceRule, read_rule

#: Texts of a job that a row may be conditioned on: the prompt, the negative prompt, no prompt, further negatives.
POSITIVE, NEGATIVE, EMPTY, FIRST_EXTRA = 0, 1, 2, 3

#: How predictions become one.
WEIGHTED_SUM, PERP_NEG, APG, CFG_ZERO_STAR = "weighted_sum", "perp_neg", "apg", "cfg_zero_star"

#: Numbers that a method may read, see `Guidance.numbers`.
NUMBERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """What one job does at one model evaluation."""

    #: The texts its rows are conditioned on; e+ is the first.
    branches: tuple[int, ...] = (POSITIVE,)
    #: One per branch. A weighted sum is their sum of products; perp_neg reads the negatives' own.
    weights: tuple[float, ...] = (1.0,)
    method: str = WEIGHTED_SUM
    #: w, and what else the method reads: (w, eta, norm threshold, momentum).
    numbers: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)
    #: Phi of guidance rescale; 0 leaves the prediction alone.
    rescale: float = 0.0


#: A step of the prompt alone.
UNGUIDED = Guidance()


@lru_cache(maxsize=4096)
def resolve_guidance(rule_text: str | None, scale: float, evaluations: int) -> tuple[Guidance, ...]:
    """Return what a job does at each of its model evaluations.

    Evaluation n is inside an interval [start, stop] when start <= n / evaluations < stop, reckoned exactly.

    Args:
        rule_text: the canonical text of a rule; None is plain classifier-free guidance.
        scale: w. At 1 or less nothing is guided, as in diffusers.
        evaluations: denoiser calls of the job; more than its steps for schedulers such as Heun's.
    """
    if scale <= 1.0:
        return (UNGUIDED,) * evaluations
    rule = read_rule(rule_text)
    return tuple(_at(rule, scale, n, evaluations) for n in range(evaluations))


def peak_rows(guidance: Sequence[Guidance]) -> int:
    """Return the most rows a job takes at once."""
    return max(len(step.branches) for step in guidance)


def _at(rule: GuidanceRule, scale: float, n: int, evaluations: int) -> Guidance:
    if rule.rule == "cfg_zero_star" and n < rule.zero_init_steps:
        return Guidance(weights=(0.0,))
    if not _inside(n, evaluations, rule.interval):
        return UNGUIDED
    return _guided(rule, scale, negated=_inside(n, evaluations, rule.negative_interval))


def _inside(n: int, evaluations: int, interval: tuple[float, float]) -> bool:
    start, stop = (Fraction(str(side)) for side in interval)
    return start <= Fraction(n, evaluations) < stop


def _guided(rule: GuidanceRule, scale: float, *, negated: bool) -> Guidance:
    """Return a guided step; without `negated` the empty prompt stands where the negatives would."""
    if rule.needs_empty:
        return _many(rule, scale) if negated else _pair(EMPTY, rule, scale, WEIGHTED_SUM)
    method = {"apg": APG, "cfg_zero_star": CFG_ZERO_STAR}.get(rule.rule, WEIGHTED_SUM)
    return _pair(NEGATIVE if negated else EMPTY, rule, scale, method)


def _pair(other: int, rule: GuidanceRule, scale: float, method: str) -> Guidance:
    """Return classifier-free guidance away from one text: e + w (e+ - e), or a method over the same two rows."""
    return Guidance(
        branches=(POSITIVE, other),
        weights=(scale, 1.0 - scale),
        method=method,
        numbers=(scale, rule.eta, rule.norm_threshold, rule.momentum),
        rescale=rule.rescale,
    )


def _many(rule: GuidanceRule, scale: float) -> Guidance:
    """Return a step away from several texts, measured from the empty prompt.

    decoupled is e_ + w (e+ - e_) - sum_i w_i (e_i - e_): a weighted sum, in which e_ has 1 - w + sum_i w_i. With one
    negative of weight w - 1 that is nothing, its row is left out, and what remains is classifier-free guidance.
    """
    extras = tuple(FIRST_EXTRA + number for number in range(len(rule.negatives)))
    more = tuple(negative.weight for negative in rule.negatives)
    if rule.rule == "perp_neg":
        own = 1.0 if rule.negative_weight is None else rule.negative_weight
        branches, weights = (POSITIVE, NEGATIVE, *extras, EMPTY), (scale, own, *more, 0.0)
        return Guidance(
            branches=branches,
            weights=weights,
            method=PERP_NEG,
            numbers=(scale, 0.0, 0.0, 0.0),
            rescale=rule.rescale,
        )
    own = scale - 1.0 if rule.negative_weight is None else rule.negative_weight
    empty = 1.0 - scale + own + sum(more)
    branches = (POSITIVE, NEGATIVE, *extras)
    weights = (scale, -own, *(-weight for weight in more))
    if empty != 0.0:
        branches, weights = (*branches, EMPTY), (*weights, empty)
    return Guidance(branches=branches, weights=weights, rescale=rule.rescale)


# On tensors: J jobs of at most B branches, float32. Latents are written (C, H, W); they may have any rank.


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the denoiser predicted for every job, and what each job's guidance says."""

    #: e+ first; a job of fewer branches repeats it, with weight 0.
    branches: Sequence[torch.Tensor]  # B of (J, C, H, W)
    weights: torch.Tensor  # (J, B)
    numbers: torch.Tensor  # (J, NUMBERS)
    #: Whether a branch is the empty prompt's, and whether it is a negative's: only perp_neg asks.
    is_empty: torch.Tensor  # (J, B)
    #: What a method remembers of a job from step to step, zero at its first.
    memory: torch.Tensor  # (J, C, H, W)


def combine(
    predictions: Predictions, methods: Sequence[str], rescale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one prediction of every job's branches.

    Every operation is elementwise or sums over one job alone, so a job's result does not depend on the others.

    Args:
        predictions: of all jobs.
        methods: each job's. Those not asked for by any job cost nothing.
        rescale: phi of every job, (J,), or None where no job rescales.

    Returns: the predictions, (J, C, H, W), and what methods remember, of the same shape.
    """
    result, memory = _weighted_sum(predictions), predictions.memory
    for name, method in _METHODS.items():
        if name in methods:
            chosen = _column([float(found == name) for found in methods], result) > 0
            value, remembered = method(predictions)
            result = torch.where(chosen, value, result)
            memory = torch.where(chosen, remembered, memory)
    if rescale is not None:
        result = torch.where(
            _wide(rescale, result) > 0,
            _rescaled(result, predictions.branches[0], _wide(rescale, result)),
            result,
        )
    return result, memory


def _weighted_sum(predictions: Predictions) -> torch.Tensor:
    """Return the sum of every job's branches times their weights, one after the other: no job waits on the batch."""
    first = predictions.branches[0]
    total = first * _wide(predictions.weights[:, 0], first)
    for number, branch in enumerate(predictions.branches[1:], start=1):
        total = total + branch * _wide(predictions.weights[:, number], branch)
    return total


def _perp_neg(predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return e_ + w (d+ - sum_i w_i d_i'), where d = e - e_ and d' is its part perpendicular to d+.

    Source: Armandpour et al. 2023 (arXiv:2304.04968).
    """
    empty = sum(
        branch * _wide(predictions.is_empty[:, number], branch)
        for number, branch in enumerate(predictions.branches)
    )
    towards = predictions.branches[0] - empty
    push = torch.zeros_like(towards)
    for number, branch in enumerate(predictions.branches[1:], start=1):
        away = branch - empty
        parallel = towards * (_dot(away, towards) / _dot(towards, towards).clamp_min(1e-12))
        push = push + _wide(predictions.weights[:, number], away) * (away - parallel)
    return empty + _wide(predictions.numbers[:, 0], towards) * (towards - push), predictions.memory


def _apg(predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return e+ + (w - 1) (d' + eta d''), d = e+ - e- with momentum and cut to a length, d' perpendicular to e+.

    With eta 1, no momentum and no limit that is classifier-free guidance.
    Source: Sadat et al. 2024, adaptive projected guidance (arXiv:2410.02416).
    """
    positive, negative = predictions.branches[0], predictions.branches[1]
    scale, eta, limit, momentum = (_wide(predictions.numbers[:, n], positive) for n in range(NUMBERS))
    remembered = positive - negative + momentum * predictions.memory
    length = _dot(remembered, remembered).sqrt().clamp_min(1e-12)
    difference = remembered * torch.where(limit > 0, (limit / length).clamp(max=1.0), 1.0)
    unit = positive / _dot(positive, positive).sqrt().clamp_min(1e-12)
    parallel = unit * _dot(difference, unit)
    return positive + (scale - 1.0) * (difference - parallel + eta * parallel), remembered


def _cfg_zero_star(predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return s e- + w (e+ - s e-), where s e- is the projection of e+ on e-.

    Source: Fan et al. 2025, CFG-Zero* (arXiv:2503.18886).
    """
    positive, negative = predictions.branches[0], predictions.branches[1]
    fitted = negative * (_dot(positive, negative) / _dot(negative, negative).clamp_min(1e-8))
    return fitted + _wide(predictions.numbers[:, 0], positive) * (positive - fitted), predictions.memory


def _rescaled(result: torch.Tensor, positive: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """Return the prediction with its standard deviation pulled towards e+'s.

    Source: Lin et al. 2023, section 3.4 (arXiv:2305.08891), as diffusers' `rescale_noise_cfg`.
    """
    wanted, found = (_wide(value.flatten(1).std(dim=1), value) for value in (positive, result))
    return result * (phi * wanted / found.clamp_min(1e-12) + (1.0 - phi))


_METHODS: dict[str, Callable[[Predictions], tuple[torch.Tensor, torch.Tensor]]] = {
    PERP_NEG: _perp_neg,
    APG: _apg,
    CFG_ZERO_STAR: _cfg_zero_star,
}


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return every job's own inner product, as wide as the latents, (J, 1, 1, 1)."""
    return _wide((left * right).flatten(1).sum(dim=1), left)


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return one value a job, (J,), such that it broadcasts over that job's latents."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return _wide(torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True), like)
