"""The whole way from a model to a smaller one, in the time that there is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from transact.analysis.width_search import between
from transact.compression.recipe import WIDTHS, Machine, Recipe, recipe_for, recipe_of, target_of_size
from transact.compression.repeat import PRICED, WAYS, Repeat
from transact.cutting.prune import prune
from transact.errors import InvalidOption, choice, is_finite, shown
from transact.evaluation.evaluate import perplexity
from transact.layers.hooks import checking, hooks_suspended
from transact.models.loaded_model import LoadedModel
from transact.models.stock_config import check_writable
from transact.models.tasks_by_placement import COMPRESSION
from transact.observing.observe import FinalStates, grams_for_repair, observe_with_states
from transact.observing.statistics import ActivationStatistics
from transact.planning.make_plan import make_plan
from transact.planning.search import METRIC as SEARCH
from transact.planning.widths import PricedWidths, priced_widths, scored_widths
from transact.progress import NO_PROGRESS, Progress, Repeating, StoppedEarly, part
from transact.repair.dense_predictions import DensePredictions, divergence
from transact.repair.distillation import STEP_TOKENS, distill, held_back
from transact.runtime.devices import free_bytes, seconds_at
from transact.scoring.scores import ImportanceScores, score
from transact.spec.plan import PruningPlan
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet, spread_out
from transact.text.tokens import TokenSet

_TIMED_TOKENS = 512
_ENOUGH_TRIED = 0.6
"""Of the time: after that no further way is tried, however many were planned."""


@hooks_suspended()
def compress(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    size: float | None = None,
    minutes: float = 10.0,
    widths: str = "free",
    repeat: str | None = None,
    report: Callable[[Recipe], None] = lambda recipe: None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = NO_PROGRESS,
) -> LoadedModel:
    """A model of at most `size` times the parameters in all, with as little lost as the minutes allow; `loaded` stays.

    A forward pass over a little text says how fast the machine is; a `Recipe` follows, which `report` is called with.
    Then text is read, several ways to share out the removal are cut, refitted by least squares and measured on text
    that is held back, and the best is distilled from the dense model for the time that is left. It comes back within
    1.3 times the minutes, unless these are fewer than reading a little text and one cut take.

    - `widths`: "uniform" keeps as many channels in every layer; "free" lets the layers differ, see `save`.
    - `repeat`, in place of the three, does what an earlier call did, for as long as that takes: `cuts[-1].repeat` of
      its result, which is in the model card too. From the same text it gives the same weights on the same machine.
    - `stop` may end the work early, with the best so far as the result; before anything is cut there is none, and
      `Cancelled` is raised.
    - `progress` is in seconds, as the recipe expects them, and may raise `Cancelled`.

    How much text is read, which way is the best of how many, and how many steps are taken follow from the machine's
    speed, so that two calls may differ: see `repeat`.

    Raises `InvalidTarget` for a size that cannot be reached, `InvalidOption` for other numbers out of range, a `repeat`
    that is none and a model that is streamed or spread, `InvalidText` for text the model cannot read, and as `observe`
    and `prune` do.
    """
    loaded.check_can(COMPRESSION)
    _check(minutes, widths)
    again = None if repeat is None else Repeat.parse(repeat)
    size = _size(size, again)
    target = target_of_size(loaded.spec, size)
    check_writable(loaded, target.spec(loaded.spec))
    calibration.check_fits(loaded)
    began = seconds_at(loaded.device)
    machine = _measured(loaded, calibration)
    text, measured_on = held_back(calibration) or (calibration, None)
    seconds, free = 60 * minutes - (seconds_at(loaded.device) - began), widths == "free"
    recipe = (
        recipe_for(loaded.spec, target, text=text, machine=machine, seconds=seconds, free_widths=free)
        if again is None
        else recipe_of(again, loaded.spec, text=text, machine=machine)
    )
    if measured_on is None:  # nothing could decide between several
        recipe = replace(recipe, tries=1, distills=False)
    report(recipe)
    stages = _Stages(recipe, _stopping(progress, stop))
    work = _Work(loaded, recipe, text, measured_on, stages, began, 60 * minutes, free)
    best = work.best_of_tried()
    done = Repeat(float(size), work.statistics.num_tokens, best.way, recipe.priced_tokens if best.way in PRICED else 0)
    if not recipe.distills or stop():
        return _noted(best.pruned, done)
    return _taught(work, best, done, calibration)


def _check(minutes: float, widths: str) -> None:
    choice(widths, WIDTHS, "widths")
    if not is_finite(minutes) or minutes <= 0:
        raise InvalidOption(f"minutes is {shown(minutes)}; give a number above 0.")


def _size(size: float | None, again: Repeat | None) -> float:
    if again is not None and size is None:
        return again.size
    if again is not None or size is None:
        raise InvalidOption("Give either a size or what to repeat.")
    return size


def _stopping(progress: Progress, stop: Callable[[], bool]) -> Progress:
    """The progress, which ends the work early once `stop` says so."""

    def watched(done: int, total: int, unit: str) -> None:
        progress(done, total, unit)
        if stop():
            raise StoppedEarly

    return watched


def _measured(loaded: LoadedModel, calibration: CalibrationSet) -> Machine:
    """From a forward pass over one sample; a short one before that lets the machine prepare."""
    row = max(calibration.rows(), key=len)[:_TIMED_TOKENS]
    row = row if len(row) > 1 else row * 2
    sample = TokenSet.from_sequences([row], name=calibration.name)
    perplexity(loaded, TokenSet.from_sequences([row[:16]], name=calibration.name))
    began = seconds_at(loaded.device)
    perplexity(loaded, sample)
    seconds = max(seconds_at(loaded.device) - began, 1e-6)
    flops = loaded.spec.prefill_flops(len(row))
    return Machine(len(row) / seconds, flops / seconds, free_bytes(loaded.device))


class _Stages:
    """Progress of the parts of a recipe, one after the other, as progress of the whole in seconds."""

    def __init__(self, recipe: Recipe, progress: Progress):
        self._expected = list(recipe.seconds.values())
        self._progress = progress
        self._done = 0.0

    def next(self) -> Progress:
        """The progress of the next part."""
        before, expected = self._done, self._expected.pop(0) if self._expected else 0.0
        self._done += expected
        whole = max(1, round(before + expected + sum(self._expected)))

        def watch(done: int, total: int, unit: str) -> None:
            self._progress(min(whole, round(before + expected * done / max(total, 1))), whole, "seconds")

        watch(0, 1, "seconds")
        return watch


@dataclass(frozen=True, eq=False)
class _Tried:
    """A result of least squares by one of the ways, and the dense model's `predictions` on the text that is held back,
    None where nothing was measured.
    """

    way: str
    pruned: LoadedModel
    predictions: DensePredictions | None = None


@dataclass(frozen=True, eq=False)
class _Work:
    """A compression under way. `measured_on`: text that is held back, None where there is too little.

    `began` is the clock's reading at the start, `seconds` what was given in all.
    """

    loaded: LoadedModel
    recipe: Recipe
    text: CalibrationSet
    measured_on: CalibrationSet | None
    stages: _Stages
    began: float
    seconds: float
    free_widths: bool

    @property
    def seconds_left(self) -> float:
        return self.seconds - (seconds_at(self.loaded.device) - self.began)

    @cached_property
    def _read(self) -> tuple[ActivationStatistics, FinalStates]:
        recipe, until = self.recipe, self.seconds_left - self.recipe.reading_seconds

        def enough(num_tokens: int) -> bool:
            return num_tokens >= recipe.most_tokens or self.seconds_left < until

        return observe_with_states(
            self.loaded, spread_out(self.text), gram=grams_for_repair(self.loaded.spec), enough=enough,
            expected_tokens=recipe.observed_tokens, progress=self.stages.next(),
        )  # fmt: skip

    @property
    def statistics(self) -> ActivationStatistics:
        return self._read[0]

    @property
    def states(self) -> FinalStates:
        """The dense model's, of the text that was read."""
        return self._read[1]

    def best_of_tried(self) -> _Tried:
        """The result that is nearest to the dense model on the text that is held back."""
        plans = self._plans()
        progress = self.stages.next()
        if self.measured_on is None or len(plans) == 1:
            way, plan = next(iter(plans.items()))
            return _Tried(way, self._cut(plan, progress))
        with checking(self.loaded.stages, Repeating(progress, 1, "tries").check):
            dense = DensePredictions(self.loaded, self.measured_on)
        least, best = float("inf"), None
        try:
            for number, (way, plan) in enumerate(plans.items()):
                pruned, lost = self._tried(plan, dense, part(progress, number, len(plans)))
                if best is None or lost < least:
                    least, best = lost, _Tried(way, pruned, dense)
                if self.seconds_left < (1 - _ENOUGH_TRIED) * self.seconds:
                    break
        except StoppedEarly:
            if best is None:
                raise
        assert best is not None, "at least one is tried"
        return best

    def _tried(self, plan: PruningPlan, dense: DensePredictions, progress: Progress) -> tuple[LoadedModel, float]:
        pruned = self._cut(plan, progress)
        with checking(pruned.stages, Repeating(progress, 1, "tries", done=1).check):
            return pruned, divergence(pruned, dense)

    def _cut(self, plan: PruningPlan, progress: Progress) -> LoadedModel:
        return prune(self.loaded, plan, compensation="least_squares", statistics=self.statistics, progress=progress)

    def _plans(self) -> dict[str, PruningPlan]:
        """What is tried, by its way."""
        return {way: self._plan(way) for way in self._ways()}

    def _ways(self) -> list[str]:
        """Those of `WAYS` that are to be tried, in their order."""
        recipe, spec = self.recipe, self.loaded.spec
        if recipe.repeats is not None:
            return [recipe.repeats.way]
        balanced = PruningTarget.from_parameters(spec, recipe.target.spec(spec).num_parameters)
        left_out = {
            *(() if recipe.priced_tokens else PRICED),
            *(("half-scored",) if recipe.priced_tokens or not self.free_widths else ()),
            *(("priced", "priced-units") if recipe.tries == 1 else ()),  # half way is best where nothing decides
            *(("balanced",) if balanced == recipe.target else ()),
        }
        return [way for way in WAYS if way not in left_out][: recipe.tries]

    def _plan(self, way: str) -> PruningPlan:
        spec, target, scores = self.loaded.spec, self.recipe.target, self._scores
        if way == "priced-units":
            return replace(make_plan(self._priced.scores, spec, self._priced.target), metric=SEARCH)
        targets: dict[str, Callable[[], PruningTarget]] = {
            "priced": lambda: self._priced.target,
            "half-priced": lambda: between(spec, target, self._priced.target, 0.5),
            "half-scored": lambda: between(spec, target, scored_widths(self.loaded, self.statistics, target), 0.5),
            "equal": lambda: target,
            "balanced": lambda: PruningTarget.from_parameters(spec, target.spec(spec).num_parameters),
        }
        return make_plan(scores, spec, targets[way]())

    @cached_property
    def _scores(self) -> ImportanceScores:
        return score(self.loaded, self.statistics)

    @cached_property
    def _priced(self) -> PricedWidths:
        tokens = self.recipe.priced_tokens
        progress = self.stages.next()
        return priced_widths(self.loaded, self.statistics, self.recipe.target, num_tokens=tokens, progress=progress)


def _taught(work: _Work, best: _Tried, done: Repeat, calibration: CalibrationSet) -> LoadedModel:
    """The best one, distilled for the time that is left, or for as many steps as are to be repeated."""
    again = work.recipe.repeats
    lesson = {"seconds": work.seconds_left} if again is None else {"steps": again.planned, "only": again.steps}
    result = distill(
        work.loaded, best.pruned, calibration, **lesson, predictions=best.predictions, states=work.states,
        progress=work.stages.next(),
    )  # fmt: skip
    if not result.steps:
        return _noted(best.pruned, done)
    words = (
        f"distillation from the dense model: {result.steps} steps of about {STEP_TOKENS} tokens of {calibration.name}; "
        f"KL(dense ‖ pruned) on text held back {result.before:.3f} before, {result.after:.3f} nats after"
    )
    return _noted(best.pruned, replace(done, steps=result.steps, planned=result.planned), words)


def _noted(pruned: LoadedModel, done: Repeat, trained: str = "") -> LoadedModel:
    """The model with what was done in the record of its cut."""
    return replace(pruned, cuts=(*pruned.cuts[:-1], replace(pruned.cuts[-1], trained=trained, repeat=str(done))))
