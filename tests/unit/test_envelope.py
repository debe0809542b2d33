"""What a queue may hold: one of our messages, or anything at all."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import read_envelope, write_envelope
from shared.errors import MessageCorrupt, MessageError
from shared.message import ChunkMessage, parse_message
from shared.names import RENDER_CHUNK

ARGUMENT = ChunkMessage(sweep="ab12", chunk=7).to_json()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def test_what_is_written_is_read():
    """An envelope of ours holds its argument, has a task and a delivery tag of its own, and goes back to its queue."""
    first, second = (write_envelope(ARGUMENT, "q") for _ in range(2))
    assert read_envelope(json.dumps(first)) == ARGUMENT
    assert parse_message(read_envelope(json.dumps(first).encode())) == ChunkMessage(sweep="ab12", chunk=7)
    assert first["properties"]["delivery_info"] == {"exchange": "", "routing_key": "q"}
    assert first["headers"]["id"] != second["headers"]["id"]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]


@pytest.mark.parametrize("task", ["another.task", None])
def test_a_message_of_another_task_is_refused(task):
    """Another program on the same Redis may send what looks like a chunk of ours; a worker must not render it."""
    envelope = write_envelope(ARGUMENT, "q")
    envelope["headers"]["task"] = task
    with pytest.raises(MessageCorrupt, match="not a message of the task"):
        read_envelope(json.dumps(envelope))


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_is_read_or_refused(text):
    """Bytes of any kind, and JSON of any shape: an object to parse, or our own error."""
    with pytest.raises(MessageCorrupt):
        read_envelope(text)


@given(st.sampled_from(["body", "headers", "properties"]), JSON, JSON, st.data())
def test_a_changed_envelope_is_read_or_refused(part, value, inner, data):
    """One part of a genuine envelope, or one field of a part, or the body, replaced by anything."""
    envelope = write_envelope(ARGUMENT, "q")
    how = data.draw(st.sampled_from(["whole", "field", "body"]))
    if how == "whole":
        envelope[part] = value
    elif how == "field" and part != "body":
        envelope[part] = {**envelope[part], data.draw(st.sampled_from(sorted(envelope[part]))): value}
    else:
        envelope["body"] = base64.b64encode(json.dumps([value, inner, {}]).encode()).decode()
    try:
        argument = read_envelope(json.dumps(envelope))
    except MessageCorrupt:
        return
    assert isinstance(argument, dict)
    with contextlib.suppress(MessageError):
        assert isinstance(parse_message(argument), ChunkMessage)


def test_a_huge_or_deep_message_is_refused_unread():
    """Size is looked at before JSON, and depth ends in our own error."""
    with pytest.raises(MessageCorrupt, match="65537 bytes"):
        read_envelope(b" " * 65_537)
    with pytest.raises(MessageCorrupt, match="not JSON"):
        read_envelope(b"[" * 60_000)


def test_a_body_with_other_signs_is_no_base64():
    """A decoder may pass over signs that are none of base64's; what was changed on its way is not read."""
    envelope = write_envelope(ARGUMENT, "q")
    envelope["body"] = f"{envelope['body'][:4]}!{envelope['body'][4:]}"
    with pytest.raises(MessageCorrupt, match="not base64"):
        read_envelope(json.dumps(envelope))


@pytest.mark.parametrize("header", ["eta", "expires"])
def test_nothing_is_kept_for_later(header):
    """A message for another time would be held unacknowledged until then."""
    envelope = write_envelope(ARGUMENT, "q")
    envelope["headers"][header] = "2999-01-01T00:00:00"
    with pytest.raises(MessageCorrupt, match="run at some time"):
        read_envelope(json.dumps(envelope))


def test_celery_sends_what_is_read(valkey_server, key_prefix):
    """What the pinned Celery and kombu put into a queue is one of our envelopes: read as it stands."""
    import redis

    from shared.broker import make_app, send_chunk
    from shared.settings import Settings

    settings = Settings(redis_url=valkey_server.url, redis_prefix=f"{key_prefix}:")
    app = make_app(settings)
    send_chunk(app, "q", ChunkMessage(sweep="ab12", chunk=7))
    with redis.Redis.from_url(valkey_server.url) as client:
        (text,) = client.lrange(f"{key_prefix}:q", 0, -1)
    app.close()
    assert read_envelope(text) == ARGUMENT
    sent, ours = json.loads(text), write_envelope(ARGUMENT, "q")
    assert sent["headers"]["task"] == RENDER_CHUNK
    for part in ("headers", "properties"):
        missing = sent[part].keys() - ours[part].keys()
        assert {name for name in missing if sent[part][name]} <= {"origin", "reply_to"}
