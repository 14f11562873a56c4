"""Heads that lose dimensions: RoPE pairs with their own angles, values apart, loaded by classes of our own."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import transact as ta
from tests.tiers import cases
from tests.tiny_models import TINY, build, token_ids
from tests.transact.cutting.test_exactness import IN_FLOAT64, STOCK_SCRIPT, TOLERANCE, stay_in_float64
from transact.evaluation.speed import cache_of
from transact.layers.narrow_attention import NarrowAttention
from transact.scoring.scores import pair_scores
from transact.spec.plan import compose_cuts

pytestmark = pytest.mark.rounding

NARROWED = (
    "llama",
    "llama-multi-head",
    "llama-biased",
    "llama-scaled-rope",
    "llama-tied",
    "mistral",
    "qwen2",
    "granite",
    "starcoder2",
    "smollm3",
    "ministral",
    "seed-oss",
    "arcee",
    "cwm",
    "gemma",
)
TARGETS = {
    "queries-and-keys": ta.PruningTarget(4, 40, keep_query_key_dim=2),
    "values": ta.PruningTarget(4, 17, keep_value_dim=3),
    "both-and-units": ta.PruningTarget(2, 17, keep_heads_per_group=1, keep_query_key_dim=2, keep_value_dim=1),
    "per-layer": ta.PruningTarget((1, 3, 2), (40, 5, 13), keep_query_key_dim=2, keep_value_dim=3),
}
CASES = [
    (name, target)
    for name in NARROWED
    for target in (TARGETS if name in ("llama", "mistral") else ("both-and-units", "queries-and-keys"))
]


def in_turn(name: str, target: str) -> bool:
    """Whether the case is one of those in which each model has one target, and two models of Llama's all."""
    return name == "llama" or list(TARGETS).index(target) in (NARROWED.index(name) % 2 * 2, 3)


ROOT = Path(__file__).resolve().parents[3]
REFUSED_SCRIPT = """
import sys
from transformers import AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_pretrained(sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def all_in_float64(monkeypatch):
    stay_in_float64(monkeypatch)


def _observed(loaded: ta.LoadedModel, **asked) -> ta.ActivationStatistics:
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=4))
    return ta.observe(loaded, calibration, queries=True, **asked)


def _plan(loaded: ta.LoadedModel, target: ta.PruningTarget) -> ta.PruningPlan:
    return ta.make_plan(ta.score(loaded, _observed(loaded)), loaded.spec, target)


def _pruned(name: str, target: str) -> ta.LoadedModel:
    dense = build(name)
    return ta.prune(dense, _plan(dense, TARGETS[target]))


@pytest.fixture(scope="module")
def read_back(request, tmp_path_factory):
    """Every case that this run tests, padded and compact, read by a stock process and by one that imports transact."""
    root = tmp_path_factory.mktemp("narrow")
    here = [item for item in request.session.items if item.path == request.path]
    tested = [item.callspec.params for item in here if "read_back" in item.fixturenames]
    requests, made = {"padded": {}, "compact": {}}, {}
    for name, target in dict.fromkeys((each["name"], each["target"]) for each in tested):
        pruned = _pruned(name, target)
        for layers in ("padded", "compact"):
            if layers == "padded" or pruned.spec.is_uniform:
                folder = root / f"{name}--{target}--{layers}"
                made[name, target, layers] = (pruned, ta.save(pruned, folder, layers=layers), str(folder))
                requests[layers][str(folder)] = token_ids(pruned).tolist()
    results = {}
    for layers, script in (
        ("padded", STOCK_SCRIPT),
        ("compact", f"import transact\n{STOCK_SCRIPT.replace('not in sys.modules', 'in sys.modules')}"),
    ):
        files = root / f"{layers}.json", root / f"{layers}.pt"
        files[0].write_text(json.dumps(requests[layers]))
        where = root if layers == "padded" else ROOT
        subprocess.run([sys.executable, "-c", IN_FLOAT64 + script, *map(str, files)], check=True, cwd=where)
        results |= torch.load(files[1])
    return {case: (pruned, report, results[folder]) for case, (pruned, report, folder) in made.items()}


@pytest.mark.parametrize(("name", "target"), cases(CASES, test=in_turn))
def test_masked_pruned_and_read_back_agree(name, target, read_back):
    dense = build(name)
    ids = token_ids(dense)
    with torch.no_grad():
        with ta.masked(dense, _plan(dense, TARGETS[target])):
            masked = dense.model(ids).logits
        whole = dense.model(ids).logits
        pruned = read_back[name, target, "padded"][0]
        cut = pruned.model(ids).logits
    assert (masked - cut).abs().max() < TOLERANCE
    assert (whole - cut).abs().max() > 1e-3, "the plan removed nothing that matters, so the test shows nothing"
    for layers in ("padded", "compact"):
        if (name, target, layers) in read_back:
            _, report, found = read_back[name, target, layers]
            assert (cut - found["logits"]).abs().max() < TOLERANCE
            assert found["cache_agrees"]
            assert found["class"] == report.model_class
            assert report.model_class.startswith("Transact") == (layers == "compact")


@pytest.mark.parametrize(("name", "target"), cases(CASES, test=in_turn))
def test_spec_counts_what_is_there(name, target, read_back):
    pruned, padded, _ = read_back[name, target, "padded"]
    spec = pruned.spec
    assert spec.num_parameters == pruned.model.num_parameters()
    assert padded.padded and padded.parameters_written == spec.stored.num_parameters > spec.num_parameters
    assert padded.kv_bytes_per_token_lost == spec.stored.kv_bytes_per_token() - spec.kv_bytes_per_token() > 0
    assert ta.ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with torch.no_grad():
        output = pruned.model(token_ids(pruned, samples=1, seq=5), use_cache=True)
    (cache,) = cache_of(pruned.model, output).values()
    cached = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert cached == 5 * spec.kv_bytes_per_token(bytes_per_element=1)
    if (name, target, "compact") in read_back:
        report = read_back[name, target, "compact"][1]
        assert report.compact and report.parameters_written == spec.num_parameters
        assert "import transact" in report.notes[-1]


def test_costs_by_hand():
    """LLaMA-2-7B's attention with 64 of 128 dimensions in queries and keys and 96 in values."""
    config = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    from transformers import LlamaConfig

    dense = ta.ModelSpec.from_config(LlamaConfig(**config, num_attention_heads=32))
    narrow = ta.PruningTarget(32, 11008, keep_query_key_dim=64, keep_value_dim=96).spec(dense)
    assert dense.num_parameters - narrow.num_parameters == 32 * 2 * 4096 * 32 * (64 + 32)
    assert narrow.kv_bytes_per_token() == 32 * 32 * (64 + 96) * 2
    saved = dense.flops_per_token(context=512) - narrow.flops_per_token(context=512)
    assert saved == 2 * 32 * 2 * 4096 * 32 * (64 + 32) + 32 * 2 * 512 * 32 * (64 + 32)
    assert not narrow.is_stock and narrow.stored == dense
    assert "query_key_dim" not in dense.to_dict() and dense.fingerprint != narrow.fingerprint


def test_pair_scores_by_hand():
    """Two heads of one group, two pairs: pair 0 is dimensions 0 and 2, pair 1 is 1 and 3."""
    queries = torch.tensor([1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 3.0, 40.0])
    keys = torch.tensor([4.0, 1.0, 12.0, 3.0])
    expected = torch.tensor([[(9.0 * 16.0) ** 0.5, (100.0 * 4.0) ** 0.5]])
    torch.testing.assert_close(pair_scores(queries, keys, 4), expected)


@pytest.mark.parametrize("target", ["queries-and-keys", "values"])
def test_each_group_keeps_what_is_worth_most_in_it(target):
    dense = build("llama")
    scores = ta.score(dense, _observed(dense))
    plan = ta.make_plan(scores, dense.spec, TARGETS[target])
    for index, layer in enumerate(plan.layers):
        values = scores.rotary_pairs[index] if target == "queries-and-keys" else scores.value_channels(index)
        kept = layer.kept_pairs or layer.kept_value_channels
        expected = values.argsort(dim=1, descending=True)[:, : len(kept[0])].sort().values
        assert torch.equal(torch.tensor(kept), expected)
    assert len({layer.kept_pairs for layer in plan.layers} | {layer.kept_value_channels for layer in plan.layers}) > 2
    assert ta.PruningPlan.from_json(plan.to_json()) == plan


def test_pairs_are_summed_before_and_after_a_file_and_by_sample(tmp_path, monkeypatch):
    monkeypatch.undo()  # sums by sample are float32
    dense = build("qwen2", torch.float32)
    statistics = _observed(dense, samples=True)
    layer = dense.decoder_layers[0]
    with torch.no_grad():
        stream = layer.input_layernorm(dense.model.model.embed_tokens(token_ids(dense, samples=4)))
        by_hand = layer.self_attn.k_proj(stream).double().square().sum(dim=(0, 1))
    torch.testing.assert_close(statistics.keys[0].square_sums, by_hand, rtol=1e-5, atol=0)
    statistics.save(tmp_path / "statistics")
    again = ta.ActivationStatistics.load(tmp_path / "statistics")
    pairs = ta.score(dense, statistics).rotary_pairs
    for other in (again, statistics.subset(range(4))):
        torch.testing.assert_close(ta.score(dense, other).rotary_pairs, pairs, rtol=1e-6, atol=0)
    assert ta.score(dense, replace(again, queries=(), keys=())).rotary_pairs == ()
    assert ta.stability(dense, statistics, TARGETS["both-and-units"], resamples=2).plan.spec.query_key_dim == 2


def test_a_loaded_one_is_observed_pruned_again_and_saved(tmp_path):
    first = _pruned("llama", "values")
    ta.save(first, tmp_path / "first", layers="compact")
    again = ta.load(str(tmp_path / "first"), dtype="float64")
    assert again.spec == first.spec
    assert ta.preflight(str(tmp_path / "first")).spec == first.spec
    assert ta.LoadedModel.from_model(again.model).spec == first.spec
    plan = _plan(again, ta.PruningTarget(3, 9, keep_query_key_dim=2, keep_value_dim=2))
    second = ta.prune(again, plan)
    ids = token_ids(again)
    with torch.no_grad(), ta.masked(again, plan):
        expected = again.model(ids).logits
    ta.save(second, tmp_path / "second", layers="compact")
    ta.save(second, tmp_path / "padded")
    with torch.no_grad():
        for model in (second, *(ta.load(str(tmp_path / name), dtype="float64") for name in ("second", "padded"))):
            assert (model.model(ids).logits - expected).abs().max() < TOLERANCE


def test_two_cuts_are_one():
    dense = build("llama-scaled-rope")
    first = ta.prune(dense, _plan(dense, TARGETS["values"]))
    second = ta.prune(first, _plan(first, ta.PruningTarget(3, 9, keep_query_key_dim=2, keep_value_dim=2)))
    third = ta.prune(second, _plan(second, ta.PruningTarget(2, 9)))
    whole = ta.prune(dense, compose_cuts(third.cuts))
    assert whole.spec == third.spec
    with torch.no_grad():
        ids = token_ids(dense)
        assert (whole.model(ids).logits - third.model(ids).logits).abs().max() < TOLERANCE


def test_layers_of_different_sizes_and_narrower_heads_are_read_by_load(tmp_path):
    pruned = _pruned("mistral", "per-layer")
    report = ta.save(pruned, tmp_path / "out", layers="compact")
    assert report.compact and report.parameters_written == pruned.spec.num_parameters
    again = ta.load(str(tmp_path / "out"), dtype="float64")
    assert again.spec == pruned.spec
    with torch.no_grad():
        ids = token_ids(pruned)
        assert (again.model(ids).logits - pruned.model(ids).logits).abs().max() < TOLERANCE


@pytest.mark.parametrize("compensation", ["bias", "least_squares", "best"])
def test_repairs_make_up_for_value_channels(compensation):
    """Each takes the masked model's output closer to the dense one's, on the text it was made from."""
    dense = build("llama-biased" if compensation == "bias" else "llama")
    statistics = _observed(dense, gram=True)
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(4, 40, keep_value_dim=2))
    ids = token_ids(dense, samples=4)
    with torch.no_grad():
        wanted = dense.model(ids).logits.log_softmax(-1)
        errors = [
            float(torch.nn.functional.kl_div(
                ta.prune(dense, plan, compensation=each, statistics=statistics).model(ids).logits.log_softmax(-1),
                wanted, log_target=True, reduction="batchmean",
            ))
            for each in ("none", compensation)
        ]  # fmt: skip
    assert errors[1] < errors[0]


def test_search_and_best_repair_follow_the_queries_that_are_left():
    """With every value kept, what attention reads changes by the pairs alone; the refit has to see that."""
    dense = build("llama")
    statistics = _observed(dense, gram=True)
    plan = ta.search_plan(dense, statistics, ta.PruningTarget(4, 20, keep_query_key_dim=2))
    assert plan.spec.query_key_dim == 2 and plan.spec.layers[0].intermediate_size == 20
    none, best = (ta.prune(dense, plan, compensation=each, statistics=statistics) for each in ("none", "best"))
    tokens = ta.EvaluationSet.from_token_ids(token_ids(dense, samples=4))
    wanted, *found = (ta.evaluate(each, tokens, reference=dense, speed=False) for each in (dense, none, best))
    assert found[1].kl_divergence < found[0].kl_divergence


@pytest.mark.slow
def test_recovery_trains_through_shots():
    dense = build("llama", torch.float32)
    tokens = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=4))
    target = ta.PruningTarget(4, 20, keep_query_key_dim=2, keep_value_dim=2)
    settings = ta.RecoverySettings(shots=2, shot_tokens=200, recovery_tokens=100, batch_size=2, learning_rate=1e-3)
    first, last, _ = ta.phases(dense.spec, target, settings)
    assert (first.target.keep_query_key_dim, first.target.keep_value_dim) == (4, 3)
    assert last.target == target
    recovered = ta.recover(dense, tokens, target, settings=settings).pruned
    assert recovered.spec == target.spec(dense.spec)
    fresh = ta.prune(dense, compose_cuts(recovered.cuts))
    weights = [each.decoder_layers[0].self_attn.q_proj.weight for each in (recovered, fresh)]
    assert not torch.equal(*weights)
    pairs = [each.decoder_layers[0].self_attn.pairs for each in (recovered, fresh)]
    assert torch.equal(*pairs)


@pytest.mark.slow
def test_stock_transformers_alone_says_that_it_does_not_know_the_type(tmp_path):
    ta.save(_pruned("qwen2", "values"), tmp_path / "out", layers="compact")
    run = subprocess.run(
        [sys.executable, "-c", REFUSED_SCRIPT, str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path
    )
    assert "transact_qwen2" in run.stdout and "does not recognize this architecture" in run.stdout
    card = (tmp_path / "out" / "README.md").read_text()
    assert "dimensions of values | 4 | 3 |" in card and "import transact" in card


@pytest.mark.parametrize(
    "name",
    ["qwen3", "gemma2", "gemma3", "olmo2", "phi3", "stablelm", "gpt-neox", "gpt2", "opt", "ministral3", "glm",
     "nemotron", "olmo"],
)  # fmt: skip
def test_other_families_keep_their_heads_whole_and_say_why(name):
    dense = build(name)
    reason = dense.layout.no_head_dim_pruning_reason
    target = ta.PruningTarget(2, 17, keep_value_dim=2)
    with pytest.raises(ta.InvalidTarget, match=reason):
        ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, target)
    with pytest.raises(ta.InvalidOption, match=reason):
        _observed(dense)
    values = build("llama").spec.to_dict() | {"family": dense.spec.family, "value_dim": 2}
    with pytest.raises(ValueError, match=reason):
        ta.ModelSpec.from_dict(values)


@pytest.mark.slow
def test_every_family_is_narrowed_or_says_why_not():
    narrowed = {build(name).spec.family for name in NARROWED}
    for family in {build(name).layout for name in TINY}:
        assert (family.no_head_dim_pruning_reason is None) == (family.model_type in narrowed)


@pytest.mark.parametrize(
    "widths",
    [{"keep_query_key_dim": 3}, {"keep_query_key_dim": 0}, {"keep_query_key_dim": 6}, {"keep_value_dim": 0},
     {"keep_value_dim": 5}, {"keep_value_dim": True}, {"keep_value_dim": 2.0}],
)  # fmt: skip
def test_widths_that_heads_do_not_have_are_refused(widths):
    dense = build("llama")
    with pytest.raises(ta.InvalidTarget, match="keep_(query_key|value)_dim is"):
        ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(4, 40, **widths))


def test_scores_that_know_no_pairs_are_refused():
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=4))
    statistics = ta.observe(dense, calibration)
    for plan in (
        lambda: ta.make_plan(ta.score(dense, statistics), dense.spec, TARGETS["queries-and-keys"]),
        lambda: ta.search_plan(dense, statistics, TARGETS["queries-and-keys"]),
    ):
        with pytest.raises(ta.InvalidOption, match="queries=True"):
            plan()
    assert ta.make_plan(ta.score(dense, statistics), dense.spec, TARGETS["values"]).spec.value_dim == 3


def test_what_cannot_hold_them_says_so(tmp_path):
    pruned = _pruned("llama", "values")
    with pytest.raises(ta.SaveRefused, match="padded checkpoint"):
        ta.save_gguf(pruned, tmp_path / "out.gguf")
    with pytest.raises(ta.InvalidOption, match="cannot be proved"):
        ta.save(pruned, tmp_path / "out", layers="compact", prove=True)
    with pytest.raises(ta.InvalidOption, match="taylor=False"):
        _observed(pruned, taylor=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"value_dim": 9}, "wider than the head"),
        ({"query_key_dim": 3}, "even one"),
        ({"query_key_dim": 2.0}, "whole numbers"),
        ({"value_dim": "3"}, "whole numbers"),
        ({"value_dim": 2}, "has shape"),
        ({"model_type": "transact_qwen3"}, "not supported"),
    ],
)
def test_damaged_files_are_refused(changed, match, tmp_path):
    ta.save(_pruned("llama", "values"), tmp_path / "out", layers="compact")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ta.TransactError, match=match):
        ta.load(str(tmp_path / "out"))


def test_pairs_that_a_head_does_not_have_are_refused(tmp_path):
    pruned = _pruned("llama", "queries-and-keys")
    pruned.decoder_layers[1].self_attn.pairs[0, 0] = 2
    ta.save(pruned, tmp_path / "out", layers="compact")
    with pytest.raises(ta.CheckpointBroken, match="Layer 1 names RoPE pairs"):
        ta.load(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("kept", "match"),
    [
        ({"kept_pairs": [[0], [0], [1], [2]]}, "outside"),
        ({"kept_pairs": [[0], [0], [1]]}, "each kept group"),
        ({"kept_pairs": []}, "each kept group"),
        ({"kept_pairs": [[0], [0], [1], [0, 1]]}, "same number"),
    ],
)
def test_plans_that_name_other_dimensions_are_refused(kept, match):
    dense = build("llama")
    values = json.loads(_plan(dense, TARGETS["queries-and-keys"]).to_json())
    values["layers"][2] |= kept
    with pytest.raises(ta.InvalidPlan, match=match):
        ta.PruningPlan.from_json(json.dumps(values))


def test_sparsity_of_dimensions():
    spec = build("llama-multi-head").spec
    target = ta.PruningTarget.from_sparsity(spec, attention=0.5, mlp=0.25, granularity="head_dims")
    assert (target.keep_head_groups, target.keep_channels) == (8, 30)
    assert (target.keep_query_key_dim, target.keep_value_dim) == (2, 2)
    plan = ta.make_plan(ta.ImportanceScores.random(spec), spec, target)
    assert plan.summary()["achieved"]["attention_sparsity"] == 0.5
    assert plan.summary()["achieved"]["keep_value_dim"] == 2
    assert plan.summary()["after"]["checkpoint_bytes"] == 2 * plan.spec.stored.num_parameters


def test_the_stock_model_is_left_alone():
    dense = build("llama")
    pruned = ta.prune(dense, _plan(dense, TARGETS["both-and-units"]))
    assert not any(isinstance(module, NarrowAttention) for module in dense.model.modules())
    assert not hasattr(dense.model.config, "value_dim")
    attention = pruned.decoder_layers[0].self_attn
    assert attention.config is pruned.model.config and attention.scaling == dense.spec.head_dim**-0.5


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("name", cases(NARROWED, test=["llama", "qwen2", "starcoder2"]))
def test_narrower_heads_return_attentions_as_stock_ones_do(name, asked_before, tmp_path):
    """In memory, copied and loaded again; whether or not the dense model was asked before it was cut."""
    dense = build(name)
    ids = token_ids(dense)
    dense.model.set_attn_implementation("eager")
    with torch.no_grad():
        if asked_before:
            dense.model(ids, output_attentions=True)
        plan = _plan(dense, TARGETS["both-and-units"])
        pruned = ta.prune(dense, plan)
        with ta.masked(dense, plan):
            masked = dense.model(ids, output_attentions=True).attentions
        ta.save(pruned, tmp_path / "out", layers="compact")
        read = ta.load(str(tmp_path / "out"), dtype="float64")
        read.model.set_attn_implementation("eager")
        copies = [pruned.model, pickle.loads(pickle.dumps(ta.prune(build(name), plan).model)), read.model]
        copies[1].set_attn_implementation("eager")
        for model in copies:
            outputs = model(ids, output_attentions=True, output_hidden_states=True)
            assert len(outputs.attentions) == 3 and len(outputs.hidden_states) == 4
            for weights, whole, kept in zip(outputs.attentions, masked, plan.layers, strict=True):
                assert (weights - whole[:, list(kept.kept_heads)]).abs().max() < TOLERANCE
