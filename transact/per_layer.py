"""Layers of different sizes in one checkpoint, compact, by the `per_layer_config` of `transformers`.

    "per_layer_config": {"0": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}, ...}

The schema is that of `PreTrainedConfig` (5.2x): what a layer's configuration overrides, by its number. The stock
modeling classes do not read it yet, so that `ta.load` builds the model here: the stock class at the global sizes with
no weight in memory, then its projections narrowed layer by layer.
"""

import json
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from transact.errors import CheckpointBroken
from transact.families import Family
from transact.matrices import cast
from transact.progress import NO_CHECK, Check
from transact.size_limits import from_one_to
from transact.sizes import write_sizes
from transact.slicing import shrink
from transact.sources import is_constant
from transact.spec import LayerShape, ModelSpec
from transact.stored_weights import check_complete, check_shape

KEY = "per_layer_config"


def add_to(config_file: Path, spec: ModelSpec) -> None:
    """Write into a config.json of one size for all layers what every layer of `spec` has of its own."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    names = _names(spec.layout)
    config[KEY] = {
        str(index): {name: getattr(shape, attribute) for name, attribute in names}
        for index, shape in enumerate(spec.layers)
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def with_layers(spec: ModelSpec, overrides: dict) -> ModelSpec:
    """The spec with the layers that `per_layer_config` describes; `spec` has those that it leaves out.

    Raises `CheckpointBroken` for anything but such a mapping, and for keys that pruning knows nothing of.
    """
    known = {name: attribute for name, attribute in _names(spec.layout)}
    layers, most = list(spec.layers), vars(spec.layers[0])
    try:
        for index, values in overrides.items():
            number = int(index)
            if number < 0:
                raise IndexError(number)
            given = {known[name]: value for name, value in values.items()}
            # a layer is made at the global sizes and narrowed, so that none has more
            shape = vars(layers[number]) | {name: from_one_to(most[name], value) for name, value in given.items()}
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


def read(
    config: PreTrainedConfig,
    whole: ModelSpec,
    spec: ModelSpec,
    files: tuple[Path, ...],
    dtype: torch.dtype,
    check: Check = NO_CHECK,
) -> PreTrainedModel:
    """The stock class of `config` (sizes `whole`) with layers as `spec` has them, filled from safetensors files.

    Raises `CheckpointBroken` where a tensor is missing, left over or of another size.
    """
    model = empty_model(config, whole, spec, dtype, files[0].parent)
    state = {}
    for file in files:
        for name, tensor in load_file(file).items():
            check()
            state[name] = cast(tensor, dtype)
    for name, tensor in model.state_dict().items():
        if name in state:
            check_shape(name, tuple(state[name].shape), tuple(tensor.shape))
    found = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    check_complete(lacking, [name for name in found.unexpected_keys if not is_constant(name)])
    return model


def empty_model(
    config: PreTrainedConfig, whole: ModelSpec, spec: ModelSpec, dtype: torch.dtype, folder: Path
) -> PreTrainedModel:
    """The stock class of `config` (sizes `whole`) with layers as `spec` has them and parameters on the meta device.

    How it generates is read from the checkpoint's folder.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if spec != whole:
        for layer, large, small in zip(model.get_submodule(spec.layout.layers), whole.layers, spec.layers, strict=True):
            shrink(layer, large, small, whole, spec)
        write_sizes(model, spec)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _names(layout: Family) -> tuple[tuple[str, str], ...]:
    """Configuration key and attribute of `LayerShape`."""
    heads = (("num_attention_heads", "num_attention_heads"),)
    groups = (("num_key_value_heads", "num_key_value_heads"),) if layout.grouped_queries else ()
    return (*heads, *groups, (layout.channels, "intermediate_size"))
