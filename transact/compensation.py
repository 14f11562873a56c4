"""Making up for what is cut, without training and without a tensor that a stock checkpoint lacks.

Least squares: with X the transitional activations [token, channel], W [hidden, channel] the projection that
reads them and S the kept channels, the new weights minimise ‖X W^T − X_S W'^T‖² + λ‖W' − W_S‖², so

    W' = (W G[:, S] + λ W_S) (G[S, S] + λ I)^-1,   G = X^T X,   λ = 1e-3 · mean diagonal of G.

The remaining channels take over what they share with the removed ones. Solved in float64.
"""

from typing import Protocol

import torch

from transact.errors import InvalidOption, InvalidPlan
from transact.loading import DTYPES, LoadedModel
from transact.observe import ActivationStatistics

COMPENSATIONS = ("none", "least_squares")
"""Ways to make up for what is cut."""

_RIDGE = 1e-3
"""λ as a share of the Gram matrix's mean diagonal: pulls directions that the text never used to what they were."""


class Refit(Protocol):
    def __call__(self, site: str, layer: int, weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """The new weight [hidden, kept] for `weight` [hidden, channel] of `site` ("attention" or "mlp")."""


def refit_for(compensation: str, loaded: LoadedModel, statistics: ActivationStatistics | None) -> Refit:
    """The refit of that name. Raises `InvalidOption` or `InvalidPlan` for statistics it cannot work from."""
    if compensation == "none":
        return lambda site, layer, weight, kept: weight[:, kept]
    if statistics is None or statistics.mlp[0].gram is None:
        raise InvalidOption(
            "Least-squares repair works from Gram matrices. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    if statistics.fingerprint != loaded.fingerprint:
        raise InvalidPlan("These statistics were recorded on another model. Observe this model first.")

    def refit(site: str, layer: int, weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        gram = getattr(statistics, site)[layer].gram
        new = least_squares(weight, gram.to(weight.device), kept)
        # the base's files may hold fewer bits than memory does; rounding now lets the result be saved as
        # small as its base, with exactly the weights that were measured
        return new.to(DTYPES[loaded.stored_dtype]).to(weight.dtype)

    return refit


def least_squares(weight: torch.Tensor, gram: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """W' of the formula above: `weight` [hidden, channel], `gram` float64 [channel, channel], `kept` indices.

    Returns [hidden, kept] in the dtype of `weight`.
    """
    if len(kept) == weight.shape[1]:
        return weight[:, kept]
    full = weight.double()
    ridge = _RIDGE * gram.diagonal().mean()
    if ridge == 0:  # the text never moved any channel: nothing to learn from
        return weight[:, kept]
    inner = gram[kept][:, kept]
    inner.diagonal().add_(ridge)
    outer = full @ gram[:, kept] + ridge * full[:, kept]
    factor = torch.linalg.cholesky(inner)
    return torch.cholesky_solve(outer.T, factor).T.to(weight.dtype)
