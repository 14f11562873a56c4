"""Other draws of the calibration samples: by hand, against scoring each draw anew, and in time."""

import numpy as np
import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.analysis.stability import _draws
from transact.scoring import metrics

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def loaded():
    return build("llama")


@pytest.fixture(scope="module")
def statistics(loaded):
    return ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=6)), samples=True)


TARGET = ta.PruningTarget(keep_head_groups=2, keep_channels=10)


def test_draws_by_hand():
    some = _draws(2, 5, 20, 0)
    assert some.shape == (20, 5)
    assert (some.sum(dim=1) == 2).all() and some.max() == 1  # without replacement
    bootstrap = _draws(5, 5, 20, 0)
    assert (bootstrap.sum(dim=1) == 5).all() and bootstrap.max() > 1
    assert torch.equal(_draws(2, 5, 20, 0), some)
    assert not torch.equal(_draws(2, 5, 20, 1), some)


def test_one_sample_decides_by_hand(loaded, statistics):
    """Samples that are all the same leave nothing to chance; two opposed ones leave everything."""
    same = statistics.subset([3, 3, 3, 3])
    found = ta.stability(loaded, same, TARGET)
    assert found.sizes == (1, 2, 4)
    assert found.head_group_overlaps == found.channel_overlaps == (ta.Spread(1.0, 1.0, 1.0),) * 3
    assert (found.head_group_chance, found.channel_chance) == (0.5, 0.25)
    for layer, frequencies in zip(found.plan.layers, found.channel_frequencies, strict=True):
        assert np.flatnonzero(frequencies).tolist() == list(layer.kept_channels)
        assert set(frequencies.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("metric", [name for name, metric in ta.METRICS.items() if not metric.needs_gradients])
def test_every_draw_is_scored_as_its_subset_would_be(loaded, statistics, metric):
    found = ta.stability(loaded, statistics, TARGET, metric=metric, sizes=[2, 6], resamples=3, seed=5)
    whole = ta.make_plan(ta.score(loaded, statistics, metric=metric), loaded.spec, TARGET)
    assert found.plan == whole
    for place, size in enumerate(found.sizes):
        shares, kept = [], np.zeros((3, 40))
        for times in _draws(size, 6, 3, 5).long():
            drawn = [index for index, count in enumerate(times.tolist()) for _ in range(count)]
            plan = ta.make_plan(ta.score(loaded, statistics.subset(drawn), metric=metric), loaded.spec, TARGET)
            shares.append(
                np.mean(
                    [
                        len({*one.kept_channels} & {*other.kept_channels}) / 10
                        for one, other in zip(plan.layers, whole.layers, strict=True)
                    ]
                )
            )
            for layer, of_layer in enumerate(plan.layers):
                kept[layer, list(of_layer.kept_channels)] += 1 / 3
        assert found.channel_overlaps[place] == ta.Spread(
            *map(pytest.approx, (np.mean(shares), min(shares), max(shares)))
        )
    np.testing.assert_allclose(found.channel_frequencies, kept, atol=1e-12)


def test_sizes_and_seeds(loaded, statistics):
    whole = ta.stability(loaded, statistics, TARGET)
    assert whole.sizes == (1, 2, 4, 6)
    assert len(whole.channel_overlaps) == len(whole.head_group_overlaps) == 4
    assert [layer.shape for layer in whole.head_group_frequencies] == [(4,)] * 3
    np.testing.assert_allclose([layer.sum() for layer in whole.channel_frequencies], 10)
    some = ta.stability(loaded, statistics, TARGET, sizes=[4])
    assert some.channel_overlaps == whole.channel_overlaps[2:3]
    np.testing.assert_array_equal(some.channel_frequencies, whole.channel_frequencies)
    other = ta.stability(loaded, statistics, TARGET, seed=1)
    assert other.channel_overlaps != whole.channel_overlaps
    for spread in whole.channel_overlaps:
        assert spread.lowest <= spread.mean <= spread.highest


def test_progress_can_stop_it(loaded, statistics):
    calls = []
    ta.stability(loaded, statistics, TARGET, sizes=[2], resamples=4, progress=lambda *call: calls.append(call))
    assert calls[-1] == (8, 8, "resamples")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)

    def stop(done, total, unit):
        raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.stability(loaded, statistics, TARGET, progress=stop)


def test_what_cannot_be_drawn_is_refused(loaded, statistics):
    plain = ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded)))
    with pytest.raises(ta.InvalidOption, match="samples=True"):
        ta.stability(loaded, plain, TARGET)
    for sizes in ([], [0], [7], [2.0], [True]):
        with pytest.raises(ta.InvalidOption, match="from 1 to 6"):
            ta.stability(loaded, statistics, TARGET, sizes=sizes)
    with pytest.raises(ta.InvalidOption, match="resamples"):
        ta.stability(loaded, statistics, TARGET, resamples=0)
    with pytest.raises(ta.InvalidOption, match="transact, wanda"):
        ta.stability(loaded, statistics, TARGET, metric="hope")
    with pytest.raises(ta.InvalidPlan, match="another model"):
        ta.stability(build("llama-multi-head"), statistics, TARGET)


def test_weights_are_read_once_for_all_draws_together(monkeypatch):
    loaded = ta.load("bundled")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(loaded.spec.vocab_size, (128, 4), generator=generator)
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(ids), samples=True, batch_size=64)
    plain, calls = metrics._column_norms, []
    monkeypatch.setattr(metrics, "_column_norms", lambda weight: calls.append(weight) or plain(weight))
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.5, mlp=0.5)
    found = ta.stability(loaded, statistics, target, metric="fluctuation")
    assert found.sizes == (1, 2, 4, 8, 16, 32, 64, 128)
    assert len(calls) == 2 * 2 * loaded.spec.num_hidden_layers  # for the whole set, and for all draws together
