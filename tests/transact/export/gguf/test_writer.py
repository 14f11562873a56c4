"""GGUF files in the real llama.cpp: the same tokens, the same text, logits as near as the format allows.

Tolerances are shares of the largest logit, about twice the most that was measured over all models and cuts here:
float32 2.0e-6 (sums in another order), float16 1.6e-3, bfloat16 1.3e-2 and q8_0 3.7e-2. The last three are that large
because llama.cpp rounds what it multiplies with such weights to their type too; that the stored weights themselves are
as near as their type allows is a test of its own. llama.cpp's key/value cache is kept in float32, so that only the
file's format shows.
"""

import itertools
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

import transact as ta
from tests.conftest import ROOT, read_texts
from tests.tiers import cases
from tests.tiny_models import TINY, build
from transact.export.gguf.architectures import ARCHITECTURES_OF

TOLERANCES = {"f32": 5e-6, "f16": 3.5e-3, "bf16": 2.5e-2, "q8_0": 7.5e-2}
WRITTEN = [name for name, (family, _) in TINY.items() if family in ARCHITECTURES_OF]
KINDS = ("dense", "uniform", "per_layer", "layers")
PROMPTS = ("Once upon a time", "The little dog", "One day, a girl named")


def in_turn(name: str, kind: str) -> bool:
    """Whether the case is one of those in which each model has one kind of cut."""
    return WRITTEN.index(name) % len(KINDS) == KINDS.index(kind)


@pytest.fixture(scope="module")
def bundled():
    return ta.load("bundled", dtype="float32")


@pytest.fixture(params=["bundled", "stories"])
def real(request):
    return request.getfixturevalue(request.param)


def cut(loaded: ta.LoadedModel, kind: str, **repair) -> ta.LoadedModel:
    """Dense, the same in every layer, a different shape in every layer, or one layer less."""
    layers = loaded.spec.num_hidden_layers
    widest = loaded.spec.layers[0].intermediate_size
    targets = {
        "uniform": ta.PruningTarget(keep_head_groups=3, keep_channels=widest // 2),
        "layers": ta.PruningTarget(keep_head_groups=3, keep_channels=widest // 2),
        "per_layer": ta.PruningTarget(
            keep_head_groups=tuple((4, 3, 2, 1)[layer % 4] for layer in range(layers)),
            keep_channels=tuple(widest - layer * (widest // layers) for layer in range(layers)),
        ),
    }
    if kind == "dense":
        return loaded
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, targets[kind])
    if kind == "layers":  # the last but one: without its first layers a model makes much of the smallest rounding
        plan = replace(plan, kept_layers=(*range(layers - 2), layers - 1))
    return ta.prune(loaded, plan, **repair)


def assert_same_logits(model, loaded: ta.LoadedModel, file_type: str = "f32", tokens: int = 40) -> None:
    """Every position of a random sequence, in llama.cpp and in transformers."""
    ids = torch.randint(3, loaded.spec.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = loaded.model(ids).logits[0].float().numpy()
    model.eval(ids[0].tolist())
    difference = np.abs(np.array(model.scores[:tokens]) - expected).max()
    assert difference <= TOLERANCES[file_type] * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file_type", ta.GGUF_TYPES)
def test_logits_of_every_format(real, kind, file_type, llama, tmp_path):
    loaded = cut(real, kind)
    report = ta.save_gguf(loaded, tmp_path / "model.gguf", file_type=file_type)
    assert report.architecture == ("deci" if kind == "per_layer" else "llama")
    assert report.bytes == (tmp_path / "model.gguf").stat().st_size
    assert_same_logits(llama(report.path), loaded, file_type)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_greedy_text(real, kind, llama, tmp_path):
    loaded = cut(real, kind)
    model = llama(ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32").path)
    for prompt in PROMPTS:
        written = model.create_completion(prompt, max_tokens=24, temperature=0)["choices"][0]["text"]
        assert written and written == ta.generate(loaded, prompt, max_new_tokens=24)


@pytest.mark.parametrize(("name", "kind"), cases(itertools.product(WRITTEN, KINDS), test=in_turn))
def test_logits_of_every_family(name, kind, llama, tmp_path):
    loaded = cut(build(name, torch.float32), kind)
    if loaded.spec.family == "granite" and kind == "per_layer":
        with pytest.raises(ta.SaveRefused, match="granite has no layers of different sizes.*padded with zeros"):
            ta.save_gguf(loaded, tmp_path / "model.gguf")
        ta.save(loaded, tmp_path / "padded")
        padded = ta.load(str(tmp_path / "padded"))
        assert_same_logits(llama(ta.save_gguf(padded, tmp_path / "model.gguf", file_type="f32").path), loaded)
        return
    report = ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32")
    usual = {"qwen2": "qwen2" if kind == "dense" else "llama", "granite": "granite"}
    assert report.architecture == ("deci" if kind == "per_layer" else usual.get(loaded.spec.family, "llama"))
    window = loaded.model.config.to_dict().get("sliding_window")
    ends_early = window is not None and window < loaded.context_length
    assert any("sliding window" in note for note in report.notes) == ends_early
    assert_same_logits(llama(report.path), loaded, tokens=window if ends_early else 40)


@pytest.mark.parametrize("kind", ["uniform", "per_layer"])
def test_a_repair_that_adds_biases(bundled, kind, llama, tmp_path):
    texts = read_texts(ROOT / "assets" / "samples" / "stories.jsonl")[:4]
    calibration = ta.CalibrationSet.from_texts(texts, bundled.tokenizer, seq_len=64)
    loaded = cut(bundled, kind, compensation="bias", statistics=ta.observe(bundled, calibration))
    assert loaded.spec.output_bias and loaded.spec.mlp_bias
    assert_same_logits(llama(ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32").path), loaded)


def test_linear_rope_scaling(llama, tmp_path, monkeypatch):
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    for family in ("llama", "qwen2"):
        monkeypatch.setitem(TINY, "linear", (family, {"rope_parameters": rope}))
        loaded = build("linear", torch.float32)
        report = ta.save_gguf(loaded, tmp_path / f"{family}.gguf", file_type="f32")
        assert report.architecture == "llama", "qwen2 does not read frequency factors"
        assert_same_logits(llama(report.path), loaded)
        assert tensors(report.path)["rope_freqs.weight"].tolist() == [4.0, 4.0]


def tensors(path: str) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


def field(path: str, key: str):
    return gguf.GGUFReader(path).get_field(key).contents()


def test_what_stands_in_the_file(stories, tmp_path):
    loaded = cut(stories, "per_layer")
    path = ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32").path
    stored, state = tensors(path), loaded.model.state_dict()
    assert (stored["blk.4.ffn_down.weight"] == state["model.layers.4.mlp.down_proj.weight"].numpy()).all()
    assert "output.weight" not in stored, "the output head is tied"
    # head_dim 8: RoPE turns rows 0 and 4, 1 and 5, ... together, and llama.cpp those side by side
    query = state["model.layers.1.self_attn.q_proj.weight"].numpy()
    assert (stored["blk.1.attn_q.weight"][8:16] == query[8:16][[0, 4, 1, 5, 2, 6, 3, 7]]).all()
    assert field(path, "deci.attention.head_count_kv") == [4, 3, 2, 1, 4]
    assert field(path, "deci.attention.head_count") == [8, 6, 4, 2, 8]
    assert field(path, "deci.feed_forward_length") == [172, 138, 104, 70, 36]
    assert field(path, "general.name") == "stories260K, pruned"
    assert field(path, "general.description") == (
        f"stories260K pruned by TransAct to {loaded.spec.num_parameters:,} of 260,032 parameters; head groups per "
        "layer: 4 / 3 / 2 / 1 / 4 of 4; channels per layer: 172 / 138 / 104 / 70 / 36 of 172; scored with random on "
        "none; compensation: none"
    )


def test_layers_that_went_stand_in_the_file(stories, tmp_path):
    loaded = cut(stories, "layers")
    (plan,) = (each.plan for each in loaded.cuts)
    path = ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32").path
    assert field(path, f"{gguf.GGUFReader(path).get_field('general.architecture').contents()}.block_count") == 4
    assert sum(name.endswith("ffn_down.weight") for name in tensors(path)) == 4
    removed = ", ".join(map(str, plan.removed_layers))
    assert f"parameters; layers removed whole: {removed}; head groups" in field(path, "general.description")


@pytest.mark.parametrize(
    ("file_type", "half_step"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-9), ("q8_0", 0.5 / 127 + 2**-11)]
)
def test_stored_weights_are_the_nearest_of_their_type(bundled, file_type, half_step, tmp_path):
    """Half a step is a share of the number; in q8_0 of the largest of 32 numbers, whose scale is rounded to float16."""
    report = ta.save_gguf(bundled, tmp_path / "model.gguf", file_type=file_type)
    state = bundled.model.state_dict()
    for stored_name, name in (("token_embd", "model.embed_tokens"), ("blk.3.ffn_up", "model.layers.3.mlp.up_proj")):
        (stored,) = (each for each in gguf.GGUFReader(report.path).tensors if each.name == f"{stored_name}.weight")
        assert stored.tensor_type.name.lower() == file_type
        weights = state[f"{name}.weight"].numpy().reshape(-1, 32)
        size = np.abs(weights).max(axis=1, keepdims=True) if file_type == "q8_0" else np.abs(weights)
        off = np.abs(gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(-1, 32) - weights)
        assert (off <= half_step * size + 1e-7).all()  # the smallest float16 is 6e-8


def test_rows_that_fill_no_blocks_fall_back_to_float16(stories, tmp_path):
    report = ta.save_gguf(stories, tmp_path / "model.gguf", file_type="q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(report.path).tensors}
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 172
    assert types["blk.0.ffn_up.weight"] == "Q8_0"  # rows of 64
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert report.notes[0].startswith("5 tensors have rows that do not fill blocks of 32")


def test_weights_beyond_float16_are_refused(tmp_path):
    loaded = build("llama", torch.float32)
    with torch.no_grad():
        loaded.model.lm_head.weight[0, 0] = 1e5
    with pytest.raises(ta.SaveRefused, match="output.weight holds numbers that float16 cannot.*bf16"):
        ta.save_gguf(loaded, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []
    ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="bf16")


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "RoPE of type 'yarn'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "type 'dynamic'"),
        ("mistral", {"hidden_act": "gelu"}, "the activation gelu, llama.cpp computes SiLU"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise(family, changes, message, tmp_path, monkeypatch):
    monkeypatch.setitem(TINY, "other", (family, changes))
    with pytest.raises(ta.SaveRefused, match=message):
        ta.save_gguf(build("other"), tmp_path / "model.gguf")


def test_a_family_that_is_not_known_there(tmp_path, monkeypatch):
    monkeypatch.delitem(ARCHITECTURES_OF, "mistral")
    with pytest.raises(ta.SaveRefused, match="Mistral cannot be written as GGUF.*Known are Llama, Qwen2, Granite"):
        ta.save_gguf(build("mistral"), tmp_path / "model.gguf")


def test_destinations(tmp_path):
    loaded = build("llama", torch.float32)
    (tmp_path / "mine.gguf").write_text("mine")
    with pytest.raises(ta.SaveRefused, match="exists and would be overwritten"):
        ta.save_gguf(loaded, tmp_path / "mine.gguf")
    assert (tmp_path / "mine.gguf").read_text() == "mine"
    with pytest.raises(ta.InvalidOption, match="f32, f16, bf16, q8_0"):
        ta.save_gguf(loaded, tmp_path / "new.gguf", file_type="q4_0")
    with pytest.raises(ta.SaveRefused, match="cannot be a file"):
        ta.save_gguf(loaded, "a\0b")
    ta.save_gguf(loaded, tmp_path / "new" / "folder" / "model.gguf")
    assert sorted(path.name for path in tmp_path.rglob("*.gguf")) == ["mine.gguf", "model.gguf"]


def test_stopping_leaves_nothing(bundled, tmp_path):
    told = []

    def stop(done: int, total: int, unit: str) -> None:
        told.append((done, total, unit))
        if done > total / 2:
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.save_gguf(bundled, tmp_path / "model.gguf", progress=stop)
    assert len(told) > 10 and told[0] == (0, told[0][1], "bytes")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(bundled, tmp_path):
    """The limit on file size is the kernel's own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(ta.SaveRefused, match="Free some space"):
            ta.save_gguf(bundled, tmp_path / "model.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("transact.export.gguf.writer.find_spec", lambda name: None)
    with pytest.raises(ta.SaveRefused, match="pip install gguf"):
        ta.save_gguf(build("llama"), tmp_path / "model.gguf")


@pytest.mark.slow
def test_the_library_and_its_command_line_do_without_the_package():
    code = "import sys; sys.modules['gguf'] = None; import transact.cli"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
