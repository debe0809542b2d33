"""Trains a model of portraits from nothing: VAE, then UNet with text encoder, then the decoder again.

Each stage leaves a checkpoint in the working folder, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.multiprocessing.spawn import spawn
from transformers import CLIPTokenizer

from training.portraits.autoencoder import encode_pictures, train_decoder, train_vae
from training.portraits.dataset import load_pictures, write_caption, write_contrast
from training.portraits.denoiser import Denoiser, train_denoiser
from training.portraits.directions import find_directions
from training.portraits.export import export_model
from training.portraits.recipe import DATA_SEED, Recipe
from training.portraits.stage import is_first, process_count, process_number
from training.portraits.tokenizer import Vocabulary, learn_vocabulary, write_tokenizer

_LOG_FORMAT = "%(asctime)s %(message)s"


def train(recipe: Recipe, *, work: Path, model: Path, resume: bool, start: Path | None = None) -> None:
    """Train by a recipe.

    Args:
        recipe: what to train, and how long.
        work: for pictures, latents and checkpoints.
        model: where the finished model goes.
        resume: go on from the checkpoints in `work`; otherwise they are overwritten.
        start: the `work` of a finished run, whose weights and vocabulary to begin with.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not resume:
        for stale in (*work.glob("latents-*.pt"), work / "vocabulary.json"):
            stale.unlink(missing_ok=True)
    if start is not None:
        shutil.copy(start / "vocabulary.json", work)
    # Drawn before the processes part, so that they find it.
    load_pictures(work, count=recipe.vae_pictures, seed=DATA_SEED)
    load_pictures(work, count=recipe.pictures, seed=DATA_SEED)
    if recipe.processes == 1:
        _train_here(0, recipe, work, model, resume, start)
        return
    meeting = work / "meeting"
    meeting.unlink(missing_ok=True)
    spawn(_train_beside, (recipe, work, model, resume, start, meeting), nprocs=recipe.processes)


def _train_beside(
    number: int, recipe: Recipe, work: Path, model: Path, resume: bool, start: Path | None, meeting: Path
) -> None:
    """Train as one of several processes that share their weights now and then."""
    logging.basicConfig(level=logging.INFO if number == 0 else logging.WARNING, format=_LOG_FORMAT)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting.resolve()}", rank=number, world_size=recipe.processes
    )
    _train_here(number, recipe, work, model, resume, start)
    torch.distributed.destroy_process_group()


def _train_here(
    number: int, recipe: Recipe, work: Path, model: Path, resume: bool, start: Path | None
) -> None:
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = torch.device(recipe.device)
    options: dict[str, Any] = {"folder": work, "device": device, "resume": resume, "start": start}
    vae_pictures = load_pictures(work, count=recipe.vae_pictures, seed=DATA_SEED)
    pictures = load_pictures(work, count=recipe.pictures, seed=DATA_SEED)
    vocabulary = _vocabulary(work / "vocabulary.json", captions=recipe.vocabulary_captions)

    vae = train_vae(vae_pictures, recipe.vae, batch=recipe.vae_batch, **options)
    latents = _latents(vae, pictures, work, device)
    denoiser = train_denoiser(
        latents,
        lambda index, epoch, junk: write_caption(index, seed=DATA_SEED, epoch=epoch, junk=junk),
        lambda index, epoch, junk: write_contrast(index, seed=DATA_SEED, epoch=epoch, junk=junk),
        _tokenizer(vocabulary, work / f"tokenizer-{number}"),
        find_directions(vae, device, portraits=recipe.directions_portraits),
        recipe.denoiser,
        batch=recipe.batch,
        **options,
    )
    write = partial(_export, model, denoiser=denoiser, vocabulary=vocabulary)
    write(vae=vae)
    write(vae=train_decoder(vae, vae_pictures, recipe.decoder, batch=recipe.vae_batch, **options))


def _vocabulary(path: Path, *, captions: int) -> Vocabulary:
    """Return the vocabulary of the run before, or learn one: a text encoder goes with its own alone."""
    if path.is_file():
        return Vocabulary.from_json(path.read_text(encoding="utf-8"))
    vocabulary = learn_vocabulary(write_caption(index, seed=DATA_SEED, epoch=0) for index in range(captions))
    if is_first():
        path.write_text(vocabulary.to_json(), encoding="utf-8")
    return vocabulary


def _tokenizer(vocabulary: Vocabulary, folder: Path) -> Any:
    write_tokenizer(vocabulary, folder)
    return CLIPTokenizer.from_pretrained(str(folder))


def _latents(vae: Any, pictures: Any, work: Path, device: torch.device) -> torch.Tensor:
    """Return the latents of all pictures, or those of a run before; every process makes its part of them."""
    paths = [work / f"latents-{number}.pt" for number in range(process_count())]
    mine = paths[process_number()]
    if not mine.is_file():
        part = np.array_split(np.arange(len(pictures)), process_count())[process_number()]
        torch.save(encode_pictures(vae, pictures[part[0] : part[-1] + 1], device), mine)
    if process_count() > 1:
        torch.distributed.barrier()
    return torch.cat([torch.load(path, weights_only=True) for path in paths])


def _export(model: Path, *, vae: Any, denoiser: Denoiser, vocabulary: Vocabulary) -> None:
    if is_first():
        export_model(
            model, vae=vae, unet=denoiser.unet, text_encoder=denoiser.text_encoder, vocabulary=vocabulary
        )
