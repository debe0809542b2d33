"""Kills this process at a named step, for the fault tests; does nothing unless the environment says so.

PRINTROOM_FAILPOINT=<step>:<n> ends the process, as kill -9 does, the n-th time it comes by that step.
"""

from __future__ import annotations

import os
import signal
import threading

_lock = threading.Lock()
_step, _, _count = os.environ.get("PRINTROOM_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(step: str) -> None:
    """Die here if this is the step, and the time has come."""
    global _left
    if step != _step:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
