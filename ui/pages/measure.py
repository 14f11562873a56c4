"""The latest result: what was lost and what was gained, and what both models write."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from transact.wording import counted
from ui import figures
from ui.format import numbers
from ui.state.session import Session
from ui.views import result_table
from ui.work.measuring import WhatIf

DEFAULT_PROMPT = "Once upon a time"
_NOTHING_YET = (
    '<div class="empty">Nothing has been cut yet. Set the sliders above, then press <b>Prune and measure</b>.</div>'
)
_UNMEASURED = (
    '<div class="empty">The last result has not been measured: press <b>Measure again</b>. It can write and be '
    "downloaded as it is.</div>"
)


@dataclass(frozen=True)
class MeasurePanel:
    tried: gr.HTML
    table: gr.HTML
    probes: gr.Plot
    prompt: gr.Textbox
    generate: gr.Button
    dense: gr.Textbox
    pruned: gr.Textbox


def build(session: Session) -> MeasurePanel:
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
    return MeasurePanel(tried, table, probes, prompt, generate, dense, pruned)


def paint(panel: MeasurePanel, session: Session) -> dict:
    """The latest result of the model in view, or how to come to one."""
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
    return {**shown, panel.tried: "", panel.probes: _probes_plot(probes)}


PAINTS = {"all": paint, "results": paint}


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
        f"Nothing was cut. <small>{escape(what_if.protocol)}</small></p>{written}"
    )


def _probes_plot(probes: tuple[tuple[str, float, float], ...]) -> dict:
    """Hidden where the model has no probes."""
    return gr.update(value=figures.probes_figure(probes) if probes else None, visible=bool(probes))
