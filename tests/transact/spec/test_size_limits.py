"""Sizes that no model has are refused before anything is built from them: in one sentence, and in no memory."""

import json
import tracemalloc

import pytest

import transact as ta
from tests import hub as served
from tests.fuzz.strategies import one_sentence
from tests.tiny_models import build
from transact.cli import files
from transact.spec import size_limits
from transact.spec.model_spec import ModelSpec

MOST_BYTES = 40_000_000
"""The stand-in for the hub is in it; a list with a thousand million entries has eight thousand million bytes."""
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "hidden_size": 64,
    "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 256,
    "max_position_embeddings": 128,
}  # fmt: skip
QWEN2 = {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 128, "vocab_size": 256}
LARGE = 10**9


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that serves a config.json as that of "team/model"."""
    folder = tmp_path / "model"
    folder.mkdir()
    with served.serve({"team/model": folder}) as address:
        for name, value in {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        yield lambda text: (folder / "config.json").write_text(text, encoding="utf-8")


def refused(source: str) -> str:
    """What is told of a source that cannot be looked at; fails where that took memory."""
    ta.preflight("bundled")  # what is imported once is no part of it
    tracemalloc.start()
    try:
        with pytest.raises((ta.ModelUnsupported, ta.CheckpointBroken)) as caught:
            ta.preflight(source)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    one_sentence(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def test_a_hub_model_of_a_thousand_million_layers(hub):
    hub(json.dumps(LLAMA | {"num_hidden_layers": LARGE}))
    assert "num_hidden_layers is 1,000,000,000; at most 4,096 are read" in refused("team/model")
    hub(json.dumps(LLAMA))


def test_a_config_of_the_hub_that_is_too_long_is_not_fetched(hub, tmp_path):
    hub(json.dumps(LLAMA | {"more": "x" * 3_000_000}))
    assert "config.json of team/model has 3 MB; at most 2 MB are read" in refused("team/model")
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file() and file.stat().st_size > 1_000_000]


@pytest.fixture
def folder(tmp_path):
    """A function that writes a config.json and returns its folder's name."""

    def write(config: dict) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return str(tmp_path)

    return write


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
@pytest.mark.parametrize(
    "name",
    ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
     "vocab_size", "max_position_embeddings", "num_labels", "sliding_window"],
)  # fmt: skip
def test_every_size(folder, config, name):
    at_most = f"at most {size_limits.LARGEST[name]:,} are read"
    assert at_most in refused(folder(config | {name: 10**12}))
    assert at_most in refused(folder(config | {name: 10**400}))
    assert at_most in refused(folder(config | {name: 1e300}))
    for wrong in (-LARGE, "x", [LARGE], {"a": 1}, True):
        try:  # what transformers takes for a number, or leaves alone, is no mistake
            assert ta.preflight(folder(config | {name: wrong})).spec.num_parameters > 0
        except (ta.ModelUnsupported, ta.CheckpointBroken) as error:
            one_sentence(error)


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "n_head", "n_inner", "n_positions"])
def test_the_names_that_gpt2_has_for_them(folder, name):
    assert f"{name} is 1,000,000,000,000" in refused(folder(GPT2 | {name: 10**12}))


def test_sizes_that_are_each_possible_and_together_are_not(folder):
    sizes = {"num_hidden_layers": 4096, "hidden_size": 2**20, "intermediate_size": 2**24, "head_dim": 2**14}
    assert "no machine holds more than 10,000,000,000,000" in refused(folder(LLAMA | sizes))


def test_the_largest_published_models_are_far_below():
    largest = {
        "num_hidden_layers": 126, "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128,
        "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262_208, "max_position_embeddings": 10_485_760,
    }  # fmt: skip
    assert size_limits.excess(LLAMA | largest) is None
    assert all(8 * value <= size_limits.LARGEST[name] for name, value in largest.items())


def test_a_list_with_an_entry_for_a_million_layers(folder):
    assert "layer_types has 100,000 entries" in refused(folder(QWEN2 | {"layer_types": ["full_attention"] * 100_000}))
    layers = {str(index): {} for index in range(50_000)}
    assert "per_layer_config has 50,000 entries" in refused(folder(LLAMA | {"per_layer_config": layers}))


@pytest.mark.parametrize(
    "layers",
    [{"0": {"intermediate_size": 10**12}}, {"0": {"intermediate_size": 97}}, {"-1": {"intermediate_size": 8}},
     {"9" * 6000: {}}, {"0": {"num_attention_heads": True}}, {"0": [1]}, {"0": {"hidden_size": 8}}, [1], 5],
)  # fmt: skip
def test_layers_of_their_own_are_no_larger_than_the_model(folder, layers):
    source = folder(LLAMA | {"per_layer_config": layers})
    assert "per_layer_config in config.json is not what this reads" in refused(source)
    smaller = folder(LLAMA | {"per_layer_config": {"0": {"intermediate_size": 8}}})
    assert ta.preflight(smaller).spec.layers[0].intermediate_size == 8


def test_as_many_layer_types_as_layers(folder):
    said = refused(folder(QWEN2 | {"layer_types": ["sliding_attention"] * 3, "sliding_window": 8}))
    assert "layer" in said


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": 2**31 - 1}, {"vocab_size": 2**31 - 1}, {"other_parameters": 2**53}, {"head_dim": 2**30}],
)
def test_plans_have_the_same_limits(changes):
    values = build("llama").spec.to_dict()
    with pytest.raises(ValueError, match="is not a whole number from 1 to"):
        ModelSpec.from_dict(values | changes)
    with pytest.raises(ValueError, match="not a whole number from 1 to 4096"):
        ModelSpec.from_dict(values | {"layers": values["layers"][:1] * 5000})
    wide = {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 2**24}
    with pytest.raises(ValueError, match="no machine holds more"):
        ModelSpec.from_dict(values | {"hidden_size": 2**20, "layers": [wide] * 4096})


def test_plans_scores_and_locks_are_read_up_to_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_PLAN_BYTES", 1_000_000)
    monkeypatch.setattr(files, "_MAX_SCORES_BYTES", 1_000_000)
    file = tmp_path / "large.json"
    file.write_text("[" + "1," * 500_000 + "1]")
    for read, error in (
        (files.read_plan, ta.InvalidPlan), (files.read_scores, ta.InvalidPlan), (files.read_locks, ta.InvalidTarget)
    ):  # fmt: skip
        with pytest.raises(error, match="has more than 1 MB"):
            read(file)
        with pytest.raises(error, match="has more than 1 MB"):
            read(files.Path("/dev/zero"))


@pytest.mark.parametrize("number", [10**400, "x", None, [[]], float("nan")])
def test_scores_of_what_is_no_number(number):
    spec = build("llama").spec
    scores = ta.ImportanceScores.random(spec).to_dict()
    scores["layers"][0]["mlp_channels"][0] = number
    with pytest.raises(ta.InvalidPlan, match="no scores that can be read") as caught:
        ta.ImportanceScores.from_dict(scores, spec)
    one_sentence(caught.value)
