"""Step 8, take away: the checkpoint, the plan, the lines that come to the same, and a link to the settings."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

import transact as ta
from ui.format import numbers
from ui.format.theme import ASSETS
from ui.state import settings_link
from ui.state.session import Session
from ui.views.python_code import Recipe, code, is_own
from ui.views.shell_commands import commands

GGUF_TYPE = "f16"
LAYERS = ("padded", "compact")
_GGUF_TYPES = {
    "f32": "float32, 4 bytes a weight: as computed here",
    "f16": "float16, 2 bytes a weight",
    "bf16": "bfloat16, 2 bytes a weight: for weights that were trained in it",
    "q8_0": "8 bits, about 1.1 bytes a weight",
}
_NO_CODE = "# Score a model: the lines that reproduce it will stand here.\n"
_LINK = """<label for="settings-address">Link to these settings, texts of your own left out</label>
<div class="address"><input id="settings-address" type="text" readonly><button type="button">Copy</button></div>"""


@dataclass(frozen=True)
class TakeawayPanel:
    checkpoint: gr.Button
    layers: gr.Radio
    plan: gr.Button
    texts: gr.Button
    gguf: gr.Button
    gguf_type: gr.Dropdown
    file: gr.DownloadButton
    note: gr.HTML
    code: gr.Code
    commands: gr.Code
    link: gr.HTML


def build(session: Session) -> TakeawayPanel:
    recipe = recipe_of(session)
    gr.HTML(
        "<h2><span>8</span> Take away</h2><p>A checkpoint that stock <code>transformers</code> loads without this "
        "project, one file for llama.cpp, or the lines that do the same in Python or in a shell.</p>",
        js_on_load=None,
    )
    with gr.Row():
        checkpoint = gr.Button("Download the pruned model (.zip)", elem_id="export-button", variant="primary")
        plan = gr.Button("Download the plan (.json)", elem_id="export-plan")
        texts = gr.Button("Download the texts used (.zip)", elem_id="export-texts", visible=False)
    layers = gr.Radio(
        [("Padded", "padded"), ("Compact", "compact")],
        value="padded",
        label="Sizes that stock configurations cannot name, in the checkpoint",
        visible=False,
        elem_id="export-layers",
    )
    with gr.Row(equal_height=True):
        gguf = gr.Button("Download as GGUF for llama.cpp (.gguf)", elem_id="export-gguf")
        gguf_type = gr.Dropdown(
            [(label, name) for name, label in _GGUF_TYPES.items()],
            value=GGUF_TYPE,
            label="How the GGUF file stores weights",
            elem_id="gguf-type",
        )
    file = gr.DownloadButton("Save", elem_id="export-file", visible="hidden")
    note = gr.HTML("", elem_id="export-note", js_on_load=None)
    address = gr.HTML(
        settings_link.query(session),
        html_template=_LINK,
        js_on_load=(ASSETS / "sharing.js").read_text(encoding="utf-8"),
        elem_id="settings-link",
    )
    lines = gr.Code(
        _lines(code, recipe),
        language="python",
        label="As code; run it in the project's folder",
        interactive=False,
        elem_id="code-view",
        max_lines=40,
    )
    shell = gr.Code(
        _lines(commands, recipe),
        language="shell",
        label="The same from a shell",
        interactive=False,
        elem_id="command-view",
        max_lines=12,
    )
    return TakeawayPanel(checkpoint, layers, plan, texts, gguf, gguf_type, file, note, lines, shell, address)


def paint(panel: TakeawayPanel, session: Session) -> dict:
    recipe = recipe_of(session)
    own = recipe is not None and any(is_own(text) for text in (recipe.text, recipe.measured_on) if text is not None)
    return {
        **paint_lines(panel, session),
        panel.note: "",
        panel.texts: gr.update(visible=own),
        panel.layers: _layers(session),
    }


def paint_lines(panel: TakeawayPanel, session: Session) -> dict:
    """What follows a field that only the next cut or measurement depends on."""
    recipe = recipe_of(session)
    return {
        panel.code: _lines(code, recipe),
        panel.commands: _lines(commands, recipe),
        panel.link: settings_link.query(session),
    }


PAINTS = {"all": paint, "followers": paint, "plan": paint, "results": paint}


def _layers(session: Session) -> dict:
    """Both ways to write sizes that no stock configuration names, with what each costs; nothing for others."""
    spec = None if session.latest is None else session.latest.plan.spec
    if spec is None or spec.is_stock or session.latest.scored.streamed:
        return gr.update(visible=False)

    def cost(written: ta.ModelSpec) -> str:
        kept = numbers.size(written.kv_bytes_per_token())
        return f"{numbers.count(written.num_parameters)} parameters, {kept} of cache per token"

    choices = [
        (f"Padded with zeros: stock transformers loads it. {cost(spec.stored)}", "padded"),
        (f"Compact: today only ta.load of this project loads it, unproved. {cost(spec)}", "compact"),
    ]
    return gr.update(choices=choices, visible=True)


def _lines(write: Callable[[Recipe], str], recipe: Recipe | None) -> str:
    return _NO_CODE if recipe is None else write(recipe)


def recipe_of(session: Session) -> Recipe | None:
    """The latest result while the controls still stand as it was cut; otherwise the plan in view."""
    if session.scored is None or session.plan is None:
        return None
    latest = session.latest
    if latest is not None and latest.scored is session.scored and latest.plan == session.plan:
        return Recipe.of_result(latest)
    return Recipe.of_session(session)
