"""config.json and tokenizer files say the same to transformers 5 and 4; with 4 itself: test_older_transformers."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import transact as ta
from tests.tiers import FEW, PLAIN, cases
from tests.tiny_models import TINY, build, token_ids

SCALED = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
LONG = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def change_config(folder: Path, **values) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder) | values))


@pytest.mark.parametrize("name", cases(TINY, test=PLAIN, check=FEW))
def test_both_spellings_are_one_configuration_to_transformers_5(name, tmp_path):
    loaded = build(name, torch.float32)
    ta.save(loaded, tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert getattr(config, "rope_parameters", None) == getattr(loaded.model.config, "rope_parameters", None)
    assert config_of(tmp_path / "out")["torch_dtype"] == config_of(tmp_path / "out")["dtype"] == "float32"


@pytest.mark.parametrize(
    ("family", "changes", "older"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
         {"rope_theta": 1e5, "rope_scaling": None}),
        ("llama", {"rope_parameters": SCALED},
         {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("olmo2", {"rope_parameters": SCALED},
         {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("gpt_neox", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
         {"rotary_emb_base": 500.0, "rotary_pct": 0.5, "rope_scaling": None}),
        ("stablelm", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
         {"rope_theta": 500.0, "partial_rotary_factor": 0.5}),
        ("gemma3_text", {"rope_parameters": {"full_attention": SCALED,
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}}},
         {"rope_theta": 5000.0, "rope_local_base_freq": 300.0,
          "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("olmo3", {"rope_parameters": {"full_attention": SCALED,
                                       "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}},
         {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("glm4", {"rope_parameters": SCALED | {"partial_rotary_factor": 0.5}, "pad_token_id": 0},
         {"rope_theta": 5000.0, "partial_rotary_factor": 0.5,
          "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 500.0, **LONG}, "pad_token_id": 0,
                  "original_max_position_embeddings": 16},
         {"rope_theta": 500.0, "rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 16}),
    ],
)  # fmt: skip
def test_what_version_4_reads(family, changes, older, tmp_path, monkeypatch):
    monkeypatch.setitem(TINY, "other", (family, changes))
    loaded = build("other", torch.float32)
    ta.save(loaded, tmp_path / "out")
    written = config_of(tmp_path / "out")
    assert {name: written[name] for name in older} == older
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = token_ids(loaded, seq=24)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, loaded.model(ids).logits)
    ta.save(ta.load(str(tmp_path / "out")), tmp_path / "twice")
    assert config_of(tmp_path / "twice") == written


@pytest.mark.parametrize(
    "contradiction",
    [
        {"rope_theta": 123.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"torch_dtype": "bfloat16"},
    ],
)
def test_spellings_that_contradict_each_other_are_read_as_stock_reads_them_and_written_as_one(contradiction, tmp_path):
    ta.save(build("llama", torch.float32), tmp_path / "base")
    change_config(tmp_path / "base", **contradiction)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    loaded = ta.load(str(tmp_path / "base"))
    ids = token_ids(loaded)
    with torch.no_grad():
        expected = stock(ids).logits
        assert torch.equal(loaded.model(ids).logits, expected)
    ta.save(loaded, tmp_path / "out")
    written, rope = config_of(tmp_path / "out"), stock.config.rope_parameters
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == rope["rope_theta"]
    scaling = written["rope_scaling"] or {"rope_type": "default"}
    assert scaling == {key: value for key, value in rope.items() if key != "rope_theta"}
    assert written["torch_dtype"] == written["dtype"] == "float32"
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits, expected)


def test_streamed_compact_and_other_homes_are_written_alike(tmp_path):
    ta.save(build("llama-scaled-rope", torch.float32), tmp_path / "base")
    loaded = ta.load(str(tmp_path / "base"))
    scores = ta.ImportanceScores.random(loaded.spec)
    for groups, layers in ((3, "padded"), ((1, 3, 2), "compact")):
        plan = ta.make_plan(scores, loaded.spec, ta.PruningTarget(groups, 24))
        ta.save(ta.prune(loaded, plan), tmp_path / layers, layers=layers)
        ta.stream_prune(str(tmp_path / "base"), plan, tmp_path / f"{layers} streamed", layers=layers)
        written = config_of(tmp_path / layers)
        assert config_of(tmp_path / f"{layers} streamed") == written
        assert written["rope_theta"] == 500.0 and written["rope_scaling"]["rope_type"] == "llama3"
    assert config_of(tmp_path / "padded")["model_type"] == "mistral"


@pytest.mark.parametrize(
    ("named", "written"),
    [("TokenizersBackend", "PreTrainedTokenizerFast"), ("GPT2Tokenizer", "GPT2Tokenizer"),
     ("LlamaTokenizerFast", "LlamaTokenizerFast"), (None, "PreTrainedTokenizerFast")],
)  # fmt: skip
def test_the_tokenizers_class_is_the_sources_or_one_that_version_4_has(named, written, tmp_path):
    loaded = ta.load("bundled", dtype="float32")
    other = ta.LoadedModel(**{**vars(loaded), "tokenizer_class": named})
    ta.save(other, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["tokenizer_class"] == written


def test_further_special_tokens_have_the_name_that_both_versions_read(tmp_path):
    loaded = ta.load("bundled", dtype="float32")
    loaded.tokenizer.add_special_tokens({"extra_special_tokens": ["<|one|>", "<|two|>"]})
    ta.save(loaded, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert values["additional_special_tokens"] == ["<|one|>", "<|two|>"] and "extra_special_tokens" not in values
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.extra_special_tokens == ["<|one|>", "<|two|>"]
    assert again("a <|one|> b")["input_ids"] == loaded.tokenizer("a <|one|> b")["input_ids"]


@pytest.mark.parametrize("name", ["gemma2", "gpt2-default-width"])
def test_what_version_4_leaves_out_is_told(name, tmp_path):
    report = ta.save(build(name, torch.float32), tmp_path / "out")
    assert any('attn_implementation="eager"' in note for note in report.notes)
    assert 'attn_implementation="eager"' in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("name", "version"), [("llama", "4.57"), ("ministral3", "5.0"), ("apertus", "5.23")])
def test_the_card_names_the_lowest_version(name, version, tmp_path):
    ta.save(build(name, torch.float32), tmp_path / "out")
    assert f"transformers {version} or later" in (tmp_path / "out" / "README.md").read_text()
