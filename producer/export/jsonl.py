"""Layout jsonl: one line for each job and no images; each line has the image's key and sha256, and a URL on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from producer.export.files import replacing
from producer.results.manifest_row import ManifestRow
from producer.results.rows import to_json_line


def write_jsonl(folder: Path, rows: Iterator[ManifestRow]) -> None:
    """Write results.jsonl, whole or not at all. Raises: StoreError."""
    with replacing(folder / "results.jsonl") as lines:
        for row in rows:
            lines.write(f"{to_json_line(row)}\n".encode())
