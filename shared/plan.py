"""The compiled sweep: an immutable, content-hashed, pure function `index -> Job`. Knows nothing of YAML or Redis.

A plan is a list of blocks. A block is one bucket (one model, one size) and a product of axes over the
other fields; an axis gives one or more fields a value per digit. Nothing is ever expanded: a plan of ten
million jobs is as small as its axes, and a job is read off its index by mixed-radix digits.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, cast, get_args

import zstandard

from shared import names
from shared.images.format import PNG, ImageFormat, parse_format
from shared.job import RECIPE_FIELDS, SAMPLER_VERSION, Job, canonical_json

#: Version of the plan's own format.
PLAN_FORMAT = 2

#: Jobs a chunk: enough to fill a batch, few enough to lose little with a worker.
CHUNK_JOBS_MIN = 16
CHUNK_JOBS_MAX = 64

#: Pixel-steps that 64 guided jobs of 512x512 at 30 steps take: about two minutes of a slow GPU (0.5 images/s).
CHUNK_PIXEL_STEPS = 64 * 512 * 512 * 30

#: One bit a job in a Redis string, which ends at 512 MB.
JOBS_MAX = 2**32

#: How a sweep's images lie in the store.
Layout = Literal["images", "webdataset"]

_BLOCK_FIELDS = ("model", "width", "height")
#: The first field's JSON has the opening brace.
_NULL_NEGATIVE, _NULL_RULE = b'"negative_prompt":null', b'{"guidance_rule":null'
_POSITION = {name: position for position, name in enumerate(RECIPE_FIELDS)}
_RULE, _SCALE, _NEGATIVE, _SEED = (
    _POSITION[name] for name in ("guidance_rule", "guidance_scale", "negative_prompt", "seed")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListAxis:
    """One or more fields that move together through listed values."""

    fields: tuple[str, ...]
    #: One tuple a digit, in the order of `fields`.
    values: tuple[tuple[Any, ...], ...]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRange:
    """Consecutive seeds, `start <= seed < start + count`."""

    start: int
    count: int

    @property
    def fields(self) -> tuple[str, ...]:
        """The one field this axis moves."""
        return ("seed",)

    def __len__(self) -> int:
        return self.count


Axis = ListAxis | SeedRange


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """What must match for jobs to share a UNet batch, and what a worker must have. Dtype follows from its device."""

    model: str
    width: int
    height: int
    sampler: str = SAMPLER_VERSION
    #: An encoder that only some workers have (`ImageFormat.encoder`); "" where any worker will do.
    encoder: str = ""

    @property
    def queue(self) -> str:
        """The Celery queue of this bucket."""
        return names.queue_name(self.model, self.width, self.height, self.sampler, self.encoder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One bucket times a product of axes, the last axis fastest."""

    bucket: Bucket
    #: Positions in `Plan.axes`, outermost first.
    axes: tuple[int, ...]
    jobs_per_chunk: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Consecutive plan indices `start <= index < stop` of one bucket: one message, one manifest."""

    number: int
    start: int
    stop: int
    bucket: Bucket

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Plan:
    """See the module. Equal content, equal id, on every machine."""

    name: str
    #: Model fingerprint -> the name the sweep used.
    models: Mapping[str, str]
    axes: tuple[Axis, ...]
    blocks: tuple[Block, ...]
    sampler: str = SAMPLER_VERSION
    #: What every image of the sweep becomes. No part of a job: its id is the same in every format.
    image_format: ImageFormat = PNG
    #: How images lie in the store: an object each (`images`), or tar shards (`webdataset`). No part of a job either.
    layout: Layout = "images"
    _decoders: dict[int, _BlockDecoder] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self._job_stops[-1] if self._job_stops else 0

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self._chunk_stops[-1] if self._chunk_stops else 0

    @cached_property
    def id(self) -> str:
        """blake2b-128 of the plan's canonical JSON, 32 hex digits: the sweep id."""
        return blake2b(self._canonical, digest_size=16).hexdigest()

    def job(self, index: int) -> Job:
        """Return the job at an index. Raises IndexError outside the plan."""
        number = self._block_of(index, self._job_stops)
        decoder = self._decoders.get(number)
        if decoder is None:
            decoder = self._decoders[number] = _BlockDecoder(self, self.blocks[number])
        return decoder.job(index - self._job_starts[number])

    def jobs(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Job]]:
        """Yield (index, job) for a run of indices."""
        for index in range(start, len(self) if stop is None else stop):
            yield index, self.job(index)

    def chunk(self, number: int) -> Chunk:
        """Return a chunk by its number. Raises IndexError outside the plan."""
        position = self._block_of(number, self._chunk_stops)
        block, first = self.blocks[position], self._chunk_stops[position - 1] if position else 0
        start = self._job_starts[position] + (number - first) * block.jobs_per_chunk
        stop = min(start + block.jobs_per_chunk, self._job_stops[position])
        return Chunk(number=number, start=start, stop=stop, bucket=block.bucket)

    def chunk_of(self, index: int) -> int:
        """Return the number of the chunk that holds a plan index."""
        position = self._block_of(index, self._job_stops)
        first = self._chunk_stops[position - 1] if position else 0
        return first + (index - self._job_starts[position]) // self.blocks[position].jobs_per_chunk

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, in plan order."""
        return tuple(block.bucket for block in self.blocks)

    def jobs_in(self, bucket: Bucket) -> int:
        """Return how many jobs of the plan a bucket has."""
        return sum(self._block_length(block) for block in self.blocks if block.bucket == bucket)

    def chunk_runs(self) -> Iterator[tuple[Bucket, int, int]]:
        """Yield (bucket, first chunk, stop chunk) for every block, in order."""
        first = 0
        for block, stop in zip(self.blocks, self._chunk_stops, strict=True):
            yield block.bucket, first, stop
            first = stop

    def to_bytes(self) -> bytes:
        """Return the plan as compressed canonical JSON."""
        return zstandard.ZstdCompressor(level=3).compress(self._canonical)

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Read what `to_bytes` wrote. Raises ValueError for any other bytes or format."""
        try:
            document = json.loads(zstandard.ZstdDecompressor().decompress(data))
            if document.get("format") != PLAN_FORMAT:
                raise ValueError(f"plan format {document.get('format')}: this version reads {PLAN_FORMAT}")
            sampler, image_format = document["sampler"], parse_format(document["image_format"])
            return cls(
                name=document["name"],
                models=document["models"],
                axes=tuple(_axis_from_json(axis) for axis in document["axes"]),
                blocks=tuple(
                    _block_from_json(block, sampler, image_format.encoder) for block in document["blocks"]
                ),
                sampler=sampler,
                image_format=image_format,
                layout=_layout_from_json(document.get("layout", "images")),
            )
        except (zstandard.ZstdError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from error

    @cached_property
    def _canonical(self) -> bytes:
        # Left out where it is the default: plans from before there was a choice keep their ids.
        layout = {} if self.layout == "images" else {"layout": self.layout}
        return canonical_json(
            {
                **layout,
                "format": PLAN_FORMAT,
                "name": self.name,
                "sampler": self.sampler,
                "image_format": str(self.image_format),
                "models": dict(self.models),
                "axes": [_axis_to_json(axis) for axis in self.axes],
                "blocks": [_block_to_json(block) for block in self.blocks],
            }
        )

    @cached_property
    def _job_stops(self) -> list[int]:
        return _running_sum(self._block_length(block) for block in self.blocks)

    @cached_property
    def _job_starts(self) -> list[int]:
        return [0, *self._job_stops[:-1]]

    @cached_property
    def _chunk_stops(self) -> list[int]:
        return _running_sum(-(-self._block_length(block) // block.jobs_per_chunk) for block in self.blocks)

    def _block_length(self, block: Block) -> int:
        return math.prod(len(self.axes[position]) for position in block.axes)

    @staticmethod
    def _block_of(value: int, stops: list[int]) -> int:
        if not stops or not 0 <= value < stops[-1]:
            raise IndexError(f"{value} is outside 0 .. {stops[-1] - 1 if stops else -1}")
        return bisect_right(stops, value)


def jobs_per_chunk(width: int, height: int, steps: int, rows: int = 2) -> int:
    """Return how many jobs of a size, step count and UNet rows make a chunk: 16 to 64, two minutes of a slow GPU."""
    fitting = CHUNK_PIXEL_STEPS * 2 // (width * height * steps * rows)
    return max(CHUNK_JOBS_MIN, min(CHUNK_JOBS_MAX, fitting))


class _BlockDecoder:
    """Reads jobs of one block off their index.

    Fields and their JSON are prepared once per axis value. Neighbours differ in the innermost axis only, so
    what the outer axes say is kept from call to call: 2 us a job instead of 4.
    """

    def __init__(self, plan: Plan, block: Block) -> None:
        fixed = {
            "model": block.bucket.model,
            "width": block.bucket.width,
            "height": block.bucket.height,
            "sampler": plan.sampler,
        }
        self._fixed = [fixed.get(name) for name in RECIPE_FIELDS]
        self._fixed_fragments = [
            _fragment(name, value) for name, value in zip(RECIPE_FIELDS, self._fixed, strict=True)
        ]
        axes: list[_PreparedAxis] = []
        for position in block.axes:
            length, columns = _prepare_axis(plan.axes[position])
            if length > 1:
                axes.append((length, columns))
            else:  # an axis of one value is a constant
                for field_position, column, column_fragments in columns:
                    self._fixed[field_position] = column[0]
                    self._fixed_fragments[field_position] = column_fragments[0]
        self._inner_length, self._inner = axes.pop() if axes else (1, [])
        self._outer = axes[::-1]
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
    columns: list[_Column] = []
    for name, column in zip(axis.fields, zip(*axis.values, strict=True), strict=True):
        columns.append((_POSITION[name], column, [_fragment(name, value) for value in column]))
    return len(axis), columns


def _fragment(name: str, value: Any) -> bytes:
    """Return a field's part of the canonical JSON. The first field has the opening brace, the last the closing one."""
    whole = canonical_json({name: value})
    start = 0 if name == RECIPE_FIELDS[0] else 1
    return whole[start:] if name == RECIPE_FIELDS[-1] else whole[start:-1]


def _running_sum(lengths: Iterator[int] | Sequence[int] | Any) -> list[int]:
    stops, total = [], 0
    for length in lengths:
        total += length
        stops.append(total)
    return stops


def _layout_from_json(text: Any) -> Layout:
    if text not in get_args(Layout):
        raise ValueError(f"plan layout {text!r}: this version knows {', '.join(get_args(Layout))}")
    return cast(Layout, text)


def _axis_to_json(axis: Axis) -> dict[str, Any]:
    if isinstance(axis, SeedRange):
        return {"seed": {"start": axis.start, "count": axis.count}}
    return {"fields": list(axis.fields), "values": [list(value) for value in axis.values]}


def _axis_from_json(document: dict[str, Any]) -> Axis:
    if "seed" in document:
        return SeedRange(**document["seed"])
    values = tuple(tuple(value) for value in document["values"])
    return ListAxis(fields=tuple(document["fields"]), values=values)


def _block_to_json(block: Block) -> dict[str, Any]:
    return {
        **{name: getattr(block.bucket, name) for name in _BLOCK_FIELDS},
        "axes": list(block.axes),
        "jobs_per_chunk": block.jobs_per_chunk,
    }


def _block_from_json(document: dict[str, Any], sampler: str, encoder: str) -> Block:
    bucket = Bucket(**{name: document[name] for name in _BLOCK_FIELDS}, sampler=sampler, encoder=encoder)
    return Block(bucket=bucket, axes=tuple(document["axes"]), jobs_per_chunk=document["jobs_per_chunk"])
