"""The sizes in the configuration and modules of a model in memory, set once its projections are narrower."""

import copy

import torch
from transformers import PreTrainedConfig

from transact.spec.family import Family
from transact.spec.model_spec import HEAD_WIDTHS, LayerShape, ModelSpec


def update_config(model: torch.nn.Module, spec: ModelSpec) -> None:
    """Set the actual sizes in the configuration; for layers of different sizes those of the widest.

    The modules read these numbers at construction only, so a head count that the configuration class would
    refuse in a file does no harm in memory.
    """
    widest = spec.widest.layers[0]
    layout = spec.layout
    model.config.head_dim = spec.head_dim
    model.config.tie_word_embeddings = spec.tie_word_embeddings
    if spec.has_narrow_heads:
        for name in HEAD_WIDTHS:
            setattr(model.config, name, getattr(spec, name))
    write_shape(model.config, widest, layout)
    for layer, shape in zip(model.get_submodule(layout.layers), spec.layers, strict=True):
        mlp = layer.get_submodule(layout.down.rpartition(".")[0])
        mlp.intermediate_size = shape.intermediate_size
        attention = layer.get_submodule(layout.attention)
        sizes = {
            "heads": shape.num_attention_heads,
            "groups": shape.num_key_value_heads,
            "width": spec.attention_width(shape),
        }
        if hasattr(attention, "num_key_value_groups"):
            attention.num_key_value_groups = shape.group_size
        for attribute, size in layout.attention_sizes:
            setattr(attention, attribute, sizes[size])
        if layout.attention_reads_config:
            attention.config = copy.copy(model.config)
            write_shape(attention.config, shape, layout)


def write_shape(config: PreTrainedConfig, shape: LayerShape, layout: Family) -> None:
    """Set these sizes for all layers in a configuration."""
    config.num_attention_heads = shape.num_attention_heads
    config.num_key_value_heads = shape.num_key_value_heads
    setattr(config, layout.channels, shape.intermediate_size)
