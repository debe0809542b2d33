"""Settings: read once, all mistakes at once, no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.errors import SettingsError
from shared.settings import Settings, load_settings

PASSWORD = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PRINTROOM_{name.upper()}", raising=False)


def test_every_wrong_variable_at_once(monkeypatch):
    """Each wrong variable has one line with its name, its value and the mend."""
    wrong = {
        "PRINTROOM_MAX_ATTEMPTS": "0",
        "PRINTROOM_LOG_FORMAT": "xml",
        "PRINTROOM_BATCH_ROWS": "many",
        "PRINTROOM_VISIBILITY_TIMEOUT_SECONDS": "1",
        "PRINTROOM_S3_CHECKSUMS": "never",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    lines = str(caught.value).splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == sorted(
        f"{name}={value}" for name, value in wrong.items()
    )
    assert all(line.endswith("(see .env.example)") for line in lines)
    assert "PRINTROOM_MAX_ATTEMPTS=0: Input should be greater than or equal to 1 (see .env.example)" in lines


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"http://:{PASSWORD}@host:6379/0", "use redis://"),
        (f":{PASSWORD}@host", "use redis://"),
        (f"redis://:{PASSWORD}@host:port/0", "port is no number"),
        (f"redis://:{PASSWORD}/and/more@host:6379/0", "port is no number"),
        (f"rediss://:{PASSWORD}@host:99999/0", "port is no number"),
    ],
)
def test_a_wrong_url_keeps_its_password(monkeypatch, url, said):
    """A Redis URL that is refused is not shown, nor any part of it, in the error or in what caused it."""
    monkeypatch.setenv("PRINTROOM_REDIS_URL", url)
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings()
    assert "hunter" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_password_is_masked(monkeypatch):
    """Neither repr, str nor a dump of the settings shows the password; asked for, it is there."""
    url = f"rediss://:{PASSWORD}@host:6379/0"
    monkeypatch.setenv("PRINTROOM_REDIS_URL", url)
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        assert PASSWORD not in shown
    assert url == settings.redis_url.get_secret_value()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/models", (Path("/models"),)),
        ("/models:other", (Path("/models"), Path("other"))),
        ("/models::", (Path("/models"),)),
        ("/with space:/x", (Path("/with space"), Path("/x"))),
    ],
)
def test_model_folders(monkeypatch, value, expected):
    """Folders are separated as in PATH."""
    monkeypatch.setenv("PRINTROOM_MODELS", value)
    assert expected == load_settings().models


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("org/name", ("org/name",)),
        ("org/a,org/b@main", ("org/a", "org/b@main")),
        (" org/a,\n org/b , ", ("org/a", "org/b")),
    ],
)
def test_hub_models(monkeypatch, value, expected):
    """Hub models are separated by commas, spaces or lines."""
    monkeypatch.setenv("PRINTROOM_HUB_MODELS", value)
    assert expected == load_settings().hub_models


def test_an_empty_variable_is_none(monkeypatch):
    """A variable set to nothing, as `.env` files have them, leaves the default."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"PRINTROOM_{name.upper()}", "")
    assert Settings.model_construct().model_dump() == load_settings().model_dump()


def test_frozen():
    """Settings cannot be changed once read."""
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().store = "elsewhere"


def test_overrides_win(monkeypatch):
    """What a caller says goes before the environment."""
    monkeypatch.setenv("PRINTROOM_STORE", "s3://environment")
    assert load_settings(store="here").store == "here"
    assert load_settings().store == "s3://environment"


def test_cache_dir(monkeypatch, tmp_path):
    """A cache folder may be said from the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / "kept" == load_settings(cache=Path("~/kept")).cache_dir
