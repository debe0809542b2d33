"""Which device a worker takes: real locks, GPUs as torch would show them."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from shared.errors import SettingsError
from worker import device as device_module
from worker.device import choose_device
from worker.device_claim import claim, wait_for_claim


@pytest.fixture
def gpus(monkeypatch):
    """Let torch show some GPUs, by their UUIDs."""

    def show(*ids):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(ids))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(ids))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=ids[index])
        )
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {ids[device.index]}")

    return show


def test_replicas_share_out_the_gpus(gpus, tmp_path):
    """Each worker with `auto` takes the next free GPU, whichever a container lists first."""
    gpus("GPU-a", "GPU-b")
    first = choose_device("auto", batch_rows=0, claims=tmp_path)
    gpus("GPU-b", "GPU-a")
    second = choose_device("auto", batch_rows=0, claims=tmp_path)
    assert (first.name, second.name, second.torch_device.index) == ("GPU GPU-a", "GPU GPU-b", 0)


def test_a_taken_gpu_is_waited_for(gpus, tmp_path):
    """A worker beyond the number of GPUs waits, shows that it lives, and takes over what is let go."""
    gpus("GPU-a")
    first = choose_device("cuda:0", batch_rows=0, claims=tmp_path)
    waits = []

    def on_wait():
        waits.append(claim(tmp_path, "GPU-a"))
        first.claim.release()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.device_claim._POLL_SECONDS", 0.0)
        second = choose_device("auto", batch_rows=0, claims=tmp_path, on_wait=on_wait)
    assert (waits, second.name) == ([None], "GPU GPU-a")


def test_a_gpu_may_be_shared(gpus, tmp_path):
    """Without a folder for claims a taken GPU is taken as well: a local run beside a worker."""
    gpus("GPU-a")
    assert claim(tmp_path, "GPU-a") is not None
    assert choose_device("auto", batch_rows=0).claim is None


def test_a_dead_process_holds_no_gpu(tmp_path):
    """A killed worker's GPU is free at once."""
    code = (
        "import sys, time; from pathlib import Path; from worker.device_claim import claim\n"
        f"assert claim(Path({str(tmp_path)!r}), 'GPU-a'); print('taken', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "taken\n"
    assert claim(tmp_path, "GPU-a") is None
    holder.kill()
    holder.communicate()
    assert wait_for_claim(tmp_path, ["GPU-a"])[0] == 0


def test_an_old_driver_is_no_cpu(gpus, tmp_path, monkeypatch):
    """A machine whose GPU torch cannot use says so; it renders on the CPU only when told to."""
    gpus()
    driver = tmp_path / "version"
    monkeypatch.setattr(device_module, "_DRIVER_VERSION", driver)
    assert choose_device("auto", batch_rows=0).torch_device.type == "cpu"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03\nGCC version: 12\n")
    with pytest.raises(
        SettingsError, match=r"NVIDIA driver \(NVRM version: .*535.54.03\), but torch .* sees no GPU"
    ):
        choose_device("auto", batch_rows=0)
    assert choose_device("cpu", batch_rows=0).torch_device.type == "cpu"


@pytest.mark.parametrize(
    ("spec", "said"), [("cuda:1", "this machine has 1 CUDA device"), ("tpu", "use auto"), ("mps", "use auto")]
)
def test_a_device_that_is_not_there(gpus, spec, said):
    """A wrong device is a mistake to fix."""
    gpus("GPU-a")
    with pytest.raises(SettingsError, match=said):
        choose_device(spec, batch_rows=0)
