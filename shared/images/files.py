"""Reads and writes image files of every format: pixels and texts. Other packages import only this module."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, features
from PIL import __version__ as _pillow_version

from shared.errors import SettingsError
from shared.images import jxl, png
from shared.images.format import FORMAT_KINDS, FormatKind, ImageFormat
from shared.images.jpeg import encode_jpeg, read_jpeg_texts
from shared.images.texts import INFOTEXT_KEYWORD, KEYWORD, Texts
from shared.images.webp import encode_webp, read_webp_texts
from shared.images.xmp import source_xmp, wrap_xmp


def encode(pixels: npt.NDArray[np.uint8], texts: Texts, image_format: ImageFormat) -> bytes:
    """Return the file of an image. The same input and versions (`encoders`) give the same bytes.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Raises: ValueError for another shape or dtype, and for texts that no file can hold (NUL, lone surrogates);
        SettingsError where the encoder is an extra that is not installed.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype}: use (H, W, 3) uint8")
    pixels = np.ascontiguousarray(pixels)
    match image_format.kind:
        case "png":
            named = {INFOTEXT_KEYWORD: texts.infotext, KEYWORD: texts.truth}
            if texts.source is not None:
                named[png.XMP_KEYWORD] = wrap_xmp(source_xmp(texts.source)).decode()
            return png.encode_png(pixels, {name: text for name, text in named.items() if text is not None})
        case "webp":
            return encode_webp(pixels, texts, image_format.quality)
        case "jpeg":
            assert image_format.quality is not None
            return encode_jpeg(pixels, texts, image_format.quality)
        case "jxl":
            return jxl.encode_jxl(pixels, texts)


def kind_of(data: bytes) -> FormatKind | None:
    """Return what kind of image file this is, by its first bytes, or None for one that is not written here."""
    if data.startswith(png.SIGNATURE):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "jxl" if data.startswith((jxl.SIGNATURE, jxl.CODESTREAM)) else None


def read_texts(data: bytes) -> Texts:
    """Return a file's texts, having checked that the file is whole as far as can be told without decoding it.

    Of a file of ours every change of the pixels or the truth is found: by PNG's own CRCs, or by our seal
    (`Texts.broken`).

    Raises: ValueError with the reason, for a file that is not whole or of no format we know.
    """
    match kind_of(data):
        case "png":
            texts = png.read_png_texts(data)
            return Texts(infotext=texts.get(INFOTEXT_KEYWORD), truth=texts.get(KEYWORD))
        case "webp":
            return read_webp_texts(data)
        case "jpeg":
            return read_jpeg_texts(data)
        case "jxl":
            return jxl.read_jxl_texts(data)
    raise ValueError("not a PNG, WebP, JPEG or JPEG XL file")


def open_image(data: bytes) -> Image.Image:
    """Decode a file of any format.

    Raises: ValueError or OSError for one that cannot be decoded; SettingsError where the decoder is not installed.
    """
    if kind_of(data) == "jxl":
        return Image.fromarray(jxl.decode_jxl(data))
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def encoders() -> dict[str, str]:
    """Return kind -> what codes its pixels here, for every format that can be written here."""
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    found = {
        "png": png.ENCODER,
        "webp": f"Pillow {_pillow_version}, libwebp {features.version('webp')}",
        "jpeg": f"Pillow {_pillow_version}, {library}",
    }
    try:
        return {**found, "jxl": jxl.encoder_version()}
    except SettingsError:
        return found


def require_encoder(image_format: ImageFormat) -> None:
    """Raise SettingsError, with the fix, where a format cannot be written here."""
    if image_format.kind == "jxl":
        jxl.encoder_version()


def versions_for(versions: Mapping[str, str], kind: FormatKind) -> dict[str, str]:
    """Return a worker's versions without the encoders that have no part in images of this kind."""
    return {name: version for name, version in versions.items() if name == kind or name not in FORMAT_KINDS}
