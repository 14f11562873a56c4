"""Visitors apart from each other, work that can be stopped, and models that make room."""

import threading
import time
from contextvars import ContextVar
from dataclasses import replace

import pytest
import torch

import transact as ta
from ui.errors import Busy, NotYet
from ui.server import memory
from ui.server.memory import LruCache
from ui.state import session as sessions_module
from ui.state import session_store
from ui.state.session import BUNDLED, Moment, Result, Sampling, Scored, Session, Timeline
from ui.state.session_store import Sessions
from ui.text_sources.text_source import TextSource
from ui.views import progress_line
from ui.work import job_queue
from ui.work.jobs import FILES, LIVE, MODEL, SMALL, Finished, Jobs, Tick, Watch


def fresh(id: str) -> Session:
    return Session(id, BUNDLED, None, None)


def a_run(size: int) -> Scored:
    """A calibration run whose statistics take `size` bytes."""
    return Scored(
        BUNDLED, None, TextSource("x", ("x",), "pasted"), Sampling(), None, None, 0.0,
        torch.zeros(size, dtype=torch.int8), scores={},
    )  # fmt: skip


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

    def test_the_one_idle_longest_is_dropped_and_told_so(self):
        forgotten = []
        sessions = Sessions(fresh, forgotten.append, max_sessions=2)
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

    def test_what_is_pressed_before_the_tab_is_named_waits_for_its_name(self):
        sessions = Sessions(fresh, lambda id: None)
        sessions.adopt("first", "secret")
        sessions.update("first", lambda old: replace(old, counted=3))
        owners = []
        pressed = threading.Thread(target=lambda: owners.append(sessions.owner_on_page("second")))
        pressed.start()
        pressed.join(0.1)
        assert not owners
        sessions.adopt("second", "secret")
        pressed.join(10)
        assert owners == ["first"]

    def test_a_page_that_never_names_its_tab_is_its_own_after_a_while(self, monkeypatch):
        monkeypatch.setattr(session_store, "ARRIVAL_SECONDS", 0.05)
        sessions = Sessions(fresh, lambda id: None)
        assert sessions.owner_on_page("silent") == "silent"
        monkeypatch.setattr(session_store, "ARRIVAL_SECONDS", 3600)
        assert sessions.owner_on_page("silent") == "silent"

    def test_a_browser_that_keeps_nothing_shares_no_work(self):
        sessions = Sessions(fresh, lambda id: None)
        sessions.adopt("first", None)
        sessions.update("first", lambda old: replace(old, counted=3))
        assert not sessions.adopt("second", None)
        assert sessions.get(sessions.owner("second")).counted == 0

    def test_a_page_that_was_reloaded_leaves_without_its_visitor_leaving(self):
        sessions = Sessions(fresh, lambda id: None)
        sessions.adopt("first", "secret")
        sessions.get("first")
        sessions.adopt("second", "secret")
        assert not sessions.leave("first")  # heard late: the new page is open
        assert sessions.leave("second")
        sessions.adopt("third", "secret")
        sessions.adopt("fourth", "secret")  # a tab that was duplicated
        assert not sessions.leave("fourth")
        assert sessions.leave("third")
        assert sessions.leave("a script")

    def test_the_number_of_calibration_runs_is_bounded(self):
        sessions, runs = Sessions(fresh, lambda id: None), [a_run(1) for _ in range(sessions_module.MAX_RUNS + 4)]

        def scored_and_cut(run: Scored):
            def change(old: Session) -> Session:
                moments = (*old.timeline.past, Moment(old.scored, old.choice))
                result = Result(old.counted + 1, run, old.choice, None, "none")
                return replace(old, scored=run, timeline=Timeline(moments)).with_result(result)

            return change

        for run in runs:
            session = sessions.update("a", scored_and_cut(run))
        kept = runs[-sessions_module.MAX_RUNS :]
        assert [result.scored for result in session.results] == kept
        assert [moment.scored for moment in session.timeline.past] == [None, *kept[:-1]]

    def test_the_one_idle_longest_goes_where_scores_take_too_much_memory(self):
        forgotten, shared = [], a_run(100)
        sessions = Sessions(fresh, forgotten.append, max_bytes=250)
        for id in ("a", "b", "c"):  # what they share counts once
            sessions.update(id, lambda old: replace(old, scored=shared))
        sessions.update("a", lambda old: replace(old, second=a_run(100)))
        assert forgotten == []
        sessions.update("c", lambda old: replace(old, second=a_run(100)))
        assert forgotten == ["b", "a"]
        sessions.update("c", lambda old: replace(old, second=a_run(1000)))
        assert sessions.get("c").second.held_bytes == 1000

    def test_steps_out_of_order_say_what_comes_first(self):
        session = fresh("a")
        with pytest.raises(NotYet, match="press Score"):
            session.need_plan()
        with pytest.raises(NotYet, match="press Prune"):
            session.need_result()


def deaf_job(jobs: Jobs, release: threading.Event):
    """A job of the visitor "a" that hears nothing until `release`, at work."""
    begun = threading.Event()
    run = jobs.run("a", "Deaf", lambda watch: (begun.set(), release.wait(60)))
    next(run)
    assert begun.wait(10)
    return run


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
        assert any(tick.seconds_left is not None and tick.seconds_left < 60 for tick in ticks)

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

    def test_who_came_first_is_served_first_and_sees_how_many_are_before(self):
        jobs, release, served = Jobs(), threading.Event(), []
        first = jobs.run("first", "First", lambda watch: release.wait(10))
        next(first)
        waiting = []
        for number in range(5):
            run = jobs.run(f"{number}", "Waiting", lambda watch, number=number: served.append(number))
            waiting.append(run)
            seen = next(run)
            while not seen.waiting:
                seen = next(run)
            assert seen.before == number + 1
        assert (jobs.running, jobs.waiting) == (1, 5)
        assert f"{seen.before} before you" in progress_line.progress(seen)
        jobs.stop("1")
        with pytest.raises(ta.Cancelled):
            list(waiting[1])
        moved_up = next(tick for tick in waiting[4] if tick.before != 5)
        assert moved_up.before == 4
        release.set()
        for run in (first, *waiting[:1], *waiting[2:]):
            list(run)
        assert served == [0, 2, 3, 4]
        assert (jobs.running, jobs.waiting) == (0, 0)

    def test_short_work_goes_before_long_work_that_came_a_little_earlier(self):
        jobs, release, served = Jobs(), threading.Event(), []
        jobs._lines[MODEL]._seconds |= {"export": 1000.0, "generate": 0.001}
        first = jobs.run("first", "Working", lambda watch: release.wait(10))
        next(first)
        long, short = (
            jobs.run(kind, "Working", lambda watch, kind=kind: served.append(kind), kind=kind)
            for kind in ("export", "generate")
        )
        next(long)
        next(short)
        time.sleep(0.1)
        release.set()
        for run in (first, long, short):
            list(run)
        assert served == ["generate", "export"]

    @pytest.mark.parametrize("line", [FILES, SMALL, LIVE])
    def test_what_is_short_is_done_beside_a_job_that_has_a_large_model(self, line):
        jobs, release = Jobs(), threading.Event()
        working = jobs.run("a", "Working", lambda watch: release.wait(60))
        next(working)
        assert jobs.finish("b", "Short", lambda watch: "there", line=line) == "there"
        release.set()
        list(working)

    def test_live_text_does_not_keep_its_visitor_busy(self):
        jobs, release = Jobs(), threading.Event()
        live = jobs.run(f"a/{LIVE}", "Writing", lambda watch: release.wait(60), line=LIVE)
        next(live)
        assert not jobs.busy("a")
        release.set()
        list(live)

    def test_what_nobody_listens_for_is_not_begun(self):
        listeners = set()
        here = ContextVar("here")
        jobs = Jobs(heard=lambda: here.get() in listeners)
        here.set("unheard")
        unheard = jobs.run("a", "Working", lambda watch: "late")
        next(unheard)
        here.set("heard")
        listeners.add("heard")
        assert jobs.finish("b", "Working", lambda watch: "done") == "done"
        assert (jobs.waiting, jobs.running) == (1, 0)
        listeners.add("unheard")
        assert list(unheard)[-1].value == "late"

    def test_a_full_line_is_said_at_once_and_work_without_a_model_goes_on(self, monkeypatch):
        monkeypatch.setattr(job_queue, "MAX_JOBS", 2)
        jobs, release = Jobs(), threading.Event()
        runs = [jobs.run(owner, "Working", lambda watch: release.wait(10)) for owner in ("a", "b")]
        for run in runs:
            next(run)
        with pytest.raises(Busy, match="2 runs are before you"):
            next(jobs.run("c", "Working", lambda watch: None))
        assert jobs.finish("c", "Reading", lambda watch: "read", line=None) == "read"
        release.set()
        for run in runs:
            list(run)
        assert jobs.finish("c", "Working", lambda watch: "done") == "done"

    def test_one_address_has_half_of_the_line_and_others_come_in(self, monkeypatch):
        monkeypatch.setattr(job_queue, "MAX_JOBS_EACH", 2)
        jobs, release = Jobs(), threading.Event()
        for owner in ("a", "b", "c"):
            jobs.come_from(owner, "8.8.8.8")
        jobs.come_from("d", "1.1.1.1")
        for owner in ("e", "f"):
            jobs.come_from(owner, None)  # behind a proxy that does not tell
        runs = {owner: jobs.run(owner, "Working", lambda watch: release.wait(10)) for owner in "abdef"}
        for run in runs.values():
            next(run)
        with pytest.raises(Busy, match="2 runs from your address are here already"):
            next(jobs.run("c", "Working", lambda watch: None))
        release.set()
        for run in runs.values():
            list(run)
        assert jobs.finish("c", "Working", lambda watch: "done") == "done"

    def test_all_jobs_of_one_who_is_gone_are_told_to_stop(self):
        jobs = Jobs()

        def work(watch: Watch) -> None:
            watch.stop.wait(10)
            watch.raise_if_cancelled()

        runs = [jobs.run(owner, "Working", work, line=None) for owner in ("a", "a/card", "ab")]
        for run in runs:
            next(run)
        jobs.stop_all("a")
        for run in runs[:2]:
            with pytest.raises(ta.Cancelled):
                list(run)
        assert jobs.busy("ab") and not jobs.busy("a")
        jobs.stop_all("ab")
        with pytest.raises(ta.Cancelled):
            list(runs[2])

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

    def test_a_stopped_job_is_at_work_until_its_thread_has_ended(self):
        jobs, release = Jobs(), threading.Event()
        run = deaf_job(jobs, release)
        jobs.stop("a")
        assert next(run) == Tick("Stopping", stopping=True)
        ended = threading.Thread(target=lambda: list(run))
        ended.start()
        ended.join(1)
        assert ended.is_alive() and jobs.busy("a") and jobs.running == 1
        release.set()
        ended.join(10)
        assert not ended.is_alive() and not jobs.busy("a") and jobs.running == 0

    def test_who_closes_the_page_is_at_work_until_the_thread_has_ended(self):
        jobs, release = Jobs(), threading.Event()
        run = deaf_job(jobs, release)
        run.close()
        assert jobs.busy("a") and jobs.running == 1
        again = jobs.under_way("a")  # as the page sees it that was loaded anew
        assert next(again) == Tick("Stopping", stopping=True)
        release.set()
        assert list(again) == []
        assert not jobs.busy("a") and jobs.running == 0

    def test_the_next_job_of_a_stopped_one_waits_for_its_end_and_can_be_stopped(self):
        jobs, release = Jobs(), threading.Event()
        deaf = deaf_job(jobs, release)
        jobs.stop("a")
        following = jobs.run("a", "Next", lambda watch: "done")
        assert next(following) == Tick("Next", before=1)
        assert jobs.running == 1 and jobs.waiting == 1
        jobs.stop("a")
        with pytest.raises(ta.Cancelled):
            list(following)
        following = jobs.run("a", "Another", lambda watch: "done")
        next(following)
        release.set()
        assert list(following)[-1] == Finished("done")
        list(deaf)
        assert not jobs.busy("a") and (jobs.running, jobs.waiting) == (0, 0)

    def test_a_job_beside_another_does_not_say_that_nothing_runs(self):
        jobs, release = Jobs(), threading.Event()
        main = jobs.run("a", "Main", lambda watch: release.wait(60))
        next(main)
        jobs.finish("a/card", "Card", lambda watch: None, line=None)
        assert jobs.busy("a/card") and not jobs.busy("b")
        release.set()
        list(main)
        assert not jobs.busy("a/card")

    def test_figures_said_again_are_no_news_but_are_heard(self):
        watch = Watch("Working")
        watch(2, 4, "tokens")
        tick = watch.latest
        time.sleep(0.01)
        watch(2, 4, "tokens")
        assert watch.latest == tick
        watch.stop.set()
        with pytest.raises(ta.Cancelled):
            watch(2, 4, "tokens")
        watch.note(3, 4, "tokens")
        assert watch.latest.done == 3

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
        while not next(run).total:
            pass
        run.close()
        assert seen.wait(60)


class TestShelf:
    def test_drops_the_least_recently_used(self):
        shelf = LruCache(max_items=2)
        shelf.put("a", 1)
        shelf.put("b", 2)
        assert shelf.get("a") == 1
        shelf.put("c", 3)
        assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == (1, None, 3)

    def test_is_bounded_in_bytes_but_takes_a_large_one_alone(self):
        shelf = LruCache(max_items=9, max_bytes=10)
        shelf.put("a", 1, size=6)
        shelf.put("b", 2, size=5)
        assert (shelf.get("a"), shelf.get("b")) == (None, 2)
        shelf.put("c", 3, size=50)
        assert (shelf.get("b"), shelf.get("c")) == (None, 3)

    def test_idle_values_expire(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
        shelf = LruCache(max_items=9, idle_seconds=60)
        shelf.put("a", 1)
        now[0] = 59
        assert shelf.get("a") == 1
        now[0] = 59 + 61
        assert shelf.get("a") is None
