"""Writes a chunk's images to one tar, a WebDataset shard, and reads them back. Knows nothing of plans or stores.

A sample is three files of one name: the image, its prompt (`.txt`) and its row (`.json`). The image is the file that
would be an object of its own in the other layout, byte for byte. The same samples give the same tar: no clock, user or
worker stands in it, so that a shard can be named by its content (`names.shard_key`).
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from shared import names
from shared.images.format import ImageFormat
from shared.job import Job, canonical_json
from shared.metadata import read_image
from shared.result import Provenance, StoredImage

#: What a store says the object is.
MEDIA_TYPE = "application/x-tar"

#: Files end on a full block, and the tar on a full record, as POSIX has it.
_BLOCK_BYTES = tarfile.BLOCKSIZE
_RECORD_BYTES = tarfile.RECORDSIZE


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSample:
    """An image that is to go into a shard."""

    #: Index in the plan; the first of several that ask for the same image.
    index: int
    job: Job
    #: The image's file.
    image: bytes
    provenance: Provenance


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A tar that is ready to be stored, and where in it each image lies."""

    key: str
    data: bytes
    #: Job id -> place.
    images: Mapping[str, StoredImage]


def make_shard(samples: Sequence[ShardSample], *, sweep: str, chunk: int, image_format: ImageFormat) -> Shard:
    """Return the shard of a chunk's samples, in the order of their indices.

    Args:    samples: one or more, of different jobs, their images of the one format.
    Raises:  ValueError for no samples at all.
    """
    if not samples:
        raise ValueError(f"shard of sweep {sweep}, chunk {chunk}: no samples")
    parts: list[bytes] = []
    offsets: dict[str, int] = {}
    end = 0
    for sample in sorted(samples, key=lambda sample: sample.index):
        offsets[sample.job.id] = end + _BLOCK_BYTES  # past the header of the first file, which is the image
        for name, data in _files(sample, sweep, chunk, image_format):
            parts += (_header(name, len(data)), data, bytes(-len(data) % _BLOCK_BYTES))
            end += sum(map(len, parts[-3:]))
    end += 2 * _BLOCK_BYTES
    data = b"".join((*parts, bytes(2 * _BLOCK_BYTES), bytes(-end % _RECORD_BYTES)))
    key = names.shard_key(sweep, chunk, _sha256(data), image_format)
    images = {
        sample.job.id: _place(key, offsets[sample.job.id], sample.image, sample.provenance)
        for sample in samples
    }
    return Shard(key=key, data=data, images=images)


def read_shard(key: str, data: bytes, image_format: ImageFormat) -> dict[str, StoredImage]:
    """Return where each image of a shard lies, by its job's id, having checked the tar and the seal of every image.

    Raises: ValueError with the reason: not the tar that its key names, or an image that is not whole, not ours, or
        of another format.
    """
    if names.shard_digest(key) != _sha256(data)[: names.SHARD_DIGITS]:
        raise ValueError(f"its sha256 is not the one in its name ({len(data)} bytes)")
    images: dict[str, StoredImage] = {}
    for name, offset, image in _members(data):
        if not name.endswith(f".{_extension(image_format)}"):
            continue
        found = read_image(image)
        if found.image_format != image_format:
            raise ValueError(f"{name} is {found.image_format}, not {image_format}")
        images[found.job.id] = _place(key, offset, image, found.provenance)
    return images


def _files(
    sample: ShardSample, sweep: str, chunk: int, image_format: ImageFormat
) -> tuple[tuple[str, bytes], ...]:
    name = names.sample_key(sample.index, sample.job.id)
    return (
        (f"{name}.{_extension(image_format)}", sample.image),
        (f"{name}.txt", sample.job.prompt.encode()),
        (f"{name}.json", canonical_json(_row(sample, sweep, chunk))),
    )


def _row(sample: ShardSample, sweep: str, chunk: int) -> dict[str, object]:
    """Return a sample's row: the manifest's columns, without those that tell of the delivery or of the place."""
    return {
        "sweep": sweep,
        "chunk": chunk,
        "index": sample.index,
        "job_id": sample.job.id,
        **sample.job.recipe(),
        **asdict(sample.provenance),
        "size_bytes": len(sample.image),
        "sha256": _sha256(sample.image),
    }


def _header(name: str, size_bytes: int) -> bytes:
    """Return a file's header block: the plainest format (ustar), time 0, user 0, rights 0644."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _members(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, offset of the content, content) of a tar's files. Raises: ValueError for what is no tar."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for info in tar:
                yield info.name, info.offset_data, data[info.offset_data : info.offset_data + info.size]
    except tarfile.TarError as e:
        raise ValueError(f"not a tar: {e}") from e


def _place(key: str, offset: int, image: bytes, provenance: Provenance) -> StoredImage:
    return StoredImage(
        key=key, offset=offset, size_bytes=len(image), sha256=_sha256(image), provenance=provenance
    )


def _extension(image_format: ImageFormat) -> str:
    """Return `jpg` of `q95.jpg`: WebDataset takes all that follows the first dot for the field's name."""
    return image_format.ending.rpartition(".")[2]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
