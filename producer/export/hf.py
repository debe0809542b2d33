"""Layout hf: an image folder for `datasets`, train/<ab>/<job id>.png with train/metadata.parquet.

The table is Parquet and not JSON lines, which that loader also reads: where types are guessed from text, a column that
begins with nulls is an error. Jobs that ask for the same image share its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from producer.export.base import Brought, extension
from producer.export.columns import name_schema, to_table
from producer.export.files import is_right, make_folder, replacing, write_whole
from producer.results.manifest_row import DoneRow
from shared.errors import UsageError

#: That loader passes every value through Python and Arrow's guess of its type, which is int64.
_SEED_END = 2**63

#: Rows written to the table at once.
_TABLE_ROWS = 1000


class ImageFolderLayout:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "train"
        make_folder(self._folder)

    def has(self, row: DoneRow) -> bool:
        """Return whether the image's file is there and right.

        Raises: UsageError for a seed that the loader of image folders would choke on.
        """
        if row["seed"] >= _SEED_END:
            raise UsageError(
                f"seed={row['seed']}: `datasets` reads no number of 2**63 or more from an image folder;"
                " use --format parquet"
            )
        path = self._folder / _file_name(row)
        return is_right(path, size_bytes=row["size_bytes"], sha256=row["sha256"])

    def place(self, row: DoneRow, data: bytes) -> None:
        """Write the image's file. Another job's thread may be writing the same."""
        write_whole(self._folder / _file_name(row), data, tag=f".{row['index']}")

    def write(self, brought: Iterator[Brought]) -> None:
        """Write the table, anew each time."""
        rows = (
            {**row, "file_name": _file_name(row)} for item in brought if (row := item.image_row) is not None
        )
        schema = name_schema()
        with (
            replacing(self._folder / "metadata.parquet") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as table,
        ):
            while some := list(islice(rows, _TABLE_ROWS)):
                table.write_table(to_table(some, schema))


def _file_name(row: DoneRow) -> str:
    """Return an image's place beside the table. Folders of two digits: the Hub wants few files in each."""
    return f"{row['job_id'][:2]}/{row['job_id']}{extension(row)}"
