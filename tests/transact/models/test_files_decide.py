"""What a model has is decided by its tensors, in files or in memory, whatever a configuration says of them."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import transact as ta
from tests.tiny_models import build, token_ids

TIED = ("llama-tied", "mistral-multi-head-tied", "qwen2-multi-head-tied", "qwen3-biased-tied", "gemma3", "gpt2", "opt")
TARGET = ta.PruningTarget(keep_head_groups=2, keep_channels=24)


def spoiled(name: str, folder: Path, change) -> Path:
    """A saved model whose tensors were changed behind its configuration's back."""
    ta.save(build(name, torch.float32), folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def own_head(name: str, folder: Path) -> Path:
    """config.json says that the head is the embeddings again, and the files hold another one."""
    embeddings = f"{build(name).layout.embeddings}.weight"
    return spoiled(name, folder, lambda tensors: tensors.update({"lm_head.weight": tensors[embeddings].flip(0) * 2}))


def plan_for(loaded: ta.LoadedModel) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, TARGET)


def logits(model, loaded: ta.LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids(loaded)).logits


@pytest.mark.parametrize("name", TIED)
def test_a_head_that_the_files_hold_is_kept_by_every_writer(name, tmp_path):
    source = own_head(name, tmp_path / "base")
    assert json.loads((source / "config.json").read_text())["tie_word_embeddings"]
    stock = AutoModelForCausalLM.from_pretrained(source)
    loaded = ta.load(str(source))
    held = load_file(source / "model.safetensors")
    assert loaded.spec.num_parameters == sum(tensor.numel() for tensor in held.values())
    assert torch.equal(logits(loaded.model, loaded), logits(stock, loaded))
    plan = plan_for(loaded)
    pruned = ta.prune(loaded, plan)
    expected = logits(pruned.model, loaded)
    ta.save(loaded, tmp_path / "copy")
    ta.save(pruned, tmp_path / "saved")
    ta.save(pruned, tmp_path / "compact", layers="compact")
    ta.stream_prune(str(source), plan, tmp_path / "streamed")
    for folder in ("copy", "saved", "compact", "streamed"):
        assert not json.loads((tmp_path / folder / "config.json").read_text())["tie_word_embeddings"], folder
        tensors = load_file(tmp_path / folder / "model.safetensors")
        assert torch.equal(tensors["lm_head.weight"], held["lm_head.weight"]), folder
    again = ta.load(str(tmp_path / "saved"))
    assert again.spec.num_parameters == again.model.num_parameters()
    for folder in ("saved", "streamed"):
        reread = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        torch.testing.assert_close(logits(reread, loaded), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_gguf_holds_that_head(tmp_path):
    loaded = ta.load(str(own_head("llama-tied", tmp_path / "base")))
    report = ta.save_gguf(ta.prune(loaded, plan_for(loaded)), tmp_path / "model.gguf", file_type="f32")
    (head,) = (each for each in gguf.GGUFReader(report.path).tensors if each.name == "output.weight")
    assert torch.equal(torch.tensor(head.data), loaded.model.lm_head.weight)


def test_a_streamed_model_computes_with_that_head(tmp_path):
    source = str(own_head("llama-tied", tmp_path / "base"))
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    text = ta.EvaluationSet.from_token_ids(token_ids(loaded, samples=4), name="ids")
    assert streamed.spec == loaded.spec
    assert ta.perplexity(streamed, text) == pytest.approx(ta.perplexity(loaded, text), rel=1e-6)


def test_a_head_that_is_the_embeddings_again_is_written_once(tmp_path):
    def twice(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    source = spoiled("llama-tied", tmp_path / "base", twice)
    loaded = ta.load(str(source))
    assert loaded.spec == ta.load_streamed(str(source)).spec == build("llama-tied").spec
    ta.save(loaded, tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize("name", ["llama-tied", "gpt2"])
def test_a_model_in_memory_whose_head_was_untied(name, tmp_path):
    model = build(name, torch.float32).model
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0) * 2)
    assert model.config.tie_word_embeddings
    loaded = ta.LoadedModel.from_model(model)
    assert loaded.spec.num_parameters == model.num_parameters()
    pruned = ta.prune(loaded, plan_for(loaded))
    ta.save(pruned, tmp_path / "out")
    reread = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(reread.lm_head.weight, model.lm_head.weight)
    assert not reread.config.tie_word_embeddings


def test_a_model_in_memory_whose_head_was_tied(tmp_path):
    model = build("llama", torch.float32).model
    model.lm_head.weight = model.model.embed_tokens.weight
    loaded = ta.LoadedModel.from_model(model)
    assert loaded.spec.num_parameters == sum(each.numel() for each in model.parameters())
    ta.save(loaded, tmp_path / "out")
    reread = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert reread.lm_head.weight is reread.model.embed_tokens.weight
    assert torch.equal(logits(reread, loaded), logits(model, loaded))


@pytest.mark.slow
def test_recovery_keeps_that_head(tmp_path):
    """Also from its savepoints, and with the weights of the best step read back."""
    loaded = ta.load(str(own_head("llama-tied", tmp_path / "base")))
    text = ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=8), name="ids")
    settings = ta.RecoverySettings(shots=2, shot_tokens=192, recovery_tokens=192, batch_size=4, learning_rate=1e-2)
    done = ta.recover(loaded, text, TARGET, settings, evaluation=text, directory=tmp_path / "work")
    head = done.pruned.model.lm_head.weight
    assert head is not done.pruned.model.model.embed_tokens.weight
    ta.save(done.pruned, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"], head)


def _another_layer(tensors):
    last = {name: tensor for name, tensor in tensors.items() if ".layers.2." in name}
    tensors.update({name.replace(".layers.2.", ".layers.3."): tensor.clone() for name, tensor in last.items()})


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("llama", _another_layer, "surplus tensor model.layers.3"),
        (
            "llama",
            lambda tensors: tensors.update({"model.layers.1.self_attn.k_proj.bias": torch.ones(16)}),
            "surplus tensor model.layers.1.self_attn.k_proj.bias",
        ),
        (
            "llama-biased",
            lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.bias"),
            "no tensor model.layers.1.self_attn.k_proj.bias, which config.json calls for",
        ),
        (
            "llama",
            lambda tensors: tensors.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(4)}),
            "surplus tensor model.layers.0.self_attn.q_norm.weight",
        ),
        (
            "qwen3",
            lambda tensors: tensors.pop("model.layers.0.self_attn.q_norm.weight"),
            "lacks tensor model.layers.0.self_attn.q_norm.weight",
        ),
        ("llama", lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}), r"\[31\], but .* \[32\]"),
        ("llama", lambda tensors: tensors.update({"lm_head.weight": torch.ones(50, 32)}), r"\[50, 32\], but .*\[48, "),
        (
            "llama-tied",
            lambda tensors: tensors.update({"lm_head.weight": torch.ones(50, 32)}),
            r"lm_head.weight has shape \[50, 32\], but config.json calls for \[48, 32\]",
        ),
        (
            "gpt-neox",
            lambda tensors: tensors.update({"embed_out.weight": torch.ones(50, 32)}),
            r"embed_out.weight has shape \[50, 32\]",
        ),
        (
            "llama",
            lambda tensors: tensors.update({"model.embed_tokens.weight": torch.ones(50, 32)}),
            r"model.embed_tokens.weight has shape \[50, 32\]",
        ),
        ("llama", lambda tensors: tensors.pop("lm_head.weight"), "lacks tensor lm_head.weight"),
    ],
)  # fmt: skip
def test_what_contradicts_the_configuration_is_refused_in_memory_and_streamed(name, change, says, tmp_path):
    source = str(spoiled(name, tmp_path / "base", change))
    for read in (ta.load, ta.load_streamed):
        with pytest.raises(ta.CheckpointBroken, match=says):
            read(source)


def test_a_compact_checkpoint_with_a_norm_of_another_size(tmp_path):
    dense = build("llama", torch.float32)
    uneven = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget((1, 3, 2), 24))
    ta.save(ta.prune(dense, uneven), tmp_path / "out", layers="compact")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(31)
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    with pytest.raises(ta.CheckpointBroken, match=r"model.norm.weight has shape \[31\]"):
        ta.load(str(tmp_path / "out"))


def _bias(model):
    model.model.layers[0].self_attn.q_proj.bias = torch.nn.Parameter(torch.ones(32))


def _norm(model):
    model.model.layers[0].self_attn.q_norm = torch.nn.RMSNorm(4)


def _layer(model):
    model.model.layers.append(model.model.layers[0])


def _words(model):
    model.lm_head.weight = torch.nn.Parameter(torch.ones(50, 32))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_bias, "has model.layers.0.self_attn.q_proj.bias, which its configuration does not call for"),
        (_norm, "has model.layers.0.self_attn.q_norm.weight, which"),
        (_layer, "has model.layers.3.self_attn.q_proj.weight, which"),
        (_words, r"lm_head.weight has shape \(50, 32\), but the model's configuration calls for \(48, 32\)"),
    ],
)
def test_a_model_in_memory_that_contradicts_its_configuration(change, says):
    model = build("llama", torch.float32).model
    change(model)
    with pytest.raises(ta.ModelUnsupported, match=says):
        ta.LoadedModel.from_model(model)


def test_the_dtype_is_that_of_the_files(tmp_path):
    """config.json says bfloat16, the files are wider: `auto` must not round them."""
    source = spoiled("llama", tmp_path / "base", lambda tensors: None)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16", "torch_dtype": "bfloat16"}))
    loaded = ta.load(str(source))
    assert (loaded.stored_dtype, loaded.dtype) == ("float32", torch.float32)
    ta.stream_prune(str(source), plan_for(loaded), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"
