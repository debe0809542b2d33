"""Makes the contact sheet of a sweep: chooses its jobs, finds their results, chooses its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from PIL.Image import Image

from producer.arguments import Between
from producer.language.conditions.expression import Condition
from producer.language.fields import FIELDS
from producer.results.images import read_stored_image
from producer.results.manifest_row import ImageLocation, ManifestRow
from producer.results.rows import manifest_rows
from producer.results.where import (
    LABEL,
    Where,
    canonical_where,
    condition_fields,
    hints,
    is_wanted,
    read_where,
    where_texts,
)
from producer.sheet import MAX_PIXELS, Baseline, Cell, CellState, draw_sheet, find_baseline
from producer.sheet.cells import key, value, variables_of
from producer.sheet.draw import draw
from producer.sheet.grid import fields, make_grid
from producer.sheet.layout import box, first_scale
from producer.sheet.page import write_page
from producer.sheet.sides import choose_sides
from producer.sheet.tiles import tile, write_tiles
from shared.errors import BrokerError, UsageError
from shared.job import RECIPE_FIELDS, Job
from shared.ledger import Ledger, SweepState
from shared.plan import Plan
from shared.store.base import Store
from shared.whole_file import write_png

#: Jobs on one picture or page. A larger sweep wants --where, and so does the person who reads the sheet.
SHEET_JOBS_MAX = 20_000

#: Jobs on tiles, whose images are read a tile at a time; a job without its image takes about 2 kB.
TILED_JOBS_MAX = 200_000

#: Jobs of a plan looked through for those, at some 3 us each.
_SCAN_MAX = 2_000_000

#: What goes along the top and down the side where nobody says, first choice first.
_COLUMN_CHOICE = (
    "seed",
    "guidance_scale",
    "guidance_rule",
    "steps",
    "scheduler",
    "negative_prompt",
    "prompt",
    "size",
    "model",
)
_ROW_CHOICE = (
    "negative_prompt",
    "prompt",
    "guidance_rule",
    "guidance_scale",
    "scheduler",
    "steps",
    "size",
    "model",
    "seed",
)

Side = str | Sequence[str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What Redis knows of jobs that no manifest tells of."""

    state: SweepState
    #: Chunks in the hands of live workers.
    running: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The files of a sheet."""

    #: What to open: the picture, or the page that shows the tiles.
    first: Path
    #: Every file, the first one first.
    paths: Sequence[Path]
    jobs: int


def sweep_sheet(
    sweep: str,
    plan: Plan,
    store: Store,
    *,
    rows: Side,
    columns: Side,
    where: Mapping[str, Any],
    diff: Where | Sequence[str] | None = None,
    thumb_px: Annotated[int, Between(16, 4096)] | None = None,
    live: Live | None = None,
) -> Image:
    """Draw a sweep as far as it has come, as one picture; thumbnails shrink until it fits.

    Args:
        rows, columns: a field of a job, or two of which the first is outer; chosen among those that vary where not
            given.
        where: only jobs with these values.
        diff: the field and the value of the baseline that every image is compared with; a label is a field too.
        thumb_px: longest side of the largest image.
        live: what Redis knows (`look`).

    Raises: UsageError for unknown fields and for more than SHEET_JOBS_MAX jobs; StoreError.
    """
    cells = _cells(sweep, plan, store, where, live, jobs_max=SHEET_JOBS_MAX)
    down, across = _layout(cells, rows, columns, thumb_px=thumb_px, diff=bool(diff))
    return draw_sheet(
        cells,
        rows=down,
        columns=across,
        title=plan.name,
        model_names=plan.models,
        thumb_px=thumb_px,
        baseline=_baseline(cells, diff, plan),
        wrap=columns is None,
    )


def write_sheet(
    sweep: str,
    plan: Plan,
    store: Store,
    out: Path,
    *,
    rows: Side = None,
    columns: Side = None,
    where: Mapping[str, Any] | None = None,
    diff: Where | Sequence[str] | None = None,
    thumb_px: Annotated[int, Between(16, 4096)] | None = None,
    max_pixels: Annotated[int, Between(100_000)] = MAX_PIXELS,
    live: Live | None = None,
    on_part: Callable[[int | None], None] = lambda total: None,
) -> Written:
    """Draw a sweep into files as far as it has come; nothing is shrunk to fit a picture.

    Args:
        out: `FILE.png`, which becomes tiles beside one another where it would have more than `max_pixels`;
            `FILE.html`, one page with everything in it; or a folder for tiles and an index.html.
        on_part: told the number of tiles, or images of a page, at each one written.
        rows, columns, where, diff, thumb_px, live: as in `sweep_sheet`.

    Raises: UsageError for unknown fields, another kind of file, and too many jobs; StoreError; OSError.
    """
    kind = _kind(out)
    jobs_max = SHEET_JOBS_MAX if kind == "page" else TILED_JOBS_MAX
    cells = _cells(sweep, plan, store, where or {}, live, jobs_max=jobs_max)
    down, across = _layout(cells, rows, columns, thumb_px=thumb_px, diff=bool(diff))
    wrap = columns is None
    grid = make_grid(cells, rows=down, columns=across, title=plan.name, models=plan.models, wrap=wrap)
    baseline = _baseline(cells, diff, plan)
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "page":
        write_page(grid, out, thumb_px=thumb_px, baseline=baseline, on_image=on_part)
        return Written(first=out, paths=[out], jobs=len(cells))
    tiles = tile(grid, max_pixels=max_pixels, thumb_px=thumb_px, baseline=baseline)
    if kind == "picture" and len(tiles) == 1:
        write_png(draw(tiles[0].layout), out)
        return Written(first=out, paths=[out], jobs=len(cells))
    if kind == "picture":
        names = {"stem": out.stem, "index": f"{out.stem}-tiles.html"}
        paths = write_tiles(tiles, out.parent, **names, on_tile=on_part)
    else:
        paths = write_tiles(tiles, out, on_tile=on_part)
    return Written(first=paths[0], paths=paths, jobs=len(cells))


def look(sweep: str, ledger: Ledger) -> Live | None:
    """Return what Redis knows of a sweep, or None where it knows nothing or cannot be reached."""
    try:
        state = ledger.state(sweep)
        workers = ledger.workers()
    except BrokerError:
        return None
    if state is None:
        return None
    hands = (chunk.partition("/") for worker in workers for chunk in worker.chunks)
    return Live(state=state, running=frozenset(int(number) for name, _, number in hands if name == sweep))


def _kind(out: Path) -> str:
    if out.is_dir() or not out.suffix:
        return "folder"
    kinds = {".png": "picture", ".html": "page"}
    if out.suffix.lower() not in kinds:
        raise UsageError(f"{out}: a sheet is a .png, a .html or a folder")
    return kinds[out.suffix.lower()]


def _cells(
    sweep: str, plan: Plan, store: Store, where: Mapping[str, Any], live: Live | None, *, jobs_max: int
) -> list[Cell]:
    jobs = _choose(plan, where, jobs_max)
    cells: dict[int, Cell] = {}
    for row in manifest_rows(sweep, store):
        if (job := jobs.get(row["index"])) is not None:
            cells[row["index"]] = _made(job, row, store, _labels(plan, row["index"]))
    for index in jobs.keys() - cells.keys():
        state = _unmade(plan, index, live)
        cells[index] = Cell(job=jobs[index], state=state, **_labels(plan, index))
    return [cells[index] for index in sorted(cells)]


def _labels(plan: Plan, index: int) -> dict[str, Any]:
    """Return a job's labels as a cell has them: the sweep's own axes, and what stands beside them."""
    labels, beside = plan.labels(index), plan.column_names
    return {
        "variables": {name: text for name, text in labels.items() if name not in beside},
        "columns": {name: text for name, text in labels.items() if name in beside},
    }


def _made(job: Job, row: ManifestRow, store: Store, labels: Mapping[str, Any]) -> Cell:
    if row["status"] == "failed":
        reason = f"{row['error_code']}: {row['error']}"
        return Cell(job=job, state="failed", reason=reason, **labels)
    kept = ImageLocation(  # not the whole row: a sheet holds many of them
        key=row["key"], offset=row["offset"], size_bytes=row["size_bytes"], sha256=row["sha256"]
    )
    return Cell(job=job, state="done", load=partial(read_stored_image, store, kept), **labels)


def _unmade(plan: Plan, index: int, live: Live | None) -> CellState:
    """Say what a job is that no manifest tells of."""
    if live is None or live.state == "done":
        return "missing"
    if live.state == "cancelled":
        return "cancelled"
    if plan.chunk_of(index) in live.running:
        return "running"
    return "paused" if live.state == "paused" else "waiting"


def _baseline(cells: Sequence[Cell], diff: Where | Sequence[str] | None, plan: Plan) -> Baseline | None:
    if not diff:
        return None
    found = read_where(diff, plan.label_names)
    [(name, wanted), *more] = found.items()
    if more or isinstance(wanted, tuple | Condition):
        raise UsageError(f"--diff {' '.join(where_texts(found))}: write one field=value, such as seed=0")
    return find_baseline(cells, name.removeprefix(LABEL), wanted, plan.models)


def _choose(plan: Plan, where: Mapping[str, Any], jobs_max: int) -> dict[int, Job]:
    """Return the jobs of a plan that have these values, by index."""
    where = canonical_where(where, plan.label_names)
    known = (*RECIPE_FIELDS, *plan.label_names)
    unknown = [name for name in condition_fields(where) if name.removeprefix(LABEL) not in known]
    if unknown:
        raise UsageError(f"no field {unknown[0]!r} to choose jobs by; there are: {', '.join(known)}")
    jobs: dict[int, Job] = {}
    for index, job in plan.jobs() if len(plan) <= _SCAN_MAX else ():
        if is_wanted(where, partial(_value_by_name, plan, index, job)):
            jobs[index] = job
        if len(jobs) > jobs_max:
            break
    if len(plan) > _SCAN_MAX or len(jobs) > jobs_max:
        raise UsageError(_too_many(jobs_max))
    if not jobs:
        raise UsageError(
            "; ".join([f"no job of this sweep has {', '.join(where_texts(where))}", *hints(where)])
        )
    return jobs


def _value_by_name(plan: Plan, index: int, job: Job, name: str) -> Any:
    """Return a field of a job, or one of its labels."""
    if name.startswith(LABEL):
        return plan.labels(index).get(name.removeprefix(LABEL))
    return getattr(job, name)


def _too_many(jobs_max: int) -> str:
    tiles = f", or write up to {TILED_JOBS_MAX:,} as tiles into a folder" if jobs_max < TILED_JOBS_MAX else ""
    return (
        f"more than {jobs_max:,} jobs are too many for one sheet: choose with --where, or fetch them{tiles}"
    )


def _box(cells: Sequence[Cell], thumb_px: int | None, diff: bool) -> tuple[int, int]:
    """Return the room of the largest image, with its difference below it."""
    largest = max(cell.job.width for cell in cells), max(cell.job.height for cell in cells)
    width, height = box(largest, first_scale(largest, thumb_px))
    return width, height * (2 if diff else 1)


def _layout(
    cells: Sequence[Cell], rows: Side, columns: Side, *, thumb_px: int | None = None, diff: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the sides. A sweep's own axes (vars, styles, choices) go before the texts that follow from them."""
    labels = sorted(variables_of(cells), key=lambda name: name != "style")
    varying = {name for name in (*FIELDS, *labels) if len({value(cell, name) for cell in cells}) > 1}
    own = [name for name in labels if name in varying]
    down_choice = (*own, *_ROW_CHOICE)
    across_choice = ("seed", *own[1:], *_COLUMN_CHOICE)
    if rows is None and columns is None:
        # A text that follows from vars or a style is no axis of its own.
        axes = varying - ({"prompt", "negative_prompt"} if own and not _texts_are_axes(cells, own) else set())
        axes = axes or {"seed"}
        return choose_sides(
            cells, _those(down_choice, axes), _those(across_choice, axes), box=_box(cells, thumb_px, diff)
        )
    across = fields(columns) if columns else _first(across_choice, varying, fields(rows) if rows else ())
    down = fields(rows) if rows else _first(down_choice, varying, across)
    return down, across


def _those(choice: Sequence[str], wanted: set[str]) -> list[str]:
    return [name for name in dict.fromkeys(choice) if name in wanted]


def _texts_are_axes(cells: Sequence[Cell], labels: Sequence[str]) -> bool:
    """Whether prompts differ beyond what the sweep's own values make of them."""
    texts = {key(cell, (*labels, "prompt", "negative_prompt")) for cell in cells}
    return len(texts) > len({key(cell, labels) for cell in cells})


def _first(choice: tuple[str, ...], varying: set[str], taken: Sequence[str]) -> tuple[str]:
    free = [name for name in choice if name not in taken]
    return (next((name for name in free if name in varying), free[0]),)
