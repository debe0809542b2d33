"""Schedule programs against diffusers' own scheduler objects, on trajectories of a model that is not linear."""

import threading

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from shared.errors import JobInvalid
from shared.schedulers import SCHEDULERS
from worker.sampling.cache import LruCache
from worker.sampling.schedules import programs
from worker.sampling.schedules.minimal_state import Response, realize
from worker.sampling.schedules.programs import (
    NotLinear,
    ScheduleProgram,
    compile_program,
    make_scheduler,
    step_options,
)
from worker.sampling.schedules.unroll import initial_scale, scale_input

#: max|program in float32 - scheduler in float64| / max|scheduler| of final latents.
TOLERANCE = 1e-5

#: Stable Diffusion 1.x's scheduler config, 2.x's, and one with zero terminal SNR.
SD1 = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
SD2 = {**SD1, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "clip_sample": False}
ZERO_SNR = {**SD2, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
CIRCLE = {"_class_name": "IPNDMScheduler", "num_train_timesteps": 1000}

#: A config each path from image to noise is at home with.
AT_HOME = {"betas": SD1, "flow": FLOW, "circle": CIRCLE}

BROWNIAN = [key for key in SCHEDULERS if key.startswith("dpm_sde_brownian")]
LINEAR = [key for key in SCHEDULERS if key not in BROWNIAN]

#: State slots at 25 steps, by the beginning of a key; the longest that fits counts.
SLOTS = {
    **dict.fromkeys(["ddim", "ddpm", "euler", "lcm", "tcd", "flow_euler"], 1),
    **dict.fromkeys(["dpmpp_2m", "dpmpp_2s", "dpmpp_sde", "deis", "heun", "kdpm2"], 2),
    **dict.fromkeys(["flow_heun", "flow_dpmpp_2m"], 2),
    **dict.fromkeys(["unipc", "dpmpp_3m", "sa"], 3),
    **dict.fromkeys(["lms", "pndm", "ipndm"], 4),
    "pndm_prk": 5,
}


_POWERS = (torch.Tensor.pow, torch.Tensor.__pow__)


class Float32Noise(TorchFunctionMode):
    """What generators give is drawn in float32, in whatever type it is asked for, as it is for a float32 sample.

    A coefficient whose square comes out just below zero is zero, as in exact arithmetic.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.randn:
            return func(*args, **{**kwargs, "dtype": torch.float32}).to(kwargs["dtype"])
        if func in _POWERS and args[1] == 0.5 and args[0].dim() == 0 and -1e-6 < args[0] < 0:
            args = (torch.zeros_like(args[0]), 0.5)  # below zero by rounding, on this processor
        return func(*args, **kwargs)


def denoiser(dtype):
    """Return a model: neighbours and channels mixed, bent, and different at every timestep."""
    generator = torch.Generator().manual_seed(3)
    before, after = (torch.randn(4, 4, 3, 3, generator=generator).to(dtype) / 6 for _ in range(2))

    def predict(latents, timestep):
        tide = torch.sin(torch.tensor(timestep / 100, dtype=dtype))
        mixed = torch.nn.functional.conv2d(latents, before, padding=1)
        bent = torch.tanh(mixed * (1 + timestep / 1000) + 0.3 * tide)
        return bent + torch.nn.functional.conv2d(torch.tanh(latents), after, padding=1) / 2

    return predict


def noise(generator):
    """Return the next unit noise of an image, as the sampler draws it."""
    return torch.randn((1, 4, 8, 8), generator=generator, dtype=torch.float32)


def by_scheduler(config, key, steps, seed=11, dtype=torch.float64):
    """Return the latents that diffusers' scheduler object ends at, and the generator it drew from."""
    scheduler, generator = make_scheduler(config, key, steps), torch.Generator().manual_seed(seed)
    options, model = step_options(scheduler, key, generator), denoiser(dtype)
    x = noise(generator).to(dtype) * initial_scale(scheduler)
    with Float32Noise():
        for timestep in scheduler.timesteps:
            m = model(scale_input(scheduler, x, timestep), float(timestep))
            x = scheduler.step(m, timestep, x, return_dict=False, **options)[0]
    return x, generator


def by_program(program, seed=11):
    """Return the latents that a program ends at in float32, and the generator it drew from."""
    generator, model = torch.Generator().manual_seed(seed), denoiser(torch.float32)
    column = (-1, 1, 1, 1)
    state = program.start.view(column) * noise(generator)  # (K, 4, 8, 8)
    for n, timestep in enumerate(program.timesteps.tolist()):
        m = model(program.input_scales[n] * state[:1], timestep)
        state = torch.einsum("ij,jchw->ichw", program.transition[n], state)
        state = state + program.gain[n].view(column) * m
        for d in range(program.draws[n]):
            state = state + program.noise_gain[n, :, d].view(column) * noise(generator)
    return state[:1], generator


def error(config, key, steps):
    """Return how far a program ends from its scheduler, relative to the largest latent."""
    program = compile_program(config, key, steps)
    assert isinstance(program, ScheduleProgram), program
    (ours, _), (theirs, _) = by_program(program), by_scheduler(config, key, steps)
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("key", LINEAR)
def test_a_program_ends_where_its_scheduler_ends(key):
    """Every linear row of the table, from 1 step to 25, predicting noise (or flow): the scheduler's own latents."""
    spec = SCHEDULERS[key]
    counts = [steps for steps in (1, 2, 3, 7, 25) if steps >= spec.min_steps]
    errors = {steps: error(AT_HOME[spec.path], key, steps) for steps in counts}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("key", [key for key in LINEAR if SCHEDULERS[key].path == "betas"])
@pytest.mark.parametrize("config", [SD2, ZERO_SNR], ids=["v", "zero_snr"])
def test_v_prediction_ends_where_its_scheduler_ends(key, config):
    """Every row for such models, predicting v, with and without zero terminal SNR."""
    assert error(config, key, 7) < TOLERANCE


def verdict(config, key, steps):
    """Return what becomes of a scheduler: a program and its slots, an object of its own, or a refusal."""
    try:
        program = compile_program(config, key, steps)
    except JobInvalid:
        return "refused"
    return program.slots if isinstance(program, ScheduleProgram) else "object"


def one_ulp_off(config, seed):
    """Return a config whose betas are each one unit in the last place up, or down, or as they were."""
    start, end = config["beta_start"] ** 0.5, config["beta_end"] ** 0.5
    betas = torch.linspace(start, end, 1000, dtype=torch.float32) ** 2
    way = torch.randint(-1, 2, (1000,), generator=torch.Generator().manual_seed(seed)).float()
    moved = torch.where(way == 0, betas, torch.nextafter(betas, betas + way))
    return {**config, "trained_betas": moved.tolist()}


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        ("ddim_eta1", range(1, 31)),
        *(
            (key, (1, 2, 7, 19, 64))
            for key in ("ddim", "ddpm", "euler_a", "tcd", "lcm", "dpmpp_2m_sde", "sa")
        ),
        *(
            (key, (1, 7, 19))
            for key in ("kdpm2_a_karras", "dpmpp_sde_beta", "unipc", "dpmpp_3m_sde_exponential")
        ),
    ],
)
@pytest.mark.parametrize("config", [SD1, ZERO_SNR], ids=["epsilon", "zero_snr"])
def test_no_verdict_hangs_on_an_ulp(key, counts, config):
    """Whether a scheduler is a program, and of how many slots, is the same when its inputs are rounded otherwise.

    So a job does not fail on one processor and render on another.
    """
    for steps in counts:
        seen = {verdict(one, key, steps) for one in (config, one_ulp_off(config, 1), one_ulp_off(config, 2))}
        assert len(seen) == 1, (steps, seen)


@pytest.mark.parametrize("key", ["ddim", "euler", "euler_a", "dpmpp_2m"])
def test_zero_terminal_snr_begins_at_pure_noise(key):
    """With zero terminal SNR and trailing timesteps the walk starts at the last timestep, at any number of steps."""
    for steps in (1, 2, 25, 50):
        assert compile_program(ZERO_SNR, key, steps).timesteps[0] == 999
        assert error(ZERO_SNR, key, steps) < TOLERANCE


@pytest.mark.parametrize(
    "key", ["ddim", "euler_a", "dpmpp_2m_karras", "dpmpp_3m_sde", "heun", "pndm_prk", "unipc_beta"]
)
def test_fifty_steps_end_where_the_scheduler_ends(key):
    """Rounding does not add up over 50 steps, whatever the kind of sampler."""
    assert error(SD1, key, 50) < TOLERANCE


@pytest.mark.parametrize("key", LINEAR)
def test_noise_is_drawn_as_often_as_by_the_scheduler(key):
    """After its walk a program leaves the job's generator where diffusers' scheduler leaves it in float32."""
    config = AT_HOME[SCHEDULERS[key].path]
    program = compile_program(config, key, 7)
    (_, ours), (_, theirs) = by_program(program), by_scheduler(config, key, 7, dtype=torch.float32)
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert len(program.draws) == program.evaluations
    assert max(program.draws) == program.noise_gain.shape[2]


def test_ancestral_samplers_draw_and_others_do_not():
    """Noise is where it belongs: DDIM draws at eta 1 and not at eta 0."""
    draws = {key: sum(compile_program(SD1, key, 7).draws) for key in ("ddim", "ddim_eta1", "euler_a", "lcm")}
    assert draws == {"ddim": 0, "ddim_eta1": 7, "euler_a": 7, "lcm": 6}


@pytest.mark.parametrize("key", LINEAR)
def test_programs_are_as_small_as_the_method(key):
    """Each method needs as many slots as its formula remembers, and the first is the sample itself."""
    program = compile_program(AT_HOME[SCHEDULERS[key].path], key, 25)
    assert program.slots == SLOTS[max((start for start in SLOTS if key.startswith(start)), key=len)]
    assert not program.start[1:].any()


def test_a_program_is_all_float32_on_the_cpu():
    """Shapes and types are what the engine packs: (N), (N), (N, K, K), (N, K), (N, K, D), (K)."""
    program = compile_program(SD1, "dpmpp_3m_sde", 7)
    tensors = {
        "timesteps": (7,),
        "input_scales": (7,),
        "transition": (7, 3, 3),
        "gain": (7, 3),
        "noise_gain": (7, 3, 1),
        "start": (3,),
    }
    assert {name: tuple(getattr(program, name).shape) for name in tensors} == tensors
    assert {getattr(program, name).dtype for name in tensors} == {torch.float32}


def test_heun_calls_the_model_twice_a_step():
    """Methods of second order make more evaluations than steps, and say so."""
    assert compile_program(SD1, "heun", 7).evaluations == 13
    assert compile_program(SD1, "pndm_prk", 7).evaluations == 16


# What is not linear


@pytest.mark.parametrize(
    ("key", "setting"),
    [("lcm", "clip_sample"), ("tcd", "clip_sample"), ("dpmpp_2m", "thresholding"), ("ddim", "thresholding")],
)
def test_limits_on_values_have_no_program(key, setting):
    """A config that limits x0 makes steps depend on the values they see; the reason names its key."""
    answer = compile_program({**SD1, "_class_name": SCHEDULERS[key].class_name, setting: True}, key, 7)
    assert isinstance(answer, NotLinear)
    assert f"{setting}=True" in answer.reason


def test_a_key_for_another_class_limits_nothing():
    """clip_sample in a model's config is no concern of Euler's, nor of DDIM's, which the table tells not to clip."""
    config = {**SD2, "clip_sample": True}
    for key in ("euler", "ddim"):
        assert isinstance(compile_program(config, key, 7), ScheduleProgram)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda sample: sample.clamp(-8, 8), id="limited"),
        pytest.param(lambda sample: sample + 0.01, id="shifted"),
        pytest.param(lambda sample: sample / sample.std() * 14.6, id="normalized"),
    ],
)
def test_a_step_that_is_not_linear_is_noticed(monkeypatch, change):
    """Where no config key tells it, the check on random inputs does: limits, offsets, statistics of the values."""
    step = diffusers.EulerDiscreteScheduler.step
    changed = lambda *args, **named: (change(step(*args, **named)[0]),)  # noqa: E731
    monkeypatch.setattr(diffusers.EulerDiscreteScheduler, "step", changed)
    monkeypatch.setattr(programs, "_PROGRAMS", LruCache(1))
    answer = compile_program(SD1, "euler", 7)
    assert isinstance(answer, NotLinear)
    assert "off" in answer.reason


def test_too_many_slots_are_refused(monkeypatch):
    """A method that remembers more than an engine's job may hold keeps its scheduler object."""
    monkeypatch.setattr(programs, "SLOTS_AT_MOST", 3)
    monkeypatch.setattr(programs, "_PROGRAMS", LruCache(1))
    assert compile_program(SD1, "pndm", 7) == NotLinear(reason="4 state slots: more than 3")


@pytest.mark.parametrize("key", BROWNIAN)
def test_a_brownian_tree_has_no_program(key):
    """DPM SDE's noise is no sequence of draws; the scheduler object stays."""
    answer = compile_program(SD1, key, 7)
    assert isinstance(answer, NotLinear)
    assert "Brownian tree" in answer.reason


def test_a_brownian_tree_is_the_jobs_own():
    """The same seed grows the same tree, as diffusers' noise_sampler_seed does; another seed another one."""
    theirs = make_scheduler(SD1, "dpm_sde_brownian", 3)
    theirs.noise_sampler_seed = 11
    x, model = noise(torch.Generator().manual_seed(11)) * theirs.init_noise_sigma, denoiser(torch.float32)
    for timestep in theirs.timesteps:
        m = model(theirs.scale_model_input(x, timestep), float(timestep))
        x = theirs.step(m, timestep, x, return_dict=False)[0]
    first, second, other = (
        by_scheduler(SD1, "dpm_sde_brownian", 3, seed=seed, dtype=torch.float32)[0] for seed in (11, 11, 12)
    )
    assert torch.equal(first, second)
    assert torch.equal(first, x)
    assert not torch.allclose(first, other)


# What does not fit


@pytest.mark.parametrize(
    ("config", "key", "steps", "message"),
    [
        (SD1, "flow_euler", 7, r"scheduler=flow_euler .*'flow'.* is 'betas': use ddim or "),
        (SD1, "ipndm", 7, r"scheduler=ipndm .*'circle'.* is 'betas': use ddim or "),
        (FLOW, "euler", 7, r"scheduler=euler .*'betas'.* is 'flow': use flow_euler or "),
        ({**SD1, "prediction_type": "flow_prediction"}, "ddim", 7, "use flow_euler or"),
        ({**FLOW, "use_dynamic_shifting": True}, "flow_euler", 7, "use_dynamic_shifting=True .* set it to False"),
        (SD1, "pndm_prk", 3, "scheduler=pndm_prk, steps=3: use 4 or more"),
        (SD1, "lcm", 100, "scheduler=lcm, steps=100: use 50 or fewer"),
        (SD1, "ddim", 1000, "scheduler=ddim, steps=1000: .*: use fewer steps"),
        (SD1, "dpmpp_2m", 1000, "steps=1000 computes NaN .*: use another number of steps"),
        ({**SD1, "prediction_type": "sample"}, "pndm", 7, "a model with prediction_type sample: use ddim"),
        ({**SD1, "prediction_type": "sample"}, "dpm_sde_brownian", 7, "prediction_type sample: use ddim"),
        ({**ZERO_SNR, "prediction_type": "epsilon"}, "ddim", 7, "prediction_type=epsilon.*zero_snr=True"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_model_is_refused(config, key, steps, message):
    """A scheduler for another kind of model, or a number of steps it cannot make: the value, and what would do."""
    with pytest.raises(JobInvalid, match=message):
        compile_program(config, key, steps)


def test_a_flow_models_shift_reaches_every_flow_scheduler():
    """Both names that diffusers has for it: the first sigmas of a shifted model are closer to pure noise."""
    by_class = {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}
    for key in ("flow_euler", "flow_heun", "flow_dpmpp_2m"):
        unshifted = compile_program({**FLOW, "shift": 1.0}, key, 7).timesteps
        shifted = compile_program(FLOW, key, 7).timesteps
        assert shifted[3] > unshifted[3] + 50
        assert torch.equal(compile_program(by_class, key, 7).timesteps, shifted)


@pytest.mark.parametrize("key", SCHEDULERS)
def test_a_scheduler_is_made_as_diffusers_users_make_it(key):
    """From the model's config and the row's overrides, afresh each time: a walk leaves nothing for the next one."""
    spec, config = SCHEDULERS[key], AT_HOME[SCHEDULERS[key].path]
    shift = {"flow_dpmpp_2m": {"flow_shift": 3.0}}.get(key, {})
    theirs = getattr(diffusers, spec.class_name).from_config(config, **spec.overrides, **shift)
    theirs.set_timesteps(7)
    for _ in range(2):
        ours = make_scheduler(config, key, 7)
        for name in ("timesteps", "sigmas", "alphas_cumprod"):
            torch.testing.assert_close(getattr(ours, name, None), getattr(theirs, name, None), rtol=0, atol=0)
        x, options = torch.ones(1, 4, 8, 8), step_options(ours, key, torch.Generator())
        m = scale_input(ours, x, ours.timesteps[0])
        ours.step(m, ours.timesteps[0], x, return_dict=False, **options)
        make_scheduler(config, key, 8)
        assert torch.equal(ours.timesteps, theirs.timesteps)


def test_steps_get_what_the_pipelines_pass():
    """The generator goes to schedulers that draw, eta to those that know it, with the row's own value."""
    generator = torch.Generator()
    passed = {
        key: step_options(make_scheduler(SD1, key, 3), key, generator)
        for key in ("ddim", "ddim_eta1", "euler_a", "lms")
    }
    assert passed == {
        "ddim": {"generator": generator, "eta": 0.0},
        "ddim_eta1": {"generator": generator, "eta": 1.0},
        "euler_a": {"generator": generator},
        "lms": {},
    }


# The store of programs


def test_a_program_is_made_once(monkeypatch):
    """The same config, name and steps give the same object, whatever order the config is in; others do not."""
    monkeypatch.setattr(programs, "_PROGRAMS", LruCache(8))
    first = compile_program(SD1, "dpmpp_2m", 7)
    assert compile_program(dict(reversed(SD1.items())), "dpmpp_2m", 7) is first
    others = [(SD1, "dpmpp_2m", 8), (SD1, "euler", 7), ({**SD1, "beta_end": 0.013}, "dpmpp_2m", 7)]
    assert all(compile_program(*other) is not first for other in others)


def test_threads_neither_wait_for_noise_nor_lose_any(monkeypatch):
    """While one thread compiles, another's torch.randn is untouched; threads that want one program share it."""
    monkeypatch.setattr(programs, "_PROGRAMS", LruCache(8))
    expected = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in range(2000)]
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(compile_program(SD1, "dpmpp_3m_sde", 50)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    drawn = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in range(2000)]
    for thread in threads:
        thread.join()
    assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))
    assert len(made) == 3
    assert made[0] is made[1] is made[2]


def test_programs_made_in_inference_mode_are_ordinary_tensors(monkeypatch):
    """A program that the sampling thread made first can be changed and copied by any other."""
    monkeypatch.setattr(programs, "_PROGRAMS", LruCache(8))
    with torch.inference_mode():
        program = compile_program(SD1, "euler", 7)
    assert not program.transition.is_inference()
    assert not program.timesteps.is_inference()


# Realization, without diffusers


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 5),
    evaluations=st.integers(1, 14),
    draws=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_any_small_system_is_found_again(slots, evaluations, draws, seed):
    """A random system of K slots is realized in K at most, and the realization responds as the system does."""
    generator = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    A, b, G = make(evaluations, slots, slots), make(evaluations, slots), make(evaluations, slots, draws)
    A = A / slots
    start = torch.zeros(slots, dtype=torch.float64)
    start[0] = 2.0
    rows = respond_by(A, b, G, start)
    real = realize(Response(rows=rows, draws=(draws,) * evaluations))
    assert len(real.start) <= slots
    again = respond_by(real.transition, real.gain, real.noise_gain, real.start)
    torch.testing.assert_close(again, rows, rtol=0, atol=1e-7 * float(rows.abs().max()))


def respond_by(A, b, G, start):
    """Return the response of s' = A s + b m + G z whose sample is slot 0."""
    evaluations, _, draws = G.shape
    state = torch.zeros(len(start), 1 + evaluations * (1 + draws), dtype=torch.float64)
    state[:, 0] = start
    rows, column = [state[0]], 1
    for n in range(evaluations):
        state = A[n] @ state
        state[:, column] += b[n]
        state[:, column + 1 : column + 1 + draws] += G[n]
        rows, column = [*rows, state[0]], column + 1 + draws
    return torch.stack(rows)
