"""No hook of ours gets into a copy of a module, and no mask into what is made of the model while it is on."""

import threading
from contextlib import contextmanager, nullcontext

import pytest
import torch

import transact as ta
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids
from transact.layers.hooks import copy_without_hooks, hooks_suspended, on_calls, on_inputs

TARGET = ta.PruningTarget(keep_head_groups=2, keep_channels=24)
OTHER = ta.PruningTarget(keep_head_groups=1, keep_channels=5)
COUNTED = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


def calibration(loaded) -> ta.CalibrationSet:
    return ta.CalibrationSet.from_token_ids(token_ids(loaded, samples=6))


def plan_of(loaded, target, seed=0) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec, seed=seed), loaded.spec, target)


def hooks_on(loaded) -> int:
    return sum(len(getattr(module, name)) for module in loaded.model.modules() for name in COUNTED)


def logits(loaded) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(token_ids(loaded)).logits


@contextmanager
def masked_by_another_thread(loaded, plan):
    """Another thread holds the mask for as long as the block lasts."""
    held, over = threading.Event(), threading.Event()

    def hold():
        with ta.masked(loaded, plan):
            held.set()
            over.wait(timeout=60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(timeout=60)
        yield
    finally:
        over.set()
        holder.join()


MASKS = {
    "none": lambda loaded, plan, other: nullcontext(),
    "the same": lambda loaded, plan, other: ta.masked(loaded, plan),
    "another": lambda loaded, plan, other: ta.masked(loaded, other),
    "of another thread": lambda loaded, plan, other: masked_by_another_thread(loaded, other),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", cases(TINY, test=LAYOUTS, check=FEW))
def test_a_cut_is_the_same_under_every_mask(name, mask):
    dense = build(name)
    plan, other = plan_of(dense, TARGET), plan_of(dense, OTHER, seed=1)
    expected = logits(ta.prune(dense, plan))
    with MASKS[mask](dense, plan, other):
        pruned = ta.prune(dense, plan)
        inside = logits(pruned)
    assert torch.equal(inside, expected)
    assert torch.equal(logits(pruned), expected)
    assert hooks_on(pruned) == hooks_on(dense) == 0


@pytest.mark.parametrize("mask", ["another", "of another thread"])
@pytest.mark.parametrize("repair", ["bias", "least_squares", "least_squares by layer", "best"])
@pytest.mark.parametrize(
    "name", cases(["llama", "olmo2", "qwen3", "stablelm-parallel", "gpt2"], test=["llama", "olmo2", "gpt2"])
)
def test_a_repair_is_the_same_under_every_mask(name, repair, mask):
    dense = build(name)
    if repair == "bias" and not dense.layout.output_bias:
        pytest.skip("the stock class holds no output bias")
    plan, other = plan_of(dense, TARGET), plan_of(dense, OTHER, seed=1)
    gram = "by_layer" if repair.endswith("by layer") else True
    statistics = ta.observe(dense, calibration(dense), gram=gram)
    options = {"compensation": repair.removesuffix(" by layer"), "statistics": statistics}
    try:
        expected = logits(ta.prune(dense, plan, **options))
    except ta.InvalidOption as refused:
        pytest.skip(f"the stock class holds no such repair: {refused}")
    with MASKS[mask](dense, plan, other):
        pruned = ta.prune(dense, plan, **options)
        searched = ta.search_plan(dense, statistics, TARGET)
    assert torch.equal(logits(pruned), expected)
    assert hooks_on(pruned) == hooks_on(dense) == 0
    assert searched == ta.search_plan(dense, statistics, TARGET)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recovery_is_the_same_under_a_mask(dtype):
    dense = build("olmo2", dtype)
    settings = ta.RecoverySettings(
        shots=2, shot_tokens=72 * 4, recovery_tokens=72 * 2, batch_size=6, loss="distillation", log_every=1
    )

    def recovered():
        return ta.recover(dense, calibration(dense), TARGET, settings).pruned

    expected = logits(recovered())
    with ta.masked(dense, plan_of(dense, OTHER)):
        pruned = recovered()
    assert torch.equal(logits(pruned), expected)
    assert hooks_on(pruned) == hooks_on(dense) == 0


@pytest.mark.long
def test_a_checkpoint_is_written_and_proved_under_a_mask(tmp_path):
    dense = build("olmo2", torch.float32)
    plan = plan_of(dense, TARGET)
    pruned = ta.prune(dense, plan)
    with ta.masked(pruned, plan_of(pruned, OTHER)):
        report = ta.save(pruned, tmp_path / "out", prove=True)
    assert report.proof.passed
    # stock norms compute in float32, and a file's tensors lie elsewhere in memory
    assert (logits(ta.load(str(tmp_path / "out"))) - logits(pruned)).abs().max() < 1e-5


def test_a_sweep_is_the_same_under_a_mask():
    dense = build("llama")
    scores = ta.ImportanceScores.random(dense.spec)
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(dense))
    (expected,) = ta.sweep(dense, scores, [TARGET], evaluation)
    with ta.masked(dense, plan_of(dense, OTHER, seed=1)):
        (point,) = ta.sweep(dense, scores, [TARGET], evaluation)
    assert point.perplexity == expected.perplexity


@pytest.mark.slow
def test_cuts_while_hooks_of_other_threads_come_and_go():
    """No dictionary of hooks changes while a copy reads it, and nothing of it is copied."""
    dense = build("olmo2")
    plan = plan_of(dense, TARGET)
    expected = logits(ta.prune(dense, plan))
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            with on_inputs([(module, torch.zeros_like) for module in dense.model.modules()]):
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        results = [ta.prune(dense, plan) for _ in range(20)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert all(torch.equal(logits(pruned), expected) and hooks_on(pruned) == 0 for pruned in results)
    assert hooks_on(dense) == 0


class _Counting(torch.nn.Module):
    """Has a hook of its own that is a method of it."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)
        self.calls = 0
        self.inner.register_forward_hook(self.count)

    def count(self, *seen) -> None:
        self.calls += 1

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.inner(values)


def test_a_copy_keeps_the_hooks_of_others_and_drops_ours():
    module, values = _Counting(), torch.ones(1, 2)
    doubled = [(module.inner, lambda states: states * 2)]
    replaced = [(module.inner, lambda states, output: torch.zeros_like(output))]
    with on_inputs(doubled), on_calls(replaced):
        copied = copy_without_hooks(module)
        assert torch.equal(module(values), torch.zeros(1, 2))
        assert torch.equal(copied(values), torch.nn.functional.linear(values, module.inner.weight, module.inner.bias))
    assert (module.calls, copied.calls) == (1, 1)  # each counts its own calls
    assert len(copied.inner._forward_hooks) == 1


def test_a_pruned_model_gives_hidden_states_once_after_its_base_did():
    """transformers installs its own hooks once and notes on the model that they are there; the copy has both."""
    dense = build("llama")
    ids = token_ids(dense)
    with torch.no_grad():
        dense.model(ids, output_hidden_states=True)
        pruned = ta.prune(dense, plan_of(dense, TARGET))
        assert len(pruned.model(ids, output_hidden_states=True).hidden_states) == dense.spec.num_hidden_layers + 1


def test_suspension_is_for_the_blocks_that_are_open_already():
    module, values = torch.nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    torch.nn.init.ones_(module.weight)
    with torch.no_grad(), on_inputs([(module, lambda states: states * 2)]):
        with hooks_suspended():
            assert module(values) == 1
            with on_inputs([(module, lambda states: states * 3)]):
                assert module(values) == 3
                with hooks_suspended():
                    assert module(values) == 1
                assert module(values) == 3
        assert module(values) == 2
        with pytest.raises(ZeroDivisionError), hooks_suspended():
            raise ZeroDivisionError
        assert module(values) == 2
