"""Step 7, compare: every result so far as a row, and as a point of perplexity against parameters."""

from dataclasses import dataclass

import gradio as gr

from ui import figures, tables
from ui.session import Session

_EMPTY = "Every result becomes a point here: prune twice with different settings and compare"


@dataclass(frozen=True)
class ComparePanel:
    history: gr.Dataframe
    pareto: gr.Plot
    csv: gr.Button


def build(session: Session) -> ComparePanel:
    gr.HTML(
        "<h2><span>7</span> Compare</h2><p>Each result is a row. Points further down and to the left are better; "
        "choose the random metric once to see the floor.</p>",
        js_on_load=None,
    )
    pareto = gr.Plot(_pareto(session), show_label=False, elem_id="pareto-plot")
    history = gr.Dataframe(
        tables.history_rows(session.results),
        headers=list(tables.HISTORY_HEADERS),
        datatype="str",
        type="array",
        interactive=False,
        show_label=False,
        max_height=300,
        buttons=[],
        elem_id="history-table",
    )
    csv = gr.Button("Download the table (.csv)", size="sm", elem_id="history-csv")
    return ComparePanel(history, pareto, csv)


def paint(panel: ComparePanel, session: Session) -> dict:
    return {panel.history: tables.history_rows(session.results), panel.pareto: _pareto(session)}


def _pareto(session: Session):
    results = [result for result in session.results if result.report and result.scored.key == session.key]
    if not results:
        return figures.empty_figure(_EMPTY, height=140)
    last = results[-1]
    comparable = [result for result in results if result.text.name == last.text.name]
    points = [
        (
            f"#{result.number}",
            result.report.parameters,
            result.report.perplexity,
            "random" if result.metric == "random" else "scored",
        )
        for result in comparable
    ]
    return figures.pareto_figure(points, (last.report.reference_parameters, last.report.reference_perplexity))
