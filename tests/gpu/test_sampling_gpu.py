"""The sampler in float16 on a GPU, on tiny random models."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from testing.random_weights import create_random_model  # noqa: E402
from worker.models.loader import ModelSource, load_model  # noqa: E402
from worker.sampling.request import Sampled, SampleRequest  # noqa: E402
from worker.sampling.rows.loop import sample  # noqa: E402

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
    assert model.networks.unet.dtype == model.networks.text_encoders[0].dtype == torch.float16
    assert model.networks.vae.dtype in (torch.bfloat16, torch.float32)


def test_the_loop_reads_nothing_from_the_device(models):
    """Samplers, guidance and noises of all kinds in one batch: no step waits for the GPU."""
    from worker.sampling.rows.batch import RowBatch
    from worker.sampling.rows.prepare import encode_texts, prepare

    model = models("sd1", "cuda")
    mixed = [request for scheduler in SCHEDULERS for request in requests(scheduler)[:2]]
    jobs = [prepare(model, request) for request in mixed]
    for attempt in range(2):  # the first fills caches
        batch = RowBatch(model, shape=jobs[0].shape, rows=32)
        for index, job in enumerate(jobs):
            batch.admit(index, job, encode_texts(model, job))
        while len(batch):
            if attempt:
                torch.cuda.set_sync_debug_mode("error")
            try:
                batch.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_image_does_not_depend_on_its_company(models, family):
    """The determinism contract in float16: alone or shuffled among others, a job is the same bytes at one R."""
    model = models(family, "cuda")
    jobs = [request for scheduler in SCHEDULERS for request in requests(scheduler)[:3]]
    alone = [pixels(model, [job], batch_rows=8)[0] for job in jobs]
    for trial in range(20):
        order = np.random.default_rng(trial).permutation(len(jobs))
        mixed = pixels(model, [jobs[index] for index in order], batch_rows=8)
        for position, index in enumerate(order):
            assert (mixed[position] == alone[index]).all(), (trial, index)


def test_rows_that_fit_are_measured(models):
    """Bytes a row are measured on the device, and many tiny rows fit."""
    from worker.sampling.rows.capacity import LADDER, fitting_rows

    assert fitting_rows(models("sd1", "cuda"), (64, 64, 1)) == LADDER[-1]
