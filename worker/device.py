"""Which device to render on, and how wide. Knows nothing of models."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from shared.errors import SettingsError
from worker.device_claim import Claim, wait_for_claim

#: There while NVIDIA's driver is loaded, whether torch can use it or not.
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")

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
    #: Keeps a GPU for this process; None where it is shared.
    claim: Claim | None = None

    @property
    def dtype_name(self) -> str:
        """The dtype without torch's prefix: float16, float32."""
        return str(self.dtype).removeprefix("torch.")


def choose_device(
    spec: str, *, batch_rows: int, claims: Path | None = None, on_wait: Callable[[], None] = lambda: None
) -> Device:
    """Return the device a worker was told to use. A GPU is waited for while another worker of this machine has it.

    Args:
        spec: auto, cpu, cuda or cuda:N.
        batch_rows: UNet rows a call; 0 to choose by device.
        claims: folder of the locks by which workers share out the GPUs; None to share a GPU.
        on_wait: called now and then while all GPUs are taken.

    Raises: SettingsError for a device this machine does not have, or whose driver torch cannot use.
    """
    gpus = usable_gpus()
    if spec == "auto" and not gpus:
        refuse_unusable_driver()
    if spec == "cpu" or (spec == "auto" and not gpus):
        rows = batch_rows or _ROWS_CPU
        name = f"cpu ({platform.machine()})"
        return Device(torch_device=torch.device("cpu"), name=name, dtype=torch.float32, batch_rows=rows)
    wanted = gpus if spec == "auto" else [_gpu_of(spec, gpus)]
    place, claim = (
        (0, None) if claims is None else wait_for_claim(claims, [g.id for g in wanted], on_wait=on_wait)
    )
    device = torch.device("cuda", wanted[place].index)
    return Device(
        torch_device=device,
        name=torch.cuda.get_device_name(device),
        dtype=torch.float16,
        batch_rows=batch_rows or _ROWS_CUDA,
        claim=claim,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU that torch sees."""

    index: int
    #: The same in every container of this machine.
    id: str


def usable_gpus() -> list[Gpu]:
    """Return the GPUs that torch can use."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [Gpu(index=index, id=_gpu_id(index)) for index in range(count)]


def refuse_unusable_driver() -> None:
    """Raise SettingsError where there is an NVIDIA driver and torch sees no GPU: no silent rendering on the CPU."""
    if torch.cuda.is_available() or not _DRIVER_VERSION.exists():
        return
    driver = _DRIVER_VERSION.read_text(errors="replace").partition("\n")[0]
    build = torch.version.cuda
    why = (
        f"it is built for CUDA {build}, which this driver may be too old for"
        if build
        else "it is a CPU build"
    )
    raise SettingsError(
        f"--device auto: this machine has an NVIDIA driver ({driver.strip()}), but torch {torch.__version__} sees no "
        f"GPU: {why} (docs/deployment.md, The driver); to render on the CPU all the same, use --device cpu"
    )


def _gpu_of(spec: str, gpus: list[Gpu]) -> Gpu:
    try:
        device = torch.device(spec)
    except RuntimeError as error:
        raise SettingsError(f"--device {spec}: use auto, cpu, cuda:N or all") from error
    index = device.index or 0
    if device.type != "cuda" or index >= len(gpus):
        raise SettingsError(f"--device {spec}: this machine has {len(gpus)} CUDA device(s); use auto or cpu")
    return gpus[index]


def _gpu_id(index: int) -> str:
    """Return a GPU's UUID, which does not depend on which GPUs a container was given; its number on an old torch."""
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", index))
