"""Weight times gradient: by hand, against autograd's own gradients, and without a trace on the model."""

import threading

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import transact as ta
from tests.tiers import FEW, PLAIN, cases
from tests.tiny_models import TINY, build, token_ids

pytestmark = pytest.mark.rounding


def _observed(loaded, calibration, **options) -> ta.ActivationStatistics:
    return ta.observe(loaded, calibration, taylor=True, **options)


def _by_autograd(loaded, batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer, [head · head_dim] and [channel], from `.grad` of every weight and the loss of `transformers`."""
    layout, spec = loaded.layout, loaded.spec
    found = [
        [torch.zeros(spec.layers[0].num_attention_heads * spec.head_dim), torch.zeros(spec.layers[0].intermediate_size)]
        for _ in spec.layers
    ]
    for ids, labels in batches:
        loaded.model.zero_grad()
        logits = loaded.model(ids).logits[:, :-1].flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten()).backward()
        for layer, sums in zip(loaded.decoder_layers, found, strict=True):

            def products(path, layer=layer):
                module = layer.get_submodule(path)
                found = (module.weight * module.weight.grad).abs().detach()
                return found.T if isinstance(module, Conv1D) else found

            query, key, value = _attention_roles(products, layout, spec)
            for kv in (key, value):
                for head in range(spec.layers[0].num_attention_heads):
                    group = head // spec.group_size
                    rows = kv[group * spec.head_dim : (group + 1) * spec.head_dim].sum(1)
                    sums[0][head * spec.head_dim : (head + 1) * spec.head_dim] += rows / spec.group_size
            sums[0] += query.sum(1) + products(layout.output).sum(0)
            if layout.gate == layout.up:
                sums[1] += products(layout.up).sum(1).unflatten(0, (2, -1)).sum(0)
            else:
                sums[1] += sum(products(path).sum(1) for path in (layout.gate, layout.up) if path is not None)
            sums[1] += products(layout.down).sum(0)
    loaded.model.zero_grad()
    return found


def _attention_roles(products, layout, spec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of queries, keys and values, out of the one module where they are packed in one."""
    if layout.query != layout.key:
        return tuple(products(path) for path in (layout.query, layout.key, layout.value))
    packed = products(layout.query)
    if layout.packed_by_head:
        return packed.unflatten(0, (-1, 3, spec.head_dim)).transpose(0, 1).flatten(1, 2).unbind(0)
    shape = spec.layers[0]
    heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads)
    return packed.split([count * spec.head_dim for count in heads])


@pytest.mark.parametrize("name", cases(TINY, test=PLAIN, check=FEW))
def test_scores_equal_those_from_autograd(name):
    """Two batches, each with its own absolute value; k and v rows count once in a group."""
    loaded = build(name)
    ids = token_ids(loaded, samples=5)
    statistics = _observed(loaded, ta.CalibrationSet.from_token_ids(ids), batch_size=3)
    scores = ta.score(loaded, statistics, metric="taylor")
    expected = _by_autograd(loaded, [(ids[:3], ids[:3]), (ids[3:], ids[3:])])
    size = loaded.spec.group_size
    for layer, (attention, mlp) in enumerate(expected):
        torch.testing.assert_close(scores.attention_channels[layer].flatten(), attention.double(), rtol=1e-5, atol=0)
        torch.testing.assert_close(scores.mlp_channels[layer], mlp.double(), rtol=1e-5, atol=0)
        groups = attention.double().unflatten(0, (-1, size * loaded.spec.head_dim)).sum(1) / size
        torch.testing.assert_close(scores.head_groups[layer], groups, rtol=1e-5, atol=0)


@torch.no_grad()
def test_by_hand():
    """One MLP channel's products from a loss that is written out: logits = E norm(x + down · silu(gate·n) · (up·n))."""
    loaded = build("llama")
    layer, model = loaded.decoder_layers[2], loaded.model
    ids = torch.tensor([[3, 4]])
    seen = {}
    handle = layer.post_attention_layernorm.register_forward_hook(
        lambda module, inputs, output: seen.update(residual=inputs[0][0, 0], normed=output[0, 0])
    )
    model(ids)
    handle.remove()
    gate, up, down = (getattr(layer.mlp, name).weight for name in ("gate_proj", "up_proj", "down_proj"))
    opened, raised = gate @ seen["normed"], up @ seen["normed"]
    inner = torch.nn.functional.silu(opened) * raised
    stream = seen["residual"] + down @ inner
    norm = (stream.square().mean() + model.config.rms_norm_eps).sqrt()
    error = (model.lm_head.weight @ (model.model.norm.weight * stream / norm)).softmax(0)
    error[4] -= 1  # ∂L/∂logits of the only prediction
    pulled = model.model.norm.weight * (model.lm_head.weight.T @ error)
    of_stream = pulled / norm - stream * (pulled @ stream) / (len(stream) * norm**3)
    of_inner = down.T @ of_stream
    sigmoid = opened.sigmoid()
    of_gate = of_inner * raised * (sigmoid + opened * sigmoid * (1 - sigmoid))
    of_up = of_inner * opened * sigmoid
    expected = (
        (gate * torch.outer(of_gate, seen["normed"])).abs().sum(1)
        + (up * torch.outer(of_up, seen["normed"])).abs().sum(1)
        + (down * torch.outer(of_stream, inner)).abs().sum(0)
    )
    scores = ta.score(loaded, _observed(loaded, ta.CalibrationSet.from_token_ids(ids)), metric="taylor")
    torch.testing.assert_close(scores.mlp_channels[2], expected, rtol=1e-6, atol=0)  # norms compute in float32


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_counts(side):
    loaded = build("qwen2")
    ids = token_ids(loaded, samples=3)
    mask = torch.ones_like(ids)
    (mask[1, :7] if side == "left" else mask[1, 5:]).zero_()
    row = ids[1, 7:] if side == "left" else ids[1, :5]
    padded = _observed(loaded, ta.CalibrationSet.from_token_ids(ids, mask))
    labels = ids.clone()
    labels[1] = -100
    inputs = ids.clone()
    inputs[1, : len(row)], labels[1, : len(row)] = row, row
    for layer, (attention, mlp) in enumerate(_by_autograd(loaded, [(inputs, labels)])):
        torch.testing.assert_close(padded.attention[layer].taylor, attention.double(), rtol=1e-5, atol=0)
        torch.testing.assert_close(padded.mlp[layer].taylor, mlp.double(), rtol=1e-5, atol=0)


def test_other_statistics_are_the_same_and_it_survives_a_file(tmp_path):
    loaded = build("llama", torch.float32)
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    plain, with_gradients = ta.observe(loaded, calibration), _observed(loaded, calibration)
    assert torch.equal(plain.mlp[0].square_sums, with_gradients.mlp[0].square_sums)
    assert with_gradients.mlp[0].taylor.dtype == torch.float64
    with_gradients.save(tmp_path / "statistics.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    assert torch.equal(again.attention[2].taylor, with_gradients.attention[2].taylor)


def _state(loaded) -> list:
    parameters = [(parameter.requires_grad, parameter.grad) for parameter in loaded.model.parameters()]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), module.training)
        for module in loaded.model.modules()
    ]
    return [parameters, hooks, torch.is_grad_enabled()]


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("stop_at", [0, 5, 12, 30])
def test_the_model_is_as_before_however_it_ends(requires_grad, stop_at):
    loaded = build("llama").model.requires_grad_(requires_grad)
    loaded = ta.LoadedModel.from_model(loaded)
    kept = torch.ones_like(loaded.model.lm_head.weight)
    loaded.model.lm_head.weight.grad = kept if requires_grad else None
    before = _state(loaded)
    calls = []

    def stop(done, total, unit):
        calls.append(done)
        if len(calls) == stop_at:
            raise ta.Cancelled

    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    if stop_at:
        with pytest.raises(ta.Cancelled), torch.inference_mode():
            _observed(loaded, calibration, batch_size=1, progress=stop)
        assert len(calls) == stop_at
    else:
        _observed(loaded, calibration, batch_size=1, progress=stop)
        assert calls == sorted(calls) and calls[-1] == 2 * 24
    assert repr(_state(loaded)) == repr(before)
    assert not requires_grad or loaded.model.lm_head.weight.grad is kept


def test_other_threads_do_not_count():
    loaded = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    alone = _observed(loaded, calibration)

    def meanwhile(done, total, unit):
        visitor = threading.Thread(target=lambda: loaded.model(token_ids(loaded)))
        visitor.start()
        visitor.join()

    beside = _observed(loaded, calibration, progress=meanwhile)
    assert torch.equal(alone.mlp[1].taylor, beside.mlp[1].taylor)


def test_behind_a_mask_it_is_that_of_the_pruned_model():
    loaded = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, ta.PruningTarget(2, 9))
    pruned = _observed(ta.prune(loaded, plan), calibration)
    with ta.masked(loaded, plan):
        behind = _observed(loaded, calibration)
    for layer, kept in enumerate(plan.layers):
        products = behind.mlp[layer].taylor
        torch.testing.assert_close(products[list(kept.kept_channels)], pruned.mlp[layer].taylor)
        heads = behind.attention[layer].taylor.unflatten(0, (-1, 4))[list(kept.kept_heads)]
        torch.testing.assert_close(heads.flatten(), pruned.attention[layer].taylor)


def test_statistics_tell_which_metrics_they_allow():
    loaded = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    plain = ta.observe(loaded, calibration, samples=True)
    assert ta.available_metrics(plain) == tuple(name for name in ta.METRICS if name != "taylor")
    with pytest.raises(ta.InvalidOption, match="taylor=True"):
        ta.score(loaded, plain, metric="taylor")
    with_gradients = _observed(loaded, calibration, samples=True)
    assert ta.available_metrics(with_gradients) == tuple(ta.METRICS)
    assert ta.available_metrics(with_gradients.subset([0])) == ta.available_metrics(plain)
    with pytest.raises(ta.InvalidOption, match="cannot be resampled"):
        ta.stability(loaded, with_gradients, ta.PruningTarget(2, 9), metric="taylor")


def test_what_it_cannot_work_from_is_refused(monkeypatch):
    loaded = build("llama")
    with pytest.raises(ta.InvalidText, match="single token"):
        _observed(loaded, ta.CalibrationSet.from_token_ids([[3], [4]]))
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    monkeypatch.setattr("transact.observing.taylor.free_bytes", lambda device: 1000)
    with pytest.raises(ta.NotEnoughMemory, match="smaller batch_size"):
        _observed(loaded, calibration)
    monkeypatch.undo()
    with torch.no_grad():
        loaded.model.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(ta.NonFiniteActivations, match="Layer 0 .*gradients"):
        _observed(loaded, calibration)


def test_it_beats_chance_on_a_real_model(stories, calibration_texts, evaluation_texts):
    calibration = ta.CalibrationSet.from_texts(calibration_texts[:32], stories.tokenizer, seq_len=128)
    evaluation = ta.EvaluationSet.from_texts(evaluation_texts[:32], stories.tokenizer, seq_len=128)
    statistics = _observed(stories, calibration)
    losses = {}
    for metric in ("taylor", "random", "magnitude"):
        scores = ta.score(stories, statistics, metric=metric)
        with ta.masked(stories, ta.make_plan(scores, stories.spec, ta.PruningTarget(3, 137))):
            losses[metric] = ta.perplexity(stories, evaluation)
    assert losses["taylor"] < losses["magnitude"] < losses["random"]
