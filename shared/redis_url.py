"""Turns the Redis URL of the settings into an address and options for redis-py and kombu. Opens no connection.

The two read options of a URL differently: redis-py takes any, and kombu fails on nearly all. So they are read once,
here, and handed to each in its own way; an option that cannot be handed to both is refused.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: A worker's threads wait for each other below this.
_CONNECTIONS_MIN = 4

_SCHEMES = ("redis", "rediss")

#: Addresses of Redis that are written in another way, and what to write instead.
_OTHER_SCHEMES = {
    "unix": "a Unix socket is not supported: let Redis listen on 127.0.0.1 and use redis://127.0.0.1:6379/0",
    "redis+socket": "a Unix socket is not supported: let Redis listen on 127.0.0.1 and use redis://127.0.0.1:6379/0",
    "sentinel": "Sentinel is not supported: name the primary, or a proxy or a DNS name that follows it",
    "redis+sentinel": "Sentinel is not supported: name the primary, or a proxy or a DNS name that follows it",
    "redis+cluster": "Redis Cluster is not supported: use a server of one primary",
}

#: Options that look right and have their place elsewhere.
_ELSEWHERE = {
    "password": "write it before the host: redis://:PASSWORD@host:port/db",
    "username": "write it before the host: redis://USER:PASSWORD@host:port/db",
    "visibility_timeout": "set PRINTROOM_VISIBILITY_TIMEOUT_SECONDS",
    "global_keyprefix": "set PRINTROOM_REDIS_PREFIX",
    "decode_responses": "leave it out: Printroom keeps bytes in Redis",
    "virtual_host": "write the database after the host: redis://host:port/DB",
    "ssl": "write rediss:// for TLS",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisAddress:
    """Where Redis is, and how it is spoken to."""

    #: scheme://user:password@host:port/db, without any option. Holds the password.
    url: str
    #: Whether it is TLS.
    tls: bool
    #: Options of a connection, by redis-py's names, which are kombu's too.
    options: Mapping[str, Any]
    #: Options of TLS.
    tls_options: Mapping[str, Any]
    #: Connections a client may have; None for no bound.
    max_connections: int | None
    #: 2 or 3; None for redis-py's own choice.
    protocol: int | None


def parse_redis_url(url: str) -> RedisAddress:
    """Read a Redis URL.

    Raises: ValueError with what is wrong and the fix, in one line without the password.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in _OTHER_SCHEMES:
        raise ValueError(_OTHER_SCHEMES[scheme])
    if scheme not in _SCHEMES:
        raise ValueError(
            "use redis://host:port/db, with a password redis://:PASSWORD@host:port/db; rediss:// for TLS"
        )
    parts = _split(url)
    values = _options(parts.query, tls=scheme == "rediss")
    database = _database(parts.path, values.pop("db", None))
    tls_options = {name: values.pop(name) for name in list(values) if name.startswith("ssl_")}
    _check_tls_files(tls_options)
    return RedisAddress(
        url=f"{scheme}://{parts.netloc}/{database}",
        tls=scheme == "rediss",
        max_connections=values.pop("max_connections", None),
        protocol=values.pop("protocol", None),
        options=values,
        tls_options=tls_options,
    )


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:  # redis-py and kombu take a 0 for nothing said: 6379
        # The library's own text quotes what stands before a stray slash: part of the password.
        said = "the port is no number from 1 to 65535"
        raise ValueError(f"{said}; in a password, write / ? # @ as %2F %3F %23 %40")
    if parts.fragment or "#" in url:
        raise ValueError("a # in it; in a password, write / ? # @ as %2F %3F %23 %40")
    if "," in parts.netloc.rpartition("@")[2] or ";" in url.rpartition("@")[2]:
        raise ValueError("several hosts: name one, the primary")
    if any(character.isspace() for character in url):
        raise ValueError("a space in it; in a password, write it as %20")
    return parts


def _database(path: str, option: int | None) -> int:
    text = path.removeprefix("/").removesuffix("/")
    if text and not re.fullmatch("[0-9]{1,5}", text):
        raise ValueError("the part after the host is no number of a database: use redis://host:port/0")
    if text and option is not None and int(text) != option:
        raise ValueError(f"/{text} and db={option} name two databases: leave one out")
    return int(text) if text else option or 0


def _options(query: str, *, tls: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _ELSEWHERE:
            raise ValueError(f"option {name}: {_ELSEWHERE[name]}")
        read = _READ.get(name)
        if read is None:
            raise ValueError(f"option {_shown(name)}: not known; there are: {', '.join(sorted(_READ))}")
        if name in values:
            raise ValueError(f"option {name} stands there twice")
        if name.startswith("ssl_") and not tls:
            raise ValueError(f"option {name}: goes with rediss://, which is TLS")
        try:
            values[name] = read(text)
        except ValueError as error:
            raise ValueError(f"option {name}={_shown(text)}: {error}") from None
    return values


def _shown(text: str) -> str:
    """Return a text of the query, cut where a password with a stray ? could begin."""
    return repr(text.partition("@")[0][:40] if "@" not in text else "...")


def _integer(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"use a whole number from {least} to {most}")
        return int(text)

    return read


def _seconds(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not least <= float(text) <= 3600:
            raise ValueError(f"use seconds from {least:g} to 3600")
        return float(text)

    return read


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError("use true or false")
    return known[text.lower()]


def _client_name(text: str) -> str:
    if not re.fullmatch("[!-~]{1,100}", text):
        raise ValueError("use 1 to 100 visible characters of ASCII")
    return text


def _certificates(text: str) -> str:
    name = text.lower().removeprefix("cert_")
    if name not in ("required", "optional", "none"):
        raise ValueError("use required, optional or none")
    return name


def _file(text: str) -> str:
    if not text:
        raise ValueError("use the path of a file")
    return text


_READ: dict[str, Callable[[str], Any]] = {
    "db": _integer(0, 99_999),
    "socket_timeout": _seconds(1.0),
    "socket_connect_timeout": _seconds(0.1),
    "socket_keepalive": _boolean,
    "health_check_interval": _integer(0, 3600),
    "retry_on_timeout": _boolean,
    "client_name": _client_name,
    "max_connections": _integer(_CONNECTIONS_MIN, 100_000),
    "protocol": _integer(2, 3),
    "ssl_ca_certs": _file,
    "ssl_ca_path": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_cert_reqs": _certificates,
    "ssl_check_hostname": _boolean,
}


def _check_tls_files(options: Mapping[str, Any]) -> None:
    """Read the certificates that options name, as a connection would."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    own, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if key and not own:
        raise ValueError("option ssl_keyfile: goes with ssl_certfile")
    name = "ssl_ca_certs" if file else "ssl_ca_path"
    try:
        if file or folder:
            context.load_verify_locations(file, folder)
        name = "ssl_certfile"
        if own:
            context.load_cert_chain(own, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"option {name}={options[name]!r}: cannot be read: {reason}") from None
