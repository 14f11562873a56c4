"""Steps 5 and 6: try the plan behind masks, cut, and see what was lost and what was gained."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import gradio as gr

import transact as ta
from transact.wording import counted
from ui import figures
from ui.format import numbers
from ui.state.session import Session
from ui.text_sources import text_source
from ui.views import result_table
from ui.work.measuring import WhatIf

PASTE = "paste"
DEFAULT_PROMPT = "Once upon a time"
_TEXTS = [
    *((f"Held-out: {label.lower()}", name) for name, label in text_source.SAMPLES.items()),
    ("Paste your own", PASTE),
]
_REPAIRS = tuple(reversed(ta.REPAIRS.values()))  # the strongest first, and the one that is chosen
_NOTHING_YET = '<div class="empty">Nothing has been cut yet. Set the sliders above, then press <b>Prune</b>.</div>'
_UNMEASURED = (
    '<div class="empty">The last result was stopped before it was measured. It can write and be downloaded '
    "as it is.</div>"
)


@dataclass(frozen=True)
class MeasurePanel:
    measure_on: gr.Dropdown
    pasted: gr.Textbox
    tried: gr.HTML
    repair: gr.Dropdown
    search: gr.Checkbox
    table: gr.HTML
    probes: gr.Plot
    prompt: gr.Textbox
    generate: gr.Button
    dense: gr.Textbox
    pruned: gr.Textbox


def build(session: Session) -> MeasurePanel:
    gr.HTML(
        "<h2><span>5</span> Try <i>and</i> <span>6</span> cut and measure</h2>"
        "<p><b>Try</b>, in the bar that stays in view, switches the hatched parts off and on again. <b>Prune</b> makes "
        "a smaller model beside the dense one and measures both.</p>",
        js_on_load=None,
    )
    with gr.Row(elem_classes="bottom"):
        measure_on = gr.Dropdown(_TEXTS, value="mixed", label="Measure on (evaluation text)", elem_id="measure-on")
        repair = gr.Dropdown(
            _named(_REPAIRS),
            value=_REPAIRS[0].name,
            label="Repair after the cut (compensation)",
            elem_id="repair-select",
            filterable=False,
        )
        search = gr.Checkbox(
            True,
            label="Search what goes at the cut",
            info="As much as is marked, and locks hold, but what the repair can best do without",
            elem_id="search-choice",
        )
    pasted = gr.Textbox(label="Evaluation text", lines=4, max_lines=10, visible=False, elem_id="evaluation-text")
    tried = gr.HTML("", elem_id="tried", js_on_load=None)
    table = gr.HTML(_NOTHING_YET, elem_id="result-table", js_on_load=None)
    probes = gr.Plot(show_label=False, visible=False, elem_id="probes-plot")
    with gr.Row(elem_classes="bottom"):
        prompt = gr.Textbox(
            DEFAULT_PROMPT, label="Let both go on from this (prompt)", elem_id="prompt", max_lines=4, scale=4
        )
        generate = gr.Button("Generate", elem_id="generate-button", scale=1, min_width=120)
    with gr.Row():
        dense = gr.Textbox(label="Dense model writes", lines=5, elem_id="generation-dense", interactive=False)
        pruned = gr.Textbox(
            label="Pruned model writes",
            lines=5,
            elem_id="generation-pruned",
            interactive=False,
            placeholder="Prune first",
        )
    return MeasurePanel(measure_on, pasted, tried, repair, search, table, probes, prompt, generate, dense, pruned)


def paint(panel: MeasurePanel, session: Session) -> dict:
    """The latest result of the model in view, or how to come to one, and the repairs that this model can have."""
    latest = session.latest
    if latest is None or latest.report is None:
        shown = {panel.table: _NOTHING_YET if latest is None else _UNMEASURED, panel.dense: "", panel.pruned: ""}
    else:
        shown = {
            panel.table: result_table.result_table(latest),
            panel.dense: latest.report.reference_generation or "",
            panel.pruned: latest.report.generation or "",
        }
    probes = latest.probes if latest else ()
    return {**shown, panel.tried: "", panel.probes: _probes_plot(probes), panel.repair: _repairs(session)}


PAINTS = {"all": paint, "results": paint}


def _repairs(session: Session) -> dict:
    """All of them, or those for which a streamed model is read once, with the last one chosen."""
    if not session.streamed:
        return gr.update(choices=_named(_REPAIRS))
    possible = [repair for repair in _REPAIRS if repair.streams]
    last = None if session.latest is None else session.latest.repair
    is_possible = any(repair.name == last for repair in possible)
    return gr.update(choices=_named(possible), value=last if is_possible else possible[0].name)


def _named(repairs: Iterable[ta.Repair]) -> list[tuple[str, str]]:
    return [(repair.label, repair.name) for repair in repairs]


def paint_tried(panel: MeasurePanel, what_if: WhatIf) -> dict:
    """What the plan would do, by masks alone."""
    return {panel.tried: tried_line(what_if), panel.probes: _probes_plot(what_if.probes)}


def tried_line(what_if: WhatIf) -> str:
    """The perplexity behind masks, beside the model's own, and what both would write."""
    written = ""
    if what_if.masked_writes is not None:
        written = (
            f'<dl class="written"><dt>As it is, it writes</dt><dd>{escape(what_if.dense_writes or "")}</dd>'
            f"<dt>Behind masks, it writes</dt><dd>{escape(what_if.masked_writes)}</dd></dl>"
        )
    return (
        f'<p class="headline">Behind masks the perplexity on {escape(what_if.text)} is '
        f"<b>{numbers.figure(what_if.masked)}</b> instead of {numbers.figure(what_if.dense)} "
        f"({numbers.factor(what_if.dense, what_if.masked)}, {counted(what_if.num_tokens, 'token')}). "
        f"Nothing was cut.</p>{written}"
    )


def _probes_plot(probes: tuple[tuple[str, float, float], ...]) -> dict:
    """Hidden where the model has no probes."""
    return gr.update(value=figures.probes_figure(probes) if probes else None, visible=bool(probes))
