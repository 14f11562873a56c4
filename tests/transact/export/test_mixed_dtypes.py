"""Files that hold some tensors in another dtype: what nothing changed is written as it was, streamed too."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import transact as ta
from tests.tiers import LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids

EVEN = ta.PruningTarget(keep_head_groups=2, keep_channels=24)
UNEVEN = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))
IN_MEMORY = ("bfloat16", "float32")


def mixed(name: str, folder: Path, matrices: torch.dtype = torch.bfloat16, others: torch.dtype = torch.float32) -> str:
    """A saved model with vectors (norms, biases) in one dtype and matrices in another; no number is a round one."""
    ta.save(build(name, torch.float32), folder)
    tensors = load_file(folder / "model.safetensors")
    for each, tensor in tensors.items():
        tensors[each] = (tensor * 1.001).to(others if tensor.dim() == 1 else matrices)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def plan_for(loaded: ta.LoadedModel, target: ta.PruningTarget) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target)


def assert_same(found: Path, expected: Path) -> None:
    mine, theirs = weights(found), weights(expected)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert mine[name].dtype == tensor.dtype, name
        assert torch.equal(mine[name], tensor), name


def in_turn(name: str, in_memory: str) -> bool:
    """One model a layout, every second one read in float32."""
    return name in LAYOUTS and IN_MEMORY[LAYOUTS.index(name) % 2] == in_memory


@pytest.mark.parametrize(
    ("name", "in_memory"), cases(itertools.product(TINY, IN_MEMORY), test=in_turn, check=[("llama", "bfloat16")])
)
def test_saved_and_streamed_are_the_same_bytes(name, in_memory, tmp_path):
    source = mixed(name, tmp_path / "base")
    loaded = ta.load(source, dtype=in_memory)
    assert loaded.stored_dtype == "bfloat16" and loaded.dtype == getattr(torch, in_memory)
    for target in (EVEN, UNEVEN):
        plan = plan_for(loaded, target)
        for layers in ("padded", "compact") if target is UNEVEN else ("padded",):
            ours, streamed = tmp_path / f"saved {target} {layers}", tmp_path / f"streamed {target} {layers}"
            ta.save(ta.prune(loaded, plan), ours, dtype=loaded.file_dtype, layers=layers)
            ta.stream_prune(source, plan, streamed, layers=layers)
            assert_same(streamed, ours)


def test_dtypes_move_with_their_layer(tmp_path):
    """Of three layers the last alone has norms in float32; without the middle one it is the second."""
    source = mixed("llama", tmp_path / "base")
    tensors = weights(tmp_path / "base")
    for name, tensor in tensors.items():
        if ".layers.2." not in name:
            tensors[name] = tensor.bfloat16()
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    loaded = ta.load(source, dtype="bfloat16")
    plan = replace(plan_for(loaded, EVEN), kept_layers=(0, 2))
    ta.save(ta.prune(loaded, plan), tmp_path / "saved", dtype=loaded.file_dtype)
    ta.stream_prune(source, plan, tmp_path / "streamed")
    assert_same(tmp_path / "streamed", tmp_path / "saved")
    written = weights(tmp_path / "saved")
    for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
        assert torch.equal(written[f"model.layers.1.{name}"], tensors[f"model.layers.2.{name}"])
        assert written[f"model.layers.1.{name}"].dtype == torch.float32
        assert written[f"model.layers.0.{name}"].dtype == torch.bfloat16


@pytest.mark.parametrize("in_memory", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("written", ["bfloat16", "float32", "float16"])
def test_a_copy_keeps_every_tensor_that_is_wider_than_the_rest(in_memory, written, tmp_path):
    source = mixed("llama", tmp_path / "base")
    before = weights(tmp_path / "base")
    ta.save(ta.load(source, dtype=in_memory), tmp_path / "out", dtype=written)
    for name, tensor in weights(tmp_path / "out").items():
        norm = tensor.dim() == 1
        assert tensor.dtype == (torch.float32 if norm else getattr(torch, written)), name
        assert torch.equal(tensor, before[name].to(tensor.dtype)), name


def test_tensors_narrower_than_the_rest_stay_so_in_a_copy(tmp_path):
    source = mixed("llama", tmp_path / "base", torch.float32, torch.bfloat16)
    before = weights(tmp_path / "base")
    loaded = ta.load(source)
    assert loaded.stored_dtype == "float32"
    ta.save(loaded, tmp_path / "out")
    ta.stream_prune(source, plan_for(loaded, EVEN), tmp_path / "streamed")
    assert {name: tensor.dtype for name, tensor in weights(tmp_path / "out").items()} == {
        name: tensor.dtype for name, tensor in before.items()
    }
    assert weights(tmp_path / "streamed")["model.norm.weight"].dtype == torch.bfloat16
    ta.save(loaded, tmp_path / "wide", dtype="float64")
    assert {tensor.dtype for tensor in weights(tmp_path / "wide").values()} == {torch.float64}


def test_what_was_changed_in_memory_is_written_as_memory_has_it(tmp_path):
    source = mixed("llama", tmp_path / "base")
    loaded = ta.load(source, dtype="bfloat16")
    with torch.no_grad():
        loaded.model.model.norm.weight[3] = 7.0
    ta.save(loaded, tmp_path / "out")
    before, after = weights(tmp_path / "base"), weights(tmp_path / "out")
    assert after["model.norm.weight"].dtype == torch.bfloat16 and after["model.norm.weight"][3] == 7.0
    untouched = "model.layers.0.input_layernorm.weight"
    assert after[untouched].dtype == torch.float32 and torch.equal(after[untouched], before[untouched])


def test_a_repair_changes_what_it_refits_and_no_more(tmp_path):
    source = mixed("llama", tmp_path / "base")
    loaded = ta.load(source, dtype="float32")
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded, 12), name="ids"), gram=True)
    plan = plan_for(loaded, EVEN)
    pruned = ta.prune(loaded, plan, compensation="least_squares", statistics=statistics)
    ta.save(pruned, tmp_path / "saved", dtype=pruned.file_dtype)
    ta.stream_prune(source, plan, tmp_path / "streamed", compensation="least_squares", statistics=statistics)
    assert_same(tmp_path / "streamed", tmp_path / "saved")
    held = weights(tmp_path / "saved")
    wide = {name.split(".")[-2] for name, tensor in held.items() if tensor.dtype == torch.float32}
    assert wide == {"input_layernorm", "post_attention_layernorm", "norm"}


@pytest.mark.long
def test_the_proof_compares_with_what_the_files_hold(tmp_path):
    """The norms of memory are rounded, those of the files are not."""
    loaded = ta.load(mixed("llama", tmp_path / "base"), dtype="bfloat16")
    proof = ta.save(ta.prune(loaded, plan_for(loaded, EVEN)), tmp_path / "out", prove=True).proof
    assert proof.passed and proof.dtype == "bfloat16"


def test_gguf_has_the_norms_of_the_files(tmp_path):
    gguf = pytest.importorskip("gguf")
    loaded = ta.load(mixed("llama", tmp_path / "base"), dtype="bfloat16")
    report = ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="bf16")
    (norm,) = (each for each in gguf.GGUFReader(report.path).tensors if each.name == "output_norm.weight")
    assert torch.equal(torch.tensor(norm.data), weights(tmp_path / "base")["model.norm.weight"])


def test_a_model_in_memory_with_two_dtypes(tmp_path):
    model = build("llama", torch.bfloat16).model
    norm = model.model.norm
    norm.weight = torch.nn.Parameter(norm.weight.detach().float() * 1.001)
    loaded = ta.LoadedModel.from_model(model)
    ta.save(ta.prune(loaded, plan_for(loaded, EVEN)), tmp_path / "out")
    after = weights(tmp_path / "out")
    assert torch.equal(after.pop("model.norm.weight"), norm.weight)
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}


LARGE = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def large(tmp_path) -> str:
    """A model with one number that float16 cannot hold."""
    ta.save(build("llama", torch.float32), tmp_path / "base")
    tensors = weights(tmp_path / "base")
    tensors[LARGE][:, 3] = 70_000.0
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    return str(tmp_path / "base")


@pytest.mark.parametrize("target", [EVEN, UNEVEN])
def test_numbers_that_would_become_infinite_are_refused(large, target, tmp_path):
    loaded = ta.load(large)
    plan = plan_for(loaded, target)
    whole = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, ta.PruningTarget(4, 40))
    says = f"{LARGE} holds numbers beyond 65504.*float16.*bfloat16 or float32"
    for write in (
        lambda folder: ta.save(loaded, folder, dtype="float16"),
        lambda folder: ta.save(ta.prune(loaded, whole), folder, dtype="float16", layers="compact"),
        lambda folder: ta.stream_prune(large, whole, folder, dtype="float16"),
    ):
        with pytest.raises(ta.SaveRefused, match=says):
            write(tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]
    ta.stream_prune(large, plan, tmp_path / "out", dtype="bfloat16")
    ta.save(loaded, tmp_path / "copy", dtype="bfloat16")
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "copy").values())


@pytest.mark.parametrize(("file_type", "number"), [("f16", 70_000.0), ("q8_0", 1e7), ("bf16", 3.4e38)])
def test_numbers_that_a_gguf_type_cannot_hold_are_refused(file_type, number, tmp_path):
    loaded = build("llama", torch.float32)
    with torch.no_grad():
        loaded.model.lm_head.weight[0, 0] = number
    with pytest.raises(ta.SaveRefused, match="output.weight holds numbers"):
        ta.save_gguf(loaded, tmp_path / "model.gguf", file_type=file_type)
    assert list(tmp_path.iterdir()) == []
    ta.save_gguf(loaded, tmp_path / "model.gguf", file_type="f32")
