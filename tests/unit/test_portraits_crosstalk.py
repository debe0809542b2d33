"""What one word more may change in a predicted picture: its own direction, and no other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from training.portraits.autoencoder import PAST_ABSENCE
from training.portraits.denoiser import Contrasts, crosstalk
from training.portraits.directions import CONTRASTED, Directions

COUNT = 6
ROWS = len(CONTRASTED)
SHAPE = (4, 8, 8)

#: Half signal, half noise at every timestep.
ALPHAS = torch.full((1000,), 0.5)


def _axis(number):
    """A unit vector of the latents."""
    return torch.nn.functional.one_hot(torch.tensor(number), 256).float().view(SHAPE)


#: The direction of every row is an axis of its own, and its step is 3 long.
AXES = torch.stack([_axis(number) for number in range(ROWS)])
DIRECTIONS = Directions(
    steps=3 * AXES,
    others=AXES.flatten(1) * (1 - torch.eye(ROWS))[:, :, None],
)


class _Unet:
    """Predicts what it is told to for the second caption, and zero for the first; remembers what it was shown."""

    def __init__(self, change):
        self.change = change

    def __call__(self, noisy, timesteps, encoder_hidden_states):
        self.noisy, self.timesteps, self.words = noisy, timesteps, encoder_hidden_states
        return SimpleNamespace(sample=torch.cat([torch.zeros_like(self.change), self.change]))


def _contrasts(row, there=1.0):
    return Contrasts(
        clean=torch.zeros(COUNT, *SHAPE),
        ids=torch.arange(2 * COUNT)[:, None],
        numbers=torch.full((COUNT,), row),
        there=torch.full((COUNT,), there),
    )


def _measure(unet, contrasts, alphas=ALPHAS, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return crosstalk(unet, lambda ids: (ids,), contrasts, DIRECTIONS, alphas, chance)


@pytest.mark.parametrize("row", range(ROWS))
def test_a_word_may_change_what_it_names_and_nothing_else(row):
    """Along its own axis, or along none that anything has, it costs nothing; along another, that part squared."""
    own, nobodys = AXES[row], _axis(200)
    other = AXES[(row + 1) % ROWS]
    unit = 0.5 * 2**2 / 256  # noise's share of v, squared length, elements
    for change, cost in ((own, 0), (nobodys, 0), (other, unit), (own + nobodys - other, unit)):
        unet = _Unet((2 * change).expand(COUNT, *SHAPE))
        assert float(_measure(unet, _contrasts(row))) == pytest.approx(cost, abs=1e-9)


def test_it_is_the_mean_over_pictures():
    """One picture of six costs a sixth."""
    change = torch.zeros(COUNT, *SHAPE)
    change[2] = AXES[1]
    assert float(_measure(_Unet(change), _contrasts(0))) == pytest.approx(0.5 / 256 / COUNT)


def test_both_captions_see_the_same_picture_at_every_range_of_timesteps():
    """First captions first, then the second ones; the noise differs by picture, not by caption."""
    unet = _Unet(torch.zeros(COUNT, *SHAPE))
    _measure(unet, _contrasts(0))
    for shown in (unet.noisy, unet.timesteps):
        assert torch.equal(*shown.chunk(2))
    assert unet.words.flatten().tolist() == list(range(2 * COUNT))
    assert (unet.timesteps[:COUNT] * COUNT // 1000).tolist() == list(range(COUNT))
    assert len(unet.noisy.flatten(1).unique(dim=0)) == COUNT


@pytest.mark.parametrize("there", [0.0, 1.0])
def test_half_of_the_pictures_have_less_than_none_of_it(there):
    """Guided latents lie beyond absence, so some are shown there: what is there taken away, and more."""
    unet, lengths = _Unet(torch.zeros(COUNT, *SHAPE)), []
    for seed in range(50):
        _measure(unet, _contrasts(2, there), alphas=torch.ones(1000), seed=seed)
        shown = unet.noisy[:COUNT].flatten(1)
        assert not shown[:, torch.arange(256) != 2].any()
        lengths += (shown[:, 2] / -3).tolist()
    pushed = [length for length in lengths if length]
    assert 0.4 < len(pushed) / len(lengths) < 0.6
    assert there <= min(pushed) < there + 0.1 * PAST_ABSENCE
    assert there + 0.9 * PAST_ABSENCE < max(pushed) <= there + PAST_ABSENCE


def test_its_gradient_takes_the_rest_out_of_a_word():
    """Descending it leaves of a word's change what is its own."""
    word = (AXES[0] + AXES[1] + AXES[5]).clone().requires_grad_()
    for _ in range(200):
        loss = _measure(_Unet(word.expand(COUNT, *SHAPE)), _contrasts(0))
        (gradient,) = torch.autograd.grad(loss, word)
        word = (word - 100 * gradient).detach().requires_grad_()
    assert torch.allclose(word, AXES[0], atol=1e-3)
