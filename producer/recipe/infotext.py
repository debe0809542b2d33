"""Turns A1111's infotext into keys of a sweep, where they mean the same. Knows nothing of files.

Infotext has no escapes and nobody's name for a model but the name itself, so it is read as A1111 reads it, and what
it leaves open is said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticCustomError

from producer.language.fields import CHECKS
from producer.language.prompt_files.infotext_parts import KNOWN, Infotext, split_infotext
from shared.schedulers import canonical_scheduler

_WHOLE = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")

#: A sampler's own schedule, which `Schedule type: Automatic` means in A1111 1.9 and later; the plain one elsewhere.
_AUTOMATIC = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "Restart": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M SDE": "Exponential",
}

#: A1111's names for spacings that have another name here. Simple takes every n-th noise level from the end, as
#: diffusers' trailing spacing does; DDIM every n-th from the start, as Stable Diffusion's own configs say.
_SAME_SPACING = {"Uniform": "", "Normal": "", "DDIM": "", "Simple": "SGM Uniform"}

#: Settings that change the image and that nothing here does.
_BEYOND = re.compile(
    r"Hires |ADetailer |ControlNet|Denoising strength$|Clip skip$|Lora hashes$|Refiner|Variation seed|Mask |"
    r"Face restoration$|Tiling$|ENSD$|Eta$|Init image hash$|Inpaint|FreeU|Soft inpainting|Regional|"
    r"Dynamic thresholding|Sigma (?:min|max)$|Schedule rho$|Zero Terminal SNR$|VAE$|Distilled CFG Scale$"
)

#: What A1111 reads in a prompt and this program takes to the letter: weights, LoRAs, alternation, breaks.
_SYNTAX = re.compile(r"\([^()]*:\s*[0-9.]+\)|<\w+:[^>]+>|\[[^\[\]]*[:|][^\[\]]*\]|\bBREAK\b")


@dataclass(kw_only=True, slots=True)
class InfotextKeys:
    """What an infotext says, in a sweep's words."""

    #: Keys of a sweep file.
    sweep: dict[str, Any] = field(default_factory=dict)
    #: Keys that the text does not give, or gives in a way that is not known here, with the reason.
    open: dict[str, str] = field(default_factory=dict)
    #: What will be different, in words.
    notes: list[str] = field(default_factory=list)


def read_infotext(text: str) -> InfotextKeys | None:
    """Read an infotext, or return None for a text that is none: no line of it has the settings."""
    parts = split_infotext(text)
    if parts is None:
        return None
    reading = InfotextKeys()
    reading.sweep["prompt"] = parts.prompt
    if parts.negative:
        reading.sweep["negative_prompt"] = parts.negative
    if not parts.prompt:
        reading.notes.append("the prompt is empty, as the image says it")
    _read_numbers(parts.settings, reading)
    _read_scheduler(parts.settings, reading)
    _read_model(parts.settings, reading)
    close_wrong(reading)
    _note_differences(parts, reading)
    return reading


def close_wrong(reading: InfotextKeys) -> None:
    """Take what no sweep may say out of a reading, with the reason: a size of 513x512, a seed of 30 digits."""
    for key, value in list(reading.sweep.items()):
        try:
            CHECKS[key](value)
        except PydanticCustomError as error:
            reading.open[key] = error.message()
            del reading.sweep[key]


def _read_numbers(settings: Mapping[str, str], reading: InfotextKeys) -> None:
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


def _read_scheduler(settings: Mapping[str, str], reading: InfotextKeys) -> None:
    sampler, schedule = settings.get("Sampler", ""), settings.get("Schedule type", "")
    said = " ".join(filter(None, (sampler, schedule)))
    spacing = (
        _AUTOMATIC.get(sampler, "") if schedule == "Automatic" else _SAME_SPACING.get(schedule, schedule)
    )
    meant = " ".join(filter(None, (sampler, spacing)))
    try:
        reading.sweep["scheduler"] = canonical_scheduler(meant)
    except KeyError:
        reading.open["scheduler"] = f"no scheduler here is called {said!r}" if said else "the image says none"
        return
    if meant != said:
        reading.notes.append(f"sampler {said!r} is taken as {reading.sweep['scheduler']}")


def _read_model(settings: Mapping[str, str], reading: InfotextKeys) -> None:
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


def _note_differences(parts: Infotext, reading: InfotextKeys) -> None:
    if found := _SYNTAX.search(parts.prompt + parts.negative):
        reading.notes.append(
            f"prompts are taken to the letter: {found[0]!r} is text here, not an instruction"
        )
    others = {name: value for name, value in parts.settings.items() if name not in KNOWN}
    for said, is_beyond in (("cannot be reproduced here", True), ("not carried over", False)):
        listed = [
            f"{name}: {value}" for name, value in others.items() if bool(_BEYOND.match(name)) == is_beyond
        ]
        if listed:
            reading.notes.append(f"{said}: {', '.join(listed)}")
    if parts.rest:
        reading.notes.append(f"not carried over, after the settings: {parts.rest}")
    reading.notes.append("A1111 draws its noise in another way: the same recipe is another image here")
