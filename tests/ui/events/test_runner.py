"""How a handler becomes a function that gradio can call."""

import inspect
from types import SimpleNamespace

import gradio as gr
from gradio.events import EventData
from gradio.helpers import special_args
from gradio.utils import get_type_hints

from ui.events.runner import bound

REQUEST = SimpleNamespace(session_hash="a visitor")


def on_click(context, panels, value: int, event: gr.EventData, request: gr.Request) -> dict:
    """What is said of it."""
    return {"all": (context, panels, value, event, request)}


def on_long_click(context, panels, request: gr.Request, token: gr.OAuthToken | None, *values):
    yield context, panels, request.session_hash
    yield token, values


def test_gradio_sees_the_parameters_that_are_left():
    function = bound(on_click, "context", "panels")
    assert list(inspect.signature(function).parameters) == ["value", "event", "request"]
    assert get_type_hints(function) == {"value": int, "event": gr.EventData, "request": gr.Request, "return": dict}
    assert (function.__name__, function.__module__, function.__doc__) == ("on_click", __name__, "What is said of it.")
    assert not inspect.isgeneratorfunction(function)


def test_a_request_and_an_event_reach_the_handler():
    function, event = bound(on_click, "context", "panels"), EventData(None, {})
    values, *_ = special_args(function, [7], REQUEST, event)
    context, panels, value, seen, request = function(*values)["all"]
    assert (context, panels, value, request) == ("context", "panels", 7, REQUEST)
    assert isinstance(seen, EventData)


def test_a_generator_stays_one():
    function = bound(on_long_click, "context", "panels")
    assert inspect.isgeneratorfunction(function)
    values, *_ = special_args(function, [1, 2], SimpleNamespace(session_hash="a visitor", session={}))
    assert list(function(*values)) == [("context", "panels", "a visitor"), (None, (1, 2))]


def test_values_can_be_named():
    assert bound(lambda first, second, third=3: (first, second, third), 1)(second=2) == (1, 2, 3)
