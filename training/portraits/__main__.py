"""Trains the model of portraits, measures it and writes its card.

    python -m training.portraits --budget cpu --out DIR

DIR/portraits is the model; DIR/work holds pictures and checkpoints, from which `--resume` goes on. `--budget cpu-more
--from OTHER` begins with the weights of a finished run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training.portraits.card import write_card
from training.portraits.recipe import BUDGETS
from training.portraits.train import train


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, write the card; exit 1 if the model misses its table."""
    parser = argparse.ArgumentParser(prog="python -m training.portraits", description=train.__doc__)
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--from", dest="start", type=Path, help="--out of a finished run whose weights to begin with"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start = None if options.start is None else options.start / "work"
    recipe, model = BUDGETS[options.budget], options.out / "portraits"
    train(recipe, work=options.out / "work", model=model, resume=options.resume, start=start)
    return 0 if write_card(model, budget=options.budget, recipe=recipe) else 1


if __name__ == "__main__":
    sys.exit(main())
