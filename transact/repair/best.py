"""The best repair: module by module on the already cut prefix (`transact.repair.sequential`), then two closed-form
steps over the whole network (`transact.repair.gauss_newton`). Runs the model on the calibration tokens.
"""

from transact.errors import NotEnoughMemory
from transact.models.loaded_model import LoadedModel
from transact.models.tasks_by_placement import BEST_REPAIR
from transact.observing.statistics import ActivationStatistics
from transact.progress import Check, Progress, part
from transact.repair.gauss_newton import gauss_newton_bytes, gauss_newton_steps
from transact.repair.refit_base import WholeModelRepair, calibration_tokens
from transact.repair.ridge import NormalEquations
from transact.repair.sequential import refit, sequential_bytes
from transact.runtime.devices import free_bytes
from transact.spec.layer_plan import LayerPlan
from transact.spec.plan import PruningPlan
from transact.text.tokens import TokenSet

_BATCH = 8


def check_tokens(loaded: LoadedModel, statistics: ActivationStatistics | None) -> None:
    """Raise as `calibration_tokens` does, and `InvalidOption` where the model is spread over several devices."""
    loaded.check_can(BEST_REPAIR)
    calibration_tokens(loaded, statistics)


def best(
    loaded: LoadedModel, plan: PruningPlan, statistics: ActivationStatistics | None, progress: Progress
) -> WholeModelRepair:
    """Refit the projections in order; the Gauss-Newton steps follow once they are in place.

    Raises `NotEnoughMemory` before the work, and `NonFiniteActivations`.
    """
    tokens = calibration_tokens(loaded, statistics)
    _check_fits(loaded, plan, tokens)
    refitted = refit(
        loaded, tokens, _PlannedUnits(plan), grams_of=plan.spec, batch_size=_BATCH, progress=part(progress, 0, 2)
    )

    def steps(pruned: LoadedModel) -> None:
        gauss_newton_steps(loaded, pruned, tokens, refitted.grams, part(progress, 1, 2))

    return WholeModelRepair(refitted.projections, steps)


def best_bytes(plan: PruningPlan, calibration: TokenSet, bytes_per_element: int = 4) -> int:
    """About what `prune(compensation="best")` takes at its peak beside the model, the result included.

    `bytes_per_element`: of the dtype in memory.
    """
    dense, spec = plan.dense_spec, plan.spec
    positions = calibration.input_ids.numel()
    refit_bytes = sequential_bytes(dense, positions, grams_of=spec, bytes_per_element=bytes_per_element)
    newton_bytes = gauss_newton_bytes(spec, calibration, bytes_per_element) if calibration.num_predictions else 0
    return spec.num_parameters * bytes_per_element + max(refit_bytes, newton_bytes)


def _check_fits(loaded: LoadedModel, plan: PruningPlan, tokens: TokenSet) -> None:
    needed, free = best_bytes(plan, tokens, loaded.dtype.itemsize), free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"The best repair of this plan with {tokens.num_tokens:,} tokens needs about {needed / 1e9:.1f} GB beside "
            f"the model and {free / 1e9:.1f} GB are free. Give fewer or shorter samples, or use "
            'compensation="least_squares".'
        )


class _PlannedUnits:
    """Selects what an existing plan keeps."""

    def __init__(self, plan: PruningPlan):
        self.plan = plan
        self.kept_layers = plan.kept_layers

    def attention(self, layer: int) -> LayerPlan:
        return self.plan.layers[layer]

    def channels(self, layer: int, normal: NormalEquations | None, check: Check) -> tuple[int, ...]:
        return self.plan.layers[layer].kept_channels
