"""What a worker does about each error, as a table."""

from __future__ import annotations

import pytest

from shared import errors
from worker.retry_policy import Decision, decide

FIRST = {"attempt": 1, "max_attempts": 6}
LAST = {"attempt": 6, "max_attempts": 6}

F, W, G, R, D = (
    Decision.FAIL_JOBS,
    Decision.WAIT,
    Decision.GIVE_BACK,
    Decision.REFUSE,
    Decision.DEAD_LETTER,
)

#: (error, decision at the first delivery, decision at the last)
TABLE = [
    # One image's fault: the rest of the chunk goes on.
    (errors.JobInvalid, F, F),
    (errors.ImageNotFinite, F, F),
    (errors.JobCrashed, F, F),
    (errors.OutOfMemory, F, F),
    (errors.WorkerLost, F, F),
    (errors.ModelUnsupported, F, F),
    (errors.RenderError, F, F),
    # An object that is not there will not come by waiting.
    (errors.ObjectMissing, F, F),
    (errors.ImageDamaged, F, F),
    # Elsewhere, and may pass: never an image's fault, however often.
    (errors.StoreUnavailable, W, W),
    (errors.StoreDenied, W, W),
    (errors.StoreFull, W, W),
    (errors.StoreError, W, W),
    (errors.BrokerUnavailable, W, W),
    (errors.BrokerFull, W, W),
    # Refused for a reason of its own, such as a wrong password: waiting does not fix it here.
    (errors.BrokerError, G, F),
    # Another worker may have better luck; when none had, the jobs fail.
    (errors.ModelLoadFailed, G, F),
    (MemoryError, G, F),
    (SystemExit, G, F),
    (RuntimeError, G, F),
    (errors.PrintroomError, G, F),
    # The message itself.
    (errors.VersionUnsupported, R, R),
    (errors.MessageCorrupt, D, D),
    (errors.MessageError, D, D),
]


@pytest.mark.parametrize(("kind", "first", "last"), TABLE, ids=[kind.__name__ for kind, _, _ in TABLE])
def test_table(kind, first, last):
    """Each error has one decision at the first delivery of a chunk, and one at the last."""
    assert [decide(kind("why"), **FIRST), decide(kind("why"), **LAST)] == [first, last]


def test_the_table_has_every_error_a_worker_meets():
    """No error of the tree under store, broker, message and render is left to chance."""
    met = [errors.StoreError, errors.BrokerError, errors.MessageError, errors.RenderError]
    for kind in met:
        met += kind.__subclasses__()
    assert {kind.__name__ for kind in met} - {kind.__name__ for kind, _, _ in TABLE} == set()


@pytest.mark.parametrize(("attempt", "expected"), [(0, G), (5, G), (6, F), (7, F)])
def test_bound(attempt, expected):
    """What is given back is given back until the last delivery, and not once more."""
    assert expected == decide(RuntimeError("why"), attempt=attempt, max_attempts=6)
