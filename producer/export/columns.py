"""A dataset's columns: those of the manifest as Arrow types, as Hugging Face features, and as a card's YAML.

`versions` and `labels` are JSON text here: `datasets` has no type for a map. Everything else is as the manifest has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from shared.manifest import MANIFEST_SCHEMA

#: The column that `datasets` decodes.
IMAGE = "image"

#: Arrow's name of a type -> the one `datasets` has for it, where they differ.
_DTYPES = {"double": "float64"}

#: How `datasets` keeps an image in a table: the file's bytes, and what it is called.
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image_schema() -> pa.Schema:
    """Return the schema of a table with the images in it, marked so that `datasets` decodes them."""
    schema = pa.schema([pa.field(IMAGE, _IMAGE_TYPE), *_fields()])
    features = {IMAGE: {"_type": "Image"}} | {
        field.name: {"dtype": _dtype(field.type), "_type": "Value"} for field in schema if field.name != IMAGE
    }
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def name_schema() -> pa.Schema:
    """Return the schema of a table beside the images: `file_name`, then the manifest's columns."""
    return pa.schema([pa.field("file_name", pa.string(), nullable=False), *_fields()])


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows (of `manifest_rows`, with what else the schema names) as Arrow."""
    return pa.Table.from_pylist([_typed(row) for row in rows], schema=schema)


def card_features() -> list[dict[str, str]]:
    """Return the columns, without the image, as the header of a dataset card lists them."""
    return [{"name": field.name, "dtype": _dtype(field.type)} for field in _fields()]


def _fields() -> list[pa.Field]:
    """Return the manifest's columns, without what only a manifest needs."""
    fields = [field.remove_metadata() for field in MANIFEST_SCHEMA]
    return [field.with_type(pa.string()) if pa.types.is_map(field.type) else field for field in fields]


def _dtype(kind: pa.DataType) -> str:
    return _DTYPES.get(str(kind), str(kind))


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as Arrow takes it: a time as a time, versions as text."""
    typed = dict(row)
    typed["finished_at"] = datetime.fromisoformat(row["finished_at"])
    for name in ("versions", "labels"):
        if row[name] is not None:
            typed[name] = json.dumps(row[name], ensure_ascii=False)
    return typed
