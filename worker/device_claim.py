"""A GPU to one worker process of this machine: a lock on a file in the cache folder, named by the GPU's id.

Containers of one machine share the cache folder, so a second replica waits for a free GPU instead of halving the
memory of a busy one. The lock ends with its process, however that ends. Knows nothing of torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0


class Claim:
    """A GPU that this process has for itself, until it ends or lets go."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)


def claim(folder: Path, gpu: str) -> Claim | None:
    """Take a GPU for this process; None where another process has it.

    Raises: OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in gpu)
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return Claim(descriptor)


def wait_for_claim(
    folder: Path, gpus: Sequence[str], *, on_wait: Callable[[], None] = lambda: None
) -> tuple[int, Claim]:
    """Return the first GPU that is free, as its place in `gpus`, and the claim on it; wait until there is one.

    Args:
        on_wait: called every two seconds meanwhile.
    """
    waiting = False
    while True:
        for place, gpu in enumerate(gpus):
            taken = claim(folder, gpu)
            if taken is not None:
                return place, taken
        if not waiting:
            log.warning(
                "waiting_for_gpu", extra={"gpus": len(gpus), "reason": "other workers have all of them"}
            )
        waiting = True
        with contextlib.suppress(OSError):
            on_wait()
        time.sleep(_POLL_SECONDS)
