"""Writes a job, its pixels and their provenance into an image file, and reads them back. Knows nothing of stores.

Two texts stand in the file: JSON, the truth, which `read_image` reads and checks against the job's id; and A1111's
infotext, for the tools people already have. Infotext has no escapes, so a prompt may well be misread from it; the
JSON never is. In a PNG they are `printroom` and `parameters`; the names `prompt`, `workflow` and `Comment` belong
to other tools and are never written. Other formats have them as XMP and as EXIF (`shared.images`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.guidance import rule_label
from shared.images.files import encode, kind_of, read_texts
from shared.images.format import PNG, ImageFormat, parse_format
from shared.images.texts import KEYWORD, Texts
from shared.job import JOB_FIELDS, Job, canonical_json, canonical_recipe, job_id, make_job
from shared.result import Provenance
from shared.schedulers import SCHEDULERS

#: Version of the JSON in an image.
FORMAT = 2

#: What the JSON holds, and the types each field may have. bool is no int here.
_RECIPE_TYPES = {field.name: field.types for field in sorted(JOB_FIELDS, key=lambda field: field.name)}
_PROVENANCE_TYPES: dict[str, tuple[type, ...]] = {
    "model_name": (str,),
    "device": (str,),
    "dtype": (str,),
    "batch_rows": (int,),
    "prompt_tokens": (int,),
    "negative_tokens": (int,),
    "versions": (dict,),
}
#: Fields that a file may lack.
_PROVENANCE_EXTRAS: dict[str, tuple[type, ...]] = {"digital_source_type": (str,)}

#: Digits of A1111's short model hash.
_MODEL_HASH_DIGITS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMetadata:
    """What an image says of itself."""

    #: The job in canonical form: without guidance its negative prompt and its rule are None, whatever the sweep said.
    job: Job
    provenance: Provenance
    #: The file's format, with the quality that it was written at.
    image_format: ImageFormat = PNG


def image_bytes(
    job: Job,
    pixels: npt.NDArray[np.uint8],
    provenance: Provenance,
    image_format: ImageFormat = PNG,
) -> bytes:
    """Return the file of a job. The same job, pixels, provenance, format and encoder give the same bytes.

    Args:    pixels: (job.height, job.width, 3) uint8, RGB.
    Raises:  ValueError for pixels of another shape, and for prompts with NUL or lone surrogates; SettingsError
        where the encoder is an extra that is not installed.
    """
    if pixels.shape != (job.height, job.width, 3):
        raise ValueError(f"pixels {pixels.shape}: job {job.id} is {job.height}x{job.width}x3")
    texts = Texts(
        infotext=infotext(job, provenance),
        truth=_truth(job, provenance, image_format),
        source=provenance.digital_source_type,
    )
    return encode(pixels, texts, image_format)


def read_image(data: bytes) -> ImageMetadata:
    """Return what an image of ours says of itself, after checking the file's checksums and the job's id.

    Raises: ValueError with the reason: damaged, not ours, of another format, or of a recipe that does not
        give its id.
    """
    texts = read_texts(data)
    text = texts.truth
    if texts.broken is not None:
        raise ValueError(texts.broken)
    if text is None:
        raise ValueError(f"no {KEYWORD!r} text: not an image of Printroom's")
    try:
        truth = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the {KEYWORD!r} text is not JSON") from e
    if not isinstance(truth, dict) or truth.get("format") != FORMAT:
        raise ValueError(f"the {KEYWORD!r} text is not of format {FORMAT}")
    recipe = _fields(truth.get("job"), _RECIPE_TYPES, "job")
    provenance = _fields(truth.get("provenance"), _PROVENANCE_TYPES, "provenance", _PROVENANCE_EXTRAS)
    if not all(isinstance(version, str) for version in provenance["versions"].values()):
        raise ValueError("provenance.versions: every version is a text")
    if truth.get("id") != job_id(recipe):
        raise ValueError(f"id {truth.get('id')!r} does not match its recipe, which gives {job_id(recipe)}")
    return ImageMetadata(
        job=make_job(**recipe),
        provenance=Provenance(**provenance),
        image_format=_image_format(truth.get("image_format"), data),
    )


def infotext(job: Job, provenance: Provenance) -> str:
    """Return A1111's `parameters` text: prompt, negative prompt if there is one, and a line of settings."""
    lines = [job.prompt]
    if job.guided and job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    settings = _settings(job, provenance)
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value))
    return "\n".join(lines)


def _settings(job: Job, provenance: Provenance) -> dict[str, str]:
    """Return the last line's pairs in A1111's order; an empty value is left out."""
    scheduler = SCHEDULERS.get(job.scheduler)
    return {
        "Steps": str(job.steps),
        "Sampler": scheduler.a1111_sampler if scheduler else _plain(job.scheduler),
        "Schedule type": (scheduler.a1111_schedule or "") if scheduler else "",
        "CFG scale": repr(job.guidance_scale).removesuffix(".0"),
        "Guidance rule": _rule(job) if job.guided and job.guidance_rule else "",
        "Seed": str(job.seed),
        "Size": f"{job.width}x{job.height}",
        "Model hash": _model_hash(job.model),
        "Model": _plain(provenance.model_name),
        "Version": f"printroom {_plain(provenance.versions.get('printroom', ''))}".strip(),
    }


def _rule(job: Job) -> str:
    """Return the rule for people: `apg / eta 0.5`. Infotext has no place for what could be read back."""
    return _plain(rule_label(job.guidance_rule).replace(", ", " / ").replace("–", "-"))


def _model_hash(fingerprint: str) -> str:
    """Return the first digits of a fingerprint's hash: what follows its last `:` or `@`."""
    digits = re.split("[:@]", fingerprint)[-1]
    return digits[:_MODEL_HASH_DIGITS] if re.fullmatch("[0-9a-f]{10,}", digits) else ""


def _plain(value: str) -> str:
    """Return a value that infotext can hold: no comma, colon, brace or line break."""
    return re.sub(r"[^\w./+@ -]", "_", " ".join(value.split()))


def _truth(job: Job, provenance: Provenance, image_format: ImageFormat) -> str:
    truth = {
        "format": FORMAT,
        "id": job.id,
        "image_format": str(image_format),
        "job": json.loads(canonical_recipe(job.recipe())),
        "provenance": {name: value for name, value in asdict(provenance).items() if value is not None},
    }
    return canonical_json(truth).decode()


def _image_format(found: Any, data: bytes) -> ImageFormat:
    """Return the format a file says it has. Raises: ValueError where its bytes are of another kind."""
    if not isinstance(found, str):
        raise ValueError("image_format: expected a text")
    image_format = parse_format(found)
    if image_format.kind != kind_of(data):
        raise ValueError(f"image_format {found!r} in a {kind_of(data)} file: the file was converted")
    return image_format


def _fields(
    found: Any,
    types: dict[str, tuple[type, ...]],
    what: str,
    extras: Mapping[str, tuple[type, ...]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return an object's fields if they are exactly those expected, and some extras or none, each of its type."""
    if not isinstance(found, dict) or found.keys() - extras.keys() != types.keys():
        raise ValueError(f"{what}: expected exactly the fields {', '.join(types)}")
    known = {**types, **extras}
    for name, value in found.items():
        if type(value) not in known[name]:
            raise ValueError(f"{what}.{name}: {type(value).__name__} is not what belongs here")
    return found
