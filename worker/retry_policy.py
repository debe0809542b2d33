"""What to do about an error: data, decided in one pure function. Knows nothing of queues or threads."""

from __future__ import annotations

from enum import Enum

from shared import errors


class Decision(Enum):
    """What a worker does next."""

    #: Record the failure with its code; the rest of the chunk goes on.
    FAIL_JOBS = "fail_jobs"
    #: Hold what was made and try again: the trouble is elsewhere and may pass.
    WAIT = "wait"
    #: Give the chunk back and take no more of this model: another worker may have better luck.
    GIVE_BACK = "give_back"
    #: Put the message back: it is for a worker of another version, or of another store.
    REFUSE = "refuse"
    #: Keep the evidence and drop the message: nobody can act on it.
    DEAD_LETTER = "dead_letter"


#: First match wins.
_RULES: tuple[tuple[type[BaseException], Decision], ...] = (
    (errors.ObjectMissing, Decision.FAIL_JOBS),
    (errors.ImageDamaged, Decision.FAIL_JOBS),
    (errors.StoreError, Decision.WAIT),
    (errors.BrokerUnavailable, Decision.WAIT),
    (errors.BrokerFull, Decision.WAIT),
    (errors.VersionUnsupported, Decision.REFUSE),
    (errors.PlanUnreadable, Decision.REFUSE),
    (errors.StoreMismatch, Decision.REFUSE),
    (errors.MessageError, Decision.DEAD_LETTER),
    (errors.ModelLoadFailed, Decision.GIVE_BACK),
    (errors.RenderError, Decision.FAIL_JOBS),
)


def decide(error: BaseException, *, attempt: int, max_attempts: int) -> Decision:
    """Return what to do about an error.

    Args:
        attempt: deliveries of the chunk so far, this one included.
        max_attempts: after this many, what would be given back fails.
    """
    decision = next((rule for kind, rule in _RULES if isinstance(error, kind)), Decision.GIVE_BACK)
    if decision is Decision.GIVE_BACK and attempt >= max_attempts:
        return Decision.FAIL_JOBS
    return decision
