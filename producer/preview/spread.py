"""Chooses evenly spread positions of a long run, so that a few stand for all. Knows nothing of jobs."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise


def spread(start: int, stop: int, wanted: int) -> list[int]:
    """Return `wanted` evenly spread indices of `start <= index < stop`, or all of them, in order; the first is one.

    One stands in each of `wanted` equal stretches, at changing places: regular steps would fall in step with an axis
    and show one value of it only.
    """
    length = stop - start
    if wanted < 1:
        return []
    if length <= wanted:
        return list(range(start, stop))
    bounds = [start + length * number // wanted for number in range(wanted + 1)]
    stretches = enumerate(pairwise(bounds))
    return [low + (_lot(number) % (high - low) if number else 0) for number, (low, high) in stretches]


def _lot(number: int) -> int:
    """Return a large number that looks random, the same on every machine."""
    return int.from_bytes(blake2b(number.to_bytes(8, "big"), digest_size=16).digest(), "big")
