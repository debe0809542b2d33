"""The result of a job: an image in the store, or a failure with its reason. Knows nothing of Parquet or PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shared.job import Job


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """How an image was made, as far as it decides the image's bytes. Stands in the PNG itself.

    Holds no clock, host or attempt: the same job on the same kind of device, batch size and versions
    gives the same file, byte for byte.
    """

    #: Model name as the sweep said it (the fingerprint is in the job).
    model_name: str
    #: Device the image was sampled on, such as "cpu" or "NVIDIA H100 80GB HBM3".
    device: str
    #: Dtype of the UNet: float32, float16 or bfloat16.
    dtype: str
    #: UNet rows a call (R).
    batch_rows: int
    #: Tokens of each prompt, without the begin and end marks; the negative is 0 where it is not used.
    prompt_tokens: int
    negative_tokens: int
    #: Versions of printroom, torch, diffusers and transformers that made it.
    versions: dict[str, str]
    #: What the file says of where it comes from: IPTC's digital source type, a URI; None where it says nothing.
    digital_source_type: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image that is in the store."""

    #: Object key, relative to the store's root.
    key: str
    #: Size of the image's file in bytes, and the sha256 of its content (hex).
    size_bytes: int
    sha256: str
    provenance: Provenance
    #: Where the file begins in the object, bytes; None where the object is the file.
    offset: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A job whose image is in the store."""

    index: int
    job: Job
    image: StoredImage
    #: True when the image was already in the store and was verified, not rendered.
    reused: bool
    #: The image's share of the seconds that its batches took, text to pixels, by rows; None when reused.
    sample_seconds: float | None
    #: Delivery of the chunk that recorded this row, from 1.
    attempt: int
    #: Worker that recorded this row.
    worker: str
    finished_at: datetime
    #: What the sweep calls the job, for people (`Plan.labels`). No part of the job.
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A job that could not be made, and why."""

    index: int
    job: Job
    #: A stable code of `shared.errors`, and the reason in words.
    code: str
    reason: str
    attempt: int
    worker: str
    finished_at: datetime
    #: What the sweep calls the job, for people (`Plan.labels`). No part of the job.
    labels: Mapping[str, str] = field(default_factory=dict)


Result = Done | Failed
