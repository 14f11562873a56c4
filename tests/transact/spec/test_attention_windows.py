"""Sliding windows in the cost model, against the cache and the operations of the stock classes."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import transact as ta
from tests.tiny_models import TINY, build, token_ids
from transact.evaluation.speed import cache_of

CONTEXT = 14
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
CASES: dict[str, dict] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "phi3": {"sliding_window": 6},
    "starcoder2": {"sliding_window": 6},
    "gemma2": {"sliding_window": 6, "layer_types": SLIDING},
    "gemma3": {"sliding_window": 6, "layer_types": SLIDING},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "smollm3": {"use_sliding_window": True, "sliding_window": 6, "no_rope_layers": [1, 0, 1]},
    "olmo3": {},
    "ministral": {},
    "ministral3": {"sliding_window": 6},
    "cohere2": {},
    "exaone4": {},
    "cwm": {},
}
WINDOWS = {
    "llama": (None, None, None),
    "mistral": (6, 6, 6),
    "phi3": (6, 6, 6),
    "starcoder2": (6, 6, 6),
    "gemma2": (6, None, 6),
    "gemma3": (6, None, 6),
    "qwen2": (None, 5, 5),
    "qwen3": (None, None, 5),
    "smollm3": (None, 6, None),
    "ministral3": (6, 6, 6),
} | dict.fromkeys(("olmo3", "ministral", "cohere2", "exaone4", "cwm"), (6, None, 6))
WITHOUT = {
    "mistral": {"sliding_window": None},
    "phi3": {"sliding_window": None},
    "starcoder2": {"sliding_window": None},
    "gemma2": {"layer_types": ["full_attention"] * 3},
    "gemma3": {"layer_types": ["full_attention"] * 3},
    "qwen2": {"use_sliding_window": False, "sliding_window": 5},
    "qwen3": {"use_sliding_window": False, "sliding_window": 5},
    "smollm3": {"use_sliding_window": False, "sliding_window": 6},
    "olmo3": {"layer_types": ["full_attention"] * 3},
    "ministral": {"layer_types": ["full_attention"] * 3},
    "ministral3": {},
    "cohere2": {"layer_types": ["full_attention"] * 3},
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    "cwm": {"layer_types": ["full_attention"] * 3},
}
VARIANTS = [*((name, "windows") for name in CASES), *((name, "none") for name in WITHOUT)]


def model(name: str, kind: str) -> ta.LoadedModel:
    """Eager attention, whose products a counter sees."""
    model_type, changes = TINY[name]
    sizes = build("llama").model.config.to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings")  # fmt: skip
    changes = {key: sizes[key] for key in kept} | changes | (CASES if kind == "windows" else WITHOUT)[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **changes)
    return ta.LoadedModel.from_model(
        AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation="eager"), source=name
    )


def without_windows(loaded: ta.LoadedModel, kind: str, expected: tuple) -> tuple:
    return expected if kind == "windows" else (None,) * loaded.spec.num_hidden_layers


def operations(counter: FlopCounterMode) -> int:
    """What was counted, but for the product that makes RoPE's angles."""
    counts = counter.get_flop_counts()
    angles = {name: values for name, values in counts.items() if name.endswith("rotary_emb")}
    return sum(counts["Global"].values()) - sum(sum(values.values()) for values in angles.values())


@pytest.mark.parametrize(("name", "kind"), VARIANTS)
def test_each_family_says_its_windows(name, kind):
    loaded = model(name, kind)
    assert loaded.spec.windows == without_windows(loaded, kind, WINDOWS[name])


@pytest.mark.parametrize(("name", "kind"), VARIANTS)
def test_the_cache_holds_what_the_spec_says(name, kind):
    """Bytes allocated while a token is written, below the window, at it and beyond."""
    loaded = model(name, kind)
    ids = token_ids(loaded, samples=1, seq=CONTEXT)
    for context in range(2, CONTEXT + 1):
        with torch.no_grad():
            step = loaded.model(ids[:, : context - 1], use_cache=True)
            step = loaded.model(ids[:, context - 1 : context], use_cache=True, **cache_of(loaded.model, step))
        (cache,) = cache_of(loaded.model, step).values()
        held = sum(states.untyped_storage().nbytes() for layer in cache.layers for states in (layer.keys, layer.values))
        assert held == loaded.spec.kv_bytes(context, bytes_per_element=8)
        grown = loaded.spec.kv_bytes(context, 8) - loaded.spec.kv_bytes(context - 1, 8)
        assert loaded.spec.kv_bytes_per_token(8, context=context - 1) == grown


@pytest.mark.parametrize(("name", "kind"), VARIANTS)
def test_writing_a_token_takes_the_operations_that_the_spec_says(name, kind):
    loaded = model(name, kind)
    ids = token_ids(loaded, samples=1, seq=CONTEXT)
    for context in (3, 6, CONTEXT):
        with torch.no_grad():
            before = loaded.model(ids[:, : context - 1], use_cache=True)
            with FlopCounterMode(display=False) as counter:
                loaded.model(ids[:, context - 1 : context], use_cache=True, **cache_of(loaded.model, before))
        assert operations(counter) == loaded.spec.flops_per_token(context=context)


@pytest.mark.parametrize(("name", "kind"), VARIANTS)
@pytest.mark.parametrize("logits", [None, 1])
def test_reading_a_prompt_takes_the_operations_that_the_spec_says(name, kind, logits):
    """Eager attention computes what its mask hides, so that is taken off by what the attentions show."""
    loaded = model(name, kind)
    ids = token_ids(loaded, samples=1, seq=CONTEXT)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = loaded.model(ids, use_cache=False, output_attentions=True, logits_to_keep=logits or 0)
    hidden = sum(int((weights == 0).sum()) for weights in output.attentions)
    computed = operations(counter) - 2 * hidden * (loaded.spec.query_key_dim + loaded.spec.value_dim)
    assert computed == loaded.spec.prefill_flops(CONTEXT, logits=logits)


def test_prefill_by_hand():
    # windows of 2 and none, 4 tokens: 1 + 2 + 2 + 2 = 7 and 1 + 2 + 3 + 4 = 10 positions, 2 heads of 2
    config = AutoConfig.for_model(
        "gemma2",
        vocab_size=5,
        hidden_size=4,
        intermediate_size=3,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2,
        sliding_window=2,
    )
    spec = ta.ModelSpec.from_config(config)
    weights = 48 + 36  # as in test_spec.test_flops_by_hand
    assert spec.prefill_flops(4) == 2 * (4 * (2 * weights + 20) + (7 + 10) * 2 * 4)
    assert spec.prefill_flops(4, logits=1) == spec.prefill_flops(4) - 2 * 3 * 20
    assert spec.flops_per_token(context=4) == 2 * (2 * weights + 20 + (2 + 4) * 2 * 4)
    assert spec.kv_bytes(4) == 2 * 4 * (2 + 4)
    assert [spec.kv_bytes_per_token(context=context) for context in (0, 1, 2, 3)] == [16, 16, 8, 8]


def test_gemma_3_at_its_whole_context():
    """Gemma 3 270m: 18 layers, every sixth of them sees all, the others 512 positions; 1 key/value head of 256."""
    config = AutoConfig.for_model(
        "gemma3_text",
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
        max_position_embeddings=32_768,
    )
    spec = ta.ModelSpec.from_config(config)
    assert spec.kv_bytes(32_768) == 2 * 2 * 256 * (15 * 512 + 3 * 32_768) == 108_527_616
    assert spec.kv_bytes_per_token() * 32_768 == 603_979_776
    # what fits is not refused, and nothing is cut for it
    whole = 2 * spec.num_parameters + spec.kv_bytes(32_768)
    kept = ta.PruningTarget.from_memory(spec, whole, context=32_768)
    assert (kept.keep_head_groups, kept.keep_channels) == (1, 2048)
    less = ta.PruningTarget.from_memory(spec, whole - 1, context=32_768)
    assert less.keep_channels < 2048


def test_from_memory_counts_the_windows_of_each_layer():
    spec = model("gemma3", "windows").spec
    for share in (0.5, 0.7, 0.9, 1.0):
        budget = share * (2 * spec.num_parameters + spec.kv_bytes(64))
        reached = ta.PruningTarget.from_memory(spec, budget, context=64).spec(spec)
        used = 2 * reached.num_parameters + reached.kv_bytes(64)
        assert used <= budget
        slack = 2 * spec.num_hidden_layers * (spec.parameters_per_channel + spec.parameters_per_head_group)
        assert budget - used < slack + 2 * spec.num_hidden_layers * 64 * spec.cached_elements


def test_windows_travel_with_plans_and_old_plans_still_fit():
    loaded = model("gemma3", "windows")
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, ta.PruningTarget(2, 20))
    assert ta.PruningPlan.from_json(plan.to_json()).spec.windows == WINDOWS["gemma3"]
    values = json.loads(plan.to_json())
    assert values["dense_spec"].pop("windows") == list(WINDOWS["gemma3"])
    old = ta.PruningPlan.from_json(json.dumps(values))
    assert old == plan and old.fingerprint == plan.fingerprint == loaded.spec.fingerprint
    assert old.spec.windows == (None, None, None)
    assert ta.prune(loaded, old).spec.windows == WINDOWS["gemma3"]


def test_the_fingerprint_is_that_of_the_shapes():
    with_windows, without = (model("gemma3", kind).spec for kind in ("windows", "none"))
    assert with_windows.fingerprint == without.fingerprint
    assert "windows" not in without.to_dict()


@pytest.mark.parametrize(
    "windows", [[6, None], [6, None, 0], [6, None, True], [6, None, 6.0], [6, None, "6"], 6, "six", {}]
)
def test_windows_of_a_file_that_are_none_are_refused(windows):
    values = model("gemma3", "windows").spec.to_dict() | {"windows": windows}
    with pytest.raises(ValueError, match="window"):
        ta.ModelSpec.from_dict(values)


def test_a_window_of_no_token_is_refused():
    config = AutoConfig.for_model("mistral", sliding_window=0)
    with pytest.raises(ta.ModelUnsupported, match="sliding_window is 0"):
        ta.ModelSpec.from_config(config)


def test_llama_written_as_mistral_has_no_window(tmp_path):
    dense = build("llama")
    pruned = ta.prune(dense, ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(3, 20)))
    assert ta.save(pruned, tmp_path / "out").model_class == "MistralForCausalLM"
    assert ta.load(str(tmp_path / "out")).spec.windows == (None, None, None)
