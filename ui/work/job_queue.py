"""The queue of the jobs that need a model: in which order they are done, by one thread, and how many may wait.

That it is always the same thread also bounds memory: the allocator and torch keep what they need for every thread
anew, and with a thread for each job the process grew for as long as visitors came.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from transact.runtime.memory import return_freed
from ui.errors import Busy
from ui.work.watch import Watch

MAX_JOBS = 48
"""Jobs at work and in the queue; callers are refused at once when there are so many."""
MAX_JOBS_EACH = MAX_JOBS // 2
"""Of those from one address of the internet, behind which a whole class may sit, or one who has many names."""
POLL_SECONDS = 0.15
"""How often the state of a job at work is looked at."""
_SECONDS_AT_FIRST, _LATEST_WEIGHS = 10.0, 0.3
"""What a job of a kind takes before one was timed, and how much the latest one counts in the mean afterwards."""


@dataclass(frozen=True, eq=False)
class QueuedJob:
    """A job and what its turn depends on.

    `run`: does the work and raises nothing. `ended`: set after it. `heard`: whether anybody waits for the outcome now.
    `address`: of the caller, None where it is not known.
    """

    watch: Watch
    kind: str
    run: Callable[[], None]
    ended: threading.Event
    heard: Callable[[], bool]
    address: str | None
    since: float = field(default_factory=time.monotonic)


class JobQueue:
    """Jobs that are done one after the other.

    Next is the job with the longest wait, measured by how long such a job takes (highest response ratio next): a
    sentence to be continued need not wait for three exports, and no export waits for ever. Of one kind, first come,
    first served. A job that nobody listens to is not begun.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._at_work: QueuedJob | None = None
        self._waiting: list[QueuedJob] = []
        self._seconds: dict[str, float] = {}
        self._began = 0.0
        self._worker: threading.Thread | None = None

    def __len__(self) -> int:
        return self.waiting + (self._at_work is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def join(self, job: QueuedJob) -> None:
        """Have the job done in its turn.

        Raises `Busy` where the queue is full, or half of it is from the job's address.
        """
        with self._changed:
            self._refuse_too_many(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._worker.start()
            self._waiting.append(job)
            self._take_next()
            self._changed.notify_all()

    def waits(self, watch: Watch) -> bool:
        """Whether that job is in the queue and has not begun."""
        return any(job.watch is watch for job in list(self._waiting))

    def before(self, watch: Watch) -> tuple[int, float | None]:
        """How many come first as it is now, the one at work included, and the seconds that these should take.

        (0, None) for a job that is not in the queue; None also where nothing is known of one of them.
        """
        with self._changed:
            now, own = time.monotonic(), self._of(watch)
            if own is None:
                return 0, None
            first = [job for job in self._waiting if job is not own and self._goes_first(job, own, now)]
            at_work = [] if self._at_work is None else [self._at_work]
            waits = [self._seconds_of(job, now - self._began) for job in at_work]
            waits += [self._seconds_of(job) for job in first]
            known = [wait for wait in waits if wait is not None]
            return len(waits), float(round(sum(known))) if len(known) == len(waits) else None

    def _seconds_of(self, job: QueuedJob, gone: float = 0.0) -> float | None:
        """What is left of a job: by its steps, or as such jobs have taken; of one that takes longer, a little more."""
        left = job.watch.forecast.seconds_left()
        if left is not None or job.kind not in self._seconds:
            return left
        return max(self._seconds[job.kind] - gone, 0.1 * gone)

    def leave(self, watch: Watch) -> bool:
        """Give up a place in the queue; False for the job at work, which has to end by itself."""
        with self._changed:
            own = self._of(watch)
            if own is not None:
                self._waiting.remove(own)
            return own is not None

    def _refuse_too_many(self, job: QueuedJob) -> None:
        present = [*self._waiting, *([self._at_work] if self._at_work else [])]
        own = sum(job.address is not None and other.address == job.address for other in present)
        if own >= MAX_JOBS_EACH:
            raise Busy(
                f"{own} runs from your address are here already, which is all that one may have. Try again once "
                "some have ended; moving the sliders and looking around goes on as ever."
            )
        if len(present) >= MAX_JOBS:
            raise Busy(
                f"{len(present)} runs are before you, which is all that may wait here. Try again in some "
                "minutes; moving the sliders and looking around goes on as ever."
            )

    def _of(self, watch: Watch) -> QueuedJob | None:
        return next((job for job in self._waiting if job.watch is watch), None)

    def _goes_first(self, one: QueuedJob, other: QueuedJob, now: float) -> bool:
        mine, theirs = self._ratio(one, now), self._ratio(other, now)
        return one.since < other.since if mine == theirs else mine > theirs

    def _ratio(self, job: QueuedJob, now: float) -> float:
        return (now - job.since) / self._seconds.get(job.kind, _SECONDS_AT_FIRST)

    def _take_next(self) -> None:
        """Where no job is at work: the one whose turn it is."""
        if self._at_work is None and (heard := [job for job in self._waiting if job.heard()]):
            now = time.monotonic()
            self._at_work = max(heard, key=lambda job: self._ratio(job, now))
            self._waiting.remove(self._at_work)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._take_next()
                while self._at_work is None:
                    self._changed.wait(POLL_SECONDS if self._waiting else None)
                    self._take_next()
                job = self._at_work
            began = self._began = time.monotonic()
            job.run()
            seconds = max(time.monotonic() - began, 1e-3)
            with self._changed:
                before = self._seconds.get(job.kind, seconds)
                self._seconds[job.kind] = before + _LATEST_WEIGHS * (seconds - before)
                self._at_work = None
                self._take_next()
            job.ended.set()
            del job  # with all that it holds, until another joins
            return_freed()
