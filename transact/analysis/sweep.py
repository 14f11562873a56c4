"""Many plans of one model, measured one after another: what each pair of sparsities costs in perplexity."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transact.cutting.masking import masked
from transact.cutting.prune import prune
from transact.errors import InvalidPlan, choice
from transact.evaluation.evaluate import perplexity
from transact.layers.hooks import hooks_suspended
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.planning.allocation import ALLOCATIONS
from transact.planning.make_plan import make_plan
from transact.progress import NO_PROGRESS, Progress, Repeating, part
from transact.repair.repairs import COMPENSATIONS, REPAIRS
from transact.scoring.scores import ImportanceScores
from transact.spec.locks import Locks
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import PruningPlan
from transact.spec.target import PruningTarget, checked_sparsity, kept_count
from transact.text.tokens import TokenSet

_MLP_SPARSITIES = tuple(step / 8 for step in range(8))
_MOST_ROWS = 8
"""Attention sparsities of a grid by default; models with more head groups get as many, evenly spread."""
_MOST_SPLITS = 8


@dataclass(frozen=True)
class SweepPoint:
    """One measured plan: `perplexity` of the model it leaves, `parameters` that this model has."""

    target: PruningTarget
    plan: PruningPlan
    perplexity: float
    parameters: int


def sweep(
    loaded: LoadedModel,
    scores: ImportanceScores,
    grid: Iterable[PruningTarget],
    evaluation: TokenSet,
    *,
    allocation: str = "uniform",
    compensation: str = "none",
    statistics: ActivationStatistics | None = None,
    locks: Locks | None = None,
    progress: Progress = NO_PROGRESS,
) -> Iterator[SweepPoint]:
    """Plan and measure one target after another, yielding each point as it is measured.

    Without compensation a plan is measured behind masks and nothing is cut; otherwise `loaded` is pruned with
    `compensation` from `statistics`, as by `prune`. A mask is on only while a point is measured, so `loaded` is
    unchanged between two points, also if no further point is requested or `progress` raises. Progress
    is in tokens of the whole grid.

    Raises at once `InvalidOption` for an unknown allocation or compensation, `InvalidPlan` for the scores of
    another model, `InvalidTarget` for a target that a layer cannot meet; while it runs, as `make_plan`, `prune`
    and `perplexity` do.
    """
    choice(allocation, ALLOCATIONS, "allocation")
    choice(compensation, COMPENSATIONS, "compensation")
    if scores.fingerprint not in (loaded.fingerprint, loaded.spec.fingerprint):
        raise InvalidPlan("These scores belong to another model. Score this model first.")
    targets = tuple(grid)
    for target in targets:
        target.per_layer(loaded.spec)

    def measure(plan: PruningPlan, watch: Progress) -> float:
        if not REPAIRS[compensation].changes:
            with hooks_suspended(), masked(loaded, plan):
                return perplexity(loaded, evaluation, progress=watch)
        before = Repeating(watch, evaluation.num_tokens, "tokens")
        pruned = prune(
            loaded, plan, compensation=compensation, statistics=statistics, progress=lambda *figures: before.check()
        )
        return perplexity(pruned, evaluation, progress=watch)

    def points() -> Iterator[SweepPoint]:
        for number, target in enumerate(targets):
            plan = make_plan(scores, loaded.spec, target, allocation=allocation, locks=locks)
            watch = part(progress, number, len(targets))
            yield SweepPoint(target, plan, measure(plan, watch), plan.spec.num_parameters)

    return points()


def search_split(
    loaded: LoadedModel,
    scores: ImportanceScores,
    text: TokenSet,
    *,
    parameters: int,
    allocation: str = "uniform",
    locks: Locks | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[SweepPoint, ...]:
    """Splits of a number of parameters between attention and MLP, each measured behind masks, the best first.

    Tries `PruningTarget.splits`, eight of them at most, evenly spread over the numbers of head groups; the lowest
    perplexity on `text` is best. That is usually the calibration set or a part of it, as a test text should not
    be used for choices. Raises as `PruningTarget.splits` and `sweep` do.
    """
    splits = PruningTarget.splits(loaded.spec, parameters)
    spread = {round(place * (len(splits) - 1) / (_MOST_SPLITS - 1)) for place in range(_MOST_SPLITS)}
    candidates = [splits[index] for index in sorted(spread)]
    points = sweep(loaded, scores, candidates, text, allocation=allocation, locks=locks, progress=progress)
    return tuple(sorted(points, key=lambda point: point.perplexity))


def sparsity_grid(
    spec: ModelSpec, *, attention: Sequence[float] | None = None, mlp: Sequence[float] = _MLP_SPARSITIES
) -> tuple[PruningTarget, ...]:
    """Targets over all pairs of an attention and an MLP sparsity, coarse to fine, so that a map fills evenly.

    By default every head-group count of a layer (eight of them at most, evenly spread) with eight MLP
    sparsities. Attention sparsities that leave the same head groups count once and are stated as reached, in
    `requested`. The point of least sparsity comes first, then the other corners, then the points halfway
    between those, and so on. Raises `InvalidTarget` for a sparsity outside [0, 1).
    """
    groups = max(layer.num_key_value_heads for layer in spec.layers)
    if attention is None:
        rows = min(groups, _MOST_ROWS)
        attention = [1 - round(groups * (rows - row) / rows) / groups for row in range(rows)]
    kept = {kept_count(groups, 1 - checked_sparsity("attention sparsity", value)) for value in attention}
    reached = sorted(1 - count / groups for count in kept)
    columns = sorted({checked_sparsity("MLP sparsity", value) for value in mlp})
    places = [
        (max(row_step, column_step), row, column)
        for row, row_step in enumerate(_refinement(len(reached)))
        for column, column_step in enumerate(_refinement(len(columns)))
    ]
    return tuple(
        PruningTarget.from_sparsity(spec, attention=reached[row], mlp=columns[column])
        for _, row, column in sorted(places)
    )


def _refinement(count: int) -> list[int]:
    """For each of `count` places in a row, the step at which it is filled: the ends first, then every half.

    5 places: 0 2 1 2 0.
    """
    steps = [0] * count
    spans, step = [(0, count - 1)], 0
    while spans:
        step += 1
        halves = []
        for first, last in spans:
            if last - first > 1:
                middle = (first + last) // 2
                steps[middle] = step
                halves += [(first, middle), (middle, last)]
        spans = halves
    return steps
