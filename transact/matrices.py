"""A projection's weight as a matrix, whichever of the two module classes holds it.

`torch.nn.Linear` keeps it as [out, in], the `Conv1D` of GPT-2 as [in, out].
"""

import torch
from transformers.pytorch_utils import Conv1D


def matrix(projection: torch.nn.Module) -> torch.Tensor:
    """Its weight as [out, in], whatever way round the module keeps it; a view."""
    weight = projection.weight
    return weight.T if isinstance(projection, Conv1D) else weight


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of a checkpoint in that dtype; whole numbers, which are no weights, stay what they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def linear(old: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
    """`weight` [out, in] and `bias` [out] as a module of the same kind that is to be trained if `old` was."""
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
