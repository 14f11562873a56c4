"""Every event of the page and every endpoint, each of its arguments in turn being what no form would send.

Through gradio's own reading of values. What is asked: one sentence or a result, never a failure that nobody
meant, and no memory to speak of. What would compute for long is told at once to stop, as its arguments are read before.
"""

import copy
import inspect
import itertools
import json
import logging
import math
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio.events import EventData
from gradio.helpers import special_args
from gradio.state_holder import SessionState
from pydantic import ValidationError

import transact as ta
from tests import own_loop, peaks
from tests.fuzz.strategies import one_sentence
from tests.tiers import cases
from transact.models import hub
from ui.server import error_messages
from ui.state import session_store

pytestmark = pytest.mark.slow

WRONG = [
    1e12, -1, 2.5, math.nan, math.inf, "1e12", "9" * 6000, [], [1], {},
    {"headers": ["a"], "data": [[1, [], 2, {}, 3]]}, None, True,
]  # fmt: skip
LONG = (
    "observe", "recover", "search_plan", "prune", "evaluate", "perplexity", "generate", "save", "save_gguf",
    "check_push", "push", "stability", "sweep", "run_probe", "compress",
    "attention_patterns", "evaluate_tasks", "probe_frontier",
)  # fmt: skip
ENDPOINTS = {
    "load_model": ["bundled"],
    "score": ["A fox.\n\nA crow.", "transact", 2, 8],
    "plan": [0.25, 0.5, "uniform"],
    "prune": ["none"],
    "evaluate": ["mixed"],
    "generate": ["Once"],
    "export": ["plan"],
}
PLOTS = ("heads-plot", "channels-plot", "layer-channels-plot", "redundancy-plot", "pareto-plot")
MOST_BYTES = 600_000_000
"""More than the process may grow by meanwhile; one 1e12 that is counted up to takes gigabytes."""
VISITOR = SimpleNamespace(session_hash="walk", query_params={}, username=None, session={}, headers={})
"""Has another name, and so work of its own, for each event: what one leaves behind does not hide the next."""


class Unexpected(logging.Handler):
    """Collects what `failures` logs, which is what nobody meant to happen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(repr(record.exc_info[1]))


def stopped(*arguments, **named):
    raise ta.Cancelled


def not_asked(*arguments, **named):
    raise ta.ModelNotFound("The hub is not asked here. Choose the bundled model.")


@pytest.fixture
def unexpected(monkeypatch):
    for name in LONG:
        monkeypatch.setattr(ta, name, stopped)
    monkeypatch.setattr(ta.CalibrationSet, "from_model", stopped)
    monkeypatch.setattr(hub, "find_config", not_asked)
    monkeypatch.setattr(session_store, "ARRIVAL_SECONDS", 0.0)  # no tab tells its name
    handler = Unexpected()
    error_messages.logger.addHandler(handler)
    yield handler
    error_messages.logger.removeHandler(handler)


def events(page) -> dict:
    """One event for each function that the page or a script can call, by its name."""
    named = {f"{each.fn.__module__}.{each.fn.__qualname__}": each for each in page.fns.values() if each.fn is not None}
    return {name: each for name, each in named.items() if name.startswith("ui.")}


async def call(page, event, values: list, state: SessionState, data=None) -> None:
    """Read the values as gradio's server does, and run an event to its end; raises what these raise."""
    inputs = await page.preprocess_data(event, list(values), state, False)
    inputs, *_ = special_args(event.fn, list(inputs), VISITOR, EventData(None, data))
    answer = event.fn(*inputs)
    if inspect.isgenerator(answer):
        for _ in answer:
            pass


def sound(event) -> list:
    """What the controls hold at first, as a browser sends it."""
    if event.api_name in ENDPOINTS and event.api_visibility == "public":
        return ENDPOINTS[event.api_name]
    return [component.value for component in event.inputs]


async def walk(page, unexpected: Unexpected, every: int) -> tuple[int, list[str]]:
    """The number of calls, and the faults found.

    Each place gets one in `every` of the wrong values, and the next place others.
    """
    calls, faults, state = 0, [], SessionState(page)
    first = itertools.cycle(range(every))

    def some() -> list:
        return WRONG[next(first) :: every]

    async def tried(name: str, event, values: list, data=None) -> None:
        nonlocal calls
        calls += 1
        try:
            await call(page, event, values, state, data)
        except (gr.Error, ta.TransactError) as error:
            try:
                one_sentence(Exception(getattr(error, "message", error)))
            except AssertionError as said:
                faults.append(f"{name}: said {said!s:.200}")
        except ValidationError:  # gradio has read no such file or table, and says so itself
            pass
        except Exception as error:
            faults.append(f"{name}: raised {error!r:.200}")
        faults.extend(f"{name}: {seen:.200}" for seen in unexpected.seen)
        unexpected.seen.clear()

    for name, event in events(page).items():
        VISITOR.session_hash, good = name, sound(event)
        for place in range(len(good)):
            for wrong in some():
                values = [*good[:place], wrong, *good[place + 1 :]]
                await tried(f"{name}, argument {place} is {wrong!r:.40}", event, values)
        if name.endswith("on_table"):
            for row, column in ((0, 1), (2, 3)):
                for wrong in some():
                    table = copy.deepcopy(good[0])
                    table["data"][row][column] = wrong
                    await tried(f"a cell that is {wrong!r:.40}", event, [table])
        if name.endswith("on_pointed"):
            for plot in PLOTS:
                for part in ("row", "x", "text", "key"):
                    for wrong in some():
                        clicked = {"plot": plot, "row": 0, "column": 0, "x": 0, part: wrong}
                        await tried(f"click on {plot}, {part} is {wrong!r:.40}", event, [], clicked)
            for wrong in some():
                await tried(f"a click that is {wrong!r:.40}", event, [], wrong)
        if name.endswith("on_lesson"):
            for wrong in some():
                await tried(f"lesson {wrong!r:.40}", event, [], {"lesson": wrong})
    return calls, faults


@pytest.mark.parametrize("every", cases([4, 1], test=[4]))
def test_every_argument_of_every_event(page, unexpected, every):
    with peaks.growth() as grown:
        calls, faults = own_loop.run(walk(page, unexpected, every))
        assert not faults, f"{len(faults)} of {calls}:\n" + "\n".join(faults[:60])
        assert calls > 1000 / every
        assert grown() < MOST_BYTES
    # what was good before is good after
    page_of_others = {event.api_name: event for event in page.fns.values() if event.api_visibility == "public"}
    own_loop.run(call(page, page_of_others["plan"], ENDPOINTS["plan"], SessionState(page)))


@pytest.mark.parametrize("route", ["run/predict", "queue/join", "run/nothing", "call/nothing", "call/v2/nothing"])
@pytest.mark.parametrize("number", [-1, 10**9, 1e12, "x", []])
def test_an_event_that_is_not_there(app_url, route, number):
    body = {"data": [], "fn_index": number, "session_hash": "nobody"}
    if "nothing" in route:
        body = {"data": [], "session_hash": "nobody"}
    answer = httpx.post(f"{app_url}gradio_api/{route}", json=body, timeout=60)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert "Traceback" not in answer.text and "site-packages" not in answer.text


def test_a_number_of_six_thousand_digits(app_url):
    digits = "9" * 6000
    for data in (f"[{digits}]", f'["{digits}"]'):
        body = f'{{"data": {data}, "fn_index": 0, "session_hash": "nobody"}}'
        answer = httpx.post(
            f"{app_url}gradio_api/run/predict", content=body, headers={"Content-Type": "application/json"}, timeout=60
        )
        assert answer.status_code < 500 or "error" in json.loads(answer.text)
        assert "Traceback" not in answer.text and "Something failed that should not" not in answer.text
