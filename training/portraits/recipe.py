"""How long to train what, for each budget. Knows nothing of how it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training.portraits.stage import StageSettings

#: Seed of the pictures that are trained on. Tests and measurements draw others.
DATA_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One way to train the model."""

    device: str
    #: Processes that train side by side, one thread each; 0 threads is torch's own choice.
    processes: int
    threads: int
    #: Pictures that the VAE and the UNet learn from.
    vae_pictures: int
    pictures: int
    #: Pictures a step and process.
    vae_batch: int
    batch: int
    #: The VAE; its decoder alone, once the UNet's latents are fixed; the UNet with the text encoder.
    vae: StageSettings
    decoder: StageSettings
    denoiser: StageSettings
    #: Captions that the vocabulary is learnt from.
    vocabulary_captions: int = 4_000
    #: Portraits that the directions of changes are averaged over.
    directions_portraits: int = 200


def _stage(name: str, steps: int, learning_rate: float, ema: float, seed: int) -> StageSettings:
    return StageSettings(
        name=name,
        steps=steps,
        learning_rate=learning_rate,
        last_learning_rate=learning_rate / 200,
        ema=ema,
        save_every=250,
        seed=seed,
    )


def _denoiser(steps: int) -> StageSettings:
    """Return the stage in which the text is learnt.

    The text encoder learns slowly. As fast as the rest, it makes one of all words that change little in a picture,
    long before the UNet has learnt what they change; kept nearly as it began, it tells them apart.
    """
    stage = _stage("denoiser", steps, 1e-3, 0.999, seed=3)
    return replace(stage, factors=(("text_encoder", 0.1), ("attn2", 1.5)))


_CPU = Recipe(
    device="cpu",
    processes=2,
    threads=1,
    vae_pictures=10_000,
    pictures=120_000,
    vae_batch=4,
    batch=16,
    vae=_stage("vae", 2_500, 1.5e-3, 0.997, seed=1),
    decoder=_stage("decoder", 1_500, 5e-4, 0.997, seed=2),
    denoiser=_denoiser(14_000),
)

#: Two CPU cores for up to two hours, or one GPU for about ten minutes; `cpu-more` goes on from a finished run, after
#: a change of the drawings or for more steps, in half an hour.
BUDGETS = {
    "cpu": _CPU,
    "cpu-more": replace(
        _CPU,
        vae=_stage("vae", 700, 8e-4, 0.99, seed=4),
        decoder=_stage("decoder", 600, 4e-4, 0.99, seed=5),
        denoiser=replace(_denoiser(3_600), learning_rate=5e-4, last_learning_rate=2.5e-6, seed=6, ema=0.998),
    ),
    "gpu": Recipe(
        device="cuda",
        processes=1,
        threads=0,
        vae_pictures=40_000,
        pictures=240_000,
        vae_batch=32,
        batch=256,
        vae=_stage("vae", 4_000, 1.5e-3, 0.997, seed=1),
        decoder=_stage("decoder", 2_000, 5e-4, 0.997, seed=2),
        denoiser=_denoiser(5_000),
    ),
}
