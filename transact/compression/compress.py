"""The whole way from a model to a smaller one, in the time that there is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from transact.analysis.width_search import between
from transact.compression.recipe import WIDTHS, Machine, Recipe, recipe_for, target_of_size
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
from transact.planning.widths import priced_widths, scored_widths
from transact.progress import NO_PROGRESS, Progress, Repeating, StoppedEarly, part
from transact.repair.dense_predictions import DensePredictions, divergence
from transact.repair.distillation import STEP_TOKENS, Distilled, distill, held_back
from transact.runtime.devices import free_bytes, seconds_at
from transact.scoring.scores import score
from transact.spec.plan import PruningPlan
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet, evenly_spread
from transact.text.tokens import TokenSet

_TIMED_TOKENS = 512
_ENOUGH_TRIED = 0.6
"""Of the time: after that no further way is tried, however many were planned."""


@hooks_suspended()
def compress(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    size: float,
    minutes: float = 10.0,
    widths: str = "free",
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
    - `stop` may end the work early, with the best so far as the result; before anything is cut there is none, and
      `Cancelled` is raised.
    - `progress` is in seconds, as the recipe expects them, and may raise `Cancelled`.

    The recipe and the number of steps follow from the machine's speed, so that two calls may differ; the number is in
    the model card of the result.

    Raises `InvalidTarget` for a size that cannot be reached, `InvalidOption` for other numbers out of range and a model
    that is streamed or spread, `InvalidText` for text the model cannot read, and as `observe` and `prune` do.
    """
    loaded.check_can(COMPRESSION)
    choice(widths, WIDTHS, "widths")
    if not is_finite(minutes) or minutes <= 0:
        raise InvalidOption(f"minutes is {shown(minutes)}; give a number above 0.")
    target = target_of_size(loaded.spec, size)
    check_writable(loaded, target.spec(loaded.spec))
    calibration.check_fits(loaded)
    began = seconds_at(loaded.device)
    machine = _measured(loaded, calibration)
    text, measured_on = held_back(calibration) or (calibration, None)
    seconds = 60 * minutes - (seconds_at(loaded.device) - began)
    recipe = recipe_for(loaded.spec, target, text=text, machine=machine, seconds=seconds, free_widths=widths == "free")
    if measured_on is None:  # nothing could decide between several
        recipe = replace(recipe, tries=1, distills=False)
    report(recipe)

    def watched(done: int, total: int, unit: str) -> None:
        progress(done, total, unit)
        if stop():
            raise StoppedEarly

    work = _Work(loaded, recipe, text, measured_on, _Stages(recipe, watched), began, 60 * minutes, widths == "free")
    pruned, predictions = work.best_of_tried()
    if not recipe.distills or stop():
        return pruned
    result = distill(
        loaded, pruned, calibration, seconds=work.seconds_left, predictions=predictions, states=work.states,
        progress=work.stages.next(),
    )  # fmt: skip
    return _noted(pruned, result, calibration.name)


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
        text = evenly_spread(self.text, self.recipe.observed_tokens)
        gram = grams_for_repair(self.loaded.spec)
        return observe_with_states(self.loaded, text, gram=gram, progress=self.stages.next())

    @property
    def statistics(self) -> ActivationStatistics:
        return self._read[0]

    @property
    def states(self) -> FinalStates:
        """The dense model's, of the text that was read."""
        return self._read[1]

    def best_of_tried(self) -> tuple[LoadedModel, DensePredictions | None]:
        """The result of least squares that is nearest to the dense model on the text that is held back, and the dense
        model's predictions there, None where one alone was tried.
        """
        plans = list(self._plans())[: self.recipe.tries]
        progress = self.stages.next()
        if self.measured_on is None or len(plans) == 1:
            return self._cut(plans[0], progress), None
        with checking(self.loaded.stages, Repeating(progress, 1, "tries").check):
            dense = DensePredictions(self.loaded, self.measured_on)
        least, best = float("inf"), None
        try:
            for number, plan in enumerate(plans):
                pruned, lost = self._tried(plan, dense, part(progress, number, len(plans)))
                if best is None or lost < least:
                    least, best = lost, pruned
                if self.seconds_left < (1 - _ENOUGH_TRIED) * self.seconds:
                    break
        except StoppedEarly:
            if best is None:
                raise
        assert best is not None, "at least one is tried"
        return best, dense

    def _tried(self, plan: PruningPlan, dense: DensePredictions, progress: Progress) -> tuple[LoadedModel, float]:
        pruned = self._cut(plan, progress)
        with checking(pruned.stages, Repeating(progress, 1, "tries", done=1).check):
            return pruned, divergence(pruned, dense)

    def _cut(self, plan: PruningPlan, progress: Progress) -> LoadedModel:
        return prune(self.loaded, plan, compensation="least_squares", statistics=self.statistics, progress=progress)

    def _plans(self) -> Iterator[PruningPlan]:
        """What may be tried, the most promising first (measured; see docs/benchmarks.md)."""
        loaded, target = self.loaded, self.recipe.target
        scores = score(loaded, self.statistics)
        balanced = PruningTarget.from_parameters(loaded.spec, target.spec(loaded.spec).num_parameters)
        if self.recipe.priced_tokens:
            priced = priced_widths(
                loaded, self.statistics, target, num_tokens=self.recipe.priced_tokens, progress=self.stages.next()
            )
            if self.recipe.tries > 1:
                yield make_plan(scores, loaded.spec, priced.target)
                yield replace(make_plan(priced.scores, loaded.spec, priced.target), metric=SEARCH)
            yield make_plan(scores, loaded.spec, between(loaded.spec, target, priced.target, 0.5))
        elif self.free_widths:
            scored = scored_widths(loaded, self.statistics, target)
            yield make_plan(scores, loaded.spec, between(loaded.spec, target, scored, 0.5))
        yield make_plan(scores, loaded.spec, target)
        if balanced != target:
            yield make_plan(scores, loaded.spec, balanced)


def _noted(pruned: LoadedModel, distilled: Distilled, name: str) -> LoadedModel:
    """The model with what it was taught in the record of its cut."""
    if not distilled.steps:
        return pruned
    words = (
        f"distillation from the dense model: {distilled.steps} steps of about {STEP_TOKENS} tokens of {name}; KL(dense "
        f"‖ pruned) on text held back {distilled.before:.3f} before, {distilled.after:.3f} nats after"
    )
    return replace(pruned, cuts=(*pruned.cuts[:-1], replace(pruned.cuts[-1], trained=words)))
