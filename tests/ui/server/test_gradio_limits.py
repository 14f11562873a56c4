"""What gradio prints, keeps and lets wait stays within bounds."""

import io
import json
import logging
import sys
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio import queueing, utils
from gradio.state_holder import SessionState

from tests import own_loop
from ui.server import gradio_limits
from ui.server.audience import Audience
from ui.server.request_guard import BODY_BYTES
from ui.server.telemetry import JsonLines

SECRET = "zanzibar"


def request(peer: str = "127.0.0.1", size: int = 100):
    scope = {"type": "http", "client": (peer, 1), "headers": [], BODY_BYTES: size}
    return SimpleNamespace(scope=scope)


class Queue:
    """What a doorkeeper sees of gradio's: the requests that wait."""

    def __init__(self, waiting: list):
        self.event_ids_to_events = {
            str(number): SimpleNamespace(request=each, session_hash=f"session {number}", _id=str(number))
            for number, each in enumerate(waiting)
        }

    def __len__(self) -> int:
        return len(self.event_ids_to_events)

    async def push(self, body, request, username):
        return True, "id", "success"


class Everybody(Audience):
    def hears(self, name: str) -> bool:
        return True


def test_questions_that_nobody_listens_for_an_answer_to_are_few():
    async def asked(audience, number):
        keeper = gradio_limits.Doorkeeper(Queue([request()] * number), audience)
        return await keeper.push(SimpleNamespace(data=[], session_hash="new"), request(), None)

    most = gradio_limits.MAX_UNHEARD
    assert own_loop.run(asked(Audience(), most - 1))[0]
    assert own_loop.run(asked(Audience(), most))[::2] == (False, "queue_full")
    heard = Audience()
    heartbeat = {"type": "http", "method": "GET", "path": "/gradio_api/heartbeat/new"}
    with heard.listening(heartbeat):
        assert own_loop.run(asked(heard, most))[0]


def joins(waiting: list, request, data=()) -> tuple:
    keeper = gradio_limits.Doorkeeper(Queue(waiting), Everybody())
    return own_loop.run(keeper.push(SimpleNamespace(data=list(data), session_hash="a"), request, None))


def test_one_address_has_a_part_of_the_queue_and_others_come_in():
    full = [request("8.8.8.8")] * gradio_limits.MAX_WAITING_EACH
    assert joins(full[1:], request("8.8.8.8"))[0]
    refused = joins(full, request("8.8.8.8"))
    assert refused[::2] == (False, "queue_full") and "from your address" in refused[1]
    assert joins(full, request("1.1.1.1"))[0]


def test_the_queue_ends():
    full = [request(f"8.8.{number}.8") for number in range(gradio_limits.MAX_WAITING)]
    assert joins(full[1:], request())[0]
    assert joins(full, request())[::2] == (False, "queue_full")


def test_the_requests_in_the_queue_are_so_long_together_and_no_longer():
    large = [request(size=gradio_limits.limits.MAX_CALL_BYTES)] * 6
    assert joins(large[1:], request(size=gradio_limits.limits.MAX_CALL_BYTES))[0]
    assert joins(large, request(size=1))[::2] == (False, "queue_full")


@pytest.mark.parametrize("values", [[[]] * 60_000, [{"a": 1, "b": 2}] * 30_000, [[[0] * 300]] * 200])
def test_a_request_of_many_values_is_refused(values):
    assert "too many values" in joins([], request(), values)[1]
    assert joins([], request(), values[: len(values) // 5])[0]


def test_a_deep_request_is_counted_too():
    value: list = []
    for _ in range(60_000):
        value = [value]
    assert "too many values" in joins([], request(), [value])[1]


@pytest.fixture
def printed(monkeypatch):
    """What an app writes that has been told to be quiet."""
    for module in (gradio_limits.queueing, gradio_limits.routes, gradio_limits.route_utils):
        monkeypatch.setattr(module, "traceback", module.traceback)
    monkeypatch.setattr(utils, "error_payload", utils.error_payload)
    monkeypatch.setattr(queueing, "error_payload", queueing.error_payload)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    monkeypatch.setattr(gradio_limits.logger, "handlers", [handler])
    monkeypatch.setattr(gradio_limits.logger, "propagate", False)
    gradio_limits.keep_quiet()
    return stream.getvalue


def test_an_error_is_logged_by_its_class_and_place_and_not_by_what_it_quotes(printed):
    try:
        raise ValueError(SECRET * 1000)
    except ValueError:
        queueing.traceback.print_exc()
    (line,) = printed().splitlines()
    assert SECRET not in line and json.loads(line)["error"] == "ValueError"
    assert json.loads(line)["at"][-1].startswith("test_gradio_limits.py:")


def test_an_error_is_told_as_far_as_anybody_reads(printed):
    for error in (gr.Error(SECRET * 1000), ValueError(SECRET * 1000)):
        said = queueing.error_payload(error, True)["error"]
        assert said.startswith(SECRET) and len(said) < gradio_limits.MAX_ERROR_CHARACTERS + 10
        assert utils.error_payload(error, True)["error"] == said
    assert queueing.error_payload(gr.Error("short"), True)["error"] == "short"


def test_a_new_name_costs_next_to_nothing(page):
    """Gradio would describe all parts of the page for each, 30 ms of the loop that answers everybody."""
    visitor = SessionState(page)
    assert list(visitor.components) == [] and visitor.blocks_config.blocks == page.default_config.blocks
    assert page.config["components"]  # the page's own description is whole


def test_who_reaches_the_page_from_elsewhere_stands_in_the_queue(monkeypatch):
    with gr.Blocks() as page:
        gr.Textbox()
    for direct in (True, False):
        gradio_limits.bound(page, Audience(), direct=direct)
        assert page.api_open is direct and page._queue.max_size == gradio_limits.MAX_WAITING
