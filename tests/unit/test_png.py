"""The PNG writer against Pillow, and the reader against damage."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.images import png
from shared.images.png import encode_png, read_png_texts

#: Any text PNG can hold: no NUL, no lone surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
keywords = st.from_regex(r"[A-Za-z]{1,79}", fullmatch=True)


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 9))
def test_pixels_round_trip_in_pillow(height: int, width: int, seed: int) -> None:
    """Pillow decodes exactly the pixels that went in, at every small size."""
    pixels = _pixels(height, width, seed)
    image = _opened(encode_png(pixels, {}))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_large_image_and_strided_input() -> None:
    """A photo-sized image survives, and so does a view that is not contiguous."""
    pixels = _pixels(513, 1026)[:, ::2]
    np.testing.assert_array_equal(np.asarray(_opened(encode_png(pixels, {}))), pixels)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keywords, texts, max_size=3))
def test_texts_round_trip(expected: dict[str, str]) -> None:
    """Pillow and our reader both give back every text exactly, whatever its script."""
    data = encode_png(_pixels(2, 2), expected)
    assert read_png_texts(data) == expected
    assert _opened(data).info == expected


def test_latin1_text_is_text_chunk_and_other_is_itxt() -> None:
    """Old readers that know tEXt alone still read what Latin-1 can say."""
    data = encode_png(_pixels(2, 2), {"a": "café", "b": "雪 ❄"})
    assert b"tEXta\0caf\xe9" in data
    assert b"iTXtb\0\0\0\0\0" + "雪 ❄".encode() in data


def test_same_input_same_bytes() -> None:
    """Encoding is a function of its input."""
    assert encode_png(_pixels(64, 64), {"a": "b"}) == encode_png(_pixels(64, 64), {"a": "b"})


def test_without_isal_the_file_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zlib alone writes other bytes of the same image, and either reader reads them."""
    pixels = np.repeat(_pixels(8, 8), 8, axis=1)
    fast = encode_png(pixels, {"a": "b"})
    monkeypatch.setattr(png, "_deflate", zlib)
    slow = encode_png(pixels, {"a": "b"})
    np.testing.assert_array_equal(np.asarray(_opened(slow)), pixels)
    assert read_png_texts(slow) == read_png_texts(fast) == {"a": "b"}


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((0, 2, 3), np.uint8),
    ],
)
def test_other_pixels_are_refused(pixels: np.ndarray) -> None:
    """Only (H, W, 3) uint8 is written; nothing is converted in silence."""
    with pytest.raises(ValueError, match="use \\(H, W, 3\\) uint8"):
        encode_png(pixels, {})


@pytest.mark.parametrize("keyword", ["", "x" * 80, " a", "a  b", "a\n", "雪" * 80, "a\0"])
def test_bad_keywords_are_refused(keyword: str) -> None:
    """Keywords that the PNG specification forbids are not written."""
    with pytest.raises(ValueError, match="keyword"):
        encode_png(_pixels(2, 2), {keyword: "text"})


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_png_cannot_hold_are_refused(text: str) -> None:
    """NUL and lone surrogates raise ValueError; the file is not written wrong."""
    with pytest.raises(ValueError):
        encode_png(_pixels(2, 2), {"a": text})


def test_every_truncation_is_found() -> None:
    """A file cut at any byte is refused."""
    data = encode_png(_pixels(4, 4), {"a": "b", "c": "雪"})
    for length in range(len(data)):
        with pytest.raises(ValueError, match="PNG"):
            read_png_texts(data[:length])


def test_every_flipped_byte_is_found() -> None:
    """A file with any one byte changed is refused."""
    data = encode_png(_pixels(4, 4), {"a": "b", "c": "雪"})
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError, match="PNG"):
            read_png_texts(bytes(damaged))


def test_bytes_after_the_end_are_found() -> None:
    """Two files run together are not one image."""
    data = encode_png(_pixels(4, 4), {})
    with pytest.raises(ValueError, match="after its end"):
        read_png_texts(data + b"\0")


def test_pillows_own_files_are_read() -> None:
    """Our reader takes files by others, and skips texts it does not know."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("a", "b")
    info.add_itxt("c", "雪")
    info.add_itxt("d", "packed", zip=True)
    info.add_text("e", "packed", zip=True)
    file = io.BytesIO()
    Image.fromarray(_pixels(4, 4)).save(file, "PNG", pnginfo=info)
    assert read_png_texts(file.getvalue()) == {"a": "b", "c": "雪"}
