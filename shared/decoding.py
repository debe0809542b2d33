"""Reads the jobs of one block of a plan from their indices. Knows nothing of chunks, queues or stores.

Two ways with one meaning: axes of finished values are read at 2 us a job, and whatever has texts to fill in, seeds
to derive or a sample to choose from goes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from shared.axes import HOLE, Axis, DerivedSeeds, ListAxis, SeedRange
from shared.job import GUIDED_FIELDS, RECIPE_FIELDS, Job, canonical_json, make_job
from shared.sample import JobSample, digits_of
from shared.texts import Text, fill

_POSITION = {name: position for position, name in enumerate(RECIPE_FIELDS)}
_SCALE, _SEED = _POSITION["guidance_scale"], _POSITION["seed"]

#: Where a style's negative prompt has the job's own. A1111 gives both columns of its styles the same hole.
NEGATIVE_HOLE = "{prompt}"


class Decoder(Protocol):
    """Reads the jobs of a block."""

    def job(self, index: int) -> Job:
        """Return the job at an index of the block."""


def make_decoder(
    fixed: Mapping[str, Any], axes: Sequence[Axis], sample: JobSample | None, *, salt: str
) -> Decoder:
    """Return what reads a block's jobs the fastest way there is.

    Args:
        fixed: fields that no axis moves.
        axes: outermost first.
        sample: of the product of the axes; None for all of it.
        salt: tells the samples of several blocks apart.
    """
    if sample is None and all(axis.is_plain for axis in axes):
        return _PlainDecoder(fixed, axes)
    return _OpenDecoder(fixed, axes, sample, salt)


class _OpenDecoder:
    """Reads a job's values, then makes the job of them."""

    def __init__(
        self, fixed: Mapping[str, Any], axes: Sequence[Axis], sample: JobSample | None, salt: str
    ) -> None:
        self._fixed, self._axes, self._sample, self._salt = dict(fixed), axes, sample, salt
        self._lengths = [axis.length for axis in axes]

    def job(self, index: int) -> Job:
        values = dict(self._fixed)
        digits = digits_of(index, self._lengths, self._sample, salt=self._salt)
        for axis, digit in zip(self._axes, digits, strict=True):
            values.update(zip(axis.fields, axis.at(digit), strict=True))
        values = finish_texts(values)
        for axis in self._axes:
            if isinstance(axis, DerivedSeeds):
                values["seed"] = axis.seed(values["seed"], values)
        return make_job(**{name: values[name] for name in RECIPE_FIELDS})


def finish_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's values with every hole of its texts filled, in the style that they name."""
    finished = dict(values)
    holes = {name[len(HOLE) :]: value for name, value in values.items() if name.startswith(HOLE)}
    for name in ("prompt", "negative_prompt"):
        if finished.get(name) is not None:
            finished[name] = fill(finished[name], holes)
    if finished.get("style_prompt") is not None:
        style: Text = finished["style_prompt"]
        # A condition looks at the values that it names: it may know one of the texts only.
        if "prompt" in finished:
            finished["prompt"] = fill(style, {"prompt": finished["prompt"]})
        if "negative_prompt" in finished:
            finished["negative_prompt"] = add_negative(
                finished["style_negative"], finished["negative_prompt"]
            )
    return finished


def add_negative(style: str, own: str | None) -> str | None:
    """Return a style's negative prompt with the job's own where it says {prompt}, else behind it.

    Null stays null where neither says anything.
    """
    if not style:
        return own
    if NEGATIVE_HOLE in style:
        return own if style == NEGATIVE_HOLE else style.replace(NEGATIVE_HOLE, own or "")
    return f"{style}, {own}" if own else style


class _PlainDecoder:
    """Reads jobs whose axes hold finished values.

    Fields and their JSON are prepared once per axis value. Neighbours differ in the innermost axis only, so
    what the outer axes say is kept from call to call: 2 us a job instead of 4.
    """

    def __init__(self, fixed: Mapping[str, Any], axes: Sequence[Axis]) -> None:
        self._fixed = [fixed.get(name) for name in RECIPE_FIELDS]
        self._fixed_fragments = [
            _fragment(name, value) for name, value in zip(RECIPE_FIELDS, self._fixed, strict=True)
        ]
        prepared: list[_PreparedAxis] = []
        for axis in axes:
            length, columns = _prepare_axis(axis)
            if length > 1:
                prepared.append((length, columns))
            else:  # an axis of one value is a constant
                for field_position, column, column_fragments in columns:
                    self._fixed[field_position] = column[0]
                    self._fixed_fragments[field_position] = column_fragments[0]
        self._inner_length, self._inner = prepared.pop() if prepared else (1, [])
        self._outer = prepared[::-1]
        #: (outer index, values, fragments); replaced whole, so that threads may share it.
        self._recent: tuple[int, list[Any], list[bytes]] = (-1, [], [])

    def job(self, index: int) -> Job:
        outer, digit = divmod(index, self._inner_length)
        recent = self._recent
        if recent[0] != outer:
            recent = self._recent = (outer, *self._decode_outer(outer))
        values, fragments = recent[1].copy(), recent[2].copy()
        for position, column, column_fragments in self._inner:
            values[position] = column[digit]
            fragments[position] = column_fragments[digit]
        if values[_SCALE] <= 1.0:  # as `canonical_recipe` has it
            fragments[_NEGATIVE] = _NULL_NEGATIVE
            fragments[_RULE] = _NULL_RULE
        values.append(blake2b(b",".join(fragments), digest_size=16).hexdigest())
        return tuple.__new__(Job, values)  # Job._make, without its check of the length

    def _decode_outer(self, index: int) -> tuple[list[Any], list[bytes]]:
        values, fragments = self._fixed.copy(), self._fixed_fragments.copy()
        for length, columns in self._outer:
            index, digit = divmod(index, length)
            for position, column, column_fragments in columns:
                values[position] = column[digit]
                fragments[position] = column_fragments[digit]
        return values, fragments


class _SeedFragments:
    """The JSON of consecutive seeds, made when asked for."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __getitem__(self, digit: int) -> bytes:
        return b'"seed":%d' % (self._start + digit)


#: (position of the field in RECIPE_FIELDS, its value per digit, its JSON per digit).
_Column = tuple[int, Sequence[Any], Sequence[bytes] | _SeedFragments]


#: (length, columns).
_PreparedAxis = tuple[int, list[_Column]]


def _prepare_axis(axis: Axis) -> _PreparedAxis:
    if isinstance(axis, SeedRange):
        return axis.count, [(_SEED, range(axis.start, axis.start + axis.count), _SeedFragments(axis.start))]
    assert isinstance(axis, ListAxis)
    columns: list[_Column] = []
    for name, column in zip(axis.fields, zip(*axis.values, strict=True), strict=True):
        columns.append((_POSITION[name], column, [_fragment(name, value) for value in column]))
    return len(axis), columns


def _fragment(name: str, value: Any) -> bytes:
    """Return a field's part of the canonical JSON. The first field has the opening brace, the last the closing one."""
    whole = canonical_json({name: value})
    start = 0 if name == RECIPE_FIELDS[0] else 1
    return whole[start:] if name == RECIPE_FIELDS[-1] else whole[start:-1]


#: Position and JSON of each field that is null without guidance. They are unpacked, because a loop over them would
#: make reading plans slower; one more such field fails here, at import, until `_PlainDecoder.job` handles it.
(_NEGATIVE, _NULL_NEGATIVE), (_RULE, _NULL_RULE) = (
    (_POSITION[name], _fragment(name, None)) for name in GUIDED_FIELDS
)
