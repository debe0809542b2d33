"""Which device to render on, and how wide. Knows nothing of models."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from shared.errors import SettingsError

#: UNet rows a call where the settings do not say: wide enough to fill the device, small enough for 8 GB.
_ROWS_CUDA = 16
_ROWS_CPU = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device, as the sampler and as people know it."""

    torch_device: torch.device
    #: "NVIDIA H100 80GB HBM3", "cpu (x86_64)".
    name: str
    dtype: torch.dtype
    batch_rows: int

    @property
    def dtype_name(self) -> str:
        """The dtype without torch's prefix: float16, float32."""
        return str(self.dtype).removeprefix("torch.")


def choose_device(spec: str, *, batch_rows: int) -> Device:
    """Return the device a worker was told to use.

    Args:
        spec: auto, cpu, cuda or cuda:N.
        batch_rows: UNet rows a call; 0 to choose by device.

    Raises: SettingsError for a device this machine does not have.
    """
    if spec == "auto":
        spec = "cuda:0" if torch.cuda.is_available() else "cpu"
    if spec == "cpu":
        rows = batch_rows or _ROWS_CPU
        name = f"cpu ({platform.machine()})"
        return Device(torch_device=torch.device("cpu"), name=name, dtype=torch.float32, batch_rows=rows)
    try:
        device = torch.device(spec)
    except RuntimeError as error:
        raise SettingsError(f"--device {spec}: use auto, cpu, cuda:N or all") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type != "cuda" or (device.index or 0) >= count:
        raise SettingsError(f"--device {spec}: this machine has {count} CUDA device(s); use auto or cpu")
    device = torch.device("cuda", device.index or 0)
    return Device(
        torch_device=device,
        name=torch.cuda.get_device_name(device),
        dtype=torch.float16,
        batch_rows=batch_rows or _ROWS_CUDA,
    )
