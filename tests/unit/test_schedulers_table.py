import inspect
import subprocess
import sys

import pytest

from shared.schedulers import DEFAULT_SCHEDULER, SCHEDULERS, canonical_scheduler


def test_the_default_is_in_the_table():
    """A sweep that names no scheduler gets one that exists."""
    assert DEFAULT_SCHEDULER in SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_key_means_itself(name):
    """A key is its own canonical spelling, in any case."""
    assert canonical_scheduler(name) == name
    assert canonical_scheduler(name.upper()) == name


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("dpm++ 2m", "dpmpp_2m"),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde_karras"),
        ("DPM++ SDE", "dpmpp_sde"),
        ("Euler a", "euler_a"),
        ("EULER A", "euler_a"),
        (" Euler ", "euler"),
        ("DPM2 a Karras", "kdpm2_a_karras"),
        ("PLMS", "pndm"),
        ("PNDM", "pndm"),
        ("UniPC", "unipc"),
        ("LMS Karras", "lms_karras"),
        ("Euler Beta", "euler_beta"),
        ("DPM++ 2M Exponential", "dpmpp_2m_exponential"),
        ("DPM SDE", "dpm_sde_brownian"),
        ("Euler FlowMatch", "flow_euler"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("DPMSolverSDEScheduler", "dpm_sde_brownian"),
        ("FlowMatchEulerDiscreteScheduler", "flow_euler"),
        ("eulerancestraldiscretescheduler", "euler_a"),
        ("PNDMScheduler", "pndm"),
    ],
)
def test_other_spellings_mean_a_key(spelling, key):
    """A1111's names and diffusers' class names are understood, whatever their case."""
    assert canonical_scheduler(spelling) == key


@pytest.mark.parametrize("name", ["", "dpm", "DPM++ 2M Karas", "LMSS", "no such"])
def test_an_unknown_name_is_a_key_error(name):
    """A name nobody uses is refused, near misses included."""
    with pytest.raises(KeyError):
        canonical_scheduler(name)


def test_no_two_rows_are_one_sampler():
    """No two keys have the same spelling in A1111, or build the same scheduler and call it the same way."""
    names = [(spec.a1111_sampler, spec.a1111_schedule) for spec in SCHEDULERS.values()]
    built = [
        (spec.class_name, tuple(sorted(spec.overrides.items())), spec.eta) for spec in SCHEDULERS.values()
    ]
    assert len(set(names)) == len(set(built)) == len(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_an_image_says_is_understood(name):
    """The sampler and schedule type that stand in an image's infotext mean the key it was made with."""
    spec = SCHEDULERS[name]
    assert canonical_scheduler(f"{spec.a1111_sampler} {spec.a1111_schedule or ''}") == name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_row_is_something_diffusers_has(name):
    """Each row names a diffusers class, and each override one of its config fields."""
    diffusers = pytest.importorskip("diffusers")
    spec = SCHEDULERS[name]
    known = inspect.signature(getattr(diffusers, spec.class_name).__init__).parameters
    assert set(spec.overrides) <= set(known)


@pytest.mark.parametrize("schedule", ["Karras", "Exponential", "Beta"])
def test_a_schedule_in_the_name_is_one_in_the_config(schedule):
    """A Karras row turns Karras sigmas on, any other row whose class knows them turns them off; so the others."""
    diffusers = pytest.importorskip("diffusers")
    end, switch = f"_{schedule.casefold()}", f"use_{schedule.casefold()}_sigmas"
    assert sum(name.endswith(end) for name in SCHEDULERS) > 10
    for name, spec in SCHEDULERS.items():
        known = inspect.signature(getattr(diffusers, spec.class_name).__init__).parameters
        expected = name.endswith(end) if switch in known else None
        assert (name, expected) == (name, spec.overrides.get(switch))
        assert name.endswith(end) == (spec.a1111_schedule == schedule)


def test_flow_is_for_flow_models():
    """Every class that can follow a straight path is told whether it shall, and only flow rows do."""
    diffusers = pytest.importorskip("diffusers")
    for name, spec in SCHEDULERS.items():
        known = inspect.signature(getattr(diffusers, spec.class_name).__init__).parameters
        straight = spec.class_name.startswith("FlowMatch") or spec.overrides.get("use_flow_sigmas", False)
        assert (name, spec.path == "flow") == (name, straight)
        assert ("use_flow_sigmas" in known) == ("use_flow_sigmas" in spec.overrides)


def test_the_table_needs_no_torch():
    """The producer can read the table without torch or diffusers."""
    script = (
        "import sys, shared.schedulers; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
