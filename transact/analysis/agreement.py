"""How far scores can be trusted: what another text, or another metric, changes. Values in, values out.

Two rankings are compared by Spearman's coefficient: with r and s the ranks of the units in both, ties sharing
the mean of their ranks, ρ = Σ (r − r̄)(s − s̄) / sqrt(Σ (r − r̄)² · Σ (s − s̄)²). A layer whose units all score the
same has no order: ρ is then defined as 1 if that holds for both, and as 0 if it holds for one. Two choices of
units are compared by their overlap: the share of the units kept by one that the other keeps too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from transact.errors import InvalidPlan
from transact.scoring.scores import ImportanceScores
from transact.spec.target import checked_sparsity, kept_count


@dataclass(frozen=True)
class OverlapCurve:
    """How many of the kept units two uniform plans share, for each sparsity; means over the layers.

    `head_groups`, `channels`: shared by the two plans / kept by each. `head_groups_by_chance`,
    `channels_by_chance`: what two random choices of that many share on average, kept / available.
    """

    sparsities: tuple[float, ...]
    head_groups: tuple[float, ...]
    channels: tuple[float, ...]
    head_groups_by_chance: tuple[float, ...]
    channels_by_chance: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class CalibrationComparison:
    """One metric on two calibration texts.

    `head_correlations`, `head_group_correlations`, `channel_correlations`: Spearman's ρ of each layer.
    `head_differences[layer]` float64 array [head] and `channel_differences[layer]` [channel]: share on the
    second text − share on the first, a unit's share being its score / the mean score of its kind in the layer
    (0 in a layer that scores 0 throughout). A unit with a share of 1 is an average one.
    """

    first: ImportanceScores
    second: ImportanceScores
    head_correlations: tuple[float, ...]
    head_group_correlations: tuple[float, ...]
    channel_correlations: tuple[float, ...]
    head_differences: tuple[np.ndarray, ...]
    channel_differences: tuple[np.ndarray, ...]

    def overlap(self, sparsities: Iterable[float]) -> OverlapCurve:
        """What uniform plans from both texts share, with each sparsity for head groups and channels alike.

        Counts are those of `PruningTarget.from_sparsity`. Raises `InvalidTarget` for a sparsity outside [0, 1).
        """
        checked = tuple(checked_sparsity("sparsity", value) for value in sparsities)
        groups = _shared(self.first.head_groups, self.second.head_groups, checked)
        channels = _shared(self.first.mlp_channels, self.second.mlp_channels, checked)
        return OverlapCurve(checked, groups[0], channels[0], groups[1], channels[1])


@dataclass(frozen=True, eq=False)
class MetricAgreement:
    """How alike metrics rank: `heads` and `channels`, float64 arrays [metric, metric] of Spearman's ρ.

    Means over the layers; `metrics` names the rows and columns.
    """

    metrics: tuple[str, ...]
    heads: np.ndarray
    channels: np.ndarray


def compare_calibrations(first: ImportanceScores, second: ImportanceScores) -> CalibrationComparison:
    """What the choice of text changes: the same model and metric, scored on two calibration sets.

    Raises `InvalidPlan` for scores of different models or metrics.
    """
    _check_same_model(first, second)
    if first.metric != second.metric:
        raise InvalidPlan(
            f"The scores are by {first.metric!r} and by {second.metric!r}; two texts are compared under one metric. "
            "Use agreement to compare metrics."
        )
    return CalibrationComparison(
        first=first,
        second=second,
        head_correlations=_correlations(first.heads, second.heads),
        head_group_correlations=_correlations(first.head_groups, second.head_groups),
        channel_correlations=_correlations(first.mlp_channels, second.mlp_channels),
        head_differences=_differences(first.heads, second.heads),
        channel_differences=_differences(first.mlp_channels, second.mlp_channels),
    )


def agreement(scores: Mapping[str, ImportanceScores]) -> MetricAgreement:
    """How alike several metrics rank the heads and the channels of one model; the names are those given.

    Raises `InvalidPlan` for no scores at all and for scores of different models.
    """
    if not scores:
        raise InvalidPlan("There are no scores to compare. Give at least one metric's.")
    of_metrics = list(scores.values())
    for other in of_metrics[1:]:
        _check_same_model(of_metrics[0], other)
    return MetricAgreement(
        metrics=tuple(scores),
        heads=_matrix([each.heads for each in of_metrics]),
        channels=_matrix([each.mlp_channels for each in of_metrics]),
    )


def _check_same_model(first: ImportanceScores, second: ImportanceScores) -> None:
    """Scores from shapes alone (`ImportanceScores.random`) belong to every model of those shapes."""
    mine, theirs = first.fingerprint.partition("/"), second.fingerprint.partition("/")
    if mine[0] != theirs[0] or (mine[2] and theirs[2] and mine[2] != theirs[2]):
        raise InvalidPlan("These scores belong to different models. Score one model to compare its scores.")


def _ranks(scores: torch.Tensor) -> np.ndarray:
    """Ranks from 1, ties sharing their mean: [unit] -> float64 [unit]"""
    _, places, counts = np.unique(scores.numpy(), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's coefficient of two rankings, [unit] each; see the module for rankings without an order."""
    one, other = first - first.mean(), second - second.mean()
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    if lengths == 0:
        return float(np.array_equal(one, other))
    return float(np.clip(one @ other / lengths, -1, 1))


def _correlations(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
    return tuple(_correlation(_ranks(one), _ranks(other)) for one, other in zip(first, second, strict=True))


def _matrix(of_metrics: list[tuple[torch.Tensor, ...]]) -> np.ndarray:
    """Mean over the layers of Spearman's ρ of every pair: [metric, metric]"""
    ranks = [[_ranks(layer) for layer in layers] for layers in of_metrics]
    return np.array(
        [
            [np.mean([_correlation(*pair) for pair in zip(first, second, strict=True)]) for second in ranks]
            for first in ranks
        ]
    )


def _differences(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, ...]:
    return tuple(_share(other) - _share(one) for one, other in zip(first, second, strict=True))


def _share(scores: torch.Tensor) -> np.ndarray:
    """score / mean score: [unit] -> float64 [unit]"""
    values = scores.numpy()
    mean = values.mean()
    return values / mean if mean else np.zeros_like(values)


def _shared(
    first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...], sparsities: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each sparsity: shared / kept and kept / available, means over the layers."""
    layers = [(_order(one), _order(other)) for one, other in zip(first, second, strict=True)]
    shared, by_chance = [], []
    for value in sparsities:
        counts = [kept_count(len(one), 1 - value) for one, _ in layers]
        counted = list(zip(layers, counts, strict=True))
        shared.append(float(np.mean([np.mean((one < count)[other < count]) for (one, other), count in counted])))
        by_chance.append(float(np.mean([count / len(one) for (one, _), count in counted])))
    return tuple(shared), tuple(by_chance)


def _order(scores: torch.Tensor) -> np.ndarray:
    """The rank of each unit from 0, the highest score; of equals the lower index first: int64 [unit].

    A uniform plan that keeps n units keeps those of rank below n.
    """
    places = np.empty(len(scores), dtype=np.int64)
    places[np.argsort(-scores.numpy(), kind="stable")] = np.arange(len(scores))
    return places
