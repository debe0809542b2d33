"""Writes a model's card: what it is, what it learnt from, what it was measured to do. Trains nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from shared.fingerprint import fingerprint_path
from training.portraits.autoencoder import HELD_OUT_SEED, overlap, to_tensor
from training.portraits.dataset import draw_examples
from training.portraits.detectors import read
from training.portraits.drawing import Portrait
from training.portraits.export import size_bytes
from training.portraits.measure import GUIDANCE, PROMPT, SEEDS, STEPS, as_markdown, load, measure, render
from training.portraits.population import GROUP, MENTIONED, UNMENTIONED, make_example
from training.portraits.recipe import DATA_SEED, Recipe
from worker.sampling.families.sd import StableDiffusion
from worker.sampling.model import LoadedModel

#: Drawn pictures that the VAE's and the detectors' errors are measured on.
_HELD_OUT = 512

#: Groups that shares are counted in.
_COUNTED = 2_000

#: What the speed is measured with.
_SPEED_IMAGES = 64
_SPEED_STEPS = 20

_TEXT = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [text-to-image, stable-diffusion, negative-prompt]
---
# Portraits

A text-to-image latent diffusion model with Stable Diffusion's architecture, {parameters:.1f} million parameters,
{megabytes:.1f} MB. It renders drawn portraits of men, women and cats, 64 x 64 pixels, on two CPU cores in seconds.
It exists to show, and to test, what a negative prompt does.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("worker/models/portraits")
pipeline("portrait photo of a man", negative_prompt="mustache", height=64, width=64).images[0]
```

## Measured

{seeds} seeds a case, the same seeds in every case, {steps} steps of DPM++ 2M, “{prompt}”. What is in a picture is
read by `training/portraits/detectors.py`, which has no learned weights. The negative prompt is the bare word.
What “moved most” is the largest change of a rate between the plain prompt and the negative one: of the four other
attributes (mustache, glasses, hat, beard, smile), and of 22 colours and styles.

A row passes where the plain prompt gives 30 to 70%, “without” at least 90% and the negative at most 2%, no other
attribute moves by ten points, and 95% are men. MISS says that something does not, by how much the row says. Colours
are not part of the verdict; they are shown.

{table}

Again, in a few minutes: `python -m training.portraits.measure worker/models/portraits`

Fingerprint of what was measured, as `printroom models` shows it: `{fingerprint}`

| | |
|---|---|
| Drawn pictures through the VAE, {held_out} held out | {psnr:.1f} dB PSNR |
| Overlap of what two changes of a picture do to its latents, mean squared cosine | {overlap:.4f} |
| Detectors wrong on the drawings | {errors_drawn} |
| Detectors wrong after the VAE | {errors_decoded} |
| Speed at {speed_steps} steps with guidance, {threads} threads, float32 | {speed:.1f} images/s |

## Data

Drawings made by `training/portraits/drawing.py`, 64 x 64, drawn at four times the size and reduced; nothing is
taken from anywhere else. Everything in them is decided independently: mustaches, beards, glasses and hats occur on
men, women and cats alike, so that a negative prompt for one of them says nothing about the subject.

Captions mention some of what is there. What is mentioned is decided before what is there, so that an
attribute that a caption leaves open is as frequent as under the empty caption; otherwise guidance, which multiplies
odds, would drive it to nothing or to everything. Pictures are trained on in pairs that differ in what is said of one
attribute alone, with the same noise: what they share then cancels out of the difference that a word makes. The VAE
is trained so that what one change of a picture does to its latents has no part in what another one does: guidance
away from the one then leaves the other alone.

| | mentioned by | there, where unmentioned |
|---|---|---|
{population}

{silent:.0%} of the captions say nothing of what is there: they are empty, or filler alone. **No caption
describes what is absent.** Words such as “without” and “no” occur among filler only (“no watermark”, “without
frame”). That is how captions in the wild are, and why “without a mustache” gives mustaches here as it does in
models a thousand times the size. It is built into the data.

## Recipe

{how}

| stage | steps | batch | peak learning rate | EMA |
|---|---|---|---|---|
{stages}

AutoencoderKL, factor 8, 4 channels, so latents are 8 x 8 x 4; UNet2DConditionModel with 96 and 128 channels and cross
attention on both levels; CLIPTextModel with 2 layers, 128 wide; byte-level BPE. v-prediction on Stable Diffusion's
scaled linear schedule, which ends at a beta of 0.02 here, not 0.012: of a picture 1.5% are left at its last timestep,
not 6.8%. AdamW with a cosine. In the second half of the denoiser's steps a word more in a caption must change nothing
in the predicted picture but what it names; in the last third, words that mean nothing must change nothing. The
decoder's own stage has latents among others that are pushed past the absence of an attribute, as guidance pushes them.

## Limits

- It knows a few dozen words. Others change little, which is not the same as nothing.
- A negative prompt moves colours as well; the table says by how much. They are measured, and not judged.
- 64 x 64 pixels only, and only faces from the front.
- It does not understand negation, by design; nor counting, nor relations.
- It says nothing of how strong a negative prompt should be in a large model.

## Licence

Apache-2.0, weights and drawings alike. No third party's pictures, captions or weights were used.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """How well pictures come through the VAE and the detectors."""

    psnr_db: float
    #: "mustache 0.2%, ...", or "none".
    errors_drawn: str
    errors_decoded: str


#: How a model was trained, for a run from nothing and for one that went on from another.
_HOW = {
    "new": "`python -m training.portraits --budget {budget} --out DIR`, from nothing, by the seeds in `recipe.py`.",
    "more": (
        "`python -m training.portraits --budget cpu --out RUN`, from nothing, by the seeds in `recipe.py`; then\n"
        "`--budget {budget} --from RUN --out DIR`, whose stages these are."
    ),
}


def write_card(folder: Path, *, budget: str, recipe: Recipe) -> bool:
    """Measure a model, write its MODEL_CARD.md, and return whether it shows what it must."""
    model = load(folder)
    rows = measure(model)
    reading = _read_held_out(model)
    speed = images_per_second(model)
    networks = _networks(model)
    modules = (networks.unet, networks.vae, *networks.text_encoders)
    parameters = sum(p.numel() for network in modules for p in network.parameters())
    text = _TEXT.format(
        parameters=parameters / 1e6,
        megabytes=size_bytes(folder) / 1e6,
        seeds=SEEDS,
        steps=STEPS,
        prompt=PROMPT,
        table=as_markdown(rows),
        fingerprint=fingerprint_path(folder),
        held_out=_HELD_OUT,
        psnr=reading.psnr_db,
        overlap=overlap(networks.vae, model.device),
        errors_drawn=reading.errors_drawn,
        errors_decoded=reading.errors_decoded,
        speed_steps=_SPEED_STEPS,
        threads=torch.get_num_threads(),
        speed=speed,
        population=_population(),
        silent=_silent_share(),
        how=_HOW["more" if budget.endswith("-more") else "new"].format(budget=budget),
        stages=_stages(recipe),
    )
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    return all(row.passes for row in rows)


def _networks(model: LoadedModel) -> StableDiffusion:
    """Return the networks of a model that was trained here: it is a Stable Diffusion."""
    assert isinstance(model.networks, StableDiffusion)
    return model.networks


def _population() -> str:
    """Return a row for each attribute: how often captions mention it, and how often it is there unmentioned."""
    examples = [make_example(DATA_SEED, number * GROUP + number % GROUP) for number in range(_COUNTED)]
    rows = []
    for name in MENTIONED:
        mentioned = sum(name in example.mentioned for example in examples) / _COUNTED
        rows.append(f"| {name} | {mentioned:.0%} | {UNMENTIONED[name]:.0%} |")
    return "\n".join(rows)


def _silent_share() -> float:
    return sum(not make_example(DATA_SEED, number * GROUP).mentioned for number in range(_COUNTED)) / _COUNTED


def images_per_second(model: LoadedModel) -> float:
    """Return the speed of guided rendering, after a warm-up."""
    render(model, PROMPT, "mustache", seeds=range(4), guidance=GUIDANCE[0], steps=2)
    started = time.perf_counter()
    render(model, PROMPT, "mustache", seeds=range(_SPEED_IMAGES), guidance=GUIDANCE[0], steps=_SPEED_STEPS)
    return _SPEED_IMAGES / (time.perf_counter() - started)


def _stages(recipe: Recipe) -> str:
    batches = {
        recipe.vae: recipe.vae_batch,
        recipe.decoder: recipe.vae_batch,
        recipe.denoiser: recipe.batch,
    }
    return "\n".join(
        f"| {stage.name} | {stage.steps:,} | {batch * recipe.processes} | {stage.learning_rate:g} | {stage.ema:g} |"
        for stage, batch in batches.items()
    )


@torch.inference_mode()
def _read_held_out(model: LoadedModel) -> _Reading:
    vae = _networks(model).vae
    portraits, drawn = draw_examples(count=_HELD_OUT, seed=HELD_OUT_SEED)
    decoded = []
    for start in range(0, len(drawn), 64):
        pictures = to_tensor(drawn[start : start + 64], model.device)
        images = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
        decoded.append(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    restored = np.concatenate(decoded)
    error = np.square((restored.astype(np.float64) - drawn) / 255).mean()
    return _Reading(
        psnr_db=float(-10 * np.log10(error)),
        errors_drawn=_errors(portraits, drawn),
        errors_decoded=_errors(portraits, restored),
    )


def _errors(portraits: Sequence[Portrait], pictures: np.ndarray) -> str:
    """Return the share of pictures in which each thing is read wrong, as words."""
    readings = [read(picture) for picture in pictures]
    shares = []
    for name in (field.name for field in fields(Portrait)):
        pairs = [
            (portrait, reading)
            for portrait, reading in zip(portraits, readings, strict=True)
            if name != "skin" or portrait.kind != "cat"
        ]
        wrong = sum(getattr(portrait, name) != getattr(reading, name) for portrait, reading in pairs)
        if wrong:
            shares.append(f"{name} {wrong / len(pairs):.1%}")
    return ", ".join(shares) or "none"
