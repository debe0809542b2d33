"""A1111's infotext to the keys of a sweep, as far as they mean the same here. Knows nothing of files.

Infotext has no escapes and nobody's name for a model but the name itself, so it is read as A1111 reads it, and what
it leaves open is said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.schedulers import canonical_scheduler

#: A setting of the last line, as A1111 finds it: a name, and a value that may be quoted.
_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')

_WHOLE = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")

#: A last line with fewer settings is part of the prompt.
_SETTINGS_MIN = 3

_NEGATIVE = "Negative prompt:"

#: Settings that the keys below are made of, or that say nothing about the image.
_READ = {"Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "Version"}

#: What A1111 reads in a prompt and this program takes to the letter: weights, LoRAs, alternation, breaks.
_SYNTAX = re.compile(r"\([^()]*:\s*[0-9.]+\)|<\w+:[^>]+>|\[[^\[\]]*[:|][^\[\]]*\]|\bBREAK\b")


@dataclass(kw_only=True, slots=True)
class Reading:
    """What an infotext says, in a sweep's words."""

    #: Keys of a sweep file.
    sweep: dict[str, Any] = field(default_factory=dict)
    #: Keys that the text does not give, or gives in a way that is not known here, with the reason.
    open: dict[str, str] = field(default_factory=dict)
    #: What will be different, in words.
    notes: list[str] = field(default_factory=list)


def read_infotext(text: str) -> Reading | None:
    """Read an infotext, or return None for a text that is none: its last line has no settings."""
    *lines, last = text.strip().split("\n")
    settings = {name.strip(): _unquoted(value) for name, value in _SETTING.findall(last)}
    if len(settings) < _SETTINGS_MIN:
        return None
    reading = Reading()
    prompt, negative = _prompts(lines)
    reading.sweep["prompt"] = prompt
    if negative:
        reading.sweep["negative_prompt"] = negative
    _read_numbers(settings, reading)
    _read_scheduler(settings, reading)
    _read_model(settings, reading)
    _note_differences(settings, prompt + negative, reading)
    return reading


def _prompts(lines: list[str]) -> tuple[str, str]:
    start = next((n for n, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).strip().removeprefix(_NEGATIVE)
    return "\n".join(lines[:start]).strip(), negative.strip()


def _read_numbers(settings: Mapping[str, str], reading: Reading) -> None:
    kinds = {"Seed": ("seed", int), "CFG scale": ("guidance_scale", float), "Steps": ("steps", int)}
    for name, (key, kind) in kinds.items():
        if name not in settings:
            reading.open[key] = f"the image says no {name!r}"
        elif (_WHOLE if kind is int else _NUMBER).fullmatch(settings[name]):
            reading.sweep[key] = kind(settings[name])
        else:
            reading.open[key] = f"{name} {settings[name]!r} is no number"
    if "Size" in settings:
        reading.sweep["size"] = settings["Size"]
    else:
        reading.open["size"] = "the image says no 'Size'"


def _read_scheduler(settings: Mapping[str, str], reading: Reading) -> None:
    sampler, schedule = settings.get("Sampler", ""), settings.get("Schedule type", "")
    said = " ".join(filter(None, (sampler, schedule)))
    try:
        reading.sweep["scheduler"] = canonical_scheduler(said)
    except KeyError:
        reading.open["scheduler"] = f"no scheduler here is called {said!r}" if said else "the image says none"


def _read_model(settings: Mapping[str, str], reading: Reading) -> None:
    name, digest = settings.get("Model", ""), settings.get("Model hash", "")
    if not name:
        known = f" but its hash {digest}, which is A1111's own" if digest else ""
        reading.open["model"] = f"the image names no model{known}"
        return
    reading.sweep["model"] = name
    shown = f"{name!r} (hash {digest})" if digest else repr(name)
    reading.notes.append(
        f"model {shown} is taken by its name: whether it is the same model, nobody can check"
    )


def _note_differences(settings: Mapping[str, str], prompts: str, reading: Reading) -> None:
    if found := _SYNTAX.search(prompts):
        reading.notes.append(
            f"prompts are taken to the letter: {found[0]!r} is text here, not an instruction"
        )
    others = [f"{name}: {value}" for name, value in settings.items() if name not in _READ]
    if others:
        reading.notes.append(f"not carried over: {', '.join(others)}")
    reading.notes.append("A1111 draws its noise in another way: the same recipe is another image here")


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
