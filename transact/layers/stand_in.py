"""A module with one of its parts replaced, the original unchanged."""

import copy

import torch


def with_module_at(module: torch.nn.Module, path: str, stand_in: torch.nn.Module) -> torch.nn.Module:
    """A shallow copy of `module` with another module at `path`; `module` and all others in it are unchanged."""
    name, _, rest = path.partition(".")
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    copied._modules[name] = with_module_at(module._modules[name], rest, stand_in) if rest else stand_in
    return copied
