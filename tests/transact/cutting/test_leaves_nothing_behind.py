"""Hooks and masks come off however the work ends, and never touch another thread."""

import threading

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids


@pytest.fixture
def loaded():
    return build("llama")


def _hooks(loaded) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in loaded.model.modules())


def _logits(loaded):
    with torch.no_grad():
        return loaded.model(token_ids(loaded)).logits


def _plan(loaded):
    target = ta.PruningTarget(keep_head_groups=1, keep_channels=3)
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target)


def test_mask_comes_off_after_an_exception(loaded):
    before = _logits(loaded)
    with pytest.raises(ZeroDivisionError), ta.masked(loaded, _plan(loaded)):
        assert not torch.equal(_logits(loaded), before)
        raise ZeroDivisionError
    assert _hooks(loaded) == 0
    assert torch.equal(_logits(loaded), before)


def test_observation_stops_at_a_layer_and_leaves_no_hook(loaded):
    before = _logits(loaded)
    calls = []

    def stop_at_the_third_call(done, total, unit):
        calls.append((done, total, unit))
        if len(calls) == 3:
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded)), progress=stop_at_the_third_call)
    assert len(calls) == 3
    assert _hooks(loaded) == 0
    assert torch.equal(_logits(loaded), before)


def test_progress_counts_tokens_to_the_end(loaded):
    calls = []
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=5))
    ta.observe(loaded, calibration, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls[-1] == (60, 60, "tokens")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


@pytest.mark.parametrize("where", ["attention", "MLP"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_activations_are_named_by_layer(loaded, where, value):
    layer = loaded.decoder_layers[1]
    projection = layer.self_attn.v_proj if where == "attention" else layer.mlp.up_proj
    with torch.no_grad():
        projection.weight[0, 0] = value
    with pytest.raises(ta.NonFiniteActivations, match=f"Layer 1 .*{where}"):
        ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded)))
    assert _hooks(loaded) == 0


def test_a_mask_is_seen_by_its_own_thread_alone(loaded):
    before = _logits(loaded)
    seen = []
    with ta.masked(loaded, _plan(loaded)):
        visitor = threading.Thread(target=lambda: seen.append(_logits(loaded)))
        visitor.start()
        visitor.join()
        assert not torch.equal(_logits(loaded), before)
    assert torch.equal(seen[0], before)


def test_observing_in_one_thread_does_not_count_another_threads_tokens(loaded):
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    alone = ta.observe(loaded, calibration)

    def meanwhile(done, total, unit):
        visitor = threading.Thread(target=lambda: _logits(loaded))
        visitor.start()
        visitor.join()

    beside = ta.observe(loaded, calibration, progress=meanwhile)
    assert torch.equal(alone.mlp[0].square_sums, beside.mlp[0].square_sums)
