"""Reads the rows of a sweep's manifests, filtered. Reads the store alone."""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, cast

from producer.language.wording import show
from producer.results.manifest_row import ManifestRow
from producer.results.where import (
    LABEL,
    Where,
    canonical_where,
    condition_fields,
    hints,
    is_wanted,
    where_texts,
)
from shared import names
from shared.errors import StoreError
from shared.manifest import MANIFEST_SCHEMA, read_columns
from shared.plan import Plan
from shared.store.base import Store

#: Manifests read at once.
_READERS = 16

#: Gives the labels of the job at an index of a plan.
LabelsAt = Callable[[int], Mapping[str, str]]

#: Values of a field that are shown where a filter matches nothing, and how many different ones are counted.
_VALUES_SHOWN = 6
_VALUES_COUNTED = 10_000


def manifest_rows(
    sweep: str, store: Store, *, where: Where | None = None, plan: Plan | None = None
) -> Iterator[ManifestRow]:
    """Yield the rows of every manifest so far, in plan order, as plain values.

    Args:
        where: column -> wanted value, or a tuple of conditions; None means null. A guidance rule may be written as
            in a sweep.
        plan: of the sweep, where it is at hand: its labels go before those that rows were recorded with.

    Raises: UsageError for an unknown column; StoreError.
    """
    where, labels_at = canonical_where(where or {}), _labels_of(plan)
    for key, data in manifests(sweep, store):
        try:
            rows = _rows_that_meet(where, data, labels_at)
        except ValueError as error:
            raise StoreError(f"{key} in {store.url} is damaged: {error}") from error
        yield from map(_plain, rows)


def _rows_that_meet(where: Where, data: bytes, labels_at: LabelsAt | None) -> list[dict[str, Any]]:
    """Return a manifest's rows that meet the conditions; where none does, only the columns they name are read."""
    if not where:
        return _read(data, MANIFEST_SCHEMA.names, labels_at)
    found = _read(data, _columns_for(where), labels_at)
    kept = [number for number, row in enumerate(found) if is_wanted(where, partial(row_value, row))]
    if not kept:
        return []
    rows: list[dict[str, Any]] = read_columns(data, MANIFEST_SCHEMA.names).take(kept).to_pylist()
    return _with_labels(rows, labels_at)


def _read(data: bytes, columns: Sequence[str], labels_at: LabelsAt | None) -> list[dict[str, Any]]:
    return _with_labels(read_columns(data, columns).to_pylist(), labels_at)


def _with_labels(rows: list[dict[str, Any]], labels_at: LabelsAt | None) -> list[dict[str, Any]]:
    """Return rows with the labels that their plan knows: a row has those of the day on which it was recorded."""
    if labels_at is not None and rows and "labels" in rows[0]:
        for row in rows:
            row["labels"] = [*labels_at(row["index"]).items()] or None
    return rows


def _columns_for(where: Where) -> list[str]:
    """Return the columns of a manifest that conditions are answered by."""
    fields = condition_fields(where)
    labels = ["index", "labels"] if any(name.startswith(LABEL) for name in fields) else []
    return list(dict.fromkeys([*(name for name in fields if not name.startswith(LABEL)), *labels]))


def _labels_of(plan: Plan | None) -> LabelsAt | None:
    return plan.labels if plan is not None and plan.label_names else None


def row_value(row: Mapping[str, Any], name: str) -> Any:
    """Return a row's value: a column, or as `label:NAME` one of its labels; None where it has no such label."""
    if name.startswith(LABEL):
        return dict(row["labels"] or ()).get(name.removeprefix(LABEL))
    return row[name]


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


def why_nothing(sweep: str, store: Store, where: Where, *, plan: Plan | None = None) -> list[str]:
    """Say which values there are, for each field of a filter that no row meets; reads those columns alone."""
    where, labels_at = canonical_where(where), _labels_of(plan)
    counts: dict[str, Counter[Any]] = {name: Counter() for name in condition_fields(where)}
    met: Counter[str] = Counter()
    rows = 0
    for _, data in manifests(sweep, store):
        found = _read(data, _columns_for(where) or ["index"], labels_at)
        rows += len(found)
        for name, wanted in where.items():
            met[name] += sum(is_wanted({name: wanted}, partial(row_value, row)) for row in found)
        for name, counted in counts.items():
            if len(counted) < _VALUES_COUNTED:
                counted.update(row_value(row, name) for row in found)
    if not rows:
        return ["no chunk of this sweep is done yet"]
    said = [_values_there(name, wanted, met[name], counts) for name, wanted in where.items()]
    return [*said, *hints(where)]


def _values_there(name: str, wanted: Any, met: int, counts: Mapping[str, Counter[Any]]) -> str:
    """Say how many rows meet a condition, and which values there are of what it reads."""
    there = "; ".join(f"{one} is {_values_of(counts[one])}" for one in condition_fields({name: wanted}))
    text = f"{' and '.join(where_texts({name: wanted}))}: {met:,} rows by itself; {there}"
    counted = counts.get(name, ())
    texts = [value for value in counted if isinstance(value, str)]
    close = difflib.get_close_matches(str(wanted), texts, n=1) if isinstance(wanted, str) and not met else []
    return f"{text}; nearest: {close[0]!r}" if close else text


def _values_of(counted: Counter[Any]) -> str:
    shown = ", ".join(f"{_value_text(value)} ({n:,})" for value, n in counted.most_common(_VALUES_SHOWN))
    more = len(counted) - _VALUES_SHOWN
    return f"{shown} and {more:,} others" if more > 0 else shown


def _value_text(value: Any) -> str:
    return "null" if value is None else show(value)


def to_json_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)


def with_urls(rows: Iterator[ManifestRow], store: Store, *, expires_seconds: int) -> Iterator[ManifestRow]:
    """Add to each finished row a URL that reads its image for a while."""
    for row in rows:
        url = store.presign(row["key"], expires_seconds=expires_seconds) if row["key"] else None
        yield cast(ManifestRow, {**row, "url": url})


def _plain(row: Mapping[str, Any]) -> ManifestRow:
    """Parquet's values as JSON has them: maps as objects, times as ISO 8601."""
    plain = {}
    for name, value in row.items():
        if name in ("versions", "labels") and value is not None:
            value = dict(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, float) and not math.isfinite(value):
            value = None
        plain[name] = value
    return cast(ManifestRow, plain)  # the schema of the file has been checked
