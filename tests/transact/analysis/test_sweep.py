"""Many plans measured in turn: the same numbers as one by one, in a fitting order, and nothing left behind."""

import importlib
import itertools

import pytest

import transact as ta
from tests.tiny_models import build, token_ids


@pytest.fixture
def loaded():
    return build("llama")


@pytest.fixture
def evaluation(loaded):
    return ta.EvaluationSet.from_token_ids(token_ids(loaded, samples=3))


def _hooks(loaded) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in loaded.model.modules())


def _scores(loaded, gram=False):
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=6)), gram=gram)
    return ta.score(loaded, statistics), statistics


@pytest.mark.parametrize("compensation", ["none", "least_squares"])
def test_points_are_what_pruning_and_measuring_give(loaded, evaluation, compensation):
    scores, statistics = _scores(loaded, gram=True)
    grid = [ta.PruningTarget(4, 40), ta.PruningTarget(2, 17), ta.PruningTarget((1, 2, 3), 5)]
    locks = ta.Locks(keep_channels=frozenset({(0, 0)}))
    points = list(
        ta.sweep(loaded, scores, grid, evaluation, compensation=compensation, statistics=statistics, locks=locks)
    )
    assert [point.target for point in points] == grid
    assert points[0].perplexity == pytest.approx(ta.perplexity(loaded, evaluation))
    for point in points:
        plan = ta.make_plan(scores, loaded.spec, point.target, locks=locks)
        pruned = ta.prune(loaded, plan, compensation=compensation, statistics=statistics)
        assert point.plan == plan
        assert point.parameters == pruned.model.num_parameters()
        assert point.perplexity == pytest.approx(ta.perplexity(pruned, evaluation), rel=1e-9)


def test_the_best_split_comes_first_and_all_are_equally_large(loaded, evaluation):
    scores, _ = _scores(loaded)
    before = ta.perplexity(loaded, evaluation)
    parameters = ta.make_plan(scores, loaded.spec, ta.PruningTarget(2, 20)).spec.num_parameters
    calls = []
    points = ta.search_split(
        loaded,
        scores,
        evaluation,
        parameters=parameters,
        allocation="global",
        progress=lambda *call: calls.append(call),
    )
    assert {point.target.keep_head_groups for point in points} == {1, 2, 3, 4}
    assert [point.perplexity for point in points] == sorted(point.perplexity for point in points)
    assert calls[-1][0] == calls[-1][1] == 4 * evaluation.num_tokens
    for point in points:
        assert parameters - 3 * loaded.spec.parameters_per_channel < point.parameters <= parameters
        assert point.plan == ta.make_plan(scores, loaded.spec, point.target, allocation="global")
        pruned = ta.prune(loaded, point.plan)
        assert point.perplexity == pytest.approx(ta.perplexity(pruned, evaluation), rel=1e-9)
    assert ta.perplexity(loaded, evaluation) == before
    with pytest.raises(ta.InvalidTarget, match="cannot be reached"):
        ta.search_split(loaded, scores, evaluation, parameters=loaded.spec.num_parameters * 2)
    with pytest.raises(ta.InvalidOption, match="uniform, global"):
        ta.search_split(loaded, scores, evaluation, parameters=parameters, allocation="hope")


def test_of_many_splits_some_are_tried_from_end_to_end(monkeypatch, evaluation):
    loaded = build("llama-multi-head")  # 8 groups
    # by its full name, as the package's attribute `sweep` is the function
    monkeypatch.setattr(importlib.import_module("transact.analysis.sweep"), "_MOST_SPLITS", 3)
    scores, parameters = ta.ImportanceScores.random(loaded.spec), loaded.spec.num_parameters - 9_000
    splits = [split.keep_head_groups for split in ta.PruningTarget.splits(loaded.spec, parameters)]
    assert len(splits) > 3
    tried = {
        point.target.keep_head_groups for point in ta.search_split(loaded, scores, evaluation, parameters=parameters)
    }
    assert len(tried) == 3
    assert {splits[0], splits[-1]} < tried


def test_points_come_one_by_one_and_no_mask_stays(loaded, evaluation):
    scores, _ = _scores(loaded)
    before = ta.perplexity(loaded, evaluation)
    points = ta.sweep(loaded, scores, ta.sparsity_grid(loaded.spec), evaluation)
    for _ in itertools.islice(points, 3):
        assert _hooks(loaded) == 0
    points.close()
    assert _hooks(loaded) == 0
    assert ta.perplexity(loaded, evaluation) == before


def test_no_mask_stays_when_progress_stops_it(loaded, evaluation):
    def stop_within_the_second_point(done, total, unit):
        if done > total // 3:
            assert _hooks(loaded) > 0
            raise ta.Cancelled

    grid = [ta.PruningTarget(2, 10)] * 3
    points = ta.sweep(loaded, _scores(loaded)[0], grid, evaluation, progress=stop_within_the_second_point)
    next(points)
    with pytest.raises(ta.Cancelled):
        next(points)
    assert _hooks(loaded) == 0


def test_progress_counts_the_tokens_of_the_whole_grid(loaded, evaluation):
    calls = []
    grid = (ta.PruningTarget(count, 10) for count in (1, 2))  # any iterable will do
    list(ta.sweep(loaded, _scores(loaded)[0], grid, evaluation, progress=lambda *call: calls.append(call)))
    assert calls[-1] == (72, 72, "tokens")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


def test_what_cannot_be_swept_is_refused_before_anything_is_measured(loaded, evaluation):
    scores, _ = _scores(loaded)
    good = [ta.PruningTarget(2, 10)]
    with pytest.raises(ta.InvalidTarget, match="keep 41 channels"):
        ta.sweep(loaded, scores, [*good, ta.PruningTarget(2, 41)], evaluation)
    with pytest.raises(ta.InvalidOption, match="none, bias, least_squares"):
        ta.sweep(loaded, scores, good, evaluation, compensation="hope")
    with pytest.raises(ta.InvalidPlan, match="another model"):
        ta.sweep(build("llama-multi-head"), scores, good, evaluation)
    assert list(ta.sweep(loaded, ta.ImportanceScores.random(loaded.spec), good, evaluation))


def test_grid_by_hand(loaded):
    grid = ta.sparsity_grid(loaded.spec, attention=[0.0, 0.25, 0.5], mlp=[0.0, 0.5, 0.75])
    assert [(target.keep_head_groups, target.keep_channels) for target in grid] == [
        *[(4, 40), (4, 10), (2, 40), (2, 10)],  # the corners
        *[(4, 20), (3, 40), (3, 20), (3, 10), (2, 20)],
    ]
    assert dict(grid[-1].requested) == {"attention_sparsity": 0.5, "mlp_sparsity": 0.5}


def test_grid_has_legal_head_group_counts_only(loaded):
    grid = ta.sparsity_grid(loaded.spec, attention=[0.3, 0.5, 0.9, 0.45, 0.0], mlp=[0.25])
    # 0.3 and 0.45 leave 2 of 4, as 0.5 does; 0.9 leaves 1
    assert [target.keep_head_groups for target in grid] == [4, 1, 2]
    assert [dict(target.requested)["attention_sparsity"] for target in grid] == [0.0, 0.75, 0.5]
    every = ta.sparsity_grid(loaded.spec)
    assert (every[0].keep_head_groups, every[0].keep_channels) == (4, 40)
    assert {target.keep_head_groups for target in every} == {1, 2, 3, 4}
    assert len({(target.keep_head_groups, target.keep_channels) for target in every}) == len(every) == 32
    for count, step in ((12, 8), (32, 8), (1, 1)):
        shape = ta.LayerShape(2 * count, count, 40)
        rows = {target.keep_head_groups for target in ta.sparsity_grid(loaded.spec.with_layers((shape,) * 3))}
        assert len(rows) == step and max(rows) == count
    with pytest.raises(ta.InvalidTarget, match="attention sparsity"):
        ta.sparsity_grid(loaded.spec, attention=[1.0])
