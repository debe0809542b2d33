"""Tries the operations of a run on a store, under a key that it removes again, and reports failures with their fix."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.errors import PrintroomError, StoreError, StoreFull, StoreUnavailable
from shared.store.base import Store
from shared.store.folder import FolderStore
from shared.store.identity import place_of

_FIX = "check PRINTROOM_STORE and the AWS variables"
_BUCKET_FIX = "`printroom doctor --create-bucket` makes it, or fix PRINTROOM_STORE"
_ENDPOINT_FIX = "is PRINTROOM_S3_ENDPOINT_URL the server alone, without a bucket?"
_BYTES_FIX = "it does not return what it was given: check what stands between"
_URL_FIX = "check PRINTROOM_S3_ENDPOINT_URL: it must be reachable from where the URLs are read; and PRINTROOM_S3_REGION"

#: A folder on a disk with less than this is told of.
_FREE_BYTES = 2 * 10**9

_URL_SECONDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One thing that was tried."""

    name: str
    level: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


class _Unlike(Exception):
    """An operation answered, and not as it should."""


def examine_store(store: Store) -> Iterator[Found]:
    """Yield one line for the operations, and one for presigned URLs. Raises nothing."""
    folder = f"doctor/{secrets.token_hex(8)}"
    key, content = f"{folder}/probe.txt", secrets.token_bytes(64)
    doing = "put"

    def operations() -> Iterator[tuple[str, Callable[[], None]]]:
        yield "put", lambda: store.put(key, content, content_type="text/plain")
        yield "get", lambda: _same(store.get(key), content)
        yield "head", lambda: _sized(store, key, len(content))
        yield "range", lambda: _same(store.get_range(key, 16, 8), content[16:24])
        yield "list", lambda: _listed(store, f"{folder}/", key)

    done: list[str] = []
    try:
        for doing, act in operations():
            act()
            done.append(doing)
        urls = _urls(store, key, content)
        doing = "delete"
        store.delete(key)
        if store.head(key) is not None:
            raise _Unlike("what was deleted is still there")
    except (PrintroomError, _Unlike) as error:
        if done:
            _clear(store, key)
        yield Found(
            name="store", level="fail", detail=f"{place_of(store)}: {doing}: {error}", fix=_fix(doing, error)
        )
        return
    yield Found(name="store", level="ok", detail=f"{place_of(store)}: {', '.join(done)} and delete")
    yield urls


def examine_region(store: Store) -> Iterator[Found]:
    """Yield a warning where the region of an AWS bucket is a guess. Raises nothing."""
    if getattr(store, "guesses_region", False):
        detail = (
            "no region is set: us-east-1 is taken, and presigned URLs of other regions' buckets do not read"
        )
        yield Found(name="store region", level="warn", detail=detail, fix="set PRINTROOM_S3_REGION")


def examine_space(store: Store) -> Iterator[Found]:
    """Yield how much a folder's disk has left. Raises nothing."""
    if not isinstance(store, FolderStore):
        return
    path = Path(store.url)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        free, files = shutil.disk_usage(path).free, os.statvfs(path)
    except OSError:
        return
    little = free < _FREE_BYTES
    fix = "free some space, or set PRINTROOM_STORE to another disk" if little else ""
    detail = f"{free / 1e9:.1f} GB free on the disk of {store.url}"
    if files.f_files and files.f_favail < 10_000:
        little, fix = True, "the disk is short of inodes: set PRINTROOM_STORE to another one"
        detail += f", and {files.f_favail:,} inodes"
    yield Found(name="store space", level="warn" if little else "ok", detail=detail, fix=fix)


def _urls(store: Store, key: str, content: bytes) -> Found:
    try:
        url = store.presign(key, expires_seconds=60)
        with urllib.request.urlopen(url, timeout=_URL_SECONDS) as answer:  # noqa: S310 - a URL of our own store
            same = answer.read() == content
    except (OSError, http.client.HTTPException, StoreError) as error:
        detail = f"a presigned URL does not read: {error}"
        return Found(name="store URLs", level="fail", detail=detail, fix=_URL_FIX)
    detail = "presigned URLs" + ("" if same else " read something else")
    return Found(
        name="store URLs", level="ok" if same else "fail", detail=detail, fix="" if same else _URL_FIX
    )


def _same(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise _Unlike("other bytes than were put")


def _sized(store: Store, key: str, size_bytes: int) -> None:
    found = store.head(key)
    if found is None or found.size_bytes != size_bytes:
        raise _Unlike("does not find what was put, or with another size")


def _listed(store: Store, prefix: str, key: str) -> None:
    if key not in [info.key for info in store.list(prefix)]:
        raise _Unlike("does not list what was put")


def _clear(store: Store, key: str) -> None:
    try:
        store.delete(key)
    except PrintroomError:
        return  # the line already says that something is wrong


def _fix(doing: str, error: Exception) -> str:
    if "NoSuchBucket" in str(error):
        return _BUCKET_FIX
    if isinstance(error, _Unlike):
        return _ENDPOINT_FIX if doing == "list" else _BYTES_FIX
    if "RequestTimeTooSkewed" in str(error):
        return "set this machine's clock: S3 refuses requests that are 15 minutes off"
    if isinstance(error, StoreFull):
        return "free some space there, or set PRINTROOM_STORE to another place"
    if isinstance(error, StoreUnavailable):
        return "is it up, and PRINTROOM_S3_ENDPOINT_URL right? For a folder, look at its disk or mount"
    if doing == "list":
        return f"the keys want the right to list (s3:ListBucket); {_ENDPOINT_FIX}"
    return _FIX
