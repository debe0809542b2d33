"""Roots of differences: zero where rounding alone is below zero, NaN where it is not, untouched elsewhere."""

import pytest
import torch

from worker.sampling.schedules.rounding import RootsOfRounding

EPS = torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    "root", [torch.sqrt, lambda x: x**0.5, lambda x: x.sqrt(), lambda x: torch.pow(x, 0.5)]
)
@pytest.mark.parametrize("scale", [1.0, 4096.0**2, 1e-4])
def test_rounding_below_zero_is_zero(root, scale):
    """A few units in the last place of the larger operand, whatever its size."""
    larger = torch.tensor(scale)
    with RootsOfRounding():
        assert root(larger - larger * (1 + 3 * EPS)) == 0
        assert root(scale - larger * (1 + 3 * EPS)) == 0
        table = torch.stack([larger, larger]) - torch.stack([larger * (1 + 3 * EPS), larger / 2])
        assert root(table)[0] == 0
        assert root(table)[1] > 0


@pytest.mark.parametrize("root", [torch.sqrt, lambda x: x**0.5])
def test_what_is_truly_negative_stays_nan(root):
    """A difference that is wrong is not made right; neither is a number that is no difference."""
    one = torch.tensor(1.0)
    with RootsOfRounding():
        assert root(one - torch.tensor(1.001)).isnan()
        assert root(torch.tensor(-1e-8)).isnan()


def test_other_roots_are_what_they_are():
    """Positive numbers and images keep every bit."""
    a, b = torch.rand(1000, generator=torch.Generator().manual_seed(0)), torch.rand(1, 4, 8, 8)
    expected = ((a - 0.5).abs().sqrt(), a**0.5, (b - 0.5) ** 2, (a - 2) ** 3)
    with RootsOfRounding():
        found = ((a - 0.5).abs().sqrt(), a**0.5, (b - 0.5) ** 2, (a - 2) ** 3)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
