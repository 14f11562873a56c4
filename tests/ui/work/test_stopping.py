"""Stop at twenty moments of every kind of job: its thread ends within three seconds, and the next job begins."""

import copy
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import AutoModelForCausalLM

import transact as ta
from tests.slow_models import slowed
from tests.tiers import cases
from ui.context import AppContext
from ui.events import downloads
from ui.server.telemetry import Telemetry
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Result, Sampling, Session
from ui.text_sources import text_source
from ui.views.downloads import Exports
from ui.work import measuring, pruning, recovery, scoring
from ui.work.jobs import Jobs, Watch
from ui.work.recovery import Form
from ui.work.registry import Registry

pytestmark = pytest.mark.slow

OWNER = "visitor"
LAYERS, LAYER_SECONDS = 12, 0.25
ENDED_SECONDS, BEGUN_SECONDS = 3.0, 5.0
TEXT = text_source.TextSource("pasted text", text_source.sample("stories").texts[:4], "pasted")
FORM = Form(
    shots=1, shot_tokens=0, recovery_tokens=400, learning_rate=1e-3, loss="distillation", own_text=False,
    repair="none", search=False,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A visitor who has scored and cut with a model of twelve layers."""

    context: AppContext
    session: Session
    result: Result
    loaded: ta.LoadedModel


@pytest.fixture(scope="module")
def place() -> Place:
    bundled = ta.load(ta.BUNDLED)
    config = copy.deepcopy(bundled.model.config)
    config.num_hidden_layers = LAYERS
    torch.manual_seed(0)
    loaded = ta.LoadedModel.from_model(
        AutoModelForCausalLM.from_config(config, dtype=torch.float32), bundled.tokenizer, source=ta.BUNDLED
    )
    registry = Registry()
    registry._bundled = loaded
    scored = scoring.score(registry, BUNDLED, TEXT, Sampling(num_samples=4, seq_len=32), Watch("Scoring"))
    session = plan_of_choice.planned(Session(OWNER, BUNDLED, loaded.spec, scored, slider_steps.start(loaded.spec)))
    result = pruning.cut(registry, session, "none", Watch("Cutting"))
    session = replace(session, counted=1, results=(result,))
    return Place(AppContext(registry, None, Jobs(), Exports(), Telemetry(), scored), session, result, loaded)


def _score(place: Place, watch: Watch, number: int):
    sampling = Sampling(num_samples=4, seq_len=32, seed=number)  # what was scored so before would be there at once
    return scoring.score(place.context.registry, BUNDLED, TEXT, sampling, watch)


def _prune(place: Place, watch: Watch, number: int):
    session = replace(place.session, counted=number)
    result = pruning.cut(place.context.registry, session, "best", watch, search=True)
    return measuring.measure(place.context.registry, OWNER, result, TEXT, watch)


def _recover(place: Place, watch: Watch, number: int):
    session = replace(place.session, counted=number)
    return recovery.recover_and_measure(place.context.registry, session, recovery.training(session, FORM), TEXT, watch)


KINDS: dict[str, Callable[[Place, Watch, int], object]] = {
    "score": _score,
    "what-if": lambda place, watch, number: measuring.what_if(
        place.context.registry, place.session, TEXT, watch, prompt="Once upon a time", with_probes=True
    ),
    "search and best": _prune,
    "measure": lambda place, watch, number: measuring.measure(
        place.context.registry, OWNER, place.result, TEXT, watch, prompt="Once upon a time", with_probes=True
    ),
    "map": lambda place, watch, number: measuring.redundancy(place.context.registry, place.session, TEXT, watch),
    "stability": lambda place, watch, number: measuring.steadiness(place.context.registry, place.session, watch),
    "recover": _recover,
    "export": lambda place, watch, number: downloads.checkpoint(place.context, OWNER, place.result, watch),
    "generate": lambda place, watch, number: measuring.generate(
        place.context.registry, place.session, "Once upon a time", watch
    ),
}
AT_ONCE = {"stability": 0.02}
"""It runs no layer, so that it takes an instant: its moments are so much earlier."""
_draws = random.Random(16)
MOMENTS = [
    (number, kind, round(_draws.uniform(0.1, 8.0) * AT_ONCE.get(kind, 1), 2))
    for number, kind in zip(range(20), itertools.cycle(KINDS), strict=False)
]


@pytest.mark.parametrize(("number", "kind", "after"), cases(MOMENTS, test=[MOMENTS[at] for at in (0, 2, 6, 7)]))
def test_a_job_that_is_stopped_ends_and_the_next_one_begins(place, number, kind, after):
    jobs, stopped, begun = place.context.jobs, [], threading.Event()
    hooks = [(len(each._forward_pre_hooks), len(each._forward_hooks)) for each in place.loaded.model.modules()]
    weights = {name: tensor.clone() for name, tensor in place.loaded.model.state_dict().items()}

    def stop() -> None:
        stopped.append(time.monotonic())
        jobs.stop(OWNER)

    with slowed(place.loaded, LAYER_SECONDS):
        timer = threading.Timer(after, stop)
        timer.start()
        outcome = "finished"
        try:
            list(jobs.run(OWNER, kind, lambda watch: KINDS[kind](place, watch, 100 + number)))
        except ta.Cancelled:
            outcome = "stopped"
        ended = time.monotonic()
        timer.join()
        assert not jobs.busy(OWNER) and jobs.running == 0
        assert ended - stopped[0] < ENDED_SECONDS, outcome

        def next_work(watch: Watch) -> None:
            begun.set()
            _score(place, watch, 200 + number)

        following = jobs.run(OWNER, "score", next_work)
        next(following)
        assert begun.wait(max(0.0, stopped[0] + BEGUN_SECONDS - time.monotonic()))
        jobs.stop(OWNER)
        with pytest.raises(ta.Cancelled):
            list(following)
    assert hooks == [(len(each._forward_pre_hooks), len(each._forward_hooks)) for each in place.loaded.model.modules()]
    assert all(torch.equal(weights[name], tensor) for name, tensor in place.loaded.model.state_dict().items())
