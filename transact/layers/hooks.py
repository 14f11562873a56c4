"""Functions on the inputs, or on the calls, of modules, for a `with` block and in the calling thread alone.

Weights are shared between visitors, so a hook that another thread set must not touch this thread's forward
pass: every hook acts only in the thread that opened the block. Nor must it outlive the block in a copy of its module:
`copy_without_hooks` is how modules are copied here. (A short-lived shallow `copy.copy` shares the hooks of its
submodules with the model on purpose: it is masked as the model is.)
"""

import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from transact.progress import Check

InputFunction = Callable[[torch.Tensor], torch.Tensor | None]
"""Takes a module's input; returns what to use instead, or None to leave it."""
CallFunction = Callable[[torch.Tensor, Any], torch.Tensor | tuple | None]
"""Takes a module's input and its output (that of some layers is a tuple, their hidden states first); returns what to
use instead of the output, or None to leave it."""

_numbers = itertools.count(1)
_registering = threading.Lock()
"""Held while hooks are added or removed, and while a copy reads them: no dictionary changes while it is read."""


class _Suspended(threading.local):
    """`up_to`: hooks of this thread with a number up to this one do nothing."""

    up_to = 0


_suspended = _Suspended()


def by_sample(activations: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """[sample, seq, channel], also where a layer has flattened its tokens to [token, channel] (as OPT's MLP does)."""
    return activations.reshape(*shape, -1)


class _Hook:
    """A hook of this package, distinguished from others by its type."""

    def __init__(self, function: Callable):
        self.function = function
        self.owner = threading.get_ident()
        self.number = next(_numbers)

    def __call__(self, module: torch.nn.Module, *seen):
        if threading.get_ident() != self.owner or self.number <= _suspended.up_to:
            return None
        return self.function(*seen)


def on_inputs(functions: Iterable[tuple[torch.nn.Module, InputFunction]]) -> AbstractContextManager[None]:
    """Call each function on its module's first positional input; all hooks are removed however the block ends."""

    def bound(function: InputFunction) -> _Hook:
        def changed(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            first = function(inputs[0])
            return None if first is None else (first, *inputs[1:])

        return _Hook(changed)

    return _hooked((module.register_forward_pre_hook, bound(function)) for module, function in functions)


def on_calls(functions: Iterable[tuple[torch.nn.Module, CallFunction]]) -> AbstractContextManager[None]:
    """Call each function on its module's first positional input and its output; else as `on_inputs`."""

    def bound(function: CallFunction) -> _Hook:
        return _Hook(lambda inputs, output: function(inputs[0], output))

    return _hooked((module.register_forward_hook, bound(function)) for module, function in functions)


@contextmanager
def _hooked(hooks: Iterable[tuple[Callable, _Hook]]) -> Iterator[None]:
    def remove(handle: torch.utils.hooks.RemovableHandle) -> None:
        with _registering:
            handle.remove()

    with ExitStack() as stack:
        for register, hook in hooks:
            with _registering:
                stack.callback(remove, register(hook))
        yield


@contextmanager
def hooks_suspended() -> Iterator[None]:
    """Let this thread run models as they are: the hooks of its enclosing blocks do nothing until this block ends.

    For work on the model itself, as cutting or proving it, which a mask of the caller must not change. Blocks opened
    inside work as usual.
    """
    before = _suspended.up_to
    _suspended.up_to = next(_numbers)
    try:
        yield
    finally:
        _suspended.up_to = before


def copy_without_hooks(module: torch.nn.Module, memo: dict | None = None) -> torch.nn.Module:
    """`copy.deepcopy(module, memo)` with no hook of this package on the copy, whichever thread has one.

    Other hooks are copied as by `deepcopy`: `transformers` records attentions and hidden states by hooks that it
    installs once, and marks the model as having them.
    """
    memo = {} if memo is None else memo
    copied: list[tuple[dict, dict]] = []
    with _registering:
        for each in module.modules():
            for hooks in (each._forward_pre_hooks, each._forward_hooks):
                new = memo[id(hooks)] = type(hooks)()
                copied.append((new, {key: hook for key, hook in hooks.items() if not isinstance(hook, _Hook)}))
    result = copy.deepcopy(module, memo)
    for new, others in copied:
        new.update(copy.deepcopy(others, memo))  # with the memo, methods of a module become those of its copy
    return result


def copy_sharing_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A copy with the same parameters and buffers, and the hooks of this package that are on `module` now.

    For a forward pass with other settings than those of `module`, which other threads may be running.
    """
    memo: dict = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    with _registering:
        for each in module.modules():
            for hooks in (each._forward_pre_hooks, each._forward_hooks):
                memo |= {id(hook): hook for hook in hooks.values() if isinstance(hook, _Hook)}
        return copy.deepcopy(module, memo)


@contextmanager
def checking(layers: Iterable[torch.nn.Module], check: Check) -> Iterator[None]:
    """Call `check`, which may raise, before each of these layers computes: forward, and backward where that follows.

    So work that runs a model within this block can be cancelled at every decoder layer, however long a batch takes.
    """
    layers = tuple(layers)

    def before(hidden: torch.Tensor) -> None:
        check()

    def after(hidden: torch.Tensor, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        output = output if isinstance(output, torch.Tensor) else output[0]
        if output.requires_grad:
            output.register_hook(lambda gradient: check())

    with on_inputs((layer, before) for layer in layers), on_calls((layer, after) for layer in layers):
        yield
