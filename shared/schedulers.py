"""The samplers a job may name, as diffusers builds them and as A1111 spells them. Knows nothing of torch.

Every override that decides the sampler is spelled out, also where it is diffusers' default: a model's own
scheduler config may say otherwise, and `euler` must not become Karras because the model's config does.
Left out: samplers that need packages Printroom does not require (LMS and beta sigmas need scipy, DPM++ SDE
over a Brownian tree needs torchsde).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: Config overrides of one sampler; the values are what diffusers' scheduler configs hold.
Overrides = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """One sampler: how to build it, and what others call it."""

    #: Class in diffusers.
    class_name: str
    #: What `class.from_config(model's scheduler config, **overrides)` gets.
    overrides: Overrides = field(default_factory=lambda: MappingProxyType({}))
    #: `Sampler:` in A1111's infotext.
    a1111_sampler: str
    #: `Schedule type:` in A1111's infotext; None where A1111 writes none.
    a1111_schedule: str | None = None


def _spec(
    class_name: str, sampler: str, schedule: str | None = None, **overrides: str | int | float | bool
) -> SchedulerSpec:
    return SchedulerSpec(
        class_name=class_name,
        overrides=MappingProxyType(overrides),
        a1111_sampler=sampler,
        a1111_schedule=schedule,
    )


def _multistep(
    sampler: str, schedule: str | None = None, *, algorithm: str = "dpmsolver++", order: int = 2
) -> SchedulerSpec:
    return _spec(
        "DPMSolverMultistepScheduler",
        sampler,
        schedule,
        algorithm_type=algorithm,
        solver_order=order,
        use_karras_sigmas=schedule == "Karras",
    )


def _singlestep(sampler: str, schedule: str | None = None, *, algorithm: str) -> SchedulerSpec:
    return _spec(
        "DPMSolverSinglestepScheduler",
        sampler,
        schedule,
        algorithm_type=algorithm,
        solver_order=2,
        use_karras_sigmas=schedule == "Karras",
        # Without it an odd number of steps ends in half a second-order step.
        lower_order_final=True,
    )


#: Every sampler a job may name. The first of a class is what the bare class name means.
SCHEDULERS: dict[str, SchedulerSpec] = {
    # Clipping x0 to [-1, 1] is for pixels; both classes clip unless told not to.
    "ddim": _spec("DDIMScheduler", "DDIM", clip_sample=False),
    "ddpm": _spec("DDPMScheduler", "DDPM", clip_sample=False),
    "euler": _spec("EulerDiscreteScheduler", "Euler", use_karras_sigmas=False),
    "euler_karras": _spec("EulerDiscreteScheduler", "Euler", "Karras", use_karras_sigmas=True),
    "euler_sgm_uniform": _spec(
        "EulerDiscreteScheduler", "Euler", "SGM Uniform", use_karras_sigmas=False, timestep_spacing="trailing"
    ),
    "euler_a": _spec("EulerAncestralDiscreteScheduler", "Euler a"),
    "dpmpp_2m": _multistep("DPM++ 2M"),
    "dpmpp_2m_karras": _multistep("DPM++ 2M", "Karras"),
    "dpmpp_2m_sde": _multistep("DPM++ 2M SDE", algorithm="sde-dpmsolver++"),
    "dpmpp_2m_sde_karras": _multistep("DPM++ 2M SDE", "Karras", algorithm="sde-dpmsolver++"),
    "dpmpp_3m_sde": _multistep("DPM++ 3M SDE", algorithm="sde-dpmsolver++", order=3),
    "dpmpp_3m_sde_karras": _multistep("DPM++ 3M SDE", "Karras", algorithm="sde-dpmsolver++", order=3),
    "dpmpp_2s": _singlestep("DPM++ 2S", algorithm="dpmsolver++"),
    "dpmpp_sde": _singlestep("DPM++ SDE", algorithm="sde-dpmsolver++"),
    "dpmpp_sde_karras": _singlestep("DPM++ SDE", "Karras", algorithm="sde-dpmsolver++"),
    "heun": _spec("HeunDiscreteScheduler", "Heun", use_karras_sigmas=False),
    "heun_karras": _spec("HeunDiscreteScheduler", "Heun", "Karras", use_karras_sigmas=True),
    "kdpm2": _spec("KDPM2DiscreteScheduler", "DPM2", use_karras_sigmas=False),
    "kdpm2_karras": _spec("KDPM2DiscreteScheduler", "DPM2", "Karras", use_karras_sigmas=True),
    "kdpm2_a": _spec("KDPM2AncestralDiscreteScheduler", "DPM2 a", use_karras_sigmas=False),
    "kdpm2_a_karras": _spec("KDPM2AncestralDiscreteScheduler", "DPM2 a", "Karras", use_karras_sigmas=True),
    # Stable Diffusion's own configs skip the Runge-Kutta steps; A1111 calls that PLMS.
    "pndm": _spec("PNDMScheduler", "PLMS", skip_prk_steps=True),
    "unipc": _spec("UniPCMultistepScheduler", "UniPC", use_karras_sigmas=False),
    "unipc_karras": _spec("UniPCMultistepScheduler", "UniPC", "Karras", use_karras_sigmas=True),
    "deis": _spec("DEISMultistepScheduler", "DEIS", use_karras_sigmas=False),
    "lcm": _spec("LCMScheduler", "LCM"),
    "tcd": _spec("TCDScheduler", "TCD"),
}

#: The sampler of a sweep that names none.
DEFAULT_SCHEDULER = "dpmpp_2m"


def canonical_scheduler(name: str) -> str:
    """Return the key in `SCHEDULERS` that a name means.

    Args:
        name: a key, A1111's spelling with or without the schedule type ("DPM++ 2M Karras", "Euler a"),
            or a diffusers class; in any case.

    Raises:
        KeyError: nobody calls a sampler that.
    """
    return _KEYS[_folded(name)]


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _spellings(key: str, spec: SchedulerSpec) -> list[str]:
    """Return every way to say one sampler, the most specific first."""
    sampler = f"{spec.a1111_sampler} {spec.a1111_schedule}" if spec.a1111_schedule else spec.a1111_sampler
    return [key, sampler, spec.class_name]


#: Folded spelling -> key. Keys win over A1111's names, those over class names, earlier rows over later.
_KEYS: dict[str, str] = {}
for _rank in range(3):
    for _key, _row in SCHEDULERS.items():
        _KEYS.setdefault(_folded(_spellings(_key, _row)[_rank]), _key)
