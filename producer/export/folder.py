"""Layout folder: images/<index>-<start of job id>.png for each image, and metadata.jsonl with a line for each job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from producer.export.base import Brought, extension, sample_name
from producer.export.files import is_right, make_folder, replacing, write_new, write_whole
from producer.results.manifest_row import DoneRow
from producer.results.rows import to_json_line


class FolderLayout:
    """See the module. With sidecars each image has its caption (.txt) and its row (.json) beside it."""

    def __init__(self, folder: Path, *, sidecars: bool = False) -> None:
        self._folder = folder
        self._sidecars = sidecars
        make_folder(folder / "images")

    def has(self, row: DoneRow) -> bool:
        """Return whether the image's file is there and right."""
        path = self._folder / file_name(row)
        return is_right(path, size_bytes=row["size_bytes"], sha256=row["sha256"])

    def place(self, row: DoneRow, data: bytes) -> None:
        """Write the image's file."""
        write_whole(self._folder / file_name(row), data)

    def write(self, brought: Iterator[Brought]) -> None:
        """Write metadata.jsonl, failed jobs included: they have no `file_name`."""
        with replacing(self._folder / "metadata.jsonl") as lines:
            for item in brought:
                row = item.image_row
                name = None if row is None else file_name(row)
                line = to_json_line({**item.row, "file_name": name})
                lines.write(f"{line}\n".encode())
                if self._sidecars and row is not None:
                    self._write_sidecars(self._folder / file_name(row), row)

    def _write_sidecars(self, image: Path, row: DoneRow) -> None:
        write_new(image.with_suffix(".txt"), row["prompt"].encode())
        text = json.dumps(row, ensure_ascii=False, indent=2)
        write_new(image.with_suffix(".json"), f"{text}\n".encode())


def file_name(row: DoneRow) -> str:
    """Return where a finished row's image goes, relative to the folder."""
    return f"images/{sample_name(row)}{extension(row)}"
