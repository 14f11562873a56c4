"""Loading: from folders and from a hub, and every refusal before a weight is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import transact as ta
from tests import hub
from tests.tiny_models import build, token_ids
from transact.models import loading, preflight, sources, tokenizer_files
from transact.runtime import devices


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny Llama on disk, in float32."""
    build("llama", torch.float32).model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _change_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_loads_in_its_own_dtype(folder):
    loaded = ta.load(str(folder))
    assert loaded.dtype == torch.float32
    assert loaded.spec.num_parameters == loaded.model.num_parameters()
    assert loaded.tokenizer is None
    assert not loaded.model.training
    assert ta.load(str(folder), dtype="float64").dtype == torch.float64


def test_fingerprint_follows_the_weights_not_the_folder(folder, tmp_path):
    first = ta.load(str(folder)).fingerprint
    folder.rename(tmp_path / "moved")
    assert ta.load(str(tmp_path / "moved")).fingerprint == first
    assert ta.load(str(tmp_path / "moved"), dtype="float64").fingerprint == first
    build("llama", torch.float32, seed=1).model.save_pretrained(folder)
    assert ta.load(str(folder)).fingerprint != first


def test_preflight_reads_no_weights(folder):
    (folder / "model.safetensors").unlink()
    card = ta.preflight(str(folder))
    assert card.spec.num_parameters == build("llama").spec.num_parameters
    assert card.weights_bytes == card.spec.num_parameters * 4
    assert card.fits


def test_half_precision_is_kept_only_where_it_pays(monkeypatch):
    large = ta.LayerShape(32, 8, 8192)
    spec = build("llama").spec
    big = spec.with_layers((large,) * 3)
    big = type(big)(**{**vars(big), "hidden_size": 4096, "layers": (large,) * 3})
    cpu = torch.device("cpu")
    monkeypatch.setattr(preflight, "_cpu_computes_bfloat16", lambda: True)
    assert preflight._fast_dtype("bfloat16", big, cpu) == "bfloat16"
    assert preflight._fast_dtype("float32", big, cpu) == "float32"
    assert preflight._fast_dtype("bfloat16", spec, cpu) == "float32"
    monkeypatch.setattr(preflight, "_cpu_computes_bfloat16", lambda: False)
    assert preflight._fast_dtype("bfloat16", big, cpu) == "float32"


def test_not_enough_memory_is_said_before_loading(folder, monkeypatch):
    monkeypatch.setattr(preflight, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(loading, "_read_weights", lambda *args: pytest.fail("weights were read"))
    assert not ta.preflight(str(folder)).fits
    with pytest.raises(ta.NotEnoughMemory, match="GB are free"):
        ta.load(str(folder))


def _remove_weights(folder):
    (folder / "model.safetensors").unlink()


def _pickle_instead(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _garbage(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def _lose_a_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_config(folder):
    (folder / "config.json").unlink()


def _broken_config(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (_remove_weights, ta.CheckpointBroken, "no safetensors"),
        (_pickle_instead, ta.CheckpointBroken, "no safetensors"),
        (_truncate, ta.CheckpointBroken, "truncated or damaged"),
        (_garbage, ta.CheckpointBroken, "truncated or damaged"),
        (_lose_a_shard, ta.CheckpointBroken, "00002.safetensors is missing"),
        (_no_config, ta.CheckpointBroken, "no config.json"),
        (_broken_config, ta.CheckpointBroken, "not valid JSON"),
        (lambda f: _change_config(f, intermediate_size=44), ta.CheckpointBroken, r"calls for \[44, 32\]"),
        (lambda f: _change_config(f, num_hidden_layers=4), ta.CheckpointBroken, "no tensor model.layers.3"),
        (lambda f: _change_config(f, hidden_size=33), ta.CheckpointBroken, "not a valid Llama configuration"),
        (lambda f: _change_config(f, hidden_size="big"), ta.CheckpointBroken, "not a valid Llama configuration"),
        (lambda f: _change_config(f, architectures=[None]), ta.ModelUnsupported, "not a list of names"),
        (lambda f: _change_config(f, head_dim=0), ta.ModelUnsupported, "must be positive"),
        (lambda f: _change_config(f, num_key_value_heads=0), ta.ModelUnsupported, "0 key/value heads"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), ta.CheckpointBroken, "not valid JSON"),
        (lambda f: _change_config(f, num_key_value_heads=3), ta.ModelUnsupported, "multiple of the"),
        (lambda f: _change_config(f, model_type="mamba"), ta.ModelUnsupported, "'mamba' is not supported"),
        (lambda f: _change_config(f, quantization_config={"quant_method": "awq"}), ta.ModelUnsupported, "awq"),
    ],
)
def test_damaged_folders_are_refused(folder, damage, error, says, monkeypatch):
    damage(folder)
    monkeypatch.setattr(loading, "_read_weights", lambda *args: pytest.fail("weights were read"))
    with pytest.raises(error, match=says):
        ta.load(str(folder))


def _rewrite_weights(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("lm_head.weight"), "lacks tensor lm_head.weight"),
        (lambda tensors: tensors.pop("model.norm.weight"), "lacks tensor model.norm.weight"),
        (
            lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
            "surplus tensor model.layers.0.self_attn.q_proj.bias",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_configuration(folder, change, says):
    """transformers would draw what is missing at random and drop what is left over."""
    _rewrite_weights(folder, change)
    with pytest.raises(ta.CheckpointBroken, match=says):
        ta.load(str(folder))


def test_other_safetensors_files_are_let_be(folder):
    save_file({"model.embed_tokens.weight": torch.ones(3, 3)}, folder / "zz_adapter.safetensors")
    assert ta.load(str(folder)).spec == build("llama").spec


def test_layers_of_different_sizes_are_not_taken_for_a_plain_model():
    dense = build("llama")
    target = ta.PruningTarget((1, 2, 3), (4, 5, 6))
    pruned = ta.prune(dense, ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, target))
    with pytest.raises(ta.ModelUnsupported, match="different sizes"):
        ta.LoadedModel.from_model(pruned.model)


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "file.txt").write_text("text")
    for name, says in (
        ("", "No model was named"),
        (str(tmp_path / "nowhere"), "no folder"),
        (str(tmp_path / "file.txt"), "is a file"),
        ("not a model!", "not a hub id"),
        ("a" * 300, "not a hub id"),
        ("~nosuchuser/model", "not a hub id"),
        ("nul\0byte", "not a hub id"),
    ):
        with pytest.raises(ta.ModelNotFound, match=says):
            ta.load(name)


def test_unknown_dtype_is_refused(folder):
    with pytest.raises(ta.InvalidOption, match="float32, bfloat16"):
        ta.load(str(folder), dtype="int3")
    with pytest.raises(ta.InvalidOption, match="no device named 'gpu'; choose one of auto, cpu"):
        ta.load(str(folder), device="gpu")


@pytest.mark.parametrize(
    ("gpus", "rank", "expected"),
    [(0, None, "cpu"), (1, None, "cuda:0"), (2, None, "cuda:0"), (2, "1", "cuda:1"), (1, "3", "cuda:0")],
)
def test_every_process_of_a_launcher_takes_a_gpu_of_its_own(monkeypatch, gpus, rank, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert devices.device_of("auto") == torch.device(expected)
    assert devices.device_of("cpu") == torch.device("cpu")
    if gpus:
        assert devices.device_of("cuda") == torch.device(expected)
    else:
        with pytest.raises(ta.InvalidOption, match="auto, cpu"):
            devices.device_of("cuda")


def test_broken_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ta.CheckpointBroken, match="tokenizer"):
        ta.load(str(folder))


# runs in a process of its own, as the hub client reads its environment when it is imported
HUB_SCRIPT = """
import json, sys
import transact as ta
answers = {}
for name, revision in json.loads(sys.argv[1]):
    try:
        loaded = ta.load(name, revision=revision)
        answers[f"{name}@{revision}"] = [loaded.source, loaded.revision, loaded.spec.num_parameters]
    except ta.TransactError as error:
        answers[f"{name}@{revision}"] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


def _ask_hub(address: str, home: Path, *requests: tuple[str, str | None], offline: bool = False) -> dict:
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1" if offline else "0"}
    run = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, json.dumps(requests)], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.long
def test_the_hub_and_all_the_ways_it_says_no(folder, tmp_path):
    (folder / "model.py").write_text("raise SystemExit")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((folder / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    empty = tmp_path / "empty"
    empty.mkdir()
    models = {"team/tiny": folder, "team/pickled": pickled, "team/encoder": encoder, "team/empty": empty}
    with hub.serve(models, gated=frozenset({"team/gated"})) as address:
        answers = _ask_hub(
            address,
            tmp_path / "home",
            ("team/tiny", None),
            ("team/tiny", "nonsense"),
            ("team/nobody", None),
            ("team/gated", None),
            ("team/pickled", None),
            ("team/encoder", None),
            ("team/empty", None),
        )
    parameters = build("llama").spec.num_parameters
    assert answers["team/tiny@None"] == ["team/tiny", hub.COMMIT, parameters]
    for key, says in {
        "team/tiny@nonsense": "ModelNotFound: team/tiny has no revision 'nonsense'",
        "team/nobody@None": "ModelNotFound: The hub has no public model 'team/nobody'",
        "team/gated@None": "ModelNotFound: team/gated is gated",
        "team/pickled@None": "CheckpointBroken: The checkpoint has no safetensors",
        "team/encoder@None": "ModelUnsupported: bert is an encoder",
        "team/empty@None": "ModelNotFound: team/empty has no config.json",
    }.items():
        assert answers[key].startswith(says), answers[key]
    assert not list((tmp_path / "home").rglob("*.bin")) and not list((tmp_path / "home").rglob("*.py"))
    assert "offline" not in json.dumps(answers)
    # the same model again, with the hub gone: from the cache; another one: said so
    answers = _ask_hub(address, tmp_path / "home", ("team/tiny", None), ("team/other", None))
    assert answers["team/tiny@None"][2] == parameters
    assert answers["team/other@None"].startswith("ModelNotFound: The hub could not be reached")
    answers = _ask_hub(address, tmp_path / "home", ("team/tiny", None), ("team/other", None), offline=True)
    assert answers["team/tiny@None"][2] == parameters
    assert "offline mode is on" in answers["team/other@None"]


@pytest.mark.exhaustive
def test_a_model_that_was_only_looked_at_is_not_called_broken(folder, tmp_path):
    """With config.json alone in the cache and the hub gone, it is the hub that is missing."""
    with hub.serve({"team/tiny": folder}) as address:
        env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        look = "import transact as ta; ta.preflight('team/tiny')"
        subprocess.run([sys.executable, "-c", look], env=env, check=True)
    answers = _ask_hub(address, tmp_path / "home", ("team/tiny", None))
    assert answers["team/tiny@None"].startswith("ModelNotFound: The hub could not be reached")


@pytest.mark.exhaustive
def test_a_proxy_that_answers_in_the_hubs_place(tmp_path):
    with hub.serve_nonsense() as address:
        answers = _ask_hub(address, tmp_path / "home", ("team/tiny", None))
    assert answers["team/tiny@None"].startswith("ModelNotFound: ")


@pytest.mark.parametrize(
    ("name", "bare", "leftover"),
    [("gpt2", True, "h.{}.attn.bias"), ("gpt-neox", False, "gpt_neox.layers.{}.attention.bias"), ("opt", True, None)],
)
def test_files_as_the_hub_has_them(name, bare, leftover, tmp_path):
    """Without the language model's prefix, or with the masks that older versions of transformers saved."""
    dense = build(name, torch.float32)
    dense.model.save_pretrained(tmp_path)
    prefix = f"{dense.layout.layers.partition('.')[0]}." if bare else ""
    state = {key.removeprefix(prefix): value for key, value in load_file(tmp_path / "model.safetensors").items()}
    if leftover:
        state |= {leftover.format(layer): torch.ones(1, 1, 4, 4) for layer in range(3)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = ta.load(str(tmp_path), dtype="float32")
    with torch.no_grad():
        assert torch.equal(again.model(token_ids(again)).logits, dense.model(token_ids(dense)).logits)


CONSTANTS = ("{attention}.bias", "{attention}.masked_bias", "{attention}.rotary_emb.inv_freq")


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "opt", "stablelm", "phi3"])
def test_constants_of_older_files_are_let_be_as_the_stock_class_does(name, bare, tmp_path):
    """Masks, what they put in, rotary frequencies and numbers of positions; in memory and streamed."""
    dense = build(name, torch.float32)
    dense.model.save_pretrained(tmp_path)
    layout = dense.layout
    state = load_file(tmp_path / "model.safetensors")
    for layer in range(3):
        for constant in CONSTANTS:
            path = f"{layout.layers}.{layer}.{constant.format(attention=layout.attention)}"
            state[path] = torch.tensor(-1e4) if "masked" in path else torch.ones(1, 1, 4, 4)
    base = f"{layout.layers.partition('.')[0]}."
    state |= {f"{base}embeddings.position_ids": torch.arange(64)[None], "decoder.version": torch.ones(1)}
    if bare:
        if dense.model.config.tie_word_embeddings:
            state = {key.removeprefix(base): value for key, value in state.items()}
        else:
            pytest.skip("the files of a bare decoder have no output head")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    again = ta.load(str(tmp_path), dtype="float32")
    streamed = ta.load_streamed(str(tmp_path), dtype="float32")
    ids = token_ids(again)
    with torch.no_grad():
        expected = stock(ids).logits
        assert torch.equal(expected, dense.model(ids).logits)
        assert torch.equal(again.model(ids).logits, expected)
    evaluation = ta.EvaluationSet.from_token_ids(ids)
    assert ta.perplexity(streamed, evaluation) == pytest.approx(ta.perplexity(again, evaluation), rel=1e-5)
    plan = ta.make_plan(ta.ImportanceScores.random(streamed.spec), streamed.spec, ta.PruningTarget(2, 20))
    ta.stream_prune(streamed, plan, tmp_path / "out")
    assert not [key for key in load_file(tmp_path / "out" / "model.safetensors") if sources.is_constant(key)]


@pytest.mark.parametrize("name", ["h.0.attn.c_attn.masked_bias", "h.0.bias", "v_head.bias", "my_attn.bias"])
def test_what_only_looks_like_a_constant_is_a_surplus(name):
    assert not sources.is_constant(name)


@pytest.mark.parametrize("lacking", [("sentencepiece", "protobuf"), ("protobuf",)])
@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3"])
def test_a_tokenizer_model_alone_names_what_reads_it(name, lacking, tmp_path, monkeypatch):
    build(name, torch.float32).model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    for package in ("sentencepiece", "protobuf"):
        monkeypatch.setattr(tokenizer_files, f"is_{package}_available", lambda package=package: package not in lacking)
    with pytest.raises(ta.CheckpointBroken, match=f"pip install {' '.join(lacking)}, or put") as caught:
        ta.load(str(tmp_path))
    assert "tiktoken" not in str(caught.value)
    monkeypatch.setattr(tokenizer_files, "is_sentencepiece_available", lambda: True)
    monkeypatch.setattr(tokenizer_files, "is_protobuf_available", lambda: True)
    with pytest.raises(ta.CheckpointBroken, match="could not be read"):  # that file holds a single piece
        ta.load(str(tmp_path))


def test_a_tokenizer_model_of_another_format_is_left_to_transformers(tmp_path):
    build("llama", torch.float32).model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n", encoding="ascii")
    with pytest.raises(ta.CheckpointBroken) as caught:
        ta.load(str(tmp_path))
    assert "sentencepiece" not in str(caught.value)
