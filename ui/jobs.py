"""Long work: a thread that can be stopped, watched by a generator that yields how far it is.

Gradio cannot stop a plain function that runs, and a visitor who waits for another visitor's run must see
so and be able to leave. So each job waits for the model's lock in its own thread and checks its own stop event.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import transact as ta
from ui.errors import NotYet

POLL_SECONDS = 0.15
_GRACE_SECONDS = 20.0
"""How long a stopped job may take to notice before the page stops waiting for it."""
_KEEPING_SECONDS = 600.0
"""The same for a job that has something to keep, which it still has to finish and measure."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tick:
    """How far a job is: `done` of `total` `unit`s, and the seconds left if they go on at this pace."""

    title: str
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds_left: float | None = None
    waiting: bool = False
    stopping: bool = False


@dataclass(frozen=True)
class Finished(Generic[T]):
    """The last thing a job yields."""

    value: T


@dataclass(frozen=True)
class Partial(Generic[T]):
    """What a job has found so far, to be shown while it goes on."""

    value: T


class Watch:
    """The `Progress` a job hands to the library: notes the latest figures, and stops the work when told to."""

    def __init__(self, title: str):
        self.title = title
        self.stop = threading.Event()
        self.grace_seconds = _GRACE_SECONDS
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

    def wait_for(self, lock: threading.Lock) -> None:
        """Take `lock`, or raise `Cancelled` when told to stop while another run holds it."""
        while not lock.acquire(timeout=POLL_SECONDS):
            self._latest = Tick(self.title, waiting=True)
            self.heed()
        self._latest = Tick(self.title)

    @property
    def latest(self) -> Tick:
        return self._latest


class Jobs:
    """At most one job a visitor; `lock` lets one job at a time touch a model."""

    def __init__(self):
        self._model = threading.Lock()
        self._running: dict[str, Watch] = {}
        self._guard = threading.Lock()

    def run(
        self, owner: str, title: str, work: Callable[[Watch], T], *, model: bool = True
    ) -> Iterator[Tick | Partial | Finished[T]]:
        """Do `work` in a thread and yield a `Tick` now and then, `Partial`s where it has some, at last one `Finished`.

        `model=False` for work that touches no model and so need not wait. Raises what `work` raised, and
        `Cancelled` when stopped. Closing the generator stops the work.
        """
        watch = self._begin(owner, title)
        outcome: list[Finished[T] | BaseException] = []

        def body() -> None:
            try:
                if model:
                    watch.wait_for(self._model)
                try:
                    outcome.append(Finished(work(watch)))
                finally:
                    if model:
                        self._model.release()
            except BaseException as error:  # handed to the generator, which raises it again
                outcome.append(error)

        thread = threading.Thread(target=body, name=f"job: {title}", daemon=True)
        thread.start()
        try:
            yield from self._ticks(thread, watch)
        finally:
            watch.stop.set()
            with self._guard:
                self._running.pop(owner, None)
        if not outcome:
            raise ta.Cancelled
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        yield outcome[0]

    def finish(self, owner: str, title: str, work: Callable[[Watch], T], *, model: bool = True) -> T:
        """`run` for a caller who only wants the end, such as an endpoint."""
        *_, last = self.run(owner, title, work, model=model)
        return last.value

    def stop(self, owner: str) -> bool:
        """Ask the owner's job to stop; False where none runs."""
        with self._guard:
            watch = self._running.get(owner)
        if watch is None:
            return False
        watch.stop.set()
        return True

    def _begin(self, owner: str, title: str) -> Watch:
        watch = Watch(title)
        with self._guard:
            if owner in self._running:
                raise NotYet(f"“{self._running[owner].title}” is still running; wait for it or press Stop.")
            self._running[owner] = watch
        return watch

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
