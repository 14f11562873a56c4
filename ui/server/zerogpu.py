"""ZeroGPU: a GPU lent to a Space for seconds, in a process of its own; everywhere else the work is done right here.

What that process changes is lost with it. So it is given only what runs a model forward, and gives back statistics,
numbers and text; whatever is cut is cut here, where models stay on the CPU. The package `spaces` is there on Spaces
only and must come before anything that touches CUDA.
"""

import math
import os
import pickle
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

try:
    import spaces
except ImportError:
    spaces = None

import gradio as gr

import transact as ta
from transact.models.tasks_by_placement import MOVING

LENT = spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
"""Whether this is such a Space."""
HOME = "cpu" if LENT else "auto"
"""The device on which models are kept."""

_START_SECONDS, _BYTES_PER_SECOND, _FLOPS_PER_SECOND, _STEP_SECONDS = 8.0, 2e9, 5e12, 0.02
"""What the time is estimated from, on the safe side: CUDA's start, the way of the weights, arithmetic, each step."""
_SHORTEST, _LONGEST = 15, 120
"""Seconds; a request that is too long is put behind others, one over the visitor's share is refused."""


class NoGpu(ta.TransactError):
    """The GPU was not lent, or was taken away before the work was done."""


@dataclass(frozen=True)
class _Task:
    call: Callable
    arguments: tuple
    named: dict[str, Any]

    def run(self) -> Any:
        """The call's value, with every model among the arguments moved to the GPU that is there now."""
        arguments = [_moved(argument) for argument in self.arguments]
        return self.call(*arguments, **{name: _moved(value) for name, value in self.named.items()})


_tasks: dict[str, _Task] = {}
"""What a process that is forked now finds without its being copied."""


def forward(
    call: Callable, loaded: ta.LoadedModel, *arguments, tokens: int, steps: int = 1, progress: ta.Progress, **named
) -> Any:
    """`call(loaded, *arguments, progress=progress, **named)`, on the lent GPU where there is one.

    `tokens` (that all models together read) and `steps` (forward passes one after the other, as each written token
    takes) are what the time on the GPU is asked for by. There `call` and what it returns must be picklable, and nothing
    is reported or stopped until it is done. Raises what `call` raises, and `NoGpu` with the reason.
    """
    models = [value for value in (loaded, *arguments, *named.values()) if isinstance(value, ta.LoadedModel)]
    if not LENT or not all(model.can(MOVING) for model in models):  # what stays in its files is not moved
        return call(loaded, *arguments, progress=progress, **named)
    progress(0, tokens, "tokens")
    task, name = _Task(call, (loaded, *arguments), named), secrets.token_hex(8)
    needed = seconds(loaded, tokens, steps)
    _tasks[name] = task
    try:
        answer = _lent(name, None, needed)
        if answer is None:
            answer = _lent(name, pickle.dumps(task), needed)
    except gr.Error as error:
        raise NoGpu(_sentence(error)) from error
    finally:
        del _tasks[name]
    value = pickle.loads(answer)
    progress(tokens, tokens, "tokens")
    if isinstance(value, ta.TransactError):
        raise value
    return value


def behind_mask(
    call: Callable, loaded: ta.LoadedModel, plan: ta.PruningPlan, *arguments, tokens: int, steps: int = 1,
    progress: ta.Progress, **named,
) -> Any:  # fmt: skip
    """`forward` with the plan's units masked; the mask is put on where the model runs."""
    return forward(_masked, loaded, plan, call, *arguments, tokens=tokens, steps=steps, progress=progress, **named)


def seconds(loaded: ta.LoadedModel, tokens: int, steps: int) -> int:
    """How long the GPU is asked for, from the model's size and the number of tokens."""
    spec = loaded.spec
    weights = spec.num_parameters * loaded.dtype.itemsize
    arithmetic = tokens * float(spec.flops_per_token(context=min(loaded.context_length, 512)))
    needed = (
        _START_SECONDS + weights / _BYTES_PER_SECOND + arithmetic / _FLOPS_PER_SECOND + steps * _STEP_SECONDS
    )  # fmt: skip
    return min(_LONGEST, max(_SHORTEST, math.ceil(needed)))


def _masked(loaded: ta.LoadedModel, plan: ta.PruningPlan, call: Callable, *arguments, **named) -> Any:
    with ta.masked(loaded, plan):
        return call(loaded, *arguments, **named)


def _moved(value: Any) -> Any:
    return value.on("auto") if isinstance(value, ta.LoadedModel) else value


def _run(name: str, packed: bytes | None, needed: int) -> bytes | None:
    """The pickled value of a task; None where this process was forked before the task was there and has no copy.

    Values travel as bytes: a queue would put tensors into shared memory, of which a container may have very little.
    """
    task = _tasks.get(name) if packed is None else pickle.loads(packed)
    if task is None:
        return None
    try:
        value = task.run()
    except ta.TransactError as error:  # of other exceptions only the name comes back
        value = error
    return pickle.dumps(value)


def _asked(name: str, packed: bytes | None, needed: int) -> int:
    return needed


_lent = _run if spaces is None else spaces.GPU(duration=_asked)(_run)


def _sentence(error: gr.Error) -> str:
    """What ZeroGPU says, without its links and tags."""
    said = re.sub(r"<[^>]*>", "", f"{getattr(error, 'title', '')}: {error.message}").strip(" :.")
    return f"The GPU is not to be had, or was taken back ({said}). Nothing was changed; try again, or take less text."
