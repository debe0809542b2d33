"""The one message of the queue: which chunk to render. Knows nothing of how it travels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared import names
from shared.errors import MessageCorrupt, VersionUnsupported

#: The message says which chunk; everything else is in the plan.
_MESSAGE_KEYS = {"version", "sweep", "chunk"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkMessage:
    """Which chunk to render."""

    sweep: str
    chunk: int

    def to_json(self) -> dict[str, Any]:
        """Return the message's body."""
        return {"version": names.PROTOCOL, "sweep": self.sweep, "chunk": self.chunk}


def parse_message(body: Any) -> ChunkMessage:
    """Read a message's body.

    Raises: MessageCorrupt, VersionUnsupported.
    """
    if not isinstance(body, dict) or type(body.get("version")) is not int:
        raise MessageCorrupt(f"not a chunk message: {body!r:.200}")
    if body["version"] != names.PROTOCOL:
        raise VersionUnsupported(f"message version {body['version']}: this version speaks {names.PROTOCOL}")
    sweep, chunk = body.get("sweep"), body.get("chunk")
    if set(body) != _MESSAGE_KEYS or not isinstance(sweep, str) or type(chunk) is not int or chunk < 0:
        raise MessageCorrupt(f"not a chunk message: {body!r:.200}")
    return ChunkMessage(sweep=sweep, chunk=chunk)
