"""Whole decoder layers taken out of a model in memory, and out of what its configuration says of each layer."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig

from transact.errors import InvalidPlan
from transact.spec.family import Family


def keep_layers(model: torch.nn.Module, layout: Family, kept: Sequence[int]) -> None:
    """Leave those of the model's layers, in their order, numbered anew: caches are kept by number."""
    layers = model.get_submodule(layout.layers)
    if len(kept) == len(layers):
        return
    for index in reversed(range(len(layers))):
        if index not in kept:
            del layers[index]
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    keep_in_config(model.config, layout, kept)


def keep_in_config(config: PreTrainedConfig, layout: Family, kept: Sequence[int]) -> None:
    """Let the configuration describe those layers alone.

    Where a class derives a pattern from the layers' numbers, its list of the result is written: it comes first.
    Raises `InvalidPlan` where what a layer computes depends on its number, and that would change.
    """
    if len(kept) == config.num_hidden_layers:
        return
    if layout.index_scale is not None and getattr(config, layout.index_scale) and list(kept) != list(range(len(kept))):
        raise InvalidPlan(
            f"With {layout.index_scale} the attention of this {layout.label} is divided by the number of its layer, so "
            "that a layer cannot move up into the place of one that went. Remove none, or only the last layers."
        )
    for name in layout.layer_lists:
        values = getattr(config, name, None)
        if values is not None:
            setattr(config, name, [values[index] for index in kept])
    first = getattr(config, layout.first_layers, None)
    if first is not None:
        setattr(config, layout.first_layers, sum(index < first for index in kept))
    config.num_hidden_layers = len(kept)
