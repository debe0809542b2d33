"""Prints what came of each verb, for a person: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from producer.language.wording import counted
from producer.terminal.output import new_table, print_json, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from producer.client import SweepList
    from producer.export.fetch import Fetched
    from producer.fleet.doctor import Check
    from producer.fleet.status import Overview
    from producer.fleet.submit import Submission
    from producer.local.render import Rendered
    from producer.recipe.show import Shown
    from producer.results.manifest_row import ManifestRow
    from shared.ledger import SweepStatus

#: How `doctor` writes its levels.
_LEVELS = {"ok": "ok ", "warn": "warn", "fail": "BAD"}


def print_submission(done: Submission, as_json: bool) -> None:
    """Print the id of a sweep, what came of submitting it, and what it waits for."""
    if as_json:
        print_json(done)
        return
    click.echo(done.sweep)
    said = {
        "new": "submitted",
        "known": f"known already ({done.state}): nothing changed",
        "relabelled": f"known already ({done.state}): its labels are the new ones",
    }
    said["rebuilt"] = "Redis had lost it: rebuilt from the store"
    click.echo(
        f"{said[done.outcome]}; {counted(done.jobs, 'job')} in {counted(done.chunks, 'chunk')}", err=True
    )
    for line in done.advice:
        click.echo(f"! {line}", err=True)


def print_recipe(shown: Shown) -> None:
    """Print whose recipe it is, the recipe as a sweep file says it, and how the image was made."""
    from producer.language.yaml_text import sweep_yaml

    made = shown.provenance
    facts: dict[str, Any] = {"file": shown.path.name, "format": shown.image_format}
    facts["recipe"] = (
        "Printroom's, checked" if shown.job else f"{shown.program}'s" if shown.program else "A1111's infotext"
    )
    if shown.job and made:
        facts |= {"job": shown.job.id, "model_name": made.model_name, "device": made.device}
        facts |= {"dtype": made.dtype, "batch_rows": made.batch_rows, "versions": made.versions}
    recipe = {key: value for key, value in shown.sweep.items() if key not in ("name", "format")}
    # YAML escapes what would steer a terminal: a file may say anything.
    click.echo(f"{sweep_yaml(facts)}\n{sweep_yaml(recipe)}", nl=False)


def print_recipe_notes(shown: Shown) -> None:
    """Print what a recipe leaves open, and what else should be known of it."""
    from producer.recipe.show import plain

    for key, reason in shown.open.items():
        click.echo(f"! {key} is open: {plain(reason)}", err=True)
    for note in shown.notes:
        click.echo(f"! {plain(note)}", err=True)


def sweep_table(listed: SweepList) -> Table:
    """Return a table of sweeps: those that Redis knows, then those that only the store has."""
    from producer.progress import duration

    table = new_table("sweep", "name", "state", "jobs", "done", "failed", "images/s", "to go")
    for one in listed.sweeps:
        s, edition = one.status, one.edition
        figures = (f"{s.jobs:,}", f"{s.done:,}", f"{s.failed:,}", f"{s.images_per_second:.1f}")
        label = edition.label if edition.is_newest else f"{edition.label} (older)"
        table.add_row(s.sweep[:12], label, s.state, *figures, duration(s.eta_seconds))
    for stored in listed.only_in_store or ():
        table.add_row(stored.sweep[:12], stored.name, "store only", f"{stored.jobs:,}")
    return table


def print_sweeps(listed: SweepList, *, as_json: bool) -> None:
    """Print the sweeps, and which part of the list is missing."""
    lost = listed.only_in_store
    if as_json:
        print_json(listed)
    elif listed.sweeps or lost:
        print_table(sweep_table(listed))
    elif listed.redis_error is None:
        click.echo("no sweeps yet: submit one with `printroom submit sweep.yaml`", err=True)
    if lost:
        example = lost[0].sweep[:12]
        click.echo(
            f"in the store only: Redis has lost them; `printroom resume {example}` brings one back", err=True
        )
    elif lost is None:
        click.echo("the store did not answer in time: sweeps that only it has are not listed", err=True)
    if listed.redis_error is not None:
        click.echo(f"printroom: {listed.redis_error}", err=True)


def print_check(check: Check) -> None:
    """Print one check of `doctor`, and the fix below it."""
    click.echo(f"{_LEVELS[check.level]} {check.name}: {check.detail}")
    if check.fix:
        click.echo(f"    {check.fix}")


def print_warnings(lines: Iterable[str]) -> None:
    """Print what a person should know of a sweep before it is rendered."""
    from producer.preview.show import printable

    for line in lines:
        click.echo(f"! {printable(line)}", err=True)


def print_status(seen: Overview) -> None:
    """Print how a sweep is doing: figures, failures, obstacles, workers."""
    from producer.progress import duration

    s = seen.status
    click.echo(f"{s.name}  {s.sweep}")
    click.echo(f"{s.state}: {s.done:,} of {s.jobs:,} done ({s.reused:,} reused), {s.failed:,} failed")
    click.echo(
        f"chunks: {s.chunks_done} done, {s.chunks_running} running, {s.chunks_queued} queued, of {s.chunks}"
    )
    if s.state == "active":
        click.echo(f"{s.images_per_second:.2f} images/s, {duration(s.eta_seconds)} to go")
    for line in failure_lines(s):
        click.echo(line)
    for line in seen.obstacles:
        click.echo(f"! {line}")
    for w in seen.workers:
        hands = ", ".join(chunk[:8] + chunk[32:] for chunk in w.chunks) or "idle"
        click.echo(f"worker {w.name}: {w.device}, {w.images_per_second:.2f} images/s, {hands}")


def failure_lines(status: SweepStatus, *, commands: bool = True) -> Iterator[str]:
    """Yield each code with its count, its reasons, and what to type next."""
    from producer.recipe.show import plain
    from shared.errors import PERMANENT_CODES

    for code, count in sorted(status.failures.items()):
        yield f"failed {code}: {count:,}"
        yield from (f"    {plain(reason)}" for reason in status.reasons.get(code, ()))
        if commands:
            yield f"    see them: printroom results {status.sweep[:12]} --where error_code={code}"
        if commands and code not in PERMANENT_CODES:
            yield f"    try again: printroom retry {status.sweep[:12]} --code {code}"


def result_columns(row: ManifestRow) -> Iterator[str]:
    """Yield the columns of a row in its short form."""
    from shared.guidance import rule_label

    outcome = row["key"] if row["status"] == "done" else f"{row['error_code']}: {row['error']}"
    yield from (str(row["index"]), row["status"], row.get("url") or outcome)
    rule = "" if row["guidance_rule"] is None else f" ({rule_label(row['guidance_rule'])})"
    guidance = f"guidance={row['guidance_scale']:g}{rule}"
    yield f"seed={row['seed']} {guidance} steps={row['steps']} {row['scheduler']}"
    yield json.dumps(row["prompt"], ensure_ascii=False)
    yield json.dumps(row["negative_prompt"], ensure_ascii=False)


def print_fetched(done: Fetched) -> None:
    """Print what a fetch brought, and what is broken."""
    click.echo(
        f"{counted(done.rows, 'job')}: {counted(done.fetched, 'image')} fetched, {done.skipped:,} there already, "
        f"{done.failed:,} failed",
        err=True,
    )
    if done.shards:
        click.echo(counted(done.shards, "shard"), err=True)
    for code, count in sorted(done.failures.items()):
        click.echo(f"failed {code}: {count:,}", err=True)
    for line in done.broken:
        click.echo(line, err=True)


def print_rendered(made: Rendered, sheet: Path | None, *, as_json: bool) -> None:
    """Print where the images of a local run are, and how many there are."""
    if as_json:
        print_json(made.to_json() | {"sheet": sheet})
        return
    click.echo(f"images    {made.images}")
    click.echo(f"manifest  {made.manifests}")
    if sheet:
        click.echo(f"sheet     {sheet}")
    click.echo(
        f"{made.status.done:,} of {made.status.jobs:,} done ({made.found:,} were there already)", err=True
    )
    for line in failure_lines(made.status, commands=False):
        click.echo(line, err=True)
    if made.interrupted:
        click.echo("interrupted: the same command goes on from here", err=True)
