"""Compiles a model's UNet for the batches it will see: one size, R rows. Knows nothing of jobs.

Off unless asked for: it costs time at a model's first batch of each size, and has not been measured here. Compiled
kernels round otherwise than eager ones, so the mode is recorded with every image. They are kept in a folder, so
that the next worker need not make them again.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from shared.settings import CompileMode
from worker.sampling.model import LoadedModel

#: Where torch's compiler keeps what it made; a person's own choice wins.
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compile_unet(model: LoadedModel, mode: CompileMode, *, cache_dir: Path) -> None:
    """Let a model's UNet be compiled at its first call. Shapes are static: R never changes.

    Args:
        model: changed in place.
        mode: torch.compile's; reduce-overhead captures CUDA graphs.
        cache_dir: for what the compiler makes.
    """
    if mode == "off":
        return
    os.environ.setdefault(_CACHE_VARIABLE, str(cache_dir / "compiled"))
    model.unet = torch.compile(model.unet, mode=mode, fullgraph=True, dynamic=False)
