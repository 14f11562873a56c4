"""The short way: name a size and a time, and have the rest chosen."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui import figures
from ui.format import numbers
from ui.server import limits
from ui.state.session import Session
from ui.views.advice import advice
from ui.work.compression import Expected


@dataclass(frozen=True)
class GoalPanel:
    size: gr.Slider
    minutes: gr.Number
    differ: gr.Checkbox
    probe: gr.Button
    advice: gr.HTML
    frontier: gr.Plot
    expected: gr.HTML
    go: gr.Button

    @property
    def inputs(self) -> list:
        return [self.size, self.minutes, self.differ]


def build(session: Session) -> GoalPanel:
    gr.HTML(
        "<h2><span>3</span> Goal</h2><p>Name a size and a time, and the rest is chosen for you.</p>",
        js_on_load=None,
    )
    with gr.Row(elem_classes="bottom"):
        size = gr.Slider(
            1, 90, value=session.options.smaller_by, step=1, label="Smaller by (%)",
            info="Of all parameters, embeddings included", buttons=[],
            elem_id="goal-size",
        )  # fmt: skip
        minutes = gr.Number(
            session.options.minutes, label="In at most (minutes)",
            info=f"More gives a better model; up to {limits.MAX_MINUTES}",
            elem_id="goal-minutes", min_width=170,
        )  # fmt: skip
        differ = gr.Checkbox(
            session.options.differ,
            label="Layers may differ",
            info="Loses less; GGUF and this project hold it as it is, stock transformers padded",
            elem_id="goal-differ",
        )
    advice = gr.HTML("", elem_id="goal-advice", js_on_load=None)
    frontier = gr.Plot(show_label=False, visible=False, elem_id="goal-frontier")
    expected = gr.HTML("", elem_id="goal-expected", js_on_load=None)
    with gr.Row(elem_classes="bottom"):
        probe = gr.Button("Predict", elem_id="goal-probe", size="sm", scale=0, min_width=100)
        go = gr.Button("Go", elem_id="goal-go", size="sm", scale=0, min_width=100)
    return GoalPanel(size, minutes, differ, probe, advice, frontier, expected, go)


def paint(panel: GoalPanel, session: Session) -> dict:
    """What the probe found, where it was made for the scores in view, with what was measured since."""
    probed, spec = session.frontier, session.spec
    if probed is None or spec is None:
        return {panel.advice: "", panel.frontier: gr.update(value=None, visible=False)}
    figure = figures.frontier_figure(probed.frontier, spec, session.options.smaller_by / 100, _measured(session))
    return {panel.advice: advice(probed, spec), panel.frontier: gr.update(value=figure, visible=True)}


PAINTS = {"all": paint, "plan": paint, "results": paint}


def _measured(session: Session) -> list[tuple[float, float]]:
    """Every measured result of the model in view: the share that went, and times the dense perplexity."""
    reports = [result.report for result in session.results if result.report and result.scored.key == session.key]
    return [
        (1 - report.parameters / report.reference_parameters, report.perplexity / report.reference_perplexity)
        for report in reports
    ]


def expected_line(expected: Expected, predicted: float | None = None) -> str:
    """What pressing the button will do, and how long each part should take."""
    cost = "" if predicted is None else f" Predicted: perplexity <b>{numbers.factor(1, predicted)}</b>."
    steps = "" if expected.recipe is None else f" Then {escape(expected.recipe.words)}; beside it the measuring."
    groups = f"{expected.groups} head group" + ("" if expected.groups == "1" else "s")
    return (
        f'<p class="estimate">{numbers.count(expected.parameters)} parameters: {groups} and '
        f"{expected.channels:,} channels in a layer on average.{cost}{steps}</p>"
    )
