"""One image to make: the canonical job and its id. Knows nothing of plans, queues or pixels.

The id is blake2b-128 of the job's canonical JSON: UTF-8, keys sorted, no spaces, `guidance_scale`
always a float. Two jobs that must give the same image have the same id; a null negative prompt and
an empty one are different jobs (SDXL renders them differently).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, NamedTuple

#: Version of the sampler's arithmetic. Part of every job id: raise it when images change.
SAMPLER_VERSION = "2"

#: Longest prompt, bytes of UTF-8. The longest prompts in use are a hundredth of it.
PROMPT_BYTES_MAX = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class JobField:
    """What the code has to know of one field of a job."""

    name: str
    #: Types that a value may have. A bool is not an int here.
    types: tuple[type, ...]
    #: Name of the Arrow type of the field's column in a manifest.
    column: Literal["string", "uint32", "uint64", "float64"]
    #: Description of that column.
    description: str
    #: Key that a sweep sets the field by; None where a sweep cannot set it.
    key: str | None
    #: Whether the field changes the image only where there is guidance.
    needs_guidance: bool = False
    #: The field's name in the headings of sheets and pages; "" is `name`.
    heading: str = ""

    @property
    def nullable(self) -> bool:
        """Whether a value may be None."""
        return NoneType in self.types


#: Every field of a job but its id, in the order of the documentation and of a manifest's columns.
JOB_FIELDS = (
    JobField(name="prompt", types=(str,), column="string", description="Prompt.", key="prompt"),
    JobField(
        name="negative_prompt",
        types=(str, NoneType),
        column="string",
        description="Negative prompt as the sweep declares it. Null (none) and empty are kept apart; unused at a"
        " guidance scale of 1 or less.",
        key="negative_prompt",
        needs_guidance=True,
        heading="negative",
    ),
    JobField(
        name="seed",
        types=(int,),
        column="uint64",
        description="Seed of the job's own random generator.",
        key="seed",
    ),
    JobField(
        name="guidance_scale",
        types=(float,),
        column="float64",
        description="Scale of classifier-free guidance.",
        key="guidance_scale",
        heading="guidance",
    ),
    JobField(
        name="guidance_rule",
        types=(str, NoneType),
        column="string",
        description="Guidance rule as canonical JSON (docs/sweeps.md). Null for plain classifier-free guidance; unused"
        " at a guidance scale of 1 or less.",
        key="guidance_rule",
        needs_guidance=True,
        heading="rule",
    ),
    JobField(name="steps", types=(int,), column="uint32", description="Sampling steps.", key="steps"),
    JobField(
        name="scheduler",
        types=(str,),
        column="string",
        description="Scheduler, by Printroom's name.",
        key="scheduler",
    ),
    JobField(name="width", types=(int,), column="uint32", description="Image width, pixels.", key="size"),
    JobField(name="height", types=(int,), column="uint32", description="Image height, pixels.", key="size"),
    JobField(
        name="model", types=(str,), column="string", description="Fingerprint of the model.", key="model"
    ),
    JobField(
        name="sampler",
        types=(str,),
        column="string",
        description="Version of the sampler's arithmetic.",
        key=None,
    ),
)

#: Canonical order of the recipe's fields (sorted, as canonical JSON wants them).
RECIPE_FIELDS = tuple(sorted(field.name for field in JOB_FIELDS))

#: Keys by which a sweep sets the fields, in the order of the documentation; `size` sets width and height.
SWEEP_FIELDS = tuple(dict.fromkeys(field.key for field in JOB_FIELDS if field.key is not None))

#: Fields that change the image only where there is guidance.
GUIDED_FIELDS = tuple(field.name for field in JOB_FIELDS if field.needs_guidance)

#: Values of the fields that `make_job` may be called without.
_DEFAULTS = {"guidance_rule": None, "sampler": SAMPLER_VERSION}

_NAMES = frozenset(RECIPE_FIELDS)


class Job(NamedTuple):
    """What makes one image, completely.

    A named tuple, not a dataclass: a sweep reads millions of them, and a frozen dataclass of twelve fields
    costs 2.0 us to make where this costs 0.3. The fields stand in the order of RECIPE_FIELDS, then the id.
    """

    #: Canonical text of the rule that makes one prediction of several (`shared.guidance`); None is plain
    #: classifier-free guidance.
    guidance_rule: str | None
    #: Guidance scale w of classifier-free guidance; at 1 or less there is no negative branch.
    guidance_scale: float
    #: Image height, pixels.
    height: int
    #: Model fingerprint (`shared.fingerprint`), never a path or a bare name.
    model: str
    #: What the unconditional branch says instead of nothing; None is not "".
    negative_prompt: str | None
    prompt: str
    #: Version of the sampler's arithmetic.
    sampler: str
    #: A name in `shared.schedulers.SCHEDULERS`.
    scheduler: str
    #: Seed of the job's own CPU generator, 0 <= seed < 2**64.
    seed: int
    #: Sampling steps.
    steps: int
    #: Image width, pixels.
    width: int
    #: blake2b-128 of the canonical JSON, 32 hex digits. Names the image in the store.
    id: str

    @property
    def guided(self) -> bool:
        """Whether the job has a negative branch (two UNet rows or more, instead of one)."""
        return self.guidance_scale > 1.0

    def recipe(self) -> dict[str, Any]:
        """Return the job's fields without its id, as declared."""
        fields = self._asdict()
        del fields["id"]
        return fields


def make_job(**values: Any) -> Job:
    """Make a job and name it by its content.

    Args:
        values: field of JOB_FIELDS -> its value. `guidance_rule` and `sampler` may be left out.

    Raises: TypeError for a field that is missing or unknown.
    """
    recipe = {**_DEFAULTS, **values}
    if recipe.keys() != _NAMES:
        wrong = sorted(recipe.keys() ^ _NAMES)
        raise TypeError(f"a job has exactly the fields {', '.join(RECIPE_FIELDS)}; check {', '.join(wrong)}")
    recipe["guidance_scale"] = float(recipe["guidance_scale"])
    return Job(**recipe, id=job_id(recipe))


def job_id(recipe: dict[str, Any]) -> str:
    """Return the id of a recipe: blake2b-128 of its canonical JSON, 32 hex digits."""
    return hashlib.blake2b(canonical_recipe(recipe), digest_size=16).hexdigest()


def canonical_recipe(recipe: dict[str, Any]) -> bytes:
    """Return the canonical JSON of a recipe.

    Without guidance neither the negative prompt nor a guidance rule is ever used, whatever the rule: a step is the
    prompt's prediction alone. So both are null here, and such jobs are one image.
    """
    if recipe["guidance_scale"] <= 1.0:
        recipe = {**recipe, **dict.fromkeys(GUIDED_FIELDS)}
    return canonical_json({field: recipe[field] for field in RECIPE_FIELDS})


def canonical_json(value: Any) -> bytes:
    """Return the one JSON spelling of a value that we hash: sorted keys, no spaces, UTF-8.

    Raises: ValueError for NaN and infinity, UnicodeEncodeError for lone surrogates.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
