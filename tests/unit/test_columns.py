"""Tables of other programs, and Printroom's own, are sweeps: their columns are known, and what has no equal is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from producer.language.complete import SweepFile, read_sweep_file
from producer.language.prompt_files.tables import read_table
from producer.language.sweep import sweep_of
from producer.planning.compile import compile_sweep
from producer.results.rows import manifest_rows, to_json_line
from shared import names
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel
from shared.manifest import write_manifest
from shared.plan import Plan
from shared.result import Failed
from shared.store.folder import FolderStore

DATA = Path(__file__).parents[3] / "shared" / "data"

#: As the dataset's page shows its metadata.
DIFFUSIONDB = {
    "image_name": ["a.png", "b.png", "c.png"],
    "prompt": ["a portrait of a {cat}", "doom eternal", "NA"],
    "part_id": pa.array([1, 1, 2], pa.uint16()),
    "seed": pa.array([2615452719, 3312523387, 0], pa.uint32()),
    "step": pa.array([50, 20, 50], pa.uint16()),
    "cfg": pa.array([7.0, 7.5, 12.0], pa.float32()),
    "sampler": pa.array([8, 3, 1], pa.uint8()),
    "width": pa.array([512, 1024, 512], pa.uint16()),
    "height": pa.array([512, 640, 576], pa.uint16()),
    "user_name": ["u", "v", None],
    "timestamp": pa.array([datetime(2022, 8, 7, tzinfo=UTC)] * 3, pa.timestamp("ms", tz="UTC")),
    "image_nsfw": pa.array([0.1, 2.0, float("nan")], pa.float32()),
    "prompt_nsfw": pa.array([0.1, 0.2, 0.3], pa.float32()),
}


def planned(folder: Path, text: str) -> SweepFile:
    """Write a sweep and read it with all that it names, or raise what is wrong with it."""
    (folder / "sweep.yaml").write_text(text)
    file = read_sweep_file(folder / "sweep.yaml")
    sweep_of(file)
    return file


def group(folder: Path, text: str) -> dict[str, Any]:
    """Return the zip group of a sweep."""
    value: dict[str, Any] = planned(folder, text).document.value["zip"]
    return value


def written(folder: Path, records: list[dict[str, Any]], name: str = "t.jsonl") -> None:
    """Write records, a line each."""
    (folder / name).write_text("\n".join(map(json.dumps, records)))


def test_diffusiondb_is_a_sweep(tmp_path: Path) -> None:
    """The metadata table of the dataset goes in as it is: numbers of samplers, sides, names; and `plan` says how."""
    parquet.write_table(pa.table(DIFFUSIONDB), tmp_path / "metadata.parquet")
    file = planned(tmp_path, "zip: {file: metadata.parquet}")
    assert {
        "prompt": ["a portrait of a {cat}", "doom eternal", "NA"],
        "seed": [2615452719, 3312523387, 0],
        "steps": [50, 20, 50],
        "guidance_scale": [7.0, 7.5, 12.0],
        "scheduler": ["lms", "euler", "ddim"],
        "size": ["512x512", "1024x640", "512x576"],
    } == file.document.value["zip"]
    said = file.files[0].read_as
    assert "'sampler' taken as scheduler" in said
    assert "'width' and 'height' taken as size" in said
    assert any("image_name, part_id, user_name, timestamp, image_nsfw, prompt_nsfw" in note for note in said)


def test_a_key_of_the_sweep_replaces_a_column_of_another_name(tmp_path: Path) -> None:
    """What the sweep says itself is meant; the column that would say it is left out, and that is said."""
    parquet.write_table(pa.table(DIFFUSIONDB), tmp_path / "t.parquet")
    file = planned(tmp_path, "zip: {file: t.parquet}\nscheduler: euler\nsteps: 4\nsize: 64")
    assert {"prompt", "seed", "guidance_scale"} == set(file.document.value["zip"])
    assert "'sampler' left out: the sweep says scheduler itself" in file.files[0].read_as


def test_a_sampler_without_an_equal_is_refused(tmp_path: Path) -> None:
    """DiffusionDB's 9 is "others": the row is named, and what to do."""
    table = pa.table({**DIFFUSIONDB, "sampler": pa.array([8, 9, 12], pa.uint8())})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SweepError) as caught:
        planned(tmp_path, "zip: {file: t.parquet}")
    first, second = caught.value.problems
    assert first.startswith(
        "t.parquet, row 2: scheduler=9 is 'others' in DiffusionDB: remove the row, or name the "
    )
    assert second.startswith("t.parquet, row 3: scheduler=12 is none of DiffusionDB's samplers (1 to 8): ")


def test_the_json_beside_diffusiondbs_images_is_a_sweep(tmp_path: Path) -> None:
    """A part's JSON is a mapping of images to short keys."""
    part = {"a.png": {"p": "a cat", "se": 7, "c": 7.0, "st": 50, "sa": "k_lms"}}
    (tmp_path / "part.json").write_text(json.dumps(part))
    expected = {
        "prompt": ["a cat"],
        "seed": [7],
        "guidance_scale": [7.0],
        "steps": [50],
        "scheduler": ["lms"],
    }
    assert expected == group(tmp_path, "zip: {file: part.json}")


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("k_lms", "lms"),
        ("k_euler_ancestral", "euler_a"),
        ("k_euler_a", "euler_a"),
        ("k_dpm_2_ancestral", "kdpm2_a"),
        ("plms", "pndm"),
        ("PLMS", "pndm"),
        ("ddim", "ddim"),
        ("Euler a", "euler_a"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("uni_pc", "unipc"),
        ("dpm_2", "kdpm2"),
        ("dpmpp_2m_sde_k", "dpmpp_2m_sde_karras"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
    ],
)
def test_names_of_samplers(tmp_path: Path, name: str, scheduler: str) -> None:
    """k-diffusion's, ComfyUI's, InvokeAI's and A1111's names are schedulers here."""
    written(tmp_path, [{"prompt": "a", "sampler_name": name}])
    assert (scheduler,) == tuple(
        row[1] for row in sweep_of(planned(tmp_path, "zip: {file: t.jsonl}")).zip[0].rows
    )


def test_a1111s_log_is_a_sweep(tmp_path: Path) -> None:
    """log.csv beside A1111's saved images: its own names for scale and sampler, and an empty negative."""
    (tmp_path / "log.csv").write_text(
        "prompt,seed,width,height,sampler,cfgs,steps,filename,negative_prompt\n"
        '"a cat, wet",3189012345,512,768,Euler a,7.0,20,00000-1.png,\nb,1,512,512,DDIM,5.5,30,2.png,blurry\n'
    )
    assert {
        "prompt": ["a cat, wet", "b"],
        "seed": [3189012345, 1],
        "size": ["512x768", "512x512"],
        "scheduler": ["Euler a", "DDIM"],
        "guidance_scale": [7.0, 5.5],
        "steps": [20, 30],
        "negative_prompt": [None, "blurry"],
    } == group(tmp_path, "zip: {file: log.csv}")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"Prompt": "a", "Negative prompt": "b", "CFG scale": 7.5, "Steps": 20, "Sampler": "Euler", "Size": "64x64"},
            {"prompt": "a", "negative_prompt": "b", "guidance_scale": 7.5, "steps": 20, "scheduler": "Euler",
             "size": "64x64"},
        ),
        (
            {"prompt": "a", "negativePrompt": "b", "cfgScale": 7, "sampler": "Euler a", "clipSkip": 2},
            {"prompt": "a", "negative_prompt": "b", "guidance_scale": 7, "scheduler": "Euler a"},
        ),
        (
            {"positive_prompt": "a", "negative_prompt": "", "cfg_scale": 6, "scheduler": "euler_k", "model": {"k": 1}},
            {"prompt": "a", "negative_prompt": "", "guidance_scale": 6, "scheduler": "euler_karras"},
        ),
        ({"file_name": "a.png", "text": "a cat"}, {"prompt": "a cat"}),
        ({"file_name": "a.png", "caption": "a cat", "train_resolution": [512, 512]}, {"prompt": "a cat"}),
        ({"prompt": "a", "num_inference_steps": 9, "guidance": 3}, {"prompt": "a", "steps": 9, "guidance_scale": 3}),
        ({" prompt ": "a", "Width": 64, "HEIGHT": 128}, {"prompt": "a", "size": "64x128"}),
    ],
)  # fmt: skip
def test_names_of_columns(tmp_path: Path, record: dict[str, Any], expected: dict[str, Any]) -> None:
    """Infotext, Civitai, InvokeAI, Hugging Face, kohya and diffusers; case and spaces do not matter."""
    written(tmp_path, [record])
    assert {name: [value] for name, value in expected.items()} == group(tmp_path, "zip: {file: t.jsonl}")


def test_civitais_answer_and_kohyas_metadata(tmp_path: Path) -> None:
    """Records under `items` with their recipe in `meta`, and captions under the names of images."""
    item = {"id": 1, "width": 512, "height": 64, "meta": {"prompt": "a", "seed": 3, "cfgScale": 7}}
    (tmp_path / "t.json").write_text(json.dumps({"items": [item], "metadata": {"nextPage": "x"}}))
    expected = {"size": ["512x64"], "prompt": ["a"], "seed": [3], "guidance_scale": [7]}
    assert expected == group(tmp_path, "zip: {file: t.json}")
    (tmp_path / "t.json").write_text(json.dumps({"a.png": {"caption": "a cat"}, "b.png": {"caption": "b"}}))
    assert {"prompt": ["a cat", "b"]} == group(tmp_path, "zip: {file: t.json}")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "a", "cfg": 7, "cfg_scale": 8}, "has 'cfg' and 'cfg_scale', and each may be the guidance_scale: "
         "say which: columns: {guidance_scale: 'cfg'}"),
        ({"text": "a", "caption": "b"}, "has 'text' and 'caption', and each may be the prompt: say which: columns: "),
        ({"color": "a", "n": 1}, "has the columns 'color', 'n': say what they are: 'columns: {prompt: ...}'"),
        ({"prompt": "a", "negtive_prompt": "b"}, "has a column 'negtive_prompt': did you mean 'negative_prompt'?"),
        ({"prompt": "a", "seeds": 3}, "has a column 'seeds': did you mean 'seed'? rename it, or name the columns"),
        ({"prompt": ["a"]}, "has a list in the column 'prompt'"),
    ],
)  # fmt: skip
def test_what_may_be_two_things_is_refused(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    """Two columns for one field are not chosen between."""
    written(tmp_path, [record])
    with pytest.raises(SweepError) as caught:
        planned(tmp_path, "zip: {file: t.jsonl}")
    assert said in caught.value.problems[0]


def test_columns_that_fill_holes_are_vars_and_the_others_are_left(tmp_path: Path) -> None:
    """A column is a var where a text has its hole, under whatever name; nobody asks for the rest."""
    (tmp_path / "t.csv").write_text(
        "prompt,step,mood,note\na {step} {mood},one,calm,x\nb {step} {mood},two,wild,y\n"
    )
    file = planned(tmp_path, "zip: {file: t.csv}")
    assert {"prompt", "step", "mood"} == set(file.document.value["zip"])
    assert ("commas", "labels: note") == file.files[0].read_as
    assert {"prompt", "step", "mood", "note"} == set(read_table(tmp_path / "t.csv").values)


def test_named_columns_may_be_sides_and_other_programs_names(tmp_path: Path) -> None:
    """A list of columns takes them as what they are called; a mapping makes a size of a width and a height."""
    written(tmp_path, [{"p": "a", "w": 64, "h": 128, "cfg": 3, "prompt": "b", "width": 8, "height": 16}])
    found = group(tmp_path, "zip: {file: t.jsonl, columns: {prompt: p, width: w, height: h}}")
    assert {"prompt": ["a"], "size": ["64x128"]} == found
    found = group(tmp_path, "zip: {file: t.jsonl, columns: [prompt, cfg, width, height]}")
    assert {"prompt": ["b"], "guidance_scale": [3], "size": ["8x16"]} == found
    with pytest.raises(SweepError, match="width and height make a size together: name both"):
        planned(tmp_path, "zip: {file: t.jsonl, columns: {prompt: p, width: w}}")


def test_a_single_axis_finds_its_column_by_other_names(tmp_path: Path) -> None:
    """`steps: {file}` finds `step`, and `column:` finds a name in another case."""
    written(tmp_path, [{"prompt": "a", "step": 9, "CFG scale": 3}])
    text = "prompt: a\nsteps: {file: t.jsonl}\nguidance_scale: {file: t.jsonl, column: cfg scale}"
    value = planned(tmp_path, text).document.value
    assert ([9], [3]) == (value["steps"], value["guidance_scale"])


@pytest.mark.parametrize(
    ("name", "count"),
    [("partiprompts/PartiPrompts.tsv", 1632), ("geneval/evaluation_metadata.jsonl", 553)],
)
def test_published_sets_are_sweeps_as_they_are(tmp_path: Path, name: str, count: int) -> None:
    """A zip group of the published file takes its prompts, and leaves what a job has no place for."""
    if not (DATA / name).exists():
        pytest.skip("the published prompts are not beside the repository")
    (tmp_path / Path(name).name).symlink_to(DATA / name)
    found = group(tmp_path, f"zip: {{file: {Path(name).name}}}")
    assert ({"prompt"}, count) == (set(found), len(found["prompt"]))


# --- Printroom's own rows -----------------------------------------------------------------------------------

_SWEEP = """
prompt: [a cat, "a {worker} in braces", "  edge\\u2028 ", ""]
negative_prompt: [null, "", "blurry, {status}"]
guidance_rule: [null, {rescale: 0.00001}, {rule: perp_neg, negatives: {hat: 0.5}}, {interval: [0.1, 0.8]}]
seed: [0, 18446744073709551615]
guidance_scale: [7.1, 1]
steps: [5, 9]
scheduler: [euler_a, dpmpp_2m_karras]
size: [64x128]
model: "sha:0123456789abcdef0123456789abcdef"
where: steps == 5 or seed == 0
"""


def _plan(path: Path) -> Plan:
    return compile_sweep(
        sweep_of(read_sweep_file(path)), resolve=lambda name: ResolvedModel(name="m", fingerprint=name)
    )


@pytest.mark.parametrize("name", ["rows.parquet", "metadata.jsonl", "parts"])
def test_own_rows_give_the_same_jobs(tmp_path: Path, name: str) -> None:
    """Manifests and what `fetch` writes go in as a sweep whose jobs have the ids that they had."""
    (tmp_path / "first.yaml").write_text(_SWEEP)
    jobs = [job for _, job in _plan(tmp_path / "first.yaml").jobs()]
    rows = [
        Failed(
            index=index,
            job=job,
            code="x",
            reason="y",
            worker="w",
            attempt=1,
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for index, job in enumerate(jobs)
    ]
    half = len(rows) // 2
    chunks = [
        write_manifest(part, sweep="ab" * 16, chunk=chunk)
        for chunk, part in enumerate((rows[:half], rows[half:]))
    ]
    text = f"zip: {{file: {name}}}"
    if name == "rows.parquet":
        (tmp_path / name).write_bytes(write_manifest(rows, sweep="ab" * 16, chunk=0))
    elif name == "parts":
        for chunk, data in enumerate(chunks):
            (tmp_path / f"part-{9 + chunk}.parquet").write_bytes(data)
        text = "zip: {file: 'part-*.parquet'}"
    else:
        store = FolderStore(tmp_path / "store")
        for chunk, data in enumerate(chunks):
            store.put(names.manifest_key("ab" * 16, chunk), data, content_type="application/octet-stream")
        lines = [to_json_line({**row, "file_name": None}) for row in manifest_rows("ab" * 16, store)]
        assert len(rows) == len(lines)
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "again.yaml").write_text(text)
    assert {job.id for job in jobs} == {job.id for _, job in _plan(tmp_path / "again.yaml").jobs()}


def test_columns_of_one_name_that_nobody_takes_hide_no_table(tmp_path: Path) -> None:
    """They are left out with a note; whoever names one, in a hole or by hand, is told to rename them."""
    (tmp_path / "t.csv").write_text("prompt,note,note\na cat,x,y\n")
    file = planned(tmp_path, "zip: {file: t.csv}\n")
    assert {"prompt": ["a cat"]} == file.document.value["zip"]
    assert ["t.csv: several columns are called 'note', and are left out: rename them to use them"] == list(
        file.notes
    )
    for text in ("{file: t.csv, columns: {prompt: note}}", "{file: t.csv}\nnegative_prompt: '{note}'"):
        with pytest.raises(SweepError, match="has several columns called 'note': rename all but one"):
            planned(tmp_path, f"zip: {text}\n")
    table = pa.table([pa.array(["a cat"])] * 3, names=["prompt", "x", "x"])
    parquet.write_table(table, tmp_path / "t.parquet")
    assert {"prompt": ["a cat"]} == group(tmp_path, "zip: {file: t.parquet}\n")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**62, 0], pa.timestamp("us")),
        pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus")),
        pa.array([b"\xff", b"b"]).view(pa.string()),
    ],
    ids=["a date beyond all dates", "a time zone that nobody knows", "a text that is not UTF-8"],
)
def test_a_parquet_column_that_python_has_no_values_for_is_left_out(tmp_path: Path, column: pa.Array) -> None:
    """It stands beside the prompts, which are read; where it is the prompt it is refused by its name."""
    parquet.write_table(pa.table({"prompt": ["a", "b"], "odd": column}), tmp_path / "t.parquet")
    file = planned(tmp_path, "zip: {file: t.parquet}\n")
    assert {"prompt": ["a", "b"]} == file.document.value["zip"]
    assert ("'odd' left out: it has binary data in it",) == file.files[0].read_as
    parquet.write_table(pa.table({"prompt": column}), tmp_path / "t.parquet")
    with pytest.raises(SweepError, match="binary data"):
        planned(tmp_path, "zip: {file: t.parquet}\n")


def test_a_parquet_column_of_prompts_in_bytes_is_refused(tmp_path: Path) -> None:
    """Some programs write texts without saying that they are texts."""
    parquet.write_table(pa.table({"prompt": [b"a cat"], "seed": [1]}), tmp_path / "t.parquet")
    with pytest.raises(SweepError, match=r"binary data in the column 'prompt': write it as text"):
        planned(tmp_path, "zip: {file: t.parquet}\n")
    for column in ("", ", column: prompt"):
        with pytest.raises(SweepError, match=r"binary data in the column 'prompt': write it as text"):
            planned(tmp_path, f"prompt: {{file: t.parquet{column}}}\n")


def test_columns_that_are_called_like_a_field_are_not_left_out_in_silence(tmp_path: Path) -> None:
    """A name in other letters, and a mapping of another program's; prompts in a mapping are refused."""
    (tmp_path / "t.csv").write_text("prompt,seed,Seed\na cat,1,2\n")
    assert planned(tmp_path, "zip: {file: t.csv}\n").files[0].read_as == (
        "commas",
        "'Seed' left out: the seed is 'seed'",
    )
    (tmp_path / "t.jsonl").write_text('{"prompt": "a cat", "model": {"name": "x"}}\n')
    assert planned(tmp_path, "zip: {file: t.jsonl}\n").files[0].read_as == (
        "'model' left out: it has a mapping in it",
    )
    (tmp_path / "t.jsonl").write_text('{"prompt": {"positive": "a cat"}, "seed": 1}\n')
    with pytest.raises(SweepError, match="has a mapping in the column 'prompt': write the text there"):
        planned(tmp_path, "zip: {file: t.jsonl}\n")
