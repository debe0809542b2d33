"""A local folder as a store: one file an object, written whole or not at all. Knows nothing of S3."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ObjectMissing, StoreDenied, StoreError, StoreFull, StoreUnavailable
from shared.store.base import ObjectInfo
from shared.store.keys import check_folder, check_key, check_prefix, check_range, is_key

#: First character of temporary files. No key may hold it, so no listing ever shows one.
_TEMPORARY = "~"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: What a file system without links says (FAT, some network mounts).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
#: What the system says when a path leads through a file, or names a folder: no object is there.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class FolderStore:
    """Keeps objects as files under one folder, which is made when first written to.

    A key cannot be an object and a folder of others at once ("a" and "a/b"), as file systems have it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).expanduser().absolute()
        #: The folder's absolute path.
        self.url = str(self._root)
        self._has_links = True

    @property
    def keeps_first(self) -> bool:
        """Whether this file system has links, by which `put_new` is one step."""
        return self._has_links

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write a file beside its final name, fsync it, rename it into place and fsync the folder.

        Raises: ValueError, StoreFull, StoreDenied, StoreUnavailable, StoreError.
        """
        self._write(key, data, lambda temporary, path: bool(temporary.replace(path)))

    def put_new(self, key: str, data: bytes, *, content_type: str) -> bool:
        """Write a file as `put` does, and link it to its final name if there is no file of that name.

        Raises: ValueError, StoreFull, StoreDenied, StoreUnavailable, StoreError.
        """
        return self._write(key, data, self._place_new)

    def _write(self, key: str, data: bytes, place: Callable[[Path, Path], bool]) -> bool:
        """Write a temporary file, and let it be placed; return what that returned."""
        path = self._path(key)
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
        try:
            self._make_folder(path.parent)
            try:
                _write_durably(temporary, data)
                placed = place(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            _fsync_folder(path.parent)
        except OSError as e:
            raise self._error(e, f"cannot write {key}") from e
        return placed

    def _place_new(self, temporary: Path, path: Path) -> bool:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._has_links = False
            if path.exists():
                return False
            temporary.replace(path)
        return True

    def get(self, key: str) -> bytes:
        """Return a file's content.

        Raises: ValueError, ObjectMissing, StoreDenied, StoreUnavailable.
        """
        with self._reading(key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """Return part of a file, as far as the file goes.

        Raises: ValueError, ObjectMissing, StoreDenied, StoreUnavailable.
        """
        check_range(offset, size_bytes)
        with self._reading(key), self._path(key).open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    def head(self, key: str) -> ObjectInfo | None:
        """Return a file's size, or None where there is no file.

        Raises: ValueError, StoreDenied, StoreUnavailable.
        """
        path = self._path(key)
        try:
            return ObjectInfo(key=key, size_bytes=path.stat().st_size) if path.is_file() else None
        except OSError as e:
            if e.errno in _ABSENT:
                return None
            raise self._error(e, f"cannot read {key}") from e

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files whose keys start with `prefix`, in key order; reads one folder at a time.

        Raises: ValueError, StoreDenied, StoreUnavailable.
        """
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        try:
            yield from self._walk(f"{folder}/" if folder else "", prefix)
        except OSError as e:
            raise self._error(e, f"cannot list {prefix!r}") from e

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, in order; one that is empty too.

        Raises: ValueError, StoreDenied, StoreUnavailable.
        """
        check_folder(prefix)
        try:
            entries = _entries(self._root / prefix, "")
        except OSError as e:
            raise self._error(e, f"cannot list {prefix!r}") from e
        yield from sorted(name.removesuffix("/") for name, size_bytes in entries if size_bytes is None)

    def delete(self, key: str) -> None:
        """Remove a file; its folders stay.

        Raises: ValueError, StoreDenied, StoreUnavailable.
        """
        path = self._path(key)
        try:
            path.unlink()
            _fsync_folder(path.parent)
        except OSError as e:
            if e.errno not in _ABSENT and not path.is_dir():
                raise self._error(e, f"cannot delete {key}") from e

    def presign(self, key: str, *, expires_seconds: int) -> str:
        """Return the file's file:// URL. It never expires; the folder's own rights rule."""
        return self._path(key).as_uri()

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Give what the system says of a read a name of ours."""
        try:
            yield
        except OSError as e:
            if e.errno in _ABSENT:
                raise ObjectMissing(f"no object {key} in {self.url}") from e
            raise self._error(e, f"cannot read {key}") from e

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, each recorded durably in its parent."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            _fsync_folder(made.parent)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects under one folder. `folder` is a key part: "" or "a/b/"."""
        for name, size_bytes in _entries(self._root / folder, prefix[len(folder) :]):
            key = folder + name
            if size_bytes is None:
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                yield ObjectInfo(key=key, size_bytes=size_bytes)

    def _error(self, error: OSError, what: str) -> StoreError:
        """Return the store error that an operating system error stands for."""
        reason = f"{what} in {self.url}: {error.strerror or error}"
        if error.errno in _FULL:
            return StoreFull(f"{reason}; free some space there, or point PRINTROOM_STORE at another place")
        if error.errno in _DENIED:
            return StoreDenied(f"{reason}; give this user the right to write there")
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            return StoreError(f"{reason}; a file and a folder want the same name, move one away")
        return StoreUnavailable(reason)


def _entries(folder: Path, prefix: str) -> list[tuple[str, int | None]]:
    """Return a folder's entries in key order: (name, size), or (name + "/", None) for a folder.

    The slash takes part in the order: "a.b" comes before "a/b". What cannot lead to the prefix (what is left of it
    below this folder) is passed over without asking the system about it: one chunk's shards lie among all others.
    """
    entries: list[tuple[str, int | None]] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not is_key(entry.name) or not _leads_to(entry.name, prefix):
                    continue
                if entry.is_dir():
                    entries.append((f"{entry.name}/", None))
                elif entry.is_file():
                    entries.append((entry.name, entry.stat().st_size))
    except OSError as e:
        if e.errno not in _ABSENT:
            raise
    return sorted(entries, key=lambda entry: entry[0])


def _leads_to(name: str, prefix: str) -> bool:
    return name.startswith(prefix) or prefix.startswith(f"{name}/")


def _write_durably(path: Path, data: bytes) -> None:
    """Write a new file with the usual rights (umask) and wait until it is on the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is on the disk only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
