"""Training in small: that a run which was stopped ends where it would have, and what comes out of a whole run."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.multiprocessing import start_processes

from training.portraits import train as training_run
from training.portraits.measure import load, render
from training.portraits.recipe import BUDGETS
from training.portraits.stage import Stage, StageSettings
from training.portraits.train import train

SETTINGS = StageSettings(
    name="line", steps=40, learning_rate=0.05, last_learning_rate=1e-4, ema=0.9, save_every=8, seed=0
)


def _stage(folder, settings=SETTINGS):
    torch.manual_seed(settings.seed)
    return Stage({"line": torch.nn.Linear(3, 1)}, settings, folder)


def _run(stage, stop_at=None):
    """Learn to add three numbers; stopped by a Ctrl-C at a step."""

    def loss_of(step):
        if step == stop_at:
            raise KeyboardInterrupt
        numbers = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return (stage.modules["line"](numbers)[:, 0] - numbers.sum(dim=1)).square().mean()

    stage.run(loss_of, lambda: "")


def _weights(stage):
    return [
        parameter.detach().clone()
        for parameter in (*stage.modules.parameters(), *stage.averages.parameters())
    ]


def _equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_stopped_stage_ends_as_if_it_had_not_been(tmp_path):
    """Weights, averages, optimizer and learning rate go on from the last checkpoint, to the same end."""
    (tmp_path / "stopped").mkdir()
    whole, stopped = _stage(tmp_path), _stage(tmp_path / "stopped")
    _run(whole)
    with pytest.raises(KeyboardInterrupt):
        _run(stopped, stop_at=30)
    resumed = _stage(tmp_path / "stopped")
    resumed.resume()
    assert resumed.step == 24
    assert not _equal(_weights(resumed), _weights(whole))
    _run(resumed)
    assert resumed.step == SETTINGS.steps
    assert _equal(_weights(resumed), _weights(whole))


def test_a_finished_stage_takes_no_step_more(tmp_path):
    """Resumed at its end it is what it was."""
    whole = _stage(tmp_path)
    _run(whole)
    again = _stage(tmp_path)
    again.resume()
    _run(again, stop_at=SETTINGS.steps - 1)
    assert _equal(_weights(again), _weights(whole))


def test_a_stage_starts_from_the_averages_of_another_run(tmp_path):
    """That is what the other run was measured with; the optimizer and the steps are new."""
    (tmp_path / "more").mkdir()
    first = _stage(tmp_path)
    _run(first)
    more = _stage(tmp_path / "more", replace(SETTINGS, seed=1))
    more.start_from(tmp_path)
    averages = list(first.averages.parameters())
    assert _equal(_weights(more), [*averages, *averages])
    assert more.step == 0


def test_some_parameters_learn_more_slowly(tmp_path):
    """A factor of zero keeps a parameter as it began, but for what weight decay of rate zero takes: nothing."""
    stage = _stage(tmp_path, replace(SETTINGS, factors=(("weight", 0.0),)))
    before = _weights(stage)
    _run(stage)
    (weight, bias), (weight_before, bias_before) = _weights(stage)[:2], before[:2]
    assert torch.equal(weight, weight_before)
    assert not torch.equal(bias, bias_before)


@pytest.fixture
def forked_processes(monkeypatch):
    """Let training fork its processes where torch is imported: four imports of seconds less."""
    multiprocessing.set_forkserver_preload(["training.portraits.train"])
    monkeypatch.setattr(training_run, "spawn", partial(start_processes, start_method="forkserver"))


@pytest.mark.timeout(600)  # half a minute of two processes, with nothing beside them
def test_a_whole_run_gives_a_model_that_renders(tmp_path, forked_processes):
    """Two processes side by side, all stages in a few steps; what is done is not done again by a resumed run."""
    settings = {"steps": 4, "save_every": 4}
    recipe = replace(
        BUDGETS["cpu"],
        vae_pictures=60,
        pictures=240,
        vae_batch=2,
        batch=8,
        vocabulary_captions=400,
        directions_portraits=10,
        vae=replace(BUDGETS["cpu"].vae, **settings),
        decoder=replace(BUDGETS["cpu"].decoder, **settings),
        denoiser=replace(BUDGETS["cpu"].denoiser, **settings),
    )
    work, model = tmp_path / "work", tmp_path / "portraits"
    train(recipe, work=work, model=model, resume=False)
    files = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    (picture,) = render(load(model), "portrait photo of a man", "hat", seeds=[1], guidance=5.0, steps=3)
    assert picture.shape == (64, 64, 3)
    assert np.ptp(picture) > 0

    checkpoints = {path: path.stat().st_mtime_ns for path in work.glob("*.checkpoint.pt")}
    assert {path.name.split(".")[0] for path in checkpoints} == {"vae", "denoiser", "decoder"}
    train(recipe, work=work, model=model, resume=True)
    assert {path: path.stat().st_mtime_ns for path in work.glob("*.checkpoint.pt")} == checkpoints
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == files
