"""The same call gives the same plan and the same bits, whatever was drawn before; more threads give the same plan."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.repair.distillation import distill

pytestmark = pytest.mark.slow


def _tensors(value) -> Iterator[torch.Tensor]:
    """All tensors that a value holds, however deep."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _tensors(vars(value))


def _all_of_it(loaded: ta.LoadedModel, text: ta.CalibrationSet) -> dict:
    """What every step of the work comes to, after the shared generators were left in another state each time."""
    statistics = ta.observe(loaded, text, gram=True, taylor=True, queries=True, samples=True, top_k=2)
    scores = {metric: ta.score(loaded, statistics, metric=metric) for metric in ta.METRICS}
    target = ta.PruningTarget(3, 20)
    plans = {
        **{name: ta.make_plan(each, loaded.spec, target) for name, each in scores.items()},
        **{name: ta.make_plan(scores["transact"], loaded.spec, target, allocation=name) for name in ta.ALLOCATIONS},
        "search": ta.search_plan(loaded, statistics, target),
        "widths": ta.make_plan(scores["transact"], loaded.spec, ta.search_widths(loaded, statistics, target)),
        "layers": ta.make_plan(scores["transact"], loaded.spec, ta.PruningTarget(4, 30, keep_layers=2)),
    }
    pruned = {
        (plan, repair): ta.prune(loaded, plans[plan], compensation=repair, statistics=statistics)
        for plan in ("transact", "search", "widths", "layers")
        for repair in ta.REPAIRS
    }
    taught = ta.prune(loaded, plans["transact"])
    distilled = distill(loaded, taught, text, steps=12)
    return {
        "statistics": list(_tensors(statistics)),
        "scores": list(_tensors(scores)),
        "plans": {name: plan.to_json() for name, plan in plans.items()},
        "weights": [list(_tensors(each.model.state_dict())) for each in (*pruned.values(), taught)],
        "distilled": distilled,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_call_gives_the_same_plan_and_bits(dtype):
    loaded = build("llama", dtype)
    text = ta.CalibrationSet.from_token_ids(token_ids(loaded, 16), name="drawn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = _all_of_it(loaded, text)
        torch.manual_seed(2)
        other = _all_of_it(loaded, text)
    assert one["plans"] == other["plans"] and one["distilled"] == other["distilled"]
    assert len(set(one["plans"].values())) > 5, "the plans are not all the same one"
    for name in ("statistics", "scores", "weights"):
        mine, theirs = list(_tensors(one[name])), list(_tensors(other[name]))
        assert len(mine) == len(theirs) > 10
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)), name


_PLANS = """
import json, torch, transact as ta
loaded = ta.load("bundled", dtype="float32")
lines = (ta.SAMPLES / "mixed.jsonl").read_text(encoding="utf-8").splitlines()
texts = [json.loads(line)["text"] for line in lines]
text = ta.CalibrationSet.from_texts(texts, loaded.tokenizer, num_samples=12, seq_len=128)
statistics = ta.observe(loaded, text, gram=True, taylor=True)
target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.3)
scores = {metric: ta.score(loaded, statistics, metric=metric) for metric in ta.METRICS}
plans = {metric: ta.make_plan(each, loaded.spec, target) for metric, each in scores.items()}
plans["global"] = ta.make_plan(scores["transact"], loaded.spec, target, allocation="global")
plans["search"] = ta.search_plan(loaded, statistics, target)
plans["widths"] = ta.make_plan(scores["transact"], loaded.spec, ta.search_widths(loaded, statistics, target))
print(torch.get_num_threads(), json.dumps({name: plan.digest for name, plan in plans.items()}))
"""


def test_one_thread_and_two_give_the_same_plan():
    commands = [sys.executable, "-c", _PLANS]
    running = [
        subprocess.Popen(
            commands, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        for threads in (1, 2)
    ]
    (one, plans), (two, same) = (each.communicate(timeout=300)[0].split(" ", 1) for each in running)
    assert (one, two) == ("1", "2") and [each.returncode for each in running] == [0, 0]
    assert plans == same
