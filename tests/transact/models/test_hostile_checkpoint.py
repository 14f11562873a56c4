"""Folders and repositories that were made to do harm: what their files name is neither run nor fetched nor opened."""

import json
import pickle
import shutil
import time
from contextlib import suppress

import pytest
import torch

import transact as ta
from tests import hub as served
from transact.errors import CheckpointBroken, ModelNotFound, TransactError
from transact.models import sources
from transact.redaction import without_tokens
from transact.spec.model_spec import ModelSpec

CODE = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"


class Planted:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: str):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled model that a test may spoil."""
    copied = tmp_path / "model"
    shutil.copytree(sources.BUNDLED_DIRECTORY, copied, ignore=shutil.ignore_patterns("*.py", "*.csv", "stories.json"))
    return copied


def change(file, **values) -> None:
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(held | values), encoding="utf-8")


def test_code_that_the_configuration_names_is_not_run(folder, tmp_path):
    mark = tmp_path / "mark"
    for module in ("modeling", "configuration", "tokenization"):
        (folder / f"{module}.py").write_text(CODE.format(mark=str(mark)))
    change(
        folder / "config.json",
        auto_map={"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"},
    )
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Slow", "tokenization.Fast"]})
    loaded = ta.load(str(folder))
    assert type(loaded.model).__module__.startswith("transformers.models.")
    assert not mark.exists()


def test_a_kernel_of_the_hub_is_not_fetched(folder):
    """Attention by an "owner/name" is native code that `transformers` would download and run."""
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        change(folder / "config.json", **{key: "somebody/kernel"})
    assert ta.load(str(folder)).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("name", ["AutoModelForCausalLM", "LlamaForCausalLM", "AutoTokenizer", "Trainer", ["x"], 5])
def test_a_class_that_is_no_tokenizer_is_not_made(folder, place, name):
    change(folder / "tokenizer_config.json", tokenizer_class=None)
    change(folder / place, tokenizer_class=name)
    with pytest.raises(CheckpointBroken, match="as their tokenizer's class|not a valid Llama configuration"):
        ta.load(str(folder))


def test_pickled_weights_are_not_opened(folder, tmp_path):
    mark = tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(str(mark))))
    with pytest.raises(CheckpointBroken, match="pickled weights"):
        ta.load(str(folder))
    assert not mark.exists()


def test_other_weights_that_the_configuration_names_are_not_opened(folder, tmp_path):
    mark = tmp_path / "mark"
    (folder / "other.bin").write_bytes(pickle.dumps(Planted(str(mark))))
    for other in ("other.bin", "../model/other.bin", "/etc/passwd"):
        change(folder / "config.json", transformers_weights=other)
        assert torch.equal(
            ta.load(str(folder)).model.get_output_embeddings().weight,
            ta.load("bundled").model.get_output_embeddings().weight,
        )
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../elsewhere/model.safetensors", "/tmp/model.safetensors", "sub/model.safetensors"])
def test_an_index_leads_nowhere_else(folder, name):
    shutil.copytree(folder, folder.parent / "elsewhere")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(CheckpointBroken, match="not a valid index"):
        ta.load(str(folder))


def test_an_adapter_does_not_bring_another_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    with pytest.raises(CheckpointBroken, match="holds an adapter"):
        ta.load(str(folder))


def test_a_configuration_of_gigabytes_is_not_read(folder):
    with (folder / "config.json").open("r+b") as file:
        file.truncate(20_000_000)
    with pytest.raises(CheckpointBroken, match="at most 2 MB"):
        ta.preflight(str(folder))


@pytest.mark.parametrize("revision", ["../../x", "a/../../b", "/etc", "-x", "a b", "x" * 300, "a\0b", ""])
def test_a_revision_is_a_name_and_no_path(revision):
    with pytest.raises(ModelNotFound, match="cannot be a revision"):
        ta.preflight("team/model", revision=revision)


@pytest.mark.parametrize("name", ["https://hf.co/a/b", "http://127.0.0.1/x", "hf://a/b", "file:///etc", "a:b/c"])
def test_an_address_is_no_model(name):
    with pytest.raises(ModelNotFound, match="not a hub id either"):
        ta.preflight(name)


@pytest.mark.slow
def test_a_repository_larger_than_its_configuration_allows_is_not_fetched(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_BESIDE_WEIGHTS_BYTES", 1_000)
    found = sources.Source("team/model", served.COMMIT, None, {})
    with served.serve({"team/model": folder}) as address:
        for name, value in {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(CheckpointBroken, match="The files of team/model have .* a model of its config.json has"):
            sources.download(found, 1_000)
        assert not list((tmp_path / "home").rglob("*.safetensors"))
        assert (sources.download(found, 3_000_000).directory / "model.safetensors").exists()


def test_a_plan_of_absurd_sizes_costs_no_time():
    """A hidden size that is prime: a search for its next divisor would not end."""
    values = ta.load("bundled").spec.to_dict()
    with pytest.raises(ValueError, match="not a whole number from 1 to"):
        ModelSpec.from_dict(values | {"hidden_size": 2**61 - 1})
    began = time.monotonic()
    with suppress(ValueError):  # where no configuration names such heads
        assert ModelSpec.from_dict(values | {"hidden_size": 2**31 - 1}).stored.num_parameters > 0
    assert time.monotonic() - began < 60  # the search takes milliseconds, and one that tries all numbers hours


def test_no_error_shows_a_token():
    token = "hf_" + "aB3" * 12
    with pytest.raises(TransactError) as caught:
        ta.preflight("team/model", revision=f"{token} ")
    assert token not in str(caught.value) and "hf_…" in str(caught.value)
    assert without_tokens(f"Bearer {token}, hf_oauth_{'x1' * 20}.eyJ-a_b.c") == "Bearer hf_…, hf_…"
    assert without_tokens("hf_internal-testing/tiny-random") == "hf_internal-testing/tiny-random"


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "generation_config.json"])
def test_files_beside_the_weights_that_would_fill_memory(folder, monkeypatch, name):
    monkeypatch.setattr(sources, "_MAX_JSON_BYTES", 1_000_000)
    (folder / name).write_text("[" + "[]," * 400_000 + "[]]")
    with pytest.raises(CheckpointBroken, match=f"{name} has 1 MB, and at most 1 MB are read"):
        ta.load(str(folder))


def test_a_card_that_repeats_itself_without_end_states_no_licence(folder, tmp_path):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (folder / "README.md").write_text(f"---\na0: &a0 [x]\n{levels}license: mit\nmodel-index: *a11\n---\n")
    ta.save(ta.load(str(folder)), tmp_path / "saved")
    assert "license:" not in (tmp_path / "saved" / "README.md").read_text()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    ta.save(ta.load(str(folder)), tmp_path / "again")
    assert "license: mit" in (tmp_path / "again" / "README.md").read_text()
