"""Whole layers that go: patterns over layers, repairs, the cache, cutting again, and what is refused.

That masked, pruned, saved and read models agree, for every family, is in test_exactness.py.
"""

import itertools
import threading
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import transact as ta
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids
from tests.transact.cutting.test_exactness import TOLERANCE, stay_in_float64
from transact.spec.plan import compose_cuts

pytestmark = pytest.mark.rounding

_SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 4, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_SLIDING = {"use_sliding_window": True, "sliding_window": 4}
PATTERNS = {
    # layers 3 and 4 of 5 have windows; layer types are derived from that number
    "qwen2": ("qwen2", _SLIDING | {"max_window_layers": 3, "num_hidden_layers": 5}),
    "qwen3": ("qwen3", _SLIDING | {"max_window_layers": 2, "num_hidden_layers": 5}),
    # every second and every third layer attends to all; derived from the layers' numbers
    "gemma2": ("gemma2", {"sliding_window": 4, "num_hidden_layers": 5}),
    "gemma3": ("gemma3_text", {"sliding_window": 4, "sliding_window_pattern": 3, "num_hidden_layers": 5}),
    # every second layer is without RoPE, and these have windows
    "smollm3": ("smollm3", _SLIDING | {"no_rope_layer_interval": 2, "num_hidden_layers": 5}),
    "olmo3": ("olmo3", {"sliding_window": 4, "num_hidden_layers": 5}),
    # layers that attend to all are without RoPE
    "cohere2": ("cohere2", {"sliding_window": 4, "sliding_window_pattern": 2, "num_hidden_layers": 5}),
    "exaone4": ("exaone4", {"sliding_window": 4, "sliding_window_pattern": 3, "num_hidden_layers": 5}),
}


@pytest.fixture(autouse=True)
def all_in_float64(monkeypatch):
    stay_in_float64(monkeypatch)


def _plan(loaded: ta.LoadedModel, kept: tuple[int, ...], target=None) -> ta.PruningPlan:
    target = target or ta.PruningTarget(2, 24)
    return replace(ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target), kept_layers=kept)


def _logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


def _generated(model, ids: torch.Tensor, **options) -> torch.Tensor:
    options |= {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(ids, **options)


# of GPT-2 with attention that is divided by the number of its layer, only the last layers can go
NAMES = [name for name in TINY if name != "gpt2-default-width"]
KEPT = ((0, 2, 3), (1, 4), (2,), (1, 3), (0, 1))


@pytest.mark.parametrize(
    ("name", "kept"),
    cases(itertools.product(PATTERNS, KEPT), test=lambda *_: True, check=lambda _, kept: len(kept) > 2),
)
def test_patterns_follow_the_layers(name, kept, tmp_path):
    model_type, changes = PATTERNS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **_SIZES, **changes), dtype=torch.float64)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.mul_(1 if "norm" in parameter_name else 8)
    dense = ta.LoadedModel.from_model(model)
    assert len(set(dense.spec.windows)) == 2
    plan, ids = _plan(dense, kept), token_ids(dense)
    pruned = ta.prune(dense, plan)
    with ta.masked(dense, plan):
        masked = _logits(dense.model, ids)
    ta.save(pruned, tmp_path / "saved")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    loaded = ta.load(str(tmp_path / "saved"), dtype="float64")
    assert pruned.spec.windows == plan.spec.windows == tuple(dense.spec.windows[layer] for layer in kept)
    assert loaded.spec.windows == pruned.spec.windows
    for each in (pruned.model, stock, loaded.model):
        assert (_logits(each, ids) - masked).abs().max() < TOLERANCE
        assert torch.equal(_generated(each, ids), _generated(each, ids, use_cache=False))
    assert dense.model.config.num_hidden_layers == 5, "the dense model keeps its configuration"
    assert len(dense.model.config.layer_types) == 5


def test_layers_that_stay_are_the_same_and_pass_on_the_stream_untouched():
    """With nothing else cut, the model is its layers 0 and 2, to the last bit."""
    dense = build("llama")
    plan, ids = _plan(dense, (0, 2), ta.PruningTarget(4, 40)), token_ids(dense)
    before = _logits(dense.model, ids)
    with ta.masked(dense, plan):
        masked = _logits(dense.model, ids)
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(_logits(dense.model, ids)))
        thread.start()
        thread.join()
    assert torch.equal(elsewhere[0], before) and torch.equal(_logits(dense.model, ids), before)
    pruned = ta.prune(dense, plan)
    assert torch.equal(_logits(pruned.model, ids), masked) and not torch.equal(masked, before)
    layers = [layer.state_dict() for layer in (dense.decoder_layers[2], pruned.decoder_layers[1])]
    assert all(torch.equal(layers[0][name], layers[1][name]) for name in layers[1])
    assert [layer.self_attn.layer_idx for layer in pruned.decoder_layers] == [0, 1]
    assert [layer.self_attn.layer_idx for layer in dense.decoder_layers] == [0, 1, 2]
    shared = {tensor.data_ptr() for tensor in dense.model.parameters()}
    assert not shared & {tensor.data_ptr() for tensor in pruned.model.parameters()}


@pytest.mark.parametrize("kind", ["none", "bias", "least_squares", "best", "search"])
@pytest.mark.parametrize("name", cases(NAMES, test=LAYOUTS, check=FEW[:1]))
def test_every_repair_of_every_family(name, kind, tmp_path):
    dense = build(name)
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, 12), name="ids")
    statistics = ta.observe(dense, calibration, gram=True)
    target = ta.PruningTarget(3, 17, keep_layers=2)
    if kind == "search":
        plan = ta.search_plan(dense, statistics, target)
    else:
        plan = ta.make_plan(ta.score(dense, statistics), dense.spec, target)
    assert plan.kept_layers == ta.make_plan(ta.score(dense, statistics), dense.spec, target).kept_layers
    assert ta.PruningPlan.from_json(plan.to_json()) == plan
    compensation = "best" if kind == "search" else kind
    try:
        pruned = ta.prune(dense, plan, compensation=compensation, statistics=statistics)
    except ta.InvalidOption as error:
        assert kind == "bias" and "cannot hold" in str(error)
        return
    ids = token_ids(dense)
    ta.save(pruned, tmp_path / "saved")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert pruned.spec.num_parameters == pruned.model.num_parameters()
    assert pruned.spec.layers == (plan.spec.layers[0],) * 2
    assert (_logits(pruned.model, ids) - _logits(stock, ids)).abs().max() < TOLERANCE
    assert torch.equal(_generated(stock, ids), _generated(stock, ids, use_cache=False))
    if compensation == "least_squares":
        by_layer = ta.prune(
            dense, plan, compensation=compensation, statistics=ta.observe(dense, calibration, gram="by_layer")
        )
        assert (_logits(by_layer.model, ids) - _logits(pruned.model, ids)).abs().max() < 1e-6
    if compensation == "best":
        plain = ta.prune(dense, plan)
        errors = [_error(dense, each, calibration.input_ids) for each in (pruned, plain)]
        assert errors[0] < errors[1]


def _error(dense: ta.LoadedModel, pruned: ta.LoadedModel, ids: torch.Tensor) -> float:
    one, other = (_logits(each.model, ids).log_softmax(-1) for each in (dense, pruned))
    return float((one.exp() * (one - other)).sum(-1).mean())


@pytest.mark.parametrize("name", FEW)
def test_a_result_is_cut_again_and_loaded_and_cut(name, tmp_path):
    dense = build(name)
    first = ta.prune(dense, _plan(dense, (0, 2), ta.PruningTarget((1, 3, 3), (40, 5, 13))))
    second = ta.prune(first, _plan(first, (1,), ta.PruningTarget((1, 2), (3, 7))))
    ids = token_ids(dense)
    whole = compose_cuts(second.cuts)
    assert whole.kept_layers == (2,)
    with ta.masked(dense, whole):
        assert (_logits(dense.model, ids) - _logits(second.model, ids)).abs().max() < TOLERANCE
    ta.save(first, tmp_path / "first", layers="compact")
    loaded = ta.load(str(tmp_path / "first"), dtype="float64")
    again = ta.prune(loaded, replace(second.cuts[1].plan, fingerprint=loaded.fingerprint))
    assert (_logits(again.model, ids) - _logits(second.model, ids)).abs().max() < TOLERANCE


def test_narrower_heads_and_fewer_layers(tmp_path):
    dense = build("llama")
    target = ta.PruningTarget(3, 17, keep_query_key_dim=2, keep_value_dim=3, keep_layers=2)
    plan, ids = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, target), token_ids(dense)
    pruned = ta.prune(dense, plan)
    with ta.masked(dense, plan):
        assert (_logits(dense.model, ids) - _logits(pruned.model, ids)).abs().max() < TOLERANCE
    assert torch.equal(_generated(pruned.model, ids), _generated(pruned.model, ids, use_cache=False))
    for layers in ("padded", "compact"):
        ta.save(pruned, tmp_path / layers, layers=layers)
        loaded = ta.load(str(tmp_path / layers), dtype="float64")
        assert (_logits(loaded.model, ids) - _logits(pruned.model, ids)).abs().max() < TOLERANCE


def test_tensors_in_dtypes_of_their_own_move_with_their_layer(tmp_path):
    """Norms in float32 beside matrices in bfloat16: the files of the result hold them so, under their new numbers."""
    model = build("llama", torch.bfloat16).model
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.float() + 1e-3
    dense = ta.LoadedModel.from_model(model)
    pruned = ta.prune(dense, _plan(dense, (0, 2)))
    layers = dense.layout.layers
    names = ("input_layernorm", "post_attention_layernorm")
    for number, index in ((0, 0), (1, 2)):
        for name in names:
            kept = pruned.stored_exceptions[f"{layers}.{number}.{name}.weight"]
            assert torch.equal(kept, dense.stored_exceptions[f"{layers}.{index}.{name}.weight"])
    assert not any(name.startswith(f"{layers}.2.") for name in pruned.stored_exceptions)


def test_attention_that_depends_on_the_layers_number_is_refused_before_the_work():
    dense = build("gpt2-default-width")
    for kept in ((0, 2), (1,)):
        with pytest.raises(ta.InvalidPlan, match="Remove none, or only the last layers"):
            ta.prune(dense, _plan(dense, kept))
    plan, ids = _plan(dense, (0, 1)), token_ids(dense)
    with ta.masked(dense, plan):
        assert (_logits(dense.model, ids) - _logits(ta.prune(dense, plan).model, ids)).abs().max() < TOLERANCE
