"""Decides what a failed S3 request means: retry it, or raise one of our errors with its fix."""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from shared.errors import ObjectMissing, StoreDenied, StoreError, StoreFull, StoreUnavailable

_TRANSIENT_STATUSES = {408, 425, 429}
_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_FULL_CODES = {
    "InsufficientStorage",
    "QuotaExceeded",
    "StorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
}
#: How servers without a code of their own say it (SeaweedFS; Go's and C's ENOSPC).
_FULL_WORDS = ("no free volume", "no writable volume", "no space left")
_KEY_CODES = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}


_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED",)
#: How OpenSSL says that the other side does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "record layer failure")
#: What an answer has for a code that is none of S3's: of a web server, or of a port that wants TLS.
_NO_S3_CODES = ("", "400", "405", "501")


class Damaged(Exception):
    """What arrived is not what was stored."""


def is_transient(error: Exception) -> bool:
    """Return whether the same request may well succeed a little later."""
    if isinstance(error, ClientError):
        if _is_full(error):
            return False
        status = status_of(error)
        # 501 is "not implemented" and stays so.
        server_error = status >= 500 and status != 501
        return server_error or status in _TRANSIENT_STATUSES or code_of(error) in _TRANSIENT_CODES
    if isinstance(error, SSLError) and any(word in str(error) for word in (*_CERTIFICATE, *_NO_TLS)):
        return False
    kinds = (BotoConnectionError, HTTPClientError, IncompleteReadError, FlexibleChecksumError)
    return isinstance(error, (*kinds, ResponseParserError, Damaged))


def _is_full(error: ClientError) -> bool:
    message = error.response.get("Error", {}).get("Message", "").lower()
    full_words = status_of(error) >= 500 and any(words in message for words in _FULL_WORDS)
    return status_of(error) == 507 or code_of(error) in _FULL_CODES or full_words


def store_error(error: Exception, said: str, *, attempts: int) -> StoreError:
    """Return the store error of a failure that is not, or no longer, tried again."""
    if is_transient(error):
        scheme = ", and https:// or http:// right" if isinstance(error, ConnectionClosedError) else ""
        return StoreUnavailable(f"{said}; gave up after {attempts} attempts, is the server up{scheme}?")
    if isinstance(error, SSLError) and any(word in str(error) for word in _NO_TLS):
        return StoreUnavailable(f"{said}; the port speaks no TLS: use http:// in PRINTROOM_S3_ENDPOINT_URL")
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return StoreDenied(f"{said}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not isinstance(error, ClientError):
        return StoreUnavailable(f"{said}; check the endpoint URL and the network")
    code = code_of(error)
    if _is_full(error):
        return StoreFull(f"{said}; free some space there or raise the quota")
    if code == "NoSuchBucket":
        return StoreDenied(
            f"{said}; make the bucket (`printroom doctor --create-bucket`) or fix PRINTROOM_STORE"
        )
    if code in _NO_S3_CODES and 400 <= status_of(error) < 500:
        return StoreUnavailable(
            f"{said}; that is no answer of S3: is PRINTROOM_S3_ENDPOINT_URL right, and https:// where the port is TLS?"
        )
    if code in _MISSING_CODES:
        return ObjectMissing(said)
    if code in _KEY_CODES:
        # The text says which server was asked: one at AWS, where an empty endpoint leads, knows no other's keys.
        other = "; for a server that is not AWS set PRINTROOM_S3_ENDPOINT_URL" if "(AWS)" in said else ""
        return StoreDenied(f"{said}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{other}")
    if code == "RequestTimeTooSkewed":
        return StoreDenied(f"{said}; set this machine's clock")
    if code in _REGION_CODES or status_of(error) == 301:
        return StoreDenied(f"{said}; set the bucket's region (PRINTROOM_S3_REGION)")
    if status_of(error) in (401, 403):
        return StoreDenied(
            f"{said}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may read, write, list"
            " and delete here"
        )
    return StoreError(said)


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an answer, 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: ClientError) -> str:
    """Return S3's own code for a failure, or nothing."""
    return str(error.response.get("Error", {}).get("Code", ""))


def reason_of(error: Exception) -> str:
    """Return a failure in words: S3's code and status, never headers, which hold signatures."""
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")[:200]
        return f"{code_of(error)}, HTTP {status_of(error)}" + (f": {message}" if message else "")
    return f"{type(error).__name__}: {error}"[:300]
