"""Step 7, compare: every result so far as a row and as a point, and any two of them side by side."""

from dataclasses import dataclass

import gradio as gr

from ui import figures
from ui.format import labels
from ui.state.session import Result, Session
from ui.views import results_history

_EMPTY = "Every result becomes a point here: prune twice with different settings and compare"


@dataclass(frozen=True)
class ComparePanel:
    table: gr.Dataframe
    pareto: gr.Plot
    csv: gr.Button
    first: gr.Dropdown
    second: gr.Dropdown
    restore: gr.Button
    side: gr.HTML


def build(session: Session) -> ComparePanel:
    gr.HTML(
        "<h2><span>7</span> Compare</h2><p>Each result is a row and a point. Points further down and to the left are "
        "better; a cross is what random pruning of the same size gives, the floor that any metric must beat.</p>",
        js_on_load=None,
    )
    pareto = gr.Plot(show_label=False, elem_id="pareto-plot", elem_classes="linked")
    table = gr.Dataframe(
        results_history.history_rows(session.results),
        headers=list(results_history.HISTORY_HEADERS),
        datatype="str",
        type="array",
        interactive=False,
        show_label=False,
        max_height=300,
        buttons=[],
        elem_id="history-table",
    )
    csv = gr.Button("Download the table (.csv)", size="sm", elem_id="history-csv")
    gr.HTML("<h3>Two results side by side</h3>", js_on_load=None)
    with gr.Row(elem_classes="bottom"):
        first = gr.Dropdown([], label="First result", elem_id="compare-first", filterable=False)
        second = gr.Dropdown([], label="Second result", elem_id="compare-second", filterable=False)
        restore = gr.Button(
            "Set the controls as for the first", elem_id="restore-button", size="sm", scale=0, min_width=180
        )
    side = gr.HTML(results_history.side_by_side(None, None), elem_id="side-by-side", js_on_load=None)
    return ComparePanel(table, pareto, csv, first, second, restore, side)


def paint(panel: ComparePanel, session: Session) -> dict:
    """The newest result and the one before it are compared until others are chosen."""
    measured = [result for result in session.results if result.report]
    choices = [(_name(result), result.number) for result in reversed(measured)]
    newest = measured[-1] if measured else None
    before = measured[-2] if len(measured) > 1 else None
    return {
        panel.table: results_history.history_rows(session.results),
        panel.pareto: _pareto(session),
        panel.first: gr.update(choices=choices, value=before.number if before else None),
        panel.second: gr.update(choices=choices, value=newest.number if newest else None),
        panel.side: results_history.side_by_side(before, newest),
    }


PAINTS = {"all": paint, "below": paint, "results": paint}


def paint_pair(panel: ComparePanel, session: Session, first: int | None, second: int | None) -> dict:
    """Two results by their numbers."""
    return {panel.side: results_history.side_by_side(session.result(first), session.result(second))}


def _name(result: Result) -> str:
    chosen_by, repaired = labels.metric(result.metric), labels.repair(result.repaired)
    return f"#{result.number}: {chosen_by}, {repaired}, on {result.scored.text.name}"


def _pareto(session: Session):
    results = [result for result in session.results if result.report and result.scored.key == session.key]
    if session.scored is not None and session.scored.gallery is not None:
        return figures.sweep_figure(session.scored.gallery.sweep)
    if not results:
        return figures.empty_figure(_EMPTY, height=140)
    last = results[-1]
    points = [
        figures.Point(result.number, result.report.parameters, result.report.perplexity, result.floor)
        for result in results
        if result.text == last.text
    ]
    return figures.pareto_figure(points, (last.report.reference_parameters, last.report.reference_perplexity))
