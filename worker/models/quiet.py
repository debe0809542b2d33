"""Keeps the libraries' progress bars and needless warnings out of the logs, and logs their other messages as ours.

Knows nothing of models.
"""

from __future__ import annotations

import logging
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


def log_as_we_do() -> None:
    """Send what diffusers, transformers and Python warn of through this process's own log. Call it first.

    A machine that renders needs no torchvision: transformers then takes Pillow to prepare images, which text-to-image
    does not do at all, and says so once for each class it imports.
    """
    for library in (diffusers_logging, transformers_logging):
        library.disable_default_handler()
        library.enable_propagation()
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return not (record.name.startswith("transformers") and "requires torchvision" in record.getMessage())
