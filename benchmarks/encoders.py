"""Image formats side by side: milliseconds and kilobytes for one photograph-like image on one core.

Pillow's PNG, then every format as a worker writes it, with its texts and its checksums. `check` is what it takes to
see that a file in the store is whole and whose it is, before it is used again.

python benchmarks/encoders.py [--size 512] [--repeats 20] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.images.files import encode, encoders, open_image, read_texts
from shared.images.format import parse_format
from shared.images.image_texts import Texts

Pixels = npt.NDArray[np.uint8]

#: Fall of the amplitude spectrum and the sensor's noise, chosen so that Pillow's default makes of the image
#: what it makes of a real 512x512 photograph: about 425 kB (level 1: 466 kB).
_SPECTRUM_EXPONENT = 1.6
_NOISE_LEVELS = 1.5


#: What a worker may be asked for. Lossy ones at the qualities people use.
_FORMATS = ("png", "webp", "jxl", "webp:90", "webp:80", "jpeg:95", "jpeg:90", "jpeg:80")

#: As long as those of an image with a sentence for a prompt.
_TEXTS = Texts(infotext="portrait photo of a man " * 20, truth=json.dumps({"job": "x" * 900}))


def photo_like(size_px: int, seed: int = 0) -> Pixels:
    """Return a (size, size, 3) uint8 image with a photograph's spectrum and correlated channels."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((4, size_px, size_px))) / frequency**_SPECTRUM_EXPONENT
    planes = np.fft.irfft2(spectrum, s=(size_px, size_px))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    light, colour = planes[0], planes[1:]  # (H, W), (3, H, W)
    image = 118 + 48 * light + 14 * colour + _NOISE_LEVELS * random.standard_normal(colour.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))  # (H, W, 3)


def _pillow(pixels: Pixels, level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=level)
    return file.getvalue()


def _median_ms(action: Callable[[], object], repeats: int) -> float:
    times_ms = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms)


def measure(size_px: int, repeats: int) -> list[dict[str, str | float]]:
    """Return a row an encoder; ratios are against Pillow's default."""
    pixels = photo_like(size_px)
    actions: dict[str, Callable[[], bytes]] = {
        "PNG, Pillow level 6": lambda: _pillow(pixels, 6),
        "PNG, Pillow level 1": lambda: _pillow(pixels, 1),
        **{name: partial(encode, pixels, _TEXTS, parse_format(name)) for name in _FORMATS if _is_here(name)},
    }
    rows: list[dict[str, str | float]] = []
    for name, action in actions.items():
        data = action()
        error = np.abs(np.asarray(open_image(data)).astype(int) - pixels)
        milliseconds, kilobytes = _median_ms(action, repeats), len(data) / 1e3
        first_ms, first_kb = (rows[0]["ms"], rows[0]["kB"]) if rows else (milliseconds, kilobytes)
        rows.append(
            {
                "encoder": name,
                "ms": round(milliseconds, 2),
                "check_ms": round(_median_ms(partial(read_texts, data), repeats), 2),
                "kB": round(kilobytes, 1),
                "speedup": round(float(first_ms) / milliseconds, 1),
                "bytes_ratio": round(kilobytes / float(first_kb), 3),
                "mean_error": round(float(error.mean()), 2),
            }
        )
    return rows


def _is_here(name: str) -> bool:
    return parse_format(name).kind in encoders()


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the image, pixels")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs an encoder; the median counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.size, options.repeats)
    if options.json:
        document = {"size_px": options.size, "repeats": options.repeats, "encoders": encoders(), "rows": rows}
        print(json.dumps(document))
        return
    for kind, version in encoders().items():
        print(f"{kind:8} {version}")
    print(f"{'':20} {'ms':>8} {'check':>6} {'kB':>8} {'faster':>7} {'bytes':>6} {'error':>6}")
    for row in rows:
        print(
            f"{row['encoder']:20} {row['ms']:8.2f} {row['check_ms']:6.2f} {row['kB']:8.1f} {row['speedup']:6.1f}x"
            f" {row['bytes_ratio']:6.3f} {row['mean_error']:6.2f}"
        )


if __name__ == "__main__":
    main()
