"""Finds the model of a sweep that names none. Knows nothing of how it is loaded."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from shared.names import DEFAULT_MODEL


def bundled_model(cache_dir: Path) -> Path:
    """Return the folder of the default model, making it on first use.

    Several processes may ask at once: each builds in a folder of its own, and the first rename wins.

    Args:
        cache_dir: where Printroom keeps what it can make again.
    """
    folder = cache_dir / "models" / DEFAULT_MODEL
    if not (folder / "model_index.json").is_file():
        _build(folder)
    return folder


def _build(folder: Path) -> None:
    # Imported here: torch takes seconds, and the model is usually there already.
    from worker.models.random_weights import create_random_model

    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # A bundled trained model will replace this line.
        create_random_model(workshop / folder.name, family="sd1")
        (workshop / folder.name).rename(folder)
    except OSError:
        if not (folder / "model_index.json").is_file():
            raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
