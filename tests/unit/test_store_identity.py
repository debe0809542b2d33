"""A store says which one it is; who means another one is found out."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import StoreDenied, StoreError, StoreUnavailable
from shared.store.folder import FolderStore
from shared.store.identity import StoreIdentity, identity_of, place_of


@pytest.fixture
def store(tmp_path):
    """An empty store in a folder."""
    return FolderStore(tmp_path / "store")


def test_written_once(store):
    """The first who settles writes the identity; whoever comes later reads the same one."""
    assert StoreIdentity(store).read().id == ""
    first = StoreIdentity(store).settle()
    assert [first] == list({StoreIdentity(store).settle(), StoreIdentity(store).read()})
    assert [f"identity/{first.id}.json"] == [info.key for info in store.list("")]


def test_two_first_writers_agree(store):
    """Many first writers at once: later all read one identity, and each knows what the others believed meanwhile."""
    sides = [StoreIdentity(FolderStore(store.url)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        believed = {mark.id for mark in pool.map(StoreIdentity.settle, sides)}
    assert all(side.has(one) for side in sides for one in believed)
    assert len({side.settle().id for side in sides}) == 1


def test_a_writer_who_came_between(store):
    """The order that one object alone would lose: A believes in its own before B, whose id is less, writes."""
    a, b = StoreIdentity(store), StoreIdentity(store)
    store.put("identity/b.json", b"{}", content_type="application/json")
    assert a.settle().id == "b"
    store.put("identity/a.json", b"{}", content_type="application/json")
    assert b.settle().id == "a"
    assert b.has("b")
    assert a.has("a")
    assert a.settle() == b.settle()


def test_other_places(store, tmp_path):
    """A folder under it, an empty one and one made anew are other stores; a copy is the same."""
    mine = StoreIdentity(store).settle().id
    for other in ("store/prefix", "elsewhere"):
        assert not StoreIdentity(FolderStore(tmp_path / other)).has(mine)
    shutil.copytree(store.url, tmp_path / "copy")
    assert StoreIdentity(FolderStore(tmp_path / "copy")).settle().id == mine
    shutil.rmtree(store.url)
    assert StoreIdentity(store).settle().id != mine
    assert not StoreIdentity(store).has(mine)


def test_who_may_only_read(store):
    """Without the right to write an identity is read, and a store that has none stays without; nothing fails."""

    def refuse(key, data, *, content_type):
        raise StoreDenied("no right to write")

    there = StoreIdentity(FolderStore(store.url))
    store.put = refuse
    assert StoreIdentity(store).settle().id == ""
    mark = there.settle()
    assert StoreIdentity(store).settle() == mark


def test_a_store_that_does_not_list(store):
    """A store that takes objects and lists none (a bucket named twice) is an error with the fix, not a new identity."""
    store.list = lambda prefix: iter(())
    with pytest.raises(StoreError, match="does not list it: is PRINTROOM_S3_ENDPOINT_URL the server alone"):
        StoreIdentity(store).settle()


def test_absent_is_not_asked_for_again_at_once(store):
    """A status that polls asks the store once for an id that is not there."""
    asked = []
    store.head = asked.append
    identity = StoreIdentity(store)
    assert [False, False] == [identity.has("ab"), identity.has("ab")]
    assert ["identity/ab.json"] == asked


def test_a_store_that_is_down(store):
    """What the store fails with is passed on, never taken for "another store"."""

    def fail(*_, **__):
        raise StoreUnavailable("down")

    store.head = store.list = fail
    with pytest.raises(StoreUnavailable):
        StoreIdentity(store).has("ab")
    with pytest.raises(StoreUnavailable):
        StoreIdentity(store).settle()


def test_places_for_people(store):
    """A folder is told with its machine and its whole path; users of one open store share what they learn."""
    assert place_of(store).endswith(f":{store.url}")
    assert store.url.startswith("/")
    assert identity_of(store) is identity_of(store)
    assert identity_of(store) is not identity_of(FolderStore(store.url))
