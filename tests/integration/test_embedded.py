"""The Valkey of a local run: nobody else on the machine gets in, and it ends with its parent."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pytest
import redis

from producer.local import valkey as embedded
from producer.local.valkey import EmbeddedValkey


def test_it_asks_for_the_password_from_the_first_moment(monkeypatch):
    """Its port opens only once it has a password: a client without one is never let in."""
    order = []
    plain = redis.Redis.config_set

    def config_set(self, name, value, *more, **named):
        order.append(name)
        return plain(self, name, value, *more, **named)

    monkeypatch.setattr(redis.Redis, "config_set", config_set)
    monkeypatch.setattr("sys.stdin", type("Closed", (), {"read": staticmethod(lambda: "")}))
    embedded._serve()
    assert order == ["requirepass", "port"]


def test_with_and_without_the_password():
    """The address works as it stands; without its password, nothing does; afterwards nobody listens there."""
    with EmbeddedValkey() as server:
        address = urlsplit(server.url)
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.config_get("bind")["bind"] == "127.0.0.1"
            assert client.config_get("save")["save"] == ""
        with (
            redis.Redis(host=address.hostname, port=address.port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex((address.hostname, address.port)):
                return
        time.sleep(0.1)
    raise AssertionError("still there")


def test_a_port_that_is_taken_meanwhile(monkeypatch):
    """The server tries another port where somebody was faster."""

    class Client:
        tried: list[int] = []  # noqa: RUF012

        def config_set(self, name, value):
            self.tried.append(value)
            if len(self.tried) < 3:
                raise redis.ResponseError("Unable to listen on this port")

    assert embedded._listen(Client()) == Client.tried[-1]
    assert len(Client.tried) == 3
