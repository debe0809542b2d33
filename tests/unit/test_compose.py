"""The compose file and the worker's health check: limits, tags, and a hung worker's end."""

import os
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest
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
