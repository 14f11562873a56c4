"""Answers that nobody fetches go, and work that nobody waits for stops; who listens keeps both."""

import asyncio
import time
from contextlib import ExitStack

import httpx
import pytest
from gradio.queueing import EventQueue, Queue
from gradio.server_messages import ProcessGeneratingMessage

from tests import own_loop
from tests.slow_models import slowed
from ui.application import launch_options, open_context, page_of
from ui.server import abandoned_work
from ui.server.audience import Audience
from ui.state.session import BUNDLED

MINUTE = abandoned_work.SILENT_SECONDS


class Event:
    def __init__(self, session: str, id: str):
        self.session_hash, self._id, self.alive = session, id, True


@pytest.fixture
def place():
    """A queue of gradio's, who listens, and whose work was stopped."""

    class Place:
        def __init__(self):
            self.queue = Queue(True, 4, 1, None, blocks=None)
            self.queue.active_jobs = [None] * 4
            self.queue.event_queue_per_concurrency_id["light"] = EventQueue("light", 1)
            self.audience, self.stopped = Audience(), []
            self.watch = abandoned_work.Unheard(lambda: self.queue, self.audience, self.stopped.append)

        def ask(self, session: str, id: str, messages: int = 1) -> Event:
            """An event that is at work, with so many messages for who asked."""
            event = Event(session, id)
            waiting = self.queue.pending_messages_per_session
            waiting[session] = waiting.get(session) or asyncio.Queue()
            self.queue.pending_event_ids_session.setdefault(session, set()).add(id)
            self.queue.active_jobs[self.queue.active_jobs.index(None)] = [event]
            for _ in range(messages):
                self.queue.send_message(event, ProcessGeneratingMessage(output={}, success=True))
            return event

        def sweep(self, *times: float) -> None:
            for now in times:
                own_loop.run(self.watch.sweep(now))

        @property
        def kept(self) -> set[str]:
            return set(self.queue.pending_messages_per_session)

    return Place()


def listening(place, name: str):
    scope = {"type": "http", "method": "GET", "path": f"/gradio_api/heartbeat/{name}", "query_string": b""}
    return place.audience.listening(scope)


def test_a_minute_without_a_listener_ends_it(place):
    event = place.ask("a", "1")
    place.sweep(0, MINUTE - 1)
    assert place.kept == {"a"} and event.alive and not place.stopped
    place.sweep(MINUTE)
    assert not place.kept and not event.alive and place.stopped == ["a"]
    assert not place.queue.pending_event_ids_session


def test_who_listens_keeps_it_and_has_a_minute_again_afterwards(place):
    place.ask("a", "1")
    with listening(place, "a"):
        place.sweep(0, 10 * MINUTE)
    place.sweep(11 * MINUTE - 1)
    assert place.kept == {"a"} and not place.stopped
    place.sweep(11 * MINUTE)
    assert place.stopped == ["a"]


def test_a_listener_to_the_event_alone_counts(place):
    place.ask("a", "1")
    with listening(place, "1"):
        place.sweep(0, 10 * MINUTE)
    assert place.kept == {"a"}


def test_a_new_question_begins_the_minute_anew(place):
    place.ask("a", "1")
    place.sweep(0)
    place.ask("a", "2")
    place.sweep(MINUTE)
    assert place.kept == {"a"}
    place.sweep(2 * MINUTE)
    assert not place.kept


def test_a_name_with_nothing_under_way_goes_and_stops_nothing(place):
    place.queue.pending_messages_per_session["a"] = asyncio.Queue()
    place.sweep(0, MINUTE)
    assert not place.kept and not place.stopped


def test_unread_messages_are_bounded_and_who_listens_loses_them_last(place, monkeypatch):
    monkeypatch.setattr(abandoned_work, "MAX_UNREAD", 10)
    with ExitStack() as stack:
        stack.enter_context(listening(place, "heard"))
        place.ask("heard", "1", messages=9)
        place.ask("most", "2", messages=8)
        place.ask("few", "3", messages=1)
        place.sweep(0)
        assert place.kept == {"heard", "few"} and place.stopped == ["most"]
        place.ask("heard", "4", messages=10)
        place.sweep(1)
        assert not place.kept  # what one listens to and never reads is not kept either


def test_a_sweep_that_fails_is_not_the_last(place, monkeypatch, caplog):
    monkeypatch.setattr(abandoned_work, "_SWEEP_SECONDS", 0.01)
    swept = []

    async def sweep(now):
        swept.append(now)
        raise KeyError("gone meanwhile")

    async def serve():
        async with place.watch.watching(None):
            while len(swept) < 3:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(place.watch, "sweep", sweep)
    own_loop.run(serve())
    assert len(swept) >= 3


def test_a_server_ends_work_that_nobody_listens_for_and_forgets_it(monkeypatch):
    monkeypatch.setattr(abandoned_work, "SILENT_SECONDS", 1.0)
    context = open_context()
    page = page_of(context)
    ended = ("transact_jobs_total", (("kind", "score"), ("outcome", "cancelled")))
    _, url, _ = page.launch(
        server_name="127.0.0.1", server_port=None, prevent_thread_lock=True, quiet=True, **launch_options(context, page)
    )
    try:
        with slowed(context.registry.in_memory(BUNDLED), 2.0):
            score = f"{url}gradio_api/call/score"
            asked = httpx.post(score, json={"data": ["A fox met a crow.", "transact", 4, 8]}).json()
            until(lambda: context.jobs.waiting == 1)  # it is begun for who listens
            with httpx.stream("GET", f"{score}/{asked['event_id']}", timeout=60):
                until(lambda: context.jobs.running == 1)
                assert page._queue.pending_messages_per_session
            until(lambda: not page._queue.pending_messages_per_session)
            until(lambda: context.jobs.running == 0)
        assert context.telemetry.counters()[ended] == 1
    finally:
        page.close()


def until(happens, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)
