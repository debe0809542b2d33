"""The experiment of examples/mustache.yaml, from the command line to the pictures, read by detectors."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.metadata import read_image
from training.portraits.detectors import read
from training.portraits.drawing import Portrait

ROOT = Path(__file__).resolve().parents[2]

#: Fewer than the model card's 128, and margins to match.
SEEDS, SEEDS_LONG = 12, 24


@pytest.fixture
def render(printroom):
    """A function that runs `printroom render` on this machine, with servers of its own, and returns its report."""

    def run(*arguments: str) -> dict:
        done = printroom("render", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def readings(folder: str) -> dict[tuple[str, str | None], list[Portrait]]:
    """Read every picture of a folder: (prompt, negative prompt) -> what is in them."""
    found = defaultdict(list)
    for path in sorted(Path(folder).rglob("*.png")):
        job = read_image(path.read_bytes()).job
        with Image.open(path) as picture:
            found[job.prompt, job.negative_prompt].append(read(np.asarray(picture.convert("RGB"))))
    return found


def share(portraits: list[Portrait], **fields: object) -> float:
    """Return the share of portraits that have these values."""
    return float(np.mean([all(getattr(seen, name) == fields[name] for name in fields) for seen in portraits]))


@pytest.fixture
def seeds(long):
    """Seeds of each prompt."""
    return SEEDS_LONG if long else SEEDS


@pytest.mark.timeout(200)
def test_the_mustache_experiment(render, tmp_path, seeds):
    """Some mustaches by the plain prompt, more of them with "without", none with the negative prompt; always men."""
    sweep = yaml.safe_load((ROOT / "examples" / "mustache.yaml").read_text())
    file = tmp_path / "mustache.yaml"
    file.write_text(yaml.safe_dump({**sweep, "seed": {"start": 0, "count": seeds}}))
    made = render(str(file), "--out", str(tmp_path / "prints"))
    assert (made["done"], made["failed"]) == (3 * seeds, 0)
    seen = readings(made["images"])
    plain, without, negative = (seen[case["prompt"], case["negative_prompt"]] for case in sweep["cases"])
    assert [len(portraits) for portraits in (plain, without, negative)] == [seeds] * 3
    assert 0.2 <= share(plain, mustache=True) <= 0.8
    assert share(without, mustache=True) >= 0.85
    assert share(negative, mustache=True) <= 0.09
    assert min(share(portraits, kind="man") for portraits in (plain, without, negative)) >= 0.9


@pytest.mark.timeout(200)
def test_the_shortest_start_draws_what_it_says(render, tmp_path, seeds):
    """A prompt instead of a file renders women with hats, and beside them the same without glasses."""
    prompt = "portrait of a woman with a hat"
    options = ("--negative", "glasses", "--count", str(seeds), "--out", str(tmp_path / "prints"))
    made = render(prompt, *options)
    seen = readings(made["images"])
    plain, negative = seen[prompt, None], seen[prompt, "glasses"]
    assert (len(plain), len(negative), made["done"]) == (seeds, seeds, 2 * seeds)
    assert min(share(portraits, kind="woman") for portraits in (plain, negative)) >= 0.75
    assert min(share(portraits, hat=True) for portraits in (plain, negative)) >= 0.75
    assert share(negative, glasses=True) <= 0.25 < share(plain, glasses=True)
