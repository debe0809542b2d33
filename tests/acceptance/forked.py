"""What a process of the tests runs that is forked where the libraries are imported: a worker, or the command line.

Run by its path, with the `Start` fields of `conftest.py` as globals. It does what `python -m worker` and `python -m
producer.cli` do, on the same code, without the five seconds that torch and the rest take to import. A local run's
worker is forked too, from a process that the command line has set aside before it did anything else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: Ours are imported afresh: what a test patches, and what a module reads as it is imported, come first.
_OURS = {"producer", "shared", "training", "worker"}


def enter(environment: Mapping[str, str], stdout: str, stderr: str) -> None:
    """Make this process one as the shell starts it: a group, variables, outputs and modules of its own."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout.flush()
    sys.stderr.flush()
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]


def run_worker(arguments: list[str], patch: str) -> None:
    """Do what `python -m worker` does, with what a test changes in it."""
    exec(patch, {"__name__": "__main__"})
    from shared.command_exit import run_command
    from worker.__main__ import main

    sys.argv[1:] = arguments
    sys.exit(run_command("printroom worker", main))


def run_command_line(arguments: list[str], patch: str) -> None:
    """Do what `python -m producer.cli` does, but for how a local run starts its worker, which alone is patched."""
    if arguments[:1] == ["render"]:
        aside = WorkerSetAside(patch)
        from producer.local import render as local

        local.subprocess = SimpleNamespace(Popen=aside.start, PIPE=subprocess.PIPE)
    from producer.cli import main

    sys.argv[:] = ["printroom", *arguments]
    main()


class WorkerSetAside:
    """A child that waits to become the worker of a local run; then, for its caller, a `subprocess.Popen`."""

    def __init__(self, patch: str) -> None:
        given, self._stdin = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._stdin)
            _become_worker(given, patch)
        os.close(given)

    def start(self, command: list[str], *, env: Mapping[str, str], stdout: Any, **_: Any) -> WorkerSetAside:
        """Let it run, as Popen does with a command."""
        assert command[:3] == [sys.executable, "-m", "worker"]
        order = {"arguments": command[3:], "environment": dict(env), "log": str(stdout.name)}
        os.write(self._stdin, json.dumps(order).encode() + b"\n")
        return self

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait until it ends; return its exit status."""
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> None:
        """Close its input, and wait."""
        os.close(self._stdin)
        self.wait()

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _become_worker(stdin: int, patch: str) -> None:
    """Wait for an order, then do as it says; end where none comes."""
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows belongs to the worker
        byte = os.read(stdin, 1)
        if not byte:
            os._exit(0)
        line += byte
    order = json.loads(line)
    os.dup2(stdin, 0)
    os.close(stdin)
    enter(order["environment"], order["log"], order["log"])
    run_worker(order["arguments"], patch)


def main(
    program: str,
    arguments: list[str],
    environment: Mapping[str, str],
    folder: str,
    stdout: str,
    stderr: str,
    patch: str,
) -> None:
    """Run a program to its end."""
    enter(environment, stdout, stderr)
    os.chdir(Path(folder))
    {"worker": run_worker, "command line": run_command_line}[program](arguments, patch)


if __name__ == "__main__":
    main(**globals()["START"])
