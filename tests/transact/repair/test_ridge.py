"""Ridge solutions and removals: by hand, against brute force, and on degenerate sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import transact as ta
from tests.tiers import inputs
from transact.repair.ridge import RIDGE, NormalEquations, least_squares

pytestmark = pytest.mark.rounding


def _normal(activations: torch.Tensor, weight: torch.Tensor) -> NormalEquations | None:
    """Outputs that the weight itself gives."""
    gram = activations.T @ activations
    return NormalEquations.of(gram.clone(), weight @ gram, weight)


def _error(normal: NormalEquations, kept: torch.Tensor) -> float:
    """The minimum of the ridge objective up to a constant: −tr(outer_S inner_S^-1 outer_S^T)."""
    return -float((normal.solved(kept) * normal.outer[:, kept]).sum())


def test_removal_by_hand():
    """Channels 1 and 2 are the same, so one of them is missed least although 0 is the smallest of all."""
    activations = torch.tensor([[0.5, 2.0, 2.0, 0.0], [0.5, -2.0, -2.0, 0.0], [0.0, 0.0, 0.0, 3.0]]).double()
    normal = _normal(activations, torch.ones(1, 4).double())
    assert normal.obs_select(3) == (0, 2, 3)
    assert normal.obs_select(2) == (2, 3)
    # λ = 1e-3 · mean of the diagonal (0.5, 8, 8, 9), and the twin takes over: (16 + λ) / (8 + λ), not quite 2
    ridge = 1e-3 * 25.5 / 4
    expected = torch.tensor([[(16 + ridge) / (8 + ridge), 1.0]]).double()
    torch.testing.assert_close(normal.solved(torch.tensor([2, 3])), expected)


def _mixed() -> NormalEquations:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    activations = torch.randn(50, 8, generator=generator, dtype=torch.float64) @ mixing
    return _normal(activations, torch.randn(3, 8, generator=generator, dtype=torch.float64))


def _without(left: list[int], unit: int) -> torch.Tensor:
    return torch.tensor([each for each in left if each != unit])


def test_each_removal_is_the_one_that_brute_force_finds():
    normal, left = _mixed(), list(range(8))
    for keep in range(7, 0, -1):
        left.remove(min(left, key=lambda unit: _error(normal, _without(left, unit))))
        assert normal.obs_select(keep) == tuple(left)


def test_locked_channels_go_first_or_never():
    normal = _mixed()
    first, second = sorted(set(range(8)) - set(normal.obs_select(6)))
    dearest = next(iter(set(normal.obs_select(1))))
    left = [channel for channel in range(8) if channel != dearest]
    candidates = [channel for channel in left if channel not in (first, second)]
    left.remove(min(candidates, key=lambda unit: _error(normal, _without(left, unit))))
    assert normal.obs_select(6, staying=(first, second), going=(dearest,)) == tuple(left)


def test_the_path_tells_what_each_removal_costs():
    """Each rise is that of the least error that is left, also for a channel that must go and where two go at once."""
    normal, everything = _mixed(), torch.arange(8)
    path = normal.removal_path(1, going=(5,))
    assert path.order[0] == 5 and len(set(path.order)) == len(path.rises) == 7
    left = everything.tolist()
    for removed, rise in zip(path.order, path.rises, strict=True):
        before = _error(normal, torch.tensor(left))
        left.remove(removed)
        assert rise == pytest.approx(_error(normal, torch.tensor(left)) - before, rel=1e-9)
    both = normal.removal_path(6, going=(5, 2))
    rest = torch.tensor([each for each in range(8) if each not in (5, 2)])
    assert both.order == (5, 2)
    assert both.rises.sum() == pytest.approx(_error(normal, rest) - _error(normal, everything), rel=1e-9)


def test_keeping_everything_solves_for_the_weights_themselves():
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    normal = _normal(torch.randn(40, 6, generator=generator, dtype=torch.float64), weight)
    assert normal.obs_select(6) == tuple(range(6))
    torch.testing.assert_close(normal.solved(torch.arange(6)), weight)


def test_sums_that_are_not_finite_are_refused_and_none_teach_nothing():
    weight = torch.ones(2, 3).double()
    assert NormalEquations.of(torch.zeros(3, 3).double(), torch.zeros(2, 3).double(), weight) is None
    with pytest.raises(ta.NonFiniteActivations, match="NaN or infinite"):
        NormalEquations.of(torch.full((3, 3), torch.nan).double(), torch.zeros(2, 3).double(), weight)


@st.composite
def degenerate(draw):
    """Fewer tokens than channels, dead channels, repeated channels and tokens, sizes far apart."""
    channels, tokens, hidden = draw(st.integers(1, 12)), draw(st.integers(1, 8)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    activations = torch.randn(tokens, channels, generator=generator, dtype=torch.float64)
    dead = draw(st.sets(st.integers(0, channels - 1)))
    activations[:, list(dead)] = 0
    if draw(st.booleans()):
        activations[:, -1] = activations[:, 0]
    if draw(st.booleans()):
        activations = activations[:1].repeat(3, 1)
    scales = draw(st.lists(st.sampled_from([1e-30, 1e-6, 1.0, 1e4, 1e12]), min_size=channels, max_size=channels))
    weight = torch.randn(hidden, channels, generator=generator, dtype=torch.float64)
    return activations * torch.tensor(scales, dtype=torch.float64), weight, draw(st.integers(1, channels))


@settings(max_examples=inputs(300), deadline=None)
@given(degenerate())
def test_degenerate_sums_give_finite_weights_and_the_asked_for_number(case):
    activations, weight, keep = case
    kept_first = torch.arange(keep)
    assert least_squares(weight, activations.T @ activations, kept_first).isfinite().all()
    normal = _normal(activations, weight)
    if normal is None:
        assert not activations.square().sum()
        return
    kept = normal.obs_select(keep)
    assert len(kept) == keep
    assert list(kept) == sorted(set(kept))
    solved = normal.solved(torch.tensor(kept))
    assert solved.isfinite().all()
    # no worse than leaving the kept columns as they were
    trial = weight[:, list(kept)]
    inner = normal.inner[list(kept)][:, list(kept)]
    before = float(((trial @ inner) * trial).sum() - 2 * (trial * normal.outer[:, list(kept)]).sum())
    assert _error(normal, torch.tensor(kept)) <= before + 1e-9 * abs(before)


def test_the_ridge_is_the_documented_one():
    assert RIDGE == 1e-3
