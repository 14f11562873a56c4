"""The stock class with layers of different sizes, which it cannot build itself, filled from its files.

The stock modeling classes do not read `per_layer_config` yet. So the model is built here: the stock class at
the global sizes with no weight in memory, then its projections narrowed layer by layer.
"""

from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from transact.layers.config_sizes import update_config
from transact.layers.slicing import shrink
from transact.layers.weights import cast
from transact.models.sources import is_constant
from transact.models.stored_weights import check_complete, check_shape
from transact.progress import NO_CHECK, Check
from transact.spec.model_spec import ModelSpec


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
    keys = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    check_complete(lacking, [name for name in keys.unexpected_keys if not is_constant(name)])
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
        update_config(model, spec)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model
