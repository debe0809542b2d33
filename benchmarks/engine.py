"""The row engine beside diffusers: mixed jobs one by one, grouped by equal settings, and through one row batch.

    python benchmarks/engine.py [--model FOLDER] [--jobs 200] [--rows 16] [--json FILE]
    python benchmarks/engine.py --gpu sd15 --json FILE        # random weights of the public architecture, on a GPU

All ways render the very same jobs in one process, in one run: settings of samplers, steps, guidance, negatives and
seeds are drawn from one seed. Figures are images a second, UNet calls, the share of rows that worked, and memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from rich.console import Console
from rich.table import Table

from shared.images.png import encode_png
from shared.schedulers import SCHEDULERS
from worker.models.loader import ModelSource, load_model
from worker.sampling.events import Notice, RowCounts, ignore
from worker.sampling.model import LoadedModel
from worker.sampling.request import Sampled, SampleRequest
from worker.sampling.rows.loop import sample
from worker.sampling.rows.prepare import prepare
from worker.sampling.schedules.programs import compile_program

#: What a mixed sweep varies. Second-order and ancestral samplers among them, as in real sweeps.
SAMPLERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde_karras", "unipc", "heun")
STEPS = (10, 15, 20, 25, 30)
SCALES = (1.0, 3.0, 5.0, 7.5, 9.0)
PROMPTS = (
    "portrait photo of a man",
    "portrait of a woman with a hat",
    "a cat with glasses",
    "portrait of someone",
)
NEGATIVES = ("", "mustache", "glasses", "hat", "beard, glasses")

#: Jobs that a plain loop is timed on where all of them would take too long; its rate does not depend on how many.
PLAIN_JOBS = 60


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way to render, timed."""

    way: str
    images: int
    seconds: float
    unet_calls: int
    #: Share of the UNet's rows that worked for a job.
    occupancy: float
    peak_mb: float

    @property
    def images_per_second(self) -> float:
        """The rate."""
        return self.images / self.seconds


def mixed_jobs(count: int, size_px: int, *, seed: int = 0) -> list[SampleRequest]:
    """Return jobs that differ in everything but their size."""
    chance = random.Random(seed)
    return [
        SampleRequest(
            prompt=chance.choice(PROMPTS),
            negative_prompt=chance.choice(NEGATIVES),
            seed=number,
            guidance_scale=chance.choice(SCALES),
            steps=chance.choice(STEPS),
            scheduler=chance.choice(SAMPLERS),
            width=size_px,
            height=size_px,
        )
        for number in range(count)
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, help="a diffusers folder; an untrained model of portraits if left out"
    )
    parser.add_argument(
        "--gpu", choices=sorted(ARCHITECTURES), help="random weights of a public architecture"
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, metavar="PX")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile on the static batch")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    load_before = os.getloadavg()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or untrained(Path(scratch))
        size_px, device = options.size, torch.device("cpu")
        if options.gpu:
            architecture = ARCHITECTURES[options.gpu]
            folder, size_px = write_architecture(Path(scratch), options.gpu), architecture.size_px
            device = torch.device("cuda")
        figures = measure(folder, device, options, size_px)
    figures["machine"] = machine(device, load_before)
    show(figures)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def untrained(folder: Path) -> Path:
    """Write the model of portraits as it is before training, and return its folder.

    Its networks cost what trained ones cost, and are nearer to a real model's than the tiny random one.
    """
    from training.portraits.dataset import write_caption
    from training.portraits.export import export_model
    from training.portraits.networks import make_text_encoder, make_unet, make_vae
    from training.portraits.tokenizer import learn_vocabulary

    torch.manual_seed(0)
    vocabulary = learn_vocabulary(write_caption(index, seed=0, epoch=0) for index in range(1000))
    networks = {
        "vae": make_vae(),
        "unet": make_unet(),
        "text_encoder": make_text_encoder(len(vocabulary.ids)),
    }
    export_model(folder / "portraits-untrained", **networks, vocabulary=vocabulary)
    return folder / "portraits-untrained"


def measure(folder: Path, device: torch.device, options: argparse.Namespace, size_px: int) -> dict[str, Any]:
    """Return every figure, as JSON holds it."""
    source = ModelSource(name=folder.name, fingerprint="", kind="folder", location=str(folder))
    model = load_model(source, device=device)
    jobs = mixed_jobs(options.jobs, size_px)
    pipeline = plain_pipeline(folder, device, model)
    few = jobs[:PLAIN_JOBS]
    engine_few = time_engine(model, few, options.rows, way="row engine")  # warms up, too
    runs = [
        time_plain(pipeline, model, few),
        time_grouped(pipeline, model, few, options.rows),
        replace(time_engine(model, few, options.rows, way="row engine"), peak_mb=engine_few.peak_mb),
        time_engine(model, jobs, options.rows, way="row engine, all jobs"),
    ]
    figures: dict[str, Any] = {
        "model": folder.name,
        "size_px": size_px,
        "rows": options.rows,
        "runs": [{**asdict(run), "images_per_second": run.images_per_second} for run in runs],
        **heterogeneity(model, jobs, options.rows),
        **unguided(model, jobs, options.rows),
        **bare(model, options.rows, size_px, runs[-1]),
        **small_parts(model, folder),
    }
    if options.compile:
        model.networks.unet = torch.compile(model.networks.unet, fullgraph=True)
        time_engine(model, few[:8], options.rows, way="warm-up")
        compiled = time_engine(model, jobs, options.rows, way="row engine, compiled")
        figures["runs"].append({**asdict(compiled), "images_per_second": compiled.images_per_second})
    return figures


# The three ways


def plain_pipeline(folder: Path, device: torch.device, model: LoadedModel) -> Any:
    """Return diffusers' own pipeline over the same weights, as its documentation loads it."""
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(folder, torch_dtype=model.dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_pipeline(pipeline: Any, config: dict[str, Any], jobs: Sequence[SampleRequest]) -> int:
    """Render jobs of equal settings in one call; return the images."""
    first, spec = jobs[0], SCHEDULERS[jobs[0].scheduler]
    pipeline.scheduler = getattr(diffusers, spec.class_name).from_config(config, **spec.overrides)
    images = pipeline(
        prompt=[job.prompt for job in jobs],
        negative_prompt=[job.negative_prompt or "" for job in jobs],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance_scale,
        height=first.height,
        width=first.width,
        generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
        output_type="np",
    ).images
    return len(images)


def time_plain(pipeline: Any, model: LoadedModel, jobs: Sequence[SampleRequest]) -> Run:
    """One job a call."""
    config = dict(model.scheduler_config)
    call_pipeline(pipeline, config, jobs[:1])
    calls = CallCounter(pipeline.unet)
    seconds, peak = timed(model, lambda: [call_pipeline(pipeline, config, [job]) for job in jobs])
    return Run(
        way="diffusers, one job a call",
        images=len(jobs),
        seconds=seconds,
        unet_calls=calls.stop(),
        occupancy=1.0,
        peak_mb=peak,
    )


def time_grouped(pipeline: Any, model: LoadedModel, jobs: Sequence[SampleRequest], rows: int) -> Run:
    """Jobs of equal sampler, steps and scale in one call, as far as rows go: the usual way to batch."""
    config = dict(model.scheduler_config)
    groups: dict[Any, list[SampleRequest]] = defaultdict(list)
    for job in jobs:
        groups[(job.scheduler, job.steps, job.guidance_scale)].append(job)
    batches = [
        group[start : start + rows // group[0].rows]
        for group in groups.values()
        for start in range(0, len(group), rows // group[0].rows)
    ]
    calls = CallCounter(pipeline.unet)
    seconds, peak = timed(model, lambda: [call_pipeline(pipeline, config, batch) for batch in batches])
    used = sum(len(batch) * batch[0].rows for batch in batches)
    return Run(
        way="diffusers, grouped by settings",
        images=len(jobs),
        seconds=seconds,
        unet_calls=calls.stop(),
        occupancy=used / (len(batches) * rows),
        peak_mb=peak,
    )


def time_engine(model: LoadedModel, jobs: Sequence[SampleRequest], rows: int, *, way: str) -> Run:
    """All jobs through one row batch."""
    counts = RowCounts()
    seconds, peak = timed(model, lambda: render_all(model, jobs, rows, counts))
    return Run(
        way=way,
        images=len(jobs),
        seconds=seconds,
        unet_calls=counts.calls,
        occupancy=counts.used / counts.total,
        peak_mb=peak,
    )


def render_all(
    model: LoadedModel, jobs: Sequence[SampleRequest], rows: int, counts: Notice = ignore
) -> list[Sampled]:
    """Render jobs; every one must come out."""
    outcomes = list(sample(model, jobs, batch_rows=rows, notice=counts))
    failed = [outcome for outcome in outcomes if not isinstance(outcome, Sampled)]
    if failed or len(outcomes) != len(jobs):
        raise SystemExit(f"{len(failed)} of {len(jobs)} jobs failed: {failed[:1]}")
    return outcomes  # type: ignore[return-value]


# What varied settings cost


def heterogeneity(model: LoadedModel, jobs: Sequence[SampleRequest], rows: int) -> dict[str, Any]:
    """Rows a second of all-different jobs against all-identical ones, taken in turn so that drift hits both.

    The identical jobs need as many rows in all. What remains besides the UNet's speed is admission, programs and
    the batch's end.
    """
    guided = [replace(job, guidance_scale=max(job.guidance_scale, 2.0)) for job in jobs]
    steps = round(statistics.mean(evaluations(model, job) for job in guided))
    same = [replace(job, scheduler="dpmpp_2m", steps=steps, guidance_scale=5.0) for job in guided]
    rates: dict[str, list[float]] = {"different": [], "identical": []}
    for _ in range(3):
        for name, some in (("different", guided), ("identical", same)):
            counts = RowCounts()
            seconds, _ = timed(model, lambda some=some, counts=counts: render_all(model, some, rows, counts))
            rates[name].append(counts.used / seconds)
    different, identical = (statistics.median(rates[name]) for name in ("different", "identical"))
    return {"rows_per_second": rates, "heterogeneity_tax": 1 - different / identical}


def evaluations(model: LoadedModel, job: SampleRequest) -> int:
    """Return how many model calls a job makes."""
    return len(prepare(model, job).guidance)


def unguided(model: LoadedModel, jobs: Sequence[SampleRequest], rows: int) -> dict[str, Any]:
    """Images a second without guidance against with it, all else equal."""
    base = [replace(job, scheduler="dpmpp_2m", steps=20) for job in jobs[:PLAIN_JOBS]]
    rates = []
    for scale in (1.0, 5.0):
        some = [replace(job, guidance_scale=scale) for job in base]
        seconds, _ = timed(model, lambda some=some: render_all(model, some, rows))
        rates.append(len(some) / seconds)
    return {"unguided_over_guided": rates[0] / rates[1]}


def bare(model: LoadedModel, rows: int, size_px: int, run: Run) -> dict[str, Any]:
    """The engine's rate against the networks alone: its UNet calls and its VAE calls, nothing between them."""
    latent = size_px // model.networks.size_unit_px
    options: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    rows_in = torch.randn(rows, 4, latent, latent, **options)
    hidden = torch.randn(rows, 77, model.networks.unet.config.cross_attention_dim, **options)
    conditioning: dict[str, Any] = {"encoder_hidden_states": hidden}
    if model.family == "sdxl":
        pooled = torch.randn(rows, model.networks.text_encoders[-1].config.projection_dim, **options)
        conditioning["added_cond_kwargs"] = {
            "text_embeds": pooled,
            "time_ids": torch.zeros(rows, 6, **options),
        }
    timesteps = torch.full((rows,), 500.0, device=model.device)
    one = torch.randn(1, 4, latent, latent, device=model.device, dtype=model.networks.vae_dtype)

    @torch.inference_mode()
    def unet_calls(count: int) -> None:
        for _ in range(count):
            model.networks.unet(rows_in, timesteps, return_dict=False, **conditioning)

    @torch.inference_mode()
    def vae_calls(count: int) -> None:
        for _ in range(count):
            model.networks.vae.decode(one, return_dict=False)

    unet_calls(2), vae_calls(2)
    count = 20
    unet = timed(model, lambda: unet_calls(count))[0] / count
    vae = timed(model, lambda: vae_calls(count))[0] / count
    return {
        "unet_call_ms": unet * 1e3,
        "vae_call_ms": vae * 1e3,
        "share_of_bare_networks": (run.unet_calls * unet + run.images * vae) / run.seconds,
    }


def small_parts(model: LoadedModel, folder: Path) -> dict[str, Any]:
    """Programs, texts, PNG: what stands around the UNet."""
    times = []
    for name in SAMPLERS:
        compile_program.__globals__["_PROGRAMS"]._values.clear()
        started = time.perf_counter()
        compile_program(model.scheduler_config, name, 25)
        times.append((time.perf_counter() - started) * 1e3)
    job = mixed_jobs(1, 64)[0]
    model.networks.embeddings._values.clear()
    texts = []
    for _ in range(2):
        started = time.perf_counter()
        list(sample(model, [replace(job, steps=1)], batch_rows=2))
        texts.append((time.perf_counter() - started) * 1e3)
    pixels = render_all(model, [job], 2)[0].pixels
    started = time.perf_counter()
    for _ in range(50):
        encode_png(pixels, {})
    return {
        "program_compile_ms": {"median": statistics.median(times), "largest": max(times)},
        "one_step_ms_cold_and_warm_texts": texts,
        "png_ms": (time.perf_counter() - started) / 50 * 1e3,
    }


# Measuring


class CallCounter:
    """Counts the calls of a module until it is stopped."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._calls = 0
        self._hook = module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, arguments: Any) -> None:
        self._calls += 1

    def stop(self) -> int:
        """Return how many there were."""
        self._hook.remove()
        return self._calls


def timed(model: LoadedModel, action: Callable[[], Any]) -> tuple[float, float]:
    """Return an action's seconds and the most memory that was in use, MB: of the device, or of this process."""
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    action()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if cuda:
        return seconds, torch.cuda.max_memory_allocated() / 1e6
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def machine(device: torch.device, load_before: tuple[float, float, float]) -> dict[str, Any]:
    """Return what the figures were measured on."""
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    )
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": load_before[0],
        "load_after": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in ("torch", "diffusers")},
    }


def show(figures: dict[str, Any]) -> None:
    """Print the runs and the rest."""
    table = Table(title=f"{figures['model']}, {figures['size_px']} px, R = {figures['rows']}")
    for column in ("way", "images", "images/s", "UNet calls", "rows used", "peak MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for run in figures["runs"]:
        table.add_row(
            run["way"],
            str(run["images"]),
            f"{run['images_per_second']:.2f}",
            str(run["unet_calls"]),
            f"{run['occupancy']:.1%}",
            f"{run['peak_mb']:,.0f}",
        )
    console = Console()
    console.print(table)
    console.print_json(json.dumps({key: value for key, value in figures.items() if key != "runs"}))


# Architectures without their weights


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A public model's shape, by its published configs."""

    pipeline: str
    size_px: int
    unet: dict[str, Any]
    encoders: dict[str, dict[str, Any]]
    scaling_factor: float


_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}

ARCHITECTURES = {
    "sd15": Architecture(
        pipeline="StableDiffusionPipeline",
        size_px=512,
        unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        encoders={"text_encoder": _CLIP_L},
        scaling_factor=0.18215,
    ),
    "sdxl": Architecture(
        pipeline="StableDiffusionXLPipeline",
        size_px=1024,
        unet={
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
        },
        encoders={"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
        scaling_factor=0.13025,
    ),
}


def write_architecture(folder: Path, name: str) -> Path:
    """Write a folder of random weights in float16: the tiny random model's tokenizers, the architecture's networks."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from testing.random_weights import create_random_model

    architecture = ARCHITECTURES[name]
    model = create_random_model(folder / name, family="sdxl" if name == "sdxl" else "sd1")
    torch.manual_seed(0)
    with torch.device("cuda"):
        unet = diffusers.UNet2DConditionModel(**architecture.unet).half()
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=architecture.size_px,
            scaling_factor=architecture.scaling_factor,
            force_upcast=name == "sdxl",
        ).half()
        unet.save_pretrained(model / "unet")
        vae.save_pretrained(model / "vae")
        for part, config in architecture.encoders.items():
            tiny = json.loads((model / part / "config.json").read_text(encoding="utf-8"))
            kept = {key: tiny[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
            encoder_class = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
            encoder_class(CLIPTextConfig(**config, **kept)).half().save_pretrained(model / part)
    return model


if __name__ == "__main__":
    main()
