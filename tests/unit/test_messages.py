"""The one message: what is taken, what is refused, and under which name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MessageCorrupt, MessageError, VersionUnsupported
from shared.message import ChunkMessage, parse_message
from shared.names import PROTOCOL

GOOD = {"version": PROTOCOL, "sweep": "ab12", "chunk": 7}


@pytest.mark.parametrize("chunk", [0, 7, 2**32])
def test_good(chunk):
    """A message of ours is read for what it says."""
    assert ChunkMessage(sweep="ab12", chunk=chunk) == parse_message({**GOOD, "chunk": chunk})


@given(st.text(), st.integers(0))
def test_round_trip(sweep, chunk):
    """A message read back from its JSON is the same message."""
    message = ChunkMessage(sweep=sweep, chunk=chunk)
    assert message == parse_message(json.loads(json.dumps(message.to_json())))


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        "text",
        [],
        [GOOD],
        {},
        {"sweep": "ab12", "chunk": 7},
        {**GOOD, "version": None},
        {**GOOD, "version": True},
        {**GOOD, "version": "1"},
        {**GOOD, "version": 1.0},
        {**GOOD, "sweep": None},
        {**GOOD, "sweep": 7},
        {**GOOD, "chunk": "7"},
        {**GOOD, "chunk": 7.0},
        {**GOOD, "chunk": True},
        {**GOOD, "chunk": -1},
        {**GOOD, "more": 1},
        {"version": PROTOCOL, "sweep": "ab12"},
        {"version": PROTOCOL, "chunk": 7},
    ],
)
def test_corrupt(body):
    """What is not a chunk message is MessageCorrupt and shows itself: nobody can act on it."""
    with pytest.raises(MessageCorrupt, match="not a chunk message"):
        parse_message(body)


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
@pytest.mark.parametrize("rest", [{"sweep": "ab12", "chunk": 7}, {"chunks": [1, 2]}, {}])
def test_another_version(version, rest):
    """A message of another version is refused as such, whatever else it says: it is for somebody else."""
    with pytest.raises(
        VersionUnsupported, match=f"message version {version}: this version speaks {PROTOCOL}"
    ):
        parse_message({"version": version, **rest})


def test_long_bodies_are_shown_short():
    """The error quotes no more than the beginning of a body."""
    with pytest.raises(MessageError) as caught:
        parse_message({"x": "y" * 10_000})
    assert len(str(caught.value)) < 250
