"""Distillation: what it changes and what it leaves, that it never ends worse, how many steps a time has room for."""

import itertools

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from tests.transact.cutting.test_leaves_nothing_behind import _hooks
from transact.observing.observe import observe_with_states
from transact.progress import NO_PROGRESS
from transact.repair import distillation
from transact.repair.dense_predictions import DensePredictions, divergence
from transact.repair.distillation import distill

FAMILIES = ("llama", "gemma2", "gpt2", "phi3")


def _text(loaded: ta.LoadedModel, samples: int = 16) -> ta.CalibrationSet:
    return ta.CalibrationSet.from_token_ids(token_ids(loaded, samples), name="ids")


def _cut(dense: ta.LoadedModel) -> ta.LoadedModel:
    return ta.prune(dense, ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(4, 20)))


def _weights(loaded: ta.LoadedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loaded.model.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_learn_and_all_else_stays(name):
    dense = build(name)
    pruned, text = _cut(dense), _text(dense)
    before, of_dense = _weights(pruned), _weights(dense)
    result = distill(dense, pruned, text, steps=24)
    assert result.steps == 24 and result.after < result.before
    assert divergence(pruned, DensePredictions(dense, text)) < result.before
    layers = f"{dense.layout.layers}."
    changed = {key for key, value in pruned.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith(layers) for key in changed)
    assert all(torch.equal(of_dense[key], value) for key, value in dense.model.state_dict().items())
    assert _hooks(dense) == _hooks(pruned) == 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in pruned.model.parameters())


@pytest.mark.parametrize("read", [16, 5])
def test_what_was_read_while_observing_is_not_read_again(read, monkeypatch):
    dense = build("llama")
    text, plain, told = _text(dense), _cut(dense), _cut(dense)
    expected = distill(dense, plain, text, steps=24)
    rows = list(text.rows())[:read]
    _, states = observe_with_states(
        dense, ta.CalibrationSet.from_sequences(rows, name="some"), gram=True, progress=NO_PROGRESS
    )
    reading, real = [], distillation.predicting_hidden
    monkeypatch.setattr(
        distillation, "predicting_hidden",
        lambda loaded, *given: reading.append(loaded is dense) or real(loaded, *given),
    )  # fmt: skip
    result = distill(dense, told, text, steps=24, states=states)
    assert result.after == pytest.approx(expected.after, rel=1e-9)
    assert sum(reading) == (0 if read == 16 else len(distillation._batches(distillation.held_back(text)[0])))


def test_a_step_is_adamw_on_the_mean_divergence_of_a_batch():
    dense = build("llama")
    pruned, by_hand = _cut(dense), _cut(dense)
    text = _text(dense, 2)  # one sample is held back, the other is the batch
    distill(dense, pruned, text, steps=1)
    ids = text.input_ids[1:2, : text.lengths[1]]
    own, other = (each.model(ids).logits[0, :-1].log_softmax(-1) for each in (by_hand, dense))
    (other.detach().exp() * (other.detach() - own)).sum(-1).mean().backward()
    trained = list(by_hand.decoder_layers.parameters())
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    # the first of eight steps in which the rate rises
    rates = [distillation.LEARNING_RATE / 8 * float(each.detach().square().mean().sqrt()) for each in trained]
    groups = [{"params": [each], "lr": rate} for each, rate in zip(trained, rates, strict=True)]
    torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0).step()
    for mine, theirs, rate in zip(pruned.decoder_layers.parameters(), trained, rates, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3 * rate)


def test_steps_that_lead_astray_are_taken_back(monkeypatch):
    dense = build("llama")
    pruned = _cut(dense)
    before = _weights(pruned)
    monkeypatch.setattr(distillation, "LEARNING_RATE", 1e3)
    result = distill(dense, pruned, _text(dense), steps=10)
    assert result.after == result.before
    assert all(torch.equal(before[key], value) for key, value in pruned.model.state_dict().items())


def test_the_first_step_says_how_many_the_seconds_have_room_for(monkeypatch):
    """With a clock that moves by a second whenever it is read."""
    dense = build("llama")
    readings = itertools.count()
    monkeypatch.setattr(distillation, "seconds_at", lambda device: float(next(readings)))
    taken = [distill(dense, _cut(dense), _text(dense), seconds=seconds).steps for seconds in (3.0, 12.0, 30.0)]
    assert taken[0] == 0 < taken[1] < taken[2] <= 30


def test_text_with_nothing_to_hold_back_or_to_predict_changes_nothing():
    dense = build("llama")
    for ids in ([[5, 6, 7]], [[5], [6], [7]]):
        pruned = _cut(dense)
        before = _weights(pruned)
        assert distill(dense, pruned, ta.CalibrationSet.from_token_ids(ids), steps=4).steps == 0
        assert all(torch.equal(before[key], value) for key, value in pruned.model.state_dict().items())


def test_half_precision_learns_in_float32_and_stays_half():
    dense = build("llama", dtype=torch.bfloat16)
    pruned = _cut(dense)
    result = distill(dense, pruned, _text(dense), steps=24)
    assert pruned.dtype == torch.bfloat16 and result.after < result.before
    # RoPE's frequencies are not rounded on the way
    before, after = (dict(model.model.named_buffers()) for model in (dense, pruned))
    assert before and all(torch.equal(before[name], value) for name, value in after.items())


def test_the_same_call_gives_the_same_bits():
    dense = build("llama")
    one, other = _cut(dense), _cut(dense)
    for pruned in (one, other):
        distill(dense, pruned, _text(dense), steps=5)
    assert all(torch.equal(other.model.state_dict()[key], value) for key, value in one.model.state_dict().items())
