"""How far a plan depends on which calibration samples were drawn: no forward pass, only sums."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transact.errors import InvalidOption, choice, seed_number, whole_number
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics, Moments
from transact.planning.make_plan import make_plan
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.scoring.metrics import METRICS, Site
from transact.scoring.scores import ImportanceScores, pair_scores, score
from transact.spec.plan import PruningPlan
from transact.spec.target import PruningTarget


@dataclass(frozen=True)
class Spread:
    """Mean, lowest and highest of the resamples."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True, eq=False)
class Stability:
    """How far a plan depends on which samples were drawn, and on how many.

    `plan` is the one from all samples. For each number of samples in `sizes`, `head_group_overlaps` and
    `channel_overlaps` tell which share of its kept units the plans from `resamples` draws keep (mean over the
    layers), beside what chance alone gives. `head_group_frequencies[layer]` float64 array [group] and
    `channel_frequencies[layer]` [channel]: the share of bootstraps of full size in which the unit is kept;
    units far from both 0 and 1 are undecided. Where heads are cut inside groups, heads take the place of groups; which
    dimensions of heads stay is not compared.
    """

    metric: str
    plan: PruningPlan
    sizes: tuple[int, ...]
    resamples: int
    head_group_overlaps: tuple[Spread, ...]
    channel_overlaps: tuple[Spread, ...]
    head_group_chance: float
    channel_chance: float
    head_group_frequencies: tuple[np.ndarray, ...]
    channel_frequencies: tuple[np.ndarray, ...]


def stability(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    target: PruningTarget,
    *,
    metric: str = "transact",
    allocation: str = "uniform",
    sizes: Sequence[int] | None = None,
    resamples: int = 8,
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> Stability:
    """Score and plan again from random subsets of the calibration samples; no forward pass.

    For each number of samples in `sizes` (by default 1, 2, 4, ... and all), `resamples` subsets are drawn
    without replacement. All samples can be drawn in one way only, so that size is a bootstrap: as many samples,
    drawn with replacement. Plans are made under `allocation`, as `make_plan` does. A size's draws depend on `seed`
    and on no other argument. Progress is in resamples.

    Raises `InvalidOption` for statistics that were not observed with `samples=True`, for an unknown metric, for
    one that needs gradients and for numbers out of range, `InvalidPlan` and `InvalidTarget` as `score` and
    `make_plan` do.
    """
    if METRICS[choice(metric, METRICS, "metric")].needs_gradients:
        raise InvalidOption(
            f"The metric {metric!r} works from gradients of whole batches, which cannot be resampled. Choose "
            f"one of {', '.join(name for name, each in METRICS.items() if not each.needs_gradients)}."
        )
    target.check_keeps_all_layers("The comparison of resamples")
    statistics.check_samples()
    available = len(statistics.sample_tokens)
    requested_sizes = _sizes(sizes, available)
    resamples, seed = whole_number(resamples, "resamples", least=1), seed_number(seed)
    plan = make_plan(score(loaded, statistics, metric=metric), loaded.spec, target, allocation=allocation)
    drawn = sorted({*requested_sizes, available})
    times = torch.cat([_draws(size, available, resamples, seed) for size in drawn])  # [draw, sample]
    groups: dict[int, list[list[np.ndarray]]] = {size: [] for size in drawn}
    channels: dict[int, list[list[np.ndarray]]] = {size: [] for size in drawn}
    for number, scores in enumerate(_rescored(loaded, statistics, metric, times, progress)):
        again = make_plan(scores, loaded.spec, target, allocation=allocation)
        size = drawn[number // resamples]
        groups[size].append(_kept_groups(again))
        channels[size].append(_kept_channels(again))
        progress(number + 1, len(times), "resamples")
    return Stability(
        metric=metric,
        plan=plan,
        sizes=requested_sizes,
        resamples=resamples,
        head_group_overlaps=tuple(_spread(groups[size], _kept_groups(plan)) for size in requested_sizes),
        channel_overlaps=tuple(_spread(channels[size], _kept_channels(plan)) for size in requested_sizes),
        head_group_chance=float(np.mean([kept.mean() for kept in _kept_groups(plan)])),
        channel_chance=float(np.mean([kept.mean() for kept in _kept_channels(plan)])),
        head_group_frequencies=_frequencies(groups[available]),
        channel_frequencies=_frequencies(channels[available]),
    )


def _sizes(sizes: Sequence[int] | None, available: int) -> tuple[int, ...]:
    if sizes is None:
        powers = (1 << exponent for exponent in range(available.bit_length()))
        return tuple(sorted({*powers, available}))
    if not len(sizes):
        raise InvalidOption(f"sizes is empty; give at least one number of samples from 1 to {available}.")
    return tuple(whole_number(size, "An entry of sizes", least=1, most=available) for size in sizes)


def _draws(size: int, available: int, resamples: int, seed: int) -> torch.Tensor:
    """How often each sample is drawn: float64 [resample, sample]; with replacement if all are drawn."""
    generator = np.random.default_rng([seed, size])
    draws = [generator.choice(available, size, replace=size == available) for _ in range(resamples)]
    return torch.from_numpy(np.array([np.bincount(draw, minlength=available) for draw in draws], dtype=np.float64))


def _rescored(
    loaded: LoadedModel, statistics: ActivationStatistics, metric: str, times: torch.Tensor, progress: Progress
) -> Iterator[ImportanceScores]:
    """The scores of every draw of samples, `times` float64 [draw, sample], in order.

    A site's channel scores are taken for all draws in one go, so that its weights are read only once.
    """
    num_tokens = (times @ torch.tensor(statistics.sample_tokens, dtype=torch.float64))[:, None]  # [draw, 1]
    generator = torch.Generator().manual_seed(0)
    layout = loaded.layout

    def channel_scores(layer: torch.nn.Module, role: str, moments: Moments) -> torch.Tensor:
        site = Site.of(loaded, layer, role, moments.drawn(times), num_tokens)
        scores = METRICS[metric].channel_scores(site, generator)
        return scores.expand(len(times), -1)  # metrics without activations have one row: [channel] -> [draw, channel]

    attention: list[torch.Tensor] = []
    mlp: list[torch.Tensor] = []
    watch = Repeating(progress, len(times), "resamples")
    for index, (output, down) in enumerate(zip(statistics.attention, statistics.mlp, strict=True)):
        with loaded.layer(index, watch.check) as layer:
            for kept, role, moments in ((attention, layout.output, output), (mlp, layout.down, down)):
                watch.check()
                kept.append(channel_scores(layer, role, moments))
    pairs = [
        pair_scores(queries.drawn(times).square_sums, keys.drawn(times).square_sums, loaded.spec.query_key_dim)
        for queries, keys in zip(statistics.queries, statistics.keys, strict=True)
    ]
    for draw in range(len(times)):
        yield ImportanceScores.from_channels(
            metric,
            tuple(scores[draw] for scores in attention),
            tuple(scores[draw] for scores in mlp),
            loaded.spec,
            fingerprint=loaded.fingerprint,
            calibration=statistics.calibration.name,
            rotary_pairs=tuple(scores[draw] for scores in pairs),
        )


def _kept_groups(plan: PruningPlan) -> list[np.ndarray]:
    """Per layer, which head groups stay, bool [group]; heads, [head], where the plan cuts inside groups."""
    if plan.cuts_inside_groups:
        return [
            _flags(layer.kept_heads, shape.num_attention_heads)
            for layer, shape in zip(plan.layers, plan.dense_spec.layers, strict=True)
        ]
    return [
        _flags(layer.kept_head_groups, shape.num_key_value_heads)
        for layer, shape in zip(plan.layers, plan.dense_spec.layers, strict=True)
    ]


def _kept_channels(plan: PruningPlan) -> list[np.ndarray]:
    """Per layer, which channels stay: bool [channel]"""
    return [
        _flags(layer.kept_channels, shape.intermediate_size)
        for layer, shape in zip(plan.layers, plan.dense_spec.layers, strict=True)
    ]


def _flags(kept: tuple[int, ...], available: int) -> np.ndarray:
    flags = np.zeros(available, dtype=bool)
    flags[list(kept)] = True
    return flags


def _spread(draws: list[list[np.ndarray]], whole: list[np.ndarray]) -> Spread:
    """Of the units that the whole set keeps, the share that each draw keeps: `draws` [draw][layer][unit]."""
    shares = [np.mean([kept[reference].mean() for kept, reference in zip(draw, whole, strict=True)]) for draw in draws]
    return Spread(float(np.mean(shares)), float(min(shares)), float(max(shares)))


def _frequencies(draws: list[list[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """The share of draws that keep each unit, layer by layer: [draw][layer][unit] -> float64 [unit]"""
    return tuple(np.mean(layer, axis=0) for layer in zip(*draws, strict=True))
