"""The plan search and the sequential repair: every family, what they leave behind, what they refuse, how good."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import transact as ta
from tests.tiers import LAYOUTS, cases, inputs
from tests.tiny_models import TINY, build, token_ids
from tests.transact.cutting.test_leaves_nothing_behind import _hooks
from transact.observing.layer_stream import streams
from transact.planning.search import fisher_losses
from transact.repair.gauss_newton import _vertex
from transact.repair.ridge import least_squares

pytestmark = pytest.mark.rounding

TARGETS = {"uniform": ta.PruningTarget(3, 17), "per-layer": ta.PruningTarget((1, 3, 4), (40, 5, 13))}


def _observed(loaded, samples=12, **kinds):
    return ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded, samples), name="ids"), **kinds)


def _divergence(dense, pruned, ids) -> float:
    with torch.no_grad():
        one, other = (model.model(ids).logits.log_softmax(-1) for model in (dense, pruned))
    return float((one.exp() * (one - other)).sum(-1).mean())


def _cases():
    """Multi-head models go the same path as grouped queries, which counts that differ from layer to layer cover."""
    for name, target in itertools.product(TINY, TARGETS):
        if target != "uniform" or not name.endswith(("multi-head", "multi-head-tied", "attention-bias")):
            yield name, target


def _in_turn(name: str, target: str) -> bool:
    """One model a layout, whose layers differ in size in every second one."""
    return name in LAYOUTS and target == list(TARGETS)[LAYOUTS.index(name) % 2]


@pytest.mark.parametrize(("name", "target"), cases(_cases(), test=_in_turn, check=[("llama", "per-layer")]))
def test_every_family_is_searched_repaired_and_loaded_by_its_stock_class(name, target, tmp_path):
    dense = build(name)
    statistics = _observed(dense, gram=True)
    before = {key: value.clone() for key, value in dense.model.state_dict().items()}
    plan = ta.search_plan(dense, statistics, TARGETS[target])
    pruned = ta.prune(dense, plan, compensation="best", statistics=statistics)
    assert ta.PruningPlan.from_json(plan.to_json()) == plan
    shapes = TARGETS[target].per_layer(dense.spec)
    assert plan.spec.layers == pruned.spec.layers == shapes
    assert all(torch.equal(before[key], value) for key, value in dense.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in dense.model.parameters())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in pruned.model.parameters())
    assert _hooks(dense) == _hooks(pruned) == 0
    ids = statistics.tokens.input_ids
    plain = ta.prune(dense, plan)
    assert pruned.model.state_dict().keys() == plain.model.state_dict().keys()
    assert _divergence(dense, pruned, ids) < _divergence(dense, plain, ids)
    ta.save(pruned, tmp_path / "out")
    again = ta.load(str(tmp_path / "out"), dtype="float64")
    with torch.no_grad():
        # stock norms compute in float32; OLMo 2's padded ones on scaled numbers (1e-9 is seen in test_exactness)
        torch.testing.assert_close(again.model(ids).logits, pruned.model(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "granite", "qwen2", "mistral"])
def test_streams_walked_layer_by_layer_are_the_models_own(name):
    dense = build(name)
    tokens = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=3))
    with torch.no_grad():
        (stream,) = streams(dense, tokens, 3)
        for index, layer in enumerate(dense.decoder_layers):
            stream.hidden = stream.run(layer, index)
        expected = dense.model.base_model(tokens.input_ids, use_cache=False).last_hidden_state
        assert torch.equal(dense.model.base_model.norm(stream.hidden), expected)
    assert _hooks(dense) == 0


def test_a_plan_that_removes_nothing_changes_nothing():
    dense = build("llama")
    statistics = _observed(dense, gram=True)
    plan = ta.search_plan(dense, statistics, ta.PruningTarget(4, 40))
    pruned = ta.prune(dense, plan, compensation="best", statistics=statistics)
    state = pruned.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in dense.model.state_dict().items())


def test_the_search_keeps_to_locks():
    dense = build("llama")
    statistics = _observed(dense, gram=True)
    free = ta.search_plan(dense, statistics, ta.PruningTarget(2, 20))
    gone = next(iter(set(range(40)) - set(free.layers[1].kept_channels)))
    locks = ta.Locks(
        keep_head_groups=frozenset({(0, min(set(range(4)) - set(free.layers[0].kept_head_groups)))}),
        remove_head_groups=frozenset({(2, free.layers[2].kept_head_groups[0])}),
        keep_channels=frozenset({(1, gone)}),
        remove_channels=frozenset({(0, free.layers[0].kept_channels[0])}),
    )
    layers = ta.search_plan(dense, statistics, ta.PruningTarget(2, 20), locks=locks).layers
    assert all(len(layer.kept_head_groups) == 2 and len(layer.kept_channels) == 20 for layer in layers)
    for layer, index in locks.keep_head_groups:
        assert index in layers[layer].kept_head_groups
    for layer, index in locks.remove_head_groups:
        assert index not in layers[layer].kept_head_groups
    assert gone in layers[1].kept_channels
    assert free.layers[0].kept_channels[0] not in layers[0].kept_channels
    too_many = ta.Locks(keep_channels=frozenset((0, channel) for channel in range(21)))
    with pytest.raises(ta.InvalidTarget, match="21 are locked to stay"):
        ta.search_plan(dense, statistics, ta.PruningTarget(2, 20), locks=too_many)


def test_heads_inside_their_groups_are_searched_too():
    """As many heads of each group, those that are dearer to lose; with groups removed as well, of the kept ones."""
    dense = build("llama")
    statistics = _observed(dense, gram=True)
    losses = fisher_losses(dense, statistics, statistics.tokens, 1)
    for target in (ta.PruningTarget(4, 40, keep_heads_per_group=1), ta.PruningTarget(3, 20, keep_heads_per_group=1)):
        plan = ta.search_plan(dense, statistics, target)
        for layer, loss in zip(plan.layers, losses, strict=True):
            dearest = loss.view(4, 2).argmax(dim=1)
            assert layer.kept_heads == tuple(2 * group + int(dearest[group]) for group in layer.kept_head_groups)
        pruned = ta.prune(dense, plan, compensation="best", statistics=statistics)
        assert pruned.spec == plan.spec and pruned.spec.group_size == 1
        assert pruned.spec.num_parameters == pruned.model.num_parameters()


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "cases"), [(2, ((0, 1), (2, 3))), (1, ((0, 3), (2, 6)))])
def test_unit_losses_against_removing_and_measuring(heads, cases):
    """For a unit whose effect is small the estimate is the loss that its removal and repair really costs."""
    dense = build("llama")
    with torch.no_grad():
        for layer in dense.decoder_layers:
            layer.self_attn.o_proj.weight.mul_(0.02)
    # token ids that the model itself would draw are none of these, so the expected loss is that of its own draws
    tokens = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=400))
    statistics = ta.observe(dense, tokens, gram=True)
    estimated = fisher_losses(dense, statistics, tokens, heads)
    for layer, unit in cases:
        gone = range(unit * heads, (unit + 1) * heads)
        pruned = _repaired_without(dense, statistics, layer, gone)
        with torch.no_grad():
            one, other = (model.model(tokens.input_ids).logits[:, :-1].log_softmax(-1) for model in (dense, pruned))
        measured = float((one.exp() * (one - other)).sum(-1).mean())
        assert float(estimated[layer][unit]) == pytest.approx(measured, rel=0.3)


def _repaired_without(
    dense: ta.LoadedModel, statistics: ta.ActivationStatistics, layer: int, gone: range
) -> ta.LoadedModel:
    """The model with those heads' columns of `o_proj` gone and the others refitted."""
    pruned = copy.deepcopy(dense)
    projection = pruned.decoder_layers[layer].self_attn.o_proj
    width = dense.spec.head_dim
    lost = torch.arange(gone.start * width, gone.stop * width)
    kept = torch.tensor([each for each in range(projection.weight.shape[1]) if each not in lost])
    with torch.no_grad():
        weight = least_squares(projection.weight, statistics.attention[layer].gram, kept)
        projection.weight[:, lost], projection.weight[:, kept] = 0.0, weight.to(projection.weight.dtype)
    return pruned


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ({0.0: 3.0, 0.25: 2.0, 0.5: 3.0}, None),  # the vertex is a point that was tried
        ({0.0: 1.0, 0.25: 0.5625, 0.5: 0.25}, 1.0),  # (1 − x)²
        ({0.0: 3.0, 0.25: 2.0, 0.5: 1.0}, 2.0),  # straight down: as far as is allowed
        ({0.0: 1.0, 0.25: 2.0, 0.5: 3.0}, None),
        ({0.0: 1.0, 0.25: 2.0, 0.5: float("inf")}, None),
    ],
)
def test_the_vertex_by_hand(tried, expected):
    assert _vertex(tried) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("stage", [1, 5, 9])
def test_work_that_is_stopped_leaves_nothing_behind(stage):
    dense = build("llama")
    statistics = _observed(dense, gram=True)
    before = {key: value.clone() for key, value in dense.model.state_dict().items()}
    calls = []

    def stop(done, total, unit):
        calls.append(done)
        assert 0 <= done <= total
        if len(calls) == stage:
            raise ta.Cancelled

    target = ta.PruningTarget(2, 20)
    plan = ta.search_plan(dense, statistics, target)
    for work in (
        lambda: ta.search_plan(dense, statistics, target, progress=stop),
        lambda: ta.prune(dense, plan, compensation="best", statistics=statistics, progress=stop),
    ):
        calls.clear()
        if stage <= 5:
            with pytest.raises(ta.Cancelled):
                work()
        assert _hooks(dense) == 0
        assert all(torch.equal(before[key], value) for key, value in dense.model.state_dict().items())


def test_statistics_that_it_cannot_work_from_are_refused(tmp_path, monkeypatch):
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=12))
    statistics = ta.observe(dense, calibration, gram=True, samples=True)
    plan = ta.search_plan(dense, statistics, ta.PruningTarget(2, 20))
    statistics.save(tmp_path / "statistics.safetensors")
    read = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    with pytest.raises(ta.InvalidOption, match="do not hold the calibration tokens"):
        ta.search_plan(dense, read, ta.PruningTarget(2, 20))
    with pytest.raises(ta.InvalidOption, match="do not hold the calibration tokens"):
        ta.prune(dense, plan, compensation="best", statistics=read)
    with pytest.raises(ta.InvalidOption, match="Pass statistics"):
        ta.prune(dense, plan, compensation="best")
    other = _observed(build("qwen2"))
    with pytest.raises(ta.InvalidPlan, match="another model"):
        ta.search_plan(dense, other, ta.PruningTarget(2, 20))
    with pytest.raises(ta.InvalidTarget, match="has 40"):
        ta.search_plan(dense, statistics, ta.PruningTarget(2, 41))
    assert statistics.subset([3, 1]).tokens.input_ids.tolist() == statistics.tokens.input_ids[[3, 1]].tolist()
    monkeypatch.setattr("transact.repair.sequential.free_bytes", lambda device: 100)
    with pytest.raises(ta.NotEnoughMemory, match="layer by layer"):
        ta.prune(dense, plan, compensation="best", statistics=statistics)


def test_repaired_weights_fit_the_dtype_of_the_base(tmp_path):
    ta.save(build("llama", torch.float32), tmp_path / "base", dtype="bfloat16")
    base = ta.load(str(tmp_path / "base"), dtype="float32")
    statistics = _observed(base, gram=True)
    plan = ta.search_plan(base, statistics, ta.PruningTarget(2, 25))
    repaired = ta.prune(base, plan, compensation="best", statistics=statistics)
    ta.save(repaired, tmp_path / "small", dtype=base.stored_dtype)
    again = ta.load(str(tmp_path / "small"), dtype="float32").model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in repaired.model.state_dict().items())


@pytest.mark.slow
@settings(max_examples=inputs(75), deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=6), min_size=1, max_size=6),
    repeats=st.integers(1, 4),
    groups=st.integers(1, 4),
    channels=st.integers(1, 40),
    dead=st.booleans(),
)
def test_poor_text_and_dead_channels_never_give_nan(rows, repeats, groups, channels, dead):
    dense = build("llama", torch.float32)
    if dead:
        with torch.no_grad():
            dense.decoder_layers[1].mlp.up_proj.weight.zero_()
            dense.decoder_layers[0].self_attn.v_proj.weight[:4].zero_()
    statistics = ta.observe(dense, ta.CalibrationSet.from_sequences(rows * repeats, name="poor"), gram=True)
    try:
        plan = ta.search_plan(dense, statistics, ta.PruningTarget(groups, channels))
    except ta.InvalidText as error:
        assert "too short" in str(error)
        return
    for compensation in ("least_squares", "best"):
        pruned = ta.prune(dense, plan, compensation=compensation, statistics=statistics)
        assert all(bool(value.isfinite().all()) for value in pruned.model.state_dict().values())


@pytest.mark.slow
def test_least_is_lost_at_the_smallest_reference_size(stories, calibration_texts, evaluation_texts):
    """One of the five sizes, on a third of the text, so that it stays quick; `benchmarks.quality` measures all."""
    calibration = ta.CalibrationSet.from_texts(
        calibration_texts, stories.tokenizer, num_samples=48, seq_len=128, min_tokens=64
    )
    evaluation = ta.EvaluationSet.from_texts(
        evaluation_texts, stories.tokenizer, num_samples=64, seq_len=128, min_tokens=64
    )
    statistics = ta.observe(stories, calibration, gram=True)
    target = ta.PruningTarget(2, 86)
    found = ta.search_plan(stories, statistics, target)
    best = ta.prune(stories, found, compensation="best", statistics=statistics)
    flap = ta.make_plan(ta.score(stories, statistics, metric="fluctuation"), stories.spec, target)
    once = ta.prune(stories, flap, compensation="least_squares", statistics=statistics)
    dense = ta.perplexity(stories, evaluation)
    gaps = [math.log(ta.perplexity(model, evaluation) / dense) for model in (best, once)]
    assert gaps[0] < 0.8 * gaps[1]
