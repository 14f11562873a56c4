"""What a size is foretold to cost: hand-computed powers, a real probe, and the order that measuring confirms."""

import math
from types import SimpleNamespace

import pytest

import transact as ta
from tests.tiny_models import build, token_ids
from transact.compression.frontier import CHANNELS, GROUPS, LAYERS, Frontier, KindCost, left
from transact.compression.recipe import target_of_size


@pytest.fixture(scope="module")
def made():
    loaded = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded), name="numbers")
    return loaded, calibration, ta.score(loaded, ta.observe(loaded, calibration))


def test_a_kind_rises_by_the_power_through_its_points():
    cost = KindCost(CHANNELS, ((0.1, 0.02), (0.2, 0.16)), 0.01)
    assert cost.rise(0.1) == pytest.approx(0.02) and cost.rise(0.2) == pytest.approx(0.16)
    assert cost.rise(0.4) == pytest.approx(0.16 * 8)  # a cube
    assert cost.factor(0.2) == pytest.approx(math.exp(0.16)) and cost.rise(0) == 0
    assert cost.price == pytest.approx(0.2)
    line = KindCost(GROUPS, ((0.1, 0.3),), 0.5)
    assert line.rise(0.2) == pytest.approx(0.6)
    bent = KindCost(CHANNELS, ((0.1, 0.3), (0.2, 0.3)), 0.01)
    assert bent.rise(0.1) == pytest.approx(0.15)  # never slower than in proportion
    noise = KindCost(CHANNELS, ((0.1, -0.1), (0.2, -0.2)), 0.01)
    assert 0 < noise.rise(0.2) < 0.01 and noise.price == 0


def test_the_probe_measures_behind_masks(made):
    loaded, calibration, scores = made
    seen = []
    frontier = ta.probe_frontier(
        loaded, scores, calibration, num_tokens=10**6, progress=lambda done, total, unit: seen.append((done, total))
    )
    dense = ta.perplexity(loaded, calibration)
    assert frontier.perplexity == pytest.approx(dense, rel=1e-6) and frontier.num_tokens == calibration.num_tokens
    assert {cost.kind for cost in frontier.costs} == {CHANNELS, GROUPS, LAYERS}
    plan = ta.make_plan(scores, loaded.spec, ta.PruningTarget.from_sparsity(loaded.spec, mlp=0.4))
    with ta.masked(loaded, plan):
        rise = math.log(ta.perplexity(loaded, calibration) / dense)
    share, found = frontier.cost(CHANNELS).points[-1]
    assert share == pytest.approx(1 - plan.spec.num_parameters / loaded.spec.num_parameters)
    assert found == pytest.approx(rise, abs=1e-5)
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    few = ta.probe_frontier(loaded, scores, calibration, num_tokens=1)
    assert few.num_tokens < frontier.num_tokens


def test_a_size_is_foretold_from_what_the_goal_takes(made):
    spec = made[0].spec
    channels, groups = KindCost(CHANNELS, ((0.1, 0.1),), 0.1), KindCost(GROUPS, ((0.1, 1.0),), 0.5)
    frontier = Frontier(3.0, 100, (channels, groups))
    gone = 1 - target_of_size(spec, 0.9).spec(spec).num_parameters / spec.num_parameters
    assert frontier.factor(spec, 0.9) == pytest.approx(math.exp(gone) ** left(spec, None))  # channels alone
    channels_of_a_layer = max(layer.intermediate_size for layer in spec.layers)
    quick = SimpleNamespace(observed_tokens=3 * channels_of_a_layer, distills=False)
    assert left(spec, quick) == pytest.approx(0.75 + 0.8 / 2)
    assert frontier.factor(spec, 0.9, quick) == pytest.approx(math.exp(gone) ** 1.15)
    assert left(spec, None) == pytest.approx(0.93 * (0.75 + 0.8 / (1 + 40 / 3)))
    both = ta.PruningTarget.from_sparsity(spec, attention=0.5, mlp=0.5)
    alone = ta.PruningTarget.from_sparsity(spec, mlp=0.5)
    assert frontier.masked_factor(spec, both) > frontier.masked_factor(spec, alone) > 1
    sizes = ta.reachable_sizes(spec, (0.9, 0.8, 0.01))
    assert sizes == (0.9, 0.8)
    factors = [frontier.factor(spec, size) for size in sizes]
    assert factors == sorted(factors)
    with pytest.raises(ta.InvalidTarget):
        frontier.factor(spec, 0.001)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "many"])
def test_a_number_of_tokens_that_is_none_is_refused(made, count):
    loaded, calibration, scores = made
    with pytest.raises(ta.InvalidOption, match="num_tokens"):
        ta.probe_frontier(loaded, scores, calibration, num_tokens=count)
