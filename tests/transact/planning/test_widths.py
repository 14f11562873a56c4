"""Channels shared out among layers: as many in all, cheap layers first, locks and multiples kept."""

from dataclasses import replace

import pytest
import torch

import transact as ta
from tests import tiny_models
from transact.observing.gradients import predictions
from transact.observing.output_fisher import output_fishers
from transact.planning.widths import priced_widths, scored_widths
from transact.runtime.random_numbers import drawn_at, random_numbers

LAYERS, CHANNELS = 3, 40


def _text(samples: int = 12) -> ta.CalibrationSet:
    ids = torch.randint(3, 48, (samples, 24), generator=torch.Generator().manual_seed(5))
    return ta.CalibrationSet.from_token_ids(ids, name="drawn")


@pytest.fixture(scope="module")
def tiny() -> ta.LoadedModel:
    return tiny_models.with_an_idle_mlp()


@pytest.fixture(scope="module")
def observed(tiny) -> ta.ActivationStatistics:
    return ta.observe(tiny, _text(), gram=True)


def _total(target: ta.PruningTarget, loaded: ta.LoadedModel) -> int:
    return sum(shape.intermediate_size for shape in target.per_layer(loaded.spec))


def test_the_fisher_matrix_is_the_mean_of_squared_gradients():
    loaded, tokens = tiny_models.build("llama"), _text(3)
    outputs: list[torch.Tensor] = []
    projection = loaded.decoder_layers[1].mlp.down_proj
    hook = projection.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(32, 32, dtype=torch.float64)
    for batch, rows in predictions(loaded, tokens):
        log_probabilities = loaded.model(batch.input_ids).logits[rows].log_softmax(-1)
        numbers = random_numbers(len(log_probabilities), torch.float64, generator)
        (drawn,) = drawn_at(log_probabilities.detach(), [numbers])
        (gradient,) = torch.autograd.grad(-log_probabilities.gather(1, drawn).sum(), outputs[-1])
        total += gradient.flatten(0, 1).T @ gradient.flatten(0, 1)
    hook.remove()
    fisher = output_fishers(loaded, tokens, "mlp")[1]
    torch.testing.assert_close(fisher, total / tokens.num_predictions)


def _priced(*given, **named) -> ta.PruningTarget:
    return priced_widths(*given, **named).target


BOTH = pytest.mark.parametrize("shared_out", [_priced, scored_widths])


@BOTH
@pytest.mark.parametrize("keep", [39, 30, 11])
def test_as_many_channels_stay_in_all_and_the_cheap_layer_loses_most(tiny, observed, keep, shared_out):
    target = ta.PruningTarget(4, keep)
    searched = shared_out(tiny, observed, target)
    assert _total(searched, tiny) == LAYERS * keep
    widths = [shape.intermediate_size for shape in searched.per_layer(tiny.spec)]
    assert widths[1] == min(widths) == max(CHANNELS // 16, CHANNELS - LAYERS * (CHANNELS - keep))
    assert searched.keep_head_groups == 4
    assert shared_out(tiny, observed, target) == searched


@BOTH
def test_every_layer_keeps_a_multiple(tiny, observed, shared_out):
    target = ta.PruningTarget.from_sparsity(tiny.spec, mlp=0.4, multiple_of=8)
    searched = shared_out(tiny, observed, target)
    assert _total(target, tiny) == 72 and _total(searched, tiny) == 72
    assert all(shape.intermediate_size % 8 == 0 for shape in searched.per_layer(tiny.spec))


@BOTH
def test_locks_are_kept(tiny, observed, shared_out):
    staying, going = {(1, channel) for channel in range(20)}, {(0, channel) for channel in range(5, 13)}
    locks = ta.Locks(keep_channels=staying, remove_channels=going)
    searched = shared_out(tiny, observed, ta.PruningTarget(4, 28), locks=locks)
    widths = [shape.intermediate_size for shape in searched.per_layer(tiny.spec)]
    assert sum(widths) == 84 and widths[1] == 20 and widths[0] <= 32
    plan = ta.make_plan(ta.score(tiny, observed), tiny.spec, searched, locks=locks)
    assert set(range(20)) <= set(plan.layers[1].kept_channels)


def test_whole_layers_go_beside_and_take_no_part(tiny, observed):
    target = ta.PruningTarget(4, 30, keep_layers=2)
    gone = ta.make_plan(ta.score(tiny, observed), tiny.spec, target).removed_layers[0]
    searched = priced_widths(tiny, observed, target).target
    widths = [shape.intermediate_size for shape in searched.per_layer(tiny.spec)]
    assert widths[gone] == 30 and sum(widths) == 90 and searched.keep_layers == 2


def test_matrices_gathered_layer_by_layer_give_the_same(tiny, observed):
    target = ta.PruningTarget(4, 25)
    by_layer = ta.observe(tiny, _text(), gram="by_layer")
    assert priced_widths(tiny, by_layer, target).target == priced_widths(tiny, observed, target).target


def test_nothing_to_share_out_is_left_as_it_is(tiny, observed):
    target = ta.PruningTarget(2, CHANNELS)
    assert priced_widths(tiny, observed, target).target is target


def test_dead_layers_cost_nothing():
    loaded = tiny_models.build("llama")
    with torch.no_grad():
        loaded.decoder_layers[2].mlp.up_proj.weight.zero_()
    statistics = ta.observe(loaded, _text(), gram=True)
    priced = priced_widths(loaded, statistics, ta.PruningTarget(4, 35)).target
    assert [shape.intermediate_size for shape in priced.per_layer(loaded.spec)] == [40, 40, 25]


def test_what_it_needs_is_asked_for(tiny, observed):
    target = ta.PruningTarget(4, 20)
    with pytest.raises(ta.InvalidOption, match="gram=True"):
        priced_widths(tiny, ta.observe(tiny, _text()), target)
    with pytest.raises(ta.InvalidOption, match="calibration tokens"):
        priced_widths(tiny, replace(observed, tokens=None), target)
    with pytest.raises(ta.InvalidTarget, match="41 channels"):
        priced_widths(tiny, observed, ta.PruningTarget(4, 41))
    with pytest.raises(ta.InvalidPlan, match="another model"):
        priced_widths(tiny_models.build("llama-biased"), observed, target)
