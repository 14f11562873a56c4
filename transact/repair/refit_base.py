"""What a repair gives, projection after projection or for the whole model, and the statistics it may work from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from transact.errors import InvalidOption, InvalidPlan
from transact.layers.slicing import NewProjection, Site
from transact.layers.weights import matrix
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.progress import NO_PROGRESS, Progress
from transact.text.calibration import CalibrationSet


class Refit:
    """Makes the narrower projections reading the transitional activations, layer after layer. This one repairs nothing.

    A repair that is made projection by projection derives from it and replaces `__call__`. `statistics` have
    passed its check. One that runs text through the layers meanwhile has its state in `hidden`, from which `resume`
    continues.
    """

    def __init__(self, loaded: LoadedModel, statistics: ActivationStatistics | None, progress: Progress = NO_PROGRESS):
        self.loaded = loaded
        self.statistics = statistics
        self.progress = progress

    def __call__(self, site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        """What takes the place of `old`, where of its input the channels `kept` (int64, sorted) are left."""
        return plain_refit(site, layer, old, kept)

    @property
    def hidden(self) -> list[torch.Tensor]:
        """The residual stream of every batch before the next layer; empty where no text is run."""
        return []

    def resume(self, layer: int, hidden: list[torch.Tensor]) -> None:
        """Continue before that layer, with `hidden` as it was there."""

    def rounded(self, weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Computed values as the base's files can hold them, in the dtype of `like`.

        Files may hold fewer bits than memory does. Rounding now lets the result be saved as small as its base, with
        exactly the weights that were measured.
        """
        return weight.to(DTYPES[self.loaded.stored_dtype]).to(like.dtype)


@dataclass(frozen=True)
class WholeModelRepair:
    """The result of a repair that needs the whole model at once.

    `projections`: the new ones, by the `id` of those that they replace. `finish`: changes the pruned model in place
    once they are part of it.
    """

    projections: dict[int, torch.nn.Module]
    finish: Callable[[LoadedModel], None]


def plain_refit(site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
    """What is left of the projection, as it was."""
    return NewProjection(matrix(old)[:, kept], old.bias)


def no_check(loaded: LoadedModel, statistics: ActivationStatistics | None) -> None:
    """For a repair that needs no statistics."""


def check_same_model(loaded: LoadedModel, statistics: ActivationStatistics) -> None:
    """Raise `InvalidPlan` for the statistics of another model."""
    if statistics.fingerprint != loaded.fingerprint:
        raise InvalidPlan("These statistics were recorded on another model. Observe this model first.")


def calibration_tokens(loaded: LoadedModel, statistics: ActivationStatistics | None) -> CalibrationSet:
    """The text that the statistics were made from, for work that runs the model on it again.

    Raises `InvalidOption` where there is none, `InvalidPlan` for the statistics of another model.
    """
    if statistics is None:
        raise InvalidOption(
            "This runs the model on its calibration text. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    check_same_model(loaded, statistics)
    if statistics.tokens is None:
        raise InvalidOption(
            "These statistics do not hold the calibration tokens they were made from (a file of statistics never "
            "does), and this runs the model on them again. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    return statistics.tokens
