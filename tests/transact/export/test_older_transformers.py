"""What is written, loaded by transformers 4.57 in an environment of its own: the same logits, tokens and text."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

import transact as ta
from tests.conftest import ROOT
from tests.tiers import cases
from tests.tiny_models import TINY, build
from transact.spec.families import FAMILIES

pytestmark = pytest.mark.long

FETCH = ROOT.parent / "shared" / "real_models" / "fetch.py"
EVEN = ta.PruningTarget(keep_head_groups=2, keep_channels=24)
UNEVEN = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))
ROPE = {"rope_theta": 300.0}
SPELLINGS = {
    "theta": ("llama", {"rope_parameters": {"rope_type": "default", **ROPE}}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **ROPE}}),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, **ROPE}}),
    "yarn": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, **ROPE}},
    ),
    "olmo2-linear": ("olmo2", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **ROPE}}),
    "phi3-long": (
        "phi3",
        {
            "pad_token_id": 0,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0], **ROPE,
            },
        },
    ),
    "gemma3-local": (
        "gemma3_text",
        {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, **ROPE},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    "olmo3-yarn": (
        "olmo3",
        {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 6,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, **ROPE,
                },
                "sliding_attention": {"rope_type": "default", **ROPE},
            },
        },
    ),
    # a quarter of the tiny table's heads would be a single dimension, which no model rotates
    "stablelm": ("stablelm", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm-parallel": (
        "stablelm",
        {"use_parallel_residual": True, "qk_layernorm": True, "partial_rotary_factor": 0.5, "num_key_value_heads": 8},
    ),
}  # fmt: skip
CASES = {name: case for name, case in {**TINY, **SPELLINGS}.items() if FAMILIES[case[0]].lowest_transformers == "4.57"}


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Path:
    """An interpreter with transformers 4.57 and what it wants in other versions; torch and the rest are shared."""
    folder = tmp_path_factory.mktemp("older") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = ["transformers==4.57.*", "huggingface_hub>=0.34,<1.0", "tokenizers>=0.22,<0.23", "requests"]
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", *wanted]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install transformers 4.57 here: {done.stderr.strip().splitlines()[-1]}")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = folder / "lib" / version / "site-packages" / "shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n")
    return python


def cut(loaded: ta.LoadedModel, target: ta.PruningTarget) -> ta.LoadedModel:
    return ta.prune(loaded, ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target))


def assert_proved(pruned: ta.LoadedModel, folder: Path, older: Path) -> ta.Proof:
    proof = ta.prove(pruned, folder, python=older)
    assert proof.passed, proof.reason
    assert proof.transformers.startswith("4.57.")
    return proof


@pytest.mark.parametrize("name", cases(CASES, test=["llama", "gemma2", "phi3-long"]))
def test_every_family_computes_the_same(name, older, tmp_path, monkeypatch):
    monkeypatch.setitem(TINY, name, CASES[name])
    pruned = cut(build(name, torch.float32), EVEN)
    ta.save(pruned, tmp_path / "out")
    assert_proved(pruned, tmp_path / "out", older)


@pytest.mark.parametrize(
    "name", cases(["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"], test=["mistral"])
)
def test_padded_and_streamed_ones_too(name, older, tmp_path):
    ta.save(build(name, torch.float32), tmp_path / "base")
    loaded = ta.load(str(tmp_path / "base"))
    pruned = cut(loaded, UNEVEN)
    ta.stream_prune(str(tmp_path / "base"), pruned.cuts[-1].plan, tmp_path / "out")
    assert_proved(pruned, tmp_path / "out", older)


@pytest.mark.parametrize(
    ("name", "home"),
    cases(
        [("llama-scaled-rope", "MistralForCausalLM"), ("llama-biased", "GraniteForCausalLM")],
        test=[("llama-biased", "GraniteForCausalLM")],
    ),
)
def test_a_llama_written_as_another_family(name, home, older, tmp_path):
    pruned = cut(build(name, torch.float32), ta.PruningTarget(keep_head_groups=3, keep_channels=24))
    ta.save(pruned, tmp_path / "out")
    assert assert_proved(pruned, tmp_path / "out", older).model_class == home


def test_a_tokenizer_with_chat_template_and_further_special_tokens(older, tmp_path):
    loaded = ta.load("bundled", dtype="float32")
    loaded.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    loaded.tokenizer.add_special_tokens({"extra_special_tokens": ["Once"]})
    pruned = cut(loaded, ta.PruningTarget(keep_head_groups=3, keep_channels=100))
    ta.save(pruned, tmp_path / "out")
    assert_proved(pruned, tmp_path / "out", older)  # "Once" is the first word of the text that is cut into tokens
    script = (
        "import sys, transformers\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(tokenizer.apply_chat_template([{'role': 'user', 'content': 'a b'}], tokenize=False))\n"
        "print(tokenizer.additional_special_tokens)\n"
        "print(transformers.GenerationConfig.from_pretrained(sys.argv[1]).eos_token_id)\n"
    )
    done = subprocess.run(
        [older, "-c", script, tmp_path / "out"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["a b", "['Once']", str(loaded.model.generation_config.eos_token_id)]


@pytest.mark.exhaustive
def test_a_real_model(older, tmp_path):
    if not FETCH.exists():
        pytest.skip("needs the development data (../shared), which is not part of the project")
    source = tmp_path / "smollm2"
    fetched = subprocess.run([sys.executable, FETCH, source], capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"the real model cannot be fetched here: {fetched.stderr.strip().splitlines()[-1]}")
    pruned = cut(ta.load(str(source)), ta.PruningTarget(keep_head_groups=2, keep_channels=1024))
    ta.save(pruned, tmp_path / "out", dtype=pruned.file_dtype)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rope_theta"] == 100_000
    assert_proved(pruned, tmp_path / "out", older)
