"""What can be done with a model by where its weights are, in one table.

Together on one device a model can do everything. Spread over several devices it runs forwards; streamed, it runs
layer by layer, never as a whole or backwards.
"""

from dataclasses import dataclass

TOGETHER, SPREAD, STREAMED = "together", "spread", "streamed"
"""Where a model's weights are: on one device, on several, or in their files."""


@dataclass(frozen=True)
class Task:
    """`what` a model is used for, as a refusal names it, and the placements other than `TOGETHER` that allow it."""

    what: str
    also: tuple[str, ...] = ()


GRADIENTS = Task("a gradient")
SEARCH = Task("the search")
BEST_REPAIR = Task("the best repair")
COMPRESSION = Task("compressing in a given time")
TRAINING = Task("training")
ATTENTION = Task("an attention pattern", (SPREAD,))
WRITING = Task("writing", (SPREAD,))
TIMING = Task("timing", (SPREAD,))
MOVING = Task("another device", (SPREAD,))

_REASONS = {
    SPREAD: "{source} is spread over several GPUs, and {what} needs it on one. Load it with another device, or choose "
    "what a spread model can do: scoring, masks, measuring, and cutting with another repair.",
    STREAMED: "{source} is streamed: its weights are in their files, so that it cannot be run as a whole, and {what} "
    "needs that. Use ta.stream_observe, ta.stream_prune and ta.evaluate without a prompt, or ta.load where it fits.",
}


def refusal(placement: str, task: Task, source: str) -> str | None:
    """Why a model of that placement cannot do the task, and what to do; None where it can."""
    if placement == TOGETHER or placement in task.also:
        return None
    return _REASONS[placement].format(source=source, what=task.what)
