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
        ("UniPC", "unipc"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("eulerancestraldiscretescheduler", "euler_a"),
        ("PNDMScheduler", "pndm"),
    ],
)
def test_other_spellings_mean_a_key(spelling, key):
    """A1111's names and diffusers' class names are understood, whatever their case."""
    assert canonical_scheduler(spelling) == key


@pytest.mark.parametrize("name", ["", "dpm", "DPM++ 2M Karas", "LMS", "no such"])
def test_an_unknown_name_is_a_key_error(name):
    """A name nobody uses is refused, near misses included."""
    with pytest.raises(KeyError):
        canonical_scheduler(name)


def test_no_two_rows_are_one_sampler():
    """No two keys have the same spelling in A1111, or build the same scheduler."""
    names = [(spec.a1111_sampler, spec.a1111_schedule) for spec in SCHEDULERS.values()]
    built = [(spec.class_name, tuple(sorted(spec.overrides.items()))) for spec in SCHEDULERS.values()]
    assert len(set(names)) == len(set(built)) == len(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_row_is_something_diffusers_has(name):
    """Each row names a diffusers class, and each override one of its config fields."""
    diffusers = pytest.importorskip("diffusers")
    spec = SCHEDULERS[name]
    known = inspect.signature(getattr(diffusers, spec.class_name).__init__).parameters
    assert set(spec.overrides) <= set(known)


def test_karras_in_the_name_is_karras_in_the_config():
    """A Karras row turns Karras sigmas on, any other row that knows them turns them off."""
    for name, spec in SCHEDULERS.items():
        if "use_karras_sigmas" in spec.overrides:
            assert spec.overrides["use_karras_sigmas"] == name.endswith("_karras")
        assert name.endswith("_karras") == (spec.a1111_schedule == "Karras")


def test_the_table_needs_no_torch():
    """The producer can read the table without torch or diffusers."""
    script = (
        "import sys, shared.schedulers; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
