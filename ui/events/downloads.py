"""Steps 7 and 8: what can be downloaded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.errors import NotYet
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, say, watched
from ui.pages import takeaway
from ui.server import limits
from ui.state.session import Result
from ui.views import results_history
from ui.views.downloads import file_stem, model_stem
from ui.work import job_steps, pruning
from ui.work.forecast import Step
from ui.work.watch import Watch

SAVE_FILE = "() => setTimeout(() => document.querySelector('#export-file').click(), 250)"
"""The file is written first, then the hidden download link is followed."""


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the download buttons; each writes its file, then the browser fetches it."""
    panel = panels.takeaway
    for button, handler, how in (
        (panel.checkpoint, on_checkpoint, panel.layers),
        (panel.gguf, on_gguf, panel.gguf_type),
    ):
        written = long_step(context, panels, button.click, handler, how, at_the_end=[panel.file])
        written.success(None, js=SAVE_FILE)
    outputs = [panel.file, panels.status.message]
    for button, handler in ((panel.plan, on_plan), (panel.texts, on_texts), (panels.compare.csv, on_csv)):
        written = button.click(bound(handler, context, panels), None, outputs, **panels.light)
        written.success(None, js=SAVE_FILE)


def on_checkpoint(context: AppContext, panels: Panels, layers: str, request: gr.Request):
    yield from _model_written(
        context, panels, request, lambda result: job_steps.checkpoint(context.registry, result),
        lambda: partial(checkpoint, context, layers=limits.one_of("layers", layers, takeaway.LAYERS)),
        kind="export checkpoint",
    )  # fmt: skip


def on_gguf(context: AppContext, panels: Panels, file_type: str, request: gr.Request):
    yield from _model_written(
        context, panels, request, lambda result: job_steps.gguf(context.registry, result, file_type),
        lambda: partial(gguf, context, file_type=limits.one_of("GGUF file type", file_type, ta.GGUF_TYPES)),
        kind="export gguf",
    )  # fmt: skip


def on_plan(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def write() -> Path:
        session = context.sessions.get(owner)
        return context.exports.plan(owner, model_stem(session.key), session.need_plan())

    return _written(panels, write)


def on_texts(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def write() -> Path:
        session = context.sessions.get(owner)
        evaluation = session.latest.text if session.latest else None
        return context.exports.texts(owner, session.need_scored().text, evaluation)

    return _written(panels, write)


def on_csv(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def write() -> Path:
        results = context.sessions.get(owner).results
        if not results:
            raise NotYet("The table is empty; press Prune to make its first row.")
        return context.exports.history(owner, results_history.history_csv(results))

    return _written(panels, write)


def checkpoint(
    context: AppContext, owner: str, result: Result, watch: Watch, *, layers: str = "padded"
) -> tuple[Path, str]:
    """A zip of the result's checkpoint, and what to say of it."""

    def write(folder: Path) -> str:
        return pruning.write_checkpoint(context.registry, owner, result, folder, watch, layers=layers)

    return context.exports.checkpoint(owner, file_stem(result.scored.key, result.number), write, watch)


def gguf(context: AppContext, owner: str, result: Result, watch: Watch, *, file_type: str) -> tuple[Path, str]:
    """The result's GGUF file, and what to say of it."""

    def write(file: Path) -> str:
        return pruning.write_gguf(context.registry, owner, result, file, watch, file_type=file_type)

    return context.exports.gguf(owner, f"{file_stem(result.scored.key, result.number)}-{file_type}", write)


def _model_written(
    context: AppContext, panels: Panels, request: gr.Request, steps: Callable[[Result], list[Step]],
    chosen: Callable[[], Callable], *, kind: str,
):  # fmt: skip
    """The pruned model in a file: `chosen` gives what writes it, from the owner, the result and the watch."""
    owner = context.visitor(request)
    try:
        write = chosen()
        result = context.sessions.get(owner).need_result()
        expected = steps(result)
    except Exception as error:
        yield {**explained(panels, error), panels.takeaway.file: None}
        return
    yield {panels.takeaway.file: None}

    def finish(written: tuple[Path, str]) -> dict:
        file, note = written
        return {panels.takeaway.file: str(file), **say(panels, note, "good")}

    yield from watched(
        context, panels, owner, expected[0].name, lambda watch: write(owner, result, watch), finish, kind=kind,
        steps=expected,
    )  # fmt: skip


def _written(panels: Panels, write: Callable[[], Path]) -> dict:
    """A small file, written at once, or the sentence that says why it cannot be."""
    try:
        return {panels.takeaway.file: str(write()), panels.status.message: ""}
    except Exception as error:
        return {**explained(panels, error), panels.takeaway.file: None}
