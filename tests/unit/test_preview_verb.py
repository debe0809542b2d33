"""`printroom plan` on a machine without Redis: models, tokens and speed as this machine knows them, and differences."""

from __future__ import annotations

import io
import json
import re
import struct

import click
import pytest

from producer.cli import cli
from producer.client import Printroom
from shared import names
from shared.errors import BrokerUnavailable, SweepError, SweepUnknown, UsageError
from shared.store.folder import FolderStore


class Gone:
    """A ledger that nobody answers for."""

    def __getattr__(self, name: str):
        raise BrokerUnavailable("no Redis")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path, model_folder):
    """This machine has one model, an empty store and no Redis."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(model_folder("sd1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRINTROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRINTROOM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PRINTROOM_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(Printroom, "ledger", Gone())
    (tmp_path / "old.yaml").write_text("prompt: [a cat, a dog]\nmodel: tiny\nseed: {count: 2}\n")
    (tmp_path / "new.yaml").write_text("prompt: [a cat, a cow]\nmodel: tiny\nseed: {count: 3}\n")
    return tmp_path


def planned(capsys, *words: str):
    """Run `printroom plan --json` and return what it prints."""
    cli.main(["plan", *words, "--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_tokens_are_counted_with_the_model_of_this_machine(capsys, alone, model_folder):
    """A model that is found by its name, and one that is named by its path, count tokens with their own files."""
    seen = planned(capsys, "new.yaml")
    assert (seen["jobs"], seen["texts"][0]["basis"]) == (6, "counted")
    assert seen["time_unknown"] == "no image of these models and sizes was measured yet"
    (alone / "path.yaml").write_text(f"prompt: a cat\nmodel: {model_folder('sd1')}\n")
    assert planned(capsys, "path.yaml")["texts"][0]["basis"] == "counted"
    (alone / "unknown.yaml").write_text("prompt: a cat\nmodel: nobody/has-it\n")
    assert planned(capsys, "unknown.yaml")["texts"][0]["basis"] == "at least"


def test_a_model_in_one_file_is_planned(capsys, alone):
    """There is nothing inside a file that could hold a tokenizer, so tokens are at least what any would count."""
    tensor = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    header = json.dumps({tensor: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    (alone / "models" / "photo.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (alone / "one.yaml").write_text("prompt: a cat\nmodel: [photo, ./models/photo.safetensors]\n")
    seen = planned(capsys, "one.yaml")
    assert {"at least"} == {text["basis"] for text in seen["texts"]}


def test_what_is_certain_to_fail_ends_with_2(capsys, alone):
    """A plan with jobs that the model of this machine cannot render says how many, why, and exits with 2."""
    sweep = "prompt: a cat\nmodel: tiny\nscheduler: [ddim, pndm_prk]\nsteps: [2, 20]\n"
    (alone / "grid.yaml").write_text(sweep)
    assert cli.main(["plan", "grid.yaml", "--json"], standalone_mode=False) == 2
    (failure,) = json.loads(capsys.readouterr().out)["certain_failures"]
    assert (failure["jobs"], failure["first"]) == (1, 2)
    assert failure["reason"] == "scheduler=pndm_prk, steps=2: use 4 or more"
    (alone / "grid.yaml").write_text(f"{sweep}skip: {failure['skip']}\n")
    assert cli.main(["plan", "grid.yaml"], standalone_mode=False) == 0
    assert "certain to fail" not in capsys.readouterr().out


def test_a_model_is_read_as_the_sweep_says(capsys, alone):
    """A mapping says how a model is read: the same in its short form, another job, and counted with the same tokens."""
    (alone / "plain.yaml").write_text("prompt: a cat\nmodel: tiny\n")
    (alone / "long.yaml").write_text(
        "name: v\nprompt: a cat\nmodel: {name: tiny, prediction_type: v_prediction}\n"
    )
    (alone / "short.yaml").write_text("name: v\nprompt: a cat\nmodel: tiny+v_prediction\n")
    plain, long, short = (planned(capsys, f"{name}.yaml") for name in ("plain", "long", "short"))
    assert long["sweep"] == short["sweep"]
    assert long["sample"][0]["id"] != plain["sample"][0]["id"]
    assert long["sample"][0]["model"] == plain["sample"][0]["model"] + "+v_prediction"
    assert (long["models"][0]["prediction_type"], long["models"][0]["source"]) == (
        "v_prediction",
        "the sweep says so",
    )
    assert long["texts"][0]["basis"] == "counted"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{prediction_type: v_prediction}", "model has no name: write {name: photo"),
        ("{name: tiny, prediction_type: v}", "prediction_type='v': use epsilon, v_prediction, sample"),
        ("{name: tiny, zero_snr: 1}", "zero_snr=1: write true or false"),
        ("{name: tiny, predicts: v}", "model: unknown key 'predicts'"),
    ],
)
def test_a_wrong_reading_is_refused(alone, model, said):
    """What says how to read a model is checked, with the value and what to write."""
    (alone / "a.yaml").write_text(f"prompt: a cat\nmodel: {model}\n")
    with pytest.raises(SweepError, match=re.escape(said)):
        cli.main(["plan", "a.yaml"], standalone_mode=False)


def test_the_difference_from_a_file_is_printed(capsys):
    """--diff FILE counts what is added, kept and dropped, in JSON and as a page."""
    seen = planned(capsys, "new.yaml", "--diff", "old.yaml")["difference"]
    assert (seen["added"], seen["kept"], seen["dropped"]) == (4, 2, 2)
    assert {job["prompt"] for job in seen["dropped_jobs"]} == {"a dog"}
    cli.main(["plan", "new.yaml", "--diff", "old.yaml"], standalone_mode=False)
    assert "Against old" in (page := capsys.readouterr().out)
    assert "4 added, 2 kept, 2 dropped" in page
    assert "difference" not in planned(capsys, "new.yaml")


def test_the_difference_from_a_sweep_in_the_store_is_printed(capsys, alone):
    """--diff ID reads a submitted sweep's plan; one that is not there, or of another version, is said."""
    client = Printroom()
    old = client.compile(alone / "old.yaml")
    store = FolderStore(alone / "store")
    store.put(names.plan_key(old.id), old.to_bytes(), content_type="application/zstd")
    assert planned(capsys, "new.yaml", "--diff", old.id)["difference"]["kept"] == 2
    with pytest.raises(SweepUnknown):
        planned(capsys, "new.yaml", "--diff", "ab" * 16)
    store.put(names.plan_key("ab" * 16), b"older than old", content_type="application/zstd")
    with pytest.raises(UsageError, match="cannot be compared"):
        planned(capsys, "new.yaml", "--diff", "ab" * 16)


def test_the_sample_may_be_the_first_jobs(capsys):
    """--first shows the first jobs, and without it they are spread over the plan."""
    first = planned(capsys, "new.yaml", "--sample", "2", "--first")["sample"]
    assert [job["index"] for job in first] == [0, 1]
    spread = planned(capsys, "new.yaml", "--sample", "2")["sample"]
    assert [job["index"] // 3 for job in spread] == [0, 1]


def test_how_files_were_read_stands_in_json_and_on_the_page(capsys, alone):
    """`plan` says the delimiter that was taken and which columns are what; odd cells are warnings."""
    (alone / "t.csv").write_text("prompt;cfg;negative_prompt\na cat;7,5;null\n")
    (alone / "table.yaml").write_text("zip: {file: t.csv}\n")
    seen = planned(capsys, "table.yaml")
    (file,) = seen["files"]
    assert (file["path"], file["values"]) == ("t.csv", 3)
    assert file["read_as"] == ["semicolons", "'cfg' taken as guidance_scale"]
    assert seen["warnings"][0].startswith("t.csv: negative_prompt: 1 cells say 'null': taken as text")
    cli.main(["plan", "table.yaml"], standalone_mode=False)
    page = " ".join(capsys.readouterr().out.split())
    assert "t.csv: 3 values; semicolons; 'cfg' taken as" in page


def test_a_sweep_is_read_from_stdin(capsys, alone, monkeypatch):
    """`plan -`: files are those of the current folder, the name is the text's own or stdin, errors say stdin."""
    (alone / "p.txt").write_text("a cat\na dog\n")

    def given(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    given("prompt: {file: p.txt}\nseed: {count: 3}\n")
    seen = planned(capsys, "-", "--set", "seed.count=2")
    assert (seen["name"], seen["jobs"]) == ("stdin", 4)
    given("prompt: a\nname: mine\n")
    assert planned(capsys, "-")["name"] == "mine"
    given("prompt: a\nstepz: 3\n")
    with pytest.raises(SweepError) as caught:
        planned(capsys, "-")
    assert caught.value.problems == ["stdin, line 2: unknown key 'stepz': did you mean 'steps'?"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(click.UsageError, match="-: stdin is closed: pipe a sweep in, or name a file"):
        planned(capsys, "-")
    given("")
    with pytest.raises(SweepError, match="stdin: the file is empty: a sweep needs at least a prompt"):
        planned(capsys, "-")


def test_names_on_the_command_line_that_no_shell_expanded(capsys, alone, monkeypatch):
    """`~` and a pattern of one match are files; of several, and of none, it is said."""
    monkeypatch.setenv("HOME", str(alone))
    assert planned(capsys, "~/new.yaml")["name"] == "new"
    assert planned(capsys, "n*.yaml")["name"] == "new"
    for word, said in (
        ("*.yaml", "2 match ('new.yaml', 'old.yaml'): name one"),
        ("x*.yaml", "no file matches: check the name and the folder"),
        ("nwe.yaml", "no such file: did you mean 'new.yaml'?"),
        ("models", "this is a folder: name a sweep file in it"),
    ):
        with pytest.raises(click.UsageError) as caught:
            planned(capsys, word)
        assert caught.value.message == f"{word}: {said}"
