"""What one visitor has done so far, as frozen values; models are named here and live in the registry.

A session is read, changed into a new value and put back in one step, so a slider that moves while a long
job runs never loses the job's result, nor the job the slider's.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import transact as ta
from ui.errors import NotYet
from ui.landscape import Landscape
from ui.texts import TextSource

MAX_SESSIONS = 200
IDLE_SECONDS = 6 * 3600
MAX_HISTORY = 50
_MAX_REMEMBERED = 20_000


@dataclass(frozen=True)
class ModelKey:
    """The three things that were asked for when a model was loaded; names it in the registry."""

    source: str
    revision: str | None = None
    dtype: str = "auto"


BUNDLED = ModelKey(ta.BUNDLED)


@dataclass(frozen=True)
class Sampling:
    """How much of a calibration text is read."""

    num_samples: int = 128
    seq_len: int = 256
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scored:
    """One calibration run: statistics, and the scores of every metric, so that switching needs no model."""

    key: ModelKey
    text: TextSource
    sampling: Sampling
    num_samples: int
    num_tokens: int
    seconds: float
    statistics: ta.ActivationStatistics
    scores: dict[str, ta.ImportanceScores]
    landscapes: dict[str, Landscape]


@dataclass(frozen=True)
class Choice:
    """What the controls say: the metric, both sparsities, and counts per layer where set by hand."""

    metric: str = "transact"
    attention: float = 0.25
    mlp: float = 0.5
    keep_head_groups: tuple[int, ...] | None = None
    keep_channels: tuple[int, ...] | None = None
    layer: int = 0
    normalisation: str = "layer"

    @property
    def by_hand(self) -> bool:
        return self.keep_head_groups is not None


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model that was measured (or not yet); the model itself is in the registry under `number`.

    `probes`: kind, dense and pruned accuracy; `overlap`: share of the measured sequences that also scored.
    """

    number: int
    scored: Scored
    metric: str
    plan: ta.PruningPlan
    repair: str
    report: ta.EvalReport | None = None
    text: TextSource | None = None
    probes: tuple[tuple[str, float, float], ...] = ()
    overlap: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Session:
    """Everything one visitor sees, or the names of it."""

    id: str
    key: ModelKey
    spec: ta.ModelSpec | None
    scored: Scored | None
    choice: Choice = field(default_factory=Choice)
    plan: ta.PruningPlan | None = None
    results: tuple[Result, ...] = ()
    counted: int = 0

    @property
    def latest(self) -> Result | None:
        """The result in view: the last one cut from the model in view."""
        return next((result for result in reversed(self.results) if result.scored.key == self.key), None)

    def need_scored(self) -> Scored:
        if self.scored is None:
            raise NotYet("This model has not been scored yet; choose a calibration text and press Score.")
        return self.scored

    def need_plan(self) -> ta.PruningPlan:
        self.need_scored()
        if self.plan is None:
            raise NotYet("There is no plan yet; move a slider to say how much to remove.")
        return self.plan

    def need_result(self) -> Result:
        if self.latest is None:
            raise NotYet("Nothing has been cut yet; press Prune first.")
        return self.latest

    def with_result(self, result: Result) -> "Session":
        """The session with `result` added, or put in place of the one with its number; the oldest drop out."""
        others = tuple(kept for kept in self.results if kept.number != result.number)
        return replace(self, results=(*others, result)[-MAX_HISTORY:], counted=max(self.counted, result.number))


class Sessions:
    """All visitors, by the hash their browser tab or client carries; bounded, and idle ones expire."""

    def __init__(self, fresh: Callable[[str], Session], forget: Callable[[str], None]):
        self._fresh = fresh
        self._forget = forget
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, tuple[float, Session]] = OrderedDict()
        self._expired: OrderedDict[str, None] = OrderedDict()

    def get(self, id: str) -> Session:
        """The visitor's session, a fresh one at the first call. Raises `NotYet` where it has expired."""
        with self._lock:
            self._drop_idle()
            if id in self._expired:
                raise NotYet("This page was idle for hours and its work has been cleared away; reload the page.")
            _, session = self._sessions.get(id) or (0.0, self._fresh(id))
            self._put(session)
            return session

    def update(self, id: str, change: Callable[[Session], Session]) -> Session:
        """Replace the visitor's session by `change` of it, with nothing in between, and return it."""
        with self._lock:
            session = change(self.get(id))
            self._put(session)
            return session

    def _put(self, session: Session) -> None:
        self._sessions[session.id] = (time.monotonic(), session)
        self._sessions.move_to_end(session.id)

    def _drop_idle(self) -> None:
        now = time.monotonic()
        while self._sessions:
            id, (seen, _) = next(iter(self._sessions.items()))
            if now - seen < IDLE_SECONDS and len(self._sessions) <= MAX_SESSIONS:
                return
            del self._sessions[id]
            self._expired[id] = None
            if len(self._expired) > _MAX_REMEMBERED:
                self._expired.popitem(last=False)
            self._forget(id)
