"""A sweep becomes files: the right jobs, each with what has become of it, in the kind of file that was asked for."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from producer import cli
from producer.client import Printroom
from producer.results.where import parse_where
from producer.sheet import Cell
from producer.sheet import sweep_sheet as sheets
from producer.sheet.sweep_sheet import Live, look, sweep_sheet, write_sheet
from shared import names
from shared.errors import BrokerUnavailable, UsageError
from shared.manifest import write_manifest
from shared.plan import Block, Bucket, ListAxis, Plan, SeedRange
from shared.result import Done, Failed, Provenance, StoredImage
from shared.store.folder import FolderStore

SWEEP = "5" * 32
MADE_BY = Provenance(
    model_name="tiny", device="cpu", dtype="float32", batch_rows=2, prompt_tokens=1, negative_tokens=0, versions={}
)  # fmt: skip


def make_plan(seeds: int = 4, jobs_per_chunk: int = 4) -> Plan:
    """Return a plan of three negatives times some seeds; with four seeds each negative is a chunk."""
    axes = (
        ListAxis(fields=("prompt", "steps", "scheduler", "guidance_scale"), values=(("a", 4, "ddim", 5.0),)),
        ListAxis(
            fields=("negative_prompt", "guidance_rule"), values=((None, None), ("", None), ("hat", None))
        ),
        SeedRange(start=0, count=seeds),
    )
    block = Block(
        bucket=Bucket(model="sha:abc", width=64, height=64), axes=(0, 1, 2), jobs_per_chunk=jobs_per_chunk
    )
    return Plan(name="faces", models={"sha:abc": "tiny"}, axes=axes, blocks=(block,))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A store whose sweep has done its first chunk, where the last job failed."""
    store, plan, rows = FolderStore(tmp_path / "store"), make_plan(), []
    for index, job in plan.jobs(0, 4):
        common: dict[str, Any] = {"index": index, "job": job, "attempt": 1, "worker": "w"}
        common["finished_at"] = datetime.now(UTC)
        if index == 3:
            rows.append(Failed(code="job_crashed", reason="by hand", **common))
            continue
        data = io.BytesIO()
        Image.new("RGB", (64, 64), (60 * index, 200, 0)).save(data, "PNG")
        content, key = data.getvalue(), names.image_key(job.id)
        store.put(key, content, content_type="image/png")
        image = StoredImage(
            key=key,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            provenance=MADE_BY,
        )
        rows.append(Done(image=image, reused=False, sample_seconds=0.1, **common))
    manifest = write_manifest(rows, sweep=SWEEP, chunk=0)
    store.put(names.manifest_key(SWEEP, 0), manifest, content_type="application/vnd.apache.parquet")
    return store


@pytest.mark.parametrize(
    ("live", "states"),
    [
        (None, ["missing", "missing"]),
        (Live(state="active", running=frozenset({1})), ["running", "waiting"]),
        (Live(state="paused", running=frozenset({1})), ["running", "paused"]),
        (Live(state="cancelled", running=frozenset({1})), ["cancelled", "cancelled"]),
        (Live(state="done", running=frozenset()), ["missing", "missing"]),
        (Live(state="rebuilding", running=frozenset()), ["waiting", "waiting"]),
    ],
)
def test_what_is_not_made_is_what_redis_says_of_it(
    store: FolderStore, live: Live | None, states: list[str]
) -> None:
    """A manifest decides first; of the rest, the sweep's state and the chunks in hand."""
    cells = sheets._cells(SWEEP, make_plan(), store, {}, live, jobs_max=100)
    assert [one.state for one in cells[:4]] == ["done", "done", "done", "failed"]
    assert cells[3].reason == "job_crashed: by hand"
    assert [one.state for one in cells[4:]] == [states[0]] * 4 + [states[1]] * 4
    assert [one.job for one in cells] == [job for _, job in make_plan().jobs()]


def test_redis_is_asked_and_may_be_away() -> None:
    """The chunks of this sweep in live hands count; without Redis a sheet is drawn all the same."""
    workers = [
        SimpleNamespace(chunks=[f"{SWEEP}/7", "6" * 32 + "/8"]),
        SimpleNamespace(chunks=[f"{SWEEP}/2"]),
    ]
    ledger: Any = SimpleNamespace(state=lambda sweep: "active", workers=lambda: workers)
    assert look(SWEEP, ledger) == Live(state="active", running=frozenset({2, 7}))
    ledger.state = lambda sweep: None
    assert look(SWEEP, ledger) is None

    def away(sweep: str) -> None:
        raise BrokerUnavailable("no Redis")

    ledger.state = away
    assert look(SWEEP, ledger) is None


def test_a_png_a_page_and_a_folder_are_written(store: FolderStore, tmp_path: Path) -> None:
    """The name of what is asked for says the kind of sheet."""
    plan, home = make_plan(), tmp_path / "home"
    picture = write_sheet(SWEEP, plan, store, home / "a.png")
    assert (picture.paths, picture.jobs) == ([home / "a.png"], 12)
    with Image.open(home / "a.png") as image:
        assert image.width > 4 * 192
    page = write_sheet(SWEEP, plan, store, home / "a.html")
    assert page.first.read_text(encoding="utf-8").count("<figure") == 12
    folder = write_sheet(SWEEP, plan, store, home / "tiles")
    assert [path.name for path in folder.paths] == ["index.html", "sheet-r0-c0.png"]


def test_a_png_that_is_too_large_becomes_tiles_beside_it(store: FolderStore, tmp_path: Path) -> None:
    """Nothing is shrunk: the picture that was asked for is several, and a page shows them."""
    told: list[int | None] = []
    written = write_sheet(
        SWEEP, make_plan(), store, tmp_path / "big.png", max_pixels=450_000, on_part=told.append
    )
    assert written.first == tmp_path / "big-tiles.html"
    assert len(written.paths) == len(told) + 1 > 2
    assert written.paths[1].name == "big-r0-c0.png"
    assert not (tmp_path / "big.png").exists()


def test_fields_chosen_and_given(store: FolderStore, tmp_path: Path) -> None:
    """Without a word the axes that vary are the sides; what is given is kept, and nested."""
    jobs = [Cell(job=job, state="missing") for _, job in make_plan().jobs()]
    assert sheets._layout(jobs, None, None) == (("negative_prompt",), ("seed",))
    assert sheets._layout(jobs, "seed", None) == (("seed",), ("negative_prompt",))
    assert sheets._layout(jobs, None, "negative_prompt,seed") == (("prompt",), ("negative_prompt", "seed"))
    assert (
        sweep_sheet(SWEEP, make_plan(), store, rows=None, columns="negative_prompt,seed", where={}).width
        > 2000
    )


def test_conditions_choose_jobs(store: FolderStore) -> None:
    """--where compares as it does elsewhere, and an empty choice is said in its own words."""
    plan = make_plan()
    for conditions, count in (
        (["seed>=2"], 6),
        (["negative_prompt=null"], 4),
        (["negative_prompt!=null"], 8),
    ):
        cells = sheets._cells(SWEEP, plan, store, parse_where(conditions), None, jobs_max=100)
        assert (conditions, len(cells)) == (conditions, count)
    with pytest.raises(UsageError, match="no job of this sweep has seed=9"):
        sheets._cells(SWEEP, plan, store, parse_where(["seed=9"]), None, jobs_max=100)
    with pytest.raises(UsageError, match="no field 'status' to choose jobs by"):
        sheets._cells(SWEEP, plan, store, parse_where(["status=done"]), None, jobs_max=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diff": {"seed": 9}}, "--diff seed: no job on the sheet has '9'; there are: 0, 1, 2, 3"),
        ({"diff": {"seed": 0, "steps": 4}}, "--diff seed=0 steps=4: write one field=value"),
        ({"diff": parse_where(["seed>=1"])}, "--diff seed>=1: write one field=value"),
        ({"rows": "sed"}, "unknown field 'sed': did you mean 'seed'?"),
        ({"out": "sheet.gif"}, "sheet.gif: a sheet is a .png, a .html or a folder"),
    ],
)
def test_wrong_wishes_are_mended(
    store: FolderStore, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """What cannot be drawn is refused in words that help."""
    out = tmp_path / options.pop("out", "a.png")
    with pytest.raises(UsageError) as caught:
        write_sheet(SWEEP, make_plan(), store, out, **options)
    assert message in str(caught.value)


def test_a_baseline_is_drawn(store: FolderStore, tmp_path: Path) -> None:
    """--diff reaches picture and page."""
    plan = make_plan()
    plain = sweep_sheet(SWEEP, plan, store, rows=None, columns=None, where={})
    compared = sweep_sheet(SWEEP, plan, store, rows=None, columns=None, where={}, diff={"seed": 0})
    assert compared.height > plain.height + 500
    page = write_sheet(SWEEP, plan, store, tmp_path / "a.html", diff={"seed": 0})
    assert 'class="done baseline"' in page.first.read_text(encoding="utf-8")
    assert "diff 20.0" in page.first.read_text(encoding="utf-8")


def test_too_many_jobs_are_refused_with_a_way_out(store: FolderStore, tmp_path: Path) -> None:
    """A page takes 20,000 jobs and tiles ten times as many; the error of the one names the other."""
    plan = make_plan(seeds=7_000)
    with pytest.raises(UsageError, match=r"more than 20,000 jobs .*up to 200,000 as tiles into a folder"):
        write_sheet(SWEEP, plan, store, tmp_path / "a.html")
    assert len(sheets._choose(plan, {}, sheets.TILED_JOBS_MAX)) == 21_000
    with pytest.raises(UsageError, match="more than 200,000 jobs"):
        sheets._choose(make_plan(seeds=70_000), {}, sheets.TILED_JOBS_MAX)


@pytest.fixture
def client(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> Printroom:
    """A client of that store, whose Redis is away."""
    client = Printroom()
    monkeypatch.setattr(client, "find", lambda sweep, in_store=False: SWEEP)
    monkeypatch.setattr(client, "plan", lambda sweep: make_plan())
    client.__dict__["store"] = store

    def away(sweep: str) -> None:
        raise BrokerUnavailable("no Redis")

    client.__dict__["ledger"] = SimpleNamespace(state=away)
    monkeypatch.setattr(cli, "_client", lambda: client)
    return client


def test_the_verb_writes_what_it_says(client: Printroom, tmp_path: Path) -> None:
    """The command line's options reach the sheet; stdout is the file to open."""
    out = tmp_path / "new folder" / "a.html"
    options = ["--rows", "negative_prompt,seed", "--cols", "prompt", "--where", "seed<3", "--thumb", "32"]
    done = CliRunner().invoke(
        cli.cli, ["sheet", "faces", "-o", str(out), *options, "--diff", "negative_prompt=null"]
    )
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    text = out.read_text(encoding="utf-8")
    assert text.count("<figure") == 9
    assert 'width="32" height="32"' in text
    assert "difference from negative (no negative)" in text
    tiles = tmp_path / "tiles"
    done = CliRunner().invoke(cli.cli, ["sheet", "faces", "-o", str(tiles), "--max-pixels", "450000"])
    assert (done.exit_code, done.stdout) == (0, f"{tiles / 'index.html'}\n")
    assert len(list(tiles.glob("sheet-r*-c*.png"))) > 1


def test_a_room_draws_one_picture(client: Printroom) -> None:
    """From Python a sheet is a picture, with the same choices."""
    image = client.sheet("faces", rows="seed", columns="negative_prompt", where={"seed": 1}, thumb_px=50)
    assert image.size == sheets.sweep_sheet(
        SWEEP, make_plan(), client.store, rows="seed", columns="negative_prompt", where={"seed": 1}, thumb_px=50
    ).size  # fmt: skip
