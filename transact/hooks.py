"""Functions on the inputs, or on the calls, of modules, for a `with` block and in the calling thread alone.

Weights are shared between visitors, so a hook that another thread set must not touch this thread's forward
pass: every hook acts only in the thread that opened the block.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

InputFunction = Callable[[torch.Tensor], torch.Tensor | None]
"""Takes a module's input; returns what to use instead, or None to leave it."""
CallFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]
"""Takes a module's input and its output; returns what to use instead of the output, or None to leave it."""


def by_sample(activations: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """[sample, seq, channel], also where a layer has laid its tokens end to end (as OPT's MLP does)."""
    return activations.reshape(*shape, -1)


@contextmanager
def on_inputs(functions: Iterable[tuple[torch.nn.Module, InputFunction]]) -> Iterator[None]:
    """Call each function on its module's first positional input; all hooks are removed however it ends."""
    owner = threading.get_ident()

    def bound(function: InputFunction):
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]):
            if threading.get_ident() != owner:
                return None
            changed = function(inputs[0])
            return None if changed is None else (changed, *inputs[1:])

        return hook

    with ExitStack() as stack:
        for module, function in functions:
            stack.callback(module.register_forward_pre_hook(bound(function)).remove)
        yield


@contextmanager
def on_calls(functions: Iterable[tuple[torch.nn.Module, CallFunction]]) -> Iterator[None]:
    """Call each function on its module's first positional input and its output; else as `on_inputs`."""
    owner = threading.get_ident()

    def bound(function: CallFunction):
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor):
            return function(inputs[0], output) if threading.get_ident() == owner else None

        return hook

    with ExitStack() as stack:
        for module, function in functions:
            stack.callback(module.register_forward_hook(bound(function)).remove)
        yield
