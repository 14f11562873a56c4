"""What is done with a time: all of it is used, none beyond it, and more time never means less work."""

import itertools
from dataclasses import replace

import pytest

import transact as ta
from tests.tiny_models import TINY, build
from transact.compression.recipe import MOST_TRIES, Machine, Recipe, recipe_for, target_of_size
from transact.spec.model_spec import LayerShape

SPEC = build("llama").spec.with_layers((LayerShape(4, 4, 1536),) * 3)
MACHINE = Machine(tokens_per_second=300, flops=8e10, free_bytes=20_000_000_000)
"""About what two cores do with a model of 135 million parameters."""
SHORT = replace(MACHINE, free_bytes=2_000_000)
MINUTES = (0.2, 0.5, 1, 2, 3, 5, 10, 20, 45, 120)


def _recipe(minutes: float, *, tokens: int = 65_536, free: bool = True, machine: Machine = MACHINE) -> Recipe:
    target = ta.PruningTarget.from_sparsity(SPEC, mlp=0.25)
    text = ta.CalibrationSet.from_sequences([[5] * min(512, tokens)] * max(1, tokens // 512), name="fives")
    return recipe_for(SPEC, target, text=text, machine=machine, seconds=60 * minutes, free_widths=free)


@pytest.mark.parametrize("minutes", MINUTES)
def test_the_parts_take_the_time_that_there_is(minutes):
    recipe = _recipe(minutes)
    assert 0.5 * 60 * minutes < sum(recipe.seconds.values()) < 1.1 * 60 * minutes
    assert recipe.distills == ("distilling" in recipe.seconds) and all(recipe.seconds.values())
    assert all(what in recipe.words for what in recipe.seconds)
    parts, ends = list(recipe.seconds), list(itertools.accumulate(recipe.seconds.values()))
    assert [recipe.part_at(end - 0.01) for end in ends] == parts and recipe.part_at(1e9) == parts[-1]


def test_more_time_never_means_less():
    recipes = [_recipe(minutes) for minutes in MINUTES]
    assert not recipes[0].distills and recipes[-1].distills
    taught = [recipe for recipe in recipes if recipe.distills]
    for less, more in zip(taught, taught[1:], strict=False):
        assert less.observed_tokens <= more.observed_tokens <= 65_536
        assert less.tries <= more.tries <= MOST_TRIES
        assert less.priced_tokens <= more.priced_tokens
        assert less.seconds["distilling"] <= more.seconds["distilling"]
    assert taught[-1].priced_tokens and taught[-1].tries == MOST_TRIES


def test_where_all_of_the_text_is_read_what_is_left_teaches():
    assert not _recipe(3).distills and _recipe(3, tokens=4_096).distills


def test_what_does_not_fit_into_memory_is_left_out():
    assert _recipe(120).distills and _recipe(120).priced_tokens
    recipe = _recipe(120, machine=SHORT)
    assert not recipe.distills and not recipe.priced_tokens and recipe.observed_tokens == 65_536


def test_equal_widths_need_no_prices():
    assert not any(_recipe(minutes, free=False).priced_tokens for minutes in MINUTES)


def test_little_text_and_no_time_at_all_still_give_a_recipe():
    assert _recipe(120, tokens=40).observed_tokens == 40
    for seconds in (0.0, -5.0):
        recipe = _recipe(seconds / 60)
        assert recipe.observed_tokens == 1 and recipe.tries == 1 and not recipe.distills


@pytest.mark.parametrize("name", [name for name in TINY if "head-dim" not in name])
def test_channels_go_first_and_head_groups_only_where_few_channels_are_left(name):
    spec = build(name).spec
    prunable = spec.num_parameters - spec.fixed_parameters
    channels = sum(shape.intermediate_size for shape in spec.layers)
    for left in (0.9, 0.6, 0.3, 0.15):
        size = (spec.fixed_parameters + left * prunable) / spec.num_parameters
        target = target_of_size(spec, size)
        assert target.spec(spec).num_parameters <= size * spec.num_parameters
        shapes = target.per_layer(spec)
        whole = [shape.num_key_value_heads for shape in shapes] == [shape.num_key_value_heads for shape in spec.layers]
        assert whole or sum(shape.intermediate_size for shape in shapes) <= 0.5 * channels


@pytest.mark.parametrize("size", [0, 1, -0.5, 2, float("nan"), "0.5", None, True, 1e-9])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ta.InvalidTarget):
        target_of_size(SPEC, size)
