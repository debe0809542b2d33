"""Writes tables and documents to stdout, whatever the terminal's width and encoding are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from producer.json_answers import json_text
from shared.command_exit import document_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: With fewer columns tables cannot be read: then lines are left to the terminal to break.
_COLUMNS_MIN = 40


#: More columns than any table of ours has.
_PIPE_COLUMNS = 100_000


def open_console() -> Console:
    """Return the console of stdout, at least so wide that a table can be read."""
    from rich.console import Console

    # COLUMNS=0, as some programs set it, would show nothing at all.
    width = None if Console().width >= _COLUMNS_MIN else _COLUMNS_MIN
    return Console(highlight=False, width=width)


def new_table(*columns: str) -> Table:
    """Return a table that folds what a narrow terminal has no room for, and cuts nothing."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table: as wide as the terminal; in a pipe as wide as it is, a row a line."""
    from rich.console import Console

    console = open_console()
    if not console.is_terminal:
        width = Console(width=_PIPE_COLUMNS).measure(table).maximum
        console = Console(highlight=False, width=max(width, 1))
    console.print(table)


def print_json(answer: Any, *, indent: int | None = 2) -> None:
    """Write an answer as JSON; without an indent on one line."""
    print_document(json_text(answer, indent=indent) + "\n")


def print_document(text: str) -> None:
    """Write JSON or YAML: what reads it expects UTF-8, whatever this terminal is set to."""
    click.echo(document_bytes(text, sys.stdout), nl=False)
