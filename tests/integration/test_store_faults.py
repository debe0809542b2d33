"""S3 that fails: a proxy before a real server answers wrongly, slowly or not at all, then behaves."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from shared.errors import ObjectMissing, StoreDenied, StoreFull, StoreUnavailable
from shared.store import s3
from shared.store.s3 import S3Store, backoff_seconds

PNG = "image/png"

#: Longer than the stores of these tests wait for an answer.
READ_TIMEOUT_SECONDS = 2.0


def _error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said so</Message></Error>".encode()


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to a server, after the faults in `faults`, one a request, have been spent."""

    daemon_threads = True

    def __init__(self, upstream_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.upstream_port = upstream_port
        #: Faults still to come; a fault named `always` never ends.
        self.faults: list[str] = []
        #: Requests seen, as (method, fault or "").
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Base URL of the proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, method: str) -> str:
        """Take the next fault, "" when there is none left, and note the request."""
        with self._lock:
            fault = self.faults[0] if self.faults else ""
            if fault and not fault.startswith("always "):
                self.faults.pop(0)
            self.seen.append((method, fault))
            return fault.removeprefix("always ")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients leave in the middle here."""


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault(self.command)
        if fault.isdigit():
            self._answer(
                int(fault),
                {},
                _error_body({"503": "SlowDown", "507": "XMinioStorageFull"}.get(fault, "InternalError")),
            )
        elif fault == "reset":
            self._reset()
        elif fault == "garbage":
            self._answer(200, {}, b"<html>a captive portal")
        else:
            if fault == "slow":
                time.sleep(READ_TIMEOUT_SECONDS * 2)
            if fault == "damage upload":
                body = _damaged(body)
            self._answer(*self._upstream(body), fault=fault)

    def _reset(self) -> None:
        """End the connection at once, as a router does that has forgotten it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = _pass_on  # noqa: N815  (http.server's names)

    def _upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=10)
        ) as upstream:
            upstream.request(self.command, self.path, body=body, headers=headers)
            answer = upstream.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, fault: str = "") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "damage download":
            body = _damaged(body)
        if fault == "reset download":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(0.1)  # half of it has arrived when the connection ends
            self._reset()
            return
        if fault == "cut download":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


def _damaged(body: bytes) -> bytes:
    """Return a body of the same length with its last byte changed."""
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.fixture
def proxy(seaweed_server: Any) -> Iterator[FaultProxy]:
    """A proxy before the shared SeaweedFS, without faults yet."""
    with FaultProxy(seaweed_server.port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def make_store(seaweed_server: Any, proxy: FaultProxy, key_prefix: str) -> Callable[..., S3Store]:
    """A function that makes a store behind the proxy."""

    def make(**options: Any) -> S3Store:
        quick = {"endpoint_url": proxy.url, "read_timeout_seconds": READ_TIMEOUT_SECONDS}
        store: S3Store = seaweed_server.store(key_prefix, **{**quick, **options})
        return store

    return make


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "reset", "slow", "damage upload"])
def test_put_survives(fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A put that fails three times in any transient way is tried again and ends with the right bytes."""
    store = make_store()
    proxy.faults = [fault] * (1 if fault == "slow" else 3)
    times = len(proxy.faults)
    store.put("a", b"pixels", content_type=PNG)
    assert proxy.seen == [("PUT", fault)] * times + [("PUT", "")]
    assert store.get("a") == b"pixels"


@pytest.mark.parametrize(
    "fault", ["500", "503", "reset", "slow", "damage download", "cut download", "reset download"]
)
def test_get_survives(fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A get that fails or brings damaged bytes is tried again and ends with the right bytes."""
    store = make_store()
    store.put("a", b"pixels", content_type=PNG)
    proxy.faults = [fault] * (1 if fault == "slow" else 2)
    assert store.get("a") == b"pixels"
    assert proxy.faults == []


@pytest.mark.parametrize("fault", ["503", "reset", "cut download", "reset download"])
def test_a_part_survives(fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """Part of an object, as an image of a shard is, is asked for again as well."""
    store = make_store()
    store.put("a", b"x" * 100_000 + b"pixels", content_type=PNG)
    proxy.faults = [fault] * 2
    assert store.get_range("a", 1_000, 99_006) == b"x" * 99_000 + b"pixels"
    assert proxy.faults == []


@pytest.mark.parametrize("fault", ["500", "503", "reset", "damage upload"])
def test_put_new_survives(fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A write that is only to be made where there is nothing is tried again, and still made once."""
    store = make_store()
    proxy.faults = [fault] * 2
    assert store.put_new("a", b"pixels", content_type=PNG)
    proxy.faults = [fault] * 2
    assert not store.put_new("a", b"others", content_type=PNG)
    assert (store.get("a"), store.keeps_first) == (b"pixels", True)


@pytest.mark.parametrize("fault", ["500", "reset", "garbage", "cut download", "reset download"])
def test_listing_survives(fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A page of a listing is tried again too, also when the answer is not S3's."""
    store = make_store()
    store.put("a", b"1", content_type=PNG)
    proxy.faults = [fault]
    assert [found.key for found in store.list("")] == ["a"]


def test_damaged_upload_is_never_stored(proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """Bytes damaged on their way are refused by the server in both checksum modes: the old object stays."""
    for checksums in ("when_required", "when_supported"):
        store, hasty = make_store(checksums=checksums), make_store(checksums=checksums, patience_seconds=0.0)
        store.put("a", b"the good one", content_type=PNG)
        proxy.faults = ["damage upload"]
        with pytest.raises(StoreUnavailable):
            hasty.put("a", b"the other", content_type=PNG)
        assert store.get("a") == b"the good one"


def test_patience_is_for_the_store_alone(
    proxy: FaultProxy, make_store: Callable[..., S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is long in the making, on a busy machine, uses up no patience."""
    late_seconds, make_client = 0.0, boto3.session.Session.client

    def make_late(*args: Any, **kwargs: Any) -> Any:
        nonlocal late_seconds
        late_seconds += 1000.0
        return make_client(*args, **kwargs)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_seconds, sleep=time.sleep)
    monkeypatch.setattr(s3, "time", clock)
    monkeypatch.setattr(boto3.session.Session, "client", make_late)
    proxy.faults = ["503"]
    make_store().put("a", b"1", content_type=PNG)
    assert proxy.seen == [("PUT", "503"), ("PUT", "")]
    assert late_seconds == 1000.0


@pytest.mark.parametrize("fault", ["always 503", "always reset"])
def test_outage_longer_than_patience(
    fault: str, proxy: FaultProxy, make_store: Callable[..., S3Store]
) -> None:
    """When patience ends the error says where, what and how often; the time spent is bounded."""
    store = make_store(patience_seconds=3.0)
    proxy.faults = [fault]
    started = time.monotonic()
    with pytest.raises(
        StoreUnavailable, match=r"'images/a.png' in s3://printroom-tests/.*gave up after"
    ) as raised:
        store.put("images/a.png", b"1", content_type=PNG)
    assert time.monotonic() - started < 20
    assert proxy.url in str(raised.value)
    assert len(proxy.seen) > 2


def test_server_that_is_not_there(proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A closed port is an outage like any other."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        store = make_store(endpoint_url=f"http://127.0.0.1:{held.getsockname()[1]}", patience_seconds=0.3)
        with pytest.raises(StoreUnavailable, match="is the server up"):
            store.get("a")


def test_server_killed_and_started_again(start_seaweed: Callable[[], Any], key_prefix: str) -> None:
    """A put while the real server is down succeeds when it is back; what was stored is still there."""
    server = start_seaweed()
    store = server.store(key_prefix, patience_seconds=30.0)
    store.put("before", b"1", content_type=PNG)
    server.kill()
    writer = threading.Thread(target=store.put, args=("during", b"2"), kwargs={"content_type": PNG})
    writer.start()
    server.start()
    writer.join(30)
    assert {key: store.get(key) for key in ("before", "during")} == {"before": b"1", "during": b"2"}


def test_full_store_is_not_tried_again(proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """No space left is told at once: waiting does not make any."""
    proxy.faults = ["507"]
    with pytest.raises(StoreFull, match="free some space"):
        make_store().put("a", b"1", content_type=PNG)
    assert len(proxy.seen) == 1


def test_missing_object_is_not_tried_again(proxy: FaultProxy, make_store: Callable[..., S3Store]) -> None:
    """A plain 404 costs one request."""
    with pytest.raises(ObjectMissing):
        make_store().get("a")
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_keys(wrong: str, seaweed_server: Any, make_store: Callable[..., S3Store]) -> None:
    """Wrong keys are reported at once, with the variables to fix, and no secret in any text."""
    store = make_store(**{wrong: "not-the-right-one"})
    for operation in (
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: store.put("a", b"1", content_type=PNG),
        lambda: list(store.list("")),
        store.ensure_bucket,
    ):
        with pytest.raises(StoreDenied, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as raised:
            operation()
        texts = [str(raised.value), repr(raised.value.__cause__), repr(store), store.url]
        assert not any(
            secret in text for text in texts for secret in (seaweed_server.secret_key, "not-the-right")
        )


def test_no_keys_at_all(make_store: Callable[..., S3Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any keys nothing is sent, and the error names the variables to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = make_store(access_key_id=None, secret_access_key=None)
    with pytest.raises(StoreDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        store.get("a")


@pytest.mark.parametrize(
    "body",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
    ],
)
def test_plain_http_on_a_port_of_tls(body: bytes) -> None:
    """What such a port answers is told at once as no answer of S3, with https:// as the fix, for each operation."""

    class Answers(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        keys = {"access_key_id": "a", "secret_access_key": "b"}
        store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{server.server_port}", **keys)
        for operation in (
            lambda: store.put("a", b"1", content_type=PNG),
            lambda: store.get("a"),
            lambda: store.head("a"),
            lambda: list(store.list("")),
        ):
            with pytest.raises(StoreUnavailable, match=r"no answer of S3.*https:// where the port is TLS"):
                operation()
        server.shutdown()


def test_backoff_grows_to_its_cap() -> None:
    """Delays are exponential, capped, and the jitter takes all of them from zero."""
    assert [backoff_seconds(attempt, 1.0) for attempt in (0, 1, 2, 7, 8, 1000)] == pytest.approx(
        [0.1, 0.2, 0.4, 12.8, 15.0, 15.0]
    )
    assert backoff_seconds(5, 0.0) == 0.0
