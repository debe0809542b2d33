"""Draws many examples at once, in several processes, into a file that training reads back. Knows no networks."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.portraits.captions import caption, with_kind, with_more, with_nothing_more
from training.portraits.drawing import SIZE_PX, Portrait, draw
from training.portraits.population import GROUP, MENTIONED, generator, make_example
from training.portraits.progress import progress

log = logging.getLogger(__name__)

#: Pictures that one process draws at a time.
SHARD = 600


#: Share of contrasts whose words more mean nothing; and of the others, where the kind is open, share that mention it.
_NOTHING_SHARE = 0.3
_KIND_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shard:
    """A run of examples of one seed."""

    seed: int
    start: int
    stop: int


def load_pictures(
    folder: Path, *, count: int, seed: int, processes: int | None = None
) -> npt.NDArray[np.uint8]:
    """Draw `count` pictures, or open what a run before this one has drawn.

    Args:
        folder: where they are kept; made if missing.
        count: pictures.
        seed: another seed draws others; the first pictures of a seed do not depend on `count`.
        processes: that draw side by side; None is one for each core.

    Returns:
        RGB, (count, 64, 64, 3), on disk until it is read.
    """
    path = folder / f"pictures-{seed}-{count}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        _write(unfinished, _shards(count, seed), processes)
        unfinished.rename(path)
    pictures: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return pictures


def write_caption(index: int, *, seed: int, epoch: int, junk: bool = True) -> str:
    """Caption a picture of a seed; every epoch words it anew."""
    chance = generator(seed + 1_000_003 * (epoch + 1), index)
    return caption(make_example(seed, index), chance, junk=junk)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """Two captions of a picture, of which one mentions an attribute more, or the kind, or has only more words."""

    text: str
    more: str
    #: What it says, and whether that is in the picture. None where the words more mean nothing.
    name: str | None
    there: bool


def write_contrast(index: int, *, seed: int, epoch: int, junk: bool = True) -> Contrast:
    """Caption a picture of a seed twice, the second time with one thing more; every epoch another one.

    With `junk`, some get words instead that mean nothing.
    """
    chance = generator(seed + 1_000_003 * (epoch + 1) + 1, index)
    example = make_example(seed, index)
    # Every example leaves one open: no group mentions all of them, or its words alone say nothing new.
    left = sorted(MENTIONED.keys() - example.mentioned) or sorted(MENTIONED)
    name = str(chance.choice(left))
    text = caption(example, chance, junk=False)
    if junk and chance.random() < _NOTHING_SHARE:
        return Contrast(text=text, more=with_nothing_more(text, chance), name=None, there=False)
    if "kind" not in example.mentioned and chance.random() < _KIND_SHARE:
        kind = example.portrait.kind
        return Contrast(text=text, more=with_kind(text, kind, chance), name="kind", there=True)
    more = with_more(text, name, chance)
    return Contrast(text=text, more=more, name=name, there=getattr(example.portrait, name))


def draw_examples(*, count: int, seed: int) -> tuple[list[Portrait], npt.NDArray[np.uint8]]:
    """Draw a few examples here and now, with what is in them: for tests and measurements."""
    # Each of another group: one group mentions, and so has, the same.
    portraits = [make_example(seed, index * GROUP + index % GROUP).portrait for index in range(count)]
    return portraits, np.stack([draw(portrait) for portrait in portraits])


def _shards(count: int, seed: int) -> list[_Shard]:
    starts = range(0, count, SHARD)
    return [_Shard(seed=seed, start=start, stop=min(start + SHARD, count)) for start in starts]


def _write(path: Path, shards: list[_Shard], processes: int | None) -> None:
    shape = (shards[-1].stop, SIZE_PX, SIZE_PX, 3)
    pictures = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with ProcessPoolExecutor(processes) as pool:
        drawn = zip(shards, pool.map(_draw_shard, shards), strict=True)
        for shard, shard_pictures in progress(drawn, total=len(shards), title="drawing"):
            pictures[shard.start : shard.stop] = shard_pictures
    pictures.flush()


def _draw_shard(shard: _Shard) -> npt.NDArray[np.uint8]:
    examples = (make_example(shard.seed, index) for index in range(shard.start, shard.stop))
    return np.stack([draw(example.portrait) for example in examples])
