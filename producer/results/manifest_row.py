"""The rows of manifests as plain values: every column of `shared.manifest.MANIFEST_SCHEMA` with its type in Python.

A row is a dict, as docs/python.md promises; these types let a type checker refuse a column that there is not.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class ImageLocation(TypedDict):
    """What of a row an image is read by."""

    key: str
    offset: int | None
    size_bytes: int
    sha256: str


class _EveryRow(TypedDict):
    sweep: str
    chunk: int
    index: int
    job_id: str
    prompt: str
    negative_prompt: str | None
    seed: int
    guidance_scale: float
    guidance_rule: str | None
    steps: int
    scheduler: str
    width: int
    height: int
    model: str
    sampler: str
    attempt: int
    worker: str
    #: ISO 8601.
    finished_at: str
    labels: dict[str, str] | None
    #: Reads the image for a while; only where URLs were asked for.
    url: NotRequired[str | None]


class DoneRow(_EveryRow):
    """The row of a job that has an image."""

    status: Literal["done"]
    error_code: None
    error: None
    model_name: str
    key: str
    #: First byte of the image in its shard; None where the object `key` is the image.
    offset: int | None
    size_bytes: int
    sha256: str
    prompt_tokens: int
    negative_tokens: int
    reused: bool
    sample_seconds: float | None
    device: str
    dtype: str
    batch_rows: int
    versions: dict[str, str]
    #: None in a manifest of an older format.
    digital_source_type: str | None


class FailedRow(_EveryRow):
    """The row of a job that failed; what is told of an image is None."""

    status: Literal["failed"]
    error_code: str
    error: str
    model_name: None
    key: None
    offset: None
    size_bytes: None
    sha256: None
    prompt_tokens: None
    negative_tokens: None
    reused: None
    sample_seconds: None
    device: None
    dtype: None
    batch_rows: None
    versions: None
    digital_source_type: None


#: `row["status"]` says which of the two it is.
ManifestRow = DoneRow | FailedRow
