"""Keeps the one model that is loaded now, and remembers the ones that did not load. Used by one thread at a time."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from shared.errors import ModelLoadFailed, ModelUnknown
from shared.model_facts import read_facts
from shared.model_reading import split_reading
from shared.settings import Settings
from worker.device import Device
from worker.models.compilation import compile_denoiser
from worker.models.loader import ModelSource, load_model
from worker.sampling.model import LoadedModel
from worker.sampling.pipelines.model import LoadedPipeline

log = logging.getLogger(__name__)

#: Characters of a reason why a model does not load.
_REASON_MAX = 400


class LoadedModels:
    """Loads models by fingerprint and keeps the last one; a GPU rarely has room for two."""

    def __init__(
        self, inventory: Mapping[str, Sequence[ModelSource]], device: Device, settings: Settings
    ) -> None:
        self._inventory, self._device, self._settings = inventory, device, settings
        self._loaded: LoadedModel | LoadedPipeline | None = None
        #: Fingerprint -> what the files of a model say, of those that are on this machine.
        self.facts = {
            fingerprint: said for fingerprint, (source, *_) in inventory.items() if (said := _facts(source))
        }
        #: Models that did not load here, with the reason in one line. They are not offered again.
        self.broken: dict[str, str] = {}

    @property
    def usable(self) -> dict[str, list[str]]:
        """Fingerprint -> names of every model this worker offers."""
        return {
            fingerprint: sorted({source.name for source in sources})
            for fingerprint, sources in self._inventory.items()
            if fingerprint not in self.broken
        }

    @property
    def loaded(self) -> str:
        """The fingerprint of the model that is loaded now; empty where there is none."""
        model = self._loaded
        return model.fingerprint if model is not None else ""

    def holds(self, fingerprint: str) -> bool:
        """Whether this worker offers a model, however a sweep wants it read."""
        return split_reading(fingerprint)[0] in self.usable

    def load(self, fingerprint: str) -> LoadedModel | LoadedPipeline:
        """Return a model on the device, loading it if another one is there.

        Raises: ModelUnknown, ModelLoadFailed, ModelUnsupported.
        """
        if self._loaded is not None and self._loaded.fingerprint == fingerprint:
            return self._loaded
        base, reading = split_reading(fingerprint)
        if base in self.broken:
            raise ModelLoadFailed(self.broken[base])
        if base not in self._inventory:
            raise ModelUnknown(f"{fingerprint}: this worker does not hold it")
        self._unload()
        source, started = self._inventory[base][0], time.monotonic()
        source = replace(source, fingerprint=fingerprint, reading=reading)
        try:
            model = load_model(
                source,
                device=self._device.torch_device,
                dtype=self._device.dtype,
                offload=self._settings.offload,
            )
        except ModelLoadFailed as error:
            self.broken[base] = _one_line(str(error))
            raise ModelLoadFailed(self.broken[base]) from error
        if isinstance(model, LoadedModel):
            compile_denoiser(model, self._settings.compile, cache_dir=self._settings.cache_dir)
        self._loaded = model
        seconds = round(time.monotonic() - started, 2)
        log.info("model_loaded", extra={"model": source.name, "fingerprint": fingerprint, "seconds": seconds})
        return model

    def _unload(self) -> None:
        if self._loaded is None:
            return
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _facts(source: ModelSource) -> dict[str, Any]:
    """Return what a model's files say, for the heartbeat; nothing of a hub model that is not in the cache yet."""
    place = _cached_folder(source) if source.kind == "hub" else Path(source.location)
    facts = None if place is None else read_facts(place)
    return {} if facts is None else facts.to_json()


def _cached_folder(source: ModelSource) -> Path | None:
    found = try_to_load_from_cache(source.location, "model_index.json", revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


def _one_line(text: str) -> str:
    """Return a library's reason as one line that a person can read; its own may be a page."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_MAX else f"{line[:_REASON_MAX]} ..."
