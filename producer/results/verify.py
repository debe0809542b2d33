"""Verifies a sweep: compares its plan, manifests, images and ledger with each other instead of trusting one.

Quick: every manifest is read, every image looked for, every figure compared. Deep: every image is read as well, its
sha256 compared with its row, its recipe with its name, and its pixels decoded. A manifest at a time, some images at
once: memory does not grow with the sweep.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from producer.language.wording import counted
from producer.results.images import read_stored_image
from producer.results.manifest_row import DoneRow, ManifestRow
from producer.results.rows import manifests
from shared import names
from shared.errors import BrokerError, ImageDamaged, ObjectMissing, SweepUnknown
from shared.ledger import Ledger, SweepStatus
from shared.manifest import MANIFEST_SCHEMA, read_columns
from shared.metadata import read_image as read_recipe
from shared.plan import Plan
from shared.store.base import Store

#: Images looked at or read at once.
_READERS = 16

#: Problems that are shown one by one; all are counted.
PROBLEMS_SHOWN = 100

FindingKind = Literal[
    "image_missing", "image_damaged", "row_wrong", "manifest_damaged", "manifest_missing", "figure_wrong",
    "extra_object",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that does not agree with another."""

    kind: FindingKind
    #: What is wrong, in words.
    detail: str
    #: The chunk to render again, and the plan indices in it that are wrong; None where rendering would not help.
    chunk: int | None = None
    indices: tuple[int, ...] = ()
    #: An object that is in the way of a good one.
    key: str | None = None


@dataclass(kw_only=True, slots=True)
class Report:
    """What was compared, and what did not agree."""

    sweep: str
    jobs: int
    deep: bool
    done: int = 0
    failed: int = 0
    #: Jobs of chunks without a manifest: not rendered yet.
    waiting: int = 0
    images: int = 0
    #: Whether Redis knew the sweep, so that its figures were compared.
    ledger: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Finding] = field(default_factory=list)
    #: Jobs that are fed again.
    repaired: int = 0

    @property
    def agrees(self) -> bool:
        """Whether nothing disagrees. An object that no row names, as a worker leaves that dies, does no harm."""
        return not any(count for kind, count in self.counts.items() if kind != "extra_object")

    def add(self, problem: Finding) -> None:
        """Count a problem, and keep it."""
        self.counts[problem.kind] += 1
        self.problems.append(problem)

    def summary(self) -> str:
        """Return what was compared and found, in a line or two."""
        how = "read and checked" if self.deep else "found (--deep reads them)"
        jobs = f"{self.done:,} done, {self.failed:,} failed, {self.waiting:,} not rendered yet"
        lines = [f"{counted(self.jobs, 'job')}: {jobs}; {counted(self.images, 'image')} {how}"]
        if not self.ledger:
            lines.append("Redis does not know the sweep: its figures were not compared")
        found = ", ".join(f"{kind} x{count}" for kind, count in sorted(self.counts.items()))
        lines.append(f"does not agree: {found}" if found else "all agrees")
        if self.repaired:
            by = "" if self.ledger else ": `printroom resume`, or `render` again into this folder, does it"
            lines.append(f"{counted(self.repaired, 'job')} to be rendered again{by}")
        elif any(problem.chunk is not None for problem in self.problems):
            lines.append("--repair has them rendered again")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, with the first problems."""
        shown = [
            {"kind": p.kind, "chunk": p.chunk, "indices": list(p.indices), "detail": p.detail}
            for p in self.problems[:PROBLEMS_SHOWN]
        ]
        figures = ("sweep", "jobs", "deep", "done", "failed", "waiting", "images", "ledger", "repaired")
        return {
            **{name: getattr(self, name) for name in figures},
            "agrees": self.agrees,
            "counts": dict(self.counts),
            "problems": shown,
        }


def verify_sweep(
    sweep: str,
    plan: Plan,
    store: Store,
    ledger: Ledger | None,
    *,
    deep: bool = False,
    on_job: Callable[[int], None] = lambda total: None,
) -> Report:
    """Compare all that is known of a sweep. Changes nothing.

    Args:
        ledger: None compares the store with itself.
        deep: read every image.
        on_job: told of each job that has been compared, with how many there are.

    Raises: StoreError.
    """
    report = Report(sweep=sweep, jobs=len(plan), deep=deep)
    before = _status(sweep, ledger)
    recorded: set[int] = set()
    shards: set[str] = set()
    with ThreadPoolExecutor(_READERS) as pool:
        for key, data in manifests(sweep, store):
            number = _chunk_number(key, plan)
            if number is None:
                report.add(Finding(kind="extra_object", detail=f"{key} is of no chunk of the plan", key=key))
                continue
            recorded.add(number)
            rows = _rows(report, plan, number, data)
            shards.update(row["key"] for row in rows if row["offset"] is not None)
            for problem in pool.map(lambda row: _wrong_image(store, row, deep), _done(rows)):
                report.images += problem is None
                if problem is not None:
                    report.add(problem)
            for _ in rows:
                on_job(len(plan))
    _compare_ledger(report, plan, recorded, before, _status(sweep, ledger), ledger)
    _find_extra_shards(report, store, shards)
    report.waiting = sum(len(plan.chunk(n)) for n in range(plan.chunks) if n not in recorded)
    return report


def repair_sweep(report: Report, store: Store, ledger: Ledger | None) -> None:
    """Have the chunks of a report's problems rendered again where they are missing or wrong; the rest of each stays.

    Where Redis does not know the sweep the manifests of those chunks go: who reads the sweep back (`resume`, or
    `render` into the folder) then finds them not done.

    Raises: StoreError; BrokerError.
    """
    wrong: dict[int, set[int]] = {}
    for problem in report.problems:
        if problem.chunk is not None:
            wrong.setdefault(problem.chunk, set()).update(problem.indices)
        if problem.kind == "image_damaged" and problem.key is not None:
            store.delete(problem.key)
    if report.ledger and ledger is not None:
        opened = {number: sorted(found) for number, found in wrong.items()}
        report.repaired = ledger.render_again(report.sweep, opened) if opened else 0
        return
    for number in wrong:
        store.delete(names.manifest_key(report.sweep, number))
    report.repaired = sum(map(len, wrong.values()))


def _status(sweep: str, ledger: Ledger | None) -> SweepStatus | None:
    if ledger is None:
        return None
    try:
        return ledger.status(sweep)
    except (BrokerError, SweepUnknown):
        return None


def _chunk_number(key: str, plan: Plan) -> int | None:
    try:
        number = names.chunk_of_manifest(key)
    except ValueError:
        return None
    return number if 0 <= number < plan.chunks else None


def _rows(report: Report, plan: Plan, number: int, data: bytes) -> list[ManifestRow]:
    """Read a chunk's manifest; return the rows that are the plan's own jobs."""
    chunk = plan.chunk(number)
    everything = tuple(range(chunk.start, chunk.stop))
    try:
        # Maps and times are as Arrow has them; nothing here reads those.
        found: list[ManifestRow] = read_columns(data, MANIFEST_SCHEMA.names).to_pylist()
    except ValueError as error:
        detail = f"the manifest of chunk {number}: {error}"
        report.add(Finding(kind="manifest_damaged", detail=detail, chunk=number, indices=everything))
        return []
    rows = {row["index"]: row for row in found}
    right = [
        row
        for index in everything
        if (row := rows.get(index)) is not None and row["job_id"] == plan.job(index).id
    ]
    if len(right) != len(found) or len(right) != len(everything):
        kept = {row["index"] for row in right}
        wrong = tuple(index for index in everything if index not in kept)
        detail = f"the manifest of chunk {number} has {len(found)} rows, {len(right)} of its {len(everything)} jobs"
        report.add(Finding(kind="row_wrong", detail=detail, chunk=number, indices=wrong))
    report.done += sum(row["status"] == "done" for row in right)
    report.failed += sum(row["status"] == "failed" for row in right)
    return right


def _done(rows: Sequence[ManifestRow]) -> Iterator[DoneRow]:
    return (row for row in rows if row["status"] == "done")


def _wrong_image(store: Store, row: DoneRow, deep: bool) -> Finding | None:
    place: dict[str, Any] = {"chunk": row["chunk"], "indices": (row["index"],), "key": row["key"]}
    try:
        detail = _damage(store, row) if deep else _absence(store, row)
    except ObjectMissing:
        return Finding(kind="image_missing", detail=f"job {row['index']}: no object {row['key']}", **place)
    except ImageDamaged as error:
        detail = str(error)
    return (
        None
        if detail is None
        else Finding(kind="image_damaged", detail=f"job {row['index']}: {detail}", **place)
    )


def _absence(store: Store, row: DoneRow) -> str | None:
    found = store.head(row["key"])
    if found is None:
        raise ObjectMissing(row["key"])
    if row["offset"] is None and found.size_bytes != row["size_bytes"]:
        return f"{row['key']} has {found.size_bytes:,} bytes, its row says {row['size_bytes']:,}"
    if row["offset"] is not None and found.size_bytes < row["offset"] + row["size_bytes"]:
        return f"{row['key']} ends before the image"
    return None


def _damage(store: Store, row: DoneRow) -> str | None:
    data = read_stored_image(store, row)
    try:
        recipe = read_recipe(data)
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            size = picture.size
    except (ValueError, OSError) as error:
        return f"{row['key']} is no image of ours: {error}"
    if recipe.job.id != row["job_id"]:
        return f"{row['key']} holds the recipe of another job: {recipe.job.id}"
    if size != (row["width"], row["height"]):
        return f"{row['key']} is {size[0]}x{size[1]}, its row says {row['width']}x{row['height']}"
    return None


def _compare_ledger(
    report: Report,
    plan: Plan,
    recorded: set[int],
    before: SweepStatus | None,
    after: SweepStatus | None,
    ledger: Ledger | None,
) -> None:
    """Compare the ledger's figures with the rows. While workers commit, figures between before and after are right."""
    report.ledger = after is not None
    if before is None or after is None or ledger is None:
        return
    committed = ledger.committed_chunks(report.sweep, plan.chunks)
    for number in sorted(committed - recorded):
        chunk = plan.chunk(number)
        indices = tuple(range(chunk.start, chunk.stop))
        # It may have been committed after the listing; a sweep that is done has no such excuse.
        if before.state == "done" or before.chunks_done > len(recorded):
            detail = f"chunk {number} is committed, and its manifest is not there"
            report.add(Finding(kind="manifest_missing", detail=detail, chunk=number, indices=indices))
    bits = ledger.bit_counts(report.sweep)
    counters = {"done": after.done, "failed": after.failed, "chunks": after.chunks_done}
    moving = (before.done, before.failed, before.chunks_done) != (after.done, after.failed, after.chunks_done)
    if moving or after.chunks_running:
        return
    for name, count in counters.items():
        if bits[name] != count:
            report.add(
                Finding(
                    kind="figure_wrong",
                    detail=f"the ledger counts {count:,} {name}, {bits[name]:,} bits are set",
                )
            )
    # Images are counted when they are in the store, and get their rows when their chunk is done.
    if report.agrees and after.state == "done":
        for name, rows in (("done", report.done), ("failed", report.failed)):
            if counters[name] != rows:
                report.add(
                    Finding(
                        kind="figure_wrong",
                        detail=f"the ledger counts {counters[name]:,} {name}, the rows {rows:,}",
                    )
                )


def _find_extra_shards(report: Report, store: Store, named: set[str]) -> None:
    """Tell of shards that no row names: a worker that died after it had put one leaves it. They do no harm."""
    for info in store.list(f"{names.sweep_prefix(report.sweep)}shards/"):
        if info.key not in named and not report.waiting:
            report.add(Finding(kind="extra_object", detail=f"{info.key} is named by no row", key=info.key))
