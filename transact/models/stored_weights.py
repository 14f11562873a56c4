"""What the files of a checkpoint, or a model in memory, really hold, where its configuration may differ."""

import copy
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from transact.errors import CheckpointBroken, ModelUnsupported
from transact.layers.config_sizes import write_shape
from transact.spec.family import Family
from transact.spec.model_spec import ModelSpec

TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""The files' names of dtypes in torch's spelling."""
_COMPARED_ROWS = 4096


def headers(files: tuple[Path, ...]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype (in the files' spelling) of every tensor; raises `CheckpointBroken` for a damaged file."""
    held = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                    entry = tensors.get_slice(name)
                    held[name] = (tuple(entry.get_shape()), entry.get_dtype())
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointBroken(
                f"{file.name} cannot be read ({error}); it is truncated or damaged. Download it again."
            ) from None
    return held


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise `CheckpointBroken` where a tensor has another shape than its configuration gives it."""
    if shape != expected:
        raise CheckpointBroken(
            f"{name} has shape {list(shape)}, but config.json calls for {list(expected)}. "
            "Use the config.json that belongs to these weights."
        )


def check_complete(lacking: Collection[str], surplus: Collection[str]) -> None:
    """Raise `CheckpointBroken` where files lack tensors that the configuration calls for, or hold others."""
    for problem, names in (("lacks", lacking), ("has a surplus", surplus)):
        if names:
            raise CheckpointBroken(
                f"The checkpoint {problem} tensor {sorted(names)[0]} ({len(names)} in all), so it would not compute "
                "what it was made for. Use the config.json and the weights that belong together."
            )


def has_own_head(files: tuple[Path, ...], family: Family) -> bool:
    """Whether the files hold an output head that is not tied to the embeddings, whatever config.json says.

    Stock `transformers` 5 decides alike. The files have to be sound (`check_weights`).
    """
    head, embeddings = f"{family.head}.weight", f"{family.embeddings}.weight"
    with ExitStack() as opened:
        handles = [opened.enter_context(safe_open(file, framework="pt")) for file in files]
        places = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
        names = [next((n for n in family.names_in_files(name) if n in places), None) for name in (head, embeddings)]
        if None in names:
            return False
        one, other = (places[name].get_slice(name) for name in names)
        rows = one.get_shape()[0]
        return not all(
            torch.equal(*(each[row : row + _COMPARED_ROWS].double() for each in (one, other)))
            for row in range(0, rows, _COMPARED_ROWS)
        )


def decided_by_files(config: PreTrainedConfig, files: tuple[Path, ...], *specs: ModelSpec) -> tuple[ModelSpec, ...]:
    """The specs with the output head that the files hold; `config` is changed likewise, for models built from it.

    A head of its own stays one, even where config.json says that it is tied to the embeddings, as in stock
    `transformers` 5. (A head that config.json names and the files lack is refused by `check_complete`.)
    """
    if not config.tie_word_embeddings or not has_own_head(files, specs[0].layout):
        return specs
    config.tie_word_embeddings = False
    return tuple(replace(spec, tie_word_embeddings=False) for spec in specs)


def exceptions(files: tuple[Path, ...], model: PreTrainedModel, family: Family, dtype: str) -> dict[str, torch.Tensor]:
    """By their names in the model, the tensors that the files hold in another dtype than `dtype`, as they hold them."""
    held, state = headers(files), model.state_dict()
    stored_names = {}
    for name in state:
        stored = next((each for each in family.names_in_files(name) if each in held), None)
        if stored is not None and TORCH_DTYPES.get(held[stored][1], dtype) != dtype:
            stored_names[stored] = name
    tensors = {}
    for file in files if stored_names else ():
        with safe_open(file, framework="pt") as handle:
            for stored in stored_names.keys() & set(handle.keys()):
                kept, ours = handle.get_tensor(stored), state[stored_names[stored]]
                # a tensor that memory holds as the files do is not copied
                tensors[stored_names[stored]] = ours if ours.dtype == kept.dtype else kept.clone()
    return tensors


def check_model(model: PreTrainedModel, spec: ModelSpec) -> None:
    """Raise `ModelUnsupported` where a model in memory has other tensors than its configuration calls for."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    pruned = dict(spec.tensor_shapes())
    called_for = _stock_shapes(model.config, spec) | pruned
    for name in (*pruned, *shapes):
        if name not in called_for:
            raise ModelUnsupported(
                f"The model has {name}, which its configuration does not call for. Give it the configuration of what "
                "it holds: layers, biases, norms."
            )
        if shapes.get(name) != called_for[name]:
            raise ModelUnsupported(
                f"{name} has shape {shapes.get(name)}, but the model's configuration calls for {called_for[name]}. "
                "Layers of different sizes can be pruned again from the LoadedModel that prune returned."
            )


def _stock_shapes(config: PreTrainedConfig, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that the stock class makes for a configuration, heads as many as it can name."""
    config = copy.deepcopy(config)
    write_shape(config, spec.stored.layers[0], spec.layout)
    with torch.device("meta"):
        return {name: tuple(each.shape) for name, each in AutoModelForCausalLM.from_config(config).state_dict().items()}
