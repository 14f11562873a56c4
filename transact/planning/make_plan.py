"""From scores and a target to a `PruningPlan`, without the model."""

from dataclasses import replace

import numpy as np
import torch

from transact.errors import InvalidOption, InvalidPlan, InvalidTarget, choice
from transact.planning.allocation import (
    ALLOCATIONS,
    KEEP_HIGHEST,
    Kept,
    Units,
    filled,
    heads_in_groups,
    highest_in_groups,
    layers_to_keep,
)
from transact.scoring.metrics import METRICS
from transact.scoring.scores import ImportanceScores
from transact.spec.layer_plan import LayerPlan
from transact.spec.locks import NO_LOCKS, Locks
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import PruningPlan
from transact.spec.target import LIMITS_OF_CACHE, PruningTarget


def make_plan(
    scores: ImportanceScores,
    spec: ModelSpec,
    target: PruningTarget,
    *,
    allocation: str = "uniform",
    locks: Locks | None = None,
) -> PruningPlan:
    """Keep the highest scores; on a tie the lower layer, then the lower index stays.

    - `"uniform"`: in every layer as many as the target says.
    - `"global"`: in the whole model as many head groups and as many channels as the target says for all layers
      together, so that parameters and KV cache are those of the uniform plan. A unit competes with its share of its
      layer, s_j / Σ_i s_i: activations grow with depth, so raw scores would compare layers rather than units, and of
      the standardisations tried (z-scores as FLAP's among them) the share lost least after repair. Every layer
      keeps at least `GLOBAL_FLOOR` of its own count, rounded up.
    - `"flap"`: as many parameters as the target says for all layers together; head groups compete with channels by
      standardised scores, so that the target's split between attention and MLP does not matter and the KV cache can
      differ. FLAP as published is this with the metric "flap" and the repair "bias".

    Inside heads, each kept group keeps the pairs and the value channels that are worth most in it.

    With `keep_layers` the layers go that change the residual stream least, and those that stay share the target.

    `spec` is the model that the scores belong to. Raises `InvalidPlan` if it is not, `InvalidTarget` for
    counts that a layer does not have, locks that contradict them or, under "flap", a target made for a size of the KV
    cache, `InvalidOption` for an allocation and for pairs, or layers, to be removed by scores that know none.
    """
    choice(allocation, ALLOCATIONS, "allocation")
    if scores.fingerprint.split("/")[0] != spec.fingerprint:
        raise InvalidPlan("These scores belong to a model of other shapes. Score this model first.")
    if allocation == "flap" and any(name in LIMITS_OF_CACHE for name, _ in target.requested):
        raise InvalidTarget(
            "The allocation 'flap' decides itself how many head groups stay, so that it cannot keep within a limit of "
            "memory or of the KV cache. Give a limit of parameters, shares or counts, or choose another allocation."
        )
    locks = locks or NO_LOCKS
    kept_layers = chosen_layers(scores, spec, target, locks)
    heads = [layer.numpy().reshape(-1, spec.group_size) for layer in scores.heads]  # [group, head in it]
    groups, channels = _kept_units(_units(scores, spec, target, heads, locks), kept_layers, allocation)
    per_group = target.heads_per_group(spec)
    inside = kept_inside_heads(scores, spec, target, groups)
    return PruningPlan(
        layers=tuple(
            LayerPlan(kept_groups, heads_in_groups(values, kept_groups, per_group), kept_channels, *dimensions)
            for values, kept_groups, kept_channels, dimensions in zip(heads, groups, channels, inside, strict=True)
        ),
        dense_spec=spec,
        fingerprint=scores.fingerprint,
        metric=scores.metric,
        calibration=scores.calibration,
        allocation="manual" if target.is_by_layer and allocation == "uniform" else allocation,
        requested=target.requested,
        kept_layers=kept_layers,
    )


def chosen_layers(scores: ImportanceScores, spec: ModelSpec, target: PruningTarget, locks: Locks) -> tuple[int, ...]:
    """Sorted indices of the layers that the target keeps: those with the highest scores, on a tie the lower index.

    A layer with units that are locked to stay stays. Raises as `make_plan` does.
    """
    count = target.num_layers(spec)
    if count == spec.num_hidden_layers:
        return tuple(range(count))
    if scores.layers is None:
        raise InvalidOption(
            "These scores do not know how much each layer changes the residual stream, which keep_layers goes by: an "
            "earlier version observed them, or they were put together from channels. Observe and score again, or leave "
            "out keep_layers."
        )
    if not bool(scores.layers.isfinite().all()):
        raise InvalidPlan("The scores of the layers are NaN or infinite. Score the model again.")
    return layers_to_keep(scores.layers.numpy(), count, {*locks.keep_head_groups, *locks.keep_channels})


def _kept_units(units: tuple[Units, Units], kept_layers: tuple[int, ...], allocation: str) -> tuple[Kept, Kept]:
    """The head groups and channels that stay, those of layers that go as they would be by themselves."""
    of_staying = (
        replace(each, counts=[count * (layer in kept_layers) for layer, count in enumerate(each.counts)])
        for each in units
    )
    groups, channels = (
        filled(kept, each) for kept, each in zip(KEEP_HIGHEST[allocation](*of_staying), units, strict=True)
    )
    return groups, channels


def _units(
    scores: ImportanceScores, spec: ModelSpec, target: PruningTarget, heads: list[np.ndarray], locks: Locks
) -> tuple[Units, Units]:
    """Head groups and channels as an allocation takes them; `heads[layer]` [group, head in it] are their scores."""
    shapes, pruned = target.per_layer(spec), target.spec(spec)
    heads_per_group = pruned.group_size
    mlp = [layer.numpy() for layer in scores.mlp_channels]
    groups = Units(
        # a group scores the mean of the heads that would stay in it
        scores=[layer.numpy() for layer in scores.head_groups]
        if heads_per_group == spec.group_size
        else [np.sort(layer)[:, -heads_per_group:].mean(axis=1) for layer in heads],
        counts=[shape.num_key_value_heads for shape in shapes],
        keep=locks.keep_head_groups,
        remove=locks.remove_head_groups,
        kind="head groups",
        parameters=pruned.parameters_per_head_group,
        channels=[layer.numpy().ravel() for layer in scores.attention_channels],
        score_of_ones=float(METRICS[scores.metric].head_scores(torch.ones(1, spec.value_dim, dtype=torch.float64))),
    )
    channels = Units(
        scores=mlp,
        counts=[shape.intermediate_size for shape in shapes],
        keep=locks.keep_channels,
        remove=locks.remove_channels,
        kind="channels",
        parameters=pruned.parameters_per_channel,
        channels=mlp,
    )
    return groups, channels


KeptInside = tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
"""`kept_pairs` and `kept_value_channels` of a `LayerPlan`."""


def kept_inside_heads(
    scores: ImportanceScores, spec: ModelSpec, target: PruningTarget, groups: list[tuple[int, ...]]
) -> list[KeptInside]:
    """Per layer what each of its kept `groups` keeps of its pairs and value channels; empty where all stay.

    Raises as `make_plan` does.
    """
    widths = target.head_widths(spec)
    cuts_pairs, cuts_values = (widths[name] < getattr(spec, name) for name in ("query_key_dim", "value_dim"))
    if cuts_pairs and not scores.rotary_pairs:
        raise InvalidOption(
            "These scores do not know RoPE pairs, which keep_query_key_dim removes. Score what was observed with "
            "queries=True, or leave it out."
        )

    def of_layer(layer: int, kept: tuple[int, ...]) -> KeptInside:
        pairs: tuple[tuple[int, ...], ...] = ()
        values: tuple[tuple[int, ...], ...] = ()
        if cuts_pairs:
            pairs = highest_in_groups(scores.rotary_pairs[layer].numpy(), kept, widths["query_key_dim"] // 2)
        if cuts_values:
            values = highest_in_groups(scores.value_channels(layer).numpy(), kept, widths["value_dim"])
        return pairs, values

    return [of_layer(layer, kept) for layer, kept in enumerate(groups)]
