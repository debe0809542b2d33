"""A sweep's contact sheet: which jobs go on it, what has become of them, and the axes it is laid out by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL.Image import Image

from producer.images import read_image
from producer.results import canonical_where, manifest_rows
from producer.sheet import SHEET_FIELDS, Cell, draw_sheet
from shared.errors import UsageError
from shared.job import RECIPE_FIELDS, Job
from shared.plan import Plan
from shared.store.base import Store

#: Jobs looked at for one sheet. A larger sweep wants --where, and so does the person who reads the sheet.
JOBS_MAX = 20_000

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


def sweep_sheet(
    sweep: str, plan: Plan, store: Store, *, rows: str | None, columns: str | None, where: Mapping[str, Any]
) -> Image:
    """Draw a sweep as far as it has come.

    Args:
        rows, columns: fields of `SHEET_FIELDS`; chosen among those that vary where not given.
        where: only jobs with these values.

    Raises: UsageError for unknown fields and for more than JOBS_MAX jobs; StoreError.
    """
    jobs = _choose(plan, where)
    rows, columns = _layout(list(jobs.values()), rows, columns)
    made = {row["index"]: row for row in manifest_rows(sweep, store)}
    cells = [_cell(job, made.get(index), store) for index, job in sorted(jobs.items())]
    return draw_sheet(cells, rows=rows, columns=columns, title=plan.name, model_names=plan.models)


def _cell(job: Job, row: Mapping[str, Any] | None, store: Store) -> Cell:
    if row is None:
        return Cell(job=job, state="missing")
    if row["status"] == "failed":
        return Cell(job=job, state="failed", reason=f"{row['error_code']}: {row['error']}")
    return Cell(job=job, state="done", load=partial(read_image, store, row))


def _choose(plan: Plan, where: Mapping[str, Any]) -> dict[int, Job]:
    """Return the jobs of a plan that have these values, by index."""
    unknown = [name for name in where if name not in RECIPE_FIELDS]
    if unknown:
        raise UsageError(f"no field {unknown[0]!r} to choose jobs by; there are: {', '.join(RECIPE_FIELDS)}")
    where = canonical_where(where)
    jobs: dict[int, Job] = {}
    for index, job in plan.jobs() if len(plan) <= _SCAN_MAX else ():
        if all(getattr(job, name) == value for name, value in where.items()):
            jobs[index] = job
        if len(jobs) > JOBS_MAX:
            break
    if len(plan) > _SCAN_MAX or len(jobs) > JOBS_MAX:
        raise UsageError(
            f"more than {JOBS_MAX:,} jobs are too many for one sheet: choose with --where, or fetch them"
        )
    if not jobs:
        wanted = ", ".join(f"{name}={value!r}" for name, value in where.items())
        raise UsageError(f"no job of this sweep has {wanted}")
    return jobs


def _layout(jobs: list[Job], rows: str | None, columns: str | None) -> tuple[str, str]:
    varying = {name for name in SHEET_FIELDS if len({_value(job, name) for job in jobs}) > 1}
    columns = columns or _first(_COLUMN_CHOICE, varying, {rows})
    rows = rows or _first(_ROW_CHOICE, varying, {columns})
    return rows, columns


def _first(choice: tuple[str, ...], varying: set[str], taken: set[str | None]) -> str:
    free = [name for name in choice if name not in taken]
    return next((name for name in free if name in varying), free[0])


def _value(job: Job, name: str) -> Any:
    return (job.width, job.height) if name == "size" else getattr(job, name)
