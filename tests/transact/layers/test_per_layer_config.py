"""Layers of different sizes, each as it is in the files: read back exactly, refused when damaged."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.heterogeneity.configuration_utils import AmbiguousGlobalPerLayerAttributeError

import transact as ta
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids
from transact.scoring.scores import ImportanceScores

TARGET = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))


def _pruned(name: str) -> ta.LoadedModel:
    dense = build(name)
    scores = ImportanceScores.random(dense.spec)
    return ta.prune(dense, ta.make_plan(scores, dense.spec, TARGET))


@pytest.mark.parametrize("name", cases(TINY, test=LAYOUTS, check=FEW))
def test_what_is_saved_compact_is_read_back_as_it_was(name, tmp_path):
    pruned = _pruned(name)
    report = ta.save(pruned, tmp_path / "out", layers="compact")
    assert report.compact and not report.padded
    assert report.parameters_written == pruned.spec.num_parameters == pruned.model.num_parameters()
    stored = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert stored < 8 * pruned.spec.num_parameters + 20_000  # float64 and headers: nothing is padded
    again = ta.load(str(tmp_path / "out"), dtype="float64")
    assert again.spec.layers == pruned.spec.layers
    assert ta.preflight(str(tmp_path / "out")).spec.num_parameters == pruned.spec.num_parameters
    ids = token_ids(pruned)
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, pruned.model(ids).logits, rtol=0, atol=1e-6)
        written = [
            each.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0) for each in (again, pruned)
        ]
    assert torch.equal(*written)


@pytest.mark.slow
def test_what_was_read_back_can_be_pruned_measured_and_padded(tmp_path):
    ta.save(_pruned("llama"), tmp_path / "compact", layers="compact")
    again = ta.load(str(tmp_path / "compact"), dtype="float64")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(again, samples=6))
    statistics = ta.observe(again, calibration, gram=True)
    plan = ta.make_plan(ta.score(again, statistics), again.spec, ta.PruningTarget(1, 4))
    smaller = ta.prune(again, plan, compensation="least_squares", statistics=statistics)
    assert smaller.spec.is_uniform
    report = ta.save(again, tmp_path / "padded", prove=True)
    assert report.padded and report.proof.passed


def test_stock_classes_cannot_load_it_yet(tmp_path):
    """Once this fails, stock transformers reads per_layer_config: let compact be the default, and prove it."""
    ta.save(_pruned("mistral"), tmp_path / "out", layers="compact")
    with pytest.raises(AmbiguousGlobalPerLayerAttributeError):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "opt", "stablelm", "gemma2"])
def test_head_counts_that_no_configuration_names_stay_cut(name, tmp_path):
    dense = build(name)
    plan = ta.make_plan(ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(3, 24))
    pruned = ta.prune(dense, plan)
    report = ta.save(pruned, tmp_path / "out", layers="compact")
    assert report.compact and report.parameters_written == pruned.spec.num_parameters
    again = ta.load(str(tmp_path / "out"), dtype="float64")
    assert again.spec.layers == pruned.spec.layers
    with torch.no_grad():
        ids = token_ids(pruned)
        torch.testing.assert_close(again.model(ids).logits, pruned.model(ids).logits, rtol=0, atol=1e-6)


def test_one_size_for_all_needs_nothing_of_it(tmp_path):
    report = ta.save(build("qwen2"), tmp_path / "out", layers="compact")
    assert not report.compact
    assert "per_layer_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_proof_of_it_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ta.InvalidOption, match="cannot be proved"):
        ta.save(_pruned("llama"), tmp_path / "out", layers="compact", prove=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {"7": {"intermediate_size": 8}},
        {"0": {"intermediate_size": -8}},
        {"0": {"intermediate_size": True}},
        {"0": {"num_attention_heads": 3}},
        {"0": {"sliding_window": 8}},
        {"0": 5},
        ["intermediate_size"],
    ],
)
def test_damaged_overrides_are_refused(overrides, tmp_path):
    ta.save(_pruned("llama"), tmp_path / "out", layers="compact")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"per_layer_config": overrides}))
    with pytest.raises(ta.CheckpointBroken, match="per_layer_config"):
        ta.load(str(tmp_path / "out"))


def test_a_tensor_of_another_size_is_refused(tmp_path):
    ta.save(_pruned("llama"), tmp_path / "out", layers="compact")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    config["per_layer_config"]["1"]["intermediate_size"] = 6
    path.write_text(json.dumps(config))
    with pytest.raises(ta.CheckpointBroken, match="has shape"):
        ta.load(str(tmp_path / "out"))
