"""The ids of the example sweeps and of their jobs stay what they were: images in stores are found by them."""

import hashlib
import json
from pathlib import Path

import pytest

from producer.language.complete import read_sweep_file
from producer.language.sweep import sweep_of
from producer.planning.compile import compile_sweep
from shared.fingerprint import ResolvedModel

_ROOT = Path(__file__).parents[2]

#: Example -> its sweep id, its number of jobs, and the ids of its first and its last job.
_IDS = json.loads(Path(__file__).with_name("job_ids.json").read_text())


def resolve(name: str) -> ResolvedModel:
    """Return a model whose fingerprint depends on its name alone, not on the files of this computer."""
    return ResolvedModel(name=name, fingerprint="sd@sha:" + hashlib.sha256(name.encode()).hexdigest())


def ids_of(example: str) -> dict[str, object]:
    """Return what the fixture holds of an example."""
    plan = compile_sweep(sweep_of(read_sweep_file(_ROOT / "examples" / example)), resolve=resolve)
    return {
        "sweep": plan.id,
        "jobs": len(plan),
        "first": plan.job(0).id,
        "last": plan.job(len(plan) - 1).id,
    }


def test_every_example_is_in_the_fixture():
    """The fixture covers each sweep in examples/, and nothing else."""
    assert sorted(_IDS) == sorted(path.name for path in (_ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", sorted(_IDS))
def test_ids_do_not_move(example):
    """A change of the code does not change the id of a sweep or of a job that people have rendered."""
    assert ids_of(example) == _IDS[example]
