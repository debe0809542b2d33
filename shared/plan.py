"""The compiled sweep: an immutable, content-hashed, pure function `index -> Job`. Knows nothing of YAML or Redis.

A plan is a list of blocks. A block is one bucket (one model, one size) and a product of axes over the
other fields, or a sample of it; an axis gives one or more fields a value per digit. Nothing is ever expanded: a
plan of ten million jobs is as small as its axes, and a job is read off its index by mixed-radix digits.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, cast, get_args

import zstandard

from shared import names
from shared.axes import (
    Axis,
    DerivedSeeds,
    Draws,
    ListAxis,
    SeedRange,
    TextAxis,
    axis_from_json,
    axis_to_json,
    choice_names_of,
)
from shared.decoding import Decoder, make_decoder
from shared.errors import PlanUnreadable, PrintroomError, SweepError
from shared.images.format import PNG, ImageFormat, parse_format
from shared.job import SAMPLER_VERSION, Job, canonical_json
from shared.labels import WHOLE_BLOCK, BlockLabels, LabelColumn, LabelledAxis, LabelNames
from shared.sample import JobSample

__all__ = [
    "Axis",
    "Block",
    "Bucket",
    "Chunk",
    "DerivedSeeds",
    "Draws",
    "JobSample",
    "ListAxis",
    "Plan",
    "SeedRange",
    "TextAxis",
]  # fmt: skip

#: Version of the plan's own format.
PLAN_FORMAT = 3

#: Jobs a chunk: enough to fill a batch, few enough to lose little with a worker.
CHUNK_JOBS_MIN = 16
CHUNK_JOBS_MAX = 64

#: Pixel-steps that 64 guided jobs of 512x512 at 30 steps take: about two minutes of a slow GPU (0.5 images/s).
CHUNK_PIXEL_STEPS = 64 * 512 * 512 * 30

#: One bit a job in a Redis string, which ends at 512 MB.
SWEEP_JOBS_MAX = 2**32

#: How a sweep's images lie in the store.
StoreLayout = Literal["images", "webdataset"]

#: Bytes of a plan when it is opened: a hundred million prompts would not fit, a few million do.
_BYTES_MAX = 2**30

#: A bound on a block's numbers; what a model can do is asked elsewhere.
_SIDE_MAX = 2**20

_BLOCK_FIELDS = ("model", "width", "height")


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
    #: Some jobs of the product, in an order of their own; None for all of it.
    sample: JobSample | None = None
    #: Positions in `Plan.columns`: of each axis, and behind these of the block as a whole. () where there are none.
    columns: tuple[tuple[int, ...], ...] = field(default=(), compare=False)


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
    layout: StoreLayout = "images"
    #: Labels that stand beside the values of axes. They travel with the plan and are no part of its id.
    columns: tuple[LabelColumn, ...] = field(default=(), repr=False, compare=False)
    _decoders: dict[int, Decoder] = field(default_factory=dict, repr=False, compare=False)
    _labels: dict[int, BlockLabels] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self._job_stops[-1] if self._job_stops else 0

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self._chunk_stops[-1] if self._chunk_stops else 0

    @cached_property
    def id(self) -> str:
        """blake2b-128 of the plan's canonical JSON without its labels, 32 hex digits: the sweep id."""
        return blake2b(self._canonical, digest_size=16).hexdigest()

    def job(self, index: int) -> Job:
        """Return the job at an index. Raises IndexError outside the plan."""
        number = self._block_of(index, self._job_stops)
        return self._decoder_of(number).job(index - self._job_starts[number])

    def labels(self, index: int) -> dict[str, str]:
        """Return what the sweep calls the job at an index, for people: vars, style, choices, columns of its files.

        They are no part of the job: two jobs with different labels may be one image. Raises IndexError.
        """
        number = self._block_of(index, self._job_stops)
        labels = self._labels.get(number)
        if labels is None:
            labels = self._labels[number] = self._block_labels(self.blocks[number])
        return labels.at(index - self._job_starts[number])

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The names that `labels` may have: vars, words and style, then columns of files, then choices."""
        names = self._label_names
        return tuple(dict.fromkeys((*names.fields, *names.columns, *names.choices)))

    def has_labels_of(self, other: Plan) -> bool:
        """Whether another plan of the same id calls its jobs alike."""
        return self._labels_to_json() == other._labels_to_json()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Those of `label_names` that are columns of files: they stand beside an axis and are none themselves."""
        return self._label_names.columns

    @cached_property
    def _label_names(self) -> LabelNames:
        return LabelNames(self.axes, self.columns)

    def is_plain(self, block: Block) -> bool:
        """Whether a block is a whole product of finished values, so that its jobs can be counted by its axes."""
        return block.sample is None and all(self.axes[position].is_plain for position in block.axes)

    def product_of(self, block: Block) -> int:
        """Return how many jobs a block's axes multiply to, before any sample is taken of them."""
        return math.prod(self.axes[position].length for position in block.axes)

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
        """Return the plan as compressed JSON, labels in a key of their own that a reader may pass over.

        Raises: SweepError where nobody would open it.
        """
        data, labels = self._canonical, self._labels_to_json()
        if labels is not None:
            data = b'%b,"labels":%b}' % (data[:-1], canonical_json(labels))
        if len(data) > _BYTES_MAX:
            raise SweepError(
                [
                    f"the plan takes {len(data):,} bytes, and at most {_BYTES_MAX:,} are stored: submit the prompts as"
                    " several sweeps"
                ]
            )
        return zstandard.ZstdCompressor(level=3).compress(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Read what `to_bytes` wrote. Raises: PlanUnreadable for any other bytes or format."""
        try:
            document = json.loads(_opened(data))
            if document.get("format") != PLAN_FORMAT:
                raise PlanUnreadable(
                    f"plan format {document.get('format')!r:.40}: this version reads {PLAN_FORMAT}"
                )
            sampler, image_format = document["sampler"], parse_format(document["image_format"])
            labels = document.get("labels") or {"columns": [], "blocks": [], "choices": {}}
            names = labels["choices"]
            columns = labels["blocks"] or [()] * len(document["blocks"])
            plan = cls(
                name=document["name"],
                models=document["models"],
                axes=tuple(
                    axis_from_json(axis, names.get(str(number)))
                    for number, axis in enumerate(document["axes"])
                ),
                blocks=tuple(
                    _block_from_json(block, sampler, image_format.encoder, own)
                    for block, own in zip(document["blocks"], columns, strict=True)
                ),
                columns=tuple(map(LabelColumn.from_json, labels["columns"])),
                sampler=sampler,
                image_format=image_format,
                layout=_layout_from_json(document["layout"]),
            )
            _require_sound(plan)
            return plan
        except PlanUnreadable:
            raise
        except (
            zstandard.ZstdError,
            ValueError,  # JSON's among them
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            RecursionError,
            PrintroomError,
        ) as error:
            raise PlanUnreadable(f"not a plan: {' '.join(str(error).split())[:200]}") from error

    @cached_property
    def _canonical(self) -> bytes:
        """All that is hashed."""
        return canonical_json(
            {
                "format": PLAN_FORMAT,
                "name": self.name,
                "sampler": self.sampler,
                "image_format": str(self.image_format),
                "layout": self.layout,
                "models": dict(self.models),
                "axes": [axis_to_json(axis) for axis in self.axes],
                "blocks": [_block_to_json(block) for block in self.blocks],
            }
        )

    def _labels_to_json(self) -> dict[str, Any] | None:
        """Return what is not hashed; None where there is nothing of it."""
        named = ((str(number), choice_names_of(axis)) for number, axis in enumerate(self.axes))
        choices = {number: names for number, names in named if names}
        if not choices and not self.columns:
            return None
        return {
            "columns": [column.to_json() for column in self.columns],
            "blocks": [[list(own) for own in block.columns] for block in self.blocks] if self.columns else [],
            "choices": choices,
        }

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
        return self.product_of(block) if block.sample is None else block.sample.count

    def _decoder_of(self, number: int) -> Decoder:
        decoder = self._decoders.get(number)
        if decoder is None:
            decoder = self._decoders[number] = self._decoder(self.blocks[number])
        return decoder

    def _decoder(self, block: Block) -> Decoder:
        fixed = {**{name: getattr(block.bucket, name) for name in _BLOCK_FIELDS}, "sampler": self.sampler}
        axes = [self.axes[position] for position in block.axes]
        return make_decoder(fixed, axes, block.sample, salt=_salt(block))

    def _block_labels(self, block: Block) -> BlockLabels:
        axes = [*(self.axes[position] for position in block.axes), WHOLE_BLOCK]
        columns = [tuple(self.columns[position] for position in own) for own in block.columns]
        columns += [()] * (len(axes) - len(columns))
        labelled = [LabelledAxis(axis=axis, columns=own) for axis, own in zip(axes, columns, strict=True)]
        return BlockLabels(labelled, block.sample, self._label_names, salt=_salt(block))

    @staticmethod
    def _block_of(value: int, stops: list[int]) -> int:
        if not stops or not 0 <= value < stops[-1]:
            raise IndexError(f"{value} is outside 0 .. {stops[-1] - 1 if stops else -1}")
        return bisect_right(stops, value)


def jobs_per_chunk(width: int, height: int, steps: int, rows: int = 2) -> int:
    """Return how many jobs of a size, step count and UNet rows make a chunk: 16 to 64, two minutes of a slow GPU."""
    fitting = CHUNK_PIXEL_STEPS * 2 // (width * height * steps * rows)
    return max(CHUNK_JOBS_MIN, min(CHUNK_JOBS_MAX, fitting))


def _salt(block: Block) -> str:
    """Return what tells the samples of several blocks apart."""
    return f"{block.bucket.model} {block.bucket.width}x{block.bucket.height}"


def _running_sum(lengths: Iterable[int]) -> list[int]:
    stops, total = [], 0
    for length in lengths:
        total += length
        stops.append(total)
    return stops


def _layout_from_json(text: Any) -> StoreLayout:
    if text not in get_args(StoreLayout):
        raise ValueError(f"plan layout {text!r}: this version knows {', '.join(get_args(StoreLayout))}")
    return cast(StoreLayout, text)


def _block_to_json(block: Block) -> dict[str, Any]:
    return {
        **{name: getattr(block.bucket, name) for name in _BLOCK_FIELDS},
        "axes": list(block.axes),
        "jobs_per_chunk": block.jobs_per_chunk,
        "sample": None if block.sample is None else asdict(block.sample),
    }


def _block_from_json(
    document: dict[str, Any], sampler: str, encoder: str, columns: Sequence[Sequence[int]]
) -> Block:
    bucket = Bucket(**{name: document[name] for name in _BLOCK_FIELDS}, sampler=sampler, encoder=encoder)
    sample = None if document["sample"] is None else JobSample(**document["sample"])
    return Block(
        bucket=bucket,
        axes=tuple(document["axes"]),
        jobs_per_chunk=document["jobs_per_chunk"],
        sample=sample,
        columns=tuple(map(tuple, columns)),
    )


def _require_sound(plan: Plan) -> None:
    """Raise ValueError for what no compiler writes, and who reads a job or feeds a chunk would stumble over."""
    texts: tuple[Any, ...] = (plan.name, *plan.models, *plan.models.values())
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its name or its models are no text")
    for block in plan.blocks:
        sizes = (block.bucket.width, block.bucket.height, block.jobs_per_chunk)
        if not all(type(size) is int and 0 < size <= _SIDE_MAX for size in sizes):
            raise ValueError(f"width, height and jobs a chunk of a block are {sizes}")
    if len(plan) > SWEEP_JOBS_MAX:
        raise ValueError(f"{len(plan)} jobs")
    for bucket in plan.buckets:
        bucket.queue  # noqa: B018 - is made of the model's fingerprint
    for index in {0, len(plan) - 1} if len(plan) else ():
        plan.job(index)


def _opened(data: bytes) -> bytes:
    """Return what is packed, if it is not larger than any plan may be. Raises: PlanUnreadable, zstandard.ZstdError."""
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= _BYTES_MAX:
        raise PlanUnreadable(f"a plan of {size:,} bytes: at most {_BYTES_MAX:,} are opened")
    return zstandard.ZstdDecompressor().decompress(data)
