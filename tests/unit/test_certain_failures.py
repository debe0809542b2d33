"""Jobs that are certain to fail are found before they are submitted: all of them, and no other."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from producer.language.sweep import Sweep, sweep_from_mapping
from producer.planning.compile import compile_sweep
from producer.preview import preview, render_preview
from producer.preview.failures import certain_failures, refuse_certain_failures
from shared.errors import JobInvalid, SweepError
from shared.fingerprint import ResolvedModel
from shared.job import make_job
from shared.job_checks import count_words, job_problem
from shared.model_facts import ModelFacts
from shared.model_reading import Reading
from shared.plan import Plan
from shared.schedulers import SCHEDULERS

SD = ModelFacts(family="sd1", path="betas", size_unit_px=8, side_px=512)
FLUX = ModelFacts(
    family="FluxPipeline", path="flow", schedule_parts=("use_dynamic_shifting",), size_unit_px=16, text_limit=5,
    guided=True, negative=True, needs_negative=True, takes_eta=False,
)  # fmt: skip
LCM = ModelFacts(
    family="LatentConsistencyModelPipeline", path="betas", size_unit_px=8, guided=False, negative=False, takes_eta=False
)  # fmt: skip
LORA = ModelFacts(family="", refusal="not a checkpoint of a family we know")
FACTS = {"sha:sd": SD, "sha:flux": FLUX, "sha:lcm": LCM, "sha:lora": LORA}

LONG = "one two three four five six"


def resolve(name: str) -> ResolvedModel:
    """Name models by themselves."""
    return ResolvedModel(name=name, fingerprint=f"sha:{name}")


def compiled(**mapping: Any) -> Any:
    """Compile a sweep."""
    return compile_sweep(
        sweep_from_mapping({"prompt": "a", "size": 64, "model": "sd", **mapping}), resolve=resolve
    )


def failing_indices(plan: Any) -> set[int]:
    """Return the jobs that a check of each finds."""
    found = set()
    for index, job in plan.jobs():
        if job.model in FACTS and job_problem(FACTS[job.model], "m", job):
            found.add(index)
    return found


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(["a", "b", LONG + " seven eight", LONG]),
    "negative_prompt": st.sampled_from([None, "", "x", LONG]),
    "seed": st.integers(0, 2),
    "guidance_scale": st.sampled_from([0, 1, 7]),
    "guidance_rule": st.sampled_from([None, "apg"]),
    "steps": st.sampled_from([1, 3, 4, 50, 51, 99]),
    "scheduler": st.sampled_from(["ddim", "lcm", "pndm_prk", "flow_euler", "flow_heun", "dpm_sde_brownian"]),
    "size": st.sampled_from([64, 72]),
    "model": st.sampled_from(["sd", "flux", "lcm", "lora", "unknown"]),
}


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    """Draw sweeps whose fields stand on axes of their own or together in cases, whole or as a sample."""
    case_fields = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True))
    always = {field: VALUES[field] for field in case_fields}
    cases = draw(st.lists(st.fixed_dictionaries(always), min_size=1, max_size=4)) if case_fields else []
    mapping: dict[str, Any] = {"cases": cases} if cases else {}
    for field in sorted(set(VALUES) - set(case_fields)):
        mapping[field] = draw(st.lists(VALUES[field], min_size=1, max_size=3))
    if "prompt" in mapping and draw(st.booleans()):
        mapping |= {"vars": {"more": ["", "two three four five six"]}, "prompt": ["{more}"]}
    sweep = sweep_from_mapping(mapping)
    if draw(st.booleans()):
        jobs = len(compile_sweep(sweep, resolve=resolve))
        sweep = sweep_from_mapping({**mapping, "sample": draw(st.integers(1, jobs))})
    return sweep


@settings(deadline=None, max_examples=100)
@given(sweeps())
def test_the_axes_tell_what_checking_each_job_tells(sweep: Sweep) -> None:
    """The jobs counted by the values on the axes are those that fail one by one, and the first is the first."""
    plan = compile_sweep(sweep, resolve=resolve)
    found, one_by_one = certain_failures(plan, FACTS), failing_indices(plan)
    assert sum(failure.jobs for failure in found) == len(one_by_one)
    assert all(failure.exact for failure in found)
    assert min((failure.first for failure in found), default=None) == min(one_by_one, default=None)
    assert {failure.first for failure in found} <= one_by_one


@settings(deadline=None, max_examples=100)
@given(sweeps())
def test_what_is_said_to_leave_them_out_does(sweep: Sweep) -> None:
    """The `skip` of each reason leaves out its jobs and none that could be rendered."""
    plan = compile_sweep(sweep, resolve=resolve)
    found = certain_failures(plan, FACTS)
    skips = [failure.skip for failure in found]
    good = len(plan) - len(failing_indices(plan))
    if sweep.sample is not None or not good or not all(skips):
        return
    written = sweep.model_dump(mode="json", exclude_unset=True)
    left = compile_sweep(sweep_from_mapping({**written, "skip": skips}), resolve=resolve) if skips else plan
    assert (len(left), certain_failures(left, FACTS)) == (good, ())


def test_a_huge_plan_is_as_quick_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six hundred million jobs are counted by a few hundred values, without reading one job off the plan."""
    plan = compiled(
        scheduler=["flow_euler", "pndm_prk", "ddim", "lcm"],
        steps={"start": 1, "stop": 100, "step": 1},
        seed={"start": 0, "count": 1_500_000},
    )
    monkeypatch.setattr(Plan, "job", None)
    counted = {failure.skip: failure.jobs for failure in certain_failures(plan, FACTS)}
    assert counted == {
        "scheduler == 'flow_euler'": 150_000_000,
        "scheduler == 'pndm_prk' and steps < 4": 4_500_000,
        "scheduler == 'lcm' and steps > 50": 75_000_000,
    }


def test_a_sample_too_large_to_go_through_says_at_least() -> None:
    """Of a large sample some jobs are looked at, and the count says that it is a least one."""
    plan = compiled(scheduler=["flow_euler", "ddim"], seed={"start": 0, "count": 500_000}, sample=200_000)
    (failure,) = certain_failures(plan, FACTS)
    assert not failure.exact
    assert 4_000 < failure.jobs < 6_000
    with pytest.raises(SweepError, match=r"at least .* of 200,000 jobs"):
        refuse_certain_failures(plan, [failure])


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        ("sd", {"scheduler": "flow_euler"}, r"flow_euler is for models trained on the path 'flow'"),
        ("sd", {"scheduler": "pndm_prk", "steps": 2}, r"pndm_prk, steps=2: use 4 or more"),
        ("sd", {"scheduler": "tcd", "steps": 60}, r"tcd, steps=60: use 50 or fewer"),
        ("sd+sample", {"scheduler": "euler_a"}, r"euler_a does not take a model with prediction_type sample"),
        ("flux", {"size": 72}, r"width=72: flux \(FluxPipeline\) wants a multiple of 16, such as 64"),
        ("flux", {"scheduler": "ddim"}, r"ddim: it does not fit flux"),
        ("flux", {"scheduler": "flow_heun"}, r"flow_heun: it does not fit flux"),
        ("flux", {"guidance_rule": "apg", "negative_prompt": ""}, r"guidance_rule=.*flux .*remove it"),
        ("flux", {}, r"guidance_scale=7\.5: .* guided only with a negative prompt"),
        ("flux", {"guidance_scale": 1, "prompt": LONG * 2}, r"prompt: at least \d+ tokens, .* reads 5"),
        ("flux", {"negative_prompt": LONG * 2}, r"negative_prompt: at least \d+ tokens, .* reads 5"),
        ("lcm", {"scheduler": "lcm"}, r"guidance_scale=7\.5: .* is not guided; set guidance_scale: 1"),
        ("lcm", {"scheduler": "lcm", "negative_prompt": "x"}, r"negative_prompt: .* hears none"),
        ("lora", {}, r"model=lora: not a checkpoint"),
    ],
)
def test_each_reason_names_value_and_fix(model, fields, said):
    """Every kind of job that cannot be rendered is refused with the value, the reason and what to write instead."""
    base = {"scheduler": "flow_euler"} if model == "flux" else {}
    plan = compiled(model=model, **{**base, **fields})
    facts = {**FACTS, "sha:sd+sample": SD.read_as(Reading(prediction_type="sample"))}
    (failure,) = certain_failures(plan, facts)
    assert failure.jobs == 1
    with pytest.raises(SweepError, match=said):
        refuse_certain_failures(plan, [failure])


def test_what_is_not_known_is_not_refused():
    """Of a model without facts, and of a pipeline whose traits are not known, nothing is said."""
    plan = compiled(
        model=["elsewhere", "odd"], scheduler=["flow_euler", "ddim"], size=72, guidance_rule="apg"
    )
    assert certain_failures(plan, {"sha:elsewhere": ModelFacts(family="NewPipeline", guided=True)}) != ()
    assert (
        certain_failures(compiled(model="odd", size=72), {"sha:odd": ModelFacts(family="NewPipeline")}) == ()
    )


def test_words_are_the_least_tokens():
    """A word is a token or more; signs alone may be none."""
    assert count_words(" a  cat - on ... the\tmat ☃ ") == 5


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 51])
def test_the_worker_refuses_in_the_same_words(tiny_model, make_request, steps):
    """For every scheduler: what the producer calls certain the worker refuses, with the same text."""
    from worker.sampling.schedules.schedulers import make_scheduler

    model = tiny_model("sd1")
    for key in SCHEDULERS:
        values = make_job(
            width=64, height=64, scheduler=key, steps=steps, guidance_scale=5.0, guidance_rule=None,
            negative_prompt="b", prompt="a",
            seed=0, model="m",
        )  # fmt: skip
        problem = job_problem(SD, model.name, values)
        if problem is None:
            make_scheduler(model.scheduler_config, key, steps)
        else:
            with pytest.raises(JobInvalid) as refused:
                make_scheduler(model.scheduler_config, key, steps)
            assert str(refused.value) == problem.text


def test_a_plan_shows_what_fails_and_how_models_are_read():
    """The preview has a line for each reason with its skip, and for a model that is read by its marks or assumed."""
    assumed = ModelFacts(
        family="sd2",
        path="betas",
        prediction_type="v_prediction",
        assumed=True,
        source="the usual one",
        side_px=768,
    )
    marked = ModelFacts(
        family="sdxl", path="betas", prediction_type="v_prediction", source="the file has v_pred"
    )
    plan = compiled(model=["sd", "two", "noob"], scheduler=["ddim", "flow_euler"], size=256)
    seen = preview(plan, facts={"sha:sd": SD, "sha:two": assumed, "sha:noob": marked})
    out = io.StringIO()
    render_preview(seen, Console(file=out, width=200))
    assert "certain to fail: scheduler=flow_euler" in out.getvalue()
    assert '''skip: "model == 'sd' and scheduler == 'flow_euler'"''' in out.getvalue()
    assert "noob predicts v_prediction: the file has v_pred" in out.getvalue()
    (hint, *_) = [line for line in seen.warnings if "two" in line]
    assert "model: {name: two, prediction_type: epsilon}" in hint
    assert any("size 256x256 is far below" in line for line in seen.warnings)
    document = json.loads(json.dumps(seen.to_json()))
    assert [failure["jobs"] for failure in document["certain_failures"]] == [1, 1, 1]
    assert document["models"][2]["source"] == "the file has v_pred"
