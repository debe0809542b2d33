"""The sampler in float16 on a GPU, on tiny random models."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from worker.models.loader import ModelSource, load_model  # noqa: E402
from worker.models.random_weights import create_random_model  # noqa: E402
from worker.sampling.request import Sampled, SampleRequest  # noqa: E402
from worker.sampling.sampler import sample  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SCHEDULERS = ["ddim", "euler_a", "dpmpp_2m", "dpmpp_2m_sde_karras", "heun", "unipc", "pndm", "lcm", "kdpm2_a"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function that loads a tiny random model onto a device, in the device's own dtypes."""

    def load(family, device):
        folder = tmp_path_factory.getbasetemp() / f"gpu-{family}"
        if not folder.exists():
            create_random_model(folder, family=family)
        source = ModelSource(name=family, fingerprint=family, kind="folder", location=str(folder))
        return load_model(source, device=torch.device(device))

    return load


def requests(scheduler):
    """Return guided and unguided jobs, with a long and a null negative among them."""
    changes = [{}, {"guidance_scale": 1.0}, {"negative_prompt": None}, {"negative_prompt": "ugly, " * 60}]
    defaults = {"prompt": "portrait photo of a man", "negative_prompt": "mustache", "guidance_scale": 5.0}
    size = {"steps": 6, "scheduler": scheduler, "width": 64, "height": 64}
    return [
        SampleRequest(**{**defaults, **size, "seed": seed, **change}) for seed, change in enumerate(changes)
    ]


def pixels(model, jobs, batch_rows=8):
    """Return the images of jobs by index; every job must have one."""
    outcomes = list(sample(model, jobs, batch_rows=batch_rows))
    assert [outcome for outcome in outcomes if not isinstance(outcome, Sampled)] == []
    return {outcome.request_index: outcome.pixels.astype(int) for outcome in outcomes}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_half_precision_is_near_the_cpus_single(models, family, scheduler):
    """float16 on the GPU gives nearly the CPU's float32 images: same noise, same guidance, same texts."""
    jobs = requests(scheduler)
    ours, theirs = (pixels(models(family, device), jobs) for device in ("cuda", "cpu"))
    for index in range(len(jobs)):
        assert np.abs(ours[index] - theirs[index]).mean() < 8, (index, scheduler)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_same_call_gives_the_same_bytes(models, family):
    """Two calls with the same jobs and rows give identical images."""
    model, jobs = models(family, "cuda"), requests("euler_a")
    first, second = pixels(model, jobs), pixels(model, jobs)
    assert all((first[index] == second[index]).all() for index in first)


def test_dtypes_on_the_gpu(models):
    """UNet and text encoders are float16; SDXL's VAE is bfloat16, or float32 where there is none."""
    model = models("sdxl", "cuda")
    assert model.unet.dtype == model.text_encoders[0].dtype == torch.float16
    assert model.vae.dtype in (torch.bfloat16, torch.float32)


def test_the_loop_reads_nothing_from_the_device(models):
    """With a sampler that draws no noise the loop never waits for the GPU between its steps."""
    from worker.sampling.batch import make_batches
    from worker.sampling.loop import sample_latents
    from worker.sampling.prepare import prepare

    model = models("sd1", "cuda")
    for scheduler in ("ddim", "euler", "dpmpp_2m", "heun", "pndm"):
        jobs = [prepare(model, index, request) for index, request in enumerate(requests(scheduler)[:3])]
        for batch in make_batches(jobs, 8):
            sample_latents(model, batch, lambda: None)  # caches are filled
            steps = []

            def watch(steps=steps):
                # From the first step on; moving the batch to the device before it may wait.
                if not steps:
                    torch.cuda.set_sync_debug_mode("error")
                steps.append(1)

            try:
                sample_latents(model, batch, watch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert len(steps) >= 6
