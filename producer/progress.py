"""Shows progress: a bar on stderr for people, a line from time to time for logs."""

from __future__ import annotations

import time

import click
import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from producer.fleet.status import Overview


def duration(seconds: float | None) -> str:
    """Return seconds as people say them; a dash for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class Lines:
    """Lines on stderr for a log: each different from the last one, and not too many."""

    def __init__(self, *, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._last, self._next_at = "", 0.0

    def say(self, text: str, *, at_once: bool = False) -> None:
        """Write a line, unless it is the last one again or comes too soon after it."""
        if text == self._last or (time.monotonic() < self._next_at and not at_once):
            return
        self._last, self._next_at = text, time.monotonic() + (0.0 if at_once else self._every_seconds)
        click.echo(text, err=True)


class Progress:
    """A bar on stderr, silent where that is no terminal: there, a line now and then."""

    def __init__(self, *, what: str = "jobs") -> None:
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(what + "  {task.fields[rate]}"),
            TimeElapsedColumn(),
        )
        self._bar = rich.progress.Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, expand=True
        )
        self._task = self._bar.add_task("", total=None, rate="")
        self._lines = Lines(every_seconds=10.0)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """Say what is going on."""
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal:
            self._lines.say(text, at_once=True)

    def step(self, total: int | None) -> None:
        """Count one of `total`."""
        self._bar.update(self._task, total=total, advance=1)

    def update(self, seen: Overview) -> None:
        """Show a sweep's figures."""
        s = seen.status
        finished = s.done + s.failed
        text = s.name if not seen.obstacles else seen.obstacles[0]
        rate = f"{s.images_per_second:.1f}/s, {duration(s.eta_seconds)} to go"
        if s.failed:
            rate += f", {s.failed} failed"
        self._bar.update(self._task, total=s.jobs, completed=finished, description=text, rate=rate)
        if not self._console.is_terminal:
            self._lines.say(f"{text}: {finished}/{s.jobs}, {rate}")
