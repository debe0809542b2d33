"""Decodes final latents to uint8 pixels, one image at a time. Knows nothing of how the latents were sampled.

One at a time, so that an image's bytes do not depend on which others end at the same step: a decoder's last bits
depend on how many images it decodes at once.

In float32 the pixels are those of diffusers' pipelines. Where the decoder runs in half precision the last steps
(denormalise, clamp, round) still run in float32. Pixels leave a GPU as uint8, by a copy that nobody waits for until
they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from worker.sampling.model import LoadedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Pixels of one image, and whether they are what the networks meant."""

    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    #: False when NaN or infinity was among the latents or the decoded values.
    finite: bool


class Decoding:
    """An image on its way from the device."""

    def __init__(self, pixels: torch.Tensor, finite: torch.Tensor) -> None:
        self._pixels, self._finite = _towards_host(pixels), _towards_host(finite)
        self._copied = None
        if pixels.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()

    def ready(self) -> bool:
        """Whether `result` returns at once."""
        return self._copied is None or self._copied.query()

    def result(self) -> Decoded:
        """Return the image, waiting for it where it is not there yet."""
        if self._copied is not None:
            self._copied.synchronize()
        return Decoded(pixels=self._pixels.numpy(), finite=bool(self._finite))


@torch.inference_mode()
def decode(model: LoadedModel, latents: torch.Tensor) -> Decoding:
    """Begin to decode the final latents of one image, (1, *latent_shape) float32."""
    values = model.networks.decode(latents)  # (1, 3, H, W)
    finite = latents.isfinite().all() & values.isfinite().all()
    unit = (values * 0.5 + 0.5).clamp(0, 1).nan_to_num()
    pixels = (unit[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()  # (H, W, 3)
    return Decoding(pixels, finite)


def _towards_host(values: torch.Tensor) -> torch.Tensor:
    if values.device.type != "cuda":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
