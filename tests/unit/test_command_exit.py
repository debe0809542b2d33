"""How a command ends: one line and a status for any error, a traceback for nobody but who asks."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import botocore.exceptions
import pyarrow
import pytest
import redis
import yaml

from shared.command_exit import document_bytes, explain, run_command
from shared.errors import SettingsError, StoreUnavailable, SweepError, UsageError
from shared.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


def raising(error):
    """Return a command that ends with this error."""

    def command():
        raise error

    return command


def system_error(number, *paths):
    """Return the error that the system raises for a path."""
    return OSError(number, os.strerror(number), *paths)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UsageError("say which"), 2, "say which"),
        (SweepError(["line 1: a", "line 2: b"]), 2, "line 1: a\nline 2: b"),
        (StoreUnavailable("away"), 1, "away"),
        (KeyboardInterrupt(), 130, ""),
        (system_error(errno.EROFS, "prints"), 2, "prints: read-only file system: name a folder that can be"),
        (system_error(errno.EACCES, "/srv/x"), 2, "/srv/x: permission denied: this user has no right"),
        (system_error(errno.ENOTDIR, "a/b"), 2, "a/b: not a directory: a part of this path is a file"),
        (system_error(errno.ENAMETOOLONG, "a" * 300), 2, "a" * 300),
        (system_error(errno.ENOSPC, "x.png"), 1, "x.png: no space left on device: free some space"),
        (system_error(errno.ENOSPC), 1, "no space left on device"),
        (system_error(errno.EMFILE), 1, "too many open files: raise the limit"),
        (UnicodeEncodeError("cp1252", "é\u4e2d", 1, 2, "no such character"), 2, "text in an encoding"),
        (MemoryError(), 1, "this machine's memory is full"),
        (RecursionError("maximum recursion depth exceeded"), 2, "something is nested too deeply"),
        (redis.exceptions.ResponseError("WRONGTYPE"), 1, "Redis: WRONGTYPE"),
        (botocore.exceptions.ProfileNotFound(profile="x"), 1, "the store: The config profile (x)"),
        (pyarrow.ArrowInvalid("not a Parquet file"), 1, "a Parquet file: not a Parquet file"),
        (yaml.YAMLError("bad"), 1, "a YAML file: bad"),
        (TimeoutError("still 3 jobs to go"), 1, "still 3 jobs to go"),
        (
            TypeError("len() of unsized object"),
            1,
            "unexpected TypeError: len() of unsized object (a fault of",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_any_error_is_a_line_and_a_status(error, status, said, capsys):
    """Errors of ours, of the system, of libraries and of nobody: what was wrong, the fix, the documented status."""
    assert run_command("printroom", raising(error), debug=False) == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"printroom: {said}") if said else shown == ""
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == len(said.splitlines() or [])


def test_debug_shows_the_traceback_before_the_line(capsys):
    """Who asks sees where it comes from, and the line last."""
    assert run_command("printroom", raising(ValueError("odd")), debug=True) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.splitlines()[-1].startswith("printroom: unexpected ValueError: odd")


def test_no_password_and_no_escape_sequence_is_shown():
    """What a library quotes of an address, or of a file, does not show a password and does not steer a terminal."""
    text = explain(redis.RedisError("redis://user:hunter2@host/0 \x1b[31m says\nno")).text
    assert text == "Redis: redis://***@host/0 [31m says no"
    assert len(explain(ValueError("x" * 10_000)).text) < 500


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("localhost:6379", "redis://:PASSWORD@host:port/db"),
        ("redis://h/0?password=hunter2", "redis://:PASSWORD@host:port/db"),
        ("redis://h/0?username=hunter2", "redis://USER:PASSWORD@host:port/db"),
    ],
)
def test_a_fix_that_shows_where_a_password_stands_is_shown_whole(url, shown):
    """The words of a message that show how an address is written are no password."""
    with pytest.raises(SettingsError) as caught:
        load_settings(redis_url=url)
    text = explain(caught.value).text
    assert shown in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("ended", "status"), [(None, 0), (0, 0), (3, 3), (SystemExit(75), 75), (SystemExit("no"), 1)]
)
def test_a_status_is_passed_on(ended, status):
    """What a command returns or exits with is the status."""
    command = raising(ended) if isinstance(ended, SystemExit) else lambda: ended
    assert run_command("printroom", command, debug=False) == status


def test_documents_are_utf8_where_a_program_reads_them():
    """JSON and YAML in a pipe are UTF-8 whatever the locale; lone surrogates are escaped as JSON escapes them."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    assert document_bytes('"é \u4e2d \udcff"', pipe) == '"é \u4e2d \\udcff"'.encode()


def run_cli(*arguments, environment=None, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=100,
        **options,
    )


def test_a_prompt_that_the_console_cannot_show(tmp_path):
    """Accents, emoji and lone surrogates are escaped on a console of another encoding; --json stays UTF-8."""
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("name: café\nprompt: ['a café 🎩 中']\nsteps: 2\n", encoding="utf-8")
    for encoding in ("cp1252", "ascii"):
        shown = run_cli("plan", str(sweep), environment={"PYTHONIOENCODING": encoding})
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert b"\\U0001f3a9" in shown.stdout
    shown = run_cli("plan", str(sweep), "--json", environment={"PYTHONIOENCODING": "cp1252"})
    assert (shown.returncode, "a café 🎩 中" in shown.stdout.decode("utf-8")) == (0, True)


def test_a_full_disk_behind_stdout_is_told(tmp_path):
    """What cannot be written is an error with a status, not a traceback at exit."""
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("prompt: a cat\n")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "producer.cli", "plan", str(sweep), "--json"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=100,
        )
    assert (ended.returncode, ended.stderr.decode()) == (
        1,
        "printroom: no space left on device: free some space, then run the same command again\n",
    )
