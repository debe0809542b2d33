"""Settings: read once, all mistakes at once, no secret shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from shared.broker import make_app
from shared.errors import SettingsError
from shared.redis_client import connect
from shared.settings import Settings, load_settings

PASSWORD = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PRINTROOM_{name.upper()}", raising=False)


def test_every_wrong_variable_at_once(monkeypatch):
    """Each wrong variable has one line with its name, its value and the fix."""
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
        (f"rediss://:{PASSWORD}@host:99999/0", "port is no number from 1 to 65535"),
        (f"redis://:{PASSWORD}@host:0/0", "port is no number from 1 to 65535"),
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


OPTIONS = [
    "socket_timeout=5",
    "socket_connect_timeout=2.5",
    "socket_keepalive=no",
    "protocol=2",
    "protocol=3",
    "client_name=x",
    "max_connections=9",
    "health_check_interval=7",
    "retry_on_timeout=true",
    "db=3",
]


@pytest.mark.parametrize("query", [*OPTIONS, "&".join(OPTIONS[:4])])
def test_options_of_redis_that_work(query):
    """An option of the URL is handed to redis-py and to kombu alike, and neither is given a URL with a query."""
    settings = load_settings(redis_url=f"redis://:{PASSWORD}@host:6379/?{query}")
    client, app = connect(settings), make_app(settings)
    with app.connection_for_write() as connection:
        transport = connection.get_transport_cls()
        channel = object.__new__(transport.Channel)
        channel.connection = SimpleNamespace(client=connection, default_port=6379)
        for name, value in connection.transport_options.items():
            setattr(channel, name, value)
        theirs = channel._connparams()
    ours = client.connection_pool.connection_kwargs
    for name in {text.partition("=")[0] for text in query.split("&")} - {"protocol", "max_connections"}:
        assert ours[name] == theirs[name], name
    assert "protocol=" not in query or ours["protocol"] == theirs["protocol"]
    assert "max_connections=9" not in query or (client.connection_pool.max_connections, 9) == (
        9, theirs["max_connections"],
    )  # fmt: skip
    assert (ours["db"], theirs["db"]) == ((3, 3) if "db=3" in query else (0, 0))
    app.close()
    client.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/?socket_timeout=abc", "socket_timeout='abc': use seconds from 1 to 3600"),
        ("redis://h/?socket_timeout=", "socket_timeout='': use seconds"),
        ("redis://h/?socket_timeout=nan", "use seconds"),
        ("redis://h/?protocol=4", "use a whole number from 2 to 3"),
        ("redis://h/?max_connections=1", "use a whole number from 4"),
        ("redis://h/?decode_responses=true", "decode_responses: leave it out: Printroom keeps bytes"),
        ("redis://h/?client_name=a%20b", "visible characters"),
        ("redis://h/?retry_on_timeout=perhaps", "use true or false"),
        ("redis://h/?visibility_timeout=9", "set PRINTROOM_VISIBILITY_TIMEOUT_SECONDS"),
        (f"redis://h/?password={PASSWORD}", "write it before the host"),
        ("redis://h/?nonsense=1", "'nonsense': not known; there are: client_name, db,"),
        ("redis://h/?db=1&db=2", "db stands there twice"),
        ("redis://h/1?db=2", "name two databases"),
        ("redis://h/abc", "no number of a database"),
        ("redis://h/0/1", "no number of a database"),
        ("redis://h/?ssl_cert_reqs=none", "goes with rediss://"),
        ("rediss://h/?ssl_cert_reqs=perhaps", "use required, optional or none"),
        ("rediss://h/?ssl_ca_certs=/no/such.pem", "ssl_ca_certs='/no/such.pem': cannot be read: No such file"),
        ("rediss://h/?ssl_keyfile=/x", "goes with ssl_certfile"),
        ("unix:///run/redis.sock", "a Unix socket is not supported"),
        ("redis+socket:///run/redis.sock", "a Unix socket is not supported"),
        ("sentinel://h:26379", "Sentinel is not supported"),
        ("redis://a:6379,b:6379/0", "the port is no number|several hosts"),
        ("redis://a:6379/0;redis://b:6379/0", "several hosts"),
        (f"redis://:{PASSWORD}#x@h/0", "a # in it|port is no number"),
        (f"redis://:{PASSWORD}?x@h/0", "option|port is no number"),
    ],
)  # fmt: skip
def test_options_of_redis_that_do_not(url, said):
    """What redis-py or kombu would fail on later, or would take for something else, is refused in one line."""
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings(redis_url=url)
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"redis_prefix": "a{b}"}, "PRINTROOM_REDIS_PREFIX=a{b}: use 1 to 100 letters"),
        ({"redis_prefix": "my room:"}, "PRINTROOM_REDIS_PREFIX=my room:: use"),
        ({"redis_prefix": ""}, "use 1 to 100 letters"),
        ({"heartbeat_seconds": 60}, "less than or equal to 10"),
        ({"stall_seconds": float("inf")}, "finite"),
        ({"visibility_timeout_seconds": 4, "restore_interval_seconds": 9}, "RESTORE_INTERVAL_SECONDS=9: more"),
        ({"s3_region": "us east"}, "use a region's name"),
        ({"store": "s3:/prints"}, "PRINTROOM_STORE=s3:/prints: store s3:/prints: two slashes"),
        ({"s3_endpoint_url": "host:8333"}, "PRINTROOM_S3_ENDPOINT_URL=host:8333: .*use http://host:port"),
        ({"store": "s3://prints/t2", "s3_endpoint_url": "http://h:8333/prints"}, "use http://h:8333 "),
        ({"store": "s3://prints", "s3_endpoint_url": "http://prints.s3.h"}, "PRINTROOM_S3_ENDPOINT_URL: .*use http://s3.h"),
        ({"s3_endpoint_url": f"http://k:{PASSWORD}@h"}, "no credentials in the URL"),
        ({"store": f"s3://k:{PASSWORD}@bucket"}, "no credentials in the address"),
    ],
)  # fmt: skip
def test_values_that_cannot_work(values, said):
    """A value that would fail later, alone or beside another, is refused when settings are read, with the fix."""
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings(**values)
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter" not in str(caught.value)
