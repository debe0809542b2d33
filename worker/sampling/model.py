"""A loaded model as the sampler sees it: its family's networks and the scheduler config it was trained with.

Knows nothing of files, hubs or names on disk; `worker.models.loader` makes it. Knows no family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from worker.sampling.families.base import FamilyNetworks


@dataclass(kw_only=True, eq=False)
class LoadedModel:
    """A diffusion model on its device, ready to sample."""

    #: The name people use, and the content hash or hub revision behind it. For messages and logs.
    name: str
    fingerprint: str
    #: The family's networks; only the family itself looks inside.
    networks: FamilyNetworks
    #: The model's own scheduler config; a job's scheduler is made from it.
    scheduler_config: Mapping[str, Any]

    @property
    def family(self) -> str:
        """The family's name."""
        return self.networks.family

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.networks.device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's dtype."""
        return self.networks.dtype

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon", "v_prediction" or "sample". The scheduler acts on it."""
        return str(self.scheduler_config.get("prediction_type", "epsilon"))
