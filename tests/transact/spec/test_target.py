"""Targets from memory and from cache bytes: by hand, largest within the budget, and reproducible."""

import pytest
from transformers import LlamaConfig

import transact as ta
from tests.tiny_models import build
from transact.scoring.scores import ImportanceScores


@pytest.fixture(scope="module")
def spec():
    return build("llama").spec  # 3 layers, 4 groups of 2 heads of 4, 40 channels


def _llama_2_7b() -> ta.ModelSpec:
    return ta.ModelSpec.from_config(LlamaConfig(max_position_embeddings=4096))  # its defaults are that model's sizes


def _bytes(spec: ta.ModelSpec, *, context: int, width: float) -> float:
    return spec.num_parameters * width + context * spec.kv_bytes_per_token(1) * width


def _pruned(spec: ta.ModelSpec, target: ta.PruningTarget) -> ta.ModelSpec:
    return ta.make_plan(ImportanceScores.random(spec), spec, target).spec


def test_memory_by_hand():
    spec = _llama_2_7b()
    whole = 6_738_415_616 * 2 + 4096 * 512 * 1024
    assert ta.PruningTarget.from_memory(spec, whole, context=4096).keep_head_groups == 32
    less = ta.PruningTarget.from_memory(spec, whole - 1, context=4096)
    assert (less.keep_head_groups, less.keep_channels) == (32, 11007)
    # a longer context leaves less for the weights
    eight, four = (ta.PruningTarget.from_memory(spec, 8e9, context=context) for context in (1, 4096))
    assert eight.keep_channels > four.keep_channels or eight.keep_head_groups > four.keep_head_groups


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9, 1.0])
@pytest.mark.parametrize(("context", "width"), [(1, 2), (50, 2), (64, 0.5)])
def test_from_memory_fills_the_budget(spec, share, context, width):
    least = _bytes(_pruned(spec, ta.PruningTarget(1, 1)), context=context, width=width)
    budget = least + share * (_bytes(spec, context=context, width=width) - least)
    target = ta.PruningTarget.from_memory(spec, budget, context=context, bytes_per_element=width)
    reached = _bytes(_pruned(spec, target), context=context, width=width)
    one_channel_everywhere = spec.parameters_per_channel * spec.num_hidden_layers * width
    assert budget - one_channel_everywhere < reached <= budget


def test_memory_beside_its_cache_is_that_of_the_parameters(spec):
    budget = int(spec.num_parameters * 0.7)
    parameters = ta.PruningTarget.from_parameters(spec, budget)
    cache = 3 * parameters.keep_head_groups * 2 * 4  # one byte an element, one token
    assert ta.PruningTarget.from_memory(spec, budget + cache, context=1, bytes_per_element=1) == parameters


@pytest.mark.parametrize(
    ("kv_bytes", "width", "groups", "channels"),
    [
        # a group caches 2 · 4 elements in each of 3 layers: 48 bytes
        (192, 2, 4, 40),
        (1e9, 2, 4, 40),
        (191, 2, 3, 30),
        (96, 2, 2, 20),
        (48, 2, 1, 10),
        (96, 4, 1, 10),
        (96, 1, 4, 40),
    ],
)
def test_from_kv_bytes(spec, kv_bytes, width, groups, channels):
    target = ta.PruningTarget.from_kv_bytes(spec, kv_bytes, bytes_per_element=width)
    assert (target.keep_head_groups, target.keep_channels) == (groups, channels)
    assert _pruned(spec, target).kv_bytes_per_token(width) <= kv_bytes


def test_kv_bytes_of_llama_2_7b():
    target = ta.PruningTarget.from_kv_bytes(_llama_2_7b(), 96 * 1024)
    assert target.keep_head_groups == 6


def test_layers_of_different_sizes(spec):
    uneven = spec.with_layers(
        tuple(ta.LayerShape(2 * groups, groups, channels) for groups, channels in ((4, 40), (2, 9), (1, 2)))
    )
    target = ta.PruningTarget.from_kv_bytes(uneven, 16 * 4)
    assert target.keep_head_groups == (2, 1, 1)
    assert target.keep_channels == (22, 5, 1)
    least = _pruned(uneven, ta.PruningTarget(1, 1)).num_parameters
    assert ta.PruningTarget.from_parameters(uneven, least) == ta.PruningTarget(1, 1)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (ta.PruningTarget.from_memory, {"memory_bytes": 30_000, "context": 50, "bytes_per_element": 2}),
        (ta.PruningTarget.from_kv_bytes, {"kv_bytes_per_token": 150, "bytes_per_element": 2}),
        (ta.PruningTarget.from_parameters, {"parameters": 12_000}),
    ],
)
def test_a_plan_says_how_its_target_was_made(spec, make, given):
    target = make(spec, **given)
    plan = ta.PruningPlan.from_json(ta.make_plan(ImportanceScores.random(spec), spec, target).to_json())
    assert dict(plan.requested) == given
    assert list(dict(plan.requested)) == list(given)
    assert make(spec, **dict(plan.requested)) == target


def test_the_impossible_is_refused_with_the_least(spec):
    least = int(_bytes(_pruned(spec, ta.PruningTarget(1, 1)), context=100, width=2))
    with pytest.raises(ta.InvalidTarget, match=f"100 tokens .* take {least:,} at 2 bytes"):
        ta.PruningTarget.from_memory(spec, least - 1, context=100)
    target = ta.PruningTarget.from_memory(spec, least, context=100)
    assert (target.keep_head_groups, target.keep_channels) == (1, 1)
    with pytest.raises(ta.InvalidTarget, match="47 bytes a token cannot be reached: .* caches 48"):
        ta.PruningTarget.from_kv_bytes(spec, 47)


@pytest.mark.parametrize("value", [0, -5, float("nan"), float("inf"), "9", None, True])
def test_numbers_that_are_none_are_refused(spec, value):
    with pytest.raises(ta.InvalidTarget, match="memory_bytes is"):
        ta.PruningTarget.from_memory(spec, value, context=10)
    with pytest.raises(ta.InvalidTarget, match="context is"):
        ta.PruningTarget.from_memory(spec, 1e6, context=value)
    with pytest.raises(ta.InvalidTarget, match="bytes_per_element is"):
        ta.PruningTarget.from_memory(spec, 1e6, context=10, bytes_per_element=value)
    with pytest.raises(ta.InvalidTarget, match="kv_bytes_per_token is"):
        ta.PruningTarget.from_kv_bytes(spec, value)
    with pytest.raises(ta.InvalidTarget, match="bytes_per_element is"):
        ta.PruningTarget.from_kv_bytes(spec, 100, bytes_per_element=value)


def test_half_a_token_is_refused(spec):
    with pytest.raises(ta.InvalidTarget, match="whole number of tokens"):
        ta.PruningTarget.from_memory(spec, 1e6, context=10.5)


def test_splits_by_hand(spec):
    """A head group has 4 · (2 + 2 + 2 · 2) · 32 = 768 and a channel 96 parameters: 8 channels for each group."""
    parameters = spec.fixed_parameters + 3 * (2 * spec.parameters_per_head_group + 20 * spec.parameters_per_channel)
    assert spec.parameters_per_head_group == 8 * spec.parameters_per_channel
    splits = ta.PruningTarget.splits(spec, parameters)
    assert [(split.keep_head_groups, split.keep_channels) for split in splits] == [(1, 28), (2, 20), (3, 12), (4, 4)]
    assert ta.PruningTarget.from_parameters(spec, parameters) in splits
    assert {_pruned(spec, split).num_parameters for split in splits} == {parameters}
    # two channels more than fit beside one group: that split cannot fill the number and is left out
    more = parameters + 3 * 21 * spec.parameters_per_channel
    assert [split.keep_head_groups for split in ta.PruningTarget.splits(spec, more)] == [3, 4]
    for impossible in (spec.fixed_parameters, spec.num_parameters + 10_000):
        with pytest.raises(ta.InvalidTarget, match="cannot be reached"):
            ta.PruningTarget.splits(spec, impossible)


MAKERS = {
    "sparsity": lambda spec, **multiples: ta.PruningTarget.from_sparsity(spec, attention=0.3, mlp=0.4, **multiples),
    "parameters": lambda spec, **multiples: ta.PruningTarget.from_parameters(
        spec, int(0.7 * spec.num_parameters), **multiples
    ),
    "memory": lambda spec, **multiples: ta.PruningTarget.from_memory(
        spec, 1.4 * spec.num_parameters + 0.7 * spec.kv_bytes(64), context=64, **multiples
    ),
    "cache": lambda spec, **multiples: ta.PruningTarget.from_kv_bytes(
        spec, 0.7 * spec.kv_bytes_per_token(), **multiples
    ),
}


@pytest.fixture(scope="module")
def parallel() -> ta.ModelSpec:
    """8 head groups and 512 channels a layer."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=512, num_hidden_layers=3, num_attention_heads=16,
        num_key_value_heads=8, head_dim=4,
    )  # fmt: skip
    return ta.ModelSpec.from_config(config)


@pytest.mark.parametrize("name", MAKERS)
def test_channels_and_head_groups_in_multiples(parallel, name):
    make = MAKERS[name]
    plain, rounded = make(parallel), make(parallel, multiple_of=64, groups_multiple_of=2)
    assert plain.keep_channels % 64 or plain.keep_head_groups % 2, "nothing is to round, so the test shows nothing"
    assert rounded.keep_channels % 64 == 0 and rounded.keep_head_groups % 2 == 0
    if name == "sparsity":  # floor(8 · 0.7) = 5 -> 4, floor(512 · 0.6) = 307 -> 256
        assert (plain.keep_head_groups, plain.keep_channels) == (5, 307)
        assert (rounded.keep_head_groups, rounded.keep_channels) == (4, 256)
    within = {
        "parameters": lambda spec: spec.num_parameters <= 0.7 * parallel.num_parameters,
        "memory": lambda spec: (
            2 * spec.num_parameters + spec.kv_bytes(64) <= 1.4 * parallel.num_parameters + 0.7 * parallel.kv_bytes(64)
        ),
        "cache": lambda spec: spec.kv_bytes_per_token() <= 0.7 * parallel.kv_bytes_per_token(),
    }
    assert within.get(name, lambda spec: True)(_pruned(parallel, rounded))
    plan = ta.make_plan(ImportanceScores.random(parallel), parallel, rounded)
    asked = dict(ta.PruningPlan.from_json(plan.to_json()).requested)
    assert (asked["multiple_of"], asked["groups_multiple_of"]) == (64, 2)


def test_multiples_that_a_layer_cannot_reach(parallel):
    """A layer that has fewer keeps all; a budget below the multiples is refused with what they take."""
    target = ta.PruningTarget.from_sparsity(parallel, attention=0.9, mlp=0.9, multiple_of=1024, groups_multiple_of=16)
    assert (target.keep_head_groups, target.keep_channels) == (8, 512)
    least = _pruned(parallel, ta.PruningTarget(2, 64)).num_parameters
    kept = ta.PruningTarget.from_parameters(parallel, least, multiple_of=64, groups_multiple_of=2)
    assert (kept.keep_head_groups, kept.keep_channels) == (2, 64)
    with pytest.raises(ta.InvalidTarget, match=f"2 head groups and 64 channels in each layer .* are {least:,}"):
        ta.PruningTarget.from_parameters(parallel, least - 1, multiple_of=64, groups_multiple_of=2)


@pytest.mark.parametrize("value", [0, -2, 1.5, True, "2", float("nan"), float("inf"), None])
@pytest.mark.parametrize("name", ta.MULTIPLES)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_multiples_that_are_none_are_refused(parallel, make, name, value):
    with pytest.raises(ta.InvalidTarget, match=f"^{name} is"):
        make(parallel, **{name: value})
