"""Makes the untrained networks: Stable Diffusion's own classes, small. Knows nothing of data or training."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from training.portraits.drawing import SIZE_PX

#: Tokens in a row, BOS and EOS included: CLIP's own limit.
MAX_TOKENS = 77

#: Pixels per latent along a side, as in Stable Diffusion: latents are (4, 8, 8).
FACTOR = 8

#: Width of the text encoder, and so of the UNet's cross attention.
TEXT_WIDTH = 128

#: Standard deviations that the embeddings of tokens and positions begin with.
TOKEN_STD = 0.5
POSITION_STD = 0.15

#: Timesteps of the noise schedule.
TRAIN_TIMESTEPS = 1000


def make_vae() -> Any:
    """Return an AutoencoderKL. Most of its work on a CPU is at full size, so that level is narrow."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 48, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIZE_PX,
        scaling_factor=1.0,  # set once the latents' spread is known
        force_upcast=False,
    )


def make_unet() -> Any:
    """Return a UNet with cross attention on both of its levels, 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=SIZE_PX // FACTOR,
        block_out_channels=(96, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
    )


def make_text_encoder(vocabulary_size: int) -> Any:
    """Return a CLIP text encoder of two layers; the last two tokens are BOS and EOS.

    CLIP's own embeddings begin so small (0.02) that the layers' outputs drown them: all tokens look alike, and
    words that change little in a picture are not learnt in thousands of steps. These begin as large as the layers.
    """
    encoder: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1,
            pad_token_id=vocabulary_size - 1,
        )
    )
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=TOKEN_STD)
    torch.nn.init.normal_(_position_embeddings(encoder), std=POSITION_STD)
    return encoder


def _position_embeddings(encoder: Any) -> Any:
    named = dict(encoder.named_parameters())
    return next(weight for name, weight in named.items() if name.endswith("position_embedding.weight"))


def make_scheduler() -> Any:
    """Return Stable Diffusion 2's scheduler with more noise at its end, sampled from the last timestep on.

    Sampling begins with noise alone. Stable Diffusion's last timestep still has 6.8% of a picture in it (beta_end
    0.012), so a model sees in every first noise the beginnings of some picture, and guidance must talk it out of
    what the noise happens to look like. Here 1.5% are left. None at all would be better still, but half of
    diffusers' schedulers know no such schedule.

    Source: Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are Flawed.
    """
    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
