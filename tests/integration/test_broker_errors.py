"""What goes wrong with Redis has a name of ours and a fix; passwords and TLS by URL alone."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.broker import make_app, send_chunk
from shared.errors import BrokerError, BrokerFull, BrokerUnavailable
from shared.ledger import ChunkOutcome, Ledger
from shared.message import ChunkMessage
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange
from shared.queues import BrokerView
from shared.redis_client import connect
from shared.settings import Settings

WRONG = "a-wrong-password"
MESSAGE = ChunkMessage(sweep="ab12", chunk=7)

PLAN = Plan(
    name="sweep",
    models={},
    axes=(
        ListAxis(fields=("prompt", "negative_prompt"), values=(("a", None),)),
        ListAxis(fields=("scheduler", "steps", "guidance_scale"), values=(("ddim", 4, 7.5),)),
        SeedRange(start=0, count=4),
    ),
    blocks=(Block(bucket=Bucket(model="m", width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=4),),
)


def make_settings(url: str, prefix: str = "t:") -> Settings:
    """Return settings for a server."""
    return Settings(redis_url=url, redis_prefix=prefix)


def every_way(settings: Settings):
    """Return each way in which we speak to Redis."""
    client = connect(settings)
    ledger = Ledger(client, prefix=settings.redis_prefix)
    view = BrokerView(client, prefix=settings.redis_prefix)
    app = make_app(settings)
    return {
        "submit": lambda: ledger.submit(PLAN.id, PLAN),
        "record": lambda: ledger.record(PLAN.id, ChunkOutcome(done=[0, 1])),
        "status": lambda: ledger.status(PLAN.id),
        "register": lambda: ledger.register(PLAN.id, PLAN),
        "queue_lengths": lambda: view.queue_lengths(["q"]),
        "chunks": lambda: view.chunks(["q"]),
        "send": lambda: send_chunk(app, "q", MESSAGE),
    }


class TestRefused:
    """A password that is wrong or missing."""

    @pytest.mark.parametrize("password", [f":{WRONG}@", f"someone:{WRONG}@", ""])
    @pytest.mark.parametrize(
        "way", ["submit", "record", "status", "register", "queue_lengths", "chunks", "send"]
    )
    def test_wrong_password(self, valkey_server, password, way):
        """Every way in says to check PRINTROOM_REDIS_URL, and shows no password anywhere in the chain of causes."""
        settings = make_settings(f"redis://{password}127.0.0.1:{valkey_server.port}/0")
        with pytest.raises(BrokerError, match="check the password in PRINTROOM_REDIS_URL") as caught:
            every_way(settings)[way]()
        assert not isinstance(caught.value, BrokerUnavailable | BrokerFull)
        error: BaseException | None = caught.value
        while error is not None:
            assert WRONG not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__

    def test_right_password(self, valkey_server, key_prefix):
        """With the right password every way in works: the test above is about the password."""
        for name, act in every_way(make_settings(valkey_server.url, f"{key_prefix}:")).items():
            if name == "status":
                continue
            act()


def test_a_database_that_is_not_there(valkey_server):
    """A number above what the server has is told apart from a server that is away, with the fix."""
    url = f"redis://:{valkey_server.password}@127.0.0.1:{valkey_server.port}/99"
    with pytest.raises(BrokerError, match="no database of this number: use a smaller one"):
        every_way(make_settings(url))["status"]()


class TestOptions:
    """Options of the URL, on a real server."""

    @pytest.mark.parametrize("transport", [None, "worker.transport:Transport"])
    def test_every_option_at_once(self, valkey_server, key_prefix, transport):
        """Ledger, producer and worker work with all options, in the database that the options name."""
        query = "socket_timeout=5&socket_connect_timeout=5&protocol=2&client_name=mine&max_connections=9&db=3"
        query += "&health_check_interval=9&retry_on_timeout=true&socket_keepalive=yes"
        url = f"redis://:{valkey_server.password}@127.0.0.1:{valkey_server.port}/?{query}"
        settings = make_settings(url, f"{key_prefix}:")
        client, app = connect(settings), make_app(settings, transport=transport)
        send_chunk(app, "q", MESSAGE)
        assert {MESSAGE} == BrokerView(client, prefix=f"{key_prefix}:").chunks(["q"])
        with app.connection_for_read() as connection:
            message = connection.channel().basic_get("q")
            assert MESSAGE.to_json() == message.decode()[0][0]
            message.ack()
            mine = [known for known in client.client_list() if known["name"] == "mine"]
            assert {("3", "2")} == {(known["db"], known["resp"]) for known in mine}
            assert len(mine) > 1  # the ledger's, and kombu's
        app.close()
        client.close()


class TestDown:
    """No server, or one that does not answer."""

    @pytest.mark.parametrize(
        "way", ["submit", "record", "status", "register", "queue_lengths", "chunks", "send"]
    )
    def test_nobody_listens(self, way):
        """A server that is down is BrokerUnavailable, with the fix."""
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            settings = make_settings(f"redis://:{WRONG}@127.0.0.1:{held.getsockname()[1]}/0")
            with pytest.raises(BrokerUnavailable, match=r"Redis does not answer: is it running") as caught:
                every_way(settings)[way]()
        assert WRONG not in str(caught.value)

    def test_gone_and_back(self, start_valkey):
        """A server that is killed is BrokerUnavailable; the same clients go on when it is back, with what it had."""
        server = start_valkey("--appendfsync", "always")
        ways = every_way(make_settings(server.url))
        ways["submit"]()
        server.kill()
        for name in ("record", "send", "chunks"):
            with pytest.raises(BrokerUnavailable):
                ways[name]()
        server.start()
        assert ways["record"]() == "active"
        ways["send"]()
        assert {MESSAGE} == ways["chunks"]()
        assert ways["status"]().done == 2


class TestFull:
    """A server out of memory that evicts nothing."""

    @pytest.fixture
    def full(self, start_valkey):
        """A server with a sweep, filled up since; and a function that makes room again."""
        server = start_valkey("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
        settings = make_settings(server.url)
        client = connect(settings)
        ways = every_way(settings)
        ways["submit"]()
        client.config_set("maxmemory", "1")
        return ways, lambda: client.config_set("maxmemory", "64mb")

    def test_named(self, full):
        """Every write is BrokerFull with the fix; reading goes on."""
        ways, _ = full
        for name in ("submit", "record", "register", "send"):
            with pytest.raises(BrokerFull, match="Redis is out of memory: raise its maxmemory"):
                ways[name]()
        assert ways["status"]().done == 0
        assert [0] == ways["queue_lengths"]()

    def test_goes_on(self, full):
        """When there is room again everything works, and what was refused left nothing half-done."""
        ways, make_room = full
        with pytest.raises(BrokerFull):
            ways["record"]()
        make_room()
        assert ways["status"]().done == 0
        assert ways["record"]() == "active"
        assert ways["status"]().done == 2
        ways["send"]()
        assert {MESSAGE} == ways["chunks"]()


class _TlsFront:
    """Ends TLS in front of a plain server: the wheel's Valkey is built without it."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._target = ("127.0.0.1", port)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(raw, server_side=True)
        except OSError:  # a client that does not trust us, or speaks no TLS
            raw.close()
            return
        server = socket.create_connection(self._target)
        self._open += [client, server]
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        for each in (self._listener, *self._open):
            each.close()


def _certificate(name, key, issuer, issuer_key, *, authority):
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with a certificate authority (ca.pem), another one (other.pem), and a server's certificate and key."""
    folder = tmp_path_factory.mktemp("tls")
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "other", "server")}
    for name in ("ca", "other"):
        (folder / f"{name}.pem").write_bytes(_certificate(name, keys[name], name, keys[name], authority=True))
    server = _certificate("127.0.0.1", keys["server"], "ca", keys["ca"], authority=False)
    key = keys["server"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(server + key)
    return folder


@pytest.fixture
def tls_port(valkey_server, authority):
    """A port where the shared server speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem")
    front = _TlsFront(valkey_server.port, context)
    yield front.port
    front.close()


class TestTls:
    """`rediss://` is TLS, checked, for the ledger and for Celery alike."""

    @pytest.mark.parametrize("transport", [None, "worker.transport:Transport"])
    def test_by_url(self, valkey_server, tls_port, authority, key_prefix, transport):
        """With the authority named in the URL, ledger, producer and worker speak TLS to the same server."""
        url = f"rediss://:{valkey_server.password}@127.0.0.1:{tls_port}/0?ssl_ca_certs={authority / 'ca.pem'}"
        settings = make_settings(url, f"{key_prefix}:")
        client = connect(settings)
        assert client.ping()
        app = make_app(settings, transport=transport)
        send_chunk(app, "q", MESSAGE)
        assert {MESSAGE} == BrokerView(client, prefix=f"{key_prefix}:").chunks(["q"])
        with app.connection_for_read() as connection:
            message = connection.channel().basic_get("q")
            assert [MESSAGE.to_json()] == message.decode()[0]
            message.ack()
        app.close()
        client.close()

    @pytest.mark.parametrize("query", ["", "?ssl_ca_certs={folder}/other.pem"])
    @pytest.mark.parametrize("way", ["status", "send"])
    def test_who_is_not_trusted(self, valkey_server, tls_port, authority, query, way):
        """A server whose authority we do not know is refused before it sees the password."""
        query = query.format(folder=authority)
        settings = make_settings(f"rediss://:{valkey_server.password}@127.0.0.1:{tls_port}/0{query}")
        with pytest.raises(BrokerUnavailable, match=r"add \?ssl_ca_certs=FILE") as caught:
            every_way(settings)[way]()
        assert valkey_server.password not in str(caught.value)

    def test_a_plain_server_is_no_tls_server(self, valkey_server):
        """TLS asked of a server that speaks none is an error, never a fall-back to plain text."""
        # The server waits for the end of what it takes for a command, so a shorter patience than ours.
        url = f"rediss://:{valkey_server.password}@127.0.0.1:{valkey_server.port}/0?socket_timeout=1"
        with pytest.raises(BrokerUnavailable):
            every_way(make_settings(url))["status"]()
