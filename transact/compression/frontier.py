"""What a size will cost, foretold from a probe of a few seconds: which kind of part is cheap in this model.

Behind masks a little text tells how much the loss rises where channels, head groups, or whole layers alone go, at two
amounts each. Between and beyond these a kind's rise is taken to follow a power of the share x of all parameters,

    rise(x) = a x^b,    1 <= b <= 6,

through both measured points, and rises of different kinds to add up. How much of it `compress` leaves depends on the
text that least squares is solved on, t tokens for every channel of a layer, and on whether there is time to distil:

    left = (0.75 + 0.8 / (1 + t / 3)) · (0.93 where it distils, else 1)

times the rise. The numbers are fitted to results of the bundled model (10 to 45 % smaller, t = 6 to 26) and of
SmolLM2-135M (15 and 25 % smaller, t = 1.3, and the ratio of one to ten minutes). From 15 to 30 % smaller the foretold
logarithm of the factor is within a quarter of the measured one. Further out it is too low (at 45 % by 45 %): a model
falls apart faster than a power.
"""

import math
from dataclasses import dataclass, replace

from transact.compression.recipe import Recipe, target_of_size
from transact.cutting.masking import masked
from transact.errors import InvalidOption, InvalidTarget, NonFiniteActivations, whole_number
from transact.evaluation.evaluate import perplexity
from transact.layers.hooks import hooks_suspended
from transact.models.loaded_model import LoadedModel
from transact.planning.make_plan import make_plan
from transact.progress import NO_PROGRESS, Progress, part
from transact.scoring.scores import ImportanceScores
from transact.spec.model_spec import ModelSpec
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet, evenly_spread

CHANNELS, GROUPS, LAYERS = "channels", "head groups", "layers"
_LEFT, _LEFT_WITHOUT_TEXT, _HALF_TOKENS, _DISTILLED = 0.75, 0.8, 3.0, 0.93
_MUCH_TEXT = 40
"""Tokens a channel, where it is not known how many there will be."""
_CHANNEL_SHARES = (0.15, 0.4)
_LEAST_RISE = 1e-3
"""Nats; smaller ones, or none at all, are noise of the text."""
_EXPONENTS = (1.0, 6.0)


@dataclass(frozen=True)
class KindCost:
    """What it costs to remove one kind of part alone.

    `points`: pairs of the share of all parameters that goes and the rise of the loss behind masks, in nats a token, by
    rising share. `step`: the smallest share of it that can go from every layer (of layers: of all).
    """

    kind: str
    points: tuple[tuple[float, float], ...]
    step: float

    def rise(self, share: float) -> float:
        """How much the loss is taken to rise where that share of all parameters goes, in nats."""
        if share <= 0:
            return 0.0
        (x, y), (last, high) = self.points[0], self.points[-1]
        y, high = max(y, _LEAST_RISE), max(high, _LEAST_RISE)
        exponent = 1.0 if last <= x else math.log(high / y) / math.log(last / x)
        exponent = min(max(exponent, _EXPONENTS[0]), _EXPONENTS[1])
        return high * (share / last) ** exponent

    def factor(self, share: float) -> float:
        """How many times the dense perplexity that is."""
        return math.exp(self.rise(share))

    @property
    def price(self) -> float:
        """Rise of the loss for each share of all parameters, at the first point."""
        share, rise = self.points[0]
        return max(rise, 0.0) / share


@dataclass(frozen=True)
class Frontier:
    """What a probe found: the dense `perplexity` on its `num_tokens`, and the cost of each kind that can go."""

    perplexity: float
    num_tokens: int
    costs: tuple[KindCost, ...]

    def cost(self, kind: str) -> KindCost | None:
        """That kind's; None where none of it can go."""
        return next((cost for cost in self.costs if cost.kind == kind), None)

    def masked_factor(self, spec: ModelSpec, target: PruningTarget) -> float:
        """How many times the dense perplexity the target is foretold to have behind masks."""
        return math.exp(sum(cost.rise(share) for cost, share in self._shares(spec, target)))

    def factor(self, spec: ModelSpec, size: float, recipe: Recipe | None = None) -> float:
        """How many times the dense perplexity `compress` is foretold to come to at that size.

        `recipe`: what it will do, None where that is not known: then there is time for distillation. Raises
        `InvalidTarget` for a size that cannot be reached.
        """
        return self.masked_factor(spec, target_of_size(spec, size)) ** left(spec, recipe)

    def _shares(self, spec: ModelSpec, target: PruningTarget):
        """Each kind with the share of all parameters that the target takes of it."""
        whole = spec.num_parameters
        kept = target.per_layer(spec)
        groups = tuple(replace(one, intermediate_size=own.intermediate_size)
                       for one, own in zip(kept, spec.layers, strict=True))  # fmt: skip
        of_groups = 1 - spec.with_layers(groups).num_parameters / whole
        of_all = 1 - target.spec(spec).num_parameters / whole
        for kind, share in ((GROUPS, of_groups), (CHANNELS, of_all - of_groups)):
            cost = self.cost(kind)
            if cost is not None:
                yield cost, share


def left(spec: ModelSpec, recipe: Recipe | None) -> float:
    """The part of the rise behind masks that `compress` is foretold to leave; without a recipe, with enough time."""
    tokens, distills = float(_MUCH_TEXT), True
    if recipe is not None:
        tokens = recipe.observed_tokens / max(layer.intermediate_size for layer in spec.layers)
        distills = recipe.distills
    refitted = _LEFT + _LEFT_WITHOUT_TEXT / (1 + tokens / _HALF_TOKENS)
    return refitted * (_DISTILLED if distills else 1.0)


@hooks_suspended()
def probe_frontier(
    loaded: LoadedModel,
    scores: ImportanceScores,
    calibration: CalibrationSet,
    *,
    num_tokens: int = 1_024,
    progress: Progress = NO_PROGRESS,
) -> Frontier:
    """Measure behind masks what channels, head groups and layers cost, on about `num_tokens` of the text.

    Takes seven forward passes over these at most. Progress is in tokens of all of them. The model is unchanged.

    Raises `InvalidOption` for a number of tokens below 1, `InvalidPlan` for the scores of another model, and as
    `perplexity` does.
    """
    tokens = evenly_spread(calibration, whole_number(num_tokens, "num_tokens", least=1, error=InvalidOption))
    cuts = [(kind, target, step) for kind, targets, step in _kinds(loaded.spec) for target in targets]
    passes = len(cuts) + 1
    dense = perplexity(loaded, tokens, progress=part(progress, 0, passes))
    points: dict[str, list[tuple[float, float]]] = {}
    steps = {kind: step for kind, _, step in cuts}
    for number, (kind, target, _) in enumerate(cuts, start=1):
        plan = make_plan(scores, loaded.spec, target)
        with masked(loaded, plan):
            found = perplexity(loaded, tokens, progress=part(progress, number, passes))
        share = 1 - plan.spec.num_parameters / loaded.spec.num_parameters
        points.setdefault(kind, []).append((share, math.log(found / dense)))
    if not all(math.isfinite(rise) for pairs in points.values() for _, rise in pairs):
        raise NonFiniteActivations("The loss behind masks is not a number on this text. Give other text.")
    costs = tuple(KindCost(kind, tuple(sorted(pairs)), steps[kind]) for kind, pairs in points.items())
    return Frontier(dense, tokens.num_tokens, costs)


def _kinds(spec: ModelSpec) -> list[tuple[str, list[PruningTarget], float]]:
    """Each kind with one or two cuts of it alone, and its smallest step."""
    groups = min(layer.num_key_value_heads for layer in spec.layers)
    channels = min(layer.intermediate_size for layer in spec.layers)
    found = []
    if channels > 1:
        cuts = [PruningTarget.from_sparsity(spec, mlp=share) for share in _CHANNEL_SHARES]
        found.append((CHANNELS, cuts, 1 / channels))
    if groups > 1:
        counts = sorted({1, max(1, groups // 2)})
        found.append((GROUPS, [PruningTarget.from_sparsity(spec, attention=n / groups) for n in counts], 1 / groups))
    depth = spec.num_hidden_layers
    if depth > 1:
        counts = sorted({1, max(1, depth // 6)})
        whole = PruningTarget.from_sparsity(spec)
        found.append((LAYERS, [replace(whole, keep_layers=depth - n) for n in counts], 1 / depth))
    return found


def reachable_sizes(spec: ModelSpec, sizes: tuple[float, ...]) -> tuple[float, ...]:
    """Those of the sizes that `compress` can reach."""

    def can_be(size: float) -> bool:
        try:
            target_of_size(spec, size)
        except InvalidTarget:
            return False
        return True

    return tuple(size for size in sizes if can_be(size))
