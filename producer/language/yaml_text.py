"""Writes a sweep as the text of a sweep file. Knows nothing of what its keys mean."""

from __future__ import annotations

from typing import Any

import yaml


def sweep_yaml(sweep: dict[str, Any]) -> str:
    """Return a sweep as the text of a sweep file."""
    text: str = yaml.dump(sweep, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=2**20)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes text that holds a line end in the way that escapes it: any other makes a line end of U+0085."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.splitlines() == [text] else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
