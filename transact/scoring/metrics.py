"""How much each head, head group and channel matters: pure functions of statistics and weight norms.

With x_j a channel of a transitional activation, s_j = sqrt(Σ_tokens x_j²), and W the projection that reads it
(`o_proj` or `down_proj`, [hidden, channel]):

- transact (Shen et al. 2024, arXiv 2407.05690): s_j; a head scores mean_j s_j + (10 / head_dim) · max_j s_j.
- wanda (Wanda-sp, Sun et al. 2023 and An et al. 2023): Σ_i |W_ij| · s_j.
- fluctuation (WIFV of FLAP, An et al. 2023, arXiv 2312.11983): Var_tokens(x_j) · ‖W_:j‖².
- flap (the same as the authors' `lib/prune.py` uses it): in attention the square of that, and a head scores the mean
  over its channels. Their variance is a running estimate over samples; ours is the exact one over all tokens. See the
  allocation "flap" (`transact.planning.allocation.keep_above_threshold`) for what they compare these scores by.
- magnitude: ‖W_:j‖.
- taylor (the paper's other scorer, and LLM-Pruner's, Ma et al. 2023, arXiv 2305.11627): Σ |weight · gradient| over
  the weights that go with the channel, biases left out; from statistics observed with `taylor=True`. See
  `transact.observing.taylor` for where absolute values are taken.
- random: uniform in [0, 1), seeded; the floor that any metric must beat.

For all others a head scores the sum over its channels. A head group scores the mean of its heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from transact.layers.weights import matrix
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import Moments

_MAX_SHARE = 10.0
"""Weight of a head's largest channel beside its mean, divided by head_dim (the authors' `pruning/prune.py`)."""


@dataclass(frozen=True)
class Site:
    """One projection with the statistics of its input: `weight` [hidden, channel], as the model holds it.

    `is_attention`: the input is that of the attention's output projection, and not the MLP's.
    """

    weight: torch.Tensor
    moments: Moments
    num_tokens: int | torch.Tensor
    is_attention: bool

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        layer: torch.nn.Module,
        role: str,
        moments: Moments,
        num_tokens: int | torch.Tensor,
    ) -> "Site":
        """The site of one decoder layer whose projection the layout calls `role`."""
        weight = matrix(layer.get_submodule(role)).detach()
        return cls(weight, moments, num_tokens, is_attention=role == loaded.layout.output)


@dataclass(frozen=True)
class Metric:
    """A way to score channels. `channel_scores` maps a `Site` and a seeded generator to float64 [channel].

    `needs_gradients`: it works from statistics observed with `taylor=True` alone; see `available_metrics`.
    `needs_weights`: it reads what the weights hold, not their shape alone.
    """

    name: str
    label: str
    summary: str
    channel_scores: Callable[[Site, torch.Generator], torch.Tensor]
    head_scores: Callable[[torch.Tensor], torch.Tensor]
    needs_gradients: bool = False
    needs_weights: bool = True


def _sum_over_channels(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]"""
    return channels.sum(dim=1)


def _mean_over_channels(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]"""
    return channels.mean(dim=1)


def _mean_and_peak(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]: mean_j s_j + (10 / head_dim) · max_j s_j."""
    return channels.mean(dim=1) + _MAX_SHARE / channels.shape[1] * channels.amax(dim=1)


def _transact(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.norms()


def _wanda(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.weight.abs().sum(dim=0, dtype=torch.float64).cpu() * site.moments.norms()


def _fluctuation(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.variances(site.num_tokens) * _column_norms(site.weight).square()


def _flap(site: Site, generator: torch.Generator) -> torch.Tensor:
    fluctuation = _fluctuation(site, generator)
    return fluctuation.square() if site.is_attention else fluctuation


def _magnitude(site: Site, generator: torch.Generator) -> torch.Tensor:
    return _column_norms(site.weight)


def _taylor(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.taylor


def _random(site: Site, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(site.weight.shape[1], dtype=torch.float64, generator=generator)


def _column_norms(weight: torch.Tensor) -> torch.Tensor:
    """[hidden, channel] -> ‖W_:j‖, float64 [channel]"""
    return torch.linalg.vector_norm(weight, dim=0, dtype=torch.float64).cpu()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "transact",
            "Activation norm (TransAct)",
            "size of the activation",
            _transact,
            _mean_and_peak,
            needs_weights=False,
        ),
        Metric("wanda", "Weight × activation (Wanda-sp)", "activation times its weights", _wanda, _sum_over_channels),
        Metric(
            "fluctuation",
            "Fluctuation (FLAP)",
            "variance of the activation times its weights",
            _fluctuation,
            _sum_over_channels,
        ),
        Metric(
            "flap",
            "FLAP as published (squared for heads)",
            "variance times weights, strong channels of a head weigh more",
            _flap,
            _mean_over_channels,
        ),
        Metric(
            "taylor",
            "Weight × gradient (Taylor)",
            "what the loss would change, to first order",
            _taylor,
            _sum_over_channels,
            needs_gradients=True,
            needs_weights=False,
        ),
        Metric("magnitude", "Weight magnitude", "weights alone, no text", _magnitude, _sum_over_channels),
        Metric("random", "Random (the floor)", "chance, seeded", _random, _sum_over_channels, needs_weights=False),
    )
}
"""Every metric by its name, as `score` takes it."""
