"""Speed is read off manifests and kept benchmarks, storage off formats; what nobody measured stays unknown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.fleet.models import KnownModel
from producer.language.sweep import parse_sweep
from producer.planning.compile import compile_sweep
from producer.preview.environment import find_rates, find_tokenizers, model_folders
from producer.preview.rates import (
    BENCHMARKS,
    benchmark_rates,
    guided_rows,
    measured_sweeps,
    model_calls,
    past_rates,
    unet_rows,
)
from producer.preview.spread import spread
from shared import names
from shared.errors import StoreUnavailable
from shared.fingerprint import ResolvedModel
from shared.guidance import parse_rule
from shared.manifest import write_manifest
from shared.plan import Plan
from shared.result import Done, Failed, Provenance, StoredImage
from shared.store.folder import FolderStore

_ROOT = Path(__file__).parents[2]
PLACE = ("sha:mine", 64, 64)

#: What makes a sweep be of that place, where it says nothing else.
OWN = {"model": "mine", "size": 64}


def compiled(text: str) -> Plan:
    """Compile the text of a sweep for a model that no benchmark knows; models are named by themselves."""
    return compile_sweep(
        parse_sweep(
            "".join([text, *(f"\n{key}: {value}" for key, value in OWN.items() if f"{key}:" not in text)])
        ),
        resolve=lambda name: ResolvedModel(name=name, fingerprint=f"sha:{name}"),
    )


def keep(store: FolderStore, plan: Plan, *, seconds_a_row: float, device: str = "gpu") -> None:
    """Put a plan and its manifests into a store, as if a device had rendered it; a third fails, a third is reused."""
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="application/zstd")
    for number in range(plan.chunks):
        chunk = plan.chunk(number)
        rows = []
        for index, job in plan.jobs(chunk.start, chunk.stop):
            common = {
                "index": index,
                "job": job,
                "attempt": 1,
                "worker": "w",
                "finished_at": datetime.now(UTC),
            }
            if index % 3 == 2:
                rows.append(Failed(code="job_invalid", reason="no", **common))
                continue
            made = Provenance(
                model_name="m",
                device=device,
                dtype="float32",
                batch_rows=4,
                prompt_tokens=1,
                negative_tokens=0,
                versions={},
            )
            image = StoredImage(key=names.image_key(job.id), size_bytes=1, sha256="0" * 64, provenance=made)
            reused = index % 3 == 1
            seconds = None if reused else unet_rows(job) * seconds_a_row
            rows.append(Done(image=image, reused=reused, sample_seconds=seconds, **common))
        data = write_manifest(rows, sweep=plan.id, chunk=number)
        store.put(names.manifest_key(plan.id, number), data, content_type="application/vnd.apache.parquet")


def test_speed_is_read_off_manifests(tmp_path) -> None:
    """Images that were made give seconds a row; reused and failed ones, other sizes and other plans do not count."""
    store = FolderStore(tmp_path)
    plan = compiled("prompt: a\nseed: {count: 30}\nsteps: [4, 9]\nguidance_scale: [1, 7]\nscheduler: heun")
    keep(store, plan, seconds_a_row=0.25)
    keep(store, compiled("prompt: a\nsize: 128\nseed: {count: 20}"), seconds_a_row=8.0)
    (rate,) = past_rates(store, measured_sweeps(store), {PLACE})
    assert (rate.place, rate.device, rate.images) == (PLACE, "gpu", 40)
    assert rate.seconds == pytest.approx(0.25)
    assert str(tmp_path) in rate.source
    assert past_rates(store, measured_sweeps(store), {("sha:other", 64, 64)}) == []


def test_a_store_that_says_nothing_is_no_figure(tmp_path) -> None:
    """An empty store, a plan without manifests, and damaged files give no rate and no error."""
    store = FolderStore(tmp_path)
    assert (measured_sweeps(store), past_rates(store, ["ab" * 16], {PLACE})) == ([], [])
    plan = compiled("prompt: a")
    store.put(names.plan_key(plan.id), plan.to_bytes(), content_type="x")
    store.put(names.manifest_key(plan.id, 0), b"no parquet", content_type="x")
    store.put(names.plan_key("cd" * 16), b"no plan", content_type="x")
    assert past_rates(store, measured_sweeps(store), {PLACE}) == []


def test_renderings_in_folders_of_their_own_count_too(tmp_path) -> None:
    """Where the store is a folder, what `printroom render` left in folders inside it is looked at."""
    plan = compiled("prompt: a\nseed: {count: 3}")
    keep(FolderStore(tmp_path / "mine"), plan, seconds_a_row=0.5)
    found = find_rates(plan, FolderStore(tmp_path), [])
    assert [(rate.seconds, rate.images) for rate in found.rates] == [(pytest.approx(0.5), 1)]
    assert found.trouble == ""
    assert find_rates(plan, FolderStore(tmp_path / "absent"), []).rates == ()


def test_a_store_that_does_not_answer_is_said(tmp_path) -> None:
    """An unreachable store is named as the reason why there is no estimate, and is no failure."""

    class Silent(FolderStore):
        def get(self, key: str) -> bytes:
            raise StoreUnavailable("nobody answers")

    found = find_rates(compiled("prompt: a"), Silent(tmp_path), ["ab" * 16])
    assert (found.rates, found.trouble) == ((), "the store could not be read: nobody answers")


def test_benchmarks_are_those_that_are_kept() -> None:
    """Each figure of the table is what its file of results says."""
    (benchmark,) = BENCHMARKS
    kept = json.loads((_ROOT / "benchmarks/results/engine.json").read_text())
    run = next(run for run in kept["runs"] if run["way"] == "row engine, all jobs")
    assert benchmark.source.startswith("benchmarks/results/engine.json")
    assert kept["model"] in benchmark.models
    assert (benchmark.width, benchmark.height) == (kept["size_px"], kept["size_px"])
    assert (benchmark.images, benchmark.seconds) == (run["images"], run["seconds"])
    assert benchmark.rows == run["unet_calls"] * kept["rows"] * run["occupancy"]
    assert kept["machine"]["device"] in benchmark.device
    (rate,) = benchmark_rates({"sha:1": "portraits", "sha:2": "tiny-random"})
    assert (rate.place, rate.seconds) == (("sha:1", 64, 64), benchmark.seconds / benchmark.rows)


@pytest.mark.parametrize(
    ("scheduler", "calls"),
    [
        ("ddim", 25),
        ("heun_karras", 49),
        ("kdpm2_a", 49),
        ("dpm_sde_brownian", 49),
        ("flow_heun", 49),
        ("pndm_prk", 34),
    ],
)
def test_samplers_call_the_model_as_the_documentation_says(scheduler, calls) -> None:
    """25 steps are as many calls as docs/sweeps.md gives for each kind of sampler."""
    assert model_calls(scheduler, 25) == calls


def test_rows_of_a_step_follow_the_rule() -> None:
    """One without guidance, two with it, the rule's own within its interval."""
    assert (guided_rows(1.0, None), guided_rows(7.0, None)) == (1.0, 2.0)
    half = parse_rule({"rule": "perp_neg", "negatives": {"hat": 1}, "interval": [0, 0.5]})
    assert guided_rows(7.0, half) == 2.5


@pytest.mark.parametrize(("length", "wanted"), [(0, 5), (1, 5), (5, 5), (7, 5), (1000, 5), (2**40, 7)])
def test_spread_places_are_one_a_stretch(length, wanted) -> None:
    """There are as many as asked for, or all; in order, within the run, the first among them, one in each stretch."""
    places = spread(3, 3 + length, wanted)
    assert len(places) == min(length, wanted)
    assert places == sorted(set(places))
    assert places[:1] == ([3] if length else [])
    assert all((place - 3) * len(places) // length in (n, n - 1) for n, place in enumerate(places))


def test_folders_of_models_are_found_by_fingerprint(tmp_path) -> None:
    """A model of this machine has its folder, one that only a worker has does not, one named by its path does."""
    known = [
        KnownModel(name="here", fingerprint="sha:1", places=(str(tmp_path), "worker w")),
        KnownModel(name="there", fingerprint="sha:2", places=("worker w",)),
    ]
    assert model_folders(known, {"sha:3": tmp_path}) == {"sha:1": tmp_path, "sha:3": tmp_path}


def test_what_is_known_of_a_tokenizer_has_its_reason(tmp_path) -> None:
    """Without a tokenizer, with a broken one, and for other kinds of models it is said why nothing is counted."""
    plan = compiled("prompt: a\nmodel: [none, broken, other]")
    folders = {name: tmp_path / name for name in ("none", "broken", "other")}
    for folder in folders.values():
        (folder / "tokenizer").mkdir(parents=True)
    (folders["none"] / "tokenizer").rmdir()
    (folders["other"] / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    found = find_tokenizers(plan, {f"sha:{name}": folder for name, folder in folders.items()})
    assert [found[f"sha:{name}"].other_kind for name in folders] == [False, False, True]
    assert found["sha:none"].reason.endswith("has no tokenizer beside it")
    assert "neither merges.txt nor tokenizer.json" in found["sha:broken"].reason
    assert "in ways of its own" in found["sha:other"].reason
