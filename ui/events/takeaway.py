"""Steps 7 and 8: what can be downloaded."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from ui import history, workbench
from ui.errors import NotYet
from ui.events.desk import Desk, Panels, explained, say, watched
from ui.export import file_stem, model_stem

SAVE_FILE = "() => setTimeout(() => document.querySelector('#export-file').click(), 250)"
"""The file is written first, then the hidden download link is followed."""


def connect(desk: Desk, panels: Panels) -> None:
    """Wire the download buttons; each writes its file, then the browser fetches it."""

    def model_written(request: gr.Request, kind: str, title: str, write: Callable, told: Callable):
        """The pruned model in a file: `write` takes whose it is, its name, the model and the watch; `told` a report."""
        owner = desk.visitor(request)
        try:
            result = desk.sessions.get(owner).need_result()
        except Exception as error:
            yield {**explained(panels, error), panels.takeaway.file: None}
            return
        yield {panels.takeaway.file: None}

        def work(watch):
            pruned = workbench.pruned_model(desk.registry, owner, result, watch)
            watch.says(title)
            return write(owner, file_stem(result.scored.key, result.number), pruned, watch=watch)

        def finish(written) -> dict:
            file, report = written
            return {panels.takeaway.file: str(file), **say(panels, " ".join((told(report), *report.notes)), "good")}

        yield from watched(desk, panels, owner, title, work, finish, kind=kind)

    def on_checkpoint(layers: str, request: gr.Request):
        yield from model_written(
            request,
            "export checkpoint",
            "Writing the checkpoint and proving that stock transformers computes the same",
            lambda *named, watch: desk.exports.checkpoint(*named, watch, layers=layers),
            lambda report: (
                "Written."
                if report.proof is None
                else f"Stock transformers loads it as {report.model_class}. {report.proof.outcome}"
            ),
        )

    def on_gguf(file_type: str, request: gr.Request):
        yield from model_written(
            request,
            "export gguf",
            "Writing GGUF",
            lambda *named, watch: desk.exports.gguf(*named, file_type=file_type, progress=watch),
            lambda report: f"llama.cpp runs it as {report.architecture}, {report.bytes / 1e6:,.1f} MB.",
        )

    def written(owner: str, write: Callable[[], Path]) -> dict:
        try:
            return {panels.takeaway.file: str(write()), panels.status.message: ""}
        except Exception as error:
            return {**explained(panels, error), panels.takeaway.file: None}

    def on_plan(request: gr.Request):
        owner = desk.visitor(request)

        def write() -> Path:
            session = desk.sessions.get(owner)
            return desk.exports.plan(owner, model_stem(session.key), session.need_plan())

        return written(owner, write)

    def on_texts(request: gr.Request):
        owner = desk.visitor(request)

        def write() -> Path:
            session = desk.sessions.get(owner)
            evaluation = session.latest.text if session.latest else None
            return desk.exports.texts(owner, session.need_scored().text, evaluation)

        return written(owner, write)

    def on_csv(request: gr.Request):
        owner = desk.visitor(request)

        def write() -> Path:
            results = desk.sessions.get(owner).results
            if not results:
                raise NotYet("The table is empty; press Prune to make its first row.")
            return desk.exports.history(owner, history.history_csv(results))

        return written(owner, write)

    outputs = panels.all
    panel = panels.takeaway
    panel.checkpoint.click(on_checkpoint, panel.layers, outputs, **panels.heavy).success(None, js=SAVE_FILE)
    panel.gguf.click(on_gguf, panel.gguf_type, outputs, **panels.heavy).success(None, js=SAVE_FILE)
    panel.plan.click(on_plan, None, outputs, **panels.light).success(None, js=SAVE_FILE)
    panel.texts.click(on_texts, None, outputs, **panels.light).success(None, js=SAVE_FILE)
    panels.compare.csv.click(on_csv, None, outputs, **panels.light).success(None, js=SAVE_FILE)
