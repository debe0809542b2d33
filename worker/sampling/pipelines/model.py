"""A loaded diffusers pipeline as the sampler sees it, and what its call takes. Knows nothing of files or requests.

Families without rows of their own (`worker.sampling.families`) are rendered by calling diffusers' pipeline. Pipelines
agree on most arguments, not on guidance: what carries the scale, whether a negative prompt is heard, and from where
the scale counts is read here, off the pipeline itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.sampling.pipelines.text_checks import TextWatch, watch_texts

#: Pipelines that pad every text to one length, whatever stands beside it: texts of any length may share a call.
#: All others get texts of equal lengths only, since padding to the longest could reach the image.
PADS_TO_ONE_LENGTH = frozenset(
    {
        "AuraFlowPipeline",
        "FluxPipeline",
        "HunyuanDiTPipeline",
        "PixArtAlphaPipeline",
        "PixArtSigmaPipeline",
        "SanaPipeline",
        "StableDiffusion3Pipeline",
    }
)

#: Pipelines that draw for a whole call from its first generator: an image there depends on what is beside it.
ONE_AT_A_TIME = frozenset({"GlmImagePipeline"})


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFacts:
    """What a pipeline's `__call__` takes and what it does with a guidance scale."""

    #: Names of its keywords.
    keywords: frozenset[str]
    #: The keyword of classifier-free guidance; None where there is none, or where it would do nothing.
    scale: str | None
    #: Whether the network takes the scale as an input, by `guidance_scale` (guidance-distilled models).
    embedded: bool
    #: Whether classifier-free guidance hears a negative prompt.
    negative: bool
    #: Whether classifier-free guidance does nothing without one: None is no negative prompt, "" is one.
    needs_negative: bool
    #: The scale that means no guidance: 1, or 0 in pipelines that write p + g (p - n).
    unguided_scale: float
    #: Sides of images are multiples of this, as far as the pipeline says so beforehand.
    size_unit_px: int
    #: The most tokens a text may have, as far as the pipeline says so beforehand; None if it does not.
    text_limit: int | None


@dataclass(kw_only=True, eq=False)
class LoadedPipeline:
    """A diffusers text-to-image pipeline on its device, ready to be called."""

    #: The name people use, and the content hash or hub revision behind it. For messages and logs.
    name: str
    fingerprint: str
    #: diffusers' pipeline. Its scheduler is replaced at every call.
    pipeline: Any
    device: torch.device
    #: Of its networks.
    dtype: torch.dtype
    #: The model's own scheduler; a job's scheduler is made from its config.
    scheduler_class: str
    scheduler_config: Mapping[str, Any]
    call: CallFacts
    #: Sees what the tokenizers read.
    texts: TextWatch
    #: Keys of schedulers that turned out not to fit, with the reason.
    unfit_schedulers: dict[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The pipeline's class: "FluxPipeline"."""
        return type(self.pipeline).__name__


def wrap_pipeline(
    pipeline: Any, *, name: str, fingerprint: str, device: torch.device, dtype: torch.dtype
) -> LoadedPipeline:
    """Return a pipeline, in place on its device, with what the sampler has to know of it."""
    pipeline.set_progress_bar_config(disable=True)
    return LoadedPipeline(
        name=name,
        fingerprint=fingerprint,
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        scheduler_class=type(pipeline.scheduler).__name__,
        scheduler_config=dict(pipeline.scheduler.config),
        call=read_call(pipeline),
        texts=watch_texts(pipeline),
    )


def read_call(pipeline: Any) -> CallFacts:
    """Read what a pipeline's call takes off its signature, its networks' configs and its own properties."""
    parameters = inspect.signature(pipeline.__call__).parameters
    embedded = _embeds_guidance(pipeline)
    true_cfg = "true_cfg_scale" in parameters
    scale = "true_cfg_scale" if true_cfg else None if embedded else "guidance_scale"
    if not true_cfg and not _guides(pipeline, 2.0):  # distilled: it would ignore the scale
        scale = None
    limit = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else None
    return CallFacts(
        keywords=frozenset(parameters),
        scale=scale,
        embedded=embedded,
        negative="negative_prompt" in parameters and scale is not None,
        needs_negative=true_cfg,
        unguided_scale=0.0 if not true_cfg and _guides(pipeline, 1.0) else 1.0,
        size_unit_px=_size_unit(pipeline),
        text_limit=limit if isinstance(limit, int) else None,
    )


def _embeds_guidance(pipeline: Any) -> bool:
    network = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    config = getattr(network, "config", {})
    return bool(config.get("guidance_embeds")) or config.get("time_cond_proj_dim") is not None


def _guides(pipeline: Any, scale: float) -> bool:
    """Return whether a pipeline would use classifier-free guidance at a scale; it is asked, where it can be."""
    if not isinstance(getattr(type(pipeline), "do_classifier_free_guidance", None), property):
        return scale > 1
    pipeline._guidance_scale = scale
    return bool(pipeline.do_classifier_free_guidance)


def _size_unit(pipeline: Any) -> int:
    processor = getattr(pipeline, "image_processor", None)
    unit = getattr(getattr(processor, "config", None), "vae_scale_factor", 1)
    return unit if isinstance(unit, int) else 1
