"""Targets and plans: what is asked for is what happens, or it is refused."""

import json

import pytest
import torch

import transact as ta
from tests.tiny_models import build
from transact.planning.allocation import GLOBAL_FLOOR
from transact.scoring.scores import ImportanceScores
from transact.spec.digest import digest


@pytest.fixture(scope="module")
def spec():
    return build("llama").spec  # 3 layers, 4 groups of 2 heads, 40 channels


def _scores(spec, mlp) -> ImportanceScores:
    attention = (torch.arange(spec.layers[0].num_attention_heads * spec.head_dim, dtype=torch.float64),) * 3
    return ImportanceScores.from_channels(
        "wanda", attention, (mlp,) * 3, spec, fingerprint=spec.fingerprint, calibration="none"
    )


def test_highest_scores_stay_and_ties_go_to_the_lower_index(spec):
    mlp = torch.zeros(40, dtype=torch.float64)
    mlp[[5, 30]] = 2.0
    mlp[[3, 7, 11]] = 1.0
    plan = ta.make_plan(_scores(spec, mlp), spec, ta.PruningTarget(keep_head_groups=2, keep_channels=4))
    assert plan.layers[0].kept_channels == (3, 5, 7, 30)
    assert plan.layers[0].kept_head_groups == (2, 3)
    assert plan.layers[0].kept_heads == (4, 5, 6, 7)
    assert plan.spec.layers[1] == ta.LayerShape(4, 2, 4)


def test_the_highest_heads_of_every_group_stay(spec):
    """Heads of 4 groups of 2; a group is judged by what would stay of it, not by what goes."""
    heads = torch.tensor([9.0, 0, 5, 5, 1, 8, 3, 2], dtype=torch.float64).repeat_interleave(spec.head_dim)
    scores = ImportanceScores.from_channels(
        "wanda", (heads,) * 3, (torch.ones(40).double(),) * 3, spec, fingerprint=spec.fingerprint, calibration="none"
    )
    inside = ta.make_plan(scores, spec, ta.PruningTarget(4, 40, keep_heads_per_group=1))
    assert inside.layers[0].kept_heads == (0, 2, 5, 6) and inside.layers[0].kept_head_groups == (0, 1, 2, 3)
    assert inside.spec.layers[0] == ta.LayerShape(4, 4, 40)
    assert inside.spec.kv_bytes_per_token() == spec.kv_bytes_per_token()
    achieved = inside.summary()["achieved"]
    assert (achieved["attention_sparsity"], achieved["keep_heads_per_group"]) == (0.5, 1)
    both = ta.make_plan(scores, spec, ta.PruningTarget(2, 40, keep_heads_per_group=1))
    assert both.layers[0].kept_head_groups == (0, 2) and both.layers[0].kept_heads == (0, 5)
    assert ta.make_plan(scores, spec, ta.PruningTarget(2, 40)).layers[0].kept_head_groups == (0, 1)
    for plan in (inside, both):
        assert ta.PruningPlan.from_json(plan.to_json()) == plan


def test_shares_of_the_heads_in_a_group(spec):
    half = ta.PruningTarget.from_sparsity(spec, attention=0.5, granularity="heads")
    assert (half.keep_head_groups, half.keep_heads_per_group) == (4, 1)
    assert ta.PruningTarget.from_sparsity(spec, attention=0.9, granularity="heads").keep_heads_per_group == 1
    for wrong, said in ((0, "must keep at least 1"), (3, "it has 2"), (1.5, "whole number"), (True, "whole number")):
        with pytest.raises(ta.InvalidTarget, match=said):
            ta.PruningTarget(4, 40, keep_heads_per_group=wrong).per_layer(spec)
    with pytest.raises(ta.InvalidOption, match="granularity"):
        ta.PruningTarget.from_sparsity(spec, granularity="pairs")


def test_many_ties_keep_the_first(spec):
    plan = ta.make_plan(_scores(spec, torch.ones(40).double()), spec, ta.PruningTarget(4, 7))
    assert plan.layers[2].kept_channels == tuple(range(7))


def test_locks_win_over_scores_and_contradictions_are_refused(spec):
    scores = _scores(spec, torch.arange(40, dtype=torch.float64))
    target = ta.PruningTarget(keep_head_groups=1, keep_channels=2)
    locks = ta.Locks(
        keep_head_groups=frozenset({(0, 0)}),
        keep_channels=frozenset({(1, 4)}),
        remove_channels=frozenset({(1, 39), (2, 38)}),
    )
    plan = ta.make_plan(scores, spec, target, locks=locks)
    assert plan.layers[0].kept_head_groups == (0,)
    assert [layer.kept_channels for layer in plan.layers] == [(38, 39), (4, 38), (37, 39)]
    with pytest.raises(ta.InvalidTarget, match="Layer 0 is to keep 1 of 4 head groups, but 2 are locked"):
        ta.make_plan(scores, spec, target, locks=ta.Locks(keep_head_groups=frozenset({(0, 0), (0, 1)})))
    with pytest.raises(ta.InvalidTarget, match="does not have"):
        ta.make_plan(scores, spec, target, locks=ta.Locks(keep_channels=frozenset({(0, 40)})))
    both = frozenset({(0, 1)})
    with pytest.raises(ta.InvalidTarget, match="both"):
        ta.make_plan(scores, spec, target, locks=ta.Locks(keep_channels=both, remove_channels=both))


def _layered(spec, groups, mlp) -> ImportanceScores:
    """Scores with a value of its own for every layer's groups (8 heads of 4 in 4 groups) and channels."""
    attention = tuple(torch.tensor(layer, dtype=torch.float64).repeat_interleave(8) for layer in groups)
    return ImportanceScores.from_channels(
        "wanda", attention, tuple(mlp), spec, fingerprint=spec.fingerprint, calibration="none"
    )


def test_global_allocation_by_hand(spec):
    """Shares of the layer decide, not raw scores, and each layer keeps half of its count, rounded up."""
    mlp = [torch.ones(40).double(), 1000 * torch.ones(40).double(), torch.full((40,), 0.1).double()]
    mlp[2][:4] = 10.0  # four channels hold 40 of 43.6: the greatest shares of all; the others the smallest
    groups = [[4.0, 3.0, 2.0, 1.0], [400.0, 300.0, 200.0, 100.0], [97.0, 1.0, 1.0, 1.0]]
    plan = ta.make_plan(_layered(spec, groups, mlp), spec, ta.PruningTarget(3, 6), allocation="global")
    # 9 groups: two each, then shares 0.2, 0.2 and, with no 0.1 left but the two equal ones, the lower layer
    assert [layer.kept_head_groups for layer in plan.layers] == [(0, 1, 2, 3), (0, 1, 2), (0, 1)]
    # 18 channels: three each, then the fourth of layer 2 (share 0.23), then 1/40 in layer 0 before layer 1
    assert [len(layer.kept_channels) for layer in plan.layers] == [11, 3, 4]
    assert plan.layers[0].kept_channels == tuple(range(11))
    assert plan.allocation == "global"
    assert ta.PruningPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("groups", [1, 2, 3, 4, (1, 2, 4)])
@pytest.mark.parametrize("channels", [1, 7, 40, (3, 10, 40)])
def test_global_allocation_spends_what_uniform_spends(spec, groups, channels):
    scores, target = ImportanceScores.random(spec, seed=3), ta.PruningTarget(groups, channels)
    uniform, everywhere = (ta.make_plan(scores, spec, target, allocation=name) for name in ("uniform", "global"))
    assert everywhere.spec.num_parameters == uniform.spec.num_parameters
    assert everywhere.spec.kv_bytes_per_token() == uniform.spec.kv_bytes_per_token()
    for least, layer in zip(target.per_layer(spec), everywhere.layers, strict=True):
        assert len(layer.kept_head_groups) >= least.num_key_value_heads * GLOBAL_FLOOR
        assert len(layer.kept_channels) >= least.intermediate_size * GLOBAL_FLOOR


def test_global_allocation_with_equal_and_with_no_scores(spec):
    for value in (0.0, 2.0):
        mlp = [torch.full((40,), value).double()] * 3
        plan = ta.make_plan(_layered(spec, [[value] * 4] * 3, mlp), spec, ta.PruningTarget(2, 10), allocation="global")
        assert [layer.kept_channels for layer in plan.layers] == [tuple(range(20)), tuple(range(5)), tuple(range(5))]
        assert [layer.kept_head_groups for layer in plan.layers] == [(0, 1, 2, 3), (0,), (0,)]


def test_global_allocation_respects_locks(spec):
    scores, target = ImportanceScores.random(spec, seed=3), ta.PruningTarget(2, 4)
    locks = ta.Locks(
        keep_head_groups=frozenset((0, group) for group in range(4)),
        keep_channels=frozenset((1, channel) for channel in range(8)),
        remove_channels=frozenset((2, channel) for channel in range(38)),
    )
    plan = ta.make_plan(scores, spec, target, allocation="global", locks=locks)
    assert plan.layers[0].kept_head_groups == (0, 1, 2, 3)
    assert [len(layer.kept_head_groups) for layer in plan.layers] == [4, 1, 1]
    assert plan.layers[1].kept_channels == tuple(range(8))
    assert plan.layers[2].kept_channels == (38, 39)
    assert torch.isfinite(scores.mlp_channels[1]).all()
    with pytest.raises(ta.InvalidTarget, match="keep 3 of 12 head groups, but 6 must stay"):
        ta.make_plan(scores, spec, ta.PruningTarget(1, 4), allocation="global", locks=locks)
    with pytest.raises(ta.InvalidTarget, match="Layer 2 must keep at least 3 of 40 channels"):
        ta.make_plan(scores, spec, ta.PruningTarget(2, 6), allocation="global", locks=locks)
    with pytest.raises(ta.InvalidOption, match="uniform, global, flap"):
        ta.make_plan(scores, spec, target, allocation="fair")


@pytest.mark.parametrize(
    ("attention", "mlp", "multiple_of", "groups", "channels"),
    [
        (0.25, 0.5, 1, 3, 20),
        (0.0, 0.0, 1, 4, 40),
        (0.3, 0.33, 1, 2, 26),  # 2.8 and 26.8 round down
        (0.999, 0.999, 1, 1, 1),  # never nothing
        (0.5, 0.5, 8, 2, 16),
        (0.5, 0.95, 8, 2, 8),  # not below the multiple
        (0.0, 0.9, 1, 4, 4),  # 40 · (1 − 0.9) is 3.999... in binary
    ],
)
def test_from_sparsity(spec, attention, mlp, multiple_of, groups, channels):
    target = ta.PruningTarget.from_sparsity(spec, attention=attention, mlp=mlp, multiple_of=multiple_of)
    assert (target.keep_head_groups, target.keep_channels) == (groups, channels)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None, True])
def test_sparsity_outside_its_range_is_refused(spec, value):
    with pytest.raises(ta.InvalidTarget, match="attention sparsity"):
        ta.PruningTarget.from_sparsity(spec, attention=value, mlp=0.5)


@pytest.mark.parametrize(
    ("groups", "channels", "what"),
    [
        (0, 5, "Layer 0 was told to keep 0 head groups; it has 4"),
        (5, 5, "keep 5 head groups"),
        (2, 41, "keep 41 channels; it has 40"),
        ((1, 2), 5, "has 2 entries, but the model has 3 layers"),
        ((1, 2, 0), 5, "Layer 2"),
        (2.0, 5, "whole number"),
    ],
)
def test_impossible_counts_are_refused(spec, groups, channels, what):
    with pytest.raises(ta.InvalidTarget, match=what):
        scores = ImportanceScores.random(spec)
        ta.make_plan(scores, spec, ta.PruningTarget(keep_head_groups=groups, keep_channels=channels))


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9, 1.0])
def test_from_parameters_fills_the_budget(spec, share):
    budget = int(spec.num_parameters * share)
    target = ta.PruningTarget.from_parameters(spec, parameters=budget)
    reached = ta.make_plan(ImportanceScores.random(spec), spec, target).spec.num_parameters
    one_channel_everywhere = spec.parameters_per_channel * spec.num_hidden_layers
    assert budget - one_channel_everywhere < reached <= budget


def test_from_parameters_refuses_the_impossible(spec):
    with pytest.raises(ta.InvalidTarget, match="cannot be reached"):
        ta.PruningTarget.from_parameters(spec, parameters=spec.fixed_parameters)


def test_json_round_trip_and_summary(spec):
    target = ta.PruningTarget.from_sparsity(spec, attention=0.5, mlp=0.25)
    plan = ta.make_plan(ImportanceScores.random(spec), spec, target)
    assert ta.PruningPlan.from_json(plan.to_json()) == plan
    summary = json.loads(json.dumps(plan.summary()))
    assert summary["requested"] == {"attention_sparsity": 0.5, "mlp_sparsity": 0.25}
    assert summary["achieved"]["attention_sparsity"] == 0.5
    assert summary["before"]["parameters"] == spec.num_parameters
    assert summary["after"]["kv_bytes_per_token"] * 2 == summary["before"]["kv_bytes_per_token"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: plan.update(version=1),
        lambda plan: plan.update(layers=plan["layers"][:-1]),
        lambda plan: plan["layers"][0].update(kept_channels=[]),
        lambda plan: plan["layers"][0].update(kept_channels=[3, 2]),
        lambda plan: plan["layers"][0].update(kept_channels=[1, 1]),
        lambda plan: plan["layers"][0].update(kept_channels=[40]),
        lambda plan: plan["layers"][0].update(kept_channels=[-1]),
        lambda plan: plan["layers"][0].update(kept_head_groups=[True]),
        lambda plan: plan["layers"][0].update(kept_head_groups="0"),
        lambda plan: plan["layers"][0].update(kept_head_groups=[0]),
        lambda plan: plan["layers"][0].update(kept_heads=plan["layers"][0]["kept_heads"][:-1]),
        lambda plan: [layer.update(kept_heads=layer["kept_heads"][:1]) for layer in plan["layers"]],
        lambda plan: plan["dense_spec"].update(hidden_size=-4),
        lambda plan: plan["dense_spec"].update(family="nonsense"),
        lambda plan: plan["dense_spec"].update(head_dim=8),
        lambda plan: _with_spec(plan, hidden_size=-4),
        lambda plan: _with_spec(plan, vocab_size=2.5),
        lambda plan: _with_spec(plan, layers=[]),
        lambda plan: _with_spec(plan, layers=[{**layer, "num_attention_heads": 7} for layer in _layers(plan)]),
        lambda plan: _with_spec(plan, layers=[{**layer, "num_attention_heads": 1} for layer in _layers(plan)]),
        lambda plan: plan.update(requested={"mlp_sparsity": float("nan")}),
        lambda plan: plan.update(requested={"mlp_sparsity": "0.5"}),
        lambda plan: plan.update(requested=[1]),
        lambda plan: plan.pop("fingerprint"),
    ],
)
def test_damaged_plans_are_refused(spec, damage):
    plan = ta.make_plan(ImportanceScores.random(spec), spec, ta.PruningTarget(2, 5))
    values = json.loads(plan.to_json())
    damage(values)
    with pytest.raises(ta.InvalidPlan):
        ta.PruningPlan.from_json(json.dumps(values))


def _layers(plan: dict) -> list[dict]:
    return plan["dense_spec"]["layers"]


def _with_spec(plan: dict, **changes) -> None:
    """Damage the spec and forge the fingerprint that goes with it."""
    plan["dense_spec"].update(changes)
    plan["fingerprint"] = digest(json.dumps(plan["dense_spec"], sort_keys=True))


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '"plan"', "[" * 100_000])
def test_texts_that_are_no_plan_are_refused(text):
    with pytest.raises(ta.InvalidPlan):
        ta.PruningPlan.from_json(text)


def test_plans_are_refused_by_other_models():
    first, second = build("llama"), build("llama", seed=1)
    other_shape = build("llama-multi-head")
    object.__setattr__(second, "source", "elsewhere")
    calibration = ta.CalibrationSet.from_token_ids(torch.tensor([[3, 4, 5]]))
    plan = ta.make_plan(ta.score(first, ta.observe(first, calibration)), first.spec, ta.PruningTarget(2, 5))
    ta.prune(first, plan)
    with pytest.raises(ta.InvalidPlan, match="other weights"):
        ta.prune(second, plan)
    with pytest.raises(ta.InvalidPlan, match="other shapes"):
        ta.prune(other_shape, plan)
    with pytest.raises(ta.InvalidPlan), ta.masked(other_shape, plan):
        pass
    with pytest.raises(ta.InvalidPlan, match="other weights"):
        ta.prune(
            ta.prune(first, ta.make_plan(ImportanceScores.random(first.spec), first.spec, ta.PruningTarget(4, 40))),
            plan,
        )
