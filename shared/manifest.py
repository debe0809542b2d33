"""Writes a chunk's results to a Parquet file and reads them back. The only module that imports pyarrow (0.2 s).

One schema for every manifest ever written at `MANIFEST_FORMAT`; a sweep's manifests together are a dataset.
`python -m shared.manifest` prints the columns as docs/manifest.md shows them. Knows nothing of stores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared import names
from shared.job import JOB_FIELDS, RECIPE_FIELDS, Job
from shared.result import Done, Failed, Provenance, Result, StoredImage

#: Raise it when a reader of the old columns would be misled. It stands in each file's schema metadata.
MANIFEST_FORMAT = 3

#: Older formats that are still read -> columns that they lack, and that are null for their rows.
_OLD_FORMATS = {2: ("offset",)}

#: Columns that came later without a format of their own: files of any format may lack them.
_ADDED = ("digital_source_type", "labels")

#: What a chunk may have at the most, with room to spare: rows, and bytes of the columns when they are opened.
_ROWS_MAX = 100_000
_BYTES_MAX = 2**28

#: Columns that files, paths and keys are made of.
_PATTERNS = {
    "job_id": names.ID_PATTERN,
    "sha256": "[0-9a-f]{64}",
    "key": names.IMAGE_KEY_PATTERN,
    "status": "done|failed",
}

_FORMAT_KEY = b"printroom.manifest_format"


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _done_column(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return _column(name, kind, f"{description} Null where the job failed.", nullable=True)


#: Arrow's types, by the names that `JobField.column` may have.
_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
}

#: Every column, in order, with its description as field metadata.
MANIFEST_SCHEMA = pa.schema(
    [
        _column("sweep", pa.string(), "Sweep that the row belongs to."),
        _column("chunk", pa.uint32(), "Chunk of the plan that recorded the row."),
        _column("index", pa.uint64(), "Index of the job in the sweep's plan."),
        _column("job_id", pa.string(), "Id of the job: blake2b-128 of its recipe, 32 hex digits."),
        _column("status", pa.string(), "`done` or `failed`."),
        _column(
            "error_code",
            pa.string(),
            "Stable code of the failure (docs/errors.md). Null where the job is done.",
            nullable=True,
        ),
        _column("error", pa.string(), "The failure in words. Null where the job is done.", nullable=True),
        *(
            _column(field.name, _TYPES[field.column], field.description, nullable=field.nullable)
            for field in JOB_FIELDS
        ),
        _done_column("model_name", pa.string(), "Model as the sweep named it."),
        _done_column(
            "key", pa.string(), "Key of the image, or of the shard it is in, relative to the store's root."
        ),
        _column(
            "offset",
            pa.uint64(),
            "First byte of the image's file in its shard. Null where the object is the file, and where the job failed.",
            nullable=True,
        ),
        _done_column("size_bytes", pa.uint64(), "Size of the image's file."),
        _done_column("sha256", pa.string(), "SHA-256 of the image's file, 64 hex digits."),
        _done_column("prompt_tokens", pa.uint32(), "Tokens of the prompt, without begin and end marks."),
        _done_column(
            "negative_tokens", pa.uint32(), "Tokens of the negative prompt; 0 where it is not used."
        ),
        _done_column(
            "reused", pa.bool_(), "True when the image was already in the store and was verified, not made."
        ),
        _column(
            "sample_seconds",
            pa.float64(),
            "Share of the batch's sampling and decoding time. Null where the job failed or was reused.",
            nullable=True,
        ),
        _column("attempt", pa.uint32(), "Delivery of the chunk that recorded the row, from 1."),
        _column("worker", pa.string(), "Worker that recorded the row."),
        _done_column("device", pa.string(), "Device the image was sampled on."),
        _done_column("dtype", pa.string(), "Dtype of the UNet."),
        _done_column("batch_rows", pa.uint32(), "UNet rows a call."),
        _done_column(
            "versions", pa.map_(pa.string(), pa.string()), "Versions of the software that made the image."
        ),
        _done_column(
            "digital_source_type",
            pa.string(),
            "What the image's file says of its source, in IPTC's terms; null where the worker was told not to say it.",
        ),
        _column(
            "labels",
            pa.map_(pa.string(), pa.string()),
            "What the sweep calls the job, for people: its vars, style, replaced words, choices of templates, columns"
            " of its prompt files. No part of the job; null where there are none.",
            nullable=True,
        ),
        _column("finished_at", pa.timestamp("us", tz="UTC"), "When the row's job ended, UTC."),
    ],
    metadata={_FORMAT_KEY: str(MANIFEST_FORMAT).encode()},
)


def write_manifest(rows: Sequence[Result], *, sweep: str, chunk: int) -> bytes:
    """Return a chunk's results as one zstd Parquet file, pages checksummed.

    Raises: ValueError for what a column cannot hold: a `finished_at` without a timezone, a number out of
        range, a text with lone surrogates.
    """
    try:
        records = [{"sweep": sweep, "chunk": chunk, **_record(row)} for row in rows]
        table = pa.Table.from_pylist(records, schema=MANIFEST_SCHEMA)
    except (pa.ArrowException, OverflowError, TypeError) as e:
        raise ValueError(f"manifest of sweep {sweep}, chunk {chunk}: {e}") from e
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_manifest(data: bytes) -> list[Result]:
    """Return the results that `write_manifest` was given.

    Raises: ValueError for a file that is truncated, damaged, or of another format.
    """
    table = read_columns(data, MANIFEST_SCHEMA.names)
    return [_result(record) for record in table.to_pylist()]


def read_columns(data: bytes, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a manifest; the others are not decoded. What an older format lacks is null.

    Raises: ValueError for a file that is truncated, damaged, of another format, or without these columns.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _require_small(file.metadata)
        absent = _check_schema(file.schema_arrow, columns)
        present = [name for name in columns if name not in absent]
        table = file.read(columns=present, use_threads=False)
        for name in absent:
            field = MANIFEST_SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(file.metadata.num_rows, field.type))
        _require_sound(table)
        return table.select(list(columns))
    except (pa.ArrowException, OSError) as e:  # pyarrow raises OSError for damaged pages
        raise ValueError(f"not a whole manifest ({len(data)} bytes): {e}") from e


def manifest_docs() -> str:
    """Return the columns as a Markdown table, for docs/manifest.md."""
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    for field in MANIFEST_SCHEMA:
        meaning = field.metadata[b"description"].decode()
        lines.append(f"| `{field.name}` | {field.type} | {'yes' if field.nullable else 'no'} | {meaning} |")
    return "\n".join(lines) + "\n"


def _check_schema(found: pa.Schema, columns: Sequence[str]) -> list[str]:
    """Return which of the columns this file's format lacks. Raises: ValueError for what is no manifest of ours."""
    lacking = {str(version): names for version, names in {MANIFEST_FORMAT: (), **_OLD_FORMATS}.items()}
    version = (found.metadata or {}).get(_FORMAT_KEY, b"none").decode("latin-1")
    if version not in lacking:
        raise ValueError(
            f"manifest format {version}: this version reads formats {', '.join(sorted(lacking))}"
        )
    added = [name for name in _ADDED if name not in found.names]
    absent = [name for name in columns if name in lacking[version] or name in added]
    for name in columns:
        if name in absent:
            continue
        field = found.field(name) if name in found.names else None
        if field is None or field.type != MANIFEST_SCHEMA.field(name).type:
            raise ValueError(f"manifest column {name}: missing or of another type")
    return absent


def _require_small(metadata: pq.FileMetaData) -> None:
    """Raise ValueError for a file that would not fit memory when it is opened, whatever its own size."""
    opened = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    if metadata.num_rows > _ROWS_MAX or opened > _BYTES_MAX:
        raise ValueError(f"{metadata.num_rows:,} rows of {opened:,} bytes: no chunk has so much")


def _require_sound(table: pa.Table) -> None:
    """Raise ValueError for a value that paths and keys are made of, and that is none of ours."""
    for name, pattern in _PATTERNS.items():
        if name not in table.column_names:
            continue
        values = table.column(name)
        wrong = pc.invert(pc.match_substring_regex(values, f"^({pattern})$"))
        if pc.any(wrong).as_py():  # null is neither
            raise ValueError(f"{name} {values.filter(wrong)[0].as_py()!r:.100} is none of Printroom's")


def _record(row: Result) -> dict[str, Any]:
    """Return a result as a row, without its sweep and chunk."""
    if row.finished_at.tzinfo is None:
        raise ValueError(f"finished_at {row.finished_at}: give it a timezone")
    job = row.job
    return {
        "index": row.index,
        "job_id": job.id,
        **job.recipe(),
        "attempt": row.attempt,
        "worker": row.worker,
        "labels": sorted(row.labels.items()) or None,
        "finished_at": row.finished_at.astimezone(UTC),
        **(_done_part(row) if isinstance(row, Done) else _failed_part(row)),
    }


def _failed_part(row: Failed) -> dict[str, Any]:
    return {"status": "failed", "error_code": row.code, "error": row.reason}


def _done_part(row: Done) -> dict[str, Any]:
    made = row.image.provenance
    return {
        "status": "done",
        "key": row.image.key,
        "offset": row.image.offset,
        "size_bytes": row.image.size_bytes,
        "sha256": row.image.sha256,
        "reused": row.reused,
        "sample_seconds": row.sample_seconds,
        "model_name": made.model_name,
        "device": made.device,
        "dtype": made.dtype,
        "batch_rows": made.batch_rows,
        "prompt_tokens": made.prompt_tokens,
        "negative_tokens": made.negative_tokens,
        "versions": sorted(made.versions.items()),
        "digital_source_type": made.digital_source_type,
    }


def _result(record: dict[str, Any]) -> Result:
    """Return the result that a row records."""
    # The id stands in the row; making it anew would cost more than reading the file.
    job = Job(id=record["job_id"], **{field: record[field] for field in RECIPE_FIELDS})
    common: dict[str, Any] = {
        "index": record["index"],
        "job": job,
        "attempt": record["attempt"],
        "worker": record["worker"],
        "finished_at": record["finished_at"].astimezone(UTC),
        "labels": dict(record["labels"] or ()),
    }
    if record["status"] == "failed":
        return Failed(code=record["error_code"], reason=record["error"], **common)
    return Done(
        image=_stored_image(record),
        reused=record["reused"],
        sample_seconds=record["sample_seconds"],
        **common,
    )


def _stored_image(record: dict[str, Any]) -> StoredImage:
    provenance = Provenance(
        model_name=record["model_name"],
        device=record["device"],
        dtype=record["dtype"],
        batch_rows=record["batch_rows"],
        prompt_tokens=record["prompt_tokens"],
        negative_tokens=record["negative_tokens"],
        versions=dict(record["versions"]),
        digital_source_type=record["digital_source_type"],
    )
    return StoredImage(
        key=record["key"],
        offset=record["offset"],
        size_bytes=record["size_bytes"],
        sha256=record["sha256"],
        provenance=provenance,
    )


if __name__ == "__main__":
    sys.stdout.write(manifest_docs())
