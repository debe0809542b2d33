"""Checks the keys of a sweep beyond a job's own fields: zip groups, vars, replacements, styles, wildcards."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from producer.language.fields import CHECKS, check_axis, check_text, detail, merged, problem
from producer.language.guidance_rules import written_rule
from producer.language.prompt_files.row_labels import LABEL_NAME_MAX, label_texts, read_numbered
from producer.language.ranges import Span, expand_range, is_range
from producer.language.styles import style_trouble
from producer.language.wording import kind, show
from shared.axes import STYLE_FIELDS

#: What a hole in a text is called: `{animal}`.
VAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)

#: Names that mean something else where a hole or a condition is written.
RESERVED = frozenset((*CHECKS, *STYLE_FIELDS, "width", "height", "true", "false", "null", "job"))


def _check_style(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise problem("wants_text", f"style is {kind(value)}")
    return value


#: What checks one value of a column: of a field of a job, or of style.
_ZIP_CHECKS = {**CHECKS, "style": _check_style}


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipGroup:
    """Fields and vars that move together: one axis."""

    names: tuple[str, ...]
    #: One tuple a place, in the order of `names`.
    rows: tuple[tuple[Any, ...], ...]


def written_zip(groups: tuple[ZipGroup, ...]) -> list[dict[str, list[Any]]]:
    """Return zip groups as a sweep file would say them."""
    written = []
    for group in groups:
        columns = zip(*group.rows, strict=True)
        written.append({name: list(values) for name, values in zip(group.names, columns, strict=True)})
        if "guidance_rule" in group.names:
            written[-1]["guidance_rule"] = [written_rule(rule) for rule in written[-1]["guidance_rule"]]
    return written


def check_zip(value: Any) -> tuple[ZipGroup, ...]:
    """Return the zip groups of a sweep: a mapping of lists, or a list of such mappings."""
    if isinstance(value, tuple) and all(isinstance(group, ZipGroup) for group in value):
        return value
    groups = value if isinstance(value, list | tuple) else [value]
    found: list[ZipGroup] = []
    details: list[InitErrorDetails] = []
    for number, group in enumerate(groups):
        try:
            found.append(_check_group(group))
        except ValidationError as error:
            details += [_at((number,), item) for item in error.errors(include_url=False)]
    if details:
        raise merged(details)
    return tuple(found)


def check_vars(value: Any) -> dict[str, tuple[str, ...]]:
    """Return the vars of a sweep: a name and the texts that fill its hole."""
    return _check_columns("vars", value, _hole_problem)


def check_replace(value: Any) -> dict[str, tuple[str, ...]]:
    """Return what is searched for in the texts, and what it is replaced by."""
    return _check_columns(
        "replace", value, lambda word: "" if word.strip() else "a word to search for is empty"
    )


def check_styles(value: Any) -> dict[str, dict[str, str]]:
    """Return the styles of a sweep: a name and its two texts."""
    if not isinstance(value, Mapping):
        raise problem("styles", f"styles is {kind(value)}: write a file, or a mapping of styles")
    details: list[InitErrorDetails] = []
    styles: dict[str, dict[str, str]] = {}
    for name, style in value.items():
        fields = {"prompt": style} if isinstance(style, str) else style
        if trouble := style_trouble(name, fields):
            details.append(detail((name,), "styles", f"styles: {trouble}"))
            continue
        styles[name] = {}
        for key in ("prompt", "negative_prompt"):
            try:
                styles[name][key] = check_text(f"style {name!r}: {key}", fields.get(key) or "")
            except PydanticCustomError as error:
                details += _details_of(error, (name, key), fields.get(key))
    if details:
        raise merged(details)
    return styles


def check_wildcards(value: Any) -> dict[str, tuple[str, ...]]:
    """Return the wildcards of a sweep: a name and its lines."""
    return _check_columns("wildcards", value, lambda name: "")


def check_labels(value: Any) -> dict[str, dict[str, tuple[str | None, ...]]]:
    """Return what stands beside the values of axes: an axis, a label's name, and a text for each value."""
    if not isinstance(value, Mapping):
        raise problem("labels", f"labels is {kind(value)}: write a mapping: {{prompt: {{category: [...]}}}}")
    found: dict[str, dict[str, tuple[str | None, ...]]] = {}
    details: list[InitErrorDetails] = []
    for axis, columns in value.items():
        if not isinstance(columns, Mapping):
            text = f"labels: {axis} is {kind(columns)}: write a mapping: {{category: [...]}}"
            details.append(detail((axis,), "labels", text))
            continue
        found[axis] = {}
        for name, values in columns.items():
            if trouble := _label_trouble(name, values):
                details.append(detail((axis, name), "labels", f"labels: {trouble}"))
            else:
                found[axis][name] = _label_texts(values)
    if details:
        raise merged(details)
    return found


def _label_trouble(name: Any, values: Any) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LABEL_NAME_MAX:
        return f"{show(name)} is no name: use up to {LABEL_NAME_MAX} characters of one line"
    if isinstance(values, Mapping):
        try:
            read_numbered(values)
        except ValueError as error:
            return f"{name} is {kind(values)}: {error}"
        return ""
    if not isinstance(values, str | list | tuple) or not values:
        return f"{name} is {kind(values)}: write a list, or a text with a line for each value"
    odd = (
        None
        if isinstance(values, str)
        else next((x for x in values if isinstance(x, list | tuple | dict)), None)
    )
    return "" if odd is None else f"{name} has {kind(odd)} in it: write texts, numbers and null"


def _label_texts(values: str | Sequence[Any] | Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return a label's texts: of a list, of a text with a line for each, or numbered. An empty one is none."""
    if isinstance(values, Mapping):
        return read_numbered(values)
    items = values.removesuffix("\n").split("\n") if isinstance(values, str) else values
    return label_texts(items)


def var_text(name: str, value: Any) -> str:
    """Return what a var puts into a text. Raises a problem for what is no text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise problem("wants_text", f"{name} is {kind(value)}")
    return check_text(name, f"{value:g}" if isinstance(value, float) else str(value))


def _check_group(group: Any) -> ZipGroup:
    if not isinstance(group, Mapping):
        raise merged(
            [detail((), "zip", f"a zip group is {kind(group)}: write a mapping of equally long lists")]
        )
    if not group:
        raise merged([detail((), "zip", "a zip group is empty: give it lists, or remove it")])
    details: list[InitErrorDetails] = []
    columns: dict[str, list[Any]] = {}
    for name, values in group.items():
        columns[name] = []
        if name not in _ZIP_CHECKS and (text := _var_problem(name)):
            details.append(detail((name,), "zip", text))
            continue
        for place, item in _items(name, values, details):
            try:
                columns[name].append(_ZIP_CHECKS[name](item) if name in _ZIP_CHECKS else var_text(name, item))
            except Exception as error:
                details += _details_of(error, (name, *place), item)
    lengths = {name: len(values) for name, values in columns.items()}
    if not details and len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {count:,}" for name, count in lengths.items())
        details.append(detail((), "zip", f"zip: {said}: make the lists equally long"))
    if details:
        raise merged(details)
    return ZipGroup(names=tuple(columns), rows=tuple(zip(*columns.values(), strict=True)))


def _items(name: str, values: Any, details: list[InitErrorDetails]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield (place, item) of a column: a list, a range, or one value."""
    if is_range(values):
        found, problems = expand_range(name, values, whole=name in ("seed", "steps"))
        details += [detail((name, *trouble.path), "range", trouble.text) for trouble in problems]
        if isinstance(found, Span):
            details.append(detail((name,), "range", f"{name} has no step: write {{start, stop, step}}"))
            return
        yield from (((), item) for item in found)
    elif isinstance(values, list | tuple | range):
        if not values:
            details.append(
                detail((name,), "zip", f"{name}: the list is empty: give it a value or remove the key")
            )
        yield from (((number,), item) for number, item in enumerate(values))
    else:
        yield (), values


def _check_columns(key: str, value: Any, refuse: Any) -> dict[str, tuple[str, ...]]:
    """Return a mapping of lists of texts."""
    if not isinstance(value, Mapping):
        raise problem(key, f"{key} is {kind(value)}: write a mapping of lists")
    columns: dict[str, tuple[str, ...]] = {}
    details: list[InitErrorDetails] = []
    for name, values in value.items():
        if text := refuse(name):
            details.append(detail((name,), key, f"{key}: {text}"))
            continue
        found: list[str] = []
        for place, item in _items(name, values, details):
            try:
                found.append(var_text(name, item))
            except Exception as error:
                details += _details_of(error, (name, *place), item)
        columns[name] = tuple(found)
    if details:
        raise merged(details)
    return columns


def _hole_problem(name: str) -> str:
    if name in CHECKS:
        return f"{name!r} is a field of a job: write it at the top, in a case or in zip"
    return _var_problem(name)


def _var_problem(name: str) -> str:
    """Return why a var cannot have this name, or ""."""
    if not VAR_NAME.match(name):
        near = difflib.get_close_matches(name.strip().casefold().replace("-", "_"), CHECKS, n=1)
        fix = (
            f"did you mean {near[0]!r}?" if near else "use letters, digits and _, not beginning with a digit"
        )
        return f"the name {show(name)} is neither a job's field nor a var's: {fix}"
    if name in RESERVED and name not in CHECKS:
        return f"the name {name!r} means something else here: take another"
    return ""


def _details_of(error: Exception, place: tuple[str | int, ...], value: Any) -> list[InitErrorDetails]:
    """Return what a check found, at its place. Anything but a finding is raised again."""
    if isinstance(error, ValidationError):
        return [_at(place, item) for item in error.errors(include_url=False)]
    if isinstance(error, PydanticCustomError):
        return [InitErrorDetails(type=error, loc=place, input=value)]
    raise error


def _at(place: tuple[str | int, ...], item: Any) -> InitErrorDetails:
    return InitErrorDetails(
        type=problem(item["type"], item["msg"]), loc=(*place, *item["loc"]), input=item["input"]
    )


def check_style_axis(value: Any) -> tuple[str | None, ...]:
    """Return the axis of styles by name; null is none."""
    names = check_axis(value)
    for position, name in enumerate(names):
        try:
            _check_style(name)
        except PydanticCustomError as error:
            raise merged(_details_of(error, (position,), name)) from error
    return tuple(names)
