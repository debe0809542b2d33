"""The loop that all layouts share: chooses rows, reads and checks their images, counts the results.

Knows nothing of files. A layout says what it has, takes what it lacks, and writes rows down in plan order.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Literal, Protocol, TypeVar

from producer.results.images import read_stored_image
from producer.results.manifest_row import DoneRow, ManifestRow
from shared import names
from shared.errors import ImageDamaged, ObjectMissing
from shared.store.base import Store

#: Images read at once.
_READERS = 16

#: Rows looked after at a time: few, so that memory stays small and an interrupt leaves the rest untouched.
_ROWS_AHEAD = 2 * _READERS

FileOutcome = Literal["fetched", "skipped", "failed", "broken"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    """A row, and what became of its image."""

    row: ManifestRow
    #: fetched: read now. skipped: was there already, and right. failed: the job has none. broken: the store has it
    #: no longer, or no longer as the manifest says.
    outcome: FileOutcome
    #: The image's file, where it was read now.
    data: bytes | None = None
    #: What is wrong with a broken one.
    trouble: str = ""

    @property
    def has_image(self) -> bool:
        """Whether the image is at home, or about to be."""
        return self.image_row is not None

    @property
    def image_row(self) -> DoneRow | None:
        """The row, where its image is at home or about to be."""
        return self.row if self.row["status"] == "done" and self.outcome in ("fetched", "skipped") else None


class ExportLayout(Protocol):
    """A way to lay out a dataset."""

    def has(self, row: DoneRow) -> bool:
        """Return whether a finished row's image is here and right. Called from several threads."""

    def place(self, row: DoneRow, data: bytes) -> None:
        """Take an image that `has` lacked, if each has a place of its own. Called from several threads."""

    def write(self, brought: Iterator[Brought]) -> None:
        """Write down every row, in plan order, and what `place` did not take. Raises: StoreError."""


@dataclass(kw_only=True, slots=True)
class Tally:
    """What a fetch has seen so far: for its report and for the dataset's card."""

    fetched: int = 0
    skipped: int = 0
    #: Rows that the layout was given.
    rows: int = 0
    #: Code -> how many jobs failed with it.
    failures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    #: Together, of the images that are at home.
    image_bytes: int = 0
    #: Facts of the images at home: (model_name, model), (width, height), `png`, and package -> versions.
    models: set[tuple[str, str]] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    extensions: set[str] = field(default_factory=set)
    versions: dict[str, set[str]] = field(default_factory=dict)
    #: Names of the labels that any row has.
    labels: set[str] = field(default_factory=set)

    @property
    def images(self) -> int:
        """Images at home, counted once a job."""
        return self.fetched + self.skipped

    def count(self, brought: Brought) -> None:
        """Count a row that the layout is given."""
        self.rows += 1
        self.fetched += brought.outcome == "fetched"
        self.skipped += brought.outcome == "skipped"
        if brought.outcome == "broken":
            self.broken.append(brought.trouble)
        if (row := brought.image_row) is not None:
            self.describe(row)

    def describe(self, row: DoneRow) -> None:
        """Note what a finished row says of its image."""
        self.image_bytes += row["size_bytes"]
        self.models.add((row["model_name"], row["model"]))
        self.sizes.add((row["width"], row["height"]))
        self.extensions.add(extension(row)[1:])
        self.labels.update(row["labels"] or ())
        for package, version in (row["versions"] or {}).items():
            self.versions.setdefault(package, set()).add(version)


def bring(
    rows: Iterator[ManifestRow], layout: ExportLayout, store: Store, tally: Tally, on_row: Callable[[], None]
) -> Generator[Brought, None, None]:
    """Yield every row in order once its image is here. Close it: it holds threads.

    Raises: StoreUnavailable, StoreDenied; StoreError where a file cannot be written.
    """
    pool = ThreadPoolExecutor(_READERS)
    try:
        for brought in _in_order(pool, partial(_bring_one, store, layout), rows):
            tally.count(brought)
            on_row()
            yield brought
    finally:
        pool.shutdown(cancel_futures=True)


def sample_name(row: ManifestRow) -> str:
    """Return the name of a row's sample without an extension: it sorts by plan index and never has a dot."""
    return names.sample_key(row["index"], row["job_id"])


def extension(row: DoneRow) -> str:
    """Return the extension of a finished row's image: `.png`.

    One sweep has one format, so the quality that a key's ending has (`q95.jpg`) is not repeated.
    """
    return names.image_suffix(row["key"])


def _bring_one(store: Store, layout: ExportLayout, row: ManifestRow) -> Brought:
    if row["status"] != "done":
        return Brought(row=row, outcome="failed")
    if layout.has(row):
        return Brought(row=row, outcome="skipped")
    try:
        data = read_stored_image(store, row)
    except ObjectMissing:
        return Brought(row=row, outcome="broken", trouble=f"{row['key']}: gone from {store.url}")
    except ImageDamaged as error:
        return Brought(row=row, outcome="broken", trouble=str(error))
    layout.place(row, data)
    return Brought(row=row, outcome="fetched", data=data)


def _in_order(pool: Executor, function: Callable[[_In], _Out], items: Iterator[_In]) -> Iterator[_Out]:
    """Yield function(item) in the items' order, a bounded number of them ahead."""
    ahead = deque(pool.submit(function, item) for item in islice(items, _ROWS_AHEAD))
    while ahead:
        done = ahead.popleft().result()
        ahead.extend(pool.submit(function, item) for item in islice(items, 1))
        yield done
