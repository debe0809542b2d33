"""Layout webdataset: tars of image, caption and row for each sample, and tables, as img2dataset writes them.

sweep-000000.tar holds <sample>.png, <sample>.txt (the prompt) and <sample>.json (the row); sweep-000000.parquet the
rows with their file_name; sweep-000000_stats.json how many there are. The same samples give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from producer.export.base import extension, sample_name
from producer.export.columns import name_schema, to_table
from producer.export.files import replacing
from producer.results.manifest_row import DoneRow
from producer.results.rows import to_json_line

SHARD_NAME = "sweep-{:06d}.tar"

#: Rows written to the table at once.
_TABLE_ROWS = 1000


class TarShard:
    """A shard's tar and table, while they are being written."""

    def __init__(self, tar: tarfile.TarFile, table: pq.ParquetWriter) -> None:
        self._tar = tar
        self._table = table
        self._rows: list[Mapping[str, object]] = []
        self.samples = 0
        self.image_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How long the tar is now."""
        return int(self._tar.offset)

    def add(self, row: DoneRow, data: bytes) -> None:
        """Add a sample: the image first."""
        name, image = sample_name(row), f"{sample_name(row)}{extension(row)}"
        self._add_file(image, data)
        self._add_file(f"{name}.txt", row["prompt"].encode())
        self._add_file(f"{name}.json", to_json_line(row).encode())
        self._rows.append({**row, "file_name": image})
        self.samples += 1
        self.image_bytes += len(data)
        if len(self._rows) == _TABLE_ROWS:
            self.write_rows()

    def write_rows(self) -> None:
        """Write the rows that wait to the table."""
        if self._rows:
            self._table.write_table(to_table(self._rows, self._table.schema))
            self._rows.clear()

    def _add_file(self, name: str, data: bytes) -> None:
        # Owner, mode and time are what a TarInfo has from the start: nobody's, 0644 and 0.
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))


@contextlib.contextmanager
def open_tar_shard(path: Path) -> Iterator[TarShard]:
    """Open a shard's three files. Raises: StoreError."""
    with (
        replacing(path) as file,
        replacing(path.with_suffix(".parquet")) as table_file,
        replacing(path.with_name(f"{path.stem}_stats.json")) as stats,
        # The tar is ended before its file is put in place.
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        pq.ParquetWriter(table_file, name_schema(), compression="zstd") as table,
    ):
        shard = TarShard(tar, table)
        yield shard
        shard.write_rows()
        _write_stats(stats, shard)


def _write_stats(file: IO[bytes], shard: TarShard) -> None:
    document = {"count": shard.samples, "successes": shard.samples, "image_bytes": shard.image_bytes}
    file.write(f"{json.dumps(document)}\n".encode())
