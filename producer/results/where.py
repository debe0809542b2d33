"""Turns `--where` into conditions on rows: `seed=3`, `prompt~woman`, or an expression. Knows no manifests.

FIELD, SIGN, VALUE is the short form: the value is the rest as it stands, whatever it is. Everything else is an
expression as in a sweep's `where`, and both compare alike (`producer.language.conditions`).
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from producer.language.conditions.comparisons import (
    ORDER,
    SIGNS,
    WITHIN,
    ConditionInvalid,
    LabelText,
    compares,
    matches,
)
from producer.language.conditions.expression import Condition, parse_condition
from producer.language.document import read_inline
from producer.language.guidance_rules import RULE_READING
from producer.language.wording import near, show
from shared.errors import UsageError
from shared.guidance import RuleInvalid, parse_rule
from shared.job import JOB_FIELDS, RECIPE_FIELDS
from shared.labels import number_of

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

#: Fields of a job that are numbers -> what reads one from text.
_NUMBERS = {field.name: field.types[0] for field in JOB_FIELDS if field.types[0] in (int, float)}

#: How a condition's text is read, where it is not taken as it stands.
_VALUES: dict[str, Callable[[str], Any]] = {
    **_NUMBERS,
    "index": int,
    "chunk": int,
    "prompt_tokens": int,
    "negative_tokens": int,
    "guidance_rule": partial(read_inline, what="--where"),
}

#: Fields whose values are single words: where two conditions seem to be joined, they are.
_SINGLE_WORDS = ("status", "error_code", "job_id", "scheduler", "sampler", "model")

#: A field, the first sign after it, and the rest as it stands: values hold any character. `==` is `=`, for a value
#: that begins with ~.
_SHORT = re.compile("(.*?)(==|=~|!~|!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)

#: How the rest begins where it is no value but an expression's: in quotes or with a number, and then it goes on.
_GOES_ON = re.compile(
    r"""\s*(?:'[^']*'|"[^"]*"|-?[0-9.]+)\s*(?:and|or)\b.*(?:[=<>~]|\bin\b|\bis\b)""", re.DOTALL
)

#: What stands in an expression, and hardly ever in a prompt.
_LIKE_EXPRESSION = re.compile(r"""[=~]\s*(?:'[^']*'|"[^"]*")\s*\Z|\b(?:and|or)\s+\w+\s*[=!<>~]""")

#: Field -> the value it has to have, or the comparisons that it has to meet, all of them; an expression is there under
#: its own text.
Where = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What a field's value has to be: `seed>=3`."""

    #: One of = != < <= > >= ~ (contains, in any case) !~ (does not) =~ (matches a regular expression somewhere).
    sign: str
    #: None is null.
    value: Any

    def __post_init__(self) -> None:
        if self.sign not in SIGNS:
            raise UsageError(f"sign {self.sign!r}: use one of {' '.join(SIGNS)}")
        if self.sign in WITHIN and not isinstance(self.value, str):
            raise UsageError(f"sign {self.sign!r} looks for text, not for {show(self.value)}")
        if self.sign == "=~":
            _check_pattern(self.value)

    def holds(self, value: Any) -> bool:
        """Return whether a value is so. Null contains nothing."""
        return compares(self.sign, value, self.value)


def parse_where(conditions: Sequence[str], labels: Collection[str] = ()) -> dict[str, Any]:
    """Read conditions, each `field=value`, `seed>=3` or the like, or an expression; several may name one field.

    Numbers where the field is one, a rule however it is written, `null` for null.

    Args:
        labels: names of the sweep's own values, which may be named like fields.

    Raises: UsageError naming the condition, the place and the fix.
    """
    where: dict[str, Any] = {}
    for text in conditions:
        if not isinstance(text, str):
            raise UsageError(f"where: {show(text)} is no condition: write texts, such as 'seed>=3'")
        name, condition = _parse(text, labels)
        where[name] = condition if isinstance(condition, Condition) else (*where.get(name, ()), condition)
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
    _check_fields([name for name, wanted in where.items() if not isinstance(wanted, Condition)], labels)
    _check_values(where)
    found = {
        name if isinstance(wanted, Condition) else whole_name(name): wanted for name, wanted in where.items()
    }
    if "guidance_rule" in found:
        found["guidance_rule"] = _plainest(
            tuple(
                Comparison(sign=comparison.sign, value=_canonical_rule(comparison.value))
                for comparison in _comparisons(found["guidance_rule"])
            )
        )
    return found


def whole_name(name: str) -> str:
    """Return a field's name, and that of a label with what tells it from a field."""
    return name if name in FILTERS or name.startswith(LABEL) else LABEL + name


def condition_fields(where: Where) -> tuple[str, ...]:
    """Return the fields that conditions read, labels by their whole names."""
    return tuple(
        dict.fromkeys(
            field
            for name, wanted in where.items()
            for field in (map(whole_name, sorted(wanted.names)) if isinstance(wanted, Condition) else [name])
        )
    )


def is_wanted(where: Where, value_of: Callable[[str], Any]) -> bool:
    """Return whether every condition of a canonical `where` is met; `value_of` gives a field's value.

    Raises: UsageError where an expression compares text with a number.
    """
    return all(_is_met(name, wanted, value_of) for name, wanted in where.items())


def where_texts(where: Where) -> tuple[str, ...]:
    """Return conditions as `--where` reads them, in the order of their fields."""
    return tuple(
        text
        for name, wanted in sorted(where.items())
        for text in ([name] if isinstance(wanted, Condition) else _short_texts(name, wanted))
    )


def hints(where: Where) -> list[str]:
    """Say of short conditions whose value reads like an expression how that is written, a line each."""
    return [
        f"{text}: the value is taken as it stands, to its end; an expression begins with a bracket: ({text})"
        for name, wanted in where.items()
        if not isinstance(wanted, Condition)
        for text in _short_texts(name, wanted)
        if _LIKE_EXPRESSION.search(text)
    ]


#: What a value of a mapping of conditions may be; a mapping is a guidance rule.
_ROW_VALUES = (str, numbers.Real, Mapping, Condition, tuple)


class _Row(Mapping[str, Any]):
    """A row's values as an expression reads them."""

    def __init__(self, value_of: Callable[[str], Any]) -> None:
        self._value_of = value_of

    def __getitem__(self, name: str) -> Any:
        found = self._value_of(whole_name(name))
        return LabelText(found) if isinstance(found, str) and name not in FILTERS else found

    def __iter__(self) -> Iterator[str]:
        return iter(FILTERS)

    def __len__(self) -> int:
        return len(FILTERS)


def _is_met(name: str, wanted: Any, value_of: Callable[[str], Any]) -> bool:
    if isinstance(wanted, Condition):
        try:
            return wanted.holds(_Row(value_of))
        except ConditionInvalid as error:
            raise UsageError(f"--where {wanted.text}: {error}") from error
    value = value_of(name)
    if name.startswith(LABEL) and isinstance(value, str):
        value = LabelText(value)
    if not isinstance(wanted, tuple):
        return compares("=", value, wanted)
    return all(comparison.holds(value) for comparison in wanted)


def _comparisons(wanted: Any) -> tuple[Comparison, ...]:
    return wanted if isinstance(wanted, tuple) else (Comparison(sign="=", value=wanted),)


def _short_texts(name: str, wanted: Any) -> list[str]:
    return [f"{name}{one.sign}{'null' if one.value is None else one.value}" for one in _comparisons(wanted)]


def _plainest(wanted: Any) -> Any:
    """Return the value itself where one has to be met and nothing else."""
    is_value = isinstance(wanted, tuple) and len(wanted) == 1 and wanted[0].sign == "="
    return wanted[0].value if is_value else wanted


def _canonical_rule(value: Any) -> str | None:
    try:
        return parse_rule(value)
    except RuleInvalid as error:
        raise UsageError(str(error)) from error


def _parse(text: str, labels: Collection[str]) -> tuple[str, Comparison | Condition]:
    """Return the field and what it has to be, or an expression under its text. Raises: UsageError."""
    known = [*FILTERS, *labels]
    match = _SHORT.fullmatch(text)
    name = match[1].strip() if match else ""
    is_field = name in known or name.startswith(LABEL)
    if match is None or not is_field:
        return text, _expression(text, known, name=name)
    value = match[3]
    if _GOES_ON.match(value):
        return text, _expression(text, known)
    if name in _SINGLE_WORDS and re.search(r"\s(and|or)\s.*[=<>~]", value, re.DOTALL):
        return text, _expression(text, known)
    try:
        return name, _short(name, {"==": "="}.get(match[2], match[2]), value)
    except ConditionInvalid as error:
        if re.search(r"\b(and|or|in|not)\b", value):
            return text, _expression(text, known)
        column = match.start(2) + 1 if error.column is None else match.start(3) + error.column
        raise UsageError(f"--where {text}: column {column}: {error.reason}") from error


def _expression(text: str, known: Collection[str], *, name: str = "") -> Condition:
    """Return an expression on a row. What looks like the short form is told which fields there are.

    Raises: UsageError.
    """
    if re.fullmatch(r"[\w.]*", text.strip()):
        raise UsageError(f"--where {text}: write field=value, such as seed=3, or seed>=3")
    try:
        return parse_condition(text, names=known, has_gaps=True, readings=RULE_READING)
    except ConditionInvalid as error:
        if re.fullmatch(r"[\w .:/-]+", name) and not re.search(r"\b(and|or|in|not)\b", name):
            _check_fields([name], [one for one in known if one not in FILTERS])
        raise UsageError(f"--where {text}: {error}") from error


def _short(name: str, sign: str, value: str) -> Comparison:
    """Return what a field has to be. Raises: ConditionInvalid, its column in the value, or none for the sign."""
    reading = _VALUES.get(name)
    is_label = name not in FILTERS
    if sign in WITHIN and reading is not None:
        raise ConditionInvalid(f"{sign} looks into text, and {name} is none: use = or !=")
    if sign in WITHIN and not value:
        raise ConditionInvalid(f"nothing to look for: write {name}{sign}TEXT")
    if sign in ORDER and (not (is_label or reading in (int, float)) or value == "null"):
        raise ConditionInvalid("only numbers have an order: use = or !=")
    if sign == "=~":
        matches("", value)
    if value == "null" and sign not in WITHIN:
        return Comparison(sign=sign, value=None)
    if is_label and sign in ORDER:
        number = number_of(value.strip())
        if number is None and " " in value.strip():
            raise ConditionInvalid("a text of several words has no order", column=1)
        return Comparison(sign=sign, value=value if number is None else number)
    try:
        return Comparison(sign=sign, value=value if reading is None else reading(value))
    except ValueError as error:
        raise ConditionInvalid(f"{name} is a number: write {_meant(name, sign, value)}", column=1) from error


def _meant(name: str, sign: str, value: str) -> str:
    """Return what a comparison with something that is no number was most likely meant to be."""
    plain = value.strip()
    swapped = {"=>": ">=", "=<": "<=", "<>": "!="}.get(sign + plain[:1])
    if swapped and number_of(plain[1:].strip()) is not None:
        return f"{name}{swapped}{plain[1:].strip()}"
    if sign == "=" and re.fullmatch(r"-?[0-9.]+(\s*,\s*-?[0-9.]+)+", plain):
        return f"'{name} in ({plain})'"
    number = number_of(plain)
    return (
        f"{name}{sign}{number:g}" if number is not None and float(number).is_integer() else f"{name}{sign}3"
    )


def _check_pattern(pattern: str) -> None:
    try:
        matches("", pattern)
    except ConditionInvalid as error:
        raise UsageError(f"{error.reason} (at character {error.column})") from error


def _check_values(where: Where) -> None:
    """Raise UsageError for a value that no row can be equal to: several of them, or nothing that a row holds."""
    for name, wanted in where.items():
        if isinstance(wanted, list | tuple | set | range) and not _is_read(wanted):
            listed = ", ".join(show(one) for one in list(wanted)[:3]) + (", ..." if len(wanted) > 3 else "")
            raise UsageError(f"where: {name} is several values: write the condition '{name} in [{listed}]'")
        if wanted is not None and not isinstance(wanted, _ROW_VALUES):
            raise UsageError(f"where: {name}={show(wanted)}: use text, a number, true, false or None")


def _is_read(wanted: Any) -> bool:
    """Whether these are comparisons, as conditions are once they are read."""
    return isinstance(wanted, tuple) and bool(wanted) and isinstance(wanted[0], Comparison)


def _check_fields(fields: Collection[str], labels: Collection[str] = ()) -> None:
    """Raise UsageError for a field that rows do not have."""
    known = [*FILTERS, *labels]
    unknown = [name for name in fields if name not in known and not str(name).startswith(LABEL)]
    if "size" in unknown:
        raise UsageError("no field 'size': write 'width=512 and height=512', or one of the two")
    if unknown:
        there_are = f"there are: {', '.join(known)}"
        raise UsageError(f"no field {unknown[0]!r}: {near(str(unknown[0]), known, otherwise=there_are)}")
