"""What `printroom doctor` says of rights, of servers that are none, of stores that do too little, and of the fleet."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from producer import Printroom, cli
from producer.fleet.doctor_store import examine_region, examine_store
from shared.broker import make_app, send_chunk
from shared.errors import BrokerError, SettingsError, StoreDenied, StoreFull, StoreUnavailable
from shared.ledger import Ledger
from shared.message import ChunkMessage
from shared.names import queue_name
from shared.redis_client import connect
from shared.redis_errors import broker_error
from shared.settings import load_settings
from shared.store.folder import FolderStore
from shared.store.s3 import S3Store
from tests.integration.test_verbs import Bench, make_settings, worker_info

DEPLOYMENT = Path(__file__).parents[2] / "docs/deployment.md"


@pytest.fixture
def settings(valkey_server, key_prefix, tmp_path):
    """Settings of this test alone on the shared Valkey."""
    return make_settings(valkey_server.url, f"{key_prefix}:", tmp_path)


def checks_of(client) -> dict:
    """Return the checks by name."""
    return {check.name: check for check in client.examine()}


@pytest.fixture
def as_user(valkey_server, key_prefix, tmp_path):
    """A function: the settings of a user with these ACL rules; `PREFIX` in them is this test's."""
    admin = redis.Redis.from_url(valkey_server.url)

    def make(rules: str):
        rules = rules.replace("PREFIX", f"{key_prefix}:")
        admin.execute_command("ACL", "SETUSER", key_prefix, "reset", "on", ">secret", *rules.split())
        url = f"redis://{key_prefix}:secret@127.0.0.1:{valkey_server.port}/0"
        return make_settings(url, f"{key_prefix}:", tmp_path)

    yield make
    admin.execute_command("ACL", "DELUSER", key_prefix)
    admin.close()


def documented(who: str) -> str:
    """Return the ACL rules that docs/deployment.md gives a producer or a worker."""
    (line,) = re.findall(rf"^ACL SETUSER {who} on >PASSWORD (.*)$", DEPLOYMENT.read_text(), re.MULTILINE)
    return line.replace("printroom:", "PREFIX")


class TestRights:
    """What a user may do is tried, and what is missing is named."""

    def test_without_the_dangerous_ones(self, as_user):
        """A user without @dangerous works, and nothing is called broken; what it may not see is a warning."""
        found = checks_of(Printroom(as_user("+@all -@dangerous ~PREFIX* &PREFIX*")))
        assert {name for name, check in found.items() if not check.ok} == set()
        assert found["broker rights"].level == "ok"
        assert (found["broker memory"].level, "noeviction" in found["broker memory"].fix) == ("warn", True)

    @pytest.mark.parametrize("lacking", ["-eval", "-hvals -zadd", "-set"])
    def test_a_missing_right(self, as_user, lacking):
        """The command that is not allowed is named, and nobody is told to start Redis."""
        found = checks_of(Printroom(as_user(f"+@all {lacking} ~PREFIX* &PREFIX*")))
        check = found["broker rights"]
        assert (check.level, found["broker"].level) == ("fail", "ok")
        assert all(name.upper() in check.detail for name in re.findall(r"-(\w+)", lacking))
        assert "start Redis" not in f"{found}"

    def test_keys_of_another_prefix(self, as_user):
        """A user whose keys are others fails by rights too, in one line."""
        check = checks_of(Printroom(as_user("+@all ~other:* &*")))["broker rights"]
        assert check.level == "fail"
        assert "No permissions to access a key" in check.detail

    def test_the_documented_rules(self, as_user, key_prefix):
        """The rules of docs/deployment.md are enough: for a producer's verbs, and for a worker's tries."""
        bench = Bench(as_user(documented("producer")), None)
        bench.client.__dict__["store"] = bench.store = FolderStore(bench.client.settings.store)
        check = checks_of(bench.client)["broker rights"]
        assert (check.level, "BRPOP" in check.detail) == ("warn", True)
        sweep, _ = bench.submit()
        assert bench.client.pause(sweep) == "paused"
        assert bench.client.resume(sweep) == "active"
        assert bench.client.retry(sweep).jobs == 0
        bench.client.status(sweep)
        worker = Printroom(as_user(documented("worker")))
        assert checks_of(worker)["broker rights"].level == "ok"

    def test_a_verb_without_rights(self, as_user):
        """A verb says which right is missing and where the rules stand, not that Redis is down."""
        with pytest.raises(BrokerError, match=r"does not allow this user.*docs/deployment\.md") as caught:
            Printroom(as_user("+@all -@write ~PREFIX* &PREFIX*")).ledger.set_priority("a", 1)
        assert "is it running" not in str(caught.value)
        settings = as_user("+@all -lpush ~PREFIX* &PREFIX*")
        app = make_app(settings)
        with pytest.raises(BrokerError, match="does not allow this user"):
            send_chunk(app, "q", ChunkMessage(sweep="a", chunk=0))
        app.close()


def test_a_variable_that_nothing_reads(settings, monkeypatch):
    """A setting with a spelling mistake has no effect: it is named, with the nearest one."""
    monkeypatch.setenv("PRINTROOM_STOR", "/srv/prints")
    monkeypatch.setenv("PRINTROOM_SOMETHING_ELSE_YET", "1")
    found = {check.detail: check for check in Printroom(settings).examine() if check.name == "settings"}
    assert {check.level for check in found.values()} == {"warn"}
    assert "PRINTROOM_STORE" in found["PRINTROOM_STOR is no setting: not used"].fix
    assert found["PRINTROOM_SOMETHING_ELSE_YET is no setting: not used"].fix == ".env.example has them all"
    with pytest.raises(SettingsError, match="stor: no setting of this name"):
        load_settings(stor="x")


class TestNoRedis:
    """What is wrong with the way to Redis is told apart."""

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not Redis"),
            (b"\x15\x03\x03\x00\x02\x02\x16", "not Redis.*rediss://|does not answer"),
        ],
    )
    def test_another_server(self, tmp_path, answer, said):
        """A web server, or a port that speaks TLS, is not called a Redis that is down."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=2"
            check = checks_of(Printroom(make_settings(url, "t:", tmp_path)))["broker"]
            listener.shutdown(socket.SHUT_RDWR)
        assert check.level == "fail"
        assert re.search(said, check.detail)

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (redis.ConnectionError("Error -2 connecting to h. Name or service not known."), "no host of this name"),
            (redis.ConnectionError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), "speaks no TLS: use redis://"),
            (redis.exceptions.ReadOnlyError("You can't write"), "is a replica"),
            (redis.ResponseError("MISCONF Errors writing to the AOF file"), "cannot save to its disk"),
            (redis.ResponseError("NOAUTH Authentication required."), "check the password in PRINTROOM_REDIS_URL"),
            (redis.ConnectionError("max number of clients reached"), "raise its maxclients"),
            (redis.ConnectionError("No connection available."), "raise max_connections"),
            (redis.TimeoutError("Timeout connecting to server"), "does not answer"),
        ],
    )  # fmt: skip
    def test_names(self, error, said):
        """Each way to fail has a sentence of its own, with the fix."""
        assert said in str(broker_error(error))


class TestStore:
    """The doctor does what a run does."""

    def test_operations(self, s3_store, moto_store, folder_store):
        """On every store all operations are tried, and nothing is left."""
        for store in (s3_store, moto_store, folder_store):
            operations, urls = examine_store(store)
            assert (operations.level, urls.level) == ("ok", "ok")
            assert operations.detail.endswith(": put, get, head, range, list and delete")
            assert [] == list(store.list(""))

    def test_an_endpoint_that_names_the_bucket(self, seaweed_server, key_prefix):
        """Writing and reading work there, and listing does not: it is found, with the fix."""
        endpoint_url = f"{seaweed_server.endpoint_url}/printroom-tests"
        store = seaweed_server.store(key_prefix, endpoint_url=endpoint_url, patience_seconds=1.0)
        (found,) = examine_store(store)
        assert (found.level, ": list: " in found.detail) == ("fail", True)
        assert "is PRINTROOM_S3_ENDPOINT_URL the server alone" in found.fix
        assert store.head("doctor") is None

    def test_the_wrong_scheme(self, seaweed_server, key_prefix):
        """TLS asked of a port without it is said at once, not after the store's patience, with the fix."""
        endpoint_url = seaweed_server.endpoint_url.replace("http:", "https:")
        store = seaweed_server.store(key_prefix, endpoint_url=endpoint_url, patience_seconds=600.0)
        (found,) = examine_store(store)
        assert "use http:// in PRINTROOM_S3_ENDPOINT_URL" in found.detail

    @pytest.mark.parametrize(
        ("error", "fix"),
        [
            (StoreUnavailable("gave up"), "is it up, and PRINTROOM_S3_ENDPOINT_URL right"),
            (StoreFull("no space"), "free some space there"),
        ],
    )
    def test_a_server_that_is_away_or_full(self, folder_store, error, fix):
        """Nobody is sent to the AWS variables for what keys do not fix."""

        def refuse(*_, **__):
            raise error

        folder_store.put = refuse
        (found,) = examine_store(folder_store)
        assert (found.level, found.fix.startswith(fix), "AWS" in found.fix) == ("fail", True, False)

    def test_a_region_that_is_guessed(self, monkeypatch, tmp_path):
        """A bucket at AWS without a region is a warning; with one, or at another server, there is none."""
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        assert ["warn"] == [found.level for found in examine_region(S3Store("bucket"))]
        assert [] == list(examine_region(S3Store("bucket", region="eu-west-1")))
        assert [] == list(examine_region(S3Store("bucket", endpoint_url="http://h:8333")))
        assert [] == list(examine_region(FolderStore(tmp_path)))

    @pytest.mark.parametrize(("method", "doing"), [("list", "list"), ("head", "head"), ("delete", "delete")])
    def test_a_right_that_is_missing(self, folder_store, method, doing):
        """The operation that is refused is named."""

        def refuse(*_, **__):
            raise StoreDenied("not allowed")

        setattr(folder_store, method, refuse)
        (found,) = examine_store(folder_store)
        assert f": {doing}: not allowed" in found.detail

    def test_a_missing_bucket(self, settings, seaweed_server, monkeypatch, key_prefix):
        """It is named, with the command that makes it; that works, twice, and then the store is ok."""
        for name, value in seaweed_server.environment.items():
            monkeypatch.setenv(name, value)
        more = {"store": f"s3://{key_prefix}-new/x", "s3_endpoint_url": seaweed_server.endpoint_url}
        settings = settings.model_copy(update={**more, "store_patience_seconds": 2.0})
        check = checks_of(Printroom(settings))["store"]
        assert (check.level, "`printroom doctor --create-bucket`" in check.fix) == ("fail", True)
        monkeypatch.setattr(cli, "_client", lambda: Printroom(settings))
        for _ in range(2):
            ran = CliRunner().invoke(cli.cli, ["doctor", "--create-bucket"])
            assert "ok  store: s3://" in ran.stdout


class TestFleet:
    """What is odd about a fleet is a warning; what stops it is a failure."""

    @pytest.fixture
    def local(self, settings, folder_store):
        """The client on a folder."""
        return Bench(settings, folder_store)

    def test_nobody_alive(self, local, monkeypatch):
        """No worker and nothing to do is a warning, exit 0; JSON has the levels. With a sweep it fails, exit 1."""
        monkeypatch.setattr(cli, "_client", lambda: local.client)
        ran = CliRunner().invoke(cli.cli, ["doctor"], standalone_mode=False)
        assert (ran.return_value, "warn workers: none alive" in ran.stdout) == (0, True)
        found = json.loads(CliRunner().invoke(cli.cli, ["doctor", "--json"]).stdout)
        levels = {check["name"]: (check["level"], check["ok"]) for check in found}
        assert (levels["workers"], levels["store"]) == (("warn", True), ("ok", True))
        local.submit()
        ran = CliRunner().invoke(cli.cli, ["doctor"], standalone_mode=False)
        assert (ran.return_value, "BAD workers: none alive, and 1 sweeps wait" in ran.stdout) == (1, True)

    def test_versions_models_and_stores(self, local, tmp_path):
        """Two versions, a model nobody holds and a worker of another store are each told of."""
        local.submit()
        beat = lambda *a, **k: local.client.ledger.heartbeat(worker_info(*a, **k), expires_seconds=30)  # noqa: E731
        beat("one", versions={"torch": "2.0"}, store="ab" * 16, store_place="elsewhere")
        beat("two", versions={"torch": "2.1"})
        found = checks_of(local.client)
        assert found["worker versions of torch"].detail == "2.0: one; 2.1: two"
        (model,) = (check for name, check in found.items() if name.startswith("sweep "))
        assert (model.level, "no live worker has model fake" in model.detail) == ("warn", True)
        assert (found["stores"].level, "worker one renders into elsewhere" in found["stores"].detail) == (
            "fail",
            True,
        )
        assert "set PRINTROOM_STORE" in found["stores"].fix

    def test_queues_nobody_needs(self, local, settings):
        """Messages for another version's queue are told of; those of a waiting sweep are not."""
        local.submit()
        assert "queues" not in checks_of(local.client)
        app = make_app(settings)
        send_chunk(app, queue_name("m", 64, 64, "0"), ChunkMessage(sweep="gone", chunk=0))
        app.close()
        assert "(1)" in checks_of(local.client)["queues"].detail

    def test_an_endpoint_without_s3(self, local):
        """An endpoint beside a folder is a slip worth a warning."""
        local.client.settings = local.client.settings.model_copy(update={"s3_endpoint_url": "http://h:8333"})
        assert checks_of(local.client)["store kind"].level == "warn"

    def test_clock(self, local, monkeypatch):
        """A machine whose clock is minutes off is told so."""
        monkeypatch.setattr(Ledger, "server_time", lambda self: connect(local.client.settings).time()[0] + 90)
        assert "behind Redis's" in checks_of(local.client)["clock"].detail
