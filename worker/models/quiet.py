"""Keeps the libraries' own progress bars off the terminal and out of the logs. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of diffusers and transformers for a while."""
    bars = (diffusers_logging, transformers_logging)
    shown = [bar.is_progress_bar_enabled() for bar in bars]
    for bar in bars:
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for bar, was_shown in zip(bars, shown, strict=True):
            if was_shown:
                bar.enable_progress_bar()
