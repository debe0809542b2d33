"""A store's address to the store itself. Imports boto3 only when the address is S3."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from shared.errors import SettingsError
from shared.store.base import Store
from shared.store.folder import FolderStore
from shared.store.keys import check_key

#: How long a store may fail before we give up on a request, unless told otherwise.
PATIENCE_SECONDS = 120.0

_CHECKSUM_MODES = ("when_required", "when_supported")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: S3's own rule for bucket names.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(
    url: str,
    *,
    endpoint_url: str | None,
    region: str | None = None,
    checksums: str = "when_required",
    max_connections: int = 16,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Store:
    """Return the store at an address: `s3://bucket/prefix`, a folder's path, or `file:///path`.

    Opens no connection. S3 credentials come from where AWS tools look for them (environment, files, roles).

    Args:
        url: where results live.
        endpoint_url: base URL of an S3-compatible server; None for AWS.
        region: the bucket's region; None to look where AWS tools look.
        checksums: how uploads are protected on their way; see `S3Store`.
        max_connections: S3 connections kept; as many as threads use the store.
        patience_seconds: how long failing requests are tried again; S3 only.

    Raises: SettingsError, naming what is wrong and the mend.
    """
    scheme = _SCHEME.match(url)
    if not url.strip():
        raise SettingsError("store: empty; use a folder's path or s3://bucket/prefix")
    if scheme is None:
        return FolderStore(url)
    if scheme[1].lower() == "file":
        return FolderStore(_file_path(url))
    if scheme[1].lower() != "s3":
        raise SettingsError(f"store {scheme[0]}...: unknown kind; use a folder's path or s3://bucket/prefix")
    bucket, prefix = _bucket_and_prefix(url)
    _check_endpoint(endpoint_url)
    if checksums not in _CHECKSUM_MODES:
        raise SettingsError(f"checksums {checksums!r}: use one of {', '.join(_CHECKSUM_MODES)}")

    from shared.store.s3 import S3Store  # boto3 takes 0.25 s to import; a folder needs none of it

    return S3Store(
        bucket,
        prefix,
        endpoint_url=endpoint_url,
        region=region,
        checksums=cast(Literal["when_required", "when_supported"], checksums),
        max_connections=max_connections,
        patience_seconds=patience_seconds,
    )


def _file_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise SettingsError(f"store {url}: not a file of this machine; use file:///absolute/path")
    return Path(unquote(parts.path))


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    address = url.split("://", 1)[1]
    if "@" in address:
        raise SettingsError(
            "store s3://...@...: no credentials in the address; set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    bucket, _, prefix = address.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise SettingsError(f"store {url}: {bucket!r} is no bucket name; use s3://bucket/prefix")
    prefix = prefix.rstrip("/")
    try:
        return bucket, check_key(prefix) if prefix else ""
    except ValueError as e:
        raise SettingsError(f"store {url}: {e}") from e


def _check_endpoint(endpoint_url: str | None) -> None:
    if endpoint_url is None:
        return
    try:
        parts = urlsplit(endpoint_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_secret = "@" in parts.netloc
        _ = parts.port
    except ValueError as e:
        raise SettingsError("S3 endpoint: not a URL; use http://host:port or https://host") from e
    if has_secret:
        raise SettingsError(
            "S3 endpoint: no credentials in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not valid:
        raise SettingsError(f"S3 endpoint {endpoint_url!r}: use http://host:port or https://host")
