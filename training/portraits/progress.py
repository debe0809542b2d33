"""A progress bar on a terminal, a line now and then in a log. Knows nothing of what is progressing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

log = logging.getLogger(__name__)

#: Seconds between lines where there is no terminal.
LOG_EVERY_SECONDS = 30.0

Item = TypeVar("Item")


def progress(items: Iterable[Item], *, total: int, title: str) -> Iterator[Item]:
    """Yield the items and show how far they are."""
    if sys.stderr.isatty():
        yield from track(items, description=title, total=total, console=Console(stderr=True))
        return
    started = said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > LOG_EVERY_SECONDS or number == total:
            said = now
            log.info("%s %d/%d, %.0f s", title, number, total, now - started)
