"""Plans without some layers: what they count, what they are as JSON, and what is refused."""

import json
from dataclasses import replace

import pytest
from transformers import AutoConfig

import transact as ta
from tests.tiers import PLAIN
from tests.tiny_models import TINY, build
from transact.spec.kept_layers import only_layers
from transact.spec.plan import Cut, compose_cuts

TARGET = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))


@pytest.fixture(scope="module")
def spec():
    return build("llama").spec  # 3 layers, 4 groups of 2 heads of 4, 40 channels, hidden size 32


@pytest.fixture
def plan(spec):
    return ta.make_plan(ta.ImportanceScores.random(spec), spec, TARGET)


def test_counts_by_hand(spec, plan):
    """Of layers 0 and 2: 1 and 2 groups of (2·4 + 2·4 + 2·4)·32 = 768, 40 and 13 channels of 3·32 = 96, two norms."""
    assert plan.kept_layers == (0, 1, 2) and plan.removed_layers == ()
    smaller = replace(plan, kept_layers=(0, 2))
    assert smaller.removed_layers == (1,) and list(smaller.kept_layer_plans) == [0, 2]
    assert smaller.spec.layers == (ta.LayerShape(2, 1, 40), ta.LayerShape(4, 2, 13))
    embeddings, norms = 2 * 48 * 32, (2 * 2 + 1) * 32
    assert smaller.spec.num_parameters == embeddings + norms + 3 * 768 + 53 * 96
    assert smaller.spec.kv_bytes_per_token() == 3 * 2 * 4 * 2
    assert smaller.summary()["achieved"]["kept_layers"] == [0, 2]
    assert smaller.summary()["achieved"]["keep_head_groups"] == [1, 2]
    assert smaller.summary()["achieved"]["attention_sparsity"] == 1 - 3 / 12


def test_windows_follow_their_layers():
    spec = build("gemma2").spec
    assert spec.windows == (6, None, 6)
    assert only_layers(spec, (1, 2)).windows == (None, 6)


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_outside_modules_are_those_of_the_smaller_configuration(name):
    model_type, changes = TINY[name]
    sizes = {"hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 48, "head_dim": 4}
    changes = {key: value for key, value in changes.items() if not isinstance(value, list)}
    small, large = (
        ta.ModelSpec.from_config(AutoConfig.for_model(model_type, **(sizes | changes | {"num_hidden_layers": layers})))
        for layers in (2, 5)
    )
    assert only_layers(large, (0, 3)).other_parameters == small.other_parameters


def test_json_round_trip_and_plans_of_before(plan):
    smaller = replace(plan, kept_layers=(0, 2))
    assert ta.PruningPlan.from_json(smaller.to_json()) == smaller != plan
    old = json.loads(plan.to_json())
    del old["kept_layers"]
    assert ta.PruningPlan.from_json(json.dumps(old | {"version": 3})) == plan
    with pytest.raises(ta.InvalidPlan, match="lacks 'kept_layers'"):
        ta.PruningPlan.from_json(json.dumps(old))
    for wrong in ([], [0, 0], [2, 1], [-1], [3], [0.0], [True], "0", None, {}):
        with pytest.raises(ta.InvalidPlan, match="no plan that can be read"):
            ta.PruningPlan.from_json(json.dumps(old | {"kept_layers": wrong}))


@pytest.mark.parametrize("kept", [(1, 0), (0, 0), (-1, 2), (0, 3), (0.5,), (True,)])
def test_layers_that_there_are_not(plan, kept):
    with pytest.raises(ta.InvalidPlan, match="kept_layers"):
        replace(plan, kept_layers=kept)


def test_two_cuts_are_one(plan):
    """The second plan counts the layers that the first has left."""
    first = replace(plan, kept_layers=(0, 2))
    second = ta.make_plan(ta.ImportanceScores.random(first.spec), first.spec, ta.PruningTarget(1, (20, 10)))
    second = replace(second, kept_layers=(1,))
    whole = compose_cuts((Cut(first, "none"), Cut(second, "none")))
    assert whole.kept_layers == (2,)
    assert whole.layers[1] == first.layers[1]
    assert whole.layers[2].kept_channels == tuple(
        first.layers[2].kept_channels[i] for i in second.layers[1].kept_channels
    )
    assert whole.spec == second.spec
    assert ta.PruningPlan.from_json(whole.to_json()) == whole


@pytest.mark.parametrize("keep", [0, 4])
def test_counts_of_layers_that_there_are_not(spec, keep):
    with pytest.raises(ta.InvalidTarget, match=f"keep_layers is {keep}; the model has 3 layers"):
        ta.PruningTarget(1, 1, keep_layers=keep).per_layer(spec)


def test_what_is_no_count_of_layers():
    for wrong in (1.5, True, "2", (1, 2)):
        with pytest.raises(ta.InvalidTarget, match="keep_layers is"):
            ta.PruningTarget(1, 1, keep_layers=wrong)


def test_a_target_estimates_with_the_first_layers(spec):
    target = replace(TARGET, keep_layers=2)
    assert target.per_layer(spec) == TARGET.per_layer(spec)
    assert target.spec(spec).layers == TARGET.per_layer(spec)[:2]
