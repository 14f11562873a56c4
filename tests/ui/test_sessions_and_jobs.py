"""Visitors apart from each other, work that can be stopped, and models that make room."""

import threading
import time
from dataclasses import replace

import pytest

import transact as ta
from ui import memory
from ui import session as sessions_module
from ui.errors import NotYet
from ui.jobs import Finished, Jobs, Tick, Watch
from ui.memory import Shelf
from ui.session import BUNDLED, Session, Sessions


def fresh(id: str) -> Session:
    return Session(id, BUNDLED, None, None)


class TestSessions:
    def test_visitors_do_not_see_each_other(self):
        sessions = Sessions(fresh, lambda id: None)
        sessions.update("a", lambda old: replace(old, choice=replace(old.choice, mlp=0.9)))
        assert sessions.get("a").choice.mlp == 0.9
        assert sessions.get("b").choice.mlp == 0.5

    def test_a_failing_change_changes_nothing(self):
        sessions = Sessions(fresh, lambda id: None)
        before = sessions.get("a")
        with pytest.raises(ZeroDivisionError):
            sessions.update("a", lambda old: replace(old, counted=1 // 0))
        assert sessions.get("a") is before

    def test_the_one_idle_longest_is_dropped_and_told_so(self, monkeypatch):
        monkeypatch.setattr(sessions_module, "MAX_SESSIONS", 2)
        forgotten = []
        sessions = Sessions(fresh, forgotten.append)
        for id in ("a", "b", "a", "c", "a"):
            sessions.get(id)
        assert forgotten == ["b"]
        with pytest.raises(NotYet, match="reload the page"):
            sessions.get("b")

    def test_a_reloaded_tab_finds_its_work_and_another_tab_does_not(self):
        sessions = Sessions(fresh, lambda id: None)
        sessions.update("first", lambda old: replace(old, counted=3))
        assert not sessions.adopt("first", "secret")
        assert sessions.owner("first") == "first"
        assert sessions.adopt("second", "secret")
        assert sessions.get(sessions.owner("second")).counted == 3
        assert not sessions.adopt("third", "another secret")
        assert sessions.get(sessions.owner("third")).counted == 0

    def test_steps_out_of_order_say_what_comes_first(self):
        session = fresh("a")
        with pytest.raises(NotYet, match="press Score"):
            session.need_plan()
        with pytest.raises(NotYet, match="press Prune"):
            session.need_result()


class TestJobs:
    def test_progress_then_the_value(self):
        def work(watch: Watch) -> str:
            for done in range(5):
                watch(done, 4, "tokens")
                time.sleep(0.2)
            return "done"

        *ticks, last = Jobs().run("a", "Working", work)
        assert last == Finished("done")
        assert all(isinstance(tick, Tick) for tick in ticks)
        counted = [tick.done for tick in ticks if tick.total]
        assert counted == sorted(counted) and counted[-1] == 4
        assert any(tick.seconds_left is not None and tick.seconds_left < 2 for tick in ticks)

    def test_stop_ends_the_work_at_its_next_step(self):
        jobs, reached = Jobs(), []

        def work(watch: Watch) -> None:
            for done in range(1000):
                watch(done, 1000, "tokens")
                reached.append(done)
                time.sleep(0.01)

        run = jobs.run("a", "Working", work)
        next(run)
        assert jobs.stop("a")
        with pytest.raises(ta.Cancelled):
            list(run)
        assert len(reached) < 500
        assert not jobs.stop("a")

    def test_one_job_at_a_time_touches_a_model_and_waiting_can_be_stopped(self):
        jobs, release = Jobs(), threading.Event()
        first = jobs.run("a", "First", lambda watch: release.wait(10))
        next(first)
        second = jobs.run("b", "Second", lambda watch: "never")
        for tick in second:
            if tick.waiting:
                break
        jobs.stop("b")
        with pytest.raises(ta.Cancelled):
            list(second)
        release.set()
        assert list(first)[-1] == Finished(True)
        assert jobs.finish("b", "Third", lambda watch: "now") == "now"

    def test_an_error_is_raised_again_and_frees_the_model(self):
        jobs = Jobs()
        with pytest.raises(ta.InvalidText, match="empty"):
            jobs.finish("a", "Failing", lambda watch: (_ for _ in ()).throw(ta.InvalidText("empty")))
        assert jobs.finish("a", "Next", lambda watch: 1) == 1

    def test_a_second_job_of_the_same_visitor_is_refused(self):
        jobs, release = Jobs(), threading.Event()
        first = jobs.run("a", "First", lambda watch: release.wait(10))
        next(first)
        with pytest.raises(NotYet, match="“First” is still running"):
            next(jobs.run("a", "Second", lambda watch: None))
        release.set()
        list(first)

    def test_leaving_the_page_stops_the_work(self):
        jobs, seen = Jobs(), threading.Event()

        def work(watch: Watch) -> None:
            try:
                while True:
                    watch(0, 1, "tokens")
                    time.sleep(0.01)
            except ta.Cancelled:
                seen.set()
                raise

        run = jobs.run("a", "Working", work)
        next(run)
        run.close()
        assert seen.wait(2)


class TestShelf:
    def test_drops_the_least_recently_used(self):
        shelf = Shelf(max_items=2)
        shelf.put("a", 1)
        shelf.put("b", 2)
        assert shelf.get("a") == 1
        shelf.put("c", 3)
        assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == (1, None, 3)

    def test_is_bounded_in_bytes_but_takes_a_large_one_alone(self):
        shelf = Shelf(max_items=9, max_bytes=10)
        shelf.put("a", 1, size=6)
        shelf.put("b", 2, size=5)
        assert (shelf.get("a"), shelf.get("b")) == (None, 2)
        shelf.put("c", 3, size=50)
        assert (shelf.get("b"), shelf.get("c")) == (None, 3)

    def test_idle_values_expire(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
        shelf = Shelf(max_items=9, idle_seconds=60)
        shelf.put("a", 1)
        now[0] = 59
        assert shelf.get("a") == 1
        now[0] = 59 + 61
        assert shelf.get("a") is None
