"""Long work: done in another thread, stopped on request, watched by a generator that yields how far it is.

Gradio cannot stop a plain function that runs, and a visitor who waits for other visitors' runs must see how many
are before, and be able to leave. So jobs wait in queues of our own (`job_queue`), one job of each at a time: work on
large models, on small ones, live text, and the files of models, so that neither a large model's minutes nor a slow
network delays what takes seconds.
"""

import contextvars
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import transact as ta
from transact.runtime.isolated_process import progress_for_processes
from ui.errors import Busy, NotYet
from ui.server import error_messages
from ui.server.telemetry import Telemetry, raised, resident_bytes
from ui.work.forecast import Step
from ui.work.job_queue import POLL_SECONDS, JobQueue, QueuedJob
from ui.work.watch import Finished, Partial, Tick, Watch

MODEL, SMALL, LIVE, FILES = "model", "small", "live", "files"
"""The queues: for work on a model, on a small one, which takes seconds and must not wait for another's minutes, for a
few written words, and for work that fetches and tries a model's files."""
_WAITING_POLL_SECONDS = 0.5
"""How often the place of a waiting job is looked at, of which there are many."""
_MAX_ADDRESSES = 2_000

T = TypeVar("T")


class Jobs:
    """At most one job a visitor, and one at a time of each queue (see `JobQueue`).

    A job that was asked to stop is at work until its thread has ended. Its owner may ask for the next one meanwhile;
    where that needs a model, it waits in the queue behind.
    """

    def __init__(
        self, telemetry: Telemetry | None = None, heard: Callable[[], bool] = lambda: True,
        learn: Callable[[list[tuple[Step, float]]], None] = lambda timings: None,
    ):  # fmt: skip
        """`heard`: whether anybody waits for what is asked for in the context in which it is called; `learn` is given
        the steps of every job that are over, with their seconds.
        """
        self._telemetry = telemetry or Telemetry()
        self._heard = heard
        self._learn = learn
        self._lines = {name: JobQueue() for name in (MODEL, SMALL, LIVE, FILES)}
        self._latest: dict[str, Watch] = {}
        self._at_work: set[Watch] = set()
        self._addresses: OrderedDict[str, str | None] = OrderedDict()
        self._guard = threading.Lock()

    @property
    def waiting(self) -> int:
        """Jobs that are in a queue and have not begun."""
        return sum(line.waiting for line in self._lines.values())

    @property
    def running(self) -> int:
        """Jobs at work now: the one that has the model, and those that need none."""
        return max(0, len(self._at_work) - self.waiting)

    def run(
        self, owner: str, title: str, work: Callable[[Watch], T], *,
        kind: str = "other", line: str | None = MODEL, steps: Sequence[Step] = (),
    ) -> Iterator[Tick | Partial | Finished[T]]:  # fmt: skip
        """Do `work` in a thread and yield a `Tick` now and then, `Partial`s where it has some, at last one `Finished`.

        `kind` names the work in logs and counters, where `title` may hold a visitor's words. `line`: the queue to wait
        in, None for work that touches no model and so need not wait. `steps`: what it should consist of, for the time
        that it takes. Raises what `work` raised (see
        `error_messages.presentable`), `Cancelled` when stopped, `NotYet` where the owner's last job still runs and was
        not asked to stop, and `Busy` at once where the queue is full. Ends when the work has ended; closing the
        generator stops the work and does not wait for its end.
        """
        watch, outcome, ended = Watch(title, steps), [], threading.Event()
        asked = time.monotonic()

        def body() -> None:
            try:
                outcome.append(Finished(self._recorded(watch, kind, work, asked)))
            except BaseException as error:  # handed to the generator, which raises it again
                outcome.append(error)
            finally:
                self._over(owner, watch)

        # in the caller's context, where gradio keeps whose request it is: a lent GPU is asked for in that name
        run = functools.partial(contextvars.copy_context().run, body)
        heard = functools.partial(contextvars.copy_context().run, self._heard)
        self._begin(owner, QueuedJob(watch, kind, run, ended, heard, self._addresses.get(owner)), line)
        try:
            yield from self._ticks(watch, ended)
        finally:
            watch.stop.set()
            if line is not None and self._lines[line].leave(watch):
                self._record(kind, "cancelled", waited=time.monotonic() - asked)
                self._over(owner, watch)
        if not outcome:
            raise ta.Cancelled
        if isinstance(outcome[0], Finished):
            yield outcome[0]
            return
        try:
            raise error_messages.presentable(outcome[0], watch.title) from outcome[0]
        finally:
            outcome.clear()  # an error holds the frames it came through, and this frame held the error

    def finish(
        self, owner: str, title: str, work: Callable[[Watch], T], *, kind: str = "other", line: str | None = MODEL
    ) -> T:
        """`run` for a caller that needs only the outcome, such as an endpoint."""
        *_, last = self.run(owner, title, work, kind=kind, line=line)
        return last.value

    def come_from(self, owner: str, address: str | None) -> None:
        """Note the address from which an owner's jobs are asked for."""
        with self._guard:
            self._addresses[owner] = address
            self._addresses.move_to_end(owner)
            if len(self._addresses) > _MAX_ADDRESSES:
                self._addresses.popitem(last=False)

    def stop_all(self, owner: str) -> None:
        """Ask the owner's job to stop, and those beside it (`owner/…`)."""
        with self._guard:
            latest = [watch for other, watch in self._latest.items() if other.partition("/")[0] == owner]
        for watch in latest:
            watch.stop.set()

    def stop(self, owner: str) -> bool:
        """Ask the owner's job to stop; False where none runs."""
        with self._guard:
            watch = self._latest.get(owner)
        if watch is None:
            return False
        watch.stop.set()
        return True

    def busy(self, owner: str) -> bool:
        """Whether a job of the owner's, or one beside it (`owner/…`), waits, works or is being stopped.

        Live text, which shows no progress, does not count.
        """
        with self._guard:
            names = [other.partition("/") for other in self._latest]
        return any(name == owner.partition("/")[0] and beside != LIVE for name, _, beside in names)

    def under_way(self, owner: str) -> Iterator[Tick]:
        """The signs of progress of the owner's job until it has ended, for a page that did not begin it."""
        watch, shown = self._latest.get(owner), None
        while watch in self._at_work:
            if (tick := self._tick(watch)) != shown:
                shown = tick
                yield tick
            time.sleep(POLL_SECONDS)

    def _begin(self, owner: str, job: QueuedJob, line: str | None) -> None:
        with self._guard:
            before = self._latest.get(owner)
            if before is not None and not before.stop.is_set():
                waits = any(queue.waits(before) for queue in self._lines.values())
                now = "still waits for its turn" if waits else "is still running"
                raise NotYet(f"“{before.title}” {now}; wait for it or press Stop.")
            if line is not None:
                try:
                    self._lines[line].join(job)
                except Busy:
                    self._telemetry.add("transact_jobs_refused_total")
                    self._telemetry.event("job refused", kind=job.kind, waiting=self.waiting)
                    raise
            self._latest[owner] = job.watch
            self._at_work.add(job.watch)
        if line is None:
            work = lambda: (job.run(), job.ended.set())  # noqa: E731
            threading.Thread(target=work, name=f"job: {job.kind}", daemon=True).start()

    def _over(self, owner: str, watch: Watch) -> None:
        """Note that a job's thread has nothing more to do."""
        with self._guard:
            self._at_work.discard(watch)
            if self._latest.get(owner) is watch:
                del self._latest[owner]

    def _recorded(self, watch: Watch, kind: str, work: Callable[[Watch], T], asked: float) -> T:
        """`work` done, with its beginning and its end in the log and the counters; `asked`: when it was asked for."""
        began = time.monotonic()
        self._telemetry.event("job started", kind=kind, waited_seconds=began - asked)
        outcome, why = "cancelled", {}
        try:
            watch.raise_if_cancelled()
            watch.forecast.start()
            with progress_for_processes(watch.raise_if_cancelled):
                value = work(watch)
            outcome = "finished"
            watch.forecast.end()
            return value
        except ta.Cancelled:
            raise
        except BaseException as error:
            outcome = "failed"
            why = {"error": type(error).__name__} if isinstance(error, ta.TransactError) else raised(error)
            raise
        finally:
            seconds = time.monotonic() - began
            self._learn(watch.forecast.timings)
            self._record(kind, outcome, waited=began - asked, seconds=seconds, parameters=watch.parameters, **why)

    def _record(self, kind: str, outcome: str, *, waited: float, seconds: float = 0.0, **more) -> None:
        self._telemetry.add("transact_jobs_total", kind=kind, outcome=outcome)
        self._telemetry.add("transact_job_seconds_total", seconds, kind=kind)
        self._telemetry.add("transact_job_waited_seconds_total", waited, kind=kind)
        self._telemetry.event(
            f"job {outcome}", kind=kind, waited_seconds=waited, seconds=seconds, resident_bytes=resident_bytes(), **more
        )

    def _ticks(self, watch: Watch, ended: threading.Event) -> Iterator[Tick | Partial]:
        """The signs of progress until the work has ended, or its place in the queue is given up."""
        shown, partial = None, None
        while not ended.is_set():
            if watch.found is not partial:
                partial = watch.found
                yield partial
            if watch.stop.is_set() and any(line.waits(watch) for line in self._lines.values()):
                return
            if (tick := self._tick(watch)) != shown:
                shown = tick
                yield tick
            ended.wait(_WAITING_POLL_SECONDS if tick.waiting else POLL_SECONDS)

    def _tick(self, watch: Watch) -> Tick:
        """How a job stands now."""
        if watch.stop.is_set():
            return Tick("Stopping", stopping=True)
        before, wait = max((line.before(watch) for line in self._lines.values()), key=lambda each: each[0])
        return Tick(watch.title, before=before, wait=wait) if before else watch.latest
