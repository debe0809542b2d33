"""Turns published prompt sets into sweeps: `python -m producer.convert partiprompts FILE > sweep.yaml`.

Prompts are kept to the letter: quotes, a prompt `0` and spaces at the edge are part of what others measured.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from producer.language.prompt_files.row_labels import label_text, written_labels
from producer.language.yaml_text import sweep_yaml
from shared.command_exit import document_bytes, run_command
from shared.errors import SweepError

#: Columns of PartiPrompts that say what a prompt is about and what is hard in it.
_PARTI_LABELS = ("Category", "Challenge")


def partiprompts_sweep(path: str | Path) -> dict[str, Any]:
    """Return PartiPrompts.tsv as a sweep: one axis of prompts, labelled by category and challenge.

    Raises: SweepError where the file has no column `Prompt`, a row without one, or is not UTF-8.
    """
    prompts: list[str] = []
    labels: dict[str, list[str | None]] = {}
    # A quote in this file is a quote: QUOTE_NONE, or one at a prompt's start swallows the lines after it.
    rows = csv.reader(_lines(Path(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    if "Prompt" not in header:
        raise SweepError([f"{Path(path).name}, line 1: no column 'Prompt': this is not PartiPrompts"])
    column = header.index("Prompt")
    for row in rows:
        if not row:
            continue
        if len(row) <= column or not row[column]:
            raise SweepError([f"{Path(path).name}, line {rows.line_num}: no prompt: remove the line"])
        prompts.append(row[column])
        for name in _PARTI_LABELS:
            if name in header:
                place = header.index(name)
                labels.setdefault(name, []).append(label_text(row[place] if place < len(row) else None))
    return _sweep("PartiPrompts", prompts, labels, path)


def geneval_sweep(path: str | Path) -> dict[str, Any]:
    """Return GenEval's evaluation_metadata.jsonl as a sweep: one axis of prompts, labelled by what each tests.

    Raises: SweepError for a line that is no JSON object with a `prompt`, or a file that is not UTF-8.
    """
    prompts: list[str] = []
    tags: list[str | None] = []
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.strip():
            continue
        try:
            prompt, tag = _json_prompt(line)
        except ValueError as error:
            raise SweepError([f"{Path(path).name}, line {number}: {error}"]) from error
        prompts.append(prompt)
        tags.append(tag)
    return _sweep("GenEval", prompts, {"tag": tags}, path)


@click.command(help="Turn a published prompt set into a sweep file.")
@click.argument("kind", type=click.Choice(["partiprompts", "geneval"]))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(kind: str, file: Path) -> None:
    """Write the sweep to stdout."""
    converters: dict[str, Callable[[Path], dict[str, Any]]] = {
        "partiprompts": partiprompts_sweep,
        "geneval": geneval_sweep,
    }
    click.echo(document_bytes(sweep_yaml(converters[kind](file)), sys.stdout), nl=False)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8"
        raise SweepError([f"{path.name}: {byte}: save the file as UTF-8"]) from error
    # Not splitlines(): a prompt may hold U+2028 or U+0085.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _json_prompt(line: str) -> tuple[str, str | None]:
    """Return a line's prompt and its tag."""
    record = json.loads(line)
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("no 'prompt' that is text: remove the line")
    return prompt, label_text(record.get("tag"))


def _sweep(
    name: str, prompts: list[str], labels: Mapping[str, Sequence[str | None]], path: str | Path
) -> dict[str, Any]:
    if not prompts:
        raise SweepError([f"{Path(path).name}: no prompts"])
    said = {key: texts for key, texts in labels.items() if any(texts)}
    return {"name": name, "prompt": prompts} | ({"labels": written_labels({"prompt": said})} if said else {})


if __name__ == "__main__":
    sys.exit(run_command("printroom", main))
