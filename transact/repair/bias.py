"""Bias repair (FLAP, An et al. 2023, arXiv 2312.11983): what the removed channels added on average becomes a bias.

    b' = b + Σ_{j removed} mean(x_j) W_:j

Only where the stock class has such a bias; a Llama gains its biases by configuration.
"""

import torch

from transact.errors import InvalidOption
from transact.layers.slicing import NewProjection, Site
from transact.layers.weights import matrix
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.repair.refit_base import Refit, check_same_model
from transact.spec.family import Family
from transact.spec.plan import PruningPlan


class BiasRefit(Refit):
    """Adds to each bias what the removed channels added on average."""

    def __call__(self, site: Site, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        assert self.statistics is not None, "refused by check_means"
        whole = matrix(old)
        weight = whole[:, kept]
        means = getattr(self.statistics, site)[layer].sums / self.statistics.num_tokens
        removed = torch.ones(len(means), dtype=torch.bool, device=whole.device)
        removed[kept] = False
        if not removed.any():
            return NewProjection(weight, old.bias)
        added = whole[:, removed].double() @ means.to(whole.device)[removed]
        return NewProjection(weight, self.rounded(added if old.bias is None else old.bias.double() + added, whole))


def check_means(loaded: LoadedModel, statistics: ActivationStatistics | None) -> None:
    """Raise `InvalidOption` without statistics, `InvalidPlan` for those of another model."""
    if statistics is None:
        raise InvalidOption("Bias repair works from means. Pass statistics=observe(loaded, calibration).")
    check_same_model(loaded, statistics)


def needs_bias(plan: PruningPlan, family: Family) -> tuple[bool, bool]:
    """Whether bias repair of the plan needs a bias behind attention, and behind the MLP.

    Raises `InvalidOption`, with the reason, where the family's stock class cannot have it.
    """
    pairs = [(kept, plan.dense_spec.layers[index]) for index, kept in plan.kept_layer_plans.items()]
    needed = (
        any(len(kept.kept_heads) < shape.num_attention_heads for kept, shape in pairs)
        or plan.spec.value_dim < plan.dense_spec.value_dim,
        any(len(kept.kept_channels) < shape.intermediate_size for kept, shape in pairs),
    )
    for is_needed, possible, where in zip(
        needed, (family.output_bias, family.mlp_bias), ("attention output", "MLP output"), strict=True
    ):
        if is_needed and not possible:
            raise InvalidOption(
                f"Bias repair needs a bias behind the {where}, which {family.label}'s stock class cannot hold. "
                'Choose compensation="least_squares" or "best": they need no new tensor.'
            )
    return needed
