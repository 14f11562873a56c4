"""Step 7, compare: every result so far as a row and as a point, and any two of them side by side."""

from dataclasses import dataclass

import gradio as gr

from transact.assets import ASSETS
from ui import figures
from ui.format import labels
from ui.state.session import Result, Session
from ui.text_sources.text_source import TextSource
from ui.views import results_history, side_by_side

_EMPTY = "Every result becomes a point here: prune twice with different settings and compare"
_PROMPT = "Once upon a time"
_SCRIPT = ASSETS / "results.js"


@dataclass(frozen=True)
class ComparePanel:
    table: gr.HTML
    pareto: gr.Plot
    csv: gr.Button
    first: gr.Dropdown
    second: gr.Dropdown
    restore: gr.Button
    side: gr.HTML
    prompt: gr.Textbox
    write: gr.Button
    texts: gr.HTML


def build(session: Session) -> ComparePanel:
    gr.HTML(
        "<h2><span>7</span> Compare</h2><p>Each result is a row and a point. Points further down and to the left are "
        "better; a cross is what random pruning of the same size gives, the floor that any metric must beat; open "
        "diamonds were predicted behind masks, without a cut.</p>",
        js_on_load=None,
    )
    pareto = gr.Plot(show_label=False, elem_id="pareto-plot", elem_classes="linked")
    table = gr.HTML(
        results_history.history_table(session.results),
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
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
    side = gr.HTML(side_by_side.side_by_side(None, None), elem_id="side-by-side", js_on_load=None)
    with gr.Row(elem_classes="bottom"):
        prompt = gr.Textbox(
            _PROMPT, label="Let both results go on from this", elem_id="pair-prompt", max_lines=4, scale=4
        )
        write = gr.Button("Let both write", elem_id="pair-button", scale=1, min_width=120)
    texts = gr.HTML("", elem_id="pair-texts", js_on_load=None)
    return ComparePanel(table, pareto, csv, first, second, restore, side, prompt, write, texts)


def paint(panel: ComparePanel, session: Session) -> dict:
    """The newest result and the one before it are compared until others are chosen."""
    measured = [result for result in session.results if result.report]
    choices = [(_name(result), result.number) for result in reversed(measured)]
    newest = measured[-1] if measured else None
    before = measured[-2] if len(measured) > 1 else None
    pair = tuple(each.number if each else None for each in (before, newest))
    return {
        panel.table: results_history.history_table(session.results, *pair),
        panel.pareto: _pareto(session),
        panel.first: gr.update(choices=choices, value=pair[0]),
        panel.second: gr.update(choices=choices, value=pair[1]),
        panel.side: side_by_side.side_by_side(before, newest),
        panel.texts: "",
    }


PAINTS = {"all": paint, "below": paint, "results": paint}


def paint_pair(panel: ComparePanel, session: Session, first: int | None, second: int | None) -> dict:
    """Two results by their numbers, which the table shows already."""
    pair = session.result(first), session.result(second)
    measured = tuple(each if each and each.report else None for each in pair)
    return {
        panel.side: side_by_side.side_by_side(*measured),
        panel.texts: "",
    }


def paint_marked(panel: ComparePanel, session: Session, first: int | None, second: int | None) -> dict:
    """Two results that were chosen in the lists: the table marks them."""
    table = results_history.history_table(session.results, first, second)
    return {**paint_pair(panel, session, first, second), panel.table: table}


def paint_texts(panel: ComparePanel, prompt: str, pair: tuple[Result, Result], written: list[str]) -> dict:
    """What both write."""
    both = ((result.number, words) for result, words in zip(pair, written, strict=True))
    return {panel.texts: side_by_side.two_texts(prompt, *both)}


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
        if (result.text, result.tokens) == (last.text, last.tokens)  # by one protocol
    ]
    dense = last.report.reference_parameters, last.report.reference_perplexity
    return figures.pareto_figure(points, dense, _predicted(session, last.text))


def _predicted(session: Session, text: TextSource) -> list[tuple[int, float]]:
    """Parameters and perplexity of plans that were tried or mapped behind masks on the same text."""
    predicted = []
    tried, grid = session.tried, session.redundancy
    if tried is not None and tried.text == text.name and tried.plan.dense_spec == session.spec:
        predicted.append((tried.plan.spec.num_parameters, tried.masked))
    if grid is not None and grid.text == text and grid.scored.key == session.key:
        predicted += [(point.plan.spec.num_parameters, point.perplexity) for point in grid.points if not _whole(point)]
    return predicted


def _whole(point) -> bool:
    return point.plan.spec == point.plan.dense_spec
