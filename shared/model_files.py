"""Finds what is wrong with a model's files: truncated, replaced by a pointer, or missing. Reads headers, no weights.

What is found here is said by `plan`, `models` and a worker's first log lines, before a night is spent on it. No torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.safetensors_header import Header, HeaderInvalid, read_header
from shared.walk import walk_files

SUFFIX = ".safetensors"

#: Names of a component's weights, which `worker.models.weights` loads: whole or in shards, plain or of a variant.
_BASES = ("model", "diffusion_pytorch_model")
_WEIGHTS = r"(?:model|diffusion_pytorch_model){}(?:-\d+-of-\d+)?\.safetensors"

_VOCABULARIES = {"tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model"}

#: How a Git LFS pointer begins, which stands in a repository for a file that was not fetched.
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_HTML = (b"<!doctype", b"<html", b"<?xml")

#: What programs leave of a download that was not finished.
_UNFINISHED = (".incomplete", ".part", ".crdownload", ".aria2", ".download")

#: Names of tensors of a whole checkpoint in one file, as its first trainers and ComfyUI wrote them.
_CHECKPOINT_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "cond_stage_model.", "conditioner.")

#: Libraries of model_index.json whose components have files of their own.
_LIBRARIES = ("diffusers", "transformers")

#: Components that are not loaded, so that they may be absent.
_LEFT_OUT = ("safety_checker", "watermarker", "feature_extractor", "image_encoder")


def what_is_wrong(model: Path) -> str:
    """Return why a model cannot be loaded, in one line; "" where nothing is seen to be wrong.

    Args:
        model: a diffusers folder, or a `.safetensors` file.
    """
    try:
        if model.is_file():
            return _wrong_with_weights(model)
        return _wrong_with_folder(model)
    except OSError as error:
        return f"{error.filename or model}: {(error.strerror or str(error)).lower()}"


def is_checkpoint(file: Path) -> bool:
    """Whether a `.safetensors` file is a whole model, and not a LoRA, a VAE, an embedding or a ControlNet.

    A file that cannot be read counts as one: it is named as damaged rather than passed over.
    """
    try:
        tensors = read_header(file).tensors
    except (HeaderInvalid, OSError):
        return True
    return any(name.startswith(_CHECKPOINT_PREFIXES) for name in tensors)


def _wrong_with_folder(folder: Path) -> str:
    index, problem = _json(folder / "model_index.json")
    if problem:
        return problem
    files = list(walk_files(folder))  # a link that leads round in a circle is an error
    if not any(file.suffix == SUFFIX for file in files):
        return f"{folder}: no {SUFFIX} weights{_unfinished(files)}"
    problems = (_wrong_with_component(folder / name, entry) for name, entry in index.items())
    return next(filter(None, problems), "")


def _wrong_with_component(folder: Path, entry: Any) -> str:
    """Return what is wrong with a component that model_index.json names as [library, class]."""
    if folder.name in _LEFT_OUT or not (
        isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES
    ):
        return ""
    if not folder.is_dir():
        return f"{folder}: model_index.json names this component, and its folder is not there"
    files = sorted(folder.iterdir())
    names = {path.name for path in files}
    if not names:
        return f"{folder}: the folder of this component is empty"
    if "Tokenizer" in str(entry[1]) and not names & _VOCABULARIES:
        return f"{folder}: the tokenizer has no vocabulary (vocab.json or tokenizer.json)"
    problems = [_json(file)[1] for file in files if file.name.endswith("config.json")]
    weights, variant = _loaded_weights(files)
    problems += [_wrong_with_weights(file) for file in weights]
    problems += [_wrong_with_shards(file) for file in files if _is_index_of(file.name, variant)]
    return next(filter(None, problems), "")


def _loaded_weights(files: Sequence[Path]) -> tuple[list[Path], str]:
    """Return the weights of a component that a worker loads, and their variant: the plain ones, else float16's."""
    for variant in ("", ".fp16"):
        weights = [file for file in files if re.fullmatch(_WEIGHTS.format(re.escape(variant)), file.name)]
        if weights or any(_is_index_of(file.name, variant) for file in files):
            return weights, variant
    return [], ""


def _is_index_of(name: str, variant: str) -> bool:
    return name in {f"{base}{SUFFIX}.index{variant}.json" for base in _BASES} | {
        f"{base}{variant}{SUFFIX}.index.json" for base in _BASES
    }


def _wrong_with_weights(file: Path) -> str:
    """Return what is wrong with a `.safetensors` file: its header against its length."""
    size = file.stat().st_size
    if size == 0:
        return f"{file}: empty: fetch it again"
    with file.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
    if start.startswith(_LFS_POINTER):
        return f"{file}: a Git LFS pointer, not the weights: run `git lfs pull` where it was cloned"
    if start.lstrip().lower().startswith(_HTML):
        return f"{file}: a web page, not weights: the download failed; fetch it again"
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return f"{file}: pickled weights under the name of safetensors: convert them, they are never read"
    try:
        header = read_header(file)
    except HeaderInvalid as error:
        return str(error)
    expected = header.bytes + max((tensor.stop for tensor in header.tensors.values()), default=0)
    if size < expected:
        return f"{file}: cut off: {size:,} bytes of {expected:,}: fetch it again"
    return _wrong_offsets(file, header)


def _wrong_offsets(file: Path, header: Header) -> str:
    for name, tensor in header.tensors.items():
        if not 0 <= tensor.start <= tensor.stop:
            return f"{file}: damaged: tensor {name} ends before it begins"
    return ""


def _wrong_with_shards(index_file: Path) -> str:
    """Return what is wrong with weights in several files: each that the index names, and each tensor in its file."""
    index, problem = _json(index_file)
    if problem:
        return problem
    places = index.get("weight_map")
    if not isinstance(places, dict):
        return f"{index_file}: no weight_map"
    for shard in sorted({str(name) for name in places.values()}):
        path = index_file.parent / shard
        if not path.is_file():
            return f"{path}: missing: {index_file.name} names it{_unfinished(index_file.parent.iterdir())}"
        try:
            there = read_header(path).tensors
        except HeaderInvalid as error:
            return str(error)
        lacking = [name for name, place in places.items() if place == shard and name not in there]
        if lacking:
            return f"{path}: {len(lacking)} tensors that {index_file.name} names are not in it, such as {lacking[0]}"
    return ""


def _json(file: Path) -> tuple[dict[str, Any], str]:
    """Return a JSON file's mapping, and what is wrong with it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"{file}: no JSON ({str(error).partition(chr(10))[0]})"
    return (found, "") if isinstance(found, dict) else ({}, f"{file}: not a JSON object")


def _unfinished(files: Iterable[Path]) -> str:
    left = [path.name for path in files if path.name.endswith(_UNFINISHED)]
    return f"; {left[0]} is a download that was not finished" if left else ""
