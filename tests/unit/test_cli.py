"""What words on the command line mean, before anything runs."""

from __future__ import annotations

import json
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from producer.cli import _list_sweeps, _sweep_or_prompt, _watch_sweeps, cli
from producer.client import Printroom, SweepList
from producer.language.sweep import Sweep
from producer.prompt_words import PromptOptions, prompt_source, prompt_warnings
from producer.terminal.reports import print_warnings, result_columns
from shared.errors import SweepError
from shared.guidance import rule_label
from shared.ledger import SweepStatus


def swept(what: str = "a cat", **words: Any) -> Sweep:
    """Return the sweep that `printroom render` makes of its words."""
    return _sweep_or_prompt(what, PromptOptions(**words)).sweep


def test_a_prompt_and_its_options_are_a_sweep() -> None:
    """Each option is a field; what is not said has the sweep's default."""
    sweep = swept(negatives=("hat", ""), count=3, guidance=5.0, guidance_rules=(), steps=None, model="m")
    assert (sweep.prompt, sweep.negative_prompt, sweep.seed.count) == (("a cat",), (None, "hat", ""), 3)
    assert (sweep.guidance_scale, sweep.guidance_rule, sweep.model, sweep.name) == (
        (5.0,),
        (None,),
        ("m",),
        "a-cat",
    )
    assert sweep.steps == Sweep.model_fields["steps"].default


@pytest.mark.parametrize(
    ("rules", "labels"),
    [
        (("apg",), ["apg"]),
        (("cfg", "perp_neg"), ["cfg", "perp_neg"]),
        (("{rescale: 0.7}",), ["rescale 0.7"]),
        (("rescale: [0, 0.7]",), ["cfg", "rescale 0.7"]),
        (('{"negatives":[["hat",0.5]],"rule":"perp_neg"}',), ["perp_neg, negatives hat 0.5"]),
    ],
)
def test_a_rule_is_a_name_or_a_mapping_on_one_line(rules: tuple[str, ...], labels: list[str]) -> None:
    """A rule is written as in a sweep file; lists in it are axes there too."""
    assert [rule_label(rule) for rule in swept(guidance_rules=rules).guidance_rule] == labels


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("apgg", "guidance_rule: rule='apgg' is unknown: did you mean apg?"),
        ("{rescale: 7}", "guidance_rule: rescale=7: use 0 to 1"),
        ("{rescale: 0.7", "--guidance-rule, line 1: not YAML"),
        ("{rescale: 010}", "--guidance-rule: rescale: 010 is no plain decimal number"),
        (" ", "--guidance-rule: nothing there: write a value, or null"),
    ],
)
def test_a_wrong_rule_names_the_option_or_the_field(rule: str, said: str) -> None:
    """What cannot be read, or may not be said, is a mistake to fix."""
    with pytest.raises(SweepError) as caught:
        swept(guidance_rules=(rule,))
    assert str(caught.value).startswith(said)


def test_a_negative_is_drawn_beside_the_plain_prompt() -> None:
    """The pair is the point; --no-plain leaves the plain row out, and means nothing without a negative."""
    assert swept(negatives=("hat",), no_plain=False).negative_prompt == (None, "hat")
    assert swept(negatives=("hat",), no_plain=True).negative_prompt == ("hat",)
    assert swept(no_plain=False).negative_prompt == (None,)
    with pytest.raises(click.UsageError, match="--no-plain goes with --negative"):
        swept(no_plain=True)
    with pytest.raises(click.UsageError, match="--no-plain goes with a prompt"):
        swept("sweep.yaml", no_plain=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"what": "a cat", "negatives": ("hat",), "guidance": 1.0}, "never uses the negative prompt"),
        ({"what": "a {red|blue} cat"}, "'{red|blue}' is text as it stands"),
        ({"what": "a cat --n hat"}, "options of another program"),
        ({"what": "a cat", "negatives": ("hat",)}, ""),
    ],
)
def test_a_prompt_is_warned_of_as_its_plan_would_be(words: dict[str, Any], said: str, capsys: Any) -> None:
    """Who renders a prompt at once is told what `plan` says of a file: two equal rows are no comparison."""
    options = PromptOptions(**{name: value for name, value in words.items() if name != "what"})
    print_warnings(prompt_warnings(prompt_source(words["what"], options)))
    shown = capsys.readouterr().err
    assert said in shown
    assert bool(said) == shown.startswith("! ")


@pytest.mark.parametrize(
    "words", [["--sample", "0"], ["--sample", "0", "--first"], ["--sample", "0", "--json"]]
)
def test_a_plan_may_show_no_jobs(words: list[str], tmp_path: Any) -> None:
    """--sample 0 leaves the jobs out, and nothing else."""
    file = tmp_path / "s.yaml"
    file.write_text("prompt: a cat\nseed: [1, 2]\n")
    env = {"PRINTROOM_REDIS_URL": "redis://127.0.0.1:1/0"}
    answer = CliRunner(env=env).invoke(cli, ["plan", str(file), *words])
    assert (answer.exception, "Some of the jobs" in answer.stdout) == (None, False)
    assert "portraits" in answer.stdout


def test_a_zero_is_said() -> None:
    """`--guidance 0` is a scale like any other, and `--steps 0` a mistake: neither is taken for nothing said."""
    assert swept(guidance=0.0).guidance_scale == (0.0,)
    with pytest.raises(SweepError, match="steps=0"):
        swept(steps=0)
    with pytest.raises(click.UsageError, match="--guidance goes with a prompt"):
        swept("sweep.yaml", guidance=0.0)


@pytest.mark.parametrize("line", ["results s --expires 5", "fetch s home --expires 5 --format jsonl"])
def test_a_life_of_urls_goes_with_urls(line: str) -> None:
    """A setting that nothing would use is refused, before anything is asked."""
    answer = CliRunner().invoke(cli, line.split())
    assert answer.exit_code == 2
    assert "--expires goes with --urls" in answer.output


def test_options_of_a_prompt_do_not_go_with_a_file() -> None:
    """The file says it; the option is named as it was written."""
    with pytest.raises(click.UsageError, match="--guidance-rule goes with a prompt"):
        swept("sweep.yaml", guidance_rules=("apg",))
    with pytest.raises(click.UsageError, match="--negative goes with a prompt"):
        swept("sweep.yaml", guidance_rules=(), negatives=("hat",))


def test_a_row_names_its_rule_where_it_has_one() -> None:
    """The short form of a result says the rule beside the scale it belongs to."""
    row = {"status": "done", "key": "k", "index": 0, "seed": 1, "guidance_scale": 5.0, "steps": 4}
    row |= {"scheduler": "ddim", "prompt": "a", "negative_prompt": None, "guidance_rule": None}
    assert list(result_columns(row))[3] == "seed=1 guidance=5 steps=4 ddim"
    row["guidance_rule"] = '{"rescale":0.7}'
    assert list(result_columns(row))[3] == "seed=1 guidance=5 (rescale 0.7) steps=4 ddim"


def test_watching_all_ends_when_none_is_active(capsys: Any) -> None:
    """`status --watch` follows what is active, also what is submitted meanwhile, and fails for its failures alone."""
    rounds = [
        [status("old", "done", failed=3), status("new", "active")],
        [status("old", "done", failed=3), status("new", "done"), status("late", "active")],
        [status("old", "done", failed=3), status("new", "done"), status("late", "done")],
    ]

    class Room:
        def statuses(self) -> list[SweepStatus]:
            return rounds[0] if len(rounds) == 1 else rounds.pop(0)

        def lost_sweeps(self) -> list[Any]:
            return []

        def wait_all(self, *, on_statuses: Any) -> list[SweepStatus]:
            return Printroom.wait_all(cast(Printroom, self), poll_seconds=0, on_statuses=on_statuses)

    assert _watch_sweeps(cast(Printroom, Room()), as_json=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    rounds[:] = [[status("new", "active")], [status("new", "done", failed=1)]]
    assert _watch_sweeps(cast(Printroom, Room()), as_json=False) == 1
    shown = capsys.readouterr()
    assert "new" in shown.out
    assert shown.err == "new: 0/4\n"


def test_the_list_numbers_the_sweeps_of_a_name(capsys: Any) -> None:
    """A name of several stands with its numbers, the older ones marked, on the screen and in JSON."""

    class Room:
        def statuses(self) -> list[SweepStatus]:
            return [status("faces", "done"), status("hats", "done"), status("faces", "active")]

        def lost_sweeps(self) -> list[Any]:
            return []

        def list_sweeps(self) -> SweepList:
            return Printroom.list_sweeps(cast(Printroom, self))

    assert _list_sweeps(cast(Printroom, Room()), as_json=False) == 0
    shown = capsys.readouterr().out
    assert "faces@1 (older)" in shown
    assert "faces@2 " in shown
    assert "hats@" not in shown
    _list_sweeps(cast(Printroom, Room()), as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [(one["number"], one["newest"]) for one in listed] == [(1, False), (1, True), (2, True)]


def status(name: str, state: Any, *, failed: int = 0) -> SweepStatus:
    """Return a sweep's figures."""
    finished = 4 if state == "done" else 0
    facts: dict[str, Any] = {"sweep": name * 8, "name": name, "state": state, "priority": 0, "jobs": 4}
    facts |= {"done": finished - failed, "failed": failed, "reused": 0, "chunks": 1, "chunks_done": 0}
    facts |= {"chunks_running": 0, "chunks_queued": 0, "created_at": 0.0, "finished_at": None}
    return SweepStatus(**facts, images_per_second=0.0, failures={}, reasons={})
