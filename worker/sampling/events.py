"""What the sampler reports while it works, for whoever measures it. Knows nothing of who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDone:
    """One call of the denoiser is over."""

    #: Rows that worked for a job, and all rows of the call.
    used: int
    rows: int


#: Takes each event, in the thread that owns the device. It must return at once and raise nothing.
Notice = Callable[[StepDone], None]


def ignore(event: StepDone) -> None:
    """Take an event and do nothing."""


@dataclass(kw_only=True, eq=False)
class RowCounts:
    """A listener that adds up how well the rows are used."""

    calls: int = 0
    used: int = 0
    total: int = 0

    def __call__(self, event: StepDone) -> None:
        """Add one call."""
        self.calls += 1
        self.used += event.used
        self.total += event.rows
