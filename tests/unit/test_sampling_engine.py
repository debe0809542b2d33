"""The engine's thread: answers, order between models, cancelling, failures, signs of life."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from shared.errors import JobInvalid, ModelLoadFailed
from worker.sampling.engine import Engine
from worker.sampling.events import StepDone
from worker.sampling.request import Sampled, SampleFailed
from worker.sampling.rows.loop import sample

TINY = {"width": 16, "height": 16}


@pytest.fixture
def start(tiny_model):
    """A function that starts an engine over tiny models by family; `load` replaces how it finds them."""
    engines = []

    def make(load=tiny_model, **options):
        engine = Engine(load, **{"stall_seconds": 60.0, "load_seconds": 60.0, **options})
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def hold_calls(model, calls, gate):
    """Note every UNet call, and let none through before the gate is open."""

    def hold(module, arguments):
        calls.append(1)
        gate.wait(30)

    model.networks.unet.register_forward_pre_hook(hold)


def test_answers_are_what_sample_makes(start, tiny_model, make_request):
    """Requests from several threads come back to who asked, as the bytes that `sample` makes."""
    engine, answers = start(), {}

    def ask(seed):
        answers[seed] = engine.submit("sd1", make_request(seed=seed, **TINY), rows=8).result(60)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = [make_request(seed=seed, **TINY) for seed in range(6)]
    for outcome in sample(tiny_model("sd1"), requests, batch_rows=8):
        assert np.array_equal(outcome.pixels, answers[outcome.request_index].pixels)


def test_every_call_is_reported_with_the_rows_that_worked(start, make_request):
    """One guided job takes two of four rows, in each of its three steps."""
    heard = []
    engine = start(notice=heard.append)
    engine.submit("sd1", make_request(steps=3, scheduler="ddim", **TINY), rows=4).result(60)
    assert heard == [StepDone(used=2, rows=4)] * 3


def test_requests_of_several_chunks_share_calls(start, copy_tiny, make_request):
    """Whoever asks while others run joins their batch."""
    model, calls, gate = copy_tiny("sd1"), [], threading.Event()
    hold_calls(model, calls, gate)
    engine = start(lambda name: model)
    first = engine.submit("sd1", make_request(steps=3, **TINY), rows=4)
    while not calls:
        time.sleep(0.01)
    second = engine.submit("sd1", make_request(steps=3, **TINY), rows=4)
    gate.set()
    assert isinstance(first.result(30), Sampled)
    assert isinstance(second.result(30), Sampled)
    assert len(calls) == 4


def test_models_are_served_in_the_order_they_were_asked_for(start, tiny_model, make_request):
    """A group waits for those before it and for no later one: nothing starves, and models change rarely."""
    loaded, gate = [], threading.Event()

    def load(name):
        gate.wait(30)
        loaded.append(name)
        return tiny_model(name)

    engine = start(load)
    order = ["sd1", "sd1", "sd2", "sd2", "sd1"]
    futures = [engine.submit(name, make_request(steps=1, **TINY), rows=4) for name in order]
    gate.set()
    assert all(isinstance(future.result(60), Sampled) for future in futures)
    assert loaded == ["sd1", "sd2", "sd1"]


def test_a_model_that_does_not_load_is_its_own_requests_failure(start, tiny_model, make_request):
    """Who asked for it gets the exception; requests for other models are served."""

    def load(name):
        if name == "broken":
            raise ModelLoadFailed("broken: no weights")
        return tiny_model(name)

    engine = start(load)
    broken = [engine.submit("broken", make_request(**TINY), rows=4) for _ in range(2)]
    fine = engine.submit("sd1", make_request(steps=1, **TINY), rows=4)
    for future in broken:
        with pytest.raises(ModelLoadFailed, match="no weights"):
            future.result(60)
    assert isinstance(fine.result(60), Sampled)


@pytest.mark.parametrize("error", [MemoryError("host"), SystemExit(3), RuntimeError("odd")])
def test_the_thread_outlives_what_it_meets(start, tiny_model, make_request, error):
    """Whatever loading raises, who waits hears of it and the next request is served."""
    errors = [error]

    def load(name):
        if errors:
            raise errors.pop()
        return tiny_model(name)

    engine = start(load)
    with pytest.raises(type(error)):
        engine.submit("sd1", make_request(steps=1, **TINY), rows=4).result(60)
    assert isinstance(engine.submit("sd1", make_request(steps=1, **TINY), rows=4).result(60), Sampled)


def test_an_impossible_request_is_answered(start, make_request):
    """A request that cannot be prepared has an outcome like any other."""
    outcome = start().submit("sd1", make_request(width=60), rows=4).result(60)
    assert isinstance(outcome, SampleFailed)
    assert isinstance(outcome.error, JobInvalid)


def test_what_has_no_rows_can_be_cancelled(start, copy_tiny, make_request):
    """A cancelled request is never rendered; one that has rows cannot be cancelled and is finished."""
    model, calls, gate = copy_tiny("sd1"), [], threading.Event()
    hold_calls(model, calls, gate)
    engine = start(lambda name: model)
    futures = [engine.submit("sd1", make_request(steps=2, **TINY), rows=2) for _ in range(3)]
    while not calls:
        time.sleep(0.01)
    assert [future.cancel() for future in futures] == [False, True, True]
    gate.set()
    assert isinstance(futures[0].result(30), Sampled)
    last = engine.submit("sd1", make_request(steps=2, **TINY), rows=2)
    assert isinstance(last.result(30), Sampled)
    assert len(calls) == 4


def test_an_answered_image_is_let_go(start, copy_tiny, make_request):
    """What has been answered belongs to who asked: the engine keeps no pixels, though it has not been idle since."""
    model, calls, gate = copy_tiny("sd1"), [], threading.Event()

    def hold_the_tenth(module, arguments):
        calls.append(1)
        if len(calls) == 10:
            gate.wait(60)

    model.networks.unet.register_forward_pre_hook(hold_the_tenth)
    engine = start(lambda name: model)
    asked = [engine.submit("sd1", make_request(steps=2, seed=seed, **TINY), rows=8) for seed in range(3)]
    busy = engine.submit("sd1", make_request(steps=12, **TINY), rows=8)
    images = [weakref.ref(asked.pop().result(60).pixels) for _ in range(3)]
    while len(calls) < 10:
        time.sleep(0.01)
    gc.collect()
    kept = sum(image() is not None for image in images)
    still_busy = not busy.done()
    gate.set()
    assert (kept, still_busy) == (0, True)
    assert isinstance(busy.result(60), Sampled)


def test_signs_of_life(start, copy_tiny, make_request):
    """Every step renews the engine's life; a step that hangs uses it up."""
    model, gate = copy_tiny("sd1"), threading.Event()
    engine = start(lambda name: model, stall_seconds=2.0)
    assert isinstance(engine.submit("sd1", make_request(steps=1, **TINY), rows=2).result(30), Sampled)
    assert engine.seconds_left() > 0
    hold_calls(model, [], gate)
    hanging = engine.submit("sd1", make_request(steps=1, **TINY), rows=2)
    deadline = time.monotonic() + 60
    while engine.seconds_left() > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.seconds_left() <= 0
    gate.set()
    assert isinstance(hanging.result(30), Sampled)
    assert engine.seconds_left() > 0


def test_closing_finishes_what_has_rows(tiny_model, make_request):
    """`close` cancels what waits and leaves no thread behind."""
    engine = Engine(tiny_model, stall_seconds=60.0, load_seconds=60.0)
    futures = [engine.submit("sd1", make_request(steps=1, **TINY), rows=2) for _ in range(4)]
    engine.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit("sd1", make_request(), rows=2)
