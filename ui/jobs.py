"""Long work: a thread that can be stopped, watched by a generator that yields how far it is.

Gradio cannot stop a plain function that runs, and a visitor who waits for other visitors' runs must see how many
are before, and be able to leave. So each job waits for its turn in its own thread and checks its own stop event.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import transact as ta
from ui import failures
from ui.errors import Busy, NotYet
from ui.telemetry import Telemetry, raised, resident_bytes

MAX_JOBS = 48
"""Jobs at work and in line; who comes then is told to come back, and holds no thread until then."""
POLL_SECONDS = 0.15
_GRACE_SECONDS = 20.0
"""How long a stopped job may take to notice before the page stops waiting for it."""
_KEEPING_SECONDS = 600.0
"""The same for a job that has something to keep, which it still has to finish and measure."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tick:
    """How far a job is: `done` of `total` `unit`s, and the seconds left if they go on at this pace.

    `before`: how many jobs come first, the one at work included; 0 once this one is at work.
    """

    title: str
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds_left: float | None = None
    before: int = 0
    stopping: bool = False

    @property
    def waiting(self) -> bool:
        return self.before > 0


@dataclass(frozen=True)
class Finished(Generic[T]):
    """The last thing a job yields."""

    value: T


@dataclass(frozen=True)
class Partial(Generic[T]):
    """What a job has found so far, to be shown while it goes on."""

    value: T


class Watch:
    """The `Progress` a job hands to the library: notes the latest figures, and stops the work when told to.

    `parameters`: of the dense model that the work is about, noted by whoever fetches it.
    """

    def __init__(self, title: str):
        self.title = title
        self.stop = threading.Event()
        self.grace_seconds = _GRACE_SECONDS
        self.parameters: int | None = None
        self._keeps = False
        self.found: Partial | None = None
        self._began = time.monotonic()
        self._latest = Tick(title)

    def heed(self, done: int = 0, total: int = 0, unit: str = "") -> None:
        """A `Progress` that shows nothing, but stops the work when told to."""
        if self.stop.is_set() and not self._keeps:
            raise ta.Cancelled

    def keep_on_stop(self) -> None:
        """From here on the work looks at `stop` by itself, and what it keeps then is waited for."""
        self._keeps = True
        self.grace_seconds = _KEEPING_SECONDS

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.heed()
        now = time.monotonic()
        if unit != self._latest.unit or done < self._latest.done or done == 0:
            self._began = now
        left = (now - self._began) / done * (total - done) if done else None
        self._latest = Tick(self.title, done, total, unit, left)

    def says(self, title: str) -> None:
        """Begin the next stage of the same job."""
        self.title = title
        self._latest = Tick(title)
        self.heed()

    def finds(self, value) -> None:
        """Show what has been found so far; only the latest is sure to be seen."""
        self.found = Partial(value)

    def waits(self, before: int) -> None:
        """Show how many come first, or raise `Cancelled` when told to stop."""
        self._latest = Tick(self.title, before=before)
        self.heed()

    @property
    def latest(self) -> Tick:
        return self._latest


class Line:
    """Those who want the model: the first has it, the others get it in the order in which they came."""

    def __init__(self):
        self._changed = threading.Condition()
        self._watches: list[Watch] = []

    def __len__(self) -> int:
        return len(self._watches)

    def join(self, watch: Watch) -> None:
        """Stand at the end. Raises `Busy` where the line is full."""
        with self._changed:
            if len(self._watches) >= MAX_JOBS:
                raise Busy(
                    f"{len(self._watches)} runs are before you, which is all that may wait here. Try again in some "
                    "minutes; moving the sliders and looking around goes on as ever."
                )
            self._watches.append(watch)

    def wait(self, watch: Watch) -> None:
        """Return once all who came earlier have left; raises `Cancelled` when told to stop before."""
        with self._changed:
            while before := self._watches.index(watch):
                watch.waits(before)
                self._changed.wait(POLL_SECONDS)
            watch.waits(0)

    def leave(self, watch: Watch) -> None:
        with self._changed:
            self._watches.remove(watch)
            self._changed.notify_all()


class Jobs:
    """At most one job a visitor, and one at a time that touches a model: first come, first served."""

    def __init__(self, telemetry: Telemetry | None = None):
        self._telemetry = telemetry or Telemetry()
        self._line = Line()
        self._jobs: dict[str, Watch] = {}
        self._guard = threading.Lock()

    @property
    def waiting(self) -> int:
        """Jobs that stand in line behind the one that has the model."""
        return max(0, len(self._line) - 1)

    @property
    def running(self) -> int:
        """Jobs at work now: the one that has the model, and those that need none."""
        return max(0, len(self._jobs) - self.waiting)

    def run(
        self, owner: str, title: str, work: Callable[[Watch], T], *, kind: str = "other", model: bool = True
    ) -> Iterator[Tick | Partial | Finished[T]]:
        """Do `work` in a thread and yield a `Tick` now and then, `Partial`s where it has some, at last one `Finished`.

        `kind` names the work in logs and counters, where `title` may hold a visitor's words. `model=False` for work
        that touches no model and so need not wait. Raises what `work` raised (as `failures.told` tells it), `Cancelled`
        when stopped, `NotYet` where the owner's last job still runs, and `Busy` where too many wait. Closing the
        generator stops the work.
        """
        watch = self._begin(owner, title, kind, model)
        outcome: list[Finished[T] | BaseException] = []

        def body() -> None:
            try:
                outcome.append(Finished(self._recorded(watch, kind, work, model)))
            except BaseException as error:  # handed to the generator, which raises it again
                outcome.append(error)
            finally:
                if model:
                    self._line.leave(watch)

        # in the caller's context, where gradio keeps whose request it is: a lent GPU is asked for in that name
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(body,), name=f"job: {kind}", daemon=True
        )
        try:
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had: nobody else would leave the line for it
                if model:
                    self._line.leave(watch)
                raise
            yield from self._ticks(thread, watch)
        finally:
            watch.stop.set()
            with self._guard:
                self._jobs.pop(owner, None)
        if not outcome:
            raise ta.Cancelled
        if isinstance(outcome[0], BaseException):
            raise failures.told(outcome[0], watch.title) from outcome[0]
        yield outcome[0]

    def finish(
        self, owner: str, title: str, work: Callable[[Watch], T], *, kind: str = "other", model: bool = True
    ) -> T:
        """`run` for a caller who only wants the end, such as an endpoint."""
        *_, last = self.run(owner, title, work, kind=kind, model=model)
        return last.value

    def stop(self, owner: str) -> bool:
        """Ask the owner's job to stop; False where none runs."""
        with self._guard:
            watch = self._jobs.get(owner)
        if watch is None:
            return False
        watch.stop.set()
        return True

    def _begin(self, owner: str, title: str, kind: str, model: bool) -> Watch:
        watch = Watch(title)
        with self._guard:
            if owner in self._jobs:
                raise NotYet(f"“{self._jobs[owner].title}” is still running; wait for it or press Stop.")
            if model:
                try:
                    self._line.join(watch)
                except Busy:
                    self._telemetry.add("transact_jobs_refused_total")
                    self._telemetry.event("job refused", kind=kind, waiting=self.waiting)
                    raise
            self._jobs[owner] = watch
        return watch

    def _recorded(self, watch: Watch, kind: str, work: Callable[[Watch], T], model: bool) -> T:
        """`work` done in its turn, with its beginning and its end in the log and the counters."""
        asked, began = time.monotonic(), None
        outcome, why = "cancelled", {}
        try:
            if model:
                self._line.wait(watch)
            began = time.monotonic()
            self._telemetry.event("job started", kind=kind, waited_seconds=began - asked)
            value = work(watch)
            outcome = "finished"
            return value
        except ta.Cancelled:
            raise
        except BaseException as error:
            outcome = "failed"
            why = {"error": type(error).__name__} if isinstance(error, ta.TransactError) else raised(error)
            raise
        finally:
            ended = time.monotonic()
            waited, seconds = (began or ended) - asked, ended - (began or ended)
            self._telemetry.add("transact_jobs_total", kind=kind, outcome=outcome)
            self._telemetry.add("transact_job_seconds_total", seconds, kind=kind)
            self._telemetry.add("transact_job_waited_seconds_total", waited, kind=kind)
            self._telemetry.event(
                f"job {outcome}", kind=kind, waited_seconds=waited, seconds=seconds, parameters=watch.parameters,
                resident_bytes=resident_bytes(), **why,
            )  # fmt: skip

    @staticmethod
    def _ticks(thread: threading.Thread, watch: Watch) -> Iterator[Tick | Partial]:
        stopped_at, shown, found = None, None, None
        while thread.is_alive():
            if watch.found is not found:
                found = watch.found
                yield found
            if watch.stop.is_set():
                if stopped_at is None:
                    stopped_at = time.monotonic()
                    yield Tick("Stopping", stopping=True)
                if time.monotonic() - stopped_at > watch.grace_seconds:
                    return
            elif watch.latest != shown:
                shown = watch.latest
                yield shown
            thread.join(POLL_SECONDS)
