"""Trains the UNet and the text encoder together, on cached latents. Knows nothing of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.portraits.autoencoder import PAST_ABSENCE
from training.portraits.dataset import Contrast
from training.portraits.directions import CONTRASTED, Directions
from training.portraits.networks import TRAIN_TIMESTEPS, make_scheduler, make_text_encoder, make_unet
from training.portraits.population import GROUP, twin
from training.portraits.stage import Stage, StageSettings, process_count, process_number
from training.portraits.tokenizer import tokenize

#: The loss is reported for this many equal ranges of timesteps: the low ones are details, the high ones layout.
TIMESTEP_RANGES = 5

#: One step in so many has captions of 77 tokens, padded as a pipeline pads them, some of them full of junk. The
#: others end with their longest caption: among few tokens, attention learns much sooner which one matters.
FULL_EVERY = 4

#: Once words are learnt, a word must do nothing that is another's: guidance multiplies whatever it does. The share of
#: the steps before this counts, and before words that mean nothing must do nothing at all; how much it counts; and the
#: pictures of a step for each one that it is measured on.
CROSSTALK_AFTER = 0.5
JUNK_AFTER = 0.7
CROSSTALK_WEIGHT = 30.0
PICTURES_PER_CONTRAST = 4

#: How fast the reported losses forget.
_LOSS_MEMORY = 0.98


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """The two networks that are trained together: the averages of their weights."""

    unet: Any
    text_encoder: Any


def train_denoiser(
    latents: torch.Tensor,
    caption_of: Callable[[int, int, bool], str],
    contrast_of: Callable[[int, int, bool], Contrast],
    tokenizer: Any,
    directions: Directions,
    settings: StageSettings,
    *,
    batch: int,
    folder: Path,
    device: torch.device,
    resume: bool,
    start: Path | None = None,
) -> Denoiser:
    """Train a UNet to predict v from noisy latents and captions.

    Args:
        latents: scaled, (N, 4, 8, 8), of pictures 0 to N: whole pairs of groups.
        caption_of: the caption of a picture, given its index, the epoch and whether it may be full of junk.
        contrast_of: two captions of a picture, given its index, the epoch and whether to add junk to some.
        tokenizer: whose vocabulary the text encoder gets.
        directions: of the latents.
        settings: of the stage.
        batch: pictures a step and process, four or more, an even number: each comes with its twin.
        folder: for checkpoints.
        device: to train on.
        resume: from the checkpoint in the folder.
        start: folder of a finished run whose weights to begin with.
    """
    torch.manual_seed(settings.seed)
    unet = make_unet().to(device)
    text_encoder = make_text_encoder(len(tokenizer)).to(device)
    stage = Stage({"unet": unet, "text_encoder": text_encoder}, settings, folder)
    if start is not None:
        stage.start_from(start)
    if resume:
        stage.resume()
    feed = _Feed(latents, caption_of, contrast_of, tokenizer, batch=batch, seed=settings.seed)
    losses = _LossByTimestep()
    alphas = make_scheduler().alphas_cumprod.to(device)

    def loss_of(step: int) -> torch.Tensor:
        clean, ids = (part.to(device) for part in feed.batch(step))
        chance = feed.chance(step)
        loss = _loss(unet, text_encoder, clean, ids, alphas, chance, losses)
        if step >= CROSSTALK_AFTER * settings.steps:
            contrasts = feed.contrasts(step, junk=step >= JUNK_AFTER * settings.steps)
            loss = loss + CROSSTALK_WEIGHT * crosstalk(
                unet, text_encoder, contrasts, directions, alphas, chance
            )
        return loss

    stage.run(loss_of, lambda: str(losses))
    return Denoiser(unet=stage.averages["unet"], text_encoder=stage.averages["text_encoder"])


@dataclass(frozen=True, kw_only=True)
class Contrasts:
    """Pictures with two captions each, the second of which says one thing more, or nothing more."""

    #: Scaled latents, (B, 4, 8, 8).
    clean: torch.Tensor
    #: Of the first captions, then of the second ones, (2 B, up to 77).
    ids: torch.Tensor
    #: Its place among the `Directions`, and whether (1 or 0) it is in the picture, (B,).
    numbers: torch.Tensor
    there: torch.Tensor


class _Feed:
    """Deals out latents and token ids, every process its own; what a step gets depends on its number alone."""

    def __init__(
        self,
        latents: torch.Tensor,
        caption_of: Callable[[int, int, bool], str],
        contrast_of: Callable[[int, int, bool], Contrast],
        tokenizer: Any,
        *,
        batch: int,
        seed: int,
    ) -> None:
        self._latents = latents
        self._caption_of = caption_of
        self._contrast_of = contrast_of
        self._tokenizer = tokenizer
        self._batch = batch
        self._seed = seed

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents, (B, 4, 8, 8), and the token ids, (B, up to 77), of a step: some, then their twins."""
        epoch, first = self._first(step)
        chosen = np.concatenate([first, [twin(int(index)) for index in first]])
        full = step % FULL_EVERY == 0
        ids = tokenize(self._tokenizer, [self._caption_of(int(index), epoch, full) for index in chosen])
        return self._latents[torch.from_numpy(chosen)], ids if full else self._cut(ids)

    def contrasts(self, step: int, *, junk: bool) -> Contrasts:
        """Return some pictures of a step with two captions each."""
        epoch, first = self._first(step)
        chosen = first[: self._batch // PICTURES_PER_CONTRAST]
        found = [self._contrast_of(int(index), epoch, junk) for index in chosen]
        ids = tokenize(self._tokenizer, [*(one.text for one in found), *(one.more for one in found)])
        return Contrasts(
            clean=self._latents[torch.from_numpy(chosen)],
            ids=self._cut(ids),
            numbers=torch.tensor([CONTRASTED.index(one.name) for one in found]),
            there=torch.tensor([float(one.there) for one in found]),
        )

    def _first(self, step: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Return the epoch of a step, and its examples without their twins."""
        pairs, batch = len(self._latents) // 2, self._batch // 2
        epoch, position = divmod(step, pairs // (batch * process_count()))
        order = np.random.default_rng([self._seed, epoch]).permutation(pairs)
        start = (position * process_count() + process_number()) * batch
        numbers, places = np.divmod(order[start : start + batch], GROUP)
        return epoch, numbers * 2 * GROUP + places

    def _cut(self, ids: torch.Tensor) -> torch.Tensor:
        """Leave off the padding that all texts have."""
        ends = (ids == self._tokenizer.eos_token_id).int().argmax(dim=1)
        return ids[:, : int(ends.max()) + 1]

    def chance(self, step: int) -> torch.Generator:
        """Return what the noise of a step is drawn from."""
        seed = (self._seed * 1_000_003 + step) * process_count() + process_number()
        return torch.Generator().manual_seed(seed)


class _LossByTimestep:
    """A moving mean of the loss for each range of timesteps."""

    def __init__(self) -> None:
        self._means = [float("nan")] * TIMESTEP_RANGES

    def add(self, timesteps: torch.Tensor, losses: torch.Tensor) -> None:
        """Take the losses of a batch into account."""
        ranges = timesteps * TIMESTEP_RANGES // TRAIN_TIMESTEPS
        for number in range(TIMESTEP_RANGES):
            chosen = losses[ranges == number]
            if chosen.numel():
                old, new = self._means[number], float(chosen.mean())
                self._means[number] = new if old != old else _LOSS_MEMORY * old + (1 - _LOSS_MEMORY) * new

    def __str__(self) -> str:
        return "loss by timestep, low to high: " + " ".join(f"{mean:.4f}" for mean in self._means)


def _loss(
    unet: Any,
    text_encoder: Any,
    clean: torch.Tensor,
    ids: torch.Tensor,
    alphas: torch.Tensor,
    chance: torch.Generator,
    losses: _LossByTimestep,
) -> torch.Tensor:
    """Return the mean squared error of v = sqrt(a) noise - sqrt(1 - a) clean (Salimans and Ho 2022)."""
    # An example and its twin get the same noise and timestep, see `make_example`.
    half = len(clean) // 2
    noise = torch.randn((half, *clean.shape[1:]), generator=chance).repeat(2, 1, 1, 1).to(clean.device)
    # Evenly spread over the batch, so that every batch sees early and late timesteps.
    spread = (torch.arange(half) + torch.rand(half, generator=chance)) / half
    timesteps = (spread * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1).repeat(2).to(clean.device)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    predicted = unet(noisy, timesteps, encoder_hidden_states=text_encoder(ids)[0]).sample
    errors = (predicted - wanted).square().mean(dim=(1, 2, 3))
    losses.add(timesteps, errors.detach())
    return errors.mean()


def crosstalk(
    unet: Any,
    text_encoder: Any,
    contrasts: Contrasts,
    directions: Directions,
    alphas: torch.Tensor,
    chance: torch.Generator,
) -> torch.Tensor:
    """Return how much of everything else is in the difference that one word more makes to the predicted picture.

    What a picture shows is independent in the data and has directions of its own in the latents, so there should be
    nothing.

    Args:
        unet: predicts v.
        text_encoder: whose first output the UNet attends to.
        contrasts: the pictures and their captions.
        directions: of the latents.
        alphas: cumulative products of the schedule, (timesteps,).
        chance: what noise, timesteps and pushes are drawn from.

    Returns:
        The mean, over latents and their elements, of the squared part along the directions of everything else.
    """
    device, count = alphas.device, len(contrasts.numbers)
    clean, numbers = contrasts.clean.to(device), contrasts.numbers.to(device)
    # Half of the pictures as they are, half with the attribute less than absent.
    past = torch.rand(count, generator=chance) * PAST_ABSENCE
    pushed = torch.rand(count, generator=chance) < 0.5
    removed = ((contrasts.there + past) * pushed).to(device).view(-1, 1, 1, 1)
    clean = clean - removed * directions.steps[numbers]
    timesteps = ((torch.arange(count) + torch.rand(count, generator=chance)) / count * TRAIN_TIMESTEPS).long()
    timesteps = timesteps.clamp(max=TRAIN_TIMESTEPS - 1).to(device)
    noise = torch.randn(clean.shape, generator=chance).to(device)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    words = text_encoder(contrasts.ids.to(device))[0]
    predicted = unet(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), encoder_hidden_states=words).sample
    plain, more = predicted.chunk(2)
    change = ((1 - alpha).sqrt() * (more - plain)).flatten(1)
    along = torch.einsum("bd,bnd->bn", change, directions.others[numbers])
    return along.square().sum() / change.numel()
