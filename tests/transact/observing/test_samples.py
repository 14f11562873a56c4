"""The sums of every sample: by hand, against the sums of the samples alone, and as subsets."""

import importlib

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.observing.accumulators import MomentAccumulator, RealTokens
from transact.observing.statistics import CalibrationRecord
from transact.text.calibration import CalibrationSet

pytestmark = pytest.mark.rounding


def _padded(loaded, samples: int = 5) -> CalibrationSet:
    """Samples of different lengths, in no order of length."""
    ids = token_ids(loaded, samples=samples, seq=12)
    rows = [row[:length].tolist() for row, length in zip(ids, (7, 12, 1, 12, 4, 9, 2, 11), strict=False)]
    return CalibrationSet.from_sequences(rows, name="padded")


def test_sample_sums_by_hand():
    # two samples of two channels: the second one has a single real token, and 99 is padding
    activations = torch.tensor([[[1.0, -2.0], [3.0, 0.5]], [[4.0, 0.0], [99.0, 99.0]]])
    tokens = RealTokens(torch.tensor([[True, True], [True, False]]), lengths=(2, 1), samples=(2, 0))
    running = MomentAccumulator(2, torch.device("cpu"), num_samples=3)
    running.add(activations, tokens)
    moments = running.result()
    assert moments.sums.tolist() == [8.0, -1.5]
    assert moments.square_sums.tolist() == [26.0, 4.25]
    assert moments.sample_sums.tolist() == [[4.0, 0.0], [0.0, 0.0], [4.0, -1.5]]
    assert moments.sample_square_sums.tolist() == [[16.0, 0.0], [0.0, 0.0], [10.0, 4.25]]
    assert moments.sample_sums.dtype == torch.float32


def test_subset_by_hand():
    moments = ta.Moments(
        sums=torch.tensor([6.0]).double(),
        square_sums=torch.tensor([14.0]).double(),
        sample_sums=torch.tensor([[1.0], [2.0], [3.0]]),
        sample_square_sums=torch.tensor([[1.0], [4.0], [9.0]]),
    )
    record = CalibrationRecord("three", "f", num_samples=3, num_tokens=6, seq_len=3, seed=0, protocol="by hand")
    statistics = ta.ActivationStatistics((moments,), (moments,), 6, record, "model", "float32", sample_tokens=(1, 2, 3))
    drawn = statistics.subset([2, 0, 2])
    assert drawn.mlp[0].sums.tolist() == [7.0]
    assert drawn.mlp[0].square_sums.tolist() == [19.0]
    assert drawn.sample_tokens == (3, 1, 3)
    assert drawn.num_tokens == drawn.calibration.num_tokens == 7
    assert drawn.calibration.num_samples == 3
    assert drawn.calibration.name == "three, 3 of 3 samples"
    assert drawn.calibration.fingerprint != record.fingerprint
    assert drawn.subset([1]).mlp[0].square_sums.tolist() == [1.0]
    assert statistics.subset(range(3)).calibration is record


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_sample_has_the_sums_it_has_alone(batch_size):
    loaded = build("llama")
    calibration = _padded(loaded)
    statistics = ta.observe(loaded, calibration, samples=True, batch_size=batch_size)
    assert statistics.sample_tokens == calibration.lengths == (7, 12, 1, 12, 4)
    for index, row in enumerate(calibration.rows()):
        alone = ta.observe(loaded, CalibrationSet.from_sequences([row], name="alone"))
        one = statistics.subset([index])
        assert one.num_tokens == alone.num_tokens == len(row)
        for site in ("attention", "mlp"):
            for ours, theirs in zip(getattr(one, site), getattr(alone, site), strict=True):
                torch.testing.assert_close(ours.sums, theirs.sums, rtol=1e-6, atol=1e-6)
                torch.testing.assert_close(ours.square_sums, theirs.square_sums, rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", ["transact", "fluctuation"])
def test_all_samples_give_the_totals_and_a_subset_its_own(metric):
    loaded = build("qwen2", dtype=torch.float32)
    calibration = _padded(loaded, samples=8)
    plain = ta.observe(loaded, calibration)
    statistics = ta.observe(loaded, calibration, samples=True)
    some = CalibrationSet.from_sequences(
        [row for index, row in enumerate(calibration.rows()) if index in (1, 4, 6)], name="some"
    )
    for ours, theirs in (
        (statistics, plain),
        (statistics.subset(range(8)), plain),
        (statistics.subset([4, 1, 6]), ta.observe(loaded, some)),
    ):
        ours, theirs = ta.score(loaded, ours, metric=metric), ta.score(loaded, theirs, metric=metric)
        for one, other in zip(ours.mlp_channels + ours.heads, theirs.mlp_channels + theirs.heads, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=0)


def test_round_trip_with_samples_and_peaks(tmp_path):
    loaded = build("llama")
    statistics = ta.observe(loaded, _padded(loaded), samples=True, top_k=2)
    statistics.save(tmp_path / "statistics.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    assert again.sample_tokens == statistics.sample_tokens
    assert torch.equal(again.mlp[1].sample_square_sums, statistics.mlp[1].sample_square_sums)
    assert torch.equal(again.subset([0, 3]).attention[2].sums, statistics.subset([0, 3]).attention[2].sums)
    for name in ("activations", "samples", "positions"):
        assert torch.equal(getattr(again.head_peaks[1], name), getattr(statistics.head_peaks[1], name))
        assert torch.equal(getattr(again.channel_peaks[2], name), getattr(statistics.channel_peaks[2], name))
    plain = ta.observe(loaded, _padded(loaded))
    plain.save(tmp_path / "plain.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "plain.safetensors")
    assert (again.sample_tokens, again.head_peaks, again.mlp[0].sample_sums) == ((), (), None)


@pytest.mark.parametrize("indices", [[], [5], [-1], [0, 1.5], ["0"]])
def test_samples_that_there_are_not_are_refused(indices):
    loaded = build("llama")
    statistics = ta.observe(loaded, _padded(loaded), samples=True)
    with pytest.raises(ta.InvalidOption, match="from 0 to 4"):
        statistics.subset(indices)
    with pytest.raises(ta.InvalidOption, match="samples=True"):
        ta.observe(loaded, _padded(loaded)).subset([0])


def test_sample_sums_that_do_not_fit_are_refused(monkeypatch):
    loaded = build("llama")
    # 3 layers of 32 and 40 channels, two float32 sums a channel and sample
    assert ta.sample_bytes(loaded.spec, 10) == 3 * 72 * 2 * 4 * 10
    monkeypatch.setattr(
        importlib.import_module("transact.observing.observe"), "free_bytes", lambda device: 3 * 72 * 2 * 4 * 4
    )
    ta.observe(loaded, _padded(loaded, samples=4), samples=True)
    with pytest.raises(ta.NotEnoughMemory, match="The sums of each of 5 samples need .* samples=False"):
        ta.observe(loaded, _padded(loaded), samples=True)


def test_observing_more_changes_nothing_else():
    loaded = build("llama", dtype=torch.bfloat16)
    calibration = _padded(loaded)
    plain, more = ta.observe(loaded, calibration), ta.observe(loaded, calibration, top_k=3)
    assert all(torch.equal(one.square_sums, other.square_sums) for one, other in zip(plain.mlp, more.mlp, strict=True))
    assert (more.calibration.fingerprint, more.sample_tokens) == (plain.calibration.fingerprint, ())
