"""Families beyond Stable Diffusion in bfloat16 on a GPU, on tiny random models."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from testing.random_pipelines import create_random_pipeline  # noqa: E402
from worker.models.loader import ModelSource, load_model  # noqa: E402
from worker.sampling.pipelines.sampler import sample_with_pipeline  # noqa: E402
from worker.sampling.request import Sampled, SampleRequest  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FAMILIES = {
    "sd3": "flow_euler",
    "flux": "flow_euler",
    "chroma": "flow_euler",
    "pixart_sigma": "euler_a",
    "sana": "flow_dpmpp_2m",
    "auraflow": "flow_euler",
    "lumina2": "flow_euler",
    "qwen_image": "flow_euler",
    "z_image": "flow_euler",
    "hunyuan_dit": "ddpm",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A function that loads a tiny random model; keywords go to `load_model`."""

    def load_family(family, device="cuda", **options):
        folder = tmp_path_factory.getbasetemp() / f"gpu-{family}"
        if not folder.exists():
            create_random_pipeline(folder, family=family)
        source = ModelSource(name=family, fingerprint=family, kind="folder", location=str(folder))
        return load_model(source, device=torch.device(device), **options)

    return load_family


def pixels(model, family):
    """Return the images of two guided jobs and an unguided one; every job must have one."""
    defaults = {"prompt": "portrait photo of a man", "negative_prompt": "mustache", "steps": 4}
    size = {"scheduler": FAMILIES[family], "width": 64, "height": 64}
    jobs = [
        SampleRequest(**defaults, **size, seed=seed, guidance_scale=scale)
        for seed, scale in enumerate([4.0, 4.0, 1.0])
    ]
    outcomes = sorted(sample_with_pipeline(model, jobs, batch_rows=8), key=lambda found: found.request_index)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Sampled)] == []
    return np.stack([outcome.pixels for outcome in outcomes]).astype(float)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_is_the_cpus(load, family):
    """In float32 a GPU renders what a CPU renders: noise comes from the CPU's generators on both."""
    ours = pixels(load(family, dtype=torch.float32), family)
    assert np.abs(ours - pixels(load(family, "cpu"), family)).mean() < 2


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_a_picture(load, family):
    """float16 asked for is bfloat16 given; the images are finite and not one grey."""
    model = load(family, dtype=torch.float16)
    assert model.dtype == torch.bfloat16
    assert (pixels(model, family).std(axis=(1, 2, 3)) > 10).all()


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_networks_render_the_same(load, offload):
    """Networks that wait on the CPU render the same images, and are back there afterwards."""
    model = load("sd3", dtype=torch.float32, offload=offload)
    assert np.abs(pixels(model, "sd3") - pixels(load("sd3", dtype=torch.float32), "sd3")).max() <= 1
    assert model.pipeline.text_encoder.device.type in ("cpu", "meta")
