"""Turns any form of a sweep (a path, a mapping, a prompt ...) into one checked `SweepSource`.

From here on a sweep goes one way: source, plan, store and Redis. Nothing after this module asks what the caller had.
Knows nothing of models, Redis or the store.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from producer.arguments import no_sweep, plain_values
from producer.language.complete import SweepFile, read_sweep_file
from producer.language.prompt_files.paths import find_path
from producer.language.prompt_files.read import SourceFile
from producer.language.prompt_files.tables import FileInvalid, nearest_file
from producer.language.sweep import Sweep, sweep_from_mapping, sweep_of
from producer.language.yaml_text import sweep_yaml
from shared.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SweepSource:
    """A sweep that has been read once and checked, with what was read for it."""

    sweep: Sweep
    #: The file that it was read from; None where it was given as Python values.
    file: SweepFile | None = None

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The other files that were read, because the sweep names them."""
        return self.file.files if self.file else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before the sweep is rendered, a line each."""
        return self.file.notes if self.file else ()

    @cached_property
    def text(self) -> str:
        """The text that the store keeps as sweep.yaml: all that was asked for, in one file.

        Raises: SweepError where it is too large to be kept.
        """
        if self.file:
            return self.file.text
        return sweep_yaml(self.sweep.model_dump(mode="json", exclude_unset=True))


#: What the verbs take for a sweep: `read_source` reads each of them.
SweepLike = str | Path | Mapping[str, Any] | Sweep | SweepFile | SweepSource


def read_source(given: SweepLike) -> SweepSource:
    """Read and check a sweep, whatever it is given as. What has been read already is not read again.

    Args:
        given: the path of a sweep file, a mapping of the keys of one, a Sweep, or a sweep file that has been read.

    Raises: SweepError where it is no sweep, or one with mistakes; OSError where the file cannot be read.
    """
    if isinstance(given, SweepSource):
        return given
    if isinstance(given, Sweep):
        return SweepSource(sweep=given)
    if isinstance(given, Mapping):
        return SweepSource(sweep=sweep_from_mapping(plain_values(dict(given))))
    file = given if isinstance(given, SweepFile) else _read_file(given)
    return SweepSource(sweep=sweep_of(file), file=file)


def read_changed_file(path: Path, *, changes: Sequence[str] = (), data: bytes | None = None) -> SweepSource:
    """Read and check a sweep file with changes to it.

    Args:
        changes: each `key=value`, as for `--set`.
        data: what the file holds, for one that is no file, such as stdin; read from the path if left out.

    Raises: SweepError, OSError.
    """
    return read_source(read_sweep_file(path, data=data, settings=changes))


def find_sweep_file(name: str) -> Path:
    """Return the sweep file that a name means, where no shell has replaced `~` and patterns. Raises: UsageError."""
    try:
        path = find_path(Path(), name).path
    except FileInvalid as error:
        raise UsageError(f"{name}: {error}") from error
    if path.is_dir():
        raise UsageError(f"{name}: this is a folder: name a sweep file in it")
    if not path.exists():
        raise UsageError(f"{name}: no such file{nearest_file(path)}")
    return path


def _read_file(given: str | Path) -> SweepFile:
    """Return the sweep file at a path. Raises: SweepError where no file is there, or where this is no path."""
    try:
        path = Path(os.path.expanduser(given))  # noqa: PTH111 - Path.expanduser raises for ~nobody
        if path.is_file():
            return read_sweep_file(path)
    except ValueError as error:  # a path with a null character
        raise no_sweep(given) from error
    raise no_sweep(given)
