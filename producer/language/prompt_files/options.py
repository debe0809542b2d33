"""Turns options on the lines of a prompt file into values of jobs, for the dialects of two programs. Knows no files.

A1111's "Prompts from file or textbox":   --prompt "a cat" --negative_prompt "blurry" --seed 1 --steps 20
kohya's sample prompts (sd-scripts):      a cat --n blurry --w 512 --h 768 --d 1 --l 7.5 --s 20
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from producer.language.prompt_files.column_names import scheduler_called

#: Whose options the lines of a file carry.
OptionDialect = Literal["a1111", "kohya"]

OPTION_DIALECTS: tuple[OptionDialect, ...] = ("a1111", "kohya")

#: Option -> (field, or a side of the size; how its text is read).
_A1111: Mapping[str, tuple[str, type]] = {
    "prompt": ("prompt", str),
    "negative_prompt": ("negative_prompt", str),
    "seed": ("seed", int),
    "steps": ("steps", int),
    "cfg_scale": ("guidance_scale", float),
    "width": ("width", int),
    "height": ("height", int),
    "sampler_name": ("scheduler", str),
    "sd_model": ("model", str),
}
_KOHYA: Mapping[str, tuple[str, type]] = {
    "n": ("negative_prompt", str),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("guidance_scale", float),
    "w": ("width", int),
    "h": ("height", int),
    "ss": ("scheduler", str),
}

#: A1111's options that say how its window works and nothing of the image, or nothing where they have this value.
_WITHOUT_MEANING = {
    "outpath_samples": None,
    "outpath_grids": None,
    "prompt_for_display": None,
    "do_not_save_samples": None,
    "do_not_save_grid": None,
    "batch_size": "1",
    "n_iter": "1",
    "restore_faces": "false",
    "tiling": "false",
    "subseed": None,
    "subseed_strength": "0",
    "seed_resize_from_h": "0",
    "seed_resize_from_w": "0",
}

#: kohya's options that no job here has.
_KOHYA_OTHERS = frozenset(
    (
        "t",
        "nl",
        "am",
        "ct",
        "cr",
        "cn",
        "ctr",
        "fs",
        "g",
        "glr",
        "f",
        "i",
        "cf",
        "p",
        "dsw",
        "dsh",
        "dsr",
        "dss",
    )
)

_OPTION = re.compile(r"(?:^|\s)--([A-Za-z_]+)(?=\s|$)")
_A1111_LINE = re.compile(
    rf"\s*--(?:{'|'.join([*_A1111, *_WITHOUT_MEANING, 'styles', 'sampler_index'])})(?=\s|$)"
)
#: `--s` alone is no evidence: Midjourney's stylize is written so too.
_KOHYA_LINE = re.compile(
    r"\S\s+--(?:n\s+\S|[whd]\s+[0-9]+(?=\s|$)|l\s+[0-9.]+(?=\s|$)|ss\s+\S)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionLine:
    """What one line says."""

    #: Field of a job -> value.
    values: dict[str, Any] = field(default_factory=dict)
    #: What is wrong with it.
    problems: list[str] = field(default_factory=list)


def find_options(lines: Iterable[str]) -> OptionDialect | None:
    """Return whose options the lines of a file carry; None where they carry none, or those of somebody else.

    Raises: ValueError where some lines are written one way and some the other.
    """
    a1111 = kohya = foreign = False
    for line in lines:
        if "--" not in line:
            continue
        if _A1111_LINE.match(line):
            a1111 = True
        elif names := {name.lower() for name in _OPTION.findall(line)}:
            kohya = kohya or bool(_KOHYA_LINE.search(line))
            foreign = foreign or not names <= {*_KOHYA, *_KOHYA_OTHERS}
    kohya = kohya and not foreign
    if a1111 and kohya:
        fix = "keep them in two files, or write options: a1111, kohya or none"
        raise ValueError(f"some lines carry A1111's options and some kohya's: {fix}")
    return "a1111" if a1111 else "kohya" if kohya else None


def is_comment(line: str, dialect: OptionDialect) -> bool:
    """Say whether a line is none for the program whose options the file carries."""
    return dialect == "kohya" and line.startswith("#")


def read_options(line: str, dialect: OptionDialect) -> OptionLine:
    """Return what a line says."""
    problems: list[str] = []
    if dialect == "a1111":
        found = _a1111_options(line, problems)
        values = _values(found, _A1111, problems)
    else:
        prompt, *pieces = re.split(r"(?:^|\s)--(?=[A-Za-z])", line)
        values = {"prompt": prompt.strip()}
        pairs = [(name.lower(), text.strip()) for name, _, text in (piece.partition(" ") for piece in pieces)]
        values |= _values(pairs, _KOHYA, problems)
    sides = [values.pop(side, None) for side in ("width", "height")]
    if None not in sides:
        values["size"] = f"{sides[0]}x{sides[1]}"
    elif any(sides):
        problems.append("it says only one side of the image: write both, or neither")
    return OptionLine(values=values, problems=problems)


def _a1111_options(line: str, problems: list[str]) -> list[tuple[str, str]]:
    """Return (option, text) of a line; one that begins with none is a prompt."""
    if not line.lstrip().startswith("--"):
        if _OPTION.search(line):
            problems.append("the text in front of its options stands alone: begin with --prompt")
        return [("prompt", line.strip())]
    try:
        words = shlex.split(line)
    except ValueError as error:
        problems.append(f"{str(error).lower()}: close it; a text with an apostrophe stands in double quotes")
        return []
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word[2:], []))
        else:
            found[-1][1].append(word)
    return [(name, " ".join(texts)) for name, texts in found]


def _values(
    options: Iterable[tuple[str, str]], known: Mapping[str, tuple[str, type]], problems: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in options:
        if name in known:
            field_name, kind = known[name]
            _take(values, f"--{name}", field_name, kind, text, problems)
        elif known is not _A1111 or name not in _WITHOUT_MEANING:
            problems.append(f"--{name} has no equal here: remove it")
        elif _WITHOUT_MEANING[name] not in (None, text.lower().removesuffix(".0")):
            problems.append(f"--{name} {text} has no equal here: remove it")
    return values


def _take(
    values: dict[str, Any], option: str, field_name: str, kind: type, text: str, problems: list[str]
) -> None:
    """Take one option. A seed of -1 is none: the program draws one, and the sweep says its own."""
    if field_name in values:
        problems.append(f"{option} stands there twice: keep one")
    elif kind is str:
        values[field_name] = scheduler_called(text) if field_name == "scheduler" else text
    elif not re.fullmatch(r"-?[0-9]{1,20}" if kind is int else r"-?[0-9]{1,20}(\.[0-9]{0,20})?", text):
        problems.append(f"{option} {text or '(nothing)'}: write one number")
    elif not (field_name == "seed" and text == "-1"):
        values[field_name] = kind(text)
