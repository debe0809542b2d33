"""The keys of a sweep that hold several values: seed ranges, cases, samples, draws, axes of numbers.

Types and the checks of each by itself; what only the whole sweep shows is in `producer.language.sweep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    InstanceOf,
    PlainSerializer,
    Tag,
    model_validator,
)

from producer.language.fields import (
    SEED_STOP,
    GuidanceRuleValue,
    GuidanceScale,
    ModelName,
    NegativePrompt,
    Prompt,
    Scheduler,
    Seed,
    Size,
    Steps,
    check_axis,
    check_guidance_rules,
    check_int,
    check_numbers,
    detail,
    merged,
    problem,
)
from producer.language.guidance_rules import written_rule
from producer.language.ranges import Span
from producer.language.wording import kind, show
from shared.plan import SWEEP_JOBS_MAX, StoreLayout

#: Expressions of one sweep.
_CONDITIONS_MAX = 100


class Strict(BaseModel):
    """What is declared, and never changed: nothing else is taken, nothing is guessed at."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _check_start(value: Any) -> int:
    return check_int("seed start", value, low=0, high=SEED_STOP - 1)


def _check_count(value: Any) -> int:
    return check_int("seed count", value, low=1, high=SEED_STOP)


def _check_per(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise problem("per", f"seed: per={show(value)}: write job, or fields such as prompt")
    return tuple(names)


class SeedSpan(Strict):
    """Consecutive seeds, `start <= seed < start + count`; or `count` seeds of their own for each value of `per`."""

    start: Annotated[int, BeforeValidator(_check_start)] = 0
    count: Annotated[int, BeforeValidator(_check_count)]
    #: Fields, vars, or `job`: what shares seeds. None: all jobs share them, so that comparisons are paired.
    per: Annotated[tuple[str, ...] | None, BeforeValidator(_check_per)] = None

    @model_validator(mode="before")
    @classmethod
    def _one_seed_each(cls, data: Any) -> Any:
        return {"count": 1, **data} if isinstance(data, dict) and data.get("per") is not None else data

    @model_validator(mode="after")
    def _ends_in_64_bits(self) -> Self:
        if self.start + self.count > SEED_STOP:
            last = self.start + self.count - 1
            raise problem(
                "number", f"seed: the last of {self.count} from {self.start} is {last}: stay below 2**64"
            )
        return self


class Case(Strict):
    """A hand-picked combination: one value for each field in `model_fields_set`, the rest from the sweep."""

    prompt: Prompt = ""
    negative_prompt: NegativePrompt = None
    seed: Seed = 0
    guidance_scale: GuidanceScale = 0.0
    guidance_rule: GuidanceRuleValue = None
    steps: Steps = 0
    scheduler: Scheduler = ""
    size: Size = ""
    model: ModelName = ""


def check_cases(value: Any) -> Any:
    """Return the cases as a tuple."""
    if not isinstance(value, list | tuple):
        said = f"cases is {kind(value)}: write a list of mappings: '- {{prompt: ...}}'"
        raise problem("cases", said)
    if not value:
        raise problem("cases", "cases is empty: give it a case or remove the key")
    return tuple(value)


def check_case(value: Any) -> Any:
    """Return a case, which is a mapping."""
    if not isinstance(value, dict | Case):
        raise problem("case", f"a case is {kind(value)}: write a mapping such as {{prompt: a cat, seed: 1}}")
    return value


def _check_sample_count(value: Any) -> int:
    return check_int("sample count", value, low=1, high=SWEEP_JOBS_MAX)


def _check_sample_seed(value: Any) -> int:
    return check_int("sample seed", value, low=0, high=SEED_STOP - 1)


def _check_method(value: Any) -> str:
    if value not in ("uniform", "latin"):
        raise problem("sample", f"sample: method={show(value)}: use uniform or latin")
    return str(value)


class SampleSpec(Strict):
    """How many jobs of the product, chosen how."""

    count: Annotated[int, BeforeValidator(_check_sample_count)]
    seed: Annotated[int, BeforeValidator(_check_sample_seed)] = 0
    method: Annotated[Literal["uniform", "latin"], BeforeValidator(_check_method)] = "uniform"


def check_sample(value: Any) -> Any:
    """Return a sample's mapping; a number alone is its count."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": value}
    if not isinstance(value, Mapping | SampleSpec):
        raise problem("sample", f"sample is {kind(value)}: write {{count: 1000, seed: 0}}")
    return value


def _check_draws_count(value: Any) -> int:
    return check_int("expand count", value, low=1, high=10_000_000)


def _check_draws_seed(value: Any) -> int:
    return check_int("expand seed", value, low=0, high=SEED_STOP - 1)


class DrawSpec(Strict):
    """How often each template is drawn at random."""

    count: Annotated[int, BeforeValidator(_check_draws_count)]
    seed: Annotated[int, BeforeValidator(_check_draws_seed)] = 0


def _check_expand(value: Any) -> Any:
    if value in (None, "all") or isinstance(value, Mapping | DrawSpec):
        return value
    raise problem("expand", f"expand={show(value)}: write all, or {{count: 100, seed: 0}} for random draws")


def _expand_form(value: Any) -> str:
    return "draws" if isinstance(value, Mapping | DrawSpec) else "all"


def check_repeat(value: Any) -> int:
    """Return a number of seeds."""
    return check_int("repeat", value, low=1, high=SWEEP_JOBS_MAX)


def _check_conditions(value: Any) -> tuple[str, ...]:
    """Return expressions; what they name is looked at with the whole sweep."""
    items = check_axis(value)
    if len(items) > _CONDITIONS_MAX:
        raise problem("conditions", f"{len(items):,} expressions: use at most {_CONDITIONS_MAX}")
    for position, item in enumerate(items):
        if not isinstance(item, str):
            text = f"an expression is {kind(item)}: write text such as 'guidance_scale > 1'"
            raise merged([detail((position,), "condition", text)])
    return items  # type: ignore[no-any-return]


def check_layout(value: Any) -> str:
    """Return the name of a layout."""
    known = get_args(StoreLayout)
    if value not in known:
        raise problem("layout", f"layout={show(value)}: use {' or '.join(known)}")
    return str(value)


def _check_seeds(value: Any) -> Any:
    """Return an axis of seeds that is no span: one, a list, or a range with a stop or a step."""
    if isinstance(value, Mapping) and "stop" in value and "count" not in value:
        value = {"step": 1, **value}  # seeds are counted: from start to stop is one by one
    return check_numbers("seed", value)


def _seed_form(value: Any) -> str:
    is_range = isinstance(value, dict) and ("stop" in value or "step" in value)
    return "span" if isinstance(value, dict | SeedSpan) and not is_range else "list"


def _scales(value: Any) -> Any:
    return check_numbers("guidance_scale", value)


def _steps(value: Any) -> Any:
    return check_numbers("steps", value)


def _numbers_form(value: Any) -> str:
    return "span" if isinstance(value, Span) else "list"


AXIS = BeforeValidator(check_axis)
RuleAxis = Annotated[
    tuple[Annotated[str | None, PlainSerializer(written_rule)], ...], BeforeValidator(check_guidance_rules)
]
SeedAxis = Annotated[
    Annotated[SeedSpan, Tag("span")]
    | Annotated[Annotated[tuple[Seed, ...], BeforeValidator(_check_seeds)], Tag("list")],
    Discriminator(_seed_form),
]


def _written_span(span: Span) -> dict[str, Any]:
    return {"start": span.start, "stop": span.stop}


_Span = Annotated[InstanceOf[Span], PlainSerializer(_written_span)]
ScaleAxis = Annotated[
    Annotated[
        Annotated[_Span, Tag("span")] | Annotated[tuple[GuidanceScale, ...], Tag("list")],
        Discriminator(_numbers_form),
    ],
    BeforeValidator(_scales),
]
StepAxis = Annotated[
    Annotated[
        Annotated[_Span, Tag("span")] | Annotated[tuple[Steps, ...], Tag("list")],
        Discriminator(_numbers_form),
    ],
    BeforeValidator(_steps),
]
Expand = Annotated[
    Annotated[
        Annotated[DrawSpec, Tag("draws")] | Annotated[Literal["all"] | None, Tag("all")],
        Discriminator(_expand_form),
    ],
    BeforeValidator(_check_expand),
]
Conditions = Annotated[tuple[str, ...], BeforeValidator(_check_conditions)]
