"""Masked = pruned = saved and reloaded by stock transformers, for every family, bias, tie and shape of plan."""

import json
import subprocess
import sys

import pytest
import torch

import transact as ta
from tests.tiers import LAYOUTS, PLAIN, VARIANTS, cases
from tests.tiny_models import TINY, build, token_ids
from transact.evaluation.speed import cache_of
from transact.spec.plan import compose_cuts

pytestmark = pytest.mark.rounding

TARGETS = {
    # 3 of 4 groups: 6 heads, which do not divide a hidden size of 32
    "uniform": ta.PruningTarget(keep_head_groups=3, keep_channels=17),
    "uniform-legal": ta.PruningTarget(keep_head_groups=2, keep_channels=24),
    "per-layer": ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13)),
    # one of two query heads in every group, and no group or some as well
    "heads": ta.PruningTarget(keep_head_groups=4, keep_channels=17, keep_heads_per_group=1),
    "heads-per-layer": ta.PruningTarget(keep_head_groups=(4, 3, 2), keep_channels=24, keep_heads_per_group=1),
    "nothing-removed-from-mlp": ta.PruningTarget(keep_head_groups=1, keep_channels=40),
    # whole layers as well
    "layers": ta.PruningTarget(keep_head_groups=2, keep_channels=24, keep_layers=2),
}
# GPT-2 with attention that is divided by the number of its layer keeps all its layers: see test_layers.py
CASES = [(name, target) for name in TINY for target in TARGETS if (name, target) != ("gpt2-default-width", "layers")]


def in_turn(name: str, target: str) -> bool:
    """Whether the case is one of those in which each layout meets every target once, the variants of its family taking
    turns; families whose layout another has meet one target each, in turn."""
    family, names = next((at, names) for at, names in enumerate(VARIANTS.values()) if name in names)
    turn = family + names.index(name) + list(TARGETS).index(target)
    return turn % (len(names) if names[0] in LAYOUTS else len(TARGETS)) == 0


TOLERANCE = 1e-9

# Stock norms, and softmax where a family's attention is not torch's own (Gemma 2), compute in float32 even in a float64
# model, so that another order of summation before or in them shows at 1e-7, or less as the processor decides. 1e-9 can
# only be seen with norms and softmax that stay in float64.
IN_FLOAT64 = """
import torch
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda self, *rest, dtype=None, **named: softmax(
    self, *rest, dtype=None if self.dtype is torch.float64 else dtype, **named
)
as_float, as_asked = torch.Tensor.float, torch.Tensor.to
double = torch.float64
torch.Tensor.float = lambda self, *rest: self if self.dtype is double else as_float(self, *rest)
torch.Tensor.to = lambda self, *given, **named: (
    self if self.dtype is double and torch.float32 in given else as_asked(self, *given, **named)
)
"""

# what a user does who has never heard of this project
STOCK_SCRIPT = """
import json, sys
from transformers import AutoModelForCausalLM
results = {}
for folder, ids in json.load(open(sys.argv[1])).items():
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = torch.tensor(ids)
    with torch.no_grad():
        logits = model(ids).logits
        cached = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
        longer = ids
        for _ in range(4):
            longer = torch.cat([longer, model(longer).logits[:, -1:].argmax(-1)], dim=1)
    results[folder] = {"logits": logits, "class": type(model).__name__,
                       "cache_agrees": bool((cached == longer).all())}
assert "transact" not in sys.modules
torch.save(results, sys.argv[2])
"""


def stay_in_float64(monkeypatch) -> None:
    """`IN_FLOAT64` in this process, until the test ends."""
    for place, name in ((torch.Tensor, "float"), (torch.Tensor, "to"), (torch.nn.functional, "softmax")):
        monkeypatch.setattr(place, name, getattr(place, name))
    exec(IN_FLOAT64, {})


@pytest.fixture(autouse=True)
def all_in_float64(monkeypatch):
    stay_in_float64(monkeypatch)


@pytest.fixture(scope="module")
def reloaded(request, tmp_path_factory):
    """Every case that this run tests, saved in float64 and read back by one stock process: {case: (pruned, saved,
    result)}."""
    root = tmp_path_factory.mktemp("stock")
    here = [item for item in request.session.items if item.path == request.path]
    tested = [item.callspec.params for item in here if "reloaded" in item.fixturenames]
    requests, made = {}, {}
    for name, target in dict.fromkeys((each["name"], each["target"]) for each in tested):
        dense = build(name)
        pruned = ta.prune(dense, _plan(dense, TARGETS[target]))
        folder = root / f"{name}--{target}"
        report = ta.save(pruned, folder)
        requests[str(folder)] = token_ids(dense).tolist()
        made[name, target] = (pruned, report, str(folder))
    (root / "requests.json").write_text(json.dumps(requests))
    subprocess.run(
        [sys.executable, "-c", IN_FLOAT64 + STOCK_SCRIPT, str(root / "requests.json"), str(root / "results.pt")],
        check=True,
        cwd=root,
    )
    results = torch.load(root / "results.pt")
    return {case: (pruned, report, results[folder]) for case, (pruned, report, folder) in made.items()}


@pytest.mark.parametrize(("name", "target"), cases(CASES, test=in_turn))
def test_masked_pruned_and_reloaded_agree(name, target, reloaded):
    dense = build(name)
    ids = token_ids(dense)
    with torch.no_grad():
        with ta.masked(dense, _plan(dense, TARGETS[target])):
            masked = dense.model(ids).logits
        pruned, report, stock = reloaded[name, target]
        cut = pruned.model(ids).logits
        whole = dense.model(ids).logits
    assert (masked - cut).abs().max() < TOLERANCE
    assert (cut - stock["logits"]).abs().max() < TOLERANCE
    assert (whole - cut).abs().max() > 1e-3, "the plan removed nothing that matters, so the test shows nothing"
    assert stock["cache_agrees"]
    assert stock["class"] == report.model_class


@pytest.mark.parametrize(("name", "target"), cases(CASES, test=in_turn))
def test_spec_counts_what_is_there(name, target, reloaded):
    pruned, report, _ = reloaded[name, target]
    assert pruned.spec.num_parameters == pruned.model.num_parameters()
    assert report.parameters_written == pruned.spec.num_parameters + report.parameters_lost
    assert report.padded == (report.parameters_lost > 0)
    layout = pruned.spec.layout
    compact = layout.head_counts == "any" or layout.compact_with_bias or target == "uniform-legal"
    if layout.head_counts == "fixed" or (not compact and target == "uniform"):
        assert report.padded  # no configuration of the family can name so many heads
    elif target != "nothing-removed-from-mlp":
        assert report.padded == target.endswith("per-layer")


@pytest.mark.parametrize("name", cases(TINY, test=TINY, check=PLAIN))
def test_prune_leaves_its_input_bit_identical(name):
    dense = build(name)
    before = {key: value.clone() for key, value in dense.model.state_dict().items()}
    config = dense.model.config.to_dict()
    pruned = ta.prune(dense, _plan(dense, TARGETS["per-layer"]))
    with torch.no_grad():
        for parameter in pruned.model.parameters():
            parameter.zero_()
    after = dense.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert dense.model.config.to_dict() == config


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("llama", "uniform", "MistralForCausalLM"),
        ("llama", "uniform-legal", "LlamaForCausalLM"),
        ("llama-biased", "uniform", "GraniteForCausalLM"),
        ("llama-biased", "uniform-legal", "LlamaForCausalLM"),
        ("qwen2", "uniform", "Qwen2ForCausalLM"),
        ("mistral", "uniform", "MistralForCausalLM"),
        ("gemma3", "uniform", "Gemma3ForCausalLM"),
        ("gpt2", "per-layer", "GPT2LMHeadModel"),
    ],
)
def test_saved_class(name, target, expected, reloaded):
    assert reloaded[name, target][1].model_class == expected


@pytest.mark.parametrize("name", cases(TINY, test=TINY, check=PLAIN))
def test_pruned_model_generates_with_its_cache(name):
    dense = build(name)
    pruned = ta.prune(dense, _plan(dense, TARGETS["per-layer"]))
    ids = token_ids(dense, samples=1)
    with torch.no_grad():
        step = pruned.model(ids[:, :-1], use_cache=True)
        cached = pruned.model(ids[:, -1:], **cache_of(pruned.model, step)).logits[:, -1]
        plain = pruned.model(ids).logits[:, -1]
    assert cached.dtype == torch.float64
    assert (cached - plain).abs().max() < TOLERANCE


def test_pruning_twice_equals_pruning_once():
    """A second plan on the pruned model composes: the same units remain as by one cut to both."""
    dense = build("llama")
    first = ta.prune(dense, _plan(dense, ta.PruningTarget(keep_head_groups=3, keep_channels=30)))
    plan = _plan(first, ta.PruningTarget(keep_head_groups=2, keep_channels=10))
    second = ta.prune(first, plan)
    ids = token_ids(dense)
    with torch.no_grad(), ta.masked(first, plan):
        expected = first.model(ids).logits
    with torch.no_grad():
        assert (second.model(ids).logits - expected).abs().max() < TOLERANCE
    assert len(second.cuts) == 2
    whole = ta.prune(dense, compose_cuts(second.cuts))
    with torch.no_grad():
        assert (whole.model(ids).logits - expected).abs().max() < TOLERANCE
    assert second.spec.num_parameters == second.model.num_parameters()


def _plan(loaded, target) -> ta.PruningPlan:
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=4))
    return ta.make_plan(ta.score(loaded, ta.observe(loaded, calibration)), loaded.spec, target)
