"""What another text or metric would have said: by hand, and against the plans themselves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids


def _scores(heads, channels, *, metric="transact", fingerprint="shape/weights", groups=None) -> ta.ImportanceScores:
    """Scores of one or more layers, given as lists; a head is a group of its own unless told otherwise."""
    layers = tuple(torch.tensor(layer, dtype=torch.float64) for layer in heads)
    of_groups = layers if groups is None else tuple(torch.tensor(layer, dtype=torch.float64) for layer in groups)
    mlp = tuple(torch.tensor(layer, dtype=torch.float64) for layer in channels)
    return ta.ImportanceScores(metric, layers, layers, of_groups, mlp, fingerprint, "by hand")


def test_rank_correlations_by_hand():
    first = _scores([[1, 2, 3, 4], [1, 2, 3, 4]], [[1, 2, 3], [7, 7, 7]], groups=[[1, 2], [5, 5]])
    second = _scores([[1, 20, 20, 400], [4, 3, 2, 1]], [[5, 5, 5], [3, 3, 3]], groups=[[30, 40], [5, 6]])
    compared = ta.compare_calibrations(first, second)
    # ranks 1 2 3 4 and 1 2.5 2.5 4: deviations give 4.5 / sqrt(5 · 4.5)
    assert compared.head_correlations == pytest.approx((4.5 / math.sqrt(22.5), -1.0))
    # one side without an order: 0; both: 1
    assert compared.channel_correlations == (0.0, 1.0)
    assert compared.head_group_correlations == pytest.approx((1.0, 0.0))


def test_differences_of_shares_by_hand():
    first = _scores([[1, 3]], [[0, 0, 0]])
    second = _scores([[30, 30]], [[1, 2, 3]])
    compared = ta.compare_calibrations(first, second)
    assert compared.head_differences[0].tolist() == [1 - 0.5, 1 - 1.5]
    assert compared.channel_differences[0].tolist() == [0.5, 1.0, 1.5]


def test_overlap_by_hand():
    first = _scores([[4, 3, 2, 1], [4, 3, 2, 1]], [[1, 1, 1, 1, 1], [5, 4, 3, 2, 1]])
    second = _scores([[4, 1, 3, 2], [1, 2, 3, 4]], [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    curve = ta.compare_calibrations(first, second).overlap([0.0, 0.5])
    assert curve.sparsities == (0.0, 0.5)
    # half of 4 heads: {0, 1} and {0, 2} share one of two; {0, 1} and {2, 3} none
    assert curve.head_groups == (1.0, 0.25)
    assert curve.head_groups_by_chance == (1.0, 0.5)
    # half of 5 channels is 2: of equals the lower index, {0, 1}, beside {3, 4}; the other layer agrees
    assert curve.channels == (1.0, 0.5)
    assert curve.channels_by_chance == (1.0, 0.4)
    with pytest.raises(ta.InvalidTarget, match="sparsity is 1.0"):
        ta.compare_calibrations(first, second).overlap([1.0])


def _with_ties(scores: ta.ImportanceScores) -> ta.ImportanceScores:
    return replace(scores, mlp_channels=tuple((3 * layer).floor() for layer in scores.mlp_channels))


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.9])
def test_overlap_is_that_of_the_plans(sparsity):
    spec = build("llama").spec
    first, second = (_with_ties(ta.ImportanceScores.random(spec, seed)) for seed in (0, 1))
    curve = ta.compare_calibrations(first, second).overlap([sparsity])
    target = ta.PruningTarget.from_sparsity(spec, attention=sparsity, mlp=sparsity)
    layers = list(zip(*(ta.make_plan(scores, spec, target).layers for scores in (first, second)), strict=True))
    for ours, name in ((curve.head_groups, "kept_head_groups"), (curve.channels, "kept_channels")):
        kept = [(set(getattr(one, name)), set(getattr(other, name))) for one, other in layers]
        assert ours[0] == pytest.approx(np.mean([len(one & other) / len(one) for one, other in kept]))


def test_agreement_by_hand():
    scores = {
        "up": _scores([[1, 2, 3], [1, 2, 3]], [[1, 2]]),
        "down": _scores([[3, 2, 1], [3, 2, 1]], [[1, 2]], metric="wanda"),
        "both": _scores([[1, 2, 3], [3, 2, 1]], [[2, 1]], metric="magnitude", fingerprint="shape"),
    }
    found = ta.agreement(scores)
    assert found.metrics == ("up", "down", "both")
    np.testing.assert_allclose(found.heads, [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.channels, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-12)


def test_a_model_agrees_with_itself_and_differs_between_texts():
    loaded = build("llama")
    texts = [ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=6)[part]) for part in (slice(3), slice(3, 6))]
    first, second = (ta.score(loaded, ta.observe(loaded, text)) for text in texts)
    same = ta.compare_calibrations(first, first)
    assert same.channel_correlations == pytest.approx((1.0,) * 3)
    assert all(not difference.any() for difference in same.channel_differences)
    other = ta.compare_calibrations(first, second)
    assert all(0.2 < value < 1 for value in other.channel_correlations)
    assert [difference.shape for difference in other.head_differences] == [(8,)] * 3
    np.testing.assert_allclose([difference.mean() for difference in other.channel_differences], 0, atol=1e-12)
    matrix = ta.agreement(
        {metric: ta.score(loaded, ta.observe(loaded, texts[0], taylor=True), metric=metric) for metric in ta.METRICS}
    )
    assert matrix.heads.shape == (len(ta.METRICS),) * 2
    np.testing.assert_allclose(matrix.channels, matrix.channels.T)


def test_what_cannot_be_compared_is_refused():
    scores = _scores([[1, 2]], [[1, 2]])
    with pytest.raises(ta.InvalidPlan, match="different models"):
        ta.compare_calibrations(scores, _scores([[1, 2]], [[1, 2]], fingerprint="shape/others"))
    with pytest.raises(ta.InvalidPlan, match="different models"):
        ta.agreement({"a": scores, "b": _scores([[1, 2]], [[1, 2]], fingerprint="other")})
    with pytest.raises(ta.InvalidPlan, match="'transact' and by 'wanda'"):
        ta.compare_calibrations(scores, _scores([[1, 2]], [[1, 2]], metric="wanda"))
    with pytest.raises(ta.InvalidPlan, match="no scores"):
        ta.agreement({})
