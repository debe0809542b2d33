"""Reads one network from its folder: safetensors only, all of its weights. Knows nothing of pipelines or hubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers

from shared.errors import ModelLoadFailed, ModelUnsupported

#: Said in every refusal.
SUPPORTED = (
    "Printroom renders Stable Diffusion 1.x, 2.x and SDXL base, and diffusers' text-to-image pipelines "
    "(docs/families.md), stored as safetensors"
)

#: How diffusers' `from_pretrained` calls the dtype: 0.42 renamed it and deprecates the old name.
DTYPE_OPTION = "dtype" if tuple(map(int, diffusers.__version__.split(".")[:2])) >= (0, 42) else "torch_dtype"

#: File endings of weights that run code when read.
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")


def load_weights(component_class: Any, folder: Path, **options: Any) -> Any:
    """Load one network from its folder; every weight must come from the file."""
    module, info = component_class.from_pretrained(
        str(folder),
        use_safetensors=True,
        variant=weights_variant(folder),
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    # The position ids of old CLIP files are a constant, not a weight.
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise ModelLoadFailed(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}")
    return module


def weights_variant(folder: Path) -> str | None:
    """Return which files of a component to read: the plain ones, else the float16 ones.

    Raises:
        ModelUnsupported: there are only pickles.
        ModelLoadFailed: there are no weights.
    """
    names = [path.name for path in sorted(folder.glob("*"))]
    for variant in (None, "fp16"):
        if any(_is_weights(name, variant) for name in names):
            return variant
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise ModelUnsupported(
            f"{folder / pickles[0]}: pickled weights can run code and are never read; {SUPPORTED}"
        )
    raise ModelLoadFailed(f"{folder}: no .safetensors weights")


def _is_weights(name: str, variant: str | None) -> bool:
    stem = name.removesuffix(".safetensors")
    if stem == name:
        return False
    dot = f".{variant}" if variant else ""
    bases = [f"{base}{dot}" for base in ("model", "diffusion_pytorch_model")]
    return any(stem == base or stem.startswith(f"{base}-") for base in bases)
