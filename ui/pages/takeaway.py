"""Step 8, take away: the checkpoint, the plan, and the Python lines that come to the same."""

from dataclasses import dataclass

import gradio as gr

from ui.code_view import Recipe, code, needs_file
from ui.session import Session

_NO_CODE = "# Score a model: the lines that reproduce it will stand here.\n"


@dataclass(frozen=True)
class TakeawayPanel:
    checkpoint: gr.Button
    plan: gr.Button
    texts: gr.Button
    file: gr.DownloadButton
    note: gr.HTML
    code: gr.Code


def build(session: Session) -> TakeawayPanel:
    gr.HTML(
        "<h2><span>8</span> Take away</h2><p>A checkpoint that stock <code>transformers</code> loads without this "
        "project, or the lines that do the same in Python.</p>",
        js_on_load=None,
    )
    with gr.Row():
        checkpoint = gr.Button("Download the pruned model (.zip)", elem_id="export-button", variant="primary")
        plan = gr.Button("Download the plan (.json)", elem_id="export-plan")
        texts = gr.Button("Download the texts used (.zip)", elem_id="export-texts", visible=False)
    file = gr.DownloadButton("Save", elem_id="export-file", visible="hidden")
    note = gr.HTML("", elem_id="export-note", js_on_load=None)
    lines = gr.Code(
        code_lines(session),
        language="python",
        label="As code; run it in the project's folder",
        interactive=False,
        elem_id="code-view",
        max_lines=40,
    )
    return TakeawayPanel(checkpoint, plan, texts, file, note, lines)


def paint(panel: TakeawayPanel, session: Session) -> dict:
    recipe = recipe_of(session)
    own = recipe is not None and any(needs_file(text) for text in (recipe.text, recipe.measured_on) if text is not None)
    return {panel.code: code_lines(session), panel.note: "", panel.texts: gr.update(visible=own)}


def code_lines(session: Session) -> str:
    recipe = recipe_of(session)
    return _NO_CODE if recipe is None else code(recipe)


def recipe_of(session: Session) -> Recipe | None:
    """The latest result while the controls still stand as it was cut; otherwise the plan in view."""
    if session.scored is None or session.plan is None:
        return None
    latest = session.latest
    if latest is not None and latest.scored is session.scored and latest.plan == session.plan:
        return Recipe.of_result(latest)
    return Recipe.of_plan(session.scored, session.choice.metric, session.plan)
