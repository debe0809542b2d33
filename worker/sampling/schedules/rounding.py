"""Makes the square root of a difference zero, instead of NaN, where only rounding has put it below zero.

Schedulers take roots of differences that are zero or positive by their mathematics: DDIM with eta 1 of
1 - alpha_prev - variance, which is zero at zero terminal SNR; ancestral samplers of sigma_to^2 - sigma_up^2; the SDE
solvers of 1 - exp(-2h). In float32 the difference may come out some units in the last place below zero, on one
processor and not on another. A difference that is further below zero is left alone, and its root is NaN. Knows
nothing of schedulers.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: A difference this many units in the last place of its larger operand below zero is zero. Its operands are a few
#: rounded operations old; in the SDE solvers the exponent h is itself a difference of logarithms up to 10.
_ULPS = 64

_DIFFERENCES = (torch.Tensor.sub, torch.Tensor.__sub__, torch.Tensor.__rsub__, torch.sub, torch.rsub)
_ROOTS = (torch.Tensor.sqrt, torch.sqrt)
_POWERS = (torch.Tensor.pow, torch.Tensor.__pow__, torch.pow)

#: Differences that are remembered: a root is taken at once.
_KEPT = 4


class RootsOfRounding(TorchFunctionMode):
    """While it is active, in this thread, the root of a difference that is below zero by rounding is zero.

    Only numbers and short tables of numbers are looked at, not images.
    """

    def __init__(self) -> None:
        super().__init__()
        self._differences: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=_KEPT)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _ROOTS or (func in _POWERS and len(args) > 1 and args[1] == 0.5):
            args = (self._without_rounding(args[0]), *args[1:])
        result = func(*args, **(kwargs or {}))
        if func in _DIFFERENCES and _is_coefficient(result):
            self._differences.append((result, _larger(args[0], args[1])))
        return result

    def _without_rounding(self, base: Any) -> Any:
        for difference, operands in self._differences:
            if difference is base:
                smallest = -_ULPS * torch.finfo(base.dtype).eps * operands
                return torch.where((base < 0) & (base >= smallest), torch.zeros_like(base), base)
        return base


def _is_coefficient(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() <= 1 and value.is_floating_point()


def _larger(left: Any, right: Any) -> torch.Tensor:
    return torch.maximum(torch.as_tensor(left).abs(), torch.as_tensor(right).abs())
