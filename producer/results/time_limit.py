"""Asks a question that is useful but not worth a long wait: returns the answer in time, or none."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from shared.errors import StoreError

_R = TypeVar("_R")


def answer_within(ask: Callable[[], _R], *, seconds: float) -> _R | None:
    """Return what a question gives; None if it fails with StoreError or takes longer than this.

    A question that is late is left behind in a thread that holds up nobody's end.
    """
    answers: queue.SimpleQueue[_R | BaseException] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(ask())
        except BaseException as error:  # handed to who asked
            answers.put(error)

    threading.Thread(target=answer, name="store-answer_within", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        return None
    if isinstance(found, StoreError):
        return None
    if isinstance(found, BaseException):
        raise found
    return found
