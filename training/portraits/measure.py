"""Measures what a negative prompt does to a model of portraits: the table of the model card.

    python -m training.portraits.measure [MODEL_DIR]

Every case is rendered for the same seeds, with the worker's own sampler, and read by `detectors`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shared.schedulers import DEFAULT_SCHEDULER
from training.portraits.detectors import read
from training.portraits.drawing import BACKGROUNDS, HAIRS, SHIRTS, SIZE_PX, SKINS, STYLES, Portrait
from worker.models.loader import ModelSource, load_model
from worker.sampling.model import LoadedModel
from worker.sampling.request import Sampled, SampleRequest
from worker.sampling.rows.loop import sample

#: Where the model in the repository is.
BUNDLED = Path(__file__).parents[2] / "worker" / "models" / "portraits"

PROMPT = "portrait photo of a man"

#: The attributes that the table is about.
ATTRIBUTES = ("mustache", "glasses", "hat")

GUIDANCE = (5.0, 7.5)
SEEDS = 128
STEPS = 25

#: What the table must show, shares of the pictures.
PLAIN_RANGE = (0.30, 0.70)
WITHOUT_AT_LEAST = 0.90
NEGATIVE_AT_MOST = 0.02
COLLATERAL_BELOW = 0.10
SUBJECT_AT_LEAST = 0.95

#: Rows of a batch: enough to keep two cores busy.
_BATCH_ROWS = 64

#: Everything else that is read: what has several values, and what is there or not.
_CHOICES: dict[str, Sequence[str]] = {
    "skin": tuple(SKINS),
    "hair": tuple(HAIRS),
    "style": STYLES,
    "shirt": tuple(SHIRTS),
    "background": tuple(BACKGROUNDS),
}
_FLAGS = ("mustache", "glasses", "hat", "beard", "smiling")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One attribute at one guidance scale."""

    attribute: str
    guidance: float
    seeds: int
    #: Shares of pictures with the attribute: plain prompt, "... without X", negative prompt X.
    plain: float
    without: float
    negative: float
    #: Of the other attributes, which the negative should leave alone: what moved most, and how far.
    moved: str
    collateral: float
    #: The same of colours and of ways to wear hair.
    drifted: str
    drift: float
    #: Share of men under the negative prompt.
    men: float

    @property
    def passes(self) -> bool:
        """Whether the row shows what it must. Colours are not judged: they are shown."""
        low, high = PLAIN_RANGE
        return (
            low <= self.plain <= high
            and self.without >= WITHOUT_AT_LEAST
            and self.without > self.plain
            and self.negative <= NEGATIVE_AT_MOST
            and self.collateral < COLLATERAL_BELOW
            and self.men >= SUBJECT_AT_LEAST
        )


def load(folder: Path, device: str = "cpu") -> LoadedModel:
    """Load a folder as a worker does."""
    source = ModelSource(name=folder.name, fingerprint="", kind="folder", location=str(folder))
    model = load_model(source, device=torch.device(device))
    assert isinstance(model, LoadedModel)
    return model


def render(
    model: LoadedModel,
    prompt: str,
    negative: str,
    *,
    seeds: Sequence[int],
    guidance: float,
    steps: int = STEPS,
) -> npt.NDArray[np.uint8]:
    """Render a prompt once for each seed; RGB, (seeds, 64, 64, 3), in their order."""
    requests = [
        SampleRequest(
            prompt=prompt,
            negative_prompt=negative,
            seed=seed,
            guidance_scale=guidance,
            steps=steps,
            scheduler=DEFAULT_SCHEDULER,
            width=SIZE_PX,
            height=SIZE_PX,
        )
        for seed in seeds
    ]
    pictures = np.zeros((len(requests), SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    # Rows that nobody needs are rendered all the same: a guided picture takes two.
    for outcome in sample(model, requests, batch_rows=min(_BATCH_ROWS, 2 * len(requests))):
        if not isinstance(outcome, Sampled):
            raise outcome.error
        pictures[outcome.request_index] = outcome.pixels
    return pictures


def measure(
    model: LoadedModel, *, seeds: int = SEEDS, guidance: Sequence[float] = GUIDANCE, steps: int = STEPS
) -> list[Row]:
    """Measure the table: three attributes, three prompts, each guidance scale."""
    rows = []
    for scale in guidance:
        options: dict[str, Any] = {"seeds": range(seeds), "guidance": scale, "steps": steps}
        plain = [read(picture) for picture in render(model, PROMPT, "", **options)]
        for attribute in ATTRIBUTES:
            without = [
                read(picture) for picture in render(model, f"{PROMPT} without {attribute}", "", **options)
            ]
            negative = [read(picture) for picture in render(model, PROMPT, attribute, **options)]
            rows.append(_row(attribute, scale, plain, without, negative))
    return rows


def rate(readings: Sequence[Portrait], attribute: str) -> float:
    """Return the share of pictures that have an attribute."""
    return sum(getattr(reading, attribute) for reading in readings) / len(readings)


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table as the model card shows it."""
    lines = [
        "| attribute | guidance | plain prompt | “without …” in the prompt | as negative prompt "
        "| other attribute that moved most | colour or style that moved most | still men | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "pass" if row.passes else "MISS"
        lines.append(
            f"| {row.attribute} | {row.guidance:g} | {row.plain:.1%} | {row.without:.1%} | {row.negative:.1%} "
            f"| {row.moved} {row.collateral:.1%} | {row.drifted} {row.drift:.1%} | {row.men:.1%} | {verdict} |"
        )
    return "\n".join(lines)


def _row(
    attribute: str,
    guidance: float,
    plain: Sequence[Portrait],
    without: Sequence[Portrait],
    negative: Sequence[Portrait],
) -> Row:
    others = [name for name in _FLAGS if name != attribute]
    moves = {name: abs(rate(negative, name) - rate(plain, name)) for name in others}
    moved = max(moves, key=lambda name: moves[name])
    before, after = _choice_rates(plain), _choice_rates(negative)
    drifts = {name: abs(after[name] - before[name]) for name in before}
    drifted = max(drifts, key=lambda name: drifts[name])
    return Row(
        attribute=attribute,
        guidance=guidance,
        seeds=len(plain),
        plain=rate(plain, attribute),
        without=rate(without, attribute),
        negative=rate(negative, attribute),
        moved=moved,
        collateral=moves[moved],
        drifted=drifted,
        drift=drifts[drifted],
        men=sum(reading.kind == "man" for reading in negative) / len(negative),
    )


def _choice_rates(readings: Sequence[Portrait]) -> dict[str, float]:
    """Return the rate of every value of what has several."""
    return {
        f"{value} {name}": sum(getattr(reading, name) == value for reading in readings) / len(readings)
        for name, values in _CHOICES.items()
        for value in values
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table of a model; exit 1 if it misses."""
    parser = argparse.ArgumentParser(prog="python -m training.portraits.measure", description=measure.__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE)
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    options = parser.parse_args(arguments)
    rows = measure(load(options.model), seeds=options.seeds, guidance=options.guidance, steps=options.steps)
    text = json.dumps([asdict(row) for row in rows], indent=1) if options.json else as_markdown(rows)
    sys.stdout.write(text + "\n")
    return 0 if all(row.passes for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
