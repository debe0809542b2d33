"""Compiles a model's denoiser for batches of one image size and R rows. Knows nothing of jobs or families.

Off unless asked for: it costs time at a model's first batch of each size, and has not been measured here. Compiled
kernels round otherwise than eager ones, so the mode is recorded with every image. They are kept in a folder, so
that the next worker need not make them again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from shared.settings import CompileMode
from worker.sampling.model import LoadedModel

#: Where torch's compiler keeps what it made; a person's own choice wins.
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compile_denoiser(model: LoadedModel, mode: CompileMode, *, cache_dir: Path) -> None:
    """Let a model's denoiser be compiled at its first call. Shapes are static: R never changes.

    Args:
        model: changed in place.
        mode: torch.compile's; reduce-overhead captures CUDA graphs.
        cache_dir: for what the compiler makes.
    """
    if mode == "off":
        return
    os.environ.setdefault(_CACHE_VARIABLE, str(cache_dir / "compiled"))

    def compile_module(module: torch.nn.Module) -> torch.nn.Module:
        compiled: Any = torch.compile(module, mode=mode, fullgraph=True, dynamic=False)
        return compiled  # torch's stubs call it a function; of a module it is a module

    model.networks.compile_denoiser(compile_module)
