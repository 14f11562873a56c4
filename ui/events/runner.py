"""How an event's work is shown while it runs."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import gradio as gr
from gradio.components import Component

import transact as ta
from ui.context import AppContext
from ui.events.panels import Panels
from ui.server import error_messages
from ui.views import progress_line
from ui.work.forecast import Step
from ui.work.watch import Finished, Partial, Tick, Watch

T = TypeVar("T")
OWN = "own"


def say(panels: Panels, sentence: str, mood: progress_line.Mood = "plain") -> dict:
    """One sentence in the message line."""
    return {panels.status.message: progress_line.message(sentence, mood)}


def explained(panels: Panels, error: Exception) -> dict:
    """The sentence for an error: its own where it was meant for the visitor."""
    return say(panels, error_messages.sentence(error), "wrong")


def quick(panels: Panels, act: Callable[[], dict]) -> dict:
    """A step that takes milliseconds; wrong input becomes a sentence."""
    try:
        return {**say(panels, ""), **act()}
    except Exception as error:
        return explained(panels, error)


def bound(handler: Callable, *first) -> Callable:
    """`handler` with its first parameters filled in, as a function whose signature has only the others.

    Gradio passes a request, an event or a token where the annotations ask for one, and runs a generator step by step;
    it recognises neither in a `functools.partial`.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def function(*values, **named):
            yield from handler(*first, *values, **named)
    else:

        @functools.wraps(handler)
        def function(*values, **named):
            return handler(*first, *values, **named)

    signature = inspect.signature(handler)
    left = list(signature.parameters.values())[len(first) :]
    names = {*(parameter.name for parameter in left), "return"}
    function.__signature__ = signature.replace(parameters=left)
    function.__annotations__ = {name: hint for name, hint in handler.__annotations__.items() if name in names}
    return function


def long_step(
    context: AppContext,
    panels: Panels,
    listener: Callable[..., gr.events.Dependency],
    handler: Callable[..., Iterator[dict]],
    inputs,
    *,
    meanwhile: Sequence[Component] = (),
    at_the_end: Sequence[Component] = (),
    **wiring,
) -> gr.events.Dependency:
    """Wire a step that takes longer: what it shows on the way first, and what it leaves in an event of its own.

    Gradio makes each output of an event anew whenever something is yielded, also those that stay as they are: 70 ms
    where all parts of the page are outputs, several times a second, in which the work would stand still (one process,
    one interpreter lock). So outputs on the way are the line of progress and `meanwhile` alone; an update of any other
    part is kept until the step is over, and then painted on `at_the_end`.
    """
    shown = [*panels.progress, *meanwhile]
    step = bound(handler, context, panels)
    on_the_way = _on_the_way(context, panels, step, set(shown) if at_the_end else None)
    begun = listener(on_the_way, inputs, shown, **{**panels.heavy, **wiring})
    if not at_the_end:
        return begun
    painted = list(dict.fromkeys([*shown, *at_the_end]))
    return begun.then(bound(paint, context, panels), None, painted, **panels.light)


def paint(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    """What the visitor's last step has kept for its end."""
    return context.unpainted.pop(context.visitor(request), _nothing(panels))


def _on_the_way(context: AppContext, panels: Panels, step: Callable, shown: set[Component] | None) -> Callable:
    """`step` without the updates of other parts than those `shown` (None: of any), which are kept for its end.

    What the message line said of earlier steps goes as this one begins; what is said of others meanwhile, as that they
    have to wait for it, stays. A step that yields nothing has to yield that nothing changes: gradio would send each
    output a None, which empties the message line.
    """
    request = list(inspect.signature(step).parameters).index("request")

    @functools.wraps(step)
    def on_the_way(*values):
        silent = True
        for update in step(*values):
            if shown is None or update.keys() <= shown:
                yield {panels.status.message: "", **update} if silent else update
                silent = False
            else:
                context.unpainted.setdefault(context.visitor(values[request]), {}).update(update)
        if silent:
            yield _nothing(panels)

    return on_the_way


def _nothing(panels: Panels) -> dict:
    """The update that changes nothing."""
    return {panels.status.message: gr.skip()}


def watched(
    context: AppContext,
    panels: Panels,
    owner: str,
    title: str,
    work: Callable[[Watch], T],
    finish: Callable[[T], dict],
    *,
    failed: Callable[[Exception], dict] | None = None,
    partly: Callable[[object], dict] = lambda partial: {},
    stopped: str = "Stopped. Everything is as it was before.",
    kind: str = "other",
    line: str | None = OWN,
    steps: Sequence[Step] = (),
) -> Iterator[dict]:
    """A step that takes longer: progress while it runs, then `finish`'s updates, or a sentence.

    `failed` gives the updates for an error, by default its sentence in the message line; `partly` those for what the
    work has so far; `stopped` says what a stop leaves behind; `kind`, `line` and `steps` as for `Jobs.run`, where `OWN`
    is the queue of the visitor's model.
    """
    try:
        line = context.line_of(owner) if line == OWN else line
        for event in context.jobs.run(owner, title, work, kind=kind, line=line, steps=steps):
            if isinstance(event, Finished):
                yield {**_over(context, panels, owner), **say(panels, ""), **finish(event.value)}
            elif isinstance(event, Partial):
                yield partly(event.value)
            else:
                yield _running(panels, event)
    except ta.Cancelled:
        yield {**_over(context, panels, owner), **say(panels, stopped)}
    except Exception as error:
        yield {**_over(context, panels, owner), **(failed(error) if failed else explained(panels, error))}


def under_way(context: AppContext, panels: Panels, owner: str) -> Iterator[dict]:
    """The owner's job that another page load began, as far as it is, and at its end what it left."""
    ticked = False
    for tick in context.jobs.under_way(owner):
        ticked = True
        yield _running(panels, tick)
    if ticked:
        yield {**_over(context, panels, owner), **panels.repaint(context.sessions.get(owner))}


def _running(panels: Panels, tick: Tick) -> dict:
    """The line of progress while work goes on."""
    return {
        panels.status.progress: progress_line.progress(tick),
        panels.status.stop: gr.update(interactive=not tick.stopping),
    }


def _over(context: AppContext, panels: Panels, owner: str) -> dict:
    """The line of progress after a job, unless it is another one's by now."""
    if context.jobs.busy(owner):
        return {}
    return {panels.status.progress: progress_line.idle(), panels.status.stop: gr.update(interactive=False)}
