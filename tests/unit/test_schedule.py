"""Which worker works for which model: priority before everything, then few model loads, and nobody starves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.schedule import CHUNKS_IN_HAND, Candidate, Demand, Schedule, WorkerTurn, assign, listened

#: Long enough that no turn ends in a test that does not move the clock.
TURN = 600.0


def demand(model: str, chunks: int, *, priority: int = 0) -> Demand:
    """Chunks of a model that wait in a queue of its name."""
    return Demand(model=model, priority=priority, queues=frozenset({model}), chunks=chunks)


def worker(name: str, serves: str, model: str = "", *, chunks: int = 0) -> Candidate:
    """A worker that serves the queues of some models, each one letter."""
    return Candidate(name=name, serves=frozenset(serves), model=model, chunks=chunks)


def models(turns: dict[str, WorkerTurn]) -> dict[str, str]:
    """Return whom each worker serves; empty for one that has nothing to do."""
    return {name: turn.model if turn.queues else "" for name, turn in turns.items()}


def choose(demands, workers, before=None, *, now=0.0):
    """Assign, with turns of ten minutes; return the turns."""
    return assign(demands, workers, before or {}, queues="abcu", now=now, turn_seconds=TURN).turns


def test_two_workers_take_two_models_and_keep_them():
    """Each worker stays with its model while chunks of it wait, though a third model waits too."""
    waits = [demand("a", 50), demand("b", 50), demand("c", 50)]
    turns = choose(waits, [worker("1", "abc"), worker("2", "abc")])
    assert len(set(models(turns).values())) == 2
    later = choose(waits, [worker("1", "abc"), worker("2", "abc")], turns, now=TURN - 1)
    assert models(later) == models(turns)
    assert [turn.since for turn in later.values()] == [0.0, 0.0]


def test_the_loaded_model_is_kept():
    """Of equal demands, a worker takes the one whose model it has loaded."""
    turns = choose([demand("a", 9), demand("b", 9)], [worker("1", "ab", "b"), worker("2", "ab", "a")])
    assert models(turns) == {"1": "b", "2": "a"}


def test_priority_comes_before_the_loaded_model():
    """An urgent chunk takes one worker from its model, and no more than it has chunks."""
    waits = [demand("a", 50), demand("u", 1, priority=10)]
    turns = choose(waits, [worker("1", "au", "a", chunks=2), worker("2", "au", "a", chunks=2)])
    assert sorted(models(turns).values()) == ["a", "u"]
    turns = choose([demand("a", 50), demand("u", 9, priority=10)], [worker("1", "au", "a")])
    assert models(turns) == {"1": "u"}


def test_an_urgent_sweep_keeps_no_more_workers_than_it_has_chunks():
    """Of three workers with the urgent model one stays for its last chunk; the others serve what waits besides."""
    before = {name: WorkerTurn(model="u", queues=frozenset("u"), since=float(name)) for name in "123"}
    waits = [demand("u", 1, priority=5), demand("a", 50)]
    turns = choose(waits, [worker(name, "au", "u", chunks=2) for name in "123"], before, now=9.0)
    assert models(turns) == {"1": "u", "2": "a", "3": "a"}


def test_a_crowd_gives_a_worker_to_what_nobody_serves():
    """Where two workers share a model and an equal one waits, the newer of the two goes."""
    before = {
        name: WorkerTurn(model="a", queues=frozenset("a"), since=since)
        for name, since in (("1", 5), ("2", 9))
    }
    turns = choose(
        [demand("a", 50), demand("b", 1)], [worker("1", "ab", "a"), worker("2", "ab", "a")], before, now=10
    )
    assert models(turns) == {"1": "a", "2": "b"}


def test_turns_go_round():
    """One worker and three endless models: each gets a turn in every round of three, and none is left early."""
    waits, turns, seen = [demand(name, 50) for name in "abc"], {}, []
    for minute in range(90):
        turns = choose(waits, [worker("1", "abc")], turns, now=60.0 * minute)
        seen.append(turns["1"].model)
    changes = sum(left != right for left, right in pairwise(seen))
    assert Counter(seen) == {"a": 30, "b": 30, "c": 30}
    assert changes == 8


def test_what_comes_while_a_turn_is_long_over_is_served_at_once():
    """A worker that has been at a long sweep for hours serves an equal one that comes now."""
    before = {"1": WorkerTurn(model="a", queues=frozenset("a"), since=0.0)}
    assert models(choose([demand("a", 50), demand("b", 1)], [worker("1", "ab")], before, now=9999.0)) == {
        "1": "b"
    }


def test_a_turn_begins_with_work():
    """An idle worker that kept its model for hours begins a turn of its own with it: it does not load another."""
    idle = choose([], [worker("1", "ab", "b")])
    turns = choose([demand("a", 9), demand("b", 9)], [worker("1", "ab", "b")], idle, now=9999.0)
    assert (models(turns), turns["1"].since) == ({"1": "b"}, 9999.0)


def test_who_can_serve_one_model_alone_gets_it():
    """A worker that holds both models leaves the one to the worker that holds no other."""
    turns = choose([demand("a", 9), demand("b", 9)], [worker("1", "ab"), worker("2", "a")])
    assert models(turns) == {"1": "b", "2": "a"}
    before = {"1": WorkerTurn(model="a", queues=frozenset("a"), since=0.0)}
    turns = choose([demand("a", 9), demand("b", 9)], [worker("1", "ab"), worker("2", "a")], before, now=1.0)
    assert models(turns) == {"1": "b", "2": "a"}


def test_an_idle_worker_helps_whose_hands_are_full():
    """A chunk that waits behind two long ones goes to an idle worker; one whose worker is ready does not."""
    waits = [demand("a", 1)]
    before = {"1": WorkerTurn(model="a", queues=frozenset("a"), since=0.0)}
    busy = choose(waits, [worker("1", "ab", "a", chunks=2), worker("2", "ab", "b")], before)
    assert models(busy) == {"1": "a", "2": "a"}
    ready = choose(waits, [worker("1", "ab", "a", chunks=1), worker("2", "ab", "b")], before)
    assert models(ready) == {"1": "a", "2": ""}


def test_who_has_no_turn_listens_where_nothing_waits():
    """No schedule: everything. A turn: its queues. None of one's own: where nothing waits, as far as is known."""
    workers = [worker("1", "a"), worker("2", "c")]
    schedule = assign([demand("a", 1), demand("d", 1)], workers, {}, queues="abcd", now=0, turn_seconds=TURN)
    assert listened("abc", None, "1") == frozenset("abc")
    assert listened("abc", schedule, "1") == frozenset("a")
    assert listened("abcde", schedule, "2") == listened("abcde", schedule, "new") == frozenset("bc")
    assert Schedule.from_json(schedule.to_json()) == schedule


LETTERS = st.sampled_from("abcd")
DEMANDS = st.dictionaries(st.tuples(LETTERS, st.integers(0, 2)), st.integers(0, 5), max_size=8)
WORKERS = st.lists(
    st.tuples(st.frozensets(LETTERS), LETTERS, st.integers(0, CHUNKS_IN_HAND), st.integers(0, 1000)),
    max_size=6,
)


@given(DEMANDS, WORKERS)
def test_no_worker_is_idle_while_it_is_needed(waits, fleet):
    """Whatever waits: a worker is only left out where others are ready for all that it could do."""
    demands = [demand(model, n, priority=priority) for (model, priority), n in waits.items()]
    workers = [
        worker(str(i), "".join(serves), model, chunks=n) for i, (serves, model, n, _) in enumerate(fleet)
    ]
    before = {
        str(i): WorkerTurn(model=model, queues=frozenset(model), since=float(since))
        for i, (_, model, _, since) in enumerate(fleet)
    }
    turns = choose(demands, workers, before, now=1000.0)
    assert turns.keys() == before.keys()
    for each in workers:
        turn = turns[each.name]
        assert turn.queues <= each.serves
        could = [d for d in demands if d.chunks and d.queues & each.serves]
        if turn.queues:
            (priority,) = {d.priority for d in demands if d.model == turn.model and d.chunks} & {
                max(d.priority for d in could if d.model == turn.model)
            } or {None}
            assert priority is not None
        for other in could if not turn.queues else ():
            served = [name for name, t in turns.items() if t.queues & other.queues]
            assert len(served) >= 1
            ready = [w for w in workers if w.name in served and w.chunks < CHUNKS_IN_HAND]
            assert each.chunks or len(ready) >= other.chunks


@given(WORKERS, st.dictionaries(LETTERS, st.integers(1, 9), min_size=1, max_size=4))
def test_the_highest_priority_goes_first(fleet, waits):
    """A lower priority never has a worker while a higher one that it can serve wants for one."""
    high = {model: n for model, n in waits.items() if model in "ab"}
    demands = [demand(m, n, priority=5 if m in high else 0) for m, n in waits.items()]
    workers = [
        worker(str(i), "".join(serves), model, chunks=n) for i, (serves, model, n, _) in enumerate(fleet)
    ]
    serving = models(choose(demands, workers))
    for each in workers:
        if serving[each.name] not in high:
            for model in high.keys() & each.serves:
                assert list(serving.values()).count(model) >= 1
    for model in high:
        if any(model in each.serves for each in workers):
            assert list(serving.values()).count(model) >= 1 or len(high) > 1


def test_three_models_two_workers_fifty_chunks_each():
    """A night in steps: 150 chunks of three models cost two workers four loads, one more than there are models."""
    left, turns, loaded, loads = dict.fromkeys("abc", 50), {}, {"1": "", "2": ""}, 0
    step = 0
    while any(left.values()):
        step += 1
        waits = [demand(model, n) for model, n in left.items()]
        turns = choose(
            waits, [worker(name, "abc", loaded[name], chunks=2) for name in loaded], turns, now=float(step)
        )
        for name in loaded:
            model = next(iter(turns[name].queues), "")
            if model and left[model]:
                loads += loaded[name] != model
                loaded[name] = model
                left[model] -= 1
    assert step <= 76
    assert loads == 4
