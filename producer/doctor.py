"""Checks everything a fleet rests on, one line each: ok, or what is wrong and the mend."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import platform
import secrets
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.errors import BrokerError, PrintroomError
from shared.ledger import Ledger
from shared.store.base import Store

_PACKAGES = (
    "printroom",
    "celery",
    "kombu",
    "redis",
    "boto3",
    "pyarrow",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
)

_URL_MEND = "check PRINTROOM_S3_ENDPOINT_URL: it must be reachable from where the URLs are read"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    #: What to do about it; empty where it is ok.
    mend: str = ""


def examine(ledger: Ledger, open_store: Callable[[], Store]) -> Iterator[Check]:
    """Yield the checks, as they are made. None of them raises."""
    yield from _broker(ledger)
    yield from _store(open_store)
    yield from _workers(ledger)
    yield _rendering()
    yield Check(name="versions", ok=True, detail=_versions())


def _broker(ledger: Ledger) -> Iterator[Check]:
    try:
        yield Check(name="broker", ok=True, detail=ledger.ping())
        policy = ledger.memory_policy()
    except BrokerError as error:
        mend = "start Redis or Valkey, or set PRINTROOM_REDIS_URL"
        yield Check(name="broker", ok=False, detail=str(error), mend=mend)
        return
    evicts = policy["maxmemory_policy"] != "noeviction"
    mend = "set maxmemory-policy noeviction: an evicted key is a lost sweep" if evicts else ""
    detail = f"maxmemory-policy {policy['maxmemory_policy']}"
    yield Check(name="broker memory", ok=not evicts, detail=detail, mend=mend)
    off = "append-only file off: after a crash, `printroom resume` each sweep"
    aof = "append-only file on" if policy["aof"] else off
    yield Check(name="broker durability", ok=True, detail=aof)


def _store(open_store: Callable[[], Store]) -> Iterator[Check]:
    key, content = f"doctor/{secrets.token_hex(8)}.txt", secrets.token_bytes(64)
    try:
        store = open_store()
        store.put(key, content, content_type="text/plain")
        try:
            whole = store.get(key) == content
            url = store.presign(key, expires_seconds=60)
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a URL of our own store
                readable = answer.read() == content
        finally:
            store.delete(key)
    except PrintroomError as error:
        yield Check(
            name="store", ok=False, detail=str(error), mend="check PRINTROOM_STORE and the AWS variables"
        )
        return
    except OSError as error:
        yield Check(
            name="store URLs", ok=False, detail=f"a presigned URL does not read: {error}", mend=_URL_MEND
        )
        return
    mend = "" if whole else "it does not return what it was given: check what stands between"
    yield Check(name="store", ok=whole, detail=f"{store.url}: put, get and delete", mend=mend)
    yield Check(name="store URLs", ok=readable, detail="presigned URLs", mend="" if readable else _URL_MEND)


def _workers(ledger: Ledger) -> Iterator[Check]:
    try:
        workers, waiting = ledger.workers(), ledger.active_sweeps()
        dead = ledger.dead_letters()
    except BrokerError:
        return
    detail = "; ".join(f"{w.name} on {w.device}" for w in workers) or "none alive"
    idle = not workers and bool(waiting)
    yield Check(
        name="workers", ok=not idle, detail=detail, mend="sweeps wait: run `printroom worker`" if idle else ""
    )
    for worker in workers:
        if worker.trouble:
            yield Check(name=f"worker {worker.name}", ok=False, detail=worker.trouble, mend="see its log")
    names = sorted({name for worker in workers for several in worker.models.values() for name in several})
    yield Check(name="models", ok=True, detail=f"workers hold {', '.join(names) or 'none'}")
    if dead:
        newest = f"{dead[0].get('code')}: {dead[0].get('reason')}"
        detail = f"{len(dead)} messages nobody could act on; the newest: {newest}"
        mend = "another program may share this Redis: give Printroom a PRINTROOM_REDIS_PREFIX of its own"
        yield Check(name="dead letters", ok=False, detail=detail, mend=mend)


def _rendering() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check(
            name="device", ok=True, detail="torch is not installed: this machine submits, it does not render"
        )
    import torch

    if torch.cuda.is_available():
        gpus = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Check(name="device", ok=True, detail=f"CUDA {torch.version.cuda}: {gpus}")
    return Check(name="device", ok=True, detail=f"no GPU: renders on the CPU ({platform.machine()})")


def _versions() -> str:
    found = [f"python {platform.python_version()}"]
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)
