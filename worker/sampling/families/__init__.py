"""The families that the row engine renders itself; all others go through `worker.sampling.pipelines.sampler`."""

from collections.abc import Mapping

from worker.sampling.families.base import Family
from worker.sampling.families.sd import SD
from worker.sampling.families.sdxl import SDXL
from worker.sampling.model import LoadedModel

FAMILIES: Mapping[str, Family] = {"sd": SD, "sdxl": SDXL}


def family_of(model: LoadedModel) -> Family:
    """Return how a model's networks are called."""
    return FAMILIES[model.family]
