"""Models spread over several devices by accelerate: the same numbers, and everything where its layer is.

No machine with two GPUs is needed: hooks as accelerate sets them run on the CPU, and torch's fake tensors, which have
devices and no content, tell where what is made beside a layer lies.
"""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import dispatch_model
from torch._subclasses import FakeTensorMode

import transact as ta
from tests.tiny_models import build, token_ids
from transact.layers import masks
from transact.models import loading, preflight
from transact.models.loaded_model import LoadedModel
from transact.observing.layer_recorder import RecordOptions
from transact.observing.observe import _Pass

PLAN = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))


def _map(loaded: LoadedModel, first: str, second: str) -> dict[str, str]:
    """The last layer and what follows it on a second device, all else on the first."""
    layers = loaded.layout.layers
    last = f"{layers}.{loaded.spec.num_hidden_layers - 1}"
    return {name: second if name.startswith((f"{last}.", "lm_head", "embed_out")) else first
            for name, module in loaded.model.named_modules()
            if not list(module.children())} | {
        f"{layers}.{index}": second if f"{layers}.{index}" == last else first
        for index in range(loaded.spec.num_hidden_layers)
    }  # fmt: skip


def _texts(loaded: LoadedModel, kind: type):
    rows = [ids[: 4 + index].tolist() for index, ids in enumerate(token_ids(loaded, samples=12, seq=16))]
    return kind.from_sequences(rows, name="ids")


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "gpt-neox", "opt"])
@pytest.mark.parametrize(("compensation", "keep_layers"), [("none", 2), ("least_squares", None)])
def test_with_the_hooks_of_accelerate_all_numbers_are_the_same(name, compensation, keep_layers, tmp_path):
    plain, hooked = build(name), build(name)
    dispatch_model(hooked.model, _map(hooked, "cpu", "cpu"), main_device="cpu", force_hooks=True)
    assert hasattr(hooked.decoder_layers[0], "_hf_hook") and not any(each.is_meta for each in hooked.model.parameters())
    results = []
    for loaded in (plain, hooked):
        calibration, evaluation = _texts(loaded, ta.CalibrationSet), _texts(loaded, ta.EvaluationSet)
        statistics = ta.observe(loaded, calibration, gram="by_layer", samples=True, top_k=2)
        plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, replace(PLAN, keep_layers=keep_layers))
        with ta.masked(loaded, plan):
            behind_masks = ta.perplexity(loaded, evaluation)
        pruned = ta.prune(loaded, plan, compensation=compensation, statistics=statistics)
        ta.save(pruned, tmp_path / str(len(results)))
        reloaded = ta.load(str(tmp_path / str(len(results))), dtype="float64")
        report = ta.evaluate(pruned, evaluation, reference=loaded, speed=False)
        results.append((behind_masks, report.perplexity, report.kl_divergence, ta.perplexity(reloaded, evaluation)))
        # stock norms compute in float32 even here, and padding changes the order of their sums
        assert report.perplexity == pytest.approx(results[-1][-1], rel=1e-7)
    assert results[0] == pytest.approx(results[1], rel=1e-12)


def _move(module: torch.nn.Module, device: torch.device) -> None:
    """As `to`, which cannot put fake tensors in each other's place."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(parameter.data.to(device), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.to(device)


@contextlib.contextmanager
def _spread(name: str):
    """A model of fake tensors on two GPUs that are not there."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        loaded = build(name)
        devices = _map(loaded, "cuda:0", "cuda:1")
        for path, device in devices.items():
            _move(loaded.model.get_submodule(path), torch.device(device))
        dispatch_model(loaded.model, devices, main_device="cuda:0", force_hooks=True)
        yield loaded


@pytest.mark.parametrize("name", ["llama", "olmo2", "gpt2"])
def test_sums_are_where_their_layer_is_and_masks_go_where_they_are_needed(name):
    spec = build(name).spec
    calibration = SimpleNamespace(num_tokens=10)  # of a real one nothing can be counted here
    plan = ta.make_plan(ta.ImportanceScores.random(spec), spec, PLAN)
    with _spread(name) as loaded:
        devices = [torch.device("cuda:0")] * 2 + [torch.device("cuda:1")]
        assert loaded.is_spread and [loaded.device_of_layer(index) for index in range(3)] == devices
        recorders = _Pass(loaded, calibration, ta.NO_PROGRESS, RecordOptions(("mlp",))).recorders
        for recorder, device in zip(recorders, devices, strict=True):
            assert recorder.totals().device == recorder.moments["mlp"].gram.device == device
        removed = masks._removed((0, 2), 4)
        for device in (*devices, torch.device("cpu")):
            states = torch.ones(2, 4, device=device)
            assert masks.set_to_zero(removed)(states).device == device
            assert torch.where(masks._device_mask(removed)(states), 0, states).device == device
        for work in (
            lambda: ta.prune(loaded, plan, compensation="best"),
            lambda: ta.search_plan(loaded, None, PLAN),
            lambda: ta.recover(loaded, None, PLAN, ta.RecoverySettings()),
        ):
            with pytest.raises(ta.InvalidOption, match="is spread over several GPUs"):
                work()


def test_balanced_is_as_auto_where_there_is_nothing_to_spread_over(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    loaded = ta.load("bundled", device="balanced")
    assert loaded.device == torch.device("cpu") and not loaded.is_spread


def test_balanced_counts_the_memory_of_all_gpus_and_asks_accelerate_to_spread(monkeypatch):
    asked = {}

    def read(*args, **named):
        asked.update(named)
        raise RuntimeError("no such GPU")

    needed = ta.preflight("bundled", device="cpu").required_bytes
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(preflight, "free_bytes", lambda device: 0.6 * needed)
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", read)
    with pytest.raises(ta.CheckpointBroken, match="no such GPU"):
        ta.load("bundled", device="balanced")
    assert asked["device_map"] == "balanced"
    with pytest.raises(ta.NotEnoughMemory):
        ta.load("bundled", device="cuda:1")
