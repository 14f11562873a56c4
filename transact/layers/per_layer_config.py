"""Layers of different sizes in one config.json, by the `per_layer_config` of `transformers`.

    "per_layer_config": {"0": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}, ...}

The schema is that of `PreTrainedConfig` (5.2x): what a layer's configuration overrides, by its number.
"""

import json
from pathlib import Path

from transact.errors import CheckpointBroken
from transact.spec.family import Family
from transact.spec.model_spec import LayerShape, ModelSpec
from transact.spec.size_limits import from_one_to

KEY = "per_layer_config"


def add_to(config_file: Path, spec: ModelSpec) -> None:
    """Write into a config.json of one size for all layers the sizes of every layer of `spec`."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    names = _names(spec.layout)
    config[KEY] = {
        str(index): {name: getattr(shape, attribute) for name, attribute in names}
        for index, shape in enumerate(spec.layers)
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def with_layers(spec: ModelSpec, overrides: dict) -> ModelSpec:
    """The spec with the layers that `per_layer_config` describes; `spec` has those that it leaves out.

    Raises `CheckpointBroken` for anything but such a mapping, and for keys that pruning does not know.
    """
    known = {name: attribute for name, attribute in _names(spec.layout)}
    layers, most = list(spec.layers), vars(spec.layers[0])
    try:
        for index, values in overrides.items():
            number = int(index)
            if number < 0:
                raise IndexError(number)
            attributes = {known[name]: value for name, value in values.items()}
            # a layer is made at the global sizes and narrowed, so that none has more
            shape = vars(layers[number]) | {name: from_one_to(most[name], value) for name, value in attributes.items()}
            if not spec.layout.grouped_queries:
                shape["num_key_value_heads"] = shape["num_attention_heads"]
            layers[number] = LayerShape(**shape)
        if any(shape.num_attention_heads != layers[0].group_size * shape.num_key_value_heads for shape in layers):
            raise ValueError("heads")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise CheckpointBroken(
            f"{KEY} in config.json is not what this reads: per layer the positive numbers {', '.join(known)}, none "
            "above the whole model's, the same number of heads per key/value head in every layer. Load a checkpoint of "
            "stock layers, or one that this project saved."
        ) from None
    return spec.with_layers(tuple(layers))


def _names(layout: Family) -> tuple[tuple[str, str], ...]:
    """Configuration key and attribute of `LayerShape`."""
    heads = (("num_attention_heads", "num_attention_heads"),)
    groups = (("num_key_value_heads", "num_key_value_heads"),) if layout.grouped_queries else ()
    return (*heads, *groups, (layout.channels, "intermediate_size"))
