"""Describes how each model of a plan is read, and what may be a mistake. Reads no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.model_facts import BY_CONFIG, ModelFacts
from shared.plan import Plan

#: What tells a sweep's author how to say it otherwise.
_OTHERWISE = "model: {{name: {name}, prediction_type: {other}}}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRead:
    """How a model is read."""

    #: As the sweep names it.
    model: str
    family: str
    prediction_type: str
    zero_snr: bool
    #: Where the two come from, and whether they are only assumed.
    source: str
    assumed: bool

    @property
    def is_remarkable(self) -> bool:
        """Whether it is read as few models are, and not by its configs alone."""
        unusual = self.prediction_type != "epsilon" or self.zero_snr
        return unusual and not self.source.startswith(BY_CONFIG)


def read_models(plan: Plan, facts: Mapping[str, ModelFacts]) -> tuple[ModelRead, ...]:
    """Return how each model of a plan is read, but for flow models, which predict neither noise nor v."""
    return tuple(
        ModelRead(
            model=name,
            family=found.family,
            prediction_type=found.prediction_type,
            zero_snr=found.zero_snr,
            source=found.source,
            assumed=found.assumed,
        )
        for fingerprint, name in plan.models.items()
        if (found := facts.get(fingerprint)) is not None and found.path == "betas" and not found.refusal
    )


def model_warnings(plan: Plan, facts: Mapping[str, ModelFacts]) -> Iterator[str]:
    """Yield what is assumed of a model, and sizes far from those it was made for."""
    for model in read_models(plan, facts):
        if model.assumed:
            other = "epsilon" if model.prediction_type == "v_prediction" else "v_prediction"
            yield (
                f"{model.model} is taken to predict {model.prediction_type}, {model.source}: "
                f"if its images are noise or burnt, write {_OTHERWISE.format(name=model.model, other=other)}"
            )
    for bucket in plan.buckets:
        side = facts[bucket.model].side_px if bucket.model in facts else None
        if side is not None and 4 * bucket.width * bucket.height <= side * side:
            name = plan.models.get(bucket.model, bucket.model)
            yield (
                f"size {bucket.width}x{bucket.height} is far below what {name} was trained on: "
                f"write size: {side}x{side}, or images may fall apart"
            )
