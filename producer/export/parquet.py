"""Layout parquet: shards with the images in them, as Hugging Face keeps image datasets: data/train-00000.parquet.

The column `image` is {bytes, path} and is marked as an image in the schema; the others are the manifest's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from producer.export.base import extension, sample_name
from producer.export.columns import IMAGE, image_schema, to_table
from producer.export.files import replacing
from producer.results.manifest_row import DoneRow

SHARD_NAME = "data/train-{:05d}.parquet"

#: Rows of a row group: it is what a reader must load to see one image. The Hub's viewer asks for about 100.
_GROUP_ROWS = 100

#: A row group ends here too: images may be large.
_GROUP_BYTES = 64 << 20


class ParquetShard:
    """A shard while it is being written, a row group in memory."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: list[Mapping[str, object]] = []
        self._waiting_bytes = 0
        self.size_bytes = 0

    def add(self, row: DoneRow, data: bytes) -> None:
        """Add a sample."""
        path = f"{sample_name(row)}{extension(row)}"
        self._rows.append({**row, IMAGE: {"bytes": data, "path": path}})
        self._waiting_bytes += len(data)
        self.size_bytes += len(data)
        if len(self._rows) == _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self.write_group()

    def write_group(self) -> None:
        """Write the rows that wait as one row group."""
        if self._rows:
            self._writer.write_table(to_table(self._rows, self._writer.schema))
            self._rows.clear()
            self._waiting_bytes = 0


@contextlib.contextmanager
def open_parquet_shard(path: Path) -> Iterator[ParquetShard]:
    """Open a shard's file. Raises: StoreError."""
    schema = image_schema()
    columns = [name for name in schema.names if name != IMAGE]
    with (
        replacing(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            # An image file does not get smaller, nor is it ever the same as the next.
            compression={**dict.fromkeys(columns, "zstd"), "image.bytes": "none", "image.path": "zstd"},
            use_dictionary=columns,
            write_page_checksum=True,
        ) as writer,
    ):
        shard = ParquetShard(writer)
        yield shard
        shard.write_group()
