"""Every name that is stored or sent: object keys, Redis keys, names of queues and tasks. Knows nothing of their use."""

from __future__ import annotations

import hashlib

from shared.images.format import PNG, ImageFormat

#: Version of the queue protocol: message body, Redis layout and queue names move together.
PROTOCOL = 1

#: The model of a sweep that names none.
DEFAULT_MODEL = "portraits"

#: The one Celery task. The producer sends it by name and never imports its body.
RENDER_CHUNK = "render.chunk"

#: Where a worker listens before it knows of any bucket; nothing is ever sent there.
IDLE_QUEUE = f"render.v{PROTOCOL}.idle"

#: Digits of a shard's sha256 in its key.
SHARD_DIGITS = 16

_SHARD_SUFFIX = ".tar"

#: Digits of a plan index in a file's name: the names of a sweep's samples sort as their indices do, up to 10^8 jobs.
_INDEX_DIGITS = 8

#: Prefix of all Redis keys of ours. Celery's own keys get it too (`global_keyprefix`).
REDIS_PREFIX = "printroom:"


def queue_name(model: str, width: int, height: int, sampler: str, encoder: str = "") -> str:
    """Return the queue of a bucket: one per model and size, apart for every protocol and sampler version.

    Args:
        encoder: what only some workers have, and the jobs want; they wait in a queue of their own.
    """
    content = f"{model}\n{width}x{height}" + (f"\n{encoder}" if encoder else "")
    digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
    return f"render.v{PROTOCOL}.s{sampler}.{digest}"


# Objects, relative to the store's root.


#: What an id is (RE2 and Python's re agree): 32 hex digits, of a job or a sweep.
ID_PATTERN = "[0-9a-f]{32}"

#: What `image_key` and `shard_key` make: nothing else is looked for in a store on a row's word.
IMAGE_KEY_PATTERN = (
    rf"images/[0-9a-f]{{2}}/{ID_PATTERN}(\.[a-z0-9]+){{1,2}}"
    rf"|sweeps/{ID_PATTERN}/shards/[0-9]{{9}}-[0-9a-f]{{{SHARD_DIGITS}}}(\.[a-z0-9]+){{1,2}}\.tar"
)

#: Below it each sweep has a folder, called by its id.
SWEEPS_PREFIX = "sweeps/"

#: Below it is the store's identity.
IDENTITY_PREFIX = "identity/"


def identity_key(store: str) -> str:
    """Return the key of the object that says which store this is."""
    return f"{IDENTITY_PREFIX}{store}.json"


def sweep_prefix(sweep: str) -> str:
    """Return the prefix of everything that belongs to one sweep."""
    return f"sweeps/{sweep}/"


def source_key(sweep: str) -> str:
    """Return the key of the sweep file as submitted."""
    return f"sweeps/{sweep}/sweep.yaml"


def plan_key(sweep: str) -> str:
    """Return the key of the compiled plan, the durable truth."""
    return f"sweeps/{sweep}/plan.json.zst"


def manifest_prefix(sweep: str) -> str:
    """Return the prefix of a sweep's manifests."""
    return f"sweeps/{sweep}/manifest/"


def manifest_key(sweep: str, chunk: int) -> str:
    """Return the key of a chunk's manifest. Padded, so that key order is chunk order."""
    return f"sweeps/{sweep}/manifest/{chunk:09d}.parquet"


def chunk_of_manifest(key: str) -> int:
    """Return the chunk number that `manifest_key` put into a key. Raises: ValueError for another key."""
    return int(key.rsplit("/", 1)[1].removesuffix(".parquet"))


def image_key(job_id: str, image_format: ImageFormat = PNG) -> str:
    """Return the key of an image: named by its job and format, shared by every sweep that has both."""
    return f"images/{job_id[:2]}/{job_id}.{image_format.ending}"


def shard_prefix(sweep: str, chunk: int) -> str:
    """Return the prefix of a chunk's shards. Padded, so that key order is chunk order."""
    return f"sweeps/{sweep}/shards/{chunk:09d}-"


def shard_key(sweep: str, chunk: int, sha256: str, image_format: ImageFormat = PNG) -> str:
    """Return the key of a tar of a chunk's images: named by its content, so that no writer ever replaces another's.

    Args:    sha256: of the whole tar, hex. Its first digits are enough to tell a chunk's few shards apart.
    """
    return f"{shard_prefix(sweep, chunk)}{sha256[:SHARD_DIGITS]}.{image_format.ending}{_SHARD_SUFFIX}"


def shard_digest(key: str) -> str:
    """Return the start of the sha256 that `shard_key` put into a key."""
    return key.rsplit("/", 1)[1].partition("-")[2].partition(".")[0]


def sample_key(index: int, job_id: str) -> str:
    """Return the WebDataset key of a sample: what the names of its files begin with, and no dot."""
    return f"{index:0{_INDEX_DIGITS}d}-{job_id[:8]}"


def image_suffix(key: str) -> str:
    """Return the suffix of an image's file by itself, such as `.jpg`, from the key of its object or its shard."""
    return "." + key.removesuffix(_SHARD_SUFFIX).rsplit(".", 1)[1]


# Redis.


def sweep_redis_key(prefix: str, sweep: str, part: str) -> str:
    """Return a key of one sweep. The hash tag keeps a sweep's keys in one cluster slot."""
    return f"{prefix}{{{sweep}}}:{part}"
