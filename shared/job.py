"""One image to make: the canonical job and its id. Knows nothing of plans, queues or pixels.

The id is blake2b-128 of the job's canonical JSON: UTF-8, keys sorted, no spaces, `guidance_scale`
always a float. Two jobs that must give the same image have the same id; a null negative prompt and
an empty one are different jobs (SDXL renders them differently).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

#: Version of the sampler's arithmetic. Part of every job id: raise it when images change.
SAMPLER_VERSION = "2"

#: Longest prompt, bytes of UTF-8. The longest prompts in use are a hundredth of it.
PROMPT_BYTES_MAX = 65_536

#: Canonical order of the recipe's fields (sorted, as canonical JSON wants them).
RECIPE_FIELDS = (
    "guidance_rule",
    "guidance_scale",
    "height",
    "model",
    "negative_prompt",
    "prompt",
    "sampler",
    "scheduler",
    "seed",
    "steps",
    "width",
)


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


def make_job(
    *,
    prompt: str,
    negative_prompt: str | None,
    seed: int,
    guidance_scale: float,
    steps: int,
    scheduler: str,
    width: int,
    height: int,
    model: str,
    guidance_rule: str | None = None,
    sampler: str = SAMPLER_VERSION,
) -> Job:
    """Make a job and name it by its content."""
    recipe = {
        "guidance_rule": guidance_rule,
        "guidance_scale": float(guidance_scale),
        "height": height,
        "model": model,
        "negative_prompt": negative_prompt,
        "prompt": prompt,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "steps": steps,
        "width": width,
    }
    return Job(**recipe, id=job_id(recipe))  # type: ignore[arg-type]


def job_id(recipe: dict[str, Any]) -> str:
    """Return the id of a recipe: blake2b-128 of its canonical JSON, 32 hex digits."""
    return hashlib.blake2b(canonical_recipe(recipe), digest_size=16).hexdigest()


def canonical_recipe(recipe: dict[str, Any]) -> bytes:
    """Return the canonical JSON of a recipe.

    Without guidance neither the negative prompt nor a guidance rule is ever used, whatever the rule: a step is the
    prompt's prediction alone. So both are null here, and such jobs are one image.
    """
    if recipe["guidance_scale"] <= 1.0:
        recipe = {**recipe, "negative_prompt": None, "guidance_rule": None}
    return canonical_json({field: recipe[field] for field in RECIPE_FIELDS})


def canonical_json(value: Any) -> bytes:
    """Return the one JSON spelling of a value that we hash: sorted keys, no spaces, UTF-8.

    Raises: ValueError for NaN and infinity, UnicodeEncodeError for lone surrogates.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
