"""Signs of progress: what they cost the work that they tell of."""

import inspect
from types import SimpleNamespace

import gradio as gr

from ui.state import session_store

MOST = 6
"""Components that a long step may touch while it runs: the line of progress, and a figure that grows with the work."""


def test_progress_touches_few_components(page):
    """Gradio makes every output anew at every sign of progress, whether it changes or not.

    With the whole page as outputs that took a third of one core from a real model's work, and halved the speed that was
    then measured for it. What paints all of the page must do so once, in an event that follows.
    """
    steps = [event for event in page.fns.values() if event.concurrency_id == "model" and event.name != "on_arrival"]
    working = {event.name: len(event.outputs) for event in steps if inspect.isgeneratorfunction(event.fn)}
    assert {"on_load", "on_score", "on_prune", "on_try", "on_start", "on_map", "on_checkpoint"} <= working.keys()
    assert {name: count for name, count in working.items() if count > MOST} == {}


def test_a_step_with_nothing_to_say_leaves_the_page_as_it_is(page, monkeypatch):
    """Gradio sends None to every output of a step that yields nothing, which emptied the message line: what was told
    of the first click after a page had opened was gone again."""
    monkeypatch.setattr(session_store, "ARRIVAL_SECONDS", 0.0)  # no tab tells its name
    (settled,) = [event for event in page.fns.values() if event.name == "on_settled"]
    (update,) = settled.fn(SimpleNamespace(session_hash="nobody", query_params={}))
    assert list(update.values()) == [gr.skip()]
