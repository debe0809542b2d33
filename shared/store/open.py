"""Opens the store that an address names. Imports boto3 only for S3."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from shared.errors import SettingsError
from shared.store.base import Store
from shared.store.folder import FolderStore
from shared.store.keys import check_key

#: How long a store may fail before we give up on a request, unless told otherwise.
PATIENCE_SECONDS = 120.0

_CHECKSUM_MODES = ("when_required", "when_supported")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: S3's own rule for bucket names.
_BUCKET = re.compile(r"(?![0-9.]+$)(?!.*[.][.-])(?!.*-[.])[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

#: A scheme that lacks a slash would be a folder of that name.
_ALMOST_SCHEME = re.compile(r"(s3|gs|gcs|az|http|https|file|redis):", re.IGNORECASE)

#: Hosts that are known to have nothing but a bucket before what stands in the group.
_VIRTUAL_HOST = re.compile(
    r".+\.("
    r"s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com(?:\.cn)?"
    r"|storage\.googleapis\.com"
    r"|[a-z0-9-]+\.digitaloceanspaces\.com"
    r"|[0-9a-f]{32}(?:\.[a-z]+)?\.r2\.cloudflarestorage\.com"
    r"|s3\.[a-z0-9-]+\.(?:backblazeb2|wasabisys|scw)\.(?:com|cloud)"
    r")"
)


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

    Raises: SettingsError, naming what is wrong and the fix.
    """
    folder = _folder(url)
    if folder is not None:
        return FolderStore(folder)
    bucket, prefix = _bucket_and_prefix(url)
    endpoint_url = plain_endpoint(endpoint_url, bucket)
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


def check_address(url: str, *, endpoint_url: str | None) -> None:
    """Read a store's address and its endpoint as `open_store` does, and open nothing. Raises: SettingsError."""
    if _folder(url) is None:
        plain_endpoint(endpoint_url, _bucket_and_prefix(url)[0])


def _folder(url: str) -> str | Path | None:
    """Return the folder that an address means; None where it is S3."""
    if not url.strip():
        raise SettingsError("store: empty; use a folder's path or s3://bucket/prefix")
    scheme = _SCHEME.match(url)
    if scheme is None:
        if _ALMOST_SCHEME.match(url):
            raise SettingsError(f"store {url}: two slashes after the colon: use s3://bucket/prefix")
        return url
    if scheme[1].lower() == "file":
        return _file_path(url)
    if scheme[1].lower() != "s3":
        raise SettingsError(f"store {scheme[0]}...: unknown kind; use a folder's path or s3://bucket/prefix")
    return None


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
    if bucket.endswith((".amazonaws.com", ".digitaloceanspaces.com", ".r2.cloudflarestorage.com")):
        raise SettingsError(
            f"store {url}: {bucket!r} is a host: use the bucket's name alone, s3://bucket/prefix"
        )
    prefix = prefix.rstrip("/")
    try:
        return bucket, check_key(prefix) if prefix else ""
    except ValueError as e:
        raise SettingsError(f"store {url}: {e}") from e


def plain_endpoint(endpoint_url: str | None, bucket: str) -> str | None:
    """Return an endpoint's base URL, without a slash at its end.

    An endpoint that names the bucket as well, as some dashboards show it, writes and reads well and lists nothing:
    the bucket is named twice then.

    Raises: SettingsError with the fix.
    """
    if endpoint_url is None:
        return None
    parts = _endpoint_parts(endpoint_url)
    base = f"{parts.scheme}://{parts.netloc}"
    segments = [part for part in parts.path.split("/") if part]
    if parts.query or parts.fragment:
        raise SettingsError(f"S3 endpoint {endpoint_url!r}: without ? and #: use {base}")
    if bucket in segments or len(segments) == 1:
        # One segment is a bucket; more may be a gateway's own path (https://host/storage/v1/s3).
        raise SettingsError(
            f"S3 endpoint {endpoint_url!r}: a bucket stands in PRINTROOM_STORE (s3://{bucket}), not here:"
            f" use {base}"
        )
    if host := _without_bucket(str(parts.hostname), bucket):
        raise SettingsError(
            f"S3 endpoint {endpoint_url!r}: it names a bucket, which stands in PRINTROOM_STORE (s3://{bucket}):"
            f" use {parts.scheme}://{host}" + (", or leave it out for AWS" if "amazonaws" in host else "")
        )
    if (parts.scheme, parts.port) in (("http", 443), ("https", 80)):
        right = "https" if parts.scheme == "http" else "http"
        raise SettingsError(
            f"S3 endpoint {endpoint_url!r}: port {parts.port} speaks {right}: use {right}://{parts.hostname}"
        )
    return base + (f"/{'/'.join(segments)}" if segments else "")


def _without_bucket(host: str, bucket: str) -> str | None:
    """Return the host without the bucket that stands before it (virtual-host style); None where none does."""
    match = _VIRTUAL_HOST.fullmatch(host)
    if match:
        return match[1]
    rest = host.removeprefix(f"{bucket}.")
    return rest if rest != host and rest.startswith(("s3.", "s3-", "storage.", "oss-")) else None


def _endpoint_parts(endpoint_url: str) -> SplitResult:
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
    if not valid or any(character.isspace() for character in endpoint_url):
        raise SettingsError(f"S3 endpoint {endpoint_url!r}: use http://host:port or https://host")
    return parts
