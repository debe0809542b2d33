"""The feeder on a real Valkey, with kombu's own messages: windows, priority, fair shares, and what was lost."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import pytest
import redis
import zstandard

from shared import feeder as feeder_module
from shared.broker import make_app, send_chunk
from shared.errors import BrokerUnavailable
from shared.feeder import Feeder
from shared.ledger import ChunkOutcome, Ledger, WorkerInfo
from shared.message import ChunkMessage
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange
from shared.queues import BrokerView
from shared.settings import Settings

MODEL = "sha:" + "a" * 32

#: What waits in a queue nobody listens to, and what waits per worker that does.
WINDOW_MIN = feeder_module._WINDOW_MIN
WINDOW_PER_WORKER = feeder_module._WINDOW_PER_WORKER


def make_plan(name: str, *, chunks: int = 20, sizes: tuple[int, ...] = (64,)) -> Plan:
    """Return a plan of so many chunks, of two jobs each, for every size."""
    axes = (
        ListAxis(fields=("prompt", "negative_prompt"), values=((name, None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=2 * chunks),
    )
    blocks = tuple(
        Block(bucket=Bucket(model=MODEL, width=size, height=size), axes=(0, 1, 2), jobs_per_chunk=2)
        for size in sizes
    )
    return Plan(name=name, models={MODEL: "tiny"}, axes=axes, blocks=blocks)


class Fleet:
    """A ledger, a broker and feeders of one test, and workers that take messages as kombu does."""

    def __init__(self, url: str, prefix: str) -> None:
        self.settings = Settings(redis_url=url, redis_prefix=prefix)
        self.client = redis.Redis.from_url(url)
        self.ledger = Ledger(self.client, prefix=prefix)
        self.view = BrokerView(self.client, prefix=prefix)
        self.app = make_app(self.settings)
        self.prefix = prefix
        self._connection = self.app.connection_for_read()
        self._channel = self._connection.channel()

    def feeder(self, *, lost_after_seconds: float = 60.0, turn_seconds: float = 600.0, send=None) -> Feeder:
        """Return another feeder."""
        send = send or partial(send_chunk, self.app)
        return Feeder(
            self.ledger, self.view, send, lost_after_seconds=lost_after_seconds, turn_seconds=turn_seconds
        )

    def submit(self, plan: Plan, **options) -> str:
        """Make a plan known."""
        self.ledger.submit(plan.id, plan, **options)
        return plan.id

    def waiting(self, queue: str) -> list[tuple[str, int]]:
        """Return (sweep, chunk) of the messages in a queue, the next one first."""
        messages = self.client.lrange(self.prefix + queue, 0, -1)[::-1]
        found = [next(iter(self.view_of(text))) for text in messages]
        return [(message.sweep, message.chunk) for message in found]

    @staticmethod
    def view_of(text: bytes) -> set[ChunkMessage]:
        """Read one envelope."""
        from shared.queues import _message_in

        return {_message_in(text)}

    def take(self, queue: str):
        """Deliver the next message of a queue: it is then unacknowledged."""
        message = self._channel.basic_get(queue)
        assert message is not None, "the queue is empty"
        (body, _, _) = message.decode()
        return message, ChunkMessage(sweep=body[0]["sweep"], chunk=body[0]["chunk"])

    def pop(self, queue: str) -> None:
        """Lose the next message of a queue, as a worker does that dies between BRPOP and recording it."""
        assert self.client.rpop(self.prefix + queue) is not None

    def commit(self, plan: Plan, chunk: int) -> None:
        """Do a chunk."""
        found = plan.chunk(chunk)
        self.ledger.begin(plan.id, chunk)
        self.ledger.record(plan.id, ChunkOutcome(done=list(range(found.start, found.stop))), chunk=found)

    def worker(self, name: str, queues: list[str]) -> None:
        """Let a worker listen."""
        info = WorkerInfo(
            name=name, host="h", pid=1, device="cpu", dtype="float32", batch_rows=4, models={MODEL: ["tiny"]},
            queues=queues, images_per_second=0.0, chunks=[], draining=False, refused={}, trouble=None, versions={},
        )  # fmt: skip
        self.ledger.heartbeat(info, expires_seconds=60)

    def close(self) -> None:
        """Leave."""
        self._connection.close()
        self.app.close()
        self.client.close()


@pytest.fixture
def fleet(valkey_server, key_prefix):
    """A fleet of this test alone on the shared server."""
    found = Fleet(valkey_server.url, f"{key_prefix}:")
    yield found
    found.close()


def queue_of(plan: Plan, block: int = 0) -> str:
    """Return the queue of a plan's block."""
    return plan.buckets[block].queue


class TestWindow:
    """Few messages wait; the rest of a sweep waits in its plan."""

    def test_nobody_listens(self, fleet):
        """Where nobody listens yet a few messages wait, in plan order, and a second round adds none."""
        plan = make_plan("a")
        fleet.submit(plan)
        feeder = fleet.feeder()
        assert [WINDOW_MIN, 0] == [feeder.round(), feeder.round()]
        assert [(plan.id, chunk) for chunk in range(WINDOW_MIN)] == fleet.waiting(queue_of(plan))

    def test_grows_with_the_workers(self, fleet):
        """The window is as wide as there are workers that listen to the queue."""
        plan = make_plan("a")
        fleet.submit(plan)
        for name in ("one", "two"):
            fleet.worker(name, [queue_of(plan)])
        fleet.worker("elsewhere", ["another queue"])
        assert fleet.feeder().round() == 2 * WINDOW_PER_WORKER

    def test_refilled(self, fleet):
        """What was taken is replaced by what comes next; delivered messages do not count as waiting."""
        plan = make_plan("a")
        fleet.submit(plan)
        feeder = fleet.feeder()
        feeder.round()
        _, taken = fleet.take(queue_of(plan))
        assert taken == ChunkMessage(sweep=plan.id, chunk=0)
        assert feeder.round() == 1
        assert [(plan.id, chunk) for chunk in range(1, WINDOW_MIN + 1)] == fleet.waiting(queue_of(plan))

    def test_a_queue_a_bucket(self, fleet):
        """Each bucket has its own window in its own queue, and gets its own chunks."""
        plan = make_plan("a", chunks=5, sizes=(64, 128))
        fleet.submit(plan)
        assert fleet.feeder().round() == 2 * WINDOW_MIN
        assert [(plan.id, 0), (plan.id, 1)] == fleet.waiting(queue_of(plan, 0))
        assert [(plan.id, 5), (plan.id, 6)] == fleet.waiting(queue_of(plan, 1))

    def test_to_the_end(self, fleet):
        """Round by round every chunk of two sweeps is fed exactly once, and the sweeps end."""
        plans = {
            plan.id: plan for plan in (make_plan("a", chunks=7, sizes=(64, 128)), make_plan("b", chunks=9))
        }
        for plan in plans.values():
            fleet.submit(plan)
        feeder, seen = fleet.feeder(), []
        while feeder.round():
            for queue in {bucket.queue for plan in plans.values() for bucket in plan.buckets}:
                while fleet.client.llen(fleet.prefix + queue):
                    message, taken = fleet.take(queue)
                    seen.append((taken.sweep, taken.chunk))
                    fleet.commit(plans[taken.sweep], taken.chunk)
                    message.ack()
        assert sorted(seen) == sorted((sweep, n) for sweep, plan in plans.items() for n in range(plan.chunks))
        assert {"done"} == {fleet.ledger.status(sweep).state for sweep in plans}


class TestChoice:
    """Whose chunk is next."""

    def test_priority_is_strict(self, fleet):
        """While a sweep of higher priority has anything to feed, others get nothing."""
        low, high = make_plan("low"), make_plan("high", chunks=3)
        fleet.submit(low)
        fleet.submit(high, priority=1)
        fleet.worker("one", [queue_of(low)])
        fleet.worker("two", [queue_of(low)])
        assert fleet.feeder().round() == 6
        assert [high.id] * 3 + [low.id] * 3 == [sweep for sweep, _ in fleet.waiting(queue_of(low))]

    def test_urgent_goes_to_the_front_of_a_full_queue(self, fleet):
        """What outranks messages that wait has room beside them and is delivered before them; no more than a window."""
        low, high = make_plan("low"), make_plan("high")
        fleet.submit(low)
        feeder = fleet.feeder()
        assert feeder.round() == WINDOW_MIN
        fleet.submit(high, priority=1)
        assert [feeder.round(), feeder.round()] == [WINDOW_MIN, 0]
        waiting = [sweep for sweep, _ in fleet.waiting(queue_of(low))]
        assert waiting == [high.id] * WINDOW_MIN + [low.id] * WINDOW_MIN
        assert sorted(chunk for sweep, chunk in fleet.waiting(queue_of(low)) if sweep == high.id) == [0, 1]

    def test_priority_may_change(self, fleet):
        """A sweep whose priority is raised goes first from the next round on."""
        first, second = sorted((make_plan("a"), make_plan("b")), key=lambda plan: plan.id)
        fleet.submit(first)
        fleet.submit(second)
        fleet.ledger.set_priority(second.id, 5)
        fleet.feeder().round()
        assert {second.id} == {sweep for sweep, _ in fleet.waiting(queue_of(first))}

    def test_fair_shares(self, fleet):
        """Sweeps of equal priority have equally many chunks on their way."""
        plans = [make_plan(name) for name in "abc"]
        for plan in plans:
            fleet.submit(plan)
        for number in range(4):
            fleet.worker(f"w{number}", [queue_of(plans[0])])
        assert fleet.feeder().round() == 12
        on_their_way = [fleet.ledger.status(plan.id).chunks_queued for plan in plans]
        assert [4, 4, 4] == on_their_way

    def test_a_latecomer_catches_up(self, fleet):
        """A sweep that comes later gets every new place until it has as many on their way as the first."""
        early, late = make_plan("early"), make_plan("late")
        fleet.worker("w", [queue_of(early)])
        fleet.worker("v", [queue_of(early)])
        fleet.submit(early)
        feeder = fleet.feeder()
        assert feeder.round() == 6
        for _ in range(3):
            fleet.take(queue_of(early))
        fleet.submit(late)
        assert feeder.round() == 3
        assert [early.id] * 3 + [late.id] * 3 == [sweep for sweep, _ in fleet.waiting(queue_of(early))]

    def test_fair_across_buckets(self, fleet):
        """What a sweep has in other queues counts too: the other sweep gets the shared queue first."""
        wide, narrow = make_plan("wide", sizes=(32, 64)), make_plan("narrow")
        fleet.submit(wide)
        fleet.submit(narrow)
        fleet.feeder().round()
        shared = fleet.waiting(queue_of(narrow))
        status = {plan.id: fleet.ledger.status(plan.id).chunks_queued for plan in (wide, narrow)}
        assert len(shared) == WINDOW_MIN
        assert abs(status[wide.id] - status[narrow.id]) <= WINDOW_MIN
        assert narrow.id in {sweep for sweep, _ in shared}

    @pytest.mark.parametrize("state", ["paused", "cancelled"])
    def test_pause_feeds_nothing(self, fleet, state):
        """A sweep that is paused or cancelled gets nothing more; others get its places; it goes on where it was."""
        stopped, other = make_plan("stopped"), make_plan("other")
        fleet.submit(stopped)
        feeder = fleet.feeder()
        feeder.round()
        fleet.ledger.set_state(stopped.id, state)
        fleet.submit(other)
        for _ in range(WINDOW_MIN):
            fleet.take(queue_of(stopped))
        feeder.round()
        assert {other.id} == {sweep for sweep, _ in fleet.waiting(queue_of(other))}

        fleet.ledger.set_state(stopped.id, "active")
        for _ in range(WINDOW_MIN):
            fleet.take(queue_of(other))
        feeder.round()
        assert (stopped.id, WINDOW_MIN) in fleet.waiting(queue_of(stopped))

    def test_given_back_goes_first(self, fleet):
        """A chunk that a worker returned is fed before new ones."""
        plan = make_plan("a")
        fleet.submit(plan)
        feeder = fleet.feeder()
        feeder.round()
        message, taken = fleet.take(queue_of(plan))
        fleet.ledger.begin(plan.id, taken.chunk)
        fleet.ledger.give_back(plan.id, taken.chunk)
        message.ack()
        feeder.round()
        assert [(plan.id, 1), (plan.id, 0)] == fleet.waiting(queue_of(plan))

    def test_what_the_store_had_is_not_fed(self, fleet):
        """Chunks that were committed before anything was fed, as after a rebuild, are stepped over."""
        plan = make_plan("a", chunks=6)
        fleet.submit(plan, state="paused")
        for chunk in (0, 1, 3):
            fleet.commit(plan, chunk)
        fleet.ledger.set_state(plan.id, "active")
        fleet.feeder().round()
        assert [(plan.id, 2), (plan.id, 4)] == fleet.waiting(queue_of(plan))


class TestTurns:
    """Which queues each worker is told to listen to."""

    def two_models(self, fleet, *, priority: int = 0) -> tuple[Plan, Plan]:
        """Submit sweeps of two queues, the second with a priority."""
        plans = make_plan("a"), make_plan("b", sizes=(128,))
        other = replace(plans[1].blocks[0].bucket, model="sha:" + "b" * 32)
        second = replace(
            plans[1], blocks=(replace(plans[1].blocks[0], bucket=other),), models={other.model: "b"}
        )
        fleet.submit(plans[0])
        fleet.submit(second, priority=priority)
        return plans[0], second

    def turns(self, fleet, *plans: Plan) -> dict[str, list[str]]:
        """Return what the feeder published: worker -> names of the sweeps whose queue it listens to."""
        names = {queue_of(plan): plan.name for plan in plans}
        return {
            name: sorted(names[q] for q in turn.queues)
            for name, turn in fleet.ledger.schedule().turns.items()
        }

    def test_a_model_for_each_worker(self, fleet):
        """Two workers that can serve two models serve one each."""
        plans = self.two_models(fleet)
        for name in ("one", "two"):
            fleet.worker(name, [queue_of(plan) for plan in plans])
        fleet.feeder().round()
        assert sorted(self.turns(fleet, *plans).values()) == [["a"], ["b"]]

    def test_an_urgent_sweep_takes_the_worker(self, fleet):
        """The one worker there is listens to the sweep of higher priority, and to the other one after it."""
        first, urgent = self.two_models(fleet, priority=3)
        fleet.worker("one", [queue_of(first), queue_of(urgent)])
        feeder = fleet.feeder()
        feeder.round()
        assert self.turns(fleet, first, urgent) == {"one": ["b"]}
        for chunk in range(urgent.chunks):
            fleet.commit(urgent, chunk)
        while fleet.client.llen(fleet.prefix + queue_of(urgent)):
            message, _ = fleet.take(queue_of(urgent))
            message.ack()
        feeder.round()
        assert self.turns(fleet, first) == {"one": ["a"]}

    @pytest.mark.parametrize("state", ["paused", "cancelled"])
    def test_a_stopped_sweep_has_no_worker(self, fleet, state):
        """A sweep that is paused or cancelled keeps no worker, whatever its priority."""
        first, urgent = self.two_models(fleet, priority=3)
        fleet.worker("one", [queue_of(first), queue_of(urgent)])
        fleet.ledger.set_state(urgent.id, state)
        fleet.feeder().round()
        assert self.turns(fleet, first, urgent) == {"one": ["a"]}

    def test_what_was_given_back_is_waiting(self, fleet):
        """Chunks to be fed again count, though the cursor has passed them."""
        first, urgent = self.two_models(fleet, priority=3)
        fleet.worker("one", [queue_of(first), queue_of(urgent)])
        for chunk in range(urgent.chunks):
            fleet.ledger.feed(urgent.id, 0, chunk, chunk + 1, 1)
            fleet.commit(urgent, chunk)
        feeder = fleet.feeder()
        feeder.round()
        assert self.turns(fleet, first) == {"one": ["a"]}

    def test_what_is_no_schedule_is_none(self, fleet):
        """A corrupted value in Redis, or one of a later version, leaves workers to listen to all they serve."""
        turn = '{"turns": {"w": {"queues": 5, "model": "", "since": 0}}, "idle": []}'
        for text in ("", "[]", "{", "5", "null", '{"turns": {}}', '{"turns": 5, "idle": []}', turn):
            fleet.client.set(fleet.prefix + "schedule", text)
            assert fleet.ledger.schedule() is None

    def test_a_schedule_ends_with_its_feeders(self, fleet, monkeypatch):
        """Turns that nobody publishes any more expire."""
        monkeypatch.setattr(feeder_module, "_SCHEDULE_SECONDS", 0.05)
        first, _ = self.two_models(fleet)
        fleet.worker("one", [queue_of(first)])
        fleet.feeder().round()
        time.sleep(0.1)
        assert fleet.ledger.schedule() is None


class TestSingleFlight:
    """One feeder at a time."""

    def test_second_feeder_stands_by(self, fleet):
        """While one feeds the other does nothing, and says so; released, the other one goes on."""
        fleet.submit(make_plan("a"))
        first, second = fleet.feeder(), fleet.feeder()
        assert (first.round(), second.round()) == (WINDOW_MIN, None)
        first.release()
        assert (second.round(), first.round()) == (0, None)

    def test_a_dead_feeder_is_replaced(self, fleet):
        """A feeder that died without a word is replaced when its lock runs out."""
        fleet.submit(make_plan("a"))
        dead, next_one = fleet.feeder(), fleet.feeder()
        dead.round()
        assert next_one.round() is None
        lock = f"{fleet.prefix}lock:feeder"
        assert 0 < fleet.client.pttl(lock) <= 1000 * feeder_module._LOCK_SECONDS
        fleet.client.delete(lock)  # as its expiry does
        assert next_one.round() == 0

    def test_two_at_once_feed_nothing_twice(self, fleet, monkeypatch):
        """Even two feeders that both believe to hold the lock send no chunk twice."""
        monkeypatch.setattr(fleet.ledger, "lock", lambda *args, **kwargs: True)
        plan = make_plan("a")
        fleet.submit(plan)
        fleet.worker("one", [queue_of(plan)])
        other = fleet.feeder()
        feeder = fleet.feeder(
            send=lambda queue, message: (send_chunk(fleet.app, queue, message), other.round())
        )
        feeder.round()
        sent = fleet.waiting(queue_of(plan))
        assert len(sent) == len(set(sent)) >= WINDOW_PER_WORKER


class TestOneSweepsTrouble:
    """A sweep that cannot be read stops no other one."""

    @pytest.mark.parametrize("data", [b"", b"damaged", zstandard.compress(b'{"format": 99}')])
    def test_an_unreadable_plan_stops_nobody(self, fleet, data, caplog):
        """A plan that is damaged, or of a later version: the others are fed and reconciled; it is logged once."""
        broken, sound = make_plan("broken"), make_plan("sound", sizes=(128,))
        fleet.submit(broken)
        fleet.submit(sound)
        fleet.client.set(f"{fleet.prefix}{{{broken.id}}}:plan", data)
        feeder = fleet.feeder(lost_after_seconds=0.01)
        assert [feeder.round(), feeder.round()] == [WINDOW_MIN, 0]
        assert {sound.id} == {sweep for sweep, _ in fleet.waiting(queue_of(sound))}
        # Workers of the version that can read it, which have no turn, still listen to its queue.
        assert queue_of(broken) in fleet.ledger.schedule().idle
        fleet.pop(queue_of(sound))
        feeder.reconcile()
        time.sleep(0.02)
        assert feeder.reconcile() == 1
        assert [r.message for r in caplog.records if r.message == "plan_unreadable"] == ["plan_unreadable"]
        fleet.client.set(f"{fleet.prefix}{{{broken.id}}}:plan", broken.to_bytes())
        feeder.round()
        assert {broken.id} == {sweep for sweep, _ in fleet.waiting(queue_of(broken))}

    def test_hostile_messages_do_not_stop_the_reconciler(self, fleet):
        """What else is in the broker, queued or delivered, nested a thousand times, is stepped over."""
        plan = make_plan("a")
        fleet.submit(plan)
        feeder = fleet.feeder(lost_after_seconds=0.01)
        feeder.round()
        for text in (b"[" * 100_000, b"{}", b"\xff", b"5", b'[{"body": 5}, 1, 2]', b"[]"):
            fleet.client.lpush(fleet.prefix + queue_of(plan), text)
            fleet.client.hset(fleet.prefix + "unacked", text, text)
        assert feeder.reconcile() == 0


class TestLost:
    """What was fed and is nowhere is fed again; what is somewhere is not."""

    def test_fed_again_but_not_before(self, fleet):
        """A message that vanished between queue and worker is fed again after lost_after_seconds."""
        plan = make_plan("a", chunks=2)
        fleet.submit(plan)
        feeder = fleet.feeder(lost_after_seconds=0.4)
        feeder.round()
        fleet.pop(queue_of(plan))
        vanished = time.monotonic()
        while not feeder.round():
            assert time.monotonic() < vanished + 60
            time.sleep(0.02)
        assert time.monotonic() - vanished > 0.35
        assert [(plan.id, 0), (plan.id, 1)] == sorted(fleet.waiting(queue_of(plan)))

    def test_nothing_is_fed_twice_while_it_is_somewhere(self, fleet):
        """A chunk that waits in its queue, or is delivered and unacknowledged, is never taken for lost."""
        plan = make_plan("a", chunks=2)
        fleet.submit(plan)
        feeder = fleet.feeder(lost_after_seconds=0.1)
        feeder.round()
        fleet.take(queue_of(plan))
        for _ in range(20):
            assert feeder.round() == 0
            time.sleep(0.02)
        assert [(plan.id, 1)] == fleet.waiting(queue_of(plan))
        assert {0, 1} == fleet.ledger.fed_chunks(plan.id)

    def test_delivered_and_restored(self, fleet):
        """A message whose worker died goes back to its queue and is present all the time."""
        plan = make_plan("a", chunks=1)
        fleet.submit(plan)
        feeder = fleet.feeder(lost_after_seconds=0.1)
        feeder.round()
        message, _ = fleet.take(queue_of(plan))
        feeder.round()
        message.requeue()
        time.sleep(0.2)
        assert feeder.round() == 0
        assert [(plan.id, 0)] == fleet.waiting(queue_of(plan))

    def test_a_feeder_that_died_before_it_sent(self, fleet):
        """A chunk marked as fed whose message was never sent is healed by whoever feeds next."""

        def die(queue, message):
            raise SystemExit

        plan = make_plan("a", chunks=3)
        fleet.submit(plan)
        with pytest.raises(SystemExit):
            (dead := fleet.feeder(send=die)).round()
        dead.release()
        assert {0} == fleet.ledger.fed_chunks(plan.id)
        feeder = fleet.feeder(lost_after_seconds=0.2)
        feeder.round()
        assert [(plan.id, 1), (plan.id, 2)] == fleet.waiting(queue_of(plan))
        deadline = time.monotonic() + 60
        while 0 in fleet.ledger.fed_chunks(plan.id) and time.monotonic() < deadline:
            time.sleep(0.05)
            feeder.round()
        fleet.take(queue_of(plan))
        feeder.round()
        assert (plan.id, 0) in fleet.waiting(queue_of(plan))

    def test_a_broker_that_refuses(self, fleet):
        """A send that fails is an error of ours, and the chunk is fed again later."""

        def refuse(queue, message):
            raise BrokerUnavailable("no")

        plan = make_plan("a", chunks=1)
        fleet.submit(plan)
        refused = fleet.feeder(send=refuse)
        with pytest.raises(BrokerUnavailable):
            refused.round()
        refused.release()
        feeder = fleet.feeder(lost_after_seconds=0.1)
        deadline = time.monotonic() + 60
        while not feeder.round():
            assert time.monotonic() < deadline
            time.sleep(0.03)
        assert [(plan.id, 0)] == fleet.waiting(queue_of(plan))

    def test_strange_messages_do_not_disturb(self, fleet):
        """What is not ours in a queue or among the delivered is stepped over."""
        plan = make_plan("a", chunks=1)
        fleet.submit(plan)
        key = fleet.prefix + queue_of(plan)
        for text in (
            "",
            "no json",
            "[]",
            "{}",
            "7",
            '"x"',
            '{"body": null}',
            '{"body": "bm8="}',
            '{"body": "W1tdLHt9LHt9XQ=="}',
        ):
            fleet.client.lpush(key, text)
            fleet.client.hset(fleet.prefix + "unacked", text, text)
        assert set() == fleet.view.chunks([queue_of(plan)])
        assert fleet.feeder().reconcile() == 0


class TestBuckets:
    """The registry of buckets is what unfinished sweeps need."""

    def test_dropped_when_done(self, fleet):
        """A bucket goes with the last sweep that needs it, and not before."""
        one, two = make_plan("a", chunks=1), make_plan("b", chunks=1, sizes=(64, 128))
        for plan in (one, two):
            fleet.submit(plan)
        feeder = fleet.feeder()
        feeder.round()
        for plan, left in ((one, set(two.buckets)), (two, set())):
            for chunk in range(plan.chunks):
                fleet.commit(plan, chunk)
            feeder.round()
            assert left == set(fleet.ledger.buckets().values())

    def test_cancelled_and_resumed(self, fleet):
        """A cancelled sweep needs no workers; resumed, it does again. A paused one keeps them."""
        plan = make_plan("a")
        fleet.submit(plan)
        feeder = fleet.feeder()
        counts = []
        for state in ("paused", "cancelled", "active"):
            fleet.ledger.set_state(plan.id, state)
            feeder.round()
            counts.append(len(fleet.ledger.buckets()))
        assert counts == [1, 0, 1]

    def test_heals(self, fleet):
        """A bucket that was lost, or dropped by a race, is registered again by the next round."""
        plan = make_plan("a", sizes=(64, 128))
        fleet.submit(plan)
        feeder = fleet.feeder()
        feeder.round()
        fleet.ledger.drop_buckets([queue_of(plan)])
        feeder.round()
        assert set(plan.buckets) == set(fleet.ledger.buckets().values())


def test_the_message_is_what_a_worker_reads(fleet):
    """One message on the wire: JSON, the task by name, version, sweep and chunk, and nothing else."""
    plan = make_plan("a")
    fleet.submit(plan)
    fleet.feeder().round()
    message, _ = fleet.take(queue_of(plan))
    assert message.headers["task"] == "render.chunk"
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    args, kwargs, _ = message.decode()
    assert (args, kwargs) == ([{"version": 1, "sweep": plan.id, "chunk": 0}], {})
