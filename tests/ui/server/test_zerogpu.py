"""On ZeroGPU the forward passes run in a forked process that is thrown away, and come to the same numbers."""

import json
import os
import subprocess
import sys

import pytest

import transact as ta
from tests.conftest import ROOT
from ui.server import zerogpu

pytestmark = pytest.mark.long

SCRIPT = """
import json, os
from dataclasses import replace
import spaces
import transact as ta
from ui.state import plan_of_choice
from ui.text_sources import text_source
from ui.work import measuring, scoring, pruning
from ui.server import zerogpu
from ui.work.jobs import Jobs
from ui.work.registry import Registry
from ui.state.session import BUNDLED, Choice, Sampling, Session

assert zerogpu.LENT
measuring.MAP_SEQUENCES, measuring.MAP_MLP_SPARSITIES, measuring.PROBE_ITEMS = 2, (0.0, 0.5), 4
jobs = Jobs()
finish = lambda work: jobs.finish("me", "Working", work)
weights = lambda loaded: sum(float(tensor.double().abs().sum()) for tensor in loaded.model.state_dict().values())

def whole_way():
    registry = Registry()
    text, measured = text_source.sample("mixed"), text_source.evaluation_sample("addition")
    measured = replace(measured, texts=measured.texts[:2])
    scored = finish(lambda watch: scoring.score(registry, BUNDLED, text, Sampling(4, 32, taylor=True), watch))
    loaded = registry.dense(BUNDLED)
    before = weights(loaded)
    session = plan_of_choice.planned(Session("me", BUNDLED, scored.spec, scored, choice=Choice(metric="taylor")))
    tried = finish(lambda watch: measuring.what_if(registry, session, measured, watch, prompt="2+", with_probes=True))
    result = finish(lambda watch: pruning.cut(registry, session, "best", watch, search=True))
    result = finish(lambda watch: measuring.measure(registry, "me", result, measured, watch, with_probes=True))
    written = finish(lambda watch: measuring.generate(registry, session.with_result(result), "7+", watch))
    swept = finish(lambda watch: measuring.redundancy(registry, session, measured, watch))
    assert weights(loaded) == before and loaded.device.type == "cpu"
    return {
        "scores": scored.scores["taylor"].heads[0].tolist(), "tried": [tried.dense, tried.masked, tried.masked_writes],
        "plan": result.plan.digest, "perplexity": result.report.perplexity, "floor": result.floor,
        "probes": [tried.probes, result.probes], "written": written,
        "swept": [point.perplexity for point in swept.points],
    }

zerogpu.LENT = False
here = whole_way()
assert not spaces.calls
zerogpu.LENT, told = True, {"here": here, "main": os.getpid()}
for name, keep in (("forked", False), ("kept", True)):
    spaces.KEEP = keep
    spaces.calls.clear()
    spaces.pids.clear()
    told[name] = whole_way()
    told[f"{name} calls"], told[f"{name} pids"] = list(spaces.calls), sorted(spaces.pids)

def said(work):
    try:
        return finish(work)
    except ta.TransactError as error:
        return f"{type(error).__name__} {error}"

loaded = ta.load("bundled")
ask = lambda call, *rest: said(
    lambda watch: zerogpu.forward(call, loaded, *rest, tokens=1, progress=watch)
)
told["own error"] = ask(ta.generate, "")
told["other error"] = ask(len)
spaces.REFUSE = "You have exceeded your quota. <a href='https://example.org'>Sign in</a>"
told["refused"] = ask(ta.generate, "A fox")
spaces.REFUSE = None
told["next"] = ask(ta.generate, "A fox")
told["expected"] = ta.generate(loaded, "A fox")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests" / "stand_ins"), "SPACES_ZERO_GPU": "true", "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["forked", "kept"])
def test_the_same_numbers_whether_the_process_is_new_or_kept(told, how):
    """A kept process was forked before the models were there, and is given them."""
    assert told[how] == told["here"]


def test_it_is_another_process_and_little_comes_back(told):
    assert told["main"] not in told["forked pids"] + told["kept pids"]
    assert len(told["forked pids"]) == len(told["forked calls"])
    assert len(told["kept pids"]) == 1
    weights = ta.load("bundled").spec.num_parameters * 4
    assert all(sent < 1000 for _, sent, _ in told["forked calls"]), "a fork finds the models where they are"
    assert max(sent for _, sent, _ in told["kept calls"]) > weights
    assert all(back < weights / 5 for _, _, back in told["forked calls"] + told["kept calls"])


def test_the_time_is_asked_for_by_model_and_tokens(told):
    seconds = [asked for asked, _, _ in told["forked calls"]]
    assert all(15 <= asked <= 120 for asked in seconds)
    assert len(set(seconds)) > 1, "a search takes longer than a perplexity"
    loaded = ta.load("bundled")
    assert zerogpu.seconds(loaded, 1000, 1) == 15
    assert 15 < zerogpu.seconds(loaded, 1000, 1000) < zerogpu.seconds(loaded, 10**7, 1000) <= 120
    assert zerogpu.seconds(loaded, 10**12, 1) == 120


def test_errors_come_back_as_sentences(told):
    assert told["own error"].startswith("InvalidPrompt")
    assert told["other error"].startswith("NoGpu The GPU is not to be had") and "TypeError" in told["other error"]
    assert "quota" in told["refused"] and "<" not in told["refused"] and "try again" in told["refused"]
    assert told["next"] == told["expected"]


def test_without_the_package_nothing_is_in_between():
    assert not zerogpu.LENT and zerogpu.HOME == "auto"

    def call(loaded, given, *, progress):
        return loaded, given, progress

    assert zerogpu.forward(call, 1, 2, tokens=3, progress=4) == (1, 2, 4)
