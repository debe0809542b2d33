"""The Python interface given the wrong thing: it answers as a wrong line of a sweep file is answered."""

import inspect
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from producer import Printroom
from producer.arguments import Between, checked
from producer.local.render import render_locally
from producer.recipe.show import show_image
from producer.results.where import read_where
from producer.sheet.sweep_sheet import sweep_sheet
from producer.source import read_source
from shared.errors import SweepError, UsageError
from shared.settings import Settings
from shared.store.folder import FolderStore

#: No call here gets as far as a server.
ROOM = Printroom(Settings(redis_url="redis://127.0.0.1:1/0"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a cat", "a cat: no such file; to render this text as a prompt, write {'prompt': 'a cat'}"),
        ("missing.yaml", "missing.yaml: no such file"),
        (Path("missing"), "missing: no such file"),
        ("a\0b", "a\0b: no such file"),
        ("prompt: a cat\nseed: 3\n", "this is a sweep file's text, not its path"),
        (["a cat", "a dog"], "a list is no sweep: for several prompts, write {'prompt': ['a cat', 'a dog']}"),
        ([{"prompt": "a"}], "a list is no sweep: for jobs one by one, write {'cases': "),
        (None, "empty (null) is no sweep: use a sweep file's path"),
        (3, "the number 3 is no sweep"),
        (b"prompt: a", "binary data is no sweep"),
        ({}, "no prompt: give the sweep a 'prompt'"),
        ({"prompt": "a", "steps": 0}, "steps=0: use 1 or more"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", [ROOM.submit, ROOM.compile])
def test_what_is_no_sweep_is_told_of(call, source, said, tmp_path, monkeypatch):
    """A prompt, a list, the text of a file, nothing: each is a SweepError that shows what to write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ROOM, "models", list, raising=False)
    with pytest.raises(SweepError) as refused:
        call(source)
    assert str(refused.value).startswith(said)


def test_a_local_run_answers_the_same(tmp_path):
    """render_locally has no words of its own for what is no sweep, and starts nothing."""
    with pytest.raises(SweepError, match="to render this text as a prompt"):
        render_locally("a cat", str(tmp_path / "out"), Settings())
    with pytest.raises(UsageError, match="render_locally: settings="):
        render_locally({"prompt": "a"}, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ROOM.status(5), "status: sweep=5: use text: a sweep's id, the start of it, or its name"),
        (lambda: ROOM.pause(None), "pause: sweep=null: use text: a sweep's id"),
        (lambda: ROOM.pause(), "pause: missing a required argument: 'sweep': it takes sweep"),
        (
            lambda: ROOM.submit({"prompt": "a"}, priority="high"),
            "submit: priority='high': use a whole number",
        ),
        (lambda: ROOM.submit({"prompt": "a"}, priority=True), "submit: priority=true: use a whole number"),
        (
            lambda: ROOM.submit({"prompt": "a"}, prio=1),
            "submit: unknown argument 'prio': did you mean 'priority'?",
        ),
        (lambda: ROOM.submit({"prompt": "a"}, 5), "submit: too many positional arguments: it takes source, "),
        (
            lambda: ROOM.wait("x", timeout_seconds=-1),
            "wait: timeout_seconds=-1: use a number, 0 or more or None",
        ),
        (
            lambda: ROOM.wait("x", poll_seconds=float("nan")),
            "wait: poll_seconds=nan: use a number, 0 or more",
        ),
        (lambda: ROOM.wait("x", on_status="print"), "wait: on_status='print': use a function"),
        (lambda: ROOM.results("x", where=3), "results: where=3: use a mapping of field to value"),
        (
            lambda: ROOM.results("x", expires_seconds=10**7),
            "results: expires_seconds=10000000: use a whole number, 1 to",
        ),
        (lambda: ROOM.fetch("x", None), "fetch: folder=null: use text or a path"),
        (
            lambda: ROOM.fetch("x", "home", options={"layout": "hf"}),
            "fetch: options={'layout': 'hf'}: use a FetchOptions",
        ),
        (lambda: ROOM.preview("plan"), "preview: plan='plan': use a Plan"),
        (lambda: ROOM.prioritise("x", 1.5), "prioritise: priority=1.5: use a whole number"),
        (
            lambda: Printroom("redis://somewhere"),
            "Printroom: settings='redis://somewhere': use a Settings or None",
        ),
        (lambda: show_image(7), "show_image: path=7: use text or a path"),
    ],
)
def test_a_wrong_argument_is_named(call, said):
    """Call, argument, value and what to use instead; nothing is asked of a server before."""
    with pytest.raises(UsageError) as refused:
        call()
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([3], "where: 3 is no condition: write texts, such as 'seed>=3'"),
        ({"seed": [1, 2]}, r"where: seed is several values: write the condition 'seed in \[1, 2\]'"),
        ({"seed": range(9)}, r"write the condition 'seed in \[0, 1, 2, ...\]'"),
        ({"seed": ()}, "where: seed is several values"),
        ({"prompt": b"a"}, "where: prompt=b'a': use text, a number, true, false or None"),
    ],
)
def test_conditions_that_no_row_can_meet_are_refused(where, said):
    """A value that no row is equal to would find nothing, in silence."""
    with pytest.raises(UsageError, match=said):
        read_where(where)
    assert read_where({"seed": np.int64(3), "negative_prompt": None}) == {"seed": 3, "negative_prompt": None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"row": "seed"}, "sheet: unknown argument 'row': did you mean 'rows'"),
        ({"rows": 3}, "sheet: rows=3: use text or"),
        ({"thumb_px": "big"}, "sheet: thumb_px='big': use a whole number, 16 to 4096"),
        ({"thumb_px": -5}, "sheet: thumb_px=-5: use a whole number, 16 to 4096"),
    ],
)
def test_options_of_a_sheet_are_checked_as_those_of_calls(options, said):
    """What a sheet is asked for is checked before it is drawn."""
    wanted = {"rows": None, "columns": None, "where": {}, **options}
    with pytest.raises(UsageError, match=said):
        checked(sweep_sheet, "sheet")("x", ROOM.compile({"prompt": "a"}), FolderStore(Path("x")), **wanted)


def test_every_public_parameter_can_be_checked():
    """Each public call's annotations can be read, and none is left without."""
    for name, method in vars(Printroom).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            for parameter in list(inspect.signature(method).parameters.values())[1:]:
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name}"
            with pytest.raises(UsageError, match=f"{name}: unknown argument 'nonesuch'"):
                method(ROOM, nonesuch=1)


def test_arrays_are_lists():
    """What numpy and pandas hold is taken as plain values."""
    sweep = read_source(
        {"prompt": np.array(["a", "b"]), "seed": np.arange(3), "guidance_scale": np.float64(5)}
    ).sweep
    assert (sweep.prompt, sweep.seed, sweep.guidance_scale) == (("a", "b"), (0, 1, 2), (5.0,))


def test_a_range_is_checked_at_its_ends():
    """Both ends of a range are inside it."""

    @checked
    def draw(width: Annotated[int, Between(1, 10)]) -> int:
        return width

    assert (draw(1), draw(10)) == (1, 10)
    for wrong in (0, 11):
        with pytest.raises(UsageError, match=f"draw: width={wrong}: use a whole number, 1 to 10"):
            draw(wrong)
