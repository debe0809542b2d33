"""What the loader needs from a family: how its files become its networks. Knows no family.

`worker.models.loader` finds the files, downloads them, and applies what a sweep says about them; a family reads them.
The networks that come out are a `FamilyNetworks` of `worker.sampling.families`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from worker.sampling.families.base import FamilyNetworks


class LoadedParts(Protocol):
    """A model's networks and tokenizers as its files hold them: not checked yet, and not on their device yet."""

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The scheduler config that diffusers' pipeline of this family would hold."""
        ...

    def problem(self) -> str | None:
        """Return why these networks cannot render a text alone; None where they can."""
        ...

    def place(self, device: torch.device, dtype: torch.dtype) -> FamilyNetworks:
        """Move the networks to a device, each in the dtype it runs in there.

        Args:
            device: where they will run.
            dtype: of the denoiser; a part that would overflow in it gets another one.
        """
        ...


class FamilyLoader(Protocol):
    """How a family is read from disk."""

    @property
    def pipeline_class(self) -> str:
        """The `_class_name` in the model_index.json of this family."""
        ...

    @property
    def single_file_families(self) -> Sequence[str]:
        """What `shared.model_facts` calls this family's checkpoints in one file; empty where there are none."""
        ...

    @property
    def hub_networks(self) -> Sequence[str]:
        """Folders of a hub repository that must hold weights."""
        ...

    def hub_patterns(self, variant: str) -> list[str]:
        """Return which files of a hub repository are read: no code, no pickles.

        Args:
            variant: "" for the plain weights, ".fp16" for those of the variant.
        """
        ...

    def read_folder(self, folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> LoadedParts:
        """Read a diffusers folder.

        Args:
            folder: the folder, already complete.
            index: the content of its model_index.json.
            dtype: of the denoiser.

        Raises: ModelUnsupported, ModelLoadFailed, or what diffusers raises.
        """
        ...

    def read_file(self, file: Path, configs: Mapping[str, Any]) -> LoadedParts:
        """Read a checkpoint in one .safetensors file.

        Args:
            file: the checkpoint.
            configs: options of diffusers' `from_single_file` that say where its configs are.

        Raises: what diffusers raises.
        """
        ...
