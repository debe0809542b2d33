"""`python -m worker`: what `printroom worker` runs. One process a device; `--device all` looks after several."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from shared.command_exit import DEBUG_OPTION, run_command
from shared.errors import PrintroomError
from shared.logs import set_up_logging
from shared.settings import Settings, load_settings

log = logging.getLogger(__name__)

#: A worker that dies is started again after this pause, so that a broken one does not spin.
_RESTART_PAUSE_SECONDS = 5.0

#: A heartbeat file older than this is a worker's that no longer beats.
_FRESH_SECONDS = 15.0

#: A worker that has not beaten for this long is ended, so that another takes its place: its heartbeat is a thread of
#: its own, which goes on while models load and while a full disk or a lost Redis is waited for.
_HUNG_SECONDS = 120.0


def main() -> int:
    """Run a worker, or one for each GPU. Returns the exit status."""
    arguments = _parse()
    # Until Celery takes the signal over there is nothing to drain: a worker told to stop while it starts just ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    overrides = {"models": (arguments.models,)} if arguments.models else {}
    settings = load_settings(**overrides)
    if arguments.also_model:  # of a local run, whose sweep names them by their paths
        settings = settings.model_copy(update={"models": (*settings.models, *arguments.also_model)})
    set_up_logging(settings.log_format, settings.log_level)
    if arguments.end_with_stdin:
        threading.Thread(target=_drain_at_end_of_input, name="stdin", daemon=True).start()
    if settings.heartbeat_file is not None:
        settings.heartbeat_file.unlink(
            missing_ok=True
        )  # an earlier life's: a health check would think it hung
    if arguments.device == "all":
        return _run_all(arguments.models, settings.heartbeat_file)
    try:
        return _run_one(settings, arguments.device, share_gpu=arguments.share_gpu)
    except PrintroomError:
        raise
    except Exception:
        if settings.log_format == "json":  # one line there; people ask for it with --debug
            log.critical("worker_failed", exc_info=True)
        raise


def _run_one(settings: Settings, device: str, *, share_gpu: bool) -> int:
    """Run the worker of one device, and log what takes so long before it is up."""
    log.info("loading_libraries")
    from worker.models.quiet import log_as_we_do

    log_as_we_do()
    from worker.app import run_worker

    return run_worker(settings, device=device, share_gpu=share_gpu)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="printroom worker", description="Take chunks and render them.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:N or all (one process a GPU)")
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--also-model", type=Path, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument(DEBUG_OPTION, action="store_true", help="show where in the code an error comes from")
    parser.add_argument(
        "--share-gpu", action="store_true", help="take a GPU although another worker of this machine has it"
    )
    parser.add_argument("--models", type=Path, help="folder of models (PRINTROOM_MODELS)")
    return parser.parse_args()


def _drain_at_end_of_input() -> None:
    """Drain when the process that started this one is gone, so that none is left behind."""
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run_all(models: Path | None, heartbeat_file: Path | None) -> int:
    """Keep one worker process for each GPU running; pass SIGTERM on and wait for all to drain."""
    from worker.device import refuse_unusable_driver, usable_gpus

    refuse_unusable_driver()
    devices = [f"cuda:{gpu.index}" for gpu in usable_gpus()] or ["cpu"]
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for process in processes.values():
            process.send_signal(signal.SIGTERM)

    beats = {device: _beat_file(heartbeat_file, device) for device in devices}
    processes = {device: _start(device, models, beats[device]) for device in devices}
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        time.sleep(0.5)
        if heartbeat_file is not None and all(_fresh(file) for file in beats.values()):
            heartbeat_file.touch()
        for device, process in processes.items():
            if _hung(beats[device]):
                log.error("worker_hangs", extra={"device": device, "silent_seconds": _HUNG_SECONDS})
                process.kill()
                process.wait()
            if process.poll() is not None and not stopping:
                log.error("worker_died", extra={"device": device, "status": process.returncode})
                time.sleep(_RESTART_PAUSE_SECONDS)
                if not stopping:
                    processes[device] = _start(device, models, beats[device])
    return max(abs(process.wait()) for process in processes.values())


def _beat_file(file: Path | None, device: str) -> Path | None:
    """Return where one of several workers beats: a health check must not see only the liveliest."""
    return file and file.with_name(f"{file.name}.{device.replace(':', '')}")


def _fresh(file: Path | None) -> bool:
    return file is not None and file.exists() and time.time() - file.stat().st_mtime < _FRESH_SECONDS


def _hung(file: Path | None) -> bool:
    """Whether a worker that has been up has not beaten for so long that only a new process helps."""
    return file is not None and file.exists() and time.time() - file.stat().st_mtime > _HUNG_SECONDS


def _start(device: str, models: Path | None, heartbeat_file: Path | None) -> subprocess.Popen[bytes]:
    extra = ["--models", str(models)] if models else []
    command = [sys.executable, "-m", "worker", "--device", device, "--end-with-stdin", *extra]
    # Their input is a pipe of ours: when this process is gone, even by kill -9, they drain.
    if heartbeat_file is not None:
        heartbeat_file.unlink(missing_ok=True)
    beat = {"PRINTROOM_HEARTBEAT_FILE": str(heartbeat_file)} if heartbeat_file else {}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, env={**os.environ, **beat}, start_new_session=True
    )


if __name__ == "__main__":
    sys.exit(run_command("printroom worker", main))
