"""Targets with fewer layers: which layers stay, and what the others share."""

from dataclasses import replace

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.scoring.scores import ImportanceScores

SCORES, ALL = (0.3, 0.1, 0.3, 0.2), (0, 1, 2, 3)


@pytest.fixture(scope="module")
def spec():
    spec = build("llama").spec  # 4 groups of 2 heads, 40 channels
    return replace(spec, layers=spec.layers[:1] * 4, windows=spec.windows[:1] * 4)


@pytest.fixture(scope="module")
def scores(spec) -> ImportanceScores:
    return replace(ImportanceScores.random(spec), layers=torch.tensor(SCORES, dtype=torch.float64))


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, (0,)), (2, (0, 2)), (3, (0, 2, 3)), (4, (0, 1, 2, 3)), (None, (0, 1, 2, 3))]
)
def test_the_layers_that_do_most_stay_and_ties_go_to_the_lower_index(spec, scores, keep, kept):
    plan = ta.make_plan(scores, spec, ta.PruningTarget(2, 7, keep_layers=keep))
    assert plan.kept_layers == kept
    assert plan.layers == ta.make_plan(scores, spec, ta.PruningTarget(2, 7)).layers
    assert ta.PruningPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("allocation", ["uniform", "global", "flap"])
@pytest.mark.parametrize("counts", [(2, 20), ((1, 2, 3, 4), (40, 30, 20, 10))])
def test_layers_that_stay_share_what_the_target_says_for_them(spec, scores, allocation, counts):
    """They come to what a model of these layers alone would."""
    target = ta.PruningTarget(*counts, keep_layers=2)
    plan = ta.make_plan(scores, spec, target, allocation=allocation)
    inside = ("heads", "head_groups", "mlp_channels", "attention_channels", "rotary_pairs")
    alone = replace(scores, **{name: tuple(getattr(scores, name)[layer] for layer in (0, 2)) for name in inside})
    small = replace(spec, layers=spec.layers[:2], windows=spec.windows[:2])
    of_two = tuple(each if isinstance(each, int) else (each[0], each[2]) for each in counts)
    expected = ta.make_plan(
        replace(alone, fingerprint=small.fingerprint), small, ta.PruningTarget(*of_two), allocation=allocation
    )
    assert tuple(plan.kept_layer_plans.values()) == expected.layers
    shape = target.per_layer(spec)[1]
    assert (len(plan.layers[1].kept_head_groups), len(plan.layers[1].kept_channels)) == (
        shape.num_key_value_heads,
        shape.intermediate_size,
    )


def test_entries_of_layers_that_go_must_be_possible(spec, scores):
    with pytest.raises(ta.InvalidTarget, match="Layer 1 was told to keep 41 channels"):
        ta.make_plan(scores, spec, ta.PruningTarget(2, (1, 41, 1, 1), keep_layers=2))


@pytest.mark.parametrize("allocation", ["uniform", "global", "flap"])
def test_a_layer_with_units_locked_to_stay_stays(spec, scores, allocation):
    locks = ta.Locks(
        keep_channels=frozenset({(1, 5)}), remove_channels=frozenset({(3, 5)}), keep_head_groups=frozenset({(1, 2)})
    )
    plan = ta.make_plan(scores, spec, ta.PruningTarget(2, 7, keep_layers=2), allocation=allocation, locks=locks)
    assert plan.kept_layers == (0, 1)
    assert 5 in plan.layers[1].kept_channels and 2 in plan.layers[1].kept_head_groups
    three = ta.Locks(keep_channels=frozenset({(0, 0), (1, 5), (3, 5)}))
    with pytest.raises(ta.InvalidTarget, match="keep 2 layers, but units of 3 are locked"):
        ta.make_plan(scores, spec, ta.PruningTarget(2, 7, keep_layers=2), locks=three)
    with pytest.raises(ta.InvalidTarget, match="A lock names layer 9"):
        nowhere = ta.Locks(keep_channels=frozenset({(9, 0)}))
        ta.make_plan(scores, spec, ta.PruningTarget(2, 7, keep_layers=2), locks=nowhere)


def test_scores_without_layers_say_what_to_do(spec, scores):
    unknown = replace(scores, layers=None)
    assert ta.make_plan(unknown, spec, ta.PruningTarget(2, 7, keep_layers=4)).kept_layers == (0, 1, 2, 3)
    with pytest.raises(ta.InvalidOption, match="Observe and score again, or leave out keep_layers"):
        ta.make_plan(unknown, spec, ta.PruningTarget(2, 7, keep_layers=2))
    broken = replace(scores, layers=torch.tensor([0.1, float("nan"), 0.2, 0.3]).double())
    with pytest.raises(ta.InvalidPlan, match="NaN"):
        ta.make_plan(broken, spec, ta.PruningTarget(2, 7, keep_layers=2))


def test_work_that_keeps_all_layers_says_so():
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, 4))
    target = ta.PruningTarget(2, 24, keep_layers=2)
    with pytest.raises(ta.InvalidTarget, match="Iterative pruning does not remove whole layers"):
        ta.recover(dense, calibration, target)
    with pytest.raises(ta.InvalidTarget, match="does not remove whole layers"):
        ta.stability(dense, ta.observe(dense, calibration, samples=True), target)
