"""A chunk's images in one tar: plain to every program, exact to us, named by its content."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import names
from shared.images.format import PNG, ImageFormat, parse_format
from shared.job import Job, make_job
from shared.metadata import image_bytes
from shared.result import Provenance
from shared.shard import Shard, ShardSample, make_shard, read_shard
from shared.store.keys import check_key

SWEEP = "ab" * 16

MADE_BY = Provenance(
    model_name="fake",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=1,
    versions={"printroom": "0"},
)

#: Every format whose encoder is always there.
FORMATS = [parse_format(text) for text in ("png", "webp", "webp:80", "jpeg:95")]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def _job(**fields: Any) -> Job:
    recipe: dict[str, Any] = {
        "prompt": "a cat",
        "negative_prompt": None,
        "seed": 2**64 - 1,
        "guidance_scale": 5.0,
        "steps": 4,
        "scheduler": "euler",
        "width": 16,
        "height": 8,
        "model": "sha:00",
    }
    return make_job(**{**recipe, **fields})


def _sample(index: int, image_format: ImageFormat = PNG, **fields: Any) -> ShardSample:
    job = _job(**{"seed": index, **fields})
    pixels = np.random.default_rng(index).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    return ShardSample(
        index=index, job=job, image=image_bytes(job, pixels, MADE_BY, image_format), provenance=MADE_BY
    )


def _shard(samples: list[ShardSample], image_format: ImageFormat = PNG, chunk: int = 7) -> Shard:
    return make_shard(samples, sweep=SWEEP, chunk=chunk, image_format=image_format)


def _members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(prompts=st.lists(texts, min_size=1, max_size=5, unique=True))
@example(prompts=["", "a\nb\r\n", "../../etc/passwd", "0", "x" * 600, "猫 🐈"])
def test_what_is_read_is_what_was_written(prompts: list[str]) -> None:
    """For any prompts each image lies where its place says, and reading the tar gives the same places."""
    samples = [_sample(index, prompt=prompt) for index, prompt in enumerate(prompts)]
    shard = _shard(samples)
    assert read_shard(shard.key, shard.data, PNG) == shard.images
    for sample in samples:
        place = shard.images[sample.job.id]
        assert place.offset is not None
        assert shard.data[place.offset : place.offset + place.size_bytes] == sample.image
        assert place.sha256 == hashlib.sha256(sample.image).hexdigest()
        name = names.sample_key(sample.index, sample.job.id)
        assert _members(shard.data)[f"{name}.txt"] == sample.job.prompt.encode()


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)))
def test_the_same_samples_give_the_same_tar(order: list[int]) -> None:
    """Whatever order images come in, the tar is the same, and so is its name."""
    expected = _shard([_sample(index) for index in range(6)])
    assert expected == _shard([_sample(index) for index in order])


@pytest.mark.parametrize("image_format", FORMATS, ids=str)
def test_each_format_has_its_plain_extension(image_format: ImageFormat) -> None:
    """Files are named as WebDataset splits them: no quality between the key and the extension."""
    shard = _shard([_sample(3, image_format)], image_format)
    extension = {"png": "png", "webp": "webp", "jpeg": "jpg"}[image_format.kind]
    assert {name.partition(".")[2] for name in _members(shard.data)} == {extension, "txt", "json"}
    assert names.image_suffix(shard.key) == f".{extension}"
    assert list(read_shard(shard.key, shard.data, image_format)) == [_sample(3).job.id]


def test_the_tar_is_as_plain_as_can_be() -> None:
    """Nothing in it tells when, where or by whom it was written; samples stand whole and in plan order."""
    data = _shard([_sample(index) for index in (12, 3, 100)]).data
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in infos} == {
        (0, 0, 0, "", "", 0o644)
    }
    found = [info.name for info in infos]
    keys = [names.sample_key(index, _sample(index).job.id) for index in (3, 12, 100)]
    assert found == [f"{key}.{extension}" for key in keys for extension in ("png", "txt", "json")]
    assert keys == sorted(keys)


def test_the_row_is_the_manifests() -> None:
    """The JSON of a sample has the recipe and where it came from, exactly, 64-bit seeds and null too."""
    sample = _sample(5, seed=2**64 - 1)
    shard = _shard([sample])
    (text,) = [data for name, data in _members(shard.data).items() if name.endswith(".json")]
    row = json.loads(text)
    assert sample.job.recipe() == {name: row[name] for name in sample.job.recipe()}
    assert (row["sweep"], row["chunk"], row["index"], row["job_id"]) == (SWEEP, 7, 5, sample.job.id)
    assert (row["sha256"], row["size_bytes"]) == (
        hashlib.sha256(sample.image).hexdigest(),
        len(sample.image),
    )
    assert (row["device"], row["versions"]) == ("cpu", {"printroom": "0"})


# webdataset leaves the file it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_it(tmp_path: Path) -> None:
    """The `webdataset` package takes the samples apart and decodes the images."""
    import webdataset

    samples = [_sample(index, prompt=f"cat {index}") for index in range(3)]
    path = tmp_path / "shard.tar"
    path.write_bytes(_shard(samples).data)
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    assert [names.sample_key(sample.index, sample.job.id) for sample in samples] == [
        one["__key__"] for one in found
    ]
    assert [one["txt"] for one in found] == ["cat 0", "cat 1", "cat 2"]
    assert [one["json"]["index"] for one in found] == [0, 1, 2]
    expected = np.random.default_rng(1).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    assert np.array_equal(found[1]["png"], expected)


def test_every_changed_byte_and_every_cut_is_found() -> None:
    """A tar that is not the one its name was made of is refused, wherever the damage is."""
    shard = _shard([_sample(index) for index in range(2)])
    for position in range(0, len(shard.data), 97):
        damaged = bytearray(shard.data)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="sha256"):
            read_shard(shard.key, bytes(damaged), PNG)
    for length in (0, 1, 512, len(shard.data) - 1):
        with pytest.raises(ValueError, match="sha256"):
            read_shard(shard.key, shard.data[:length], PNG)


def test_what_should_never_have_been_stored_is_refused() -> None:
    """Under a right name: bytes that are no tar, an image that is not whole, one of another quality."""
    nothing = b"no tar" * 500
    with pytest.raises(ValueError, match="not a tar"):
        read_shard(names.shard_key(SWEEP, 7, hashlib.sha256(nothing).hexdigest()), nothing, PNG)
    whole = _sample(1)
    broken = bytearray(whole.image)
    broken[len(broken) // 2] ^= 1
    shard = _shard([ShardSample(index=1, job=whole.job, image=bytes(broken), provenance=MADE_BY)])
    with pytest.raises(ValueError, match="CRC"):
        read_shard(shard.key, shard.data, PNG)
    other = _shard([_sample(1, parse_format("jpeg:90"))], parse_format("jpeg:95"))
    with pytest.raises(ValueError, match="is jpeg:90, not jpeg:95"):
        read_shard(other.key, other.data, parse_format("jpeg:95"))


def test_a_shard_of_nothing_is_refused() -> None:
    """There is no empty shard."""
    with pytest.raises(ValueError, match="no samples"):
        _shard([])


def test_keys() -> None:
    """A shard's key is a store's key, says its content's hash, and sorts by chunk; its prefix is one chunk's alone."""
    keys = [names.shard_key(SWEEP, chunk, "f" * 64) for chunk in (0, 9, 10, 2**32 // 16)]
    assert keys == sorted(keys)
    assert keys[1] == f"sweeps/{SWEEP}/shards/000000009-ffffffffffffffff.png.tar"
    assert [check_key(key) for key in keys] == keys
    assert {names.shard_digest(key) for key in keys} == {"f" * 16}
    assert [key for key in keys if key.startswith(names.shard_prefix(SWEEP, 1))] == []
    assert keys[0].startswith(names.sweep_prefix(SWEEP))
    for image_format in FORMATS:
        key = names.image_key("ab" * 16, image_format)
        assert names.image_suffix(key) == names.image_suffix(
            names.shard_key(SWEEP, 1, "0" * 64, image_format)
        )
