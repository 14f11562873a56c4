"""What one visitor has done so far, as frozen values; models are named here and live in the registry.

A session is read, changed into a new value and put back in one step, so a slider that moves while a long
job runs never loses the job's result, nor the job the slider's.
"""

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import transact as ta
from transact.spec.digest import digest
from ui.errors import NotYet
from ui.server.memory import nbytes
from ui.state.choice import Choice
from ui.state.model_key import ModelKey
from ui.state.options import HELD_OUT, MIXED, Goal, Options
from ui.state.probed import Probed
from ui.state.score_bins import Landscape
from ui.state.view import View
from ui.text_sources.text_source import TextSource, parts

MAX_HISTORY = 50
MAX_UNDO = 100
MAX_RUNS = 16
"""Calibration runs that one visitor's work may refer to; results and undo steps of older ones are dropped."""
_ONE_STEP_SECONDS = 3.0
"""A slider that is dragged changes many times a second; undo takes the whole drag back."""


BUNDLED = ModelKey(ta.BUNDLED)

Answers = tuple[tuple[ta.ProbeResult, ta.ProbeResult], ...]
"""Every task's result with its single answers, by the dense model and by the smaller (or masked) one."""


@dataclass(frozen=True)
class Sampling:
    """How much of a calibration text is read."""

    num_samples: int = 128
    seq_len: int = 256
    seed: int = 0
    taylor: bool = False
    """Also gradients, which the metric of that name needs."""
    held_out: float = 0.0
    """Share of the end of a text of one's own that does not score, so that it can measure."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One calibration run: statistics, and the scores of every metric, so that switching needs no model.

    `tokenizer` is the model's, kept so that what was read can be shown again without the model; `streamed`: it was
    larger than memory, so that its layers were read one at a time; `is_part`: of what `sampling` asks for, the longest
    samples alone were read, as scoring goes on or was stopped. `gallery`: what a file of the gallery knows of the
    model; then scores are all there is, and `statistics` and `calibration` hold their record alone.
    `held_out_tokens`: what the part that is held out comes to.
    """

    key: ModelKey
    spec: ta.ModelSpec
    text: TextSource
    sampling: Sampling
    calibration: ta.CalibrationSet
    tokenizer: object
    seconds: float
    statistics: ta.ActivationStatistics
    scores: dict[str, ta.ImportanceScores]
    streamed: bool = False
    is_part: bool = False
    gallery: ta.GalleryModel | None = None
    held_out_tokens: int = 0

    @cached_property
    def held_out(self) -> TextSource | None:
        """The part of the text that did not score; None where all of it did."""
        return parts(self.text, self.sampling.held_out)[1]

    @property
    def tokens_per_second(self) -> float:
        """Of a forward pass here: gradients take three more."""
        return self.num_tokens * (4 if self.sampling.taylor else 1) / max(self.seconds, 1e-3)

    @cached_property
    def held_bytes(self) -> int:
        """What the statistics and the scores take; the model is not theirs, and what is drawn of them is small."""
        return nbytes(self.statistics) + nbytes(self.scores)

    def landscape(self, metric: str) -> Landscape:
        """The metric's scores ready to draw, made when first asked for: few visitors look at every metric."""
        if metric not in self._landscapes:
            self._landscapes[metric] = Landscape.of(self.scores[metric], self.spec)
        return self._landscapes[metric]

    @cached_property
    def _landscapes(self) -> dict[str, Landscape]:
        return {}

    @property
    def num_samples(self) -> int:
        return self.statistics.calibration.num_samples

    @property
    def num_tokens(self) -> int:
        return self.statistics.calibration.num_tokens


@dataclass(frozen=True, eq=False)
class Moment:
    """What undo returns to: scores and choice as they once stood together."""

    scored: "Scored | None"
    choice: Choice


@dataclass(frozen=True, eq=False)
class Timeline:
    """Moments before and after the present one. Moves of one control within a moment count as one step."""

    past: tuple[Moment, ...] = ()
    future: tuple[Moment, ...] = ()
    control: str = ""
    seconds: float = 0.0

    def after(self, moment: Moment, control: str) -> "Timeline":
        """The timeline once `control` has changed what stood at `moment`."""
        now = time.monotonic()
        if control and control == self.control and now - self.seconds < _ONE_STEP_SECONDS:
            return Timeline(self.past, (), control, now)
        return Timeline((*self.past, moment)[-MAX_UNDO:], (), control, now)


@dataclass(frozen=True)
class Training:
    """What was trained on and how: the settings, and how many sequences of its own the dense model wrote.

    `own_samples` is 0 where the calibration text was trained on.
    """

    settings: ta.RecoverySettings
    own_samples: int


@dataclass(frozen=True, eq=False)
class Recovery:
    """A recovery as far as it has come: the text that its perplexities are measured on, and all figures.

    `one_shot`: perplexity where all is cut at once and nothing trained, which several shots are compared with.
    """

    scored: Scored
    training: Training
    text: TextSource
    one_shot: float | None = None
    points: tuple[ta.RecoveryPoint, ...] = ()
    stopped: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model that was measured (or not yet); the model itself is in the registry under `number`.

    `recovery`: how it was trained; `goal`: the size and time that it was made for; `folder` keeps its weights where it
    has one of the two.
    `probes`: kind, dense and pruned accuracy; `answers`: the single ones; `floor`: perplexity of a random plan of the
    same sizes, on the same text; `overlap`: share of the measured sequences that also scored. `tokens`: the most that
    were to be measured, None for the whole text; `protocol`: what was measured, how much of it, and how it begins.
    """

    number: int
    scored: Scored
    choice: Choice
    plan: ta.PruningPlan
    repair: str
    report: ta.EvalReport | None = None
    text: TextSource | None = None
    probes: tuple[tuple[str, float, float], ...] = ()
    floor: float | None = None
    overlap: float = 0.0
    recovery: Recovery | None = None
    goal: Goal | None = None
    folder: Path | None = None
    answers: Answers = ()
    tokens: int | None = None
    protocol: str = ""

    @cached_property
    def identity(self) -> str:
        """Tells its model from all others of the visitor; after a run that was stopped the number alone would not."""
        made = (self.plan.digest, self.repair, self.scored.calibration.fingerprint, str(self.folder))
        return f"{self.number}-{digest(repr(made))}"

    @property
    def repaired(self) -> str:
        """How the cut was made up for, in a word or two."""
        if self.goal is not None:
            return f"{self.repair}, for {self.goal.minutes:g} min"
        if self.recovery is None:
            return self.repair
        return "training" if self.repair == "none" else f"{self.repair}, training"

    @property
    def metric(self) -> str:
        """What chose: a metric, or the search."""
        return self.plan.metric


@dataclass(frozen=True, eq=False)
class Queued:
    """Settings that wait to be cut: the choice, the plan that it comes to, and how what is cut is made up for."""

    scored: Scored
    choice: Choice
    plan: ta.PruningPlan
    repair: str
    search: bool


@dataclass(frozen=True)
class Tried:
    """What a plan does behind masks: both perplexities on the text of that name, the tasks' answers, and how taken."""

    plan: ta.PruningPlan
    text: str
    dense: float
    masked: float
    answers: Answers = ()
    protocol: str = ""


@dataclass(frozen=True, eq=False)
class TasksRun:
    """What standard tasks say of the dense model and of the result with that number."""

    number: int
    found: ta.TaskResults


@dataclass(frozen=True, eq=False)
class Attention:
    """What the heads of a model attend to on a sentence."""

    key: ModelKey
    text: str
    patterns: ta.AttentionPatterns


@dataclass(frozen=True, eq=False)
class Steadiness:
    """Whether more text would choose otherwise, as found for one run of scores and one target."""

    scored: Scored
    metric: str
    value: ta.Stability


@dataclass(frozen=True, eq=False)
class Redundancy:
    """Perplexity behind masks over a grid of both sparsities, as far as it has been measured on that many sequences."""

    scored: Scored
    metric: str
    text: TextSource
    total: int
    num_samples: int
    points: tuple[ta.SweepPoint, ...] = ()


@dataclass(frozen=True, eq=False)
class Session:
    """Everything one visitor sees, or the names of it.

    `streamed`: the model in view is larger than memory; `pending`: a link's settings that wait for their model.
    """

    id: str
    key: ModelKey
    spec: ta.ModelSpec | None
    scored: Scored | None
    choice: Choice = field(default_factory=Choice)
    options: Options = field(default_factory=Options)
    plan: ta.PruningPlan | None = None
    view: View = field(default_factory=View)
    second: Scored | None = None
    tried: "Tried | None" = None
    attention: "Attention | None" = None
    tasks: "TasksRun | None" = None
    steadiness: "Steadiness | None" = None
    redundancy: "Redundancy | None" = None
    recovery: "Recovery | None" = None
    pending: "Settings | None" = None
    probed: Probed | None = None
    timeline: Timeline = field(default_factory=Timeline)
    results: tuple[Result, ...] = ()
    queue: tuple[Queued, ...] = ()
    counted: int = 0
    streamed: bool = False

    @property
    def measure_on(self) -> str:
        """What is measured on: where nothing is held out any more, a bundled text."""
        none_held_out = self.scored is None or self.scored.held_out is None
        return MIXED if self.options.measure_on == HELD_OUT and none_held_out else self.options.measure_on

    @property
    def frontier(self) -> Probed | None:
        """What the probe found, where it was on the text that scores now."""
        return self.probed if self.probed is not None and self.probed.is_of(self.scored) else None

    @property
    def latest(self) -> Result | None:
        """The result in view: the last one cut from the model in view."""
        return next((result for result in reversed(self.results) if result.scored.key == self.key), None)

    def result(self, number: int | None) -> Result | None:
        """The result of that number; None where there is none (any more)."""
        return next((result for result in self.results if result.number == number), None)

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
        self.key.need_weights()
        if self.latest is None:
            raise NotYet("Nothing has been cut yet; press Prune first.")
        return self.latest

    @property
    def runs(self) -> list[Scored]:
        """The calibration runs that this work refers to, those in view first, then the latest."""
        undo = (*reversed(self.timeline.past), *self.timeline.future)
        results = [result.scored for result in reversed(self.results)]
        queued = [queued.scored for queued in self.queue]
        every = [self.scored, self.second, *queued, *results, *(moment.scored for moment in undo)]
        return list({id(run): run for run in every if run is not None}.values())

    def bounded(self) -> "Session":
        """The session without the results and undo steps of calibration runs beyond the latest few."""
        runs = self.runs
        if len(runs) <= MAX_RUNS:
            return self
        kept = {id(run) for run in runs[:MAX_RUNS]} | {id(None)}
        past, future = (
            tuple(moment for moment in moments if id(moment.scored) in kept)
            for moments in (self.timeline.past, self.timeline.future)
        )
        return replace(
            self,
            results=tuple(result for result in self.results if id(result.scored) in kept),
            timeline=replace(self.timeline, past=past, future=future),
        )

    def with_result(self, result: Result) -> "Session":
        """The session with `result` added, or put in place of the one with its number; the oldest drop out.

        Where the controls still stand as they did at the cut, the plan in view becomes the one that was cut: the
        search decides at the cut, and what is marked should be what went.
        """
        others = tuple(kept for kept in self.results if kept.number != result.number)
        as_then = result.scored is self.scored and result.choice == self.choice
        return replace(
            self,
            results=(*others, result)[-MAX_HISTORY:],
            counted=max(self.counted, result.number),
            plan=result.plan if as_then else self.plan,
        )


@dataclass(frozen=True)
class Settings:
    """What a link holds. `text` is the name of a bundled sample, None for a text that the link cannot carry."""

    key: ModelKey
    text: str | None
    sampling: Sampling
    choice: Choice
    options: Options = field(default_factory=Options)
