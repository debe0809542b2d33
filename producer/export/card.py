"""Writes a dataset card (README.md): how to load the dataset, what is in it, how it was made.

Ours are some keys of the YAML header and what stands between two marks; each fetch writes those anew. The licence is
the owner's to choose, so the card asks for one and never names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from producer.export.base import Tally
from producer.export.columns import IMAGE, card_features
from producer.export.files import write_new
from producer.language.yaml_text import sweep_yaml
from shared.errors import UsageError
from shared.manifest import MANIFEST_SCHEMA

_BEGIN = "<!-- printroom: each fetch writes anew what stands from here to the next mark -->"
_END = "<!-- /printroom -->"

_HEADER = re.compile(r"\A---\n(.*?\n)??---\n", re.DOTALL)

#: A sweep file longer than this is not repeated in the card.
_SOURCE_CHARACTERS_MAX = 20_000

#: Lines of a list of sizes or models, before the rest is counted.
_LISTED_MAX = 20

#: Upper bounds of the Hub's `size_categories`, and their names.
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)

#: Layout -> the files that `datasets` is to read.
_DATA_FILES = {"parquet": "data/*.parquet", "hf": "train/**", "webdataset": "*.tar"}

_LOADING = {
    "parquet": 'load_dataset("parquet", data_files="data/*.parquet", split="train")',
    "hf": 'load_dataset("imagefolder", data_dir=".", split="train")',
    "webdataset": 'load_dataset(".", split="train", streaming=True)',
}

#: Layouts that a card describes.
CARD_LAYOUTS = tuple(_DATA_FILES)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card tells of a dataset, besides its tally."""

    sweep: str
    name: str
    layout: str
    where: tuple[str, ...]
    #: Jobs of the whole sweep, where that is known.
    jobs: int | None
    #: The sweep's file; empty where the store has none.
    source: str


def write_card(path: Path, facts: CardFacts, tally: Tally) -> None:
    """Write a card, or bring the one that is there up to date.

    Raises: UsageError for a card whose header or marks cannot be found; StoreError.
    """
    # Not read_text(): the owner's line ends are the owner's.
    text = path.read_bytes().decode() if path.is_file() else _new_card(facts)
    header, body = _split(path, text)
    header = {**header, **_header(facts, tally)}
    before, begin, rest = body.partition(_BEGIN)
    # The last one is ours: the sweep's file, which stands between them, may hold any text.
    _, end, after = rest.rpartition(_END)
    if not (begin and end):
        raise UsageError(
            f"{path}: its marks `{_BEGIN}` and `{_END}` are gone: put them back, or use --no-card"
        )
    ours = "\n\n".join(_sections(facts, tally))
    shown = sweep_yaml(header)
    write_new(path, f"---\n{shown}---\n{before}{_BEGIN}\n\n{ours}\n\n{_END}{after}".encode())


def _new_card(facts: CardFacts) -> str:
    header = sweep_yaml(
        {"pretty_name": facts.name, "tags": ["synthetic"], "task_categories": ["text-to-image"]}
    )
    wish = (
        "Say here what the dataset is for, and choose a licence: `license:` in the header above. Whether the models'\n"
        "licences and the prompts leave you that choice is for you to find out."
    )
    return f"---\n{header}---\n\n# {_line(facts.name)}\n\n{wish}\n\n{_BEGIN}\n{_END}\n"


def _split(path: Path, text: str) -> tuple[dict[str, Any], str]:
    """Return a card's header and the rest."""
    match = _HEADER.match(text)
    try:
        header = yaml.safe_load(match[1] or "") if match else {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: its header is not YAML: fix it, or use --no-card") from error
    if not isinstance(header or {}, dict):
        raise UsageError(f"{path}: its header is no mapping: fix it, or use --no-card")
    return header or {}, text[match.end() :] if match else text


def _header(facts: CardFacts, tally: Tally) -> dict[str, Any]:
    """Return the keys of the header that are ours."""
    split = {"name": "train", "num_bytes": tally.image_bytes, "num_examples": tally.images}
    return {
        "size_categories": [
            next((name for bound, name in _SIZES if tally.images < bound), "100M<n<1B"),
        ],
        "dataset_info": {
            "features": _features(facts.layout, tally),
            "splits": [split],
            "download_size": tally.image_bytes,
            "dataset_size": tally.image_bytes,
        },
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": _DATA_FILES[facts.layout]}],
            }
        ],
    }


def _features(layout: str, tally: Tally) -> list[dict[str, Any]]:
    """Return what `datasets` would otherwise guess from the first samples, and guess wrong where those have nulls."""
    columns: list[dict[str, Any]] = list(card_features())
    if layout != "webdataset":
        return [{"name": IMAGE, "dtype": "image"}, *columns]
    packages = [{"name": name, "dtype": "string"} for name in sorted(tally.versions)]
    labels = [{"name": name, "dtype": "string"} for name in sorted(tally.labels)]
    in_json: dict[str, dict[str, Any]] = {
        "versions": {"name": "versions", "struct": packages},
        **({"labels": {"name": "labels", "struct": labels}} if labels else {}),
        "finished_at": {"name": "finished_at", "dtype": "string"},
    }
    return [
        *({"name": extension, "dtype": "image"} for extension in sorted(tally.extensions)),
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": [in_json.get(column["name"], column) for column in columns]},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _sections(facts: CardFacts, tally: Tally) -> list[str]:
    return [
        f"{tally.images:,} images of the sweep {_code(facts.name)}, rendered by Printroom.",
        _counts(facts, tally),
        f"## Load it\n\n```python\nfrom datasets import load_dataset\n\ndataset = {_LOADING[facts.layout]}\n```",
        _recipe(facts),
        _made_with(tally),
        _columns(facts.layout),
    ]


def _counts(facts: CardFacts, tally: Tally) -> str:
    lines = ["| | |", "|---|---|", f"| sweep | `{facts.sweep}` |"]
    if facts.jobs is not None:
        lines.append(f"| jobs of the sweep | {facts.jobs:,} |")
    if facts.where:
        lines.append(f"| only jobs with | {', '.join(_code(text) for text in facts.where)} |")
    lines.append(f"| images | {tally.images:,}, {tally.image_bytes:,} bytes |")
    lines += [f"| failed: `{code}` | {count:,} |" for code, count in sorted(tally.failures.items())]
    if tally.broken:
        lines.append(f"| lost or damaged in the store | {len(tally.broken):,} |")
    return "\n".join(lines)


def _recipe(facts: CardFacts) -> str:
    if not facts.source or len(facts.source) > _SOURCE_CHARACTERS_MAX:
        return "## Recipe\n\nThe sweep's file is `sweep.yaml`, beside this card."
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", facts.source)), default=0))
    return f"## Recipe\n\n{fence}yaml\n{facts.source.rstrip()}\n{fence}"


def _made_with(tally: Tally) -> str:
    models = [f"{_code(name)} (`{fingerprint}`)" for name, fingerprint in sorted(tally.models)]
    sizes = [f"{width} x {height}" for width, height in sorted(tally.sizes)]
    lines = [f"- models: {_listed(models)}", f"- sizes, pixels: {_listed(sizes)}"]
    lines += [f"- {_line(package)}: {_listed(sorted(found))}" for package, found in _sorted(tally.versions)]
    return "\n".join(["## Made with", "", *lines])


def _columns(layout: str) -> str:
    where = {"webdataset": " of each sample's JSON, and of the table beside each shard"}.get(layout, "")
    lines = [f"## Columns{where}", "", "| column | meaning |", "|---|---|"]
    for field in MANIFEST_SCHEMA:
        lines.append(f"| `{field.name}` | {field.metadata[b'description'].decode()} |")
    return "\n".join(lines)


def _sorted(found: Mapping[str, set[str]]) -> list[tuple[str, set[str]]]:
    return sorted(found.items())


def _listed(texts: list[str]) -> str:
    shown = ", ".join(texts[:_LISTED_MAX]) or "none"
    return shown if len(texts) <= _LISTED_MAX else f"{shown} and {len(texts) - _LISTED_MAX:,} more"


def _code(text: str) -> str:
    """Return a text as code in a table: on one line, with nothing that ends it."""
    return f"`{_line(text).replace('`', chr(39)).replace('|', '¦')}`"


def _line(text: str) -> str:
    return " ".join(text.split())
