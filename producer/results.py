"""Rows of a sweep's manifests, filtered; and the contact sheet's cells. Reads the store alone."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from producer.sweep_text import read_inline
from shared import names
from shared.errors import StoreError, UsageError
from shared.guidance import RuleInvalid, parse_rule
from shared.job import RECIPE_FIELDS
from shared.manifest import MANIFEST_SCHEMA, read_columns
from shared.store.base import Store

#: Manifests read at once.
_READERS = 16

#: What `--where` may name.
FILTERS = (
    *RECIPE_FIELDS,
    "index",
    "job_id",
    "status",
    "error_code",
    "chunk",
    "worker",
    "device",
    "model_name",
)

#: How a condition's text is read, where it is not taken as it stands.
_VALUES: dict[str, Callable[[str], Any]] = {
    "seed": int,
    "steps": int,
    "width": int,
    "height": int,
    "index": int,
    "chunk": int,
    "guidance_scale": float,
    "guidance_rule": partial(read_inline, what="--where"),
}

Where = Mapping[str, Any]


def manifest_rows(sweep: str, store: Store, *, where: Where | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of every manifest so far, in plan order, as plain values.

    Args:
        where: column -> wanted value; None means null. A guidance rule may be written as in a sweep.

    Raises: UsageError for an unknown column; StoreError.
    """
    where = canonical_where(where or {})
    for key, data in manifests(sweep, store):
        try:
            rows = read_columns(data, MANIFEST_SCHEMA.names).to_pylist()
        except ValueError as error:
            raise StoreError(f"{key} in {store.url} is damaged: {error}") from error
        for row in rows:
            if all(row[name] == value for name, value in where.items()):
                yield _plain(row)


def manifests(sweep: str, store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield (key, content) of every manifest so far, in plan order, reading a few ahead and no more."""
    keys = iter(
        [info.key for info in store.list(names.manifest_prefix(sweep)) if info.key.endswith(".parquet")]
    )
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = deque((key, pool.submit(store.get, key)) for key in islice(keys, 2 * _READERS))
        while ahead:
            key, reading = ahead.popleft()
            ahead.extend((following, pool.submit(store.get, following)) for following in islice(keys, 1))
            yield key, reading.result()


def parse_where(conditions: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` conditions: numbers where the field is one, a rule however it is written, `null` for null.

    Raises: UsageError naming the condition and the mend.
    """
    where: dict[str, Any] = {}
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals:
            raise UsageError(f"--where {condition}: write field=value, such as seed=3")
        check_fields([name])
        try:
            where[name] = None if text == "null" else _VALUES.get(name, str)(text)
        except ValueError as error:
            raise UsageError(f"--where {condition}: {name} is a number") from error
    return canonical_where(where)


def canonical_where(where: Where) -> dict[str, Any]:
    """Return conditions with a guidance rule as rows have it, however it was written.

    Raises: UsageError for a field that rows do not have, or a rule that is none.
    """
    check_fields(where)
    found = dict(where)
    if "guidance_rule" in found:
        try:
            found["guidance_rule"] = parse_rule(found["guidance_rule"])
        except RuleInvalid as error:
            raise UsageError(str(error)) from error
    return found


def check_fields(fields: Any) -> None:
    """Raise UsageError for a field that rows do not have."""
    unknown = [name for name in fields if name not in FILTERS]
    if unknown:
        raise UsageError(f"no field {unknown[0]!r}; there are: {', '.join(FILTERS)}")


def to_json_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)


def with_urls(
    rows: Iterator[dict[str, Any]], store: Store, *, expires_seconds: int
) -> Iterator[dict[str, Any]]:
    """Add to each finished row a URL that reads its image for a while."""
    for row in rows:
        url = store.presign(row["key"], expires_seconds=expires_seconds) if row["key"] else None
        yield {**row, "url": url}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Parquet's values as JSON has them: maps as objects, times as ISO 8601."""
    plain = {}
    for name, value in row.items():
        if name == "versions" and value is not None:
            value = dict(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, float) and not math.isfinite(value):
            value = None
        plain[name] = value
    return plain
