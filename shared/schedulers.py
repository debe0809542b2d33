"""The schedulers that a job may name, with diffusers' and A1111's names for them. Knows nothing of torch.

Every override that decides the sampler is spelled out, also where it is diffusers' default: a model's own
scheduler config may say otherwise, and `euler` must not become Karras because the model's config does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

#: A config override; the values are what diffusers' scheduler configs hold.
Override = str | int | float | bool

#: The path from image to noise that a model was trained on, and that a sampler walks back: a table of betas over
#: timesteps (Stable Diffusion, epsilon or v), a straight line (flow matching), or a quarter circle in continuous
#: time (v-diffusion, which diffusers' IPNDM is written for). Noise levels of EDM's kind have no sampler here.
ModelPath = Literal["betas", "flow", "circle", "edm"]


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """One sampler: how to build it, and what others call it."""

    #: Class in diffusers.
    class_name: str
    #: What `class.from_config(model's scheduler config, **overrides)` gets.
    overrides: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))
    #: `eta` of the pipeline call, for the schedulers that know it: 0 adds no noise.
    eta: float = 0.0
    #: The fewest steps it can do.
    min_steps: int = 1
    #: Whether it picks its steps from the few of the model's distillation (`original_inference_steps`).
    picks_steps: bool = False
    #: The models it fits.
    path: ModelPath = "betas"
    #: `Sampler:` in A1111's infotext.
    a1111_sampler: str
    #: `Schedule type:` in A1111's infotext; None where A1111 writes none.
    a1111_schedule: str | None = None


#: `Schedule type:` in A1111's infotext -> (end of our key, diffusers' switch): how noise levels are spaced.
_SPACINGS = {
    None: ("", None),
    "Karras": ("_karras", "use_karras_sigmas"),
    "Exponential": ("_exponential", "use_exponential_sigmas"),
    "Beta": ("_beta", "use_beta_sigmas"),
}

_SWITCHES = [switch for _, switch in _SPACINGS.values() if switch]


def _spec(
    class_name: str, sampler: str, schedule: str | None = None, /, **overrides: Override
) -> SchedulerSpec:
    return SchedulerSpec(
        class_name=class_name,
        overrides=MappingProxyType(overrides),
        a1111_sampler=sampler,
        a1111_schedule=schedule,
    )


def _spaced(key: str, class_name: str, sampler: str, /, **overrides: Override) -> dict[str, SchedulerSpec]:
    """Return a sampler's four rows: the plain spacing of noise levels, Karras, exponential and beta."""
    return {
        key + end: _spec(
            class_name, sampler, schedule, **{other: other == switch for other in _SWITCHES}, **overrides
        )
        for schedule, (end, switch) in _SPACINGS.items()
    }


def _multistep(key: str, sampler: str, *, algorithm: str, order: int = 2) -> dict[str, SchedulerSpec]:
    return _spaced(
        key,
        "DPMSolverMultistepScheduler",
        sampler,
        algorithm_type=algorithm,
        solver_order=order,
        use_lu_lambdas=False,
        use_flow_sigmas=False,
    )


def _singlestep(key: str, sampler: str, *, algorithm: str) -> dict[str, SchedulerSpec]:
    return _spaced(
        key,
        "DPMSolverSinglestepScheduler",
        sampler,
        algorithm_type=algorithm,
        solver_order=2,
        use_flow_sigmas=False,
        # Without it an odd number of steps ends in half a second-order step.
        lower_order_final=True,
    )


#: Rows for models trained by flow matching; the worker adds the model's own shift.
_FLOW = {
    **_spaced("flow_euler", "FlowMatchEulerDiscreteScheduler", "Euler FlowMatch", stochastic_sampling=False),
    "flow_heun": _spec("FlowMatchHeunDiscreteScheduler", "Heun FlowMatch"),
    "flow_dpmpp_2m": _spec(
        "DPMSolverMultistepScheduler",
        "DPM++ 2M FlowMatch",
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_lu_lambdas=False,
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        **dict.fromkeys(_SWITCHES, False),
    ),
}

#: Every sampler a job may name. The first of a class is what the bare class name means.
SCHEDULERS: dict[str, SchedulerSpec] = {
    # Clipping x0 to [-1, 1] is for pixels; both classes clip unless told not to.
    "ddim": _spec("DDIMScheduler", "DDIM", clip_sample=False),
    "ddim_eta1": replace(_spec("DDIMScheduler", "DDIM eta 1", clip_sample=False), eta=1.0),
    "ddpm": _spec("DDPMScheduler", "DDPM", clip_sample=False),
    **_spaced("euler", "EulerDiscreteScheduler", "Euler"),
    "euler_sgm_uniform": _spec(
        "EulerDiscreteScheduler",
        "Euler",
        "SGM Uniform",
        **dict.fromkeys(_SWITCHES, False),
        timestep_spacing="trailing",
    ),
    "euler_a": _spec("EulerAncestralDiscreteScheduler", "Euler a"),
    **_multistep("dpmpp_2m", "DPM++ 2M", algorithm="dpmsolver++"),
    **_multistep("dpmpp_2m_sde", "DPM++ 2M SDE", algorithm="sde-dpmsolver++"),
    **_multistep("dpmpp_3m_sde", "DPM++ 3M SDE", algorithm="sde-dpmsolver++", order=3),
    **_singlestep("dpmpp_2s", "DPM++ 2S", algorithm="dpmsolver++"),
    **_singlestep("dpmpp_sde", "DPM++ SDE", algorithm="sde-dpmsolver++"),
    # The same equation as the row above over a Brownian tree, as k-diffusion solves it; two model calls a step.
    **_spaced("dpm_sde_brownian", "DPMSolverSDEScheduler", "DPM SDE"),
    **_spaced("heun", "HeunDiscreteScheduler", "Heun"),
    **_spaced("kdpm2", "KDPM2DiscreteScheduler", "DPM2"),
    **_spaced("kdpm2_a", "KDPM2AncestralDiscreteScheduler", "DPM2 a"),
    # Stable Diffusion's own configs skip the Runge-Kutta steps; A1111 calls that PLMS.
    "pndm": _spec("PNDMScheduler", "PLMS", skip_prk_steps=True),
    # Three Runge-Kutta steps, then the same; diffusers cannot make fewer than one step of the second kind.
    "pndm_prk": replace(_spec("PNDMScheduler", "PNDM PRK", skip_prk_steps=False), min_steps=4),
    **_spaced("lms", "LMSDiscreteScheduler", "LMS"),
    **_spaced("unipc", "UniPCMultistepScheduler", "UniPC", use_flow_sigmas=False),
    **_spaced("deis", "DEISMultistepScheduler", "DEIS", use_flow_sigmas=False),
    **_spaced("sa", "SASolverScheduler", "SA Solver", use_flow_sigmas=False),
    "lcm": replace(_spec("LCMScheduler", "LCM"), picks_steps=True),
    "tcd": replace(_spec("TCDScheduler", "TCD"), picks_steps=True),
    # In one step it would go to zero, whatever the model says.
    "ipndm": replace(_spec("IPNDMScheduler", "IPNDM"), path="circle", min_steps=2),
    **{key: replace(spec, path="flow") for key, spec in _FLOW.items()},
}

#: The sampler of a sweep that names none.
DEFAULT_SCHEDULER = "dpmpp_2m"


#: Classes that do not take a model which predicts the image itself (`prediction_type` "sample").
NO_SAMPLE_PREDICTION = frozenset(
    {
        "DPMSolverSDEScheduler",
        "EulerAncestralDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "PNDMScheduler",
    }
)

#: Parts of a flow model's own schedule -> classes that know of them. Any other would leave them out, in silence.
SCHEDULE_PARTS: Mapping[str, tuple[str, ...]] = {
    "use_dynamic_shifting": ("FlowMatchEulerDiscreteScheduler", "DPMSolverMultistepScheduler"),
    "shift_terminal": ("FlowMatchEulerDiscreteScheduler",),
    "invert_sigmas": ("FlowMatchEulerDiscreteScheduler",),
}


def model_path(config: Mapping[str, Any]) -> ModelPath:
    """Return the path from image to noise that a model was trained on, as its scheduler config tells it."""
    class_name = str(config.get("_class_name"))
    straight = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
    if straight or class_name.startswith("FlowMatch"):
        return "flow"
    if class_name.startswith("EDM"):
        return "edm"
    return "circle" if class_name == "IPNDMScheduler" else "betas"


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
