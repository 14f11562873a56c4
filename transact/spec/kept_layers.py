"""A model with some of its decoder layers alone: which ones, and the shape that they leave."""

from collections.abc import Sequence
from dataclasses import replace

from transact.errors import InvalidPlan, is_whole_number, shown
from transact.spec.model_spec import ModelSpec


def checked_layers(kept: Sequence[int], available: int) -> tuple[int, ...]:
    """The layers as plain numbers, all of them where none is named.

    Raises `InvalidPlan` unless they rise from at least 0 to at most the last of `available` layers.
    """
    if not all(map(is_whole_number, kept)):
        raise InvalidPlan(f"kept_layers is {shown(kept)}; give the numbers of the layers that stay, as (0, 1, 3).")
    layers = tuple(map(int, kept)) or tuple(range(available))
    if any(low >= high for low, high in zip(layers, layers[1:], strict=False)):
        raise InvalidPlan(f"kept_layers is {shown(kept)}; give each layer once, the lowest number first.")
    if layers[0] < 0 or layers[-1] >= available:
        raise InvalidPlan(f"kept_layers is {shown(kept)}; name layers from 0 to {available - 1}.")
    return layers


def only_layers(spec: ModelSpec, kept: Sequence[int]) -> ModelSpec:
    """The same model with those of its layers, in their order."""
    outside = spec.layout.parameters_outside_layers(spec.hidden_size, spec.max_position_embeddings)
    norms = (spec.other_parameters - outside) // spec.num_hidden_layers
    return replace(
        spec,
        layers=tuple(spec.layers[index] for index in kept),
        windows=tuple(spec.windows[index] for index in kept),
        other_parameters=spec.other_parameters - norms * (spec.num_hidden_layers - len(kept)),
    )
