"""Widths that were priced are tried, and taken only as far as less is lost by them."""

from dataclasses import replace

import pytest
import torch

import transact as ta
from benchmarks.quality import SIZES
from tests import tiny_models
from transact.analysis import width_search
from transact.planning.widths import PricedWidths, priced_widths


@pytest.fixture(scope="module")
def tiny() -> ta.LoadedModel:
    return tiny_models.with_an_idle_mlp()


@pytest.fixture(scope="module")
def observed(tiny) -> ta.ActivationStatistics:
    ids = torch.randint(3, 48, (12, 24), generator=torch.Generator().manual_seed(5))
    return ta.observe(tiny, ta.CalibrationSet.from_token_ids(ids, name="drawn"), gram=True)


def _widths(target: ta.PruningTarget, loaded: ta.LoadedModel) -> list[int]:
    return [shape.intermediate_size for shape in target.per_layer(loaded.spec)]


@pytest.mark.parametrize("multiple", [1, 4])
def test_between_equal_and_priced_widths_as_many_stay(tiny, observed, multiple):
    target = ta.PruningTarget.from_sparsity(tiny.spec, mlp=0.3, multiple_of=multiple)
    priced = replace(target, keep_channels=(40, 8, 36))
    for share in width_search.SHARES:
        widths = _widths(width_search.between(tiny.spec, target, priced, share), tiny)
        assert sum(widths) == 84 and all(width % multiple == 0 for width in widths)
        assert widths == {0.0: [28, 28, 28], 1.0: [40, 8, 36]}.get(share, widths)


def test_the_least_perplexity_decides(tiny, observed, monkeypatch):
    """Whatever the prices say: here they are made to name the worst share-out there is."""
    target = ta.PruningTarget(4, 24)
    right = _widths(ta.search_widths(tiny, observed, target), tiny)
    assert sum(right) == 72 and right[1] == min(right) < 24
    worst = PricedWidths(replace(target, keep_channels=(31, 40, 1)), ta.score(tiny, observed))
    monkeypatch.setattr(width_search, "priced_widths", lambda *given, **named: worst)
    wrong = ta.search_widths(tiny, observed, target)
    assert _widths(wrong, tiny) != [31, 40, 1]


def test_nothing_to_share_out_is_left_as_it_is(tiny, observed):
    target = ta.PruningTarget(2, 40)
    assert ta.search_widths(tiny, observed, target) is target


@pytest.mark.rounding
@pytest.mark.long
def test_no_more_is_lost_than_with_equal_widths(stories, calibration_texts, evaluation_texts):
    """On text that took no part, at the five sizes of the reference table: equal widths are one of what is tried."""
    protocol = {"seq_len": 256, "min_tokens": 64}
    text = ta.CalibrationSet.from_texts(calibration_texts, stories.tokenizer, **protocol)
    measured_on = ta.EvaluationSet.from_texts(evaluation_texts, stories.tokenizer, **protocol)
    statistics = ta.observe(stories, text, gram=True)
    scores = ta.score(stories, statistics)
    for size in SIZES:
        perplexities = []
        for target in (uniform := ta.PruningTarget(*size), ta.search_widths(stories, statistics, uniform)):
            plan = ta.make_plan(scores, stories.spec, target)
            pruned = ta.prune(stories, plan, compensation="least_squares", statistics=statistics)
            perplexities.append(ta.perplexity(pruned, measured_on))
        assert perplexities[1] <= 1.005 * perplexities[0]


@pytest.mark.long
def test_priced_widths_alone_would_lose_more_there(stories, calibration_texts):
    """Why measuring decides: prices, which are those of small changes, take too much from the first layers."""
    text = ta.CalibrationSet.from_texts(calibration_texts, stories.tokenizer, seq_len=256, min_tokens=64)
    statistics = ta.observe(stories, text, gram=True)
    target = ta.PruningTarget(4, 86)
    priced, searched = priced_widths(stories, statistics, target).target, ta.search_widths(stories, statistics, target)
    first = [_widths(each, stories)[0] for each in (priced, searched)]
    assert first[0] < first[1]
