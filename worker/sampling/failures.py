"""What an exception means: one job's failure, a device without memory, or a failure of the caller. Knows no models."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from shared.errors import JobCrashed, OutOfMemory, RenderError

#: What torch says, as a plain RuntimeError, when the CPU has no memory left.
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"


class CallerFailed(Exception):
    """`on_step` raised. Carries the caller's exception through the sampler's own handling, unjudged."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def guarded(on_step: Callable[[], None]) -> Callable[[], None]:
    """Return `on_step` such that what it raises is not mistaken for what sampling raises."""

    def beat() -> None:
        try:
            on_step()
        except Exception as error:
            raise CallerFailed(error) from error

    return beat


def judge(error: Exception) -> RenderError:
    """Return an exception as a render error: its own kind, out of memory, or a crash with its reason.

    What is returned has no traceback: that would keep the tensors of a failed batch alive.
    """
    if isinstance(error, RenderError):
        return error.with_traceback(None)
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_OUT_OF_MEMORY in reason:
        return OutOfMemory(reason)
    return JobCrashed(reason)


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more, also to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
