"""Turns the error that ends a command into one line on stderr and an exit status; --debug shows the traceback.

Every program of Printroom that a person starts runs inside `run_command`. Exit status: 0 done, 1 work failed, 2 a
mistake that a person can fix, 130 interrupted. Imports no library: an error of one is recognised by where its class
comes from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from shared.errors import PrintroomError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

#: Shows tracebacks, wherever it stands on a command line.
DEBUG_OPTION = "--debug"

#: An unexpected error's own text may be pages long.
_TEXT_MAX = 300

_HINTS = {
    errno.EROFS: "name a folder that can be written: --out, PRINTROOM_STORE, PRINTROOM_CACHE",
    errno.EACCES: "this user has no right to it: change its owner or mode, or name another place",
    errno.EPERM: "this user has no right to it: change its owner or mode, or name another place",
    errno.ENOENT: "no such file or folder here: check the spelling and the folder you are in",
    errno.ENOTDIR: "a part of this path is a file: name a folder",
    errno.EISDIR: "this is a folder: name a file",
    errno.EEXIST: "something else has this name already: name another place",
    errno.ENAMETOOLONG: "a name on disk has at most 255 bytes: choose a shorter one",
    errno.ELOOP: "its links lead round in a circle: remove one of them",
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.EIO: "the disk or the network folder fails: look at the system's log",
}

#: Path errors that a person can fix by saying something else.
_USAGE_ERRNOS = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}

#: The top package of an error's class -> what it speaks for.
_LIBRARIES = {
    "redis": "Redis",
    "kombu": "Redis, through Celery",
    "amqp": "Redis, through Celery",
    "celery": "Celery",
    "botocore": "the store",
    "boto3": "the store",
    "s3transfer": "the store",
    "urllib3": "the network",
    "pyarrow": "a Parquet file",
    "zstandard": "a compressed file",
    "yaml": "a YAML file",
    "PIL": "an image",
}

#: What stands before the host of an address, but for the words with which our own messages show where it stands.
_PASSWORD = re.compile(r"(?<=://)(?!(?:USER)?:PASSWORD@)[^\s/@]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a command ends: what a person reads, and the exit status."""

    text: str
    status: int


def run_command(name: str, command: Callable[[], int | None], *, debug: bool | None = None) -> int:
    """Run a command to its end, and return its exit status. Errors become one line on stderr.

    Args:
        name: stands before the line, as the program's name.
        debug: show tracebacks; by default where --debug is on the command line.
    """
    prepare_streams()
    show = DEBUG_OPTION in sys.argv[1:] if debug is None else debug
    try:
        status = command()
        _flush()
    except BrokenPipeError:
        # The reader went away (`| head`): nothing is wrong, and nobody is left to tell.
        _discard_stdout()
        return 0
    except BaseException as error:
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 0 if error.code is None else EXIT_FAILED
        _discard_stdout_if_full()
        ending = explain(error)
        _write_error("".join(traceback.format_exception(error)) if show else "")
        _write_error(f"{name}: {ending.text}\n" if ending.text else "")
        return ending.status
    return status or 0


def explain(error: BaseException) -> Ending:
    """Return what a person reads of an error, on one line but for the list of a sweep's mistakes, and the status."""
    if isinstance(error, PrintroomError):
        status = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
        return Ending(text=_masked(str(error)), status=status)
    if isinstance(error, KeyboardInterrupt):
        return Ending(text="", status=EXIT_INTERRUPTED)
    if isinstance(error, TimeoutError):
        return Ending(text=_line(error) or "it took too long", status=EXIT_FAILED)
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) and library == "builtins":
        return _of_system(error)
    if isinstance(error, MemoryError):
        return Ending(text="this machine's memory is full: ask for less at a time", status=EXIT_FAILED)
    if isinstance(error, RecursionError):
        return Ending(text="something is nested too deeply to be read", status=EXIT_USAGE)
    if isinstance(error, UnicodeError):
        return Ending(text=f"text in an encoding that does not fit: {_line(error)}", status=EXIT_USAGE)
    if library in _LIBRARIES:
        return Ending(text=f"{_LIBRARIES[library]}: {_line(error)}", status=EXIT_FAILED)
    text = f"unexpected {type(error).__name__}: {_line(error)}".rstrip(": ")
    return Ending(
        text=f"{text} (a fault of Printroom's: {DEBUG_OPTION} shows where; please report it)",
        status=EXIT_FAILED,
    )


def prepare_streams() -> None:
    """Let stdout and stderr escape what their encoding cannot show, instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def document_bytes(text: str, stream: TextIO) -> str | bytes:
    """Return JSON or YAML as it is to be written: UTF-8 whatever the locale, but on a terminal as that can show it."""
    return text if stream.isatty() else text.encode("utf-8", "backslashreplace")


def _of_system(error: OSError) -> Ending:
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    what = (error.strerror or _line(error) or type(error).__name__).lower()
    hint = _HINTS.get(error.errno or 0, "")
    text = ": ".join(part for part in (" -> ".join(places), what, hint) if part)
    usage = bool(places) and error.errno in _USAGE_ERRNOS
    return Ending(text=_masked(text), status=EXIT_USAGE if usage else EXIT_FAILED)


def _line(error: BaseException) -> str:
    """Return an error's text on one line, not too long, without what steers a terminal and without passwords."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return _masked(text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]} ...")


def _masked(text: str) -> str:
    return _PASSWORD.sub("***@", text)


def _flush() -> None:
    """Write out what stdout holds back, while an error can still be told: a full disk shows only now."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _discard_stdout_if_full() -> None:
    """Throw away what stdout cannot take, so that Python does not fail at it again on its way out."""
    try:
        _flush()
    except (OSError, ValueError):
        _discard_stdout()


def _write_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()
