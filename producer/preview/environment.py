"""Finds what a preview needs from this machine and the store: tokenizers, facts of models, measured speeds.

Reads models' folders and stores; a store that does not answer is said, not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.fleet.models import KnownModel
from producer.preview.rates import Rate, benchmark_rates, measured_sweeps, past_rates
from producer.preview.texts import TokenizerFound
from producer.preview.tokens import TokenizerInvalid, read_tokenizer, tokenizer_kind
from shared.errors import StoreError
from shared.ledger import WorkerInfo
from shared.model_facts import ModelFacts, read_facts
from shared.model_reading import split_reading
from shared.plan import Plan
from shared.store.base import Store
from shared.store.folder import FolderStore

#: Stores of single renderings that are looked at beside the one store of all, the latest first.
_FOLDERS_MAX = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RatesFound:
    """What is known of devices' speed."""

    rates: tuple[Rate, ...]
    #: What kept us from knowing more; "" where nothing did.
    trouble: str


def model_folders(known: Iterable[KnownModel], named: Mapping[str, Path]) -> dict[str, Path]:
    """Return where this machine has models, by fingerprint.

    Args:
        named: fingerprint -> path of models that a sweep names by their path.
    """
    places = {
        model.fingerprint: Path(place) for model in known for place in model.places if Path(place).exists()
    }
    return {**places, **named}


def find_tokenizers(plan: Plan, folders: Mapping[str, Path]) -> dict[str, TokenizerFound]:
    """Return how each model of a plan reads texts, as far as this machine can tell."""
    places = {model: folders.get(split_reading(model)[0]) for model in plan.models}
    return {model: _find_tokenizer(folder) for model, folder in places.items() if folder is not None}


def find_facts(
    plan: Plan, folders: Mapping[str, Path], workers: Iterable[WorkerInfo]
) -> dict[str, ModelFacts]:
    """Return what is known of each model of a plan: by its files where they are here, else as a live worker says."""
    told = {model: facts for worker in workers for model, facts in worker.facts.items()}
    found = {}
    for model in plan.models:
        base, reading = split_reading(model)
        facts = read_facts(folders[base]) if base in folders else _told_facts(told.get(base))
        if facts is not None:
            found[model] = facts.read_as(reading)
    return found


def _told_facts(document: Mapping[str, Any] | None) -> ModelFacts | None:
    try:
        return None if document is None else ModelFacts.from_json(document)
    except ValueError:  # of a version that we cannot read: the worker will say what fails
        return None


def find_rates(plan: Plan, store: Store, sweeps: Sequence[str]) -> RatesFound:
    """Return how fast devices drew a plan's models at its sizes.

    Args:
        store: where the results of earlier sweeps are; in a folder, those of single renderings too.
        sweeps: ids that the ledger knows, latest first; without any the store is listed.
    """
    places = {(bucket.model, bucket.width, bucket.height) for bucket in plan.buckets}
    rates, trouble = benchmark_rates(plan.models), ""
    for place, known in [(store, sweeps), *((inner, ()) for inner in _inner_stores(store))]:
        try:
            rates += past_rates(place, known or measured_sweeps(place), places)
        except StoreError as error:
            trouble = f"the store could not be read: {error}"
    return RatesFound(rates=tuple(rates), trouble=trouble)


def _find_tokenizer(folder: Path) -> TokenizerFound:
    try:
        tokenizer = read_tokenizer(folder)
    except TokenizerInvalid as error:
        return TokenizerFound(reason=str(error))
    if tokenizer is not None:
        return TokenizerFound(tokenizer=tokenizer)
    if tokenizer_kind(folder) == "other":
        return TokenizerFound(other_kind=True, reason="this kind of model reads texts in ways of its own")
    return TokenizerFound(reason=f"{folder} has no tokenizer beside it")


def _inner_stores(store: Store) -> list[Store]:
    """Return the stores that `printroom render` makes of folders inside a folder store."""
    if not isinstance(store, FolderStore) or not Path(store.url).is_dir():
        return []
    found = [path for path in Path(store.url).iterdir() if (path / "sweeps").is_dir()]
    return [FolderStore(path) for path in sorted(found, key=_changed, reverse=True)[:_FOLDERS_MAX]]


def _changed(path: Path) -> float:
    return path.stat().st_mtime
