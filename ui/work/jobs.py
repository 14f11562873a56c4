"""Long work: done in another thread, stopped when told to, watched by a generator that yields how far it is.

Gradio cannot stop a plain function that runs, and a visitor who waits for other visitors' runs must see how many
are before, and be able to leave. So jobs that need a model stand in a line of our own, which one thread works off.
That it is always the same thread also bounds memory: the allocator and torch keep what they need for every thread
anew, and with a thread for each job the process grew for as long as visitors came. What fetches the files of a model
stands in a second line, so that a slow network or a stranger's tokenizer holds up no one but those who load.
"""

import contextvars
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import transact as ta
from transact.runtime.isolated_process import progress_for_processes
from transact.runtime.memory import return_freed
from ui.errors import Busy, NotYet
from ui.server import error_messages
from ui.server.telemetry import Telemetry, raised, resident_bytes

MAX_JOBS = 48
"""Jobs at work and in line; who comes then is told to come back, and holds no thread until then."""
MAX_JOBS_EACH = MAX_JOBS // 2
"""Of those from one address of the internet, behind which a whole class may sit, or one who has many names."""
_MAX_PLACES = 2_000
POLL_SECONDS, _WAITING_POLL_SECONDS = 0.15, 0.5
"""How often is looked how far a job is: one at work, and one in line, of which there are many."""
MODEL, FILES = "model", "files"
"""The lines: for work on a model, and for work that fetches and tries its files."""
_SECONDS_AT_FIRST, _LATEST_WEIGHS = 10.0, 0.3
"""What a job of a kind takes before one was timed, and how much the latest one counts in the mean afterwards."""

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
        self.parameters: int | None = None
        self.found: Partial | None = None
        self._began = time.monotonic()
        self._latest = Tick(title)

    def raise_if_cancelled(self, done: int = 0, total: int = 0, unit: str = "") -> None:
        """A `Progress` that shows nothing, but stops the work when told to."""
        if self.stop.is_set():
            raise ta.Cancelled

    def note(self, done: int, total: int, unit: str) -> None:
        """A `Progress` that only shows, for work that looks at `stop` by itself; figures said again are no news."""
        latest = self._latest
        if (done, total, unit) == (latest.done, latest.total, latest.unit):
            return
        now = time.monotonic()
        if unit != latest.unit or done < latest.done or done == 0:
            self._began = now
        left = (now - self._began) / done * (total - done) if done else None
        self._latest = Tick(self.title, done, total, unit, left)

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.raise_if_cancelled()
        self.note(done, total, unit)

    def says(self, title: str) -> None:
        """Begin the next stage of the same job, unless it is to stop."""
        self.shows(title)
        self.raise_if_cancelled()

    def shows(self, title: str) -> None:
        """As `says`, for work that looks at `stop` by itself."""
        self.title = title
        self._latest = Tick(title)

    def finds(self, value) -> None:
        """Show what has been found so far; only the latest is sure to be seen."""
        self.found = Partial(value)

    @property
    def latest(self) -> Tick:
        return self._latest


@dataclass(frozen=True, eq=False)
class _Place:
    """In a line. `heard`: whether anybody waits for the outcome now; `address`: None where it is not known."""

    watch: Watch
    kind: str
    job: Callable[[], None]
    ended: threading.Event
    heard: Callable[[], bool]
    address: str | None
    since: float = field(default_factory=time.monotonic)


class JobQueue:
    """Jobs that are done one after the other.

    Next is whose wait is longest, measured by how long such a job takes (highest response ratio next): a sentence to be
    continued need not wait for three exports, and no export waits for ever. Of one kind, first come, first served. A
    job that nobody listens to is not begun.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._at_work: _Place | None = None
        self._waiting: list[_Place] = []
        self._seconds: dict[str, float] = {}
        self._worker: threading.Thread | None = None

    def __len__(self) -> int:
        return self.waiting + (self._at_work is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def join(self, place: _Place) -> None:
        """Have the job, which raises nothing, done in its turn, and then `ended` set.

        Raises `Busy` where the line is full, or half of it is from that address.
        """
        with self._changed:
            there = [*self._waiting, *([self._at_work] if self._at_work else [])]
            own = sum(place.address is not None and other.address == place.address for other in there)
            if own >= MAX_JOBS_EACH:
                raise Busy(
                    f"{own} runs from your address are here already, which is all that one may have. Try again once "
                    "some have ended; moving the sliders and looking around goes on as ever."
                )
            if len(there) >= MAX_JOBS:
                raise Busy(
                    f"{len(there)} runs are before you, which is all that may wait here. Try again in some "
                    "minutes; moving the sliders and looking around goes on as ever."
                )
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._worker.start()
            self._waiting.append(place)
            self._take_next()
            self._changed.notify_all()

    def waits(self, watch: Watch) -> bool:
        """Whether that job is in line and has not begun."""
        return any(place.watch is watch for place in list(self._waiting))

    def before(self, watch: Watch) -> int:
        """How many come first as it is now, the one at work included; 0 for who is not in line."""
        with self._changed:
            now, own = time.monotonic(), self._of(watch)
            if own is None:
                return 0
            first = sum(place is not own and self._goes_first(place, own, now) for place in self._waiting)
            return first + (self._at_work is not None)

    def leave(self, watch: Watch) -> bool:
        """Give up a place in line; False for the one at work, which has to end by itself."""
        with self._changed:
            own = self._of(watch)
            if own is not None:
                self._waiting.remove(own)
            return own is not None

    def _of(self, watch: Watch) -> _Place | None:
        return next((place for place in self._waiting if place.watch is watch), None)

    def _goes_first(self, one: _Place, other: _Place, now: float) -> bool:
        mine, theirs = self._ratio(one, now), self._ratio(other, now)
        return one.since < other.since if mine == theirs else mine > theirs

    def _ratio(self, place: _Place, now: float) -> float:
        return (now - place.since) / self._seconds.get(place.kind, _SECONDS_AT_FIRST)

    def _take_next(self) -> None:
        """Where nobody is at work: whose turn it is."""
        if self._at_work is None and (heard := [place for place in self._waiting if place.heard()]):
            now = time.monotonic()
            self._at_work = max(heard, key=lambda place: self._ratio(place, now))
            self._waiting.remove(self._at_work)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._take_next()
                while self._at_work is None:
                    self._changed.wait(POLL_SECONDS if self._waiting else None)
                    self._take_next()
                place = self._at_work
            began = time.monotonic()
            place.job()
            seconds = max(time.monotonic() - began, 1e-3)
            with self._changed:
                before = self._seconds.get(place.kind, seconds)
                self._seconds[place.kind] = before + _LATEST_WEIGHS * (seconds - before)
                self._at_work = None
                self._take_next()
            place.ended.set()
            del place  # with all that it holds, until somebody comes
            return_freed()


class Jobs:
    """At most one job a visitor, and one at a time that touches a model (see `JobQueue`).

    A job that was told to stop is at work until its thread has ended. Its owner may ask for the next one meanwhile;
    where that needs a model, it waits in line behind.
    """

    def __init__(self, telemetry: Telemetry | None = None, heard: Callable[[], bool] = lambda: True):
        """`heard`: whether anybody waits for what is asked for in the context in which it is called."""
        self._telemetry = telemetry or Telemetry()
        self._heard = heard
        self._lines = {name: JobQueue() for name in (MODEL, FILES)}
        self._latest: dict[str, Watch] = {}
        self._at_work: set[Watch] = set()
        self._places: OrderedDict[str, str | None] = OrderedDict()
        self._guard = threading.Lock()

    @property
    def waiting(self) -> int:
        """Jobs that stand in a line and have not begun."""
        return sum(line.waiting for line in self._lines.values())

    @property
    def running(self) -> int:
        """Jobs at work now: the one that has the model, and those that need none."""
        return max(0, len(self._at_work) - self.waiting)

    def run(
        self, owner: str, title: str, work: Callable[[Watch], T], *, kind: str = "other", line: str | None = MODEL
    ) -> Iterator[Tick | Partial | Finished[T]]:
        """Do `work` in a thread and yield a `Tick` now and then, `Partial`s where it has some, at last one `Finished`.

        `kind` names the work in logs and counters, where `title` may hold a visitor's words. `line`: the one to stand
        in, None for work that touches no model and so need not wait. Raises what `work` raised (as `failures.told`
        tells it), `Cancelled` when stopped, `NotYet` where the owner's last job still runs and was not told to stop,
        and `Busy` where too many wait. Ends when the work has ended; closing the generator stops the work and does not
        wait for its end.
        """
        watch, outcome, ended = Watch(title), [], threading.Event()
        asked = time.monotonic()

        def body() -> None:
            try:
                outcome.append(Finished(self._recorded(watch, kind, work, asked)))
            except BaseException as error:  # handed to the generator, which raises it again
                outcome.append(error)
            finally:
                self._over(owner, watch)

        # in the caller's context, where gradio keeps whose request it is: a lent GPU is asked for in that name
        job = functools.partial(contextvars.copy_context().run, body)
        heard = functools.partial(contextvars.copy_context().run, self._heard)
        self._begin(owner, _Place(watch, kind, job, ended, heard, self._places.get(owner)), line)
        try:
            yield from self._ticks(watch, ended)
        finally:
            watch.stop.set()
            if line is not None and self._lines[line].leave(watch):
                self._told(kind, "cancelled", waited=time.monotonic() - asked)
                self._over(owner, watch)
        if not outcome:
            raise ta.Cancelled
        if isinstance(outcome[0], Finished):
            yield outcome[0]
            return
        try:
            raise error_messages.told(outcome[0], watch.title) from outcome[0]
        finally:
            outcome.clear()  # an error holds the frames it came through, and this frame held the error

    def finish(
        self, owner: str, title: str, work: Callable[[Watch], T], *, kind: str = "other", line: str | None = MODEL
    ) -> T:
        """`run` for a caller who only wants the end, such as an endpoint."""
        *_, last = self.run(owner, title, work, kind=kind, line=line)
        return last.value

    def come_from(self, owner: str, place: str | None) -> None:
        """Take note where an owner's jobs are asked for from."""
        with self._guard:
            self._places[owner] = place
            self._places.move_to_end(owner)
            if len(self._places) > _MAX_PLACES:
                self._places.popitem(last=False)

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
        """Whether a job of the owner's, or one beside it (`owner/…`), waits, works or is being stopped."""
        with self._guard:
            return any(other.partition("/")[0] == owner.partition("/")[0] for other in self._latest)

    def under_way(self, owner: str) -> Iterator[Tick]:
        """What there is to see of the owner's job, until it has ended, on a page that did not begin it."""
        watch, shown = self._latest.get(owner), None
        while watch in self._at_work:
            if (tick := self._tick(watch)) != shown:
                shown = tick
                yield tick
            time.sleep(POLL_SECONDS)

    def _begin(self, owner: str, place: _Place, line: str | None) -> None:
        with self._guard:
            before = self._latest.get(owner)
            if before is not None and not before.stop.is_set():
                raise NotYet(f"“{before.title}” is still running; wait for it or press Stop.")
            if line is not None:
                try:
                    self._lines[line].join(place)
                except Busy:
                    self._telemetry.add("transact_jobs_refused_total")
                    self._telemetry.event("job refused", kind=place.kind, waiting=self.waiting)
                    raise
            self._latest[owner] = place.watch
            self._at_work.add(place.watch)
        if line is None:
            work = lambda: (place.job(), place.ended.set())  # noqa: E731
            threading.Thread(target=work, name=f"job: {place.kind}", daemon=True).start()

    def _over(self, owner: str, watch: Watch) -> None:
        """Take note that a job's thread has nothing more to do."""
        with self._guard:
            self._at_work.discard(watch)
            if self._latest.get(owner) is watch:
                del self._latest[owner]

    def _recorded(self, watch: Watch, kind: str, work: Callable[[Watch], T], asked: float) -> T:
        """`work` done, with its beginning and its end in the log and the counters; `asked`: when it was wanted."""
        began = time.monotonic()
        self._telemetry.event("job started", kind=kind, waited_seconds=began - asked)
        outcome, why = "cancelled", {}
        try:
            watch.raise_if_cancelled()
            with progress_for_processes(watch.raise_if_cancelled):
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
            seconds = time.monotonic() - began
            self._told(kind, outcome, waited=began - asked, seconds=seconds, parameters=watch.parameters, **why)

    def _told(self, kind: str, outcome: str, *, waited: float, seconds: float = 0.0, **more) -> None:
        self._telemetry.add("transact_jobs_total", kind=kind, outcome=outcome)
        self._telemetry.add("transact_job_seconds_total", seconds, kind=kind)
        self._telemetry.add("transact_job_waited_seconds_total", waited, kind=kind)
        self._telemetry.event(
            f"job {outcome}", kind=kind, waited_seconds=waited, seconds=seconds, resident_bytes=resident_bytes(), **more
        )

    def _ticks(self, watch: Watch, ended: threading.Event) -> Iterator[Tick | Partial]:
        """What there is to see until the work has ended, or its place in line is given up."""
        shown, found = None, None
        while not ended.is_set():
            if watch.found is not found:
                found = watch.found
                yield found
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
        before = max(line.before(watch) for line in self._lines.values())
        return Tick(watch.title, before=before) if before else watch.latest
