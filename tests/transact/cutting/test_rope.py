"""Every family with every kind of RoPE: cut, written and read by stock classes, also beyond the first context."""

import itertools
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import transact as ta
from tests.tiers import cases
from tests.tiny_models import _SIZES, TINY, token_ids
from transact.__main__ import main
from transact.models.stock_config import check_writable
from transact.spec.families import FAMILIES as SHAPES

TOLERANCE = 1e-6
"""Stock norms and angles are float32 in a float64 model; padding changes the order of their sums."""
FAMILIES = (
    "llama", "llama-biased", "mistral", "qwen2", "granite", "qwen3", "gemma2", "gemma3", "olmo2", "phi3",
    "phi3-partial-rope", "smollm3", "stablelm", "starcoder2", "gpt-neox", "olmo3", "glm", "nemotron", "hunyuan",
)  # fmt: skip
HALF_TURNED = ("stablelm", "gpt-neox", "glm", "nemotron")
ORIGINAL = 16
TYPES = ("default", *ROPE_INIT_FUNCTIONS)
TARGET = ta.PruningTarget(keep_head_groups=3, keep_channels=17)
NARROWED = [name for name in FAMILIES if SHAPES[TINY[name][0]].no_head_dim_pruning_reason is None]


def in_turn(name: str, kind: str) -> bool:
    """Whether the case is one of those in which each family has two or three of the kinds, and each kind several."""
    return (FAMILIES.index(name) + TYPES.index(kind)) % 3 == 0


def rope(kind: str, partial: float, dims: int) -> dict:
    """Parameters of that kind for heads of which `dims` dimensions are turned."""
    own = {
        "default": {},
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 2.0},
        "yarn": {
            "factor": 4.0,
            "attention_factor": 1.25,
            "beta_fast": 16.0,
            "original_max_position_embeddings": ORIGINAL,
        },
        "longrope": {
            "short_factor": [1.0 + 0.1 * pair for pair in range(dims // 2)],
            "long_factor": [2.0 + 0.5 * pair for pair in range(dims // 2)],
            "attention_factor": 1.3,
            "original_max_position_embeddings": ORIGINAL,
        },
        "llama3": {
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
        "proportional": {"factor": 2.0},
    }[kind]
    return {"rope_type": kind, "rope_theta": 500.0} | own | ({"partial_rotary_factor": partial} if partial < 1 else {})


def model(name: str, kind: str) -> ta.LoadedModel:
    """A tiny model of the family, or a skip where the family's own classes refuse the kind."""
    model_type, changes = TINY[name]
    partial = 0.5 if name in HALF_TURNED or name == "phi3-partial-rope" else 1.0
    sizes = _SIZES | changes
    if name in HALF_TURNED:  # so that half of a head is still more than one pair
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    parameters = rope(kind, partial, int(sizes["head_dim"] * partial))
    if name in ("gemma3", "olmo3"):
        parameters = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
    values = sizes | {"rope_parameters": parameters}
    if name.startswith("phi3"):
        values["original_max_position_embeddings"] = ORIGINAL
    torch.manual_seed(0)
    try:
        config = AutoConfig.for_model(model_type, **values)
        built = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
        with torch.no_grad():
            for parameter_name, parameter in built.named_parameters():
                if "norm" not in parameter_name:
                    parameter.mul_(8)
            built(torch.arange(3, 3 + 40)[None])
    except Exception as refused:  # whatever the family's own checks raise
        pytest.skip(f"the stock class of {model_type} takes no {kind} RoPE: {' '.join(str(refused).split())[-90:]}")
    return ta.LoadedModel.from_model(built, source=name)


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize(("name", "kind"), cases(itertools.product(FAMILIES, TYPES), test=in_turn))
def test_cut_written_and_read(name, kind, tmp_path):
    dense = model(name, kind)
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, TARGET)
    pruned = ta.prune(dense, plan)
    report = ta.save(pruned, tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    assert type(stock).__name__ == report.model_class
    for length in (ORIGINAL - 2, 3 * ORIGINAL, ORIGINAL - 2):  # what follows the length comes and goes
        ids = token_ids(dense, samples=2, seq=length)
        with ta.masked(dense, plan):
            masked = logits(dense.model, ids)
        cut = logits(pruned.model, ids)
        assert (masked - cut).abs().max() < TOLERANCE * masked.abs().max()
        assert (cut - logits(stock, ids)).abs().max() < TOLERANCE * cut.abs().max()
    assert report.parameters_written == stock.num_parameters()


@pytest.mark.parametrize(("name", "kind"), cases(itertools.product(NARROWED, TYPES), test=in_turn))
def test_narrower_heads_cut_written_and_read(name, kind, tmp_path):
    dense = model(name, kind)
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense))
    scores = ta.score(dense, ta.observe(dense, calibration, queries=True))
    target = ta.PruningTarget(3, 17, keep_query_key_dim=2, keep_value_dim=3)
    plan = ta.make_plan(scores, dense.spec, target)
    pruned = ta.prune(dense, plan)
    ta.save(pruned, tmp_path / "out", layers="compact")
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    for length in (ORIGINAL - 2, 3 * ORIGINAL, ORIGINAL - 2):
        ids = token_ids(dense, samples=2, seq=length)
        with ta.masked(dense, plan):
            masked = logits(dense.model, ids)
        cut = logits(pruned.model, ids)
        assert (masked - cut).abs().max() < TOLERANCE * masked.abs().max()
        assert torch.equal(cut, logits(own, ids))


@pytest.mark.parametrize("name", ["phi3", "phi3-partial-rope"])
def test_phi_3_with_longrope_is_padded_to_its_heads_and_the_plan_says_so(name, tmp_path):
    """Its configuration checks the factors against hidden_size // heads, whatever head_dim says."""
    dense = model(name, "longrope")
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, TARGET)
    assert plan.spec.layers[0].num_attention_heads == 3 * dense.spec.group_size
    stored = plan.spec.stored
    assert stored.layers[0].num_attention_heads == dense.spec.layers[0].num_attention_heads
    assert plan.summary()["after"]["checkpoint_bytes"] == 2 * stored.num_parameters
    report = ta.save(ta.prune(dense, plan), tmp_path / "out")
    assert report.padded and "cannot name" in report.notes[0]
    again = ta.PruningPlan.from_json(plan.to_json())
    assert again.spec.stored == stored
    old = json.loads(plan.to_json())
    del old["dense_spec"]["head_counts"]  # as 1.0 wrote it
    pruned = ta.prune(dense, ta.PruningPlan.from_json(json.dumps(old)))
    assert ta.save(pruned, tmp_path / "old").parameters_written == stored.num_parameters
    assert dense.spec.fingerprint == model(name, "default").spec.fingerprint


@pytest.mark.slow
def test_the_command_line_cuts_phi_3_with_longrope(tmp_path, capsys):
    dense = model("phi3", "longrope")
    dense.model.save_pretrained(tmp_path / "phi3")
    scores = ta.ImportanceScores.random(dense.spec)
    plan = ta.make_plan(scores, ta.load(str(tmp_path / "phi3")).spec, TARGET)
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    arguments = ["prune", "--model", str(tmp_path / "phi3"), "--plan", str(tmp_path / "plan.json"), "--quiet"]
    for streamed in ("never", "always"):
        assert main([*arguments, "--output", str(tmp_path / streamed), "--stream", streamed]) == 0
        capsys.readouterr()
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / streamed, dtype=torch.float64)
        ids = token_ids(dense, seq=3 * ORIGINAL)
        expected = logits(ta.prune(dense, plan).model, ids)
        assert (logits(reloaded, ids) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_no_configuration_holds_is_refused_before_the_work(monkeypatch):
    """A family whose class had a check of its own that is unknown here."""
    dense = model("qwen2", "default")
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, TARGET)
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense))
    statistics = ta.observe(dense, calibration, gram=True)

    def refuse(config):
        if config.num_attention_heads % 4:
            raise ValueError("heads must be fours")

    monkeypatch.setattr(type(dense.model.config), "__class_validators__", [refuse])
    with pytest.raises(ta.InvalidPlan, match=r"refuses 6 heads of 4 and 17 channels .*\(.*heads must be fours"):
        check_writable(dense, plan.spec)
    for work in (
        lambda: ta.prune(dense, plan),
        lambda: ta.search_plan(dense, statistics, TARGET),
        lambda: ta.recover(dense, calibration, TARGET),
    ):
        with pytest.raises(ta.InvalidPlan, match="heads must be fours"):
            work()
