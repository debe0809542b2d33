"""The command line: parses, calls one verb of `producer.client`, prints. Results on stdout, talk on stderr.

Exit status: 0 done, 1 work failed, 2 a mistake that a person can fix, 130 interrupted.
Heavy imports stay inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from producer.language.wording import counted
from producer.terminal.help import DEBUG_HELP, Verbs
from producer.terminal.output import new_table, open_console, print_document, print_json, print_table
from producer.terminal.reports import (
    print_check,
    print_fetched,
    print_recipe,
    print_recipe_notes,
    print_rendered,
    print_status,
    print_submission,
    print_sweeps,
    print_warnings,
    result_columns,
    sweep_table,
)
from shared.command_exit import (
    DEBUG_OPTION,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    run_command,
)
from shared.store.base import PRESIGN_SECONDS_MAX

if TYPE_CHECKING:
    from producer.client import Printroom
    from producer.prompt_words import PromptOptions
    from producer.source import SweepSource
    from shared.ledger import SweepStatus

#: Options of a prompt whose names on the command line are not the fields' own.
_OPTION_NAMES = {"negatives": "--negative", "guidance_rules": "--guidance-rule"}

#: How long a URL works where nobody says.
_URL_SECONDS = 3600

_json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
_where_option = click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only rows that meet it: seed=3, 'seed>=3', prompt~woman (contains), 'prompt=~wom[ae]n', \"seed in [1, 2] or"
    " style = 'sunny'\"; repeatable.",
)
_expires_option = click.option(
    "--expires",
    type=click.IntRange(1, PRESIGN_SECONDS_MAX),
    help=f"With --urls: seconds such a URL works. [{_URL_SECONDS}]",
)
_sweep_argument = click.argument("sweep")
_allow_failing_option = click.option(
    "--allow-failing", is_flag=True, help="Go on though some jobs are certain to fail (`plan` says which)."
)
_set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the sweep file: steps=30, seed.count=4; VALUE is YAML; repeatable.",
)


def main() -> None:
    """Run the command line."""
    sys.exit(run_command("printroom", _run))


def _run() -> int:
    """Parse and run one verb. Click says itself what is wrong with a command line."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return status if isinstance(status, int) else 0


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="printroom")
@click.option(DEBUG_OPTION, is_flag=True, expose_value=False, help=DEBUG_HELP)
def cli() -> None:
    """Queue large diffusion sweeps in the evening; find every image, once, in the morning.

    \b
    On one machine:      printroom render examples/mustache.yaml
    On a fleet:          printroom worker                  (on each GPU machine)
                         printroom submit sweep.yaml       (from anywhere)
                         printroom status SWEEP --watch
                         printroom fetch SWEEP prints/

    A SWEEP is its id, the start of its id, or its name. Settings come from PRINTROOM_* variables; see
    .env.example. Exit status: 0 done, 1 work failed, 2 a mistake to fix, 130 interrupted.
    """


# --- before anything runs ------------------------------------------------------------------------------------


@cli.command()
@click.argument("file", required=False)
@click.option("--sample", default=5, show_default=True, help="Jobs to show, evenly spread over the plan.")
@click.option("--first", is_flag=True, help="Show the first jobs of the plan.")
@click.option("--diff", "old", metavar="OLD", help="A sweep or a file: say what FILE adds, keeps and drops.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of sweep files, and look at no file.")
@_set_option
@_json_flag
def plan(
    file: str | None,
    sample: int,
    first: bool,
    old: str | None,
    schema: bool,
    changes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what a sweep would do, and do nothing.

    Jobs, how the files that it names were read, chunks, buckets, model loads, duplicates, texts and their tokens,
    what it takes in the store and, where images of the same kind were made before, in time; warnings and some of the
    jobs. Models are looked up on this machine and on live workers. FILE may be - for a sweep on stdin.

    Exit status 2 where jobs are certain to fail, with the reasons and what leaves them out.
    """
    from producer.preview import render_difference, render_preview

    if schema:
        from producer.language.schema import sweep_schema

        print_json(sweep_schema())
        return 0
    if file is None:
        raise click.UsageError("which FILE? (`printroom plan --schema` alone goes without)")
    unknown: list[str] = []
    client = _client()
    source = _read_sweep(file, changes)
    compiled = client.compile(source, unknown=unknown)
    seen = client.preview(compiled, sample=sample, first=first, source=source)
    difference = None if old is None else client.compare(compiled, old)
    if as_json:
        print_json(seen.to_json() | ({"difference": difference.to_json()} if difference else {}))
    else:
        render_preview(seen, open_console())
    if difference and not as_json:
        render_difference(difference, open_console())
    for line in unknown:
        click.echo(f"not known yet: {line}; the sweep's id will differ", err=True)
    return EXIT_USAGE if seen.failures else 0


@cli.command()
@click.argument("what", metavar="FILE|-|PROMPT")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the prints [prints/<name>]."
)
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    metavar="TEXT",
    help="With a prompt: a negative prompt, drawn beside the plain prompt; repeatable.",
)
@click.option(
    "--no-plain", is_flag=True, help="With --negative: leave out the row without a negative prompt."
)
@click.option(
    "--count", type=click.IntRange(min=1), help="With a prompt: images of each, seeds 0, 1, 2 ... [4]"
)
@click.option("--guidance", type=float, help="With a prompt: guidance scale.")
@click.option(
    "--guidance-rule",
    "guidance_rules",
    multiple=True,
    metavar="RULE",
    help="With a prompt: a guidance rule, such as apg or '{rescale: 0.7}'; repeatable.",
)
@click.option("--steps", type=int, help="With a prompt: sampling steps.")
@click.option("--model", help="With a prompt: a model's name or folder.")
@click.option("--format", help="With a prompt: png, webp, webp:90, jpeg:95 or jxl.")
@_set_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--yes", is_flag=True, help="Agree to a very large sweep.")
@_allow_failing_option
@_json_flag
def render(
    what: str,
    out: Path | None,
    changes: tuple[str, ...],
    device: str,
    yes: bool,
    allow_failing: bool,
    as_json: bool,
    **words: Any,
) -> int:
    """Render a sweep here and now: no Redis, no S3, no set-up.

    Starts an embedded Valkey and one worker, stores into a folder, and draws a contact sheet at the end. Ctrl-C
    finishes the batch in hand; the same command again goes on where it stopped.
    """
    from producer.local.render import draw_local_sheet, render_locally
    from producer.progress import Progress
    from producer.prompt_words import PromptOptions, prompt_warnings

    options = PromptOptions(**words)
    source = _sweep_or_prompt(what, options, changes)
    print_warnings(source.notes)
    if source.file is None:
        print_warnings(prompt_warnings(source))
    folder = out or Path("prints") / source.sweep.name
    settings = _settings()
    with Progress() as bar:
        made = render_locally(
            source,
            folder,
            settings,
            device=device,
            confirmed=yes,
            allow_failing=allow_failing,
            on_stage=bar.stage,
            on_status=bar.update,
        )
    sheet = None if made.interrupted else draw_local_sheet(made)
    print_rendered(made, sheet, as_json=as_json)
    if options.negatives and not options.no_plain and sheet:
        click.echo("the row without a negative prompt is for comparison; --no-plain leaves it out", err=True)
    if made.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if made.status.failed else 0


# --- a sweep's life ------------------------------------------------------------------------------------------


@cli.command()
@click.argument("file")
@_set_option
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--yes", is_flag=True, help="Agree to a very large sweep.")
@_allow_failing_option
@_json_flag
def submit(
    file: str, changes: tuple[str, ...], priority: int, yes: bool, allow_failing: bool, as_json: bool
) -> None:
    """Submit a sweep and print its id. FILE may be - for a sweep on stdin.

    The same sweep again is a no-op; an extended sweep renders only what is new, since images are named by what
    they are.
    """
    source = _read_sweep(file, changes)
    print_warnings(source.notes)
    done = _client().submit(source, priority=priority, confirmed=yes, allow_failing=allow_failing)
    print_submission(done, as_json)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda:N or all: one process a GPU."
)
@click.option(
    "--models", type=click.Path(exists=True, path_type=Path), help="Folder of models [PRINTROOM_MODELS]."
)
@click.option("--share-gpu", is_flag=True, help="Take a GPU although another worker of this machine has it.")
def worker(device: str, models: Path | None, share_gpu: bool) -> None:
    """Take chunks and render them, until SIGTERM or Ctrl-C, which drain.

    A GPU serves one worker of a machine: a second one waits until it is free.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("worker") is None:
        raise click.ClickException("this machine cannot render yet: pip install 'printroom[worker]'")
    extra = ["--models", str(models)] if models else []
    extra += ["--share-gpu"] if share_gpu else []
    extra += [DEBUG_OPTION] if DEBUG_OPTION in sys.argv else []
    os.execv(sys.executable, [sys.executable, "-m", "worker", "--device", device, *extra])


@cli.command()
@click.argument("sweep", required=False)
@click.option("--watch", is_flag=True, help="Follow until it is done; without SWEEP, until all are.")
@_json_flag
def status(sweep: str | None, watch: bool, as_json: bool) -> int:
    """Show how one sweep is doing, or list them all.

    Exit status 1 for a sweep that is done with failures, or with --watch alone, if one that was active is.
    """
    from producer.progress import Progress

    client = _client()
    if sweep is None:
        return _watch_sweeps(client, as_json) if watch else _list_sweeps(client, as_json)
    sweep = client.find(sweep)
    if watch and not as_json:
        with Progress() as bar:
            client.wait(sweep, on_status=bar.update)
    elif watch:
        client.wait(sweep, poll_seconds=1.0, on_status=lambda seen: print_json(seen.to_json(), indent=None))
    seen = client.status(sweep)
    if not as_json:
        print_status(seen)
    elif not watch:
        print_json(seen.to_json())
    return EXIT_FAILED if seen.status.state == "done" and seen.status.failed else 0


@cli.command()
@_sweep_argument
def pause(sweep: str) -> None:
    """Feed no more of a sweep; what is being sampled is finished."""
    click.echo(_client().pause(sweep))


@cli.command()
@_sweep_argument
def resume(sweep: str) -> None:
    """Go on with a paused or cancelled sweep, or with one that Redis has lost.

    A lost sweep is rebuilt from the manifests in the store; only what is missing is rendered. `printroom status`
    lists lost sweeps too.
    """
    click.echo(_client().resume(sweep))


@cli.command()
@_sweep_argument
def cancel(sweep: str) -> None:
    """Stop a sweep. What it has made stays; `resume` goes on."""
    click.echo(_client().cancel(sweep))


# A number may be negative: what begins with - is no option here.
@cli.command(context_settings={"ignore_unknown_options": True})
@_sweep_argument
@click.argument("number", type=int)
def priority(sweep: str, number: int) -> None:
    """Change what is fed first: a higher NUMBER goes before a lower one."""
    _client().prioritise(sweep, number)
    click.echo(str(number))


@cli.command()
@_sweep_argument
@click.option(
    "--code", "codes", multiple=True, metavar="CODE", help="Only failures with this code; repeatable."
)
@_where_option
@click.option("--all", "everything", is_flag=True, help="Also those that the same job has again for sure.")
@click.option("--dry-run", is_flag=True, help="Say how many, and change nothing.")
@_json_flag
def retry(
    sweep: str, codes: tuple[str, ...], where: tuple[str, ...], everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Render failed jobs of a sweep again.

    Failures that the same job has again for sure (job_invalid, model_unsupported) are left alone, unless --code names
    them or --all is given.
    """
    done = _client().retry(sweep, codes=codes, where=where, everything=everything, dry_run=dry_run)
    if as_json:
        print_json(done)
        return
    click.echo(f"{counted(done.jobs, 'job')} {'would' if dry_run else 'will'} be rendered again")
    for code, count in sorted(done.left.items()):
        click.echo(f"left: {count:,} failed with {code}", err=True)
    if done.hopeless and not (codes or everything):
        click.echo("those that fail again for sure are left: change the sweep, or say --all", err=True)


# --- what came of it -----------------------------------------------------------------------------------------


@cli.command()
@_sweep_argument
@_where_option
@click.option("--urls", is_flag=True, help="Add a URL that reads each image for a while.")
@_expires_option
@_json_flag
def results(sweep: str, where: tuple[str, ...], urls: bool, expires: int | None, as_json: bool) -> int:
    """List the rows of a sweep's manifests so far; --json prints every column, a line a job.

    Exit status 1 where --where is met by no row; then the values that there are go to stderr.
    """
    from producer.results.rows import to_json_line

    url_seconds = _url_seconds(urls, expires)
    client, wanted = _client(), where
    count = 0
    for row in client.results(sweep, where=wanted, urls=urls, expires_seconds=url_seconds or _URL_SECONDS):
        count += 1
        if as_json:
            print_document(to_json_line(row) + "\n")
        else:
            click.echo("\t".join(result_columns(row)))
    return _report_nothing(client, sweep, wanted) if wanted and not count else 0


@cli.command()
@click.argument("conditions", nargs=-1, required=True, metavar="CONDITION...")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many rows.")
@_json_flag
def find(conditions: tuple[str, ...], limit: int | None, as_json: bool) -> int:
    """Find rows in all sweeps of the store, whatever Redis knows.

    A CONDITION is written as for --where; a row meets all of them. --json prints every column and the sweep's name, a
    line a row. Exit status 1 where nothing is found.
    """
    from producer.progress import Progress
    from producer.results.rows import to_json_line

    count = 0
    with Progress(what="sweeps") as bar:
        for found in _client().search(conditions, on_sweep=bar.step):
            count += 1
            if as_json:
                print_document(to_json_line({"name": found.name, **found.row}) + "\n")
            else:
                click.echo("\t".join((found.name, found.sweep[:12], *result_columns(found.row))))
            if count == limit:
                break
    if not count:
        click.echo("nothing found in any sweep of the store", err=True)
        for line in _client().why_nothing_found(conditions):
            click.echo(line, err=True)
    return 0 if count else EXIT_FAILED


@cli.command()
@_sweep_argument
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format",
    "layout",
    default="folder",
    show_default=True,
    metavar="FORMAT",
    help="folder, webdataset, parquet, hf (an image folder for `datasets`) or jsonl (no images).",
)
@_where_option
@click.option("--status", default="all", show_default=True, metavar="STATUS", help="all, ok or failed.")
@click.option("--shard-size", metavar="SIZE", help="webdataset, parquet: about how large a shard gets. [1GB]")
@click.option("--sidecars", is_flag=True, help="folder: caption (.txt) and row (.json) beside each image.")
@click.option("--with-failed", is_flag=True, help="Also write failed.jsonl: failed jobs and their reasons.")
@click.option(
    "--card/--no-card", default=True, show_default=True, help="webdataset, parquet, hf: write README.md."
)
@click.option("--urls", is_flag=True, help="jsonl: add a URL that reads each image for a while.")
@_expires_option
@_json_flag
def fetch(
    sweep: str,
    folder: Path,
    where: tuple[str, ...],
    as_json: bool,
    urls: bool,
    expires: int | None,
    **words: Any,
) -> int:
    """Bring images and metadata home. Run it again to resume, or to get what is new.

    Every image is checked against its sha256. Without --format, FOLDER gets images/, metadata.jsonl, sweep.yaml
    and the manifests; docs/datasets.md shows the other formats.
    """
    from producer.export.fetch import FetchOptions, parse_size
    from producer.progress import Progress

    size = words.pop("shard_size")
    shard_bytes = None if size is None else parse_size(size)
    options = FetchOptions(**words, shard_bytes=shard_bytes, url_seconds=_url_seconds(urls, expires))
    client, wanted = _client(), where
    with Progress(what="images") as bar:
        done = client.fetch(sweep, folder, where=wanted, options=options, on_image=bar.step)
    if as_json:
        print_json(done)
    else:
        click.echo(str(folder))
        print_fetched(done)
    if wanted and not done.rows:
        return _report_nothing(client, sweep, wanted)
    return EXIT_FAILED if done.broken else 0


@cli.command()
@_sweep_argument
@click.option("--deep", is_flag=True, help="Read every image: its sha256, its recipe, its pixels.")
@click.option("--repair", is_flag=True, help="Have what is missing or wrong rendered again.")
@_json_flag
def verify(sweep: str, deep: bool, repair: bool, as_json: bool) -> int:
    """Compare a sweep's plan, rows, images and figures with one another, and say what does not agree.

    Exit status 1 where something is missing or wrong. Jobs that are not rendered yet are counted, and are no problem.
    """
    from producer.progress import Progress
    from producer.results.verify import PROBLEMS_SHOWN

    with Progress(what="jobs") as bar:
        report = _client().verify(sweep, deep=deep, repair=repair, on_job=bar.step)
    if as_json:
        print_json(report.to_json())
        return 0 if report.agrees else EXIT_FAILED
    for problem in report.problems[:PROBLEMS_SHOWN]:
        click.echo(f"{problem.kind}: {problem.detail}")
    if len(report.problems) > PROBLEMS_SHOWN:
        click.echo(f"... and {len(report.problems) - PROBLEMS_SHOWN:,} more")
    click.echo(report.summary(), err=True)
    return 0 if report.agrees else EXIT_FAILED


@cli.command()
@_sweep_argument
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="FILE.png, FILE.html, or a folder for tiles.",
)
@click.option("--rows", metavar="F[,F]", help="Field down the side, such as negative_prompt; or outer,inner.")
@click.option("--cols", "columns", metavar="F[,F]", help="Field along the top, such as seed; or outer,inner.")
@_where_option
@click.option(
    "--diff",
    metavar="FIELD=VALUE",
    help="Compare every image with the one that has this value, such as negative_prompt=null.",
)
@click.option("--thumb", type=click.IntRange(16, 4096), metavar="PX", help="Longest side of an image.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=100_000),
    default=80_000_000,
    show_default=True,
    help="Pixels of one PNG; a larger sheet becomes tiles.",
)
def sheet(
    sweep: str,
    out: Path,
    rows: str | None,
    columns: str | None,
    where: tuple[str, ...],
    diff: str | None,
    thumb: int | None,
    max_pixels: int,
) -> None:
    """Draw a labelled contact sheet; by default over the sweep's own axes.

    A PNG too large for viewers becomes tiles and a page that shows them. An HTML page has its images inside, and is
    laid out anew in the browser.
    """
    from producer.progress import Progress

    with Progress(what="images" if out.suffix == ".html" else "tiles") as bar:
        written = _client().write_sheet(
            sweep,
            out,
            where=where,
            rows=rows,
            columns=columns,
            diff=[diff] if diff else None,
            thumb_px=thumb,
            max_pixels=max_pixels,
            on_part=bar.step,
        )
    click.echo(str(written.first))
    click.echo(f"{counted(written.jobs, 'job')} in {counted(len(written.paths), 'file')}", err=True)


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sweep", "as_sweep", is_flag=True, help="Print a sweep file that asks for this image again.")
@click.option("--resubmit", is_flag=True, help="Submit that sweep, and print its id.")
@_json_flag
def show(file: Path, as_sweep: bool, resubmit: bool, as_json: bool) -> None:
    """Read the recipe out of an image: one of ours, or as far as it goes one with A1111's infotext.

    Exit status 2 for a file that says nothing, and for --resubmit where a recipe leaves something open.
    """
    from producer.recipe.show import plain, show_image
    from shared.errors import UsageError

    shown = show_image(file)
    if as_sweep and resubmit:
        raise click.UsageError("--sweep prints and --resubmit submits: choose one")
    if resubmit and shown.open:
        listed = "\n".join(f"{key}: {plain(reason)}" for key, reason in shown.open.items())
        raise UsageError(f"{file}: not submitted\n{listed}\nadd it to `printroom show {file} --sweep`")
    if resubmit:
        print_recipe_notes(shown)
        print_submission(_client().submit(shown.sweep), as_json)
    elif as_json:
        print_json(shown.to_json())
    elif as_sweep:
        print_document(shown.to_yaml())
    else:
        print_recipe(shown)
        print_recipe_notes(shown)


# --- looking after it ----------------------------------------------------------------------------------------


@cli.command()
@click.argument("name", required=False)
@_json_flag
def models(name: str | None, as_json: bool) -> None:
    """List the models of this machine and of live workers; with a NAME, show that one's card."""
    client = _client()
    if name is not None:
        click.echo(client.model_card(name))
        return
    known = client.models()
    if as_json:
        print_json(known)
        return
    table = new_table("model", "fingerprint", "where")
    for model in known:
        table.add_row(model.name, model.fingerprint, ", ".join(model.places))
    print_table(table)
    for model in known:
        if model.broken:
            click.echo(f"! {model.name} cannot be loaded: {model.broken}", err=True)


@cli.command()
@click.option("--create-bucket", is_flag=True, help="Make the S3 bucket first, if it is missing.")
@_json_flag
def doctor(create_bucket: bool, as_json: bool) -> int:
    """Check broker, store, workers, models, device and versions: each ok, a warning, or what to do.

    Exit status 1 if a check failed; warnings leave it 0.
    """
    client = _client()
    if create_bucket:
        with _usage_of_click():
            client.create_bucket()
    checks = []
    for check in client.examine():
        checks.append(check)
        if not as_json:
            print_check(check)
    if as_json:
        print_json(checks)
    return 0 if all(check.ok for check in checks) else EXIT_FAILED


# --- private -------------------------------------------------------------------------------------------------


def _settings() -> Any:
    from shared.logs import set_up_logging
    from shared.settings import load_settings

    settings = load_settings()
    set_up_logging(settings.log_format, "WARNING")
    return settings


def _client() -> Printroom:
    from producer.client import Printroom

    return Printroom(_settings(), on_note=lambda note: click.echo(note, err=True))


def _read_sweep(what: str, changes: tuple[str, ...]) -> SweepSource:
    """Return the sweep in a file, or on stdin for "-"."""
    from producer.language.document import SWEEP_FILE_BYTES_MAX
    from producer.source import find_sweep_file, read_changed_file

    if what != "-":
        with _usage_of_click():
            path = find_sweep_file(what)
        return read_changed_file(path, changes=changes)
    if sys.stdin is None:
        raise click.UsageError("-: stdin is closed: pipe a sweep in, or name a file")
    if sys.stdin.isatty():
        click.echo("reading a sweep from stdin: end it with Ctrl-D", err=True)
    data = sys.stdin.buffer.read(SWEEP_FILE_BYTES_MAX + 1)
    return read_changed_file(Path("stdin"), changes=changes, data=data)


@contextmanager
def _usage_of_click() -> Iterator[None]:
    """Let click report a wrong word of this command line, as it reports those that it finds itself."""
    from shared.errors import SweepError, UsageError

    try:
        yield
    except SweepError:
        raise
    except UsageError as error:
        raise click.UsageError(str(error)) from error


def _sweep_or_prompt(what: str, options: PromptOptions, changes: tuple[str, ...] = ()) -> SweepSource:
    """Return the sweep that a file holds, or that a prompt and its options mean."""
    from producer.prompt_words import prompt_source

    if what == "-" or Path(what).suffix in (".yaml", ".yml") or Path(what).is_file():
        if given := options.given():
            option = _OPTION_NAMES.get(given[0], f"--{given[0].replace('_', '-')}")
            raise click.UsageError(f"{option} goes with a prompt; {what} says it in the file")
        return _read_sweep(what, changes)
    if changes:
        raise click.UsageError("--set changes a sweep file; with a prompt say --steps, --guidance ...")
    with _usage_of_click():
        return prompt_source(what, options)


def _url_seconds(urls: bool, expires: int | None) -> int | None:
    """Return how long URLs are to work; None without any."""
    if expires is not None and not urls:
        raise click.UsageError("--expires goes with --urls")
    return (expires or _URL_SECONDS) if urls else None


def _list_sweeps(client: Printroom, as_json: bool) -> int:
    """List what Redis knows, and what only the store has. Returns 1 where Redis does not answer."""
    listed = client.list_sweeps()
    print_sweeps(listed, as_json=as_json)
    return 0 if listed.redis_error is None else EXIT_FAILED


def _watch_sweeps(client: Printroom, as_json: bool) -> int:
    """Follow all sweeps until none is active. Returns 1 if one of those that were active has failures."""
    from rich.live import Live

    from producer.client import sweep_list
    from producer.progress import Lines

    watched: set[str] = set()
    console, lines = open_console(), Lines(every_seconds=10.0)

    def look(seen: list[SweepStatus]) -> None:
        watched.update(s.sweep for s in seen if s.state in ("active", "rebuilding"))
        if as_json:
            print_json(seen, indent=None)
        elif console.is_terminal:
            live.update(sweep_table(sweep_list(seen)), refresh=True)
        else:
            lines.say(
                "; ".join(f"{s.name}: {s.done + s.failed}/{s.jobs}" for s in seen if s.sweep in watched)
            )

    with Live(console=console, auto_refresh=False, transient=True) as live:
        last = client.wait_all(on_statuses=look)
    if not as_json:
        print_table(sweep_table(sweep_list(client.statuses())))
    return EXIT_FAILED if any(s.failed for s in last if s.sweep in watched) else 0


def _report_nothing(client: Printroom, sweep: str, where: tuple[str, ...]) -> int:
    """Say why a filter that is met by no row may be so. Returns the exit status."""
    for line in client.why_nothing(sweep, where):
        click.echo(f"nothing found: {line}", err=True)
    return EXIT_FAILED


if __name__ == "__main__":
    main()
