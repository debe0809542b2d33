"""How each family that the row engine renders is loaded; diffusers' own pipeline renders all other families."""

from collections.abc import Mapping
from typing import Any

from worker.models.families.base import FamilyLoader
from worker.models.families.stable_diffusion import SD, SDXL

LOADERS: tuple[FamilyLoader, ...] = (SD, SDXL)


def loader_of_index(index: Mapping[str, Any]) -> FamilyLoader | None:
    """Return the loader of the pipeline that a model_index.json names; None for a family without one."""
    named = index.get("_class_name")
    return next((loader for loader in LOADERS if loader.pipeline_class == named), None)


def loader_of_file(family: str) -> FamilyLoader | None:
    """Return the loader of a checkpoint in one file, by the family that `shared.model_facts` reads off it."""
    return next((loader for loader in LOADERS if family in loader.single_file_families), None)
