"""The command line as a person uses it: real processes, real servers, exit codes and what is printed where."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from producer.language.complete import read_sweep_file
from producer.results.images import read_stored_image as stored_image
from producer.results.rows import manifest_rows
from shared.metadata import read_image
from shared.names import DEFAULT_MODEL
from shared.store.folder import FolderStore
from testing.random_weights import create_random_model
from training.portraits.detectors import read

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

#: Of an example with more jobs than that, a sample is rendered.
MOST_JOBS = 16
SAMPLE = "sample={count: 8, seed: 1}"

SMALL = {"name": "small", "prompt": ["a cat", "a dog"], "seed": [1, 2], "steps": 2}


def fresh_printroom(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end as a shell starts it, a local run's worker as well: seconds of imports."""
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )


def write_sweep(folder: Path, sweep: dict) -> str:
    """Write a sweep file; return its path."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return str(path)


def share_of_right_subjects(images: list[bytes]) -> float:
    """Return how many of the pictures in the default model's own size show whom the prompt names, on a plain ground."""
    right = []
    for image in images:
        job = read_image(image).job
        if (job.width, job.height) == (64, 64):
            with Image.open(io.BytesIO(image)) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            plain = pixels[2:14, 1:6].std(axis=(0, 1)).max() < 20
            right.append(plain and read(pixels).kind == re.search(r"\b(?:man|woman|cat)\b", job.prompt)[0])
    return sum(right) / len(right)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_renders(shared_fleet, example, long):
    """Each example is submitted, rendered and drawn as it stands, and shows whom its prompts name.

    Of the largest ones a sample of the jobs, but in a long run.
    """
    client = shared_fleet.client
    whole = long or len(client.compile(example)) <= MOST_JOBS
    sweep = client.submit(example if whole else read_sweep_file(example, settings=[SAMPLE])).sweep
    shared_fleet.wait_done(sweep)
    status = client.ledger.status(sweep)
    assert (status.failed, status.done) == (0, len(client.plan(sweep)))
    rows = manifest_rows(sweep, client.store)
    images = {row["job_id"]: stored_image(client.store, row) for row in rows}
    assert 0 < len(images) <= status.done
    assert share_of_right_subjects(list(images.values())) >= 0.75
    assert client.sheet(sweep).width > 100


@pytest.mark.parametrize("name", ["seeds", "formats", "shards"])
def test_an_example_renders_with_one_command_and_a_second_run_resumes(printroom, tmp_path, name, long):
    """No servers, one command: images and a sheet; the same command again finds them all and renders nothing."""
    fresh = name == "seeds"
    run = fresh_printroom if fresh else printroom
    part = ("--set", SAMPLE) if name == "shards" and not long else ()
    command = ("render", str(ROOT / "examples" / f"{name}.yaml"), "--out", str(tmp_path / "prints"), *part)
    first = run(*command, "--json")
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert (made["failed"], made["interrupted"]) == (0, False)
    assert made["done"] == made["jobs"] > 0
    assert first.stderr.startswith("starting a worker")
    assert "no live worker" not in first.stderr  # it is being started
    assert not fresh or "loading torch and diffusers" in first.stderr
    log = (tmp_path / "prints" / "worker.log").read_text()
    assert [
        line for line in log.splitlines() if not re.match(r"\d\d:\d\d:\d\d [A-Z]+ +\w|$|worker: ", line)
    ] == []
    files = {path: path.stat().st_mtime_ns for path in Path(made["images"]).rglob("*.*")}
    assert 0 < len(files) <= made["jobs"]
    with Image.open(made["sheet"]) as sheet:
        assert sheet.width > 100
    again = run(*command)
    assert (again.returncode, re.search(r"(\d+) of (\d+) done", again.stderr)[1]) == (0, str(made["jobs"]))
    assert {path: path.stat().st_mtime_ns for path in Path(made["images"]).rglob("*.*")} == files
    if name == "formats":  # what somebody has removed meanwhile is not believed to be there
        gone = next(path for path in files if path.suffix == ".webp")
        gone.unlink()
        once_more = printroom(*command)
        assert "1 job of an earlier run missing or damaged" in once_more.stderr
        assert gone.exists()


def test_a_worker_that_does_not_start_is_told_of(printroom, tmp_path):
    """The command ends at once, with what the worker said last and where its log is."""
    out = tmp_path / "prints"
    ended = printroom("render", write_sweep(tmp_path, SMALL), "--out", str(out), "--device", "cuda:63")
    assert ended.returncode == 1
    assert f"the worker ended with status 2; its last words ({out / 'worker.log'})" in ended.stderr
    assert "--device cuda:63" in ended.stderr


def test_models_by_their_paths_and_one_that_does_not_load(printroom, tmp_path):
    """A model by its path just works, with any characters in it; one that does not load fails its own jobs alone."""
    good = create_random_model(tmp_path / "my: models @ home" / "tiny", family="sd1")
    broken = create_random_model(tmp_path / "broken", family="sd1", seed=1)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights, metadata={"format": "pt"})  # whole, as a file
    sweep = {**SMALL, "size": "32x32", "model": [str(good), str(broken), DEFAULT_MODEL]}
    ended = printroom("render", write_sweep(tmp_path, sweep), "--out", str(tmp_path / "prints"), "--json")
    assert ended.returncode == 1, ended.stderr
    made = json.loads(ended.stdout)
    assert (made["done"], made["failed"], made["interrupted"]) == (8, 4, False)
    rows = [
        row
        for row in manifest_rows(made["sweep"], FolderStore(tmp_path / "prints"))
        if row["status"] == "failed"
    ]
    assert {(row["model_name"] or "", row["error_code"]) for row in rows} <= {
        ("broken", "model_load_failed"),
        ("", "model_load_failed"),
    }
    assert {"\n" in row["error"] for row in rows} == {False}
    assert "1 weights are missing" in rows[0]["error"]
    log = (tmp_path / "prints" / "worker.log").read_text()
    assert "Traceback" not in log + ended.stderr


def test_ctrl_c_drains_and_a_rerun_resumes(start_command, printroom, tiny_models, tmp_path):
    """Ctrl-C finishes the batch in hand and exits 130; the same command goes on and re-renders nothing."""
    many = {
        "model": str(tiny_models / "tiny"),
        "size": "32x32",
        "seed": {"start": 0, "count": 60},
        "steps": 8,
    }
    file = write_sweep(tmp_path, {**SMALL, **many})
    out = tmp_path / "prints"
    process = start_command("render", file, "--out", str(out), slow=0.05)
    deadline = time.monotonic() + 90
    while len(list(out.rglob("*.png"))) < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    kept = {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
    assert 8 <= len(kept) < 120
    done = printroom("render", file, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["done"], made["failed"]) == (120, 0)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list((out / "images").rglob("*.png"))) == 120


def test_fleet_verbs(fleet, printroom, tmp_path):
    """Submit, status, pause, resume, results, fetch, sheet, models, doctor: each says what it did, and exits 0."""
    run = lambda *arguments: printroom(*arguments, environment=fleet.environment)  # noqa: E731
    worker = fleet.start(PRINTROOM_STALL_SECONDS="5")
    fleet.wait_up()
    file = write_sweep(tmp_path, SMALL)
    seen = json.loads(run("plan", file, "--json").stdout)
    assert (seen["jobs"], seen["chunks"]) == (4, 1)
    submitted = run("submit", file)
    sweep = submitted.stdout.strip()
    assert (submitted.returncode, len(sweep)) == (0, 32)
    assert "known already" in run("submit", file).stderr
    done_at = time.monotonic()
    watched = run("status", "--watch")
    assert watched.returncode == 0, watched.stderr
    assert re.search(rf"{sweep[:12]} +small +done", watched.stdout)
    status = run("status", sweep[:8], "--json")
    assert (status.returncode, json.loads(status.stdout)["done"]) == (0, 4)
    assert "done: 4 of 4 done" in run("status", "small").stdout
    assert sweep[:12] in run("status").stdout
    rows = [
        json.loads(line)
        for line in run("results", sweep, "--json", "--where", "seed=2", "--urls").stdout.splitlines()
    ]
    assert [(row["seed"], row["prompt"], row["url"].startswith("http")) for row in rows] == [
        (2, "a cat", True),
        (2, "a dog", True),
    ]
    fetched = run("fetch", sweep, str(tmp_path / "home"), "--json")
    assert json.loads(fetched.stdout)["fetched"] == 4
    assert json.loads(run("fetch", sweep, str(tmp_path / "home"), "--json").stdout)["skipped"] == 4
    assert len((tmp_path / "home" / "metadata.jsonl").read_text().splitlines()) == 4
    drawn = run("sheet", sweep, "-o", str(tmp_path / "sheet.png"), "--rows", "prompt", "--cols", "seed")
    assert (drawn.returncode, (tmp_path / "sheet.png").read_bytes()[:4]) == (0, b"\x89PNG")
    assert DEFAULT_MODEL in run("models").stdout
    assert "# Portraits" in run("models", DEFAULT_MODEL).stdout
    doctor = run("doctor")
    assert (doctor.returncode, "BAD" in doctor.stdout) == (0, False), doctor.stdout
    # The verbs above took longer than an idle worker was once allowed to live.
    fleet.wait_for(lambda: time.monotonic() - done_at > 8, 10, "an idle worker's old end")
    assert worker.poll() is None
    assert fleet.client.ledger.workers()


def test_pause_cancel_retry_and_no_worker(fleet, printroom, tmp_path):
    """Without a worker the status says so; pause, resume, cancel and retry answer with the state they made."""
    run = lambda *arguments: printroom(*arguments, environment=fleet.environment)  # noqa: E731
    fingerprint = "sha:" + "0" * 32
    sweep = run("submit", write_sweep(tmp_path, {**SMALL, "model": fingerprint})).stdout.strip()
    assert "no live worker: start one" in run("status", sweep).stdout
    assert run("pause", sweep).stdout.strip() == "paused"
    assert "paused" in run("status", sweep).stdout
    assert run("resume", sweep).stdout.strip() == "active"
    fleet.start()
    fleet.wait_up()
    assert f"no live worker has model {fingerprint}" in run("status", sweep).stdout
    assert run("cancel", sweep).stdout.strip() == "cancelled"
    assert "0 jobs" in run("retry", sweep).stdout
    assert run("priority", sweep, "5").returncode == 0
    assert fleet.client.ledger.status(sweep).priority == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status", "0" * 32), "no such sweep"),
        (("fetch", "nothing", "x"), "no such sweep"),
        (("results", "0" * 32), "no such sweep"),
        (("resume", "0" * 32), "no such sweep"),
        (("plan", "missing.yaml"), "missing.yaml"),
        (("statu",), "No such command"),
    ],
)
def test_what_is_not_there_is_an_error(fleet, printroom, arguments, said):
    """An unknown sweep, file or verb is one clear error and exit status 2, never "done"."""
    answer = printroom(*arguments, environment=fleet.environment)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_bad_sweep_submits_nothing(fleet, printroom, tmp_path):
    """A sweep with mistakes is one error that names line, field and fix; nothing is in the store or in Redis."""
    path = tmp_path / "bad.yaml"
    path.write_text("prompt: a cat\nstep: 20\nsize: 63\nsteps: 0\n")
    answer = printroom("submit", str(path), environment=fleet.environment)
    assert answer.returncode == 2
    assert re.search(r"bad.yaml, line 2: .*'step'.*did you mean 'steps'", answer.stderr)
    assert "line 3: size=63" in answer.stderr
    assert "line 4: steps=0: use 1 or more" in answer.stderr
    assert (fleet.client.ledger.sweeps(), list(fleet.client.store.list(""))) == ([], [])


def test_very_large_sweep_wants_a_yes(fleet, printroom, tmp_path):
    """A sweep of ten million and one jobs asks before anything is submitted; --yes submits it at once."""
    file = write_sweep(
        tmp_path,
        {**SMALL, "model": "sha:" + "1" * 32, "prompt": "a", "seed": {"start": 0, "count": 10_000_001}},
    )
    refused = printroom("submit", file, environment=fleet.environment)
    assert (refused.returncode, "--yes" in refused.stderr, fleet.client.ledger.sweeps()) == (2, True, [])
    agreed = printroom("submit", file, "--yes", environment=fleet.environment)
    assert agreed.returncode == 0, agreed.stderr
    assert fleet.client.ledger.status(agreed.stdout.strip()).jobs == 10_000_001


def test_servers_that_are_not_there(printroom, tmp_path):
    """Without Redis each verb says so and what to do; no traceback, no password."""
    environment = {"PRINTROOM_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0", "PRINTROOM_STORE": str(tmp_path)}
    answer = fresh_printroom("status", "abcd", environment=environment)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "Redis does not answer" in answer.stderr
    assert not re.search("Traceback|hunter2", answer.stderr)
    doctor = printroom("doctor", environment=environment)
    assert doctor.returncode == 1
    assert "BAD broker" in doctor.stdout


def test_help_needs_nothing_heavy():
    """`printroom --help` imports no torch, Celery, boto3, pyarrow or pydantic: it answers at once."""
    code = (
        "import sys, producer.cli\n"
        "try: producer.cli.cli.main(['--help'], standalone_mode=False)\n"
        "finally: print(sorted({'torch', 'celery', 'boto3', 'pyarrow', 'pydantic', 'rich', 'PIL'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real prompt sets are not here")
@pytest.mark.parametrize(
    ("kind", "name"), [("partiprompts", "PartiPrompts.tsv"), ("geneval", "evaluation_metadata.jsonl")]
)
def test_real_prompt_sets(fleet, printroom, tmp_path, kind, name):
    """PartiPrompts and GenEval go through convert, plan and submit whole, and a slice of 64 is rendered."""
    fleet.start()
    fleet.wait_up()
    (source,) = DATA.rglob(name)
    converted = subprocess.run(
        [sys.executable, "-m", "producer.convert", kind, str(source)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    file = tmp_path / f"{kind}.yaml"
    file.write_text(converted.stdout)
    seen = json.loads(printroom("plan", str(file), "--json", environment=fleet.environment).stdout)
    assert seen["jobs"] >= 500
    plan = fleet.client.compile(file)
    sweep = yaml.safe_load(converted.stdout)
    field = "prompt" if isinstance(sweep.get("prompt"), list) else "cases"
    assert set(plan.label_names) == {"partiprompts": {"Category", "Challenge"}, "geneval": {"tag"}}[kind]
    del sweep["labels"]  # one for each prompt of the whole set
    part = fleet.client.submit({**sweep, field: sweep[field][:64], "steps": 2}).sweep
    fleet.wait_done(part)
    assert (fleet.client.ledger.status(part).done, len(list(fleet.client.results(part)))) == (64, 64)
    whole = fleet.client.submit(file)
    fleet.client.cancel(whole.sweep)
    assert (whole.jobs, whole.outcome) == (len(plan), "new")
