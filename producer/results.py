"""Rows of a sweep's manifests, filtered; and the contact sheet's cells. Reads the store alone."""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producer.sweep_text import read_inline
from producer.wording import near, show
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
    "prompt_tokens",
    "negative_tokens",
)

#: Begins the name of a field that is one of the sweep's own values: `label:style`.
LABEL = "label:"

#: How a condition's text is read, where it is not taken as it stands.
_VALUES: dict[str, Callable[[str], Any]] = {
    "seed": int,
    "steps": int,
    "width": int,
    "height": int,
    "index": int,
    "chunk": int,
    "prompt_tokens": int,
    "negative_tokens": int,
    "guidance_scale": float,
    "guidance_rule": partial(read_inline, what="--where"),
}

#: How a value may be compared. A row without a value meets `!=` alone.
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "~": lambda value, part: str(part).casefold() in value.casefold(),
    "!~": lambda value, part: str(part).casefold() not in value.casefold(),
    "=~": lambda value, pattern: _matches(value, pattern),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ORDER = ("<", "<=", ">", ">=")

#: Signs that look into text.
_WITHIN = ("~", "!~", "=~")

#: A field, the first sign after it, and the rest as it stands: values hold any character. `==` is `=`, for a value
#: that begins with ~.
_CONDITION = re.compile("(.*?)(==|=~|!~|!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)

#: Values of a field that are shown where a filter matches nothing, and how many different ones are counted.
_VALUES_SHOWN = 6
_VALUES_COUNTED = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What a field's value has to be: `seed>=3`."""

    #: One of = != < <= > >= ~ (contains, in any case) !~ (does not) =~ (matches a regular expression somewhere).
    sign: str
    #: None is null.
    value: Any

    def __post_init__(self) -> None:
        if self.sign not in _SIGNS:
            raise UsageError(f"sign {self.sign!r}: use one of {' '.join(_SIGNS)}")
        if self.sign in _WITHIN and not isinstance(self.value, str):
            raise UsageError(f"sign {self.sign!r} looks for text, not for {show(self.value)}")
        if self.sign == "=~":
            _matches("", self.value)

    def holds(self, value: Any) -> bool:
        """Return whether a value is so. Null contains nothing."""
        if value is None and (self.sign in _ORDER or self.sign in _WITHIN):
            return self.sign == "!~"
        return _SIGNS[self.sign](value, self.value)


def _matches(value: str, pattern: str) -> bool:
    """Return whether a text matches a regular expression somewhere. RE2 takes a time that the text's length bounds.

    Raises: UsageError for what is no regular expression.
    """
    try:
        found = pc.match_substring_regex(pa.scalar(value), pattern=pattern)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{pattern!r} is no regular expression: {str(error).partition(': ')[2]}") from error
    return bool(found.as_py())


#: Field -> the value it has to have, or the conditions that it has to meet, all of them.
Where = Mapping[str, Any]


def manifest_rows(sweep: str, store: Store, *, where: Where | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of every manifest so far, in plan order, as plain values.

    Args:
        where: column -> wanted value, or a tuple of conditions; None means null. A guidance rule may be written as
            in a sweep.

    Raises: UsageError for an unknown column; StoreError.
    """
    where = canonical_where(where or {})
    for key, data in manifests(sweep, store):
        try:
            rows = _rows_that_meet(where, data)
        except ValueError as error:
            raise StoreError(f"{key} in {store.url} is damaged: {error}") from error
        yield from map(_plain, rows)


def _rows_that_meet(where: Where, data: bytes) -> list[dict[str, Any]]:
    """Return a manifest's rows that meet the conditions; where none does, only the columns they name are read."""
    if not where:
        return list(read_columns(data, MANIFEST_SCHEMA.names).to_pylist())
    named = [name for name in where if not name.startswith(LABEL)]
    asked = named if len(named) == len(where) else [*named, "labels"]
    found = read_columns(data, asked).to_pylist()
    kept = [number for number, row in enumerate(found) if is_wanted(where, partial(row_value, row))]
    return read_columns(data, MANIFEST_SCHEMA.names).take(kept).to_pylist() if kept else []


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


def parse_where(conditions: Sequence[str], labels: Collection[str] = ()) -> dict[str, Any]:
    """Read `field=value`, `field!=value` and comparisons such as `seed>=3`; several may name one field.

    Numbers where the field is one, a rule however it is written, `null` for null.

    Args:
        labels: names of the sweep's own values, which may be named like fields.

    Raises: UsageError naming the condition and the mend.
    """
    where: dict[str, tuple[Condition, ...]] = {}
    for text in conditions:
        name, condition = _parse_condition(text, labels)
        where[name] = (*where.get(name, ()), condition)
    return canonical_where({name: _plainest(wanted) for name, wanted in where.items()}, labels)


def read_where(where: Where | Sequence[str] | str, labels: Collection[str] = ()) -> dict[str, Any]:
    """Return conditions in either form as `manifest_rows` takes them; a text is one. Raises: UsageError."""
    where = [where] if isinstance(where, str) else where
    return canonical_where(where, labels) if isinstance(where, Mapping) else parse_where(where, labels)


def canonical_where(where: Where, labels: Collection[str] = ()) -> dict[str, Any]:
    """Return conditions with a guidance rule as rows have it, however it was written, and labels by their whole names.

    Args:
        labels: names of the sweep's own values (`Plan.label_names`); a field of the same name goes before them.

    Raises: UsageError for a field that rows do not have, or a rule that is none.
    """
    check_fields(where, labels)
    found = {
        name if name in FILTERS or name.startswith(LABEL) else LABEL + name: w for name, w in where.items()
    }
    if "guidance_rule" in found:
        found["guidance_rule"] = _plainest(
            tuple(
                Condition(sign=condition.sign, value=_canonical_rule(condition.value))
                for condition in _conditions(found["guidance_rule"])
            )
        )
    return found


def is_wanted(where: Where, value_of: Callable[[str], Any]) -> bool:
    """Return whether every condition of a canonical `where` is met; `value_of` gives a field's value."""
    return all(
        all(condition.holds(value_of(name)) for condition in wanted)
        if isinstance(wanted, tuple)
        else value_of(name) == wanted
        for name, wanted in where.items()
    )


def where_texts(where: Where) -> tuple[str, ...]:
    """Return conditions as `--where` reads them, in the order of their fields."""
    return tuple(
        f"{name}{condition.sign}{'null' if condition.value is None else condition.value}"
        for name, wanted in sorted(where.items())
        for condition in _conditions(wanted)
    )


def _conditions(wanted: Any) -> tuple[Condition, ...]:
    return wanted if isinstance(wanted, tuple) else (Condition(sign="=", value=wanted),)


def _plainest(wanted: tuple[Condition, ...]) -> Any:
    """Return the value itself where one has to be met and nothing else."""
    return wanted[0].value if len(wanted) == 1 and wanted[0].sign == "=" else wanted


def _canonical_rule(value: Any) -> str | None:
    try:
        return parse_rule(value)
    except RuleInvalid as error:
        raise UsageError(str(error)) from error


def _parse_condition(text: str, labels: Collection[str]) -> tuple[str, Condition]:
    """Return the field and what it has to be. Raises: UsageError."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"--where {text}: write field=value, such as seed=3, or seed>=3")
    name, sign, value = match.groups()
    name, sign = name.strip(), {"==": "="}.get(sign, sign)
    check_fields([name], labels)
    if sign in _WITHIN and _VALUES.get(name) is not None:
        raise UsageError(f"--where {text}: {sign} looks into text, and {name} is none: use = or !=")
    if sign in _WITHIN and not value:
        raise UsageError(f"--where {text}: nothing to look for: write {name}{sign}TEXT")
    if sign in _ORDER and (_VALUES.get(name) not in (int, float) or value == "null"):
        raise UsageError(f"--where {text}: only numbers have an order: use = or !=")
    try:
        is_null = value == "null" and sign not in _WITHIN
        return name, Condition(sign=sign, value=None if is_null else _VALUES.get(name, str)(value))
    except ValueError as error:
        raise UsageError(f"--where {text}: {name} is a number") from error


def check_fields(fields: Any, labels: Collection[str] = ()) -> None:
    """Raise UsageError for a field that rows do not have."""
    known = [*FILTERS, *labels]
    unknown = [name for name in fields if name not in known and not str(name).startswith(LABEL)]
    if unknown:
        there_are = f"there are: {', '.join(known)}"
        raise UsageError(f"no field {unknown[0]!r}: {near(str(unknown[0]), known, otherwise=there_are)}")


def why_nothing(sweep: str, store: Store, where: Where) -> list[str]:
    """Say which values there are, for each field of a filter that no row meets; reads those columns alone."""
    where = canonical_where(where)
    counts: dict[str, Counter[Any]] = {name: Counter() for name in where}
    columns = [*(name for name in where if name in FILTERS), "labels"]
    rows = 0
    for _, data in manifests(sweep, store):
        found = read_columns(data, columns).to_pylist()
        rows += len(found)
        for name, counted in counts.items():
            if len(counted) < _VALUES_COUNTED:
                counted.update(row_value(row, name) for row in found)
    if not rows:
        return ["no chunk of this sweep is done yet"]
    return [_values_there(name, where[name], counted) for name, counted in counts.items()]


def _values_there(name: str, wanted: Any, counted: Counter[Any]) -> str:
    met = sum(n for value, n in counted.items() if is_wanted({name: wanted}, lambda _: value))  # noqa: B023
    shown = ", ".join(f"{_value_text(value)} ({n:,})" for value, n in counted.most_common(_VALUES_SHOWN))
    more = len(counted) - _VALUES_SHOWN
    others = f" and {more:,} others" if more > 0 else ""
    text = f"{' and '.join(where_texts({name: wanted}))}: {met:,} rows by itself; {name} is {shown}{others}"
    texts = [value for value in counted if isinstance(value, str)]
    close = difflib.get_close_matches(str(wanted), texts, n=1) if isinstance(wanted, str) and not met else []
    return f"{text}; nearest: {close[0]!r}" if close else text


def _value_text(value: Any) -> str:
    return "null" if value is None else show(value)


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
        if name in ("versions", "labels") and value is not None:
            value = dict(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, float) and not math.isfinite(value):
            value = None
        plain[name] = value
    return plain
