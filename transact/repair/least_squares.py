"""Least squares, projection by projection: the channels that stay take over what they share with the removed ones.

With X the transitional activations [token, channel], W [hidden, channel] the projection that reads them and S the kept
channels, the new weights minimise ‖X W^T − X_S W'^T‖² + λ‖W' − W_S‖², so

    W' = (W G[:, S] + λ W_S) (G[S, S] + λ I)^-1,   G = X^T X,   λ = 1e-3 · mean diagonal of G.

It follows from the statistics alone, with no forward pass, unless these say that Gram matrices are to be gathered one
layer at a time. Solved in float64 (`transact.repair.ridge`).
"""

from functools import cached_property

import torch

from transact.errors import InvalidOption
from transact.layers.slicing import NewProjection, Site
from transact.layers.weights import matrix
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.repair.layer_grams import GramPass
from transact.repair.refit_base import Refit, check_same_model
from transact.repair.ridge import reduced, solved


class LeastSquaresRefit(Refit):
    """Refits each projection to what the removed channels added; raises as `GramPass` does where it uses one."""

    @cached_property
    def _gram_pass(self) -> GramPass | None:
        """Gathers the Gram matrices layer by layer, where the statistics leave that to the repair."""
        if self.statistics is None or self.statistics.tokens is None or not gathers_grams(self.statistics):
            return None
        return GramPass(self.loaded, self.statistics.tokens, self.progress)

    def __call__(self, site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        def check() -> None:
            self.progress(layer, self.loaded.spec.num_hidden_layers, "layers")

        weight = matrix(old)
        equations = reduced(weight, self._gram(site, layer), kept, check)
        return NewProjection(self.rounded(solved(equations, weight, kept, check), weight), old.bias)

    @property
    def hidden(self) -> list[torch.Tensor]:
        return [] if self._gram_pass is None else self._gram_pass.hidden

    def resume(self, layer: int, hidden: list[torch.Tensor]) -> None:
        if self._gram_pass is not None:
            self._gram_pass.resume(layer, hidden)

    def _gram(self, site: Site, layer: int) -> torch.Tensor:
        if self._gram_pass is not None:
            return self._gram_pass.gram(site, layer)
        return getattr(self.statistics, site)[layer].gram.to(self.loaded.device_of_layer(layer))


def gathers_grams(statistics: ActivationStatistics) -> bool:
    """Whether the repair gathers its Gram matrices itself, a layer at a time."""
    return statistics.gram_by_layer and statistics.tokens is not None and statistics.mlp[0].gram is None


def check_grams(loaded: LoadedModel, statistics: ActivationStatistics | None) -> None:
    """Raise `InvalidOption` for statistics without Gram matrices, `InvalidPlan` for those of another model."""
    if statistics is None or (statistics.mlp[0].gram is None and not gathers_grams(statistics)):
        raise InvalidOption(
            "Least-squares repair works from Gram matrices. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    check_same_model(loaded, statistics)
