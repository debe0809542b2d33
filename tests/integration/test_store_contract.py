"""One contract, every store: a folder, SeaweedFS and moto."""

from __future__ import annotations

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ObjectMissing, StoreDenied
from shared.store.base import ObjectInfo, Store
from shared.store.folder import FolderStore
from shared.store.open import open_store
from shared.store.s3 import S3Store

PNG = "image/png"

ESCAPES = [
    "",
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "a//b",
    "a/",
    "./a",
    "a\\..\\b",
    "a\nb",
    "a\0b",
    "a b",
    "é",
    "~1-2",
    "x" * 1025,
]


@pytest.fixture(params=["folder_store", "s3_store", "moto_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn, empty."""
    found: Store = request.getfixturevalue(request.param)
    return found


class TestContract:
    """What Printroom rests on, whichever store it is."""

    @pytest.mark.parametrize("size_bytes", [0, 1, 5_000_000])
    def test_round_trip(self, store: Store, size_bytes: int) -> None:
        """An object comes back as it was put, empty and large ones too."""
        data = bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256)
        store.put("images/ab/abc.png", data, content_type=PNG)
        assert store.get("images/ab/abc.png") == data
        assert store.head("images/ab/abc.png") == ObjectInfo(key="images/ab/abc.png", size_bytes=size_bytes)

    def test_put_new_keeps_what_is_there(self, store: Store) -> None:
        """An object is written where there is none, and never replaced; `put` still replaces it."""
        assert store.put_new("images/ab/new.png", b"first", content_type=PNG)
        assert not store.put_new("images/ab/new.png", b"second", content_type=PNG)
        assert (store.get("images/ab/new.png"), store.keeps_first) == (b"first", True)
        store.put("images/ab/new.png", b"third", content_type=PNG)
        assert not store.put_new("images/ab/new.png", b"fourth", content_type=PNG)
        assert [info.key for info in store.list("images/")] == ["images/ab/new.png"]
        assert store.get("images/ab/new.png") == b"third"

    def test_of_several_at_once_one_is_first(self, store: Store) -> None:
        """Eight writers of one key at the same moment: one of them writes, and its bytes stay."""
        store.put_new("images/ab/before.png", b"", content_type=PNG)
        start = threading.Barrier(8)

        def write(number: int) -> bool:
            start.wait()
            return store.put_new("images/ab/race.png", b"%d" % number, content_type=PNG)

        with ThreadPoolExecutor(8) as pool:
            written = list(pool.map(write, range(8)))
        assert written.count(True) == 1
        assert store.get("images/ab/race.png") == b"%d" % written.index(True)

    def test_folders(self, store: Store) -> None:
        """What lies directly under a prefix is told once each, in order, however much is below it."""
        for key in ("sweeps/b/x", "sweeps/b/y/z", "sweeps/a-1/x", "sweeps/a/x", "sweeps/file", "other/c/x"):
            store.put(key, b"", content_type=PNG)
        assert ["a", "a-1", "b"] == list(store.folders("sweeps/"))
        assert ["y"] == list(store.folders("sweeps/b/"))
        assert ["other", "sweeps"] == list(store.folders(""))
        assert [] == list(store.folders("nothing/"))
        for wrong in ("sweeps", "../"):
            with pytest.raises(ValueError, match="prefix"):
                list(store.folders(wrong))

    @pytest.mark.parametrize("offset", [0, 1, 999, 1000, 2000])
    @pytest.mark.parametrize("size_bytes", [1, 999, 1000, 5000])
    def test_get_range(self, store: Store, offset: int, size_bytes: int) -> None:
        """A range is what slicing the object gives, past its end too."""
        data = bytes(range(250)) * 4
        store.put("a", data, content_type=PNG)
        assert store.get_range("a", offset, size_bytes) == data[offset : offset + size_bytes]

    def test_get_range_of_nothing(self, store: Store) -> None:
        """A missing object is ObjectMissing, an empty one gives nothing, and a range of nothing is refused."""
        store.put("empty", b"", content_type=PNG)
        assert store.get_range("empty", 0, 10) == b""
        for key in ("no/such.png", "empty/not"):
            with pytest.raises(ObjectMissing, match=key):
                store.get_range(key, 0, 1)
        for offset, size_bytes in ((-1, 1), (0, 0), (0, -1)):
            with pytest.raises(ValueError, match="range of"):
                store.get_range("empty", offset, size_bytes)
        with pytest.raises(ValueError, match="object key"):
            store.get_range("../a", 0, 1)

    def test_overwrite(self, store: Store) -> None:
        """The last put wins, also when it is shorter."""
        store.put("a", b"the first", content_type=PNG)
        store.put("a", b"2", content_type=PNG)
        assert store.get("a") == b"2"
        assert [found.key for found in store.list("")] == ["a"]

    def test_missing(self, store: Store) -> None:
        """A missing object is ObjectMissing to get, which names it, and None to head."""
        store.put("there/is", b"1", content_type=PNG)
        for key in ("no/such.png", "there", "there/is/not"):
            with pytest.raises(ObjectMissing, match=key):
                store.get(key)
            assert store.head(key) is None

    def test_list_is_in_key_order(self, store: Store) -> None:
        """Keys come in byte order, where a folder's slash counts, each with its size."""
        keys = ["a-b", "a.b", "a/x", "a/y/z", "a0", "b/1", "b/10", "b/2"]
        for key in reversed(keys):
            store.put(key, key.encode(), content_type=PNG)
        assert list(store.list("")) == [ObjectInfo(key=key, size_bytes=len(key)) for key in keys]

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("a", ["a/x", "a/y/z", "ab/x"]),
            ("a/", ["a/x", "a/y/z"]),
            ("a/y", ["a/y/z"]),
            ("a/y/z", ["a/y/z"]),
            ("a/y/z/", []),
            ("c/", []),
        ],
    )
    def test_list_prefix(self, store: Store, prefix: str, expected: list[str]) -> None:
        """A prefix is of characters, not of folders."""
        for key in ("a/x", "a/y/z", "ab/x", "b"):
            store.put(key, b"", content_type=PNG)
        assert [found.key for found in store.list(prefix)] == expected

    def test_list_of_nothing(self, store: Store) -> None:
        """A store that was never written to lists as empty."""
        assert list(store.list("")) == []
        assert list(store.list("images/")) == []

    def test_delete_is_idempotent(self, store: Store) -> None:
        """A deleted object is gone; deleting it again, or what never was, is fine."""
        store.put("a/b", b"1", content_type=PNG)
        for key in ("a/b", "a/b", "never/was"):
            store.delete(key)
        assert store.head("a/b") is None

    @pytest.mark.parametrize("key", ESCAPES)
    def test_key_escapes_are_refused(self, store: Store, key: str) -> None:
        """No operation takes a key that would leave the store or hide in it."""
        for operation in (store.get, store.head, store.delete):
            with pytest.raises(ValueError, match="object key"):
                operation(key)
        with pytest.raises(ValueError, match="object key"):
            store.put(key, b"", content_type=PNG)
        with pytest.raises(ValueError, match="object key"):
            store.presign(key, expires_seconds=60)

    @pytest.mark.parametrize("prefix", ["../", "/", "a/../b", "a//", "a\0", "./"])
    def test_prefix_escapes_are_refused(self, store: Store, prefix: str) -> None:
        """No listing looks outside the store."""
        with pytest.raises(ValueError, match="prefix"):
            list(store.list(prefix))

    def test_concurrent_puts(self, store: Store) -> None:
        """Sixteen threads write at once, into new folders too, and nothing is lost."""
        data = {f"images/{number % 7}/{number}.png": bytes([number]) * 1000 for number in range(64)}
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda item: store.put(*item, content_type=PNG), data.items()))
            assert dict(zip(data, pool.map(store.get, data), strict=True)) == data
        assert [found.key for found in store.list("images/")] == sorted(data)

    def test_presigned_url_reads(self, store: Store) -> None:
        """A presigned URL gives the object to whoever has it, by plain HTTP or file access."""
        store.put("images/ab/abc.png", b"pixels", content_type=PNG)
        url = store.presign("images/ab/abc.png", expires_seconds=60)
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"pixels"
            assert answer.headers["Content-Type"] == PNG

    def test_put_is_atomic(self, store: Store) -> None:
        """A reader during overwrites sees one whole version or another, never a mixture or nothing."""
        versions = [bytes([number]) * 200_000 for number in range(2)]
        store.put("a", versions[0], content_type=PNG)
        done = threading.Event()

        def write() -> None:
            for number in range(20):
                store.put("a", versions[number % 2], content_type=PNG)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        reads = 0
        while not done.is_set() or reads == 0:
            assert store.get("a") in versions
            reads += 1
        writer.join()

    def test_url_names_the_place(self, store: Store, key_prefix: str) -> None:
        """The URL is for people: it says where, and holds no secret."""
        assert "secret" not in store.url
        assert store.url.startswith("/") or store.url == f"s3://printroom-tests/{key_prefix}"


def test_two_prefixes_are_two_stores(seaweed_server: Any, key_prefix: str) -> None:
    """Stores of one bucket under different prefixes do not see each other."""
    one, other = (seaweed_server.store(f"{key_prefix}/{name}") for name in ("one", "one-more"))
    one.put("a", b"1", content_type=PNG)
    assert list(other.list("")) == []
    assert other.head("a") is None


@pytest.mark.parametrize("name", ["s3_store", "moto_store"])
def test_long_listing_is_paged(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of several pages is complete and in order."""
    monkeypatch.setattr("shared.store.s3._PAGE_KEYS", 10)
    store = request.getfixturevalue(name)
    keys = [f"k/{number:05d}" for number in range(25)]
    for key in keys:
        store.put(key, b"", content_type=PNG)
    assert [found.key for found in store.list("k/")] == keys


def test_newer_checksums_round_trip(seaweed_server: Any, key_prefix: str) -> None:
    """`when_supported` (CRC instead of Content-MD5) works on a server that is not AWS."""
    store = seaweed_server.store(key_prefix, checksums="when_supported")
    store.put("a", b"1" * 100_000, content_type=PNG)
    assert store.get("a") == b"1" * 100_000
    assert store.get_range("a", 50_000, 10) == b"1" * 10


def test_ensure_bucket_is_idempotent(seaweed_server: Any, moto_endpoint: str) -> None:
    """Making a bucket twice, and from eight threads at once, is fine; other buckets stay missing."""
    seaweed = seaweed_server.store(bucket="made-once")
    moto = S3Store("made-once", endpoint_url=moto_endpoint, access_key_id="k", secret_access_key="s")
    for store in (seaweed, moto):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda made: made.ensure_bucket(), [store] * 8))
        store.ensure_bucket()
        store.put("a", b"1", content_type=PNG)
        assert store.get("a") == b"1"


def test_missing_bucket_names_itself(seaweed_server: Any) -> None:
    """Without its bucket every operation that can tell says which one is missing, and the fix."""
    store = seaweed_server.store(bucket="no-such-bucket")
    for operation in (
        lambda: store.put("a", b"", content_type=PNG),
        lambda: store.get("a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreDenied, match=r"no-such-bucket.*make the bucket"):
            operation()


def test_open_store_opens_both_kinds(
    seaweed_server: Any, key_prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An address is enough for a working store; S3 keys come from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed_server.secret_key)
    endpoint_url = seaweed_server.endpoint_url
    s3 = open_store(f"s3://printroom-tests/{key_prefix}/", endpoint_url=endpoint_url)
    folder = open_store(f"file://{tmp_path}/store", endpoint_url=None)
    assert isinstance(s3, S3Store)
    assert isinstance(folder, FolderStore)
    for store in (s3, folder):
        store.put("a", b"1", content_type=PNG)
        assert store.get("a") == b"1"
