"""After Redis has lost everything, its sweeps are found in the store: by id, by the start of one, by name."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from producer import cli
from producer.results.store_sweeps import find_stored, stored_ids, stored_sweeps
from producer.results.time_limit import answer_within
from shared import names
from shared.errors import StoreUnavailable, SweepUnknown, UsageError
from tests.integration.test_verbs import SWEEP, Bench, make_settings


@pytest.fixture(params=["folder_store", "s3_store"])
def lost(request, valkey_server, key_prefix, tmp_path):
    """A finished sweep in a store; a client whose Redis knows nothing of it; the sweep's id."""
    store = request.getfixturevalue(request.param)
    before = Bench(make_settings(valkey_server.url, f"{key_prefix}:before:", tmp_path), store)
    sweep, plan = before.submit()
    for chunk in range(plan.chunks):
        before.work(sweep, plan, chunk)
    return Bench(make_settings(valkey_server.url, f"{key_prefix}:after:", tmp_path), store), sweep


def test_every_verb_that_reads_the_store(lost, tmp_path):
    """Name and start of an id do for results, fetch, sheet and plan --diff; status and pause say how it comes back."""
    bench, sweep = lost
    for text in ("faces", sweep[:6], sweep):
        assert sweep == bench.client.find(text, in_store=True)
        for verb in (bench.client.status, bench.client.pause, bench.client.retry):
            with pytest.raises(SweepUnknown, match=f"Redis has lost this sweep.*`printroom resume {sweep}`"):
                verb(text)
    assert len(list(bench.client.results("faces", where={"seed": 3}))) == 6
    assert bench.client.fetch(sweep[:6], tmp_path / "home").fetched == 66
    assert bench.client.sheet("faces", where={"seed": 1}).width > 0
    assert bench.client.compare(bench.client.compile(SWEEP), "faces").to_json()
    assert bench.client.resume("faces") == "done"
    assert bench.client.status("faces").status.done == 66
    assert [] == bench.client.lost_sweeps()


def test_the_list(lost, monkeypatch):
    """`status` lists what only the store has, marked, with the command that brings it back; in JSON too."""
    bench, sweep = lost
    monkeypatch.setattr(cli, "_client", lambda: bench.client)
    ran = CliRunner().invoke(cli.cli, ["status"])
    assert ["faces", "store", "only", "66"] == ran.stdout.splitlines()[1].split()[1:]
    assert f"`printroom resume {sweep[:12]}` brings one back" in ran.stderr
    found = json.loads(CliRunner().invoke(cli.cli, ["status", "--json"]).stdout)
    assert [{"sweep": sweep, "name": "faces", "jobs": 66, "state": "only_in_store"}] == found
    bench.client.resume(sweep)
    ran = CliRunner().invoke(cli.cli, ["status"])
    assert ("store only" in ran.stdout, ran.stderr) == (False, "")


def test_without_redis(lost, monkeypatch, tmp_path):
    """With no Redis at all the store's sweeps are still listed; the exit status and the last line say what lacks."""
    bench, _ = lost
    away = Bench(make_settings("redis://127.0.0.1:1/0", "t:", tmp_path), bench.store)
    monkeypatch.setattr(cli, "_client", lambda: away.client)
    ran = CliRunner().invoke(cli.cli, ["status"], standalone_mode=False)
    assert (ran.return_value, "faces" in ran.stdout) == (1, True)
    assert "Redis does not answer" in ran.stderr
    assert len(list(away.client.results("faces"))) == 66


def test_several_and_none(folder_store, valkey_server, key_prefix, tmp_path):
    """A name of two lost sweeps wants more; what is no sweep is none, and no plan is read for an id."""
    before = Bench(make_settings(valkey_server.url, f"{key_prefix}:before:", tmp_path), folder_store)
    ids = {before.submit()[0], before.submit(steps=5)[0]}
    client = Bench(make_settings(valkey_server.url, f"{key_prefix}:after:", tmp_path), folder_store).client
    with pytest.raises(UsageError, match=r"'faces' means 2 sweeps of the store: .*; say more"):
        client.find("faces", in_store=True)
    with pytest.raises(SweepUnknown, match="2 sweeps of this name: ") as caught:
        client.status("faces")
    (mended,) = re.findall("`printroom resume ([0-9a-f]{12})`", str(caught.value))
    assert client.find(mended, in_store=True) in ids
    assert {one.sweep for one in client.lost_sweeps()} == ids
    for text in ("nobody", "0" * 32, "00ff"):
        with pytest.raises(SweepUnknown, match="no such sweep; `printroom status` lists them"):
            client.find(text, in_store=True)


def test_thousands(folder_store, valkey_server, key_prefix, tmp_path):
    """Ids come from one listing of folders: neither manifests nor plans are touched for the start of an id."""
    before = Bench(make_settings(valkey_server.url, f"{key_prefix}:", tmp_path), folder_store)
    sweep, _ = before.submit()
    for number in range(300):
        folder_store._path(f"sweeps/{number:032x}").mkdir(parents=True)
    asked = []
    folder_store.get = asked.append
    folder_store.list = lambda prefix: pytest.fail("listed objects")
    assert len(stored_ids(folder_store)) == 301
    assert [sweep] == find_stored(sweep[:8], folder_store, known=())
    assert [] == asked


def test_plans_that_cannot_be_read(folder_store, valkey_server, key_prefix, tmp_path):
    """A plan of another version, a damaged one and a submit that died before its plan hide no other sweep."""
    before = Bench(make_settings(valkey_server.url, f"{key_prefix}:", tmp_path), folder_store)
    sweep, _ = before.submit()
    folder_store.put(names.plan_key("1" * 32), b"no plan", content_type="x")
    folder_store.put(names.source_key("2" * 32), b"name: x", content_type="x")
    folder_store.put("sweeps/notes.txt", b"mine", content_type="x")
    assert [sweep] == [one.sweep for one in stored_sweeps(stored_ids(folder_store), folder_store)]
    assert [sweep] == find_stored("faces", folder_store, known=())


def test_a_glance():
    """A store that fails or is slow gives no answer; what is no matter of the store is raised."""

    def fail(error):
        raise error

    assert answer_within(lambda: 7, seconds=30) == 7
    assert answer_within(lambda: fail(StoreUnavailable("down")), seconds=30) is None
    with pytest.raises(ValueError, match="mine"):
        answer_within(lambda: fail(ValueError("mine")), seconds=30)
