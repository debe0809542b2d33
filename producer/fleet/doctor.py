"""Checks every service that a fleet needs, one line each: ok, a warning, or a failure with its fix."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from producer.fleet.doctor_store import examine_region, examine_space, examine_store
from producer.fleet.status import unserved
from producer.fleet.store_match import require_same_store
from shared.errors import BrokerError, PlanUnreadable, PrintroomError, StoreError, StoreMismatch
from shared.ledger import Ledger, WorkerInfo
from shared.plan import Plan
from shared.settings import Settings, unknown_variables
from shared.store.base import Store
from shared.store.identity import identity_of

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

#: Clocks further apart than this are told of; S3 refuses requests that are 15 minutes off.
_CLOCK_SECONDS = 30.0

#: Unfinished sweeps whose plans are looked through for models that nobody holds.
_SWEEPS_MAX = 200

#: Packages whose versions decide an image's bytes.
_DECIDING = ("printroom", "torch", "diffusers", "transformers")

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    level: Level
    detail: str
    #: What to do about it; empty where it is ok.
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what was looked at, how it is, and whether it is ok."""
        found = {"name": self.name, "level": self.level, "detail": self.detail, "fix": self.fix}
        return {**found, "ok": self.ok}

    @property
    def ok(self) -> bool:
        """Whether a fleet can work as it is: a warning does not stop it."""
        return self.level != "fail"


def examine(
    ledger: Ledger, open_store: Callable[[], Store], settings: Settings | None = None
) -> Iterator[Check]:
    """Yield the checks, as they are made. None of them raises."""
    reachable = False
    for check in _broker(ledger):
        reachable = reachable or (check.name == "broker" and check.ok)
        yield check
    yield from _store(open_store, settings)
    if reachable:
        yield from _guarded("workers", lambda: _fleet(ledger))
        yield from _guarded("stores", lambda: _same_store(ledger, open_store))
    yield from _variables()
    yield _rendering()
    yield Check(name="versions", level="ok", detail=_versions())


def _guarded(name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield checks; what Redis refuses in between is a check that failed."""
    try:
        yield from checks()
    except BrokerError as error:
        yield Check(name=name, level="fail", detail=str(error), fix="see the line of the broker")


# --- the broker ----------------------------------------------------------------------------------------------


def _broker(ledger: Ledger) -> Iterator[Check]:
    try:
        yield Check(name="broker", level="ok", detail=ledger.ping())
        yield from _rights(ledger)
        yield from _memory(ledger)
        yield from _clock(ledger)
    except BrokerError as error:
        # What is wrong, and what to do, stands in the error: only a server that does not answer may want a start.
        silent = "does not answer" in str(error)
        fix = "start Redis or Valkey, or set PRINTROOM_REDIS_URL" if silent else "fix PRINTROOM_REDIS_URL"
        yield Check(name="broker", level="fail", detail=str(error), fix=fix)


def _rights(ledger: Ledger) -> Iterator[Check]:
    producer, worker = ledger.missing_rights()
    fix = "docs/deployment.md, The user of Redis, has the ACL rules"
    if producer:
        listed = "; ".join(producer)
        yield Check(name="broker rights", level="fail", detail=f"this user lacks rights: {listed}", fix=fix)
    elif worker:
        detail = f"enough for a producer, not for a worker: {'; '.join(worker)}"
        yield Check(name="broker rights", level="warn", detail=detail, fix=f"for workers: {fix}")
    else:
        yield Check(name="broker rights", level="ok", detail="this user may do what producers and workers do")


def _memory(ledger: Ledger) -> Iterator[Check]:
    policy = ledger.memory_policy()
    if policy is None:
        detail = "maxmemory-policy and append-only file are not shown to this user (INFO)"
        fix = "look there yourself: maxmemory-policy noeviction, appendonly yes"
        yield Check(name="broker memory", level="warn", detail=detail, fix=fix)
        return
    evicts = policy["maxmemory_policy"] != "noeviction"
    fix = "set maxmemory-policy noeviction: an evicted key is a lost sweep" if evicts else ""
    detail = f"maxmemory-policy {policy['maxmemory_policy']}"
    yield Check(name="broker memory", level="fail" if evicts else "ok", detail=detail, fix=fix)
    if policy["aof"]:
        yield Check(name="broker durability", level="ok", detail="append-only file on")
    else:
        off = "append-only file off: after a crash, `printroom resume` each sweep"
        yield Check(name="broker durability", level="warn", detail=off, fix="set appendonly yes")


def _clock(ledger: Ledger) -> Iterator[Check]:
    skew = ledger.server_time() - time.time()
    if abs(skew) > _CLOCK_SECONDS:
        where = "behind" if skew > 0 else "ahead of"
        detail = f"this machine is {abs(skew):.0f} s {where} Redis's"
        yield Check(name="clock", level="warn", detail=detail, fix="let both follow a time server (NTP)")


# --- the store -----------------------------------------------------------------------------------------------


def _store(open_store: Callable[[], Store], settings: Settings | None) -> Iterator[Check]:
    try:
        store = open_store()
    except PrintroomError as error:
        yield Check(name="store", level="fail", detail=str(error), fix="check PRINTROOM_STORE")
        return
    for found in (*examine_store(store), *examine_space(store), *examine_region(store)):
        yield Check(name=found.name, level=found.level, detail=found.detail, fix=found.fix)
    if settings and settings.s3_endpoint_url and not settings.store.lower().startswith("s3:"):
        detail = f"PRINTROOM_S3_ENDPOINT_URL is set, and PRINTROOM_STORE is a folder: {store.url}"
        yield Check(
            name="store kind", level="warn", detail=detail, fix="set PRINTROOM_STORE=s3://bucket/prefix"
        )


def _same_store(ledger: Ledger, open_store: Callable[[], Store]) -> Iterator[Check]:
    workers = ledger.workers()
    told = [worker for worker in workers if worker.store]
    try:
        identity = identity_of(open_store())
        require_same_store(workers, identity)
    except StoreMismatch as error:
        lines = str(error).splitlines()
        detail, fix = "; ".join(lines[:-1]), lines[-1]
        yield Check(name="stores", level="fail", detail=detail, fix=fix)
    except (StoreError, PrintroomError):
        return  # the line of the store says it
    else:
        if told:
            yield Check(name="stores", level="ok", detail="workers and this client mean the same store")


# --- workers and what waits ----------------------------------------------------------------------------------


def _fleet(ledger: Ledger) -> Iterator[Check]:
    workers, waiting = ledger.workers(), ledger.active_sweeps()
    yield _alive(workers, waiting)
    for worker in workers:
        if worker.trouble:
            yield Check(name=f"worker {worker.name}", level="fail", detail=worker.trouble, fix="see its log")
    yield from _worker_versions(workers)
    names = sorted({name for worker in workers for several in worker.models.values() for name in several})
    yield Check(name="models", level="ok", detail=f"workers hold {', '.join(names) or 'none'}")
    yield from _models_nobody_holds(ledger, workers, waiting)
    yield from _orphans(ledger)
    yield from _dead_letters(ledger)


def _alive(workers: Sequence[WorkerInfo], waiting: Sequence[str]) -> Check:
    if workers:
        return Check(name="workers", level="ok", detail="; ".join(f"{w.name} on {w.device}" for w in workers))
    if waiting:
        detail = f"none alive, and {len(waiting):,} sweeps wait"
        return Check(name="workers", level="fail", detail=detail, fix="sweeps wait: run `printroom worker`")
    return Check(
        name="workers", level="warn", detail="none alive", fix="nothing will render: run `printroom worker`"
    )


def _worker_versions(workers: Sequence[WorkerInfo]) -> Iterator[Check]:
    """Say which versions differ between workers, and Printroom's own between workers and this machine."""
    for package in _DECIDING:
        found: dict[str, list[str]] = {}
        for worker in workers:
            found.setdefault(worker.versions.get(package, "unknown"), []).append(worker.name)
        if package == "printroom" and workers:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found.setdefault(importlib.metadata.version(package), []).append("this machine")
        found.pop("unknown", None)
        if len(found) > 1:
            listed = "; ".join(f"{version}: {', '.join(who)}" for version, who in sorted(found.items()))
            fix = "run one version everywhere: images of two versions may differ in their last bits"
            yield Check(name=f"worker versions of {package}", level="warn", detail=listed, fix=fix)


def _models_nobody_holds(
    ledger: Ledger, workers: Sequence[WorkerInfo], waiting: Sequence[str]
) -> Iterator[Check]:
    if not workers:
        return
    for sweep in waiting[:_SWEEPS_MAX]:
        data = ledger.plan_bytes(sweep)
        try:
            lines = unserved(Plan.from_bytes(data), workers) if data else []
        except PlanUnreadable as error:
            fix = "run the version that submitted it, or cancel the sweep and submit it again"
            yield Check(name=f"sweep {sweep[:12]}", level="warn", detail=str(error), fix=fix)
            continue
        for line in lines:
            fix = "put the model where a worker looks (PRINTROOM_MODELS), or cancel the sweep"
            yield Check(name=f"sweep {sweep[:12]}", level="warn", detail=line, fix=fix)


def _orphans(ledger: Ledger) -> Iterator[Check]:
    waiting = ledger.orphan_queues()
    if waiting:
        listed = ", ".join(f"{queue} ({count:,})" for queue, count in sorted(waiting.items()))
        detail = f"messages wait in queues that no unfinished sweep needs: {listed}"
        fix = "left by a cancelled sweep, or for workers of another version; harmless, resume takes them up"
        yield Check(name="queues", level="warn", detail=detail, fix=fix)


def _dead_letters(ledger: Ledger) -> Iterator[Check]:
    dead = ledger.dead_letters()
    if dead:
        newest = f"{dead[0].get('code')}: {dead[0].get('reason')}"
        detail = f"{len(dead)} messages nobody could act on; the newest: {newest}"
        fix = "another program may share this Redis: give Printroom a PRINTROOM_REDIS_PREFIX of its own"
        yield Check(name="dead letters", level="fail", detail=detail, fix=fix)


# --- this machine --------------------------------------------------------------------------------------------


def _variables() -> Iterator[Check]:
    """Say which variables are set and read by nothing: a setting that is misspelt has no effect."""
    for name in unknown_variables():
        # Without the prefix, which makes all of them alike.
        found = difflib.get_close_matches(name.lower().removeprefix("printroom_"), Settings.model_fields, n=1)
        fix = f"did you mean PRINTROOM_{found[0].upper()}?" if found else ".env.example has them all"
        yield Check(name="settings", level="warn", detail=f"{name} is no setting: not used", fix=fix)


def _rendering() -> Check:
    if importlib.util.find_spec("torch") is None:
        detail = "torch is not installed: this machine submits, it does not render"
        return Check(name="device", level="ok", detail=detail)
    import torch

    if torch.cuda.is_available():
        gpus = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Check(name="device", level="ok", detail=f"CUDA {torch.version.cuda}: {gpus}")
    return Check(name="device", level="ok", detail=f"no GPU: renders on the CPU ({platform.machine()})")


def _versions() -> str:
    found = [f"python {platform.python_version()}"]
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)
