"""Making up for what is cut, without training and without a tensor that a stock checkpoint lacks.

- bias (FLAP, An et al. 2023, arXiv 2312.11983): b' = b + Σ_{j removed} mean(x_j) W_:j, what the removed channels
  added on average. Only where the stock class has such a bias; a Llama gains its biases by configuration.
- least_squares: with X the transitional activations [token, channel], W [hidden, channel] the projection that
  reads them and S the kept channels, the new weights minimise ‖X W^T − X_S W'^T‖² + λ‖W' − W_S‖², so

      W' = (W G[:, S] + λ W_S) (G[S, S] + λ I)^-1,   G = X^T X,   λ = 1e-3 · mean diagonal of G.

  The remaining channels take over what they share with the removed ones.
- best: least squares module by module on the already cut prefix (`transact.repair.sequential`), then two closed-form
  steps over the whole network (`transact.repair.gauss_newton`). Runs the model on the calibration tokens.

The first two follow from the statistics alone, with no forward pass, unless these say that Gram matrices are to be
gathered one layer at a time. Solved in float64.
"""

from typing import Protocol

import torch

from transact.errors import InvalidOption, InvalidPlan
from transact.layers.slicing import NewProjection, Site
from transact.layers.weights import matrix
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.progress import NO_PROGRESS, Progress
from transact.repair.layer_grams import GramWalk
from transact.repair.ridge import least_squares, reduced, solved
from transact.spec.families import Family
from transact.spec.plan import PruningPlan
from transact.text.calibration import CalibrationSet

__all__ = ["COMPENSATIONS", "Refit", "calibration_tokens", "least_squares", "needs_bias", "refit_for"]

COMPENSATIONS = ("none", "bias", "least_squares", "best")
"""Ways to make up for what is cut."""


class Refit(Protocol):
    """One way to make up for what is cut, module by module."""

    def __call__(self, site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        """What takes the place of `old` where of its input the channels `kept` are left."""


def walks(compensation: str, statistics: ActivationStatistics | None) -> bool:
    """Whether the repair gathers its Gram matrices itself, a layer at a time."""
    if compensation != "least_squares" or statistics is None:
        return False
    return statistics.gram_by_layer and statistics.tokens is not None and statistics.mlp[0].gram is None


def plain_refit(site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
    """What is left of the projection, as it was."""
    return NewProjection(matrix(old)[:, kept], old.bias)


def check_repair(compensation: str, loaded: LoadedModel, statistics: ActivationStatistics | None) -> None:
    """Raise `InvalidOption` or `InvalidPlan` for statistics that the repair cannot work from; all but "best"."""
    if compensation == "none":
        return
    lacks_grams = statistics is None or (statistics.mlp[0].gram is None and not walks(compensation, statistics))
    if statistics is None or (compensation == "least_squares" and lacks_grams):
        if compensation == "bias":
            raise InvalidOption("Bias repair works from means. Pass statistics=observe(loaded, calibration).")
        raise InvalidOption(
            "Least-squares repair works from Gram matrices. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    _check_same_model(loaded, statistics)


def refit_for(
    compensation: str,
    loaded: LoadedModel,
    statistics: ActivationStatistics | None,
    progress: Progress = NO_PROGRESS,
    walk: GramWalk | None = None,
) -> Refit:
    """The refit of that name, to be asked for layer after layer; all but "best".

    `walk`: the one to take Gram matrices from where it `walks`; one is begun unless given. Raises what `check_repair`
    does, and as `GramWalk` does for statistics that were observed with `gram="by_layer"`.
    """
    check_repair(compensation, loaded, statistics)
    if compensation == "none":
        return plain_refit
    assert statistics is not None, "refused by check_repair"
    # the base's files may hold fewer bits than memory does; rounding now lets the result be saved as
    # small as its base, with exactly the weights that were measured
    rounding = DTYPES[loaded.stored_dtype]

    def recorded(site: Site, layer: int) -> torch.Tensor:
        return getattr(statistics, site)[layer].gram.to(loaded.device_of_layer(layer))

    gram_of = recorded
    if walks(compensation, statistics) and statistics.tokens is not None:
        gram_of = (walk or GramWalk(loaded, statistics.tokens, progress)).gram

    def least_squares_refit(site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        def check() -> None:
            progress(layer, loaded.spec.num_hidden_layers, "layers")

        weight = matrix(old)
        equations = reduced(weight, gram_of(site, layer), kept, check)
        new = solved(equations, weight, kept, check)
        return NewProjection(new.to(rounding).to(weight.dtype), old.bias)

    def bias_refit(site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        whole = matrix(old)
        weight = whole[:, kept]
        means = getattr(statistics, site)[layer].sums / statistics.num_tokens
        removed = torch.ones(len(means), dtype=torch.bool, device=whole.device)
        removed[kept] = False
        if not removed.any():
            return NewProjection(weight, old.bias)
        added = whole[:, removed].double() @ means.to(whole.device)[removed]
        bias = added if old.bias is None else old.bias.double() + added
        return NewProjection(weight, bias.to(rounding).to(whole.dtype))

    return bias_refit if compensation == "bias" else least_squares_refit


def needs_bias(plan: PruningPlan, family: Family) -> tuple[bool, bool]:
    """Whether bias repair of that plan wants a bias behind attention, and behind the MLP.

    Raises `InvalidOption`, with the reason, where the family's stock class cannot have it.
    """
    pairs = list(zip(plan.layers, plan.dense_spec.layers, strict=True))
    wanted = (
        any(len(kept.kept_heads) < shape.num_attention_heads for kept, shape in pairs)
        or plan.spec.value_dim < plan.dense_spec.value_dim,
        any(len(kept.kept_channels) < shape.intermediate_size for kept, shape in pairs),
    )
    for want, possible, where in zip(
        wanted, (family.output_bias, family.mlp_bias), ("attention output", "MLP output"), strict=True
    ):
        if want and not possible:
            raise InvalidOption(
                f"Bias repair needs a bias behind the {where}, which {family.label}'s stock class cannot hold. "
                'Choose compensation="least_squares" or "best": they need no new tensor.'
            )
    return wanted


def calibration_tokens(loaded: LoadedModel, statistics: ActivationStatistics | None) -> CalibrationSet:
    """The text that the statistics were made from, for work that runs the model on it again."""
    if statistics is None:
        raise InvalidOption(
            "This runs the model on its calibration text. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    _check_same_model(loaded, statistics)
    if statistics.tokens is None:
        raise InvalidOption(
            "These statistics do not hold the calibration tokens they were made from (a file of statistics never "
            "does), and this runs the model on them again. Pass statistics=observe(loaded, calibration, gram=True)."
        )
    return statistics.tokens


def _check_same_model(loaded: LoadedModel, statistics: ActivationStatistics) -> None:
    if statistics.fingerprint != loaded.fingerprint:
        raise InvalidPlan("These statistics were recorded on another model. Observe this model first.")
