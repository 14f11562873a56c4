"""Every endpoint with what no script should send: numbers as published, or one sentence."""

import inspect
import json
from functools import partial
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import transact as ta
from tests.fuzz.strategies import JUNK, ODD_TEXTS, fuzzing, one_sentence
from ui.work import measuring, pruning

pytestmark = pytest.mark.slow

SHORT = st.sampled_from(["mixed up", "A fox.\n\nA crow.", "1 + 1 = 2", "one", " "])
FEW = st.sampled_from([1, 2, 3, 2.0])
ARGUMENTS = {
    "load_model": [st.one_of(ODD_TEXTS, st.just("bundled"), JUNK)],
    "score": [
        st.one_of(SHORT, JUNK), st.one_of(st.sampled_from(["transact", "wanda", "random"]), JUNK), st.one_of(FEW, JUNK),
        st.one_of(FEW, JUNK),
    ],
    "plan": [
        st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0]), JUNK), st.one_of(st.sampled_from([0.5, 0.9, 0]), JUNK),
        st.one_of(st.sampled_from(ta.ALLOCATIONS), JUNK),
    ],
    "prune": [st.one_of(st.just("none"), ODD_TEXTS, JUNK)],
    "evaluate": [st.one_of(ODD_TEXTS, JUNK)],
    "generate": [st.one_of(ODD_TEXTS, JUNK)],
    "export": [st.one_of(st.just("plan"), ODD_TEXTS, JUNK)],
}  # fmt: skip
SHARES = {
    "load_model": 0.2, "score": 0.2, "plan": 0.3, "prune": 0.1, "evaluate": 0.08, "generate": 0.06, "export": 0.06,
}  # fmt: skip
VISITOR = SimpleNamespace(session_hash="fuzz")


@pytest.fixture(scope="module")
def endpoints(page):
    """The functions behind the endpoints, as the page's events hold them."""
    return {event.api_name: event.fn for event in page.fns.values() if event.api_name in ARGUMENTS}


def call(function, given_values) -> None:
    try:
        answer = function(*given_values, request=VISITOR)
    except gr.Error as error:
        one_sentence(error.message if isinstance(error.message, Exception) else Exception(error.message))
        return
    json.dumps(answer)


def only_read(registry, owner, result, text, watch, **settings):
    """What measuring does with a text before it takes its seconds."""
    measuring.evaluation_set(text, pruning.pruned_model(registry, owner, result, watch))
    raise ta.Cancelled


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Two tokens show as well as eighty that a prompt was taken."""
    monkeypatch.setattr(ta, "generate", partial(ta.generate, max_new_tokens=2))
    monkeypatch.setattr(measuring, "measure", only_read)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_endpoints(endpoints, name):
    function = endpoints[name]
    assert "request" in inspect.signature(function).parameters

    @fuzzing("endpoints", SHARES[name])
    @given(st.tuples(*ARGUMENTS[name]))
    def fuzz(values):
        call(function, values)

    fuzz()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_endpoints_over_http(app_url, name):
    """The same through gradio's own parsing; bodies that JSON cannot hold are not sent."""

    @fuzzing("http", 1 / len(ARGUMENTS))
    @given(st.tuples(*ARGUMENTS[name]), st.one_of(st.none(), ODD_TEXTS))
    def fuzz(values, visitor):
        try:
            body = json.dumps({"data": values, "session_hash": visitor}, allow_nan=False).encode()
        except ValueError:
            body = json.dumps({"data": []}).encode()
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(f"{app_url}gradio_api/run/{name}", content=body, headers=headers, timeout=120)
        assert answer.status_code in (200, 400, 422, 500)
        assert "Traceback" not in answer.text and "Something failed that should not" not in answer.text
        assert "site-packages" not in answer.text

    fuzz()
