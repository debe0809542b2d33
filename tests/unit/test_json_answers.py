"""The answers of the verbs as JSON: their keys are what scripts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from producer.client import sweep_list
from producer.export.fetch import Fetched
from producer.fleet.doctor import Check
from producer.fleet.retry import Retried
from producer.fleet.submit import Submission
from producer.json_answers import json_text
from producer.results.store_sweeps import StoredSweep

ANSWERS: list[tuple[Any, list[str]]] = [
    (
        Submission(sweep="a", outcome="new", jobs=1, chunks=1, state="active"),
        ["sweep", "outcome", "jobs", "chunks", "state", "advice"],
    ),
    (Retried(jobs=1, left={"job_invalid": 2}), ["jobs", "left", "dry_run"]),
    (Check(name="broker", level="fail", detail="gone"), ["name", "level", "detail", "fix", "ok"]),
    (
        Fetched(folder=Path("home"), fetched=1, skipped=0, failed=0, failures={}, broken=(), rows=1),
        ["folder", "fetched", "skipped", "failed", "failures", "broken", "rows", "shards"],
    ),
]


@pytest.mark.parametrize(("answer", "keys"), ANSWERS, ids=lambda value: type(value).__name__)
def test_an_answer_has_these_keys(answer: Any, keys: list[str]) -> None:
    """Each field is a key, in the order in which it is declared."""
    assert list(json.loads(json_text(answer))) == keys


def test_a_failed_check_is_not_ok() -> None:
    """A warning is ok, a failure is not: scripts read `ok`."""
    levels = ("ok", "warn", "fail")
    checks = [Check(name="x", level=level, detail="") for level in levels]
    assert [one["ok"] for one in json.loads(json_text(checks))] == [True, True, False]


def test_a_sweep_of_the_store_alone_says_so() -> None:
    """What Redis has lost is in the list, with the state that no live sweep has."""
    listed = sweep_list([], only_in_store=[StoredSweep(sweep="ab", name="cats", jobs=3)])
    assert json.loads(json_text(listed)) == [
        {"sweep": "ab", "name": "cats", "jobs": 3, "state": "only_in_store"}
    ]
    assert json.loads(json_text(sweep_list([], only_in_store=None))) == []


def test_paths_and_texts_are_written_as_they_are() -> None:
    """A path is its text, and nothing is escaped that UTF-8 can show."""
    assert json_text({"path": Path("ä/b")}, indent=None) == '{"path": "ä/b"}'
