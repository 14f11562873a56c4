"""The statistics so far, while text passes and where it is stopped: those of the samples that were read, to the bit."""

from dataclasses import fields

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids

LENGTHS = (7, 12, 1, 12, 4, 9, 2, 11)
BATCHES = ((3, 1), (5, 7), (0, 4), (2, 6))
"""The samples of each batch of two, longest first."""


@pytest.fixture(scope="module")
def loaded():
    return build("llama")


@pytest.fixture(scope="module")
def text(loaded):
    ids = token_ids(loaded, samples=len(LENGTHS), seq=max(LENGTHS))
    rows = [row[:length].tolist() for row, length in zip(ids, LENGTHS, strict=True)]
    return ta.CalibrationSet.from_sequences(rows, name="text")


def same(ours: ta.ActivationStatistics, theirs: ta.ActivationStatistics) -> None:
    """Both to the bit, as usable tensors on the CPU."""
    for name in ("attention", "mlp", "residual", "head_peaks", "channel_peaks", "queries", "keys"):
        for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            for field in fields(one):
                mine, other_tensor = getattr(one, field.name), getattr(other, field.name)
                assert (mine is None) == (other_tensor is None), (name, field.name)
                if mine is not None:
                    assert torch.equal(mine, other_tensor), (name, field.name)
                    assert not mine.is_inference()
    assert ours.sample_tokens == theirs.sample_tokens
    assert vars(ours.calibration) == vars(theirs.calibration)


def test_the_longest_are_those_that_are_read_first(text):
    assert [set(batch.indices) for batch in text.batches(batch_size=2)] == [set(batch) for batch in BATCHES]
    longest = text.longest(4)
    assert longest.lengths == (12, 12, 9, 11)
    assert "the longest 4" in longest.protocol
    assert list(longest.rows()) == [list(text.rows())[index] for index in (1, 3, 5, 7)]
    assert text.longest(8) is text


def test_reports_are_the_statistics_of_what_was_read(loaded, text):
    kept = {"samples": True, "top_k": 2, "queries": True, "batch_size": 2}
    partial, counts = [], []

    def report(so_far) -> None:
        counts.append(0)
        if len(counts) != 2:  # who wants none makes none
            partial.append(so_far())

    whole = ta.observe(loaded, text, **kept, report=report)
    same(whole, ta.observe(loaded, text, **kept))
    assert len(counts) == len(BATCHES) - 1
    assert [each.calibration.num_samples for each in partial] == [2, 6]
    for each in partial:
        alone = ta.observe(loaded, text.longest(each.calibration.num_samples), **kept)
        same(each, alone)
        assert torch.equal(each.tokens.input_ids, text.longest(each.calibration.num_samples).input_ids)
        scores = [ta.score(loaded, each, metric=metric) for metric in ta.available_metrics(each)]
        assert len(scores) == len(ta.available_metrics(alone))


def test_what_runs_the_model_in_a_report_is_not_recorded(loaded, text):
    plain = ta.observe(loaded, text, batch_size=2)
    same(ta.observe(loaded, text, batch_size=2, report=lambda so_far: ta.perplexity(loaded, text)), plain)


@pytest.mark.parametrize("options", [{}, {"gram": True}, {"taylor": True}])
def test_stopped_within_a_batch_it_keeps_the_whole_ones(loaded, text, options):
    stopping = []

    def progress(done: int, total: int, unit: str) -> None:
        if done > 12 + 12 + 9 + 11 + 2:  # in the middle of the third batch
            stopping.append(done)

    found = ta.observe(loaded, text, batch_size=2, **options, stop=lambda: bool(stopping), progress=progress)
    same(found, ta.observe(loaded, text.longest(4), batch_size=2))
    assert len(stopping) == 1


def test_stopped_among_the_gradients_it_keeps_the_rest(loaded, text):
    stopping = []

    def progress(done: int, total: int, unit: str) -> None:
        if done > total / 2 + 1:
            stopping.append(done)

    found = ta.observe(loaded, text, taylor=True, stop=lambda: bool(stopping), progress=progress)
    same(found, ta.observe(loaded, text))
    assert stopping and "taylor" not in ta.available_metrics(found)


def test_stopped_before_a_batch_is_through_nothing_is_kept(loaded, text):
    with pytest.raises(ta.Cancelled) as raised:
        ta.observe(loaded, text, stop=lambda: True)
    assert raised.type is ta.Cancelled
