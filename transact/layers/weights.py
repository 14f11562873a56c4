"""The weights of one layer: a projection's as a matrix, for either of two module classes; tied copies.

`torch.nn.Linear` keeps a weight as [out, in], the `Conv1D` of GPT-2 as [in, out].
"""

from collections.abc import Mapping

import torch
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from transact.layers.hooks import copy_without_hooks
from transact.spec.family import Family


def matrix(projection: torch.nn.Module) -> torch.Tensor:
    """The weight as [out, in], for either class; a view."""
    weight = projection.weight
    return weight.T if isinstance(projection, Conv1D) else weight


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of a checkpoint in that dtype; integers, which are no weights, stay as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def linear(old: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
    """`weight` [out, in] and `bias` [out] as a module of the same class, trainable if `old` was."""
    if isinstance(old, Conv1D):
        with torch.device("meta"):
            new = Conv1D(*weight.shape)
        weight = weight.T
    else:
        new = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    new.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=old.weight.requires_grad)
    if bias is not None:
        new.bias = torch.nn.Parameter(bias.contiguous(), requires_grad=old.weight.requires_grad)
    return new


def without_tied_copies(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without a tied tensor's other names: safetensors files have no ties."""
    once, seen = {}, set()
    for name, tensor in state.items():
        held = tensor.to_local() if isinstance(tensor, DTensor) else tensor  # only the local shard has an address
        place = (held.data_ptr(), tensor.shape)
        if not held.numel() or place not in seen:
            once[name] = tensor
        seen.add(place)
    return once


def with_tensors(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """A module with these tensors in place of its own; it shares all others with it and is read-only."""
    if not tensors:
        return module
    replaced = {
        id(held): torch.nn.Parameter(tensors[name].to(held.device), requires_grad=False) if name in tensors else held
        for name, held in module.named_parameters()
    }
    return copy_without_hooks(module, replaced)


def origin(name: str, family: Family) -> str:
    """A tensor's name without its head's number, where every head has a norm of its own: cuts renumber them."""
    for norm in (family.query_norm, family.key_norm) if family.head_norms == "each" else ():
        before, norms, _ = name.partition(f"{norm}.norms.")
        name = before + norms
    return name


def cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give all parameters that dtype, in place. Buffers stay: RoPE's frequencies are float32 in a model of any dtype,
    and would turn queries and keys by other angles if they were rounded.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
