"""Turns the metadata of ComfyUI, InvokeAI, NovelAI and others into keys of a sweep, as far as sd-parsers reads it.

The program is told by the names of its texts, which needs no library. What a file says is never trusted: a value
that is no number, or a sampler that nobody here knows, stays open.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from PIL import Image

from producer.language.prompt_files.column_names import scheduler_called
from producer.recipe.infotext import InfotextKeys, close_wrong
from shared.errors import UsageError
from shared.schedulers import canonical_scheduler

if TYPE_CHECKING:
    from sd_parsers.data import Sampler

#: EXIF's Make and Model, where ComfyUI puts its texts in a WebP; Software.
_COMFY_TAGS, _SOFTWARE = (0x010F, 0x0110), 0x0131

#: A program's text -> the program, the surest first.
_BY_TEXT = {
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "dream": "InvokeAI",
    "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "use_stable_diffusion_model": "Easy Diffusion",
    "workflow": "ComfyUI",
}

#: Where InvokeAI 3 and later write.
_META = "invokeai_metadata"

#: Our program names -> sd-parsers'; the others it does not read.
_READ_AS = {"InvokeAI": "INVOKEAI", "Fooocus": "FOOOCUS", "ComfyUI": "COMFYUI", "NovelAI": "NOVELAI"}

#: An input of a ComfyUI node -> the type of what is linked to it.
_LINK_TYPES = {
    "model": "MODEL",
    "clip": "CLIP",
    "vae": "VAE",
    "positive": "CONDITIONING",
    "negative": "CONDITIONING",
}

_WHOLE, _NUMBER = re.compile(r"[0-9]{1,20}"), re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")

_INSTALL = "pip install 'printroom[recipes]'"


def other_program(data: bytes, comment: str | None) -> tuple[str, Mapping[str, str]] | None:
    """Return which program wrote an image and its texts, or None where no known one did.

    Args:
        comment: the infotext's place (`parameters`, or EXIF's UserComment), which may hold JSON.
    """
    texts = _texts(data)
    if comment is not None:
        texts["parameters"] = comment
    program = next((program for name, program in _BY_TEXT.items() if name in texts), None)
    if program is None and "NovelAI" in texts.get("Software", ""):
        program = "NovelAI"
    if program is None and _is_comfy_prompt(texts.get("prompt", "")):
        program = "ComfyUI"
    program = program or _by_comment(comment or "") or _by_xmp(texts.get("XML:com.adobe.xmp", ""))
    return (program, texts) if program else None


def read_other(program: str, texts: Mapping[str, str], *, what: str) -> InfotextKeys:
    """Return what a program's texts say, in a sweep's words.

    Raises: UsageError where sd-parsers is missing, or reads no recipe in them.
    """
    if program not in _READ_AS:
        raise UsageError(f"{what}: made by {program}, whose recipes cannot be read here")
    try:
        from sd_parsers.parsers import MANAGED_PARSERS
    except ImportError as error:
        raise UsageError(f"{what}: made by {program}; to read its recipe: {_INSTALL}") from error
    if program == "ComfyUI":
        texts = {**texts, "workflow": _workflow(texts)}
    known: Iterable[Any] = MANAGED_PARSERS
    for parser in known:
        if parser.generator.name != _READ_AS[program]:
            continue
        # A file may hold anything, and the parsers raise whatever a dict or a list raises.
        with suppress(Exception):
            found = parser(normalize_parameters=True, debug=False).parse(dict(texts))
            if found.samplers:
                return _reading(program, found.samplers, {**found.metadata}, _json(texts.get(_META, "")))
    raise UsageError(f"{what}: made by {program}, but sd-parsers reads no recipe in it")


def _reading(
    program: str, samplers: list[Sampler], metadata: Mapping[str, Any], invokeai: Any
) -> InfotextKeys:
    """Return what was read, in a sweep's words.

    Args:
        metadata: what sd-parsers left over: the size, and NovelAI's steps.
        invokeai: InvokeAI's own record, of whose models sd-parsers reads those of version 3 alone.
    """
    sampler, reading = samplers[0], InfotextKeys()
    for key, prompts in (("prompt", sampler.prompts), ("negative_prompt", sampler.negative_prompts)):
        if text := ", ".join(str(prompt.value) for prompt in prompts if str(prompt.value).strip()):
            reading.sweep[key] = text
    if "prompt" not in reading.sweep:
        reading.open["prompt"] = f"{program} says no prompt that can be read"
    said = {str(name): str(value) for name, value in {**metadata, **sampler.parameters}.items()}
    kinds = {"seed": ("seed", int), "guidance_scale": ("cfg_scale", float), "steps": ("steps", int)}
    for key, (name, kind) in kinds.items():
        if (_WHOLE if kind is int else _NUMBER).fullmatch(said.get(name, "")):
            reading.sweep[key] = kind(said[name])
        else:
            reading.open[key] = (
                f"{program} says no {name!r}" if name not in said else f"{said[name]!r} is no number"
            )
    _read_sampler(str(sampler.name), said.get("scheduler", ""), reading)
    sizes = _sizes(metadata)
    if len(sizes) == 1:
        reading.sweep["size"] = sizes.pop()
    else:
        reading.open["size"] = f"{program} says {len(sizes) or 'no'} size{'s' * bool(sizes)}"
    model = sampler.model.name if sampler.model is not None else _invokeai_model(invokeai)
    if model:
        reading.sweep["model"] = str(model)
    else:
        reading.open["model"] = f"{program} names no model that can be read"
    if len(samplers) > 1:
        reading.notes.append(
            f"the first of {len(samplers)} samplers is read; the others change the image too"
        )
    reading.notes.append(
        f"{program}'s recipe is read by sd-parsers: LoRAs, ControlNets and the like are not carried over"
    )
    close_wrong(reading)
    return reading


def _sizes(metadata: Mapping[str, Any]) -> set[str]:
    """Return the sizes that a recipe says: one by itself, Fooocus' `(1024, 1024)`, or those of ComfyUI's latents."""
    nodes = [node for nodes in metadata.values() if isinstance(nodes, list) for node in nodes]
    sides = [
        (found.get("width"), found.get("height"))
        for found in (metadata, *nodes)
        if isinstance(found, Mapping)
    ]
    whole = {
        f"{width}x{height}" for width, height in sides if isinstance(width, int) and isinstance(height, int)
    }
    said = re.fullmatch(r"\(([0-9]{1,9}), ([0-9]{1,9})\)", str(metadata.get("resolution", "")))
    return whole | ({f"{said[1]}x{said[2]}"} if said else set())


def _invokeai_model(record: Any) -> Any:
    model = record.get("model") if isinstance(record, Mapping) else None
    return model.get("name") if isinstance(model, Mapping) else None


def _read_sampler(name: str, spacing: str, reading: InfotextKeys) -> None:
    plain = scheduler_called(name.removesuffix("_gpu")).removeprefix("k_").replace("_ancestral", "_a")
    end = "" if spacing in ("", "normal", "native") else f"_{spacing}"
    with suppress(KeyError):
        reading.sweep["scheduler"] = canonical_scheduler(plain + end)
        return
    reading.open["scheduler"] = f"no scheduler here is called {f'{name} {spacing}'.strip()!r}"


def _texts(data: bytes) -> dict[str, str]:
    """Return the texts of an image by name; none where Pillow cannot read them."""
    # Pillow raises many things for damaged files, and refuses texts that would not fit into memory.
    with suppress(Exception), Image.open(io.BytesIO(data)) as image:
        texts = {str(name): value for name, value in image.info.items() if isinstance(value, str)}
        exif = image.getexif()
        for tag in _COMFY_TAGS:
            name, _, text = str(exif.get(tag, "")).partition(":")
            if name in ("prompt", "workflow"):
                texts[name] = text
        if isinstance(image.info.get("xmp"), bytes):
            texts["XML:com.adobe.xmp"] = image.info["xmp"].decode("utf-8", "replace")
        texts.setdefault("Software", str(exif.get(_SOFTWARE, "")))
        return texts
    return {}


def _json(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def _workflow(texts: Mapping[str, str]) -> str:
    """Return the workflow's text; made from the prompt where a program that used ComfyUI's API wrote none."""
    workflow, prompt = _json(texts.get("workflow", "")), _json(texts.get("prompt", ""))
    if (isinstance(workflow, Mapping) and "links" in workflow) or not isinstance(prompt, Mapping):
        return texts.get("workflow", "")
    links = [
        [0, value[0], value[1], target, 0, _LINK_TYPES.get(name, "LATENT")]
        for target, node in prompt.items()
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
        for name, value in node["inputs"].items()
        if isinstance(value, list) and len(value) == 2
    ]
    return json.dumps({"links": links})


def _is_comfy_prompt(text: str) -> bool:
    found = _json(text)
    return isinstance(found, Mapping) and any(
        isinstance(node, Mapping) and "class_type" in node for node in found.values()
    )


def _by_comment(comment: str) -> str | None:
    found = _json(comment)
    if not isinstance(found, Mapping):
        return None
    if "sui_image_params" in found:
        return "SwarmUI"
    return "Fooocus" if {"base_model", "sharpness"} & found.keys() else None


def _by_xmp(packet: str) -> str | None:
    return "Draw Things" if "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>" in packet else None
