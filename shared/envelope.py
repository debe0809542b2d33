"""Checks the envelope that kombu puts around a chunk message, before anything else reads it.

Anybody who reaches Redis can put anything into a queue, and Celery trusts what it finds there. So of a message only the
task's one argument is taken; the envelope that Celery gets is always one of ours.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from shared import names
from shared.errors import MessageCorrupt

#: Bytes of an envelope. Ours have some 800.
_BYTES_MAX = 65_536

#: What a message may ask of Celery: nothing.
_LATER = ("eta", "expires")


def read_envelope(text: bytes | str) -> dict[str, Any]:
    """Return the one argument of the one task, which `shared.message.parse_message` reads.

    Raises: MessageCorrupt, for whatever else a queue may hold.
    """
    if len(text) > _BYTES_MAX:
        raise MessageCorrupt(f"{len(text)} bytes: a message has at most {_BYTES_MAX}")
    envelope = _object(_json(text), "the envelope")
    headers = _object(envelope.get("headers"), "its headers")
    if headers.get("task") != names.RENDER_CHUNK:
        raise MessageCorrupt(f"not a message of the task {names.RENDER_CHUNK}: {headers.get('task')!r:.100}")
    if any(headers.get(name) is not None for name in _LATER):
        raise MessageCorrupt("it is to be run at some time: chunks are run when they come")
    return _argument(_body(envelope))


def write_envelope(argument: dict[str, Any], queue: str) -> dict[str, Any]:
    """Return a fresh envelope for the task's one argument, as kombu's and Celery's second protocol want it."""
    task = str(uuid.uuid4())
    body = json.dumps([[argument], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": names.RENDER_CHUNK,
            "id": task,
            "root_id": task,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "ignore_result": True,
            "argsrepr": repr((argument,))[:200],
            "kwargsrepr": "{}",
        },
        "properties": {
            "correlation_id": task,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _body(envelope: dict[str, Any]) -> Any:
    properties = _object(envelope.get("properties"), "its properties")
    text = envelope.get("body")
    if properties.get("body_encoding") != "base64" or not isinstance(text, str):
        raise MessageCorrupt("its body is not base64")
    try:
        body = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MessageCorrupt(f"its body is not base64: {error}") from error
    return _json(body)


def _argument(body: Any) -> dict[str, Any]:
    if not isinstance(body, list) or len(body) != 3:
        raise MessageCorrupt("its body is not [arguments, keywords, options]")
    positional, keywords, options = body
    if not isinstance(positional, list) or len(positional) != 1 or keywords != {}:
        raise MessageCorrupt("the task takes one argument")
    if any(_object(options, "its options").values()):
        raise MessageCorrupt("it asks for other tasks after this one")
    return _object(positional[0], "the task's argument")


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageCorrupt(f"not JSON: {error}") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MessageCorrupt(f"{what} is no object: {value!r:.100}")
    return value
