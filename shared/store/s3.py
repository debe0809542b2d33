"""An S3 bucket as a store, through boto3: SeaweedFS, AWS, R2, Ceph and others. Knows nothing of folders.

Every request goes through `_request`, the one place that decides what is tried again: server errors,
throttling, broken connections and damaged bytes, with exponential backoff and full jitter, until the
store's patience ends. botocore's own retries are off, or its delays would multiply with ours.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
)
from botocore.parsers import ResponseParserError

from shared.errors import ObjectMissing
from shared.store.base import PRESIGN_SECONDS_MAX, ObjectInfo
from shared.store.keys import check_folder, check_key, check_prefix, check_range
from shared.store.s3_errors import Damaged, code_of, is_transient, reason_of, status_of, store_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

T = TypeVar("T")

AddressingStyle = Literal["auto", "path", "virtual"]

#: How uploads are protected on their way; see `S3Store`.
ChecksumMode = Literal["when_required", "when_supported"]

#: Region that signatures name when nobody says another. S3-compatible servers take it; R2 knows it as "auto".
DEFAULT_REGION = "us-east-1"

#: Backoff: the n-th delay is drawn from 0 to min(_DELAY_MAX, _DELAY_FIRST * 2**n).
#: Full jitter, as in "Exponential Backoff And Jitter" of the AWS Architecture Blog.
_DELAY_FIRST_SECONDS = 0.1
_DELAY_MAX_SECONDS = 15.0

#: Keys asked for in one page of a listing; S3 gives no more.
_PAGE_KEYS = 1000

#: HTTP statuses of a part of an object, and of a range that begins where the object has ended.
_PARTIAL = 206
_PAST_THE_END = 416
_PRECONDITION_FAILED = 412
_NOT_IMPLEMENTED = 501

#: Object metadata in which `put` leaves the content's MD5, for `get` to check. An ETag is not always one.
_MD5 = "md5"


class S3Store:
    """Keeps objects in one bucket, under a prefix. Thread-safe; connects on first use."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        checksums: ChecksumMode = "when_required",
        addressing_style: AddressingStyle = "auto",
        max_connections: int = 16,
        patience_seconds: float = 120.0,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 60.0,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> None:
        """Describe the store; nothing is sent yet.

        Args:
            bucket: the bucket's name.
            prefix: put before every key, without a slash at either end; "" for the whole bucket.
            endpoint_url: base URL of an S3-compatible server; None for AWS.
            region: the bucket's region; None to look where AWS tools look, then us-east-1.
            checksums: "when_required" sends Content-MD5, which every server checks; "when_supported" sends
                the newer CRC instead and has botocore check the answers' CRCs (AWS, recent others).
            addressing_style: "path", "virtual", or "auto": path with an endpoint, virtual on AWS.
            max_connections: connections kept open; as many as threads use the store.
            patience_seconds: how long one request is tried again before StoreUnavailable.
            connect_timeout_seconds: how long one connection may take to open.
            read_timeout_seconds: how long the server may be silent in one attempt.
            access_key_id: None to look for both keys where AWS tools look.
            secret_access_key: the key's secret; kept out of every text.
        """
        self.bucket = bucket
        self.endpoint = endpoint_url or "AWS"
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self.url = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._region = region
        self._checksums = checksums
        self._patience_seconds = patience_seconds
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._endpoint_url = endpoint_url
        self._config = Config(
            signature_version="s3v4",
            s3={"addressing_style": addressing_style},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            max_pool_connections=max_connections,
            connect_timeout=connect_timeout_seconds,
            read_timeout=read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": 1},
            tcp_keepalive=True,
        )
        #: Whether the server makes conditional writes; None until the first one.
        self._conditional: bool | None = None
        self._made: S3Client | None = None
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"S3Store({self.url!r}, endpoint={self.endpoint!r})"

    @property
    def keeps_first(self) -> bool:
        """Whether the server makes conditional writes (If-None-Match); False until it has shown it."""
        return self._conditional is True

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write an object; the server refuses bytes that were damaged on the way.

        Raises: ValueError, StoreUnavailable, StoreDenied, StoreFull.
        """
        arguments = self._put_arguments(key, data, content_type)
        self._request("write", key, lambda client: client.put_object(**arguments))

    def put_new(self, key: str, data: bytes, *, content_type: str) -> bool:
        """Write an object where there is none. See `Store.put_new`.

        A server that does not know conditional writes ignores the condition, so the first object is written twice: a
        server that knows them refuses the second. Raises: ValueError, StoreUnavailable, StoreDenied, StoreFull.
        """
        arguments = self._put_arguments(key, data, content_type)
        if self._conditional is not False:
            written = self._request("write", key, lambda client: _put_if_none(client, arguments))
            if written and self._conditional is None:
                again = self._request("write", key, lambda client: _put_if_none(client, arguments))
                self._conditional = again is False
            if written is not None:
                return written
            self._conditional = False
        if self.head(key) is not None:
            return False
        self.put(key, data, content_type=content_type)
        return True

    def _put_arguments(self, key: str, data: bytes, content_type: str) -> dict[str, Any]:
        digest = _md5(data)
        arguments: dict[str, Any] = {
            "Bucket": self.bucket,
            "Key": self._key(key),
            "Body": data,
            "ContentType": content_type,
            "Metadata": {_MD5: digest.hex()},
        }
        if self._checksums == "when_required":
            arguments["ContentMD5"] = base64.b64encode(digest).decode()
        return arguments

    def get(self, key: str) -> bytes:
        """Return an object's content, checked against the MD5 that `put` left.

        Raises: ValueError, ObjectMissing, StoreUnavailable, StoreDenied.
        """
        full_key = self._key(key)
        return self._request("read", key, lambda client: _read(client, self.bucket, full_key))

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """Return part of an object, as far as the object goes. Nothing that `put` left can check it.

        Raises: ValueError, ObjectMissing, StoreUnavailable, StoreDenied.
        """
        check_range(offset, size_bytes)
        full_key = self._key(key)
        return self._request(
            "read", key, lambda client: _read_range(client, self.bucket, full_key, offset, size_bytes)
        )

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object; None where there is none (or no bucket: S3 tells no more).

        Raises: ValueError, StoreUnavailable, StoreDenied.
        """
        full_key = self._key(key)
        try:
            found = self._request(
                "look up", key, lambda client: client.head_object(Bucket=self.bucket, Key=full_key)
            )
        except ObjectMissing:
            return None
        return ObjectInfo(key=key, size_bytes=found["ContentLength"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order.

        Reads the whole listing first, 1000 keys a request and about 200 B of memory a key, and sorts it:
        SeaweedFS lists folder by folder, which is not key order ("a/b" before "a-b").

        Raises: ValueError, StoreUnavailable, StoreDenied.
        """
        full_prefix = self._prefix + check_prefix(prefix)
        found: list[ObjectInfo] = []
        token: str | None = None
        while True:
            page = self._page(prefix, full_prefix, token)
            for item in page.get("Contents", ()):
                relative = item["Key"].removeprefix(self._prefix)
                if not relative.endswith("/"):  # some servers list folders as empty objects
                    found.append(ObjectInfo(key=relative, size_bytes=item["Size"]))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                break
        yield from sorted(found, key=lambda item: item.key)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of what has objects below it, directly under a prefix, in order: 1000 a request.

        Raises: ValueError, StoreUnavailable, StoreDenied.
        """
        full_prefix = self._prefix + check_folder(prefix)
        found: set[str] = set()
        token: str | None = None
        while True:
            page = self._page(prefix, full_prefix, token, delimiter="/")
            for item in page.get("CommonPrefixes", ()):
                found.add(item["Prefix"].removeprefix(full_prefix).rstrip("/"))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                break
        yield from sorted(found)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine.

        Raises: ValueError, StoreUnavailable, StoreDenied.
        """
        full_key = self._key(key)
        try:
            self._request(
                "delete", key, lambda client: client.delete_object(Bucket=self.bucket, Key=full_key)
            )
        except ObjectMissing:
            return

    def presign(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL that reads the object until it expires. It is a secret: whoever has it can read.

        Raises: ValueError, StoreDenied.
        """
        if not 1 <= expires_seconds <= PRESIGN_SECONDS_MAX:
            raise ValueError(f"expires_seconds={expires_seconds}: use 1 to {PRESIGN_SECONDS_MAX} (7 days)")
        parameters = {"Bucket": self.bucket, "Key": self._key(key)}
        return self._request(
            "presign",
            key,
            lambda client: client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=expires_seconds
            ),
        )

    @property
    def guesses_region(self) -> bool:
        """Whether nobody said which region of AWS the bucket is in, so that us-east-1 is taken."""
        return self._endpoint_url is None and not (self._region or boto3.session.Session().region_name)

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there. Safe to run again, and from several places at once.

        Raises: StoreUnavailable, StoreDenied.
        """
        try:
            self._request("look up", None, lambda client: client.head_bucket(Bucket=self.bucket))
        except ObjectMissing:
            self._request("make", None, self._create_bucket)

    def _create_bucket(self, client: S3Client) -> None:
        arguments: dict[str, Any] = {"Bucket": self.bucket}
        region = client.meta.region_name
        if self._endpoint_url is None and region != DEFAULT_REGION:  # AWS wants it there and only there
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            client.create_bucket(**arguments)
        except ClientError as e:
            if code_of(e) != "BucketAlreadyOwnedByYou":
                raise

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _page(self, prefix: str, full_prefix: str, token: str | None, *, delimiter: str = "") -> Any:
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Prefix": full_prefix, "MaxKeys": _PAGE_KEYS}
        if delimiter:
            arguments["Delimiter"] = delimiter
        if token is not None:
            arguments["ContinuationToken"] = token
        return self._request("list", prefix, lambda client: client.list_objects_v2(**arguments))

    def _client(self) -> S3Client:
        """Return the one client, made on first use (0.1 s), by one thread."""
        with self._making:
            if self._made is None:
                session = boto3.session.Session()
                self._made = session.client(
                    "s3",
                    endpoint_url=self._endpoint_url,
                    region_name=self._region or session.region_name or DEFAULT_REGION,
                    config=self._config,
                    aws_access_key_id=self._access_key_id,
                    aws_secret_access_key=self._secret_access_key,
                )
            return self._made

    def _request(self, verb: str, key: str | None, call: Callable[[S3Client], T]) -> T:
        """Make one request, again and again while its failure is transient and patience lasts."""
        # Made before the clock starts: patience is for the store. If it fails, the first attempt says so.
        with suppress(BotoCoreError):
            self._client()
        deadline = time.monotonic() + self._patience_seconds
        attempt = 0
        while True:
            try:
                return call(self._client())
            except (ClientError, BotoCoreError, ResponseParserError, Damaged) as e:
                delay_seconds = backoff_seconds(attempt, random.random())
                if not is_transient(e) or time.monotonic() + delay_seconds > deadline:
                    self._raise(e, verb, key, attempts=attempt + 1)
                log.warning(
                    "store_retry",
                    extra={"verb": verb, "key": key, "attempt": attempt + 1, "reason": reason_of(e)},
                )
            time.sleep(delay_seconds)
            attempt += 1

    def _raise(self, error: Exception, verb: str, key: str | None, *, attempts: int) -> NoReturn:
        """Raise the store error that a failure stands for, with what was asked and the fix."""
        what = f"bucket {self.bucket}" if key is None else f"{key!r} in {self.url}"
        said = f"cannot {verb} {what} ({self.endpoint}): {reason_of(error)}"
        raise store_error(error, said, attempts=attempts) from error


def backoff_seconds(attempt: int, draw: float) -> float:
    """Return the delay after the attempt-th failure (from 0): exponential, capped, with full jitter.

    Args:    draw: uniform in [0, 1).
    """
    # 2**20 is far past the cap; more would only make a huge number.
    return draw * min(_DELAY_MAX_SECONDS, _DELAY_FIRST_SECONDS * 2.0 ** min(attempt, 20))


def _put_if_none(client: S3Client, arguments: dict[str, Any]) -> bool | None:
    """Put an object unless there is one. Returns: whether it was written; None where the server cannot do so."""
    try:
        client.put_object(**arguments, IfNoneMatch="*")
    except ClientError as error:
        if status_of(error) == _PRECONDITION_FAILED:
            return False
        if status_of(error) == _NOT_IMPLEMENTED:
            return None
        raise
    return True


def _read(client: S3Client, bucket: str, key: str) -> bytes:
    answer = client.get_object(Bucket=bucket, Key=key)
    with closing(answer["Body"]) as body:  # as its own context it would be the bare urllib3 stream
        data: bytes = body.read()
    expected = answer["Metadata"].get(_MD5)
    if expected is not None and expected != _md5(data).hex():
        raise Damaged("the content does not match its MD5")
    return data


def _read_range(client: S3Client, bucket: str, key: str, offset: int, size_bytes: int) -> bytes:
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-{offset + size_bytes - 1}")
    except ClientError as e:
        if status_of(e) == _PAST_THE_END:
            return b""
        raise
    with closing(answer["Body"]) as body:
        data: bytes = body.read()
    # A server that knows no ranges, or finds this one pointless, sends the whole object.
    is_part = answer["ResponseMetadata"]["HTTPStatusCode"] == _PARTIAL
    return data if is_part else data[offset : offset + size_bytes]


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
