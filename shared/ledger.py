"""The live state of sweeps in Redis: bits, counters, cursors, and the Lua scripts that change them together.

One bit a job says done, one says failed, one a chunk says committed. Counters move only by bits that change, so
progress is exact however often a chunk is delivered. The ledger can be lost: the store's manifests hold the same
facts (`producer.fleet.submit` rebuilds it). Knows nothing of Celery, pixels or the store. Time is the server's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np
import redis

from shared.errors import SweepUnknown
from shared.ledger_lua import SCRIPTS
from shared.names import REDIS_PREFIX, sweep_redis_key
from shared.plan import Bucket, Chunk, Plan
from shared.queues import BrokerView
from shared.redis_errors import broker_error, is_denied
from shared.redis_rights import PRODUCER_COMMANDS, WORKER_COMMANDS, try_rights
from shared.schedule import Schedule
from shared.store.identity import StoreMark

#: rebuilding: manifests are being read back; a rebuild that was interrupted starts again.
SweepState = Literal["active", "paused", "cancelled", "done", "rebuilding"]

#: Images a second are averaged over this many slots of this many seconds.
_RATE_SLOT_SECONDS = 5
_RATE_SLOTS = 12

#: Images that a window should have had before its rate is believed.
_SURE_IMAGES = 8

#: Beats that a worker misses before it counts as silent, and how long its last one is remembered.
_MISSED_BEATS = 3
_REMEMBERED_SECONDS = 3600.0

#: Chunks the cursor may step over in one call: a bound on the time Redis is busy.
_SCAN_MAX = 20_000

#: Bytes of a failure's reason that the status shows; the manifest has all of it.
_REASON_BYTES = 500

#: Chunks to be fed again that are counted: more need no more workers.
_COUNTED_MAX = 1000

#: Chunks reopened in one call, for the same reason.
_REOPEN_CHUNKS = 500

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The ledger's answer to a worker that holds a chunk."""

    #: render: go on; complete: nothing is missing; unknown: no such sweep; others are states: taken back.
    verdict: Literal["render", "complete", "paused", "cancelled", "rebuilding", "unknown"]
    #: Deliveries so far, this one included.
    attempt: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepStatus:
    """A sweep in figures. Reading it costs one round trip, whatever the sweep's size."""

    sweep: str
    name: str
    state: SweepState
    priority: int
    jobs: int
    done: int
    failed: int
    #: Of the done: taken from another sweep's images instead of rendered.
    reused: int
    chunks: int
    chunks_done: int
    #: Chunks a worker has begun; chunks that wait in the queue.
    chunks_running: int
    chunks_queued: int
    #: Unix seconds, by the server's clock.
    created_at: float
    finished_at: float | None
    images_per_second: float
    #: Error code -> number of jobs; error code -> up to three different reasons, in words.
    failures: Mapping[str, int]
    reasons: Mapping[str, Sequence[str]]
    #: The id of the store it was submitted into, and where that is; empty for a sweep of an older version.
    store: str = ""
    store_place: str = ""

    @property
    def remaining(self) -> int:
        """Jobs neither done nor failed."""
        return self.jobs - self.done - self.failed

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to go at the present rate, or None where nothing is moving."""
        if self.state != "active" or not self.images_per_second:
            return None
        return self.remaining / self.images_per_second


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInfo:
    """What a live worker says of itself at every heartbeat."""

    name: str
    host: str
    pid: int
    device: str
    dtype: str
    batch_rows: int
    #: Fingerprint -> names of the models it holds.
    models: Mapping[str, Sequence[str]]
    #: Queues it listens to.
    queues: Sequence[str]
    images_per_second: float
    #: Sweeps and chunks in hand, as "sweep/chunk".
    chunks: Sequence[str]
    draining: bool
    #: Refusal code -> count; what holds it up now, in words.
    refused: Mapping[str, int]
    trouble: str | None
    versions: Mapping[str, str]
    #: Fingerprint -> what the files of a model say (`shared.model_facts`), for producers that do not have them.
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: The id of the store it renders into, and where that is; empty for a worker of an older version.
    store: str = ""
    store_place: str = ""
    #: Queues it is able to serve, of which it listens to those of its turn; None for a worker of an older version,
    #: which listens to all of them.
    serves: Sequence[str] | None = None
    #: The fingerprint of the model it has loaded; empty where it has none.
    model: str = ""
    #: Seconds between two heartbeats, and from its last sign of life until its chunks go to others.
    beat_seconds: float = 2.0
    moves_after_seconds: float = 35.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WorkerInfo:
        """Read what a worker of this version or a later one says; fields that we do not know are left out."""
        return cls(**{name: value for name, value in document.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beat:
    """A heartbeat in short. `at` is Unix seconds, by the server's clock."""

    at: float
    beat_seconds: float
    chunks: list[str]
    moves_after_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """A worker that has missed several beats without a word: killed, frozen, or cut off."""

    worker: str
    #: Since its last beat.
    seconds: float
    #: What it had in hand then, as "sweep/chunk".
    chunks: Sequence[str]
    #: After so long a silence its chunks go to other workers.
    moves_after_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """What of a sweep no worker has begun."""

    state: SweepState
    priority: int
    #: For each block of the plan: its chunks that are still to be fed (of those to be fed again a thousand count).
    unfed: Sequence[int]
    #: Chunks that were fed and are not committed, and those of them that a worker has begun.
    fed: int
    running: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkOutcome:
    """What became of some jobs of a chunk. Indices are plan indices."""

    done: Sequence[int] = ()
    reused: Sequence[int] = ()
    #: index -> (code, reason)
    failed: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def _named(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Give what redis-py raises a name of ours."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except redis.RedisError as error:
            raise broker_error(error) from error

    return call


class Ledger:
    """The live state of sweeps and workers. Safe to use from several threads at once."""

    def __init__(self, client: redis.Redis, *, prefix: str = REDIS_PREFIX) -> None:
        self._redis = client
        self._prefix = prefix
        self._scripts = {name: client.register_script(script.text) for name, script in SCRIPTS.items()}

    # --- sweeps ---------------------------------------------------------------------------------------------

    @_named
    def submit(
        self,
        sweep: str,
        plan: Plan,
        *,
        priority: int = 0,
        state: SweepState = "active",
        store: StoreMark = StoreMark(),  # noqa: B008 - frozen
    ) -> bool:
        """Make a sweep known, or make up for a submit that died midway. Returns False where it was known."""
        meta = {
            "name": plan.name,
            "jobs": len(plan),
            "chunks": plan.chunks,
            "priority": priority,
            "state": state,
            "store": store.id,
            "store_place": store.place,
        }
        created, present = self._run("submit", sweep, _flat(meta), plan_bytes=plan.to_bytes())
        self._redis.zadd(self._key("sweeps"), {sweep: self._time()}, nx=True)
        if present.decode() in ("active", "paused"):
            self.register(sweep, plan)
        return bool(created)

    @_named
    def plan_bytes(self, sweep: str) -> bytes | None:
        """Return the hot copy of a plan, or None where Redis has none."""
        return cast("bytes | None", self._redis.get(self._sweep_key(sweep, "plan")))

    @_named
    def replace_plan(self, sweep: str, plan: Plan) -> None:
        """Replace the hot copy of a plan, if there is one, by the same plan with other labels."""
        self._redis.set(self._sweep_key(sweep, "plan"), plan.to_bytes(), xx=True)

    @_named
    def sweeps(self) -> list[str]:
        """Return every known sweep, oldest first."""
        return [
            member.decode() for member in cast(list[bytes], self._redis.zrange(self._key("sweeps"), 0, -1))
        ]

    @_named
    def sweep_names(self) -> dict[str, str]:
        """Return the name of every known sweep, oldest first; one without a name is still being submitted."""
        sweeps = self.sweeps()
        with self._redis.pipeline(transaction=False) as pipe:
            for sweep in sweeps:
                pipe.hget(self._sweep_key(sweep, "meta"), "name")
            found = pipe.execute()
        return {sweep: (name or b"").decode() for sweep, name in zip(sweeps, found, strict=True)}

    @_named
    def active_sweeps(self) -> list[str]:
        """Return the sweeps that are not done or cancelled."""
        return sorted(
            member.decode() for member in cast(set[bytes], self._redis.smembers(self._key("active")))
        )

    @_named
    def state(self, sweep: str) -> SweepState | None:
        """Return a sweep's state, or None where Redis does not know it."""
        state = cast("bytes | None", self._redis.hget(self._sweep_key(sweep, "meta"), "state"))
        return cast(SweepState, state.decode()) if state else None

    @_named
    def set_state(self, sweep: str, state: SweepState) -> SweepState:
        """Pause, cancel or reactivate a sweep; a sweep with nothing left to do stays done.

        Returns: the state it is in now. Raises: SweepUnknown.
        """
        answer = self._run("set_state", sweep, wanted=state).decode()
        if not answer:
            raise SweepUnknown(f"{sweep}: no such sweep in Redis")
        self._follow_state(sweep, answer)
        return cast(SweepState, answer)

    @_named
    def store_of(self, sweep: str) -> StoreMark:
        """Return which store a sweep was submitted into; without an id where that is not known."""
        values = cast(
            "list[bytes | None]", self._redis.hmget(self._sweep_key(sweep, "meta"), ["store", "store_place"])
        )
        store, place = (value.decode() if value else "" for value in values)
        return StoreMark(id=store, place=place)

    @_named
    def set_priority(self, sweep: str, priority: int) -> None:
        """Change what the feeder prefers. Higher goes first."""
        self._redis.hset(self._sweep_key(sweep, "meta"), "priority", str(priority))

    @_named
    def reopen_failed(self, sweep: str, plan: Plan, *, only: Collection[int] | None = None) -> int:
        """Take back failures, so that those jobs are rendered again; a paused sweep stays paused.

        Args:
            only: plan indices; None takes back every failure.

        Returns: how many there were.
        """
        failed = self._failed_bits(sweep)
        chunks: dict[int, list[int]] = {}
        for index in failed if only is None else sorted(set(failed) & set(only)):
            chunks.setdefault(plan.chunk_of(index), []).append(index)
        wanted, reopened = list(chunks.items()), 0
        for first in range(0, len(wanted), _REOPEN_CHUNKS):
            several = json.dumps(wanted[first : first + _REOPEN_CHUNKS])
            reopened += int(self._run("reopen", sweep, chunks_json=several))
        if reopened:
            self._follow_state(sweep, self.status(sweep).state)
        return reopened

    @_named
    def render_again(self, sweep: str, wrong: Mapping[int, Sequence[int]]) -> int:
        """Open committed chunks again, for jobs whose images or rows are missing or wrong; a paused sweep stays paused.

        Args:
            wrong: chunk -> plan indices of it.

        Returns: how many jobs there were. Raises: SweepUnknown.
        """
        wanted, opened = sorted(wrong.items()), 0
        state = self.status(sweep).state
        for first in range(0, len(wanted), _REOPEN_CHUNKS):
            several = [[chunk, list(indices)] for chunk, indices in wanted[first : first + _REOPEN_CHUNKS]]
            opened += int(self._run("render_again", sweep, chunks_json=json.dumps(several)))
        if wanted:
            self._follow_state(sweep, "active" if state == "done" else state)
        return opened

    @_named
    def failed_in(self, sweep: str, chunk: Chunk) -> list[int]:
        """Return the plan indices of a chunk whose failure stands: recorded, and not taken back since."""
        first, last = chunk.start // 8, (chunk.stop - 1) // 8
        bitmap = cast(bytes, self._redis.getrange(self._sweep_key(sweep, "failed"), first, last))
        found = (8 * first + bit for bit in _set_bits(bitmap))
        return [index for index in found if chunk.start <= index < chunk.stop]

    def _failed_bits(self, sweep: str) -> list[int]:
        bitmap = cast("bytes | None", self._redis.get(self._sweep_key(sweep, "failed"))) or b""
        return list(_set_bits(bitmap))

    @_named
    def status(self, sweep: str) -> SweepStatus:
        """Return a sweep in figures. Raises: SweepUnknown."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._sweep_key(sweep, "meta"))
            pipe.hgetall(self._sweep_key(sweep, "failures"))
            pipe.hgetall(self._sweep_key(sweep, "reasons"))
            pipe.scard(self._sweep_key(sweep, "running"))
            pipe.zcard(self._sweep_key(sweep, "fed"))
            pipe.hgetall(self._sweep_key(sweep, "rate"))
            (seconds, microseconds), meta_bytes, failures, reasons, running, fed, rates = pipe.execute()
        if not meta_bytes:
            raise SweepUnknown(f"{sweep}: no such sweep in Redis")
        meta = {key.decode(): value.decode() for key, value in meta_bytes.items()}
        return SweepStatus(
            sweep=sweep,
            name=meta["name"],
            state=cast(SweepState, meta["state"]),
            priority=int(meta["priority"]),
            jobs=int(meta["jobs"]),
            done=int(meta.get("done", 0)),
            failed=int(meta.get("failed", 0)),
            reused=int(meta.get("reused", 0)),
            chunks=int(meta["chunks"]),
            chunks_done=int(meta.get("chunks_done", 0)),
            chunks_running=running,
            chunks_queued=fed - running,
            created_at=float(meta["created_at"]),
            finished_at=float(meta["finished_at"]) if "finished_at" in meta else None,
            images_per_second=_rate(
                rates, now=seconds + microseconds / 1e6, created_at=float(meta["created_at"])
            ),
            failures={code.decode(): int(count) for code, count in failures.items()},
            reasons=_reasons(reasons),
            store=meta.get("store", ""),
            store_place=meta.get("store_place", ""),
        )

    @_named
    def bit_counts(self, sweep: str) -> dict[str, int]:
        """Count the bits themselves: what the counters must equal."""
        return {
            part: int(self._redis.bitcount(self._sweep_key(sweep, part)))
            for part in ("done", "failed", "chunks")
        }

    # --- chunks ---------------------------------------------------------------------------------------------

    @_named
    def feed(self, sweep: str, block: int, first: int, stop: int, count: int) -> list[int]:
        """Choose up to `count` chunks of a block (chunks `first <= n < stop`) and mark them fed."""
        fed = self._run("feed", sweep, block=block, first=first, stop=stop, count=count, scan_max=_SCAN_MAX)
        return [int(n) for n in fed]

    @_named
    def backlogs(self, blocks: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Backlog]:
        """Return what waits of some sweeps, in one round trip. A sweep that Redis has lost is left out.

        Args:
            blocks: sweep -> the chunks `first <= n < stop` of each block of its plan.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for sweep, runs in blocks.items():
                pipe.hmget(self._sweep_key(sweep, "meta"), ["state", "priority"])
                pipe.hgetall(self._sweep_key(sweep, "cursors"))
                pipe.zcard(self._sweep_key(sweep, "fed"))
                pipe.scard(self._sweep_key(sweep, "running"))
                for first, stop in runs:
                    key = self._sweep_key(sweep, "again")
                    pipe.zrangebyscore(key, first, f"({stop}", start=0, num=_COUNTED_MAX)
            answers = iter(pipe.execute())
        found = {}
        for sweep, runs in blocks.items():
            (state, priority), cursors, fed, running = (next(answers) for _ in range(4))
            again = [next(answers) for _ in runs]
            if state is not None:
                ends = [int(cursors.get(str(block).encode(), first)) for block, (first, _) in enumerate(runs)]
                unfed = [
                    max(0, stop - end) + len(more)
                    for (_, stop), end, more in zip(runs, ends, again, strict=True)
                ]
                found[sweep] = Backlog(
                    state=cast(SweepState, state.decode()),
                    priority=int(priority or 0),
                    unfed=unfed,
                    fed=fed,
                    running=running,
                )
        return found

    @_named
    def begin(self, sweep: str, chunk: int) -> Begun:
        """Say that a worker holds a chunk, and ask what to do with it."""
        verdict, attempt = self._run("begin", sweep, chunk=chunk)
        return Begun(verdict=verdict.decode(), attempt=int(attempt))

    @_named
    def record(self, sweep: str, outcome: ChunkOutcome, *, chunk: Chunk | None = None) -> SweepState | None:
        """Set the bits of finished jobs and move the counters by those that were new.

        A failure stands until its chunk is committed again. A second commit of a chunk changes no bit. Where it
        disagrees with the first one, the chunk is fed again: either of the two manifests may be in the store.

        Args:
            chunk: given once the chunk's manifest is in the store: commits the chunk.

        Returns: the sweep's state, so that a worker learns of a cancel; None for an unknown sweep.
        """
        failed = {str(index): [code, _shortened(reason)] for index, (code, reason) in outcome.failed.items()}
        body = {"done": list(outcome.done), "reused": list(outcome.reused), "failed": failed}
        state, opened = self._run(
            "record",
            sweep,
            outcome_json=json.dumps(body),
            chunk=-1 if chunk is None else chunk.number,
            slot_seconds=_RATE_SLOT_SECONDS,
            slots=_RATE_SLOTS,
        )
        answer = state.decode()
        if answer == "done" or opened:
            self._follow_state(sweep, answer)
        return cast("SweepState | None", answer or None)

    @_named
    def committed(self, sweep: str, chunk: int) -> bool:
        """Whether a chunk's bit is set: its manifest is in the store."""
        return bool(self._redis.getbit(self._sweep_key(sweep, "chunks"), chunk))

    @_named
    def committed_chunks(self, sweep: str, chunks: int) -> set[int]:
        """Return all chunks whose bits are set, of a sweep that has so many."""
        bitmap = cast("bytes | None", self._redis.get(self._sweep_key(sweep, "chunks"))) or b""
        return {number for number in _set_bits(bitmap) if number < chunks}

    @_named
    def give_back(self, sweep: str, chunk: int, *, count_attempt: bool = False) -> None:
        """Return a chunk that was begun and not finished, for the feeder to feed again."""
        self._run("give_back", sweep, chunk=chunk, count_attempt=int(count_attempt))

    @_named
    def fed_chunks(self, sweep: str) -> set[int]:
        """Return the chunks that were fed and are not committed."""
        return {int(n) for n in cast(list[bytes], self._redis.zrange(self._sweep_key(sweep, "fed"), 0, -1))}

    @_named
    def mark_absent(self, sweep: str, chunks: Iterable[int], *, lost_after_seconds: float) -> list[int]:
        """Note which fed chunks are nowhere in the broker; return, and free, those missing for too long."""
        lost = self._run("absent", sweep, sorted(chunks), lost_after_seconds=lost_after_seconds)
        return [int(n) for n in lost]

    # --- workers, buckets, locks ----------------------------------------------------------------------------

    @_named
    def heartbeat(self, worker: WorkerInfo, *, expires_seconds: float) -> None:
        """Say that a worker lives, and what it is."""
        with self._redis.pipeline() as pipe:
            pipe.set(
                self._key(f"worker:{worker.name}"),
                json.dumps(worker.to_json()),
                px=int(expires_seconds * 1000),
            )
            now = self._time()
            pipe.zadd(self._key("workers"), {worker.name: now})
            beat = _Beat(
                at=now,
                beat_seconds=worker.beat_seconds,
                chunks=list(worker.chunks),
                moves_after_seconds=worker.moves_after_seconds,
            )
            # Kept when the heartbeat itself has expired: whose chunks wait for their leases to run out.
            pipe.hset(self._key("beats"), worker.name, json.dumps(asdict(beat)))
            pipe.execute()

    @_named
    def silent_workers(self) -> list[Silence]:
        """Return the workers of the last hour that have missed beats and did not say that they stop, by name."""
        entries = cast(dict[bytes, bytes], self._redis.hgetall(self._key("beats")))
        now = self._time()
        beats = {name.decode(errors="replace"): _beat(text) for name, text in entries.items()}
        old = [name for name, beat in beats.items() if beat is None or now - beat.at > _REMEMBERED_SECONDS]
        if old:
            self._redis.hdel(self._key("beats"), *old)
        return [
            Silence(
                worker=name,
                seconds=now - beat.at,
                chunks=beat.chunks,
                moves_after_seconds=beat.moves_after_seconds,
            )
            for name, beat in sorted(beats.items())
            if beat is not None and name not in old and now - beat.at > _MISSED_BEATS * beat.beat_seconds
        ]

    @_named
    def running_chunks(self, sweep: str) -> set[int]:
        """Return the chunks that a worker has begun, and neither finished nor given back."""
        return {int(n) for n in cast(set[bytes], self._redis.smembers(self._sweep_key(sweep, "running")))}

    @_named
    def forget_worker(self, name: str) -> None:
        """Remove a worker that has stopped."""
        with self._redis.pipeline() as pipe:
            pipe.hdel(self._key("beats"), name)
            pipe.delete(self._key(f"worker:{name}"))
            pipe.zrem(self._key("workers"), name)
            pipe.execute()

    @_named
    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive, by name."""
        names = sorted(cast(list[bytes], self._redis.zrange(self._key("workers"), 0, -1)))
        if not names:
            return []
        texts = cast(
            "list[bytes | None]", self._redis.mget([self._key(f"worker:{n.decode()}") for n in names])
        )
        gone = [name for name, text in zip(names, texts, strict=True) if text is None]
        if gone:
            self._redis.zrem(self._key("workers"), *gone)
        return [WorkerInfo.from_json(json.loads(text)) for text in texts if text is not None]

    @_named
    def publish_schedule(self, schedule: Schedule, *, expires_seconds: float) -> None:
        """Say what each worker is to listen to, for a time: without a feeder they listen to all they serve."""
        self._redis.set(self._key("schedule"), json.dumps(schedule.to_json()), px=int(expires_seconds * 1000))

    @_named
    def schedule(self) -> Schedule | None:
        """Return what the feeder published last; None where that is long ago, or by a version that writes another."""
        text = cast("bytes | None", self._redis.get(self._key("schedule")))
        try:
            return None if text is None else Schedule.from_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    @_named
    def buckets(self) -> dict[str, Bucket]:
        """Return the buckets that unfinished sweeps need, by queue name."""
        entries = cast(dict[bytes, bytes], self._redis.hgetall(self._key("buckets")))
        return {queue.decode(): Bucket(**json.loads(text)["bucket"]) for queue, text in entries.items()}

    @_named
    def register(self, sweep: str, plan: Plan) -> None:
        """Say that a sweep is unfinished and which buckets it needs, so that workers listen to them."""
        with self._redis.pipeline() as pipe:
            pipe.sadd(self._key("active"), sweep)
            for bucket in plan.buckets:
                pipe.hset(self._key("buckets"), bucket.queue, json.dumps(_bucket_json(bucket, plan)))
            pipe.execute()

    @_named
    def drop_buckets(self, queues: Iterable[str]) -> None:
        """Forget buckets that no unfinished sweep needs any more."""
        for queue in queues:
            self._redis.hdel(self._key("buckets"), queue)

    @_named
    def lock(self, name: str, token: str, *, expires_seconds: float) -> bool:
        """Take or keep a lock. True where it is ours for the time given."""
        milliseconds = int(expires_seconds * 1000)
        return bool(self._call("lock", [self._key(f"lock:{name}")], token=token, milliseconds=milliseconds))

    @_named
    def unlock(self, name: str, token: str) -> None:
        """Give a lock back, if it is still ours."""
        self._call("unlock", [self._key(f"lock:{name}")], token=token)

    @_named
    def dead_letter(self, evidence: Mapping[str, Any]) -> None:
        """Keep the evidence of a message nobody can act on: the newest thousand."""
        with self._redis.pipeline() as pipe:
            pipe.lpush(self._key("dead"), json.dumps(dict(evidence), default=str))
            pipe.ltrim(self._key("dead"), 0, 999)
            pipe.execute()

    @_named
    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the kept evidence, newest first."""
        return [json.loads(text) for text in cast(list[bytes], self._redis.lrange(self._key("dead"), 0, -1))]

    @_named
    def ping(self) -> str:
        """Return the server's name and version, as far as it tells them. Raises: BrokerError."""
        self._redis.ping()
        info = self._info("server")
        if info is None:
            return "answers (its version is not shown to this user)"
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info.get('redis_version'))}"

    @_named
    def missing_rights(self) -> tuple[list[str], list[str]]:
        """Try what Printroom does in Redis; return what this user may not do of a producer's and of a worker's."""
        producer, worker = (
            [f"{refused.command} ({refused.reason})" for refused in found]
            for found in (
                try_rights(self._redis, PRODUCER_COMMANDS, prefix=self._prefix),
                try_rights(self._redis, WORKER_COMMANDS, prefix=self._prefix),
            )
        )
        return producer, worker

    @_named
    def server_time(self) -> float:
        """Return the server's clock, Unix seconds."""
        return self._time()

    @_named
    def orphan_queues(self) -> dict[str, int]:
        """Return the queues in which messages wait though no unfinished sweep needs them, with their numbers."""
        waiting = BrokerView(self._redis, prefix=self._prefix).waiting()
        needed = self.buckets()
        return {queue: count for queue, count in waiting.items() if queue not in needed}

    @_named
    def memory_policy(self) -> dict[str, Any] | None:
        """Return the server's persistence and eviction facts; None where this user may not see them."""
        memory, persistence = self._info("memory"), self._info("persistence")
        if memory is None or persistence is None:
            return None
        return {
            "maxmemory_policy": memory.get("maxmemory_policy"),
            "aof": bool(persistence.get("aof_enabled")),
        }

    # --- private --------------------------------------------------------------------------------------------

    def _info(self, section: str) -> dict[str, Any] | None:
        """Ask the server about itself; None where this user may not (INFO is @dangerous in ACLs)."""
        try:
            return self._redis.info(section)
        except redis.RedisError as error:
            if is_denied(error):
                return None
            raise

    def _follow_state(self, sweep: str, state: str) -> None:
        if state in ("active", "paused"):
            plan = self.plan_bytes(sweep)
            if plan is not None:
                self.register(sweep, Plan.from_bytes(plan))
        elif state in ("done", "cancelled"):
            self._redis.srem(self._key("active"), sweep)

    def _run(self, script: str, sweep: str, rest: Iterable[Any] = (), **arguments: Any) -> Any:
        """Run a script on the keys of a sweep."""
        keys = [self._sweep_key(sweep, part) for part in SCRIPTS[script].keys]
        return self._call(script, keys, rest, **arguments)

    def _call(self, script: str, keys: list[str], rest: Iterable[Any] = (), **arguments: Any) -> Any:
        return self._scripts[script](keys=keys, args=SCRIPTS[script].values(arguments, rest))

    def _sweep_key(self, sweep: str, part: str) -> str:
        return sweep_redis_key(self._prefix, sweep, part)

    def _key(self, part: str) -> str:
        return self._prefix + part

    def _time(self) -> float:
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6


def _set_bits(bitmap: bytes) -> Iterator[int]:
    """Yield the offsets of the bits that are set, as Redis counts them."""
    yield from map(int, np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8))))


def _beat(text: bytes) -> _Beat | None:
    """Read a heartbeat in short; nothing where it is none."""
    try:
        beat = json.loads(text)
        return _Beat(
            at=float(beat["at"]),
            beat_seconds=float(beat["beat_seconds"]),
            chunks=[str(label) for label in beat["chunks"]],
            moves_after_seconds=float(beat["moves_after_seconds"]),
        )
    except (ValueError, TypeError, LookupError):
        return None


def _reasons(fields: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the reasons of each code, the first one first."""
    found: dict[str, list[str]] = {}
    for name, text in sorted(fields.items()):
        found.setdefault(name.decode().partition("#")[0], []).append(text.decode())
    return found


def _bucket_json(bucket: Bucket, plan: Plan) -> dict[str, Any]:
    return {"bucket": asdict(bucket), "model_name": plan.models.get(bucket.model, bucket.model)}


def _shortened(reason: str) -> str:
    """Return a reason that fits the status and is UTF-8, cut between characters."""
    return reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")


def _flat(mapping: Mapping[str, Any]) -> list[Any]:
    return [item for pair in mapping.items() for item in pair]


def _rate(slots: Mapping[bytes, bytes], *, now: float, created_at: float) -> float:
    """Return images a second: over the last minute, or over less where that is enough to be sure.

    So a rate falls to nothing within a quarter of a minute where many images should have come and none did.
    """
    whole, rate = _RATE_SLOTS * _RATE_SLOT_SECONDS, 0.0
    for seconds in (whole, whole / 2, whole / 4):
        oldest = int(now / _RATE_SLOT_SECONDS) - int(seconds / _RATE_SLOT_SECONDS)
        if seconds < whole and rate * seconds < _SURE_IMAGES:
            break
        total = sum(int(count) for slot, count in slots.items() if int(slot) > oldest)
        # The newest slot is not over yet.
        window = seconds - _RATE_SLOT_SECONDS + now % _RATE_SLOT_SECONDS
        rate = total / max(1.0, min(window, now - created_at))
    return rate
