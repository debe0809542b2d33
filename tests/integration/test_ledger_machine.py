"""The ledger, the feeder and the rebuild against a small model, under everything that can go wrong, in any order.

One sweep of two buckets. Messages, workers and images are simulated; the ledger runs in a real Valkey, manifests are
real files in a real store. A worker may die between any two of its writes: an image, its bit, the manifest, the commit.
After every step the bits must be exactly those of the model. At the end of every run all faults stop; the sweep must
come to its end by itself.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from producer.fleet.submit import rebuild
from shared import names
from shared.feeder import Feeder
from shared.ledger import ChunkOutcome, Ledger
from shared.manifest import read_manifest, write_manifest
from shared.message import ChunkMessage
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange
from shared.result import Done, Failed, Provenance, Result, StoredImage
from shared.store.folder import FolderStore
from shared.store.identity import identity_of

MODEL = "sha:" + "a" * 32
CODES = ("job_crashed", "prompt_too_long")

#: The clock of the test: a message that is nowhere in the broker is missing for too long now, or not yet.
NOW, NOT_YET = 0.0, 3600.0


def make_plan() -> Plan:
    """Return eight jobs in three chunks of two buckets; one chunk is short."""
    axes = (
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None), ("b", "c"))),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=3),
        SeedRange(start=100, count=2),
        ListAxis(fields=("prompt", "negative_prompt"), values=(("d", None),)),
    )
    blocks = (
        Block(bucket=Bucket(model=MODEL, width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=4),
        Block(bucket=Bucket(model=MODEL, width=64, height=32), axes=(4, 1, 3), jobs_per_chunk=4),
    )
    return Plan(name="machine", models={MODEL: "tiny"}, axes=axes, blocks=blocks)


PLAN = make_plan()
JOBS = dict(PLAN.jobs())
CHUNKS = {number: range(PLAN.chunk(number).start, PLAN.chunk(number).stop) for number in range(PLAN.chunks)}


@dataclass(eq=False)
class Hand:
    """One delivery of one chunk, in the hands of one worker."""

    chunk: int
    attempt: int
    #: Failures that stand since before this delivery, with their codes.
    failed: dict[int, str]
    #: Images that this delivery has put into the store, or found there.
    imaged: set[int] = field(default_factory=set)
    #: An image that no bit says yet.
    unreported: bool = False
    #: It has looked whether another delivery has committed the chunk: none has.
    has_looked: bool = False
    has_manifest: bool = False
    #: Another delivery of the same message exists: this one's acknowledgement changes nothing.
    dead: bool = False


class Model:
    """What the ledger must say. Nothing here but sets."""

    def __init__(self) -> None:
        self.state: str | None = None
        self.done: set[int] = set()
        self.failed: dict[int, str] = {}
        self.committed: set[int] = set()

    def record(self, done: Sequence[int], failed: dict[int, str], chunk: int | None = None) -> None:
        """Set bits. A failure stands until its chunk is committed again; a second commit that disagrees opens it."""
        if self.state is None:
            return
        if chunk in self.committed:
            if not (set(done) <= self.done and set(failed) <= set(self.failed)):
                self.open({chunk})
            return
        self.done |= set(done) if chunk is not None else set(done) - set(self.failed)
        if chunk is not None:
            self.failed |= {i: code for i, code in failed.items() if i not in self.failed}
            self.committed.add(chunk)
        self.failed = {index: code for index, code in self.failed.items() if index not in self.done}
        if len(self.done) + len(self.failed) == len(JOBS) and len(self.committed) == len(CHUNKS):
            self.state = "done"

    def open(self, chunks: set[int]) -> None:
        """Commit these chunks no more; a sweep that was done goes on."""
        self.committed -= chunks
        if self.state == "done":
            self.state = "active"


class Broker:
    """The queues: what the feeder sees of them, and sends to them."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, int]] = []
        self.hands: list[Hand] = []

    def send(self, queue: str, message: ChunkMessage) -> None:
        """Put a message at the end of a queue."""
        assert message.sweep == PLAN.id
        self.waiting.append((queue, message.chunk))

    def queue_lengths(self, queues: Sequence[str]) -> list[int]:
        """See `BrokerView`."""
        counts = Counter(queue for queue, _ in self.waiting)
        return [counts[queue] for queue in queues]

    def newest_to_front(self, queue: str) -> None:
        """See `BrokerView`."""

    def chunks(self, queues: Sequence[str]) -> set[ChunkMessage]:
        """See `BrokerView`: what waits, and what is delivered and not acknowledged."""
        numbers = {chunk for _, chunk in self.waiting} | {hand.chunk for hand in self.hands if not hand.dead}
        return {ChunkMessage(sweep=PLAN.id, chunk=chunk) for chunk in numbers}


class Interrupted(Exception):
    """A producer dies in the middle of a rebuild."""


class LedgerMachine(RuleBasedStateMachine):
    """See the module."""

    client: redis.Redis
    store: FolderStore

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"machine{uuid.uuid4().hex[:12]}:"
        self.ledger = Ledger(self.client, prefix=self.prefix)
        self.identity = identity_of(self.store)
        self.model, self.broker = Model(), Broker()
        #: What the store has: images by index, and rows by chunk.
        self.images: set[int] = set()
        self.rows: dict[int, dict[int, str | None]] = {}
        #: Jobs that fail at present, with the code that they fail with.
        self.poisoned: dict[int, str] = {}
        for key in [one.key for one in self.store.list("sweeps/")]:
            self.store.delete(key)
        self.store.put(names.plan_key(PLAN.id), PLAN.to_bytes(), content_type="application/zstd")
        self.new_feeder()
        self.submit()

    # --- what a producer does ---

    def new_feeder(self) -> None:
        """Another process feeds from now on."""
        self.feeder = Feeder(
            self.ledger, self.broker, self.broker.send, lost_after_seconds=NOT_YET, turn_seconds=60.0
        )

    @precondition(lambda self: self.model.state is not None)
    @rule()
    def submit(self) -> None:
        """A sweep that is known does not change by another submit."""
        created = self.ledger.submit(PLAN.id, PLAN)
        assert created == (self.model.state is None)
        self.model.state = self.model.state or "active"

    @rule(wanted=st.sampled_from(["active", "paused", "cancelled"]))
    def set_state(self, wanted: str) -> None:
        """Pause, cancel, go on."""
        if self.model.state in (None, "rebuilding"):
            return
        if self.model.state != "done":
            self.model.state = wanted
        assert self.ledger.set_state(PLAN.id, wanted) == self.model.state

    @rule(late=st.booleans())
    def feed(self, late: bool) -> None:
        """Feed a round; `late` lets the messages that are gone be missing for too long."""
        self.feeder._lost_after_seconds = NOW if late else NOT_YET
        if late:
            self.feeder._next_reconcile = 0.0
        waiting = len(self.broker.waiting)
        self.feeder.round()
        if self.model.state != "active":
            assert len(self.broker.waiting) == waiting

    @rule()
    def feeder_dies(self) -> None:
        """The feeder's process ends; its lock runs out."""
        self.feeder.release()
        self.new_feeder()

    @rule(indices=st.sets(st.sampled_from(sorted(JOBS)), max_size=3), everything=st.booleans())
    def retry(self, indices: set[int], everything: bool) -> None:
        """Failed jobs of committed chunks are to be rendered again."""
        if self.model.state in (None, "rebuilding"):
            return
        wanted = set(self.model.failed) if everything else indices & set(self.model.failed)
        opened = {index for index in wanted if PLAN.chunk_of(index) in self.model.committed}
        found = self.ledger.reopen_failed(PLAN.id, PLAN, only=None if everything else indices)
        assert found == len(opened)
        for index in opened:
            del self.model.failed[index]
        if opened:
            self.model.open({PLAN.chunk_of(index) for index in opened})

    @rule(indices=st.sets(st.sampled_from(sorted(JOBS)), min_size=1, max_size=3))
    def verify_repairs(self, indices: set[int]) -> None:
        """Images are gone from the store, somebody notices, and has them rendered again."""
        if self.model.state in (None, "rebuilding"):
            return
        busy = {hand.chunk for hand in self.broker.hands}  # it looks at chunks that nobody has in hand
        wrong = {i for i in indices if PLAN.chunk_of(i) in self.model.committed - busy}
        self.images -= wrong
        by_chunk: dict[int, list[int]] = {}
        for index in sorted(wrong):
            by_chunk.setdefault(PLAN.chunk_of(index), []).append(index)
        for chunk in by_chunk:
            self.store.delete(names.manifest_key(PLAN.id, chunk))
            self.rows.pop(chunk, None)
        self.ledger.render_again(PLAN.id, by_chunk)
        self.model.done -= wrong
        self.model.failed = {i: code for i, code in self.model.failed.items() if i not in wrong}
        if by_chunk:
            self.model.open(set(by_chunk))

    # --- what happens to messages ---

    @precondition(lambda self: self.broker.waiting)
    @rule(data=st.data())
    def message_is_lost(self, data: st.DataObject) -> None:
        """A worker pops a message and dies before it is recorded as delivered."""
        self.broker.waiting.pop(data.draw(st.integers(0, len(self.broker.waiting) - 1)))

    @precondition(lambda self: self.broker.waiting)
    @rule(data=st.data())
    def message_is_doubled(self, data: st.DataObject) -> None:
        """A message is delivered twice."""
        self.broker.waiting.append(data.draw(st.sampled_from(self.broker.waiting)))

    @precondition(lambda self: self.broker.waiting)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """A worker takes any message that waits."""
        _, chunk = self.broker.waiting.pop(data.draw(st.integers(0, len(self.broker.waiting) - 1)))
        self.begin(chunk)

    def begin(self, chunk: int) -> None:
        """A worker begins, and does what the ledger says."""
        begun = self.ledger.begin(PLAN.id, chunk)
        if self.model.state is None:
            assert begun.verdict == "unknown"
        elif chunk in self.model.committed:
            assert begun.verdict == "complete"
        elif self.model.state in ("paused", "cancelled", "rebuilding"):
            assert begun.verdict == self.model.state
        else:
            assert begun.verdict == "render"
            standing = set(self.ledger.failed_in(PLAN.id, PLAN.chunk(chunk)))
            known = self.rows.get(chunk, {})
            failed = {index: known[index] for index in standing if known.get(index)}
            self.broker.hands.append(Hand(chunk, begun.attempt, failed))

    # --- what a worker does, one write after another ---

    @property
    def live_hands(self) -> list[Hand]:
        """Deliveries whose process runs, frozen ones among them."""
        return self.broker.hands

    def outcome(self, hand: Hand) -> tuple[list[int], dict[int, str]]:
        """Return what a delivery knows so far: done, failed."""
        return sorted(hand.imaged), hand.failed

    def work(self, hand: Hand, count: int) -> None:
        """Make, or find, some images more."""
        for index in CHUNKS[hand.chunk]:
            if count and index not in hand.imaged and index not in hand.failed:
                if index in self.poisoned and index not in self.images:
                    hand.failed[index] = self.poisoned[index]
                else:
                    self.images.add(index)
                    hand.imaged.add(index)
                    hand.unreported = True
                count -= 1

    def record(self, hand: Hand) -> None:
        """Report images that are in the store to the ledger; failures wait for the manifest."""
        done, _ = self.outcome(hand)
        state = self.ledger.record(PLAN.id, ChunkOutcome(done=done))
        self.model.record(done, {})
        assert state == self.model.state
        hand.unreported = False

    def put_manifest(self, hand: Hand) -> None:
        """Put the rows of a chunk into the store; all of its images are there."""
        done, failed = self.outcome(hand)
        rows = [row(index, failed.get(index), hand.attempt) for index in sorted([*done, *failed])]
        self.store.put(
            names.manifest_key(PLAN.id, hand.chunk),
            write_manifest(rows, sweep=PLAN.id, chunk=hand.chunk),
            content_type="x",
        )
        self.rows[hand.chunk] = {index: failed.get(index) for index in CHUNKS[hand.chunk]}
        hand.has_manifest = True

    def commit(self, hand: Hand) -> None:
        """Commit the chunk, and acknowledge the message."""
        done, failed = self.outcome(hand)
        state = self.ledger.record(
            PLAN.id,
            ChunkOutcome(done=done, failed={i: (code, "why") for i, code in failed.items()}),
            chunk=PLAN.chunk(hand.chunk),
        )
        self.model.record(done, failed, hand.chunk)
        assert state == self.model.state
        self.broker.hands.remove(hand)

    @rule(data=st.data(), writes=st.integers(0, 12))
    def go_on(self, data: st.DataObject, writes: int) -> None:
        """What happens most of the time: a message is fed and delivered, and its worker writes."""
        self.feed(late=False)
        if self.broker.waiting:
            self.deliver(data)
        if self.live_hands:
            self.step(data, writes)

    @precondition(lambda self: self.live_hands)
    @rule(data=st.data(), writes=st.integers(1, 7))
    def step(self, data: st.DataObject, writes: int) -> None:
        """One delivery gets some writes further. Several of one chunk may be on their way."""
        hand = data.draw(st.sampled_from(self.live_hands))
        for _ in range(writes):
            if hand in self.broker.hands:
                self.write(hand)

    def write(self, hand: Hand) -> None:
        """Do the next thing that a worker does: an image and its bit, the look, the manifest, the commit."""
        missing = len(CHUNKS[hand.chunk]) - len(hand.imaged) - len(hand.failed)
        if missing and hand.unreported:
            self.record(hand)
        elif missing:
            self.work(hand, 1)
        elif not hand.has_looked:
            if self.ledger.committed(PLAN.id, hand.chunk):
                self.broker.hands.remove(hand)
            hand.has_looked = True
        elif not hand.has_manifest:
            self.put_manifest(hand)
        else:
            self.commit(hand)

    @precondition(lambda self: self.live_hands)
    @rule(data=st.data(), count_attempt=st.booleans())
    def give_back(self, data: st.DataObject, count_attempt: bool) -> None:
        """A worker drains, or its chunk fails as a whole."""
        hand = data.draw(st.sampled_from(self.live_hands))
        self.ledger.give_back(PLAN.id, hand.chunk, count_attempt=count_attempt)
        self.broker.hands.remove(hand)

    @precondition(lambda self: self.live_hands)
    @rule(data=st.data(), redelivered=st.booleans())
    def worker_dies(self, data: st.DataObject, redelivered: bool) -> None:
        """A worker dies between two writes. Its message comes back, or is lost with it."""
        hand = data.draw(st.sampled_from(self.live_hands))
        self.broker.hands.remove(hand)
        if redelivered and not hand.dead:
            self.broker.waiting.insert(0, (PLAN.chunk(hand.chunk).bucket.queue, hand.chunk))

    @precondition(lambda self: any(not hand.dead for hand in self.live_hands))
    @rule(data=st.data())
    def worker_freezes(self, data: st.DataObject) -> None:
        """A worker loses its lease: its message goes to another one, and it wakes up later, or never."""
        hand = data.draw(st.sampled_from([hand for hand in self.live_hands if not hand.dead]))
        hand.dead = True
        self.broker.waiting.insert(0, (PLAN.chunk(hand.chunk).bucket.queue, hand.chunk))

    @rule(indices=st.sets(st.sampled_from(sorted(JOBS)), max_size=2), code=st.sampled_from(CODES))
    def jobs_fail(self, indices: set[int], code: str) -> None:
        """From now on these jobs fail, and no others."""
        self.poisoned = dict.fromkeys(indices, code)

    # --- what happens to Redis ---

    @rule(dice=st.integers(1, 6))
    def redis_is_wiped(self, dice: int) -> None:
        """Redis loses everything, now and then: bits and messages. Workers go on with what they have."""
        if dice != 6:
            return
        for key in self.client.scan_iter(f"{self.prefix}*", count=1000):
            self.client.delete(key)
        self.broker.waiting.clear()
        self.model.__init__()
        for hand in self.broker.hands:
            hand.dead = True
        self.new_feeder()

    @precondition(lambda self: self.model.state in (None, "rebuilding"))
    @rule(dies_after=st.integers(1, 12))
    def rebuild(self, dies_after: int) -> None:
        """Bring the sweep back from the store; the producer that does it may die midway."""
        self.model.state = "rebuilding"
        left = [dies_after]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                raise Interrupted

        try:
            rebuild(PLAN.id, store=self.store, identity=self.identity, ledger=self.ledger, on_chunk=count)
        except Interrupted:
            finished = False
        else:
            finished = True
        for chunk in sorted(self.rows)[: dies_after if not finished else None]:
            rows = self.rows[chunk]
            self.model.record(
                [index for index, code in rows.items() if code is None],
                {index: code for index, code in rows.items() if code is not None},
                chunk,
            )
        if finished and self.model.state != "done":
            self.model.state = "active"

    # --- what must hold, after every step and at the end ---

    @invariant()
    def bits_are_those_of_the_model(self) -> None:
        """Every bit, every counter, every code."""
        if self.model.state is None:
            assert self.ledger.state(PLAN.id) is None
            return
        status = self.ledger.status(PLAN.id)
        assert status.state == self.model.state
        assert self.bits("done") == self.model.done
        assert self.bits("failed") == set(self.model.failed)
        assert self.bits("chunks") == self.model.committed
        assert (status.done, status.failed, status.chunks_done) == (
            len(self.model.done),
            len(self.model.failed),
            len(self.model.committed),
        )
        assert dict(status.failures) == dict(Counter(self.model.failed.values()))
        assert status.chunks_running >= 0
        assert status.chunks_queued >= 0

    def bits(self, part: str) -> set[int]:
        """Return the positions of the bits that are set in one of the sweep's bitmaps."""
        data = self.client.get(f"{names.sweep_redis_key(self.prefix, PLAN.id, part)}") or b""
        return {8 * n + bit for n, byte in enumerate(data) for bit in range(8) if byte & (0x80 >> bit)}

    def teardown(self) -> None:
        """All faults stop: the sweep comes to its end, with every image in the store and a row for every job."""
        self.broker.hands.clear()
        self.poisoned = {}
        while self.model.state in (None, "rebuilding"):
            self.rebuild(dies_after=1000)
        self.set_state("active")
        for _ in range(40):
            if self.model.state == "done":
                break
            self.feed(late=True)
            while self.broker.waiting:
                _, chunk = self.broker.waiting.pop(0)
                self.begin(chunk)
                for hand in list(self.broker.hands):
                    self.work(hand, len(JOBS))
                    self.put_manifest(hand)
                    self.commit(hand)
            self.bits_are_those_of_the_model()
        assert self.model.state == "done", "the sweep stands still"
        for chunk, indices in CHUNKS.items():
            rows = read_manifest(self.store.get(names.manifest_key(PLAN.id, chunk)))
            assert [one.index for one in rows] == list(indices)
            for one in rows:
                assert isinstance(one, Failed) == (one.index in self.model.failed)
                assert isinstance(one, Failed) or one.index in self.images
        assert self.ledger.fed_chunks(PLAN.id) == set()
        assert self.ledger.running_chunks(PLAN.id) == set()
        for key in self.client.scan_iter(f"{self.prefix}*", count=1000):
            self.client.delete(key)


def row(index: int, code: str | None, attempt: int) -> Result:
    """Return the row of a job in a manifest."""
    job, now = JOBS[index], datetime(2026, 1, 1, tzinfo=UTC)
    if code is not None:
        return Failed(
            index=index, job=job, code=code, reason="why", attempt=attempt, worker="w", finished_at=now
        )
    image = StoredImage(
        key=names.image_key(job.id, PLAN.image_format),
        size_bytes=1,
        sha256="0" * 64,
        provenance=Provenance(
            model_name="tiny",
            device="cpu",
            dtype="float32",
            batch_rows=2,
            prompt_tokens=1,
            negative_tokens=0,
            versions={},
        ),
    )
    return Done(
        index=index,
        job=job,
        image=image,
        reused=False,
        sample_seconds=0.1,
        attempt=attempt,
        worker="w",
        finished_at=now,
    )


def test_the_ledger_under_any_order_of_faults(
    valkey_server, tmp_path, long: bool, request: pytest.FixtureRequest
) -> None:
    """Bits, counters and codes are exact after every step, and every sweep ends once the faults do."""
    store = FolderStore(tmp_path)
    with redis.Redis.from_url(valkey_server.url) as client:
        machine = type("Machine", (LedgerMachine,), {"client": client, "store": store})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=2000 if long else 60,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_a_failure_that_comes_late_does_not_replace_the_row_of_an_image(valkey_server, tmp_path) -> None:
    """A worker freezes before it writes its manifest; another one makes the image that failed; then it wakes."""
    store = FolderStore(tmp_path)
    with redis.Redis.from_url(valkey_server.url) as client:
        machine = type("Machine", (LedgerMachine,), {"client": client, "store": store})()
        machine.feed(late=False)
        machine.poisoned = {1: "job_crashed"}
        machine.begin(0)
        (frozen,) = machine.broker.hands
        while not frozen.has_looked:
            machine.write(frozen)
        machine.poisoned = {}
        machine.begin(0)
        other = machine.broker.hands[-1]
        while other in machine.broker.hands:
            machine.write(other)
        while frozen in machine.broker.hands:
            machine.write(frozen)
        machine.bits_are_those_of_the_model()
        machine.teardown()
