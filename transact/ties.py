"""Tensors that go by several names."""

import torch
from torch.distributed.tensor import DTensor


def each_once(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without a tied tensor's other names: safetensors files know no ties."""
    once, seen = {}, set()
    for name, tensor in state.items():
        held = tensor.to_local() if isinstance(tensor, DTensor) else tensor  # a shard has an address, its whole none
        place = (held.data_ptr(), tensor.shape)
        if not held.numel() or place not in seen:
            once[name] = tensor
        seen.add(place)
    return once
