"""Reads a folder's scheduler config as diffusers' own pipeline of that folder would hold it.

The class is the one that model_index.json names: diffusers does not ask scheduler_config.json, which may name another
or none. What the file leaves out is that class's default. Some pipelines also correct keys of early models:
the family names these. Knows nothing of weights, of families, or of the schedulers that jobs name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from shared.errors import ModelUnsupported


def read_scheduler_config(
    folder: Path, index: Mapping[str, Any], corrections: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the scheduler config that the family's pipeline would hold.

    Args:
        index: the content of model_index.json.
        corrections: what the family's pipeline puts into a config where the key has another value.

    Raises:
        ModelUnsupported: diffusers has no such scheduler.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    class_name, place = _class_name(folder, index, path)
    found = getattr(diffusers, str(class_name), None)
    if not isinstance(found, type) or not issubclass(found, SchedulerMixin):
        raise ModelUnsupported(f"{place}: diffusers {diffusers.__version__} has no scheduler {class_name}")
    scheduler_class: Any = found
    return held_config(scheduler_class.from_pretrained(str(path.parent), local_files_only=True), corrections)


def held_config(scheduler: Any, corrections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a scheduler inside its pipeline, with the corrections for the keys that it has."""
    config = dict(scheduler.config)
    corrected = {key: value for key, value in corrections.items() if key in config}
    return {**config, **corrected, "_class_name": type(scheduler).__name__}


def _class_name(folder: Path, index: Mapping[str, Any], path: Path) -> tuple[Any, Path]:
    """Return a folder's scheduler class, and the file that names it: the config, where the index names none."""
    named = (index.get("scheduler") or [None, None])[1]
    if named is not None:
        return named, folder / "model_index.json"
    return json.loads(path.read_text(encoding="utf-8")).get("_class_name"), path
