"""What Celery on Redis does by itself, and that our additions fix it: each fault without its addition, and with it.

The additions are in worker/transport.py, worker/lease.py, shared/feeder.py and worker/tasks.py; the reasons are in
docs/architecture.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

#: One chunk of 16 jobs. A slow worker takes six seconds and more: longer than any visibility timeout here.
LONG_CHUNK = {
    "name": "long",
    "model": "tiny",
    "prompt": "a cat",
    "seed": {"start": 0, "count": 16},
    "steps": 60,
    "size": "32x32",
}
#: The same for a quarter of a minute and more: time for a fault to show, whoever the message goes to first.
LONGER_CHUNK = {**LONG_CHUNK, "steps": 150}

SHORT_LEASE = {"PRINTROOM_VISIBILITY_TIMEOUT_SECONDS": "2", "PRINTROOM_RESTORE_INTERVAL_SECONDS": "0.5"}

WITHOUT_LEASE = """
import worker.app
from celery import bootsteps
worker.app.LeaseStep = type("NoLease", (bootsteps.StartStopStep,), {})
"""

CLOCK_AHEAD = """
import time
import kombu.transport.redis as transport
transport.time = lambda: time.time() + 3600
"""

KOMBUS_OWN_CLOCK = """
import kombu.transport.redis
import worker.transport
class OwnClock(worker.transport.LeasedQoS):
    restore_visible = kombu.transport.redis.QoS.restore_visible
    def append(self, message, delivery_tag):
        kombu.transport.redis.QoS.append(self, message, delivery_tag)
        self._in_hand[delivery_tag] = None
worker.transport.Channel.QoS = OwnClock
"""

RAISES_ONCE = """
import worker.execute as execute
plain, left = execute.choose_rows, [SystemExit(3), MemoryError("no memory"), KeyboardInterrupt()]
def choose_rows(*args, **kwargs):
    if left:
        raise left.pop()
    return plain(*args, **kwargs)
execute.choose_rows = choose_rows
"""


@pytest.mark.parametrize("mended", [False, True])
def test_message_lost_between_pop_and_record(fleet, check_promise, mended):
    """Kombu pops a message before it records it: dying in between loses it for good, unless we reconcile."""
    lease = {} if mended else SHORT_LEASE
    doomed = fleet.start(PRINTROOM_FAILPOINT="popped:1", **lease)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "steps": 2}).sweep
    assert doomed.wait(60) == -signal.SIGKILL
    fleet.start(PRINTROOM_LOST_AFTER_SECONDS="2" if mended else "100000", **lease)
    fleet.wait_up()
    if mended:
        fleet.wait_done(sweep, 60)
        check_promise(fleet, sweep)
    else:
        time.sleep(6)  # kombu would have restored what it had recorded, three times over
        status = fleet.client.ledger.status(sweep)
        assert (status.done, status.chunks_queued, fleet.begun()) == (0, 1, {})


@pytest.mark.timeout(400)  # where it is begun again, a busy machine has it several times over
@pytest.mark.parametrize("mended", [False, True])
def test_task_longer_than_the_visibility_timeout(fleet, check_promise, mended):
    """A task longer than the visibility timeout runs again elsewhere, unless its lease is renewed."""
    # The task is longer than either lease. A renewed one has time for a busy machine.
    patch, lease = ("", {}) if mended else (WITHOUT_LEASE, SHORT_LEASE)
    fleet.start(slow=0.05, patch=patch, **lease)
    fleet.start(slow=0.05, patch=patch, **lease)
    fleet.wait_up(2)
    sweep = fleet.client.submit(LONG_CHUNK if mended else LONGER_CHUNK).sweep
    fleet.wait_done(sweep, timeout_seconds=360)
    check_promise(fleet, sweep)
    times = fleet.begun()[f"{sweep}/0"]
    assert times == 1 if mended else times >= 2


def test_killed_worker_is_replaced_in_seconds(fleet, check_promise):
    """After kill -9 status says whose chunk waits; it runs elsewhere within ten seconds, in the fast profile."""
    fleet.start(slow=0.05)
    fleet.start(slow=0.05)
    fleet.wait_up(2)
    sweep = fleet.client.submit(LONG_CHUNK).sweep
    fleet.wait_for(lambda: fleet.begun(), 30, "the chunk to begin")
    (busy,) = [worker for worker in fleet.workers if "chunk_begun" in worker.log]
    fleet.wait_for(
        lambda: any(worker.chunks for worker in fleet.client.ledger.workers()), 10, "a beat to name it"
    )
    busy.kill()
    killed = time.monotonic()
    said = re.compile(r"worker \S+ silent for \d+ s: 1 chunk of it goes to others within \d s")
    fleet.wait_for(
        lambda: any(map(said.fullmatch, fleet.client.status(sweep).obstacles)), 10, "status to say so"
    )
    fleet.wait_for(lambda: fleet.begun()[f"{sweep}/0"] == 2, 60, "the chunk to begin again")
    assert time.monotonic() - killed < 10
    fleet.wait_for(lambda: fleet.client.status(sweep).obstacles == [], 10, "nothing to be in the way")
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)


@pytest.mark.parametrize("mended", [False, True])
def test_worker_whose_clock_is_an_hour_ahead(fleet, check_promise, mended):
    """A worker with a wrong clock takes chunks from others by kombu's own reckoning, not by the server's clock."""
    common = "" if mended else KOMBUS_OWN_CLOCK
    fleet.start(slow=0.05, patch=common)
    skewed = fleet.start(slow=0.05, patch=common + CLOCK_AHEAD)
    fleet.wait_up(2)
    skewed.signal(signal.SIGSTOP)
    sweep = fleet.client.submit(LONG_CHUNK if mended else LONGER_CHUNK).sweep
    fleet.wait_for(lambda: fleet.begun(), 30, "the chunk to begin")
    skewed.signal(signal.SIGCONT)
    if not mended:
        fleet.wait_for(lambda: fleet.begun()[f"{sweep}/0"] >= 2, 60, "the chunk to begin elsewhere as well")
        skewed.kill()  # it would take the chunk from itself, too, again and again
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    assert not mended or fleet.begun()[f"{sweep}/0"] == 1


def test_slot_survives_what_a_task_raises(fleet, check_promise):
    """SystemExit, MemoryError and KeyboardInterrupt in a task end the task, not the thread that runs tasks."""
    fleet.start(patch=RAISES_ONCE)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "steps": 2}).sweep
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    assert fleet.begun()[f"{sweep}/0"] == 4


def test_redis_killed_midway(private_fleet, check_promise):
    """After kill -9 of Redis the fleet consumes again within ten seconds of its return; nothing is lost."""
    fleet = private_fleet
    fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 160}, "steps": 8}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 20, 60, "twenty images")
    fleet.valkey.kill()
    time.sleep(2)
    fleet.valkey.start()
    done = fleet.client.ledger.status(sweep).done
    assert fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done > done, 60, "more images") < 10
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)


def test_redis_out_of_memory(private_fleet, check_promise):
    """A full Redis (noeviction) is waited out; the worker says so, and work goes on when there is room."""
    fleet = private_fleet
    fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 96}, "steps": 12}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 10, 60, "ten images")
    fleet.client.ledger._redis.config_set("maxmemory", "1")
    worker = fleet.workers[0]
    fleet.wait_for(lambda: "broker_full" in worker.log, 30, "the worker to notice")
    fleet.client.ledger._redis.config_set("maxmemory", "0")
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)


def test_messages_nobody_can_act_on(fleet, check_promise):
    """Corrupt messages are kept as dead letters with their evidence; a newer version's is not eaten; work goes on."""
    sweep = fleet.client.submit({**LONG_CHUNK, "steps": 2}).sweep
    (queue,) = fleet.client.ledger.buckets()
    client, key = fleet.client.ledger._redis, fleet.settings.redis_prefix + queue
    genuine = json.loads(client.lindex(key, 0))
    send = fleet.client._app.send_task
    for body in ({"version": 99, "sweep": sweep, "chunk": 0}, {"version": 1, "sweep": 5}, "nonsense"):
        send("render.chunk", args=[body], queue=queue)
    send("render.unknown", args=[{}], queue=queue)
    client.lpush(key, json.dumps({**genuine, "body": "bm90IGpzb24="}))
    fleet.start()
    fleet.wait_done(sweep, 60)
    check_promise(fleet, sweep)
    fleet.wait_for(lambda: len(fleet.client.ledger.dead_letters()) == 4, 30, "four dead letters")
    (worker,) = fleet.client.ledger.workers()
    assert worker.refused["version_unsupported"] >= 1
    fleet.workers[0].drain()
    left = [json.loads(text)["headers"]["argsrepr"] for text in client.lrange(key, 0, -1)]
    assert [text for text in left if "'version': 99" in text] == left != []


def hostile_messages(genuine: dict, queue: str) -> list[bytes]:
    """Return what somebody, or a broken program, might put into a queue beside our own messages."""
    args, _, options = json.loads(base64.b64decode(genuine["body"]))

    def body(value: object) -> dict:
        return {**genuine, "body": base64.b64encode(json.dumps(value).encode()).decode()}

    def headers(**changed: object) -> dict:
        return {**genuine, "headers": {**genuine["headers"], **changed}}

    def properties(**changed: object) -> dict:
        return {**genuine, "properties": {**genuine["properties"], **changed}}

    envelopes = [
        *(body(value) for value in ({}, [], [1, 2, 3, 4], 5, None, "abc", [args, {}, "x"], [args, {}, 7])),
        *(body([args, keywords, options]) for keywords in ([], 5, {"a": 1})),
        *(body([args, {}, {**options, name: [5]}]) for name in ("callbacks", "errbacks", "chain", "chord")),
        *(body([wrong, {}, options]) for wrong in ([], [5], [None], ["x"], args * 2, {"a": 1})),
        *(headers(task=name) for name in ("celery.accumulate", "celery.map", "celery.chord", None, 5, [])),
        *(headers(eta=eta) for eta in ("2999-01-01T00:00:00", "never", 5)),
        headers(expires="2999-01-01T00:00:00"),
        properties(body_encoding="rot13"),
        {**genuine, "body": "no base64 at all!"},
        {**genuine, "body": None},
        {key: value for key, value in genuine.items() if key != "body"},
        {key: value for key, value in genuine.items() if key != "properties"},
        {**genuine, "headers": None},
        *([], [1], 5, None, "text", {}),
    ]
    nested = b"[" * 50_000 + b"]" * 50_000
    raw = [b"", b"no JSON", b"\xff\xfe", b"{" * 1000, nested[:60_000], b'"' + b"x" * 100_000 + b'"']
    return [*(json.dumps(envelope).encode() for envelope in envelopes), *raw]


def test_no_message_ends_or_wedges_a_worker(fleet, check_promise):
    """Whatever is in a queue, the worker takes it out, keeps the evidence and goes on; nothing stays unacknowledged."""
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 48}, "steps": 2}).sweep
    (queue,) = fleet.client.ledger.buckets()
    client, prefix = fleet.client.ledger._redis, fleet.settings.redis_prefix
    genuine = json.loads(client.lindex(prefix + queue, 0))
    hostile = hostile_messages(genuine, queue)
    for text in hostile:
        client.lpush(prefix + queue, text)
    # What Celery alone would stumble over in the headers never reaches it: only the argument is taken.
    odd = {"timelimit": 5, "retries": "x", "id": None, "group": {}, "stamps": 5, "reply_to": 7}
    client.lpush(prefix + queue, json.dumps({**genuine, "headers": {**genuine["headers"], **odd}}))
    worker = fleet.start()
    fleet.wait_done(sweep, 60)
    check_promise(fleet, sweep)
    fleet.wait_for(lambda: len(fleet.client.ledger.dead_letters()) == len(hostile), 60, "all evidence")
    fleet.wait_for(lambda: client.hlen(prefix + "unacked") == 0, 30, "nothing to be unacknowledged")
    assert (client.llen(prefix + queue), worker.poll()) == (0, None)
    later = fleet.client.submit({**LONG_CHUNK, "seed": 99, "steps": 2}).sweep
    fleet.wait_done(later, 60)
    assert worker.drain() == 0


REFUSALS = {
    "read only": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "no replicas": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "disk full": ("BGSAVE", "CONFIG SET stop-writes-on-bgsave-error no"),
    "no rights": ("ACL SETUSER default -@all +acl", "ACL SETUSER default +@all"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_redis_that_refuses_is_waited_for(private_fleet, check_promise, refusal):
    """Failing over, short of replicas or disk, or with rights taken away for a while: no worker ends, no job fails."""
    fleet, (breaks, repairs) = private_fleet, REFUSALS[refusal]
    worker = fleet.start(slow=0.05)
    fleet.wait_up()
    client = fleet.client.ledger._redis
    if refusal == "disk full":  # where the snapshot is to be moved to, a folder is in the way
        where = Path(client.config_get("dir")["dir"]) / client.config_get("dbfilename")["dbfilename"]
        client.config_set("save", "3600 1")
        (where / "in the way").mkdir(parents=True)
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 64}, "steps": 20}).sweep
    fleet.wait_for(lambda: fleet.begun(), 30, "a chunk to begin")
    client.execute_command(*breaks.split())
    fleet.wait_for(lambda: "Connection to broker lost" in worker.log, 60, "the worker to notice")
    time.sleep(6)
    assert worker.poll() is None
    client.execute_command(*repairs.split())
    fleet.wait_done(sweep, 120)
    check_promise(fleet, sweep)
    status = fleet.client.ledger.status(sweep)
    assert (status.failed, worker.poll()) == (0, None)
    # A chunk whose worker may do nothing for it is given up and begun again; it is not held for ever.
    assert refusal == "no rights" or "chunk_failed" not in worker.log
    assert worker.drain() == 0


class Cable(threading.Thread):
    """Carries bytes between a worker and Redis, until it is cut: then each side hears nothing more, and no end."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._redis, self._door, self._ends = port, socket.create_server(("127.0.0.1", 0)), []
        self.port = self._door.getsockname()[1]
        self.start()

    def run(self) -> None:
        """Carry each connection by two threads of its own."""
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._door.accept()
                other = socket.create_connection(("127.0.0.1", self._redis))
                cut = threading.Event()
                self._ends.append((one, other, cut))
                for source, target in ((one, other), (other, one)):
                    threading.Thread(target=self._carry, args=(source, target, cut), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not cut.is_set():
                    target.sendall(data)
            if not cut.is_set():
                target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Let every connection there is go silent; new ones work."""
        for _, _, cut in self._ends:
            cut.set()

    def close(self) -> None:
        """End all."""
        self._door.close()
        for one, other, _ in self._ends:
            one.close()
            other.close()


def test_connections_that_redis_ends(private_fleet, check_promise):
    """After its connections were killed, again and again, a worker takes chunks of old sweeps and of new ones."""
    fleet = private_fleet
    worker = fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 160}, "steps": 10}).sweep
    fleet.wait_for(lambda: fleet.begun(), 30, "a chunk to begin")
    with redis.Redis.from_url(fleet.valkey.url) as client:
        for _ in range(4):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(1.5)
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
    later = fleet.client.submit({**LONG_CHUNK, "name": "later", "seed": 99, "steps": 2}).sweep
    fleet.wait_done(later, 30)
    assert worker.poll() is None
    assert worker.drain() == 0


def test_connections_that_go_silent(private_fleet, check_promise):
    """Half-open connections, as after a lost cable, are given up by the sockets' patience, and made anew."""
    fleet = private_fleet
    port = urlsplit(fleet.valkey.url).port
    cable = Cable(port)
    try:
        url = f"{fleet.valkey.url.replace(str(port), str(cable.port))}?socket_timeout=3"
        worker = fleet.start(slow=0.05, PRINTROOM_REDIS_URL=url)
        fleet.wait_up()
        sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 160}, "steps": 10}).sweep
        fleet.wait_for(lambda: fleet.begun(), 30, "a chunk to begin")
        cable.cut()
        fleet.wait_done(sweep)
        check_promise(fleet, sweep)
        later = fleet.client.submit({**LONG_CHUNK, "name": "later", "seed": 99, "steps": 2}).sweep
        fleet.wait_done(later, 30)
        assert worker.poll() is None
        assert worker.drain() == 0
    finally:
        cable.close()


ENDS_BY_ITSELF = """
import worker.consumer
def follow(self, consumer):
    raise RuntimeError("a fault of ours")
worker.consumer.FollowBuckets.start = follow
"""


def test_a_worker_that_ends_by_itself_says_so_by_its_status(fleet):
    """What Celery calls unrecoverable ends a worker quietly; its exit status still asks for another one."""
    assert fleet.start(patch=ENDS_BY_ITSELF).wait(90) == 70


def test_store_outage(
    tmp_path, valkey_server, start_seaweed, key_prefix, monkeypatch, make_fleet, check_promise
):
    """A store that is gone for a while is waited for: images are kept, no manifest is half written."""
    seaweed = start_seaweed()
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    fleet = make_fleet(tmp_path, valkey_server.url, f"s3://printroom-tests/{key_prefix}", key_prefix, seaweed)
    fleet.start(slow=0.05)
    fleet.wait_up()
    sweep = fleet.client.submit({**LONG_CHUNK, "seed": {"start": 0, "count": 64}, "steps": 16}).sweep
    fleet.wait_for(lambda: fleet.client.ledger.status(sweep).done >= 8, 60, "eight images")
    seaweed.kill()
    fleet.wait_for(lambda: "store_unavailable" in fleet.workers[0].log, 60, "the worker to notice")
    fleet.wait_for(
        lambda: any("store_unavailable" in o for o in fleet.client.status(sweep).obstacles),
        20,
        "status to say",
    )
    seaweed.start()
    fleet.wait_done(sweep)
    check_promise(fleet, sweep)
