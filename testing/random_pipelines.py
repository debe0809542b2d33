"""Writes complete, tiny, randomly initialised folders of families beyond Stable Diffusion. Knows nothing of sampling.

Each loads with plain `AutoPipelineForText2Image.from_pretrained`, in every component, and renders on two CPU cores in
under a second. They show that a family's pipeline is called as it should be; they say nothing of how its pictures look.
The same seed and versions give the same bytes: weights come from numpy's PCG64 as scaled uniforms, the tokenizers'
vocabularies from the words of `random_weights`.

    python -m testing.random_pipelines DIR --family flux
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import diffusers
import numpy as np
import torch

from testing.random_encoders import (
    TEXT_WIDTH,
    make_bert,
    make_clip,
    make_gemma,
    make_qwen3,
    make_qwen_vl,
    make_t5,
)
from worker.models.quiet import no_progress_bars

#: What `create_random_pipeline` can write. "flux" takes the guidance scale as an input, "flux_schnell" does not.
PipelineFamily = Literal[
    "sd3",
    "flux",
    "flux_schnell",
    "flux2_klein",
    "chroma",
    "pixart_sigma",
    "sana",
    "auraflow",
    "lumina",
    "lumina2",
    "qwen_image",
    "z_image",
    "hunyuan_dit",
]

#: Components of a pipeline by name, as its `__init__` takes them.
Components = dict[str, Any]

#: Size of the latents, 8 x 8, so 64 x 64 pixels.
SAMPLE_SIZE = 8


def create_random_pipeline(folder: Path, *, family: PipelineFamily, seed: int = 0) -> Path:
    """Write a random model of a family as a diffusers folder and return it.

    Args:
        folder: where; made if missing.
        family: which architecture to write in miniature.
        seed: another seed is another model.
    """
    pipeline_class, make = _FAMILIES[family]
    components = make()
    draws = np.random.Generator(np.random.PCG64(seed))
    for component in components.values():
        if isinstance(component, torch.nn.Module):
            _fill(component, draws)
    with no_progress_bars():
        getattr(diffusers, pipeline_class)(**components).save_pretrained(folder, safe_serialization=True)
    return folder


def _fill(module: torch.nn.Module, draws: np.random.Generator) -> None:
    """Fill a module's parameters, in the order of their names, keeping the variance through its layers."""
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            uniform = torch.from_numpy(draws.random(parameter.numel(), dtype=np.float32)) * 2 - 1
            centred = uniform.reshape(parameter.shape)  # U(-1, 1), variance 1/3
            if parameter.ndim >= 2:
                fan_in = 1 if "embed_tokens" in name or "shared" in name else parameter[0].numel()
                parameter.copy_(centred * (3.0 / fan_in) ** 0.5)
            elif name.endswith("weight"):  # a norm's scale
                parameter.copy_(1 + centred * 0.2)
            else:
                parameter.copy_(centred * 0.2)


# Autoencoders and schedulers


def _vae(channels: int, **extra: Any) -> Any:
    """Return an AutoencoderKL of four levels: latents are 8 times smaller than pixels."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": channels,
        "sample_size": 8 * SAMPLE_SIZE,
    }
    return diffusers.AutoencoderKL(**{**config, **extra})


def _flow_vae(channels: int) -> Any:
    """Return an autoencoder with the constants of SD3's and no convolutions around its latents."""
    return _vae(
        channels,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _flow(shift: float, *, dynamic: bool = False) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic)


# Families


def _sd3() -> Components:
    first, first_tokenizer = make_clip(1, projection=True)
    second, second_tokenizer = make_clip(2, projection=True)
    third, third_tokenizer = make_t5(width=2 * TEXT_WIDTH)  # as wide as both CLIPs side by side, or wider
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SAMPLE_SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=2 * TEXT_WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=16,
    )
    return {
        "transformer": transformer,
        "vae": _flow_vae(4),
        "scheduler": _flow(3.0),
        "text_encoder": first,
        "tokenizer": first_tokenizer,
        "text_encoder_2": second,
        "tokenizer_2": second_tokenizer,
        "text_encoder_3": third,
        "tokenizer_3": third_tokenizer,
    }


def _flux(*, guidance_embeds: bool = True) -> Components:
    first, first_tokenizer = make_clip(1, projection=False)
    second, second_tokenizer = make_t5()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "transformer": transformer,
        "vae": _flow_vae(4),
        # The model that takes the guidance scale shifts by resolution, the few-step one not at all.
        "scheduler": _flow(3.0, dynamic=True) if guidance_embeds else _flow(1.0),
        "text_encoder": first,
        "tokenizer": first_tokenizer,
        "text_encoder_2": second,
        "tokenizer_2": second_tokenizer,
    }


def _flux2_klein() -> Components:
    encoder, tokenizer = make_qwen3(
        layers=28, causal=True
    )  # the pipeline reads its 9th, 18th and 27th layers
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=8 * SAMPLE_SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": _flow(3.0, dynamic=True),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _chroma() -> Components:
    encoder, tokenizer = make_t5()
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return {
        "transformer": transformer,
        "vae": _flow_vae(4),
        "scheduler": _flow(1.0),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _pixart_sigma() -> Components:
    encoder, tokenizer = make_t5()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=SAMPLE_SIZE,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=TEXT_WIDTH,
        in_channels=4,
        out_channels=8,  # it learnt a variance beside the noise
        cross_attention_dim=32,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", solver_order=2
    )
    return {
        "transformer": transformer,
        "vae": _vae(4, scaling_factor=0.13025),
        "scheduler": scheduler,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _sana() -> Components:
    encoder, tokenizer = make_gemma()
    transformer = diffusers.SanaTransformer2DModel(
        sample_size=SAMPLE_SIZE,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT_WIDTH,
    )
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": scheduler,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _auraflow() -> Components:
    encoder, tokenizer = make_t5(multilingual=True)
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=SAMPLE_SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=TEXT_WIDTH,
        pos_embed_max_size=64,
    )
    return {
        "transformer": transformer,
        "vae": _vae(4, scaling_factor=0.13025),
        "scheduler": _flow(1.73),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _lumina() -> Components:
    encoder, tokenizer = make_gemma(first=True)
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=SAMPLE_SIZE,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        learn_sigma=True,
        cross_attention_dim=TEXT_WIDTH,
    )
    return {
        "transformer": transformer,
        "vae": _vae(4, scaling_factor=0.13025),
        "scheduler": _flow(1.0),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _lumina2() -> Components:
    encoder, tokenizer = make_gemma()
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=SAMPLE_SIZE,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=TEXT_WIDTH,
    )
    return {
        "transformer": transformer,
        "vae": _flow_vae(4),
        "scheduler": _flow(6.0),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _qwen_image() -> Components:
    encoder, tokenizer = make_qwen_vl()
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.0, 0.3],
        latents_std=[1.2, 0.9, 1.0, 1.1],
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": scheduler,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _z_image() -> Components:
    encoder, tokenizer = make_qwen3()
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    return {
        "transformer": transformer,
        "vae": _flow_vae(4),
        "scheduler": _flow(3.0),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
    }


def _hunyuan_dit() -> Components:
    first, first_tokenizer = make_bert()
    second, second_tokenizer = make_t5()
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=2 * SAMPLE_SIZE,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_dim_t5=TEXT_WIDTH,
        pooled_projection_dim=4,
        hidden_size=24,
        activation_fn="gelu-approximate",
        text_len=77,
        text_len_t5=256,
    )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.03, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    return {
        "transformer": transformer,
        "vae": _vae(4, scaling_factor=0.13025),
        "scheduler": scheduler,
        "text_encoder": first,
        "tokenizer": first_tokenizer,
        "text_encoder_2": second,
        "tokenizer_2": second_tokenizer,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


#: Pipeline class of each family, and what makes its components.
_FAMILIES: Mapping[PipelineFamily, tuple[str, Callable[[], Components]]] = {
    "sd3": ("StableDiffusion3Pipeline", _sd3),
    "flux": ("FluxPipeline", _flux),
    "flux_schnell": ("FluxPipeline", lambda: _flux(guidance_embeds=False)),
    "flux2_klein": ("Flux2KleinPipeline", _flux2_klein),
    "chroma": ("ChromaPipeline", _chroma),
    "pixart_sigma": ("PixArtSigmaPipeline", _pixart_sigma),
    "sana": ("SanaPipeline", _sana),
    "auraflow": ("AuraFlowPipeline", _auraflow),
    "lumina": ("LuminaPipeline", _lumina),
    "lumina2": ("Lumina2Pipeline", _lumina2),
    "qwen_image": ("QwenImagePipeline", _qwen_image),
    "z_image": ("ZImagePipeline", _z_image),
    "hunyuan_dit": ("HunyuanDiTPipeline", _hunyuan_dit),
}


def main(arguments: list[str] | None = None) -> int:
    """Write a random model where the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m testing.random_pipelines", description=create_random_pipeline.__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=get_args(PipelineFamily), default="sd3")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = create_random_pipeline(options.folder, family=options.family, seed=options.seed)
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
