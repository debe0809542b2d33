"""Tiny random models for the tests of the sampler and the loader, made once a session."""

from __future__ import annotations

from functools import cache

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A function that returns the folder of a tiny random model: "sd1", "sd2" or "sdxl"."""
    import torch

    from testing.random_weights import create_random_model

    torch.set_num_threads(1)  # the models are so small that threads only wait for each other
    return cache(
        lambda family: create_random_model(tmp_path_factory.mktemp("models") / family, family=family)
    )


@pytest.fixture(scope="session")
def load_tiny(model_folder):
    """A function that loads a tiny random model afresh; keywords go to `load_model`."""
    import torch

    from worker.models.loader import ModelSource, load_model

    def load(family, device="cpu", **options):
        location = str(model_folder(family))
        source = ModelSource(name=f"tiny-{family}", fingerprint=family, kind="folder", location=location)
        return load_model(source, device=torch.device(device), **options)

    return load


@pytest.fixture(scope="session")
def tiny_model(load_tiny):
    """A function that returns a tiny random model on the CPU in float32, shared: do not change it."""
    return cache(load_tiny)


@pytest.fixture
def copy_tiny(tiny_model):
    """A function that returns a copy of a shared tiny model, with an empty cache, for a test to break."""
    from copy import deepcopy
    from dataclasses import replace

    from worker.sampling.cache import LruCache

    def copy(family):
        model = tiny_model(family)
        copies = {name: deepcopy(getattr(model.networks, name)) for name in ("unet", "vae", "text_encoders")}
        return replace(model, networks=replace(model.networks, **copies, embeddings=LruCache(100)))

    return copy


@pytest.fixture
def make_request():
    """A function that returns a SampleRequest; keywords replace its fields."""
    from worker.sampling.request import SampleRequest

    def make(**fields):
        defaults = {
            "prompt": "portrait photo of a man",
            "negative_prompt": "mustache",
            "seed": 7,
            "guidance_scale": 5.0,
            "steps": 4,
            "scheduler": "ddim",
            "width": 64,
            "height": 64,
        }
        return SampleRequest(**{**defaults, **fields})

    return make
