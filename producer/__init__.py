"""Turns a sweep into a plan, submits it, watches it, and brings the prints home. Needs no torch.

From Python: `from producer import Printroom` (docs/python.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Printroom

__all__ = ["Printroom"]


def __getattr__(name: str) -> Any:
    """Import the client when it is first asked for: `printroom --help` does without it."""
    if name == "Printroom":
        from producer.client import Printroom

        return Printroom
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
