"""How many MLP channels each layer keeps: shared out by price, and only as far as measuring bears it out.

Prices are those of small changes (`transact.planning.widths`). In a small model, or where much goes, the first layers
come out too cheap, as the layers after them do worse the more is missing (measured). So what is tried lies between
equal widths and the priced ones, and the least perplexity after least squares decides.
"""

from dataclasses import replace

from transact.analysis.sweep import sweep
from transact.layers.hooks import hooks_suspended
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.planning.widths import common_multiple, priced_widths
from transact.progress import NO_PROGRESS, Progress, part
from transact.repair.refit_base import calibration_tokens
from transact.scoring.scores import score
from transact.spec.kept_counts import collapse
from transact.spec.locks import Locks
from transact.spec.model_spec import ModelSpec
from transact.spec.target import PruningTarget
from transact.text.calibration import evenly_spread

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far from equal widths towards the priced ones."""
_MEASURED_TOKENS = 8_192


@hooks_suspended()
def search_widths(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    target: PruningTarget,
    *,
    locks: Locks | None = None,
    progress: Progress = NO_PROGRESS,
) -> PruningTarget:
    """The target with its MLP channels shared out among the layers, where they are missed least after refitting.

    As many channels in all, so that the parameters are the same; head groups and layers are left as they are, and where
    equal widths do best, so are the channels. Layers of different widths have no stock configuration: see `save`.
    Takes the Gram matrices of `observe(gram=True)`, or gathers them layer by layer where the statistics say so; one
    backward pass over some of the calibration text; and five results of least squares, measured on some of it. The
    model is unchanged. Deterministic.

    Raises as `transact.planning.widths.priced_widths` and `sweep` do.
    """
    priced = priced_widths(loaded, statistics, target, locks=locks, progress=part(progress, 0, 2)).target
    candidates = dict.fromkeys(between(loaded.spec, target, priced, share) for share in SHARES)
    if len(candidates) == 1:
        return target
    text = evenly_spread(calibration_tokens(loaded, statistics), _MEASURED_TOKENS)
    points = sweep(
        loaded, score(loaded, statistics), candidates, text,
        compensation="least_squares", statistics=statistics, locks=locks, progress=part(progress, 1, 2),
    )  # fmt: skip
    return min(points, key=lambda point: point.perplexity).target


def between(spec: ModelSpec, target: PruningTarget, priced: PruningTarget, share: float) -> PruningTarget:
    """The target with channels that lie so far between its own and the priced ones, as many of them in all.

    In whole multiples: those that rounding down leaves over go to the layers that lost most by it.
    """
    multiple = common_multiple(spec, target)
    own, other = ([shape.intermediate_size for shape in each.per_layer(spec)] for each in (target, priced))
    exact = [mine + share * (theirs - mine) for mine, theirs in zip(own, other, strict=True)]
    counts = [int(number // multiple) * multiple for number in exact]
    lost = sorted(range(len(counts)), key=lambda layer: (counts[layer] - exact[layer], layer))
    over = round(sum(exact)) - sum(counts)
    for layer in lost[: over // multiple]:
        counts[layer] += multiple
    return replace(target, keep_channels=collapse(tuple(counts)))
