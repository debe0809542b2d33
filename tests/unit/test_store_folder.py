"""The folder store's own promises: durable, whole, inside its root; and what each failure is called."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError, StoreDenied, StoreError, StoreFull, StoreUnavailable
from shared.store.folder import FolderStore
from shared.store.keys import check_key, check_prefix, is_key
from shared.store.open import open_store

PNG = "image/png"

names = st.text("ab0.-", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))


def _files(store: FolderStore) -> list[Path]:
    return [path for path in Path(store.url).rglob("*") if path.is_file()]


def _failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@settings(max_examples=60, deadline=None)
@given(
    keys=st.sets(st.lists(names, min_size=1, max_size=3).map("/".join)), prefix=st.text("ab0.-", max_size=3)
)
def test_list_is_sorted_and_complete(keys: set[str], prefix: str, tmp_path_factory: Any) -> None:
    """For any keys and prefix the listing is what sorting the keys gives, slash included."""
    stored = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    store = FolderStore(tmp_path_factory.mktemp("store"))
    for key in stored:
        store.put(key, b"", content_type=PNG)
    expected = sorted(key for key in stored if key.startswith(prefix))
    assert [found.key for found in store.list(prefix)] == expected


def test_a_listing_asks_about_what_it_wants_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand neighbours cost a listing their names and nothing more."""
    store = FolderStore(tmp_path)
    for key in ("shards/1-a", "shards/1-b", "shards/2-a", "shards/1/x", "shard"):
        store.put(key, b"", content_type=PNG)
    asked: list[str] = []

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self._entry = entry.name, entry

        def __getattr__(self, name: str) -> Any:
            asked.append(self.name)
            return getattr(self._entry, name)

    scandir = os.scandir

    @contextlib.contextmanager
    def watched(folder: Path) -> Any:
        with scandir(folder) as found:
            yield map(Entry, found)

    monkeypatch.setattr(os, "scandir", watched)
    assert [info.key for info in store.list("shards/1-")] == ["shards/1-a", "shards/1-b"]
    assert set(asked) == {"1-a", "1-b"}


@given(st.text(max_size=30))
def test_any_key_stays_inside(key: str) -> None:
    """Whatever the text, it is refused or names a file under the root."""
    try:
        check_key(key)
    except ValueError:
        assert not is_key(key)
    else:
        root = Path("/store")
        assert root in Path(os.path.normpath(root / key)).parents
        assert check_prefix(key) == key


@pytest.mark.parametrize(
    ("number", "expected", "fix"),
    [
        (errno.ENOSPC, StoreFull, "free some space"),
        (errno.EDQUOT, StoreFull, "free some space"),
        (errno.EACCES, StoreDenied, "the right to write"),
        (errno.EROFS, StoreDenied, "the right to write"),
        (errno.EIO, StoreUnavailable, "cannot write"),
    ],
)
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_failed_put(
    number: int,
    expected: type[StoreError],
    fix: str,
    where: str,
    folder_store: FolderStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each failure has its error with the fix; the old object stays and no temporary file is left."""
    folder_store.put("a/b", b"old", content_type=PNG)
    with monkeypatch.context() as patched:
        patched.setattr(where, _failing(number))
        with pytest.raises(expected, match=fix) as raised:
            folder_store.put("a/b", b"new", content_type=PNG)
    assert "a/b" in str(raised.value)
    assert folder_store.url in str(raised.value)
    assert folder_store.get("a/b") == b"old"
    assert len(_files(folder_store)) == 1


def test_full_disk_while_writing(folder_store: FolderStore, tmp_path: Path) -> None:
    """A real limit of the system, hit in the middle of a file, leaves nothing behind."""
    script = f"""
import resource, signal
from shared.store.folder import FolderStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
FolderStore({folder_store.url!r}).put("a", bytes(100_000), content_type="x")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert "StoreUnavailable: cannot write a in" in ended.stderr
    assert _files(folder_store) == []


def test_put_is_synced_before_it_is_named(folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before its name is, and the name before put returns."""
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        sync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    folder_store.put("a/first", b"1", content_type=PNG)
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    folder_store.put("a/second", b"1", content_type=PNG)
    assert calls == ["sync file", "rename", "sync folder"]
    calls.clear()
    folder_store.put("b/c/third", b"1", content_type=PNG)
    assert calls == ["sync folder", "sync folder", "sync file", "rename", "sync folder"]


def test_temporary_files_are_not_objects(folder_store: FolderStore) -> None:
    """What a killed writer leaves is neither listed nor readable by any key."""
    folder_store.put("a/b", b"1", content_type=PNG)
    left = Path(folder_store.url, "a", "~1-2")
    left.write_bytes(b"half")
    assert [found.key for found in folder_store.list("")] == ["a/b"]
    with pytest.raises(ValueError, match="object key"):
        folder_store.get("a/~1-2")


def test_file_has_the_usual_rights(folder_store: FolderStore) -> None:
    """Others may read the images as the umask says, not as a private temporary file."""
    previous = os.umask(0o022)
    try:
        folder_store.put("a", b"1", content_type=PNG)
    finally:
        os.umask(previous)
    assert Path(folder_store.url, "a").stat().st_mode & 0o777 == 0o644


def test_object_and_folder_of_one_name(folder_store: FolderStore) -> None:
    """A folder store cannot hold "a" and "a/b": it says so."""
    folder_store.put("a", b"1", content_type=PNG)
    with pytest.raises(StoreError, match="want the same name"):
        folder_store.put("a/b", b"1", content_type=PNG)
    folder_store.put("c/d", b"1", content_type=PNG)
    with pytest.raises(StoreError, match="want the same name"):
        folder_store.put("c", b"1", content_type=PNG)
    folder_store.delete("c")
    assert [found.key for found in folder_store.list("")] == ["a", "c/d"]


@pytest.mark.parametrize("spelling", ["{0}/prints", "file://{0}/prints", "file://localhost{0}/pri%6Ets"])
def test_open_store_takes_folders(spelling: str, tmp_path: Path) -> None:
    """A path and a file URL open the same folder."""
    store = open_store(spelling.format(tmp_path), endpoint_url=None)
    assert store.url == str(tmp_path / "prints")


def test_open_store_takes_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is of the folder the process was started in, whatever it changes to later."""
    monkeypatch.chdir(tmp_path)
    store = open_store("prints", endpoint_url=None)
    monkeypatch.chdir("/")
    assert store.url == str(tmp_path / "prints")


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("", {}, "s3://bucket/prefix"),
        ("  ", {}, "empty"),
        ("gs://bucket/x", {}, "unknown kind"),
        ("s3://", {}, "no bucket name"),
        ("s3:///x", {}, "no bucket name"),
        ("s3://Bad_Bucket/x", {}, "'Bad_Bucket' is no bucket name"),
        ("s3://bucket/../x", {}, "object key"),
        ("s3://bucket//x", {}, "object key"),
        ("s3://key:hunter2@bucket/x", {}, "AWS_SECRET_ACCESS_KEY"),
        ("file://elsewhere/x", {}, "file:///absolute/path"),
        ("file://", {}, "file:///absolute/path"),
        ("s3://bucket", {"endpoint_url": "localhost:8333"}, "http://host:port"),
        ("s3://bucket", {"endpoint_url": "http://h:port"}, "http://host:port"),
        ("s3://bucket", {"endpoint_url": "http://key:hunter2@h"}, "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", {"checksums": "never"}, "when_required, when_supported"),
        ("s3:/x", {}, "two slashes after the colon"),
        ("S3:bucket", {}, "two slashes after the colon"),
        ("S3://", {}, "no bucket name"),
        ("s3://a..b/x", {}, "no bucket name"),
        ("s3://10.0.0.1/x", {}, "no bucket name"),
        ("s3://prints.s3.amazonaws.com/x", {}, "is a host: use the bucket's name alone"),
        ("s3://prints.fra1.digitaloceanspaces.com", {}, "is a host: use the bucket's name alone"),
        ("s3://prints/t2", {"endpoint_url": "http://h:8333/prints"}, "not here: use http://h:8333$"),
        ("s3://prints/t2", {"endpoint_url": "http://h:8333/prints/t2/"}, "not here: use http://h:8333$"),
        ("s3://prints/t2", {"endpoint_url": "http://h:8333/other"}, "not here: use http://h:8333$"),
        ("s3://prints", {"endpoint_url": "http://h:8333?x=1"}, r"without \? and #: use http://h:8333$"),
        ("s3://prints", {"endpoint_url": "https://prints.s3.amazonaws.com"}, "or leave it out for AWS"),
        (
            "s3://prints",
            {"endpoint_url": "https://b.s3.eu-west-1.amazonaws.com"},
            "use https://s3.eu-west-1.ama",
        ),
        ("s3://prints", {"endpoint_url": "https://prints.s3.example.org"}, "use https://s3.example.org"),
        ("s3://prints", {"endpoint_url": "https://prints.ams3.digitaloceanspaces.com"}, "https://ams3.dig"),
        ("s3://prints", {"endpoint_url": "http://h:443"}, "port 443 speaks https: use https://h"),
        ("s3://prints", {"endpoint_url": "http://h 1:8333"}, "http://host:port"),
    ],
)
def test_open_store_refuses(url: str, options: dict[str, Any], reason: str) -> None:
    """A wrong address is a settings error with the fix, and never shows a password."""
    with pytest.raises(SettingsError, match=reason) as raised:
        open_store(url, **{"endpoint_url": None, **options})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "endpoint_url", "base"),
    [
        ("s3://prints", "http://prints:8333", "http://prints:8333"),
        ("s3://prints", "http://h:8333/", "http://h:8333"),
        ("s3://storage", "https://storage.googleapis.com", "https://storage.googleapis.com"),
        ("s3://minio", "https://minio.example.org", "https://minio.example.org"),
        ("S3://prints", "https://x.example.co/storage/v1/s3", "https://x.example.co/storage/v1/s3"),
        ("s3://prints", f"https://{'0' * 32}.r2.cloudflarestorage.com", None),
    ],
)
def test_endpoints_that_are_right(url: str, endpoint_url: str, base: str | None) -> None:
    """A host that happens to be called like the bucket, a slash at the end and a gateway's own path are taken."""
    assert open_store(url, endpoint_url=endpoint_url).endpoint == (base or endpoint_url)


def test_folder_needs_no_boto3(tmp_path: Path) -> None:
    """Opening a folder imports none of boto3; opening S3 does, and sends nothing yet."""
    script = f"""
import sys
from shared.store.open import open_store
open_store({str(tmp_path)!r}, endpoint_url=None).put("a", b"", content_type="x")
assert "boto3" not in sys.modules
store = open_store("s3://bucket/prefix/", endpoint_url="http://127.0.0.1:1")
assert "boto3" in sys.modules
assert store.url == "s3://bucket/prefix"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
