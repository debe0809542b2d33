"""Leaves out the jobs that `where` and `skip` exclude; reads only the fields that they name, not each job.

Axes that one expression ties together become one axis of the combinations that are wanted; the others multiply on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from producer.language.conditions.comparisons import ConditionInvalid, LabelText
from producer.language.conditions.expression import Condition, parse_condition
from producer.language.guidance_rules import RULE_READING
from producer.language.sweep import Sweep, condition_names
from shared.axes import HOLE, STYLE_FIELDS, ListAxis
from shared.decoding import finish_texts
from shared.errors import SweepError
from shared.labels import LabelColumn, LabelledAxis, chosen_columns, is_styled
from shared.plan import Bucket
from shared.sample import split

#: Most combinations that expressions may tie together in a bucket: each is looked at, at some 10 us.
TIED_MAX = 2_000_000

_TEXT_FIELDS = frozenset(("prompt", "negative_prompt"))


class Selector:
    """What one sweep wants of its jobs."""

    def __init__(self, sweep: Sweep, model_names: Mapping[str, str]) -> None:
        names = condition_names(sweep)
        self._rules = [
            (parse_condition(text, names=names, readings=RULE_READING), wanted, f"{key}: {text}")
            for key, wanted in (("where", True), ("skip", False))
            for text in getattr(sweep, key)
        ]
        self._model_names = model_names
        self._label_names = sweep.label_names

    def choose(
        self, bucket: Bucket, axes: Sequence[LabelledAxis], whole: Sequence[LabelColumn] = ()
    ) -> list[LabelledAxis] | None:
        """Return the axes of a bucket with only the combinations that are wanted; None where there is none.

        What stands beside their values, and what choices have become in them, goes with them.

        Args:
            whole: columns of one value: what is said of the bucket as a whole.

        Raises: SweepError where an expression ties too much together, or cannot be answered.
        """
        fixed = {
            **dict.fromkeys(self._label_names),
            **{column.name: _label(column, 0) for column in whole},
            "model": self._model_names.get(bucket.model, bucket.model),
            "size": f"{bucket.width}x{bucket.height}",
            "width": bucket.width,
            "height": bucket.height,
            "style": None,
        }
        found: list[LabelledAxis | None] = list(axes)
        for tied in self._components(axes):
            rules = [rule for rule in self._rules if self._belongs(rule[0], axes, tied)]
            if not tied:
                if not self._wants(rules, fixed):
                    return None
                continue
            kept = self._keep(
                [axes[position] for position in tied],
                rules,
                fixed,
                is_styled=is_styled(axis.axis for axis in axes),
            )
            if kept is None:
                return None
            found[tied[0]] = kept
            for position in tied[1:]:
                found[position] = None
        return [axis for axis in found if axis is not None]

    def _components(self, axes: Sequence[LabelledAxis]) -> Iterator[list[int]]:
        """Yield the positions of the axes that expressions tie together; [] for expressions on the bucket alone."""
        groups: list[set[int]] = []
        for condition, _, _ in self._rules:
            joined = set(self._involved(condition, axes))
            if not joined:
                yield []
                continue
            for group in [group for group in groups if group & joined]:
                groups.remove(group)
                joined |= group
            groups.append(joined)
        yield from (sorted(group) for group in groups)

    def _belongs(self, condition: Condition, axes: Sequence[LabelledAxis], tied: Sequence[int]) -> bool:
        involved = self._involved(condition, axes)
        return bool(set(involved) & set(tied)) if tied else not involved

    def _involved(self, condition: Condition, axes: Sequence[LabelledAxis]) -> list[int]:
        """Return the positions of the axes that an expression depends on: of a text, also of all that makes it."""
        names = set(condition.names)
        if names & _TEXT_FIELDS:
            names |= {name for axis in axes for name in axis.axis.fields if name.startswith(HOLE)} | set(
                STYLE_FIELDS
            )
        wanted = names | {HOLE + name for name in names}
        return [position for position, axis in enumerate(axes) if wanted & _said_by(axis)]

    def _keep(
        self, labelled: list[LabelledAxis], rules: list[Any], fixed: Mapping[str, Any], *, is_styled: bool
    ) -> LabelledAxis | None:
        """Return one axis of the combinations that are wanted."""
        tied = [axis.axis for axis in labelled]
        lengths = [axis.length for axis in tied]
        total = math.prod(lengths)
        if total > TIED_MAX:
            names = ", ".join(name.removeprefix(HOLE) for axis in tied for name in axis.fields)
            raise SweepError(
                [
                    f"{rules[0][2]}: {total:,} combinations of {names} to look at: at most {TIED_MAX:,}: ask for less"
                ]
            )
        fields = tuple(name for axis in tied for name in axis.fields)
        read = {name for condition, _, _ in rules for name in condition.names} & self._label_names
        kept: list[tuple[Any, ...]] = []
        places: list[list[int]] = []
        for index in range(total):
            digits = split(index, lengths)
            value = tuple(part for axis, digit in zip(tied, digits, strict=True) for part in axis.at(digit))
            labels = {
                column.name: _label(column, axis.row_of(digit))
                for axis, digit in zip(labelled, digits, strict=True)
                for column in axis.columns
                if column.name in read
            }
            if self._wants(rules, {**fixed, **labels, **dict(zip(fields, value, strict=True))}):
                kept.append(value)
                places.append(digits)
        if not kept:
            return None
        axis = ListAxis(fields=fields, values=tuple(kept))
        return LabelledAxis(axis=axis, columns=chosen_columns(labelled, places, is_styled=is_styled))

    def _wants(self, rules: list[Any], values: Mapping[str, Any]) -> bool:
        if any(rule[0].names & _TEXT_FIELDS for rule in rules):
            values = finish_texts(values)
        seen = {
            name.removeprefix(HOLE): LabelText(value)
            if name.startswith(HOLE) and isinstance(value, str)
            else value
            for name, value in values.items()
        }
        for condition, wanted, said in rules:
            try:
                if condition.holds(seen) is not wanted:
                    return False
            except ConditionInvalid as error:
                raise SweepError([f"{said}: {error}"]) from error
        return True


def _said_by(axis: LabelledAxis) -> set[str]:
    """Return the fields of an axis, and the names of what stands beside it."""
    return {*axis.axis.fields, *(column.name for column in axis.columns)}


def _label(column: LabelColumn, place: int) -> LabelText | None:
    text = column.at(place)
    return None if text is None else LabelText(text)
