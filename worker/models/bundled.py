"""Finds the model of a sweep that names none, in a folder beside this file. Knows nothing of how it is loaded."""

from __future__ import annotations

from pathlib import Path

from shared.errors import ModelLoadFailed
from shared.fingerprint import is_model
from shared.names import DEFAULT_MODEL


def bundled_model() -> Path:
    """Return the folder of the default model, which comes with Printroom.

    Raises: ModelLoadFailed where an installation has lost it.
    """
    folder = Path(__file__).parent / DEFAULT_MODEL
    if not is_model(folder):
        raise ModelLoadFailed(f"{folder}: the model that comes with Printroom is not there; install it anew")
    return folder
