"""The ledger on a real Valkey: bits, counters and verdicts under everything a queue may do to a chunk."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import ledger as ledger_module
from shared.errors import SweepUnknown
from shared.ledger import ChunkOutcome, Ledger, WorkerInfo
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange

MODEL = "sha:" + "a" * 32


def make_plan(*, jobs: int = 10, jobs_per_chunk: int = 4, name: str = "sweep", size: int = 64) -> Plan:
    """Return a plan of one bucket."""
    axes = (
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=jobs),
    )
    block = Block(
        bucket=Bucket(model=MODEL, width=size, height=size), axes=(0, 1, 2), jobs_per_chunk=jobs_per_chunk
    )
    return Plan(name=name, models={MODEL: "tiny"}, axes=axes, blocks=(block,))


@pytest.fixture(scope="module")
def client(valkey_server):
    """A client of the shared server."""
    with redis.Redis.from_url(valkey_server.url) as found:
        yield found


@pytest.fixture
def ledger(client, key_prefix):
    """A ledger of this test alone."""
    return Ledger(client, prefix=f"{key_prefix}:")


@pytest.fixture
def plan():
    """Ten jobs in three chunks."""
    return make_plan()


@pytest.fixture
def sweep(ledger, plan):
    """That plan, submitted."""
    assert ledger.submit(plan.id, plan)
    return plan.id


def feed(ledger: Ledger, plan: Plan, count: int = 100) -> list[int]:
    """Feed the next chunks of a plan of one block."""
    return ledger.feed(plan.id, 0, 0, plan.chunks, count)


def indices(plan: Plan, chunk: int) -> list[int]:
    """Return the plan indices of a chunk."""
    found = plan.chunk(chunk)
    return list(range(found.start, found.stop))


def commit(
    ledger: Ledger, plan: Plan, chunk: int, *, failed: dict[int, tuple[str, str]] | None = None
) -> str | None:
    """Commit a chunk whose jobs are done, but for those that failed."""
    failed = failed or {}
    done = [index for index in indices(plan, chunk) if index not in failed]
    return ledger.record(plan.id, ChunkOutcome(done=done, failed=failed), chunk=plan.chunk(chunk))


def assert_exact(ledger: Ledger, sweep: str) -> None:
    """Counters are what the bits say, and nothing runs that is not fed."""
    status, bits = ledger.status(sweep), ledger.bit_counts(sweep)
    assert bits == {"done": status.done, "failed": status.failed, "chunks": status.chunks_done}
    assert status.failed == sum(status.failures.values())
    assert status.failures.keys() == status.reasons.keys()
    assert status.chunks_queued >= 0
    assert status.remaining >= 0


class TestSubmit:
    """A sweep becomes known once."""

    def test_once(self, ledger, plan, sweep):
        """A second submit says so and changes nothing, priority and state included."""
        ledger.set_state(sweep, "paused")
        before = ledger.status(sweep)
        assert ledger.submit(sweep, plan, priority=9) is False
        assert before == ledger.status(sweep)
        assert [sweep] == ledger.sweeps()

    def test_everything_is_there(self, ledger, plan, sweep):
        """The plan, its figures, and the bucket that workers look for."""
        assert plan.to_bytes() == ledger.plan_bytes(sweep)
        status = ledger.status(sweep)
        assert (status.name, status.state, status.jobs, status.chunks) == ("sweep", "active", 10, 3)
        assert (status.done, status.failed, status.reused, status.chunks_done, status.remaining) == (
            0,
            0,
            0,
            0,
            10,
        )
        assert abs(status.created_at - time.time()) < 60
        assert {bucket.queue: bucket for bucket in plan.buckets} == ledger.buckets()
        assert [sweep] == ledger.active_sweeps()

    def test_a_finished_sweep_is_not_woken(self, ledger, client, key_prefix, plan, sweep):
        """Submitting a finished sweep again makes no worker listen for it."""
        for chunk in range(plan.chunks):
            commit(ledger, plan, chunk)
        ledger.drop_buckets(ledger.buckets())
        assert ledger.submit(sweep, plan) is False
        assert ([], {}) == (ledger.active_sweeps(), ledger.buckets())

    def test_a_submit_that_died_midway_is_made_up_for(self, ledger, client, key_prefix, plan, sweep):
        """A submitter that died after its first write leaves a sweep that the next submit makes whole."""
        client.delete(f"{key_prefix}:sweeps", f"{key_prefix}:active", f"{key_prefix}:buckets")
        assert ledger.submit(sweep, plan) is False
        assert ([sweep], [sweep], 1) == (ledger.sweeps(), ledger.active_sweeps(), len(ledger.buckets()))

    def test_oldest_first(self, ledger):
        """Sweeps are listed in the order in which they came, whatever their ids."""
        plans = [make_plan(name=f"sweep {n}") for n in range(5)]
        for plan in plans:
            ledger.submit(plan.id, plan)
        assert [plan.id for plan in plans] == ledger.sweeps()

    def test_unknown(self, ledger):
        """A sweep nobody submitted is an error or says so, and asking leaves nothing behind."""
        nobody = "0" * 32
        for ask in (ledger.status, lambda sweep: ledger.set_state(sweep, "paused")):
            with pytest.raises(SweepUnknown, match=nobody):
                ask(nobody)
        assert ledger.plan_bytes(nobody) is None
        assert ledger.begin(nobody, 0).verdict == "unknown"
        assert ledger.record(nobody, ChunkOutcome(done=[1])) is None
        assert ledger.feed(nobody, 0, 0, 3, 1) == []
        assert ledger.sweeps() == ledger.active_sweeps() == []
        assert {"done": 0, "failed": 0, "chunks": 0} == ledger.bit_counts(nobody)


class TestChunk:
    """A chunk's way: fed, begun, recorded, committed, or given back."""

    def test_the_whole_way(self, ledger, plan, sweep):
        """Figures follow a chunk from the feeder to its commit."""
        assert [0, 1] == feed(ledger, plan, 2)
        status = ledger.status(sweep)
        assert (status.chunks_queued, status.chunks_running) == (2, 0)

        assert ("render", 1) == (ledger.begin(sweep, 0).verdict, ledger.begin(sweep, 1).attempt)
        assert ledger.record(sweep, ChunkOutcome(done=[0, 1])) == "active"
        status = ledger.status(sweep)
        assert (status.done, status.chunks_done, status.chunks_running, status.chunks_queued) == (2, 0, 2, 0)

        assert commit(ledger, plan, 0) == "active"
        status = ledger.status(sweep)
        assert (status.done, status.chunks_done, status.chunks_running, status.chunks_queued) == (4, 1, 1, 0)
        assert {1} == ledger.fed_chunks(sweep)
        assert [ledger.committed(sweep, n) for n in range(3)] == [True, False, False]
        assert_exact(ledger, sweep)

    def test_redelivered_after_its_commit(self, ledger, plan, sweep):
        """A message that comes again after the commit finds nothing to do and counts nothing."""
        feed(ledger, plan)
        ledger.begin(sweep, 0)
        commit(ledger, plan, 0)
        before = ledger.status(sweep)
        assert ledger.begin(sweep, 0).verdict == "complete"
        assert before == ledger.status(sweep)

    def test_attempts_count_deliveries(self, ledger, plan, sweep):
        """Each delivery that did not end in a commit counts; the commit forgets them."""
        feed(ledger, plan)
        assert [1, 2, 3] == [ledger.begin(sweep, 0).attempt for _ in range(3)]
        assert ledger.begin(sweep, 1).attempt == 1
        assert ledger.status(sweep).chunks_running == 2

    def test_late_finisher(self, ledger, plan, sweep):
        """A worker that was taken for dead and commits after another one counts nothing twice."""
        feed(ledger, plan)
        ledger.begin(sweep, 0)
        ledger.begin(sweep, 0)
        commit(ledger, plan, 0)
        before = ledger.status(sweep)
        assert ledger.record(sweep, ChunkOutcome(done=[0, 1])) == "active"
        commit(ledger, plan, 0)
        assert before == ledger.status(sweep)
        assert_exact(ledger, sweep)

    def test_late_finisher_who_disagrees(self, ledger, plan, sweep):
        """Nobody knows whose manifest is in the store then: no bit changes, and the chunk is fed again."""
        feed(ledger, plan)
        for chunk in range(plan.chunks):
            commit(ledger, plan, chunk)
        assert (ledger.status(sweep).state, ledger.active_sweeps()) == ("done", [])
        assert commit(ledger, plan, 0, failed={3: ("job_crashed", "late")}) == "active"
        status = ledger.status(sweep)
        assert (status.done, status.failed, status.chunks_done) == (10, 0, 2)
        assert_exact(ledger, sweep)
        assert ([0], [sweep]) == (feed(ledger, plan), ledger.active_sweeps())
        assert commit(ledger, plan, 0) == "done"

    def test_a_failure_stands_until_its_chunk_is_committed_again(self, ledger, plan, sweep):
        """The image of a frozen worker comes late: the row in the manifest says failed, and so does the bit."""
        feed(ledger, plan)
        commit(ledger, plan, 0, failed={3: ("job_crashed", "why")})
        ledger.record(sweep, ChunkOutcome(done=[2, 3]))
        assert (ledger.status(sweep).done, ledger.status(sweep).failed) == (3, 1)
        assert commit(ledger, plan, 0) == "active"
        assert [0] == feed(ledger, plan)
        commit(ledger, plan, 0)
        assert (ledger.status(sweep).done, ledger.status(sweep).failed) == (4, 0)
        assert_exact(ledger, sweep)

    def test_give_back(self, ledger, plan, sweep):
        """A chunk given back is fed first, and does not count as a delivery unless asked."""
        feed(ledger, plan, 2)
        ledger.begin(sweep, 0)
        ledger.give_back(sweep, 0)
        assert {1} == ledger.fed_chunks(sweep)
        assert ledger.status(sweep).chunks_running == 0
        assert [0] == feed(ledger, plan, 1)
        assert ledger.begin(sweep, 0).attempt == 1
        ledger.give_back(sweep, 0, count_attempt=True)
        feed(ledger, plan, 1)
        assert ledger.begin(sweep, 0).attempt == 2

    def test_give_back_what_is_committed(self, ledger, plan, sweep):
        """A chunk somebody else committed is not fed again."""
        feed(ledger, plan, 1)
        ledger.begin(sweep, 0)
        commit(ledger, plan, 0)
        ledger.give_back(sweep, 0)
        assert [1, 2] == feed(ledger, plan)

    def test_nothing_is_fed_twice(self, ledger, plan, sweep):
        """What is on its way or committed is not fed."""
        assert [0, 1, 2] == feed(ledger, plan)
        assert [] == feed(ledger, plan)
        commit(ledger, plan, 1)
        assert [] == feed(ledger, plan)

    @pytest.mark.parametrize("state", ["paused", "cancelled"])
    def test_taken_back(self, ledger, plan, sweep, state):
        """A chunk of a sweep that was paused or cancelled is taken back, and fed when the sweep goes on."""
        feed(ledger, plan, 1)
        ledger.begin(sweep, 0)
        assert ledger.set_state(sweep, state) == state
        assert ledger.begin(sweep, 0).verdict == state
        status = ledger.status(sweep)
        assert (status.chunks_running, status.chunks_queued) == (0, 0)
        assert [] == feed(ledger, plan)
        assert ledger.set_state(sweep, "active") == "active"
        assert [0, 1, 2] == feed(ledger, plan)

    def test_a_worker_learns_of_a_cancel(self, ledger, plan, sweep):
        """Recording answers with the sweep's state; what was made counts all the same."""
        feed(ledger, plan, 1)
        ledger.begin(sweep, 0)
        ledger.set_state(sweep, "cancelled")
        assert ledger.record(sweep, ChunkOutcome(done=[0, 1])) == "cancelled"
        assert ledger.status(sweep).done == 2

    def test_a_chunk_beyond_the_plan(self, ledger, plan, sweep):
        """A message with a chunk its plan does not have leaves no trace in the figures."""
        before = ledger.status(sweep)
        assert ledger.begin(sweep, plan.chunks).verdict == "render"
        assert before == ledger.status(sweep)
        assert set() == ledger.fed_chunks(sweep)


class TestDone:
    """A sweep is done when every job is, and not before."""

    def test_only_when_all_is(self, ledger, plan, sweep):
        """The last commit makes it done, not the last image."""
        feed(ledger, plan)
        assert [commit(ledger, plan, chunk) for chunk in (2, 0)] == ["active", "active"]
        assert ledger.record(sweep, ChunkOutcome(done=indices(plan, 1))) == "active"
        status = ledger.status(sweep)
        assert (status.remaining, status.state, status.finished_at) == (0, "active", None)
        assert commit(ledger, plan, 1) == "done"
        status = ledger.status(sweep)
        assert (status.state, status.done) == ("done", 10)
        assert status.finished_at >= status.created_at
        assert [] == ledger.active_sweeps()

    @pytest.mark.parametrize("state", ["active", "paused", "cancelled"])
    def test_stays_done(self, ledger, plan, sweep, state):
        """Pausing, cancelling or resuming a finished sweep leaves it finished."""
        for chunk in range(plan.chunks):
            commit(ledger, plan, chunk)
        assert ledger.set_state(sweep, state) == "done"
        assert [] == ledger.active_sweeps()

    def test_cancelled_and_finished_all_the_same(self, ledger, plan, sweep):
        """What was being sampled when the sweep was cancelled may be all that was left."""
        commit(ledger, plan, 0)
        commit(ledger, plan, 1)
        ledger.set_state(sweep, "cancelled")
        assert commit(ledger, plan, 2) == "done"


class TestFailures:
    """A failure is counted once, with its code and a reason, and can be taken back."""

    def test_by_code(self, ledger, plan, sweep):
        """The status counts failures by code, and shows a reason for each."""
        commit(ledger, plan, 0, failed={0: ("job_invalid", "too tall"), 1: ("job_invalid", "too wide")})
        commit(ledger, plan, 1, failed={4: ("out_of_memory", "8 GiB wanted")})
        status = ledger.status(sweep)
        assert (status.done, status.failed) == (5, 3)
        assert {"job_invalid": 2, "out_of_memory": 1} == status.failures
        assert status.reasons["out_of_memory"] == ["8 GiB wanted"]
        assert sorted(status.reasons["job_invalid"]) == ["too tall", "too wide"]
        assert commit(ledger, plan, 2) == "done"

    def test_a_success_takes_the_failure_back(self, ledger, plan, sweep):
        """A job that failed on one worker and is done by another one is done, once its chunk is committed again."""
        commit(ledger, plan, 0, failed={0: ("worker_lost", "why"), 1: ("job_crashed", "why")})
        commit(ledger, plan, 0, failed={1: ("job_crashed", "why")})
        assert ledger.status(sweep).failed == 2
        assert feed(ledger, plan, 1) == [0]
        commit(ledger, plan, 0, failed={1: ("job_crashed", "why")})
        status = ledger.status(sweep)
        assert (status.done, status.failed, dict(status.failures)) == (3, 1, {"job_crashed": 1})
        assert_exact(ledger, sweep)

    def test_done_stays_done(self, ledger, plan, sweep):
        """A late failure does not undo an image that is in the store."""
        commit(ledger, plan, 0)
        ledger.record(sweep, ChunkOutcome(failed={0: ("job_crashed", "late")}))
        status = ledger.status(sweep)
        assert (status.done, status.failed, dict(status.failures)) == (4, 0, {})

    def test_no_failures_no_failure_bits(self, ledger, client, key_prefix, plan, sweep):
        """Where nothing failed the failure bitmap takes no memory."""
        for chunk in range(plan.chunks):
            commit(ledger, plan, chunk)
        assert client.exists(f"{key_prefix}:{{{sweep}}}:failed") == 0

    def test_reused(self, ledger, plan, sweep):
        """Images taken from another sweep count as done and as reused, once."""
        for _ in range(2):
            ledger.record(sweep, ChunkOutcome(done=[0, 1, 2], reused=[1, 2]))
        status = ledger.status(sweep)
        assert (status.done, status.reused) == (3, 2)

    def test_reopen(self, ledger, plan, sweep):
        """Retrying takes every failure back and feeds those chunks again, with their deliveries forgotten."""
        feed(ledger, plan)
        for _ in range(5):
            ledger.begin(sweep, 1)
        commit(ledger, plan, 0)
        commit(ledger, plan, 1, failed={4: ("worker_lost", "why"), 7: ("job_crashed", "why")})
        assert commit(ledger, plan, 2, failed={9: ("job_crashed", "why")}) == "done"

        assert ledger.reopen_failed(sweep, plan) == 3
        status = ledger.status(sweep)
        assert (status.state, status.done, status.failed, status.chunks_done) == ("active", 7, 0, 1)
        assert (status.finished_at, dict(status.failures), dict(status.reasons)) == (None, {}, {})
        assert [sweep] == ledger.active_sweeps()
        assert [1, 2] == feed(ledger, plan)
        assert ledger.begin(sweep, 1).attempt == 1
        commit(ledger, plan, 1)
        assert commit(ledger, plan, 2) == "done"
        assert_exact(ledger, sweep)

    def test_reopen_some(self, ledger, plan, sweep):
        """Some failures are taken back; the others stand, with their codes, and can be asked for by chunk."""
        for chunk, failed in (
            (0, {0: ("job_invalid", "a"), 1: ("job_crashed", "b")}),
            (1, {4: ("job_crashed", "c")}),
            (2, {}),
        ):
            commit(ledger, plan, chunk, failed=failed)
        assert [ledger.failed_in(sweep, plan.chunk(number)) for number in range(3)] == [[0, 1], [4], []]
        assert ledger.reopen_failed(sweep, plan, only=[1, 5, 4]) == 2
        status = ledger.status(sweep)
        assert (status.failed, dict(status.failures), status.reasons) == (
            1,
            {"job_invalid": 1},
            {"job_invalid": ["a"]},
        )
        assert [ledger.failed_in(sweep, plan.chunk(number)) for number in range(3)] == [[0], [], []]
        assert [0, 1] == feed(ledger, plan)
        commit(ledger, plan, 0, failed={0: ("job_invalid", "a")})
        assert commit(ledger, plan, 1) == "done"
        assert_exact(ledger, sweep)

    def test_three_reasons_a_code(self, ledger, plan, sweep):
        """Different reasons of one code are kept, up to three; the same one again takes no room."""
        reasons = ["too tall", "too wide", "too tall", "too deep", "too odd"]
        failed = {index: ("job_invalid", reason) for index, reason in enumerate(reasons[:4])}
        commit(ledger, plan, 0, failed=failed)
        commit(ledger, plan, 1, failed={4: ("job_invalid", reasons[4])})
        shown = ledger.status(sweep).reasons["job_invalid"]
        assert len(shown) == len(set(shown)) == 3
        assert set(shown) <= set(reasons)

    def test_reopen_nothing(self, ledger, plan, sweep):
        """Where nothing failed there is nothing to retry, and the state stays as it is."""
        ledger.set_state(sweep, "paused")
        assert ledger.reopen_failed(sweep, plan) == 0
        assert ledger.status(sweep).state == "paused"

    def test_reopen_while_another_fails(self, ledger, plan, sweep, monkeypatch):
        """A failure recorded while a retry is under way is kept for the next one, with its code."""
        commit(ledger, plan, 0, failed={0: ("job_crashed", "first")})
        run = ledger._run

        def slower(script, *args, **named):
            if script == "reopen":
                monkeypatch.undo()
                commit(ledger, plan, 1, failed={4: ("job_crashed", "second")})
            return run(script, *args, **named)

        monkeypatch.setattr(ledger, "_run", slower)
        assert ledger.reopen_failed(sweep, plan) == 1
        assert_exact(ledger, sweep)
        assert {"job_crashed": 1} == ledger.status(sweep).failures
        assert ledger.reopen_failed(sweep, plan) == 1

    @pytest.mark.parametrize(
        "reason", ["é" * 400, "x" + "猫" * 300, "half \ud83d of a pair", "nul \0 byte", '"\\\n']
    )
    def test_any_reason(self, ledger, plan, sweep, reason):
        """A reason of any length and script is recorded, and the status shows its beginning."""
        commit(ledger, plan, 0, failed={0: ("job_crashed", reason)})
        (shown,) = ledger.status(sweep).reasons["job_crashed"]
        assert 0 < len(shown.encode()) <= 500
        assert reason.replace("\ud83d", "?").startswith(shown)


#: What may happen to a chunk, at any time and in any order: (what, chunk, a worker's luck).
events = st.tuples(
    st.sampled_from(
        ["begin", "progress", "commit", "fail", "give_back", "count", "absent", "feed", "pause", "retry"]
    ),
    st.integers(0, 2),
    st.integers(0, 3),
)


class TestAnyOrder:
    """Whatever the queue and the workers do, the counters are what the bits say."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(events, max_size=25))
    def test_counters_are_exact(self, client, happened):
        """After any interleaving the counters equal the bits at each step, and a clean run ends with all of them."""
        plan = make_plan()
        ledger = Ledger(client, prefix=f"t{uuid.uuid4().hex[:12]}:")
        ledger.submit(plan.id, plan)
        for what, chunk, luck in happened:
            self._happen(ledger, plan, what, chunk, luck)
            assert_exact(ledger, plan.id)

        # In the end somebody does everything that is left.
        ledger.set_state(plan.id, "active")
        ledger.mark_absent(plan.id, ledger.fed_chunks(plan.id), lost_after_seconds=0)
        for _ in range(plan.chunks):
            for chunk in feed(ledger, plan):
                assert ledger.begin(plan.id, chunk).verdict == "render"
                commit(ledger, plan, chunk)
        ledger.reopen_failed(plan.id, plan)
        for chunk in feed(ledger, plan):
            commit(ledger, plan, chunk)
        status = ledger.status(plan.id)
        assert (status.state, status.done, status.failed) == ("done", len(plan), 0)
        assert (status.chunks_done, status.chunks_running, status.chunks_queued) == (plan.chunks, 0, 0)
        assert_exact(ledger, plan.id)

    def _happen(self, ledger: Ledger, plan: Plan, what: str, chunk: int, luck: int) -> None:
        if what == "begin":
            ledger.begin(plan.id, chunk)
        elif what == "progress":
            ledger.record(
                plan.id, ChunkOutcome(done=indices(plan, chunk)[:luck], reused=indices(plan, chunk)[:1])
            )
        elif what == "commit":
            commit(ledger, plan, chunk)
        elif what == "fail":
            commit(
                ledger,
                plan,
                chunk,
                failed=dict.fromkeys(indices(plan, chunk)[luck:], (f"code_{luck}", "why")),
            )
        elif what in ("give_back", "count"):
            ledger.give_back(plan.id, chunk, count_attempt=what == "count")
        elif what == "absent":
            ledger.mark_absent(plan.id, [chunk], lost_after_seconds=0)
        elif what == "feed":
            feed(ledger, plan, luck)
        elif what == "pause":
            ledger.set_state(plan.id, ["active", "paused", "cancelled", "active"][luck])
        elif what == "retry":
            ledger.reopen_failed(plan.id, plan)

    def test_many_workers_at_once(self, ledger):
        """Eight threads that begin and commit the same chunks at the same time count each job once."""
        plan = make_plan(jobs=200)
        ledger.submit(plan.id, plan)

        def work(order: int) -> None:
            for chunk in sorted(range(plan.chunks), key=lambda number: (number * (order + 3)) % 53):
                if ledger.begin(plan.id, chunk).verdict == "render":
                    ledger.record(plan.id, ChunkOutcome(done=indices(plan, chunk)[:2]))
                    commit(ledger, plan, chunk)

        threads = [threading.Thread(target=work, args=(order,)) for order in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = ledger.status(plan.id)
        assert (status.state, status.done, status.chunks_done, status.chunks_running) == ("done", 200, 50, 0)
        assert_exact(ledger, plan.id)


class TestAbsent:
    """What was fed and is nowhere is lost, but not at once."""

    def test_lost_only_after_a_while(self, ledger, plan, sweep):
        """A chunk that is absent once may be on its way; absent for longer than the time given, it is lost."""
        feed(ledger, plan, 2)
        assert [] == ledger.mark_absent(sweep, [0], lost_after_seconds=0.2)
        time.sleep(0.25)
        assert [0] == ledger.mark_absent(sweep, [0, 1], lost_after_seconds=0.2)
        assert {1} == ledger.fed_chunks(sweep)
        assert [0, 2] == feed(ledger, plan)

    def test_seen_again_in_between(self, ledger, plan, sweep):
        """Seen again, the time of a chunk's absence starts anew."""
        feed(ledger, plan, 1)
        ledger.mark_absent(sweep, [0], lost_after_seconds=0.2)
        ledger.mark_absent(sweep, [], lost_after_seconds=0.2)
        time.sleep(0.25)
        assert [] == ledger.mark_absent(sweep, [0], lost_after_seconds=0.2)

    def test_committed_meanwhile(self, ledger, plan, sweep):
        """A chunk that was committed is not lost."""
        feed(ledger, plan, 1)
        ledger.mark_absent(sweep, [0], lost_after_seconds=0)
        commit(ledger, plan, 0)
        assert [] == ledger.mark_absent(sweep, [0], lost_after_seconds=0)

    def test_found_after_all(self, ledger, plan, sweep):
        """A message that comes after it was given up for lost runs, and its chunk is not fed a second time."""
        feed(ledger, plan, 1)
        ledger.begin(sweep, 0)
        assert [0] == ledger.mark_absent(sweep, [0], lost_after_seconds=0)
        assert ledger.begin(sweep, 0).verdict == "render"
        status = ledger.status(sweep)
        assert (status.chunks_running, status.chunks_queued) == (1, 0)
        assert [1, 2] == feed(ledger, plan)

    def test_very_many(self, ledger):
        """Ten thousand chunks may be absent at once."""
        plan = make_plan(jobs=40_000)
        ledger.submit(plan.id, plan)
        feed(ledger, plan, 10_000)
        assert [] == ledger.mark_absent(plan.id, range(10_000), lost_after_seconds=60)
        assert 10_000 == len(ledger.mark_absent(plan.id, range(10_000), lost_after_seconds=0))


class TestStatus:
    """A sweep in figures, at the cost of one round trip."""

    def test_one_round_trip(self, ledger, client, plan, sweep, monkeypatch):
        """Reading the status sends one pipeline and nothing beside it."""
        sent = []
        execute = redis.client.Pipeline.execute
        monkeypatch.setattr(
            redis.client.Pipeline, "execute", lambda *a, **k: sent.append("pipeline") or execute(*a, **k)
        )
        command = redis.Redis.execute_command
        monkeypatch.setattr(
            redis.Redis, "execute_command", lambda *a, **k: sent.append(a[1]) or command(*a, **k)
        )
        ledger.status(sweep)
        assert sent == ["pipeline"]

    def test_rate_and_eta(self, ledger, plan, sweep):
        """The rate is of the last minute, over the sweep's age; what is to go at that rate is the ETA."""
        assert ledger.status(sweep).eta_seconds is None
        ledger.record(sweep, ChunkOutcome(done=[0, 1, 2, 3, 4]))
        status = ledger.status(sweep)
        assert 0 < status.images_per_second <= 5
        assert status.eta_seconds == 5 / status.images_per_second
        ledger.set_state(sweep, "paused")
        assert ledger.status(sweep).eta_seconds is None

    def test_the_rate_forgets(self, ledger, client, key_prefix, plan, sweep):
        """Images of more than a minute ago do not count, and their slots are removed by the next image."""
        key = f"{key_prefix}:{{{sweep}}}:rate"
        slot = int(time.time() / 5)
        client.hset(key, mapping={str(slot - 12 - back): 1000 for back in range(1, 20)})
        assert ledger.status(sweep).images_per_second == 0
        ledger.record(sweep, ChunkOutcome(done=[0]))
        assert client.hlen(key) == 1

    @pytest.mark.parametrize(
        ("slots", "low", "high"),
        [
            ({1: 0, 5: 50, 9: 50}, 0.0, 0.0),  # a hundred a minute, and none for twenty seconds
            ({0: 5, 1: 10, 2: 10, 3: 10}, 1.5, 2.6),  # two a second since a quarter of a minute ago
            ({8: 3, 9: 3}, 0.08, 0.2),  # six in a minute: nothing can be said of the last seconds
            (dict.fromkeys(range(12), 10), 1.8, 2.2),
        ],
    )
    def test_an_honest_rate(self, slots, low, high):
        """The rate follows what happens now, as far as that can be told: slots of five seconds, by their age."""
        now = 5 * 1_000_000 + 4.9
        counts = {b"%d" % (1_000_000 - age): b"%d" % count for age, count in slots.items()}
        assert low <= ledger_module._rate(counts, now=now, created_at=0.0) <= high

    def test_what_is_read_back_or_reused_is_no_speed(self, ledger, plan, sweep):
        """A rebuild, and images that another sweep had made, count as done and not as rendered."""
        ledger.record(sweep, ChunkOutcome(done=[0, 1], reused=[0, 1]))
        assert (ledger.status(sweep).done, ledger.status(sweep).images_per_second) == (2, 0)
        other = replace(plan, name="read back")
        ledger.submit(other.id, other, state="rebuilding")
        ledger.record(other.id, ChunkOutcome(done=[0, 1, 2]))
        assert (ledger.status(other.id).done, ledger.status(other.id).images_per_second) == (3, 0)

    def test_priority(self, ledger, sweep):
        """Priority may change while a sweep runs."""
        assert ledger.status(sweep).priority == 0
        ledger.set_priority(sweep, -3)
        assert ledger.status(sweep).priority == -3

    def test_memory_a_job(self, ledger, client, key_prefix):
        """A hundred thousand jobs, all done, cost less than a byte of Redis each, everything included."""
        plan = make_plan(jobs=100_000, jobs_per_chunk=64)
        ledger.submit(plan.id, plan)
        feed(ledger, plan)
        for chunk in range(0, plan.chunks, 50):
            ledger.begin(plan.id, chunk)
            commit(ledger, plan, chunk)
        ledger.record(plan.id, ChunkOutcome(done=[len(plan) - 1]), chunk=plan.chunk(plan.chunks - 1))
        used = sum(
            client.memory_usage(key, samples=0) for key in client.scan_iter(f"{key_prefix}:*", count=1000)
        )
        assert used < len(plan)


class TestWorkers:
    """Workers that live say so; who stops is gone."""

    @staticmethod
    def worker(name: str) -> WorkerInfo:
        """Return a worker."""
        return WorkerInfo(
            name=name,
            host="host",
            pid=7,
            device="cpu",
            dtype="float32",
            batch_rows=4,
            models={MODEL: ["tiny"]},
            queues=["a queue"],
            images_per_second=1.5,
            chunks=["sweep/1"],
            draining=False,
            refused={"message_corrupt": 1},
            trouble=None,
            versions={"printroom": "0"},
        )

    def test_seen(self, ledger):
        """A heartbeat is read back as it was said, workers by name."""
        for name in ("two", "one"):
            ledger.heartbeat(self.worker(name), expires_seconds=30)
        assert [self.worker("one"), self.worker("two")] == ledger.workers()

    def test_of_another_version(self, ledger, client, key_prefix):
        """A heartbeat with a field more, or without one that has a default, is read as far as it is known."""
        said = self.worker("other").to_json()
        del said["facts"]
        client.set(f"{key_prefix}:worker:other", json.dumps({**said, "later": 1}))
        client.zadd(f"{key_prefix}:workers", {"other": 0})
        assert [self.worker("other")] == ledger.workers()

    def test_expires(self, ledger, client, key_prefix):
        """A worker that says nothing for its time is gone, and so is its name."""
        ledger.heartbeat(self.worker("dead"), expires_seconds=0.1)
        ledger.heartbeat(self.worker("alive"), expires_seconds=30)
        time.sleep(0.15)
        assert ["alive"] == [worker.name for worker in ledger.workers()]
        assert [b"alive"] == client.zrange(f"{key_prefix}:workers", 0, -1)

    def beat(self, ledger, client, key_prefix, name: str, *, seconds_ago: float, **facts) -> None:
        """Let a worker have beaten last so long ago."""
        ledger.heartbeat(replace(self.worker(name), **facts), expires_seconds=30)
        beat = json.loads(client.hget(f"{key_prefix}:beats", name))
        client.hset(f"{key_prefix}:beats", name, json.dumps({**beat, "at": beat["at"] - seconds_ago}))

    def test_silence(self, ledger, client, key_prefix):
        """Three missed beats are a silence, with what was in hand; an hour later nobody asks any more."""
        self.beat(ledger, client, key_prefix, "well", seconds_ago=5)
        self.beat(ledger, client, key_prefix, "slow", seconds_ago=5, beat_seconds=10)
        self.beat(ledger, client, key_prefix, "dead", seconds_ago=8, moves_after_seconds=25)
        self.beat(ledger, client, key_prefix, "quick", seconds_ago=5, beat_seconds=0.5, chunks=[])
        self.beat(ledger, client, key_prefix, "long ago", seconds_ago=4000)
        self.beat(ledger, client, key_prefix, "stopped", seconds_ago=8)
        ledger.forget_worker("stopped")
        for name, text in (("a", "5"), ("b", "{"), ("c", '{"at": "x"}')):
            client.hset(f"{key_prefix}:beats", name, text)
        dead, quick = ledger.silent_workers()
        assert (dead.worker, list(dead.chunks), dead.moves_after_seconds) == ("dead", ["sweep/1"], 25)
        assert 8 <= dead.seconds < 60
        assert (quick.worker, list(quick.chunks)) == ("quick", [])
        assert set(client.hkeys(f"{key_prefix}:beats")) == {b"well", b"slow", b"dead", b"quick"}

    def test_leaves(self, ledger):
        """A worker that stops is gone at once."""
        ledger.heartbeat(self.worker("one"), expires_seconds=30)
        ledger.forget_worker("one")
        assert [] == ledger.workers()


class TestLocks:
    """One at a time, and never for ever."""

    def test_one_holder(self, ledger):
        """A lock is its holder's until it is given back; the holder may keep it."""
        assert ledger.lock("feeder", "a", expires_seconds=30)
        assert not ledger.lock("feeder", "b", expires_seconds=30)
        assert ledger.lock("feeder", "a", expires_seconds=30)
        assert ledger.lock("another", "b", expires_seconds=30)
        ledger.unlock("feeder", "b")
        assert not ledger.lock("feeder", "b", expires_seconds=30)
        ledger.unlock("feeder", "a")
        assert ledger.lock("feeder", "b", expires_seconds=30)

    def test_expires(self, ledger):
        """A holder that died is replaced after the time it was given."""
        assert ledger.lock("feeder", "dead", expires_seconds=0.1)
        time.sleep(0.15)
        assert ledger.lock("feeder", "b", expires_seconds=30)


class TestDeadLetters:
    """Evidence of messages nobody could act on."""

    def test_newest_first(self, ledger):
        """Evidence of any kind is kept, the newest first."""
        ledger.dead_letter({"code": "message_corrupt", "body": "one", "what": {1}})
        ledger.dead_letter({"code": "message_corrupt", "body": "é"})
        assert [
            {"code": "message_corrupt", "body": "é"},
            {"code": "message_corrupt", "body": "one", "what": "{1}"},
        ] == ledger.dead_letters()

    def test_a_thousand(self, ledger, client, key_prefix):
        """The newest thousand are kept, however many come."""
        client.rpush(f"{key_prefix}:dead", *["{}"] * 1500)
        ledger.dead_letter({"newest": 1})
        assert len(ledger.dead_letters()) == 1000
        assert ledger.dead_letters()[0] == {"newest": 1}
