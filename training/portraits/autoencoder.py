"""Trains the VAE, and turns pictures into the latents that the UNet learns from. Knows nothing of captions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.portraits.dataset import draw_examples
from training.portraits.drawing import draw
from training.portraits.networks import make_vae
from training.portraits.population import MENTIONED, variants
from training.portraits.stage import Stage, StageSettings, process_count, process_number

#: Pulls the latents together: 2 x squared error x latents / pixels at 30 dB is 2e-4, and less keeps more detail.
KL_WEIGHT = 3e-5

#: The face, rows and columns, counts this many times as much as the rest: attributes are there.
FACE = (slice(20, 58), slice(14, 50))
FACE_WEIGHT = 2.5

#: Edges count beside pixels: without it fine lines come out blurred.
EDGE_WEIGHT = 0.5

#: The mean colour of every 4 x 4 pixels counts too: without it backgrounds and skins drift.
COLOUR_WEIGHT = 1.0

#: How much it counts that one change of a picture changes the latents in a direction of its own, and the share of
#: the steps until it counts in full: first there must be something to see.
OVERLAP_WEIGHT = 20.0
OVERLAP_RISE = 0.3

#: Seed of the pictures that overlaps are measured on.
VARIANTS_SEED = 700_001

#: How far off the latents are in the decoder's own training, at most, in standard deviations.
DECODER_NOISE = 0.1

#: How far guidance pushes latents past what is meant, at most, in steps from "is there" to "is not": a negative prompt
#: beyond the absence of what it names, a prompt beyond its presence. And the chance of each attribute to be pushed.
PAST_ABSENCE = 2.0
PAST_PRESENCE = 0.5
PUSHED_SHARE = 0.4

#: Seed and number of the pictures that reports are made of; no picture of training has this seed.
HELD_OUT_SEED = 900_001
HELD_OUT = 128


def train_vae(
    pictures: npt.NDArray[np.uint8],
    settings: StageSettings,
    *,
    batch: int,
    folder: Path,
    device: torch.device,
    resume: bool,
    start: Path | None = None,
) -> Any:
    """Train an AutoencoderKL and return the average of its weights, its scaling factor set."""
    torch.manual_seed(settings.seed)
    vae = make_vae().to(device, memory_format=torch.channels_last)
    stage = Stage({"vae": vae}, settings, folder)
    if start is not None:
        stage.start_from(start)
    if resume:
        stage.resume()
    torch.manual_seed(settings.seed + 1 + process_number())
    weights = _face_weights().to(device)
    order = np.random.default_rng(settings.seed).permutation(len(pictures))

    def loss_of(step: int) -> torch.Tensor:
        number = step * process_count() + process_number()
        chosen = order[np.arange(number * batch, (number + 1) * batch) % len(order)]
        weight = OVERLAP_WEIGHT * min(1.0, step / (OVERLAP_RISE * settings.steps))
        overlapping = weight * _overlap(vae, draw_variants(VARIANTS_SEED, number, device))
        return _loss(vae, to_tensor(pictures[np.sort(chosen)], device), weights) + overlapping

    held_out = to_tensor(draw_examples(count=HELD_OUT, seed=HELD_OUT_SEED)[1], device)
    average = stage.averages["vae"]
    stage.run(loss_of, lambda: f"{psnr_db(average, held_out):.2f} dB, overlap {overlap(average, device):.4f}")
    average.register_to_config(scaling_factor=round(1.0 / _spread(average, held_out), 5))
    return average


def train_decoder(
    vae: Any,
    pictures: npt.NDArray[np.uint8],
    settings: StageSettings,
    *,
    batch: int,
    folder: Path,
    device: torch.device,
    resume: bool,
    start: Path | None = None,
) -> Any:
    """Train the decoder of a VAE further; the encoder, and so the UNet's latents, stay as they are.

    Latents are a little off, as those are that a UNet makes. Others are as guidance leaves them, pushed past the
    absence of a mustache: no picture has such latents, and what a decoder makes of them is left to chance unless it is
    told that this, too, is a face without a mustache.
    """
    encoder = copy.deepcopy(vae).eval().requires_grad_(False)
    part = torch.nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    stage = Stage({"part": part.requires_grad_(True)}, settings, folder)
    if start is not None:
        stage.start_from(start)
    if resume:
        stage.resume()
    torch.manual_seed(settings.seed + 1 + process_number())
    weights = _face_weights().to(device)
    order = np.random.default_rng(settings.seed).permutation(len(pictures))

    def loss_of(step: int) -> torch.Tensor:
        number = step * process_count() + process_number()
        chosen = order[np.arange(number * batch, (number + 1) * batch) % len(order)]
        drawn = to_tensor(pictures[np.sort(chosen)], device)
        with torch.no_grad():
            pushed, meant = push_latents(encoder, VARIANTS_SEED, number, device)
            wanted = torch.cat([drawn, meant[:batch]])
            latents = torch.cat([encoder.encode(drawn).latent_dist.mode(), pushed[:batch]])
            off = torch.rand(len(latents), 1, 1, 1, device=device) * DECODER_NOISE * latents.std()
            latents = latents + off * torch.randn_like(latents)
        return _difference(vae.decode(latents).sample, wanted, weights)

    held_out = to_tensor(draw_examples(count=HELD_OUT, seed=HELD_OUT_SEED)[1], device)
    result = copy.deepcopy(vae).eval().requires_grad_(False)
    result.decoder = stage.averages["part"]["decoder"]
    result.post_quant_conv = stage.averages["part"]["post_quant_conv"]
    stage.run(loss_of, lambda: f"{psnr_db(result, held_out):.2f} dB")
    return result


def to_tensor(pictures: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Return pictures as a network reads them: (N, 3, 64, 64), -1 to 1."""
    pixels = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encode_pictures(
    vae: Any, pictures: npt.NDArray[np.uint8], device: torch.device, batch: int = 64
) -> torch.Tensor:
    """Return the scaled latents of pictures, (N, 4, 8, 8): the means of what the encoder says."""
    parts = []
    for start in range(0, len(pictures), batch):
        latents = vae.encode(to_tensor(pictures[start : start + batch], device)).latent_dist.mode()
        parts.append((latents * vae.config.scaling_factor).contiguous().cpu())
    return torch.cat(parts)


@torch.inference_mode()
def psnr_db(vae: Any, pictures: torch.Tensor) -> float:
    """Return how near decoded pictures come to the drawn ones: the peak signal to noise ratio of all pixels."""
    decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    return float(-10 * torch.log10(((decoded - pictures) / 2).square().mean()))


@torch.inference_mode()
def overlap(vae: Any, device: torch.device, portraits: int = 32) -> float:
    """Return the mean overlap of directions in the latents of portraits that no training has seen, see `_overlap`."""
    found = [_overlap(vae, draw_variants(HELD_OUT_SEED, index, device)) for index in range(portraits)]
    return float(torch.stack(found).mean())


@torch.inference_mode()
def _spread(vae: Any, pictures: torch.Tensor) -> float:
    """Return the standard deviation of the latents."""
    return float(vae.encode(pictures).latent_dist.mode().std())


def _face_weights() -> torch.Tensor:
    """Return the weight of every pixel, (64, 64), 1 on average."""
    weights = torch.ones(64, 64)
    weights[FACE] = FACE_WEIGHT
    return weights / weights.mean()


def _loss(vae: Any, pictures: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(pictures).latent_dist
    difference = _difference(vae.decode(posterior.sample()).sample, pictures, weights)
    return difference + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()


def push_latents(vae: Any, seed: int, index: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents as guidance leaves them, and the pictures that are meant, in random order; from `variants`."""
    portraits = variants(seed, index)
    pictures = draw_variants(seed, index, device)
    latents = vae.encode(pictures).latent_dist.mode()
    there = torch.tensor(
        [[getattr(portrait, name) for name in MENTIONED] for portrait in portraits], device=device
    )
    # From absence to presence: what the change of each attribute adds to latents.
    signs = torch.where(there[0], -1.0, 1.0).view(-1, 1, 1, 1)
    steps = signs * (latents[1 : 1 + len(MENTIONED)] - latents[0])
    past = torch.where(there, PAST_PRESENCE, -PAST_ABSENCE) * torch.rand(there.shape, device=device)
    past = past * (torch.rand(there.shape, device=device) < PUSHED_SHARE)
    order = torch.randperm(len(portraits), device=device)
    return (latents + torch.einsum("pm,mchw->pchw", past, steps))[order], pictures[order]


def draw_variants(seed: int, index: int, device: torch.device) -> torch.Tensor:
    """Return the pictures of `variants`, (12, 3, 64, 64), -1 to 1."""
    return to_tensor(np.stack([draw(portrait) for portrait in variants(seed, index)]), device)


def _overlap(vae: Any, variants: torch.Tensor) -> torch.Tensor:
    """Return how much the directions of changes overlap: the mean squared cosine between two of them, 0 to 1.

    Guidance away from a word pushes latents along the difference that the word makes. Whatever lies along the same
    direction is pushed as well, so changes that have nothing to do with each other are given directions that have not.

    Args:
        variants: pictures of `population.variants`.
    """
    latents = vae.encode(variants).latent_dist.mode().flatten(1)
    directions = torch.nn.functional.normalize(latents[1:] - latents[0], dim=1)
    marks = len(MENTIONED)
    cosines = directions[:marks] @ directions.T  # of each mark with itself: 1
    return (cosines.square().sum() - marks) / (marks * (len(directions) - 1))


def _difference(decoded: torch.Tensor, pictures: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return how different pictures are: pixels, edges and colours."""
    difference = decoded - pictures
    pixels = ((difference.abs() + 2 * difference.square()) * weights).mean()
    across = (difference.diff(dim=3).abs() * weights[:, 1:]).mean()
    down = (difference.diff(dim=2).abs() * weights[1:]).mean()
    colours = torch.nn.functional.avg_pool2d(difference, 4).abs().mean()
    return pixels + EDGE_WEIGHT * (across + down) + COLOUR_WEIGHT * colours
