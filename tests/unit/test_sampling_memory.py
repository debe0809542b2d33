"""R: what a sweep gets, what fits a device, what is remembered of it."""

import json

import pytest
import torch

from worker.sampling.rows import capacity
from worker.sampling.rows.capacity import LADDER, RowCeilings, choose_rows, fitting_rows

SHAPE = (512, 512, 1)


@pytest.mark.parametrize(
    ("wanted", "limit", "rows"),
    [(1, 16, 2), (2, 16, 2), (3, 16, 4), (9, 16, 16), (500, 16, 16), (500, 1000, 64), (7, 5, 4), (1, 1, 2)],
)
def test_r_follows_from_the_sweep(wanted, limit, rows):
    """The next size of the ladder, and never more than the limit."""
    assert choose_rows(wanted, limit=limit) == rows


def test_a_cpu_has_no_ceiling(tiny_model):
    """Nothing is measured on a CPU."""
    assert fitting_rows(tiny_model("sd1"), SHAPE) is None
    assert RowCeilings().rows(tiny_model("sd1"), SHAPE, 48) == 48


def test_a_device_is_measured_once_and_remembered(tmp_path, tiny_model):
    """One measurement a model, shape and device; the next process reads the file; a smaller wish stays small."""
    measured, path = [], tmp_path / "deep" / "rows.json"

    def measure(model, shape):
        measured.append(shape)
        return 24

    model = tiny_model("sd1")
    ceilings = RowCeilings(path, device="gpu", measure=measure)
    assert [ceilings.rows(model, SHAPE, wanted) for wanted in (64, 8, 64)] == [24, 8, 24]
    again = RowCeilings(path, device="gpu", measure=measure)
    assert again.rows(model, SHAPE, 64) == 24
    assert measured == [SHAPE]
    assert RowCeilings(path, device="other gpu", measure=measure).rows(model, SHAPE, 64) == 24
    assert RowCeilings(path, device="gpu", measure=measure).rows(model, (1024, 1024, 1), 64) == 24
    assert measured == [SHAPE, SHAPE, (1024, 1024, 1)]
    assert len(json.loads(path.read_text())) == 3


def test_running_out_of_memory_lowers_the_ceiling(tmp_path, tiny_model):
    """What did not fit is not tried again, in this process or the next."""
    path, model = tmp_path / "rows.json", tiny_model("sd1")
    ceilings = RowCeilings(path, device="gpu", measure=lambda model, shape: 32)
    assert ceilings.rows(model, SHAPE, 64) == 32
    ceilings.lower(model, SHAPE, 16)
    assert ceilings.rows(model, SHAPE, 64) == 16
    assert RowCeilings(path, device="gpu", measure=lambda model, shape: 32).rows(model, SHAPE, 64) == 16


def test_another_workers_ceilings_stay_in_the_file(tmp_path, tiny_model):
    """Two workers that opened the same file: what one measures does not erase what the other wrote meanwhile."""
    path, model = tmp_path / "rows.json", tiny_model("sd1")
    one, other = (RowCeilings(path, device=device, measure=lambda model, shape: 24) for device in ("a", "b"))
    one.rows(model, SHAPE, 64)
    other.rows(model, SHAPE, 64)
    one.lower(model, SHAPE, 8)
    kept = {json.loads(key)[0]: rows for key, rows in json.loads(path.read_text()).items()}
    assert kept == {"a": 8, "b": 24}


@pytest.mark.parametrize(("free", "rows"), [(10_000, 64), (4_000, 24), (1_000, 2), (0, LADDER[0])])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_rows_that_fit_follow_from_measured_calls(tiny_model, monkeypatch, family, free, rows):
    """100 bytes a row, 200 fixed and 500 for decoding, with a tenth of what is free left alone."""
    seen, model = [], tiny_model(family)

    def peak_bytes(model, action):
        with torch.inference_mode():
            hook = model.networks.unet.register_forward_pre_hook(
                lambda module, given: seen.append(len(given[0]))
            )
            before = len(seen)
            action()
            hook.remove()
        return 200 + 100 * seen[-1] if len(seen) > before else 500

    monkeypatch.setattr(capacity, "_peak_bytes", peak_bytes)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert capacity._measured_rows(model, (64, 96, 2)) == rows
    assert seen == [2, 4]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": "b"}'])
def test_a_damaged_file_is_measured_anew(tmp_path, tiny_model, content):
    """A file that cannot be read costs a measurement, not the worker."""
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert RowCeilings(path, measure=lambda model, shape: LADDER[2]).rows(tiny_model("sd1"), SHAPE, 64) == 8


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path, tiny_model, caplog):
    """A read-only folder costs the memory of the next process, and a warning."""
    (tmp_path / "blocked").write_text("a file where a folder should be")
    ceilings = RowCeilings(tmp_path / "blocked" / "rows.json", measure=lambda model, shape: 4)
    assert ceilings.rows(tiny_model("sd1"), SHAPE, 64) == 4
    assert "rows_not_kept" in caplog.text
