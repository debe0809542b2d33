"""Chooses some jobs of a product without listing the product: position -> digits. Knows nothing of jobs.

Uniform: a keyed permutation of all positions, of which the first `count` are taken. Latin hypercube: every axis is
cut into `count` parts, each of which is used once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Literal

from shared.job import canonical_json

#: Rounds of the permutation. Four make a Feistel network look random (Luby and Rackoff 1988); small domains want more.
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSample:
    """Some jobs of a product, in an order of their own."""

    count: int
    seed: int
    method: Literal["uniform", "latin"] = "uniform"

    def digits(self, position: int, lengths: Sequence[int], *, salt: str = "") -> list[int]:
        """Return where on each axis a job of the sample stands.

        Args:
            position: of the job in the sample, below `count`.
            lengths: of the axes, outermost first.
            salt: samples of one seed with different salts differ.
        """
        if self.method == "uniform":
            chosen = permute(position, math.prod(lengths), key=_key(self.seed, salt))
            return split(chosen, lengths)
        keys = (_key(self.seed, f"{salt}/{axis}") for axis in range(len(lengths)))
        return [
            permute(position, self.count, key=key) * length // self.count
            for key, length in zip(keys, lengths, strict=True)
        ]


def permute(position: int, size: int, *, key: bytes) -> int:
    """Return where a keyed permutation of range(size) sends a position: no two to the same place.

    A Feistel network over two digits of nearly equal bases, walked on while it lands outside the range.

    Source: Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains.
    """
    high_base = math.isqrt(size - 1) + 1 if size > 1 else 1
    low_base = -(-size // high_base)
    while True:
        high, low = divmod(position, low_base)
        for number in range(0, _ROUNDS, 2):
            high = (high + _mix(key, number, low)) % high_base
            low = (low + _mix(key, number + 1, high)) % low_base
        position = high * low_base + low
        if position < size:
            return position


def split(index: int, lengths: Sequence[int]) -> list[int]:
    """Return the mixed-radix digits of an index, the last one fastest."""
    digits = []
    for length in reversed(lengths):
        index, digit = divmod(index, length)
        digits.append(digit)
    return digits[::-1]


def digits_of(index: int, lengths: Sequence[int], sample: JobSample | None, *, salt: str) -> list[int]:
    """Return where on each axis a job stands: of a whole product, or of a sample of it."""
    return split(index, lengths) if sample is None else sample.digits(index, lengths, salt=salt)


def share_out(count: int, sizes: Sequence[int], *, seed: int) -> list[int]:
    """Return how many of `count` each of several parts gets: in proportion to its size, rounded by lot.

    Systematic sampling: what a part gets is its share rounded up or down, and on average exactly its share.
    """
    total = sum(sizes)
    # Whole numbers: a part of 10^12 jobs must not lose some to a float.
    lot = int.from_bytes(_key(seed, "share"), "big") % total
    stops = [0]
    for size in sizes:
        stops.append(stops[-1] + size)
    marks = [(stop * count + lot) // total for stop in stops]
    return [after - before for before, after in pairwise(marks)]


@lru_cache(maxsize=1024)
def _key(seed: int, salt: str) -> bytes:
    return blake2b(canonical_json([seed, salt]), digest_size=16).digest()


def _mix(key: bytes, number: int, value: int) -> int:
    """Return a round's pseudo-random number: far larger than either base, so that its remainder is even."""
    data = number.to_bytes(1, "big") + value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")
    return int.from_bytes(blake2b(data, key=key, digest_size=32).digest(), "big")
