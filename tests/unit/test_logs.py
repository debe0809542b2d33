"""Logs: an event and its fields, for people and for machines."""

from __future__ import annotations

import json
import logging
import re

import pytest

from shared.logs import set_up_logging


@pytest.fixture
def stderr(capsys):
    """A function that returns what was logged; the root logger is put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json(stderr):
    """In containers a line is one JSON object: time in UTC, level, logger, event, and the event's fields."""
    set_up_logging("json", "INFO")
    logging.getLogger("worker.tasks").warning(
        "chunk_%s", "done", extra={"sweep": "ab", "chunk": 3, "name_of": "é\n"}
    )
    line = stderr()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", entry.pop("time"))
    assert entry == {
        "level": "warning",
        "logger": "worker.tasks",
        "event": "chunk_done",
        "sweep": "ab",
        "chunk": 3,
        "name_of": "é\n",
    }
    assert line.count("\n") == 1


def test_a_field_hides_no_key_of_the_line(stderr):
    """A field that is called like one of the line's own keys gets an underscore: an alert still finds the event."""
    set_up_logging("json", "INFO")
    logging.getLogger("worker").warning("listener_failed", extra={"event": "ImageStored", "level": 3})
    entry = json.loads(stderr())
    assert (entry["event"], entry["level"]) == ("listener_failed", "warning")
    assert (entry["event_"], entry["level_"]) == ("ImageStored", 3)


def test_json_of_anything(stderr):
    """A field that JSON does not know is shown as text: a log line is never lost to its fields."""
    set_up_logging("json", "INFO")
    logging.getLogger("x").info("event", extra={"place": {1}, "error": ValueError("bad")})
    entry = json.loads(stderr())
    assert (entry["place"], entry["error"]) == ("{1}", "bad")


def test_json_exception(stderr):
    """The traceback of a logged exception stands in its line."""
    set_up_logging("json", "INFO")
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("x").exception("failed")
    entry = json.loads(stderr())
    assert entry["event"] == "failed"
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ValueError: bad")


def test_text(stderr):
    """For people a line is time, level, event and fields."""
    set_up_logging("text", "INFO")
    logging.getLogger("x").info("chunk_done", extra={"sweep": "ab", "chunk": 3})
    logging.getLogger("x").info("bare")
    first, second = stderr().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    chunk_done sweep=ab chunk=3", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    bare", second)


def test_text_is_one_line_an_event(stderr):
    """A field with line breaks, such as a prompt, cannot forge another line."""
    set_up_logging("text", "INFO")
    logging.getLogger("x").info("job_failed", extra={"reason": "bad\n12:00:00 INFO    all_is_well"})
    assert len(stderr().splitlines()) == 1


def test_level(stderr):
    """Events below the level are not logged."""
    set_up_logging("text", "WARNING")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert [line.split()[2] for line in stderr().splitlines()] == ["loud"]


def test_set_up_again(stderr):
    """Setting up twice does not log twice."""
    set_up_logging("text", "INFO")
    set_up_logging("text", "INFO")
    logging.getLogger("x").info("once")
    assert len(stderr().splitlines()) == 1
