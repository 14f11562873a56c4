"""A module with another one in place of one of its parts, the original untouched."""

import copy

import torch


def with_module_at(module: torch.nn.Module, path: str, stand_in: torch.nn.Module) -> torch.nn.Module:
    """A second face of `module` with another module at `path`; itself, and all others in it, untouched."""
    name, _, rest = path.partition(".")
    face = copy.copy(module)
    face._modules = dict(module._modules)
    face._modules[name] = with_module_at(module._modules[name], rest, stand_in) if rest else stand_in
    return face
