"""A Stable Diffusion folder's scheduler files become the config that diffusers' own pipeline of that folder holds.

The class is the one that model_index.json names: diffusers does not ask scheduler_config.json, which may name another
or none. What the file leaves out is that class's default, but for two keys that StableDiffusionPipeline corrects in
early models. Knows nothing of weights, or of the schedulers that jobs name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from shared.errors import ModelUnsupported
from worker.sampling.model import FamilyName

#: What StableDiffusionPipeline (not its XL sibling) puts into a scheduler's config where the key has another value.
_CORRECTED: Mapping[FamilyName, Mapping[str, Any]] = {
    "sd": {"steps_offset": 1, "clip_sample": False},
    "sdxl": {},
}


def read_scheduler_config(folder: Path, index: Mapping[str, Any], family: FamilyName) -> Mapping[str, Any]:
    """Return the scheduler config that the family's pipeline would hold.

    Args:
        index: the content of model_index.json.

    Raises:
        ModelUnsupported: diffusers has no such scheduler.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    class_name, place = _class_name(folder, index, path)
    found = getattr(diffusers, str(class_name), None)
    if not isinstance(found, type) or not issubclass(found, SchedulerMixin):
        raise ModelUnsupported(f"{place}: diffusers {diffusers.__version__} has no scheduler {class_name}")
    scheduler_class: Any = found
    return held_config(scheduler_class.from_pretrained(str(path.parent), local_files_only=True), family)


def held_config(scheduler: Any, family: FamilyName) -> Mapping[str, Any]:
    """Return the config of a scheduler inside the family's pipeline."""
    config = dict(scheduler.config)
    corrected = {key: value for key, value in _CORRECTED[family].items() if key in config}
    return {**config, **corrected, "_class_name": type(scheduler).__name__}


def _class_name(folder: Path, index: Mapping[str, Any], path: Path) -> tuple[Any, Path]:
    """Return a folder's scheduler class, and the file that names it: the config, where the index names none."""
    named = (index.get("scheduler") or [None, None])[1]
    if named is not None:
        return named, folder / "model_index.json"
    return json.loads(path.read_text(encoding="utf-8")).get("_class_name"), path
