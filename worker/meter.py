"""What a worker reports while it works: events, and the meter that hands them to listeners.

The code that does the work reports each event once, and knows no listener. The heartbeat is a listener, and metrics can
be another one. Knows nothing of Redis, stores or devices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.errors import PrintroomError
from worker.sampling.events import StepDone

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkBegun:
    """A chunk has arrived at this worker."""

    sweep: str
    chunk: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkEnded:
    """A chunk has left this worker."""

    sweep: str
    chunk: int
    #: done: nothing of it is left to do; given_back: the worker drains; failed: an error ended it early.
    how: Literal["done", "given_back", "failed"]
    #: Since it began.
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSampled:
    """The sampler has made the pixels of an image."""

    #: The image's share of sampling and decoding.
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoded:
    """An image has become a file."""

    seconds: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStored:
    """An image of ours is in the store, or in the shard that is put next."""

    seconds: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReused:
    """An image was in the store already and has been verified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFailed:
    """No image can be made of a job."""

    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLoaded:
    """A model is on the device."""

    fingerprint: str
    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageRefused:
    """A message was put back, kept as evidence, or failed as a whole."""

    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TroubleBegun:
    """The worker waits for Redis or the store; it is reported at every try."""

    error: PrintroomError


@dataclass(frozen=True, kw_only=True, slots=True)
class TroubleEnded:
    """What the worker waited for has come back."""


Event = (
    ChunkBegun
    | ChunkEnded
    | StepDone
    | ImageSampled
    | ImageEncoded
    | ImageStored
    | ImageReused
    | JobFailed
    | ModelLoaded
    | MessageRefused
    | TroubleBegun
    | TroubleEnded
)

#: Takes each event, in the thread in which it happened. It must be thread-safe and return at once.
Listener = Callable[[Event], None]


class Meter:
    """Hands each event to every listener. A listener that raises is logged once and never stops the work.

    Args:
        listeners: who listens, in order.
    """

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._broken: set[int] = set()

    def notice(self, event: Event) -> None:
        """Report an event."""
        for place, listener in enumerate(self._listeners):
            try:
                listener(event)
            except Exception as error:  # whatever it is, rendering goes on
                if place not in self._broken:
                    self._broken.add(place)
                    log.warning(
                        "listener_failed", extra={"reported": type(event).__name__, "reason": repr(error)}
                    )
